"""Traces as graphs of `synthesis.dags`: every number becomes a category that is one again.

Attributes of a node, each with a vocabulary:

  type        node type: COMP_NODE, COMM_COLL_NODE, ...
  operator    class of the operator: its name without arguments, templates and numbers
  device      host (`is_cpu_op`), device, or none if the trace does not say
  duration    bucket of `duration_micros`; "0" if not measured
  operations  bucket of `num_ops`, or none
  bytes       bucket of `comm_size` of communication, of `tensor_size` of other nodes, or none
  collective  ALL_REDUCE, ..., or none
  group       who takes part in communication ("dims=110;pg=3"), or none

`provenance["buckets"]` stores how numbers were divided (see `buckets`) and the number of each
bucket. Labels of a graph: `duration`, the sum over its nodes in microseconds; `workload`, an index
into `provenance["workloads"]`; and `rank`, -1 if unknown.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
import logging
import pathlib
import re
from typing import Any

import numpy as np

from tpugraphs_rank import config
from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import tables
from tpugraphs_rank.chakra import buckets
from tpugraphs_rank.chakra import node_kinds
from tpugraphs_rank.chakra import trace_graph
from tpugraphs_rank.chakra import traces
from tpugraphs_rank.synthesis.dags import dags

ATTRIBUTES = ("type", "operator", "device", "duration", "operations", "bytes", "collective",
              "group")
# The attributes whose categories are buckets, and the array of a TraceGraph with the numbers.
BUCKETED = {"duration": "duration", "operations": "operations", "bytes": "size"}
LABELS = ("duration", "workload", "rank")
NONE, OTHER = "none", "other"
DEVICES = {1: "host", 0: "device", trace_graph.MISSING: NONE}
_RANKED = re.compile(r"(.+?)\.(\d{1,9})(?:\.et|\.json)(?:\.gz)?")
_VERSIONED = re.compile(r".*\.\d+\.\d+")
SUFFIXES = (".et", ".json", ".et.gz", ".json.gz")
# Entries below a folder that are looked at for a message on traces that are not read.
_LOOKED_AT = 10_000
_SHOWN = 3

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Settings:
  """How traces become graphs.

  Attributes:
    attributes: which attributes the nodes get, of ATTRIBUTES.
    per_octave: buckets between a number and its double; 0: each number is its own category.
    max_operators: the number of operator classes to keep, the most frequent ones; the others
      become "other"; 0: all.
    control: also take the control dependencies.
    reduced: drop dependencies that others imply.
  """

  attributes: tuple[str, ...] = ATTRIBUTES
  per_octave: int = 2
  max_operators: int = 0
  control: bool = False
  reduced: bool = False

  def __post_init__(self):
    for name in self.attributes:
      if name not in ATTRIBUTES:
        raise errors.UnknownNameError(
            f"unknown attribute {name!r}{config.nearest(name, ATTRIBUTES)}; expected some of: "
            f"{', '.join(ATTRIBUTES)}")
    if not self.attributes or len(set(self.attributes)) < len(self.attributes):
      raise errors.ConfigError(
          f"attributes are {', '.join(self.attributes) or 'none'}; expected at least one, each "
          "once")
    if not 0 <= self.per_octave <= buckets.MAX_PER_OCTAVE:
      raise errors.ConfigError(f"per_octave is {self.per_octave}; expected 0 to "
                               f"{buckets.MAX_PER_OCTAVE}")
    if self.max_operators < 0:
      raise errors.ConfigError(f"max_operators is {self.max_operators}; expected at least 0")


def trace_files(inputs: Sequence[files.PathLike]) -> list[pathlib.Path]:
  """The trace files among files and folders.

  Of a folder these are the files directly in it that are named .et or .json, maybe .gz. A log line
  counts the folders in it with further traces.

  Raises:
    MissingDataError: an input does not exist, or a folder has no such file or cannot be read.
  """
  result = []
  for path in map(pathlib.Path, inputs):
    if not path.is_dir():
      if not path.exists():
        raise errors.MissingDataError(f"no file or folder {path}; check the path")
      result.append(path)
      continue
    try:
      members = sorted(filter(_is_trace, path.iterdir()))
    except OSError as error:
      raise errors.MissingDataError(
          f"cannot read the folder {path}: {error.strerror}; check its permissions") from error
    inner = _inner_folders(path)
    if not members:
      such_as = f", such as {escaping.printable(str(next(iter(inner))))}" if inner else ""
      raise errors.MissingDataError(
          f"{path} has no traces: no file ends in {', '.join(SUFFIXES)}; pass the folder "
          f"that holds them{such_as}, or the files")
    if inner:
      _logger.info(
          "%s: passed over %s with %s (%s); pass these folders as well to read them", path,
          tables.counted(len(inner), "folder"), tables.counted(sum(inner.values()), "trace"),
          ", ".join([*map(str, list(inner)[:_SHOWN]), "..."][:len(inner)]))
    result += members
  return result


def _is_trace(path: pathlib.Path) -> bool:
  return path.name.endswith(SUFFIXES) and path.is_file() and not files.is_companion(path)


def _inner_folders(folder: pathlib.Path) -> dict[pathlib.Path, int]:
  """The number of traces in each folder below a folder; hidden ones are left out."""
  counts: dict[pathlib.Path, int] = {}
  for path in itertools.islice(folder.rglob("*"), _LOOKED_AT):
    parts = path.relative_to(folder).parts[:-1]
    if parts and not any(part.startswith((".", "__")) for part in parts) and _is_trace(path):
      counts[path.parent] = counts.get(path.parent, 0) + 1
  return dict(sorted(counts.items()))


def workload_and_rank(path: files.PathLike) -> tuple[str, int]:
  """The workload and rank that a file's name states, `<workload>.<rank>.et`; rank -1 if none.

  The last of three numbers in a row, as in `trace.0.0.4.json`, is part of a version.
  """
  name = pathlib.PurePath(path).name
  match = _RANKED.fullmatch(name)
  if match and not _VERSIONED.fullmatch(match[1]):
    return match[1], int(match[2])
  for suffix in sorted(SUFFIXES, key=len, reverse=True):
    if name.endswith(suffix) and name != suffix:
      return name.removesuffix(suffix), -1
  return name, -1


def read(path: files.PathLike, settings: Settings = Settings()) -> trace_graph.TraceGraph:
  """Reads one trace file as a checked graph.

  Raises:
    MissingDataError, DataError, LimitError: as `traces.read` and `trace_graph.from_trace`.
  """
  return trace_graph.from_trace(traces.read(path), str(path), settings.control, settings.reduced)


def to_dags(several: Sequence[trace_graph.TraceGraph], settings: Settings = Settings(),
            provenance: Mapping[str, Any] | None = None) -> dags.Dags:
  """Turns checked graphs into a data set, one graph for each trace.

  Nodes are put into level order; nodes of one level keep the order of their file.

  Args:
    several: at least one graph. The source in each report gives its workload and rank.
    settings: what to take.
    provenance: further entries, such as the command.

  Raises:
    DataError: there is no graph.
  """
  if not several:
    raise errors.DataError("there is no trace; expected at least one")
  columns = {name: _column(several, name, settings) for name in settings.attributes}
  sizes = [len(graph.ids) for graph in several]
  vocabularies = []
  indices = []
  for words in columns.values():
    vocabulary, column = _indexed(words)
    vocabularies.append(vocabulary)
    indices.append(column)
  x = np.split(np.stack(indices, axis=1), np.cumsum(sizes)[:-1])
  places = [workload_and_rank(graph.report.source) for graph in several]
  # Files of the same name in two folders are different workloads.
  homes = [(str(pathlib.PurePath(graph.report.source).parent), place[0])
           for graph, place in zip(several, places)]
  numbered = {home: index for index, home in enumerate(dict.fromkeys(homes))}
  y = np.array([
      (graph.duration.sum(dtype=np.float64), numbered[home], rank)
      for graph, home, (_, rank) in zip(several, homes, places)], np.float64)
  kept = {name: array for name, array in BUCKETED.items() if name in settings.attributes}
  return dags.canonical(
      [(graph.edges, rows) for graph, rows in zip(several, x)], settings.attributes, vocabularies,
      y, LABELS, names=[graph.report.source for graph in several], provenance={
          "source": "Chakra execution traces",
          "workloads": [workload for _, workload in numbered],
          "buckets": {
              "per_octave": settings.per_octave,
              "values": {name: buckets.values(_joined(several, array), settings.per_octave)
                         for name, array in kept.items()}},
          "dependencies": ["data", "control"] if settings.control else ["data"],
          "reduced": settings.reduced, **(provenance or {})})


def _joined(several: Sequence[trace_graph.TraceGraph], array: str) -> np.ndarray:
  return np.concatenate([getattr(graph, array) for graph in several])


def _column(several: Sequence[trace_graph.TraceGraph], name: str, settings: Settings
            ) -> np.ndarray:
  """(N,) str: the categories of an attribute for the nodes of all graphs."""
  if name in BUCKETED:
    return buckets.labels(_joined(several, BUCKETED[name]), settings.per_octave)
  if name == "type":
    return _named(_joined(several, "types"), node_kinds.type_name)
  if name == "device":
    return _named(_joined(several, "device"), DEVICES.__getitem__)
  if name == "collective":
    return _named(_joined(several, "collective"), lambda number: (
        NONE if number == trace_graph.MISSING else node_kinds.collective_name(number)))
  if name == "group":
    return np.array([group or NONE for graph in several for group in graph.group])
  words = np.array([operator for graph in several for operator in graph.operators])
  if settings.max_operators:
    distinct, column = _indexed(words)
    counts = np.bincount(column, minlength=len(distinct))
    frequent = distinct[np.argsort(-counts, kind="stable")[:settings.max_operators]]
    words = np.where(np.isin(words, frequent), words, OTHER)
  return words


def _indexed(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """As `np.unique` with the inverse: sorting only the distinct texts is faster."""
  listed = words.tolist()
  distinct = sorted(set(listed))
  place = {word: index for index, word in enumerate(distinct)}
  return np.array(distinct, words.dtype), np.array([place[word] for word in listed], np.int64)


def _named(numbers: np.ndarray, name: Any) -> np.ndarray:
  distinct, indices = np.unique(numbers, return_inverse=True)
  return np.array([name(number) for number in distinct.tolist()])[indices.reshape(-1)]
