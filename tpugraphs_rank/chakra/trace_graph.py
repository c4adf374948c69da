"""A trace as a checked graph: numbers of each node, and its dependencies without faults."""

import array
from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import tables
from tpugraphs_rank.chakra import attributes
from tpugraphs_rank.chakra import node_kinds
from tpugraphs_rank.chakra import operators
from tpugraphs_rank.chakra import reduction
from tpugraphs_rank.chakra import traces
from tpugraphs_rank.data import segments

# Of a number that a node lacks.
MISSING = -1
_LARGEST = 2 ** 63 - 1
_SHOWN = 12
# The attributes of nodes that matter here.
_READ = frozenset({"is_cpu_op", "num_ops", "comm_size", "tensor_size", "comm_type", "involved_dim",
                   "pg_name", "comm_src", "comm_dst", operators.ATTRIBUTE})


@dataclasses.dataclass
class Report:
  """What a trace holds, and what its import left out.

  Attributes:
    source: name of the trace.
    nodes: number of nodes.
    dependencies: references that the nodes state, data and (if asked for) control together.
    edges: dependencies that remain.
    self_loops: references of a node to itself, dropped.
    dangling: references to ids that no node of the trace has, dropped.
    duplicates: repeated references of one node, dropped.
    implied: dependencies that the transitive reduction dropped.
    unknown_types: nodes whose type this schema lacks; they are kept.
    unknown_kinds: attributes whose kind this schema lacks; import does not read them.
    unusable: numbers of nodes that are negative or above 2^63 - 1; they count as missing.
  """

  source: str
  nodes: int = 0
  dependencies: int = 0
  edges: int = 0
  self_loops: int = 0
  dangling: int = 0
  duplicates: int = 0
  implied: int = 0
  unknown_types: int = 0
  unknown_kinds: int = 0
  unusable: int = 0

  def __str__(self) -> str:
    text = (f"{escaping.printable(self.source)}: {tables.counted(self.nodes, 'node')}, "
            f"{self.edges:,} of {self.dependencies:,} dependencies")
    counts = (
        (self.self_loops, "of a node to itself"), (self.dangling, "on missing nodes"),
        (self.duplicates, "repeated"), (self.implied, "implied by others"))
    dropped = [f"{count:,} {what}" for count, what in counts if count]
    if dropped:
      text += f" (dropped: {', '.join(dropped)})"
    for count, what in ((self.unknown_types, "nodes of unknown types, kept"),
                        (self.unknown_kinds, "attributes of unknown kinds, not read"),
                        (self.unusable, "negative or too large numbers, treated as missing")):
      if count:
        text += f"; {what}: {count:,}"
    return text


@dataclasses.dataclass(frozen=True, eq=False)
class TraceGraph:
  """The nodes of one trace, in the order of the file, and their dependencies.

  Attributes:
    ids: (n,) uint64 ids in the file.
    types: (n,) int64 node types.
    operators: (n,) operator classes.
    device: (n,) int64; 1 for an operation of the host (`is_cpu_op`), 0 of the device, -1 if the
      trace does not say.
    duration: (n,) int64 microseconds; 0 if not measured.
    operations: (n,) int64 arithmetic operations (`num_ops`), -1 if missing.
    size: (n,) int64 bytes: `comm_size` of communication, else `tensor_size`; -1 if missing.
    collective: (n,) int64 kinds of collectives (`comm_type`), -1 for other nodes.
    group: (n,) what takes part in communication, such as "dims=110" (`involved_dim`), "pg=3"
      (`pg_name`) or "peer=+1" (`comm_dst` - `comm_src`), joined by ";"; "" if the trace does not
      say.
    edges: (m, 2) int64 [consumer, producer], as positions of nodes; each edge once, acyclic.
    levels: (n,) int64 longest path from a node without dependencies.
    report: what was dropped.
  """

  ids: np.ndarray
  types: np.ndarray
  operators: tuple[str, ...]
  device: np.ndarray
  duration: np.ndarray
  operations: np.ndarray
  size: np.ndarray
  collective: np.ndarray
  group: tuple[str, ...]
  edges: np.ndarray
  levels: np.ndarray
  report: Report


def from_trace(trace: traces.Trace, source: str, control: bool = False,
               reduced: bool = False) -> TraceGraph:
  """Reads the graph of a trace.

  Args:
    trace: one rank's trace.
    source: its name in messages.
    control: also take the control dependencies.
    reduced: drop dependencies that others imply.

  Raises:
    DataError: the trace has no nodes, two nodes have the same id, or the dependencies have a
      cycle; the message names the ids.
    LimitError: the transitive reduction takes too much memory.
  """
  if not trace.nodes:
    raise errors.DataError(
        f"{source} has metadata but no nodes; expected at least one; the file may be cut off: copy "
        "or write it again")
  ids = [node.id for node in trace.nodes]
  index_of: dict[int, int] = {}
  for index, identifier in enumerate(ids):
    if index_of.setdefault(identifier, index) != index:
      raise errors.DataError(
          f"{source}: nodes {index_of[identifier]} and {index} in the file's order have the same "
          f"id {identifier}; expected unique ids; write the trace again")
  report = Report(source, len(ids))
  edges = _edges(trace.nodes, index_of, control, report)
  # Numbered from the producers to the consumers.
  levels = segments.levels(edges, len(ids))
  _check_acyclic(edges, levels, ids, source, control)
  if reduced:
    rows = reduction.reduce(edges, levels, source)
    report.implied = len(edges) - len(rows)
    edges = edges[rows]
  report.edges = len(edges)
  # A single pass, because every look at a message costs time.
  types, classes, device, duration, operations, size, collective, group = zip(*(
      _row(node, report) for node in trace.nodes))
  numbers = lambda column: np.array(column, np.int64)
  return TraceGraph(
      np.array(ids, np.uint64), numbers(types), classes, numbers(device), numbers(duration),
      numbers(operations), numbers(size), numbers(collective), group, edges, levels, report)


