"""Metrics over pairs of configurations: ordered pair accuracy and Kendall's tau.

All functions count pairs in O(c log c) time and O(c) memory.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tpugraphs_rank import errors
from tpugraphs_rank.metrics import inputs

TAU_VARIANTS = ("competition", "b")


class PairCounts(NamedTuple):
  """Numbers of pairs (i, j) with runtime_i < runtime_j, by the order of their scores."""
  concordant: int  # score_i > score_j: the faster one is ranked before the slower one.
  discordant: int  # score_i < score_j.
  tied: int  # score_i == score_j.

  @property
  def total(self) -> int:
    return self.concordant + self.discordant + self.tied


def opa(runtimes: ArrayLike, scores: ArrayLike, *, min_gap: float = 0.0) -> float:
  """Ordered pair accuracy of one graph: the share of pairs in which the faster one scores higher.

      OPA = sum_{y_i (1 + min_gap) < y_j} [s_i > s_j]  /  #{(i, j) : y_i (1 + min_gap) < y_j}

  Pairs with equal runtimes are left out; equal scores count as wrong.

  Args:
    runtimes: y (c,), any unit, positive.
    scores: s (c,), higher = predicted faster.
    min_gap: only pairs whose slower runtime exceeds the faster one by more than this fraction are
      counted. 0.05 leaves out pairs whose order may be timing noise.

  Returns:
    A number in [0, 1], or NaN if there are no such pairs (one configuration, equal runtimes).
    `mean_over_graphs` skips and counts such graphs.

  Raises:
    DataError: shapes differ, a score is not finite or a runtime is not positive.
    ConfigError: `min_gap` is negative or not finite.

  Source: TpuGraphs paper (arXiv 2308.13490), section 4; `OPAMetric` of TensorFlow Ranking.
  """
  counts = count_pairs(*inputs.check_pair(runtimes, scores), inputs.check_min_gap(min_gap))
  return counts.concordant / counts.total if counts.total else math.nan


def opa_pairs(runtimes: ArrayLike, *, min_gap: float = 0.0) -> int:
  """The number of pairs in the denominator of `opa`: a graph's weight in a pair-weighted mean."""
  runtimes = np.sort(inputs.check_runtimes(runtimes))
  return int(_faster_counts(runtimes, inputs.check_min_gap(min_gap)).sum())


def kendall_tau(
    runtimes: ArrayLike,
    scores: ArrayLike,
    variant: str = "competition",
    *,
    within: float | None = None,
) -> float:
  """Kendall's rank correlation of one graph; +1 if the scores give the true order.

  C and D are the numbers of concordant and discordant pairs among the c (c - 1) / 2 pairs. T_y and
  T_s are the numbers of pairs with equal runtimes and with equal scores.

      competition:  tau   = (C - D) / (C + D)
      b:            tau_b = (C - D) / sqrt((c (c - 1) / 2 - T_y) (c (c - 1) / 2 - T_s))

  Without ties, both equal 2 OPA - 1.

  Args:
    runtimes: y (c,), any unit, positive.
    scores: s (c,), higher = predicted faster.
    variant: "competition" (the formula of the TpuGraphs competition) or "b" (what
      `scipy.stats.kendalltau` and the public evaluation script compute).
    within: only configurations with a runtime of at most `within` times the best are used.

  Returns:
    A number in [-1, 1]. It is defined as 0 for constant scores, which give no order;
    `is_degenerate` detects this case. NaN if there is nothing to order (one configuration, equal
    runtimes); `mean_over_graphs` skips and counts such graphs.

  Raises:
    DataError: shapes differ, a score is not finite or a runtime is not positive.
    ConfigError: `within` is below 1.
    UnknownNameError: there is no such variant.

  Source: M. Kendall, "The treatment of ties in ranking problems", Biometrika 33 (1945).
  """
  if variant not in TAU_VARIANTS:
    raise errors.UnknownNameError(
        f"unknown variant {variant!r} of Kendall's tau; expected one of {', '.join(TAU_VARIANTS)}")
  runtimes, scores = _restricted(runtimes, scores, within)
  counts = count_pairs(runtimes, scores)
  if not counts.total:
    return math.nan
  difference = counts.concordant - counts.discordant
  if counts.concordant + counts.discordant == 0:
    return 0.0
  if variant == "competition":
    return difference / (counts.concordant + counts.discordant)
  untied_scores = _pairs_of(scores.size) - _tied_pairs(scores)
  # counts.total is c (c - 1) / 2 - T_y, the pairs with different runtimes. Python integers are used
  # because the product needs more than 64 bits for about 100,000 configurations or more.
  return difference / math.sqrt(counts.total * untied_scores)


