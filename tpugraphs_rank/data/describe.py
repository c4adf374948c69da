"""What a collection holds, and what is odd or wrong about it: a first look, and a check.

Graphs are read one at a time, and only numbers about them are kept, so that a collection larger
than memory can be described.
"""

import collections as containers
from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import math
import pathlib
from typing import (
  Any,
  NamedTuple,
)

import numpy as np
import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import duplicates
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import headers
from tpugraphs_rank.data import quirks
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import twins
from tpugraphs_rank.hlo import opcodes
from tpugraphs_rank.metrics import competition

# A tile submission names this many configurations of each kernel.
TOP = competition.TILE_K
_EXAMPLES = 5


@dataclasses.dataclass(frozen=True)
class GraphFacts:
  """What is kept of a graph.

  Attributes:
    name: its name.
    stored_bytes: size of the file.
    unpacked_bytes: size of its arrays.
    dtypes: dtype of each array as stored, by npz key.
    nodes, edges, isolated_nodes, configurations: how many.
    configurable_nodes: how many; None for tiles.
    repeats: of its configurations.
    runtimes: (least, greatest) ns; None where there are none.
    spread: the slowest relative runtime over the fastest; None without runtimes.
    normalizers: (least, greatest) ns of `config_runtime_normalizers`; None without runtimes, and
      for layouts.
    stated_padding: of feature lists; None where the file does not say.
    found_padding: see `quirks.found_padding`.
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
  stated_padding: int | None
  found_padding: int | None
  opcode_counts: np.ndarray
  structure: str
  content: str


def graph_facts(path: pathlib.Path, graph: graphs.Graph) -> GraphFacts:
  """The facts about a graph that was read from a file.

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
      stated_padding=graph.feature_padding if "feature_padding" in stored else None,
      found_padding=quirks.found_padding(graph),
      opcode_counts=np.bincount(graph.node_opcode, minlength=graphs.NUM_OPCODES),
      structure=twins.graph_hash(graph.node_opcode, graph.edge_index),
      content=twins.graph_hash(graph.node_opcode, graph.edge_index, graph.node_feat))


class Problem(NamedTuple):
  """Something about a split that is other than it should be.

  Attributes:
    kind: "too few", "too many", "damaged" or "no runtimes".
    split: the split.
    text: what is wrong.
  """
  kind: str
  split: str
  text: str


