"""The arrays that a model can read, by name, and helpers to combine them.

Shapes as in `models.interface`. Edges point along the data flow, from operand to user.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tpugraphs_rank import errors
from tpugraphs_rank import plugins
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import pipeline
from tpugraphs_rank.models import layers

# Sizes of a node's tensors, before the lengths of their axes in the arrays of a batch.
NUM_SIZES = 3

# Every input and its meaning.
INPUTS: dict[str, str] = {
    "nodes": "(N, F) float32: features of the nodes, scaled to mean 0 and variance 1",
    "opcode": "(N,) int32: opcode of each node, below `data.graphs.NUM_OPCODES`",
    "source": "(M,) int32: operand of each edge",
    "target": "(M,) int32: user of each edge",
    "num_nodes": "(B,) int32: number of nodes of each graph",
    "num_edges": "(B,) int32: number of edges of each graph",
    "graph_of_node": "(N,) int32: graph of each node",
    "configs": "tile: (B, T, K) float32, scaled features; layout: (NC, T, 18) int8, the layouts",
    "config_features": "tile: (B, T, K) float32, as configs; layout: (NC, T, 126) float32, one-hot",
    "config_targets": "(P, 2) int32, [node, row of configs]: the nodes that a row concerns; for "
                      "tiles all nodes of the graph (P = N), for layouts one node (P = NC)",
    "config_sizes": "layout only: (NC, 3) float32, roots of the sizes of the nodes' tensors",
    "config_costs": "layout only, with --layout_costs: (B, T, K) float32, sums of effects",
    "config_mask": "(B, C) bool: real configurations, not padding",
    "reference_mask": "(B, R) bool: real reference configurations, not padding",
    "graph": "a TF-GNN `GraphTensor` of all of these; see `data.pipeline`",
}


def select(arrays: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
  """The named inputs, computed from the arrays of a batch of `data.batches`.

  Raises:
    UnknownNameError: there is no input of that name.
  """
  return {name: _select(arrays, name) for name in names}


def check_names(names: Sequence[str]) -> None:
  """Raises UnknownNameError unless all names are inputs; ConfigError if they are no list."""
  if not isinstance(names, (list, tuple)):
    raise errors.ConfigError(
        f"required_inputs returns {names!r}; expected a list or tuple of names")
  for name in names:
    if name not in INPUTS:
      raise errors.UnknownNameError(
          f"unknown model input {name!r}; expected one of: "
          f"{', '.join(plugins.nearest_first(name, INPUTS))}")


def _select(arrays: Mapping[str, Any], name: str) -> Any:
  check_names([name])
  if name == "graph":
    return pipeline.graph_tensor(arrays)
  if name == "graph_of_node":
    num_nodes = tf.convert_to_tensor(arrays["num_nodes"])
    return tf.repeat(tf.range(tf.shape(num_nodes)[0]), num_nodes)
  if name == "config_features":
    configs = tf.convert_to_tensor(arrays["configs"])
    return (layers.layout_features(configs, "entries", tf.float32) if "config_nodes" in arrays
            else configs)
  if name == "config_targets":
    if "config_nodes" in arrays:
      nodes = tf.convert_to_tensor(arrays["config_nodes"])
      return tf.stack([nodes, tf.range(tf.shape(nodes)[0])], axis=1)
    graph_of_node = _select(arrays, "graph_of_node")
    return tf.stack([tf.range(tf.shape(graph_of_node)[0]), graph_of_node], axis=1)
  if name == "configs" and "config_nodes" in arrays:
    return tf.convert_to_tensor(arrays[name])[..., :graphs.NUM_LAYOUT_FEATURES]
  if name == "config_sizes" and name in arrays:
    return tf.convert_to_tensor(arrays[name])[:, :NUM_SIZES]
  if name == "config_costs" and "config_nodes" in arrays and name not in arrays:
    raise errors.ConfigError(
        f"the model input {name!r} needs --layout_costs=totals, requests or both")
  if name not in arrays:
    raise errors.ConfigError(f"tile graphs have no model input {name!r}")
  return tf.convert_to_tensor(arrays[name])


def add_configs(states: tf.Tensor, configs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
  """Adds projected configurations to the states of the nodes that they concern.

  Args:
    states: [N, h] or [N, T, h].
    configs: projected "config_features": [B, T, h] for tiles, [NC, T, h] for layouts.
    targets: the input "config_targets".

  Returns:
    [N, T, h].
  """
  if len(states.shape) == 2:
    states = states[:, None, :]
  return states + tf.math.unsorted_segment_sum(
      tf.gather(configs, targets[:, 1]), targets[:, 0], tf.shape(states)[0])


def neighbour_mean(states: tf.Tensor, senders: tf.Tensor, receivers: tf.Tensor) -> tf.Tensor:
  """The mean of the neighbours' states: [N, ..., h] to the same shape, 0 without neighbours.

  Args:
    states: of all nodes.
    senders: (M,) int32, one end of each edge.
    receivers: (M,) int32, the other end.
  """
  count = tf.shape(states)[0]
  total = tf.math.unsorted_segment_sum(tf.gather(states, senders), receivers, count)
  degree = tf.math.unsorted_segment_sum(tf.ones_like(receivers, states.dtype), receivers, count)
  shape = tf.concat([tf.shape(degree), tf.ones([tf.rank(states) - 1], tf.int32)], axis=0)
  return total / tf.reshape(tf.maximum(degree, 1.0), shape)
