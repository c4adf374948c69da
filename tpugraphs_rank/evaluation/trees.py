"""Gradient-boosted trees on hand-made features: the strongest baseline.

The target of a configuration is its standardised log runtime among the configurations of its graph,
with the sign of a score. All graphs have equal weight.
"""

from collections.abc import Callable, Iterator, Sequence
import concurrent.futures
import contextlib
import dataclasses
import itertools
import logging
import os
import threading
from typing import Any, NamedTuple, TypeVar

import numpy as np
from sklearn import ensemble
import threadpoolctl
import tqdm

from tpugraphs_rank import metrics
from tpugraphs_rank.data import labels
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import per_graph
from tpugraphs_rank.evaluation import tree_features

_logger = logging.getLogger(__name__)
_Input = TypeVar("_Input")
_Result = TypeVar("_Result")

# Limits for large collections, which have millions of configurations with hundreds of features:
# configurations of one graph, training rows of a final fit, training rows of a tuning fit, and
# validation rows.
MAX_CONFIGS = 512
MAX_ROWS = 100_000
MAX_TUNING_ROWS = 30_000
MAX_VALIDATION_ROWS = 50_000
# Tables are binned here instead of in scikit-learn. With weighted rows, scikit-learn sorts a column
# again for each of its 254 edges, which takes most of the time of a fit.
_BINS = 255
# Number of trees between two evaluations of the validation metric.
_STAGE = 25
# Fits that run at the same time. Each uses one thread, see `one_thread`.
_PARALLEL_FITS = 2
_BINNING = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Settings:
  """Hyperparameters of the trees; see scikit-learn's HistGradientBoostingRegressor."""

  iterations: int = 300
  learning_rate: float = 0.05
  max_leaf_nodes: int = 15
  min_samples_leaf: int = 20
  max_features: float = 0.3
  l2_regularization: float = 1.0


# The settings that `tune` compares. It also chooses the number of trees.
GRID: tuple[Settings, ...] = tuple(
    Settings(iterations=800, max_leaf_nodes=leaves, max_features=share)
    for leaves, share in itertools.product((12, 24, 48), (0.2, 0.4)))


class Columns(NamedTuple):
  """Maps the columns of `tree_features.features` to the input of the trees.

  Attributes:
    kept: (f,) indices of the columns that vary. Most columns of a pooled graph are constant, and
      each column costs time in every split.
    edges: for each kept column the upper edges of its bins except the last. None means that the
      trees get the values themselves.
    version: of `tree_features.features`.
  """

  kept: np.ndarray
  edges: Sequence[np.ndarray] | None = None
  version: int = tree_features.VERSION

  def of(self, features: np.ndarray) -> np.ndarray:
    """(r, f) float32 values or uint8 bins of the kept columns."""
    if self.edges is None:
      return features[:, self.kept]
    bins = np.empty([len(features), len(self.kept)], np.uint8)
    for place, (column, edges) in enumerate(zip(self.kept, self.edges)):
      bins[:, place] = np.searchsorted(edges, features[:, column])
    return bins


class Table(NamedTuple):
  """Training rows, one per configuration.

  Attributes:
    features: (r, f), see `columns`.
    targets: (r,) higher = faster.
    weights: (r,), equal in total for each graph.
    columns: what `features` holds.
    sizes: (g,) int64 rows of each graph; those of a graph are consecutive.
  """

  features: np.ndarray
  targets: np.ndarray
  weights: np.ndarray
  columns: Columns
  sizes: np.ndarray


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
  """Limits scikit-learn to one OpenMP thread in the calling thread.

  Waiting OpenMP threads spin. If another process occupies a core, the trees of this module then
  take several times as long and as much CPU time, and for tables of this size a second thread
  gains little on an idle machine.
  """
  with threadpoolctl.threadpool_limits(1, user_api="openmp"):
    yield


