"""Boosted trees as a member of a run's ensemble: models of another kind err in other places.

    score = networks + weight * deviation of the networks / deviation of the trees * trees

where `networks` is the mean score of the run's networks of all kinds, and the deviations are the
mean standard deviations over the configurations of the training programs; that of the networks is
of the run's own kind, whose unit the mean has. The unit stays that of the networks.
Features and target of the trees are those of the baseline `boosted_trees` (`evaluation.trees`), of
`lambdarank`, or of both.
Features that are differences from the mean over the listed configurations make the trees' scores
depend on the list.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import logging
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import run_config
from tpugraphs_rank.costs import targets
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import baselines
from tpugraphs_rank.evaluation import score_deviations
from tpugraphs_rank.evaluation import tree_arrays
from tpugraphs_rank.evaluation import tree_features
from tpugraphs_rank.evaluation import tree_scores
from tpugraphs_rank.evaluation import trees
from tpugraphs_rank.training import run_directory

_logger = logging.getLogger(__name__)

ARRAYS, FILE = "trees.npz", "trees.json"
# The objectives of `run_config.TREES_OBJECTIVES` and the baselines that have them.
OBJECTIVES = {run_config.REGRESSION: baselines.BOOSTED_TREES,
              run_config.LAMBDARANK: baselines.LAMBDARANK}
_FITS = 3
# Training configurations on which the deviations are measured.
_MOST_ROWS = 20_000
_DEVIATIONS = ("network_deviation", "tree_deviation")
_MOST_WEIGHT = 1e6


@dataclasses.dataclass(frozen=True)
class TreeMember:
  """The trees of a run and how they are added to its networks.

  Attributes:
    arrays: the trees.
    weight: of the trees, relative to the networks.
    network_deviation: of the scores of the run's own kind of networks within a training program.
    tree_deviation: of the trees' scores within a training program.
    facts: the hardware for which features are computed.
    version: of the features, see `tree_features.features`.
  """

  arrays: tree_arrays.TreeArrays
  weight: float
  network_deviation: float
  tree_deviation: float
  facts: targets.TargetFacts
  version: int = tree_features.VERSION

  def scores(self, graph: graphs.ConfiguredGraph, rows: np.ndarray | None = None) -> np.ndarray:
    """(c',) float32 scores of configurations (None: all), in the unit of the networks."""
    chosen = np.arange(graph.num_configs) if rows is None else rows
    values = self.arrays.scores(tree_features.features(graph, chosen, self.facts, self.version))
    return (values * (self.network_deviation / self.tree_deviation)).astype(np.float32)

  def add(self, networks: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The scores of the ensemble, (c',) float32, from those of the networks and of the trees."""
    return (networks + np.float32(self.weight) * own).astype(np.float32)


def fit(train: Sequence[splits.ProgramView], valid: Sequence[splits.ProgramView],
        networks: Sequence[np.ndarray], weight: float, objectives: Sequence[str],
        facts: targets.TargetFacts, seed: int) -> TreeMember:
  """Fits trees with the hyperparameters that are best on the validation programs.

  Args:
    train: the training programs, with runtimes.
    valid: the validation programs.
    networks: the scores of the run's own kind of networks for `sample(train, seed)`.
    weight: of the trees, relative to the networks.
    objectives: some of `OBJECTIVES`. The scores of several are averaged, each in the unit of its
      deviation.
    facts: the hardware.
    seed: of the first fit; the trees of an objective are the mean of a few.

  Raises:
    ConfigError: the library of an objective is not installed.
    TrainingError: the scores of the networks deviate too much, or are not finite.
  """
  measured = [tree_features.features(program.graph, program.indices, facts)
              for program in sample(train, seed)]
  deviation = lambda arrays: score_deviations.mean([arrays.scores(rows) for rows in measured])
  fits = {name: _fit(train, valid, OBJECTIVES[name], facts, seed) for name in objectives}
  units = {name: deviation(arrays) for name, arrays in fits.items()}
  useful = [name for name in objectives if not score_deviations.is_constant(units[name])]
  if useful and len(useful) < len(fits):
    # Dividing by their deviation would enlarge rounding errors.
    _logger.warning("trees of %s score all configurations of a program alike, and are left out",
                    ", ".join(sorted(fits.keys() - set(useful))))
  if len(useful) > 1:
    arrays = tree_arrays.joined([fits[name] for name in useful], [units[name] for name in useful])
    unit = deviation(arrays)
  else:
    only = (useful or objectives)[0]
    arrays, unit = fits[only], units[only]
  return TreeMember(arrays, weight, score_deviations.mean(networks), unit, facts)


def _fit(train: Sequence[splits.ProgramView], valid: Sequence[splits.ProgramView], objective: str,
         facts: targets.TargetFacts, seed: int) -> tree_arrays.TreeArrays:
  """The mean of a few fits with one objective, by the name of its baseline."""
  how = tree_scores.method(objective)
  fit_arrays = how.fit_arrays
  assert fit_arrays is not None
  settings = tree_scores.tuned(how, train, valid, seed)
  first = train[0]
  width = tree_features.features(first.graph, first.indices[:1], facts).shape[1]

  def fitted(number: int) -> tree_arrays.TreeArrays:
    table = trees.training_table(train, _FITS * seed + number)
    return fit_arrays(table, settings, _FITS * seed + number, width)

  return tree_arrays.joined(trees.run_all(fitted, range(_FITS), f"{objective}: fits", "fit"))


def sample(train: Sequence[splits.ProgramView], seed: int) -> list[splits.ProgramView]:
  """The training programs, thinned: on these the deviations are measured."""
  return trees.thin(train, _MOST_ROWS, np.random.default_rng([seed, 6]))


def write(directory: run_directory.RunDirectory, member: TreeMember) -> None:
  """Stores the trees of a run; the JSON file last, so that it exists only if all is written.

  Raises:
    OutputError: a file cannot be written.
  """
  tree_arrays.write(directory / ARRAYS, member.arrays)
  files.write_json(directory / FILE, {
      **{name: getattr(member, name) for name in ("weight", *_DEVIATIONS)},
      "target_facts": dataclasses.asdict(member.facts), "features": member.version})


def read(directory: run_directory.RunDirectory) -> TreeMember | None:
  """The trees of a run; None if it has none.

  Raises:
    RunDirectoryError: a file is damaged.
  """
  if not (directory / FILE).exists():
    return None
  try:
    values = files.read_json(directory / FILE)
    if not isinstance(values, Mapping):
      raise errors.DataError("expected an object")
    return TreeMember(tree_arrays.read(directory / ARRAYS),
                      facts=targets.from_dict(values.get("target_facts", {}), ""),
                      version=_version(values), **_numbers(values))
  except (errors.DataError, errors.MissingDataError) as error:
    raise errors.RunDirectoryError(
        f"{directory / FILE} or {ARRAYS} is damaged ({error}); restore both, or delete both and "
        "run the training command again, which fits the trees again") from error


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
  weight: Any = values.get("weight")
  # A bool is no number here.
  if type(weight) not in (int, float) or not 0 < weight <= _MOST_WEIGHT:
    raise errors.DataError(
        f"weight is {escaping.value(weight)}; expected a number above 0, up to {_MOST_WEIGHT:g}")
  return {"weight": float(weight), **{
      name: score_deviations.check(name, values.get(name)) for name in _DEVIATIONS}}


def _version(values: Mapping[str, Any]) -> int:
  """The version of the features; runs that do not state it had the first one."""
  version = values.get("features", tree_features.WITHOUT_TILE_COSTS)
  if type(version) is not int or not 1 <= version <= tree_features.VERSION:
    raise errors.DataError(
        f"features is {escaping.value(version)}; this version of the package knows 1 to "
        f"{tree_features.VERSION}")
  return version
