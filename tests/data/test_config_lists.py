"""Drawing configurations, reference lists, and splits by distinct configuration."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from tpugraphs_rank.data import config_lists
from tpugraphs_rank.data import graphs

COUNTS = st.integers(0, 40)


# ---- sample_configs ------------------------------------------------------------------------------


@given(count=st.integers(1, 40), size=st.integers(1, 50), skew=st.sampled_from([0.0, 1.0, 20.0]),
       seed=st.integers(0, 99))
def test_without_replacement_and_by_the_seed(count, size, skew, seed):
  runtimes = np.random.default_rng(seed).integers(1, 9, count)
  draw = lambda: config_lists.sample_configs(runtimes, size, np.random.default_rng(seed), skew)
  drawn = draw()
  assert drawn.dtype == np.int64 and len(drawn) == min(size, count)
  assert len(set(drawn.tolist())) == len(drawn) and set(drawn.tolist()) <= set(range(count))
  np.testing.assert_array_equal(drawn, draw())


def _frequencies(skew, draws=4000, count=10):
  """How often each of `count` configurations, fastest first, is drawn as the only one."""
  rng = np.random.default_rng(0)
  runtimes = np.arange(1, count + 1)
  return np.bincount([config_lists.sample_configs(runtimes, 1, rng, skew)[0] for _ in range(draws)],
                     minlength=count) / draws


def test_uniform_without_skew():
  np.testing.assert_allclose(_frequencies(0.0), 1 / 10, atol=0.03)


@pytest.mark.parametrize("skew", [1.0, 3.0])
def test_skew_draws_by_exp_of_the_rank(skew):
  weights = np.exp(-skew * np.linspace(0, 1, 10))
  np.testing.assert_allclose(_frequencies(skew), weights / weights.sum(), atol=0.03)


def test_only_the_order_of_the_runtimes_matters():
  runtimes = np.array([5.0, 1.0, 3.0, 9.0])
  draw = lambda y: config_lists.sample_configs(y, 2, np.random.default_rng(1), 2.0)
  np.testing.assert_array_equal(draw(runtimes), draw(runtimes ** 3 * 1e6))


def test_all_in_random_order_where_all_fit():
  rng = np.random.default_rng(0)
  drawn = [tuple(config_lists.sample_configs(np.arange(1, 5), 4, rng, 1.0)) for _ in range(200)]
  assert {tuple(sorted(order)) for order in drawn} == {(0, 1, 2, 3)}
  assert len(set(drawn)) == 4 * 3 * 2 * 1


@given(runtimes=st.lists(st.integers(1, 9), min_size=1, max_size=40), size=st.integers(1, 50),
       skew=st.sampled_from([0.5, 3.0]), seed=st.integers(0, 99))
def test_a_skewed_draw_is_the_head_of_a_sort_with_or_without_the_order(runtimes, size, skew, seed):
  order = np.argsort(runtimes, kind="stable")
  draw = lambda *known: config_lists.sample_configs(
      np.array(runtimes), size, np.random.default_rng(seed), skew, *known)
  np.testing.assert_array_equal(draw(order), draw())
  if size < len(runtimes):
    rank = np.argsort(order) / (len(runtimes) - 1)
    keys = np.random.default_rng(seed).gumbel(size=len(runtimes)) - skew * rank
    np.testing.assert_array_equal(draw(), np.argsort(-keys)[:size])


# ---- reference_configs ---------------------------------------------------------------------------


def _reference(rows, size):
  return config_lists.reference_configs(graphs.row_digests(rows), size)


@given(count=st.integers(1, 12), size=st.integers(1, 14), data=st.data())
def test_a_reference_list_depends_on_content_alone(count, size, data):
  distinct = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
  order = data.draw(st.permutations(range(count)))
  repeats = data.draw(st.lists(st.integers(0, count - 1), max_size=6))
  rows = distinct[order + repeats]
  picked = distinct[_reference(distinct, size)]
  assert len(picked) == min(size, count) and len(np.unique(picked, axis=0)) == len(picked)
  np.testing.assert_array_equal(rows[_reference(rows, size)], picked)


def test_a_longer_reference_list_starts_with_the_shorter():
  rows = np.arange(60, dtype=np.int8).reshape(20, 1, 3)
  np.testing.assert_array_equal(
      _reference(rows, 7)[:4], _reference(rows, 4))


# ---- split_configs -------------------------------------------------------------------------------


@given(keys=st.lists(st.integers(0, 15), max_size=40), seed=st.integers(0, 9),
       train=st.floats(0.05, 0.9), valid=st.floats(0.02, 0.5))
def test_sides_are_disjoint_complete_and_keep_repeats_together(keys, seed, train, valid):
  if not keys:
    return
  sides = config_lists.split_configs(np.array(keys), train, valid, seed)
  assert sorted(np.concatenate(sides).tolist()) == list(range(len(keys)))
  held = [{keys[i] for i in side} for side in sides]
  assert not held[0] & held[1] and not held[0] & held[2] and not held[1] & held[2]
  for side in sides:
    assert side.tolist() == sorted(side.tolist())
  if len(set(keys)) >= 3:
    assert all(len(side) for side in sides)


def test_shares_are_of_the_distinct_configurations():
  keys = np.concatenate([np.arange(100), np.zeros(500, np.int64)])
  train, valid, test = config_lists.split_configs(keys, 0.6, 0.1, 0)
  assert [len(np.unique(keys[side])) for side in (train, valid, test)] == [60, 10, 30]


def test_the_division_depends_on_the_seed():
  keys = np.arange(30)
  split = lambda seed: [side.tolist() for side in config_lists.split_configs(keys, 0.5, 0.2, seed)]
  assert split(1) == split(1) and split(1) != split(2)


def test_the_names_of_the_keys_do_not_matter_beyond_their_order():
  keys = np.array([3, 1, 3, 2, 5, 4, 1])
  for one, other in zip(config_lists.split_configs(keys, 0.5, 0.25, 0),
                        config_lists.split_configs(keys * 1000 + 7, 0.5, 0.25, 0)):
    np.testing.assert_array_equal(one, other)
