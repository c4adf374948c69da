"""Do measured synthetic programs improve a ranker on real ones? Arms, budgets, paired seeds.

  python -m experiments.augmentation_study --budgets 10 --seeds 3 --first_seed 100 --split valid \\
    --layerdag_collection runs/layerdag_measured/collection.json --output runs/augmentation_screen
  python -m experiments.augmentation_study --budgets 5,10,20,40,all --seeds 8 \\
    --layerdag_collection runs/layerdag_measured/collection.json \\
    --random_collection runs/random_measured/collection.json \\
    --templates_collection runs/templates_measured/collection.json --synthetic_graphs 100 \\
    --output runs/augmentation_study --results results/augmentation.json

A budget is a number of measured real programs. Each seed determines the real programs, the same for
all arms, and the initial weights. All arms take the same number of steps and validate on the same
real programs. Steps for learning about graphs come in addition and are reported separately ("steps
before"):

  real                steps contain the real lists of the mixed arms only
  real_oversampled    further real lists replace the synthetic ones
  layerdag            real lists, and synthetic lists from --layerdag_collection
  layerdag_matched    the same with as many synthetic programs as the smallest source has
  random_graphs       the same number from --random_collection
  templates           the same number from --templates_collection
  layerdag_shuffled   control: the runtimes of each synthetic program are permuted
  layerdag_distilled  confident predictions of an ensemble of rankers, trained on the real programs,
                      replace the measured runtimes
  layerdag_pretrained half of the steps on synthetic lists alone, then half on real ones alone
  layerdag_auxiliary  a second head first learns the label of real and synthetic graphs (the mean
                      normalized runtime); then ranking from real lists alone
  layerdag_selfsupervised  the layers first learn masked nodes and hidden edges of all real training
                      graphs, without runtimes, and of synthetic ones; then ranking as above
  real_auxiliary, real_selfsupervised  controls: the same with real graphs alone
  layerdag_selfsupervised_measured  self-supervised learning as above, then training as in layerdag
  layerdag_only       no real programs are used for training

Arms without their collection are skipped. Select settings and sources with --split valid and other
seeds (--first_seed), because results are optimistic on programs that were used for selection. The
study keeps finished trainings: run it again with more arms, budgets or seeds, and the same
--synthetic_graphs, to continue. It writes study.md, study.json and plots to --output, and the
figures to --results. Intervals hold simultaneously for all arms, budgets and tasks.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from absl import flags

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.cli import augment
from tpugraphs_rank.cli import augment_cases as cases_lib
from tpugraphs_rank.data import registry
from tpugraphs_rank.evaluation import result_tables
from tpugraphs_rank.synthesis.augment import gains as gains_lib

ARMS = tuple(name for name, arm in cases_lib.ARMS.items() if arm.source != cases_lib.SYNTHETIC)
ALL = "all"
_SOURCES = {cases_lib.LAYERDAG: "layerdag_collection", gains_lib.RANDOM: "random_collection",
            gains_lib.TEMPLATES: "templates_collection"}
_PART_TITLES = {"all": "all evaluated programs", "seen": "families that occur in training",
                "unseen_groups": "families that do not occur in training"}


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_list("tasks", ["tile:xla_cpu:v1"], "Collections of real programs, by name or "
                    "descriptor.")
  flags.DEFINE_list("budgets", ["5", "10", "20", "40", ALL], "Numbers of measured real programs "
                    "for training; all: every program.")
  flags.DEFINE_list("arms", list(ARMS), "The arms to compare.")
  flags.DEFINE_integer("seeds", 3, "Number of seeds.", lower_bound=1)
  flags.DEFINE_integer("first_seed", 0, "The first seed.", lower_bound=0)
  for name, flag in _SOURCES.items():
    flags.DEFINE_list(flag, [], f"Synthetic programs of the arm {name}: a descriptor for each kind "
                      "of the tasks, tile or layout.")
  augment.define_training_flags()
  flags.DEFINE_integer("synthetic_graphs", None, "Synthetic programs of each arm, drawn with the "
                       "seed; otherwise all, and in arms of matched numbers as many as the "
                       "smallest source has.", lower_bound=1)
  flags.DEFINE_string("synthetic_held_back", "unseen", "Which twins of validation and test "
                      "programs are left out, as for `tpugraphs-rank train`.")
  flags.DEFINE_boolean("train", True, "Run missing trainings; otherwise report on existing ones.")
  flags.DEFINE_string("output", "runs/augmentation_study", "Folder of the cases and the report.")
  flags.DEFINE_string("results", None, "Also write the figures to this file.")


def budgets_of(texts: Sequence[str]) -> list[int | None]:
  """Parses numbers of programs; None means all programs."""
  budgets: list[int | None] = []
  for text in texts:
    if text != ALL and not (text.isdigit() and int(text) > 0):
      raise errors.ConfigError(
          f"--budgets={','.join(texts)}; expected whole numbers of programs, or all")
    budgets.append(None if text == ALL else int(text))
  return budgets


def settings_of(values: flags.FlagValues) -> dict[str, cases_lib.Settings]:
  """The settings of each task, with the sources of its kind."""
  settings = {}
  for name in values.tasks:
    collection = registry.get_collection(name)
    sources: dict[str, str] = {}
    for source, flag in _SOURCES.items():
      for path in values[flag].value or ():
        if registry.get_collection(path).kind == collection.kind:
          if source in sources:
            raise errors.ConfigError(
                f"--{flag} names two {collection.kind} collections, {sources[source]} and {path}; "
                "expected one of each kind")
          sources[source] = path
    base = cases_lib.recipe(name, values.config, values.epochs, values.steps_per_epoch, {
        f"augment.{key}": values[key].value for key in (
            "synthetic_share", "synthetic_weight", "synthetic_graphs", "synthetic_held_back",
            "synthetic_any_target")})
    settings[collection.name] = cases_lib.equal_numbers(
        cases_lib.Settings(base, sources, values.split))
  return settings


def report(rows: Sequence[Mapping[str, Any]], trainings: Sequence[Mapping[str, Any]]
           ) -> dict[str, Any]:
  """Comparisons, means and costs of the trainings, as JSON values."""
  import pandas as pd

  frame = pd.DataFrame(rows)
  return {"comparisons": gains_lib.comparisons(frame), "means": gains_lib.means(frame),
          "costs": cases_lib.costs(trainings)}


def markdown(results: Mapping[str, Any]) -> str:
  """All tables of a report: for each task, budget and part of the programs, one row an arm."""
  blocks = []
  if results["comparisons"]:
    level = results["comparisons"][0]["level"]
    blocks.append(
        f"Gains are paired by program and seed; intervals of {100 * level:.2f} %, over families of "
        f"programs and over seeds, hold simultaneously at 95 % ({len(results['comparisons'])} "
        "comparisons).\n")
    fewest = min(one["n_seeds"] for one in results["comparisons"])
    if fewest < cases_lib.FEW_SEEDS:
      blocks.append(f"With {fewest} seeds, intervals are too narrow: they say little about how "
                    "much trainings differ.\n")
  for task, budget in dict.fromkeys((one["task"], one["budget"]) for one in results["means"]):
    averages, compared = (gains_lib.of(results[key], task, budget)
                          for key in ("means", "comparisons"))
    for name, title in _PART_TITLES.items():
      header, table = gains_lib.rows_of(averages, compared, name, tuple(gains_lib.RIVALS))
      if table:
        blocks.append(f"## {task}, {budget} programs: {title}\n\n{tables.markdown(header, table)}")
  header = ["task", "budget", "arm", "seeds", "seconds", "CPU seconds", "steps", "steps before",
            "real programs", "synthetic programs", "left out as twins"]
  blocks.append("## Cost of a training\n\n" + tables.markdown(header, [
      [one["task"], str(one["budget"]), one["arm"], str(one["n_seeds"]),
       *(f"{one[key]:.0f}" for key in ("seconds", "cpu_seconds", "steps", "steps_before",
                                       "real_programs", "synthetic_programs", "held_back"))]
      for one in results["costs"]]))
  return "\n".join(blocks)


def readme_table(results: Mapping[str, Any]) -> str:
  """One row per task and budget: tau with real programs alone, and the gain from LayerDAG programs.

  Seen and unseen groups have separate columns where a task has both.
  """
  several = len({one["task"] for one in results["means"]}) > 1
  parts = [name for name in ("seen", "unseen_groups")
           if all(name in one for one in results["means"])]
  parts = parts if len(parts) == 2 else ["all"]
  header = ["measured real programs"]
  for name in parts:
    of = {"seen": "seen groups: ", "unseen_groups": "unseen groups: ", "all": ""}[name]
    header += [f"{of}tau, real", f"{of}real + LayerDAG", f"{of}gain over oversampled"]
  rows = []
  for task, budget in dict.fromkeys((one["task"], one["budget"]) for one in results["means"]):
    by_arm = {one["arm"]: one for one in gains_lib.of(results["means"], task, budget)}
    gains: Mapping[str, Any] = next(
        (one["parts"] for one in gains_lib.of(results["comparisons"], task, budget)
         if one["arm"] == cases_lib.LAYERDAG), {})
    row = [f"{task}, {budget}" if several else str(budget)]
    for name in parts:
      gain = gains.get(name, {}).get(gains_lib.OVERSAMPLED, {}).get("tau")
      row += [*(result_tables.cell("tau", by_arm.get(arm, {}).get(name, {}).get("tau"))
                for arm in (gains_lib.REAL, cases_lib.LAYERDAG)), gains_lib.gain_text(gain)]
    rows.append(row)
  return tables.markdown(header, rows)


def _plot(results: Mapping[str, Any], output: pathlib.Path) -> None:
  from tpugraphs_rank.evaluation import plots

  for task in dict.fromkeys(one["task"] for one in results["comparisons"]):
    for rival in gains_lib.BASELINES:
      panels = {title: gains_lib.gain_series(results["comparisons"], task, rival, name=name)
                for name, title in _PART_TITLES.items()}
      plots.gain_against_budget(
          output / f"gain_over_{rival}_{task.replace(':', '_')}.png",
          {title: arms for title, arms in panels.items() if arms},
          f"gain in Kendall's tau over {rival.replace('_', ' ')}")


def main(argv: list[str]) -> None:
  """Runs the study."""
  values = flags.FLAGS
  unknown = sorted(set(values.arms) - set(ARMS))
  if unknown:
    raise errors.ConfigError(
        f"--arms: no arm {unknown[0]!r}{config_lib.nearest(unknown[0], ARMS)}; the arms are: "
        f"{', '.join(ARMS)}")
  output = pathlib.Path(values.output)
  tasks = settings_of(values)
  seeds = range(values.first_seed, values.first_seed + values.seeds)
  cases = cases_lib.plan(tasks, budgets_of(values.budgets),
                         [arm for arm in ARMS if arm in values.arms], seeds)
  files.write_json(output / "plan.json", cases)
  if values.train:
    cases_lib.run_all(cases, output, values.jobs)
  rows, trainings = cases_lib.read(cases, output)
  if not rows:
    raise errors.DataError(
        f"{output} contains no finished training of this study; run it without --notrain")
  figures = report(rows, trainings)
  from tpugraphs_rank.training import run_directory

  results = {
      **run_directory.environment(), "cases": len(cases), "cases_done": len(trainings),
      "seeds": list(seeds), "split": values.split,
      "tasks": {name: {
          "config": config_lib.to_dict(settings.base),
          "synthetic": {source: {"name": registry.get_collection(path).name,
                                 "digest": cases_lib.digest(path)}
                        for source, path in settings.sources.items()}}
          for name, settings in tasks.items()}, **figures}
  files.write_json(output / "study.json", results)
  text = markdown(figures)
  files.write_text(output / "study.md", text)
  _plot(figures, output)
  if values.results:
    files.write_json(values.results, results)
  print(text)
  print(f"{len(trainings)} of {len(cases)} cases: {output}/study.md, study.json, and plots")


if __name__ == "__main__":
  app.run(main, define_flags)
