"""A run's prior for tiles: the cost of `costs.tile_cost` and trees on it, used for new programs.

    score = (1 - w) * learned + w * learned deviation * prior
    prior = (1 - s) * -log(cost) / deviation of the cost + s * trees / deviation of the trees

The trees are those of `prior_trees`; the prior of a run without them has s = 0.
w follows from the novelty of the program (see `costs.novelty`): 0 up to `start`, then rising in
proportion to the novelty until it is `top` from `full` on. Where w is 0 the score is the learned
one, unchanged. The deviations are the mean standard deviations over the configurations of the
training programs. The trees compare a configuration with the others of its program, so the scores
of two files with different configurations of a program are not comparable where w is not 0.

Training fits the weights of the cost and the trees to its programs, and the gate to predictions for
the validation programs, and for groups that a fast learner (boosted trees) did not see; see
`prior_fitting`. They are stored in `prior.json` and `prior.npz`.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.costs import novelty as novelty_lib
from tpugraphs_rank.costs import targets
from tpugraphs_rank.costs import tile_cost
from tpugraphs_rank.costs import tile_relative
from tpugraphs_rank.data import graphs
from tpugraphs_rank.evaluation import score_deviations
from tpugraphs_rank.evaluation import tree_arrays
from tpugraphs_rank.training import prior_trees
from tpugraphs_rank.training import run_directory

FILE = "prior.json"
ANALYTIC, NONE = CHOICES = ("analytic", "none")
_MOST_WEIGHT = 1e30


@dataclasses.dataclass(frozen=True)
class Gate:
  """The weight of the analytic cost, by the novelty of a program.

  Attributes:
    start: novelty up to which the weight is 0.
    full: novelty from which it is `top`; at least `start`.
    top: the largest weight, from 0 to 1.
  """

  start: float
  full: float
  top: float

  def weight(self, novelty: float) -> float:
    """The weight of the analytic cost for a program of this novelty."""
    if novelty <= self.start:
      return 0.0
    if novelty >= self.full:
      return self.top
    return self.top * (novelty - self.start) / (self.full - self.start)


@dataclasses.dataclass(frozen=True)
class FittedTrees:
  """The trees of a prior.

  Attributes:
    arrays: the trees, see `prior_trees`.
    share: of the trees in the prior, from 0 to 1.
    deviation: of their scores within a training program.
  """

  arrays: tree_arrays.TreeArrays
  share: float
  deviation: float


@dataclasses.dataclass(frozen=True)
class Prior:
  """What a run stores about its prior.

  Attributes:
    weights: (13,) the weights of the terms of the cost.
    gate: when it counts.
    novelty: the training programs' profiles.
    learned_deviation: of the run's scores within a training program.
    cost_deviation: of log(cost) within a training program.
    facts: caches and vectors of the target.
    figures: Kendall's tau of learned scores, the prior and both on held-out groups and on the
      validation split, as `prior_fitting` measured them.
    trees: None in runs of earlier versions.
  """

  weights: np.ndarray
  gate: Gate
  novelty: novelty_lib.Novelty
  learned_deviation: float
  cost_deviation: float
  facts: targets.TargetFacts
  figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  trees: FittedTrees | None = None

  def weight(self, graph: graphs.Graph) -> float:
    """The weight of the analytic cost for a program, from 0 to 1."""
    return self.gate.weight(self.novelty.of(graph))

  def cost(self, graph: graphs.TileGraph) -> np.ndarray:
    """(c,) float64: the prior's score of each configuration, higher = faster."""
    terms = tile_cost.terms(graph, self.facts)
    return self.cost_of_rows(
        terms, None if self.trees is None else prior_trees.rows_of(graph, self.facts, terms))

  def cost_of_rows(self, terms: np.ndarray, relative: np.ndarray | None) -> np.ndarray:
    """The same from what the prior knows of configurations.

    Args:
      terms: (c, 13) the terms of the cost.
      relative: (c, f) the features of the trees; not used by a prior without trees.

    Returns:
      (c,) float64.
    """
    cost = -tile_cost.log_of_terms(terms, self.weights) / self.cost_deviation
    if self.trees is None:
      return cost
    assert relative is not None
    arrays = self.trees.arrays
    # Trees of earlier versions do not know the last column.
    own = arrays.scores(relative[:, :arrays.width])
    return (1 - self.trees.share) * cost + self.trees.share * own / self.trees.deviation

  def scores(self, graph: graphs.Graph, learned: np.ndarray, rows: np.ndarray | None = None
             ) -> np.ndarray:
    """The scores of configurations.

    Args:
      graph: the program.
      learned: (..., c') float32, the scores of the network, or of several of them.
      rows: (c',) the configurations that they belong to; None: all.

    Returns:
      (..., c') float32; `learned` itself where the prior does not count.
    """
    weight = self.weight(graph) if isinstance(graph, graphs.TileGraph) else 0.0
    if not weight:
      return learned
    assert isinstance(graph, graphs.TileGraph)
    cost = self.cost(graph)
    blended = (1 - weight) * learned / self.learned_deviation + weight * (
        cost if rows is None else cost[rows])
    # In the unit of the learned scores, on which the calibration of a run is based.
    return (self.learned_deviation * blended).astype(np.float32)

  def to_json(self) -> dict[str, Any]:
    """The contents of the file, without the arrays of the trees."""
    own = self.trees
    return {
        **({} if own is None else {"trees": {"share": own.share, "deviation": own.deviation}}),
        "weights": dict(zip(tile_cost.TERMS, map(float, self.weights))),
        "gate": dataclasses.asdict(self.gate),
        "learned_deviation": self.learned_deviation, "cost_deviation": self.cost_deviation,
        "target_facts": dataclasses.asdict(self.facts), "figures": dict(self.figures),
        "profiles": self.novelty.to_json()}

  @classmethod
  def from_json(cls, values: Any, arrays: Callable[[], tree_arrays.TreeArrays]) -> "Prior":
    """Inverse of `to_json`.

    Args:
      values: the contents of the file.
      arrays: reads those of the trees.

    Raises:
      MissingDataError: the arrays are missing.
      DataError: a key is missing or has a wrong value; the message names it.
    """
    if not isinstance(values, Mapping):
      raise errors.DataError("expected an object")
    keys = ("weights", "gate", "learned_deviation", "cost_deviation", "target_facts", "profiles")
    missing = [key for key in keys if key not in values]
    if missing:
      raise errors.DataError(f"lacks the key {missing[0]!r}")
    weights = _numbers(values, "weights", tile_cost.TERMS)
    gate = _numbers(values, "gate", [field.name for field in dataclasses.fields(Gate)])
    if not 0 < max(weights) <= _MOST_WEIGHT or gate[1] < gate[0] or gate[2] > 1:
      raise errors.DataError(
          f"expected weights of at most {_MOST_WEIGHT:g}, one of them positive, and a gate with "
          "start <= full and top from 0 to 1")
    learned, cost = (score_deviations.check(name, values.get(name))
                     for name in ("learned_deviation", "cost_deviation"))
    figures = values.get("figures")
    own = None
    if "trees" in values:
      share, = _numbers(values, "trees", ["share"])
      if share > 1:
        raise errors.DataError("trees: expected a share from 0 to 1")
      deviation = score_deviations.check("trees.deviation", values["trees"].get("deviation"))
      own = FittedTrees(arrays(), share, deviation)
      if own.arrays.width not in (tile_relative.WIDTH_WITHOUT_KIND, tile_relative.WIDTH):
        raise errors.DataError(
            f"trees of {own.arrays.width} features; this version of the package has "
            f"{tile_relative.WIDTH}")
    return cls(np.array(weights), Gate(*gate), novelty_lib.Novelty.from_json(values["profiles"]),
               learned, cost, targets.from_dict(values["target_facts"], ""),
               figures if isinstance(figures, Mapping) else {}, own)


