"""Metrics of rankings with ties, compared with the mean over all orders of the tied."""

import itertools
import math

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.metrics import ties

# Few values, so that runtimes and scores tie.
_LISTS = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2)), min_size=1,
                  max_size=6)


def _orders(scores):
  """All orders of the configurations that the scores allow, each equally likely."""
  return [order for order in itertools.permutations(range(len(scores)))
          if (np.diff(np.asarray(scores)[list(order)]) <= 0).all()]


def _mean(function, scores):
  return np.mean([function(list(order)) for order in _orders(scores)])


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(_LISTS, st.integers(1, 7))
def test_all_metrics_are_means_over_all_orders(graph, k):
  times, others, scores = np.array(graph, np.float64).T
  best = times.min()
  assert metrics.topk_slowdown(times, scores, k) == pytest.approx(
      _mean(lambda order: times[order[:k]].min() / best - 1, scores), abs=1e-12)
  assert metrics.measured_until_good(times, scores) == pytest.approx(
      _mean(lambda order: 1 + (times[order] <= 1.02 * best).argmax(), scores))
  share = metrics.gain_share(times, scores, k, 4.0)
  if best >= 4.0:
    assert math.isnan(share)
  else:
    assert share == pytest.approx(_mean(
        lambda order: (4.0 - min(4.0, times[order[:k]].min())) / (4.0 - best), scores))

  def across(order):
    # argmin takes the first of equals in the order of the trials.
    return np.mean([
        judge[order[:k]][chooser[order[:k]].argmin()] / judge[chooser == chooser.min()].mean() - 1
        for chooser, judge in ((times, others), (others, times))])

  assert metrics.slowdown_across_passes([times, others], scores, k) == pytest.approx(
      _mean(across, scores), abs=1e-12)
  np.testing.assert_allclose(metrics.mean_ranks(scores), np.mean(
      [1 + np.argsort(order) for order in _orders(scores)], axis=0))


@hypothesis.given(_LISTS, st.randoms(use_true_random=False))
def test_no_metric_depends_on_the_order_of_storage(graph, random):
  shuffled = list(graph)
  random.shuffle(shuffled)
  values = []
  for rows in (graph, shuffled):
    times, others, scores = np.array(rows, np.float64).T
    values.append([
        metrics.opa(times, scores), metrics.kendall_tau(times, scores),
        metrics.kendall_tau(times, scores, "b"), metrics.measured_until_good(times, scores),
        *(function(times, scores, k) for k in (1, 2, 5) for function in (
            metrics.topk_slowdown, lambda *args: metrics.gain_share(*args, 3.0))),
        metrics.slowdown_across_passes([times, others], scores, 2)])
  np.testing.assert_allclose(*values, rtol=1e-12, atol=1e-12)


@hypothesis.given(_LISTS, st.integers(1, 9))
def test_a_curve_is_the_slowdown_of_each_k(graph, largest):
  times, _, scores = np.array(graph, np.float64).T
  curve = metrics.slowdown_curve(times, scores, largest)
  assert curve.tolist() == [metrics.topk_slowdown(times, scores, k)
                            for k in range(1, largest + 1)]
  assert (np.diff(curve) <= 0).all() and (curve >= 0).all()


@hypothesis.given(_LISTS)
def test_without_ties_the_order_is_that_of_the_scores(graph):
  times = np.array(graph, np.float64)[:, 0]
  scores = np.random.default_rng(len(graph)).permutation(len(graph)).astype(float)
  for k in (1, 2, 5):
    assert metrics.topk_slowdown(times, scores, k) == metrics.topk_slowdown(
        times, scores, k, ties="index")
    assert metrics.slowdown_across_passes([times, times], scores, k) == pytest.approx(
        metrics.topk_slowdown(times, scores, k))


