"""Transitive reduction: the fewest dependencies that force the same order of nodes."""

from collections.abc import Mapping, Sequence

import numpy as np

from tpugraphs_rank import errors

# Memory of the sets of nodes that nodes wait for, directly or not.
MAX_BYTES = 1 << 29
# Bytes of such sets that are read and written; a machine of 2020 does 10 GiB in a second. Any trace
# may cause FREE_WORK, a larger one WORK_PER_NODE for each of its nodes: a chain of n nodes takes
# n / 4 for each of them, and real traces with few dependencies not much more.
FREE_WORK = 1 << 34
WORK_PER_NODE = 1 << 18
MAX_WORK = 1 << 40
# This many producers, or more, that wait to be looked at are compared with the set together.
_MANY = 32


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
    LimitError: the sets of ancestors take more than 512 MiB, or uniting them takes too long.
  """
  count = len(levels)
  order = np.argsort(levels, kind="stable")
  position = np.empty([count], np.int64)
  position[order] = np.arange(count)
  # Nodes are their positions now: producers first. The nearest producers of a node come first.
  consumers, producers = position[edges[:, 0]], position[edges[:, 1]]
  by_consumer = np.lexsort((-producers, consumers))
  first = np.searchsorted(consumers[by_consumer], np.arange(count + 1)).tolist()
  sorted_producers = producers[by_consumer]
  # A set of ancestors is a whole number with a bit for each node; free once nobody needs it.
  last_use = np.full([count], -1, np.int64)
  np.maximum.at(last_use, producers, consumers)
  done: list[list[int]] = [[] for _ in range(count)]
  for node, use in enumerate(last_use.tolist()):
    if use >= 0:
      done[use].append(node)
  ancestors: dict[int, int] = {}
  size = work = 0
  most_work = min(max(FREE_WORK, WORK_PER_NODE * count), MAX_WORK)
  kept: list[int] = []
  for node in range(count):
    start = first[node]
    places, reached, looks = _needed(sorted_producers[start:first[node + 1]], ancestors)
    kept += [start + place for place in places]
    work += len(places) * node // 2 + looks * node // 8
    if work > most_work:
      raise errors.LimitError(
          f"{source}: the transitive reduction of {count:,} nodes takes too long; import the trace "
          "without it")
    for other in done[node]:
      size -= ancestors.pop(other).bit_length() // 8
    if last_use[node] >= 0:
      ancestors[node] = reached
      size += reached.bit_length() // 8
      if size > MAX_BYTES:
        raise errors.LimitError(
            f"{source}: the transitive reduction of {count:,} nodes takes more than "
            f"{MAX_BYTES >> 20} MiB of memory, its limit; import the trace without it")
  return np.sort(by_consumer[kept]) if kept else np.zeros([0], np.int64)


def _needed(producers: np.ndarray, ancestors: Mapping[int, int]) -> tuple[list[int], int, int]:
  """Which of a node's producers no other one implies.

  Args:
    producers: those of one node, the nearest first.
    ancestors: the set of each producer.

  Returns:
    The places of these producers, the set of all nodes that the node waits for, and how often the
    set was looked at.
  """
  kept: list[int] = []
  reached = looks = 0
  places: Sequence[int] = range(len(producers))
  numbers = producers.tolist()
  while numbers:
    for at, producer in enumerate(numbers):
      looks += 1
      if reached >> producer & 1:
        continue
      kept.append(places[at])
      reached |= ancestors[producer] | 1 << producer
      # After 1, 2, 4, ... of them: whatever is in the set already drops out at once.
      if len(numbers) - at > _MANY and len(kept) & (len(kept) - 1) == 0:
        break
    rest = np.array(numbers[at + 1:], np.int64)
    if not len(rest):
      break
    looks += 1
    bits = np.frombuffer(reached.to_bytes(reached.bit_length() // 8 + 1, "little"), np.uint8)
    remain = np.flatnonzero((bits[rest >> 3] >> (rest & 7).astype(np.uint8) & 1) == 0)
    places = [places[at + 1 + place] for place in remain.tolist()]
    numbers = rest[remain].tolist()
  return kept, reached, looks
