"""Paired differences between rankers, graph by graph, with bootstrap intervals."""

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np
from numpy.typing import ArrayLike
import pandas as pd

from tpugraphs_rank import errors
from tpugraphs_rank.evaluation import per_graph

RESAMPLES = 10_000
LEVEL = 0.95
# Resamples are drawn in blocks of this many indices, which take 8 bytes each.
_BLOCK = 4_000_000


@dataclasses.dataclass(frozen=True)
class Interval:
  """A mean and its bootstrap interval.

  Attributes:
    mean: the mean of the values.
    low, high: ends of the percentile interval of the mean; None if there is only one value (or one
      cluster of values), which says nothing about the uncertainty.
    n: number of values (graphs).
  """

  mean: float
  low: float | None
  high: float | None
  n: int

  def as_dict(self) -> dict[str, float | None]:
    """The attributes as JSON values."""
    return dataclasses.asdict(self)


def mean_interval(
    values: ArrayLike,
    clusters: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
  """The mean of values with a percentile bootstrap interval.

      mean* = mean of n values drawn with replacement;  [low, high] = quantiles of mean*

  Args:
    values: (n,), one per graph; NaN (a graph with nothing to rank) is left out.
    clusters: for each value its cluster (a family). Clusters are then drawn with replacement, each
      with all its values. Graphs of one family are similar, so intervals over graphs are too narrow
      for claims about families in general.
    resamples: number of means that are drawn.
    seed: seed of the draw.
    level: share of the drawn means inside the interval.

  Raises:
    DataError: all values are NaN, one is infinite, or `clusters` has another length.

  Source: B. Efron, R. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
  """
  array = np.asarray(values, np.float64)
  names = np.arange(array.size) if clusters is None else np.asarray(clusters)
  if array.ndim != 1 or names.shape != array.shape:
    raise errors.DataError(
        f"values have shape {array.shape}, clusters {names.shape}; expected (n,), one per graph")
  defined = ~np.isnan(array)
  array, names = array[defined], names[defined]
  if not array.size or np.isinf(array).any():
    raise errors.DataError("a bootstrap needs at least one value, and only finite values")
  _, inverse = np.unique(names, return_inverse=True)
  if not inverse.any():  # A single cluster.
    return Interval(float(array.mean()), None, None, int(array.size))
  sums = np.bincount(inverse.reshape(-1), array)
  sizes = np.bincount(inverse.reshape(-1)).astype(np.float64)
  rng = np.random.default_rng(seed)
  count = len(sums)
  rows = max(_BLOCK // count, 1)
  means = np.empty(resamples)
  for start in range(0, resamples, rows):
    drawn = rng.integers(count, size=(min(rows, resamples - start), count))
    means[start:start + len(drawn)] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
  low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
  return Interval(float(array.mean()), float(low), float(high), int(array.size))


def seed_mean(frames: Sequence[pd.DataFrame], metric: str) -> pd.Series:
  """A metric of each graph, averaged over the frames of several seeds.

  Args:
    frames: results of `per_graph.evaluate` on the same graphs.
    metric: a column.

  Returns:
    (g,) float64, indexed by graph, in the order of the first frame.

  Raises:
    DataError: there is no frame, or the frames differ in their graphs.
  """
  if not frames:
    raise errors.DataError(f"no frame to average {metric} over; expected one per seed")
  columns = [frame.set_index("graph")[metric].astype(np.float64) for frame in frames]
  for column in columns:
    if len(column) != len(columns[0]) or set(column.index) != set(columns[0].index):
      raise errors.DataError(
          f"frames have different graphs ({len(columns[0])} and {len(column)}); expected the "
          "same graphs for each seed and ranker")
  aligned = [column.reindex(columns[0].index) for column in columns]
  return sum(aligned[1:], aligned[0]) / len(aligned)


def paired_difference(
    model: Sequence[pd.DataFrame],
    baseline: Sequence[pd.DataFrame],
    metric: str,
    by_family: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
  """The gain of a model over a baseline, graph by graph; positive if the model is better.

      gain_g = model_g - baseline_g  (slowdowns: baseline_g - model_g), each averaged over seeds

  Args:
    model: the model's frames, one per seed.
    baseline: the baseline's frames, one per seed.
    metric: a column of the frames.
    by_family: whether families are resampled instead of graphs.
    resamples: number of resamples.
    seed: seed of the resampling.

  Raises:
    DataError: the frames have different graphs.
  """
  ours = seed_mean(model, metric)
  theirs = seed_mean(baseline, metric)
  if set(ours.index) != set(theirs.index):
    raise errors.DataError(
        f"model and baseline were evaluated on different graphs ({len(ours)} and {len(theirs)})")
  gain = ours - theirs.reindex(ours.index)
  if not per_graph.higher_is_better(metric):
    gain = -gain
  clusters = None
  if by_family:
    clusters = model[0].set_index("graph")["family"].reindex(ours.index).tolist()
  return mean_interval(gain.to_numpy(), clusters, resamples, seed)


def paired_differences(
    frames_by_model: Mapping[str, Sequence[pd.DataFrame]],
    model: str,
    baselines: Sequence[str] | None = None,
    metrics: Sequence[str] = ("kendall_tau", "top1_slowdown", "top10_slowdown"),
    by_family: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Interval]]:
  """`paired_difference` of a model to each baseline: {baseline: {metric: Interval}}.

  Metrics that no graph has are left out.

  Args:
    frames_by_model: for each ranker its frames, one per seed.
    model: the ranker whose gains are computed.
    baselines: the rankers that it is compared with; None: all others.
    metrics: columns of the frames.
    by_family: as in `paired_difference`.
    resamples: as in `paired_difference`.
    seed: as in `paired_difference`.
  """
  names = [name for name in frames_by_model if name != model] if baselines is None else baselines
  defined = [metric for metric in metrics
             if metric in frames_by_model[model][0]
             and seed_mean(frames_by_model[model], metric).notna().any()]
  return {
      name: {metric: paired_difference(frames_by_model[model], frames_by_model[name], metric,
                                       by_family, resamples, seed)
             for metric in defined}
      for name in names}
