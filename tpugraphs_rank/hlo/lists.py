"""Converts integer lists of different lengths to columns: first entries, sum, product."""

from collections.abc import Sequence

import numpy as np


class Lists:
  """Collects at most one list per row. An entry of a list is `width` integers.

  A row without a list has an empty list. Arithmetic is in 64-bit integers and wraps around, as in
  the public featurizer; the caller casts to float32 afterwards.
  """

  def __init__(self, width: int = 1):
    self._width = width
    self._rows: list[int] = []
    self._lengths: list[int] = []
    self._values: list[int] = []

  def add(self, row: int, entries: Sequence[int]) -> None:
    """Sets the list of `row`: flat, entry after entry, `width` integers per entry."""
    if entries:
      self._rows.append(row)
      self._lengths.append(len(entries) // self._width)
      self._values.extend(entries)

  def columns(self, n: int, length: int, padding: int = 0) -> np.ndarray:
    """The first `length` entries of each list, padded with `padding`: (width, n, length) int64."""
    rows, lengths, values = self._arrays()
    starts = np.cumsum(lengths) - lengths
    position = np.arange(len(values)) - np.repeat(starts, lengths)
    kept = position < length
    out = np.full((self._width, n, length), padding, np.int64)
    out[:, np.repeat(rows, lengths)[kept], position[kept]] = values[kept].T
    return out

  def sums_and_products(self, n: int, empty_product: int = 1) -> np.ndarray:
    """Sum and product over all entries of each list: (width, n, 2) int64.

    Args:
      n: number of rows.
      empty_product: the product of an empty list. The sum of an empty list is 0.
    """
    rows, lengths, values = self._arrays()
    out = np.empty((self._width, n, 2), np.int64)
    out[..., 0] = 0
    out[..., 1] = empty_product
    if len(rows):
      starts = np.cumsum(lengths) - lengths
      out[:, rows, 0] = np.add.reduceat(values, starts, axis=0).T
      out[:, rows, 1] = np.multiply.reduceat(values, starts, axis=0).T
    return out

  def counts(self, n: int) -> np.ndarray:
    """The length of each list: (n,) int64."""
    out = np.zeros(n, np.int64)
    out[np.asarray(self._rows, np.int64)] = self._lengths
    return out

  def aggregated(self, n: int, length: int, empty_product: int = 1) -> np.ndarray:
    """First entries, sum and product of each list: (width, n, length + 2) int64."""
    return np.concatenate(
        [self.columns(n, length), self.sums_and_products(n, empty_product)], axis=2)

  def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.asarray(self._rows, np.int64),
        np.asarray(self._lengths, np.int64),
        np.asarray(self._values, np.int64).reshape(-1, self._width))
