"""What a trace holds and what is wrong with it, for a first look."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import tables
from tpugraphs_rank.chakra import attributes
from tpugraphs_rank.chakra import decoding
from tpugraphs_rank.chakra import node_kinds
from tpugraphs_rank.chakra import trace_graph
from tpugraphs_rank.chakra import traces

_SHOWN_OPERATORS = 12
_SHOWN_TEXT = 60

# How often attributes occur, by name and kind; the kind None is unknown.
Kinds = Mapping[tuple[str, str | None], int]


def summarize(trace: traces.Trace, source: str) -> dict[str, Any]:
  """The numbers of a trace, and its faults; a trace with faults is described as far as possible.

  Args:
    trace: of one rank.
    source: its name in messages.

  Returns:
    A value for JSON. `faults` lists what keeps the trace from being imported or simulated.
  """
  kinds = collections.Counter(
      (attribute.name, attributes.kind(attribute)) for node in trace.nodes
      for attribute in node.attr)
  result: dict[str, Any] = {
      "source": source, "version": trace.metadata.version,
      "metadata": {attribute.name: _plain(attributes.value(attribute))
                   for attribute in trace.metadata.attr},
      "nodes": len(trace.nodes),
      "types": _counts(node_kinds.type_name(node.type) for node in trace.nodes),
      "attributes": _attributes(kinds),
      "start_times": sum(node.start_time_micros > 0 for node in trace.nodes)}
  faults = _wrong_kinds(kinds)
  for name, control in (("data", False), ("data and control", True)):
    if control and not any(node.ctrl_deps for node in trace.nodes):
      continue
    try:
      graph = trace_graph.from_trace(trace, source, control)
    except errors.DataError as error:
      problem = str(error).removeprefix(f"{source}: ")
      if not control:
        faults.append(problem)
      result[f"{name} dependencies"] = {
          "fault": problem.removeprefix(f"{name} dependencies have ")}
      continue
    report = graph.report
    result[f"{name} dependencies"] = {
        "stated": report.dependencies, "kept": report.edges, "self_loops": report.self_loops,
        "dangling": report.dangling, "duplicates": report.duplicates}
    if not control:
      result.update(_shape(graph))
      for unknown, what in (
          (decoding.unknown_types(graph), "nodes of unknown types"),
          (decoding.unknown_collectives(graph), "collectives of unknown kinds")):
        if unknown.any():
          faults.append(f"{what}: {int(unknown.sum()):,}; simulators do not know them; export "
                        "refuses them unless --costs gives another kind")
      if result["zero_cost"]:
        faults.append(f"nodes that cost nothing: {result['zero_cost']:,}; simulators hang on them "
                      "or compute wrong times; export fuses them")
  result["faults"] = faults
  return result


def text(summary: dict[str, Any]) -> str:
  """A summary as lines for a terminal."""
  lines = [f"{escaping.printable(summary['source'])}: "
           f"{tables.counted(summary['nodes'], 'node')}, version "
           f"{escaping.shown(summary['version']) or 'not stated'}"]
  for name, value in summary["metadata"].items():
    lines.append(f"  {escaping.shown(name)}: {escaping.shown(str(value), _SHOWN_TEXT)}")
  lines += ["", _table(("type", "nodes"), summary["types"].items())]
  if "operators" in summary:
    shown = list(summary["operators"].items())
    lines.append(_table(("operator", "nodes"), shown[:_SHOWN_OPERATORS]))
    if len(shown) > _SHOWN_OPERATORS:
      lines[-1] += f"... and {len(shown) - _SHOWN_OPERATORS} more operators\n"
  if summary["attributes"]:
    lines.append(_table(("attribute", "kind", "nodes"), [
        (name, kind, count) for name, kinds in summary["attributes"].items()
        for kind, count in kinds.items()], "llr"))
  for name in ("data", "data and control"):
    found = summary.get(f"{name} dependencies")
    if found is None:
      continue
    lines.append(f"{name} dependencies: " + (escaping.printable(found.get("fault", "")) or (
        f"{found['stated']:,}, of which {found['kept']:,} are usable "
        f"({found['self_loops']:,} of a node to itself, {found['dangling']:,} on missing nodes, "
        f"{found['duplicates']:,} repeated)")))
  if "depth" in summary:
    lines += [
        f"depth: {summary['depth']:,} levels of up to {summary['width']:,} nodes",
        f"total duration: {summary['total_duration_micros']:,} us, of which "
        f"{summary['critical_path_micros']:,} us are on the longest path",
        f"total operations: {summary['total_operations']:,}, total bytes: "
        f"{summary['total_bytes']:,}"]
  lines += [f"fault: {escaping.printable(fault)}" for fault in summary["faults"]] or ["no faults"]
  return "\n".join(lines)


def critical_path(graph: trace_graph.TraceGraph, weights: np.ndarray) -> int:
  """The largest sum of weights of the nodes on one path.

  Args:
    graph: an acyclic graph of n nodes.
    weights: (n,) int, at least 0.
  """
  ends = weights.astype(np.int64).tolist()
  order = np.argsort(graph.levels[graph.edges[:, 0]], kind="stable")
  longest: dict[int, int] = {}
  # By level of the consumer: whatever it waits for has its final value.
  for consumer, producer in graph.edges[order].tolist():
    reached = longest.get(producer, 0) + ends[producer]
    if reached > longest.get(consumer, 0):
      longest[consumer] = reached
  return max(longest.get(node, 0) + end for node, end in enumerate(ends))


def _shape(graph: trace_graph.TraceGraph) -> dict[str, Any]:
  return {
      "operators": _counts(graph.operators),
      "depth": int(graph.levels.max()) + 1,
      "width": int(np.bincount(graph.levels).max()),
      "total_duration_micros": sum(graph.duration.tolist()),
      "critical_path_micros": critical_path(graph, graph.duration),
      "total_operations": sum(number for number in graph.operations.tolist() if number > 0),
      "total_bytes": sum(number for number in graph.size.tolist() if number > 0),
      "zero_cost": int(decoding.unusable(graph).sum())}


def _attributes(kinds: Kinds) -> dict[str, dict[str, int]]:
  """For each attribute of nodes the kinds that occur, and how often."""
  counts = {(name, kind or "unknown"): count for (name, kind), count in kinds.items()}
  result: dict[str, dict[str, int]] = {}
  for (name, kind), count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
    result.setdefault(name, {})[kind] = count
  return result


def _wrong_kinds(kinds: Kinds) -> list[str]:
  counts = {(name, kind): count for (name, kind), count in kinds.items()
            if name in attributes.SIMULATOR_KINDS and kind != attributes.SIMULATOR_KINDS[name]}
  return [f"{name} is {kind or 'of an unknown kind'} (nodes: {count:,}); simulators read "
          f"{attributes.SIMULATOR_KINDS[name]} only; export writes that kind"
          for (name, kind), count in sorted(counts.items(), key=str)]


def _counts(words: Any) -> dict[str, int]:
  return dict(sorted(collections.Counter(words).items(), key=lambda item: (-item[1], item[0])))


def _plain(value: Any) -> Any:
  return value if isinstance(value, (bool, int, str)) or value is None else str(value)


def _table(header: Sequence[str], rows: Any, align: str | None = None) -> str:
  return tables.text(header, [
      [escaping.shown(str(cell), _SHOWN_TEXT) if isinstance(cell, str) else f"{cell:,}"
       for cell in row] for row in rows], align)
