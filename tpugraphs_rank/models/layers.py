"""Layers over hidden states [nodes, configurations, width] of a `GraphTensor` batch."""

from typing import Optional, Sequence

import tensorflow as tf
import tensorflow_gnn as tfgnn

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


def dense(width: int, l2: float, **options) -> tf.keras.layers.Dense:
  """A dense layer whose kernel is L2-regularised."""
  return tf.keras.layers.Dense(
      width, kernel_regularizer=tf.keras.regularizers.L2(l2) if l2 else None, **options)


class Convolution(tf.keras.layers.Layer):
  """MLP, then a linear combination of the node and its neighbours, then activation.

  With z = MLP(h), W the learned kernels and A the adjacency normalised as `aggregation` says:

    h' = activation(z W_self + A z W_operands + A^T z W_users)

  joined with h by `residual`: added, concatenated, or not at all. Follows the residual model of
  the TpuGraphs paper (arXiv 2308.13490, appendix), with a kernel of its own for each direction.
  """

  def __init__(self, config, l2: float, name: str):
    super().__init__(name=name)
    self._config = config
    self._activation = activation(config.activation)
    self._norm = tf.keras.layers.LayerNormalization() if config.layer_norm else None
    self._mlp = mlp([config.hidden_width] * config.mlp_layers, config.activation, l2, "mlp")
    self._self = dense(config.hidden_width, l2, name="self")
    self._directions = [
        (tag, dense(config.hidden_width, l2, use_bias=False, name=direction))
        for direction, tag in (("operands", tfgnn.SOURCE), ("users", tfgnn.TARGET))
        if config.directions in ("both", direction)]

  def call(self, graph: tfgnn.GraphTensor, hidden: tf.Tensor) -> tf.Tensor:
    """[N, T, h] to [N, T, h'], h' = 2h where the residual is a concatenation."""
    state = self._norm(hidden) if self._norm else hidden
    state = self._mlp(state)
    output = self._self(state)
    for sender, kernel in self._directions:
      # Projected first: the messages are as narrow as they can be.
      output += aggregate(graph, kernel(state), sender, self._config.aggregation)
    output = self._activation(output)
    if self._config.residual == "concat":
      return tf.concat([hidden, output], axis=-1)
    if self._config.residual == "add":
      return hidden + output if hidden.shape[-1] == output.shape[-1] else output
    return output


def aggregate(graph: tfgnn.GraphTensor, values: tf.Tensor, sender: int, aggregation: str
              ) -> tf.Tensor:
  """Sums the neighbours' values [N, T, h] along the edges "feed".

  Args:
    graph: the batch.
    values: [N, T, h].
    sender: `tfgnn.SOURCE` to send from operands to users, `tfgnn.TARGET` the other way.
    aggregation: "sum", "mean" (divided by the receiver's degree) or "symmetric" (by the root of
      the product of the sender's and the receiver's degree in this direction).
  """
  receiver = tfgnn.TARGET if sender == tfgnn.SOURCE else tfgnn.SOURCE
  if aggregation == "symmetric":
    values *= tf.math.rsqrt(_degree(graph, sender, values))
  messages = tfgnn.broadcast_node_to_edges(graph, "feed", sender, feature_value=values)
  pooled = tfgnn.pool_edges_to_node(graph, "feed", receiver, "sum", feature_value=messages)
  if aggregation == "mean":
    pooled /= _degree(graph, receiver, values)
  elif aggregation == "symmetric":
    pooled *= tf.math.rsqrt(_degree(graph, receiver, values))
  return pooled


def _degree(graph: tfgnn.GraphTensor, tag: int, values: tf.Tensor) -> tf.Tensor:
  """[N, 1, 1]: edges at each node as that end, at least 1."""
  ones = tf.ones([graph.edge_sets["feed"].total_size], values.dtype)
  degree = tfgnn.pool_edges_to_node(graph, "feed", tag, "sum", feature_value=ones)
  return tf.maximum(degree, 1.0)[:, None, None]


class ConfigAttention(tf.keras.layers.Layer):
  """At each node, every configuration looks at the configurations of the list.

  With queries and keys from one projection u = h W, and keys k from the reference list where
  there is one (otherwise the list itself):

    h' = h + softmax_k(u u_k^T / sqrt(width)) (h_k W_value)

  The states of a reference list depend on itself alone, so a configuration is scored the same
  whatever else is scored with it.
  """

  def __init__(self, config, l2: float, name: str):
    super().__init__(name=name)
    self._project = dense(config.attention_width, l2, use_bias=False, name="queries_and_keys")
    self._l2 = l2
    self._scale = config.attention_width ** -0.5
    self._value: Optional[tf.keras.layers.Dense] = None

  def build(self, input_shape):
    self._value = dense(input_shape[-1], self._l2, use_bias=False, name="values")
    super().build(input_shape)

  def call(self, hidden: tf.Tensor, key_mask: tf.Tensor) -> tf.Tensor:
    """[N, T, h] to the same shape; `key_mask` [N, K] is for the first K <= T configurations."""
    keys = tf.shape(key_mask)[1]
    projected = self._project(hidden)
    logits = tf.matmul(projected, projected[:, :keys], transpose_b=True) * self._scale
    logits = tf.where(key_mask[:, None, :], logits, logits.dtype.min)
    return hidden + tf.matmul(tf.nn.softmax(logits), self._value(hidden[:, :keys]))
