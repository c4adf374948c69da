"""Orders of the axes of an array in memory, as small numbers.

An order lists axes from minor (contiguous in memory) to major. Axes of length 1 have no effect on
memory, so an order is a permutation of the other axes, renumbered from 0. All orders of up to six
axes are numbered. Number 0, `NONE`, is no order at all: nothing is requested.
"""

from collections.abc import Sequence
import functools
import itertools

import numpy as np

MAX_AXES = 6  # As many as the features of a layout hold.
NONE = 0
# The orders by number, those of fewer axes first.
ORDERS: tuple[tuple[int, ...], ...] = ((), *(
    order for axes in range(MAX_AXES + 1) for order in itertools.permutations(range(axes))))
_NUMBERS: dict[tuple[int, ...], int] = {
    order: number for number, order in enumerate(ORDERS) if number != NONE}
_BASE = MAX_AXES + 1  # An entry of a layout is -1..5.
_POWERS = _BASE ** np.arange(MAX_AXES)


def number_of(order: Sequence[int]) -> int:
  """The number of an order, a permutation of 0, ..., k - 1 for k up to `MAX_AXES`."""
  return _NUMBERS[tuple(order)]


def row_major(axes: int) -> int:
  """The number of the row-major order: the last axis is the minor-most."""
  return _NUMBERS[tuple(range(axes - 1, -1, -1))]


def long_axes(lengths: Sequence[int]) -> tuple[int, ...]:
  """The axes that are longer than 1."""
  return tuple(axis for axis, length in enumerate(lengths) if length > 1)


def requested(layouts: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
  """The orders that layouts request.

  Args:
    layouts: (c, 6) integers -1..5: axes from minor to major, padded with -1.
    lengths: the lengths of the tensor's axes, at most six.

  Returns:
    (c,) int16 numbers; `NONE` for a layout without entries. Axes that a layout leaves out come
    last, in row-major order. Entries that name no axis, or name it again, are ignored.
  """
  codes, place = np.unique(
      (np.asarray(layouts, np.int64) + 1) @ _POWERS, return_inverse=True)
  numbers = np.array([_from_code(int(code), tuple(lengths)) for code in codes], np.int16)
  return numbers[place.reshape(-1)] if len(numbers) else np.zeros([0], np.int16)


@functools.lru_cache(1 << 16)
def _from_code(code: int, lengths: tuple[int, ...]) -> int:
  if not code:
    return NONE
  entries = [code // int(power) % _BASE - 1 for power in _POWERS]
  return number_of(_completed(entries, long_axes(lengths)))


def _completed(entries: Sequence[int], axes: Sequence[int]) -> list[int]:
  """An order of `axes`, renumbered, that begins with those of the entries that are among them."""
  kept = list(dict.fromkeys(entry for entry in entries if entry in axes))
  kept += [axis for axis in reversed(axes) if axis not in kept]
  return [axes.index(axis) for axis in kept]


@functools.lru_cache(4096)
def moved(to_axis: tuple[int, ...], axes: int) -> np.ndarray:
  """A table from orders of one array to those of another whose axes correspond.

  Args:
    to_axis: for each axis of the first array the axis of the second, or -1.
    axes: number of axes of the second. Axes that correspond to none come last in its orders.

  Returns:
    (len(ORDERS),) int16 for orders of the first array; `NONE` becomes `NONE`.
  """
  table = np.zeros(len(ORDERS), np.int16)
  for order in itertools.permutations(range(len(to_axis))):
    table[number_of(order)] = number_of(
        _completed([to_axis[axis] for axis in order], range(axes)))
  table.setflags(write=False)
  return table
