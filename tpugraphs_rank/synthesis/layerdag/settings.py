"""The configuration of a LayerDAG; each setting's name is also a flag, as in `run_config`."""

import dataclasses

from tpugraphs_rank.config import setting

# The orders in which a graph can grow.
DIRECTIONS = ("users_first", "operands_first")
ENCODERS = ("causal", "bidirectional")


@dataclasses.dataclass(frozen=True)
class GraphSettings:
  """The training graphs and their conditions."""

  graphs: str = setting(
      "", "File of training graphs, written by `tpugraphs-rank layerdag graphs`.", hashed=False)
  valid_graphs: str | None = setting(
      None, "File of validation graphs. Default: a share of the training graphs, with structural "
      "twins kept together.", hashed=False)
  conditions: tuple[str, ...] = setting(
      ("size",), "Conditions for sampling: names of labels; counts of a graph, namely size "
      "(number of nodes), depth (layers), edges, leaves (nodes without operands) and roots (nodes "
      "without users); or root (first attribute of the first root: for kernels, the operation that "
      "computes the result).")
  direction: str = setting(
      "users_first", "Order of growth. users_first: from the roots to the operands. "
      "operands_first: from the nodes without operands; nodes that the last node does not depend "
      "on are removed.",
      choices=DIRECTIONS)


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
  """The sizes of the three networks."""

  encoder: str = setting(
      "causal", "What a node's state depends on. causal: only earlier nodes, so that one pass "
      "encodes all prefixes of a graph. bidirectional: the whole prefix, encoded again for each "
      "layer.", choices=ENCODERS)
  width: int = setting(96, "Width of the hidden states.", minimum=4, maximum=65536)
  encoder_layers: int = setting(
      3, "Rounds of message passing in each encoder.", minimum=0, maximum=16)
  node_layers: int = setting(
      2, "Transformer layers over the nodes of a new layer.", minimum=1, maximum=16)
  heads: int = setting(4, "Attention heads of the transformer.", minimum=1, maximum=1024)
  edge_width: int = setting(32, "Width of the states of pairs (earlier node, new node).",
                            minimum=2, maximum=65536)
  operand_counts: bool = setting(
      False, "Give the networks the operands that each candidate already has, and, for each pair, "
      "the number of the user's operands with the same first attribute. Useful for graphs with "
      "rules about a node's operands.")
  node_steps: int = setting(16, "Diffusion steps for nodes.", minimum=2, maximum=10**4)
  edge_steps: int = setting(12, "Diffusion steps for edges.", minimum=2, maximum=10**4)
  dropout: float = setting(0.1, "Dropout rate of hidden states.", minimum=0.0, maximum=0.9)
  condition_dropout: float = setting(
      0.1, "Share of graphs that are trained without conditions, which guidance needs.",
      minimum=0.0, maximum=1.0)
  attribute_dropout: float = setting(
      0.0, "Share of the attributes of earlier nodes that are hidden in training, to reduce "
      "memorization of training graphs.", minimum=0.0, maximum=0.9)
  condition_noise: float = setting(
      0.0, "Standard deviation of the noise that training adds to scalar conditions, whose own "
      "standard deviation is 1. Similar labels then give similar graphs.", minimum=0.0,
      maximum=10.0)


@dataclasses.dataclass(frozen=True)
class FitSettings:
  """Training schedule and seed."""

  seed: int = setting(0, "Random seed.", minimum=0, maximum=2 ** 31 - 1)
  batch_graphs: int = setting(32, "Graphs per step.", minimum=1, maximum=65536)
  epochs: int = setting(400, "Maximum number of epochs.", minimum=1, maximum=10**7)
  patience: int = setting(
      60, "A network stops after this many epochs without an improved validation likelihood.",
      minimum=1, maximum=10**9)
  validate_every: int = setting(5, "Epochs between validations.", minimum=1, maximum=10**9)
  learning_rate: float = setting(1e-3, "Peak learning rate of Adam.", above=0.0, maximum=1e3)
  warmup_steps: int = setting(
      50, "Steps of linear warm-up, followed by cosine decay.", minimum=0, maximum=10**9)
  clip_norm: float = setting(1.0, "Clip the gradient to this global norm.", above=0.0, maximum=1e9)
  average: float = setting(
      0.99, "Decay of the exponential moving average of the weights. Validation and the saved "
      "model use the average. 0: no averaging.", minimum=0.0, maximum=0.9999)
  valid_fraction: float = setting(
      0.15, "Share of the training graphs used for validation if valid_graphs is not set.",
      above=0.0, maximum=0.5)
  calibration_rounds: int = setting(
      0, "Rounds of calibration after training. Each generates up to 128 graphs, and shifts logits "
      "so that the frequencies of kinds of nodes, and of their users, become those of the training "
      "graphs. 0: no calibration.", minimum=0, maximum=1000)
  threads: int = setting(
      1, "TensorFlow threads within an operation.", minimum=1, maximum=1024, hashed=False)
  tensorboard: bool = setting(True, "Write TensorBoard event files.", hashed=False)


@dataclasses.dataclass(frozen=True)
class LayerDagConfig:
  """All settings that determine the result of training a LayerDAG."""

  data: GraphSettings = GraphSettings()
  network: NetworkSettings = NetworkSettings()
  fit: FitSettings = FitSettings()


DEFAULT_CONFIG = LayerDagConfig()
