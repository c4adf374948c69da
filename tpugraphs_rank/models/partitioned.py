"""A batch in which what no configuration changes is computed once; see `states`."""

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from tpugraphs_rank.models import poolings as poolings_lib
from tpugraphs_rank.models import states

# Terms of `states.ConfigDependentStates`, and of `states.ConfigIndependentStates`.
Terms = tuple[list[tf.Tensor], list[tf.Tensor]]
Embed = Callable[[states.States], list[tf.Tensor]]

# Part of a pooling that is not composable: the states themselves.
_STATES = "states"


class PartitionedView:
  """A model's view of the arrays of `data.partition.arrange`."""

  def __init__(self, arrays: Mapping[str, tf.Tensor]):
    self._arrays = arrays
    self._graphs = tf.shape(arrays["num_nodes"])[0]

  @property
  def reference_mask(self) -> tf.Tensor:
    """[B, R] bool: the real configurations of the reference list, not padding."""
    return self._arrays["reference_mask"]

  @property
  def graph_configs(self) -> tf.Tensor:
    """[B, T, K]: the configurations of whole graphs (tiles)."""
    return self._arrays["graph_configs"]

  @property
  def config_costs(self) -> tf.Tensor:
    """[B, T, K]: the sums of the effects of layouts, if the run uses them."""
    return self._arrays["config_costs"]

  def drop_lists(self, mask: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """[B, w]: the factors of each list. `mask` makes those of all lists of the whole batch."""
    if "batch_lists" not in self._arrays:
      return mask(self._graphs)
    return tf.gather(mask(self._arrays["batch_lists"]), self._arrays["list_places"])

  def embed(self, function: Embed) -> Terms:
    """The final states as terms to be added.

    Args:
      function: runs the convolutions over a `states.States` and returns the terms.
    """
    independent = states.ConfigIndependentStates(self._arrays)
    independent_terms = function(independent)
    dependent = states.ConfigDependentStates(self._arrays, independent.kept)
    return function(dependent), independent_terms

  def config_independent_part(self, function: Embed, poolings: Sequence[str]
                              ) -> dict[str, tf.Tensor]:
    """What `config_dependent_part` needs from the nodes that no configuration reaches."""
    independent = states.ConfigIndependentStates(self._arrays)
    pooled = self.pool_part(function(independent), poolings, first=False)
    return {**independent.kept, **{f"pooled_{name}": value for name, value in pooled.items()}}

  def config_dependent_part(self, function: Embed, kept: Mapping[str, tf.Tensor],
                            poolings: Sequence[str]) -> dict[str, tf.Tensor]:
    """The pooled states of all nodes, as `pool`.

    Args:
      function: as of `embed`.
      kept: the `config_independent_part` of the same graphs.
      poolings: names of the poolings.
    """
    dependent = self.pool_part(
        function(states.ConfigDependentStates(self._arrays, kept)), poolings, first=True)
    return self.join(dependent, {name: kept[f"pooled_{name}"] for name in dependent}, poolings)

  def overlay(self, hidden: Terms, segment: Terms, places: tf.Tensor) -> Terms:
    """The states of whole graphs as constants, with those of the segments' nodes replaced.

    Args:
      hidden: states of the whole graphs, a single term.
      segment: states of the segments, a single term.
      places: (nodes of the segments,) their positions in the order of this batch.
    """
    dependent, independent = (tf.stop_gradient(part) for (part,) in hidden)
    (segment_dependent,), (segment_independent,) = segment
    rows = tf.shape(dependent)[0]
    # Within a segment no node is closer to a configurable one than in the whole graph.
    count = tf.shape(segment_dependent)[0]
    dependent = tf.tensor_scatter_nd_update(dependent, places[:count, None], segment_dependent)
    places = places[count:]
    inside, outside = tf.where(places < rows)[:, 0], tf.where(places >= rows)[:, 0]
    same = tf.broadcast_to(tf.gather(segment_independent, inside),
                           tf.concat([tf.shape(inside), tf.shape(dependent)[1:]], axis=0))
    dependent = tf.tensor_scatter_nd_update(dependent, tf.gather(places, inside)[:, None], same)
    return [dependent], [tf.tensor_scatter_nd_update(
        independent, tf.gather(places, outside)[:, None] - rows,
        tf.gather(segment_independent, outside))]

  def pool(self, hidden: Terms, poolings: Sequence[str]) -> dict[str, tf.Tensor]:
    """For each pooling the pooled states [B, T, h] of each graph's nodes."""
    dependent, independent = hidden
    return self.join(self.pool_part(dependent, poolings, first=True),
                     self.pool_part(independent, poolings, first=False), poolings)

  def pool_part(self, terms: Sequence[tf.Tensor], poolings: Sequence[str], first: bool
                ) -> dict[str, tf.Tensor]:
    """What `join` needs from the first or the last nodes: sums, maxima, or the states themselves.

    Args:
      terms: states whose sum is pooled; a single term unless all poolings are sums or means.
      poolings: names of the poolings.
      first: whether these are the first nodes in the batch's order, or the last.
    """
    component = self._arrays["component"]
    count = tf.shape(component)[0]
    parts: dict[str, list[tf.Tensor]] = {}
    for term in terms:
      rows = tf.shape(term)[0]
      graph = component[:rows] if first else component[count - rows:]
      if "sum" in poolings or "mean" in poolings:
        summed = states.sparse_matmul(
            tf.stack([graph, tf.range(rows)], axis=1), tf.ones(rows[None], term.dtype),
            self._graphs, tf.reshape(term, tf.stack([rows, tf.shape(term)[1] * term.shape[2]])))
        parts.setdefault("sum", []).append(
            tf.reshape(summed, tf.stack([self._graphs, tf.shape(term)[1], term.shape[2]])))
      if "max" in poolings:
        parts.setdefault("max", []).append(
            tf.math.unsorted_segment_max(term, graph, self._graphs))
      if not set(poolings) <= set(poolings_lib.COMPOSABLE):
        parts.setdefault(_STATES, []).append(term)
    return {name: tf.add_n(values) for name, values in parts.items()}

  def join(self, dependent: Mapping[str, tf.Tensor], independent: Mapping[str, tf.Tensor],
           poolings: Sequence[str]) -> dict[str, tf.Tensor]:
    """The pooled states of all nodes from those of both parts."""
    pooled = {}
    if "max" in poolings:
      pooled["max"] = tf.maximum(dependent["max"], independent["max"])
    if "sum" in dependent:
      pooled["sum"] = dependent["sum"] + independent["sum"]
      pooled["mean"] = pooled["sum"] / tf.cast(
          self._arrays["num_nodes"], pooled["sum"].dtype)[:, None, None]
    if _STATES in dependent:
      every = tf.concat([dependent[_STATES], states.over_configs(
          independent[_STATES], tf.shape(dependent[_STATES])[1])], axis=0)
      for name in poolings:
        if name not in poolings_lib.COMPOSABLE:
          pooled[name] = poolings_lib.get(name)(every, self._arrays["component"], self._graphs)
    return pooled
