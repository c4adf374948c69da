"""Final figures of the chosen rankers and of their parts on the test splits.

  python -m experiments.quality_study --output runs/quality --results results/quality.json

Trains the ensemble recipes of both bundled collections, and evaluates on the test split:

  ensemble       networks, boosted trees and, for tiles, the analytic prior: the recipe as it is
  residual_gnn   the same runs without their trees
  no_prior       the same without trees and prior (tiles only)
  attention_gnn  the recipe without trees, with the other model (with --attention)

and all baselines. `chosen` is the ranker that was chosen on validation, the ensemble. The study
keeps finished runs: run it again to continue.
"""

from collections.abc import Mapping, Sequence
import pathlib
import shutil
from typing import Any

from absl import flags

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import files
from tpugraphs_rank import recipes
from tpugraphs_rank import run_config
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.evaluation import baselines
from tpugraphs_rank.evaluation import bootstrap
from tpugraphs_rank.evaluation import comparison
from tpugraphs_rank.evaluation import per_graph
from tpugraphs_rank.evaluation import result_tables
from tpugraphs_rank.training import parallel
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import tile_prior
from tpugraphs_rank.training import tree_member

RECIPES = ("tile_xla_cpu_ensemble", "layout_xla_cpu_mixed_ensemble")
ENSEMBLE, RESIDUAL, NO_PRIOR, ATTENTION, CHOSEN = (
    "ensemble", "residual_gnn", "no_prior", "attention_gnn", "chosen")
_TREES = (tree_member.FILE, tree_member.ARRAYS)
_FIGURES = ("opa", "tau", "top1_slowdown", "top5_slowdown", "top10_slowdown",
            f"top1_{per_graph.GAIN}", f"top10_{per_graph.GAIN}", per_graph.MEASURED)


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("output", "runs/quality", "Folder of the runs.")
  flags.DEFINE_string("results", None, "Writes the figures to this JSON file.")
  flags.DEFINE_list("recipes", list(RECIPES), "Recipes of ensembles to train.")
  flags.DEFINE_integer("seeds", 1, "Number of seeds.", lower_bound=1)
  flags.DEFINE_bool("attention", False, "Also train the other model.")
  flags.DEFINE_integer("epochs", None, "Epochs instead of those of the recipe.", lower_bound=1)
  flags.DEFINE_list("baselines", None, "Baselines instead of all that fit the collection.")


def configs_of(recipe: str, seeds: Sequence[int], attention: bool, epochs: int | None
               ) -> dict[str, run_config.RunConfig]:
  """The configuration of each run, by name."""
  base = config_lib.from_dict(run_config.RunConfig, recipes.read(recipe), source=recipe)
  if epochs is not None:
    base = config_lib.override(base, {"training.epochs": epochs})
  changes: dict[str, dict[str, Any]] = {ENSEMBLE: {}}
  if attention:
    changes[ATTENTION] = {"model.model": ATTENTION, "model.trees_weight": 0.0}
  return {f"{name}-seed{seed}": config_lib.override(base, {**change, "training.seed": seed})
          for name, change in changes.items() for seed in seeds}


def without(path: pathlib.Path, name: str, removed: Sequence[str]) -> pathlib.Path:
  """A copy of a run without some of its files, which therefore scores without them."""
  copy = path.with_name(path.name.replace(ENSEMBLE, name))
  shutil.rmtree(copy, ignore_errors=True)
  shutil.copytree(path, copy, ignore=shutil.ignore_patterns("tensorboard", *removed))
  return copy


