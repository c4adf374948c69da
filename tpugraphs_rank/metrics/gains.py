"""What a ranking gains for someone who measures its best-scored configurations."""

import math

import numpy as np
from numpy.typing import ArrayLike

from tpugraphs_rank import errors
from tpugraphs_rank.metrics import inputs
from tpugraphs_rank.metrics import slowdown
from tpugraphs_rank.metrics import ties

# Programs with less than this to gain over the default have no share of it: it would be noise.
LEAST_GAIN = 0.02
# A configuration within this of the fastest counts as good.
WITHIN = 0.02


def gain_share(runtimes: ArrayLike, scores: ArrayLike, k: int, default: float,
               least: float = LEAST_GAIN) -> float:
  """The share of the attainable gain over the default that the K best-scored configurations reach.

      share_K = (d - min(d, min_{i in top K} y_i)) / (d - min_i y_i)

  The default is kept if none of the K is faster, so the share is between 0 and 1. With equal scores
  it is the mean over their orders, as for `topk_slowdown`.

  Args:
    runtimes: (c,), any unit, positive.
    scores: (c,), higher = predicted faster.
    k: number of configurations tried, >= 1.
    default: d, the runtime of the default configuration, in the same unit. It need not be one of
      the configurations.
    least: the least attainable gain, d / min_i y_i - 1.

  Returns:
    The share; NaN if less than `least` can be gained.

  Raises:
    DataError: the default or another runtime is not positive; and as for `topk_slowdown`.
    ConfigError: `k` is below 1.
  """
  slowdown.check_k(k)
  times, checked = inputs.check_pair(runtimes, scores)
  if not (math.isfinite(default) and default > 0):
    raise errors.DataError(f"the default's runtime is {default!r}; expected a positive number")
  best = float(times.min())
  if default / best - 1.0 < least:
    return math.nan
  reached = ties.expected_best_of(np.minimum(times, default), checked, k)
  return (default - reached) / (default - best)


def measured_until_good(runtimes: ArrayLike, scores: ArrayLike, within: float = WITHIN) -> float:
  """How many configurations are measured, best-scored first, until one is nearly the fastest.

  With equal scores it is the mean over their orders, so it need not be whole.

  Args:
    runtimes: (c,), any unit, positive.
    scores: (c,), higher = predicted faster.
    within: a configuration is good if its runtime is at most (1 + within) times the least.

  Raises:
    DataError: as for `topk_slowdown`.
    ConfigError: `within` is negative or not finite.
  """
  if not (math.isfinite(within) and within >= 0):
    raise errors.ConfigError(f"within={within!r}; expected a share such as 0.02, 0 or more")
  times, checked = inputs.check_pair(runtimes, scores)
  return ties.expected_trials(times <= (1.0 + within) * times.min(), checked)
