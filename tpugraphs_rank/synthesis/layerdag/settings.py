"""The configuration of a LayerDAG; as in `tpugraphs_rank.run_config`, each name is a flag's too."""

import dataclasses

from tpugraphs_rank.config import setting

# The order in which a graph grows.
DIRECTIONS = ("users_first", "operands_first")
ENCODERS = ("causal", "bidirectional")
MODULES = ("sizes", "nodes", "edges")


@dataclasses.dataclass(frozen=True)
class GraphSettings:
  """Which graphs are learned from."""

  graphs: str = setting("", "File of training graphs, as `tpugraphs_rank.cli.layerdag_graphs` writes it.",
                        hashed=False)
  valid_graphs: str | None = setting(
      None, "File of validation graphs; otherwise a share of the training graphs, structural twins "
      "together.", hashed=False)
  conditions: tuple[str, ...] = setting(
      ("size",), "What is asked for in sampling: names of labels, size (the number of nodes), "
      "root (the first attribute of the first root: for kernels, which operation ends it).")
  direction: str = setting(
      "users_first", "Whether graphs grow from the roots towards what they consume, or from the "
      "nodes without operands; then what the last node does not need is cut off.",
      choices=DIRECTIONS)


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
  """The shape of the three modules."""

  encoder: str = setting(
      "causal", "What a node's state sees: the nodes before it, which makes one pass serve all "
      "prefixes of a graph, or its whole prefix, encoded anew for each layer.", choices=ENCODERS)
  width: int = setting(96, "Width of the hidden states.", minimum=4)
  encoder_layers: int = setting(3, "Rounds of messages in each encoder.", minimum=0, maximum=16)
  node_layers: int = setting(2, "Transformer layers over the nodes of a new layer.", minimum=1,
                             maximum=16)
  heads: int = setting(4, "Heads of the transformer.", minimum=1)
  edge_width: int = setting(32, "Width of the states of pairs of an earlier and a new node.",
                            minimum=2)
  operand_counts: bool = setting(
      False, "Whether the networks are told which operands each candidate has already, and for each "
      "pair how many of the user's operands are like this one in the first attribute: for rules on "
      "the operands of a node.")
  node_steps: int = setting(16, "Steps of the diffusion of nodes.", minimum=2)
  edge_steps: int = setting(12, "Steps of the diffusion of edges.", minimum=2)
  dropout: float = setting(0.1, "Dropout rate of hidden states.", minimum=0.0, maximum=0.9)
  condition_dropout: float = setting(
      0.1, "Share of the graphs whose conditions training leaves open, for guidance.",
      minimum=0.0, maximum=1.0)
  attribute_dropout: float = setting(
      0.0, "Share of the attributes of earlier nodes that training hides: a few of them would tell "
      "which training graph it is.", minimum=0.0, maximum=0.9)
  condition_noise: float = setting(
      0.0, "Standard deviation of what training adds to the scalars that are asked for, whose own "
      "is 1 among the training graphs: alike labels ask for alike graphs.", minimum=0.0,
      maximum=10.0)


@dataclasses.dataclass(frozen=True)
class FitSettings:
  """How long, with which seed."""

  seed: int = setting(0, "Seed of everything random.", minimum=0, maximum=2 ** 31 - 1)
  batch_graphs: int = setting(32, "Graphs a step.", minimum=1)
  epochs: int = setting(400, "Epochs at most.", minimum=1)
  patience: int = setting(
      60, "A module stops after this many epochs without a better validation likelihood.",
      minimum=1)
  validate_every: int = setting(5, "Epochs between two validations.", minimum=1)
  learning_rate: float = setting(1e-3, "Peak learning rate of Adam.", above=0.0)
  warmup_steps: int = setting(50, "Steps of linear warm-up; a cosine follows.", minimum=0)
  clip_norm: float = setting(1.0, "Clip the gradient to this global norm.", above=0.0)
  average: float = setting(
      0.99, "Weights are judged and kept as their moving averages, which hold on to this share of "
      "themselves at each step; 0: as they are.", minimum=0.0, maximum=0.9999)
  valid_fraction: float = setting(
      0.15, "Share of the training graphs to validate on where no file of them is given.",
      above=0.0, maximum=0.5)
  threads: int = setting(1, "Threads of TensorFlow within an operation.", minimum=1, hashed=False)
  tensorboard: bool = setting(True, "Write TensorBoard event files.", hashed=False)


@dataclasses.dataclass(frozen=True)
class LayerDagConfig:
  """Everything that decides what a training of LayerDAG computes."""

  data: GraphSettings = GraphSettings()
  network: NetworkSettings = NetworkSettings()
  fit: FitSettings = FitSettings()
