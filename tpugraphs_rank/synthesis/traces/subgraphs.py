"""Cuts the graphs of traces into sub-graphs of consecutive levels, and divides them into parts.

The level of a node is the longest path to it from a node without dependencies, so consecutive
levels are a section of the execution. A trace is first divided into blocks of consecutive levels,
and each block belongs to one part: training, validation or held-out. Sub-graphs are cut within runs
of adjacent blocks of one part. Those of one part may overlap; those of two parts share no node.
Traces of one kind, such as the ranks of one step, are divided at the same relative levels, so that
no section of one is in training while its counterpart is held out.
"""

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.data import segments
from tpugraphs_rank.synthesis.dags import dags as dags_lib

MAX_NODES = 400  # The largest graphs of the LayerDAG paper (arXiv 2411.02322).
PARTS = ("training", "validation", "held_out")
SHARES = {"training": 0.6, "validation": 0.1, "held_out": 0.3}
# A trace has at least this many blocks, so that each part is spread over it.
_MIN_BLOCKS = 10
# The fewest nodes of a sub-graph, if none are given: the first number that suffices for all parts.
_MIN_NODES = (100, 50, 25, 12)
# Sub-graphs of a part that are enough to compare distributions.
_ENOUGH = 10
# Sub-graphs of random sizes, per node of the part. Overlapping ones teach little that is new.
_TRIES_PER_GRAPH = 20


@dataclasses.dataclass(frozen=True)
class Section:
  """A run of consecutive levels of one trace that belongs to one part.

  Attributes:
    graph: index of the trace.
    part: one of PARTS.
    first: the first level.
    last: the level after the last one.
  """

  graph: int
  part: str
  first: int
  last: int


@dataclasses.dataclass(frozen=True)
class Divided:
  """The sub-graphs of each part.

  Attributes:
    parts: the sub-graphs by part.
    sections: the sections that the sub-graphs are cut from.
    repeated: traces left out because an equal one comes before them.
    twins: held-out and validation sub-graphs left out because an equal one is in training.
    min_nodes: the fewest nodes that a sub-graph could have.
  """

  parts: Mapping[str, dags_lib.Dags]
  sections: tuple[Section, ...]
  repeated: int
  twins: int
  min_nodes: int


def execution_levels(dags: dags_lib.Dags, graph: int) -> np.ndarray:
  """(n,) int64 longest path from a node without dependencies, for the nodes of one graph."""
  rows = dags.nodes(graph)
  return segments.levels(dags.edges(graph), rows.stop - rows.start)


def sections(levels: Sequence[np.ndarray], max_nodes: int, seed: int) -> list[Section]:
  """Divides traces into sections; adjacent blocks of one part are one section.

  Args:
    levels: for each trace the levels of its nodes.
    max_nodes: nodes of the largest sub-graph; a block has about as many.
    seed: seed of the choice of the parts.
  """
  result: list[Section] = []
  for graph, level in enumerate(levels):
    ends = _blocks(np.bincount(level), max_nodes)
    parts = _parts(len(ends), seed)
    first = 0
    for place, end in enumerate(ends):
      if place + 1 == len(ends) or parts[place + 1] != parts[place]:
        result.append(Section(graph, parts[place], first, end))
        first = end
  return result


def _blocks(widths: np.ndarray, max_nodes: int) -> list[int]:
  """The level after the last one of each block of about equal numbers of nodes."""
  total = int(widths.sum())
  count = min(max(_MIN_BLOCKS, round(total / max_nodes)), len(widths))
  after = np.cumsum(widths)
  ends = np.searchsorted(after, total * np.arange(1, count + 1) / count - 0.5) + 1
  return np.unique(np.minimum(ends, len(widths))).tolist()


def _parts(count: int, seed: int) -> list[str]:
  """The part of each block. One choice serves all traces with the same number of blocks."""
  numbers = {part: max(1, round(SHARES[part] * count)) for part in PARTS[1:]}
  parts = [part for part, number in numbers.items() for _ in range(number)][:max(count - 1, 0)]
  parts += ["training"] * (count - len(parts))
  return [parts[place] for place in np.random.default_rng([seed, count]).permutation(count)]


def window(dags: dags_lib.Dags, graph: int, level: np.ndarray, first: int, last: int
           ) -> tuple[np.ndarray, np.ndarray]:
  """The sub-graph of the levels from `first` up to `last`, without isolated nodes.

  A node without a dependency and without a user among these levels is left out: its place in the
  execution is unknown.

  Returns:
    Its nodes as indices within the graph, (n,), and its edges (m, 2) [consumer, producer] as
    indices into these nodes.
  """
  inside = (level >= first) & (level < last)
  edges = dags.edges(graph)
  edges = edges[inside[edges].all(axis=1)]
  nodes = np.unique(edges)
  return nodes, np.searchsorted(nodes, edges)


