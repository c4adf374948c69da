"""Transitive reduction: the fewest dependencies that force the same order of nodes."""

import numpy as np

from tpugraphs_rank import errors

# Memory of the sets of nodes that nodes wait for, directly or not.
MAX_BYTES = 1 << 30
# Bytes of such sets that are read and written; a machine of 2020 does 10 GiB in a second.
MAX_WORK = 1 << 40


def reduce(edges: np.ndarray, levels: np.ndarray, source: str) -> np.ndarray:
  """The edges of an acyclic graph that no other path implies.

  The result is unique (Aho, Garey and Ullman 1972). Time grows with the number of edges times the
  number of nodes / 64.

  Args:
    edges: (m, 2) int, row [consumer, producer], each edge once.
    levels: (n,) int; a producer has a smaller level than its consumers.
    source: name of the trace in error messages.

  Returns:
    (k,) int64 ascending indices of the edges that remain.

  Raises:
    LimitError: the sets of ancestors take more than 1 GiB, or uniting them minutes.
  """
  count = len(levels)
  order = np.argsort(levels, kind="stable")
  position = np.empty([count], np.int64)
  position[order] = np.arange(count)
  # Nodes are their positions now: producers first. The nearest producers of a node come first.
  consumers, producers = position[edges[:, 0]], position[edges[:, 1]]
  by_consumer = np.lexsort((-producers, consumers))
  first = np.searchsorted(consumers[by_consumer], np.arange(count + 1)).tolist()
  sorted_producers = producers[by_consumer].tolist()
  # A set of ancestors is a whole number with a bit for each node; free once nobody needs it.
  last_use = np.full([count], -1, np.int64)
  np.maximum.at(last_use, producers, consumers)
  done: list[list[int]] = [[] for _ in range(count)]
  for node, use in enumerate(last_use.tolist()):
    if use >= 0:
      done[use].append(node)
  ancestors: dict[int, int] = {}
  size = work = 0
  kept = []
  for node in range(count):
    reached = 0
    for index in range(first[node], first[node + 1]):
      producer = sorted_producers[index]
      if not reached >> producer & 1:
        kept.append(index)
        reached |= ancestors[producer] | 1 << producer
        work += node // 2
        if work > MAX_WORK:
          raise errors.LimitError(
              f"{source}: the transitive reduction of {count:,} nodes takes too long; import the "
              "trace without it")
    for other in done[node]:
      size -= ancestors.pop(other).bit_length() // 8
    if last_use[node] >= 0:
      ancestors[node] = reached
      size += reached.bit_length() // 8
      if size > MAX_BYTES:
        raise errors.LimitError(
            f"{source}: the transitive reduction of {count:,} nodes takes more than "
            f"{MAX_BYTES >> 30} GiB of memory, its limit; import the trace without it")
  return np.sort(by_consumer[kept]) if kept else np.zeros([0], np.int64)
