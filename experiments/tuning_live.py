"""Tunes programs that are in no collection on this machine, and checks what the tuner reports.

  python -m experiments.tuning_live --output runs/tuning_live --results results/tuning_live.json

The programs are those of `foreign_programs`, and those in --hlo. For each: `tune`; the best and the
default again in a fresh process, whose speedup should be within the reported interval; and random
configurations, measured by `collect hlo`, the best of which is also measured again. The figures
show which share of the gain of that many random configurations the tuner finds. Programs that are
refused are listed with the reason.

Each program's figures are in a file `study.json` once they are complete, and the results are
written after each program. After an interruption, the same command resumes. Run it while the
machine does nothing else.
"""

import math
import pathlib
import time
from typing import Any

from absl import flags
import numpy as np
import tqdm

from experiments import foreign_programs
from tpugraphs_rank import collect
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.collect.hlo import prepare
from tpugraphs_rank.collect.hlo import session as session_lib
from tpugraphs_rank.collect.hlo import tune
from tpugraphs_rank.training import run_directory

_DONE = "study.json"


def of_program(path: pathlib.Path, output: pathlib.Path, measurements: int, random: int, seed: int
               ) -> dict[str, Any]:
  """Tunes one program and checks the result, unless that is done.

  Raises:
    TpuGraphsRankError: the program is refused.
  """
  if (output / _DONE).exists():
    return files.read_json(output / _DONE)
  start = time.monotonic()
  program, text = prepare.read(path)
  tuned = tune.tune(output / "tuned", program, text, tune.Settings(measurements, seed=seed))
  entry: dict[str, Any] = {
      "measurements": tuned["measurements"], "failed": tuned["failed"], "why": tuned["why"],
      "instructions": len(tuned["nodes"]), "is_faster": tuned["is_faster"],
      "default_ms": 1e3 * tuned["best"]["default_seconds"], "confirmed": tuned["confirmed"],
      "tune_seconds": round(time.monotonic() - start, 1)}
  if tuned["confirmed"] is not None:
    entry["again"] = _again(output, program.source, tuned["best"]["layouts"], seed)
    low, high = tuned["confirmed"]["interval"]
    entry["repeats"] = low <= entry["again"] <= high
  if random:
    prepare.prepare(output / "random", program, text,
                    prepare.random_configurations(program, random, seed),
                    prepare.Settings(seed, xla_flags=tune.Settings().xla_flags))
    report = collect.measure_hlo(output / "random")
    entry["random"] = {
        "measured": report["measured"], "dropped": report["dropped"], "tau": report["tau"],
        "speedup": report["default_ns"] / report["best_ns"],
        "again": _again(output, program.source, report["ranking"][0]["layouts"], seed)}
  entry["seconds"] = round(time.monotonic() - start, 1)
  files.write_json(output / _DONE, entry)
  return entry


def _again(output: pathlib.Path, source: str, layouts: str, seed: int) -> float:
  """The speedup of a configuration over the default in a fresh process.

  Raises:
    DataError: it fails.
  """
  with session_lib.Session(output / "tuned", source, seed=seed + 5000) as session:
    answer = session.ask("measure", layouts, [layouts])
  if "seconds" not in answer:
    raise errors.DataError(f"{source}: {answer['reason']}")
  return answer["default_seconds"] / answer["seconds"]


def summary(entries: dict[str, Any]) -> dict[str, Any]:
  """Figures over all programs.

  Returns:
    `tuned` and `refused`: numbers of programs; `repeats`: of those whose best was measured again,
    how many were within the interval; `mean_gain`: the geometric mean of the speedups, 1 for a
    program without a gain; `random_gain`: that of the best random configurations, measured again,
    1 if that was slower than the default; `share`: of the logarithms of the two.
  """
  tuned = [entry for entry in entries.values() if "refused" not in entry]
  again = [entry["repeats"] for entry in tuned if "repeats" in entry]
  gain = _mean_logarithm([entry["again"] if entry["is_faster"] else 1.0 for entry in tuned])
  result = {"tuned": len(tuned), "refused": len(entries) - len(tuned),
            "measured_again": len(again), "repeats": sum(again), "mean_gain": math.exp(gain)}
  if tuned and all("random" in entry for entry in tuned):
    random = _mean_logarithm([max(entry["random"]["again"], 1.0) for entry in tuned])
    result |= {"random_gain": math.exp(random), "share": gain / random if random else None}
  return result


def _mean_logarithm(values: list[float]) -> float:
  return float(np.mean(np.log(values))) if values else 0.0


def table(results: dict[str, Any]) -> str:
  """A row for each program."""
  rows = []
  for name, entry in results["programs"].items():
    name = f"`{name.partition('.hlo')[0]}`"
    if "refused" in entry:
      rows.append([name, "-", "-", "refused", "-", "-"])
      continue
    confirmed = entry["confirmed"]
    gain = "the default is best" if confirmed is None else (
        f"{confirmed['speedup']:.3f} ({confirmed['interval'][0]:.3f} to "
        f"{confirmed['interval'][1]:.3f})")
    rows.append([name, f"{entry['default_ms']:.2f}", str(entry["measurements"]), gain,
                 f"{entry['again']:.3f}" if "again" in entry else "-",
                 f"{entry['random']['again']:.3f}" if "random" in entry else "-"])
  return tables.markdown(
      ["program", "default, ms", "measurements", "speedup (interval)", "again",
       "best of random, again"], rows)


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_list("hlo", [], "More programs: files with HLO.")
  flags.DEFINE_list("only", [], "Only programs whose file names contain one of these words.")
  flags.DEFINE_string("output", "runs/tuning_live", "Folder of the measurements.")
  flags.DEFINE_integer("measurements", 20, "Measurements of a program.", lower_bound=2)
  flags.DEFINE_integer("random", 30, "Random configurations to measure, including the default; "
                       "0: none.", lower_bound=0)
  flags.DEFINE_integer("seed", 0, "Seed.")
  flags.DEFINE_string("results", None, "File of the results.")


def main(_: list[str]) -> None:
  """Runs the study."""
  values = flags.FLAGS
  output = pathlib.Path(values.output)
  paths = [path for path in foreign_programs.export(
      output / "programs", [pathlib.Path(name) for name in values.hlo])
           if not values.only or any(word in path.name for word in values.only)]
  entries: dict[str, Any] = {}
  results: dict[str, Any] = {"programs": {}}
  for path in tqdm.tqdm(paths, desc="study", unit="program", disable=None):
    try:
      entries[path.name] = of_program(path, output / path.name.partition(".hlo")[0],
                                      values.measurements, values.random, values.seed)
    except errors.TpuGraphsRankError as error:
      entries[path.name] = {"refused": str(error)}
    results = {**run_directory.environment(), "seeds": [values.seed],
               "random_configurations": values.random, **summary(entries), "programs": entries}
    if values.results:
      files.write_json(values.results, results)
  print(table(results))
  for name, entry in entries.items():
    if "refused" in entry:
      print(f"{name} is refused: {entry['refused']}")


if __name__ == "__main__":
  app.run(main, define_flags)
