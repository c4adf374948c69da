"""Gradient-boosted trees with the objective of LambdaMART: a standing baseline next to `trees`.

It uses the features and the rows of `trees`; only the objective and the library (LightGBM) differ.
The relevance of a configuration is the share of its graph's configurations that are slower, in
RELEVANCES levels; equal runtimes are equally relevant.

Source: C. Burges, "From RankNet to LambdaRank to LambdaMART" (2010).
"""

import dataclasses
import importlib.metadata
import itertools
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.evaluation import tree_arrays
from tpugraphs_rank.evaluation import trees

RELEVANCES = 31
# Places whose gains count. At most this many configurations of a graph are compared with all.
_TRUNCATION = 100


@dataclasses.dataclass(frozen=True)
class Settings:
  """Hyperparameters; see LightGBM's parameters of the same meaning."""

  iterations: int = 300
  learning_rate: float = 0.05
  num_leaves: int = 15
  min_data_in_leaf: int = 20
  feature_fraction: float = 0.3
  lambda_l2: float = 1.0


# The settings that tuning compares: those of `trees.GRID` in LightGBM's terms.
GRID: tuple[Settings, ...] = tuple(
    Settings(iterations=800, num_leaves=leaves, feature_fraction=share)
    for leaves, share in itertools.product((12, 24, 48), (0.2, 0.4)))


def version() -> str:
  """LightGBM and its version.

  Raises:
    ConfigError: it is not installed.
  """
  try:
    return f"lightgbm {importlib.metadata.version('lightgbm')}"
  except importlib.metadata.PackageNotFoundError as error:
    raise errors.ConfigError(
        "lambdarank needs LightGBM, which is not installed: pip install lightgbm, or leave "
        "lambdarank out of --baselines and --trees_objectives") from error


def check() -> None:
  """Loads LightGBM.

  Raises:
    ConfigError: it is not installed, or cannot be loaded.
  """
  _library()


def _library() -> Any:
  version()
  try:
    import lightgbm  # Its import takes a second, and it needs a library of the system.
  except OSError as error:
    raise errors.ConfigError(
        f"lambdarank needs LightGBM, which cannot be loaded: {error}; install the library of "
        "OpenMP (Debian, Ubuntu: apt install libgomp1; macOS: brew install libomp), or leave "
        "lambdarank out of --baselines and --trees_objectives") from error
  return lightgbm


def relevances(runtimes: np.ndarray) -> np.ndarray:
  """(c,) int32: 0 for the slowest to RELEVANCES - 1 for the fastest of (c,) runtimes."""
  slower = len(runtimes) - np.searchsorted(np.sort(runtimes), runtimes, side="right")
  most = max(len(runtimes) - 1, 1)
  return np.floor(slower * (RELEVANCES - 1) / most).astype(np.int32)


def relevances_of(table: trees.Table) -> np.ndarray:
  """(r,) int32: the relevance of each row of a table."""
  ends = np.cumsum(table.sizes)[:-1]
  return np.concatenate([relevances(-target) for target in np.split(table.targets, ends)])


def fit_table(table: trees.Table, settings: Settings, seed: int) -> trees.OtherTrees:
  """Fits to a table of training rows.

  Raises:
    ConfigError: LightGBM is not installed, or cannot be loaded.
  """
  booster = _fit(table, settings, seed)
  return trees.OtherTrees(settings, table.columns, lambda features, start, count: booster.predict(
      features, raw_score=True, num_threads=1, start_iteration=start, num_iteration=count))


def fit_arrays(table: trees.Table, settings: Settings, seed: int, width: int
               ) -> tree_arrays.TreeArrays:
  """The trees of `fit_table` as arrays, from the number of columns of `tree_features.features`."""
  return tree_arrays.from_booster(
      _fit(table, settings, seed), table.columns.kept, width, table.columns.edges)


def _fit(table: trees.Table, settings: Settings, seed: int) -> Any:
  """LightGBM's booster."""
  lightgbm = _library()
  parameters = {
      "objective": "lambdarank", "learning_rate": settings.learning_rate,
      "num_leaves": settings.num_leaves, "min_data_in_leaf": settings.min_data_in_leaf,
      "feature_fraction": settings.feature_fraction, "lambda_l2": settings.lambda_l2,
      # A gain that is linear in the rank, so that the bulk counts as well as the top.
      "label_gain": list(range(RELEVANCES)), "lambdarank_truncation_level": _TRUNCATION,
      "num_threads": 1, "deterministic": True, "force_row_wise": True, "seed": seed,
      "verbosity": -1}
  data = lightgbm.Dataset(
      table.features, relevances_of(table), group=table.sizes, params={"verbosity": -1})
  return lightgbm.train(parameters, data, settings.iterations)
