"""Test whether synthetic programs improve a ranker.

  tpugraphs-rank augment --collection graphs/collection.json \\
    --synthetic runs/measured/collection.json --output runs/augment
  tpugraphs-rank augment --collection tile:xla_cpu --budget 10 --seeds 8 \\
    --synthetic runs/measured/collection.json --output runs/augment10

For each seed, the command runs three short trainings with the same number of steps: on the real
programs, on more lists of the same real programs (oversampled), and on real and synthetic programs.
It prints a table of their results on the test programs, with paired gains and intervals over
families of programs and seeds, and writes results.json and gain.png. With --budget, each seed draws
that many real programs. Finished trainings are kept; run the command again to resume.
"""

from collections.abc import Mapping
import pathlib
from typing import Any

from absl import flags

from tpugraphs_rank import files
from tpugraphs_rank import tables
from tpugraphs_rank.cli import augment_cases as cases_lib
from tpugraphs_rank.cli import runs
from tpugraphs_rank.data import registry
from tpugraphs_rank.synthesis.augment import gains

_NAMES = {gains.REAL: "real", gains.OVERSAMPLED: "real, oversampled"}
_WITH = "real + synthetic"


def define_training_flags() -> None:
  """Defines the flags of trainings with synthetic programs, which studies have too."""
  flags.DEFINE_float("synthetic_share", 0.5, "Share of each step's lists that is synthetic.",
                     lower_bound=0.01, upper_bound=1.0)
  flags.DEFINE_float("synthetic_weight", 1.0, "Weight of a synthetic list in the loss.")
  flags.DEFINE_boolean("synthetic_any_target", False, "Also use synthetic programs that were "
                       "measured on another machine.")
  flags.DEFINE_enum("split", "test", ["test", "valid"], "Split to evaluate on. Checkpoints "
                    "were already selected on the validation split.")
  flags.DEFINE_string("config", None, "Recipe (by name) or JSON file with further settings. By "
                      "default the recipe of the bundled collection of the same kind, with one "
                      "network.")
  runs.define_trust_flag()
  flags.DEFINE_integer("epochs", 12, "Number of validations in a training.", lower_bound=1)
  flags.DEFINE_integer("steps_per_epoch", 80, "Steps between two validations.", lower_bound=1)
  flags.DEFINE_integer("jobs", 1, "Trainings to run at the same time.", lower_bound=1)


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("collection", "tile:xla_cpu:v1", "The real programs: name of a collection, "
                      "or path of its JSON descriptor.")
  flags.DEFINE_string("synthetic", None, "The measured synthetic programs: descriptor of a "
                      "collection of the same kind and target.", required=True)
  flags.DEFINE_integer("budget", None, "Number of real training programs, drawn with each seed. By "
                       "default all.", lower_bound=1)
  flags.DEFINE_integer("seeds", 5, "Number of seeds: 0, 1, ...", lower_bound=1)
  flags.DEFINE_enum(
      "strategy", "measured", list(cases_lib.STRATEGIES), "How training uses the synthetic "
      "programs. measured: together with the real ones, with their runtimes. distilled: with the "
      "labels that an ensemble agrees on. pretrained: before the real ones. auxiliary: the network "
      "first learns their mean runtime. selfsupervised: it first learns the contents of real and "
      "synthetic graphs, without runtimes. selfsupervised_measured: the same, then with runtimes.")
  define_training_flags()
  flags.DEFINE_string("output", "runs/augment", "Folder of the trainings and the report.")


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  output = pathlib.Path(values.output)
  base = cases_lib.recipe(
      values.collection, values.config, values.epochs, values.steps_per_epoch, {
          f"augment.{key}": values[key].value for key in (
            "synthetic_share", "synthetic_weight", "synthetic_any_target")})
  task = registry.get_collection(values.collection).name
  arm = cases_lib.SYNTHETIC + (
      "" if values.strategy == "measured" else f"_{values.strategy}")
  cases = cases_lib.plan(
      {task: cases_lib.Settings(base, {cases_lib.SYNTHETIC: values.synthetic}, values.split)},
      [values.budget], [*_NAMES, arm], range(values.seeds))
  cases_lib.run_all(cases, output, values.jobs)
  rows, trainings = cases_lib.read(cases, output)

  import pandas as pd

  from tpugraphs_rank.evaluation import plots
  from tpugraphs_rank.training import run_directory

  frame = pd.DataFrame(rows)
  comparisons, averages = gains.comparisons(frame), gains.means(frame)
  files.write_json(output / "results.json", {
      **run_directory.environment(), "split": values.split, "comparisons": comparisons,
      "means": averages, "costs": cases_lib.costs(trainings)})
  plots.gain_against_budget(output / "gain.png", {
      f"over {_NAMES[rival]}": {_WITH: series}
      for rival in gains.BASELINES
      for series in gains.gain_series(comparisons, task, rival).values()})
  first = next(training for training in trainings if training["arm"] == arm)
  print(f"{task} {values.split}: {frame['graph'].nunique()} programs. Training used "
        f"{first['real_programs']} real and {first['synthetic_programs']} synthetic programs "
        f"({first['held_back']} synthetic ones were left out, because validation or test contains "
        f"them), {first['steps']} steps, {values.seeds} seeds.")
  if first.get("steps_before"):
    print(f"{values.strategy}: these are the numbers of the last training; "
          f"{first['steps_before']} steps of another kind came before it.")
  print()
  programs = comparisons[0]["programs"]
  if programs == "seen":
    print("The evaluated programs belong to groups that are in training.\n")
  header, table = gains.rows_of(averages, comparisons, programs)
  names = [_NAMES.get(average["arm"], _WITH) for average in averages]
  print(tables.text(header, [[name, *row[1:]] for name, row in zip(names, table)]))
  print(_verdict(comparisons[0]))
  unseen = comparisons[0]["parts"].get("unseen_groups", {}).get(gains.OVERSAMPLED, {})
  if unseen:
    print("On groups that are not in training, the gain in tau over real, oversampled is "
          f"{gains.gain_text(unseen['tau'])}.")
  if values.seeds < cases_lib.FEW_SEEDS:
    print(f"{values.seeds} seeds do not show how much trainings vary, so the intervals are too "
          f"narrow; use --seeds {cases_lib.FEW_SEEDS} or more.")
  print(f"numbers: {output}/results.json; plot: {output}/gain.png")


def _verdict(comparison: Mapping[str, Any]) -> str:
  """The answer in one line."""
  lows = [comparison[f"low_vs_{gains.RIVALS[rival]}"] for rival in gains.BASELINES]
  highs = [comparison[f"high_vs_{gains.RIVALS[rival]}"] for rival in gains.BASELINES]
  if min(lows) > 0:
    return ("The synthetic programs help: tau is higher than in both other trainings, and the "
            "intervals exclude 0.")
  if min(highs) < 0:
    return ("The synthetic programs harm: tau is lower than in another training, and the interval "
            "excludes 0.")
  return "No gain is shown: an interval of the gain in tau includes 0."