def run_all(function: Callable[[_Input], _Result], inputs: Sequence[_Input], description: str,
            unit: str) -> list[_Result]:
  """Applies a function to all inputs, a few at a time, and shows the progress.

  Args:
    function: a fit that uses one thread.
    inputs: its arguments.
    description: of the progress bar.
    unit: of the progress bar.

  Returns:
    The results, in the order of the inputs.
  """
  def limited(value: _Input) -> _Result:
    with one_thread():
      return function(value)

  workers = min(_PARALLEL_FITS, os.cpu_count() or 1)
  with tqdm.tqdm(desc=description, total=len(inputs), unit=unit, disable=None,
                 leave=False) as progress, concurrent.futures.ThreadPoolExecutor(workers) as pool:
    futures = [pool.submit(limited, value) for value in inputs]
    try:
      for future in concurrent.futures.as_completed(futures):
        future.result()
        progress.update()
    except BaseException:
      pool.shutdown(cancel_futures=True)
      raise
  return [future.result() for future in futures]


def thin(programs: Sequence[splits.ProgramView], most: int, rng: np.random.Generator
         ) -> list[splits.ProgramView]:
  """Draws some configurations of the programs that have many; keeps their order.

  Args:
    programs: the programs.
    most: approximate limit on the configurations of all programs together. Each program keeps
      between two and MAX_CONFIGS configurations. A program with fewer configurations than its share
      leaves the rest unused.
    rng: the source of the draw.
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


def training_table(programs: Sequence[splits.ProgramView], seed: int, most: int = MAX_ROWS,
                   version: int = tree_features.VERSION) -> Table:
  """The training rows of all programs, at most about `most`, drawn with the seed.

  `version` is that of `tree_features.features`.
  """
  programs = thin(programs, most, np.random.default_rng([seed, 2]))
  targets = [labels.make_labels(per_graph.runtimes_of(program)).target for program in programs]
  table = features_of(programs, version=version)
  return make_table(table, targets, version)


def make_table(features: np.ndarray, targets: Sequence[np.ndarray],
               version: int = tree_features.VERSION) -> Table:
  """A table of training rows.

  Args:
    features: (r, f).
    targets: for each graph the targets of its rows, which are consecutive.
    version: of the features.
  """
  kept = np.flatnonzero(np.ptp(features, axis=0) > 0)
  columns = Columns(kept, [_edges(features[:, column]) for column in kept], version)
  weights = np.concatenate([np.full(len(rows), 1.0 / len(rows)) for rows in targets])
  return Table(columns.of(features), np.concatenate(targets), weights / weights.mean(), columns,
               np.array([len(rows) for rows in targets]))


def _edges(values: np.ndarray) -> np.ndarray:
  """(b - 1,) float64: the edges between b <= _BINS bins of the values (r,)."""
  distinct = np.unique(values).astype(np.float64)
  if len(distinct) <= _BINS:
    return (distinct[1:] + distinct[:-1]) / 2
  return np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))


def features_of(programs: Sequence[splits.ProgramView], columns: Columns | None = None,
                version: int = tree_features.VERSION) -> np.ndarray:
  """(r, f): the features of the configurations of all programs, concatenated.

  Args:
    programs: the programs.
    columns: what the rows hold; None: all columns of the version.
    version: of `tree_features.features`, without `columns`.
  """
  version = version if columns is None else columns.version
  table = np.empty([0, 0], np.float32)
  start = 0
  for program in tqdm.tqdm(programs, desc="boosted_trees: features", unit="graph", disable=None,
                           leave=False):
    rows = tree_features.features(program.graph, program.indices, program.facts, version)
    if columns is not None:
      rows = columns.of(rows)
    if not start:
      # Allocated once: a concatenation would need the memory of all rows twice.
      table = np.empty([sum(len(each.indices) for each in programs), rows.shape[1]], rows.dtype)
    table[start:start + len(rows)] = rows
    start += len(rows)
  return table


class _Regressor(ensemble.HistGradientBoostingRegressor):
  """scikit-learn's trees, which several threads may fit at the same time."""

  def _bin_data(self, *args: Any, **options: Any) -> Any:
    # scikit-learn resets the filters of warnings of the whole process here. A second thread would
    # read them empty, and warn about a wrong use of scikit-learn.
    with _BINNING:
      return super()._bin_data(*args, **options)


