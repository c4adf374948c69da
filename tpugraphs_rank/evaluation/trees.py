"""Gradient-boosted trees on hand-made features: the baseline that is not trivial.

The target of a configuration is its standardised log runtime among those of its graph, with the
sign of a score; every graph weighs the same.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import itertools
import logging
from typing import NamedTuple

import numpy as np
from sklearn import ensemble
import tqdm

from tpugraphs_rank import metrics
from tpugraphs_rank.data import labels
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import per_graph
from tpugraphs_rank.evaluation import tree_features

_logger = logging.getLogger(__name__)

# A large collection has millions of configurations, and every one is a row of hundreds of features:
# those drawn from one graph; and from all graphs, to fit, to fit each of the settings that are
# tried, and to judge those.
MAX_CONFIGS = 512
MAX_ROWS = 100_000
MAX_TUNED_ROWS = 30_000
MAX_JUDGED_ROWS = 50_000
# Of tables with more rows trees see bins: with weighted rows, scikit-learn looks for every one of the
# 254 edges of a column by sorting the column again, minutes for each fit. Its bins are as many.
_BINNED_ROWS = 20_000
_BINS = 255
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
GRID: tuple[Settings, ...] = tuple(
    Settings(iterations=800, max_leaf_nodes=leaves, max_features=share)
    for leaves, share in itertools.product((12, 24, 48), (0.2, 0.4)))


class _Columns(NamedTuple):
  """What trees see of `tree_features.features`.

  Attributes:
    kept: (f,) the columns that vary: most of a pooled graph never do, and each costs time in every
      split.
    edges: for each of them the upper edges of its bins but the last; None: values as they are.
  """

  kept: np.ndarray
  edges: Sequence[np.ndarray] | None = None

  def of(self, features: np.ndarray) -> np.ndarray:
    """(r, f) float32 values, or uint8 bins, of all columns of `features`."""
    if self.edges is None:
      return features[:, self.kept]
    bins = np.empty([len(features), len(self.kept)], np.uint8)
    for place, (column, edges) in enumerate(zip(self.kept, self.edges)):
      bins[:, place] = np.searchsorted(edges, features[:, column])
    return bins


class _Table(NamedTuple):
  """Rows of configurations: what `columns` makes of them (r, f), targets (r,), weights (r,)."""

  features: np.ndarray
  targets: np.ndarray
  weights: np.ndarray
  columns: _Columns


def thin(programs: Sequence[splits.ProgramView], most: int, rng: np.random.Generator
         ) -> list[splits.ProgramView]:
  """The same programs, those with many configurations with some of them, drawn, in their order.

  Args:
    programs: the programs.
    most: configurations of all programs together, about: each keeps at least two and at most
      MAX_CONFIGS, and programs that have fewer than their share leave the rest unused.
    rng: draws.
  """
  share = min(MAX_CONFIGS, max(most // max(len(programs), 1), 2))
  thinned = []
  for program in programs:
    rows = program.indices
    if len(rows) > share:
      drawn = np.sort(rng.permutation(len(rows))[:share])
      program = dataclasses.replace(program, choice=rows[drawn])
    thinned.append(program)
  return thinned


def _table(programs: Sequence[splits.ProgramView], seed: int, most: int) -> _Table:
  """The training rows of all programs, at most about `most`, drawn with the seed."""
  programs = thin(programs, most, np.random.default_rng([seed, 2]))
  targets = [labels.make_labels(per_graph.runtimes_of(program)).target for program in programs]
  weights = np.concatenate([np.full(len(rows), 1.0 / len(rows)) for rows in targets])
  table = _features(programs)
  columns = _Columns(np.flatnonzero(np.ptp(table, axis=0) > 0))
  if len(table) > _BINNED_ROWS:
    columns = columns._replace(edges=[_edges(table[:, column]) for column in columns.kept])
  return _Table(columns.of(table), np.concatenate(targets), weights / weights.mean(), columns)


def _edges(values: np.ndarray) -> np.ndarray:
  """(b - 1,) float64: where one of b <= _BINS bins ends and the next begins, for values (r,)."""
  distinct = np.unique(values).astype(np.float64)
  if len(distinct) <= _BINS:
    return (distinct[1:] + distinct[:-1]) / 2
  return np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))


def _features(programs: Sequence[splits.ProgramView], columns: _Columns | None = None) -> np.ndarray:
  """(r, f): the features of all programs' configurations, one after the other."""
  table = None
  start = 0
  for program in tqdm.tqdm(programs, desc="features of boosted_trees", unit="graph", disable=None,
                           leave=False):
    rows = tree_features.features(program.graph, program.indices)
    if columns is not None:
      rows = columns.of(rows)
    if table is None:
      # Filled in place: joined afterwards, all rows would be in memory twice.
      table = np.empty([sum(len(each.indices) for each in programs), rows.shape[1]], rows.dtype)
    table[start:start + len(rows)] = rows
    start += len(rows)
  return table


