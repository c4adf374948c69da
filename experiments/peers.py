"""Rankers of other libraries on the features of the boosted trees, for comparison.

Only the libraries and the objectives differ from the baselines: rows, features, tuning and the
number of averaged fits are those of `evaluation.trees` and `tree_scores`. The libraries are not
dependencies of the project, and `pip install xgboost-cpu catboost` installs them.

Sources: T. Chen and C. Guestrin, "XGBoost: A Scalable Tree Boosting System" (2016); A. Gulin et
al., "Winning the Transfer Learning Track of Yahoo!'s Learning to Rank Challenge with YetiRank"
(2011).
"""

from collections.abc import Sequence
import dataclasses
import importlib
import itertools
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.evaluation import comparison
from tpugraphs_rank.evaluation import lambdarank
from tpugraphs_rank.evaluation import task as task_lib
from tpugraphs_rank.evaluation import tree_scores
from tpugraphs_rank.evaluation import trees

XGBOOST, CATBOOST = "xgboost_pairwise", "catboost_yetirank"
NAMES = (XGBOOST, CATBOOST)
_PACKAGES = {XGBOOST: ("xgboost", "xgboost-cpu"), CATBOOST: ("catboost", "catboost")}
# Pairs that XGBoost draws for each configuration in each round. Its default, one, is noisier.
_PAIRS = 8


@dataclasses.dataclass(frozen=True)
class PairwiseSettings:
  """Hyperparameters; see XGBoost's parameters of the same meaning."""

  iterations: int = 300
  learning_rate: float = 0.05
  max_leaves: int = 15
  column_share: float = 0.3
  l2: float = 1.0


@dataclasses.dataclass(frozen=True)
class YetiSettings:
  """Hyperparameters; see CatBoost's parameters of the same meaning."""

  iterations: int = 300
  learning_rate: float = 0.05
  depth: int = 6
  column_share: float = 0.3
  l2: float = 3.0


# The settings that tuning compares: those of `trees.GRID` in the terms of each library.
PAIRWISE_GRID = tuple(
    PairwiseSettings(iterations=800, max_leaves=leaves, column_share=share)
    for leaves, share in itertools.product((12, 24, 48), (0.2, 0.4)))
YETI_GRID = tuple(YetiSettings(iterations=800, depth=depth, column_share=share)
                  for depth, share in itertools.product((4, 6), (0.2, 0.4)))


def method(name: str) -> tree_scores.Method:
  """The way to fit a peer.

  Raises:
    UnknownNameError: there is no peer with this name.
    ConfigError: its library is not installed.
  """
  if name not in NAMES:
    raise errors.UnknownNameError(f"no peer {name!r}; expected some of: {', '.join(NAMES)}")
  module, package = _PACKAGES[name]
  try:
    version = importlib.import_module(module).__version__
  except ImportError as error:
    raise errors.ConfigError(
        f"the peer {name} needs {module}, which cannot be imported ({error}): pip install "
        f"{package}, or leave {name} out of --peers") from error
  if name == XGBOOST:
    return tree_scores.Method(name, PAIRWISE_GRID, PairwiseSettings, fit_pairwise, version)
  return tree_scores.Method(name, YETI_GRID, YetiSettings, fit_yeti, version)


def fit_pairwise(table: trees.Table, settings: PairwiseSettings, seed: int) -> trees.OtherTrees:
  """Fits XGBoost's trees with the pairwise objective to a table of training rows."""
  xgboost: Any = importlib.import_module("xgboost")
  data = xgboost.DMatrix(table.features, label=lambdarank.relevances_of(table), nthread=1)
  data.set_group(table.sizes)
  booster = xgboost.train({
      "objective": "rank:pairwise", "eta": settings.learning_rate, "tree_method": "hist",
      "grow_policy": "lossguide", "max_depth": 0, "max_leaves": settings.max_leaves,
      "colsample_bynode": settings.column_share, "lambda": settings.l2, "seed": seed, "nthread": 1,
      "lambdarank_pair_method": "mean", "lambdarank_num_pair_per_sample": _PAIRS}, data,
      settings.iterations)

  def predict(features: np.ndarray, start: int, count: int) -> np.ndarray:
    return booster.predict(xgboost.DMatrix(features, nthread=1), output_margin=True,
                           iteration_range=(start, start + count)).astype(np.float64)

  return trees.OtherTrees(settings, table.columns, predict)


def fit_yeti(table: trees.Table, settings: YetiSettings, seed: int) -> trees.OtherTrees:
  """Fits CatBoost's trees with the objective YetiRank to a table of training rows."""
  catboost: Any = importlib.import_module("catboost")
  data = catboost.Pool(
      table.features.astype(np.float32),
      lambdarank.relevances_of(table) / (lambdarank.RELEVANCES - 1),
      group_id=np.repeat(np.arange(len(table.sizes)), table.sizes))
  booster = catboost.CatBoost({
      "loss_function": "YetiRank", "iterations": settings.iterations, "depth": settings.depth,
      "learning_rate": settings.learning_rate, "rsm": settings.column_share,
      "l2_leaf_reg": settings.l2, "random_seed": seed, "thread_count": 1, "verbose": False,
      "allow_writing_files": False})
  booster.fit(data)

  def predict(features: np.ndarray, start: int, count: int) -> np.ndarray:
    return np.asarray(booster.predict(
        features.astype(np.float32), prediction_type="RawFormulaVal", ntree_start=start,
        ntree_end=start + count, thread_count=1), np.float64)

  return trees.OtherTrees(settings, table.columns, predict)


def add(compared: comparison.Comparison, names: Sequence[str], seeds: Sequence[int]
        ) -> comparison.Comparison:
  """A comparison with these peers as further rankers.

  Raises:
    UnknownNameError: there is no peer with one of the names.
    ConfigError: a library is not installed.
  """
  scores = {name: task_lib.fitted_scores(compared.task, seeds, how)
            for name, how in {name: method(name) for name in names}.items()}
  return dataclasses.replace(
      compared, scores={**compared.scores, **scores},
      frames={**compared.frames, **{name: [compared.task.evaluate(values) for values in each]
                                    for name, each in scores.items()}},
      seeds={**compared.seeds, **{name: list(seeds) for name in names}})