def evaluate(recipe: str, folder: pathlib.Path, seeds: Sequence[int], attention: bool,
             epochs: int | None, names: Sequence[str] | None) -> comparison.Comparison:
  """Trains the runs of a recipe and compares them on the test split."""
  configs = configs_of(recipe, seeds, attention, epochs)
  paths = parallel.train_all(configs, folder / recipe)
  is_tile = next(iter(configs.values())).data.collection.startswith("tile")
  runs: dict[str, list[files.PathLike]] = {}
  for name, path in paths.items():
    kind = name.partition("-")[0]
    runs.setdefault(kind, []).append(path)
    if kind == ENSEMBLE:
      runs.setdefault(RESIDUAL, []).append(without(path, RESIDUAL, _TREES))
      if is_tile:
        runs.setdefault(NO_PRIOR, []).append(
            without(path, NO_PRIOR, (*_TREES, tile_prior.FILE)))
  if names is None:
    names = [name for name in baselines.NAMES if is_tile or name != baselines.ANALYTIC_COST]
  return comparison.compare(runs, "test", seeds, names)


def figures(compared: comparison.Comparison) -> dict[str, dict[str, Any]]:
  """For each part of the split and each ranker its figures, and what `chosen` gains on each."""
  result: dict[str, dict[str, Any]] = {}
  for suffix, part in compared.parts.items():
    frames = {name: [part(frame) for frame in each] for name, each in compared.frames.items()}
    rows = {name: {key: value for key, value in result_tables.figures(each).items()
                   if key in _FIGURES} for name, each in frames.items()}
    gains = bootstrap.paired_differences(
        frames, ENSEMBLE, [name for name in frames if name != ENSEMBLE])
    title = compared.task.collection.name + suffix.replace("_", " ")
    result[title] = {CHOSEN: rows[ENSEMBLE], **rows}
    result[f"{title}, gains of {CHOSEN}"] = {
        name: {metric: interval.as_dict() for metric, interval in each.items()}
        for name, each in gains.items()}
  return result


_ROWS = {ENSEMBLE: "ensemble", RESIDUAL: "its networks (residual GNN), no trees",
         NO_PRIOR: "its networks, no trees, no prior", ATTENTION: "attention GNN",
         baselines.BOOSTED_TREES: "boosted trees", baselines.LAMBDARANK: "LightGBM lambdarank",
         baselines.ANALYTIC_COST: "analytic cost", "size_heuristic": "size heuristic",
         "default_configuration": "default first", "random": "random"}


def table(results: Mapping[str, Any]) -> str:
  """One row per part of the test splits and ranker."""
  rows = []
  for part, rankers in results.items():
    if not isinstance(rankers, Mapping) or CHOSEN not in rankers:
      continue
    gains = results[f"{part}, gains of {CHOSEN}"]
    for name, title in _ROWS.items():
      if name in rankers:
        gain = gains.get(name, {}).get("kendall_tau")
        rows.append([part, title, f"{rankers[name]['tau']['mean']:.3f}",
                     *(f"{100 * rankers[name][f'top{k}_slowdown']['mean']:.1f} %"
                       for k in (1, 5, 10)),
                     "" if gain is None else
                     f"{gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"])
  return tables.markdown(
      ["test programs", "ranker", "tau", "top-1", "top-5", "top-10", "gain of the ensemble, tau"],
      rows)


def main(argv: list[str]) -> None:
  """Runs the study."""
  del argv
  values = flags.FLAGS
  seeds = list(range(values.seeds))
  results: dict[str, Any] = {}
  for recipe in values.recipes:
    compared = evaluate(recipe, pathlib.Path(values.output), seeds, values.attention,
                        values.epochs, values.baselines)
    print(compared.text())
    results.update(figures(compared))
    if values.results:  # After each recipe, so that an interrupted study leaves what it has.
      stored = _stored(values.results)
      files.write_json(values.results, {
          **stored, **run_directory.environment(), "seeds": seeds, "split": "test",
          "ties": "expectation over random orders", **results})


def _stored(path: str) -> Mapping[str, Any]:
  """The figures of recipes that are not evaluated now."""
  return files.read_json(path) if pathlib.Path(path).exists() else {}


if __name__ == "__main__":
  app.run(main, define_flags)
