"""How well do rankers order the tiles of whole groups of kernels that they never saw?

  python -m experiments.tile_groups --output runs/tile_groups --results results/tile_groups.json

Three ways to hold kernels out; the test split is never read:

  groups     one group of the training and validation kernels after another
  shapes     a third of these kernels at a time, so that their families are known
  synthetic  the bundled generated kernels; rankers are fitted to all training and validation
             kernels

The rankers:

  fewest_steps         fewer iterations of all loops before more
  largest_tile         larger blocks before smaller ones
  analytic_preset      the analytic cost with its preset weights
  analytic             the analytic cost with weights that were fitted on the other kernels
  trees_without_costs  boosted trees on the shapes and operations of a kernel
  boosted_trees        the same trees, which also see the terms of the analytic cost
  relative_log         boosted trees on features without shapes and operations (`tile_relative`)
  relative_places      the same with the place of a configuration as the target
  relative_trees       the same, and scores fall with every term: the trees of a run's prior
  relative_lambdarank  LightGBM's lambdarank on the features of `relative_log`
  prior                the analytic cost and the trees of the prior: what a run uses
  average              the prior and `boosted_trees`, standardised by kernel
  gated                `boosted_trees` with the prior of a run: cost, trees, novelty and gate come
                       from the other kernels, too (only by groups, with --gated)

`tpugraphs-rank evaluate --leave_out=group` does the same for a network. The study keeps finished
cases: run it again to continue. Differences are paired by kernel; the interval of a mean is its
standard error.
"""

from collections.abc import Callable, Iterator, Sequence
import pathlib
from typing import Any, NamedTuple

from absl import flags
import numpy as np

import tpugraphs_rank
from tpugraphs_rank import files
from tpugraphs_rank import metrics
from tpugraphs_rank import run_config
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.costs import tile_cost
from tpugraphs_rank.costs import tile_geometry
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import labels
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import baselines
from tpugraphs_rank.evaluation import lambdarank
from tpugraphs_rank.evaluation import tree_features
from tpugraphs_rank.evaluation import trees
from tpugraphs_rank.training import prior_fitting
from tpugraphs_rank.training import prior_trees
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import tile_prior

COLLECTION = "tile:xla_cpu"
SYNTHETIC = ("layerdag", "random", "template")
RANKERS = ("fewest_steps", "largest_tile", "analytic_preset", "analytic", "trees_without_costs",
           "boosted_trees", "relative_log", "relative_places", "relative_trees",
           "relative_lambdarank", "prior", "average", "gated")
BASE = "analytic"  # The ranker that others are compared with.
WAYS = ("groups", "shapes", "synthetic")
_USUAL = trees.Settings(iterations=100, learning_rate=0.1)
_SEED = 0
_THIRDS = 3

Scores = dict[str, dict[str, list[float]]]  # By ranker and kernel.


class Kernel:
  """A program with everything that rankers know of its configurations, computed once.

  Attributes:
    program: the program.
    name: its name.
    runtimes: (c',) its runtimes.
    graph: its graph.
    rows: (c',) its configurations.
    plain: (c', f) features of boosted trees without costs.
    costs: (c', f) the same with costs.
    fitted: what the prior knows of it.
    relative: (c', f) features of the prior's trees.
    terms: (c', 13) terms of the analytic cost.
  """

  def __init__(self, program: splits.ProgramView):
    assert isinstance(program.graph, graphs.TileGraph)
    self.program, self.graph, self.rows = program, program.graph, program.indices
    self.name = self.graph.name
    self.runtimes = program.runtimes[self.rows]
    of_version = lambda version: tree_features.features(
        self.graph, self.rows, program.facts, version)
    self.plain = of_version(tree_features.WITHOUT_TILE_COSTS)
    self.costs = of_version(tree_features.VERSION)
    self.fitted = prior_fitting.Kernel(program, program.facts)
    self.relative, self.terms = self.fitted.relative, self.fitted.terms

  def steps(self) -> np.ndarray:
    """(c',) the iterations of all loops."""
    return tile_geometry.kernel(self.graph).trips(self.graph.config_feat)[self.rows].prod(axis=1)

  def log_cost(self, weights: np.ndarray) -> np.ndarray:
    """(c',) the logarithm of the analytic cost."""
    return tile_cost.log_of_terms(self.terms, weights)


