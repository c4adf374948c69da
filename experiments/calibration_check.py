"""Checks the calibration of the bundled models on their test splits, which it was not fitted on.

  python -m experiments.calibration_check --results results/calibration.json

A calibration says for each lead over the default how many validation configurations with such a
lead were faster. This study counts how many configurations of the test programs were, for families
that training saw and for groups that it never saw.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.metrics import calibration as calibration_lib
from tpugraphs_rank.metrics import evidence as evidence_lib
from tpugraphs_rank.training import run_directory

SEEN, UNSEEN = PARTS = ("seen groups", "unseen groups")


def check(calibration: calibration_lib.Calibration,
          programs: Sequence[calibration_lib.Program]) -> dict[str, Any]:
  """What happened to the configurations of each bin, and scores over all bins.

  Args:
    calibration: fitted on other programs.
    programs: their measured configurations.
  """
  outcomes = calibration_lib.outcomes(calibration, programs)
  total = sum(outcome.candidates for outcome in outcomes)
  error = sum(abs(one.faster - outcome.faster) * outcome.candidates / total
              for one, outcome in zip(calibration.bins, outcomes) if outcome.faster is not None)
  return {"programs": len(programs), "candidates": total,
          "brier_score": calibration_lib.brier_score(calibration, programs),
          "mean_error_of_shares": error, "bins": [outcome._asdict() for outcome in outcomes]}


def of_model(name: str) -> dict[str, Any]:
  """The calibration of a bundled model, and what happened on its test split, by part.

  Raises:
    RunDirectoryError: it has no calibration.
  """
  from tpugraphs_rank.data import registry  # These import TensorFlow.
  from tpugraphs_rank.evaluation import calibrating
  from tpugraphs_rank.training import run as run_lib
  run = run_lib.load_run(f"{run_directory.BUNDLED}{name}")
  evidence = run.evidence
  if evidence is None or evidence.calibration is None:
    raise errors.RunDirectoryError(f"{run.directory} has no calibration")
  collection = registry.get_collection(run.config.data.collection)
  seen = {collection.group(program.graph.name) for program, _ in calibrating.scored(run, "train")}
  parts: dict[str, list[calibration_lib.Program]] = {part: [] for part in PARTS}
  for program, scored in calibrating.scored(run, "test"):
    if scored.default is not None:
      parts[SEEN if collection.group(program.graph.name) in seen else UNSEEN].append(
          evidence_lib.against_default(scored))
  return {"calibration": evidence.calibration.to_json(),
          "test": {part: check(evidence.calibration, programs)
                   for part, programs in parts.items() if programs}}


def table(results: dict[str, Any]) -> str:
  """The table of the documentation: a row for each bin of each model."""
  rows = []
  for name, model in results["calibrations"].items():
    for place, one in enumerate(model["calibration"]["bins"]):
      low, high = one["faster_interval"]
      lead = "lowest" if one["least_lead"] is None else f"{one['least_lead']:.2f}"
      parts = [model["test"].get(part, {}).get("bins") for part in PARTS]
      rows.append([
          f"`{name}`", lead, f"{100 * one['faster']:.0f} ({100 * low:.0f} to {100 * high:.0f})",
          f"{one['speedup']:.2f}x ({one['speedup_half'][0]:.2f} to {one['speedup_half'][1]:.2f})",
          *(_outcome(bins[place] if bins else None) for bins in parts)])
  return tables.markdown(
      ["model", "lead from", "validation: % faster (90 % interval)", "default / runtime (half)",
       *(f"test, {part}: % faster, median" for part in PARTS)],
      rows)


def _outcome(outcome: dict[str, Any] | None) -> str:
  if outcome is None or outcome["faster"] is None:
    return "-"
  return (f"{100 * outcome['faster']:.0f} of {outcome['candidates']}, "
          f"{outcome['speedup']:.2f}x")


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("results", None, "File of the results.")


def main(_) -> None:
  """Runs the check."""
  results = {**run_directory.environment(), "seeds": [0], "calibrations": {
      name: of_model(name) for name in run_directory.bundled_names()}}
  if flags.FLAGS.results:
    files.write_json(flags.FLAGS.results, results)
  print(table(results))
  for name, model in results["calibrations"].items():
    for part, figures in model["test"].items():
      print(f"{name}, {part}: {figures['programs']} programs, Brier score "
            f"{figures['brier_score']:.3f}, mean error of shares "
            f"{figures['mean_error_of_shares']:.3f}")


if __name__ == "__main__":
  app.run(main, define_flags)