def _row(node: traces.Node, report: Report) -> tuple[int, str, int, int, int, int, int, str]:
  """A node's entries in a `TraceGraph`: from `types` to `group`, without the ids."""
  stated: dict[str, Any] = {}
  for attribute in node.attr:
    kind = attributes.kind(attribute)
    report.unknown_kinds += kind is None
    name = attribute.name
    if name in _READ:
      stated[name] = attributes.value(attribute)
  number = lambda name: attributes.as_number(stated.get(name))
  kind_of_node = node.type
  report.unknown_types += kind_of_node not in node_kinds.TYPES
  size = number("comm_size") if kind_of_node in node_kinds.COMMUNICATION else None
  collective = _usable(number("comm_type"), report)
  return (
      kind_of_node, operators.class_of(node, stated.get(operators.ATTRIBUTE, "")),
      min(_usable(number("is_cpu_op"), report), 1),
      max(_usable(node.duration_micros, report), 0), _usable(number("num_ops"), report),
      _usable(number("tensor_size") if size is None else size, report),
      collective if kind_of_node == node_kinds.COMM_COLL else MISSING, _group(kind_of_node, stated))


def group_of(node: traces.Node) -> str:
  """Who takes part in a node's communication; see `TraceGraph.group`."""
  return _group(node.type, {name: attributes.get(node, name) for name in _READ})


def _group(kind: int, stated: Mapping[str, Any]) -> str:
  if kind not in node_kinds.COMMUNICATION:
    return ""
  parts = []
  dims = stated.get("involved_dim")
  if isinstance(dims, list) and dims:
    parts.append("dims=" + "".join("1" if used else "0" for used in dims[:64]))
  name = stated.get("pg_name")
  if isinstance(name, str) and name:
    parts.append("pg=" + operators.printable(name).replace(";", ","))
  source, target = (attributes.as_number(stated.get(key)) for key in ("comm_src", "comm_dst"))
  if kind != node_kinds.COMM_COLL and source is not None and target is not None:
    parts.append(f"peer={target - source:+d}")
  return ";".join(parts)


def _edges(nodes: Sequence[traces.Node], index_of: dict[int, int], control: bool,
           report: Report) -> np.ndarray:
  counts = np.zeros([len(nodes)], np.int64)
  producers = array.array("q")
  for index, node in enumerate(nodes):
    stated = [*node.data_deps, *node.ctrl_deps] if control else node.data_deps
    if not stated:
      continue
    distinct = set(stated)
    report.dependencies += len(stated)
    report.duplicates += len(stated) - len(distinct)
    if node.id in distinct:
      distinct.remove(node.id)
      report.self_loops += 1
    present = [index_of[other] for other in distinct if other in index_of]
    report.dangling += len(distinct) - len(present)
    producers.extend(sorted(present))
    counts[index] = len(present)
  return np.stack([np.repeat(np.arange(len(nodes)), counts),
                   np.frombuffer(producers, np.int64) if producers else np.zeros([0], np.int64)],
                  axis=1)


def _check_acyclic(edges: np.ndarray, levels: np.ndarray, ids: Sequence[int], source: str,
                   control: bool) -> None:
  blocked = np.flatnonzero(levels[edges[:, 0]] <= levels[edges[:, 1]])
  if not len(blocked):
    return
  # Every node on or after a cycle has the last level, and depends on another such node.
  last = levels.max()
  waits_for: dict[int, int] = {}
  for consumer, producer in edges[(levels[edges] == last).all(1)].tolist():
    waits_for.setdefault(consumer, producer)
  node = int(edges[blocked[0], 0])
  seen: dict[int, int] = {}
  path: list[int] = []
  while node not in seen:
    seen[node] = len(path)
    path.append(node)
    node = waits_for[node]
  cycle = [str(ids[index]) for index in [*path[seen[node]:], node]]
  shown = cycle if len(cycle) <= _SHOWN else [*cycle[:_SHOWN - 1], "...", cycle[-1]]
  raise errors.DataError(
      f"{source}: {'data and control' if control else 'data'} dependencies have a cycle of "
      f"{len(cycle) - 1} nodes: {' -> '.join(shown)} (node -> what it waits for); expected an "
      "acyclic graph; " + ("import without control dependencies, or correct the trace" if control
                           else "remove one of these dependencies from the trace"))


def _usable(number: int | None, report: Report) -> int:
  if number is None:
    return MISSING
  if not 0 <= number <= _LARGEST:
    report.unusable += 1
    return MISSING
  return number
