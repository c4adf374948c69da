"""Labels: never negative, the fastest highest, ties broken at random in one of the three."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.data import labels

# Few distinct values, so that ties are common.
RUNTIMES = st.lists(st.sampled_from([1.0, 1.5, 2.0, 7.0, 1e9, 3e-5]), min_size=1, max_size=30)


@given(RUNTIMES, st.none() | st.integers(0, 9))
def test_never_negative_and_faster_is_higher(runtimes, seed):
  actual = labels.make_labels(runtimes, None if seed is None else np.random.default_rng(seed))
  for key in ("relevance", "order", "target"):
    values = getattr(actual, key)
    assert values.dtype == np.float32 and values.shape == (len(runtimes),)
  assert actual.relevance.min() >= 0 and actual.order.min() >= 0
  for i, y_i in enumerate(runtimes):
    for j, y_j in enumerate(runtimes):
      if y_i < y_j:
        assert actual.relevance[i] > actual.relevance[j]
        assert actual.order[i] > actual.order[j]
        assert actual.target[i] > actual.target[j]
      elif y_i == y_j:
        assert actual.relevance[i] == actual.relevance[j] and actual.target[i] == actual.target[j]
        assert i == j or actual.order[i] != actual.order[j]


@given(RUNTIMES)
def test_relevance_is_the_dense_rank_from_0_to_1(runtimes):
  distinct = sorted(set(runtimes), reverse=True)
  expected = [distinct.index(y) / max(len(distinct) - 1, 1) for y in runtimes]
  np.testing.assert_allclose(labels.make_labels(runtimes).relevance, expected, rtol=1e-6)


def test_target_is_the_standardised_minus_log_runtime():
  runtimes = np.array([1.0, 2.0, 8.0, 2.0])
  logs = -np.log(runtimes)
  np.testing.assert_allclose(
      labels.make_labels(runtimes).target, (logs - logs.mean()) / logs.std(), rtol=1e-6)


def test_one_configuration_and_equal_runtimes():
  one = labels.make_labels([5.0])
  assert (one.relevance[0], one.order[0], one.target[0]) == (0, 0, 0)
  same = labels.make_labels([5.0, 5.0, 5.0])
  np.testing.assert_array_equal(same.relevance, np.zeros(3))
  np.testing.assert_array_equal(same.target, np.zeros(3))
  assert len(set(same.order)) == 3


def test_without_randomness_ties_are_broken_by_position():
  assert np.argsort(-labels.make_labels([2.0, 1.0, 1.0, 2.0]).order).tolist() == [1, 2, 0, 3]


def test_ties_are_broken_by_the_seed_and_fairly():
  runtimes = np.ones(6)
  make = lambda seed: labels.make_labels(runtimes, np.random.default_rng(seed)).order
  np.testing.assert_array_equal(make(3), make(3))
  first = [int(np.argmax(make(seed))) for seed in range(300)]
  assert min(np.bincount(first, minlength=6)) > 300 / 6 / 2


def test_the_order_is_total_in_float32_for_long_lists_too():
  rng = np.random.default_rng(0)
  runtimes = rng.integers(1, 5_000, 20_000).astype(np.float64)
  order = labels.make_labels(runtimes, rng).order
  assert len(np.unique(order)) == len(order) and order.min() >= 0
  assert (np.diff(runtimes[np.argsort(-order)]) >= 0).all()


@pytest.mark.parametrize("runtimes", [[1.0, 0.0], [0.0], [3.0, -1.0]])
def test_zeros_are_not_measurements(runtimes):
  with pytest.raises(errors.DataError, match="labels need positive runtimes.*test splits"):
    labels.make_labels(runtimes)
