"""The configuration of a training run.

The settings are grouped into sections. The last part of a setting's name is unique over all
sections, because it is also the name of the flag (`--hidden_width`) and of the keyword in
`tpugraphs_rank.train`.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from tpugraphs_rank import plugins
from tpugraphs_rank import registries
from tpugraphs_rank.config import section
from tpugraphs_rank.config import setting

# The names that ship with the package. Plugins register more of them: see `registries`.
MODELS = ("residual_gnn", "attention_gnn")
LOSSES = ("list_mle", "pairwise_logistic", "pairwise_hinge", "softmax", "approx_ndcg", "mse")
VALIDATION_METRICS = ("kendall_tau", "opa", "top1_slowdown", "top5_slowdown", "top10_slowdown")
# How training treats equal configurations of one graph.
DUPLICATES = ("keep", "mean", "minimum", "first")
# Which configurations of a validation graph are scored during training.
VALIDATION_CONFIGS = ("all", "published")
# Whether graphs are read from packed files.
PACKED = ("auto", "always", "never")
# What the boosted trees of an ensemble learn.
TREES_OBJECTIVES = REGRESSION, LAMBDARANK = ("regression", "lambdarank")
# Which synthetic programs are too similar to the validation and test graphs.
HELD_BACK = ("unseen", "structure", "content")


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Which graphs and configurations a run uses."""

  collection: str = setting(
      "tile:xla_cpu", "Name of a collection, or path of its JSON descriptor.", common=True)
  data_root: str | None = setting(
      None, "Folder of the public collections. Default: the environment variable "
      "TPUGRAPHS_RANK_DATA, then the data folder of this platform.", hashed=False, common=True)
  split_by: str = setting(
      "program", "What the validation and test splits hold out: whole programs, or some of the "
      "distinct configurations of each program.", choices=("program", "configuration"))
  train_fraction: float = setting(
      0.6, "Fraction of each program's distinct configurations used for training, with "
      "--split_by=configuration.", above=0.0, maximum=0.9)
  valid_fraction: float = setting(
      0.1, "Fraction of each program's distinct configurations used for validation, with "
      "--split_by=configuration.", above=0.0, maximum=0.5)
  min_configs: int = setting(
      2, "Skip graphs that have fewer distinct configurations than this. The log counts them.",
      minimum=2, maximum=10**9)
  max_graphs: int | None = setting(
      None, "Maximum number of training programs, sampled with the seed. Default: all.", minimum=1,
      common=True, maximum=10**9)
  duplicates: str = setting(
      "keep", "How training treats equal configurations of one graph: keep all of them, or keep "
      "one with their mean, minimum or first runtime. Validation and test always keep all of them, "
      "as the published results do.", choices=DUPLICATES)
  packed: str = setting(
      "auto", "When to read graphs from the files that `tpugraphs-rank pack` writes, which load "
      "only what a step needs: if an up-to-date packed split exists (auto), always (missing splits "
      "are packed first), or never. The results are the same.", choices=PACKED, hashed=False)
  packed_root: str | None = setting(
      None, "Folder of packed collections. Default: packed/ next to the graphs.", hashed=False)
  partial: bool = setting(
      False, "If graphs of the collection are missing, use those that exist. The log and the "
      "reports state how many are missing.", hashed=False)


