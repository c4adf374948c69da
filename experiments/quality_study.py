"""Final figures of the chosen rankers and of their parts on the test splits.

  python -m experiments.quality_study --output runs/quality --results results/quality.json

Trains the ensemble recipes of both bundled collections, and evaluates on the test split:

  ensemble       networks, boosted trees and, for tiles, the analytic prior: the recipe as it is
  residual_gnn   the same runs without their trees
  no_prior       the same without trees and prior (tiles only)
  attention_gnn  the recipe without trees, with the other model (with --attention)
  kinds          the recipe with networks of the other model as a further kind (with --kinds)

and all baselines, and with --peers rankers of other libraries, see `peers`. `chosen` is the ranker
that was chosen on validation, the ensemble. The study keeps finished runs: run it again to
continue.
"""

from collections.abc import Mapping, Sequence
import pathlib
import shutil
from typing import Any

from absl import flags

from experiments import peers
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
ENSEMBLE, RESIDUAL, NO_PRIOR, ATTENTION, KINDS, CHOSEN = (
    "ensemble", "residual_gnn", "no_prior", "attention_gnn", "kinds", "chosen")
_TREES = (tree_member.FILE, tree_member.ARRAYS)
_OTHER_PASS = "other_pass"
_SLOWDOWNS = ("top1_slowdown", "top5_slowdown", "top10_slowdown")
_FIGURES = ("opa", "tau", "tau_within3", "opa_gap5", *_SLOWDOWNS, f"top1_{per_graph.GAIN}",
            f"top10_{per_graph.GAIN}", per_graph.MEASURED)
_SUMMARY = ("opa", "tau", "top1_slowdown", "top5_slowdown")
_OF_TILES = ("opa", "tau", "tau_within3", *_SLOWDOWNS)
_OF_LAYOUTS = ("opa", "tau", *_SLOWDOWNS, f"top10_{per_graph.GAIN}")


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("output", "runs/quality", "Folder of the runs.")
  flags.DEFINE_string("results", None, "Writes the figures to this JSON file.")
  flags.DEFINE_list("recipes", list(RECIPES), "Recipes of ensembles to train.")
  flags.DEFINE_integer("seeds", 1, "Number of seeds.", lower_bound=1)
  flags.DEFINE_bool("attention", False, "Also train the other model.")
  flags.DEFINE_bool("kinds", False, "Also train the recipe with both models.")
  flags.DEFINE_integer("epochs", None, "Epochs instead of those of the recipe.", lower_bound=1)
  flags.DEFINE_list("baselines", None, "Baselines instead of all that fit the collection.")
  flags.DEFINE_list("peers", [], f"Rankers of other libraries: {', '.join(peers.NAMES)}.")


def configs_of(recipe: str, seeds: Sequence[int], others: Sequence[str], epochs: int | None
               ) -> dict[str, run_config.RunConfig]:
  """The configuration of each run, by name.

  Args:
    recipe: its name.
    seeds: of the runs.
    others: some of ATTENTION and KINDS.
    epochs: instead of those of the recipe; None: those.
  """
  base = config_lib.from_dict(run_config.RunConfig, recipes.read(recipe), source=recipe)
  changes: dict[str, dict[str, Any]] = {
      ENSEMBLE: {}, ATTENTION: {"model": ATTENTION, "trees_weight": 0.0},
      KINDS: {"kinds": ({"model": ATTENTION},)}}
  shorter = {} if epochs is None else {"epochs": epochs}
  return {f"{name}-seed{seed}": config_lib.override_by_flag(
      base, {**changes[name], **shorter, "seed": seed})
          for name in (ENSEMBLE, *others) for seed in seeds}


def without(path: pathlib.Path, name: str, removed: Sequence[str]) -> pathlib.Path:
  """A copy of a run without some of its files, which therefore scores without them."""
  copy = path.with_name(path.name.replace(ENSEMBLE, name))
  shutil.rmtree(copy, ignore_errors=True)
  shutil.copytree(path, copy, ignore=shutil.ignore_patterns("tensorboard", *removed))
  return copy


