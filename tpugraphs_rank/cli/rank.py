"""Ranks configurations of your own program with a trained run.

  python -m tpugraphs_rank.cli.rank --run_dir runs/first --hlo my_kernel.pb --candidates auto --top_k 5
  python -m tpugraphs_rank.cli.rank --run_dir runs/first --hlo my_program.pb --candidates mine.npz

Takes what XLA dumps (--xla_dump_hlo_as_proto) and JAX writes, and raw files of measured programs.
Prints the best configurations and writes into `predictions/` of the run directory (or --output)

  <file>.ranked.json  the best configurations, their scores, and how candidates were found
  <file>.ranked.pb    the same as raw data without measurements: a TuningData of kernels (tile
                      sizes), or the ModuleTuningData of a program (layouts)

The raw file can be measured, and be given as --hlo again. --measure hands it to the collector,
which knows the programs of its own catalogues, and compares predicted and measured.
"""

from collections.abc import Sequence
import hashlib
import logging
import pathlib
import subprocess

from absl import flags
import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.candidates import measured
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.candidates import ranking as ranked_lib
from tpugraphs_rank.candidates import tile_spaces
from tpugraphs_rank.hlo import reading

_FROM_TARGET = "target"
# The collector runs in an environment of its own, which this makes where it is not there yet.
_COLLECTOR = (str(pathlib.Path(__file__).resolve().parents[1] / "run"), "remeasure")

_log = logging.getLogger("tpugraphs_rank.rank")


def rank(run_dir: files.PathLike, hlo: files.PathLike, candidates: str = "", top_k: int = 10,
         module: str | None = None, target: str | None = None,
         tiling: str = _FROM_TARGET, max_candidates: int = 4096, seed: int = 0,
         strict: bool = False) -> list[ranked_lib.Ranked]:
  """Ranks the candidates of each program in a file.

  Args:
    run_dir: of a trained run.
    hlo: a raw file, see `programs.read`.
    candidates: `auto`, `runs`, an `.npz` file or "", see `programs.find`.
    top_k: how many of the best are wanted.
    module: only the program of this name.
    target: the hardware that the programs are for; None: the run's.
    tiling: one of `tile_spaces.TILINGS`, or `target`: as the run's target has it.
    max_candidates: the most that `auto` makes for a program.
    seed: of `auto`.
    strict: refuse programs that the run does not fit, instead of warning.

  Raises:
    ConfigError: a number is not positive, or a file of several programs needs `module`.
    CompatibilityError: the run cannot score a program; or, where `strict`, it is of another target
      or has opcodes that training never saw.
    TpuGraphsRankError: the run directory, the file or the candidates are damaged.
  """
  if top_k < 1 or max_candidates < 1:
    raise errors.ConfigError(
        f"--top_k={top_k} --max_candidates={max_candidates}: expected 1 or more")
  found = programs.read(hlo, module)
  # TensorFlow: not before it is known that there is something to rank.
  from tpugraphs_rank.training import run as run_lib
  run = run_lib.load_run(run_dir, strict)
  kind = run.about["kind"]
  is_file = candidates not in ("", programs.AUTO, programs.RUNS)
  if len(found) > 1 and (is_file or kind == "layout"):
    raise errors.ConfigError(
        f"{hlo} has {len(found)} programs; expected one, as "
        + (f"{candidates} holds the candidates of one" if is_file else
           "a raw file holds the layouts of one") + ": choose it with --module NAME")
  if target is None:
    _log.info("taking %s to be for the run's target, %r; --target checks it", hlo,
              run.about.get("target"))
  else:
    run.check_target(target)
  if tiling == _FROM_TARGET:
    tiling = tile_spaces.tiling_of(run.about.get("target"))
  chosen = [programs.find(program, kind, candidates, tiling, max_candidates, seed)
            for program in tqdm.tqdm(found, desc="candidates", unit="program", disable=None)]
  graphs = (
      programs.to_graph(program, listed, run.normalizer.feature_padding)
      for program, listed in zip(found, chosen))
  scored = tqdm.tqdm(run.score_each(graphs), total=len(found), desc="scores", unit="program",
                     disable=None)
  return [ranked_lib.rank(program, listed, scores, top_k)
          # Scores first: what is unseen is said once they are at their end.
          for (_, scores), program, listed in zip(scored, found, chosen)]