@dataclasses.dataclass(frozen=True)
class SplitFacts:
  """What is there of a split.

  Attributes:
    name: "train", "valid", "test" or "all".
    expected: how many graphs it should have; None: not known.
    has_runtimes: whether it should have runtimes; None: not known.
    graphs: those that could be read.
    damaged: for each file that could not be read its error.
    missing: files that are listed and not there, or the folder, where it holds no graph.
  """

  name: str
  expected: int | None
  has_runtimes: bool | None
  graphs: tuple[GraphFacts, ...]
  damaged: Mapping[str, str]
  missing: tuple[str, ...]

  @property
  def files(self) -> int:
    """Files that are there, damaged ones too."""
    return len(self.graphs) + len(self.damaged)

  @property
  def without_runtimes(self) -> list[str]:
    """Names of the graphs that should have runtimes and have none."""
    return [graph.name for graph in self.graphs if self.has_runtimes and graph.runtimes is None]

  @property
  def problems(self) -> list[Problem]:
    """What makes the split other than it should be."""
    found = []
    note = lambda kind, text: found.append(Problem(kind, self.name, f"{self.name} {text}"))
    if self.expected is not None and self.files > self.expected:
      note("too many", f"has {self.files} graphs instead of {self.expected}")
    elif self.expected is not None and self.files < self.expected:
      note("too few", f"has {self.files} of {counted(self.expected, 'graph')}")
    elif self.missing:
      note("too few", f"lacks {_first(self.missing)}")
    if self.damaged:
      note("damaged", f"has {counted(len(self.damaged), 'damaged file')}")
    if self.without_runtimes:
      note("no runtimes", f"has {counted(len(self.without_runtimes), 'graph')} without runtimes: "
           f"{_first(self.without_runtimes)}")
    return found

  def summary(self, list_size: int) -> dict[str, Any]:
    """The numbers about the split, as JSON holds them; see `Description.summary`."""
    several = lambda condition: [graph.name for graph in self.graphs if condition(graph)]
    count_by = lambda get: dict(containers.Counter(str(get(graph)) for graph in self.graphs))
    distinct = lambda graph: graph.repeats.distinct
    largest = max(self.graphs, key=lambda graph: graph.unpacked_bytes, default=None)
    return {
        "graphs": len(self.graphs), "expected": self.expected, "files": self.files,
        "missing": list(self.missing), "damaged": dict(self.damaged),
        "samples": sum(graph.configurations for graph in self.graphs),
        "nodes": _range(graph.nodes for graph in self.graphs),
        "edges": _range(graph.edges for graph in self.graphs),
        "configurations": _range(graph.configurations for graph in self.graphs),
        "distinct_configurations": _range(map(distinct, self.graphs)),
        "configurable_nodes": _range(graph.configurable_nodes for graph in self.graphs),
        "runtimes": self._runtimes(),
        "duplicates": self._duplicates(),
        "one_distinct_configuration": several(lambda graph: distinct(graph) == 1),
        f"fewer_than_{TOP}_configurations": several(lambda graph: graph.configurations < TOP),
        "fewer_configurations_than_a_list": {
            "list_size": list_size,
            "graphs": several(lambda graph: graph.configurations < list_size)},
        "isolated_nodes": {
            "nodes": sum(graph.isolated_nodes for graph in self.graphs),
            "graphs": len(several(lambda graph: graph.isolated_nodes))},
        "stored_dtypes": self._dtypes(),
        "feature_padding": {"stated": count_by(lambda graph: graph.stated_padding),
                            "found": count_by(lambda graph: graph.found_padding)},
        "structures": len({graph.structure for graph in self.graphs}),
        "bytes": {
            "stored": sum(graph.stored_bytes for graph in self.graphs),
            "unpacked": sum(graph.unpacked_bytes for graph in self.graphs),
            "largest_unpacked": largest.unpacked_bytes if largest else 0,
            "largest": largest.name if largest else None}}

  def _runtimes(self) -> dict[str, Any]:
    measured = [graph for graph in self.graphs if graph.runtimes is not None]
    normalizers = [graph.normalizers for graph in measured if graph.normalizers is not None]
    return {
        "graphs": len(measured), "expected": self.has_runtimes, "without": self.without_runtimes,
        "least_ns": min((graph.runtimes[0] for graph in measured), default=None),
        "greatest_ns": max((graph.runtimes[1] for graph in measured), default=None),
        "spread": _range(graph.spread for graph in measured),
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
    found: dict[str, dict[str, int]] = {}
    for graph in self.graphs:
      for key, dtype in graph.dtypes.items():
        counts = found.setdefault(key, {})
        counts[dtype] = counts.get(dtype, 0) + 1
    return found


def counted(number: int, noun: str) -> str:
  """A number of things, such as "1 graph" or "2,000 graphs"."""
  return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _first(names: Sequence[str]) -> str:
  return names[0] + (f" and {len(names) - 1:,} more" if len(names) > 1 else "")


def _range(values: Iterable[float | None]) -> dict[str, float] | None:
  """Least, median, greatest and total of the values that are there; None without any."""
  known = [value for value in values if value is not None]
  if not known:
    return None
  return {"least": min(known), "median": float(np.median(known)), "greatest": max(known),
          "total": sum(known)}


@dataclasses.dataclass(frozen=True)
class Description:
  """What is there of a collection.

  Attributes:
    collection: the collection.
    folder: where its graphs lie.
    splits: the splits that were looked at.
    list_size: configurations of a full list.
  """

  collection: registry.Collection
  folder: pathlib.Path
  splits: tuple[SplitFacts, ...]
  list_size: int

  @property
  def problems(self) -> list[Problem]:
    """One entry for each thing that is other than it should be; empty where all is well."""
    return [problem for split in self.splits for problem in split.problems]

  def mends(self, data_root: files.PathLike | None = None) -> list[str]:
    """What to do about the problems, in this order.

    Args:
      data_root: as it was given to `describe`.
    """
    faulty = lambda *kinds: ",".join(dict.fromkeys(
        problem.split for problem in self.problems if problem.kind in kinds))
    steps = []
    if faulty("too many"):
      steps.append(f"move elsewhere what does not belong to {faulty('too many')}")
    if faulty("damaged"):
      steps.append(f"move away the damaged files of {faulty('damaged')}")
    if faulty("no runtimes"):
      steps.append(f"move away the graphs without runtimes of {faulty('no runtimes')}" + (
          "" if self.collection.is_public else ", or state has_runtimes false in the descriptor"))
    lacking = faulty("too few", "damaged", "no runtimes")
    if lacking:
      steps.append(self.collection.fetch_hint(lacking, data_root))
    return steps

  def summary(self) -> dict[str, Any]:
    """All numbers, as JSON holds them.

    Ranges are {"least", "median", "greatest", "total"} over graphs, or null. By split: graphs read,
    expected, files, missing and damaged files with their errors, samples (configurations in all),
    ranges, "runtimes" ("without": names of graphs that should have some), "duplicates" ("rows" have
    stood before in their graph; "relative_sd" is the pooled standard deviation of the runtimes of
    equal configurations, over their mean), names of graphs with few configurations, nodes without
    edges, dtypes as stored, feature padding as stated and as found ("None": not stated, or
    unclear), distinct structures, bytes. For the collection: "opcodes", those that training lacks,
    "twins" of graphs in an earlier split, and "problems".
    """
    return {
        "collection": self.collection.name, "kind": self.collection.kind,
        "target": self.collection.target, "folder": str(self.folder),
        "splits": {split.name: split.summary(self.list_size) for split in self.splits},
        "opcodes": self._opcodes(), "opcodes_not_in_train": self._unseen_opcodes(),
        "twins": self._twins(), "problems": [problem.text for problem in self.problems]}

  def _opcode_counts(self) -> dict[str, np.ndarray]:
    return {split.name: sum((graph.opcode_counts for graph in split.graphs),
                            np.zeros(graphs.NUM_OPCODES, np.int64)) for split in self.splits}

  def _opcodes(self) -> list[dict[str, Any]]:
    """Opcodes, the most frequent first."""
    by_split = self._opcode_counts()
    counts = sum(by_split.values())
    total = max(int(counts.sum()), 1)
    return [{"id": int(number), "name": opcodes.opcode_name(number), "nodes": int(counts[number]),
             "share": int(counts[number]) / total,
             "splits": {split: int(own[number]) for split, own in by_split.items()}}
            for number in np.argsort(-counts, kind="stable") if counts[number]]

  def _unseen_opcodes(self) -> dict[str, dict[str, int]] | None:
    """For each other split the opcodes that training lacks, and in how many nodes they stand."""
    counts = self._opcode_counts()
    seen = counts.pop("train", None)
    if seen is None or not seen.any():
      return None
    return {split: {opcodes.opcode_name(number): int(own[number])
                    for number in np.flatnonzero((own > 0) & (seen == 0))}
            for split, own in counts.items()}

  def _twins(self) -> list[dict[str, Any]]:
    """Graphs of a split that have a structural twin in an earlier one: not unseen there."""
    found = []
    for place, later in enumerate(self.splits):
      for earlier in self.splits[:place]:
        known = {graph.structure: graph.name for graph in earlier.graphs}
        contents = {graph.content for graph in earlier.graphs}
        pairs = [(graph.name, known[graph.structure]) for graph in later.graphs
                 if graph.structure in known]
        found.append({
            "of": later.name, "in": earlier.name, "graphs": len(pairs),
            "with_equal_features": sum(graph.content in contents for graph in later.graphs),
            "examples": [list(pair) for pair in pairs[:_EXAMPLES]]})
    return found


def describe(name: str | registry.Collection, splits: Sequence[str] | None = None,
             data_root: files.PathLike | None = None, list_size: int = 32) -> Description:
  """Reads every graph of a collection, one at a time; damaged files are noted and passed over.

  Args:
    name: a registered collection, the path of a JSON descriptor, or a `Collection`.
    splits: which; None: all that it has.
    data_root: as of `load_collection`.
    list_size: configurations of a full list in training.

  Raises:
    UnknownNameError: no such collection or split.
    ConfigError: no split is asked for.
    MissingDataError: none of the splits is there; the message names the command that brings them.
  """
  collection = registry.get_collection(name)
  chosen = list(collection.splits) if splits is None else list(dict.fromkeys(splits))
  if not chosen:
    raise errors.ConfigError(
        f"no splits of {collection.name} are asked for; expected some of: "
        f"{', '.join(collection.splits)}")
  located = {split: collections.find_files(collection, split, data_root) for split in chosen}
  if not any(paths for paths, _ in located.values()):
    for split, (_, missing) in located.items():
      if missing:
        raise collections.missing_error(collection, split, missing[0], data_root)
  total = sum(len(paths) for paths, _ in located.values())
  with tqdm.tqdm(total=total, unit="graph", desc=f"reading {collection.name}", disable=None) as bar:
    found = tuple(_split_facts(collection, split, *located[split], bar.update) for split in chosen)
  return Description(collection, collection.location(data_root), found, list_size)


def _split_facts(collection: registry.Collection, split: str, paths: Sequence[pathlib.Path],
                 missing: Sequence[pathlib.Path], progress: Callable[[], Any]) -> SplitFacts:
  source = collections.Split(collection, split, paths)
  read: list[GraphFacts] = []
  damaged: dict[str, str] = {}
  for index, path in enumerate(paths):
    try:
      read.append(graph_facts(path, source[index]))
    except errors.TpuGraphsRankError as error:
      damaged[str(path)] = str(error)
    progress()
  return SplitFacts(split, collection.splits[split], collection.has_runtimes.get(split),
                    tuple(read), damaged, tuple(map(str, missing)))
