"""The plain formulation: one state for each node and configuration, over a `GraphTensor`.

It is simple to verify and slow on large graphs. Tests compare the faster execution paths with it.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf
import tensorflow_gnn as tfgnn

from tpugraphs_rank.models import poolings as poolings_lib
from tpugraphs_rank.models import states

_SENDERS = {"operands": tfgnn.SOURCE, "users": tfgnn.TARGET}


class PlainStates(states.States):
  """States [N, T, h]."""

  def __init__(self, graph: tfgnn.GraphTensor, aggregation: str):
    """Stores the batch.

    Args:
      graph: the batch.
      aggregation: of `propagate`: "sum", "mean" (divided by the receiver's degree) or "symmetric"
        (divided by the root of the product of the sender's and the receiver's degree in one
        direction). With "max", models call `propagate_largest`.
    """
    self._graph = graph
    self._aggregation = aggregation

  def start(self, project_nodes, project_configs):
    """[N, T, h]; [N, 1, h] without configurations."""
    nodes = self._graph.node_sets["op"]
    base = project_nodes(nodes["nodes"], nodes["opcode"])[:, None, :]
    if project_configs is None:
      return base
    if "config" in self._graph.node_sets:
      configs = self._graph.node_sets["config"]
      return base + tfgnn.pool_edges_to_node(
          self._graph, "at", tfgnn.TARGET, "sum",
          feature_value=project_configs(configs["configs"], configs["config_sizes"]))
    return base + tfgnn.broadcast_context_to_nodes(
        self._graph, "op", feature_value=project_configs(self._graph.context["configs"]))

  def propagate(self, level, hidden, self_kernel, kernels):
    """[N, T, h] to [N, T, h']."""
    output = self_kernel(hidden)
    for direction, kernel in kernels.items():
      output += self._aggregate(kernel(hidden), _SENDERS[direction])
    return output

  def propagate_largest(self, level, hidden, self_kernel, kernels):
    """[N, T, h] to [N, T, h']."""
    output = self_kernel(hidden)
    for direction, kernel in kernels.items():
      sender = _SENDERS[direction]
      receiver = tfgnn.TARGET if sender == tfgnn.SOURCE else tfgnn.SOURCE
      sent = tfgnn.broadcast_node_to_edges(
          self._graph, "feed", sender, feature_value=kernel(hidden))
      output += tfgnn.pool_edges_to_node(
          self._graph, "feed", receiver, "max_no_inf", feature_value=sent)
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
    """[N, 1, 1]: the number of edges that have each node at this end, at least 1."""
    ones = tf.ones([self._graph.edge_sets["feed"].total_size], values.dtype)
    degree = tfgnn.pool_edges_to_node(self._graph, "feed", tag, "sum", feature_value=ones)
    return tf.maximum(degree, 1.0)[:, None, None]

  def lift(self, level, hidden):
    """[N, T, h], unchanged: all states exist from the start."""
    return hidden

  def attend(self, attention, hidden):
    """[N, T, h] to the same shape."""
    return attention(hidden, tfgnn.broadcast_context_to_nodes(
        self._graph, "op", feature_value=states.key_mask(self._graph.context)))

  def mix(self, layer, hidden):
    """[N, T, h] to the same shape."""
    sizes = self._graph.node_sets["op"].sizes
    graphs = tf.shape(sizes)[0]
    return layer(hidden, tf.repeat(tf.range(graphs), sizes), graphs)

  def drop(self, level, mask, hidden):
    """[N, T, h] to the same shape; `mask` returns [N, h]."""
    return hidden * mask(tf.shape(hidden)[0])[:, None, :]


class PlainView:
  """A batch as a `GraphTensor`, with the methods of `partitioned.PartitionedView`."""

  def __init__(self, graph: tfgnn.GraphTensor, aggregation: str):
    self._graph = graph
    self._states = PlainStates(graph, aggregation)

  @property
  def reference_mask(self) -> tf.Tensor:
    """[B, R] bool: the real configurations of the reference list, not padding."""
    return self._graph.context["reference_mask"]

  @property
  def graph_configs(self) -> tf.Tensor:
    """[B, T, K]: the configurations of whole graphs (tiles)."""
    return self._graph.context["configs"]

  @property
  def config_costs(self) -> tf.Tensor:
    """[B, T, K]: the sums of the effects of layouts, if the run uses them."""
    return self._graph.context["config_costs"]

  def drop_lists(self, mask: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """[B, w]: the factors of each list, which `mask` makes."""
    return mask(tf.shape(self._graph.node_sets["op"].sizes)[0])

  def embed(self, function: Callable[[states.States], list[tf.Tensor]]) -> list[tf.Tensor]:
    """The final states as terms [N, T, h] to be added."""
    return function(self._states)

  def overlay(self, hidden: list[tf.Tensor], segment: list[tf.Tensor], places: tf.Tensor
              ) -> list[tf.Tensor]:
    """The one term [N, T, h] as a constant, with the states of the segments' nodes replaced.

    Args:
      hidden: states of the whole graphs, [N, T, h].
      segment: states of the segments, [nodes of the segments, T, h].
      places: (nodes of the segments,) their positions in the whole graphs.
    """
    (hidden,), (segment,) = hidden, segment
    return [tf.tensor_scatter_nd_update(tf.stop_gradient(hidden), places[:, None], segment)]

  def pool(self, hidden: list[tf.Tensor], poolings: Sequence[str]) -> dict[str, tf.Tensor]:
    """For each pooling the pooled states [B, T, h] of terms [N, T, h]."""
    sizes = self._graph.node_sets["op"].sizes
    graphs = tf.shape(sizes)[0]
    graph_of_node = tf.repeat(tf.range(graphs), sizes)
    return {name: tf.add_n([
        poolings_lib.get(name)(term, graph_of_node, graphs) for term in hidden])
            for name in poolings}
