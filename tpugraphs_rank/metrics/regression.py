"""Agreement of predicted with true labels, for the surrogate models of generated graphs.

A surrogate trained on synthetic graphs predicts the label of real test graphs (LayerDAG,
arXiv 2411.02322, section 5). All functions take (labels, predictions), each (n,), one per graph.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from tpugraphs_rank import errors


def pearson(labels: ArrayLike, predictions: ArrayLike) -> float:
  """cov(labels, predictions) / (sd(labels) sd(predictions)); NaN if either is constant."""
  return _correlation(*_check(labels, predictions))


def spearman(labels: ArrayLike, predictions: ArrayLike) -> float:
  """Pearson's correlation of the ranks; ties share their mean rank. NaN if either is constant."""
  import scipy.stats  # Its import takes seconds, and most users of the metrics do not need it.
  labels, predictions = _check(labels, predictions)
  return _correlation(scipy.stats.rankdata(labels), scipy.stats.rankdata(predictions))


def mean_absolute_error(labels: ArrayLike, predictions: ArrayLike) -> float:
  """1 / n sum_i |prediction_i - label_i|, in the unit of the labels."""
  labels, predictions = _check(labels, predictions)
  return float(np.abs(predictions - labels).mean())


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
  # np.ptp, because rounding may make the standard deviation of a constant slightly positive.
  if np.ptp(first) == 0 or np.ptp(second) == 0:
    return math.nan
  first, second = first - first.mean(), second - second.mean()
  # Scaled first, so that the sums of squares cannot overflow or underflow.
  first, second = first / np.abs(first).max(), second / np.abs(second).max()
  value = (first @ second) / math.sqrt((first @ first) * (second @ second))
  return float(np.clip(value, -1.0, 1.0))


def _check(labels: ArrayLike, predictions: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
  first, second = np.asarray(labels, np.float64), np.asarray(predictions, np.float64)
  if first.ndim != 1 or first.size == 0 or first.shape != second.shape:
    raise errors.DataError(
        f"labels have shape {first.shape}, predictions {second.shape}; expected (n,) for both, one "
        "per graph")
  if not (np.isfinite(first).all() and np.isfinite(second).all()):
    raise errors.DataError("labels or predictions are not finite; expected a number for each graph")
  return first, second
