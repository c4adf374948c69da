"""Agreement of predicted labels with true ones: the surrogate of the synthetic-graph study.

A surrogate trained on synthetic graphs predicts the label of real test graphs (LayerDAG,
arXiv 2411.02322, section 5). All three take (labels, predictions), each (n,), one a graph.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from tpugraphs_rank import errors


def pearson(labels: ArrayLike, predictions: ArrayLike) -> float:
  """cov(labels, predictions) / (sd(labels) sd(predictions)); NaN where either is constant."""
  return _correlation(*_check(labels, predictions))


def spearman(labels: ArrayLike, predictions: ArrayLike) -> float:
  """Pearson's correlation of the ranks, tied values sharing their mean rank; NaN if constant."""
  import scipy.stats  # Takes seconds to import, which most users of the metrics need not spend.
  labels, predictions = _check(labels, predictions)
  return _correlation(scipy.stats.rankdata(labels), scipy.stats.rankdata(predictions))


def mean_absolute_error(labels: ArrayLike, predictions: ArrayLike) -> float:
  """1 / n sum_i |prediction_i - label_i|, in the unit of the labels."""
  labels, predictions = _check(labels, predictions)
  return float(np.abs(predictions - labels).mean())


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
  # np.ptp, not the standard deviation: that of a constant may be a rounding error above zero.
  if np.ptp(first) == 0 or np.ptp(second) == 0:
    return math.nan
  first, second = first - first.mean(), second - second.mean()
  # Scaled first, so that neither sum of squares can leave the range of a float.
  first, second = first / np.abs(first).max(), second / np.abs(second).max()
  value = (first @ second) / math.sqrt((first @ first) * (second @ second))
  return float(np.clip(value, -1.0, 1.0))


def _check(labels: ArrayLike, predictions: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
  first, second = np.asarray(labels, np.float64), np.asarray(predictions, np.float64)
  if first.ndim != 1 or first.size == 0 or first.shape != second.shape:
    raise errors.DataError(
        f"labels have shape {first.shape}, predictions {second.shape}; expected (n,) for both, one "
        "a graph")
  if not (np.isfinite(first).all() and np.isfinite(second).all()):
    raise errors.DataError("labels or predictions are not finite; expected a number for each graph")
  return first, second
