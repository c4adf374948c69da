"""The rule of the public TpuGraphs baseline as a plain model, for comparison in the scale study.

It follows the residual model of the TpuGraphs repository (`tpu_graphs/baselines/layout`): layouts
are scaled by 100, join their nodes before every layer, and messages use one kernel with symmetric
normalisation and a loop at each node. Three poolings are concatenated: the mean over nodes, and the
normalised sums over all nodes and over the configurable ones. Gradients flow through one segment.
Node features are projected before they are repeated for the configurations, which the public code
does afterwards, so a step costs less here.
"""

from collections.abc import Mapping
import functools
from typing import Any

import tensorflow as tf

from tpugraphs_rank import models
from tpugraphs_rank import run_config
from tpugraphs_rank.data import graphs
from tpugraphs_rank.models import interface
from tpugraphs_rank.models import layers
from tpugraphs_rank.models import states

_SEGMENT = "segment_"
_OF_GRAPH = ("nodes", "opcode", "source", "target", "num_nodes", "configs", "config_nodes")
_LARGEST = 6.0  # Entries of layouts are -1..5.


class PublicRule(interface.SegmentTraining):
  """A plain model for layouts. `model_options`: "scale" of layouts, "norm": over nodes or not."""

  def __init__(self, kind: str, settings: run_config.ModelConfig, l2: float = 0.0):
    super().__init__(kind, settings, l2)
    options = settings.model_options
    self._scale = float(options.get("scale", 100.0))
    self._norm = bool(options.get("norm", False))
    width = settings.hidden_width
    self._opcodes = tf.keras.layers.Embedding(graphs.NUM_OPCODES, settings.opcode_width)
    self._nodes = layers.dense(width, l2, layers.DenseWithTable)
    self._configs = [layers.dense(width, l2, use_bias=False)
                     for _ in range(settings.num_convolutions + 1)]
    self._kernels = [layers.dense(width, l2) for _ in range(settings.num_convolutions)]
    for kernel in self._kernels:  # Their kernels are used without calling the layers.
      kernel.build([None, width])
    self._post = layers.mlp(settings.head_widths, settings.activation, l2, "head")
    self._score = layers.dense(1, l2, use_bias=False)

  def required_inputs(self):
    return ("nodes", "opcode", "source", "target", "num_nodes", "configs", "config_targets")

  def select_inputs(self, arrays: Mapping[str, Any], training: bool = False,
                    dropout_seed: tf.Tensor | None = None) -> dict[str, Any]:
    names = [*_OF_GRAPH]
    if training and _SEGMENT + "nodes" in arrays:
      names += [_SEGMENT + name for name in (*_OF_GRAPH, "node_ids")]
    return {name: tf.convert_to_tensor(arrays[name]) for name in names}

  def call(self, batch: Mapping[str, Any]) -> tf.Tensor:
    hidden = self._embed({name: batch[name] for name in _OF_GRAPH})
    if _SEGMENT + "nodes" in batch:
      segment = self._embed({name: batch[_SEGMENT + name] for name in _OF_GRAPH})
      hidden = tf.tensor_scatter_nd_update(
          tf.stop_gradient(hidden), batch[_SEGMENT + "node_ids"][:, None], segment)
    sizes = batch["num_nodes"]
    count = tf.shape(sizes)[0]
    graph = tf.repeat(tf.range(count), sizes)
    total = tf.math.unsorted_segment_sum(hidden, graph, count)
    configured = tf.math.unsorted_segment_sum(
        tf.gather(hidden, batch["config_nodes"]), tf.gather(graph, batch["config_nodes"]), count)
    pooled = tf.concat([
        total / tf.cast(sizes, total.dtype)[:, None, None],
        tf.nn.l2_normalize(total, axis=-1), tf.nn.l2_normalize(configured, axis=-1)], axis=-1)
    return tf.squeeze(self._score(self._post(pooled)), axis=-1)

  def _embed(self, graph: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """[N, C, h] states of the nodes of graphs or segments."""
    count = tf.shape(graph["nodes"])[0]
    base = self._nodes([graph["nodes"], self._opcodes(tf.range(graphs.NUM_OPCODES)),
                        graph["opcode"]])
    layouts = (tf.cast(graph["configs"][..., :graphs.NUM_LAYOUT_FEATURES], base.dtype) + 1.0) * (
        self._scale / _LARGEST)
    place = graph["config_nodes"][:, None]
    configured = lambda values, kernel: tf.tensor_scatter_nd_add(values, place, kernel(layouts))
    hidden = tf.nn.leaky_relu(configured(
        states.over_configs(base[:, None], tf.shape(layouts)[1]), self._configs[0]))
    own = tf.range(count)
    ends = tf.concat([tf.stack([graph["target"], graph["source"]], 1),
                      tf.stack([graph["source"], graph["target"]], 1),
                      tf.stack([own, own], 1)], axis=0)
    degree = tf.math.bincount(ends[:, 0], minlength=count, dtype=base.dtype)
    weights = tf.math.rsqrt(tf.gather(degree, ends[:, 0]) * tf.gather(degree, ends[:, 1]))
    for kernel, of_layouts in zip(self._kernels, self._configs[1:]):
      projected = configured(
          layers.on_rows(functools.partial(tf.matmul, b=kernel.kernel), hidden), of_layouts)
      received = tf.reshape(states.sparse_matmul(
          ends, weights, count, tf.reshape(projected, [count, -1])), tf.shape(projected))
      received = tf.ensure_shape(received, [None, None, kernel.units])
      if self._norm:
        received = _normalised(received, graph["num_nodes"])
      hidden += tf.nn.leaky_relu(tf.nn.bias_add(received, kernel.bias))
    return hidden


def _normalised(values: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
  """Each channel of [N, C, h] to mean 0 and variance 1 over the nodes of its graph."""
  count = tf.shape(sizes)[0]
  graph = tf.repeat(tf.range(count), sizes)
  mean = lambda one: tf.gather(tf.math.unsorted_segment_mean(one, graph, count), graph)
  centred = values - mean(values)
  return centred * tf.math.rsqrt(mean(tf.square(centred)) + 1e-5)


models.register("public_rule", PublicRule)
