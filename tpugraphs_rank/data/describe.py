"""Describes a collection: its content, its irregularities and its problems.

Graphs are read one at a time and only statistics are kept, so a collection can be larger than
memory.
"""

import collections as containers
from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np
import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import tables
from tpugraphs_rank import work
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import duplicates
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import headers
from tpugraphs_rank.data import quirks
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import twins
from tpugraphs_rank.hlo import opcodes
from tpugraphs_rank.metrics import competition

# A tile submission lists this many configurations per kernel.
TOP = competition.TILE_K
_EXAMPLES = 5
_TOO_FEW = "too few"
_UNREAD = "not read"


@dataclasses.dataclass(frozen=True)
class GraphFacts:
  """Statistics of a graph.

  Attributes:
    name: its name.
    stored_bytes: size of the file.
    unpacked_bytes: size of its arrays.
    dtypes: dtype of each array as stored, by npz key.
    nodes, edges, isolated_nodes, configurations: numbers of them.
    configurable_nodes: number of them; None for tiles.
    repeats: repeats of its configurations.
    runtimes: (minimum, maximum) in ns; None if there are none.
    spread: slowest relative runtime divided by the fastest; None without runtimes.
    normalizers: (minimum, maximum) of `config_runtime_normalizers` in ns; None without runtimes and
      for layouts.
    declared_padding: padding of feature lists as the file declares it; None: not declared.
    observed_padding: see `quirks.observed_padding`.
    opcode_counts: (128,) int64 nodes of each opcode id.
    structure: equal for structural twins (opcodes and edges).
    content: equal for twins that also have equal node features.
  """

  name: str
  stored_bytes: int
  unpacked_bytes: int
  dtypes: Mapping[str, str]
  nodes: int
  edges: int
  isolated_nodes: int
  configurations: int
  configurable_nodes: int | None
  repeats: duplicates.Repeats
  runtimes: tuple[int, int] | None
  spread: float | None
  normalizers: tuple[int, int] | None
  declared_padding: int | None
  observed_padding: int | None
  opcode_counts: np.ndarray
  structure: str
  content: str


def graph_facts(path: pathlib.Path, graph: graphs.ConfiguredGraph) -> GraphFacts:
  """The statistics of a graph that was read from a file.

  Raises:
    DataError: the file is damaged.
  """
  stored = headers.read_headers(path)
  runtimes, spread, normalizers = None, None, None
  if graph.has_runtimes:
    relative = graph.relative_runtime
    runtimes = int(graph.config_runtime.min()), int(graph.config_runtime.max())
    spread = float(relative.max() / relative.min())
    if isinstance(graph, graphs.TileGraph):
      values = graph.config_runtime_normalizers
      normalizers = int(values.min()), int(values.max())
  return GraphFacts(
      name=graph.name, stored_bytes=path.stat().st_size,
      unpacked_bytes=sum(math.prod(header.shape) * header.dtype.itemsize
                         for header in stored.values()),
      dtypes={key: header.dtype.name for key, header in stored.items()},
      nodes=graph.num_nodes, edges=len(graph.edge_index),
      isolated_nodes=quirks.isolated_nodes(graph), configurations=graph.num_configs,
      configurable_nodes=(len(graph.node_config_ids) if isinstance(graph, graphs.LayoutGraph)
                          else None),
      repeats=duplicates.count(graph.config_keys(), graph.relative_runtime),
      runtimes=runtimes, spread=spread, normalizers=normalizers,
      declared_padding=graph.feature_padding if "feature_padding" in stored else None,
      observed_padding=quirks.observed_padding(graph),
      opcode_counts=np.bincount(graph.node_opcode, minlength=graphs.NUM_OPCODES),
      structure=twins.graph_hash(graph.node_opcode, graph.edge_index),
      content=twins.graph_hash(graph.node_opcode, graph.edge_index, graph.node_feat))


class Problem(NamedTuple):
  """A problem of a split.

  Attributes:
    kind: "too few", "too many", "damaged", "not read" or "no runtimes".
    split: the split.
    text: description of the problem.
  """
  kind: str
  split: str
  text: str


