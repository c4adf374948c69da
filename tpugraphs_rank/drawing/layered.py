"""Layered layout of a directed graph: producers above consumers, few crossings, short edges.

Source: K. Sugiyama, S. Tagawa, M. Toda, "Methods for visual understanding of hierarchical system
structures", IEEE Transactions on Systems, Man, and Cybernetics 11 (1981): layers, virtual nodes for
edges that cross layers, and barycentres for the order within a layer.
"""

from collections.abc import Sequence

import numpy as np

_SWEEPS = 8
_PLACEMENTS = 12
_VIRTUAL_WIDTH = 8.0


def levels(count: int, edges: np.ndarray) -> np.ndarray:
  """(n,) the layer of each node: longest path from a node without producers.

  A node without producers moves down to the layer above its first consumer. Edges that would close
  a cycle are ignored.

  Args:
    count: number of nodes.
    edges: (m, 2) [producer, consumer].
  """
  consumers: list[list[int]] = [[] for _ in range(count)]
  waiting = np.zeros(count, np.int64)
  for producer, consumer in np.unique(edges, axis=0).tolist() if len(edges) else []:
    if producer != consumer:
      consumers[producer].append(consumer)
      waiting[consumer] += 1
  sources = np.flatnonzero(waiting == 0).tolist()
  level = np.zeros(count, np.int64)
  ready, done = list(sources), np.zeros(count, bool)
  while not done.all():
    if not ready:  # A cycle: break it at its first node.
      ready = [int(np.flatnonzero(~done)[0])]
    node = ready.pop()
    if done[node]:
      continue
    done[node] = True
    for consumer in consumers[node]:
      if not done[consumer]:
        level[consumer] = max(level[consumer], level[node] + 1)
        waiting[consumer] -= 1
        if not waiting[consumer]:
          ready.append(consumer)
  for node in sources:
    if consumers[node]:
      level[node] = max(min(level[consumer] for consumer in consumers[node]) - 1, 0)
  return level


def order(level: np.ndarray, edges: np.ndarray, sweeps: int = _SWEEPS) -> list[np.ndarray]:
  """The nodes of each layer from left to right, such that few edges cross.

  Args:
    level: (n,) the layer of each node.
    edges: (m, 2) pairs of nodes in different layers.
    sweeps: passes down and up over the layers.
  """
  count = len(level)
  members = [np.flatnonzero(level == depth) for depth in range(int(level.max()) + 1)]
  place = np.zeros(count)
  for nodes in members:
    place[nodes] = (np.arange(len(nodes)) + 0.5) / max(len(nodes), 1)
  first, second = np.asarray(edges, np.int64).reshape(-1, 2).T
  upper = np.where(level[first] <= level[second], first, second)
  lower = np.where(level[first] <= level[second], second, first)
  for sweep in range(sweeps):
    # Down by the neighbours above, then up by the neighbours below.
    moved, fixed = (lower, upper) if sweep % 2 == 0 else (upper, lower)
    degree = np.bincount(moved, minlength=count)
    for depth in range(len(members)) if sweep % 2 == 0 else range(len(members) - 1, -1, -1):
      nodes = members[depth]
      total = np.bincount(moved, weights=place[fixed], minlength=count)
      wanted = np.where(degree == 0, place, total / np.maximum(degree, 1))[nodes]
      members[depth] = nodes = nodes[np.argsort(wanted, kind="stable")]
      place[nodes] = (np.arange(len(nodes)) + 0.5) / len(nodes)
  return members


def arrange(edges: np.ndarray, widths: Sequence[float], heights: Sequence[float],
            gap: tuple[float, float] = (18.0, 34.0)
            ) -> tuple[np.ndarray, list[np.ndarray]]:
  """Places boxes and routes edges between them.

  Args:
    edges: (m, 2) [producer, consumer].
    widths, heights: (n,) sizes of the boxes.
    gap: least horizontal distance of boxes, and vertical distance of layers.

  Returns:
    (n, 2) centres of the boxes, y pointing down; and for each edge (p, 2) the points of its line,
    from the bottom of the producer to the top of the consumer.
  """
  count = len(widths)
  level = levels(count, edges)
  # A chain of virtual nodes keeps a long edge clear of the boxes between its ends.
  chains: list[list[int]] = []
  links: list[tuple[int, int]] = []
  level_of = level.tolist()
  for producer, consumer in edges.tolist():
    step = 1 if level_of[consumer] >= level_of[producer] else -1
    chain = [producer]
    for depth in range(level_of[producer] + step, level_of[consumer], step):
      level_of.append(depth)
      chain.append(len(level_of) - 1)
    chain.append(consumer)
    chains.append(chain)
    links.extend((a, b) for a, b in zip(chain, chain[1:]) if level_of[a] != level_of[b])
  every_level = np.array(level_of)
  every_width = np.concatenate([np.asarray(widths, float),
                                np.full(len(level_of) - count, _VIRTUAL_WIDTH)])
  every_link = np.array(links, np.int64).reshape(-1, 2)
  members = order(every_level, every_link)
  x = _horizontal(members, every_link, every_width, gap[0])
  rows = [max((heights[node] for node in nodes if node < count), default=0.0) for nodes in members]
  tops = np.concatenate([[0.0], np.cumsum(np.array(rows) + gap[1])])
  y = tops[every_level] + np.array(rows)[every_level] / 2
  routes = []
  for chain in chains:
    points = [(x[node], y[node]) for node in chain]
    down = 1 if points[-1][1] >= points[0][1] else -1
    points[0] = (points[0][0], points[0][1] + down * heights[chain[0]] / 2)
    points[-1] = (points[-1][0], points[-1][1] - down * heights[chain[-1]] / 2)
    routes.append(np.array(points))
  return np.stack([x[:count], y[:count]], axis=1), routes


def _horizontal(members: list[np.ndarray], links: np.ndarray, widths: np.ndarray, gap: float
                ) -> np.ndarray:
  """(n,) x of each node: as close to its neighbours as the order in its layer allows."""
  x = np.zeros(len(widths))
  offsets = []
  for nodes in members:
    sizes = widths[nodes]
    offset = np.concatenate([[0.0], np.cumsum((sizes[:-1] + sizes[1:]) / 2 + gap)])[:len(nodes)]
    offsets.append(offset)
    x[nodes] = offset - (offset[-1] / 2 if len(offset) else 0.0)
  ends = np.concatenate([links, links[:, ::-1]]) if len(links) else np.zeros([0, 2], np.int64)
  degree = np.bincount(ends[:, 0], minlength=len(x))
  for sweep in range(_PLACEMENTS):
    layers = range(len(members)) if sweep % 2 == 0 else range(len(members) - 1, -1, -1)
    for depth in layers:
      nodes = members[depth]
      total = np.bincount(ends[:, 0], weights=x[ends[:, 1]], minlength=len(x))[nodes]
      wanted = np.where(degree[nodes] > 0, total / np.maximum(degree[nodes], 1), x[nodes])
      x[nodes] = _isotonic(wanted - offsets[depth]) + offsets[depth]
  return x - x.min() if len(x) else x


def _isotonic(values: np.ndarray) -> np.ndarray:
  """The non-decreasing sequence closest to the values by squares (pool adjacent violators)."""
  means: list[float] = []
  sizes: list[int] = []
  for value in values.tolist():
    means.append(value)
    sizes.append(1)
    while len(means) > 1 and means[-2] > means[-1]:
      mean, size = means.pop(), sizes.pop()
      means[-1] = (means[-1] * sizes[-1] + mean * size) / (sizes[-1] + size)
      sizes[-1] += size
  return np.repeat(means, sizes)
