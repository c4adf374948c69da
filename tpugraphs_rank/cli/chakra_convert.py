"""Turn HLO programs into Chakra traces, one for each rank.

  tpugraphs-rank chakra convert --input step.hlo.pb.gz --output traces/
  tpugraphs-rank chakra convert --input dump/ --output traces/ --topology 4,2 --fusions open

The programs are those that `tpugraphs-rank featurize` reads: protobufs, HLO text, StableHLO, and
folders of them. JAX and PyTorch/XLA write such files with XLA_FLAGS=--xla_dump_to=FOLDER. The
traces are OUTPUT/PROGRAM.RANK.et. A distributed program must have been optimised: only then does it
have communication and the shapes of one rank.

Each instruction becomes a node with its operations and bytes, which follow from its shapes. Called
computations are inlined. Loops are unrolled if the number of iterations is known, otherwise they
run once. Instructions that cost nothing give no node: what waits for one waits for what it waits
for. The command prints what did not follow from the program.

The ranks are those that the program states, or that its communication names. --topology gives the
sizes of the network's dimensions, the fastest first, so that collectives state which of them they
involve. Groups of ranks that are no such dimensions have names (pg_name); their ranks are in
OUTPUT/PROGRAM.comm_groups, a JSON file as ASTRA-sim reads it (--comm-group-configuration).
"""

from collections.abc import Iterator, Sequence
import logging
import pathlib

from absl import flags

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import tables
from tpugraphs_rank.chakra import converting
from tpugraphs_rank.chakra import exporting
from tpugraphs_rank.chakra import graphs
from tpugraphs_rank.chakra import hlo_groups
from tpugraphs_rank.chakra import ranks as ranks_lib
from tpugraphs_rank.chakra import trace_folders
from tpugraphs_rank.chakra import traces
from tpugraphs_rank.cli import app
from tpugraphs_rank.hlo import folders
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import reading

_log = logging.getLogger("tpugraphs_rank.chakra_convert")


def define_flags() -> None:
  """Defines the command's flags."""
  default = converting.Settings()
  flags.DEFINE_multi_string("input", None, "A program, or a folder of programs.", required=True)
  flags.DEFINE_string("output", None, "Folder of the traces. It must not contain traces yet.",
                      required=True)
  flags.DEFINE_integer("ranks", default.ranks, "Number of ranks, if the program does not state "
                       f"it, or has more than {hlo_groups.STATED_RANKS:,}.",
                       lower_bound=1, upper_bound=hlo_groups.MAX_RANKS)
  flags.DEFINE_list("topology", [], "Sizes of the dimensions of the network, whose product is the "
                    "number of ranks. By default it has one dimension.")
  flags.DEFINE_enum("fusions", default.fusions, ["whole", "open"], "Whether a fusion is one node, "
                    "or each of its instructions is.")
  flags.DEFINE_integer("max_iterations", default.max_iterations, "The largest number of iterations "
                       "of a loop; further ones are left out. 0: all.", lower_bound=0)
  flags.DEFINE_integer("max_nodes", default.max_nodes, "The largest number of nodes of a rank. "
                       "Default: 20,000, or 50 for each instruction of the program if that is "
                       "more, at most 200,000.", lower_bound=1)
  flags.DEFINE_integer("max_total_nodes", default.max_total_nodes, "The largest number of nodes of "
                       "all ranks together. Default: 100,000, or 1,000 for each instruction of "
                       "the program if that is more.", lower_bound=1)
  flags.DEFINE_bool("compress", False, "Compress the traces with gzip.")
  flags.DEFINE_enum("format", "et", ["et", "json"], "The binary form, or the JSON form of the "
                    "reference jsonizer.")
  flags.DEFINE_bool("strict", False, "Stop at the first damaged program, instead of skipping it.")


def main(argv: list[str]) -> int:
  """Runs the command."""
  values = flags.FLAGS
  settings = converting.Settings(values.ranks, _topology(values.topology), values.fusions,
                                 values.max_nodes, values.max_iterations, values.max_total_nodes)
  paths: list[pathlib.Path] = []
  for place in map(pathlib.Path, values.input):
    paths += folders.programs(place) if place.is_dir() else [place]
  skipped: list[str] = []
  taken: set[str] = set()
  numbers: dict[str, int] = {}
  count = 0
  with trace_folders.staged(values.output) as staging:
    for name, source, module, is_only in _programs(paths, values.strict, skipped):
      try:
        workload = converting.convert(module, source, settings)
      except errors.DataError as error:
        if values.strict or is_only:
          raise
        _skip(skipped, error)
        continue
      name = exporting.unique(exporting.file_name(name), taken, numbers)
      taken.add(name)
      for rank, trace in enumerate(workload.all_ranks()):
        traces.write(staging / f"{name}.{rank}.{values.format}", trace, values.compress)
        count += 1
      if workload.groups:
        files.write_text(staging / f"{name}.{ranks_lib.GROUPS}",
                         ranks_lib.groups_text(workload.groups))
      print(workload)
    if not count:
      raise errors.DataError("no trace was written, because all programs were skipped; the first: "
                             f"{skipped[0]}")
  print(f"{tables.counted(count, 'trace')}: {pathlib.Path(values.output)}")
  if skipped:
    _log.warning("skipped programs: %d (exit status %d)", len(skipped), app.SOME_SKIPPED)
    return app.SOME_SKIPPED
  return 0


def _programs(paths: Sequence[pathlib.Path], strict: bool, skipped: list[str]
              ) -> Iterator[tuple[str, str, hlo_pb2.HloModuleProto, bool]]:
  """Name, source and message of each program, and whether it is the only one."""
  for path in paths:
    try:
      raw = reading.read_raw(path)
    except (errors.DataError, errors.MissingDataError) as error:
      problem: Exception = error
      if _is_trace(path):
        problem = errors.DataError(
            f"{path} is a trace already, not a program; "
            + commands.command("chakra import", "--input", str(path), "--output", "graphs.npz")
            + " reads it")
      if strict or len(paths) == 1:
        raise problem from None
      _skip(skipped, problem)
      continue
    several = len(raw.modules) > 1
    for number, module in enumerate(raw.modules):
      name = module.module.name or str(number) if several else reading.stem(path)
      yield (name, f"{path}: {name}" if several else str(path), module.module,
             not several and len(paths) == 1)


def _is_trace(path: pathlib.Path) -> bool:
  if not path.name.endswith(graphs.SUFFIXES):
    return False
  try:
    with traces.opened(path):
      return True
  except errors.TpuGraphsRankError:
    return False


def _skip(skipped: list[str], problem: Exception) -> None:
  _log.warning("skipped: %s", problem)
  skipped.append(str(problem))


def _topology(words: list[str]) -> tuple[int, ...]:
  if not all(word.strip().isdecimal() and len(word) < 10 for word in words):
    raise errors.ConfigError(
        f"--topology is {','.join(words)}; expected the sizes of the dimensions, such as 4,2")
  return tuple(int(word) for word in words)
