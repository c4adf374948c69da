"""The nodes of a graph with numbers again, in topological order, and the zero-cost rule."""

from collections.abc import Callable
import dataclasses

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank.chakra import buckets
from tpugraphs_rank.chakra import costs as costs_lib
from tpugraphs_rank.chakra import et_def_pb2
from tpugraphs_rank.chakra import graphs
from tpugraphs_rank.chakra import node_kinds
from tpugraphs_rank.chakra import trace_graph
from tpugraphs_rank.synthesis.dags import dags

MISSING = trace_graph.MISSING
# Dependencies of one graph after nodes without cost have passed theirs on: FREE_EDGES of any graph,
# and EDGES_RATIO for each that it has, at most MAX_EDGES.
MAX_EDGES = 20_000_000
FREE_EDGES = 2_000_000
EDGES_RATIO = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Nodes:
  """The nodes of one graph, producers first.

  Attributes:
    names: (n,) operator classes, or values of the graph's first attribute.
    types, device, duration, operations, size, collective: (n,) int64, as in
      `trace_graph.TraceGraph`.
    group: (n,) as there.
    producers: for each node the ascending positions of the nodes that it waits for.
    midpoints: numbers that are the middle of a bucket, because the data set does not store the
      bucket's number.
  """

  names: tuple[str, ...]
  types: np.ndarray
  device: np.ndarray
  duration: np.ndarray
  operations: np.ndarray
  size: np.ndarray
  collective: np.ndarray
  group: tuple[str, ...]
  producers: tuple[tuple[int, ...], ...]
  midpoints: int = 0

  def __len__(self) -> int:
    return len(self.names)

  def take(self, kept: np.ndarray, producers: tuple[tuple[int, ...], ...]) -> "Nodes":
    """The nodes at these positions, with these dependencies."""
    names, groups = (tuple(texts[index] for index in kept.tolist())
                     for texts in (self.names, self.group))
    return Nodes(
        names, self.types[kept], self.device[kept], self.duration[kept], self.operations[kept],
        self.size[kept], self.collective[kept], groups, producers, self.midpoints)


def decode(several: dags.Dags, graph: int, costs: costs_lib.Costs | None = None) -> Nodes:
  """Reads a graph of a data set that `graphs.to_dags` made, or that has such attributes.

  Nodes without the attribute `type` are compute nodes, unless `costs` states another type.

  Raises:
    DataError: an attribute has a value that is no type, device, bucket or collective; or `costs`
      names an attribute that the graphs lack.
  """
  rows = several.nodes(graph)
  count = rows.stop - rows.start
  order = np.lexsort((np.arange(count), -several.level[rows]))
  position = np.empty([count], np.int64)
  position[order] = np.arange(count)
  words = {name: vocabulary[several.x[rows, column][order]].astype(str).tolist()
           for column, (name, vocabulary) in enumerate(
               zip(several.x_names, several.vocabularies))}
  stored = several.provenance.get("buckets", {})
  values = stored.get("values", {}) if isinstance(stored, dict) else {}
  midpoints = 0
  columns: dict[str, np.ndarray] = {}
  for name, field in graphs.BUCKETED.items():
    missing = 0 if name == "duration" else MISSING
    known = values.get(name, {}) if isinstance(values, dict) else {}
    known = known if isinstance(known, dict) else {}
    columns[field], guessed = _numbers(words.get(name), name, known, count, missing)
    midpoints += guessed
  columns["types"] = _coded(words.get("type"), "type", node_kinds.type_number, count,
                            node_kinds.COMP)
  codes = {word: code for code, word in graphs.DEVICES.items()}
  columns["device"] = _coded(words.get("device"), "device", codes.get, count, MISSING)
  columns["collective"] = _coded(
      words.get("collective"), "collective",
      lambda word: MISSING if word == graphs.NONE else node_kinds.collective_number(word), count,
      MISSING)
  if costs is not None:
    _apply(costs, words, columns)
  names = words["operator" if "operator" in words else several.x_names[0]]
  group = ["" if word == graphs.NONE else word for word in words.get("group", [""] * count)]
  edges = position[several.edges(graph)]
  edges = edges[np.lexsort((edges[:, 1], edges[:, 0]))]
  first = np.searchsorted(edges[:, 0], np.arange(count + 1)).tolist()
  producers = edges[:, 1].tolist()
  return Nodes(tuple(names), group=tuple(group), midpoints=midpoints, producers=tuple(
      tuple(producers[first[node]:first[node + 1]]) for node in range(count)), **columns)


