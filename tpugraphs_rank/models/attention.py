"""Attention over configurations: at each node, every configuration looks at those of a list.

The keys are the configurations of the reference list if there is one, otherwise those of the list
itself. The states of a reference list depend only on that list. A configuration therefore has the
same score, whatever other configurations are scored with it.

The kinds differ in how they compare. All of them treat each node alone, so that what no
configuration changes can be computed once (`attend_to_self`). The state of a node then depends on
several configurations, so that states of different configurations are never deduplicated.
"""

import tensorflow as tf

from tpugraphs_rank import run_config
from tpugraphs_rank.models import layers


class ConfigAttention(tf.keras.layers.Layer):
  """Softmax attention.

  Queries and keys come from one projection u = h W. With the keys k and a temperature t, which is 1
  unless the setting `attention_temperature` says that it is learned:

    h' = h + softmax_k(u u_k^T / (t sqrt(width))) (h_k W_value)

  Time and memory grow with the product of the list's length and the number of keys.
  """

  def __init__(self, config: run_config.ModelConfig, width: int, l2: float, name: str):
    """Creates the layers.

    Args:
      config: the settings.
      width: of the states.
      l2: weight of the squared norm of the kernels.
      name: of the layer.
    """
    super().__init__(name=name)
    self._project = layers.dense(config.attention_width, l2, use_bias=False,
                                 name="queries_and_keys")
    self._scale = config.attention_width ** -0.5
    self._value = layers.dense(width, l2, use_bias=False, name="values")
    self._learned = config.attention_temperature
    self._log_temperature: tf.Variable | None = None

  def build(self, input_shape):
    if self._learned:
      # The logarithm keeps the temperature above 0. Training starts at 1.
      self._log_temperature = self.add_weight(name="log_temperature", shape=[],
                                              initializer="zeros")
    super().build(input_shape)

  def call(self, hidden: tf.Tensor, key_mask: tf.Tensor) -> tf.Tensor:
    """[N, T, h] to the same shape; `key_mask` [N, K] covers the first K <= T configurations."""
    keys = tf.shape(key_mask)[1]
    projected = self._project(hidden)
    logits = tf.matmul(projected, projected[:, :keys], transpose_b=True) * self._scale
    logits = self._tempered(logits)
    logits = tf.where(key_mask[:, None, :], logits, logits.dtype.min)
    return hidden + tf.matmul(tf.nn.softmax(logits), self._value(hidden[:, :keys]))

  def attend_to_self(self, hidden: tf.Tensor) -> tf.Tensor:
    """[N, 1, h] to the same shape, for nodes whose state is the same under all configurations.

    The weights of attention add up to 1, so it returns the value of that one state.
    """
    return hidden + self._value(hidden)

  def _tempered(self, logits: tf.Tensor) -> tf.Tensor:
    """Logits divided by the temperature."""
    if self._log_temperature is None:
      return logits
    return logits * tf.exp(-tf.cast(self._log_temperature, logits.dtype))


class LinearConfigAttention(ConfigAttention):
  """Linear attention (Katharopoulos et al., "Transformers are RNNs", ICML 2020).

  With f(x) = elu(x) + 1, which is positive, and u = h W:

    h' = h + [f(u / t) sum_k f(u_k / t)^T (h_k W_value)] / [f(u / t) sum_k f(u_k / t)^T]

  The sums do not depend on the query. Time and memory grow with the list's length alone, however
  many keys there are.
  """

  def call(self, hidden: tf.Tensor, key_mask: tf.Tensor) -> tf.Tensor:
    """[N, T, h] to the same shape; `key_mask` [N, K] covers the first K <= T configurations."""
    keys = tf.shape(key_mask)[1]
    features = tf.nn.elu(self._tempered(self._project(hidden))) + 1.0
    of_keys = features[:, :keys] * tf.cast(key_mask, features.dtype)[:, :, None]
    values = tf.matmul(of_keys, self._value(hidden[:, :keys]), transpose_a=True)
    total = tf.matmul(features, tf.reduce_sum(of_keys, axis=1)[:, :, None])
    return hidden + tf.matmul(features, values) / total


class ChannelConfigAttention(ConfigAttention):
  """A softmax over configurations in each channel alone, after TGraph (arXiv 2405.16623).

  With K keys and the products and quotients taken channel by channel:

    h' = h + w * (h W_value),   w = (K + 1) e(h) / (e(h) + sum_k e(h_k)),   e(x) = exp(x / t)

  TGraph has w = e(h) / sum_k e(h_k) over the list that is scored. Here the configuration joins the
  keys, because a reference list need not contain it, and the factor K + 1 makes w = 1 where all
  configurations have the same state, however long the list. There are no queries, and
  `attention_width` has no effect.
  """

  def call(self, hidden: tf.Tensor, key_mask: tf.Tensor) -> tf.Tensor:
    """[N, T, h] to the same shape; `key_mask` [N, K] covers the first K <= T configurations."""
    keys = tf.shape(key_mask)[1]
    logits = self._tempered(hidden)
    of_keys = tf.where(key_mask[:, :, None], logits[:, :keys], logits.dtype.min)
    total = tf.reduce_logsumexp(of_keys, axis=1, keepdims=True)
    count = 1.0 + tf.reduce_sum(tf.cast(key_mask, hidden.dtype), axis=1)
    weights = count[:, None, None] * tf.sigmoid(logits - total)
    return hidden + weights * self._value(hidden)


KINDS: dict[str, type[ConfigAttention]] = {
    "softmax": ConfigAttention,
    "linear": LinearConfigAttention,
    "channels": ChannelConfigAttention,
}
