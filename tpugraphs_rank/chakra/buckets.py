"""Numbers as categories: buckets on a logarithmic scale, and back.

With p buckets per octave, bucket k holds the whole numbers v with 2^(k/p) <= v < 2^((k+1)/p). Its
label states its smallest and largest number, "12-15", so that labels of different files agree. Zero
and missing numbers have the labels "0" and "none". With p = 0 each number is its own bucket.
"""

from collections.abc import Mapping, Sequence
import math
import re

import numpy as np

ZERO, NONE = "0", "none"
MAX_PER_OCTAVE = 16
_RANGE = re.compile(r"(\d{1,20})(?:-(\d{1,20}))?")


def labels(numbers: Sequence[int] | np.ndarray, per_octave: int) -> np.ndarray:
  """(n,) str: the label of each number; a negative number is a missing one.

  Args:
    numbers: (n,) whole numbers.
    per_octave: buckets between a number and its double; 0: one bucket for each number.
  """
  distinct, indices = np.unique(np.asarray(numbers, np.int64), return_inverse=True)
  words = np.array(_labels(distinct.tolist(), per_octave), np.str_)
  return words[indices.reshape(-1)] if len(words) else words


def values(numbers: Sequence[int] | np.ndarray, per_octave: int) -> dict[str, int]:
  """For each bucket that occurs, the geometric mean of its numbers, rounded.

  The mean is within the bucket, so that it gets the bucket's label again. Missing numbers and zeros
  are left out.

  Args: as `labels`.
  """
  numbers = np.asarray(numbers, np.int64)
  positive = numbers[numbers > 0]
  distinct, indices = np.unique(positive, return_inverse=True)
  # Buckets follow one another in the order of their numbers.
  words = _labels(distinct.tolist(), per_octave)
  first = [at for at, word in enumerate(words) if not at or word != words[at - 1]]
  order = np.argsort(indices.reshape(-1), kind="stable")
  ends = np.cumsum(np.bincount(indices.reshape(-1), minlength=len(words))).tolist()
  result = {}
  for start, end in zip(first, [*first[1:], len(words)]):
    least, most = int(distinct[start]), int(distinct[end - 1])
    if least < most:
      # In the order of the input: the rounding of a sum depends on it.
      rows = np.sort(order[ends[start - 1] if start else 0:ends[end - 1]])
      mean = round(math.exp(np.log(positive[rows].astype(np.float64)).mean()))
      least = min(max(mean, least), most)
    result[words[start]] = least
  return dict(sorted(result.items()))


def number(label: str, known: Mapping[str, int]) -> tuple[int, bool] | None:
  """The number of a bucket.

  Args:
    label: of the bucket.
    known: numbers of buckets by label, as `values` gives.

  Returns:
    The number, and whether it was known; an unknown one is the geometric mean of the bucket's
    bounds. None for a missing number, and for a text that is no label.
  """
  if label == ZERO:
    return 0, True
  if label in known:
    return int(known[label]), True
  match = _RANGE.fullmatch(label)
  if match is None:
    return None
  low = int(match[1])
  high = int(match[2] or low)
  return round(math.sqrt(low) * math.sqrt(high)), low == high


def _labels(numbers: Sequence[int], per_octave: int) -> list[str]:
  known: dict[int, str] = {}
  return [_label(number, per_octave, known) for number in numbers]


def _label(number_: int, per_octave: int, known: dict[int, str]) -> str:
  """The label of a number; `known` holds those of buckets that occurred before."""
  if number_ < 0:
    return NONE
  if number_ == 0 or per_octave == 0:
    return str(number_)
  # Exact: v >= 2^(k/p) if and only if v^p >= 2^k.
  bucket = (number_ ** per_octave).bit_length() - 1
  if bucket not in known:
    low, high = _lowest(bucket, per_octave), _lowest(bucket + 1, per_octave) - 1
    known[bucket] = str(low) if low == high else f"{low}-{high}"
  return known[bucket]


def _lowest(bucket: int, per_octave: int) -> int:
  """The smallest whole number v with v^p >= 2^k."""
  low, high = 0, 1 << (bucket // per_octave + 1)
  while low + 1 < high:
    middle = (low + high) // 2
    if middle ** per_octave >= 1 << bucket:
      high = middle
    else:
      low = middle
  return high