@dataclasses.dataclass(frozen=True)
class SplitFacts:
  """Statistics of a split.

  Attributes:
    name: "train", "valid", "test" or "all".
    expected: number of graphs that it should have; None: unknown.
    has_runtimes: whether it should have runtimes; None: unknown.
    graphs: the graphs that could be read.
    damaged: the error of each file that could not be read.
    missing: listed files that do not exist, or the folder if it holds no graph.
    unread: why each file was not read that may be sound: its worker ran out of memory, or died.
  """

  name: str
  expected: int | None
  has_runtimes: bool | None
  graphs: tuple[GraphFacts, ...]
  damaged: Mapping[str, str]
  missing: tuple[str, ...]
  unread: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def files(self) -> int:
    """Number of existing files, including damaged ones."""
    return len(self.graphs) + len(self.damaged) + len(self.unread)

  @property
  def without_runtimes(self) -> list[str]:
    """Names of the graphs that should have runtimes but have none."""
    return [graph.name for graph in self.graphs if self.has_runtimes and graph.runtimes is None]

  @property
  def problems(self) -> list[Problem]:
    """The problems of the split."""
    problems: list[Problem] = []
    note = lambda kind, text: problems.append(Problem(kind, self.name, f"{self.name} {text}"))
    if self.expected is not None and self.files > self.expected:
      note("too many", f"has {self.files} graphs instead of {self.expected}")
    elif self.expected is not None and self.files < self.expected:
      note(_TOO_FEW, f"has {self.files} of {tables.counted(self.expected, 'graph')}")
    elif self.missing:
      note(_TOO_FEW, f"lacks {_first(self.missing)}")
    if self.damaged:
      note("damaged", f"has {tables.counted(len(self.damaged), 'damaged file')}")
    if self.unread:
      note(_UNREAD, f"has {tables.counted(len(self.unread), 'file')} that could not be read: "
           f"{_first(list(self.unread))}")
    if self.without_runtimes:
      note("no runtimes",
           f"has {tables.counted(len(self.without_runtimes), 'graph')} without runtimes: "
           f"{_first(self.without_runtimes)}")
    return problems

  def summary(self, list_size: int) -> dict[str, Any]:
    """The statistics of the split for JSON; see `Description.summary`."""
    several = lambda condition: [graph.name for graph in self.graphs if condition(graph)]
    count_by = lambda get: dict(containers.Counter(str(get(graph)) for graph in self.graphs))
    distinct = lambda graph: graph.repeats.distinct
    largest = max(self.graphs, key=lambda graph: graph.unpacked_bytes, default=None)
    return {
        "graphs": len(self.graphs), "expected": self.expected, "files": self.files,
        "missing": list(self.missing), "damaged": dict(self.damaged),
        "not_read": dict(self.unread),
        "samples": sum(graph.configurations for graph in self.graphs),
        "nodes": _range(graph.nodes for graph in self.graphs),
        "edges": _range(graph.edges for graph in self.graphs),
        "configurations": _range(graph.configurations for graph in self.graphs),
        "distinct_configurations": _range(map(distinct, self.graphs)),
        "configurable_nodes": _range(graph.configurable_nodes for graph in self.graphs),
        "runtimes": self._runtimes(),
        "duplicates": self._duplicates(),
        "one_distinct_configuration": several(lambda graph: distinct(graph) == 1),
        "equal_runtimes": several(lambda graph: graph.spread == 1 and distinct(graph) > 1),
        f"fewer_than_{TOP}_configurations": several(lambda graph: graph.configurations < TOP),
        "fewer_configurations_than_a_list": {
            "list_size": list_size,
            "graphs": several(lambda graph: graph.configurations < list_size)},
        "isolated_nodes": {
            "nodes": sum(graph.isolated_nodes for graph in self.graphs),
            "graphs": len(several(lambda graph: graph.isolated_nodes))},
        "stored_dtypes": self._dtypes(),
        "feature_padding": {"declared": count_by(lambda graph: graph.declared_padding),
                            "observed": count_by(lambda graph: graph.observed_padding)},
        "structures": len({graph.structure for graph in self.graphs}),
        "bytes": {
            "stored": sum(graph.stored_bytes for graph in self.graphs),
            "unpacked": sum(graph.unpacked_bytes for graph in self.graphs),
            "largest_unpacked": largest.unpacked_bytes if largest else 0,
            "largest": largest.name if largest else None}}

  def _runtimes(self) -> dict[str, Any]:
    runtimes = [graph.runtimes for graph in self.graphs if graph.runtimes is not None]
    normalizers = [graph.normalizers for graph in self.graphs if graph.normalizers is not None]
    return {
        "graphs": len(runtimes), "expected": self.has_runtimes, "without": self.without_runtimes,
        "least_ns": min((least for least, _ in runtimes), default=None),
        "greatest_ns": max((greatest for _, greatest in runtimes), default=None),
        "spread": _range(graph.spread for graph in self.graphs),
        "normalizers": None if not normalizers else {
            "least_ns": min(least for least, _ in normalizers),
            "greatest_ns": max(greatest for _, greatest in normalizers),
            "graphs_with_several": sum(least != greatest for least, greatest in normalizers)}}

  def _duplicates(self) -> dict[str, Any]:
    repeating = [graph for graph in self.graphs if graph.repeats.rows]
    freedom = sum(graph.repeats.freedom for graph in repeating)
    most = max(repeating, key=lambda graph: graph.repeats.largest, default=None)
    return {
        "graphs": len(repeating), "rows": sum(graph.repeats.rows for graph in repeating),
        "largest": most.repeats.largest if most else None,
        "largest_in": most.name if most else None,
        "relative_sd": (math.sqrt(sum(graph.repeats.squares for graph in repeating) / freedom)
                        if freedom else None)}

  def _dtypes(self) -> dict[str, dict[str, int]]:
    dtypes: dict[str, dict[str, int]] = {}
    for graph in self.graphs:
      for key, dtype in graph.dtypes.items():
        counts = dtypes.setdefault(key, {})
        counts[dtype] = counts.get(dtype, 0) + 1
    return dtypes


