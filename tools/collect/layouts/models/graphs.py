"""Families of small graph networks: dense adjacency, edge lists, attention between neighbours."""

from typing import Callable, Dict, List

import jax
import jax.numpy as jnp
import numpy as np

from tools.collect.layouts.models import blocks


def _adjacency(rng: np.random.Generator, graphs: int, nodes: int) -> np.ndarray:
  """Symmetric, with about four neighbours a node and all self-loops."""
  linked = rng.random((graphs, nodes, nodes)) < 2 / nodes
  return (linked | linked.transpose(0, 2, 1) | np.eye(nodes, dtype=bool)).astype(np.float32)


def _dense_inputs(graphs: int, nodes: int, width: int
                  ) -> Callable[[np.random.Generator], List[np.ndarray]]:
  return lambda rng: [rng.standard_normal((graphs, nodes, width)).astype(np.float32),
                      _adjacency(rng, graphs, nodes)]


def _graph_convolution(graphs: int, nodes: int, width: int, layers: int) -> blocks.Model:
  """Means over neighbours, by a product with the adjacency, then a dense layer."""
  def forward(w: blocks.Weights, x: jax.Array, adjacency: jax.Array) -> jax.Array:
    weights = adjacency / adjacency.sum(-1, keepdims=True)
    for _ in range(layers):
      x = x + jax.nn.relu(blocks.layer_norm(w, weights @ blocks.linear(w, x, width)))
    return blocks.linear(w, x.mean(1), 10)
  return blocks.Model(forward, _dense_inputs(graphs, nodes, width))


def _message_passing(nodes: int, edges: int, width: int, layers: int) -> blocks.Model:
  """Messages from a dense net on both ends of an edge, summed where they arrive."""
  def forward(w: blocks.Weights, x: jax.Array, sources: jax.Array, targets: jax.Array
              ) -> jax.Array:
    for _ in range(layers):
      ends = jnp.concatenate([x[sources], x[targets]], axis=1)
      messages = blocks.linear(w, jax.nn.relu(blocks.linear(w, ends, 2 * width)), width)
      arrived = jax.ops.segment_sum(messages, targets, nodes)
      x = x + jax.nn.relu(blocks.linear(w, jnp.concatenate([x, arrived], axis=1), width))
    return blocks.linear(w, x, 10)

  def inputs(rng: np.random.Generator) -> List[np.ndarray]:
    return [rng.standard_normal((nodes, width)).astype(np.float32),
            *rng.integers(nodes, size=(2, edges), dtype=np.int32)]
  return blocks.Model(forward, inputs)


def _graph_attention(graphs: int, nodes: int, width: int, heads: int, layers: int
                     ) -> blocks.Model:
  """Additive attention of each node to its neighbours, several heads."""
  def forward(w: blocks.Weights, x: jax.Array, adjacency: jax.Array) -> jax.Array:
    size = width // heads
    for _ in range(layers):
      y = blocks.linear(w, x, width).reshape(graphs, nodes, heads, size)
      toward, away = (jnp.einsum("gnhd,hd->ghn", y, w.kernel(heads, size)) for _ in range(2))
      scores = jax.nn.leaky_relu(toward[..., :, None] + away[..., None, :])
      scores = jnp.where(adjacency[:, None] > 0, scores, -1e9)
      y = jnp.einsum("ghnm,gmhd->gnhd", jax.nn.softmax(scores), y)
      x = x + jax.nn.elu(y.reshape(graphs, nodes, width))
    return blocks.linear(w, x, 10)
  return blocks.Model(forward, _dense_inputs(graphs, nodes, width))


BUILDERS: Dict[str, Callable[..., blocks.Model]] = {
    "graph_convolution": _graph_convolution, "message_passing": _message_passing,
    "graph_attention": _graph_attention}
