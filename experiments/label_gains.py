"""Paired gains of one way to train a label surrogate over another, over structures and seeds.

Pearson's correlation is not a mean over graphs, so `two_way` does not apply. Instead, whole
correlations are resampled with the same weights.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from tpugraphs_rank import errors
from tpugraphs_rank.evaluation import bootstrap

RESAMPLES = 20_000
MEASURES = ("pearson", "mae")
_BLOCK = 500


def gains(labels: ArrayLike, ours: ArrayLike, theirs: ArrayLike, families: Sequence[str],
          level: float = bootstrap.LEVEL, resamples: int = RESAMPLES, seed: int = 0
          ) -> dict[str, bootstrap.Interval]:
  """Gains in Pearson's correlation and in mean absolute error, positive where `ours` is better.

      gain* = sum_s b_s m(labels, ours_s; a) / sum_s b_s - the same of theirs

  where m(.; a) is the measure with weight a_f for each graph of family f. a_f is the number of
  times that family f is drawn in a sample of the families with replacement, and b_s the number of
  times that seed s is drawn, independently (A. Owen, "The pigeonhole bootstrap", Annals of Applied
  Statistics 1, 2007). For the error the gain is theirs - ours. Constant predictions have
  correlation 0.

  Args:
    labels: (g,) true labels.
    ours: (s, g) predictions with each seed.
    theirs: (s, g) predictions with each seed, paired with `ours`.
    families: (g,) family of each graph; graphs of one structure form a family.
    level: share of the resampled gains inside the interval.
    resamples: number of resamples.
    seed: seed of the resampling.

  Returns:
    The interval of each of MEASURES; its n is the number of graphs.

  Raises:
    DataError: shapes differ, there are no graphs or seeds, or a number is not finite.
  """
  y, first, second = (np.asarray(values, np.float64) for values in (labels, ours, theirs))
  if first.ndim != 2 or first.shape != second.shape or first.shape[1:] != y.shape or (
      len(families) != len(y)):
    raise errors.DataError(
        f"labels have shape {y.shape}, predictions {first.shape} and {second.shape}, families "
        f"({len(families)},); expected (g,), (s, g) twice and (g,)")
  if not first.size:
    raise errors.DataError(
        f"predictions have shape {first.shape}; expected (s, g) with at least one seed and one "
        "graph")
  if not all(np.isfinite(values).all() for values in (y, first, second)):
    raise errors.DataError("labels or predictions are not finite; expected a number for each graph")
  _, family = np.unique(np.asarray(families), return_inverse=True)
  counts = (family.max() + 1, len(first))
  rng = np.random.default_rng(seed)
  resampled: dict[str, list[np.ndarray]] = {name: [] for name in MEASURES}
  for start in range(0, resamples, _BLOCK):
    size = min(_BLOCK, resamples - start)
    of_families, of_seeds = (rng.multinomial(count, np.full(count, 1 / count), size=size)
                             for count in counts)
    weights = of_families[:, family.reshape(-1)].astype(np.float64)
    shares = of_seeds / counts[1]
    for name in MEASURES:
      resampled[name].append((_measured(name, y, first, weights) * shares).sum(axis=1)
                             - (_measured(name, y, second, weights) * shares).sum(axis=1))
  intervals = {}
  once = np.ones([1, len(y)])
  for name in MEASURES:
    sign = 1.0 if name == "pearson" else -1.0
    mean = sign * float((_measured(name, y, first, once)
                         - _measured(name, y, second, once)).mean())
    low, high = np.quantile(
        sign * np.concatenate(resampled[name]), [(1 - level) / 2, (1 + level) / 2])
    intervals[name] = bootstrap.Interval(mean, float(low), float(high), len(y))
  return intervals


def _measured(name: str, y: np.ndarray, predictions: np.ndarray, weights: np.ndarray
              ) -> np.ndarray:
  """(r, s) measure of each seed's predictions (s, g) with graph weights (r, g)."""
  weights = weights / weights.sum(axis=1, keepdims=True)
  if name == "mae":
    return weights @ np.abs(predictions - y).T
  # Center and scale first, to avoid loss of precision in sums of squares.
  y = (y - y.mean()) / (np.ptp(y) or 1.0)
  spread = np.ptp(predictions, axis=1, keepdims=True)
  p = (predictions - predictions.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
  mean_y, mean_p = (weights @ y)[:, None], weights @ p.T
  covariance = weights @ (p * y).T - mean_p * mean_y
  variance = ((weights @ y**2)[:, None] - mean_y**2) * (weights @ (p**2).T - mean_p**2)
  defined = variance > 1e-18
  return np.where(defined, covariance / np.sqrt(np.where(defined, variance, 1.0)), 0.0)
