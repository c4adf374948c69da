"""Layers over the states of nodes, by name: the setting `node_layers` puts them into a model.

In the built-in models, each convolution has its own layers. They transform the states that go into
its MLP, after `layer_norm`, in the order of the setting; the residual keeps the states themselves.

Every layer says whether it mixes nodes (`mixes_nodes`). If none does, the state of a node depends
on a configuration exactly where it did before, and all fast paths hold: what no configuration
changes is computed once, and equal states are computed once. If one does, every node depends on
every configuration from then on. The model then computes one state for each node and configuration
(`plain_states`), in training and in scoring, and `train` says so.

`register("my_layer", MyLayer)` makes a layer available as `node_layers=my_layer`.
"""

import tensorflow as tf

from tpugraphs_rank import errors
from tpugraphs_rank import registries
from tpugraphs_rank import run_config
from tpugraphs_rank.models import layers

register = registries.NODE_LAYERS.register
names = registries.NODE_LAYERS.names

# Channels that one channel of the bottleneck of squeeze-and-excitation replaces.
_SQUEEZE = 8
_EPSILON = 1e-5
# Logits of self-attention that are in memory at a time.
_LOGITS = 2 ** 24


class NodeLayer(tf.keras.layers.Layer):
  """A layer of [N, T, w] states that keeps their shape: N nodes under T configurations each.

  Configurations must not influence one another. A layer with `mixes_nodes = False` must compute
  each state from itself alone, and is called with the states only; it may get the states of any
  nodes, of several graphs, in any order.

  Attributes:
    mixes_nodes: whether the states of a graph's nodes influence one another.
  """

  mixes_nodes = True

  def __init__(self, settings: run_config.ModelConfig, width: int, l2: float, name: str):
    """Stores nothing; a derived class creates its layers.

    Args:
      settings: the model's settings.
      width: of the states.
      l2: weight of the squared norm of the kernels.
      name: of the layer.
    """
    super().__init__(name=name)

  def call(self, states: tf.Tensor, graph: tf.Tensor | None = None,
           graphs: tf.Tensor | None = None) -> tf.Tensor:
    """[N, T, w] to the same shape.

    Args:
      states: of the nodes.
      graph: (N,) int32, the graph of each node, ascending; None for a layer that does not mix.
      graphs: scalar, the number of graphs; None for a layer that does not mix.
    """
    raise NotImplementedError(f"{type(self).__name__} does not implement call")