def _numbers(values: Mapping[str, Any], key: str | None, names: Sequence[str]) -> list[float]:
  """Non-negative numbers by name, of an object or of one of its keys."""
  table = values if key is None else values[key]
  numbers = []
  for name in names:
    value = table.get(name) if isinstance(table, Mapping) else None
    # A bool is no number here.
    if value is None or type(value) not in (int, float) or not 0 <= value < math.inf:
      raise errors.DataError(
          f"{name if key is None else f'{key}.{name}'} is {value!r}; expected a number from 0")
    numbers.append(float(value))
  return numbers


def read(directory: run_directory.RunDirectory) -> Prior | None:
  """What a run stores; None if it has no prior.

  Raises:
    RunDirectoryError: the file is damaged.
  """
  path = directory / FILE
  if not path.exists():
    return None
  try:
    return Prior.from_json(files.read_json(path),
                           lambda: tree_arrays.read(directory / prior_trees.FILE))
  except (errors.DataError, errors.MissingDataError) as error:
    raise errors.RunDirectoryError(
        f"{path} or {prior_trees.FILE} is damaged ({error}); restore both, or delete them to rank "
        "without the analytic prior") from error


def write(directory: run_directory.RunDirectory, prior: Prior) -> None:
  """Stores it; the JSON file last, so that it exists only if all is written.

  Raises:
    OutputError: it cannot be written.
  """
  if prior.trees is not None:
    tree_arrays.write(directory / prior_trees.FILE, prior.trees.arrays)
  files.write_json(directory / FILE, prior.to_json())
