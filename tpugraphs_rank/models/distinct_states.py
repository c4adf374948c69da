"""One graph under many configurations, with each distinct state of a node computed once.

`state_index` explains how equal states are recognised, `states` defines the interface.
"""

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from tpugraphs_rank.models import states


class DistinctStates(states.States):
  """States [states[k], 1, h]: the distinct ones of every node that the configuration reaches."""

  def __init__(self, arrays: Mapping[str, tf.Tensor], kept: Mapping[str, tf.Tensor]):
    """Stores the arrays of `state_index` and the other nodes' `kept` tensors.

    Args:
      arrays: of `state_index.StateIndex.arrays`.
      kept: of `states.ConfigIndependentStates` of the same graph.
    """
    self._arrays = arrays
    self._kept = kept

  def start(self, project_nodes, project_configs):
    # A state at level 0 is one configurable node with its layouts.
    node = self._arrays["node"]
    return tf.gather(self._kept["start"], node) + project_configs(
        self._arrays["layouts"], tf.gather(self._kept["config_sizes"], node))

  def propagate(self, level, hidden, self_kernel, kernels):
    nodes = self._arrays[f"node_{level}"]
    received = states.sparse_matmul(
        self._arrays[f"edges_{level}"], tf.cast(self._arrays[f"weights_{level}"], hidden.dtype),
        tf.shape(nodes)[0], states.project(hidden, self_kernel, kernels))
    return tf.expand_dims(received, 1) + tf.gather(self._kept[f"received_{level}"], nodes)

  def propagate_largest(self, level, hidden, self_kernel, kernels):
    nodes = self._arrays[f"node_{level}"]
    largest = states.largest_messages(
        self._arrays[f"edges_{level}"], tf.shape(nodes)[0],
        states.project(hidden, self_kernel, kernels), 1 + len(kernels))
    largest = tf.maximum(largest, tf.gather(self._kept[f"received_{level}"], nodes))
    return tf.expand_dims(states.sum_of_largest(largest) + self_kernel.bias, 1)

  def lift(self, level, hidden):
    return tf.gather(tf.concat([hidden, self._kept[f"lifted_{level}"]], axis=0),
                     self._arrays[f"lift_{level}"])

  def attend(self, attention, hidden):
    raise NotImplementedError("with attention, a state depends on more than one configuration")

  def mix(self, layer, hidden):
    raise NotImplementedError("where nodes mix, a state depends on all nodes of the graph")

  def drop(self, level, mask, hidden):
    raise NotImplementedError("dropout is for training, which uses `ConfigDependentStates`")


def pool(arrays: Mapping[str, tf.Tensor], terms: Mapping[int, tf.Tensor], count: tf.Tensor,
         poolings: Sequence[str]) -> dict[str, tf.Tensor]:
  """The sum, and if needed the maximum, over the nodes that configurations reach.

  Args:
    arrays: of `state_index.StateIndex.arrays`.
    terms: for each level the states [states, 1, h] whose sum is pooled; one level for a maximum.
    count: scalar, configurations.
    poolings: names of the poolings.

  Returns:
    "sum" and "max", [1, T, h].
  """
  parts: dict[str, list[tf.Tensor]] = {}
  for level, term in terms.items():
    to_group, to_config = arrays[f"to_group_{level}"], arrays[f"to_config_{level}"]
    groups = arrays[f"group_states_{level}"]
    values = term[:, 0]
    if "sum" in poolings or "mean" in poolings:
      ones = lambda edges, dtype=values.dtype: tf.ones(tf.shape(edges)[:1], dtype)
      # Nodes of a group first: there are far fewer states of groups than of nodes.
      of_groups = states.sparse_matmul(to_group, ones(to_group), groups, values)
      parts.setdefault("sum", []).append(
          states.sparse_matmul(to_config, ones(to_config), count, of_groups))
    if "max" in poolings:
      largest: Callable[..., tf.Tensor] = tf.math.unsorted_segment_max
      of_groups = largest(values, to_group[:, 0], groups)
      parts.setdefault("max", []).append(
          largest(tf.gather(of_groups, to_config[:, 1]), to_config[:, 0], count))
  return {name: tf.expand_dims(tf.add_n(values), 0) for name, values in parts.items()}
