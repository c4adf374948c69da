"""Distinct rows and the hash of integers."""

import numpy as np
import pytest

from tpugraphs_rank.data import distinct_rows
from tpugraphs_rank.data import hashing


def test_the_first_of_equal_rows_is_kept():
  rows = np.array([[1, -0.0], [2, 3], [1, 0.0], [2, 3], [0, 1]], np.float32)
  first, group = distinct_rows.find(rows)
  assert first.tolist() == [0, 1, 4]
  assert group.tolist() == [0, 1, 0, 1, 2]


def test_rows_without_columns_are_equal():
  first, group = distinct_rows.find(np.zeros([3, 0, 18], np.float32))
  assert first.tolist() == [0]
  assert group.tolist() == [0, 0, 0]


@pytest.mark.parametrize("shape", [(0, 4), (0, 0)])
def test_no_rows(shape):
  first, group = distinct_rows.find(np.zeros(shape, np.int8))
  assert first.shape == group.shape == (0,)


def test_first_positions_ascend_whatever_the_order_of_the_bytes():
  rows = np.random.default_rng(0).integers(-3, 3, [200, 2, 2]).astype(np.int8)
  first, group = distinct_rows.find(rows)
  assert (np.diff(first) > 0).all()
  assert (rows[first][group] == rows).all()
  assert len(first) == len({row.tobytes() for row in rows})


def test_splitmix64_of_known_values():
  # The first outputs of the public SplitMix64 generator with seed 0.
  state = np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
  assert [hex(value) for value in hashing.splitmix64(state)] == [
      "0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]