class Trees:
  """Fitted trees."""

  def __init__(self, settings: Settings, regressor: ensemble.HistGradientBoostingRegressor,
               columns: Columns):
    self.settings = settings
    self.regressor = regressor
    self._columns = columns

  def score(self, programs: Sequence[splits.ProgramView]) -> list[np.ndarray]:
    """For each program (c',) float64, higher = predicted faster. Needs no runtimes."""
    with one_thread():
      return [self.regressor.predict(self._columns.of(tree_features.features(
          program.graph, program.indices, program.facts, self._columns.version)))
              for program in tqdm.tqdm(programs, desc="boosted_trees: scores", unit="graph",
                                       disable=None, leave=False)]

  def predict(self, features: np.ndarray) -> np.ndarray:
    """(r,) float64 scores of rows (r, f) of a table with the columns that were fitted."""
    with one_thread():
      return self.regressor.predict(features)

  def staged_scores(self, programs: Sequence[splits.ProgramView]) -> Iterator[list[np.ndarray]]:
    """The result of `score` with the first 1, 2, ... trees."""
    ends = np.cumsum([len(program.indices) for program in programs])[:-1]
    for _, values in self.stages(features_of(programs, self._columns), 1):
      yield np.split(values, ends)

  def stages(self, features: np.ndarray, every: int) -> Iterator[tuple[int, np.ndarray]]:
    """Numbers of trees, and the scores (r,) of rows of features with these first trees."""
    for count, values in enumerate(self.regressor.staged_predict(features), start=1):
      if count % every == 0 or count == self.settings.iterations:
        yield count, values


class OtherTrees:
  """Trees that another library fitted to a table of `make_table`.

  Args:
    settings: a dataclass with `iterations`.
    columns: of the table.
    predict: the scores (r,) float64 of rows (r, f) by some consecutive trees, from the index of the
      first one and their number.
  """

  def __init__(self, settings: Any, columns: Columns,
               predict: Callable[[np.ndarray, int, int], np.ndarray]):
    self.settings = settings
    self._columns = columns
    self._predict = predict

  def score(self, programs: Sequence[splits.ProgramView]) -> list[np.ndarray]:
    """For each program (c',) float64, higher = predicted faster. Needs no runtimes."""
    return [self.predict(features_of([program], self._columns)) for program in programs]

  def predict(self, features: np.ndarray) -> np.ndarray:
    """(r,) float64 scores of rows (r, f) of a table with the columns that were fitted."""
    return self._predict(features, 0, self.settings.iterations)

  def stages(self, features: np.ndarray, every: int) -> Iterator[tuple[int, np.ndarray]]:
    """Numbers of trees, and the scores (r,) of rows of features with these first trees."""
    total = np.zeros(len(features))
    for start in range(0, self.settings.iterations, every):
      count = min(every, self.settings.iterations - start)
      total = total + self._predict(features, start, count)
      yield start + count, total


def fit(programs: Sequence[splits.ProgramView], settings: Settings = Settings(), seed: int = 0
        ) -> Trees:
  """Fits trees to the training programs.

  Args:
    programs: programs of the training split, with runtimes.
    settings: hyperparameters, for instance those of `tune`.
    seed: seed of the features that each split may use, and of the rows of large graphs.

  Raises:
    DataError: a program has no runtimes.
  """
  return fit_table(training_table(programs, seed), settings, seed)


def fit_table(table: Table, settings: Settings, seed: int, falling: Sequence[int] = ()) -> Trees:
  """Fits trees to a table of training rows.

  Args:
    table: the rows.
    settings: hyperparameters.
    seed: of the columns that each split may use.
    falling: columns of the features. A larger value never raises a score, all else being equal.
  """
  regressor = _Regressor(
      learning_rate=settings.learning_rate, max_iter=settings.iterations,
      max_leaf_nodes=settings.max_leaf_nodes, min_samples_leaf=settings.min_samples_leaf,
      max_features=settings.max_features, l2_regularization=settings.l2_regularization,
      monotonic_cst=-np.isin(table.columns.kept, falling).astype(int) if len(falling) else None,
      early_stopping=False, random_state=seed)
  with one_thread():
    regressor.fit(table.features, table.targets, sample_weight=table.weights)
  return Trees(settings, regressor, table.columns)