def _first(names: Sequence[str]) -> str:
  return names[0] + (f" and {len(names) - 1:,} more" if len(names) > 1 else "")


def _range(values: Iterable[float | None]) -> dict[str, float] | None:
  """Minimum, median, maximum and total of the values that are not None; None without any."""
  known = [value for value in values if value is not None]
  if not known:
    return None
  return {"least": min(known), "median": float(np.median(known)), "greatest": max(known),
          "total": sum(known)}


@dataclasses.dataclass(frozen=True)
class Description:
  """The description of a collection.

  Attributes:
    collection: the collection.
    folder: the folder of its graphs.
    splits: the described splits.
    list_size: configurations of a full list.
    partial: whether missing graphs are no problem.
  """

  collection: registry.Collection
  folder: pathlib.Path
  splits: tuple[SplitFacts, ...]
  list_size: int
  partial: bool = False

  @property
  def problems(self) -> list[Problem]:
    """All problems; empty if there are none."""
    return [problem for split in self.splits for problem in split.problems
            if not self.partial or problem.kind != _TOO_FEW]

  @property
  def missing(self) -> list[str]:
    """One text for each split that lacks graphs."""
    return [problem.text for split in self.splits for problem in split.problems
            if problem.kind == _TOO_FEW]

  def remedies(self, data_root: files.PathLike | None = None) -> list[str]:
    """Steps that solve the problems, in this order.

    Args:
      data_root: the argument of `describe`.
    """
    faulty = lambda *kinds: ",".join(dict.fromkeys(
        problem.split for problem in self.problems if problem.kind in kinds))
    steps = []
    if faulty("too many"):
      steps.append(f"move the files that do not belong to {faulty('too many')} elsewhere")
    if faulty("damaged"):
      steps.append(f"move away the damaged files of {faulty('damaged')}")
    if faulty(_UNREAD):
      steps.append("describe it again with fewer workers (--direct_num_workers in --beam_args) or "
                   "without --runner, or with more memory for each worker")
    if faulty("no runtimes"):
      steps.append(f"move away the graphs without runtimes of {faulty('no runtimes')}" + (
          "" if self.collection.is_public else ", or set has_runtimes to false in the descriptor"))
    lacking = faulty(_TOO_FEW, "damaged", "no runtimes")
    if lacking:
      steps.append(self.collection.fetch_hint(lacking, data_root) + (
          "; or describe the graphs that exist: --partial" if faulty(_TOO_FEW) else ""))
    return steps

  def summary(self) -> dict[str, Any]:
    """All statistics, for JSON.

    Ranges are {"least", "median", "greatest", "total"} over graphs, or null. Each split has: graphs
    read, expected, files, missing files, damaged files with their errors, files "not_read" because
    memory ran out or a worker died, samples (total number of configurations), ranges, "runtimes"
    ("without": names of graphs that should have some),
    "duplicates" ("rows": configurations equal to an earlier one of their graph; "relative_sd":
    pooled standard deviation of the runtimes of equal configurations, divided by their mean), names
    of graphs with few configurations, nodes without edges, dtypes as stored, feature padding as
    declared and as observed ("None": not declared, or unclear), distinct structures, and bytes. The
    collection has: "opcodes", the opcodes that do not occur in training, "twins" of graphs in an
    earlier split, "missing" graphs, and "problems".
    """
    return {
        "collection": self.collection.name, "kind": self.collection.kind,
        "target": self.collection.target, "folder": str(self.folder),
        "splits": {split.name: split.summary(self.list_size) for split in self.splits},
        "opcodes": self._opcodes(), "opcodes_not_in_train": self._unseen_opcodes(),
        "twins": self._twins(), "missing": self.missing,
        "problems": [problem.text for problem in self.problems]}

  def _opcode_counts(self) -> dict[str, np.ndarray]:
    return {split.name: sum((graph.opcode_counts for graph in split.graphs),
                            np.zeros(graphs.NUM_OPCODES, np.int64)) for split in self.splits}

  def _opcodes(self) -> list[dict[str, Any]]:
    """Opcodes, the most frequent first."""
    by_split = self._opcode_counts()
    counts = sum(by_split.values(), np.zeros(graphs.NUM_OPCODES, np.int64))
    total = max(int(counts.sum()), 1)
    return [{"id": int(number), "name": opcodes.opcode_name(number), "nodes": int(counts[number]),
             "share": int(counts[number]) / total,
             "splits": {split: int(own[number]) for split, own in by_split.items()}}
            for number in np.argsort(-counts, kind="stable") if counts[number]]

  def _unseen_opcodes(self) -> dict[str, dict[str, int]] | None:
    """The opcodes of each other split that do not occur in training, with their node counts."""
    counts = self._opcode_counts()
    seen = counts.pop("train", None)
    if seen is None or not seen.any():
      return None
    return {split: {opcodes.opcode_name(number): int(own[number])
                    for number in np.flatnonzero((own > 0) & (seen == 0))}
            for split, own in counts.items()}

  def _twins(self) -> list[dict[str, Any]]:
    """Graphs of a split with a structural twin in an earlier split, so they are not unseen."""
    entries = []
    for place, later in enumerate(self.splits):
      for earlier in self.splits[:place]:
        known = {graph.structure: graph.name for graph in earlier.graphs}
        contents = {graph.content for graph in earlier.graphs}
        pairs = [(graph.name, known[graph.structure]) for graph in later.graphs
                 if graph.structure in known]
        entries.append({
            "of": later.name, "in": earlier.name, "graphs": len(pairs),
            "with_equal_features": sum(graph.content in contents for graph in later.graphs),
            "examples": [list(pair) for pair in pairs[:_EXAMPLES]]})
    return entries


