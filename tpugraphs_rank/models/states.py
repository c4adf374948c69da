"""How hidden states of nodes under configurations are laid out, and how messages run between them.

A model is written once, against the methods that these classes share; what they do differs:

  `plain.PlainStates`  one state a node and configuration, over a `GraphTensor`: the reference
  `Shared`, `Own`      together the same, exactly, with what no configuration can change computed
                       once: `Shared` are the states of the nodes out of the configuration's reach,
                       `Own` those within it (see `data.partition`)
  `distinct.Distinct`  in place of `Own`, when one graph is scored: each distinct state of a node
                       once, however many configurations share it (see `state_index`)

Shapes: B graphs, N nodes in all, T configurations a graph (R of a reference list, then C), h wide.
Level k = 0, 1, ... stands for the states before convolution k.
"""

import abc
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

Function = Callable[[tf.Tensor], tf.Tensor]
Dense = tf.keras.layers.Dense


class States(abc.ABC):
  """States [rows, T or 1, h], and what a model does with them."""

  @abc.abstractmethod
  def start(self, of_nodes: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
            of_configs: Callable[..., tf.Tensor] | None) -> tf.Tensor:
    """The projected nodes plus the projected configurations.

    Args:
      of_nodes: of scaled features [rows, F] and opcodes [rows]: [rows, h].
      of_configs: of the batch's configurations, and for layouts of the sizes (rows, 3) of their
        tensors; None: they stay out, T = 1.
    """

  @abc.abstractmethod
  def propagate(self, level: int, hidden: tf.Tensor, own_kernel: Dense,
                kernels: Mapping[str, Dense]) -> tf.Tensor:
    """Each node's own projection plus the weighted sum of its neighbours' projections.

    Args:
      level: number of the convolution.
      hidden: states at this level.
      own_kernel: the layer for a node's own state, with a bias.
      kernels: for each direction of `data.partition.ENDS` the layer for what is sent in it.
    """

  @abc.abstractmethod
  def lift(self, level: int, hidden: tf.Tensor) -> tf.Tensor:
    """The same states, laid out as those of the next level."""

  @abc.abstractmethod
  def attend(self, attention: Any, hidden: tf.Tensor) -> tf.Tensor:
    """Lets the configurations of a list look at one another at each node."""

  @abc.abstractmethod
  def drop(self, level: int, mask: Function, hidden: tf.Tensor) -> tf.Tensor:
    """Drops channels of each node, the same ones for all of its configurations.

    Were they drawn for each configuration, the noise would pass for a difference between them.

    Args:
      level: of the states.
      mask: makes the factors [N, h] of all nodes, in the order of the batch as it was drawn.
      hidden: the states.
    """


def sparse_matmul(edges: tf.Tensor, weights: tf.Tensor, rows: tf.Tensor, dense: tf.Tensor
                  ) -> tf.Tensor:
  """Sums weighted messages: [m, w] to [rows, w], out[r] = sum over edges (r, s) of weight * in[s].

  Args:
    edges: (e, 2) int32, rows [receiver, sender], in any order.
    weights: (e,), constants: no gradient goes through them.
    rows: scalar, the number of receivers.
    dense: [m, w].
  """
  @tf.custom_gradient
  def multiply(values: tf.Tensor):
    shape = tf.cast(tf.stack([rows, tf.shape(values)[0]]), tf.int64)

    def product(operand: tf.Tensor, transposed: bool) -> tf.Tensor:
      return tf.raw_ops.SparseTensorDenseMatMul(
          a_indices=edges, a_values=weights, a_shape=shape, b=operand, adjoint_a=transposed)

    # TensorFlow's own gradient would also work one out for the weights.
    return product(values, False), lambda upstream: product(upstream, True)

  return multiply(dense)


def project(hidden: tf.Tensor, own_kernel: Dense, kernels: Mapping[str, Dense]) -> tf.Tensor:
  """[rows, T, h] through each kernel: [kernels * rows, T * h'], one kernel's rows after the other.

  Projected before they are sent: messages are as narrow as they can be. All in one table, so that
  one sparse product sums what a node keeps and what it hears in all directions.
  """
  every = tf.stack([own_kernel.kernel, *(kernel.kernel for kernel in kernels.values())])
  table = tf.matmul(tf.reshape(hidden, [1, -1, hidden.shape[-1]]), every)
  return tf.reshape(table, tf.stack([-1, tf.shape(hidden)[1] * own_kernel.units]))


