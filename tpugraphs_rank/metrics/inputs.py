"""Checks that the metrics share, and the only definition of a ranking."""

import math

import numpy as np
from numpy.typing import ArrayLike

from tpugraphs_rank import errors


def check_runtimes(runtimes: ArrayLike) -> np.ndarray:
  """Runtimes as float64 (c,), any unit: c >= 1, finite and positive.

  Raises:
    DataError: wrong shape, no configurations, or a value that is not a measurement.
  """
  return _positive(runtimes, "runtimes", (
      "a runtime of zero means that it was not measured: the released test splits have none, so "
      "they can be ranked and submitted but not evaluated"))


def check_normalizers(normalizers: ArrayLike, count: int) -> np.ndarray:
  """Normalizers as float64 (count,), in the unit of the runtimes: finite and positive.

  Raises:
    DataError: wrong shape, or a value that is not positive and finite.
  """
  array = _positive(normalizers, "normalizers", "pass None to compare raw runtimes")
  if array.shape != (count,):
    raise errors.DataError(
        f"normalizers have shape {array.shape}; expected ({count},), one for each runtime")
  return array


def check_scores(scores: ArrayLike, count: int | None = None) -> np.ndarray:
  """Scores as float64 (c,), higher = predicted faster: c >= 1 and finite.

  Args:
    count: the number of runtimes that the scores belong to; None without runtimes.
  Raises:
    DataError: wrong shape or length, or NaN or infinity, which cannot be ordered.
  """
  array = _vector(scores, "scores")
  if count is not None and array.shape != (count,):
    raise errors.DataError(
        f"scores have shape {array.shape}; expected ({count},), one for each runtime of the graph")
  bad = ~np.isfinite(array)
  if bad.any():
    raise errors.DataError(
        f"scores hold {int(bad.sum())} values that are not finite, the first at index "
        f"{int(bad.argmax())} ({array[bad.argmax()]}); a model with such scores has diverged")
  return array


def check_pair(runtimes: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
  """Runtimes and scores of one graph, both float64 (c,)."""
  runtimes = check_runtimes(runtimes)
  return runtimes, check_scores(scores, runtimes.shape[0])


def within_of_best(runtimes: np.ndarray, within: float | None) -> np.ndarray:
  """Mask (c,) of the configurations with runtime <= within * min(runtimes); None keeps all.

  Raises:
    ConfigError: `within` is below 1, which would exclude even the best configuration.
  """
  if within is None:
    return np.ones(runtimes.shape, bool)
  if not within >= 1.0:
    raise errors.ConfigError(
        f"within={within!r}; expected a factor of at least 1, such as 3.0 for the configurations "
        "at most three times slower than the best, or None for all")
  return runtimes <= within * runtimes.min()


def check_min_gap(min_gap: float) -> float:
  """Checks the minimum relative gap of a pair: 0.05 means runtimes more than 5 % apart."""
  if not (min_gap >= 0.0 and math.isfinite(min_gap)):
    raise errors.ConfigError(f"min_gap={min_gap!r}; expected a finite number >= 0, such as 0.05")
  return float(min_gap)


def ranking(scores: ArrayLike) -> np.ndarray:
  """Configuration indices (c,), int64, from the predicted fastest to the slowest.

  argsort(-scores, stable): equal scores keep the order of their indices. Commands and submissions
  list configurations in this order. Metrics of rankings with ties do not depend on it, see `ties`.
  """
  return np.argsort(-check_scores(scores), kind="stable")


def scores_from_ranking(indices: ArrayLike, count: int) -> np.ndarray:
  """Scores (count,), float64, whose `ranking` begins with `indices`, for reading a submission.

  Args:
    indices: (k,) distinct configuration indices, best first, k <= count. Configurations that are
      not listed share the lowest score, 0.
    count: c, the number of configurations of the graph.
  Raises:
    DataError: an index is repeated, out of range or not an integer.
  """
  array = np.asarray(indices)
  if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
    raise errors.DataError(
        f"a ranking has shape {array.shape} and type {array.dtype}; expected a list of integers")
  if array.size and (array.min() < 0 or array.max() >= count):
    raise errors.DataError(
        f"a ranking names configuration {int(array.min() if array.min() < 0 else array.max())}; "
        f"expected indices from 0 to {count - 1}")
  if np.unique(array).size != array.size:
    raise errors.DataError(
        "a ranking names a configuration twice; expected each at most once (a short list must not "
        "be padded by repetition)")
  scores = np.zeros(count)
  scores[array.astype(np.int64)] = np.arange(array.size, 0, -1)
  return scores


def _positive(values: ArrayLike, name: str, hint: str) -> np.ndarray:
  array = _vector(values, name)
  bad = ~(np.isfinite(array) & (array > 0))
  if bad.any():
    raise errors.DataError(
        f"{name} hold {int(bad.sum())} of {array.size} values that are not positive and finite, "
        f"the first at index {int(bad.argmax())} ({array[bad.argmax()]:g}); {hint}")
  return array


def _vector(values: ArrayLike, name: str) -> np.ndarray:
  try:
    array = np.asarray(values, dtype=np.float64)
  except (TypeError, ValueError) as error:
    raise errors.DataError(f"{name} are not numbers: {error}") from error
  if array.ndim != 1 or array.size == 0:
    raise errors.DataError(
        f"{name} have shape {array.shape}; expected (c,) with at least one configuration, those "
        "of one graph")
  return array
