"""Ordered pair accuracy and Kendall's tau against brute force, SciPy and their invariants."""

import math
import time

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import scipy.stats

from tpugraphs_rank import errors
from tpugraphs_rank import metrics


def brute_force(runtimes, scores, min_gap=0.0):
  """(C, D, pairs of equal scores) by the definition, pair by pair."""
  concordant = discordant = tied = 0
  for y_i, s_i in zip(runtimes, scores):
    for y_j, s_j in zip(runtimes, scores):
      if (1.0 + min_gap) * y_i < y_j:
        concordant += s_i > s_j
        discordant += s_i < s_j
        tied += s_i == s_j
  return concordant, discordant, tied


# Few distinct values, so that ties in either list and in both are common.
@st.composite
def graphs(draw, min_size=1, max_size=40, distinct=8):
  count = draw(st.integers(min_size, max_size))
  runtimes = draw(st.lists(st.integers(1, distinct), min_size=count, max_size=count))
  scores = draw(st.lists(st.integers(-distinct, distinct), min_size=count, max_size=count))
  return np.array(runtimes, np.float64), np.array(scores, np.float64)


@st.composite
def untied_graphs(draw):
  count = draw(st.integers(2, 40))
  return (
      np.array(draw(st.permutations(range(1, count + 1))), np.float64),
      np.array(draw(st.permutations(range(count))), np.float64))


@hypothesis.given(graphs(), st.sampled_from([0.0, 0.05, 0.5, 1.0, 3.0]))
def test_opa_is_its_definition(graph, min_gap):
  concordant, discordant, tied = brute_force(*graph, min_gap)
  pairs = concordant + discordant + tied
  assert metrics.opa_pairs(graph[0], min_gap=min_gap) == pairs
  value = metrics.opa(*graph, min_gap=min_gap)
  if pairs:
    assert value == concordant / pairs
  else:
    assert math.isnan(value)


@hypothesis.given(graphs())
def test_competition_tau_is_its_definition(graph):
  concordant, discordant, tied = brute_force(*graph)
  value = metrics.kendall_tau(*graph)
  if concordant + discordant:
    assert value == (concordant - discordant) / (concordant + discordant)
  elif tied:
    assert value == 0.0 and metrics.is_degenerate(*graph)
  else:
    assert math.isnan(value)


@hypothesis.given(graphs(min_size=2))
def test_tau_b_equals_scipys(graph):
  runtimes, scores = graph
  value = metrics.kendall_tau(runtimes, scores, "b")
  if np.ptp(runtimes) == 0:
    assert math.isnan(value)
  elif np.ptp(scores) == 0:
    assert value == 0.0
  else:
    # SciPy has no notion of better: higher scores mean lower runtimes here.
    assert value == pytest.approx(scipy.stats.kendalltau(-runtimes, scores).statistic, abs=1e-12)


@hypothesis.given(graphs(min_size=2), st.sampled_from([1.0, 1.5, 3.0]))
def test_within_drops_the_slower_configurations(graph, within):
  runtimes, scores = graph
  kept = runtimes <= within * runtimes.min()
  for variant in metrics.TAU_VARIANTS:
    np.testing.assert_equal(
        metrics.kendall_tau(runtimes, scores, variant, within=within),
        metrics.kendall_tau(runtimes[kept], scores[kept], variant))


@hypothesis.given(untied_graphs())
def test_without_ties_tau_is_twice_opa_minus_one(graph):
  expected = 2 * metrics.opa(*graph) - 1
  assert metrics.kendall_tau(*graph) == pytest.approx(expected, abs=1e-12)
  assert metrics.kendall_tau(*graph, "b") == pytest.approx(expected, abs=1e-12)


@hypothesis.given(graphs(min_size=2), st.randoms(use_true_random=False))
def test_the_order_of_the_configurations_does_not_matter(graph, random):
  order = list(range(graph[0].size))
  random.shuffle(order)
  for metric in (metrics.opa, metrics.kendall_tau, lambda y, s: metrics.kendall_tau(y, s, "b")):
    np.testing.assert_equal(metric(graph[0][order], graph[1][order]), metric(*graph))


