"""Contiguous segments of a graph in topological order, for segment dropout."""

from typing import List, Tuple

import numpy as np
from scipy import sparse


def levels(edge_index: np.ndarray, num_nodes: int) -> np.ndarray:
  """Longest-path depth of each node: 0 for nodes without operands, above all operands otherwise.

  Args:
    edge_index: (m, 2) int, row [u, v]: u consumes the output of v.
    num_nodes: n.

  Returns:
    (n,) int64. Nodes on or behind a cycle (malformed graphs) come after all others.
  """
  edges = np.unique(np.asarray(edge_index).reshape(-1, 2), axis=0)
  users = sparse.csr_matrix(
      (np.ones(len(edges)), (edges[:, 1], edges[:, 0])), shape=(num_nodes, num_nodes))
  waiting = np.bincount(edges[:, 0], minlength=num_nodes)
  depth = np.full(num_nodes, -1, np.int64)
  frontier = np.flatnonzero(waiting == 0)
  level = 0
  while frontier.size:
    depth[frontier] = level
    reached = users[frontier].indices
    waiting -= np.bincount(reached, minlength=num_nodes)
    candidates = np.unique(reached)
    frontier = candidates[waiting[candidates] == 0]
    level += 1
  depth[depth < 0] = level
  return depth


def topological_order(edge_index: np.ndarray, num_nodes: int) -> np.ndarray:
  """(n,) int64: the nodes with every operand before its users, by level, then by number."""
  return np.argsort(levels(edge_index, num_nodes), kind="stable")


def cut_segments(edge_index: np.ndarray, num_nodes: int, max_nodes: int) -> List[np.ndarray]:
  """Cuts the nodes into contiguous runs of the topological order, as even as can be.

  Args:
    edge_index: (m, 2) int.
    num_nodes: n, at least 1.
    max_nodes: nodes a segment at most.

  Returns:
    The segments, each an ascending int64 array of node ids.
  """
  count = -(-num_nodes // max_nodes)
  order = topological_order(edge_index, num_nodes)
  return [np.sort(segment) for segment in np.array_split(order, count)]


def induced_edges(source: np.ndarray, target: np.ndarray, nodes: np.ndarray, num_nodes: int
                  ) -> Tuple[np.ndarray, np.ndarray]:
  """The edges with both ends in `nodes`, with their ends renumbered to positions in `nodes`."""
  position = np.full(num_nodes, -1, np.int64)
  position[nodes] = np.arange(len(nodes))
  source, target = position[source], position[target]
  inside = (source >= 0) & (target >= 0)
  return source[inside], target[inside]