class Case(NamedTuple):
  """Kernels that are held out together.

  Attributes:
    name: of the case's file.
    rest: the kernels that rankers are fitted to.
    out: the others.
  """

  name: str
  rest: list[Kernel]
  out: list[Kernel]


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("output", "runs/tile_groups", "Folder of finished groups.")
  flags.DEFINE_string("results", None, "Writes the figures to this JSON file.")
  flags.DEFINE_string("collection", COLLECTION, "The collection of tiles.")
  flags.DEFINE_bool("gated", False, "Also fit a run's prior with its gate for each group, which "
                    "takes three times as long.")
  flags.DEFINE_multi_enum("ways", WAYS, WAYS, "How kernels are held out.")


def cases(way: str, collection: registry.Collection, kernels: Sequence[Kernel]
          ) -> Iterator[Case]:
  """The cases of one of WAYS."""
  if way == "synthetic":
    folder = pathlib.Path(tpugraphs_rank.__file__).parent / "bundled" / "synthetic_tile_xla_cpu"
    yield Case(way, list(kernels), [one for source in SYNTHETIC for one in _load(
        str(folder / source / "collection.json"), "train")])
    return
  of = [collection.group(one.name) for one in kernels]
  names = sorted(set(of))
  if way == "shapes":
    turn = np.random.default_rng(_SEED).permutation(len(kernels)) % _THIRDS
    of, names = [f"third_{number}" for number in turn], [f"third_{n}" for n in range(_THIRDS)]
  for name in names:
    yield Case(name, [one for one, part in zip(kernels, of) if part != name],
               [one for one, part in zip(kernels, of) if part == name])


def rank(collection: registry.Collection, case: Case, gated: bool) -> Scores:
  """Scores of the kernels that are held out, by rankers that were fitted on the others.

  Args:
    collection: the collection of the kernels.
    case: the kernels.
    gated: whether to fit a run's prior with its gate.
  """
  rest, out = case.rest, case.out
  logs = [labels.make_labels(one.runtimes).target for one in rest]
  places = [prior_trees.places(one.runtimes) for one in rest]
  prior = fit_prior(rest)
  weights, falling = prior.weights, prior.trees
  assert falling is not None
  scores_of_prior = [prior.cost_of_rows(one.terms, one.relative) for one in out]
  usual = lambda of: _trees(case, of, logs, _USUAL, 1)
  with_costs = usual(lambda one: one.costs)
  relative = lambda one: one.relative
  by_ranker: dict[str, Sequence[np.ndarray]] = {
      "fewest_steps": [-one.steps() for one in out],
      "largest_tile": baselines.size_heuristic([one.program for one in out]),
      "analytic_preset": [-one.log_cost(tile_cost.PRESET) for one in out],
      "analytic": [-one.log_cost(weights) for one in out],
      "trees_without_costs": usual(lambda one: one.plain), "boosted_trees": with_costs,
      "relative_log": _trees(case, relative, logs, prior_trees.SETTINGS, prior_trees.FITS),
      "relative_places": _trees(case, relative, places, prior_trees.SETTINGS, prior_trees.FITS),
      "relative_trees": [falling.arrays.scores(one.relative) for one in out],
      "relative_lambdarank": _lambdarank(case, logs),
      "prior": scores_of_prior,
      "average": [standardised(one) + standardised(other)
                  for one, other in zip(scores_of_prior, with_costs)]}
  if gated:
    by_name = {one.name: one for one in rest}
    known = rest[::6]  # What a run has as validation programs.
    seen = [one for place, one in enumerate(rest) if place % 6]
    table = trees.make_table(
        np.concatenate([one.costs for one in seen]),
        [target for place, target in enumerate(logs) if place % 6])
    learner = trees.fit_table(table, _USUAL, _SEED)
    score = lambda programs: [learner.predict(table.columns.of(by_name[one.graph.name].costs))
                              for one in programs]
    fitted = prior_fitting.fit(
        collection, [one.program for one in seen], score, [one.program for one in known], _SEED,
        costs=True)
    by_ranker["gated"] = [fitted.scores(one.graph, scores.astype(np.float32), one.rows)
                          for one, scores in zip(out, with_costs)]
  return {ranker: {one.name: np.asarray(values, float).tolist() for one, values in zip(out, scores)}
          for ranker, scores in by_ranker.items()}


