"""The interface of a model: what every ranking model does, and what fast ones may do in addition.

A plain model derives from `RankingModel` and implements two methods: `required_inputs` names the
arrays that it reads, and `call` turns them into scores. Such a model trains, validates, resumes,
evaluates, ranks and submits. docs/extending.md shows a complete one.

Shapes: B graphs, N nodes in all, M edges in all, and for each graph a list of C configurations.
In a layout batch NC nodes are configurable. R reference configurations may precede each list (see
clause 4); T = R + C.

The contract:

1.  Scores. `call` returns finite scores [B, C]. A higher score means a faster configuration. Only
    differences within a list matter, so scores may have any offset and scale.
2.  Inputs. A model reads only the arrays that `required_inputs` names (`models.inputs.INPUTS` lists
    all of them). Runtimes, labels and names of graphs are not among them.
3.  Equal configurations. Equal configurations of a graph have equal scores. The framework scores
    each distinct configuration once and copies the score.
4.  Lists. The score of a configuration depends on its graph, on the configuration itself and on the
    reference list. It does not depend on the other configurations, on their number or on their
    order: any split of a graph's configurations into lists gives the same scores. A model that
    compares configurations returns a `reference_size` above 0. For scoring, each list is then
    preceded by that many reference configurations of its graph (all of them, where it has fewer),
    and the model compares with those alone. In training there is no reference list (R = 0), and
    such a model compares the configurations of a list with one another.
5.  Graphs. The score does not depend on the other graphs of the batch. Within a graph the model may
    combine nodes in any way. The numbering of the nodes must not matter.
6.  Masks and padding. Shorter lists are padded to C by repeating a configuration. `config_mask` and
    `reference_mask` are True for real entries. Scores of padding are ignored, but must be finite.
    Padding must not influence other scores. Nodes and edges are never padded.
7.  Determinism. Equal weights and inputs give equal scores. Randomness in training (dropout) is
    derived from the input `dropout_seed`, which is present in training only. A resumed run then
    continues exactly as an uninterrupted one.
8.  Variables. The first call creates all variables, and all of them are trainable: checkpoints
    store the trainable variables in their order and nothing else. (Layers with moving averages,
    such as batch normalisation, therefore do not work; layer normalisation does.)
9.  Regularisation. Losses that Keras layers add (`model.losses`) are added to the training loss.

Optional capabilities make models faster or more capable, and tests compare each of them with the
plain `call`:

*  `SegmentTraining`: gradients through one segment of a graph only (`segment_mode=backprop`).
*  `Partitioned`: what no configuration changes is computed once for all configurations.
*  `DistinctStates`: equal node states of different configurations are computed once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tpugraphs_rank import errors
from tpugraphs_rank import plugins
from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.models import inputs as inputs_lib


class RankingModel(tf.keras.Model):
  """Base of all models. A plain model implements `required_inputs` and `call`."""

  def __init__(self, kind: str, settings: run_config.ModelConfig, l2: float = 0.0):
    """Stores the settings; a derived class then creates its layers.

    Args:
      kind: "tile" or "layout".
      settings: the model's settings. A custom model finds settings of its own in
        `settings.model_options`.
      l2: weight of the squared norm of the kernels, for models that regularise them.
    """
    super().__init__(name=settings.model)
    self._kind = kind
    self._settings = settings
    self._l2 = l2

  @property
  def kind(self) -> str:
    """The kind of configurations: "tile" or "layout"."""
    return self._kind

  @property
  def settings(self) -> run_config.ModelConfig:
    """The model's settings."""
    return self._settings

  @property
  def l2(self) -> float:
    """Weight of the squared norm of the kernels."""
    return self._l2

  def required_inputs(self) -> Sequence[str]:
    """The names of the arrays that `call` reads; see `models.inputs.INPUTS`."""
    raise NotImplementedError(f"{type(self).__name__} does not name its inputs")

  def call(self, batch: Mapping[str, Any]) -> tf.Tensor:
    """Scores [B, C], higher = faster.

    Args:
      batch: the arrays of `required_inputs` by name. In training also "dropout_seed", (2,) int32.
    """
    raise NotImplementedError(f"{type(self).__name__} does not implement call")

  @property
  def reference_size(self) -> int:
    """The size of the reference list that scoring needs (clause 4); 0: none."""
    return 0

  # What follows is called by the framework. A plain model needs none of it.

  @property
  def members(self) -> list["RankingModel"]:
    """The networks whose scores are averaged: of a single model, the model itself."""
    return [self]

  @property
  def supports_segments(self) -> bool:
    """Whether gradients can be limited to a segment; see `SegmentTraining`."""
    return False

  @property
  def supports_partition(self) -> bool:
    """Whether the model runs on partitioned batches; see `Partitioned`."""
    return False

  @property
  def supports_distinct_states(self) -> bool:
    """Whether the model can compute each distinct state once; see `DistinctStates`."""
    return False

  @property
  def why_plain(self) -> str:
    """Why a model that could be faster computes every state by itself; "" otherwise.

    `train` reports it.
    """
    return ""

  def arrange(self, batch: batches.Batch) -> batches.Batch:
    """Prepares the NumPy arrays of `data.batches` for this model, outside of TensorFlow."""
    return batch

  def select_inputs(self, arrays: Mapping[str, Any], training: bool = False,
                    dropout_seed: tf.Tensor | None = None) -> dict[str, Any]:
    """The argument of `call` from arrays of `arrange`.

    Args:
      arrays: the arrays as tensors, or as NumPy arrays.
      training: whether gradients are wanted.
      dropout_seed: (2,) int32, in training.
    """
    selected = inputs_lib.select(arrays, self.required_inputs())
    if dropout_seed is not None:
      selected["dropout_seed"] = seed_of_share(arrays, dropout_seed)
    return selected

  def member_scores(self, arrays: Mapping[str, Any], training: bool = False,
                    dropout_seed: tf.Tensor | None = None) -> list[tf.Tensor]:
    """The scores [B, C] of each member; arguments as of `select_inputs`."""
    return [self(self.select_inputs(arrays, training, dropout_seed))]

  def create_variables(self, arrays: Mapping[str, Any]) -> None:
    """Creates all variables by calling the model once.

    Raises:
      ConfigError: the model breaks a clause of the interface that shows at once.
    """
    selected = self.select_inputs(arrays)
    try:
      with plugins.calling(f"the model {self.name!r}"):
        scores = self(selected)
    except errors.ConfigError as error:
      cause = error.__cause__
      for name in inputs_lib.INPUTS:
        # Keras raises the KeyError again, with its own text around the key.
        if isinstance(cause, KeyError) and name not in selected and (
            f"\n\n{name}\n\n" in str(cause.args[0]) or name == cause.args[0]):
          raise errors.ConfigError(
              f"{error}; add {name!r} to what required_inputs returns") from cause
      raise
    float_type = tf.keras.backend.floatx()
    if not tf.is_tensor(scores) or scores.dtype != float_type:
      kind = scores.dtype.name if tf.is_tensor(scores) else type(scores).__name__
      raise errors.ConfigError(
          f"the model {self.name!r} returns scores of type {kind}; expected a {float_type} tensor")
    expected = tuple(arrays["config_mask"].shape)
    if tuple(scores.shape) != expected:
      raise errors.ConfigError(
          f"the model {self.name!r} returns scores of shape {tuple(scores.shape)}; expected "
          f"{expected}, graphs and configurations")
    if self.non_trainable_variables:
      names = ", ".join(variable.name for variable in self.non_trainable_variables[:3])
      raise errors.ConfigError(
          f"the model {self.name!r} has variables that are not trainable ({names}); checkpoints "
          "store trainable variables only: use layers without moving averages or counters")


