"""Do these synthetic programs make a ranker of my collection better? Trains with and without them.

  python -m tpugraphs_rank.cli.augment --collection graphs/collection.json \\
    --synthetic runs/measured/collection.json --output runs/augment
  python -m tpugraphs_rank.cli.augment --collection tile:xla_cpu --budget 10 --seeds 8 \\
    --synthetic runs/measured/collection.json --output runs/augment10

For each seed three short trainings of as many steps: on the real programs; on more lists of the
same real programs; on real and synthetic ones. Prints one table of what they reach on the test
programs, with paired gains and their intervals over families of programs and seeds; writes
results.json and gain.png. --budget draws so many real programs with each seed. What is done is
kept.
"""

import pathlib

from absl import flags

from tpugraphs_rank import files
from tpugraphs_rank import tables
from tpugraphs_rank.cli import augment_cases as cases_lib
from tpugraphs_rank.data import registry
from tpugraphs_rank.synthesis.augment import gains

_NAMES = {gains.REAL: "real", gains.OVERSAMPLED: "real, oversampled"}
_WITH = "real + synthetic"


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("collection", "tile:xla_cpu", "The real programs: a collection, or the path "
                      "of its descriptor.")
  flags.DEFINE_string("synthetic", None, "The measured synthetic programs: a descriptor of the "
                      "same kind and target.", required=True)
  flags.DEFINE_integer("budget", None, "Real programs that train, drawn with each seed; otherwise "
                       "all.", lower_bound=1)
  flags.DEFINE_integer("seeds", 5, "Seeds: 0, 1, ...", lower_bound=1)
  flags.DEFINE_enum("strategy", "measured", list(cases_lib.STRATEGIES), "What becomes of the "
                    "synthetic programs: they train beside the real ones with their runtimes; with "
                    "those that an ensemble is sure of; before the real ones; or the network first "
                    "learns their mean runtime (auxiliary), or what real and synthetic graphs are "
                    "made of, without runtimes (selfsupervised), or that and then runtimes, too "
                    "(selfsupervised_measured).")
  flags.DEFINE_float("synthetic_share", 0.5, "Share of each step's lists that is synthetic.",
                     lower_bound=0.01, upper_bound=1.0)
  flags.DEFINE_float("synthetic_weight", 1.0, "Weight of a synthetic list's loss.")
  flags.DEFINE_boolean("synthetic_any_target", False, "Take synthetic programs that were measured "
                       "on another machine, too.")
  flags.DEFINE_enum("split", "test", ["test", "valid"], "What is judged; valid chose checkpoints.")
  flags.DEFINE_string("config", None, "JSON file with further settings of the trainings; otherwise "
                      "the recipe of the bundled collection of that kind, one network.")
  flags.DEFINE_integer("epochs", 12, "Validations of a training.", lower_bound=1)
  flags.DEFINE_integer("steps_per_epoch", 80, "Steps between two validations.", lower_bound=1)
  flags.DEFINE_integer("jobs", 1, "Trainings at a time.", lower_bound=1)
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
  from tpugraphs_rank.training import run_directory  # TensorFlow: after the trainings' own.

  frame = pd.DataFrame(rows)
  compared, averages = gains.comparisons(frame), gains.means(frame)
  files.write_json(output / "results.json", {
      **run_directory.environment(), "split": values.split, "comparisons": compared,
      "means": averages, "costs": cases_lib.costs(trainings)})
  plots.gain_against_budget(output / "gain.png", {
      f"over {_NAMES[rival]}": {_WITH: series}
      for rival in gains.BASELINES
      for series in gains.gain_series(compared, task, rival).values()})
  first = next(one for one in trainings if one["arm"] == arm)
  print(f"{task} {values.split}: {frame['graph'].nunique()} programs; trained on "
        f"{first['real_programs']} real programs, {first['synthetic_programs']} synthetic ones "
        f"({first['held_back']} left out, {values.split} or validation holds them), "
        f"{first['steps']} steps, {values.seeds} seeds")
  if first.get("steps_before"):
    print(f"{values.strategy}: that is the last training, after {first['steps_before']} steps of "
          "another kind")
  print()
  judged = compared[0]["programs"]
  if judged == "seen":
    print("programs of groups that training has:\n")
  header, table = gains.rows_of(averages, compared, judged)
  names = [_NAMES.get(one["arm"], _WITH) for one in averages]
  print(tables.text(header, [[name, *row[1:]] for name, row in zip(names, table)]))
  print(_verdict(compared[0]))
  unseen = compared[0]["parts"].get("unseen_groups", {}).get(gains.OVERSAMPLED, {})
  if unseen:
    print("On groups that training never saw the gain in tau over real, oversampled is "
          f"{gains.gain_text(unseen['tau'])}.")
  if values.seeds < cases_lib.FEW_SEEDS:
    print(f"{values.seeds} seeds say little about how much trainings differ: intervals are too "
          f"narrow; ask for --seeds {cases_lib.FEW_SEEDS} or more")
  print(f"numbers: {output}/results.json; plot: {output}/gain.png")


def _verdict(found) -> str:
  """The answer in one line."""
  lows = [found[f"low_vs_{gains.RIVALS[rival]}"] for rival in gains.BASELINES]
  highs = [found[f"high_vs_{gains.RIVALS[rival]}"] for rival in gains.BASELINES]
  if min(lows) > 0:
    return "The synthetic programs help: tau is above both others, intervals and all."
  if min(highs) < 0:
    return "The synthetic programs harm: tau is below that of another training, interval and all."
  return "No gain is shown: an interval of the gain in tau holds 0."
