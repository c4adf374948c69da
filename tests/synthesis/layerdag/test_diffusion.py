"""The diffusion's closed forms, compared with sums over all outcomes."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
import tensorflow as tf

from tpugraphs_rank.synthesis.layerdag import diffusion


def _transition(ratio, marginal):
  """(K, K): row i is q(x_t | x_s = i)."""
  return ratio * np.eye(len(marginal)) + (1 - ratio) * np.tile(marginal, [len(marginal), 1])


@st.composite
def _cases(draw):
  count = draw(st.integers(2, 5))
  weights = draw(st.lists(st.floats(0.05, 1.0), min_size=count, max_size=count))
  kept = sorted(draw(st.tuples(st.floats(0.02, 0.98), st.floats(0.02, 0.98))), reverse=True)
  return np.array(weights) / sum(weights), kept[0], kept[1]


def test_the_schedule_falls_from_one_to_about_zero():
  kept = diffusion.cosine_schedule(10)
  assert kept[0] == 1.0 and kept[-1] == pytest.approx(1e-5) and (np.diff(kept) < 0).all()
  # cos^2 of (t / T + s) / (1 + s) of a quarter turn, relative to t = 0.
  share = np.cos((0.5 + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
  assert kept[5] == pytest.approx(share)


def test_times_start_at_the_last_and_end_at_zero():
  assert diffusion.times(10, 10) == list(range(10, -1, -1))
  assert diffusion.times(10, 3) == [10, 7, 3, 0]
  assert diffusion.times(4, 1) == [4, 0]


@given(_cases())
def test_noise_over_two_spans_is_noise_over_both(case):
  marginal, before, kept = case
  product = _transition(before, marginal) @ _transition(kept / before, marginal)
  np.testing.assert_allclose(product, _transition(kept, marginal), atol=1e-12)
  actual = diffusion.noised(np.arange(len(marginal)), kept, tf.constant(marginal))
  np.testing.assert_allclose(actual, _transition(kept, marginal), atol=1e-12)


@given(_cases())
def test_one_hot_rows_give_the_posterior(case):
  marginal, before, kept = case
  count = len(marginal)
  span = _transition(kept / before, marginal)
  for clean, noisy in itertools.product(range(count), range(count)):
    joint = _transition(before, marginal)[clean] * span[:, noisy]  # q(x_s | x_0) q(x_t | x_s)
    actual = diffusion.reverse(
        tf.one_hot([clean], count, dtype=tf.float64), [noisy], before, kept, marginal)[0]
    np.testing.assert_allclose(actual, joint / joint.sum(), atol=1e-12)


@given(_cases(), st.integers(0, 2 ** 31 - 1))
def test_the_reverse_step_sums_posteriors_over_clean_values(case, seed):
  marginal, before, kept = case
  count = len(marginal)
  clean = np.random.default_rng(seed).dirichlet(np.ones(count), size=count)
  noisy = np.arange(count)
  expected = np.zeros([count, count])
  for value in range(count):
    posterior = diffusion.reverse(
        tf.one_hot([value] * count, count, dtype=tf.float64), noisy, before, kept, marginal)
    expected += clean[:, value, None] * posterior
  actual = diffusion.reverse(tf.constant(clean), noisy, before, kept, marginal)
  np.testing.assert_allclose(actual, expected, atol=1e-12)
  # One marginal per row, all equal here.
  rows = diffusion.reverse(tf.constant(clean), noisy, np.full(count, before), np.full(count, kept),
                           np.tile(marginal, [count, 1]))
  np.testing.assert_allclose(rows, expected, atol=1e-12)


def test_reversing_with_true_posteriors_recovers_the_data():
  # p(x_0 | x_t) of a known distribution: the chain of reverse steps must end in that distribution,
  # with all spans as with a few.
  marginal, data = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.7, 0.2])
  schedule = diffusion.cosine_schedule(6)
  for visited in (6, 2):
    times = diffusion.times(6, visited)
    state = data @ _transition(schedule[6], marginal)
    for late, early in zip(times, times[1:]):
      joint = data[:, None] * _transition(schedule[late], marginal)
      clean = (joint / joint.sum(axis=0)).T
      step = diffusion.reverse(tf.constant(clean), np.arange(3), schedule[early], schedule[late],
                               marginal)
      state = state @ step.numpy()
    np.testing.assert_allclose(state, data, atol=1e-9)


def test_the_bound_of_a_distribution_is_its_entropy_for_the_true_posteriors():
  # Each KL term then averages to the entropy that its span adds: the bound is tight except for the
  # remainder at T, KL(q(x_T | x_0) || m).
  marginal, data = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.7, 0.2])
  schedule = diffusion.cosine_schedule(5)
  total = 0.0
  for late in range(1, 6):
    joint = data[:, None] * _transition(schedule[late], marginal)
    clean = (joint / joint.sum(axis=0)).T
    for value, noisy in itertools.product(range(3), range(3)):
      total += joint[value, noisy] * float(diffusion.bound(
          [value], [noisy], clean[None, noisy], schedule[late - 1], schedule[late], marginal)[0])
  assert total >= -(data * np.log(data)).sum() - 1e-9  # A bound of the mean -log p.
  # Directly: the sum over spans of the lost mutual information, I(x_0; x_s) - I(x_0; x_t).
  information = []
  for kept in schedule:
    joint = data[:, None] * _transition(kept, marginal)
    information.append((joint * np.log(np.maximum(joint, 1e-300) / np.outer(
        data, joint.sum(axis=0)))).sum())
  entropy = -(data * np.log(data)).sum()
  assert information[0] == pytest.approx(entropy)
  assert total >= information[0] - information[-1] - 1e-9


def test_draws_follow_the_probabilities_and_never_have_probability_zero():
  rows = np.tile([0.2, 0.0, 0.8], [20_000, 1]).astype(np.float32)
  drawn = diffusion.draw(rows, np.array([1, 2], np.int32)).numpy()
  share = np.bincount(drawn, minlength=3) / len(drawn)
  assert share[1] == 0 and share[0] == pytest.approx(0.2, abs=0.015)
  again = diffusion.draw(rows, np.array([1, 2], np.int32)).numpy()
  np.testing.assert_array_equal(drawn, again)
  assert (drawn != diffusion.draw(rows, np.array([1, 3], np.int32)).numpy()).any()