def describe(name: str | registry.Collection, splits: Sequence[str] | None = None,
             data_root: files.PathLike | None = None, list_size: int = 32,
             partial: bool = False, engine: work.Engine = work.HERE) -> Description:
  """Reads every graph of a collection, one at a time. Damaged files are recorded and skipped.

  Args:
    name: a registered collection, the path of a JSON descriptor, or a `Collection`.
    splits: the splits to describe; None: all.
    data_root: as in `load_collection`.
    list_size: configurations of a full list in training.
    partial: whether missing graphs are no problem, as long as some exist.
    engine: where the graphs are read.

  Raises:
    UnknownNameError: no such collection or split.
    ConfigError: `splits` is empty.
    MissingDataError: no split exists; the message says which command downloads them.
    OutOfMemoryError: memory ran out in this process.
  """
  collection = registry.get_collection(name)
  chosen = list(collection.splits) if splits is None else list(dict.fromkeys(splits))
  if not chosen:
    raise errors.ConfigError(
        f"no splits of {collection.name} were requested; expected some of: "
        f"{', '.join(collection.splits)}")
  located = {split: collections.find_files(collection, split, data_root) for split in chosen}
  if not any(paths for paths, _ in located.values()):
    for split, (_, missing) in located.items():
      if missing:
        raise collections.missing_error(collection, split, missing[0], data_root)
  items = [(split, path) for split in chosen for path in located[split][0]]
  # Without the list of its files, which may be long, and each process receives the task.
  task = _Facts(dataclasses.replace(collection, files=None))
  outcomes = tqdm.tqdm(
      engine.map(task, items, lambda item: work.file_size(item[1])), total=len(items),
      unit="graph", desc=f"reading {collection.name}", disable=None)
  done = dict(zip(items, outcomes))
  facts = tuple(_split_facts(
      collection, split, [(path, done[split, path]) for path in located[split][0]],
      located[split][1]) for split in chosen)
  return Description(collection, collection.location(data_root), facts, list_size, partial)


@dataclasses.dataclass(frozen=True)
class _Facts(work.Task[tuple[str, pathlib.Path], GraphFacts]):
  """The statistics of a graph of a split, from the name of the split and the path of the graph."""

  collection: registry.Collection
  expected = (errors.TpuGraphsRankError,)

  def __call__(self, item: tuple[str, pathlib.Path]) -> GraphFacts:
    split, path = item
    return graph_facts(path, collections.Split(self.collection, split, [path])[0])


def _split_facts(collection: registry.Collection, split: str,
                 outcomes: Sequence[tuple[pathlib.Path, work.Outcome[GraphFacts]]],
                 missing: Sequence[pathlib.Path]) -> SplitFacts:
  read = tuple(outcome.value for _, outcome in outcomes if outcome.value is not None)
  damaged, unread = {}, {}
  for path, outcome in outcomes:
    if isinstance(outcome.error, (errors.OutOfMemoryError, errors.PipelineError)):
      unread[str(path)] = str(outcome.error)
    elif outcome.error is not None:
      damaged[str(path)] = str(outcome.error)
  return SplitFacts(split, collection.splits[split], collection.has_runtimes.get(split), read,
                    damaged, tuple(map(str, missing)), unread)
