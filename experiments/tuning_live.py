"""Tunes programs that are in no collection on this machine, and checks what the tuner reports.

  python -m experiments.tuning_live --programs a.hlo.pb,b.hlo.pb --output runs/live \\
      --measurements 40 --random 200 --results results/tuning_live.json

For each program: `tune`; the best and the default again in a fresh process, which should be within
the reported interval; and a number of random configurations, measured one and all by `collect hlo`,
to see which share of their best gain the tuner finds. Programs that are refused are listed with the
reason. After an interruption, the same command resumes.
"""

import pathlib
from typing import Any

from absl import flags
import numpy as np

from tpugraphs_rank import collect
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.collect.hlo import prepare
from tpugraphs_rank.collect.hlo import session as session_lib
from tpugraphs_rank.collect.hlo import tune
from tpugraphs_rank.training import run_directory


def of_program(path: pathlib.Path, output: pathlib.Path, measurements: int, random: int, seed: int
               ) -> dict[str, Any]:
  """Tunes one program and checks the result.

  Raises:
    TpuGraphsRankError: the program is refused.
  """
  program, text = prepare.read(path)
  tuned = tune.tune(output / "tuned", program, text, tune.Settings(measurements, seed=seed))
  entry: dict[str, Any] = {
      "measurements": tuned["measurements"], "failed": tuned["failed"], "why": tuned["why"],
      "sites": len(tuned["nodes"]), "is_faster": tuned["is_faster"],
      "confirmed": tuned["confirmed"]}
  if tuned["confirmed"] is not None:
    with session_lib.Session(output / "tuned", program.source, seed=seed + 5000) as session:
      again = session.ask("measure", tuned["best"]["layouts"])
    low, high = tuned["confirmed"]["interval"]
    entry["again"] = again["default_seconds"] / again["seconds"]
    entry["repeats"] = low <= entry["again"] <= high
  if random:
    prepare.prepare(output / "random", program, text,
                    prepare.random_configurations(program, random, seed), prepare.Settings(seed))
    report = collect.measure_hlo(output / "random")
    entry["random"] = {"measured": report["measured"], "tau": report["tau"],
                       "speedup": report["default_ns"] / report["best_ns"]}
  return entry


def table(results: dict[str, Any]) -> str:
  """A row for each program."""
  rows = []
  for name, entry in results["programs"].items():
    if "refused" in entry:
      rows.append([name, "refused", "", "", entry["refused"][:60]])
      continue
    confirmed = entry["confirmed"]
    gain = "1.000" if confirmed is None else (
        f"{confirmed['speedup']:.3f} ({confirmed['interval'][0]:.3f} to "
        f"{confirmed['interval'][1]:.3f})")
    rows.append([name, str(entry["measurements"]), gain, f"{entry.get('again', 1.0):.3f}",
                 f"{entry['random']['speedup']:.3f}" if "random" in entry else "-"])
  return tables.markdown(
      ["program", "measurements", "speedup (interval)", "again", "best of random"], rows)


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_list("programs", None, "Files with HLO.", required=True)
  flags.DEFINE_string("output", "runs/tuning_live", "Folder of the measurements.")
  flags.DEFINE_integer("measurements", 40, "Measurements of a program.", lower_bound=2)
  flags.DEFINE_integer("random", 200, "Random configurations to measure; 0: none.")
  flags.DEFINE_integer("seed", 0, "Seed.")
  flags.DEFINE_string("results", None, "File of the results.")


def main(_: list[str]) -> None:
  """Runs the study."""
  values = flags.FLAGS
  entries: dict[str, Any] = {}
  results: dict[str, Any] = {}
  for path in map(pathlib.Path, values.programs):
    try:
      entries[path.name] = of_program(path, pathlib.Path(values.output) / path.name,
                                      values.measurements, values.random, values.seed)
    except errors.TpuGraphsRankError as error:
      entries[path.name] = {"refused": str(error)}
    gains = [np.log(entry["confirmed"]["speedup"]) for entry in entries.values()
             if entry.get("is_faster")]
    results = {**run_directory.environment(), "seeds": [values.seed], "programs": entries,
               "mean_gain": float(np.exp(np.sum(gains) / max(len(entries), 1)))}
    if values.results:
      files.write_json(values.results, results)
  print(table(results))


if __name__ == "__main__":
  app.run(main, define_flags)
