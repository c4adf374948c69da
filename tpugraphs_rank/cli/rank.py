"""Rank the configurations of your own program with a trained run.

  tpugraphs-rank rank --run bundled:tile_xla_cpu --hlo my_kernel.pb --top_k 5
  tpugraphs-rank rank --run_dir runs/first --hlo my_program.pb --candidates mine.npz

Reads what XLA dumps (--xla_dump_hlo_as_proto), what JAX writes, and raw files of measured programs.
Prints the best configurations and writes two files into `predictions/` of the run directory (of the
current folder for a bundled run), or into --output:

  FILE.ranked.json  the best configurations, their scores, and where the candidates come from
  FILE.ranked.pb    the same as raw data without measurements: a TuningData of kernels (tile
                    sizes), or the ModuleTuningData of a program (layouts)

The raw file can be measured, and --hlo accepts it. With --measure, the collector measures the best
configurations of programs from its own catalogues on this machine, and the command compares
predicted and measured runtimes.
"""

from collections.abc import Sequence
import hashlib
import logging
import pathlib

from absl import flags
import tqdm

from tpugraphs_rank import collect
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import plugins
from tpugraphs_rank.candidates import measured
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.candidates import ranking as ranked_lib
from tpugraphs_rank.candidates import tile_spaces
from tpugraphs_rank.cli import runs
from tpugraphs_rank.hlo import reading

_FROM_TARGET = "target"

_log = logging.getLogger("tpugraphs_rank.rank")


def rank(run_dir: files.PathLike, hlo: files.PathLike, candidates: str = "", top_k: int = 10,
         module: str | None = None, target: str | None = None,
         tiling: str = _FROM_TARGET, max_candidates: int = 4096, seed: int = 0,
         strict: bool = False) -> list[ranked_lib.Ranked]:
  """Ranks the candidates of each program in a file.

  Args:
    run_dir: directory of a trained run, or the name of a bundled one.
    hlo: a raw file, see `programs.read`.
    candidates: the name of a generator, an `.npz` file or ""; see `programs.find`.
    top_k: how many of the best to return.
    module: only the program of this name.
    target: the hardware that the programs are for; None: the run's.
    tiling: one of `tile_spaces.TILINGS`, or `target`: that of the run's target.
    max_candidates: maximum candidates that `auto` generates for a program.
    seed: for `auto`.
    strict: whether to refuse programs that do not fit the run, instead of warning.

  Raises:
    ConfigError: a number is not positive, or a file of several programs needs `module`.
    CompatibilityError: the run cannot score a program; or, if `strict`, it is for another target or
      has opcodes that training never saw.
    TpuGraphsRankError: the run directory, the file or the candidates are damaged.
  """
  if top_k < 1 or max_candidates < 1:
    raise errors.ConfigError(
        f"--top_k={top_k} --max_candidates={max_candidates}: expected 1 or more")
  to_rank = programs.read(hlo, module)
  # TensorFlow: only once there is something to rank.
  from tpugraphs_rank.training import run as run_lib
  run = run_lib.load_run(run_dir, strict)
  kind = run.about["kind"]
  is_file = not programs.is_generator(candidates)
  if len(to_rank) > 1 and (is_file or kind == "layout"):
    raise errors.ConfigError(
        f"{hlo} has {len(to_rank)} programs; expected one, because "
        + (f"{candidates} holds the candidates of one" if is_file else
           "a raw file holds the layouts of one") + ": choose it with --module NAME")
  if target is None:
    _log.info("no --target: assuming that %s is for the hardware of the run's measurements, %s",
              hlo, run.about.get("target"))
  else:
    run.check_target(target)
  if tiling == _FROM_TARGET:
    tiling = tile_spaces.tiling_of(run.about.get("target"))
  sets = [programs.find(program, kind, candidates, tiling, max_candidates, seed)
          for program in tqdm.tqdm(to_rank, desc="candidates", unit="program", disable=None)]
  graphs = (programs.to_graph(program, candidate_set, run.normalizer.feature_padding)
            for program, candidate_set in zip(to_rank, sets))
  scored = tqdm.tqdm(run.score_each(graphs), total=len(to_rank), desc="scores", unit="program",
                     disable=None)
  return [ranked_lib.rank(program, candidate_set, scores, top_k)
          # `scored` comes first: at its end it logs which opcodes training never saw.
          for (_, scores), program, candidate_set in zip(scored, to_rank, sets)]


