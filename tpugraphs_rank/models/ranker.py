"""The rankers: a residual GNN, with and without self-attention over configurations.

Shapes: B graphs, N nodes in all, a list of C configurations for each graph, before which R
reference configurations may stand; T = R + C.
"""

from typing import List, Optional

import tensorflow as tf
import tensorflow_gnn as tfgnn

from tpugraphs_rank import run_config
from tpugraphs_rank.data import graphs
from tpugraphs_rank.models import layers

_LAYOUT_VALUES = 7  # -1..5


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
    self._node_projection = layers.dense(config.hidden_width, l2, name="nodes")
    self._config_projection = layers.dense(
        config.hidden_width, l2, use_bias=False, name="configs")
    self._late_projection = layers.dense(
        config.hidden_width, l2, activation=self._activation, name="late_configs"
    ) if kind == "tile" and config.join != "early" else None
    attention = config.model == "attention_gnn"
    self._attentions = [
        layers.ConfigAttention(config, l2, f"attention_{k}") if attention else None
        for k in range(config.num_convolutions)]
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

  def call(self, graph: tfgnn.GraphTensor, segment: Optional[tfgnn.GraphTensor] = None,
           segment_node_ids: Optional[tf.Tensor] = None,
           dropout_seed: Optional[tf.Tensor] = None) -> tf.Tensor:
    """Scores [B, C], higher = faster.

    Args:
      graph: the batch.
      segment: the same graphs cut down to one segment each: gradients flow through it alone,
        the states of all other nodes are constants.
      segment_node_ids: (nodes of `segment`,) which nodes of `graph` those are.
      dropout_seed: (2,) int32; dropout is on where it is given.
    """
    hidden = self.embed(graph, dropout_seed)
    if segment is not None:
      hidden = tf.tensor_scatter_nd_update(
          tf.stop_gradient(hidden), segment_node_ids[:, None], self.embed(segment, dropout_seed))
    return self.read_out(graph, hidden, dropout_seed)

  def member_scores(self, graph: tfgnn.GraphTensor, segment: Optional[tfgnn.GraphTensor] = None,
                    segment_node_ids: Optional[tf.Tensor] = None,
                    dropout_seed: Optional[tf.Tensor] = None) -> List[tf.Tensor]:
    """The scores as the one member of an ensemble; see `members.Members`."""
    return [self(graph, segment=segment, segment_node_ids=segment_node_ids,
                 dropout_seed=dropout_seed)]

  def embed(self, graph: tfgnn.GraphTensor, dropout_seed: Optional[tf.Tensor] = None) -> tf.Tensor:
    """The states [N, T, h] of all nodes after the last convolution."""
    nodes = graph.node_sets["op"]
    state = self._node_projection(
        tf.concat([nodes["nodes"], self._opcodes(nodes["opcode"])], axis=-1))
    hidden = self._activation(self._join(graph, state))
    key_mask = None
    for number, (attention, convolution) in enumerate(zip(self._attentions, self._convolutions)):
      hidden = self._drop(hidden, dropout_seed, number + 1)
      if attention is not None:
        if key_mask is None:
          key_mask = tfgnn.broadcast_context_to_nodes(
              graph, "op", feature_value=_key_mask(graph))
        hidden = attention(hidden, key_mask)
      hidden = convolution(graph, hidden)
    return hidden

  def _join(self, graph: tfgnn.GraphTensor, state: tf.Tensor) -> tf.Tensor:
    """Node states [N, h] and the configurations to [N, T, h]."""
    if self._kind == "layout":
      codes = tf.cast(graph.node_sets["config"]["configs"], tf.int32) + 1
      width = graphs.NUM_LAYOUT_FEATURES * _LAYOUT_VALUES
      categories = tf.one_hot(codes, _LAYOUT_VALUES)
      categories = tf.reshape(categories, tf.concat([tf.shape(codes)[:2], [width]], axis=0))
      categories = tf.ensure_shape(categories, [None, None, width])
      at_nodes = tfgnn.pool_edges_to_node(
          graph, "at", tfgnn.TARGET, "sum", feature_value=self._config_projection(categories))
      return state[:, None, :] + at_nodes
    if self._config.join == "late":
      # The configuration stays out of the convolutions: one state serves all of them, T = 1.
      return state[:, None, :]
    projected = self._config_projection(graph.context["configs"])
    return state[:, None, :] + tfgnn.broadcast_context_to_nodes(
        graph, "op", feature_value=projected)

  def read_out(self, graph: tfgnn.GraphTensor, hidden: tf.Tensor,
               dropout_seed: Optional[tf.Tensor] = None) -> tf.Tensor:
    """Node states [N, T, h] to scores [B, C]."""
    pooled = []
    for pooling in self._config.pooling:
      reduce_type = "max_no_inf" if pooling == "max" else pooling
      value = tfgnn.pool_nodes_to_context(graph, "op", reduce_type, feature_value=hidden)
      if pooling == "sum" and self._config.pool_l2:
        value = tf.nn.l2_normalize(value, axis=-1)
      pooled.append(value)
    if self._late_projection is not None:
      late = self._late_projection(graph.context["configs"])
      pooled = [tf.broadcast_to(value, tf.concat([tf.shape(late)[:2], tf.shape(value)[2:]], 0))
                for value in pooled] + [late]
    joined = tf.concat(pooled, axis=-1)
    reference = tf.shape(graph.context["reference_mask"])[1]
    joined = self._drop(joined[:, reference:], dropout_seed, 0)
    return tf.squeeze(self._score(self._head(joined)), axis=-1)


  def _drop(self, values: tf.Tensor, seed: Optional[tf.Tensor], place: int) -> tf.Tensor:
    """Drops channels of [rows, T, h], the same ones for all configurations of a row.

    Were they drawn for each configuration, the noise would pass for a difference between them.
    """
    if seed is None or self._dropout == 0:
      return values
    shape = tf.shape(values)
    return tf.nn.experimental.stateless_dropout(
        values, self._dropout, seed=seed + [0, place * 7919], noise_shape=[shape[0], 1, shape[2]])


def _key_mask(graph: tfgnn.GraphTensor) -> tf.Tensor:
  """[B, K]: which configurations attention may look at: the reference list, or else the list."""
  reference = graph.context["reference_mask"]
  both = tf.concat([reference, graph.context["config_mask"]], axis=1)
  size = tf.shape(reference)[1]
  return both[:, :tf.where(size > 0, size, tf.shape(both)[1])]
