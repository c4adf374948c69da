"""Graphs of `synthesis.dags` as traces that simulators run, one for each rank.

Numbers come from the categories of the nodes (the numbers of the buckets that the data set stores)
or from costs that the user gives; nothing else is filled in. Two graphs of one workload are its
ranks; other graphs run on every rank alike. A lone graph of a later rank than 0 gets a warning.

The zero-cost rule. Simulators hang on nodes without cost, or divide by zero. A node costs nothing

  compute        if it has no duration and lacks operations or bytes
  memory         if it has no bytes
  communication  if it has no bytes and is no barrier; on the host (`is_cpu_op`) it is compute
  other types    (INVALID, METADATA) always

Such a node is fused by default: what waited for it waits for what it waited for.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
import dataclasses
import itertools
import logging
import shutil

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import tables
from tpugraphs_rank.chakra import attributes
from tpugraphs_rank.chakra import costs as costs_lib
from tpugraphs_rank.chakra import decoding
from tpugraphs_rank.chakra import node_kinds
from tpugraphs_rank.chakra import operators
from tpugraphs_rank.chakra import ranks as ranks_lib
from tpugraphs_rank.chakra import trace_folders
from tpugraphs_rank.chakra import traces
from tpugraphs_rank.synthesis.dags import dags

ZERO_COST = ("fuse", "refuse", "keep")
MAX_RANKS = 65_536
_SHOWN = 3

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Settings:
  """How graphs become traces.

  Attributes:
    ranks: number of ranks that run each graph; None: the graphs of a workload are its ranks, and a
      graph alone runs on one.
    zero_cost: what happens to nodes without cost: "fuse", "refuse" (an error), or "keep": the
      trace is what the graph states, for reading it again rather than for simulators.
    costs: costs that the user gives.
    dims: number of network dimensions that a collective spans if its group does not say.
    hide_names: write node types instead of the names of operators.
  """

  ranks: int | None = None
  zero_cost: str = "fuse"
  costs: costs_lib.Costs | None = None
  dims: int = 1
  hide_names: bool = False

  def __post_init__(self):
    if self.ranks is not None and not 1 <= self.ranks <= MAX_RANKS:
      raise errors.ConfigError(f"ranks is {self.ranks}; expected 1 to {MAX_RANKS:,}")
    if self.zero_cost not in ZERO_COST:
      raise errors.ConfigError(
          f"zero_cost is {self.zero_cost!r}; expected one of: {', '.join(ZERO_COST)}")
    if not 1 <= self.dims <= 64:
      raise errors.ConfigError(f"dims is {self.dims}; expected 1 to 64")


@dataclasses.dataclass
class Report:
  """Counts over the distinct graphs of an export.

  Attributes:
    graphs: number of graphs.
    files: number of traces.
    nodes: nodes that the traces of these graphs have, each graph counted once.
    fused: nodes without cost that were removed.
    fused_communication: those of them that are communication without bytes.
    midpoints: numbers that are the middle of a bucket, because the data set lacks its number.
    undefined_device: nodes that do not state their device; written as nodes of the device.
    durations_only: compute nodes with a duration but without operations or bytes.
    operations_only: compute nodes with operations and bytes but without a duration.
    lone_collectives: collectives in workloads of one rank.
  """

  graphs: int = 0
  files: int = 0
  nodes: int = 0
  fused: int = 0
  fused_communication: int = 0
  midpoints: int = 0
  undefined_device: int = 0
  durations_only: int = 0
  operations_only: int = 0
  lone_collectives: int = 0

  def __str__(self) -> str:
    lines = [f"graphs: {self.graphs:,}, with {tables.counted(self.nodes, 'node')}; traces: "
             f"{self.files:,}"]
    for count, noun, text in (
        (self.fused, "node", "without cost, fused: what waited for such a node waits for what it "
                             "waited for (--costs gives costs)"),
        (self.fused_communication, "", "of these, communication that does not state its bytes"),
        (self.midpoints, "number", "from the middle of a bucket, whose own number is not stored"),
        (self.undefined_device, "node", "without a stated device, written as on the device"),
        (self.durations_only, "compute node", "with a duration but not both operations and bytes: "
                                              "a simulator must replay durations"),
        (self.operations_only, "compute node", "with operations and bytes but no duration: a "
                                               "simulator must compute it (roofline)"),
        (self.lone_collectives, "collective", "on a single rank: --ranks sets the number of "
                                              "ranks")):
      if count:
        lines.append(f"{tables.counted(count, noun) if noun else f'{count:,}'} {text}")
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True, eq=False)
class Workload:
  """What the ranks of one workload run.

  Attributes:
    name: a name for files.
    nodes: of each rank.
    ends: of each rank the ends of its sends and receives, by position of the node.
    groups: new name and ranks of each process group that is not all ranks, by its name in the
      graphs.
    settings: of the export.
  """

  name: str
  nodes: Sequence[decoding.Nodes]
  ends: Sequence[Mapping[int, ranks_lib.Endpoint]]
  groups: Mapping[str, tuple[str, tuple[int, ...]]]
  settings: Settings

  def trace(self, rank: int) -> traces.Trace:
    """The trace of one rank."""
    result = _trace(self.nodes[rank], self.ends[rank], self.groups, self.settings)
    if self.groups:
      attributes.put(result.metadata, ranks_lib.GROUPS,
                     ranks_lib.groups_text(dict(self.groups.values())))
    return result

  @property
  def traces(self) -> list[traces.Trace]:
    """The traces of all ranks, each a separate object."""
    return [self.trace(rank) for rank in range(len(self.nodes))]


def to_workloads(several: dags.Dags, settings: Settings = Settings(), report: Report | None = None
                 ) -> Iterator[Workload]:
  """The workloads of a data set, one after another.

  Args:
    several: the graphs.
    settings: how to write them.
    report: counts to add to.

  Raises:
    DataError: a graph violates a rule: an unknown value, no costs, or communication of the ranks
      that does not match; the message names the graph. Or the costs name an unknown value.
    LimitError: fusing gives too many dependencies.
  """
  report = Report() if report is None else report
  if settings.costs is not None:
    costs_lib.check(settings.costs, vocabularies(several))
  for name, members in _workloads(several, settings).items():
    repeated = settings.ranks or 1 if len(members) == 1 else 1
    parts = [_prepared(several, graph, name, settings, report) for graph in members]
    every_rank = parts * repeated if len(parts) == 1 else parts
    ends: list[dict[int, ranks_lib.Endpoint]] = [{} for _ in every_rank]
    groups: dict[str, tuple[str, tuple[int, ...]]] = {}
    if settings.zero_cost != "keep":
      if len(parts) > 1:
        ranks_lib.check_collectives(every_rank, name)
      ends = ranks_lib.endpoints(every_rank, len(parts) == 1, name)
      groups = ranks_lib.process_groups(every_rank, len(parts) == 1)
      if len(every_rank) == 1:
        report.lone_collectives += int((decoding.on_network(parts[0])).sum())
    report.graphs += len(parts)
    report.files += len(every_rank)
    report.nodes += sum(map(len, parts))
    yield Workload(name, every_rank, ends, groups, settings)


def vocabularies(several: dags.Dags) -> dict[str, list[str]]:
  """For each attribute the values that its vocabulary lists."""
  return {name: words.astype(str).tolist()
          for name, words in zip(several.x_names, several.vocabularies)}


def without_cost(several: dags.Dags, costs: costs_lib.Costs | None = None
                 ) -> Iterator[tuple[decoding.Nodes, np.ndarray]]:
  """For each graph its nodes, and (n,) bool: those that cost nothing.

  Raises:
    DataError: a graph has a value, a type of node or a collective that cannot be exported.
  """
  for graph in range(len(several)):
    nodes = decoding.decode(several, graph, costs)
    _check_kinds(nodes, f"graph {graph}", "leave such traces out")
    yield nodes, decoding.unusable(nodes)


def write(folder: files.PathLike, several: dags.Dags, settings: Settings = Settings(),
          compress: bool = False, form: str = "et") -> Report:
  """Writes the traces of a data set as `<folder>/<workload>.<rank>.et`; all of them, or none.

  Args:
    folder: without traces so far; it is created if necessary.
    several: the graphs.
    settings: how to write them.
    compress: compress the files with gzip, which the reference tools also read.
    form: "et", or "json" for the form of the reference jsonizer.

  Raises:
    DataError, LimitError: as `to_workloads`.
    OutputError: the folder has traces already, or cannot be written.
  """
  report = Report()
  with trace_folders.staged(folder) as staging:
    for workload in to_workloads(several, settings, report):
      path_of = [staging / f"{workload.name}.{rank}.{form}" for rank in range(len(workload.nodes))]
      for rank, nodes in enumerate(workload.nodes):
        # Ranks of the same nodes without messages of their own have equal traces.
        if rank and not workload.ends[rank] and nodes is workload.nodes[rank - 1]:
          shutil.copyfile(path_of[rank - 1], path_of[rank])
        else:
          traces.write(path_of[rank], workload.trace(rank), compress)
      if workload.groups:
        files.write_text(staging / f"{workload.name}.{ranks_lib.GROUPS}",
                         ranks_lib.groups_text(dict(workload.groups.values())))
  return report


def _workloads(several: dags.Dags, settings: Settings) -> dict[str, list[int]]:
  """For each workload, by a unique name, its graphs in the order of their ranks."""
  names = several.provenance.get("workloads")
  names = names if isinstance(names, list) else []
  labelled = {"workload", "rank"} <= set(several.y_names)
  groups: dict[str, list[int]] = {}
  if labelled:
    indices = several.label("workload").astype(np.int64).tolist()
    for graph, index in enumerate(indices):
      name = names[index] if 0 <= index < len(names) else "graph"
      groups.setdefault(f"{index}\n{name}", []).append(graph)
  else:
    groups = {f"{graph}\ngraph_{graph:04d}": [graph] for graph in range(len(several))}
  result: dict[str, list[int]] = {}
  numbers: dict[str, int] = {}
  alone = []
  for key, members in groups.items():
    base = file_name(key.partition("\n")[2])
    rank_of = dict(zip(members, several.label("rank")[members].astype(np.int64).tolist())
                   ) if labelled else dict.fromkeys(members, -1)
    distinct = len(set(rank_of.values())) == len(members) > 1
    if distinct and settings.ranks is None:
      _check_ranks(base, rank_of.values())
      result[unique(base, result, numbers)] = sorted(members, key=rank_of.__getitem__)
      continue
    if len(members) == 1 and rank_of[members[0]] > 0 and settings.ranks is None:
      alone.append(f"{base} has rank {rank_of[members[0]]} only")
    for number, graph in enumerate(members):
      part = base if len(members) == 1 else (
          f"{base}_rank{rank_of[graph]}" if distinct else f"{base}_{number}")
      result[unique(part, result, numbers)] = [graph]
  if alone:
    more = f", and {len(alone) - _SHOWN:,} more like this" if len(alone) > _SHOWN else ""
    _logger.warning(
        "%s%s; written as rank 0 of 1; import the traces of all ranks, or set the number of ranks "
        "that run such a graph (--ranks)", ", ".join(alone[:_SHOWN]), more)
  return result


def _check_ranks(name: str, ranks: Collection[int]) -> None:
  """Raises DataError if a rank is missing, or unknown (-1)."""
  known = set(ranks)
  expected = range(max(known) + 1)
  missing = list(itertools.islice((rank for rank in expected if rank not in known), _SHOWN + 1))
  if missing or min(known) < 0:
    shown = ", ".join([*map(str, missing[:_SHOWN]), "..."][:len(missing)]) or "none"
    raise errors.DataError(
        f"{name}: the graphs are those of ranks {sorted(known)}; missing: {shown}; expected ranks "
        f"0 to {max(known)}; import the traces of all ranks, also those that were skipped, or run "
        "each graph on every rank (--ranks)")


def file_name(text: str) -> str:
  """A text as a name of a file: letters, digits, ".", "-" and "_", at most 100."""
  safe = "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "_"
                 for char in text)[:100].strip(".")
  return safe or "graph"


def unique(name: str, taken: Collection[str], numbers: dict[str, int]) -> str:
  """A name that is not taken: this one, or with the first number from 2 that is free.

  Args:
    name: wanted.
    taken: those of earlier calls.
    numbers: for names of earlier calls the last number that was tried; it is changed.
  """
  result, number = name, numbers.get(name, 1)
  while result in taken:
    number += 1
    result = f"{name}_{number}"
  numbers[name] = number
  return result


def _prepared(several: dags.Dags, graph: int, name: str, settings: Settings, report: Report
              ) -> decoding.Nodes:
  """The nodes of a graph after the zero-cost rule."""
  try:
    nodes = decoding.decode(several, graph, settings.costs)
  except errors.DataError as error:
    raise errors.DataError(f"graph {graph} ({name}): {error}") from None
  report.midpoints += nodes.midpoints
  if settings.zero_cost == "keep":
    return nodes
  source = f"graph {graph} ({name})"
  _check_kinds(nodes, source, "write the graph as it is (--zero_cost keep)")
  removed = decoding.unusable(nodes)
  if removed.any():
    if settings.zero_cost == "refuse":
      first = np.flatnonzero(removed)[:3].tolist()
      shown = ", ".join(
          f"{escaping.shown(nodes.names[index])} ({node_kinds.type_name(int(nodes.types[index]))})"
          for index in first)
      raise errors.DataError(
          f"{source}: {int(removed.sum()):,} of {len(nodes):,} nodes cost nothing, among them "
          f"{shown}; expected a duration, or operations and bytes; give costs in a file (--costs), "
          "or fuse them (--zero_cost fuse)")
    report.fused += int(removed.sum())
    report.fused_communication += int((removed & decoding.on_network(nodes)).sum())
    nodes = decoding.fuse(nodes, removed, source)
  compute = nodes.types == node_kinds.COMP
  rated = (nodes.operations > 0) & (nodes.size > 0)
  report.undefined_device += int((nodes.device == decoding.MISSING).sum())
  report.durations_only += int((compute & (nodes.duration > 0) & ~rated).sum())
  report.operations_only += int((compute & rated & (nodes.duration <= 0)).sum())
  return nodes


def _check_kinds(nodes: decoding.Nodes, source: str, alternative: str) -> None:
  """Raises DataError for types and collectives that simulators do not know."""
  unknown = np.flatnonzero(decoding.unknown_types(nodes))
  if len(unknown):
    raise errors.DataError(
        f"{source}: {len(unknown):,} nodes have types that simulators do not know, such as "
        f"{node_kinds.type_name(int(nodes.types[unknown[0]]))}; give their type in a file "
        f"(--costs), or {alternative}")
  foreign = np.flatnonzero(decoding.unknown_collectives(nodes))
  if len(foreign):
    raise errors.DataError(
        f"{source}: {len(foreign):,} collectives are of kinds that simulators do not know, such as "
        f"{node_kinds.collective_name(int(nodes.collective[foreign[0]]))}; give their comm_type in "
        f"a file (--costs), or {alternative}")
  vague = np.flatnonzero(decoding.on_network(nodes) & (nodes.types == node_kinds.COMM_COLL)
                         & (nodes.collective == decoding.MISSING) & (nodes.size > 0))
  if len(vague):
    raise errors.DataError(
        f"{source}: {len(vague):,} collectives do not state their kind, such as "
        f"{escaping.shown(nodes.names[vague[0]])}; give their comm_type in a file (--costs), "
        f"import the traces with the attribute collective, or {alternative}")


def _trace(nodes: decoding.Nodes, ends: Mapping[int, ranks_lib.Endpoint],
           groups: Mapping[str, tuple[str, tuple[int, ...]]], settings: Settings) -> traces.Trace:
  result = traces.Trace()
  keep = settings.zero_cost == "keep"
  network = decoding.on_network(nodes)
  columns = zip(nodes.names, nodes.types.tolist(), nodes.device.tolist(), nodes.duration.tolist(),
                nodes.operations.tolist(), nodes.size.tolist(), nodes.collective.tolist(),
                nodes.group, nodes.producers)
  for index, (name, kind, device, duration, operations, size, collective, group, producers
              ) in enumerate(columns):
    shown = f"{node_kinds.type_name(kind)}_{index}" if settings.hide_names else name
    node = traces.Node(id=index, name=shown, type=kind, duration_micros=duration,
                       data_deps=producers)
    if device != decoding.MISSING or not keep:
      attributes.put(node, "is_cpu_op", device == 1)
    if operations >= 0:
      attributes.put(node, "num_ops", operations)
    communicates = kind in node_kinds.COMMUNICATION
    if size >= 0:
      attributes.put(node, "comm_size" if communicates else "tensor_size", size)
    if collective >= 0:
      attributes.put(node, "comm_type", collective)
    if communicates:
      _put_group(node, group, settings.dims if network[index] and not keep else 0)
      named = ranks_lib.pool(group) if keep else groups.get(ranks_lib.pool(group), ("", ()))[0]
      if named:
        attributes.put(node, "pg_name", named)
      if index in ends:
        end = ends[index]
        for key, number in (("comm_src", end.source), ("comm_dst", end.target),
                            ("comm_tag", end.tag)):
          attributes.put(node, key, number)
    if not settings.hide_names:
      attributes.put(node, operators.ATTRIBUTE, name)
    result.nodes.append(node)
  return result


def _put_group(node: traces.Node, group: str, dims: int) -> None:
  """Writes the dimensions and ranks of a node's communication."""
  stated = ranks_lib.involved(group)
  if stated is None and dims and node.type == node_kinds.COMM_COLL:
    stated = [True] * dims
  if stated is not None:
    attributes.put(node, "involved_dim", stated)
  offset = ranks_lib.peer(group)
  if offset is not None and node.type != node_kinds.COMM_COLL:
    # The ranks are not known here; only their difference is.
    attributes.put(node, "comm_src", max(-offset, 0))
    attributes.put(node, "comm_dst", max(offset, 0))