def fit_prior(kernels: Sequence[Kernel]) -> tile_prior.Prior:
  """Fits the prior of a run to some kernels, without its gate."""
  return prior_fitting.fit_ungated(
      [one.fitted for one in kernels], kernels[0].program.facts, _SEED)


def _trees(case: Case, features: Callable[[Kernel], np.ndarray], targets: list[np.ndarray],
           settings: trees.Settings, fits: int) -> list[np.ndarray]:
  """Mean scores of boosted trees for the kernels that are held out."""
  table = trees.make_table(np.concatenate([features(one) for one in case.rest]), targets)
  every = [trees.fit_table(table, settings, _SEED + number) for number in range(fits)]
  return [np.mean([one.predict(table.columns.of(features(kernel))) for one in every], axis=0)
          for kernel in case.out]


def _lambdarank(case: Case, targets: list[np.ndarray]) -> list[np.ndarray]:
  """Scores of LightGBM's lambdarank on the features of the prior's trees."""
  table = trees.make_table(np.concatenate([one.relative for one in case.rest]), targets)
  fitted = lambdarank.fit_table(
      table, lambdarank.Settings(iterations=100, learning_rate=0.1), _SEED)
  return [fitted.predict(table.columns.of(one.relative)) for one in case.out]


def standardised(values: np.ndarray) -> np.ndarray:
  """Scores with mean 0 and deviation 1; constant ones become 0."""
  return (values - values.mean()) / max(float(values.std()), 1e-9)


def summary(kernels: Sequence[Kernel], by_group: dict[str, Scores]
            ) -> dict[str, Any]:
  """The figures of each ranker: over all kernels, for each group, and paired with `BASE`."""
  by_name = {one.name: one for one in kernels}
  rankers = [ranker for ranker in RANKERS if ranker in next(iter(by_group.values()))]
  results: dict[str, Any] = {}
  measured = {ranker: {name: _measures(by_name[name], scores) for group in by_group.values()
                       for name, scores in group[ranker].items()} for ranker in rankers}
  for ranker, values in measured.items():
    rows = {"all": list(values.values()), **{
        group: [values[name] for name in scores[ranker]] for group, scores in by_group.items()}}
    results[ranker] = {group: {"kernels": len(each), **{
        place: _mean([row[place] for row in each]) for place in ("tau", "top1_slowdown")}}
                       for group, each in rows.items()}
    results[ranker]["all"][f"tau_over_{BASE}"] = _mean(
        [row["tau"] - measured[BASE][name]["tau"] for name, row in values.items()])
  return results


def _measures(kernel: Kernel, scores: Sequence[float]) -> dict[str, float]:
  return {"tau": metrics.kendall_tau(kernel.runtimes, np.array(scores)),
          "top1_slowdown": metrics.topk_slowdown(kernel.runtimes, np.array(scores), 1)}


def _mean(values: Sequence[float]) -> dict[str, float]:
  return {"mean": round(float(np.mean(values)), 4),
          "error": round(float(np.std(values) / np.sqrt(len(values))), 4)}


_TITLES = {
    "fewest_steps": "fewest steps first", "largest_tile": "largest tile first",
    "analytic_preset": "analytic cost, preset weights", "analytic": "analytic cost, fitted weights",
    "trees_without_costs": "boosted trees without costs", "boosted_trees": "boosted trees",
    "relative_log": "trees on relative features, log runtimes",
    "relative_places": "trees on relative features, places",
    "relative_trees": "the prior's trees: places, falling with each term",
    "relative_lambdarank": "LightGBM lambdarank on relative features",
    "prior": "the prior: cost and its trees", "average": "the prior and boosted trees",
    "gated": "boosted trees with prior and gate"}


def table(results: dict[str, Any]) -> str:
  """The figures as a Markdown table: tau of all kernels and of each group, top-1 of all."""
  groups = [group for group in results[BASE] if group != "all"]
  rows = []
  for ranker, values in results.items():
    first, top1 = _of_all(ranker, values["all"])
    rows.append([*first, top1, *(f"{values[group]['tau']['mean']:.3f}" for group in groups)])
  return tables.markdown([*_FIRST, "top-1", *groups], rows)


_FIRST = ("ranker", "tau", "over the fitted cost")