@hypothesis.given(graphs(min_size=2))
def test_only_the_order_of_scores_and_runtimes_matters(graph):
  runtimes, scores = graph
  for metric in (metrics.opa, metrics.kendall_tau, lambda y, s: metrics.kendall_tau(y, s, "b")):
    expected = metric(runtimes, scores)
    np.testing.assert_equal(metric(runtimes, np.arctan(scores) * 1e-3 + 7.0), expected)
    np.testing.assert_equal(metric(np.exp(runtimes), scores), expected)


@hypothesis.given(graphs(min_size=2))
def test_negated_scores_negate_tau(graph):
  runtimes, scores = graph
  for variant in metrics.TAU_VARIANTS:
    np.testing.assert_array_equal(  # Not assert_equal: it distinguishes 0.0 from -0.0.
        metrics.kendall_tau(runtimes, -scores, variant),
        -metrics.kendall_tau(runtimes, scores, variant))
  concordant, discordant, tied = brute_force(runtimes, scores)
  if concordant + discordant + tied:
    assert metrics.opa(runtimes, -scores) == discordant / (concordant + discordant + tied)


def test_a_perfect_and_a_reversed_ranking():
  runtimes = np.array([30, 10, 20])
  assert metrics.opa(runtimes, -runtimes) == 1.0
  assert metrics.opa(runtimes, runtimes) == 0.0
  for variant in metrics.TAU_VARIANTS:
    assert metrics.kendall_tau(runtimes, -runtimes, variant) == 1.0
    assert metrics.kendall_tau(runtimes, runtimes, variant) == -1.0


def test_equal_scores_are_wrong_for_opa_and_absent_for_tau():
  runtimes, scores = [1.0, 2.0, 3.0], [5.0, 5.0, 1.0]
  # Pairs (1, 2), (1, 3), (2, 3): tied, right, right.
  assert metrics.opa(runtimes, scores) == 2 / 3
  assert metrics.kendall_tau(runtimes, scores) == (2 - 0) / (2 + 0)
  assert metrics.kendall_tau(runtimes, scores, "b") == pytest.approx(
      (2 - 0) / math.sqrt((3 - 0) * (3 - 1)))


def test_min_gap_is_strict_and_relative_to_the_faster():
  # 1.5 is exactly 50 % above 1, and 2.25 exactly 50 % above 1.5, in floating point too.
  runtimes, scores = [1.0, 1.5, 2.25], [1.0, 3.0, 2.0]
  assert metrics.opa_pairs(runtimes, min_gap=0.5) == 1
  assert metrics.opa(runtimes, scores, min_gap=0.5) == 0.0  # (1, 2.25), and 1 < 2 in the scores.
  assert metrics.opa(runtimes, scores, min_gap=0.25) == 1 / 3


def test_constant_scores_are_degenerate():
  runtimes, scores = [1.0, 2.0, 3.0], [4.0, 4.0, 4.0]
  assert metrics.opa(runtimes, scores) == 0.0
  for variant in metrics.TAU_VARIANTS:
    assert metrics.kendall_tau(runtimes, scores, variant) == 0.0
  assert metrics.is_degenerate(runtimes, scores)
  assert not metrics.is_degenerate(runtimes, [4.0, 4.0, 5.0])
  assert metrics.is_degenerate(runtimes, [4.0, 4.0, 5.0], within=2.0)


@pytest.mark.parametrize("runtimes", [[7.0], [7.0, 7.0, 7.0]])
def test_nothing_to_rank_is_nan(runtimes):
  scores = np.arange(len(runtimes))
  assert metrics.opa_pairs(runtimes) == 0
  assert math.isnan(metrics.opa(runtimes, scores))
  assert math.isnan(metrics.kendall_tau(runtimes, scores))
  assert math.isnan(metrics.kendall_tau(runtimes, scores, "b"))
  assert not metrics.is_degenerate(runtimes, np.zeros(len(runtimes)))


