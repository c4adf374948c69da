"""The distinct rows of an array, in order of first occurrence."""

from typing import NamedTuple

import numpy as np


class DistinctRows(NamedTuple):
  """The distinct rows of an array.

  Attributes:
    first: (d,) int64 position of the first row of each set of equal rows, ascending.
    group: (c,) int64 for each row, the position in `first` of the row that it equals.
  """

  first: np.ndarray
  group: np.ndarray


def find(rows: np.ndarray) -> DistinctRows:
  """Finds the distinct rows.

  Rows are compared byte by byte, except that -0.0 equals 0.0.

  Args:
    rows: (c, ...) numbers.
  """
  count = len(rows)
  if not rows.size:  # No rows, or rows without columns, which are all equal.
    return DistinctRows(np.arange(min(count, 1)), np.zeros(count, np.int64))
  if rows.dtype.kind == "f":
    rows = rows + rows.dtype.type(0)
  flat = np.ascontiguousarray(rows.reshape(count, -1))
  keys = flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1])))[:, 0]
  _, first, group = np.unique(keys, return_index=True, return_inverse=True)
  order = np.argsort(first)
  rank = np.empty(len(order), np.int64)
  rank[order] = np.arange(len(order))
  return DistinctRows(first[order], rank[group.reshape(-1)])
