"""Families of small graph networks: dense adjacency, edge lists, attention between neighbours."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from tpugraphs_rank.collect.layout.builders import blocks


def _adjacency(rng: np.random.Generator, graphs: int, nodes: int) -> np.ndarray:
  """A symmetric adjacency with about four neighbours per node and all self-loops."""
  linked = rng.random((graphs, nodes, nodes)) < 2 / nodes
  return (linked | linked.transpose(0, 2, 1) | np.eye(nodes, dtype=bool)).astype(np.float32)


def _dense_inputs(graphs: int, nodes: int, width: int
                  ) -> Callable[[np.random.Generator], list[np.ndarray]]:
  return lambda rng: [rng.standard_normal((graphs, nodes, width)).astype(np.float32),
                      _adjacency(rng, graphs, nodes)]


def _graph_convolution(graphs: int, nodes: int, width: int, layers: int) -> blocks.Model:
  """A dense layer, then means over neighbours by a product with the adjacency."""
  def forward(w: blocks.Weights, x: jax.Array, adjacency: jax.Array) -> jax.Array:
    weights = adjacency / adjacency.sum(-1, keepdims=True)
    for _ in range(layers):
      x = x + jax.nn.relu(blocks.layer_norm(w, weights @ blocks.linear(w, x, width)))
    return blocks.linear(w, x.mean(1), 10)
  return blocks.Model(forward, _dense_inputs(graphs, nodes, width))


def _message_passing(nodes: int, edges: int, width: int, layers: int) -> blocks.Model:
  """Messages from a dense net on both ends of each edge, summed at the target."""
  def forward(w: blocks.Weights, x: jax.Array, sources: jax.Array, targets: jax.Array
              ) -> jax.Array:
    for _ in range(layers):
      ends = jnp.concatenate([x[sources], x[targets]], axis=1)
      messages = blocks.linear(w, jax.nn.relu(blocks.linear(w, ends, 2 * width)), width)
      received = jax.ops.segment_sum(messages, targets, nodes)
      x = x + jax.nn.relu(blocks.linear(w, jnp.concatenate([x, received], axis=1), width))
    return blocks.linear(w, x, 10)

  def inputs(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.standard_normal((nodes, width)).astype(np.float32),
            *rng.integers(nodes, size=(2, edges), dtype=np.int32)]
  return blocks.Model(forward, inputs)


def _graph_attention(graphs: int, nodes: int, width: int, heads: int, layers: int
                     ) -> blocks.Model:
  """Additive attention of each node to its neighbours, with several heads."""
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


def _isomorphism(graphs: int, nodes: int, width: int, layers: int) -> blocks.Model:
  """Two dense layers on sums over neighbours; the means of all layers give the output."""
  def forward(w: blocks.Weights, x: jax.Array, adjacency: jax.Array) -> jax.Array:
    means = [x.mean(1)]
    for _ in range(layers):
      y = jax.nn.relu(blocks.linear(w, adjacency @ x, width))
      x = jax.nn.relu(blocks.layer_norm(w, blocks.linear(w, y, width)))
      means.append(x.mean(1))
    return blocks.linear(w, jnp.concatenate(means, axis=-1), 10)
  return blocks.Model(forward, _dense_inputs(graphs, nodes, width))


def _relational(graphs: int, nodes: int, relations: int, width: int, layers: int) -> blocks.Model:
  """Each kind of edge has its own adjacency and its own matrix."""
  def forward(w: blocks.Weights, x: jax.Array, adjacency: jax.Array) -> jax.Array:
    for _ in range(layers):
      y = jnp.einsum("gnw,rwv->grnv", x, w.experts(relations, width, width))
      y = jnp.einsum("grmn,grnv->gmv", adjacency, y)
      x = jax.nn.relu(y + blocks.linear(w, x, width))
    return blocks.linear(w, x, 10)

  def inputs(rng: np.random.Generator) -> list[np.ndarray]:
    every = [_adjacency(rng, graphs, nodes) for _ in range(relations)]
    return [rng.standard_normal((graphs, nodes, width)).astype(np.float32),
            np.stack(every, axis=1)]
  return blocks.Model(forward, inputs)


def _edge_convolution(graphs: int, nodes: int, width: int, layers: int) -> blocks.Model:
  """The maximum over neighbours of a dense layer on each pair of neighbours."""
  def forward(w: blocks.Weights, x: jax.Array, adjacency: jax.Array) -> jax.Array:
    for _ in range(layers):
      own, other = blocks.linear(w, x, width), blocks.linear(w, x, width)
      pairs = jax.nn.relu(own[:, :, None] + other[:, None, :])
      x = x + jnp.where(adjacency[..., None] > 0, pairs, 0.0).max(2) @ w.kernel(width, width)
    return blocks.linear(w, x.mean(1), 10)
  return blocks.Model(forward, _dense_inputs(graphs, nodes, width))


def _graph_transformer(graphs: int, nodes: int, width: int, heads: int, layers: int
                       ) -> blocks.Model:
  """Attention between all nodes with a bias for the edges, and a feed-forward block."""
  def forward(w: blocks.Weights, x: jax.Array, adjacency: jax.Array) -> jax.Array:
    bias = adjacency[:, None] * w.kernel(1, heads)[0][:, None, None]
    for _ in range(layers):
      y = blocks.layer_norm(w, x)
      query, key, value = (blocks.split_heads(y @ w.kernel(width, width), heads)
                           for _ in range(3))
      scores = jnp.einsum("ghnd,ghmd->ghnm", query, key) + bias
      y = jnp.einsum("ghnm,ghmd->ghnd", jax.nn.softmax(scores), value)
      x = x + blocks.linear(w, blocks.merge_heads(y), width)
      x = x + blocks.feed_forward(w, blocks.layer_norm(w, x))
    return blocks.linear(w, x.mean(1), 10)
  return blocks.Model(forward, _dense_inputs(graphs, nodes, width))


def _interaction_network(graphs: int, nodes: int, width: int, layers: int) -> blocks.Model:
  """A dense net on each pair of objects, summed over partners, then a dense net on each object."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      shape = (graphs, nodes, nodes, width)
      pairs = jnp.concatenate([jnp.broadcast_to(x[:, :, None], shape),
                               jnp.broadcast_to(x[:, None, :], shape)], axis=-1)
      effects = jax.nn.relu(blocks.linear(w, pairs, width)).reshape(-1, width)
      effects = blocks.linear(w, effects, width).reshape(shape).sum(2)
      x = x + jax.nn.relu(blocks.linear(w, jnp.concatenate([x, effects], axis=-1), width))
    return blocks.linear(w, x, 10)
  return blocks.Model(forward, blocks.normal_inputs((graphs, nodes, width)))


