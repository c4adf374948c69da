"""Which features of layouts help? Rankers by folds of families over training and validation data.

  python -m experiments.layout_folds --output runs/layout_folds --results results/layout_folds.json
  python -m experiments.layout_folds --collection layout:xla_cpu:mixed --output runs/folds_all \
    --rankers default_first,trees_costs,lambdarank,gnn_both,attention_gnn

The test split is never read. Each fold holds out a fifth of the families, and every ranker is
trained on the others:

  trees              boosted trees with fixed settings, without the simulated effects of layouts
  trees_costs        the same with them
  lambdarank         LightGBM's lambdarank with fixed settings, with these effects
  gnn_none, gnn_totals, gnn_requests, gnn_both
                     one network of the recipe for each value of `layout_costs`
  attention_gnn      `gnn_both` with the other model
  recipe             the recipe as it is
  default_first      the configuration without requests first, fewer requested tensors before more

Means of some of them (`MEANS`) are added where all are there. The study keeps finished cases: run
it again to continue. Slowdowns are expectations over the orders of tied scores. Differences are
paired by program; the interval of a mean is its standard error.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

from absl import flags
import numpy as np

from experiments import tile_groups
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import folder_settings
from tpugraphs_rank import metrics
from tpugraphs_rank import run_config
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import lambdarank
from tpugraphs_rank.evaluation import tree_features
from tpugraphs_rank.evaluation import trees
from tpugraphs_rank.training import run_directory

FOLDS = 5
RECIPE = "layout_xla_cpu_mixed"
COLLECTION = "layout:xla_cpu:mixed:v1"
COSTS = ("none", "totals", "requests", "both")
NETWORKS: dict[str, dict[str, Any]] = {
    **{f"gnn_{costs}": {"layout_costs": costs, "members": 1} for costs in COSTS},
    "attention_gnn": {"model": "attention_gnn", "members": 1}}
RANKERS = ("default_first", "trees", "trees_costs", "lambdarank", *NETWORKS, "recipe")
# Weights of scores that are standardised per program.
MEANS: dict[str, dict[str, float]] = {
    "gnn and trees": {"gnn_both": 1.0, "trees_costs": 1.0},
    "gnn and lambdarank": {"gnn_both": 1.0, "lambdarank": 1.0},
    "gnn and both trees": {"gnn_both": 1.0, "trees_costs": 0.5, "lambdarank": 0.5},
    "gnn and attention": {"gnn_both": 1.0, "attention_gnn": 1.0},
    "both trees": {"trees_costs": 1.0, "lambdarank": 1.0}}
TOPS = (1, 5, 10)
# The rankers that others are compared with.
BASES = {"trees_costs": "trees", "gnn_totals": "gnn_none", "gnn_requests": "gnn_none",
         "gnn_both": "gnn_none", "recipe": "gnn_none", "attention_gnn": "gnn_both",
         "lambdarank": "gnn_both", **dict.fromkeys(MEANS, "gnn_both")}

Scores = dict[str, list[float]]  # By program.


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("output", "runs/layout_folds", "Folder of the folds and of finished cases.")
  flags.DEFINE_string("collection", COLLECTION, "The collection of layouts.")
  flags.DEFINE_string("results", None, "Writes the figures to this JSON file.")
  flags.DEFINE_list("rankers", list(RANKERS), f"Rankers to compare, among {', '.join(RANKERS)}.")
  flags.DEFINE_list("folds", [str(fold) for fold in range(FOLDS)], "Folds to compute.")


def folds_of(families: Sequence[str]) -> list[int]:
  """The fold of each program: families are divided at random, with a fixed seed."""
  distinct = sorted(set(families))
  place = np.random.default_rng(0).permutation(len(distinct))
  position = {distinct[index]: number % FOLDS for number, index in enumerate(place)}
  return [position[family] for family in families]


def write_fold(folder: pathlib.Path, fold: int, name: str = COLLECTION) -> pathlib.Path:
  """Writes the collection of one fold; returns its descriptor's path.

  Raises:
    TpuGraphsRankError: a file cannot be read or written.
  """
  collection = registry.get_collection(name)
  paths = sorted(path for split in ("train", "valid")
                 for path in collections.load_collection(collection, split).paths)
  places = folds_of([collection.family(path.stem) for path in paths])
  counts = {"train": 0, "valid": 0}
  for path, place in zip(paths, places):
    split = "valid" if place == fold else "train"
    counts[split] += 1
    target = folder / "npz" / split / path.name
    if not target.exists():
      files.copy(path, target)
  descriptor = folder / "collection.json"
  files.write_json(descriptor, {
      "name": f"layout:fold{fold}", "kind": "layout", "target": collection.target, "path": "npz",
      "hlo_stage": collection.hlo_stage, "family_regex": collection.family_regex,
      "splits": counts, "has_runtimes": {"train": True, "valid": True},
      "padding": collection.padding})
  return descriptor


def score(ranker: str, descriptor: pathlib.Path, folder: pathlib.Path) -> Scores:
  """Trains a ranker on a fold; the scores of the programs that it holds out.

  Args:
    ranker: one of `RANKERS`.
    descriptor: of the fold's collection.
    folder: run directory of a network.
  """
  if ranker in NETWORKS or ranker == "recipe":
    import tpugraphs_rank  # pylint: disable=import-outside-toplevel
    run = tpugraphs_rank.train(
        str(descriptor), folder, config=RECIPE, **NETWORKS.get(ranker, {}))
  data = run_config.DataConfig(collection=str(descriptor))
  valid = splits.load(data, "valid", 0).programs
  if ranker == "default_first":
    scores = [-(_layouts(program) >= 0).any(axis=2).sum(axis=1) for program in valid]
  elif ranker == "lambdarank":
    table = trees.training_table(splits.load(data, "train", 0).programs, 0)
    scores = lambdarank.fit_table(table, lambdarank.Settings(), 0).score(valid)
  elif ranker.startswith("trees"):
    scores = _fit_trees(data, ranker == "trees_costs").score(valid)
  else:
    scores = run.score_programs(valid)
  return {program.graph.name: np.asarray(values, float).tolist()
          for program, values in zip(valid, scores)}


def _layouts(program: splits.ProgramView) -> np.ndarray:
  assert isinstance(program.graph, graphs.LayoutGraph)
  return program.graph.layouts(program.indices)


def _fit_trees(data: run_config.DataConfig, costs: bool) -> trees.Trees:
  train = splits.load(data, "train", 0).programs
  table = trees.training_table(train, 0)
  if not costs:
    assert isinstance(train[0].graph, graphs.LayoutGraph)
    kept = ~np.isin(table.columns.kept, tree_features.cost_columns(train[0].graph))
    table = table._replace(features=table.features[:, kept],
                           columns=trees.Columns(table.columns.kept[kept]))
  return trees.fit_table(table, trees.Settings(), 0)


def with_means(cases: dict[str, Scores]) -> dict[str, Scores]:
  """The scores of rankers and of those `MEANS` of them whose rankers are all there."""
  result = dict(cases)
  for name, weights in MEANS.items():
    if weights.keys() <= cases.keys():
      programs = set.intersection(*(set(cases[ranker]) for ranker in weights))
      result[name] = {
          program: np.sum([weight * tile_groups.standardised(np.array(cases[ranker][program]))
                           for ranker, weight in weights.items()], axis=0).tolist()
          for program in sorted(programs)}
  return result


def summary(cases: dict[str, Scores], name: str = COLLECTION) -> dict[str, Any]:
  """The figures of each ranker over the programs that all finished folds hold out.

  Args:
    cases: for each ranker the scores of each program.
    name: of the collection.

  Returns:
    For each ranker "tau", "top1_slowdown", ... as {"mean", "sd", "n"} over programs, and for those
    in `BASES` "tau_over_<base>" on the programs of both.
  """
  measured = {ranker: _measures(scores, name) for ranker, scores in cases.items()}
  results: dict[str, Any] = {}
  for ranker, values in measured.items():
    results[ranker] = {
        measure: _mean([row[measure] for row in values.values()])
        for measure in ("tau", *(f"top{k}_slowdown" for k in TOPS))}
    base = measured.get(BASES.get(ranker, ""), {})
    shared = sorted(values.keys() & base.keys())
    if shared:
      results[ranker][f"tau_over_{BASES[ranker]}"] = _mean(
          [values[program]["tau"] - base[program]["tau"] for program in shared])
  return results


def _measures(scores: Scores, collection_name: str) -> dict[str, dict[str, float]]:
  """For each program its measures."""
  collection = registry.get_collection(collection_name)
  measured = {}
  for name, values in scores.items():
    path = next(path for split in ("train", "valid")
                for path in [collection.location() / split / f"{name}.npz"] if path.exists())
    graph = npz.load_graph(path)
    assert isinstance(graph, graphs.LayoutGraph)
    runtimes = graph.relative_runtime
    measured[name] = {"tau": metrics.kendall_tau(runtimes, np.array(values)), **{
        f"top{k}_slowdown": metrics.topk_slowdown(runtimes, np.array(values), k) for k in TOPS}}
  return measured


def _mean(values: Sequence[float]) -> dict[str, float]:
  return {"mean": round(float(np.mean(values)), 4),
          "sd": round(float(np.std(values, ddof=min(len(values) - 1, 1))), 4), "n": len(values)}


def table(results: dict[str, Any]) -> str:
  """The figures as a Markdown table."""
  names = ["tau", *(f"top{k}_slowdown" for k in TOPS)]
  cell = lambda value: f"{value['mean']:.3f} ± {value['sd'] / value['n'] ** 0.5:.3f}"
  rows = []
  for ranker, values in results.items():
    difference = next((f"{cell(value)} ({key.removeprefix('tau_over_')})"
                       for key, value in values.items() if key.startswith("tau_over_")), "")
    rows.append([ranker, str(values["tau"]["n"]), *(cell(values[name]) for name in names),
                 difference])
  return tables.markdown(["ranker", "programs", *names, "tau, paired difference"], rows)


def main(argv: Sequence[str]) -> int:
  """Runs the study."""
  del argv
  values = flags.FLAGS
  for ranker in values.rankers:
    if ranker not in RANKERS:
      raise errors.UnknownNameError(
          f"unknown ranker {ranker!r}; expected one of: {', '.join(RANKERS)}")
  output = files.expanded(values.output)
  folds = sorted(map(int, values.folds))
  # Folds of another collection, or of another version of it, hold out other families.
  folder_settings.check(output, {"collection": values.collection, "programs": sorted(
      path.stem for split in ("train", "valid")
      for path in collections.load_collection(values.collection, split).paths)})
  for fold in folds:
    descriptor = write_fold(output / f"fold{fold}", fold, values.collection)
    for ranker in values.rankers:
      case = output / "cases" / f"{ranker}.{fold}.json"
      if not case.exists():
        files.write_json(case, score(ranker, descriptor, output / "runs" / f"{ranker}.{fold}"))
  cases = {ranker: {name: scores for fold in folds
                    for name, scores in files.read_json(
                        output / "cases" / f"{ranker}.{fold}.json").items()}
           for ranker in values.rankers}
  results = summary(with_means(cases), values.collection)
  if values.results is not None:
    files.write_json(values.results, {
        **run_directory.environment(), "seeds": [0], "collection": values.collection,
        "folds": folds, "rankers": results})
  print(table(results))
  return 0


if __name__ == "__main__":
  app.run(main, define_flags)
