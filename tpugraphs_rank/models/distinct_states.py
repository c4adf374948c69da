"""One graph under many configurations, each distinct state of a node computed once.

See `state_index` for how the states are told apart, and `states` for the interface.
"""

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from tpugraphs_rank.models import states


class Distinct(states.States):
  """States [states[k], 1, h]: each distinct one of every node that the configuration reaches."""

  def __init__(self, arrays: Mapping[str, tf.Tensor], kept: Mapping[str, tf.Tensor]):
    """Keeps what `state_index` lists, and what `Shared` kept of the same graph."""
    self._arrays = arrays
    self._kept = kept

  def start(self, of_nodes, of_configs):
    # A state at level 0 stands for one configurable node and its layouts.
    node = self._arrays["node"]
    return tf.gather(self._kept["start"], node) + of_configs(
        self._arrays["layouts"], tf.gather(self._kept["config_sizes"], node))

  def propagate(self, level, hidden, own_kernel, kernels):
    nodes = self._arrays[f"node_{level}"]
    heard = states.sparse_matmul(
        self._arrays[f"edges_{level}"], tf.cast(self._arrays[f"weights_{level}"], hidden.dtype),
        tf.shape(nodes)[0], states.project(hidden, own_kernel, kernels))
    return tf.expand_dims(heard, 1) + tf.gather(self._kept[f"heard_{level}"], nodes)

  def lift(self, level, hidden):
    return tf.gather(tf.concat([hidden, self._kept[f"lifted_{level}"]], axis=0),
                     self._arrays[f"lift_{level}"])

  def attend(self, attention, hidden):
    raise NotImplementedError("configurations that look at one another are no single states")

  def drop(self, level, mask, hidden):
    raise NotImplementedError("dropout is for training, which runs on `Own`")


def pool(arrays: Mapping[str, tf.Tensor], terms: Mapping[int, tf.Tensor], count: tf.Tensor,
         poolings: Sequence[str]) -> dict[str, tf.Tensor]:
  """The sum, and where it is asked for the maximum, over the nodes that configurations reach.

  Args:
    arrays: of `state_index`.
    terms: for each level the states [states, 1, h] whose sum is pooled; one for a maximum.
    count: scalar, configurations.
    poolings: what is asked for.

  Returns:
    "sum" and "max", [1, T, h].
  """
  found: dict[str, list[tf.Tensor]] = {}
  for level, term in terms.items():
    to_group, to_config = arrays[f"to_group_{level}"], arrays[f"to_config_{level}"]
    groups = arrays[f"group_states_{level}"]
    values = term[:, 0]
    if "sum" in poolings or "mean" in poolings:
      ones = lambda edges: tf.ones(tf.shape(edges)[:1], values.dtype)
      # Nodes of a group first: there are far fewer states of groups than of nodes.
      of_groups = states.sparse_matmul(to_group, ones(to_group), groups, values)
      found.setdefault("sum", []).append(
          states.sparse_matmul(to_config, ones(to_config), count, of_groups))
    if "max" in poolings:
      largest: Callable[..., tf.Tensor] = tf.math.unsorted_segment_max
      of_groups = largest(values, to_group[:, 0], groups)
      found.setdefault("max", []).append(
          largest(tf.gather(of_groups, to_config[:, 1]), to_config[:, 0], count))
  return {name: tf.expand_dims(tf.add_n(values), 0) for name, values in found.items()}