def seed_of_share(arrays: Mapping[str, Any], dropout_seed: tf.Tensor) -> tf.Tensor:
  """The seed (2,) of a share of a batch: devices that train together drop different entries."""
  if "share" in arrays:
    return dropout_seed + tf.stack([arrays["share"] * 1_299_709, 0])
  return dropout_seed


class SegmentTraining(RankingModel):
  """A model that can limit gradients to one segment of each graph.

  In training with `segment_mode=backprop`, its `call` also finds "segment", the same graphs cut to
  one segment each, and "segment_node_ids", the positions of the segment's nodes in the whole
  graphs. Gradients flow through the segment's states only; all other states are constants.
  """

  @property
  def supports_segments(self) -> bool:
    return True


class Partitioned(RankingModel):
  """A model that computes what no configuration changes once for all configurations.

  Its `arrange` returns the arrays of `data.partition.arrange`. A large layout program is scored
  with one call of `config_independent_part`, then one call of `config_dependent_part` for each
  chunk of configurations. The scores equal those of `call` up to rounding.
  """

  @property
  def supports_partition(self) -> bool:
    return True

  def config_independent_part(self, arrays: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """What the scores of any configurations need of a program.

    Args:
      arrays: an arranged batch of one program, without "configs" and masks.
    """
    raise NotImplementedError

  def config_dependent_part(self, arrays: Mapping[str, tf.Tensor],
                            independent: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Scores [B, C] without gradients and dropout.

    Args:
      arrays: the arranged batch with some configurations.
      independent: the result of `config_independent_part` for the same program.
    """
    raise NotImplementedError

  @property
  def numbers_per_state(self) -> int:
    """About how many numbers one node under one configuration takes at the peak of memory."""
    raise NotImplementedError


class DistinctStates(Partitioned):
  """A partitioned model that can compute each distinct state of a node once.

  It applies where the state of a node depends on one configuration only. Equal states of different
  configurations are then deduplicated by `models.state_index` before anything is computed.
  """

  @property
  def supports_distinct_states(self) -> bool:
    return True

  @property
  def pooled_levels(self) -> tuple[int, ...]:
    """The levels of `models.state_index` whose states are pooled."""
    raise NotImplementedError

  def distinct_states_part(self, arrays: Mapping[str, tf.Tensor],
                           independent: Mapping[str, tf.Tensor],
                           distinct: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Scores [1, C] of one program, equal to those of `config_dependent_part` up to rounding.

    Args:
      arrays: the arranged batch; "config_mask" (1, C) gives the number of configurations.
      independent: the result of `config_independent_part`.
      distinct: the arrays of `state_index.StateIndex.arrays`.
    """
    raise NotImplementedError
