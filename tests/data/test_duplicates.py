"""Repeats counted and merged, against loops over the configurations."""

import collections

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from tpugraphs_rank.data import duplicates

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.floats(1.0, 1e6)), max_size=20)


def _arrays(pairs):
  return (np.array([key for key, _ in pairs], np.int64),
          np.array([runtime for _, runtime in pairs], np.float64))


@given(PAIRS)
def test_counts(pairs):
  keys, runtimes = _arrays(pairs)
  groups = collections.defaultdict(list)
  for key, runtime in pairs:
    groups[key].append(runtime)
  actual = duplicates.count(keys, runtimes)
  assert actual.distinct == len(groups)
  assert actual.rows == len(pairs) - len(groups)
  assert actual.largest == max(map(len, groups.values()), default=0)
  assert actual.freedom == sum(len(values) - 1 for values in groups.values())
  assert actual.squares == pytest.approx(sum(
      (value / np.mean(values) - 1) ** 2 for values in groups.values() if len(values) > 1
      for value in values), rel=1e-6, abs=1e-12)


def test_without_runtimes_there_is_no_spread():
  actual = duplicates.count(np.array([3, 3, 1, 3]), np.zeros(4))
  assert (actual.distinct, actual.rows, actual.largest) == (2, 2, 3)
  assert (actual.squares, actual.freedom) == (0.0, 0)


def test_a_graph_without_configurations():
  assert duplicates.count(np.zeros(0, np.int64), np.zeros(0)) == duplicates.Repeats(0, 0, 0, 0.0, 0)


ONE_FOR_ALL = {"mean": np.mean, "minimum": np.min, "first": lambda values: values[0]}


@pytest.mark.parametrize("how", ONE_FOR_ALL)
@given(pairs=PAIRS, data=st.data())
def test_merged(how, pairs, data):
  keys, runtimes = _arrays(pairs)
  count = len(pairs)
  choice = np.array(data.draw(st.permutations(range(count))), np.int64)[
      :data.draw(st.integers(0, count))]
  groups = {}
  for index in choice:
    groups.setdefault(keys[index], []).append(index)
  kept, merged = duplicates.merge(keys, runtimes, choice, how)
  # The first of each, in the order of the choice.
  assert kept.tolist() == [members[0] for members in groups.values()]
  expected = runtimes.copy()
  for members in groups.values():
    expected[members[0]] = ONE_FOR_ALL[how](runtimes[members])
  np.testing.assert_allclose(merged, expected, rtol=1e-12)
  # What has no repeats among the choice keeps its runtime to the last bit.
  alone = [members[0] for members in groups.values() if len(members) == 1]
  np.testing.assert_array_equal(merged[alone], runtimes[alone])


def test_the_runtimes_passed_in_are_unchanged():
  runtimes = np.array([4.0, 2.0])
  duplicates.merge(np.array([0, 0]), runtimes, np.array([0, 1]), "mean")
  assert runtimes.tolist() == [4.0, 2.0]


def test_an_unknown_rule():
  with pytest.raises(ValueError, match="by 'keep'; expected mean, minimum or first"):
    duplicates.merge(np.array([0]), np.ones(1), np.array([0]), "keep")
