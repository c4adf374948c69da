"""How well do rankers order the tiles of whole groups of kernels that they never saw?

  python -m experiments.tile_groups --output runs/tile_groups --results results/tile_groups.json

One group of the training and validation kernels after another is left out; the test split is never
read. The rankers:

  fewest_steps       fewer iterations of all loops before more
  largest_tile       larger blocks before smaller ones
  analytic_preset    the analytic cost with its preset weights
  analytic           the analytic cost with weights that were fitted on the other groups
  boosted_trees      boosted trees with fixed settings, fitted on the other groups
  gated              these trees with the analytic prior of a run: cost, novelty and gate come from
                     the other groups, too

`tpugraphs-rank evaluate --leave_out=group` does the same for a network. The study keeps finished
groups: run it again to continue. Differences are paired by kernel; the interval of a mean is its
standard error.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags
import numpy as np

from tpugraphs_rank import files
from tpugraphs_rank import metrics
from tpugraphs_rank import run_config
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.costs import tile_cost
from tpugraphs_rank.costs import tile_geometry
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import baselines
from tpugraphs_rank.evaluation import trees
from tpugraphs_rank.training import prior_fitting
from tpugraphs_rank.training import run_directory

COLLECTION = "tile:xla_cpu"
RANKERS = ("fewest_steps", "largest_tile", "analytic_preset", "analytic", "boosted_trees", "gated")
BASE = "boosted_trees"  # The ranker that others are compared with.
_SEED = 0

Scores = dict[str, dict[str, list[float]]]  # By ranker and kernel.


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("output", "runs/tile_groups", "Folder of finished groups.")
  flags.DEFINE_string("results", None, "Writes the figures to this JSON file.")
  flags.DEFINE_string("collection", COLLECTION, "The collection of tiles.")


def rank_group(collection: registry.Collection, programs: Sequence[splits.ProgramView], group: str
               ) -> Scores:
  """Scores of a group's kernels by rankers that were fitted on the other groups."""
  left_out = [one for one in programs if collection.group(one.graph.name) == group]
  rest = [one for one in programs if collection.group(one.graph.name) != group]
  fitted = trees.fit(rest, trees.Settings(), _SEED)
  prior = prior_fitting.fit(collection, rest, fitted.score, _SEED)
  learned = fitted.score(left_out)
  by_ranker = {
      "fewest_steps": [-_steps(one.graph) for one in left_out],
      "largest_tile": baselines.size_heuristic(left_out),
      "analytic_preset": baselines.analytic_cost(left_out),
      "analytic": [-tile_cost.log_cost(_tiles(one.graph), prior.weights) for one in left_out],
      "boosted_trees": learned,
      "gated": [prior.scores(one.graph, scores.astype(np.float32))
                for one, scores in zip(left_out, learned)]}
  return {ranker: {one.graph.name: np.asarray(values, float).tolist()
                   for one, values in zip(left_out, scores)}
          for ranker, scores in by_ranker.items()}


def _tiles(graph: graphs.ConfiguredGraph) -> graphs.TileGraph:
  assert isinstance(graph, graphs.TileGraph)
  return graph


def _steps(graph: graphs.ConfiguredGraph) -> np.ndarray:
  """(c,) the iterations of all loops."""
  tiles = _tiles(graph)
  return tile_geometry.kernel(tiles).trips(tiles.config_feat).prod(axis=1)


def summary(collection: registry.Collection, programs: Sequence[splits.ProgramView],
            by_group: dict[str, Scores]) -> dict[str, Any]:
  """The figures of each ranker: over all kernels, for each group, and paired with `BASE`."""
  by_name = {one.graph.name: one for one in programs}
  results: dict[str, Any] = {}
  measured = {ranker: {name: _measures(by_name[name], scores) for group in by_group.values()
                       for name, scores in group[ranker].items()} for ranker in RANKERS}
  for ranker, values in measured.items():
    rows = {"all": list(values.values()), **{
        group: [values[name] for name in scores[ranker]] for group, scores in by_group.items()}}
    results[ranker] = {group: {"kernels": len(each), **{
        place: _mean([row[place] for row in each]) for place in ("tau", "top1_slowdown")}}
                       for group, each in rows.items()}
    results[ranker]["all"][f"tau_over_{BASE}"] = _mean(
        [row["tau"] - measured[BASE][name]["tau"] for name, row in values.items()])
  return results


def _measures(program: splits.ProgramView, scores: Sequence[float]) -> dict[str, float]:
  runtimes, values = program.graph.relative_runtime, np.array(scores)
  return {"tau": metrics.kendall_tau(runtimes, values),
          "top1_slowdown": metrics.topk_slowdown(runtimes, values, 1)}


def _mean(values: Sequence[float]) -> dict[str, float]:
  return {"mean": round(float(np.mean(values)), 4),
          "error": round(float(np.std(values) / np.sqrt(len(values))), 4)}


def table(results: dict[str, Any]) -> str:
  """The figures as a Markdown table: tau of all kernels and of each group, top-1 of all."""
  groups = [group for group in results[BASE] if group != "all"]
  rows = []
  for ranker, values in results.items():
    every = values["all"]
    difference = every[f"tau_over_{BASE}"]
    rows.append([
        ranker, f"{every['tau']['mean']:.3f} ± {every['tau']['error']:.3f}",
        f"{difference['mean']:+.3f} ± {difference['error']:.3f}" if ranker != BASE else "",
        f"{100 * every['top1_slowdown']['mean']:.1f} %",
        *(f"{values[group]['tau']['mean']:.3f}" for group in groups)])
  return tables.markdown(["ranker", "tau", "over the trees", "top-1 slowdown", *groups], rows)


def main(argv: Sequence[str]) -> int:
  """Runs the study."""
  del argv
  values = flags.FLAGS
  collection = registry.get_collection(values.collection)
  data = run_config.DataConfig(collection=values.collection)
  programs = [one for split in ("train", "valid")
              for one in splits.load(data, split, _SEED).programs]
  output = files.expanded(values.output)
  by_group: dict[str, Scores] = {}
  for group in sorted({collection.group(one.graph.name) for one in programs}):
    case = output / f"{group}.json"
    if not case.exists():
      files.write_json(case, rank_group(collection, programs, group))
    by_group[group] = files.read_json(case)
  results = summary(collection, programs, by_group)
  if values.results is not None:
    files.write_json(values.results, {
        **run_directory.environment(), "seeds": [_SEED], "collection": collection.name, **results})
  print(table(results))
  return 0


if __name__ == "__main__":
  app.run(main, define_flags)