def _equivariant(graphs: int, nodes: int, width: int, layers: int) -> blocks.Model:
  """Messages depend on the distances of nodes, and also move the nodes."""
  def forward(w: blocks.Weights, x: jax.Array, places: jax.Array) -> jax.Array:
    for _ in range(layers):
      apart = places[:, :, None] - places[:, None, :]
      distance = jnp.square(apart).sum(-1, keepdims=True)
      pairs = blocks.linear(w, x, width)[:, :, None] + blocks.linear(w, x, width)[:, None, :]
      messages = jax.nn.silu(pairs + distance * w.shift(width))
      messages = jax.nn.silu(blocks.linear(w, messages, width))
      places = places + (apart * jnp.tanh(messages @ w.kernel(width, 1))).mean(2)
      x = x + blocks.linear(w, jnp.concatenate([x, messages.mean(2)], axis=-1), width)
    return blocks.linear(w, jnp.concatenate([x, places], axis=-1), 10)
  return blocks.Model(forward, blocks.normal_inputs((graphs, nodes, width), (graphs, nodes, 3)))


BUILDERS: dict[str, Callable[..., blocks.Model]] = {
    "graph_convolution": _graph_convolution, "message_passing": _message_passing,
    "graph_attention": _graph_attention,
    "isomorphism": _isomorphism, "relational": _relational,
    "edge_convolution": _edge_convolution, "graph_transformer": _graph_transformer,
    "interaction_network": _interaction_network, "equivariant": _equivariant}