def unusable(nodes: Nodes | trace_graph.TraceGraph) -> np.ndarray:
  """(n,) bool: the nodes that cost nothing, by the rule of `exporting`."""
  compute = (nodes.types == node_kinds.COMP) | _by_host(nodes)
  memory = np.isin(nodes.types, list(node_kinds.MEMORY))
  communication = np.isin(nodes.types, list(node_kinds.COMMUNICATION)) & ~compute
  barrier = (nodes.types == node_kinds.COMM_COLL) & (nodes.collective == et_def_pb2.BARRIER)
  return np.select(
      [compute, memory, communication],
      [(nodes.duration <= 0) & ((nodes.operations <= 0) | (nodes.size <= 0)), nodes.size <= 0,
       (nodes.size <= 0) & ~barrier],
      np.isin(nodes.types, [node_kinds.INVALID, node_kinds.METADATA]))


def on_network(nodes: Nodes | trace_graph.TraceGraph) -> np.ndarray:
  """(n,) bool: the nodes that simulators run as communication: those not of the host."""
  return np.isin(nodes.types, list(node_kinds.COMMUNICATION)) & ~_by_host(nodes)


def unknown_types(nodes: Nodes | trace_graph.TraceGraph) -> np.ndarray:
  """(n,) bool: the nodes whose type this schema lacks."""
  return ~np.isin(nodes.types, list(node_kinds.TYPES))


def unknown_collectives(nodes: Nodes | trace_graph.TraceGraph) -> np.ndarray:
  """(n,) bool: the collectives on the network that state a kind which this schema lacks."""
  return (on_network(nodes) & (nodes.types == node_kinds.COMM_COLL)
          & ~np.isin(nodes.collective, [MISSING, *node_kinds.COLLECTIVES]))


def fuse(nodes: Nodes, removed: np.ndarray, source: str) -> Nodes:
  """Removes nodes; what waited for one waits for what it waited for.

  Args:
    nodes: of a graph.
    removed: (n,) bool.
    source: name of the graph in error messages.

  Raises:
    DataError: no node remains.
    LimitError: too many dependencies arise.
  """
  if removed.all():
    raise errors.DataError(
        f"{source}: none of its {len(nodes):,} nodes has a cost; expected durations, or operations "
        "and bytes; give costs in a file (--costs), or import the traces with their attributes "
        "duration, operations and bytes")
  kept = np.flatnonzero(~removed)
  number = np.cumsum(~removed) - 1
  passed: list[set[int]] = []
  result = []
  total = 0
  limit = min(MAX_EDGES, max(FREE_EDGES, EDGES_RATIO * sum(map(len, nodes.producers))))
  for index, producers in enumerate(nodes.producers):
    reached: set[int] = set()
    for producer in producers:
      if removed[producer]:
        reached |= passed[producer]
      else:
        reached.add(int(number[producer]))
    passed.append(reached if removed[index] else set())
    total += len(reached)
    if total > limit:
      raise errors.LimitError(
          f"{source}: removing the nodes without cost gives more than {limit:,} dependencies, "
          "the limit; import the traces with the transitive reduction")
    if not removed[index]:
      result.append(tuple(sorted(reached)))
  return nodes.take(kept, tuple(result))


def _by_host(nodes: Nodes | trace_graph.TraceGraph) -> np.ndarray:
  return np.isin(nodes.types, list(node_kinds.COMMUNICATION)) & (nodes.device == 1)


def _coded(words: list[str] | None, name: str, code: Callable[[str], int | None], count: int,
           default: int) -> np.ndarray:
  if words is None:
    return np.full([count], default, np.int64)
  codes = {word: code(word) for word in set(words)}
  for word, number in codes.items():
    if number is None:
      raise errors.DataError(
          f"the attribute {name} has the value {escaping.quoted(word)}; expected one that "
          "`graphs.to_dags` writes; import the traces again")
  return np.array([codes[word] for word in words], np.int64)


def _numbers(words: list[str] | None, name: str, known: dict[str, int], count: int, missing: int
             ) -> tuple[np.ndarray, int]:
  if words is None:
    return np.full([count], missing, np.int64), 0
  numbers: dict[str, int] = {}
  guessed: set[str] = set()
  for word in set(words):
    found = (missing, True) if word == graphs.NONE else buckets.number(word, known)
    if found is None or not MISSING <= found[0] <= 2 ** 63 - 1:
      raise errors.DataError(
          f"the attribute {name} has the value {escaping.quoted(word)}; expected a bucket such "
          f"as '12-15', '0' or {graphs.NONE!r}; import the traces again")
    numbers[word] = found[0]
    if not found[1]:
      guessed.add(word)
  return (np.array([numbers[word] for word in words], np.int64),
          sum(word in guessed for word in words))


def _apply(costs: costs_lib.Costs, words: dict[str, list[str]], columns: dict[str, np.ndarray]
           ) -> None:
  costs_lib.check(dataclasses.replace(costs, fields={}), words)
  for index, word in enumerate(words[costs.attribute]):
    for field, number in costs.fields.get(word, {}).items():
      columns[field][index] = number