def _of_all(ranker: str, every: dict[str, Any]) -> tuple[list[str], str]:
  """The cells of a ranker about all kernels: those under `_FIRST`, and the top-1 slowdown."""
  difference = every[f"tau_over_{BASE}"]
  return [_TITLES[ranker], f"{every['tau']['mean']:.3f} ± {every['tau']['error']:.3f}",
          f"{difference['mean']:+.3f} ± {difference['error']:.3f}" if ranker != BASE else ""], (
              f"{100 * every['top1_slowdown']['mean']:.1f} %")


def summary_table(results: dict[str, Any]) -> str:
  """Left-out groups: tau of all kernels, its mean over groups and its least, and top-1."""
  return _summary_table(results["groups"])


def shapes_summary_table(results: dict[str, Any]) -> str:
  """The same for left-out thirds."""
  return _summary_table(results["shapes"])


def _summary_table(results: dict[str, Any]) -> str:
  rows = []
  for ranker, values in results.items():
    first, top1 = _of_all(ranker, values["all"])
    taus = [of["tau"]["mean"] for group, of in values.items() if group != "all"]
    rows.append([*first, f"{np.mean(taus):.3f}", f"{min(taus):.3f}", top1])
  return tables.markdown([*_FIRST, "mean over groups", "least of a group", "top-1"], rows)


_SHOWN = ("fewest_steps", "analytic", "boosted_trees", "relative_trees", "prior")


def each_table(results: dict[str, Any]) -> str:
  """Left-out groups: tau of some rankers on each group."""
  of = results["groups"]
  shown = [ranker for ranker in _SHOWN if ranker in of]
  return tables.markdown(
      ["group", "kernels", *(_TITLES[ranker] for ranker in shown)],
      [[group, str(values["kernels"]),
        *(f"{of[ranker][group]['tau']['mean']:.3f}" for ranker in shown)]
       for group, values in of[BASE].items() if group != "all"])


def groups_table(results: dict[str, Any]) -> str:
  """The table of left-out groups, of the stored results."""
  return table(results["groups"])


def generated_table(results: dict[str, Any]) -> str:
  """The table of generated kernels, of the stored results."""
  return table(results["synthetic"])


def shapes_table(results: dict[str, Any]) -> str:
  """The table of left-out thirds, of the stored results."""
  return table(results["shapes"])


def _load(collection: str, *names: str) -> list[Kernel]:
  data = run_config.DataConfig(collection=collection)
  return [Kernel(one) for split in names for one in splits.load(data, split, _SEED).programs]


def _held_out(way: str, collection: registry.Collection, kernels: Sequence[Kernel],
              output: pathlib.Path, gated: bool) -> dict[str, Any]:
  """The figures of one way to hold kernels out; finished cases are read."""
  by_case: dict[str, Scores] = {}
  everything: list[Kernel] = []
  for case in cases(way, collection, kernels):
    path = output / (f"{way}_gated" if gated else way) / f"{case.name}.json"
    if not path.exists():
      files.write_json(path, rank(collection, case, gated))
    by_case[case.name] = files.read_json(path)
    everything += case.out
  return summary(everything, _by_kind(way, collection, by_case))


def _by_kind(way: str, collection: registry.Collection, by_case: dict[str, Scores]
             ) -> dict[str, Scores]:
  """The scores by group; those of generated kernels by the operation that ends them."""
  result: dict[str, Scores] = {}
  for scores in by_case.values():
    for ranker, of_kernels in scores.items():
      for name, values in of_kernels.items():
        kind = (name.split(".")[0].split("_")[-1] if way == "synthetic"
                else collection.group(name))
        result.setdefault(kind, {}).setdefault(ranker, {})[name] = values
  return dict(sorted(result.items()))


def main(argv: Sequence[str]) -> int:
  """Runs the study."""
  del argv
  values = flags.FLAGS
  collection = registry.get_collection(values.collection)
  kernels = _load(values.collection, "train", "valid")
  results = {}
  for way in values.ways:
    results[way] = _held_out(way, collection, kernels, files.expanded(values.output),
                             values.gated and way == "groups")
    print(f"{way}\n{table(results[way])}", flush=True)
  if values.results is not None:
    files.write_json(values.results, {
        **run_directory.environment(), "seeds": [_SEED], "collection": collection.name, **results})
  return 0


if __name__ == "__main__":
  app.run(main, define_flags)