def measure(raw: pathlib.Path, results: Sequence[ranked_lib.Ranked]) -> list[measured.Measured]:
  """Lets the collector measure the configurations in a raw file of the results.

  The measurements are stored next to the file, in a folder named after it and its content.

  Raises:
    CompatibilityError: a program is in none of the collector's catalogues.
    OutputError: the collector failed.
    DataError: too few configurations could be measured.
  """
  digest = hashlib.sha256(raw.read_bytes()).hexdigest()[:8]
  folder = raw.with_name(f"{raw.stem}.{digest}.measured").resolve()
  passes = [{data.module.name: data for data in reading.read_raw(path).modules}
            for path in collect.measure_ranked(raw, folder)]
  return [
      measured.compare(result, [by_name[result.program.data.module.name] for by_name in passes])
      for result in results]


def define_flags() -> None:
  """Defines the command's flags."""
  runs.define_run_flag()
  flags.DEFINE_string("hlo", None, "The program: a .pb file from XLA or JAX, or a raw TuningData "
                      "or ModuleTuningData file.", required=True)
  flags.DEFINE_string(
      "candidates", "", "auto: generate tiles or layouts that the program admits. runs: the runs "
      "in the raw file, measured or not. Otherwise an .npz file with config_feat, or with "
      "node_config_ids and node_config_feat, or the name of a generator that a plugin registers. "
      "By default runs if the file has any, else auto.")
  flags.DEFINE_multi_string("plugin", [], "Module or file that registers candidate generators. The "
                            "plugins of the run are loaded anyway. Repeatable.")
  flags.DEFINE_integer("top_k", 10, "Number of best configurations to report.")
  flags.DEFINE_string("output", None, "Folder of the results. By default predictions/ in the run "
                      "directory, or in the current folder for a bundled run.")
  flags.DEFINE_string("module", None, "Rank only the program of this name, from a file of several.")
  flags.DEFINE_string("target", None, "The hardware that the program is for. The command warns if "
                      "the run was trained for another.")
  flags.DEFINE_enum("tiling", _FROM_TARGET, [_FROM_TARGET, *tile_spaces.TILINGS],
                    "What the bounds of a tile mean, for --candidates=auto. tpu: hardware tiles in "
                    "physical order. elements: any number of elements. xla_cpu: numbers of "
                    "elements that divide their axes. target: chosen by the name of the run's "
                    "target.")
  flags.DEFINE_integer("max_candidates", 4096, "Maximum candidates that auto generates for a "
                       "program. If there are more, it samples.")
  flags.DEFINE_integer("seed", 0, "Seed of the candidates that auto samples.")
  runs.define_strict_flag("programs")
  flags.DEFINE_bool("measure", False, "Measure the best configurations on this machine with the "
                    "collector. It recognises programs of its own catalogues by the module's "
                    "name.")


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  plugins.load_all(values.plugin)
  results = rank(
      values.run_dir, values.hlo, values.candidates, values.top_k, values.module, values.target,
      values.tiling, values.max_candidates, values.seed, values.strict)
  folder = pathlib.Path(values.output or runs.results_folder(values.run_dir) / "predictions")
  stem = pathlib.Path(values.hlo).stem
  as_json, as_raw = folder / f"{stem}.ranked.json", folder / f"{stem}.ranked.pb"
  with files.atomic_write(as_raw) as file:
    file.write(ranked_lib.raw_bytes(results))
  rankings = [ranked_lib.to_json(result) for result in results]
  contents = {"run": str(values.run_dir), "hlo": str(values.hlo), "programs": rankings}
  files.write_json(as_json, contents)
  for result in results:
    print(ranked_lib.table(result) + "\n", flush=True)
  if values.measure:
    for program, comparison in zip(rankings, measure(as_raw, results)):
      program["measured"] = measured.to_json(comparison)
      print(measured.table(comparison) + "\n")
    files.write_json(as_json, contents)
  print(f"ranking: {as_json}\nto measure: {as_raw}")
