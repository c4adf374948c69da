"""Converts a raw file to graphs. The command `featurize` calls this and writes the files."""

from collections.abc import Iterable, Sequence
import dataclasses
import hashlib
import logging
import re

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank.hlo import graph
from tpugraphs_rank.hlo import reading
from tpugraphs_rank.hlo import tuning
from tpugraphs_rank.hlo import tuning_pb2

_log = logging.getLogger(__name__)

TILE = "tile"
LAYOUT = "layout"
BARE = "bare"

# A file system allows 255 bytes. The suffix .npz, the numbers of repeated names and what a
# temporary name adds need some of them.
_LONGEST_STEM = 200


@dataclasses.dataclass(frozen=True)
class Graph:
  """A converted program.

  Attributes:
    name: stem of its file: the module's name for a kernel, or else the stem of the input file.
    kind: `tile`, `layout` or `bare` (no configurations).
    arrays: the arrays of the `.npz` file, by key.
    runs: number of measured runs; 0 for a bare program.
    valid_runs: number of valid runs.
    unknown_opcodes: number of instructions per opcode that is not in the table.
  """
  name: str
  kind: str
  arrays: dict[str, np.ndarray]
  runs: int = 0
  valid_runs: int = 0
  unknown_opcodes: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Converted:
  """The result of converting a raw file.

  Attributes:
    source: the raw file.
    file_kind: its message type, such as `TuningData`.
    graphs: its programs, in the order of the file.
    skipped: name and reason of each program that is skipped because it is not a measured kernel.
    failed: name and error of each damaged program.
  """
  source: str
  file_kind: str
  graphs: list[Graph]
  skipped: list[tuple[str, str]]
  failed: list[tuple[str, errors.TpuGraphsRankError]] = dataclasses.field(default_factory=list)


def convert_file(
    path: files.PathLike, padding: int = 0, repeats: Sequence[files.PathLike] = (),
    strict: bool = True) -> Converted:
  """Reads a raw file and featurizes every program in it.

  Args:
    path: a raw file, or an HLO or StableHLO program; see `reading.read_raw`.
    padding: 0 or -1, see `features.node_features`.
    repeats: further measurements of the same programs and runs, in the same order. Runtimes are
      averaged over all measurements.
    strict: whether the first damaged program of a file raises. Otherwise it is reported in
      `failed`, and the other programs are converted; only a file in which every program is damaged
      raises.

  Raises:
    MissingDataError: a file does not exist or cannot be read.
    DataError: a file is damaged, a program is damaged or has no valid default run, or a repeat has
      other programs or runs; the message names file and program.
    ConfigError: `padding` is neither 0 nor -1.
  """
  raw = reading.read_raw(path)
  others = [reading.read_raw(other) for other in repeats]
  for other in others:
    _check_same_programs(raw, other)
  stem = reading.stem(path)
  converted = Converted(raw.source, raw.kind, [], [])
  for index, module in enumerate(raw.modules):
    passes = [module, *(other.modules[index] for other in others)]
    label = _label(raw, index)
    name = module.module.name or f"module {index}"
    reason = _reason_to_skip(raw, passes)
    if reason:
      _log.warning("%s is skipped: %s", label, reason)
      converted.skipped.append((name, reason))
      continue
    try:
      arrays = graph.graph_arrays(module.module, padding, label)
      for other, repeated in zip(others, passes[1:]):
        _check_same_graph(module, repeated, arrays, padding, label, _label(other, index))
      converted.graphs.append(_with_runs(raw, passes, arrays, label, stem))
    except errors.DataError as error:
      if strict:
        raise
      converted.failed.append((name, error))
  if converted.failed and not converted.graphs:
    raise converted.failed[0][1]
  return converted


def unique_names(names: Iterable[str], taken: set[str] | None = None) -> list[str]:
  """File stems for names: replaces path characters, and appends `_2`, `_3`, ... to repeats.

  A name that is too long for a file is cut. It ends with a hash of the whole name, so that
  different names have different stems.

  Args:
    names: any strings.
    taken: used stems, in lower case; the new ones are added. Two stems that differ only in case
      count as equal, because some file systems ignore case.
  """
  taken = set() if taken is None else taken
  unique = []
  for name in names:
    # Keep only characters that every file system allows. A leading dot would hide the file.
    stem = re.sub(r"[^A-Za-z0-9._\-]", "_", name)
    stem = re.sub(r"^\.+", lambda dots: "_" * len(dots.group()), stem) or "module"
    if len(stem) > _LONGEST_STEM:
      digest = hashlib.sha256(name.encode()).hexdigest()[:8]
      stem = f"{stem[:_LONGEST_STEM - len(digest) - 1]}_{digest}"
    candidate, number = stem, 1
    while candidate.lower() in taken:
      number += 1
      candidate = f"{stem}_{number}"
    taken.add(candidate.lower())
    unique.append(candidate)
  return unique


