"""Poolings of node states into one vector for each graph and configuration, by name.

A pooling is a function of the states [N, T, h], the graph of each node (N,) int32 and the number of
graphs B; it returns [B, T, h']. It must not depend on the order of the nodes, and every graph has
at least one node. The functions here define the built-in poolings. The partitioned path computes
those in two parts, which tests compare with these definitions; a registered pooling receives the
states of all nodes.
"""

import tensorflow as tf

from tpugraphs_rank import registries

# The poolings that can be computed for parts of the nodes and then be combined.
COMPOSABLE = ("mean", "sum", "max")

register = registries.POOLINGS.register
get = registries.POOLINGS.get
names = registries.POOLINGS.names


def mean(states: tf.Tensor, graph: tf.Tensor, graphs: tf.Tensor) -> tf.Tensor:
  """The mean over the nodes of each graph."""
  return tf.math.unsorted_segment_mean(states, graph, graphs)


def total(states: tf.Tensor, graph: tf.Tensor, graphs: tf.Tensor) -> tf.Tensor:
  """The sum over the nodes of each graph."""
  return tf.math.unsorted_segment_sum(states, graph, graphs)


def maximum(states: tf.Tensor, graph: tf.Tensor, graphs: tf.Tensor) -> tf.Tensor:
  """The maximum over the nodes of each graph."""
  return tf.math.unsorted_segment_max(states, graph, graphs)