def divide(dags: dags_lib.Dags, count: int, min_nodes: int | None = None,
           max_nodes: int = MAX_NODES, seed: int = 0) -> Divided:
  """Cuts sub-graphs of random sizes from traces, and divides them into parts.

  Args:
    dags: one graph per trace.
    count: number of training sub-graphs; the other parts get as many in proportion to SHARES.
    min_nodes: the fewest nodes of a sub-graph; None: 100, or less if a part has none of that size.
    max_nodes: the most nodes of a sub-graph.
    seed: seed of all random choices.

  Raises:
    ConfigError: the numbers of nodes contradict each other.
    DataError: a part gets no sub-graph; the message says what to change.
  """
  if min_nodes is None:
    return _divide_into_smaller(dags, count, max_nodes, seed)
  if not 2 <= min_nodes <= max_nodes:
    raise errors.ConfigError(f"sub-graphs of {min_nodes} to {max_nodes} nodes; expected at least 2 "
                             "nodes, and a maximum not below the minimum; correct --min_nodes or "
                             "--max_nodes")
  distinct = np.sort(np.unique(dags.wl, return_index=True)[1])
  levels = [execution_levels(dags, int(graph)) for graph in distinct]
  found = [dataclasses.replace(section, graph=int(distinct[section.graph]))
           for section in sections(levels, max_nodes, seed)]
  level_of = {int(graph): level for graph, level in zip(distinct, levels)}
  parts: dict[str, dags_lib.Dags] = {}
  known, twins = np.zeros([0], np.uint64), 0
  for place, part in enumerate(PARTS):
    graphs = _cut(dags, level_of, [section for section in found if section.part == part],
                  _wanted(count, part), min_nodes, max_nodes, np.random.default_rng([seed, place]))
    if graphs:
      cut = dags_lib.canonical(graphs, dags.x_names, dags.vocabularies,
                               provenance=dags.provenance)
      fresh = ~np.isin(cut.wl, known)
      # Equal sub-graphs of one part add nothing, and those of another part would leak.
      fresh[np.setdiff1d(np.arange(len(cut)), np.unique(cut.wl, return_index=True)[1])] = False
      twins += int(np.isin(np.unique(cut.wl), known).sum())
      if fresh.any():
        parts[part] = cut.take(np.flatnonzero(fresh))
        known = np.union1d(known, cut.wl) if part == "training" else known
    if part not in parts:
      raise errors.DataError(
          f"no {part.replace('_', '-')} sub-graph of {min_nodes} to {max_nodes} nodes among "
          f"{len(dags)} traces of {len(dags.x)} nodes; pass more traces, or allow smaller "
          "sub-graphs (--min_nodes)")
  return Divided(parts, tuple(found), len(dags) - len(distinct), twins, min_nodes)


def _wanted(count: int, part: str) -> int:
  """The number of sub-graphs of a part, if training has `count`."""
  return max(2, round(count * SHARES[part] / SHARES["training"]))


def _divide_into_smaller(dags: dags_lib.Dags, count: int, max_nodes: int, seed: int) -> Divided:
  """`divide` with the first of _MIN_NODES that gives every part enough sub-graphs."""
  choices = [number for number in _MIN_NODES if number <= max_nodes] or [min(2, max_nodes)]
  for number in choices[:-1]:
    try:
      divided = divide(dags, count, number, max_nodes, seed)
    except errors.DataError:
      continue
    if all(len(graphs) >= min(_ENOUGH, _wanted(count, part) // 2)
           for part, graphs in divided.parts.items()):
      return divided
  return divide(dags, count, choices[-1], max_nodes, seed)


def _cut(dags: dags_lib.Dags, level_of: Mapping[int, np.ndarray], within: Sequence[Section],
         count: int, min_nodes: int, max_nodes: int, rng: np.random.Generator
         ) -> list[tuple[np.ndarray, np.ndarray]]:
  """Sub-graphs of random sizes at random levels of the sections: edges and attributes."""
  widths = [np.bincount(level_of[section.graph])[section.first:section.last]
            for section in within]
  sizes = np.array([width.sum() for width in widths], np.float64)
  if not sizes.sum() or not count:
    return []
  result: list[tuple[np.ndarray, np.ndarray]] = []
  seen: set[tuple[int, int, int]] = set()
  for _ in range(_TRIES_PER_GRAPH * count):
    if len(result) == count:
      break
    place = int(rng.choice(len(within), p=sizes / sizes.sum()))
    section, after = within[place], np.concatenate([[0], np.cumsum(widths[place])])
    wanted = int(rng.integers(min_nodes, max_nodes + 1))
    # A start too near the end of the section would give small graphs only.
    latest = int(np.searchsorted(after, after[-1] - wanted, "right")) - 1
    start = int(rng.integers(max(latest, 0) + 1))
    stop = int(np.searchsorted(after, after[start] + wanted, "right")) - 1
    key = (section.graph, section.first + start, section.first + stop)
    if stop <= start or key in seen:
      continue
    seen.add(key)
    nodes, edges = window(dags, section.graph, level_of[section.graph], *key[1:])
    if min_nodes <= len(nodes) <= max_nodes:
      result.append((edges, dags.x[dags.nodes(section.graph)][nodes]))
  return result
