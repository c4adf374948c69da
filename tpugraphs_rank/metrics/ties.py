"""Expectations over random orders of equally scored configurations, in closed form.

Where scores tie, the order of a ranking is not defined. To break ties by index would reward rankers
that tie if the index correlates with the runtime, as it does in collections whose search measured
promising configurations first.

The K configurations that are tried are those of all higher scores, and a random draw from the block
of equal scores that contains place K: j of its m configurations, without replacement. With the
block's runtimes in ascending order, none of the r fastest is drawn with the probability

    S_r = C(m - r, j) / C(m, j) = prod_{i < r} (m - j - i) / (m - i)
"""

import numpy as np
from numpy.typing import ArrayLike

from tpugraphs_rank.metrics import inputs


class Blocks:
  """The configurations of one graph in order of their scores, in blocks of equal scores."""

  def __init__(self, scores: np.ndarray):
    """Sorts checked scores, (c,) float64, the highest first."""
    self.order = np.argsort(-scores, kind="stable")
    ordered = scores[self.order]
    self._starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    self._ends = np.append(self._starts[1:], len(scores))

  @property
  def spans(self) -> list[tuple[int, int]]:
    """Begin and end of each block, as places in `order`."""
    return list(zip(self._starts.tolist(), self._ends.tolist()))

  @property
  def has_ties(self) -> bool:
    """Whether any two scores are equal."""
    return len(self._starts) < len(self.order)

  def at(self, k: int) -> tuple[int, int]:
    """Begin and end of the block that contains the k-th place, counted from 1."""
    block = int(np.searchsorted(self._starts, k - 1, side="right")) - 1
    return int(self._starts[block]), int(self._ends[block])


def expected_best(values: np.ndarray, scores: np.ndarray, largest: int) -> np.ndarray:
  """The expected least value among the K best-scored configurations, for K = 1 ... `largest`.

      E_K = min(m_K, t_1) + sum_{r = 2 ... m} S_{r-1} (min(m_K, t_r) - min(m_K, t_{r-1}))

  m_K is the least value of the configurations that are certainly among the K, and t_1 <= ... <= t_m
  are the values of the block that contains place K. O(c log c) without ties, else O(c log c + K c).

  Args:
    values: (c,) float64.
    scores: (c,) float64, higher = predicted faster.
    largest: the largest K; for K >= c the value is the least of all.

  Returns:
    (largest,) float64, never ascending.
  """
  best = _Best(values, scores)
  count = min(largest, len(values))
  known = [best.of(k) for k in range(1, count + 1)] if best.has_ties else best.least[:count]
  return np.pad(np.asarray(known, np.float64), (0, largest - count), mode="edge")


def expected_best_of(values: np.ndarray, scores: np.ndarray, k: int) -> float:
  """The result of `expected_best` for one K."""
  return _Best(values, scores).of(min(k, len(values)))


class _Best(Blocks):
  """Expected least values among the best-scored configurations."""

  def __init__(self, values: np.ndarray, scores: np.ndarray):
    super().__init__(scores)
    self._ordered = values[self.order]
    # (c,) the least value of the first 1, 2, ... in the order of storage.
    self.least = np.minimum.accumulate(self._ordered)
    self._sorted: tuple[int, np.ndarray] = (-1, self.least)

  def of(self, k: int) -> float:
    """The expectation for one K of at most c."""
    start, end = self.at(k)
    if end == k:  # The whole block is tried.
      return float(self.least[k - 1])
    if self._sorted[0] != start:
      block = np.sort(self._ordered[start:end])
      self._sorted = start, np.minimum(block, self.least[start - 1]) if start else block
    block = self._sorted[1]
    # In this form a value that is certain is exact, and the result never ascends with K.
    return float(block[0] + (_none_of(end - start, k - start)[1:] * np.diff(block)).sum())


def expected_choice(
    chosen_by: np.ndarray, judged_by: np.ndarray, scores: np.ndarray, k: int) -> float:
  """The expected `judged_by` of the one with the least `chosen_by` among the K best-scored.

  Of those with equal `chosen_by`, the first in the order of the trials is taken.

  Args:
    chosen_by: (c,) float64, for instance the runtimes of one pass.
    judged_by: (c,) float64, for instance those of another pass.
    scores: (c,) float64, higher = predicted faster.
    k: number of configurations that are tried; at most c of them are.
  """
  blocks = Blocks(scores)
  k = min(k, len(scores))
  start, end = blocks.at(k)
  chosen, judged = chosen_by[blocks.order], judged_by[blocks.order]
  block = slice(start, end)
  # In a random order, the first of equally good ones is any of them.
  levels, place = np.unique(chosen[block], return_inverse=True)
  sizes = np.bincount(place)
  means = np.bincount(place, judged[block]) / sizes
  below = np.concatenate(([0], np.cumsum(sizes)))
  none = np.append(_none_of(end - start, k - start), 0.0)
  probabilities = none[below[:-1]] - none[below[1:]]
  if start:
    first = float(chosen[:start].min())
    begin, stop = next((begin, stop) for begin, stop in blocks.spans
                       if (chosen[begin:stop] == first).any())
    certain = judged[begin:stop][chosen[begin:stop] == first].mean()
    means = np.where(levels < first, means, certain)
  return float((probabilities * means).sum() / probabilities.sum())


def expected_trials(good: np.ndarray, scores: np.ndarray) -> float:
  """The expected number of configurations that are tried until one is good.

      n + (m + 1) / (g + 1)

  n configurations precede the first block with good ones; g of its m are good.

  Args:
    good: (c,) bool, at least one true.
    scores: (c,) float64, higher = predicted faster.
  """
  blocks = Blocks(scores)
  ordered = good[blocks.order]
  start, end = blocks.at(int(ordered.argmax()) + 1)
  return start + (end - start + 1) / (int(ordered[start:end].sum()) + 1)


def mean_ranks(scores: ArrayLike) -> np.ndarray:
  """The expected place of each configuration in the ranking, (c,) float64, from 1.

  Equal scores share the mean of their places.
  """
  checked = inputs.check_scores(scores)
  _, inverse, counts = np.unique(-checked, return_inverse=True, return_counts=True)
  last = np.cumsum(counts)
  return ((last - counts + 1 + last) / 2)[inverse.reshape(-1)]


def _none_of(size: int, drawn: int) -> np.ndarray:
  """(size,) S_0 ... S_{size - 1}: none of the first r is among `drawn` of `size`."""
  numbers = np.arange(size - 1)
  return np.concatenate((
      [1.0], np.cumprod(np.maximum(size - drawn - numbers, 0) / (size - numbers))))