@pytest.mark.parametrize("runtimes,scores,message", [
    ([1.0, 2.0], [1.0], r"scores have shape \(1,\); expected \(2,\)"),
    ([[1.0, 2.0]], [[1.0, 2.0]], r"runtimes have shape \(1, 2\)"),
    ([], [], "at least one configuration"),
    ([1.0, 2.0], [1.0, math.nan], "scores hold 1 values that are not finite, the first at index 1"),
    ([1.0, 2.0], [math.inf, 1.0], "not finite"),
    ([0.0, 0.0], [1.0, 2.0], "the released test splits have none"),
    ([1.0, -2.0], [1.0, 2.0], "runtimes hold 1 of 2 values that are not positive"),
    ([1.0, math.nan], [1.0, 2.0], "not positive and finite"),
    (["fast", "slow"], [1.0, 2.0], "runtimes are not numbers"),
])
def test_bad_input_is_a_data_error(runtimes, scores, message):
  for metric in (
      metrics.opa, metrics.kendall_tau, metrics.is_degenerate, metrics.layout_competition_score,
      metrics.tile_competition_score, lambda y, s: metrics.topk_slowdown(y, s, 1)):
    with pytest.raises(errors.DataError, match=message):
      metric(runtimes, scores)


def test_bad_options():
  with pytest.raises(errors.UnknownNameError, match="competition, b"):
    metrics.kendall_tau([1, 2], [1, 2], "c")
  for gap in (-0.1, math.nan, math.inf):
    with pytest.raises(errors.ConfigError, match="min_gap"):
      metrics.opa([1, 2], [1, 2], min_gap=gap)
  for within in (0.5, math.nan):
    with pytest.raises(errors.ConfigError, match="within"):
      metrics.kendall_tau([1, 2], [1, 2], within=within)


@pytest.mark.parametrize("distinct_scores", [50, 10**9])
def test_a_hundred_thousand_configurations_take_less_than_half_a_second(distinct_scores):
  rng = np.random.default_rng(0)
  runtimes = rng.random(100_000) + 1.0
  scores = rng.integers(0, distinct_scores, 100_000) - 1e8 * runtimes
  for metric in (
      lambda: metrics.kendall_tau(runtimes, scores),
      lambda: metrics.kendall_tau(runtimes, scores, "b"),
      lambda: metrics.opa(runtimes, scores, min_gap=0.05)):
    seconds = []
    for _ in range(3):  # The fastest of three: other processes share the machine.
      start = time.perf_counter()
      metric()
      seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5
  assert metrics.kendall_tau(runtimes, scores, "b") == pytest.approx(
      scipy.stats.kendalltau(-runtimes, scores).statistic, abs=1e-12)


def test_the_pair_weighted_mean_is_tensorflow_rankings():
  tf = pytest.importorskip("tensorflow")
  tfr = pytest.importorskip("tensorflow_ranking")
  rng = np.random.default_rng(1)
  lists = [
      (rng.integers(1, 6, count).astype(np.float64), rng.integers(0, 6, count).astype(np.float64))
      for count in (3, 7, 12)]
  # Its labels are relevances, and negative ones would be masked: 10 - runtime is fastest first.
  labels = tf.ragged.constant([list(10.0 - runtimes) for runtimes, _ in lists])
  predictions = tf.ragged.constant([list(scores) for _, scores in lists])
  metric = tfr.keras.metrics.OPAMetric(ragged=True)
  metric.update_state(labels, predictions)
  ours = metrics.mean_over_graphs(
      [metrics.opa(*graph) for graph in lists], [metrics.opa_pairs(graph[0]) for graph in lists])
  assert ours.mean == pytest.approx(float(metric.result()), abs=1e-6)
