"""A batch in which what no configuration can change is computed once; see `states`."""

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from tpugraphs_rank.models import states

# Terms of `states.Own`, and of `states.Shared`.
Terms = tuple[list[tf.Tensor], list[tf.Tensor]]
Embed = Callable[[states.States], list[tf.Tensor]]


class PartitionedView:
  """Arrays of `data.partition.arrange`, seen by a model."""

  def __init__(self, arrays: Mapping[str, tf.Tensor]):
    self._arrays = arrays
    self._graphs = tf.shape(arrays["num_nodes"])[0]

  @property
  def reference_mask(self) -> tf.Tensor:
    """[B, R] bool: which of the reference list's configurations are no padding."""
    return self._arrays["reference_mask"]

  @property
  def graph_configs(self) -> tf.Tensor:
    """[B, T, K]: the configurations of whole graphs (tiles)."""
    return self._arrays["graph_configs"]

  def embed(self, function: Embed) -> Terms:
    """The final states, as terms whose sum they are.

    Args:
      function: runs the convolutions over a `states.States`, and returns the terms.
    """
    shared = states.Shared(self._arrays)
    of_shared = function(shared)
    return function(states.Own(self._arrays, shared.kept)), of_shared

  def shared_part(self, function: Embed, poolings: Sequence[str]) -> dict[str, tf.Tensor]:
    """What `own_part` needs of the nodes that no configuration reaches."""
    shared = states.Shared(self._arrays)
    pooled = self.pool_part(function(shared), poolings, first=False)
    return {**shared.kept, **{f"pooled_{name}": value for name, value in pooled.items()}}

  def own_part(self, function: Embed, kept: Mapping[str, tf.Tensor], poolings: Sequence[str]
               ) -> dict[str, tf.Tensor]:
    """The pooled states of all nodes, as `pool`, given a `shared_part` of the same graphs."""
    own = self.pool_part(function(states.Own(self._arrays, kept)), poolings, first=True)
    return self.join(own, {name: kept[f"pooled_{name}"] for name in own}, poolings)

  def overlay(self, hidden: Terms, segment: Terms, places: tf.Tensor) -> Terms:
    """The states of whole graphs as constants, those of a segment's nodes replaced by its own.

    Args:
      hidden: of the whole graphs, a single term.
      segment: of the segments, a single term.
      places: (nodes of the segments,) which nodes, in the order of this batch, those are.
    """
    own, shared = (tf.stop_gradient(part) for (part,) in hidden)
    (of_own,), (of_shared,) = segment
    rows = tf.shape(own)[0]
    # Within a segment no node is nearer to a configurable one than in the whole graph.
    counted = tf.shape(of_own)[0]
    own = tf.tensor_scatter_nd_update(own, places[:counted, None], of_own)
    places = places[counted:]
    inside, outside = tf.where(places < rows)[:, 0], tf.where(places >= rows)[:, 0]
    same = tf.broadcast_to(tf.gather(of_shared, inside),
                           tf.concat([tf.shape(inside), tf.shape(own)[1:]], axis=0))
    own = tf.tensor_scatter_nd_update(own, tf.gather(places, inside)[:, None], same)
    return [own], [tf.tensor_scatter_nd_update(
        shared, tf.gather(places, outside)[:, None] - rows, tf.gather(of_shared, outside))]

  def pool(self, hidden: Terms, poolings: Sequence[str]) -> dict[str, tf.Tensor]:
    """For each of "mean", "sum" and "max" the pooled states [B, T, h] of each graph's nodes."""
    own, shared = hidden
    return self.join(self.pool_part(own, poolings, first=True),
                     self.pool_part(shared, poolings, first=False), poolings)

  def pool_part(self, terms: Sequence[tf.Tensor], poolings: Sequence[str], first: bool
                ) -> dict[str, tf.Tensor]:
    """The sum, and where it is asked for the maximum, over the first or the last nodes.

    Args:
      terms: states whose sum is pooled; a single one for a maximum.
      poolings: what is asked for.
      first: whether these are the first nodes in the batch's order, or the last.
    """
    component = self._arrays["component"]
    count = tf.shape(component)[0]
    found: dict[str, list[tf.Tensor]] = {}
    for term in terms:
      rows = tf.shape(term)[0]
      graph = component[:rows] if first else component[count - rows:]
      if "sum" in poolings or "mean" in poolings:
        summed = states.sparse_matmul(
            tf.stack([graph, tf.range(rows)], axis=1), tf.ones(rows[None], term.dtype),
            self._graphs, tf.reshape(term, tf.stack([rows, tf.shape(term)[1] * term.shape[2]])))
        found.setdefault("sum", []).append(
            tf.reshape(summed, tf.stack([self._graphs, tf.shape(term)[1], term.shape[2]])))
      if "max" in poolings:
        found.setdefault("max", []).append(
            tf.math.unsorted_segment_max(term, graph, self._graphs))
    return {name: tf.add_n(values) for name, values in found.items()}

  def join(self, own: Mapping[str, tf.Tensor], shared: Mapping[str, tf.Tensor],
           poolings: Sequence[str]) -> dict[str, tf.Tensor]:
    """The pooled states of all nodes from those of both parts."""
    pooled = {}
    if "max" in poolings:
      pooled["max"] = tf.maximum(own["max"], shared["max"])
    if "sum" in own:
      pooled["sum"] = own["sum"] + shared["sum"]
      pooled["mean"] = pooled["sum"] / tf.cast(
          self._arrays["num_nodes"], pooled["sum"].dtype)[:, None, None]
    return pooled
