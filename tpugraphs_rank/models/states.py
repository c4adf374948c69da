"""Hidden states of nodes under configurations: their layouts in memory, and messages between them.

A model is written once against the methods of `States`. The classes differ in what they store:

  `plain_states.PlainStates`         one state for each node and configuration, over a
                                     `GraphTensor`: the reference implementation
  `ConfigIndependentStates`,         together exactly the same, but what no configuration changes is
  `ConfigDependentStates`            computed once: the first are the states of nodes that no
                                     configuration reaches, the second those of the other nodes
                                     (see `data.partition`)
  `distinct_states.DistinctStates`   replace `ConfigDependentStates` when one graph is scored: each
                                     distinct state of a node once, however many configurations
                                     share it (see `state_index`)

Shapes: B graphs, N nodes in all, T configurations for each graph (R of a reference list, then C),
h wide. Level k = 0, 1, ... denotes the states before convolution k.
"""

import abc
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

Function = Callable[[tf.Tensor], tf.Tensor]

_MIXED = "where nodes mix, every node depends on every configuration; use `PlainStates`"


class States(abc.ABC):
  """States [rows, T or 1, h] and the operations of a model on them."""

  @abc.abstractmethod
  def start(self, project_nodes: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
            project_configs: Callable[..., tf.Tensor] | None) -> tf.Tensor:
    """The projected nodes plus the projected configurations.

    Args:
      project_nodes: maps scaled features [rows, F] and opcodes [rows] to [rows, h].
      project_configs: maps the batch's configurations, and for layouts the sizes (rows, 3) of their
        tensors, to h wide vectors. None: configurations are left out, and T = 1.
    """

  @abc.abstractmethod
  def propagate(self, level: int, hidden: tf.Tensor, self_kernel: tf.keras.layers.Dense,
                kernels: Mapping[str, tf.keras.layers.Dense]) -> tf.Tensor:
    """Each node's own projection plus the weighted sum of its neighbours' projections.

    Args:
      level: number of the convolution.
      hidden: states at this level.
      self_kernel: the layer for a node's own state, with a bias.
      kernels: for each direction of `data.partition.ENDS` the layer for messages in it.
    """

  @abc.abstractmethod
  def propagate_largest(self, level: int, hidden: tf.Tensor, self_kernel: tf.keras.layers.Dense,
                        kernels: Mapping[str, tf.keras.layers.Dense]) -> tf.Tensor:
    """As `propagate`, with the largest of the neighbours' projections in each direction.

    The maximum is taken channel by channel. A node without neighbours in a direction gets 0.
    """

  @abc.abstractmethod
  def lift(self, level: int, hidden: tf.Tensor) -> tf.Tensor:
    """The same states in the memory layout of the next level."""

  @abc.abstractmethod
  def attend(self, attention: Any, hidden: tf.Tensor) -> tf.Tensor:
    """At each node, lets the configurations of a list attend to one another."""

  @abc.abstractmethod
  def mix(self, layer: Any, hidden: tf.Tensor) -> tf.Tensor:
    """Lets the nodes of a graph influence one another through a layer of `models.node_layers`."""

  @abc.abstractmethod
  def drop(self, level: int, mask: Function, hidden: tf.Tensor) -> tf.Tensor:
    """Drops channels of each node, the same ones for all of its configurations.

    With a different mask for each configuration, the noise would look like a difference between
    configurations.

    Args:
      level: of the states.
      mask: makes the factors [N, h] of all nodes, in the original order of the batch.
      hidden: the states.
    """


def sparse_matmul(edges: tf.Tensor, weights: tf.Tensor, rows: tf.Tensor, dense: tf.Tensor
                  ) -> tf.Tensor:
  """Sums weighted messages: [m, w] to [rows, w], out[r] = sum over edges (r, s) of weight * in[s].

  Args:
    edges: (e, 2) int32, rows [receiver, sender], in any order.
    weights: (e,), constants: no gradient flows through them.
    rows: scalar, the number of receivers.
    dense: [m, w].
  """
  @tf.custom_gradient
  def multiply(values: tf.Tensor):
    shape = tf.cast(tf.stack([rows, tf.shape(values)[0]]), tf.int64)

    def product(operand: tf.Tensor, transposed: bool) -> tf.Tensor:
      return tf.raw_ops.SparseTensorDenseMatMul(
          a_indices=edges, a_values=weights, a_shape=shape, b=operand, adjoint_a=transposed)

    # TensorFlow's own gradient would also compute one for the weights.
    return product(values, False), lambda upstream: product(upstream, True)

  return multiply(dense)


