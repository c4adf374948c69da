"""How much slower the fastest of the K best-scored configurations is than the fastest of all."""

import numpy as np
from numpy.typing import ArrayLike

from tpugraphs_rank import errors
from tpugraphs_rank.metrics import inputs
from tpugraphs_rank.metrics import ties as ties_lib

# How tied scores are ordered: the expectation over random orders, or by index.
EXPECTED = "expected"
INDEX = "index"
TIES = (EXPECTED, INDEX)


def topk_slowdown(
    runtimes: ArrayLike,
    scores: ArrayLike,
    k: int,
    normalizers: ArrayLike | None = None,
    *,
    ties: str = EXPECTED,
) -> float:
  """Top-K slowdown of one graph: the loss from trying only the K best-scored configurations.

      slowdown_K = min_{i in top K} y_i / min_i y_i - 1

  Args:
    runtimes: (c,), any unit, positive.
    scores: (c,), higher = predicted faster.
    k: number of configurations tried, >= 1; the slowdown is 0 for k >= c.
    normalizers: (c,), in the unit of the runtimes, positive: y = runtimes / normalizers (tile
      collections). None: the raw runtimes are compared.
    ties: "expected", the mean over all orders of equally scored configurations (see
      `metrics.ties`), or "index", which orders them by index, as published scripts do.

  Returns:
    A fraction >= 0: 0.05 is 5 % slower than the best.

  Raises:
    DataError: shapes differ, a score is not finite, a runtime or normalizer is not positive.
    ConfigError: `k` is below 1, or there is no such way to break ties.

  Source: TpuGraphs paper (arXiv 2308.13490), section 4.
  """
  check_k(k)
  if ties not in TIES:
    raise errors.ConfigError(f"ties={ties!r}; expected one of: {', '.join(TIES)}")
  times, checked = inputs.check_pair(runtimes, scores)
  if normalizers is not None:
    times = times / inputs.check_normalizers(normalizers, times.size)
  if ties == INDEX:
    best = float(times[inputs.ranking(checked)[:k]].min())
  else:
    best = ties_lib.expected_best_of(times, checked, k)
  return float(best / times.min() - 1.0)


def slowdown_curve(runtimes: ArrayLike, scores: ArrayLike, largest: int) -> np.ndarray:
  """(largest,) float64: `topk_slowdown` for K = 1, 2, ..., with the same arguments and errors."""
  check_k(largest)
  times, checked = inputs.check_pair(runtimes, scores)
  return ties_lib.expected_best(times, checked, largest) / times.min() - 1.0


def slowdown_across_passes(passes: ArrayLike, scores: ArrayLike, k: int) -> float:
  """Top-K slowdown where one measurement chooses and another one judges.

      slowdown_K = mean over pairs (a, b), a != b, of y_b[argmin_{i in top K} y_a,i]
                                                      / y_b[argmin_i y_a,i] - 1

  The least of several noisy runtimes is too low, so `topk_slowdown` overstates what a perfect
  ranker gains. Here the noise of the judging pass b is independent of the choice. A ranker may
  therefore have a negative slowdown. Equal scores are treated as by `topk_slowdown`.

  Args:
    passes: (p, c), at least two measurements of the same configurations, positive.
    scores: (c,), higher = predicted faster.
    k: number of configurations tried, >= 1; the slowdown is 0 for k >= c.

  Raises:
    DataError: there are fewer than two passes, and as for `topk_slowdown`.
    ConfigError: `k` is below 1.
  """
  check_k(k)
  checked = [inputs.check_pair(runtimes, scores) for runtimes in np.atleast_2d(passes)]
  if len(checked) < 2:
    raise errors.DataError(f"{len(checked)} pass of measurements; expected two or more")
  values = [
      ties_lib.expected_choice(chooser, judge, ordered, k)
      / float(judge[chooser == chooser.min()].mean()) - 1.0
      for first, (chooser, ordered) in enumerate(checked)
      for second, (judge, _) in enumerate(checked) if first != second]
  return float(np.mean(values))


def check_k(k: int) -> None:
  """Raises ConfigError unless k is a whole number from 1."""
  if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
    raise errors.ConfigError(f"k={k!r}; expected the number of configurations to try, 1 or more")
