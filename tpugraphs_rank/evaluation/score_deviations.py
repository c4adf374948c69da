"""Standard deviations of scores within a program, which give several rankers a common unit."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping

# Constant scores count as having the least one. Scores that deviate more than the largest one are
# those of a training that has diverged; blends of them could overflow.
LEAST, MOST = 1e-6, 1e9
RANGE = f"from {LEAST:g} to {MOST:g}"  # For messages.


def mean(scores: Sequence[np.ndarray]) -> float:
  """The mean standard deviation of the scores of each program, at least `LEAST`.

  Raises:
    TrainingError: it is above `MOST`.
  """
  # What is infinite or not a number is found below.
  with np.errstate(invalid="ignore", over="ignore"):
    value = float(np.mean([np.std(one, dtype=np.float64) for one in scores]))
  if not value <= MOST:
    raise errors.TrainingError(
        f"the scores within a program deviate by {value:g}; expected at most {MOST:g}: the "
        "training has diverged; train another run with a lower --learning_rate")
  return max(value, LEAST)


def is_constant(deviation: float) -> bool:
  """Whether scores of this deviation are the same for all configurations of a program."""
  return deviation <= LEAST


def is_valid(deviation: float) -> bool:
  """Whether a stored deviation can be one that `mean` returned for usable scores."""
  return LEAST <= deviation <= MOST


def check(name: str, value: Any) -> float:
  """The value of this name in a file.

  Raises:
    DataError: it is not a number that `mean` returns.
  """
  if type(value) not in (int, float) or not is_valid(value):  # A bool is no number here.
    raise errors.DataError(f"{name} is {escaping.value(value)}; expected a number {RANGE}")
  return float(value)
