"""How much slower the fastest of the K best-scored configurations is than the fastest of all."""

import numpy as np
from numpy.typing import ArrayLike

from tpugraphs_rank import errors
from tpugraphs_rank.metrics import inputs


def topk_slowdown(
    runtimes: ArrayLike,
    scores: ArrayLike,
    k: int,
    normalizers: ArrayLike | None = None,
) -> float:
  """Top-K slowdown of one graph: the loss from trying only the K best-scored configurations.

      slowdown_K = min_{i in top K} y_i / min_i y_i - 1

  Args:
    runtimes: (c,), any unit, positive.
    scores: (c,), higher = predicted faster; equal scores are ordered by their indices.
    k: number of configurations tried, >= 1; the slowdown is 0 for k >= c.
    normalizers: (c,), in the unit of the runtimes, positive: y = runtimes / normalizers (tile
      collections). None: the raw runtimes are compared.

  Returns:
    A fraction >= 0: 0.05 is 5 % slower than the best.

  Raises:
    DataError: shapes differ, a score is not finite, a runtime or normalizer is not positive.
    ConfigError: `k` is below 1.

  Source: TpuGraphs paper (arXiv 2308.13490), section 4.
  """
  if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
    raise errors.ConfigError(f"k={k!r}; expected the number of configurations to try, 1 or more")
  times, checked = inputs.check_pair(runtimes, scores)
  if normalizers is not None:
    times = times / inputs.check_normalizers(normalizers, times.size)
  top = inputs.ranking(checked)[:k]
  return float(times[top].min() / times.min() - 1.0)