@dataclasses.dataclass(frozen=True)
class BatchConfig:
  """What one training step computes on."""

  batch_size: int = setting(
      8, "Lists of configurations per training step.", minimum=1, maximum=65536, common=True)
  max_configs: int = setting(
      32, "Maximum configurations per list. A list holds configurations of one graph.", minimum=2,
      common=True, maximum=10**6)
  lists_per_graph: int = setting(
      4, "Lists sampled from each graph per epoch.", minimum=1, maximum=10**6, common=True)
  config_skew: float = setting(
      0.0, "How strongly sampling prefers fast configurations: the fastest is exp(skew) times as "
      "likely to be sampled as the slowest. 0 samples uniformly.", minimum=0.0, maximum=20.0)
  segment_mode: str = setting(
      "full", "How training treats large graphs: full uses the whole graph, drop uses one segment "
      "only, edges uses only the nodes of randomly drawn edges, backprop computes on the whole "
      "graph with gradients through one segment only.",
      choices=("full", "drop", "edges", "backprop"))
  max_nodes: int = setting(
      1000, "Maximum nodes per segment, with --segment_mode=drop, edges or backprop.", minimum=1,
      maximum=10**9)
  edge_drop_rate: float = setting(
      0.0, "Fraction of edges dropped at random in each training step.", minimum=0.0, maximum=0.95)
  feature_noise: float = setting(
      0.0, "Standard deviation of the noise added to the scaled node features during training.",
      minimum=0.0, maximum=2.0)
  eval_batch_configs: int = setting(
      256, "Configurations scored per batch in validation and evaluation.", minimum=1,
      maximum=10**6, hashed=False)
  scoring_megabytes: int = setting(
      512, "Approximate memory in MB for the configurations of a large program during scoring. "
      "Scores do not depend on it.", minimum=1, maximum=10**7, hashed=False)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The architecture of the network."""

  model: str = setting(
      "residual_gnn", "Name of the model.", choices=registries.MODELS.names, common=True)
  model_options: dict[str, Any] = setting(
      {}, "Settings of a custom model as a JSON object. The built-in models take none.")
  members: int = setting(
      1, "Number of networks in the ensemble. They train together, and their scores are averaged.",
      minimum=1, maximum=64, common=True)
  kinds: tuple[dict[str, Any], ...] = setting(
      (), "Further kinds of networks in the ensemble, as a JSON list of objects. Each object holds "
      "the settings, by flag name, that differ from those of the run: model, features, objective, "
      "batches, epochs. Kinds train one after the other, and the standardised scores of all "
      "networks are averaged.", objects=True)
  opcode_width: int = setting(32, "Width of the opcode embedding.", minimum=1, maximum=65536)
  hidden_width: int = setting(
      64, "Width of the hidden states.", minimum=1, maximum=65536, common=True)
  num_convolutions: int = setting(
      2, "Number of graph convolutions.", minimum=0, maximum=64, common=True)
  mlp_layers: int = setting(
      1, "Number of MLP layers in each convolution.", minimum=1, maximum=16)
  head_widths: tuple[int, ...] = setting(
      (64,), "Widths of the hidden layers of the final MLP.", minimum=1, maximum=65536)
  activation: str = setting("leaky_relu", "Activation function.",
                            choices=("leaky_relu", "relu", "gelu", "tanh"))
  residual: str = setting(
      "add", "How a convolution combines its input with its output.",
      choices=("add", "concat", "none"))
  aggregation: str = setting(
      "mean", "Weights of the neighbours in a convolution: mean is 1/degree, symmetric is "
      "1/sqrt(product of both degrees), sum is 1. max takes the largest message in each channel.",
      choices=("mean", "symmetric", "sum", "max"))
  directions: str = setting(
      "both", "Direction of messages: from operands, from users, or both.",
      choices=("both", "operands", "users"))
  pooling: tuple[str, ...] = setting(
      ("mean", "sum"), "Poolings over nodes; their results are concatenated.",
      choices=registries.POOLINGS.names)
  pool_l2: bool = setting(True, "L2-normalise the sum over nodes.")
  join: str = setting(
      "early", "Where a tile configuration enters the model: at the nodes (early), after pooling "
      "(late), or both.", choices=("early", "late", "both"))
  tile_features: str = setting(
      "bounds", "Features of a tile: its bounds, and sizes and ratios that follow from them "
      "(bounds); or also the terms of an analytic cost of its steps, traffic and arithmetic "
      "(costs).", choices=("bounds", "costs"))
  prior: str = setting(
      "analytic", "What scores tiles of programs that are unlike the training programs: an "
      "analytic cost, whose weight training fits on held-out groups (analytic), or the network "
      "alone (none). Collections of layouts, of few groups or of few programs have no prior.",
      choices=("analytic", "none"))
  trees_weight: float = setting(
      0.0, "Weight of boosted trees in the scores, relative to the networks: training also fits "
      "the trees and adds their scores. 0: no trees.", minimum=0.0, maximum=10.0)
  trees_objectives: tuple[str, ...] = setting(
      (REGRESSION,), "What the boosted trees learn: the runtimes of a program's configurations "
      "(regression), their order (lambdarank, with LightGBM), or both, each with trees of its "
      "own, whose scores are averaged.", choices=TREES_OBJECTIVES)
  layout_features: str = setting(
      "entries", "Features of a layout: its numbers (entries); whether it is constrained, and "
      "whether it differs from row-major order (order); all of these (both); only whether its "
      "minor-most dimension differs from the last dimension (minor); or an embedding of each of "
      "its numbers, learned in one table for all places (digits).",
      choices=("entries", "order", "both", "minor", "digits"))
  layout_join: str = setting(
      "add", "How a layout is added to its node: once (add), or a second time with each tensor's "
      "part weighted by the square root of the tensor's size (sized). The sizes distinguish the "
      "operands of a product.", choices=("add", "sized"))
  layout_extents: bool = setting(
      False, "Give the network also the lengths of the two axes that a requested layout makes "
      "minor-most, and how they differ from row-major order. Padding and vectors depend on them.")
  layout_scale: float = setting(
      1.0, "Factor of the features of layouts. A few nodes of a large program change, so that a "
      "factor above 1 makes training follow them from its first steps.", above=0.0, maximum=1e4)
  layout_costs: str = setting(
      "none", "Copies and loops that the layouts of a configuration cause, by a simulated layout "
      "assignment: not used (none); their sums over the program join after pooling (totals); those "
      "of each request join at its node (requests); or both.",
      choices=("none", "totals", "requests", "both"))
  layer_norm: bool = setting(False, "Normalise each hidden state before its MLP.")
  node_layers: tuple[str, ...] = setting(
      (), "Layers that transform the hidden states before the MLP of each convolution, in this "
      "order. instance_norm and node_attention mix the nodes of a graph, so that training and "
      "scoring cannot share work between configurations.", choices=registries.NODE_LAYERS.names)
  dropout: float = setting(
      0.0, "Dropout rate of hidden states and pooled vectors. All configurations share one mask.",
      minimum=0.0, maximum=0.9, common=True)
  attention_width: int = setting(
      32, "Width of the queries and keys of attention_gnn.", minimum=1, maximum=65536)
  attention_kind: str = setting(
      "softmax", "How attention_gnn weights configurations: a softmax of products (softmax), "
      "linear attention, whose time does not grow with the number of configurations to compare "
      "with (linear), or a softmax in each channel alone (channels).",
      choices=("softmax", "linear", "channels"))
  attention_temperature: bool = setting(
      False, "Learn the temperature of attention_gnn, one number for each convolution.")
  attention_reference: int = setting(
      32, "Number of reference configurations that attention_gnn compares with when it scores.",
      minimum=1, maximum=10**6)


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """What training minimises: the weighted sum of the losses."""

  losses: tuple[str, ...] = setting(
      ("list_mle",), "Names of the losses. Training minimises their weighted sum.",
      choices=registries.LOSSES.names, common=True)
  loss_weights: tuple[float, ...] = setting(
      (1.0,), "Weight of each loss.", minimum=0.0, maximum=1e6)
  l2_regularization: float = setting(
      1e-6, "Weight of the squared norm of all kernels.", minimum=0.0, maximum=1e6)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Adam, its learning-rate schedule and gradient clipping."""

  learning_rate: float = setting(
      1e-3, "Peak learning rate of Adam.", above=0.0, maximum=1e3, common=True)
  schedule: str = setting(
      "cosine", "Learning rate after the warm-up: constant, or a cosine decay to 1 % of the peak.",
      choices=("constant", "cosine"))
  warmup_steps: int = setting(50, "Steps of linear warm-up.", minimum=0, maximum=10**9)
  clip_norm: float = setting(1.0, "Maximum global norm of the gradient.", above=0.0, maximum=1e9)
  ema_decay: float = setting(
      0.0, "Decay per step of the exponential moving average of the weights, which validation and "
      "scoring use. 0 uses the weights themselves.", minimum=0.0, maximum=0.99999)


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
  """Length, validation, seed and start of training."""

  seed: int = setting(
      0, "Seed of all random numbers.", minimum=0, maximum=2 ** 31 - 1, common=True)
  epochs: int = setting(60, "Maximum number of epochs.", minimum=1, maximum=10**7, common=True)
  steps_per_epoch: int | None = setting(
      None, "Training steps per epoch; programs repeat as often as needed. Default: as many as "
      "--lists_per_graph lists of each program fill.", minimum=1, maximum=10**7)
  validation_metric: str = setting(
      "kendall_tau", "Metric on the validation split that selects the best checkpoint and decides "
      "about early stopping.", choices=registries.VALIDATION_METRICS.names, common=True)
  validation_configs: str = setting(
      "all", "Configurations of each validation graph that the metric uses: all, or the 1,000 "
      "behind the published results on the public layout collections.",
      choices=VALIDATION_CONFIGS)
  patience: int = setting(
      20, "Stop after this many epochs without a better validation metric.", minimum=1,
      maximum=10**9, common=True)
  validate_every: int = setting(1, "Epochs between validations.", minimum=1, maximum=10**9)
  initial_checkpoint: str | None = setting(
      None, "Run directory to start from: training begins with its best weights and its feature "
      "scaling.", hashed=False, common=True)
  plugin: tuple[str, ...] = setting(
      (), "Python modules or files to import first. They register models, losses or metrics by "
      "name.", hashed=False, common=True)
  threads: int = setting(
      1, "Threads that TensorFlow uses within one operation.", minimum=1,
      maximum=1024, hashed=False)
  tensorboard: bool = setting(True, "Write TensorBoard event files.", hashed=False)


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
  """Measured synthetic programs in training. Validation always uses real programs."""

  synthetic: str | None = setting(
      None, "Collection of synthetic programs (a name or the path of a descriptor) whose training "
      "split is added to training. Default: none.")
  synthetic_share: float = setting(
      0.5, "Fraction of each step's lists that come from synthetic programs, rounded to at least "
      "one list. 1 trains on synthetic programs only.", above=0.0, maximum=1.0)
  synthetic_weight: float = setting(
      1.0, "Weight of a synthetic list in the loss. A real list has weight 1.", above=0.0,
      maximum=1e6)
  synthetic_graphs: int | None = setting(
      None, "Maximum number of synthetic programs, sampled with the seed. Default: all.", minimum=1,
      maximum=10**9)
  synthetic_held_back: str = setting(
      "unseen", "Which synthetic programs to leave out because they resemble the validation or "
      "test split. unseen: programs whose graph, ignoring shapes, is in those splits and not in "
      "the real training split. structure: programs whose graph, ignoring shapes, is in those "
      "splits. content: only programs whose graph is in those splits with the same shapes; all "
      "three choices leave these out.", choices=HELD_BACK)
  synthetic_any_target: bool = setting(
      False, "Accept synthetic programs that were measured on other hardware. Training uses only "
      "the order of a program's configurations, not their times.", hashed=False)
  synthetic_shuffled: bool = setting(
      False, "Permute the runtimes of each synthetic program. This control shows what the graphs "
      "contribute without their measurements.")


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """Everything that determines the result of a training run."""

  data: DataConfig = section(DataConfig(), "Data")
  batch: BatchConfig = section(BatchConfig(), "Batches")
  model: ModelConfig = section(ModelConfig(), "Model")
  loss: LossConfig = section(LossConfig(), "Loss")
  optimizer: OptimizerConfig = section(OptimizerConfig(), "Optimizer")
  training: TrainingConfig = section(TrainingConfig(), "Training")
  augment: AugmentConfig = section(AugmentConfig(), "Synthetic programs")

  @staticmethod
  def prepare(values: Mapping[str, Any], source: str | None = None) -> Mapping[str, Any]:
    """Loads the plugins that JSON values name, so that what they register is a valid choice.

    Args:
      values: JSON values.
      source: the file that holds them; None: the user has named the plugins.

    Returns:
      The values, with the plugins as later calls from other folders find them.

    Raises:
      ConfigError, MissingDataError: as `plugins.load_all`.
    """
    training = values.get("training")
    names = training.get("plugin") if isinstance(training, Mapping) else None
    if (not isinstance(training, Mapping) or not isinstance(names, (list, tuple)) or not names
        or not all(isinstance(name, str) for name in names)):
      return values
    return {**values, "training": {**training, "plugin": list(plugins.load_all(names, source))}}
