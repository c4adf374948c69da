"""Whether a configuration computes the default's numbers."""

from collections.abc import Sequence

import numpy as np

# Largest difference from the default's numbers, relative to their largest magnitude, by the number
# of bits of a type's significand: float32 and wider, float16 and bfloat16, float8.
_TOLERANCES = ((23, 1e-4), (7, 2e-2), (0, 0.25))


def tolerance(dtype: np.dtype) -> float:
  """The largest relative difference for a type; 0 for whole numbers and truth values."""
  if dtype.kind in "iub":
    return 0.0
  try:
    bits = np.finfo(dtype).nmant
  except ValueError:  # A type of ml_dtypes, such as bfloat16.
    bits = 7 if dtype.itemsize == 2 else 0
  return next(limit for least, limit in _TOLERANCES if bits >= least)


def agree(results: Sequence[np.ndarray], expected: Sequence[np.ndarray],
          finite: bool = False) -> bool:
  """Whether all results equal those of the default.

  Numbers may differ by `tolerance` times the largest finite magnitude of the array. Infinities and
  NaNs must be at the same places, with the same sign.

  Args:
    results: arrays.
    expected: the default's.
    finite: whether infinities and NaNs count as a difference.
  """
  for result, reference in zip(results, expected, strict=True):
    if result.shape != reference.shape or result.dtype != reference.dtype:
      return False
    limit = tolerance(reference.dtype)
    if result.dtype.kind == "c":
      result, reference = (np.stack([value.real, value.imag]) for value in (result, reference))
    if result.dtype.kind in "iub":
      if not np.array_equal(result, reference):
        return False
      continue
    result, reference = result.astype(np.float64), reference.astype(np.float64)
    known = np.isfinite(reference)
    if finite and not (known.all() and np.isfinite(result).all()):
      return False
    if not np.array_equal(result[~known], reference[~known], equal_nan=True):
      return False
    if not np.isfinite(result[known]).all():
      return False
    scale = np.abs(reference[known]).max(initial=0)
    if np.abs(result[known] - reference[known]).max(initial=0) > limit * scale:
      return False
  return True


def finite_share(results: Sequence[np.ndarray]) -> float:
  """The share of real and complex numbers that are finite; 1 if there are none."""
  counted = [(np.isfinite(result.astype(np.complex128 if result.dtype.kind == "c" else np.float64)
                          ).sum(), result.size)
             for result in results if result.dtype.kind not in "iub"]
  size = sum(total for _, total in counted)
  return 1.0 if not size else float(sum(number for number, _ in counted)) / size
