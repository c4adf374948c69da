"""Parts of a graph for segment dropout: contiguous in topological order, or random edges."""

import numpy as np


def levels(edge_index: np.ndarray, num_nodes: int) -> np.ndarray:
  """Longest-path depth of each node: 0 without operands, otherwise above all of its operands.

  Args:
    edge_index: (m, 2) int, row [u, v]: u consumes the output of v.
    num_nodes: n.

  Returns:
    (n,) int64. Nodes on or after a cycle (malformed graphs) come after all others.
  """
  edges = np.unique(np.asarray(edge_index).reshape(-1, 2), axis=0)
  edges = edges[np.argsort(edges[:, 1], kind="stable")]
  users = edges[:, 0].tolist()
  first = np.searchsorted(edges[:, 1], np.arange(num_nodes + 1)).tolist()
  waiting = np.bincount(edges[:, 0], minlength=num_nodes).tolist()
  # Plain lists, because programs are deep and narrow: array operations on single levels would be
  # much slower.
  depth = [-1] * num_nodes
  frontier = [node for node in range(num_nodes) if not waiting[node]]
  level = 0
  while frontier:
    reached = []
    for node in frontier:
      depth[node] = level
      for user in users[first[node]:first[node + 1]]:
        waiting[user] -= 1
        if not waiting[user]:
          reached.append(user)
    frontier = reached
    level += 1
  return np.array([level if at < 0 else at for at in depth], np.int64)


def topological_order(edge_index: np.ndarray, num_nodes: int) -> np.ndarray:
  """(n,) int64: the nodes with operands before their users, by level, then by number."""
  return np.argsort(levels(edge_index, num_nodes), kind="stable")


def cut_segments(edge_index: np.ndarray, num_nodes: int, max_nodes: int) -> list[np.ndarray]:
  """Cuts the nodes into contiguous, evenly sized runs of the topological order.

  Args:
    edge_index: (m, 2) int.
    num_nodes: n, at least 1.
    max_nodes: maximum number of nodes in a segment.

  Returns:
    The segments, each an ascending int64 array of node ids.
  """
  count = -(-num_nodes // max_nodes)
  order = topological_order(edge_index, num_nodes)
  return [np.sort(segment) for segment in np.array_split(order, count)]


def sample_by_edges(source: np.ndarray, target: np.ndarray, num_nodes: int, max_nodes: int,
                    rng: np.random.Generator) -> np.ndarray:
  """The nodes of edges drawn at random without replacement, as many as `max_nodes` allows.

  This is the edge sampler of GraphSAINT (Zeng et al., ICLR 2020) with equal probabilities and a
  limit on nodes. Drawing ends before the first edge that would exceed it. A graph without edges,
  and a limit of one node, give one node drawn at random.

  Args:
    source, target: (m,) int, the ends of each edge.
    num_nodes: n, at least 1.
    max_nodes: maximum number of nodes, at least 1.
    rng: draws the edges.

  Returns:
    Ascending int64 node ids; all nodes if there are at most `max_nodes`.
  """
  if num_nodes <= max_nodes:
    return np.arange(num_nodes)
  order = rng.permutation(len(source))
  ends = np.stack([source[order], target[order]], axis=1).reshape(-1)
  new = np.zeros(len(ends), bool)
  new[np.unique(ends, return_index=True)[1]] = True
  count = np.cumsum(new)[1::2]  # Distinct nodes after each edge.
  kept = int(np.searchsorted(count, max_nodes, side="right"))
  if not kept:
    return rng.integers(num_nodes, size=1)
  return np.unique(ends[:2 * kept]).astype(np.int64)


def induced_edges(source: np.ndarray, target: np.ndarray, nodes: np.ndarray, num_nodes: int
                  ) -> tuple[np.ndarray, np.ndarray]:
  """The edges with both ends in `nodes`, renumbered to positions in `nodes`."""
  position = np.full(num_nodes, -1, np.int64)
  position[nodes] = np.arange(len(nodes))
  source, target = position[source], position[target]
  inside = (source >= 0) & (target >= 0)
  return source[inside], target[inside]
