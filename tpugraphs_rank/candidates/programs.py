"""Your own programs: read from any XLA dump or raw file, with candidates, as graphs to score."""

import collections
import dataclasses
import logging
import pathlib

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import plugins
from tpugraphs_rank import registries
from tpugraphs_rank.candidates import candidate_set
from tpugraphs_rank.candidates import generators
from tpugraphs_rank.candidates import supplied
from tpugraphs_rank.data import graphs
from tpugraphs_rank.hlo import examples
from tpugraphs_rank.hlo import graph as hlo_graph
from tpugraphs_rank.hlo import reading
from tpugraphs_rank.hlo import tuning_pb2

AUTO, RUNS = "auto", "runs"

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class HloProgram:
  """A program whose configurations are to be ranked.

  Attributes:
    name: of its module, or of the file if the module has none. Several modules of one name have
      the names `NAME#1`, `NAME#2`, ... in the order of the file.
    source: its name in error messages.
    data: its module, and its runs if the file has any.
  """

  name: str
  source: str
  data: tuning_pb2.ModuleTuningData


def read(path: files.PathLike, module: str | None = None) -> list[HloProgram]:
  """The programs of a raw file, in its order.

  Args:
    path: a file, see `reading.read_raw`, or the name of a bundled program, see `examples`.
    module: the name of the only program to return; None: all programs. The second of several
      modules of one name is `NAME#2`.

  Raises:
    MissingDataError, DataError: as `reading.read_raw`, or the file has no program.
    UnknownNameError: there is no program of this name.
    ConfigError: several modules have one name, and `module` does not choose one of them.
  """
  path = examples.path_of(path)
  raw = reading.read_raw(path)
  found: list[tuple[str, tuning_pb2.ModuleTuningData]] = []
  for data in raw.modules:
    if data.HasField("module"):
      found.append((data.module.name or reading.stem(path), data))
    else:
      _log.warning("%s: a module has no HLO program and is skipped", raw.source)
  if not found:
    raise errors.DataError(
        f"{raw.source} has no HLO program; expected at least one module with a program; dump or "
        "measure it again")
  names = _distinct_names([name for name, _ in found])
  programs = [
      HloProgram(name, f"{raw.source}: module {escaping.quoted(name)}", data)
      for name, (_, data) in zip(names, found)]
  # A ranking names its programs, so two of one name could not be distinguished.
  repeated = [own for name, (own, _) in zip(names, found) if name != own and module in (None, own)]
  if repeated:
    same = [name for name, (own, _) in zip(names, found) if own == repeated[0]]
    joined = " or " if len(same) == 2 else " to "
    raise errors.ConfigError(
        f"{raw.source} has {len(same)} modules named {escaping.quoted(repeated[0])}; expected one; "
        "choose it by its place in the file: --module="
        + joined.join(escaping.quoted(name) for name in (same[0], same[-1])))
  chosen = [program for program in programs if module in (None, program.name)]
  if chosen or module is None:
    return chosen
  shown = ", ".join(map(escaping.shown, names[:20])) + (", ..." if len(names) > 20 else "")
  raise errors.UnknownNameError(
      f"{raw.source} has no module {escaping.quoted(module)}; its modules: {shown}")


def _distinct_names(names: list[str]) -> list[str]:
  """The names, with `#1`, `#2`, ... after those that occur more than once."""
  count = collections.Counter(names)
  seen: collections.Counter[str] = collections.Counter()
  distinct = []
  for name in names:
    seen[name] += 1
    distinct.append(f"{name}#{seen[name]}" if count[name] > 1 else name)
  return distinct


def is_generator(name: str) -> bool:
  """Whether a choice of candidates names a generator (or is ""), rather than a file."""
  return not name or name in registries.CANDIDATES


def find(program: HloProgram, kind: str, source: str, tiling: str, limit: int, seed: int
         ) -> candidate_set.Candidates:
  """The candidates of a program.

  Args:
    program: the program.
    kind: `tile` or `layout`, the kind that the run ranks.
    source: the name of a generator (`auto`; `runs`, those of the program's file; or a registered
      one), or an `.npz` file; or "": `runs` if there are any of this kind, otherwise `auto`.
    tiling: what tile bounds mean, and which layouts exist; see `tile_spaces`.
    limit: maximum number of candidates that a generator returns.
    seed: of a generator's random choices.

  Raises:
    UnknownNameError: there is neither a generator nor a file of this name.
    ConfigError: a plugin's generator fails or returns something else.
    TpuGraphsRankError: as `tiles.enumerate_tiles`, `layouts.draw_layouts`, `supplied.from_runs` and
      `supplied.from_npz`.
  """
  source = source or (RUNS if supplied.has_runs(program.data, kind) else AUTO)
  is_file = source.endswith(".npz") or pathlib.Path(source).exists()
  if is_file and not is_generator(source):
    return supplied.from_npz(source, program.data, kind)
  generator = registries.CANDIDATES.get(source)
  with plugins.calling(f"the candidate generator {source!r}"):
    candidates = generator(
        generators.Request(program.data, kind, tiling, limit, seed, program.source))
  if not isinstance(candidates, candidate_set.Candidates) or candidates.kind != kind:
    returned = (f"{candidates.kind} candidates" if isinstance(candidates, candidate_set.Candidates)
                else type(candidates).__name__)
    raise errors.ConfigError(
        f"the candidate generator {source!r} returns {returned}; expected {kind} candidates, for "
        "example from candidates.supplied.from_arrays")
  return candidates


def to_graph(program: HloProgram, candidates: candidate_set.Candidates, padding: int
             ) -> graphs.ConfiguredGraph:
  """The graph of a program and its candidates, without runtimes.

  Args:
    program: the program.
    candidates: its candidates.
    padding: of feature lists, 0 or -1, as in the run's training graphs.

  Raises:
    DataError: the program is damaged.
  """
  arrays: dict[str, np.ndarray] = hlo_graph.graph_arrays(
      program.data.module, padding, program.source)
  # The graph is built with one candidate first, because checking all layouts would copy them.
  key = "config_feat" if candidates.kind == "tile" else "node_config_feat"
  arrays = {**arrays, **candidates.arrays, key: candidates.arrays[key][:1],
            "config_runtime": np.zeros(1, np.int64)}
  if candidates.kind == "tile":
    arrays["config_runtime_normalizers"] = np.zeros(1, np.int64)
  return graphs.with_configs(
      graphs.graph_from_arrays(program.name, arrays), candidates.arrays[key])
