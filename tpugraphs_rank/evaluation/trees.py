"""Gradient-boosted trees on hand-made features: the baseline that is not trivial.

The target of a configuration is its standardised log runtime among those of its graph, with the
sign of a score; every graph weighs the same.
"""

import dataclasses
import itertools
import logging
from typing import Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np
from sklearn import ensemble

from tpugraphs_rank import metrics
from tpugraphs_rank.data import labels
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import per_graph
from tpugraphs_rank.evaluation import tree_features

_logger = logging.getLogger(__name__)

# Configurations drawn from one graph for fitting: a large collection has millions.
MAX_CONFIGS = 512
# Every how many trees the validation metric is looked at.
_STAGE = 25


@dataclasses.dataclass(frozen=True)
class Settings:
  """Hyperparameters of the trees; see scikit-learn's HistGradientBoostingRegressor."""

  iterations: int = 300
  learning_rate: float = 0.05
  max_leaf_nodes: int = 15
  min_samples_leaf: int = 20
  max_features: float = 0.3
  l2_regularization: float = 1.0


# What `tune` tries; the number of trees comes besides.
GRID: Tuple[Settings, ...] = tuple(
    Settings(iterations=800, max_leaf_nodes=leaves, max_features=share)
    for leaves, share in itertools.product((12, 24, 48), (0.2, 0.4)))


class _Table(NamedTuple):
  """Rows of configurations: features (r, f), targets (r,), weights (r,)."""

  features: np.ndarray
  targets: np.ndarray
  weights: np.ndarray


def _table(programs: Sequence[splits.Program], seed: int) -> _Table:
  """The training rows of all programs, at most MAX_CONFIGS of each, drawn with the seed."""
  rng = np.random.default_rng([seed, 2])
  parts: List[_Table] = []
  for program in programs:
    rows, runtimes = program.indices, per_graph.runtimes_of(program)
    if len(rows) > MAX_CONFIGS:
      drawn = np.sort(rng.permutation(len(rows))[:MAX_CONFIGS])
      rows, runtimes = rows[drawn], runtimes[drawn]
    parts.append(_Table(
        tree_features.features(program.graph, rows), labels.make_labels(runtimes).target,
        np.full(len(rows), 1.0 / len(rows))))
  joined = _Table(*(np.concatenate(columns) for columns in zip(*parts)))
  return joined._replace(weights=joined.weights / joined.weights.mean())


class Trees:
  """Fitted trees."""

  def __init__(self, settings: Settings, regressor: ensemble.HistGradientBoostingRegressor,
               columns: np.ndarray):
    self.settings = settings
    self._regressor = regressor
    self._columns = columns

  def _features(self, program: splits.Program) -> np.ndarray:
    return tree_features.features(program.graph, program.indices)[:, self._columns]

  def score(self, programs: Sequence[splits.Program]) -> List[np.ndarray]:
    """For each program (c',) float64, higher = predicted faster. Needs no runtimes."""
    return [self._regressor.predict(self._features(program)) for program in programs]

  def staged_scores(self, programs: Sequence[splits.Program]) -> Iterator[List[np.ndarray]]:
    """`score` with the first 1, 2, ... trees."""
    tables = [self._features(program) for program in programs]
    ends = np.cumsum([len(table) for table in tables])[:-1]
    for values in self._regressor.staged_predict(np.concatenate(tables)):
      yield np.split(values, ends)


def fit(programs: Sequence[splits.Program], settings: Settings = Settings(), seed: int = 0
        ) -> Trees:
  """Fits trees to the training programs.

  Args:
    programs: of the training split, with runtimes.
    settings: hyperparameters, for instance those of `tune`.
    seed: of the features that each split may look at, and of the rows of large graphs.

  Raises:
    DataError: a program has no runtimes.
  """
  return _fit(_table(programs, seed), settings, seed)


def _fit(table: _Table, settings: Settings, seed: int) -> Trees:
  regressor = ensemble.HistGradientBoostingRegressor(
      learning_rate=settings.learning_rate, max_iter=settings.iterations,
      max_leaf_nodes=settings.max_leaf_nodes, min_samples_leaf=settings.min_samples_leaf,
      max_features=settings.max_features, l2_regularization=settings.l2_regularization,
      early_stopping=False, random_state=seed)
  # Most columns of a pooled graph never vary, and each costs time in every split.
  columns = np.flatnonzero(np.ptp(table.features, axis=0) > 0)
  regressor.fit(table.features[:, columns], table.targets, sample_weight=table.weights)
  return Trees(settings, regressor, columns)


def tune(train: Sequence[splits.Program], valid: Sequence[splits.Program],
         grid: Sequence[Settings] = GRID, seed: int = 0) -> Settings:
  """Chooses hyperparameters, the number of trees among them, by mean tau on validation.

  Args:
    train: programs to fit.
    valid: programs that judge; the test split has no part in this.
    grid: the settings to try; `iterations` is the largest number of trees.
    seed: of every fit.

  Returns:
    The best settings; the first of equals.
  """
  table = _table(train, seed)
  truth = [per_graph.runtimes_of(program) for program in valid]
  best, best_tau = grid[0], -np.inf
  for settings in grid:
    stages = _fit(table, settings, seed).staged_scores(valid)
    for count, scores in enumerate(stages, start=1):
      if count % _STAGE and count != settings.iterations:
        continue
      tau = metrics.mean_over_graphs(
          [metrics.kendall_tau(runtimes, score) for runtimes, score in zip(truth, scores)]).mean
      if tau > best_tau:
        best, best_tau = dataclasses.replace(settings, iterations=count), tau
  _logger.info("boosted_trees: %s, mean tau %.3f on the validation split", best, best_tau)
  return best