def largest_messages(edges: tf.Tensor, rows: tf.Tensor, table: tf.Tensor, kernels: int
                     ) -> tf.Tensor:
  """For each receiver and kernel the largest message, [rows, kernels, w], channel by channel.

  Where there is none, the result is the lowest number of its type. A node's message to itself is
  the only one through its kernel.

  Args:
    edges: (e, 2) int32, rows [receiver, sender + kernel * number of senders].
    rows: scalar, the number of receivers.
    table: [kernels * number of senders, w], of `project`.
    kernels: their number.
  """
  senders = tf.maximum(tf.shape(table)[0] // kernels, 1)
  group = edges[:, 0] * kernels + edges[:, 1] // senders
  largest = tf.math.unsorted_segment_max(tf.gather(table, edges[:, 1]), group, rows * kernels)
  return tf.reshape(largest, tf.stack([rows, kernels, tf.shape(table)[1]]))


def sum_of_largest(largest: tf.Tensor) -> tf.Tensor:
  """The sum over kernels of results of `largest_messages`, whose axis 1 they are; none counts 0."""
  none = tf.equal(largest, largest.dtype.min)
  return tf.reduce_sum(tf.where(none, tf.zeros_like(largest), largest), axis=1)


def project(hidden: tf.Tensor, self_kernel: tf.keras.layers.Dense,
            kernels: Mapping[str, tf.keras.layers.Dense]) -> tf.Tensor:
  """[rows, T, h] through each kernel: [kernels * rows, T * h'], kernel by kernel.

  States are projected before they are sent, so that messages are narrow. All projections are in one
  table, so that a single sparse product sums a node's own state and the messages of all directions.
  """
  every = tf.stack([self_kernel.kernel, *(kernel.kernel for kernel in kernels.values())])
  table = tf.matmul(tf.reshape(hidden, [1, -1, hidden.shape[-1]]), every)
  return tf.reshape(table, tf.stack([-1, tf.shape(hidden)[1] * self_kernel.units]))


class ConfigIndependentStates(States):
  """States [N - rows[k], 1, h] of the nodes that no configuration reaches.

  Attributes:
    kept: the tensors, by name, that `ConfigDependentStates` needs from these.
  """

  def __init__(self, arrays: Mapping[str, tf.Tensor]):
    """Stores the arrays of `data.partition.arrange`."""
    self._arrays = arrays
    self._count = tf.shape(arrays["nodes"])[0]
    self.kept: dict[str, tf.Tensor] = {}

  def start(self, project_nodes, project_configs):
    base = tf.expand_dims(project_nodes(self._arrays["nodes"], self._arrays["opcode"]), 1)
    if "config_sizes" in self._arrays:
      self.kept["config_sizes"] = self._arrays["config_sizes"]
    self.kept["start"], independent = self._cut(base, self._arrays["rows"][0])
    return independent

  def propagate(self, level, hidden, self_kernel, kernels):
    weights = tf.cast(self._arrays["weights"], hidden.dtype)[self._arrays["inner"][level]:]
    received = sparse_matmul(self._arrays[f"outer_{level}"], weights, self._count,
                             project(hidden, self_kernel, kernels))
    # Nodes that the configuration reaches also receive messages from those that it does not reach.
    self.kept[f"received_{level}"], independent = self._cut(
        tf.expand_dims(received + self_kernel.bias, 1), self._arrays["rows"][level + 1])
    return independent

  def propagate_largest(self, level, hidden, self_kernel, kernels):
    largest = largest_messages(self._arrays[f"outer_{level}"], self._count,
                               project(hidden, self_kernel, kernels), 1 + len(kernels))
    self.kept[f"received_{level}"], independent = self._cut(
        largest, self._arrays["rows"][level + 1])
    return tf.expand_dims(sum_of_largest(independent) + self_kernel.bias, 1)

  def lift(self, level, hidden):
    more = self._arrays["rows"][level + 1] - self._arrays["rows"][level]
    self.kept[f"lifted_{level}"], independent = tf.split(
        hidden, tf.stack([more, tf.shape(hidden)[0] - more]))
    return independent

  def attend(self, attention, hidden):
    # Where all configurations have the same state, any attention weights return its value.
    return attention.attend_to_self(hidden)

  def mix(self, layer, hidden):
    raise NotImplementedError(_MIXED)

  def drop(self, level, mask, hidden):
    # A share of a batch (see `data.shares`) takes its rows of the whole batch's factors.
    count = self._arrays.get("batch_nodes", self._count)
    factors = tf.expand_dims(tf.gather(mask(count), self._arrays["order"]), 1)
    self.kept[f"drop_{level}"], factors = self._cut(factors, self._arrays["rows"][level])
    return hidden * factors

  def _cut(self, values: tf.Tensor, rows: tf.Tensor) -> list[tf.Tensor]:
    """Values of all nodes, cut after the first rows. A slice's gradient would be slower."""
    return tf.split(values, tf.stack([rows, self._count - rows]))


class ConfigDependentStates(States):
  """States [rows[k], T, h] of the nodes that the configuration reaches."""

  def __init__(self, arrays: Mapping[str, tf.Tensor], kept: Mapping[str, tf.Tensor]):
    """Stores the arrays of `data.partition.arrange` and the other nodes' `kept` tensors.

    Args:
      arrays: of `data.partition.arrange`.
      kept: of `ConfigIndependentStates` of the same batch.
    """
    self._arrays = arrays
    self._kept = kept

  def start(self, project_nodes, project_configs):
    base = self._kept["start"]
    if project_configs is None:
      return base
    if "configs" not in self._arrays:
      of_graphs = project_configs(self._arrays["graph_configs"])
      return base + tf.gather(of_graphs, self._arrays["component"])
    return base + project_configs(self._arrays["configs"], self._arrays["config_sizes"])

  def propagate(self, level, hidden, self_kernel, kernels):
    after, times = self._arrays["rows"][level + 1], tf.shape(hidden)[1]
    weights = tf.cast(self._arrays["weights"], hidden.dtype)[:self._arrays["inner"][level]]
    received = sparse_matmul(self._arrays[f"inner_{level}"], weights, after,
                             project(hidden, self_kernel, kernels))
    return tf.reshape(received, tf.stack([after, times, self_kernel.units])) + over_configs(
        self._kept[f"received_{level}"], times)

  def propagate_largest(self, level, hidden, self_kernel, kernels):
    after, times = self._arrays["rows"][level + 1], tf.shape(hidden)[1]
    largest = largest_messages(self._arrays[f"inner_{level}"], after,
                               project(hidden, self_kernel, kernels), 1 + len(kernels))
    largest = tf.reshape(largest, tf.stack(
        [after, 1 + len(kernels), times, self_kernel.units]))
    return sum_of_largest(tf.maximum(
        largest, self._kept[f"received_{level}"][:, :, None])) + self_kernel.bias

  def lift(self, level, hidden):
    return tf.concat([hidden, over_configs(
        self._kept[f"lifted_{level}"], tf.shape(hidden)[1])], axis=0)

  def attend(self, attention, hidden):
    component = self._arrays["component"][:tf.shape(hidden)[0]]
    return attention(hidden, tf.gather(key_mask(self._arrays), component))

  def mix(self, layer, hidden):
    raise NotImplementedError(_MIXED)

  def drop(self, level, mask, hidden):
    return hidden * self._kept[f"drop_{level}"]


def over_configs(values: tf.Tensor, times: tf.Tensor) -> tf.Tensor:
  """Repeats [rows, 1, h] to [rows, times, h]; adding the result is faster than broadcasting."""
  return tf.tile(values, tf.stack([1, times, 1]))


def key_mask(masks: Mapping[str, tf.Tensor]) -> tf.Tensor:
  """[B, K]: the configurations that attention may use: the reference list, or else the list."""
  reference = masks["reference_mask"]
  both = tf.concat([reference, masks["config_mask"]], axis=1)
  size = tf.shape(reference)[1]
  return both[:, :tf.where(size > 0, size, tf.shape(both)[1])]
