"""Layers over the hidden states of all nodes under all configurations; see `states`."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import partition
from tpugraphs_rank.models import states as states_lib

_LAYOUT_VALUES = 7  # -1..5
_TENSORS = 3  # Output, input and kernel.

_ACTIVATIONS = {
    "leaky_relu": tf.nn.leaky_relu,
    "relu": tf.nn.relu,
    "gelu": tf.nn.gelu,
    "tanh": tf.nn.tanh,
}


def activation(name: str):
  """The activation function of that name."""
  return _ACTIVATIONS[name]


def mlp(widths: Sequence[int], activation_name: str, l2: float, name: str) -> tf.keras.Sequential:
  """Dense layers with bias, L2 regularisation and activation."""
  return tf.keras.Sequential([dense(width, l2, activation=activation(activation_name))
                              for width in widths], name=name)


def dense(width: int, l2: float, kind=tf.keras.layers.Dense, **options) -> tf.keras.layers.Dense:
  """A dense layer whose kernel is L2-regularised."""
  return kind(
      width, kernel_regularizer=tf.keras.regularizers.L2(l2) if l2 else None, **options)


class DenseBesideTable(tf.keras.layers.Dense):
  """A dense layer of features [rows, F] joined with rows of a table [k, w], without an activation.

  Takes [features, table, which row of the table (rows,)]. The product of the concatenation is the
  sum of two, and the table is projected before its rows are taken.
  """

  # What a dense layer expects is for the concatenation.
  input_spec = property(lambda self: None, lambda self, spec: None)

  def build(self, input_shape):
    features, table, _ = input_shape
    super().build([None, features[-1] + table[-1]])

  def call(self, inputs):
    features, table, row = inputs
    upper, lower = self.kernel[:features.shape[-1]], self.kernel[features.shape[-1]:]
    of_table = tf.matmul(table, lower) + self.bias
    return tf.matmul(features, upper) + tf.gather(of_table, row)


def on_rows(function: states_lib.Function, values: tf.Tensor) -> tf.Tensor:
  """A function of the last axis of [rows, T, w], applied to a matrix.

  Dense layers fuse product, bias and activation for matrices alone.
  """
  changed = function(tf.reshape(values, [-1, values.shape[-1]]))
  return tf.reshape(changed, tf.concat([tf.shape(values)[:2], [changed.shape[-1]]], axis=0))


def layout_features(configs: tf.Tensor, which: str, dtype: tf.DType) -> tf.Tensor:
  """Layouts [rows, T, 18] as a network takes them, [rows, T, w].

  Args:
    configs: integers -1..5: for output, input and kernel the dimensions, minor to major.
    which: "entries", w = 126: each number for itself, one in seven. "order", w = 6: for each tensor
      whether it is constrained at all, and to another order than the descending (row-major) one
      that arrays have anyway, which is what moves data. "both", w = 132. "minor", w = 3: for each
      tensor whether another dimension than the last is the minor-most, the one along which memory
      is contiguous.
    dtype: of the result.
  """
  codes = tf.cast(configs, tf.int32)
  shape = tf.shape(codes)
  found = []
  if which in ("entries", "both"):
    entries = tf.one_hot(codes + 1, _LAYOUT_VALUES, dtype=dtype)
    width = graphs.NUM_LAYOUT_FEATURES * _LAYOUT_VALUES
    found.append(tf.reshape(entries, tf.concat([shape[:2], [width]], axis=0)))
  if which != "entries":
    length = graphs.NUM_LAYOUT_FEATURES // _TENSORS
    tensors = tf.reshape(codes, tf.concat([shape[:2], [_TENSORS, length]], axis=0))
    given = tensors >= 0
    last = tf.reduce_sum(tf.cast(given, tf.int32), axis=-1, keepdims=True) - 1
    moved = given & (tensors != last - tf.range(length))
    flags = [moved[..., 0]] if which == "minor" else [
        last[..., 0] >= 0, tf.reduce_any(moved, axis=-1)]
    found.append(tf.cast(tf.concat(flags, axis=-1), dtype))
  return tf.concat(found, axis=-1)


def layout_tensors(which: str) -> np.ndarray:
  """(w,): which of output, input and kernel each column of `layout_features` speaks of."""
  entries = np.repeat(np.arange(_TENSORS), graphs.NUM_LAYOUT_FEATURES // _TENSORS * _LAYOUT_VALUES)
  of_tensor = np.arange(_TENSORS)
  return np.concatenate({
      "entries": [entries], "order": [of_tensor] * 2, "both": [entries, of_tensor, of_tensor],
      "minor": [of_tensor]}[which])


def different_layouts(configs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """Which layouts there are among [rows, T, 18]: [k, 1, 18] int32, and which each is: [rows, T]."""
  flat = tf.reshape(configs, [-1, graphs.NUM_LAYOUT_FEATURES])
  # In base 7 each its own number, below 2^53, so that sums of floats are exact.
  powers = tf.constant([float(_LAYOUT_VALUES ** place) for place in range(
      graphs.NUM_LAYOUT_FEATURES)], tf.float64)
  number = tf.cast(tf.linalg.matvec(tf.cast(flat, tf.float64), powers), tf.int64)
  found, place = tf.unique(number)
  example = tf.math.unsorted_segment_max(
      tf.range(tf.shape(flat)[0]), place, tf.shape(found)[0])
  # Not as bytes: there is no such gathering on GPUs.
  different = tf.gather(tf.cast(flat, tf.int32), example)
  return different[:, None, :], tf.reshape(place, tf.shape(configs)[:2])


class Convolution(tf.keras.layers.Layer):
  """MLP, then a linear combination of the node and its neighbours, then activation.

  With z = MLP(h), W the learned kernels and A the adjacency normalised as `aggregation` says:

    h' = activation(z W_self + A z W_operands + A^T z W_users)

  joined with h by `residual`: added, concatenated, or not at all. Follows the residual model of
  the TpuGraphs paper (arXiv 2308.13490, appendix), with a kernel of its own for each direction.
  """

  # All but the messages is done to each node's state alone; see `ranker.Ranker.mixes_nodes`.
  mixes_nodes = False

  def __init__(self, config, l2: float, name: str):
    super().__init__(name=name)
    self._config = config
    self._activation = activation(config.activation)
    self._norm = tf.keras.layers.LayerNormalization() if config.layer_norm else None
    self._mlp = mlp([config.hidden_width] * config.mlp_layers, config.activation, l2, "mlp")
    self._self = dense(config.hidden_width, l2, name="self")
    self._directions = {
        direction: dense(config.hidden_width, l2, use_bias=False, name=direction)
        for direction in partition.directions_of(config)}

  def build(self, input_shape):
    # Their kernels are used without calling them.
    for layer in (self._self, *self._directions.values()):
      layer.build([None, self._config.hidden_width])
    super().build(input_shape)

  def call(self, hidden: tf.Tensor, states: states_lib.States, level: int, apart: bool = False
           ) -> list[tf.Tensor]:
    """The states after the convolution, as terms whose sum they are.

    Args:
      hidden: the states before it, h wide.
      states: how they are laid out.
      level: number of this convolution among the model's.
      apart: leave the sum of a residual to the caller: what is only summed up over all nodes need
        not be laid out as the states after the convolution first.

    Returns:
      One term, h' wide; h' = 2h where the residual is a concatenation. Or the two terms of a
      residual, the first laid out as `hidden`.
    """
    state = self._norm(hidden) if self._norm else hidden
    state = on_rows(self._mlp, state)
    output = self._activation(states.propagate(level, state, self._self, self._directions))
    if self._config.residual == "concat":
      return [tf.concat([states.lift(level, hidden), output], axis=-1)]
    if self._config.residual == "none" or hidden.shape[-1] != output.shape[-1]:
      return [output]
    return [hidden, output] if apart else [states.lift(level, hidden) + output]


class ConfigAttention(tf.keras.layers.Layer):
  """At each node, every configuration looks at the configurations of the list.

  With queries and keys from one projection u = h W, and keys k from the reference list where
  there is one (otherwise the list itself):

    h' = h + softmax_k(u u_k^T / sqrt(width)) (h_k W_value)

  The states of a reference list depend on itself alone, so a configuration is scored the same
  whatever else is scored with it.
  """

  mixes_nodes = False

  def __init__(self, config, width: int, l2: float, name: str):
    """Makes the layers.

    Args:
      config: a `ModelConfig`.
      width: of the states.
      l2: weight of the squared norm of the kernels.
      name: of the layer.
    """
    super().__init__(name=name)
    self._project = dense(config.attention_width, l2, use_bias=False, name="queries_and_keys")
    self._scale = config.attention_width ** -0.5
    self._value = dense(width, l2, use_bias=False, name="values")

  def call(self, hidden: tf.Tensor, key_mask: tf.Tensor) -> tf.Tensor:
    """[N, T, h] to the same shape; `key_mask` [N, K] is for the first K <= T configurations."""
    keys = tf.shape(key_mask)[1]
    projected = self._project(hidden)
    logits = tf.matmul(projected, projected[:, :keys], transpose_b=True) * self._scale
    logits = tf.where(key_mask[:, None, :], logits, logits.dtype.min)
    return hidden + tf.matmul(tf.nn.softmax(logits), self._value(hidden[:, :keys]))

  def alone(self, hidden: tf.Tensor) -> tf.Tensor:
    """[N, 1, h] to the same: nodes whose state is the same under all configurations.

    The weights of a softmax add up to 1, so what is looked at there is that state's own value.
    """
    return hidden + self._value(hidden)
