"""The rankers: a residual GNN, with and without self-attention over configurations.

Shapes: B graphs, N nodes in all, a list of C configurations for each graph, before which R
reference configurations may stand; T = R + C.
"""

from collections.abc import Mapping
import functools
from typing import Union

import numpy as np
import tensorflow as tf
import tensorflow_gnn as tfgnn

from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import partition
from tpugraphs_rank.models import distinct_states
from tpugraphs_rank.models import layers
from tpugraphs_rank.models import partitioned
from tpugraphs_rank.models import plain_states
from tpugraphs_rank.models import states as states_lib

# A batch as a `GraphTensor` runs plain; the arrays of `data.partition` run partitioned.
Input = Union[tfgnn.GraphTensor, Mapping[str, tf.Tensor]]
View = Union[plain_states.PlainView, partitioned.PartitionedView]


class Ranker(tf.keras.Model):
  """Scores [B, C] of the configurations of a batch of graphs.

  Node features and the opcode embedding are projected once a node, configurations once a
  configuration (tile) or configurable node (layout); the two are added, which is the projection
  of their concatenation without a copy of the node features for every configuration.
  """

  def __init__(self, kind: str, config: run_config.ModelConfig, l2: float = 0.0):
    """Makes the layers.

    Args:
      kind: "tile" or "layout".
      config: the shape of the network.
      l2: weight of the squared norm of the kernels.
    """
    super().__init__(name=config.model)
    self._kind = kind
    self._config = config
    self._activation = layers.activation(config.activation)
    self._opcodes = tf.keras.layers.Embedding(
        graphs.NUM_OPCODES, config.opcode_width, name="opcodes")
    self._node_projection = layers.dense(
        config.hidden_width, l2, layers.DenseBesideTable, name="nodes")
    self._config_projection = layers.dense(
        config.hidden_width, l2, use_bias=False, name="configs")
    self._sized_projection = layers.dense(
        config.hidden_width, l2, use_bias=False, name="sized_configs"
    ) if kind == "layout" and config.layout_join == "sized" else None
    self._late_projection = layers.dense(
        config.hidden_width, l2, activation=self._activation, name="late_configs"
    ) if kind == "tile" and config.join != "early" else None
    attention = config.model == "attention_gnn"
    # A residual that is a concatenation makes the states wider each time.
    widths = [config.hidden_width * (k + 1 if config.residual == "concat" else 1)
              for k in range(config.num_convolutions)]
    self._attentions = [
        layers.ConfigAttention(config, width, l2, f"attention_{k}") if attention else None
        for k, width in enumerate(widths)]
    self._convolutions = [layers.Convolution(config, l2, f"convolution_{k}")
                          for k in range(config.num_convolutions)]
    self._head = layers.mlp(config.head_widths, config.activation, l2, "head")
    self._score = layers.dense(1, l2, name="score")
    self._dropout = config.dropout

  @property
  def kind(self) -> str:
    return self._kind

  @property
  def reference_size(self) -> int:
    """Configurations of the reference list that scoring needs; 0 for list-free models."""
    return self._config.attention_reference if any(self._attentions) else 0

  @property
  def mixes_nodes(self) -> bool:
    """Whether some block makes every node depend on all others: such a model runs plain."""
    return any(block.mixes_nodes for block in (*self._convolutions, *self._attentions) if block)

  def arrange(self, batch: batches.Batch) -> batches.Batch:
    """The arrays of a batch of `data.batches` as this model takes them."""
    return batch if self.mixes_nodes else partition.arrange(batch, self._config)

  def call(self, graph: Input, segment: Input | None = None,
           segment_node_ids: tf.Tensor | None = None,
           dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
    """Scores [B, C], higher = faster.

    Args:
      graph: the batch.
      segment: the same graphs cut down to one segment each: gradients flow through it alone,
        the states of all other nodes are constants.
      segment_node_ids: (nodes of `segment`,) which nodes of `graph` those are.
      dropout_seed: (2,) int32; dropout is on where it is given.
    """
    view = self._view(graph)
    # Sums over nodes are linear, a maximum is not, and a segment's states replace whole ones.
    apart = segment is None and "max" not in self._config.pooling
    embed = lambda states: self._embed(states, dropout_seed, apart)
    hidden = view.embed(embed)
    if segment is not None:
      hidden = view.overlay(hidden, self._view(segment).embed(embed), segment_node_ids)
    return self._read_out(view, view.pool(hidden, self._config.pooling), dropout_seed)

  def shared_part(self, graph: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """What the scores of any configurations of an arranged batch need besides them.

    For scoring list after list of the same graphs, see `own_part`.
    """
    return partitioned.PartitionedView(graph).shared_part(
        self._scoring_embed, self._config.pooling)

  def own_part(self, graph: Mapping[str, tf.Tensor], kept: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Scores [B, C] of an arranged batch, given its `shared_part`. No gradients, no dropout."""
    view = partitioned.PartitionedView(graph)
    pooled = view.own_part(self._scoring_embed, kept, self._config.pooling)
    return self._read_out(view, pooled, None)

  @property
  def state_numbers(self) -> int:
    """Numbers that the state of a node under a configuration takes, about, where it takes most.

    Those are a convolution's MLP, its messages through three kernels, sums and copies, beside the
    state as it was and as it is joined; or what attention makes of it.
    """
    config = self._config
    depth = len(self._convolutions)
    joined = config.hidden_width * (depth if config.residual == "concat" else 1)
    attention = 3 * joined + config.attention_width + 2 * self.reference_size
    return max(6 * config.hidden_width + 2 * joined, attention if any(self._attentions) else 0)

  @property
  def tells_states_apart(self) -> bool:
    """Whether `distinct_part` can score: each node's state depends on one configuration alone."""
    return self._kind == "layout" and not any(self._attentions) and not self.mixes_nodes

  @property
  def pooled_levels(self) -> tuple[int, ...]:
    """The levels whose states scoring adds up over nodes, for `state_index`."""
    depth = len(self._convolutions)
    apart = self._config.residual == "add" and "max" not in self._config.pooling
    return (depth - 1, depth) if apart and depth else (depth,)

  def distinct_part(self, graph: Mapping[str, tf.Tensor], kept: Mapping[str, tf.Tensor],
                    listed: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Scores [1, C] of one arranged graph: `own_part`, each distinct state once.

    Args:
      graph: the arranged batch; its `config_mask` (1, C) says how many configurations there are.
      kept: its `shared_part`.
      listed: arrays of `state_index.StateIndex.tell`.
    """
    view = partitioned.PartitionedView(graph)
    terms = self._scoring_embed(distinct_states.Distinct(listed, kept))
    own = distinct_states.pool(listed, dict(zip(self.pooled_levels, terms)),
                        tf.shape(graph["config_mask"])[1], self._config.pooling)
    return self._read_out(view, view.join(
        own, {name: kept[f"pooled_{name}"] for name in own}, self._config.pooling), None)

  def _scoring_embed(self, states: states_lib.States) -> list[tf.Tensor]:
    return self._embed(states, None, apart="max" not in self._config.pooling)

  @property
  def rankers(self) -> list["Ranker"]:
    """The one member of an ensemble; see `members.Members`."""
    return [self]

  def node_states(self, graph: tfgnn.GraphTensor) -> tf.Tensor:
    """States [N, h'] of the nodes without any configuration, for tasks about graphs alone.

    Where a configuration would join, nothing is added, as if all of its scaled numbers were 0,
    their mean in training. The weights are those that scoring uses.
    """
    states = plain_states.PlainStates(graph, self._config.aggregation)
    (hidden,) = self._embed(states, None, apart=False, configured=False)
    return tf.squeeze(hidden, axis=1)

  def graph_states(self, graph: tfgnn.GraphTensor, hidden: tf.Tensor) -> tf.Tensor:
    """[B, p]: `node_states` pooled as scoring pools them."""
    found = plain_states.PlainView(graph, self._config.aggregation).pool(
        [hidden[:, None, :]], self._config.pooling)
    return tf.squeeze(tf.concat(self._pooled(found), axis=-1), axis=1)

  def member_scores(self, graph: Input, segment: Input | None = None,
                    segment_node_ids: tf.Tensor | None = None,
                    dropout_seed: tf.Tensor | None = None) -> list[tf.Tensor]:
    """The scores as the one member of an ensemble; see `members.Members`."""
    return [self(graph, segment=segment, segment_node_ids=segment_node_ids,
                 dropout_seed=dropout_seed)]

  def _view(self, graph: Input) -> View:
    if isinstance(graph, tfgnn.GraphTensor):
      return plain_states.PlainView(graph, self._config.aggregation)
    return partitioned.PartitionedView(graph)

  def _embed(self, states: states_lib.States, dropout_seed: tf.Tensor | None, apart: bool,
             configured: bool = True) -> list[tf.Tensor]:
    """The states after the last convolution, as terms whose sum they are."""
    # Joined late, the configuration stays out of the convolutions: one state serves all of them.
    without = not configured or (self._kind == "tile" and self._config.join == "late")
    terms = [self._activation(states.start(self._of_nodes, None if without else self._of_configs))]
    for level, (attention, convolution) in enumerate(zip(self._attentions, self._convolutions)):
      (hidden,) = terms
      if dropout_seed is not None and self._dropout:
        hidden = states.drop(level, functools.partial(
            self._dropout_mask, width=hidden.shape[-1], seed=dropout_seed, place=level + 1), hidden)
      if attention is not None:
        hidden = states.attend(attention, hidden) if configured else attention.alone(hidden)
      last = level + 1 == len(self._convolutions)
      terms = convolution(hidden, states=states, level=level, apart=apart and last)
    return terms

  def _of_nodes(self, features: tf.Tensor, opcode: tf.Tensor) -> tf.Tensor:
    """[rows, F] and [rows] to [rows, h]."""
    return self._node_projection([features, self._opcodes(tf.range(graphs.NUM_OPCODES)), opcode])

  def _of_configs(self, configs: tf.Tensor, sizes: tf.Tensor | None = None) -> tf.Tensor:
    """Layouts [rows, T, 18] of tensors of `sizes` (rows, 3), or tiles [B, T, K], to h wide."""
    if sizes is None:
      return self._config_projection(configs)
    # A node has many layouts, a batch few different ones.
    different, place = layers.different_layouts(configs)
    features = layers.layout_features(
        different, self._config.layout_features, self._node_projection.compute_dtype)
    joined = tf.gather(self._config_projection(features)[:, 0], place)
    if self._sized_projection is not None:
      tensors = layers.layout_tensors(self._config.layout_features)
      for number in np.unique(tensors):
        of_tensor = features[:, 0] * tf.constant(tensors == number, features.dtype)
        size = tf.cast(sizes[:, number], joined.dtype)[:, None, None]
        joined += size * tf.gather(self._sized_projection(of_tensor), place)
    return joined

  def _read_out(self, view: View, found: Mapping[str, tf.Tensor],
                dropout_seed: tf.Tensor | None) -> tf.Tensor:
    """Pooled states [B, T, h] to scores [B, C]."""
    pooled = self._pooled(found)
    if self._late_projection is not None:
      late = self._late_projection(view.graph_configs)
      pooled = [tf.broadcast_to(value, tf.concat([tf.shape(late)[:2], tf.shape(value)[2:]], 0))
                for value in pooled] + [late]
    joined = tf.concat(pooled, axis=-1)[:, tf.shape(view.reference_mask)[1]:]
    if dropout_seed is not None and self._dropout:
      mask = self._dropout_mask(tf.shape(joined)[0], joined.shape[-1], dropout_seed, 0)
      joined *= mask[:, None, :]
    return tf.squeeze(self._score(self._head(joined)), axis=-1)

  def _pooled(self, found: Mapping[str, tf.Tensor]) -> list[tf.Tensor]:
    """The poolings [B, T, h] that the settings name, in their order."""
    normalised = lambda pooling: pooling == "sum" and self._config.pool_l2
    return [tf.nn.l2_normalize(found[pooling], axis=-1) if normalised(pooling) else found[pooling]
            for pooling in self._config.pooling]

  def _dropout_mask(self, rows: tf.Tensor, width: int, seed: tf.Tensor, place: int) -> tf.Tensor:
    """[rows, width]: 0 for what is dropped, 1 / (1 - rate) for what stays."""
    ones = tf.ones(tf.stack([rows, width]), self._node_projection.compute_dtype)
    return tf.nn.experimental.stateless_dropout(
        ones, self._dropout, seed=seed + [0, place * 7919])
