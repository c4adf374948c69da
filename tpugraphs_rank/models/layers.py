"""Layers over the hidden states of all nodes under all configurations; see `states`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tpugraphs_rank.costs import layout_features as layout_features_lib
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import partition
from tpugraphs_rank.models import states as states_lib

LAYOUT_VALUES = 7  # -1..5
DIGIT_WIDTH = 4  # Of the shared embedding of these values, as in TGraph.
_TENSORS = 3  # Output, input and kernel.
_LOGS = 8.0  # Typical log2 of the length of an axis.

_ACTIVATIONS = {
    "leaky_relu": tf.nn.leaky_relu,
    "relu": tf.nn.relu,
    "gelu": tf.nn.gelu,
    "tanh": tf.nn.tanh,
}


def activation(name: str):
  """The activation function with this name."""
  return _ACTIVATIONS[name]


def mlp(widths: Sequence[int], activation_name: str, l2: float, name: str) -> tf.keras.Sequential:
  """Dense layers with bias, L2 regularisation and activation."""
  return tf.keras.Sequential([dense(width, l2, activation=activation(activation_name))
                              for width in widths], name=name)


def dense(width: int, l2: float, kind=tf.keras.layers.Dense, **options) -> tf.keras.layers.Dense:
  """A dense layer whose kernel is L2-regularised."""
  return kind(
      width, kernel_regularizer=tf.keras.regularizers.L2(l2) if l2 else None, **options)


class DenseWithTable(tf.keras.layers.Dense):
  """A dense layer of features [rows, F] concatenated with rows of a table [k, w]; no activation.

  The inputs are [features, table, row of the table (rows,)]. The product with the concatenation is
  the sum of two products, and the table is projected before its rows are gathered.
  """

  # The specification of a dense layer is for the concatenation.
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
  """Applies a function of the last axis of [rows, T, w] to a matrix.

  Dense layers fuse product, bias and activation for matrices only.
  """
  changed = function(tf.reshape(values, [-1, values.shape[-1]]))
  return tf.reshape(changed, tf.concat([tf.shape(values)[:2], [changed.shape[-1]]], axis=0))


def layout_features(configs: tf.Tensor, which: str, dtype: tf.DType) -> tf.Tensor:
  """Layouts [rows, T, 18] as features of a network, [rows, T, w].

  Args:
    configs: integers -1..5: the dimensions of output, input and kernel, minor to major. The effects
      of requests may follow them; they are not read.
    which: the features.
      "entries", w = 126: a one-hot vector of 7 for each number.
      "order", w = 6: for each tensor, whether its layout is constrained, and whether it is
        constrained to an order other than descending (row-major). Arrays are row-major by default,
        so only another order moves data.
      "both", w = 132: "entries" and "order".
      "minor", w = 3: for each tensor, whether its minor-most dimension, along which memory is
        contiguous, is not the last dimension.
    dtype: of the result.
  """
  codes = tf.cast(configs[..., :graphs.NUM_LAYOUT_FEATURES], tf.int32)
  shape = tf.shape(codes)
  features = []
  if which in ("entries", "both"):
    entries = tf.one_hot(codes + 1, LAYOUT_VALUES, dtype=dtype)
    width = graphs.NUM_LAYOUT_FEATURES * LAYOUT_VALUES
    features.append(tf.reshape(entries, tf.concat([shape[:2], [width]], axis=0)))
  if which != "entries":
    length = graphs.NUM_LAYOUT_FEATURES // _TENSORS
    tensors = tf.reshape(codes, tf.concat([shape[:2], [_TENSORS, length]], axis=0))
    constrained = tensors >= 0
    last = tf.reduce_sum(tf.cast(constrained, tf.int32), axis=-1, keepdims=True) - 1
    moved = constrained & (tensors != last - tf.range(length))
    flags = [moved[..., 0]] if which == "minor" else [
        last[..., 0] >= 0, tf.reduce_any(moved, axis=-1)]
    features.append(tf.cast(tf.concat(flags, axis=-1), dtype))
  return tf.concat(features, axis=-1)


def digit_features(configs: tf.Tensor, embedding: tf.keras.layers.Embedding) -> tf.Tensor:
  """Layouts [rows, T, w] as embeddings of their 18 numbers, [rows, T, 18 * 4].

  All places share one table, as in TGraph (arXiv 2405.16623).

  Args:
    configs: integers -1..5, of which the first 18 are layouts.
    embedding: of 7 values, 4 wide.
  """
  codes = tf.cast(configs[..., :graphs.NUM_LAYOUT_FEATURES], tf.int32)
  width = graphs.NUM_LAYOUT_FEATURES * DIGIT_WIDTH
  return tf.reshape(embedding(codes + 1), tf.concat([tf.shape(codes)[:2], [width]], axis=0))


def layout_extents(configs: tf.Tensor, sizes: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
  """The lengths of the axes that layouts make minor-most, [rows, T, 30].

  For each tensor five numbers: whether a layout is requested; log2 of the lengths of its minor-most
  axis and of the next one; and their differences from row-major order. All are 0 without a request.
  The same numbers follow, multiplied by the root of the tensor's size. Padding, vectors and
  contiguous runs of memory depend on these lengths.

  Args:
    configs: [rows, T, w] integers, of which the first 18 are layouts.
    sizes: [rows, 27] of `data.batches`: sizes of the three tensors, lengths of their axes, and
      lengths of the two minor-most axes in row-major order.
    dtype: of the result.
  """
  axes = graphs.NUM_LAYOUT_FEATURES // _TENSORS
  codes = tf.cast(configs[..., :graphs.NUM_LAYOUT_FEATURES], tf.int32)
  codes = tf.reshape(codes, tf.concat([tf.shape(codes)[:2], [_TENSORS, axes]], axis=0))[..., :2]
  sizes = tf.cast(sizes, dtype)
  volumes, lengths, default = tf.split(
      sizes, [_TENSORS, _TENSORS * axes, _TENSORS * 2], axis=1)
  lengths = tf.reshape(lengths, [-1, 1, _TENSORS, 1, axes])
  default = tf.reshape(default, [-1, 1, _TENSORS, 2])
  requested = tf.cast(codes[..., :1] >= 0, dtype)
  minor = tf.reduce_sum(tf.one_hot(codes, axes, dtype=dtype) * lengths, axis=-1)
  each = tf.concat([requested, requested * minor / _LOGS, requested * (minor - default) / _LOGS],
                   axis=-1)
  each = tf.concat([each, each * volumes[:, None, :, None]], axis=-1)
  return tf.reshape(each, tf.concat([tf.shape(each)[:2], [10 * _TENSORS]], axis=0))


def layout_tensors(which: str) -> np.ndarray:
  """(w,): the tensor of each column of the features: 0 output, 1 input, 2 kernel."""
  of_tensor = np.arange(_TENSORS)
  places = np.repeat(of_tensor, graphs.NUM_LAYOUT_FEATURES // _TENSORS)
  entries = np.repeat(places, LAYOUT_VALUES)
  return np.concatenate({
      "digits": [np.repeat(places, DIGIT_WIDTH)],
      "entries": [entries], "order": [of_tensor] * 2, "both": [entries, of_tensor, of_tensor],
      "minor": [of_tensor]}[which])


def distinct_layouts(configs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """The distinct layouts of [rows, T, w], [k, 1, w] int32, and the index of each, [rows, T]."""
  width = configs.shape[-1]
  flat = tf.reshape(configs, [-1, width])
  # A layout is a number in base 7, below 2^53, so that sums of floats are exact.
  powers = tf.constant([float(LAYOUT_VALUES ** place) for place in range(
      graphs.NUM_LAYOUT_FEATURES)], tf.float64)
  layouts = tf.cast(flat[:, :graphs.NUM_LAYOUT_FEATURES], tf.float64)
  number = tf.cast(tf.linalg.matvec(layouts, powers), tf.int64)
  if width > graphs.NUM_LAYOUT_FEATURES:
    # With random weights, the sums of different effects are equal with a probability below 2^-56.
    effects = tf.cast(flat[:, graphs.NUM_LAYOUT_FEATURES:], tf.int64)
    salts = np.random.default_rng(0).integers(2 ** 63, size=width, dtype=np.int64) | 1
    number = number * salts[0] + tf.reduce_sum(
        effects * salts[graphs.NUM_LAYOUT_FEATURES:], axis=-1)
  numbers, place = tf.unique(number)
  example = tf.math.unsorted_segment_max(
      tf.range(tf.shape(flat)[0]), place, tf.shape(numbers)[0])
  # Cast first: GPUs cannot gather int8.
  distinct = tf.gather(tf.cast(flat, tf.int32), example)
  return distinct[:, None, :], tf.reshape(place, tf.shape(configs)[:2])


def request_effects(configs: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
  """The effects of requests behind layouts [rows, T, w]: [rows, T, 2 (w - 18)].

  The first half are signed roots, as stored, the second half the effects themselves. Both are 0 for
  a node without requests.
  """
  codes = tf.cast(configs[..., graphs.NUM_LAYOUT_FEATURES:], dtype)
  roots = codes / tf.constant(layout_features_lib.STEPS, dtype)
  return tf.concat([roots, roots * tf.abs(roots)], axis=-1)


class Convolution(tf.keras.layers.Layer):
  """MLP, then a linear combination of the node and its neighbours, then activation.

  With z = MLP(h), W the learned kernels and A the adjacency normalised as `aggregation` says:

    h' = activation(z W_self + A z W_operands + A^T z W_users)

  With the aggregation "max", the neighbours' part is instead the largest projection z_j W of all
  neighbours j in each direction, channel by channel, and 0 without neighbours, as in GraphSAGE
  (Hamilton et al., NeurIPS 2017). The result is combined with h as `residual` says: added,
  concatenated, or not at all. Follows the residual model of the TpuGraphs paper (arXiv 2308.13490,
  appendix), with a separate kernel for each direction.

  Nodes influence one another through messages only, as `data.partition` assumes, unless a node
  layer mixes them.
  """

  def __init__(self, config, l2: float, name: str, node_layers: Sequence[Any] = ()):
    """Creates the layers.

    Args:
      config: a `ModelConfig`.
      l2: weight of the squared norm of the kernels.
      name: of the layer.
      node_layers: those of `models.node_layers`, which transform the states before the MLP.
    """
    super().__init__(name=name)
    self._config = config
    self._node_layers = list(node_layers)
    self._activation = activation(config.activation)
    self._norm = tf.keras.layers.LayerNormalization() if config.layer_norm else None
    self._mlp = mlp([config.hidden_width] * config.mlp_layers, config.activation, l2, "mlp")
    self._self = dense(config.hidden_width, l2, name="self")
    self._directions = {
        direction: dense(config.hidden_width, l2, use_bias=False, name=direction)
        for direction in partition.directions_of(config)}

  def build(self, input_shape):
    # Their kernels are used without calling the layers.
    for layer in (self._self, *self._directions.values()):
      layer.build([None, self._config.hidden_width])
    super().build(input_shape)

  def call(self, hidden: tf.Tensor, states: states_lib.States, level: int, split: bool = False
           ) -> list[tf.Tensor]:
    """The states after the convolution, as terms to be added.

    Args:
      hidden: the states before it, h wide.
      states: how states are stored.
      level: number of this convolution in the model.
      split: whether the two terms of a residual may be returned separately. Where states are only
        summed over nodes afterwards, the first term then need not be lifted to the next level.

    Returns:
      One term, h' wide; h' = 2h where the residual is a concatenation. Or the two terms of a
      residual, the first stored as `hidden` is.
    """
    state = self._norm(hidden) if self._norm else hidden
    for layer in self._node_layers:
      state = states.mix(layer, state) if layer.mixes_nodes else layer(state)
    state = on_rows(self._mlp, state)
    propagate = (states.propagate_largest if self._config.aggregation == "max"
                 else states.propagate)
    output = self._activation(propagate(level, state, self._self, self._directions))
    if self._config.residual == "concat":
      return [tf.concat([states.lift(level, hidden), output], axis=-1)]
    if self._config.residual == "none" or hidden.shape[-1] != output.shape[-1]:
      return [output]
    return [hidden, output] if split else [states.lift(level, hidden) + output]
