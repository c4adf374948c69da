"""A 64-bit hash of integers, for NumPy arrays."""

import numpy as np


def splitmix64(values: np.ndarray) -> np.ndarray:
  """Scrambles 64-bit integers with the finalizer of SplitMix64.

  The function is one to one, and every bit of a result depends on every bit of its value.

  Args:
    values: uint64 array of any shape.

  Returns:
    uint64 array of the same shape.
  """
  values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return values ^ (values >> np.uint64(31))