class Shared(States):
  """States [N - rows[k], 1, h] of the nodes that no configuration reaches.

  Attributes:
    kept: what `Own` needs of them: tensors by name.
  """

  def __init__(self, arrays: Mapping[str, tf.Tensor]):
    """Keeps the arrays of `data.partition.arrange`."""
    self._arrays = arrays
    self._count = tf.shape(arrays["nodes"])[0]
    self.kept: dict[str, tf.Tensor] = {}

  def start(self, of_nodes, of_configs):
    base = tf.expand_dims(of_nodes(self._arrays["nodes"], self._arrays["opcode"]), 1)
    if "config_sizes" in self._arrays:
      self.kept["config_sizes"] = self._arrays["config_sizes"]
    self.kept["start"], shared = self._cut(base, self._arrays["rows"][0])
    return shared

  def propagate(self, level, hidden, own_kernel, kernels):
    weights = tf.cast(self._arrays["weights"], hidden.dtype)[self._arrays["inner"][level]:]
    heard = sparse_matmul(self._arrays[f"outer_{level}"], weights, self._count,
                          project(hidden, own_kernel, kernels))
    # Also the nodes that the configuration reaches hear from those that it does not.
    self.kept[f"heard_{level}"], shared = self._cut(
        tf.expand_dims(heard + own_kernel.bias, 1), self._arrays["rows"][level + 1])
    return shared

  def lift(self, level, hidden):
    more = self._arrays["rows"][level + 1] - self._arrays["rows"][level]
    self.kept[f"lifted_{level}"], shared = tf.split(
        hidden, tf.stack([more, tf.shape(hidden)[0] - more]))
    return shared

  def attend(self, attention, hidden):
    # Where all configurations have the same state, any weights give its value.
    return attention.alone(hidden)

  def drop(self, level, mask, hidden):
    factors = tf.expand_dims(tf.gather(mask(self._count), self._arrays["order"]), 1)
    self.kept[f"drop_{level}"], factors = self._cut(factors, self._arrays["rows"][level])
    return hidden * factors

  def _cut(self, values: tf.Tensor, rows: tf.Tensor) -> list[tf.Tensor]:
    """Values of all nodes, cut after the first rows. A slice's gradient would be slower."""
    return tf.split(values, tf.stack([rows, self._count - rows]))


class Own(States):
  """States [rows[k], T, h] of the nodes that the configuration reaches."""

  def __init__(self, arrays: Mapping[str, tf.Tensor], kept: Mapping[str, tf.Tensor]):
    """Keeps the arrays of `data.partition.arrange` and what `Shared` kept of the same batch."""
    self._arrays = arrays
    self._kept = kept

  def start(self, of_nodes, of_configs):
    base = self._kept["start"]
    if of_configs is None:
      return base
    if "graph_configs" in self._arrays:
      of_graphs = of_configs(self._arrays["graph_configs"])
      return base + tf.gather(of_graphs, self._arrays["component"])
    return base + of_configs(self._arrays["configs"], self._arrays["config_sizes"])

  def propagate(self, level, hidden, own_kernel, kernels):
    after, times = self._arrays["rows"][level + 1], tf.shape(hidden)[1]
    weights = tf.cast(self._arrays["weights"], hidden.dtype)[:self._arrays["inner"][level]]
    heard = sparse_matmul(self._arrays[f"inner_{level}"], weights, after,
                          project(hidden, own_kernel, kernels))
    return tf.reshape(heard, tf.stack([after, times, own_kernel.units])) + over_configs(
        self._kept[f"heard_{level}"], times)

  def lift(self, level, hidden):
    return tf.concat([hidden, over_configs(
        self._kept[f"lifted_{level}"], tf.shape(hidden)[1])], axis=0)

  def attend(self, attention, hidden):
    component = self._arrays["component"][:tf.shape(hidden)[0]]
    return attention(hidden, tf.gather(key_mask(self._arrays), component))

  def drop(self, level, mask, hidden):
    return hidden * self._kept[f"drop_{level}"]


def over_configs(values: tf.Tensor, times: tf.Tensor) -> tf.Tensor:
  """[rows, 1, h] to [rows, times, h]. To add the result is faster than to broadcast in a sum."""
  return tf.tile(values, tf.stack([1, times, 1]))


def key_mask(masks: Mapping[str, tf.Tensor]) -> tf.Tensor:
  """[B, K]: which configurations attention may look at: the reference list, or else the list."""
  reference = masks["reference_mask"]
  both = tf.concat([reference, masks["config_mask"]], axis=1)
  size = tf.shape(reference)[1]
  return both[:, :tf.where(size > 0, size, tf.shape(both)[1])]