class Trees:
  """Fitted trees."""

  def __init__(self, settings: Settings, regressor: ensemble.HistGradientBoostingRegressor,
               columns: _Columns):
    self.settings = settings
    self._regressor = regressor
    self._columns = columns

  def score(self, programs: Sequence[splits.ProgramView]) -> list[np.ndarray]:
    """For each program (c',) float64, higher = predicted faster. Needs no runtimes."""
    return [self._regressor.predict(self._columns.of(
        tree_features.features(program.graph, program.indices)))
            for program in tqdm.tqdm(programs, desc="scoring with boosted_trees", unit="graph",
                                     disable=None, leave=False)]

  def staged_scores(self, programs: Sequence[splits.ProgramView]) -> Iterator[list[np.ndarray]]:
    """`score` with the first 1, 2, ... trees."""
    ends = np.cumsum([len(program.indices) for program in programs])[:-1]
    for values in self._regressor.staged_predict(_features(programs, self._columns)):
      yield np.split(values, ends)


def fit(programs: Sequence[splits.ProgramView], settings: Settings = Settings(), seed: int = 0
        ) -> Trees:
  """Fits trees to the training programs.

  Args:
    programs: of the training split, with runtimes.
    settings: hyperparameters, for instance those of `tune`.
    seed: of the features that each split may look at, and of the rows of large graphs.

  Raises:
    DataError: a program has no runtimes.
  """
  return _fit(_table(programs, seed, MAX_ROWS), settings, seed)


def _fit(table: _Table, settings: Settings, seed: int) -> Trees:
  regressor = ensemble.HistGradientBoostingRegressor(
      learning_rate=settings.learning_rate, max_iter=settings.iterations,
      max_leaf_nodes=settings.max_leaf_nodes, min_samples_leaf=settings.min_samples_leaf,
      max_features=settings.max_features, l2_regularization=settings.l2_regularization,
      early_stopping=False, random_state=seed)
  regressor.fit(table.features, table.targets, sample_weight=table.weights)
  return Trees(settings, regressor, table.columns)


def tune(train: Sequence[splits.ProgramView], valid: Sequence[splits.ProgramView],
         grid: Sequence[Settings] = GRID, seed: int = 0) -> Settings:
  """Chooses hyperparameters, the number of trees among them, by mean tau on validation.

  Args:
    train: programs to fit; where they have more than MAX_TUNED_ROWS, some of them, evenly spread.
    valid: programs that judge, by at most about MAX_JUDGED_ROWS of their configurations, drawn
      with the seed; the test split has no part in this.
    grid: the settings to try; `iterations` is the largest number of trees.
    seed: of every fit.

  Returns:
    The best settings; the first of equals.
  """
  # Fewer programs rather than fewer configurations of each, which are compared with one another.
  rows = sum(min(len(program.indices), MAX_CONFIGS, max(MAX_ROWS // len(train), 2))
             for program in train)
  table = _table(train[::-(-rows // MAX_TUNED_ROWS)], seed, MAX_TUNED_ROWS)
  valid = thin(valid, MAX_JUDGED_ROWS, np.random.default_rng([seed, 3]))
  truth = [per_graph.runtimes_of(program) for program in valid]
  best, best_tau = grid[0], -np.inf
  for settings in tqdm.tqdm(grid, desc="tuning boosted_trees", unit="setting", disable=None,
                            leave=False):
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