def measure(raw: pathlib.Path, results: Sequence[ranked_lib.Ranked]) -> list[measured.Measured]:
  """Has the collector measure what a raw file of the results holds.

  The measurements stay beside the file, in a folder that is named after it and its content.

  Raises:
    CompatibilityError: a program is not one of the collector's.
    OutputError: the collector failed.
    DataError: too little could be measured.
  """
  from tpugraphs_rank.collect import remeasure
  remeasure.check_known([result.program.data.module.name for result in results],
                        results[0].candidates.kind == "layout")
  digest = hashlib.sha256(raw.read_bytes()).hexdigest()[:8]
  folder = raw.with_name(f"{raw.stem}.{digest}.measured").resolve()
  done = subprocess.run(
      [*_COLLECTOR, str(raw.resolve()), str(folder)], stdin=subprocess.DEVNULL, check=False)
  if done.returncode:
    raise errors.OutputError(
        f"the collector ended with status {done.returncode} (its messages are above); what it "
        f"measured is in {folder}: run the same command to go on")
  passes = [{data.module.name: data for data in reading.read_raw(path).modules}
            for path in sorted(folder.glob("pass*.pb"))]
  return [measured.compare(result, [found[result.program.data.module.name] for found in passes])
          for result in results]


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("run_dir", None, "Folder of the run.", required=True)
  flags.DEFINE_string("hlo", None, "The program: a .pb file that XLA or JAX has written, or a raw "
                      "TuningData or ModuleTuningData.", required=True)
  flags.DEFINE_string(
      "candidates", "", "auto: tiles or layouts that the program admits; runs: those of the raw "
      "file's own runs, measured or not; otherwise an .npz file with config_feat, or "
      "node_config_ids and node_config_feat. Without it: runs where there are any, else auto.")
  flags.DEFINE_integer("top_k", 10, "How many of the best configurations are wanted.")
  flags.DEFINE_string("output", None, "Folder of the results, instead of the run directory's "
                      "predictions.")
  flags.DEFINE_string("module", None, "Only the program of this name, of a file of several.")
  flags.DEFINE_string("target", None, "The hardware that the program is for; another than the "
                      "run's is warned about.")
  flags.DEFINE_enum("tiling", _FROM_TARGET, [_FROM_TARGET, *tile_spaces.TILINGS],
                    "What the bounds of a tile mean, for --candidates=auto: tpu, hardware tiles in "
                    "physical order; elements; xla_cpu, elements that divide their axes. target: "
                    "by the name of the run's target.")
  flags.DEFINE_integer("max_candidates", 4096, "The most that auto makes for a program; where "
                       "there are more, they are drawn at random.")
  flags.DEFINE_integer("seed", 0, "Seed of what auto draws.")
  flags.DEFINE_bool("strict", False, "Refuse programs that the run does not fit (another target, "
                    "opcodes never seen), instead of warning.")
  flags.DEFINE_bool("measure", False, "Measure the best configurations with the collector, on this "
                    "machine: programs of its catalogues only, known by the module's name.")


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  results = rank(
      values.run_dir, values.hlo, values.candidates, values.top_k, values.module, values.target,
      values.tiling, values.max_candidates, values.seed, values.strict)
  folder = pathlib.Path(values.output or pathlib.Path(values.run_dir) / "predictions")
  stem = pathlib.Path(values.hlo).stem
  as_json, as_raw = folder / f"{stem}.ranked.json", folder / f"{stem}.ranked.pb"
  with files.atomic_write(as_raw) as file:
    file.write(ranked_lib.raw_bytes(results))
  listed = [ranked_lib.to_json(result) for result in results]
  contents = {"run": str(values.run_dir), "hlo": str(values.hlo), "programs": listed}
  files.write_json(as_json, contents)
  for result in results:
    print(ranked_lib.table(result) + "\n", flush=True)
  if values.measure:
    for program, comparison in zip(listed, measure(as_raw, results)):
      program["measured"] = measured.to_json(comparison)
      print(measured.table(comparison) + "\n")
    files.write_json(as_json, contents)
  print(f"ranking: {as_json}\nto measure: {as_raw}")
