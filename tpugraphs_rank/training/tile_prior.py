"""A run's analytic prior for tiles: the cost of `costs.tile_cost`, used where programs are new.

    score = (1 - w) * learned / learned deviation + w * -log(cost) / deviation of the cost

w follows from the novelty of the program (see `costs.novelty`): 0 up to `start`, then rising in
proportion to the novelty until it is `top` from `full` on. Where w is 0 the score is the learned
one, unchanged. The deviations are the mean standard deviations over the configurations of the
training programs, so that a score depends on its configuration and program only.

Training fits the weights of the cost to its programs, and the gate to predictions for programs that
a fast learner (boosted trees) did not see; see `prior_fitting`. They are stored in `prior.json`.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.costs import novelty as novelty_lib
from tpugraphs_rank.costs import targets
from tpugraphs_rank.costs import tile_cost
from tpugraphs_rank.data import graphs
from tpugraphs_rank.training import run_directory

FILE = "prior.json"
ANALYTIC, NONE = CHOICES = ("analytic", "none")


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
class Prior:
  """What a run stores about its prior.

  Attributes:
    weights: (13,) the weights of the terms of the cost.
    gate: when it counts.
    novelty: the training programs' profiles.
    learned_deviation: of the run's scores within a training program.
    cost_deviation: of log(cost) within a training program.
    facts: caches and vectors of the target.
    figures: Kendall's tau of the learner, the cost and both on held-out groups and on held-out
      shapes of known families, as `prior_fitting` measured them.
  """

  weights: np.ndarray
  gate: Gate
  novelty: novelty_lib.Novelty
  learned_deviation: float
  cost_deviation: float
  facts: targets.TargetFacts
  figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def weight(self, graph: graphs.Graph) -> float:
    """The weight of the analytic cost for a program, from 0 to 1."""
    return self.gate.weight(self.novelty.of(graph))

  def cost(self, graph: graphs.TileGraph) -> np.ndarray:
    """(c,) float64: the analytic score of each configuration, higher = faster."""
    return -tile_cost.log_cost(graph, self.weights, self.facts) / self.cost_deviation

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
    """The contents of the file."""
    return {
        "weights": dict(zip(tile_cost.TERMS, map(float, self.weights))),
        "gate": dataclasses.asdict(self.gate),
        "learned_deviation": self.learned_deviation, "cost_deviation": self.cost_deviation,
        "target_facts": dataclasses.asdict(self.facts), "figures": dict(self.figures),
        "profiles": self.novelty.to_json()}

  @classmethod
  def from_json(cls, values: Any) -> "Prior":
    """Inverse of `to_json`.

    Raises:
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
    if max(weights) <= 0 or gate[1] < gate[0] or gate[2] > 1:
      raise errors.DataError(
          "expected a positive weight, and a gate with start <= full and top from 0 to 1")
    learned, cost = _numbers(values, None, ["learned_deviation", "cost_deviation"])
    if min(learned, cost) <= 0:
      raise errors.DataError("expected positive deviations")
    figures = values.get("figures")
    return cls(np.array(weights), Gate(*gate), novelty_lib.Novelty.from_json(values["profiles"]),
               learned, cost, targets.from_dict(values["target_facts"], ""),
               figures if isinstance(figures, Mapping) else {})


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
    return Prior.from_json(files.read_json(path))
  except errors.DataError as error:
    raise errors.RunDirectoryError(
        f"{path} is damaged ({error}); restore it, or delete it to rank without the analytic "
        "prior") from error


def write(directory: run_directory.RunDirectory, prior: Prior) -> None:
  """Stores it.

  Raises:
    OutputError: it cannot be written.
  """
  files.write_json(directory / FILE, prior.to_json())