def test_expectations_by_hand():
  # Two of the three tied ones are tried after the first: pairs (2, 3), (2, 4), (3, 4).
  times, scores = [5.0, 2.0, 3.0, 4.0, 1.0], [9.0, 1.0, 1.0, 1.0, 0.0]
  assert metrics.topk_slowdown(times, scores, 3) == pytest.approx((2 + 2 + 3) / 3 - 1)
  assert metrics.topk_slowdown(times, scores, 1) == 5 / 1 - 1
  assert metrics.topk_slowdown(times, scores, 4) == 2 / 1 - 1
  assert metrics.topk_slowdown(times, scores, 5) == 0.0
  # One good among three that tie is at place 2 on average, after one before them.
  assert metrics.measured_until_good([9.0, 9.0, 1.0, 9.0], [2.0, 1.0, 1.0, 1.0]) == 1 + 2
  assert metrics.measured_until_good([1.0, 1.02, 1.03], [0.0, 1.0, 2.0]) == 2
  assert metrics.measured_until_good([1.0, 1.02, 1.03], [0.0, 1.0, 2.0], within=0.0) == 3


def test_a_random_choice_of_many():
  count = 100_000
  times = np.arange(1.0, count + 1)
  # The expected least of j drawn from 1 ... m is (m + 1) / (j + 1).
  for k in (1, 10, 100):
    assert metrics.topk_slowdown(times, np.zeros(count), k) == pytest.approx(
        (count + 1) / (k + 1) - 1)
  assert metrics.topk_slowdown(times, np.zeros(count), count - 1) == pytest.approx(1 / count)


def test_the_share_of_the_attainable_gain_by_hand():
  times, scores = [8.0, 4.0, 10.0, 9.0], [1.0, 0.0, 3.0, 2.0]
  shares = [metrics.gain_share(times, scores, k, 9.0) for k in (1, 2, 3, 4)]
  # The first is slower than the default, which is kept; the second equals it.
  assert shares == [0.0, 0.0, (9 - 8) / (9 - 4), 1.0]
  assert math.isnan(metrics.gain_share([1.0, 2.0], [1.0, 0.0], 1, 1.019))
  assert metrics.gain_share([1.0, 2.0], [1.0, 0.0], 1, 1.02) == 1.0
  assert metrics.gain_share([1.0, 2.0], [1.0, 0.0], 1, 1.01, least=0.0) == 1.0


def test_a_choice_by_one_pass_is_judged_by_the_other():
  passes = np.array([[10.0, 20.0, 30.0], [21.0, 20.0, 19.0]])
  # The first pass prefers configuration 0 and the second configuration 2.
  assert metrics.slowdown_across_passes(passes, [2.0, 1.0, 0.0], 1) == pytest.approx(
      ((21 / 21 - 1) + (10 / 30 - 1)) / 2)
  assert metrics.slowdown_across_passes(passes, [0.0, 2.0, 1.0], 2) == pytest.approx(
      ((20 / 21 - 1) + (30 / 30 - 1)) / 2)
  assert metrics.slowdown_across_passes(passes, [0.0, 0.0, 1.0], 9) == 0.0


def test_bad_input():
  with pytest.raises(errors.DataError, match="1 pass of measurements; expected two or more"):
    metrics.slowdown_across_passes([[1.0, 2.0]], [1.0, 2.0], 1)
  with pytest.raises(errors.DataError, match="one for each runtime"):
    metrics.slowdown_across_passes([[1.0, 2.0], [1.0, 2.0]], [1.0], 1)
  with pytest.raises(errors.DataError, match="the default's runtime is 0"):
    metrics.gain_share([1.0, 2.0], [1.0, 2.0], 1, 0)
  with pytest.raises(errors.ConfigError, match="within=-1"):
    metrics.measured_until_good([1.0, 2.0], [1.0, 2.0], -1)
  for function in (lambda k: metrics.gain_share([1.0], [1.0], k, 2.0),
                   lambda k: metrics.slowdown_across_passes([[1.0], [1.0]], [1.0], k),
                   lambda k: metrics.slowdown_curve([1.0], [1.0], k)):
    with pytest.raises(errors.ConfigError, match="k=0"):
      function(0)


def test_probabilities_that_none_of_the_fastest_is_drawn():
  expected = [math.comb(7 - r, 3) / math.comb(7, 3) for r in range(7)]
  np.testing.assert_allclose(ties._none_of(7, 3), expected, rtol=1e-14)