class SqueezeExcitation(NodeLayer):
  """Each state scales its own channels (Hu et al., "Squeeze-and-excitation networks", CVPR 2018).

    s' = s * sigmoid(relu(s W_1 + b_1) W_2 + b_2)

  W_1 reduces the channels to an eighth. As in TGraph (arXiv 2405.16623), the factors come from the
  state of one node under one configuration. It does not mix nodes.
  """

  mixes_nodes = False

  def __init__(self, settings: run_config.ModelConfig, width: int, l2: float, name: str):
    super().__init__(settings, width, l2, name)
    self._squeeze = layers.dense(max(width // _SQUEEZE, 1), l2, activation="relu", name="squeeze")
    self._excite = layers.dense(width, l2, activation="sigmoid", name="excite")

  def call(self, states: tf.Tensor, graph: tf.Tensor | None = None,
           graphs: tf.Tensor | None = None) -> tf.Tensor:
    """[rows, T, w] to the same shape."""
    del graph, graphs
    return states * layers.on_rows(lambda rows: self._excite(self._squeeze(rows)), states)


class InstanceNorm(NodeLayer):
  """Each channel has mean 0 and variance 1 over the nodes of a graph, then scale and offset.

    s' = gamma (s - mean) / sqrt(variance + 1e-5) + beta

  Mean and variance are those of one graph under one configuration (Ulyanov et al., "Instance
  normalization", arXiv 1607.08022). It mixes nodes. In training on segments, they are those of the
  segment.
  """

  def build(self, input_shape):
    width = input_shape[-1]
    self._gamma = self.add_weight(name="gamma", shape=[width], initializer="ones")
    self._beta = self.add_weight(name="beta", shape=[width], initializer="zeros")
    super().build(input_shape)

  def call(self, states: tf.Tensor, graph: tf.Tensor | None = None,
           graphs: tf.Tensor | None = None) -> tf.Tensor:
    """[N, T, w] to the same shape."""
    mean = lambda values: tf.gather(
        tf.math.unsorted_segment_mean(values, graph, graphs), graph)
    centred = states - mean(states)
    scaled = centred * tf.math.rsqrt(mean(tf.square(centred)) + _EPSILON)
    return scaled * self._gamma + self._beta


class NodeAttention(NodeLayer):
  """Every node attends to all nodes of its graph, under each configuration separately.

  Queries and keys come from one projection u = s W. For nodes i and j of one graph:

    s'_i = s_i + sum_j softmax_j(u_i u_j^T / sqrt(width)) (s_j W_value)

  `attention_width` is the width of u. It mixes nodes. In training on segments, nodes attend within
  their segment. Time grows with the square of the number of nodes; memory does not, because the
  logits are computed for some nodes at a time, and again for the gradient.
  """

  def __init__(self, settings: run_config.ModelConfig, width: int, l2: float, name: str):
    super().__init__(settings, width, l2, name)
    self._project = layers.dense(settings.attention_width, l2, use_bias=False,
                                 name="queries_and_keys")
    self._scale = settings.attention_width ** -0.5
    self._value = layers.dense(width, l2, use_bias=False, name="values")

  def call(self, states: tf.Tensor, graph: tf.Tensor | None = None,
           graphs: tf.Tensor | None = None) -> tf.Tensor:
    """[N, T, w] to the same shape."""
    # One row of nodes for each graph and configuration, padded to the largest graph.
    sizes = tf.math.bincount(graph, minlength=graphs, maxlength=graphs)
    place = tf.range(tf.shape(graph)[0]) - tf.gather(
        tf.cumsum(sizes, exclusive=True), graph)
    where = tf.stack([graph, place], axis=1)
    longest = tf.reduce_max(sizes)
    padded = lambda values: tf.transpose(tf.scatter_nd(
        where, values, tf.stack([graphs, longest, tf.shape(values)[1], values.shape[2]])),
        [2, 0, 1, 3])
    projected = padded(self._project(states))  # [T, B, n, width]
    attended = _attend(projected * self._scale, projected, padded(self._value(states)),
                       tf.sequence_mask(sizes, longest))
    return states + tf.gather_nd(tf.transpose(attended, [1, 2, 0, 3]), where)


def _attend(queries: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
  """Softmax attention [T, B, n, h] within each row of nodes, in bounded memory.

  Args:
    queries, keys: [T, B, n, w].
    values: [T, B, n, h].
    mask: (B, n) bool, the keys that exist.
  """
  @tf.recompute_grad
  def of_block(block: tf.Tensor, of_keys: tf.Tensor, of_values: tf.Tensor) -> tf.Tensor:
    logits = tf.matmul(block, of_keys, transpose_b=True)
    logits = tf.where(mask[:, None, :], logits, logits.dtype.min)
    # Not `tf.nn.softmax`: within these loops TensorFlow complains that it does not know its rank.
    weights = tf.exp(logits - tf.stop_gradient(tf.reduce_max(logits, axis=-1, keepdims=True)))
    return tf.matmul(weights, of_values) / tf.reduce_sum(weights, axis=-1, keepdims=True)

  count, longest = tf.unstack(tf.shape(mask))
  width, height = keys.shape[-1], values.shape[-1]
  # The logits of one block of queries are [B, block, n].
  block = tf.clip_by_value(_LOGITS // tf.maximum(count * longest, 1), 1, longest)
  blocks = -(-longest // block)
  spec = lambda rank: tf.TensorSpec([None] * (rank - 1) + [height], values.dtype)

  def of_config(of_queries: tf.Tensor, of_keys: tf.Tensor, of_values: tf.Tensor) -> tf.Tensor:
    of_queries = tf.pad(of_queries, [[0, 0], [0, blocks * block - longest], [0, 0]])
    of_queries = tf.transpose(
        tf.reshape(of_queries, tf.stack([count, blocks, block, width])), [1, 0, 2, 3])
    attended = tf.map_fn(lambda one: of_block(one, of_keys, of_values), of_queries,
                         fn_output_signature=spec(3), parallel_iterations=1)
    return tf.reshape(tf.transpose(attended, [1, 0, 2, 3]),
                      tf.stack([count, blocks * block, height]))[:, :longest]

  return tf.map_fn(lambda three: of_config(*three), (queries, keys, values),
                   fn_output_signature=spec(3), parallel_iterations=1)


def build(settings: run_config.ModelConfig, width: int, l2: float) -> list[NodeLayer]:
  """The layers of one convolution, in order.

  Args:
    settings: the model's settings.
    width: of the states.
    l2: weight of the squared norm of the kernels.

  Raises:
    ConfigError: what is registered under a name is not derived from `NodeLayer`.
  """
  built = []
  for number, name in enumerate(settings.node_layers):
    layer_class = registries.NODE_LAYERS.get(name)
    if not (isinstance(layer_class, type) and issubclass(layer_class, NodeLayer)):
      raise errors.ConfigError(
          f"the node layer {name!r} is {layer_class!r}; expected a class derived from "
          "tpugraphs_rank.models.node_layers.NodeLayer")
    built.append(layer_class(settings, width, l2, f"{name}_{number}"))
  return built


def mixing(settings: run_config.ModelConfig) -> list[str]:
  """The names of the settings' layers that mix nodes."""
  return [name for name in dict.fromkeys(settings.node_layers)
          if registries.NODE_LAYERS.get(name).mixes_nodes]