class TuningData(NamedTuple):
  """The rows that tuning uses.

  Attributes:
    table: training rows.
    valid: validation programs, thinned.
    features: the trees' input for the configurations of `valid`.
    runtimes: for each validation program (c',) its runtimes.
    seed: the seed of every fit.
  """

  table: Table
  valid: list[splits.ProgramView]
  features: np.ndarray
  runtimes: list[np.ndarray]
  seed: int

  def parts(self) -> list[Any]:
    """All values on which the result of tuning depends, for a hash."""
    return [*self.table[:3], self.features, *self.runtimes, self.seed, _STAGE]


def tuning_data(train: Sequence[splits.ProgramView], valid: Sequence[splits.ProgramView],
                seed: int = 0) -> TuningData:
  """Draws the rows of `tune`; the arguments are the same."""
  # Fewer programs, not fewer configurations of each, because configurations of one program are
  # compared with one another.
  rows = sum(min(len(program.indices), MAX_CONFIGS, max(MAX_ROWS // len(train), 2))
             for program in train)
  table = training_table(train[::-(-rows // MAX_TUNING_ROWS)], seed, MAX_TUNING_ROWS)
  thinned = thin(valid, MAX_VALIDATION_ROWS, np.random.default_rng([seed, 3]))
  return TuningData(table, thinned, features_of(thinned, table.columns),
                    [per_graph.runtimes_of(program) for program in thinned], seed)


def tune(train: Sequence[splits.ProgramView], valid: Sequence[splits.ProgramView],
         grid: Sequence[Settings] | None = None, seed: int = 0) -> Settings:
  """Chooses hyperparameters and the number of trees by the mean tau on validation.

  Args:
    train: training programs. If they have more than MAX_TUNING_ROWS configurations, evenly spaced
      ones among them are used.
    valid: validation programs. At most about MAX_VALIDATION_ROWS of their configurations are used,
      drawn with the seed. The test split is never used.
    grid: the settings to compare; `iterations` is the largest number of trees. None: GRID.
    seed: seed of every fit.

  Returns:
    The best settings; the first ones if several are equally good.
  """
  return tune_on(tuning_data(train, valid, seed), GRID if grid is None else grid)


def tune_on(data: TuningData, grid: Sequence[Any], fit_rows: Callable[[Table, Any, int], Any]
            | None = None, name: str = "boosted_trees") -> Any:
  """The result of `tune` on rows that have been drawn.

  Args:
    data: the rows.
    grid: the settings to compare, dataclasses with `iterations`.
    fit_rows: fits a ranker to a table; None: `fit_table`. The ranker has `stages`, see `Trees`.
    name: of the ranker, for the log.
  """
  fit_rows = fit_rows or fit_table
  ends = np.cumsum([len(program.indices) for program in data.valid])[:-1]

  def best_stage(settings: Any) -> tuple[float, Any]:
    fitted = fit_rows(data.table, settings, data.seed)
    best, best_tau = settings, -np.inf
    for count, scores in fitted.stages(data.features, _STAGE):
      tau = metrics.mean_over_graphs([
          metrics.kendall_tau(runtimes, score)
          for runtimes, score in zip(data.runtimes, np.split(scores, ends))]).mean
      if tau > best_tau:
        best, best_tau = dataclasses.replace(settings, iterations=count), tau
    return best_tau, best

  results = run_all(best_stage, grid, f"{name}: tuning", "setting")
  tau, best = max(results, key=lambda result: result[0])
  _logger.info("%s: mean tau %s on the validation split with %s", name,
               f"{tau:.3f}" if np.isfinite(tau) else "undefined", ", ".join(
      f"{key} {value}" for key, value in dataclasses.asdict(best).items()))
  return best
