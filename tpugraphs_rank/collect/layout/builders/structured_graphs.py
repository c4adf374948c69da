"""Families of graphs with more structure: pooled, bipartite, hypergraphs, relations, molecules."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from tpugraphs_rank.collect.layout.builders import blocks


def _links(rng: np.random.Generator, graphs: int, rows: int, columns: int) -> np.ndarray:
  """A matrix of zeros and ones for each graph, with about four ones in a row and one at least."""
  linked = rng.random((graphs, rows, columns)) < 3 / columns
  linked[:, np.arange(rows), np.arange(rows) % columns] = True
  return linked.astype(np.float32)


def _graph_pooling(graphs: int, nodes: int, width: int, clusters: int) -> blocks.Model:
  """Two levels of clusters: one graph layer assigns nodes to them, another computes features."""
  def forward(w: blocks.Weights, x: jax.Array, links: jax.Array) -> jax.Array:
    adjacency, means = links + links.swapaxes(1, 2), []
    for count in (clusters, clusters // 2):
      adjacency = adjacency / (adjacency.sum(-1, keepdims=True) + 0.1)
      assigned = jax.nn.softmax(adjacency @ (x @ w.kernel(width, count)))
      x = jax.nn.relu(adjacency @ blocks.linear(w, x, width))
      means.append(x.mean(1))
      x = jnp.einsum("gnc,gnw->gcw", assigned, x)
      adjacency = jnp.einsum("gnc,gnd->gcd", assigned, adjacency @ assigned)
    means.append((adjacency @ x).mean(1))
    return blocks.linear(w, jnp.concatenate(means, axis=-1), 10)

  def inputs(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.standard_normal((graphs, nodes, width)).astype(np.float32),
            _links(rng, graphs, nodes, nodes)]
  return blocks.Model(forward, inputs)


def _metapath(graphs: int, users: int, items: int, width: int, layers: int) -> blocks.Model:
  """Users see items, users of the same items, and their neighbours; attention weights the paths."""
  def forward(w: blocks.Weights, x: jax.Array, y: jax.Array, links: jax.Array) -> jax.Array:
    ahead = links / links.sum(2, keepdims=True)
    back = (links / (links.sum(1, keepdims=True) + 0.1)).swapaxes(1, 2)
    together = ahead @ back
    for _ in range(layers):
      values = blocks.linear(w, x, width)
      near = together @ values
      paths = [ahead @ blocks.linear(w, y, width), near, together @ near, values]
      paths = jnp.stack(paths, axis=1)
      scores = jnp.tanh(blocks.linear(w, paths, width)).mean(2) @ w.kernel(width, 1)
      mixed = jnp.einsum("gpo,gpuw->guw", jax.nn.softmax(scores, axis=1), paths)
      y = jax.nn.relu(blocks.linear(w, back @ x, width) + y)
      x = blocks.layer_norm(w, x + jax.nn.elu(mixed))
    return jnp.einsum("guw,giw->gui", blocks.linear(w, x, width), y) / width

  def inputs(rng: np.random.Generator) -> list[np.ndarray]:
    return [*(rng.standard_normal((graphs, count, width)).astype(np.float32)
              for count in (users, items)), _links(rng, graphs, users, items)]
  return blocks.Model(forward, inputs)


def _hypergraph(graphs: int, nodes: int, edges: int, width: int, layers: int) -> blocks.Model:
  """Means of nodes at each hyperedge, weighted by the edge, and sums of them at each node."""
  def forward(w: blocks.Weights, x: jax.Array, incidence: jax.Array) -> jax.Array:
    gather = incidence / (incidence.sum(1, keepdims=True) + 0.1)
    spread = incidence / incidence.sum(2, keepdims=True)
    for _ in range(layers):
      members = jnp.einsum("gne,gnw->gew", gather, blocks.linear(w, x, width))
      members = members * jax.nn.sigmoid(blocks.linear(w, jnp.tanh(members), 1))
      joined = jnp.concatenate([x, spread @ members], axis=-1)
      x = jax.nn.relu(blocks.layer_norm(w, blocks.linear(w, joined, width))) + x
    return blocks.linear(w, x, 10)

  def inputs(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.standard_normal((graphs, nodes, width)).astype(np.float32),
            _links(rng, graphs, nodes, edges)]
  return blocks.Model(forward, inputs)


def _knowledge_graph(rows: int, entities: int, heads: int, size: int) -> blocks.Model:
  """Scores of all objects for a subject and a relation: bilinear per head, and trilinear."""
  def forward(w: blocks.Weights, subjects: jax.Array, relations: jax.Array) -> jax.Array:
    table = w.experts(entities, heads, size)
    matrices, factors = w.experts(8 * heads, size, size), w.experts(8, 1, heads * size)
    subject = table[subjects]
    matrix = matrices.reshape(8, heads, size, size)[relations]
    factor = factors.reshape(8, heads, size)[relations]
    query = jnp.einsum("rhd,rhde->rhe", subject, matrix) + subject * factor
    query = blocks.layer_norm(w, query.reshape(rows, heads * size)).reshape(subject.shape)
    scores = jnp.einsum("rhd,ehd->rhe", query, table)
    weights = jax.nn.softmax(blocks.linear(w, subject.reshape(rows, -1), heads))
    return jnp.einsum("rh,rhe->re", weights, jnp.tanh(scores))

  def inputs(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.integers(count, size=rows, dtype=np.int32) for count in (entities, 8)]
  return blocks.Model(forward, inputs)


def _continuous_filter(graphs: int, nodes: int, width: int, layers: int) -> blocks.Model:
  """Filters from radial basis functions of the distances between atoms multiply the features."""
  centres = np.linspace(0, 4, 16, dtype=np.float32)

  def forward(w: blocks.Weights, x: jax.Array, places: jax.Array) -> jax.Array:
    distance = jnp.sqrt(blocks.squared_distances(places, places) + 0.01)[..., None]
    basis = jnp.exp(-4 * jnp.square(distance - centres))
    cutoff = jax.nn.sigmoid(3 - distance)
    for _ in range(layers):
      filters = jax.nn.softplus(blocks.linear(w, basis, width)) @ w.kernel(width, width)
      y = blocks.linear(w, x, width)
      y = (filters * cutoff * y[:, None]).sum(2)
      x = x + blocks.linear(w, jax.nn.softplus(blocks.linear(w, y, width)), width)
    return blocks.linear(w, jax.nn.softplus(blocks.linear(w, x, width // 2)).sum(1), 1)
  return blocks.Model(forward, blocks.normal_inputs((graphs, nodes, width), (graphs, nodes, 3)))


BUILDERS: dict[str, Callable[..., blocks.Model]] = {
    "graph_pooling": _graph_pooling, "metapath": _metapath, "hypergraph": _hypergraph,
    "knowledge_graph": _knowledge_graph, "continuous_filter": _continuous_filter}