def _label(raw: reading.RawFile, index: int) -> str:
  name = raw.modules[index].module.name
  number = f" (number {index})" if len(raw.modules) > 1 else ""
  return f"{raw.source}: module {escaping.quoted(name)}{number}"


def _is_tile(raw: reading.RawFile, module: tuning_pb2.ModuleTuningData) -> bool:
  """Kernels are stored in a `TuningData`; a file of one program may hold either kind of run."""
  return raw.kind == reading.TUNING_DATA or (
      any(tuning.has_tile_size_config(run) for run in module.runs)
      and not any(run.HasField("module_config") for run in module.runs))


def _reason_to_skip(
    raw: reading.RawFile, passes: Sequence[tuning_pb2.ModuleTuningData]) -> str | None:
  """The reason to skip a kernel, or None. Other programs are never skipped."""
  if not _is_tile(raw, passes[0]):
    return None
  if not passes[0].HasField("module"):
    return "it has no HLO program"
  if not passes[0].runs:
    return "it has no runs"
  lacking = max(
      sum(not tuning.has_tile_size_config(run) for run in module.runs) for module in passes)
  if lacking:
    return f"{lacking} of its {len(passes[0].runs)} runs lack a tile_size_config"
  return None


def _with_runs(
    raw: reading.RawFile, passes: Sequence[tuning_pb2.ModuleTuningData],
    arrays: dict[str, np.ndarray], label: str, stem: str) -> Graph:
  """Adds the configurations to a program's arrays."""
  unknown = graph.unknown_opcodes(passes[0].module)
  if not raw.has_runs:
    return Graph(stem, BARE, arrays, unknown_opcodes=unknown)
  if _is_tile(raw, passes[0]):
    runs = tuning.tile_arrays(passes, label)
    kind = TILE
    # The format of a kernel has no splits.
    arrays = {key: value for key, value in arrays.items() if key != "node_splits"}
    name = passes[0].module.name
  else:
    runs = tuning.layout_arrays(passes, len(arrays["node_opcode"]), label)
    kind, name = LAYOUT, stem
  return Graph(name, kind, {**arrays, **runs.arrays}, runs.total, runs.valid, unknown)


def _check_same_programs(first: reading.RawFile, other: reading.RawFile) -> None:
  def differ(what: str) -> errors.DataError:
    return errors.DataError(
        f"{other.source} is not a repeat of {first.source}: {what}; expected another measurement "
        "of the same programs in the same order; check the order of the files, or measure again")

  if not first.has_runs:
    raise errors.DataError(
        f"{first.source} is a {first.kind} without measurements, so it cannot have repeats; omit "
        f"{other.source}")
  if first.kind != other.kind:
    raise differ(f"it holds a {other.kind}, not a {first.kind}")
  names = [[module.module.name for module in raw.modules] for raw in (first, other)]
  if len(names[0]) != len(names[1]):
    raise differ(f"it has {len(names[1])} programs, not {len(names[0])}")
  for index, (ours, theirs) in enumerate(zip(*names)):
    if ours != theirs:
      raise differ(f"program {index} is {theirs!r}, not {ours!r}")
  for index, (ours, theirs) in enumerate(zip(first.modules, other.modules)):
    tuning.check_same_runs(ours, theirs, _label(first, index), _label(other, index))


def _check_same_graph(
    first: tuning_pb2.ModuleTuningData, other: tuning_pb2.ModuleTuningData,
    arrays: dict[str, np.ndarray], padding: int, label: str, other_label: str) -> None:
  # Ids and metadata may differ between two compilations of a program, but its graph must not.
  if first.module == other.module:
    return
  theirs = graph.graph_arrays(other.module, padding, other_label)
  for key, ours in arrays.items():
    if not np.array_equal(ours, theirs[key]):
      raise errors.DataError(
          f"{other_label} is not a repeat of {label}: their {key} differ; expected another "
          "measurement of the same program; measure it again")