def evaluate(recipe: str, folder: pathlib.Path, seeds: Sequence[int], others: Sequence[str],
             epochs: int | None, names: Sequence[str] | None) -> comparison.Comparison:
  """Trains the runs of a recipe and compares them on the test split."""
  configs = configs_of(recipe, seeds, others, epochs)
  is_tile = next(iter(configs.values())).data.collection.startswith("tile")
  paths = parallel.train_all(configs, folder / recipe)
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
    other = result_tables.figures([part(next(iter(compared.frames.values()))[0])], "other_pass_")
    result[title] = {CHOSEN: rows[ENSEMBLE], **rows, _OTHER_PASS: {
        key: value for key, value in other.items() if key in _FIGURES}}
    result[f"{title}, gains of {CHOSEN}"] = {
        name: {metric: interval.as_dict() for metric, interval in each.items()}
        for name, each in gains.items()}
  return result


_ROWS = {ENSEMBLE: "ensemble (chosen)", RESIDUAL: "its networks (residual GNN)",
         NO_PRIOR: "its networks, no prior", ATTENTION: "attention GNN",
         KINDS: "ensemble with attention GNN",
         baselines.BOOSTED_TREES: "boosted trees", baselines.LAMBDARANK: "LightGBM lambdarank",
         peers.XGBOOST: "XGBoost pairwise", peers.CATBOOST: "CatBoost YetiRank",
         baselines.ANALYTIC_COST: "analytic cost", "size_heuristic": "size heuristic",
         "default_configuration": "default first", "random": "random",
         _OTHER_PASS: result_tables.OTHER_PASS}


def summary_table(results: Mapping[str, Any]) -> str:
  """The main figures on kernels of families that training saw."""
  return _table(results["tile:xla_cpu"], _SUMMARY)


def seen_table(results: Mapping[str, Any]) -> str:
  """Rankers on kernels of families that training saw, in new shapes."""
  return _table(results["tile:xla_cpu"], _OF_TILES)


def unseen_groups_table(results: Mapping[str, Any]) -> str:
  """Rankers on kernels of groups that training did not see."""
  return _table(results["tile:xla_cpu unseen groups"], _OF_TILES)


def layouts_table(results: Mapping[str, Any]) -> str:
  """Rankers on programs of new families under layouts."""
  return _table(results["layout:xla_cpu:mixed"], _OF_LAYOUTS)


def seen_gains_table(results: Mapping[str, Any]) -> str:
  """Paired gains of the ensemble on kernels of families that training saw."""
  return _gains_table(results["tile:xla_cpu, gains of chosen"])


def unseen_groups_gains_table(results: Mapping[str, Any]) -> str:
  """Paired gains of the ensemble on kernels of groups that training did not see."""
  return _gains_table(results["tile:xla_cpu unseen groups, gains of chosen"])


def layouts_gains_table(results: Mapping[str, Any]) -> str:
  """Paired gains of the ensemble on programs of new families under layouts."""
  return _gains_table(results["layout:xla_cpu:mixed, gains of chosen"])


def _table(rankers: Mapping[str, Any], shown: Sequence[str]) -> str:
  """One row for each ranker with these figures."""
  return tables.markdown(["ranker", *(result_tables.TITLES[name] for name in shown)], [
      [title, *(result_tables.cell(figure, rankers[name].get(figure)) for figure in shown)]
      for name, title in _ROWS.items() if name in rankers])


def _gains_table(gains: Mapping[str, Any]) -> str:
  """One row for each other ranker with the gains of the ensemble and their intervals."""
  return tables.markdown(*result_tables.difference_rows("the ensemble", {
      title: {column: bootstrap.Interval(**value) for column, value in gains[name].items()}
      for name, title in _ROWS.items() if name in gains}))


def main(argv: list[str]) -> None:
  """Runs the study."""
  del argv
  values = flags.FLAGS
  seeds = list(range(values.seeds))
  results: dict[str, Any] = {}
  for name in values.peers:  # An unknown name or a missing library is found before the trainings.
    peers.method(name)
  others = [name for name in (ATTENTION, KINDS) if values[name.removesuffix("_gnn")].value]
  for recipe in values.recipes:
    compared = evaluate(recipe, pathlib.Path(values.output), seeds, others, values.epochs,
                        values.baselines)
    compared = peers.add(compared, values.peers, seeds)
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