def is_degenerate(
    runtimes: ArrayLike, scores: ArrayLike, *, within: float | None = None) -> bool:
  """Whether `kendall_tau` is 0 by definition: runtimes differ, but all scores are equal."""
  runtimes, scores = _restricted(runtimes, scores, within)
  return bool(np.ptp(runtimes) > 0 and np.ptp(scores) == 0)


def count_pairs(runtimes: np.ndarray, scores: np.ndarray, min_gap: float = 0.0) -> PairCounts:
  """Counts the pairs with runtime_i * (1 + min_gap) < runtime_j; both arrays float64 (c,)."""
  order = np.argsort(runtimes, kind="stable")
  # In order of runtime, the configurations that are sufficiently faster than j form a prefix.
  faster = _faster_counts(runtimes[order], min_gap)
  ranks = np.unique(scores, return_inverse=True)[1].reshape(-1)[order]
  less, equal = _compare_with_prefix(ranks, faster)
  total, discordant, tied = int(faster.sum()), int(less.sum()), int(equal.sum())
  return PairCounts(total - discordant - tied, discordant, tied)


def _restricted(
    runtimes: ArrayLike, scores: ArrayLike, within: float | None,
) -> tuple[np.ndarray, np.ndarray]:
  runtimes, scores = inputs.check_pair(runtimes, scores)
  mask = inputs.within_of_best(runtimes, within)
  return runtimes[mask], scores[mask]


def _faster_counts(ascending: np.ndarray, min_gap: float) -> np.ndarray:
  """For each of the sorted runtimes (c,), the number that are faster by more than `min_gap`."""
  return np.searchsorted((1.0 + min_gap) * ascending, ascending, side="left")


def _pairs_of(count: int) -> int:
  return count * (count - 1) // 2


def _tied_pairs(values: np.ndarray) -> int:
  counts = np.unique(values, return_counts=True)[1].astype(np.int64)
  return int((counts * (counts - 1) // 2).sum())


def _compare_with_prefix(
    values: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Counts, for each j, the values in values[:lengths[j]] below and equal to values[j].

  This traverses a wavelet matrix for all j at once. The values are sorted stably by one bit after
  another, from the highest. The part of each prefix that agrees with values[j] in all bits so far
  is a contiguous range [start, stop). It takes about 20 array operations per bit.

  Args:
    values: (c,) integers in [0, c).
    lengths: (c,) integers in [0, c].
  Returns:
    Two int64 arrays (c,).

  Source: F. Claude, G. Navarro, "The wavelet matrix", SPIRE 2012.
  """
  queries = values
  start = np.zeros(values.shape, np.int64)
  stop = lengths.astype(np.int64)
  below = np.zeros(values.shape, np.int64)
  for bit in reversed(range(int(values.max()).bit_length())):
    ones = (values >> bit) & 1
    zeros_before = np.concatenate(([0], np.cumsum(1 - ones)))
    zero_start, zero_stop = zeros_before[start], zeros_before[stop]
    goes_right = ((queries >> bit) & 1).astype(bool)
    # Values with a 0 where values[j] has a 1 are below it.
    below += np.where(goes_right, zero_stop - zero_start, 0)
    start = np.where(goes_right, zeros_before[-1] + start - zero_start, zero_start)
    stop = np.where(goes_right, zeros_before[-1] + stop - zero_stop, zero_stop)
    values = np.concatenate((values[ones == 0], values[ones == 1]))
  return below, stop - start
