"""Paired differences between two training methods, over programs and training subsets at once.

A difference varies with the evaluated programs, which are similar within a family, and with the
training subset and seed, which affect all evaluated programs. An interval must resample both.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
import pandas as pd

from tpugraphs_rank import errors
from tpugraphs_rank.evaluation import bootstrap
from tpugraphs_rank.evaluation import per_graph

# More than a plain interval needs, because corrected intervals end far out in the tails.
RESAMPLES = 40_000
_BLOCK = 4_000_000
_KEYS = ["graph", "subset"]


def corrected_level(comparisons: int, level: float = bootstrap.LEVEL) -> float:
  """1 - (1 - level) / m: m intervals of this level all hold with probability `level` or more.

  Source: C. Bonferroni (1936); O. Dunn, "Multiple comparisons among means", JASA 56 (1961).

  Raises:
    ConfigError: m is not positive.
  """
  if comparisons < 1:
    raise errors.ConfigError(f"{comparisons} comparisons; expected 1 or more")
  return 1.0 - (1.0 - level) / comparisons


def mean_interval(values: ArrayLike, families: Sequence[str], subsets: Sequence[int],
                  level: float = bootstrap.LEVEL, resamples: int = RESAMPLES, seed: int = 0
                  ) -> bootstrap.Interval:
  """The mean of values, with an interval over families and subsets.

      mean* = sum_i a_f(i) b_s(i) x_i / sum_i a_f(i) b_s(i);  [low, high] = quantiles of mean*

  where a_f is the number of times that family f was drawn, with as many draws with replacement as
  there are families, and b_s is the same for subset s, independently. Resamples without a value are
  left out. A single family (or subset) has no known variation, so the interval covers the other
  factor only. With few families or subsets, intervals are too narrow.

  Args:
    values: (n,); NaN (a program with nothing to rank) is left out.
    families: (n,) families of the evaluated programs.
    subsets: (n,) training subsets, including the seed.
    level: share of the resampled means inside the interval.
    resamples: number of resampled means.
    seed: seed of the draw.

  Raises:
    DataError: all values are NaN, one is infinite, or the lengths differ.

  Source: A. Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1 (2007), which shows
  that product weights overestimate the variance of such a mean rather than underestimate it.
  """
  array, rows, columns = np.asarray(values, np.float64), np.asarray(families), np.asarray(subsets)
  if array.ndim != 1 or rows.shape != array.shape or columns.shape != array.shape:
    raise errors.DataError(
        f"values have shape {array.shape}, families {rows.shape}, subsets {columns.shape}; "
        "expected (n,) each")
  defined = ~np.isnan(array)
  array, rows, columns = array[defined], rows[defined], columns[defined]
  if not array.size or np.isinf(array).any():
    raise errors.DataError("a bootstrap needs at least one value, and only finite values")
  (_, row), (_, column) = (np.unique(names, return_inverse=True) for names in (rows, columns))
  shape = (row.max() + 1, column.max() + 1)
  if shape == (1, 1):
    return bootstrap.Interval(float(array.mean()), None, None, int(array.size))
  sums, sizes = np.zeros(shape), np.zeros(shape)
  np.add.at(sums, (row, column), array)
  np.add.at(sizes, (row, column), 1.0)
  rng = np.random.default_rng(seed)
  block = max(_BLOCK // max(shape), 1)
  means = []
  for start in range(0, resamples, block):
    count = min(block, resamples - start)
    drawn_rows, drawn_columns = (
        rng.multinomial(size, np.full(size, 1.0 / size), size=count) for size in shape)
    total, weight = (((drawn_rows @ table) * drawn_columns).sum(axis=1)
                     for table in (sums, sizes))
    means.append(total[weight > 0] / weight[weight > 0])
  low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
  return bootstrap.Interval(float(array.mean()), float(low), float(high), int(array.size))


def paired_gains(ours: pd.DataFrame, theirs: pd.DataFrame, metric: str) -> pd.DataFrame:
  """The gain of one method over another, per program and subset; positive if it is better.

  Args:
    ours, theirs: frames of `per_graph.evaluate` with a column `subset`, one row per program and
      subset. Subsets that only one of them has are left out.
    metric: a column. For slowdowns, the gain is theirs - ours.

  Returns:
    A frame with the columns graph, family, subset, gain.

  Raises:
    DataError: a program occurs twice in a subset, there is no common subset, or the methods were
      evaluated on different programs.
  """
  common = sorted(set(ours["subset"]) & set(theirs["subset"]))
  if not common:
    raise errors.DataError("the two methods have no subset in common, so there are no pairs")
  ours, theirs = (_indexed(frame[frame["subset"].isin(common)]) for frame in (ours, theirs))
  if set(ours.index) != set(theirs.index):
    raise errors.DataError(
        f"the two methods were evaluated on different programs: {len(ours)} and {len(theirs)} "
        f"over {len(common)} subsets")
  gain = ours[metric].astype(np.float64) - theirs[metric].reindex(ours.index).astype(np.float64)
  if not per_graph.higher_is_better(metric):
    gain = -gain
  return ours.assign(gain=gain).reset_index()[["graph", "family", "subset", "gain"]]


def _indexed(frame: pd.DataFrame) -> pd.DataFrame:
  frame = frame.set_index(_KEYS)
  if not frame.index.is_unique:
    graph, subset = frame.index[frame.index.duplicated()][0]
    raise errors.DataError(f"{graph} occurs twice in subset {subset}; expected one row each")
  return frame


def paired_interval(ours: pd.DataFrame, theirs: pd.DataFrame, metric: str,
                    level: float = bootstrap.LEVEL, resamples: int = RESAMPLES, seed: int = 0
                    ) -> tuple[bootstrap.Interval, int]:
  """The `mean_interval` of `paired_gains`, and the number of common subsets."""
  gains = paired_gains(ours, theirs, metric)
  interval = mean_interval(gains["gain"], gains["family"], gains["subset"], level, resamples, seed)
  return interval, gains["subset"].nunique()
