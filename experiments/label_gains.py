"""What one way to train a label's surrogate gains over another: paired, over structures and seeds.

Pearson's correlation is no mean over graphs, so `two_way` does not serve it: here whole
correlations are resampled, with the same weights.
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

  where m(.; a) is the measure with each graph weighted by a_f, which says how often its family f
  was drawn among as many families as there are, with replacement, and b_s how often seed s among
  the seeds, independently (A. Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1,
  2007). Of the error the gain is theirs - ours. Predictions that do not vary have correlation 0.

  Args:
    labels: (g,) true ones.
    ours, theirs: (s, g) predictions with each seed, which are paired.
    families: (g,) of the graphs: those of one structure are alike.
    level: share of the resampled gains inside the interval.
    resamples: how many.
    seed: of the draw.

  Returns:
    For each of MEASURES the interval; its n is the number of graphs.

  Raises:
    DataError: shapes differ, there are no graphs or no seeds, or a number is not finite.
  """
  y, first, second = (np.asarray(values, np.float64) for values in (labels, ours, theirs))
  if first.ndim != 2 or first.shape != second.shape or first.shape[1:] != y.shape or (
      len(families) != len(y)):
    raise errors.DataError(
        f"labels have shape {y.shape}, predictions {first.shape} and {second.shape}, families "
        f"({len(families)},); expected (g,), (s, g) twice and (g,)")
  if not first.size:
    raise errors.DataError(f"predictions have shape {first.shape}; expected (s, g) of one seed and "
                           "one graph at least")
  if not all(np.isfinite(values).all() for values in (y, first, second)):
    raise errors.DataError("labels or predictions are not finite; expected a number for each graph")
  _, place = np.unique(np.asarray(families), return_inverse=True)
  counts = (place.max() + 1, len(first))
  rng = np.random.default_rng(seed)
  drawn: dict[str, list[np.ndarray]] = {name: [] for name in MEASURES}
  for start in range(0, resamples, _BLOCK):
    size = min(_BLOCK, resamples - start)
    of_families, of_seeds = (rng.multinomial(count, np.full(count, 1 / count), size=size)
                             for count in counts)
    weights = of_families[:, place.reshape(-1)].astype(np.float64)
    shares = of_seeds / counts[1]
    for name in MEASURES:
      drawn[name].append((_measured(name, y, first, weights) * shares).sum(axis=1)
                         - (_measured(name, y, second, weights) * shares).sum(axis=1))
  found = {}
  once = np.ones([1, len(y)])
  for name in MEASURES:
    sign = 1.0 if name == "pearson" else -1.0
    mean = sign * float((_measured(name, y, first, once)
                         - _measured(name, y, second, once)).mean())
    low, high = np.quantile(sign * np.concatenate(drawn[name]), [(1 - level) / 2, (1 + level) / 2])
    found[name] = bootstrap.Interval(mean, float(low), float(high), len(y))
  return found


def _measured(name: str, y: np.ndarray, predictions: np.ndarray, weights: np.ndarray
              ) -> np.ndarray:
  """(r, s): the measure of each seed's predictions (s, g) with weights (r, g) of the graphs."""
  weights = weights / weights.sum(axis=1, keepdims=True)
  if name == "mae":
    return weights @ np.abs(predictions - y).T
  # Centred and scaled first: sums of squares then lose no digits.
  y = (y - y.mean()) / (np.ptp(y) or 1.0)
  spread = np.ptp(predictions, axis=1, keepdims=True)
  p = (predictions - predictions.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
  mean_y, mean_p = (weights @ y)[:, None], weights @ p.T
  covariance = weights @ (p * y).T - mean_p * mean_y
  variance = ((weights @ y**2)[:, None] - mean_y**2) * (weights @ (p**2).T - mean_p**2)
  defined = variance > 1e-18
  return np.where(defined, covariance / np.sqrt(np.where(defined, variance, 1.0)), 0.0)
