"""The plain formulation: one state a node and configuration, messages along a `GraphTensor`.

Obviously correct, and slow on large graphs: what the faster layout is held to, and what a block
that mixes the nodes of a graph runs on.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf
import tensorflow_gnn as tfgnn

from tpugraphs_rank.models import states

_SENDERS = {"operands": tfgnn.SOURCE, "users": tfgnn.TARGET}


class PlainStates(states.States):
  """States [N, T, h]."""

  def __init__(self, graph: tfgnn.GraphTensor, aggregation: str):
    """Keeps the batch.

    Args:
      graph: the batch.
      aggregation: "sum", "mean" (divided by the receiver's degree) or "symmetric" (by the root of
        the product of the sender's and the receiver's degree in one direction).
    """
    self._graph = graph
    self._aggregation = aggregation

  def start(self, of_nodes, of_configs):
    """[N, T, h]; [N, 1, h] without configurations."""
    nodes = self._graph.node_sets["op"]
    base = of_nodes(nodes["nodes"], nodes["opcode"])[:, None, :]
    if of_configs is None:
      return base
    if "config" in self._graph.node_sets:
      configs = self._graph.node_sets["config"]
      return base + tfgnn.pool_edges_to_node(
          self._graph, "at", tfgnn.TARGET, "sum",
          feature_value=of_configs(configs["configs"], configs["config_sizes"]))
    return base + tfgnn.broadcast_context_to_nodes(
        self._graph, "op", feature_value=of_configs(self._graph.context["configs"]))

  def propagate(self, level, hidden, own_kernel, kernels):
    """[N, T, h] to [N, T, h']."""
    output = own_kernel(hidden)
    for direction, kernel in kernels.items():
      output += self._aggregate(kernel(hidden), _SENDERS[direction])
    return output

  def _aggregate(self, values: tf.Tensor, sender: int) -> tf.Tensor:
    """Sums the neighbours' values [N, T, h] along the edges "feed"."""
    receiver = tfgnn.TARGET if sender == tfgnn.SOURCE else tfgnn.SOURCE
    if self._aggregation == "symmetric":
      values *= tf.math.rsqrt(self._degree(sender, values))
    sent = tfgnn.broadcast_node_to_edges(self._graph, "feed", sender, feature_value=values)
    pooled = tfgnn.pool_edges_to_node(self._graph, "feed", receiver, "sum", feature_value=sent)
    if self._aggregation == "mean":
      pooled /= self._degree(receiver, values)
    elif self._aggregation == "symmetric":
      pooled *= tf.math.rsqrt(self._degree(receiver, values))
    return pooled

  def _degree(self, tag: int, values: tf.Tensor) -> tf.Tensor:
    """[N, 1, 1]: edges at each node as that end, at least 1."""
    ones = tf.ones([self._graph.edge_sets["feed"].total_size], values.dtype)
    degree = tfgnn.pool_edges_to_node(self._graph, "feed", tag, "sum", feature_value=ones)
    return tf.maximum(degree, 1.0)[:, None, None]

  def lift(self, level, hidden):
    """[N, T, h], the same."""
    return hidden  # All states are there from the start.

  def attend(self, attention, hidden):
    """[N, T, h] to the same shape."""
    return attention(hidden, tfgnn.broadcast_context_to_nodes(
        self._graph, "op", feature_value=states.key_mask(self._graph.context)))

  def drop(self, level, mask, hidden):
    """[N, T, h] to the same shape; `mask` gives [N, h]."""
    return hidden * mask(tf.shape(hidden)[0])[:, None, :]


class PlainView:
  """A batch as a `GraphTensor`, with the methods of `partitioned.PartitionedView`."""

  def __init__(self, graph: tfgnn.GraphTensor, aggregation: str):
    self._graph = graph
    self._states = PlainStates(graph, aggregation)

  @property
  def reference_mask(self) -> tf.Tensor:
    """[B, R] bool: which of the reference list's configurations are no padding."""
    return self._graph.context["reference_mask"]

  @property
  def graph_configs(self) -> tf.Tensor:
    """[B, T, K]: the configurations of whole graphs (tiles)."""
    return self._graph.context["configs"]

  def embed(self, function: Callable[[states.States], list[tf.Tensor]]) -> list[tf.Tensor]:
    """The final states, as terms [N, T, h] whose sum they are."""
    return function(self._states)

  def overlay(self, hidden: list[tf.Tensor], segment: list[tf.Tensor], places: tf.Tensor
              ) -> list[tf.Tensor]:
    """The one term [N, T, h] as a constant, a segment's nodes replaced by its own.

    Args:
      hidden: of the whole graphs, [N, T, h].
      segment: of the segments, [nodes of the segments, T, h].
      places: (nodes of the segments,) which nodes those are.
    """
    (hidden,), (segment,) = hidden, segment
    return [tf.tensor_scatter_nd_update(tf.stop_gradient(hidden), places[:, None], segment)]

  def pool(self, hidden: list[tf.Tensor], poolings: Sequence[str]) -> dict[str, tf.Tensor]:
    """For each pooling the pooled states [B, T, h] of terms [N, T, h]."""
    reduce_types = {"mean": "mean", "sum": "sum", "max": "max_no_inf"}
    return {pooling: tf.add_n([
        tfgnn.pool_nodes_to_context(
            self._graph, "op", reduce_types[pooling], feature_value=term) for term in hidden])
            for pooling in poolings}
