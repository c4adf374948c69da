"""Means over the graphs of a collection, and over groups of graphs."""

from collections.abc import Iterable, Sequence
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tpugraphs_rank import errors


class GraphMean(NamedTuple):
  """The mean of a metric over the graphs for which it is defined."""
  mean: float  # NaN if no graph is left.
  graphs: int  # Graphs in the mean.
  skipped: int  # Graphs for which the metric is NaN because there is nothing to rank.


def mean_over_graphs(values: ArrayLike, weights: ArrayLike | None = None) -> GraphMean:
  """The mean over graphs. Graphs whose value is NaN are left out and counted.

      mean = sum_g w_g v_g / sum_g w_g

  Args:
    values: v (g,), one per graph.
    weights: w (g,), >= 0, or None for the plain mean. With `opa_pairs` as weights, the mean of
      `opa` is the share of correct pairs over all graphs, as TensorFlow Ranking reports it.
  Raises:
    DataError: shapes differ, a weight is negative or not finite, or a value is infinite.
  """
  array = np.asarray(values, np.float64)
  factors = np.ones(array.shape) if weights is None else np.asarray(weights, np.float64)
  if array.ndim != 1 or factors.shape != array.shape:
    raise errors.DataError(
        f"values have shape {array.shape}, weights {factors.shape}; expected (g,), one per graph")
  if np.isinf(array).any():
    raise errors.DataError(
        "a graph's metric is infinite; expected a number, or NaN if it is not defined")
  if not (np.isfinite(factors).all() and (factors >= 0).all()):
    raise errors.DataError("weights are negative or not finite; expected numbers of pairs")
  defined = ~np.isnan(array)
  total = float(factors[defined].sum())
  mean = float((factors[defined] * array[defined]).sum() / total) if total > 0 else math.nan
  return GraphMean(mean, int(defined.sum()), int((~defined).sum()))


def mean_by_group(
    values: ArrayLike, groups: Sequence[str], weights: ArrayLike | None = None,
) -> dict[str, GraphMean]:
  """`mean_over_graphs` of each group (a kernel family, a program), groups in sorted order."""
  array = np.asarray(values, np.float64)
  names = np.asarray(groups, dtype=object)
  factors = np.ones(array.shape) if weights is None else np.asarray(weights, np.float64)
  if not (array.ndim == 1 and names.shape == array.shape == factors.shape):
    raise errors.DataError(
        f"{array.size} values, {names.size} groups and {factors.size} weights; expected one of "
        "each per graph")
  return {
      name: mean_over_graphs(array[names == name], factors[names == name])
      for name in sorted(set(names.tolist()))}


def mean_over_programs(values: ArrayLike, stems: Iterable[str]) -> float:
  """Mean over programs of the mean over their graphs, as in the public report on tiles."""
  programs = mean_by_group(values, [program_of(stem) for stem in stems])
  return mean_over_graphs([program.mean for program in programs.values()]).mean


def program_of(stem: str) -> str:
  """The program of a public tile graph: the stem of its file up to the last underscore.

  `resnet_v1_50_official_batch_128_bf16_6e7a3a1b8dcc` belongs to
  `resnet_v1_50_official_batch_128_bf16`.
  """
  return stem.rpartition("_")[0] or stem
