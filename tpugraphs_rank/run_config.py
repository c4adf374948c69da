"""The configuration of a training run.

Sections group the settings; the last part of each name is unique over all sections, since it is
also the name of the flag (`--hidden_width`).
"""

import dataclasses

from tpugraphs_rank.config import setting

MODELS = ("residual_gnn", "attention_gnn")
VALIDATION_METRICS = ("kendall_tau", "opa", "top1_slowdown", "top5_slowdown", "top10_slowdown")
# What training makes of equal configurations of one graph.
DUPLICATES = ("keep", "mean", "minimum", "first")
# Which configurations of a validation graph are scored in training.
VALIDATION_CONFIGS = ("all", "published")
# Whether graphs are read from packed files.
PACKED = ("auto", "always", "never")
# Which synthetic programs stand too near to what validation and test hold back.
HELD_BACK = ("unseen", "structure", "content")
LOSSES = ("list_mle", "pairwise_logistic", "pairwise_hinge", "softmax", "approx_ndcg", "mse")


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Which graphs and configurations take part."""

  collection: str = setting("tile:xla_cpu", "Name of a collection, or path of its JSON descriptor.")
  data_root: str | None = setting(
      None, "Folder of the public collections; otherwise TPUGRAPHS_RANK_DATA, then the platform's.",
      hashed=False)
  split_by: str = setting(
      "program", "What validation and test hold back: whole programs, or distinct configurations "
      "of programs that training knows.", choices=("program", "configuration"))
  train_fraction: float = setting(
      0.6, "Share of distinct configurations to train on, with split_by=configuration.",
      above=0.0, maximum=0.9)
  valid_fraction: float = setting(
      0.1, "Share of distinct configurations to validate on, with split_by=configuration.",
      above=0.0, maximum=0.5)
  min_configs: int = setting(
      2, "Graphs with fewer distinct configurations are left out (and counted).", minimum=2)
  max_graphs: int | None = setting(
      None, "At most this many training programs, drawn with the seed.", minimum=1)
  duplicates: str = setting(
      "keep", "What training makes of equal configurations of one graph: keep all, or one with "
      "their mean, least or first runtime. Validation and test judge all of them, as published.",
      choices=DUPLICATES)
  packed: str = setting(
      "auto", "Read graphs from the files of `python -m tpugraphs_rank.cli.pack`, which hold in memory only "
      "what a step needs: where the split is packed as it is now, always (packing first what is "
      "not), or never. The results are the same.", choices=PACKED, hashed=False)
  packed_root: str | None = setting(
      None, "Folder of packed collections; otherwise packed/ beside the graphs.", hashed=False)


@dataclasses.dataclass(frozen=True)
class BatchConfig:
  """What one training step sees."""

  batch_size: int = setting(8, "Graphs a step.", minimum=1)
  max_configs: int = setting(32, "Configurations a list (of one graph, in one step).", minimum=2)
  lists_per_graph: int = setting(4, "Lists drawn from each graph in an epoch.", minimum=1)
  config_skew: float = setting(
      0.0, "Skew of configuration sampling towards fast ones: the fastest is drawn exp(skew) times "
      "as readily as the slowest; 0 is uniform.", minimum=0.0, maximum=20.0)
  segment_mode: str = setting(
      "full", "Segment dropout: whole graphs, one segment alone, or gradients through one segment "
      "only.", choices=("full", "drop", "backprop"))
  max_nodes: int = setting(1000, "Nodes a segment, with segment dropout.", minimum=1)
  edge_drop_rate: float = setting(
      0.0, "Share of edges left out at random in a training step.", minimum=0.0, maximum=0.95)
  feature_noise: float = setting(
      0.0, "Deviation of the noise added to scaled node features in training.", minimum=0.0,
      maximum=2.0)
  eval_batch_configs: int = setting(
      256, "Configurations scored at a time in evaluation.", minimum=1, hashed=False)
  scoring_megabytes: int = setting(
      512, "Memory that the configurations of a large program may take while they are scored, "
      "about; scores do not depend on it.", minimum=1, hashed=False)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The shape of the network."""

  model: str = setting("residual_gnn", "Which model.", choices=MODELS)
  members: int = setting(
      1, "Networks that are trained side by side and whose scores are averaged.", minimum=1,
      maximum=64)
  opcode_width: int = setting(32, "Width of the opcode embedding.", minimum=1)
  hidden_width: int = setting(64, "Width of the hidden states.", minimum=1)
  num_convolutions: int = setting(2, "Graph convolutions.", minimum=0, maximum=64)
  mlp_layers: int = setting(1, "Layers of the MLP in each convolution.", minimum=1, maximum=16)
  head_widths: tuple[int, ...] = setting(
      (64,), "Widths of the hidden layers of the final MLP.", minimum=1)
  activation: str = setting("leaky_relu", "Activation.",
                            choices=("leaky_relu", "relu", "gelu", "tanh"))
  residual: str = setting("add", "How a convolution's input joins its output.",
                          choices=("add", "concat", "none"))
  aggregation: str = setting(
      "mean", "Weights of the neighbours: 1/degree, 1/sqrt(degree product), or 1.",
      choices=("mean", "symmetric", "sum"))
  directions: str = setting("both", "Edges that carry messages.",
                            choices=("both", "operands", "users"))
  pooling: tuple[str, ...] = setting(("mean", "sum"), "Poolings over nodes, concatenated.",
                                     choices=("mean", "sum", "max"))
  pool_l2: bool = setting(True, "L2-normalise the sum over nodes.")
  join: str = setting(
      "early", "Where a tile configuration joins: at the nodes, after pooling, or both.",
      choices=("early", "late", "both"))
  layout_features: str = setting(
      "entries", "What is seen of a layout: its numbers one by one, whether it is constrained and to "
      "another than the row-major order, or both; or only whether its minor-most dimension is "
      "another than the last.", choices=("entries", "order", "both", "minor"))
  layout_join: str = setting(
      "add", "How a layout joins its node: added, or added once as it is and once more each "
      "tensor's part in proportion to the root of that tensor's size; shapes tell a product's "
      "operands apart.", choices=("add", "sized"))
  layer_norm: bool = setting(False, "Normalise each hidden state before its MLP.")
  dropout: float = setting(
      0.0, "Dropout rate of hidden states and pooled vectors; one mask for all configurations.",
      minimum=0.0, maximum=0.9)
  attention_width: int = setting(32, "Width of attention's queries and keys.", minimum=1)
  attention_reference: int = setting(
      32, "Configurations in the fixed reference list that attention_gnn looks at when it scores.",
      minimum=1)


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """What training minimises: the weighted sum of the losses."""

  losses: tuple[str, ...] = setting(("list_mle",), "The losses that are added up.", choices=LOSSES)
  loss_weights: tuple[float, ...] = setting((1.0,), "One weight for each loss.", minimum=0.0)
  l2_regularization: float = setting(1e-6, "Weight of the squared norm of all kernels.",
                                     minimum=0.0)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Adam, its schedule and clipping."""

  learning_rate: float = setting(1e-3, "Peak learning rate of Adam.", above=0.0)
  schedule: str = setting("cosine", "Learning rate after the warm-up.",
                          choices=("constant", "cosine"))
  warmup_steps: int = setting(50, "Steps of linear warm-up.", minimum=0)
  clip_norm: float = setting(1.0, "Clip the gradient to this global norm.", above=0.0)
  ema_decay: float = setting(
      0.0, "Decay a step of the averaged weights that validation and scoring use; 0: the weights "
      "themselves.", minimum=0.0, maximum=0.99999)


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
  """How long, how judged, with which seed."""

  seed: int = setting(0, "Seed of everything random.", minimum=0, maximum=2 ** 31 - 1)
  epochs: int = setting(60, "Epochs at most.", minimum=1)
  steps_per_epoch: int | None = setting(
      None, "Steps of an epoch; training goes round the programs as often as that takes. None: as "
      "many as lists_per_graph lists of each program fill.", minimum=1)
  validation_metric: str = setting(
      "kendall_tau", "Ranking metric on the validation split that picks the best checkpoint and "
      "stops training.", choices=VALIDATION_METRICS)
  validation_configs: str = setting(
      "all", "Configurations of a validation graph that the metric is computed on: all, or the "
      "1,000 that the published figures of the public layout collections are computed on.",
      choices=VALIDATION_CONFIGS)
  patience: int = setting(
      20, "Stop after this many epochs without a better validation metric.", minimum=1)
  validate_every: int = setting(1, "Epochs between two validations.", minimum=1)
  initial_checkpoint: str | None = setting(
      None, "Run directory whose best weights and normalizer training starts from.", hashed=False)
  threads: int = setting(1, "Threads of TensorFlow within an operation.", minimum=1, hashed=False)
  tensorboard: bool = setting(True, "Write TensorBoard event files.", hashed=False)


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
  """Measured synthetic programs that train beside the real ones; validation stays real."""

  synthetic: str | None = setting(
      None, "Collection, or path of its descriptor, whose training programs are mixed into "
      "training; None: none.")
  synthetic_share: float = setting(
      0.5, "Share of each step's lists that is synthetic, rounded, one at least; with 1 no real "
      "program trains.", above=0.0, maximum=1.0)
  synthetic_weight: float = setting(
      1.0, "Weight of a synthetic list's loss; that of a real list is 1.", above=0.0)
  synthetic_graphs: int | None = setting(
      None, "At most this many synthetic programs, drawn with the seed.", minimum=1)
  synthetic_held_back: str = setting(
      "unseen", "Synthetic programs that are left out: those whose graph, whatever the shapes, "
      "validation or test holds and the real training split does not (unseen), or that they hold "
      "at all (structure); or only those that they hold in the same shapes (content), which are "
      "left out in any case.", choices=HELD_BACK)
  synthetic_any_target: bool = setting(
      False, "Take synthetic programs that were measured on another machine, too: what is learned "
      "is the order of a program's configurations, not their times.", hashed=False)
  synthetic_shuffled: bool = setting(
      False, "Permute the runtimes of each synthetic program: a control that says what the graphs "
      "bring without their measurements.")


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """Everything that decides what a training run computes."""

  data: DataConfig = DataConfig()
  batch: BatchConfig = BatchConfig()
  model: ModelConfig = ModelConfig()
  loss: LossConfig = LossConfig()
  optimizer: OptimizerConfig = OptimizerConfig()
  training: TrainingConfig = TrainingConfig()
  augment: AugmentConfig = AugmentConfig()
