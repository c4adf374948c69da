"""One's own programs: read from any XLA dump or raw file, with candidates, as graphs to score."""

import dataclasses
import logging
import pathlib

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.candidates import candidate_set
from tpugraphs_rank.candidates import layouts
from tpugraphs_rank.candidates import supplied
from tpugraphs_rank.candidates import tiles
from tpugraphs_rank.data import graphs
from tpugraphs_rank.hlo import graph as hlo_graph
from tpugraphs_rank.hlo import reading
from tpugraphs_rank.hlo import tuning_pb2

AUTO, RUNS = "auto", "runs"

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Program:
  """A program to rank configurations of.

  Attributes:
    name: of its module, or of the file where the module has none.
    source: what error messages call it.
    data: its module, and its runs where the file has any.
  """

  name: str
  source: str
  data: tuning_pb2.ModuleTuningData


def read(path: files.PathLike, module: str | None = None) -> list[Program]:
  """The programs of a raw file, in its order.

  Args:
    path: a `HloProto`, `HloModuleProto`, `TuningData` or `ModuleTuningData` file.
    module: only the one of this name; None: all.

  Raises:
    MissingDataError, DataError: as `reading.read_raw`, or no program is in the file.
    UnknownNameError: there is no program of this name.
  """
  raw = reading.read_raw(path)
  programs = []
  for data in raw.modules:
    if data.HasField("module"):
      name = data.module.name or pathlib.Path(path).stem
      programs.append(Program(name, f"{raw.source}: module {name!r}", data))
    else:
      _log.warning("%s: a module has no HLO program and is skipped", raw.source)
  if module is None:
    return programs
  chosen = [program for program in programs if program.name == module]
  if not chosen:
    names = [program.name for program in programs]
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    raise errors.UnknownNameError(f"{raw.source} has no module {module!r}; its modules: {shown}")
  return chosen[:1]


def find(program: Program, kind: str, wanted: str, tiling: str, most: int, seed: int
         ) -> candidate_set.Candidates:
  """The candidates of a program.

  Args:
    program: the program.
    kind: `tile` or `layout`, what the run ranks.
    wanted: `auto`; `runs`, those of the program's file; an `.npz` file; or "": the runs where
      there are any of this kind, otherwise `auto`.
    tiling: what tile bounds mean, and which layouts there are; see `tile_spaces`.
    most: the most that `auto` makes.
    seed: of `auto`.

  Raises:
    TpuGraphsRankError: as `tiles.enumerate_tiles`, `layouts.draw_layouts`, `given.from_runs` and
      `given.from_npz`.
  """
  wanted = wanted or (RUNS if supplied.has_runs(program.data, kind) else AUTO)
  if wanted == RUNS:
    return supplied.from_runs(program.data, kind, program.source)
  if wanted != AUTO:
    return supplied.from_npz(wanted, program.data, kind)
  if kind == "tile":
    return tiles.enumerate_tiles(program.data.module, tiling, most, seed, program.source)
  return layouts.draw_layouts(program.data, tiling, most, seed, program.source)


def to_graph(program: Program, candidates: candidate_set.Candidates, padding: int) -> graphs.Graph:
  """The graph of a program and its candidates, without runtimes.

  Args:
    program: the program.
    candidates: of this program.
    padding: of feature lists, 0 or -1: that of the run's training graphs.

  Raises:
    DataError: the program is damaged.
  """
  arrays: dict[str, np.ndarray] = hlo_graph.graph_arrays(
      program.data.module, padding, program.source)
  # With one candidate first: of all layouts it would make a wide copy.
  key = "config_feat" if candidates.kind == "tile" else "node_config_feat"
  arrays = {**arrays, **candidates.arrays, key: candidates.arrays[key][:1],
            "config_runtime": np.zeros(1, np.int64)}
  if candidates.kind == "tile":
    arrays["config_runtime_normalizers"] = np.zeros(1, np.int64)
  return graphs.with_configs(
      graphs.graph_from_arrays(program.name, arrays), candidates.arrays[key])
