"""The built-in models: a residual GNN, with and without self-attention over configurations.

Shapes: B graphs, N nodes in all, a list of C configurations for each graph, which R reference
configurations may precede; T = R + C.
"""

from collections.abc import Mapping, Sequence
import functools
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
import tensorflow_gnn as tfgnn

from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import partition
from tpugraphs_rank.data import pipeline
from tpugraphs_rank.models import attention as attention_lib
from tpugraphs_rank.models import distinct_states
from tpugraphs_rank.models import interface
from tpugraphs_rank.models import layers
from tpugraphs_rank.models import node_layers
from tpugraphs_rank.models import partitioned
from tpugraphs_rank.models import plain_states
from tpugraphs_rank.models import poolings as poolings_lib
from tpugraphs_rank.models import states as states_lib

# A `GraphTensor` uses the plain path, the arrays of `data.partition` the partitioned one.
Graph: TypeAlias = "tfgnn.GraphTensor | Mapping[str, tf.Tensor]"
View: TypeAlias = plain_states.PlainView | partitioned.PartitionedView


class Ranker(interface.SegmentTraining, interface.DistinctStates):
  """Scores [B, C] of the configurations of a batch of graphs.

  Node features and the opcode embedding are projected once for each node. Configurations are
  projected once each (tile) or once for each configurable node (layout). The sum of both equals the
  projection of their concatenation, without copying the node features for every configuration.
  """

  def __init__(self, kind: str, settings: run_config.ModelConfig, l2: float = 0.0):
    """Creates the layers.

    Args:
      kind: "tile" or "layout".
      settings: the architecture.
      l2: weight of the squared norm of the kernels.

    Raises:
      ConfigError: settings that exclude one another.
    """
    if settings.model == "attention_gnn" and settings.join == "late" and kind == "tile":
      raise errors.ConfigError(
          "model.join = 'late' keeps tile configurations out of the convolutions, where "
          "attention_gnn compares them; choose join = 'early' or 'both', or model = "
          "'residual_gnn'")
    if settings.model_options:
      raise errors.ConfigError(
          f"model.model_options = {settings.model_options!r}: the model {settings.model!r} takes "
          "none; they are for custom models")
    super().__init__(kind, settings, l2)
    self._activation = layers.activation(settings.activation)
    self._opcodes = tf.keras.layers.Embedding(
        graphs.NUM_OPCODES, settings.opcode_width, name="opcodes")
    self._node_projection = layers.dense(
        settings.hidden_width, l2, layers.DenseWithTable, name="nodes")
    self._config_projection = layers.dense(
        settings.hidden_width, l2, use_bias=False, name="configs")
    self._digits = tf.keras.layers.Embedding(
        layers.LAYOUT_VALUES, layers.DIGIT_WIDTH, name="digits"
    ) if kind == "layout" and settings.layout_features == "digits" else None
    self._sized_projection = layers.dense(
        settings.hidden_width, l2, use_bias=False, name="sized_configs"
    ) if kind == "layout" and settings.layout_join == "sized" else None
    self._extent_projection = layers.dense(
        settings.hidden_width, l2, use_bias=False, name="extents"
    ) if kind == "layout" and settings.layout_extents else None
    joins = lambda *values: kind == "layout" and settings.layout_costs in values
    self._request_projection = layers.dense(
        settings.hidden_width, l2, use_bias=False, name="requests"
    ) if joins("requests", "both") else None
    self._cost_projection = layers.dense(
        settings.hidden_width, l2, activation=self._activation, name="costs"
    ) if joins("totals", "both") else None
    self._late_projection = layers.dense(
        settings.hidden_width, l2, activation=self._activation, name="late_configs"
    ) if kind == "tile" and settings.join != "early" else None
    attention = settings.model == "attention_gnn"
    kind_of_attention = attention_lib.KINDS[settings.attention_kind]
    # A residual that is a concatenation makes the states wider each time.
    widths = [settings.hidden_width * (k + 1 if settings.residual == "concat" else 1)
              for k in range(settings.num_convolutions)]
    self._attentions = [
        kind_of_attention(settings, width, l2, f"attention_{k}") if attention else None
        for k, width in enumerate(widths)]
    self._convolutions = [
        layers.Convolution(settings, l2, f"convolution_{k}",
                           node_layers.build(settings, width, l2))
        for k, width in enumerate(widths)]
    self._mixing = node_layers.mixing(settings)
    self._head = layers.mlp(settings.head_widths, settings.activation, l2, "head")
    self._score = layers.dense(1, l2, name="score")
    self._dropout = settings.dropout

  def required_inputs(self) -> Sequence[str]:
    return ("graph",)

  @property
  def reference_size(self) -> int:
    return self._settings.attention_reference if any(self._attentions) else 0

  @property
  def why_plain(self) -> str:
    mixing = ", ".join(self._mixing)
    return f"node_layers {mixing}: every node depends on every configuration" if mixing else ""

  @property
  def supports_partition(self) -> bool:
    return not self._mixing

  def arrange(self, batch: batches.Batch) -> batches.Batch:
    return partition.arrange(batch, self._settings) if self.supports_partition else batch

  def select_inputs(self, arrays: Mapping[str, Any], training: bool = False,
                    dropout_seed: tf.Tensor | None = None) -> dict[str, Any]:
    step = pipeline.to_step(arrays)
    selected = {"graph": step["graph"]}
    if training and "segment" in step:
      selected.update(segment=step["segment"], segment_node_ids=step["segment_node_ids"])
    if dropout_seed is not None:
      # Partitioned shares take their rows of the whole batch's factors instead.
      selected["dropout_seed"] = dropout_seed if "rows" in arrays else (
          interface.seed_of_share(arrays, dropout_seed))
    return selected

  def call(self, batch: Mapping[str, Any]) -> tf.Tensor:
    """Scores [B, C], higher = faster.

    Args:
      batch: by name
        graph: the batch, a `GraphTensor` or the arrays of `data.partition`.
        segment: the same graphs cut to one segment each. Gradients flow through it only; the states
          of all other nodes are constants. Optional.
        segment_node_ids: (nodes of `segment`,) their positions in `graph`.
        dropout_seed: (2,) int32; without it there is no dropout.
    """
    segment, dropout_seed = batch.get("segment"), batch.get("dropout_seed")
    view: Any = self._view(batch["graph"])  # States of one view go to the same view only.
    # Sums over nodes are linear, other poolings are not, and a segment's states replace whole ones.
    split = segment is None and self._sums_only
    embed = lambda states: self._embed(states, dropout_seed, split)
    hidden = view.embed(embed)
    if segment is not None:
      hidden = view.overlay(hidden, self._view(segment).embed(embed), batch["segment_node_ids"])
    return self._read_out(view, view.pool(hidden, self._settings.pooling), dropout_seed)

  def config_independent_part(self, arrays: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return partitioned.PartitionedView(arrays).config_independent_part(
        self._scoring_embed, self._settings.pooling)

  def config_dependent_part(self, arrays: Mapping[str, tf.Tensor],
                            independent: Mapping[str, tf.Tensor]) -> tf.Tensor:
    view = partitioned.PartitionedView(arrays)
    pooled = view.config_dependent_part(
        self._scoring_embed, independent, self._settings.pooling)
    return self._read_out(view, pooled, None)

  @property
  def numbers_per_state(self) -> int:
    """About how many numbers a state takes at the peak of memory.

    A convolution holds the output of its MLP, its messages through three kernels, sums and copies,
    in addition to the input and output states. Attention holds projections and logits.
    """
    settings = self._settings
    depth = len(self._convolutions)
    joined = settings.hidden_width * (depth if settings.residual == "concat" else 1)
    # Softmax attention has logits, linear attention sums over the keys.
    attention = 3 * joined + settings.attention_width + (
        2 * self.reference_size if settings.attention_kind == "softmax" else
        settings.attention_width * (1 + joined // max(self.reference_size, 1)))
    # All messages are in memory: those of a largest one, and those of the plain path.
    messages = 10 if settings.aggregation == "max" or self._mixing else 0
    return max((6 + messages) * settings.hidden_width + 2 * joined,
               attention if any(self._attentions) else 0)

  @property
  def supports_distinct_states(self) -> bool:
    return (self._kind == "layout" and self.supports_partition and not any(self._attentions)
            and set(self._settings.pooling) <= set(poolings_lib.COMPOSABLE))

  @property
  def pooled_levels(self) -> tuple[int, ...]:
    depth = len(self._convolutions)
    split = self._settings.residual == "add" and self._sums_only
    return (depth - 1, depth) if split and depth else (depth,)

  def distinct_states_part(self, arrays: Mapping[str, tf.Tensor],
                           independent: Mapping[str, tf.Tensor],
                           distinct: Mapping[str, tf.Tensor]) -> tf.Tensor:
    view = partitioned.PartitionedView(arrays)
    terms = self._scoring_embed(distinct_states.DistinctStates(distinct, independent))
    pooled = distinct_states.pool(
        distinct, dict(zip(self.pooled_levels, terms)), tf.shape(arrays["config_mask"])[1],
        self._settings.pooling)
    return self._read_out(view, view.join(
        pooled, {name: independent[f"pooled_{name}"] for name in pooled}, self._settings.pooling),
        None)

  @property
  def _sums_only(self) -> bool:
    """Whether all poolings are linear, so that the terms of a residual can be pooled one by one."""
    return set(self._settings.pooling) <= {"mean", "sum"}

  def _scoring_embed(self, states: states_lib.States) -> list[tf.Tensor]:
    return self._embed(states, None, split=self._sums_only)

  def node_states(self, graph: tfgnn.GraphTensor) -> tf.Tensor:
    """States [N, h'] of the nodes without any configuration, for tasks about graphs alone.

    Nothing is added where a configuration would join, as if all of its scaled features were 0,
    their mean in training. The weights are those that scoring uses.
    """
    states = plain_states.PlainStates(graph, self._settings.aggregation)
    (hidden,) = self._embed(states, None, split=False, configured=False)
    return tf.squeeze(hidden, axis=1)

  def graph_states(self, graph: tfgnn.GraphTensor, hidden: tf.Tensor) -> tf.Tensor:
    """[B, p]: the result of `node_states`, pooled as scoring pools states."""
    pooled = plain_states.PlainView(graph, self._settings.aggregation).pool(
        [hidden[:, None, :]], self._settings.pooling)
    return tf.squeeze(tf.concat(self._in_order(pooled), axis=-1), axis=1)

  def _view(self, graph: Graph) -> View:
    if isinstance(graph, tfgnn.GraphTensor):
      return plain_states.PlainView(graph, self._settings.aggregation)
    return partitioned.PartitionedView(graph)

  def _embed(self, states: states_lib.States, dropout_seed: tf.Tensor | None, split: bool,
             configured: bool = True) -> list[tf.Tensor]:
    """The states after the last convolution, as terms to be added.

    Args:
      states: how states are stored.
      dropout_seed: as of `call`.
      split: whether the last residual may be returned as two terms.
      configured: whether configurations take part.
    """
    # If the configuration joins late, the convolutions run once for all configurations.
    without = not configured or (self._kind == "tile" and self._settings.join == "late")
    terms = [self._activation(states.start(
        self._project_nodes, None if without else self._project_configs))]
    for level, (attention, convolution) in enumerate(zip(self._attentions, self._convolutions)):
      (hidden,) = terms
      if dropout_seed is not None and self._dropout:
        hidden = states.drop(level, functools.partial(
            self._dropout_mask, width=hidden.shape[-1], seed=dropout_seed, place=level + 1), hidden)
      if attention is not None:
        hidden = (states.attend(attention, hidden) if configured
                  else attention.attend_to_self(hidden))
      last = level + 1 == len(self._convolutions)
      terms = convolution(hidden, states=states, level=level, split=split and last)
    return terms

  def _project_nodes(self, features: tf.Tensor, opcode: tf.Tensor) -> tf.Tensor:
    """[rows, F] and [rows] to [rows, h]."""
    return self._node_projection([features, self._opcodes(tf.range(graphs.NUM_OPCODES)), opcode])

  def _project_configs(self, configs: tf.Tensor, sizes: tf.Tensor | None = None) -> tf.Tensor:
    """Layouts [rows, T, w] of tensors of `sizes` (rows, 27), or tiles [B, T, K], to h wide."""
    if sizes is None:
      return self._config_projection(configs)
    # A node has many layouts, but a batch has few distinct ones.
    if self._request_projection is None:
      configs = configs[..., :graphs.NUM_LAYOUT_FEATURES]
    distinct, place = layers.distinct_layouts(configs)
    features = self._layout_features(distinct)
    joined = self._config_projection(features)[:, 0]
    if self._request_projection is not None:
      effects = layers.request_effects(distinct, self._node_projection.compute_dtype)
      joined += self._request_projection(effects)[:, 0]
    joined = tf.gather(joined, place)
    if self._sized_projection is not None:
      tensors = layers.layout_tensors(self._settings.layout_features)
      for number in np.unique(tensors):
        of_tensor = features[:, 0] * tf.constant(tensors == number, features.dtype)
        size = tf.cast(sizes[:, number], joined.dtype)[:, None, None]
        joined += size * tf.gather(self._sized_projection(of_tensor), place)
    if self._extent_projection is not None:
      joined += layers.on_rows(self._extent_projection, layers.layout_extents(
          configs, sizes, self._node_projection.compute_dtype))
    return joined

  def _layout_features(self, layouts: tf.Tensor) -> tf.Tensor:
    """[rows, T, w] integers to the scaled features that the settings choose."""
    if self._digits is not None:
      features = layers.digit_features(layouts, self._digits)
    else:
      features = layers.layout_features(
          layouts, self._settings.layout_features, self._node_projection.compute_dtype)
    scale = self._settings.layout_scale
    return features if scale == 1.0 else features * tf.constant(scale, features.dtype)

  def _read_out(self, view: View, pooled: Mapping[str, tf.Tensor],
                dropout_seed: tf.Tensor | None) -> tf.Tensor:
    """Pooled states [B, T, h] to scores [B, C]."""
    vectors = self._in_order(pooled)
    late = []
    if self._late_projection is not None:
      late = [self._late_projection(view.graph_configs)]
    costs = []
    if self._cost_projection is not None:
      totals = tf.cast(view.config_costs, self._node_projection.compute_dtype)
      costs = [self._cost_projection(totals), totals]
    if late or costs:
      lists = tf.shape([*late, *costs][0])[:2]
      vectors = [tf.broadcast_to(value, tf.concat([lists, tf.shape(value)[2:]], 0))
                 for value in vectors] + late
    joined = tf.concat(vectors, axis=-1)
    if dropout_seed is not None and self._dropout:
      mask = view.drop_lists(functools.partial(
          self._dropout_mask, width=joined.shape[-1], seed=dropout_seed, place=0))
      joined *= mask[:, None, :]
    # Sums of few known terms: dropping them would only hide what is known.
    joined = tf.concat([joined, *costs], axis=-1)[:, tf.shape(view.reference_mask)[1]:]
    return tf.squeeze(self._score(self._head(joined)), axis=-1)

  def _in_order(self, pooled: Mapping[str, tf.Tensor]) -> list[tf.Tensor]:
    """The poolings [B, T, h] in the order of the settings; the sum normalised if `pool_l2`."""
    normalised = lambda pooling: pooling == "sum" and self._settings.pool_l2
    return [tf.nn.l2_normalize(pooled[pooling], axis=-1) if normalised(pooling)
            else pooled[pooling] for pooling in self._settings.pooling]

  def _dropout_mask(self, rows: tf.Tensor, width: int, seed: tf.Tensor, place: int) -> tf.Tensor:
    """[rows, width]: 0 for what is dropped, 1 / (1 - rate) for what stays."""
    ones = tf.ones(tf.stack([rows, width]), self._node_projection.compute_dtype)
    return tf.nn.experimental.stateless_dropout(
        ones, self._dropout, seed=seed + [0, place * 7919])
