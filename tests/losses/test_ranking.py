"""Losses over lists: formulas, no influence of padding or of order, gradients that learn."""

import functools
import math

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_ranking as tfr

from tpugraphs_rank import losses
from tpugraphs_rank.data import labels as labels_lib

NAMES = sorted(losses.names())


# ---- the formulas, one list without padding ------------------------------------------------------


def list_mle(runtimes, scores):
  """sum_i [log sum_{j >= i} exp(s_j) - s_i] / c, from fast to slow."""
  s = [scores[i] for i in np.argsort(runtimes)]
  shift = max(s)
  return sum(math.log(sum(math.exp(s_j - shift) for s_j in s[i:])) + shift - s_i
             for i, s_i in enumerate(s)) / len(s)


def _pairs(runtimes, scores, of_gap):
  gaps = [scores[i] - scores[j] for i, y_i in enumerate(runtimes)
          for j, y_j in enumerate(runtimes) if y_i < y_j]
  return sum(map(of_gap, gaps)) / len(gaps)


def pairwise_logistic(runtimes, scores):
  """Mean of log(1 + exp(s_j - s_i)) over the pairs in which i is faster."""
  return _pairs(runtimes, scores, lambda gap: math.log1p(math.exp(-abs(gap))) + max(-gap, 0))


def pairwise_hinge(runtimes, scores):
  """Mean of max(0, 1 + s_j - s_i) over the pairs in which i is faster."""
  return _pairs(runtimes, scores, lambda gap: max(0, 1 - gap))


def _relevance(runtimes):
  distinct = sorted(set(runtimes), reverse=True)
  return [distinct.index(y) / (len(distinct) - 1) for y in runtimes]


def softmax(runtimes, scores):
  """Cross entropy of softmax(s) against the relevance, scaled to sum to 1."""
  relevance, shift = _relevance(runtimes), max(scores)
  total = math.log(sum(math.exp(s - shift) for s in scores)) + shift
  return -sum(r / sum(relevance) * (s - total) for r, s in zip(relevance, scores))


def approx_ndcg(runtimes, scores):
  """-NDCG with gains 2^(4 relevance) - 1 and ranks 1 + sum_j sigmoid((s_j - s_i) / 0.1), j != i."""
  gains = [2 ** (4 * r) - 1 for r in _relevance(runtimes)]
  sigmoid = lambda x: 1 / (1 + math.exp(-x)) if x > -700 else 0.0
  ranks = [1 + sum(sigmoid((s_j - s_i) / 0.1) for j, s_j in enumerate(scores) if j != i)
           for i, s_i in enumerate(scores)]
  dcg = sum(gain / math.log2(1 + rank) for gain, rank in zip(gains, ranks))
  ideal = sum(gain / math.log2(2 + i) for i, gain in enumerate(sorted(gains, reverse=True)))
  return -dcg / ideal


def mse(runtimes, scores):
  """Mean of (s - mean(s) - t)^2, t being the standardised -log(runtime)."""
  logs = -np.log(runtimes)
  target = (logs - logs.mean()) / logs.std()
  return float(np.mean((np.array(scores) - np.mean(scores) - target) ** 2))


FORMULAS = {"list_mle": list_mle, "pairwise_logistic": pairwise_logistic,
            "pairwise_hinge": pairwise_hinge, "softmax": softmax, "approx_ndcg": approx_ndcg,
            "mse": mse}


def _step(lists, width=None, junk=0.0):
  """Labels and mask of lists of runtimes, padded with `junk` to a width."""
  width = width or max(map(len, lists))
  mask = np.array([np.arange(width) < len(runtimes) for runtimes in lists])
  step = {"mask": tf.constant(mask)}
  for key in ("relevance", "order", "target"):
    values = np.full(mask.shape, junk, np.float32)
    for row, runtimes in enumerate(lists):
      values[row, :len(runtimes)] = getattr(labels_lib.make_labels(np.array(runtimes)), key)
    step[key] = tf.constant(values)
  return step


def _padded(lists, width, junk=0.0):
  return np.array([list(values) + [junk] * (width - len(values)) for values in lists], np.float32)


@functools.cache
def _traced(name):
  """Loss and gradient as one function for all shapes: operation by operation takes far longer."""
  def both(step, scores):
    with tf.GradientTape() as tape:
      tape.watch(scores)
      loss = losses.get(name)(step, scores)
    return loss, tape.gradient(loss, scores)

  floats, mask = tf.TensorSpec([None, None]), tf.TensorSpec([None, None], tf.bool)
  return tf.function(both, autograph=False, input_signature=[
      {"mask": mask, "relevance": floats, "order": floats, "target": floats}, floats])


@pytest.fixture(scope="module", autouse=True)
def _forget_the_traced():
  yield
  _traced.cache_clear()  # TensorFlow complains about functions that outlive it.


def _loss_and_gradient(name, step, scores):
  return [array.numpy() for array in _traced(name)(step, tf.constant(scores, tf.float32))]


# Distinct runtimes, since ListMLE draws the order of ties.
RUNTIMES = st.lists(st.integers(1, 1000), min_size=2, max_size=9, unique=True)
# Only differences of scores matter, so the scores of a list may have any offset.
OFFSETS = st.sampled_from([0.0, 40.0, -40.0, 500.0, -500.0])


@st.composite
def lists(draw, count=3):
  """Runtimes and scores of a few lists of different lengths."""
  runtimes = [draw(RUNTIMES) for _ in range(count)]
  scores = [[offset + draw(st.integers(-12, 12)) / 4 for _ in row]
            for row in runtimes for offset in [draw(OFFSETS)]]
  return runtimes, scores


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15)
@given(drawn=lists(), extra=st.integers(0, 5), junk=st.sampled_from([0.0, 3.0, 1e4, -1e4]))
def test_the_formula_with_and_without_padding(name, drawn, extra, junk):
  runtimes, scores = drawn
  width = max(map(len, runtimes)) + extra
  actual, gradient = _loss_and_gradient(
      name, _step(runtimes, width, abs(junk)), _padded(scores, width, junk))
  expected = [FORMULAS[name](y, s) for y, s in zip(runtimes, scores)]
  # Float32 scores of about 500 have lost three digits before the loss sees them.
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
  for row, y in enumerate(runtimes):
    assert (gradient[row, len(y):] == 0).all()
    alone, alone_gradient = _loss_and_gradient(name, _step([y]), _padded([scores[row]], len(y)))
    np.testing.assert_allclose(actual[row], alone[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradient[row, :len(y)], alone_gradient[0], rtol=1e-3, atol=1e-5)


def test_every_loss_has_a_formula():
  assert set(FORMULAS) == set(losses.names())


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15)
@given(drawn=lists(1), data=st.data())
def test_the_order_of_a_list_does_not_matter(name, drawn, data):
  (runtimes,), (scores,) = drawn
  order = data.draw(st.permutations(range(len(runtimes))))
  loss, gradient = _loss_and_gradient(name, _step([runtimes]), [scores])
  moved, moved_gradient = _loss_and_gradient(
      name, _step([[runtimes[i] for i in order]]), [[scores[i] for i in order]])
  np.testing.assert_allclose(moved, loss, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(moved_gradient[0], gradient[0, list(order)], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_and_the_fastest_rises(name):
  runtimes = [30.0, 10.0, 20.0, 50.0, 40.0]
  # Not all equal: there TensorFlow Ranking's pairwise logistic loss has the gradient 0.
  scores = 1e-3 * np.array([[3.0, 1.0, 4.0, 0.0, 2.0, 0.0, 0.0]])
  loss, gradient = _loss_and_gradient(name, _step([runtimes], 7), scores)
  assert np.isfinite(loss).all() and (gradient[0, :5] != 0).any()
  stepped = -gradient[0, :5]
  assert np.argmax(stepped) == np.argmin(runtimes) and stepped[1] > 0
  again, _ = _loss_and_gradient(name, _step([runtimes], 7), scores - 0.01 * gradient)
  assert again[0] < loss[0]


@pytest.mark.parametrize("name", NAMES)
def test_descent_learns_the_order(name):
  runtimes = [30.0, 10.0, 20.0, 50.0, 40.0]
  scores = 1e-3 * np.array([[3.0, 1.0, 4.0, 0.0, 2.0]])
  for _ in range(300):
    scores -= 0.3 * _loss_and_gradient(name, _step([runtimes]), scores)[1]
  # NDCG mostly rewards the top of the list.
  top = 1 if name == "approx_ndcg" else 5
  assert np.argsort(-scores[0])[:top].tolist() == np.argsort(runtimes)[:top].tolist()


@pytest.mark.parametrize("spread", [5.0, 60.0, 200.0, 3000.0])
@pytest.mark.parametrize("name", NAMES)
def test_confident_scores_have_finite_losses_and_gradients(name, spread):
  runtimes = [float(y) for y in range(1, 9)]
  for sign in (1, -1):
    scores = _padded([np.linspace(sign * spread, -sign * spread, 8) / 2], 10)
    loss, gradient = _loss_and_gradient(name, _step([runtimes], 10), scores)
    assert np.isfinite(loss).all() and np.isfinite(gradient).all()
    if sign < 0 and name != "approx_ndcg":  # All wrong: sigmoids so far out are flat.
      assert gradient[0, 0] < 0 < gradient[0, 7]  # The fastest would rise, the slowest sink.


def test_scores_far_apart_are_scaled_in_the_likelihood():
  runtimes, scores = [3.0, 1.0, 2.0], [0.0, 500.0, 100.0]
  actual, gradient = _loss_and_gradient("list_mle", _step([runtimes], 5), _padded([scores], 5))
  near, near_gradient = _loss_and_gradient(
      "list_mle", _step([runtimes], 5), _padded([[0.0, 50.0, 10.0]], 5))
  assert actual[0] == pytest.approx(list_mle(runtimes, [0.0, 50.0, 10.0]), abs=1e-6)
  assert actual[0] == pytest.approx(near[0], abs=1e-6)
  np.testing.assert_allclose(gradient, near_gradient * 50 / 500, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_one_configuration_or_equal_runtimes_do_no_harm(name):
  for runtimes in ([7.0], [7.0, 7.0, 7.0]):
    loss, gradient = _loss_and_gradient(
        name, _step([runtimes], 4), _padded([[0.5, -1.0, 2.0][:len(runtimes)]], 4))
    assert np.isfinite(loss).all() and np.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_randomness_within_tensorflow_ranking_changes_nothing(name):
  # It shuffles ties in every call; the only ties are among padding.
  rng = np.random.default_rng(0)
  runtimes = [rng.permutation(n).astype(float) + 1 for n in (9, 4, 2)]
  scores = rng.normal(size=[3, 12]).astype(np.float32)
  actual = []
  for seed in range(4):
    tf.random.set_seed(seed)
    actual.append(_loss_and_gradient(name, _step(runtimes, 12), scores))
  for loss, gradient in actual[1:]:
    np.testing.assert_array_equal(loss, actual[0][0])
    np.testing.assert_array_equal(gradient, actual[0][1])


# ---- why labels are never negative ---------------------------------------------------------------


@pytest.mark.parametrize("implementation", [
    tfr.losses_impl.ListMLELoss(name=None), tfr.losses_impl.PairwiseLogisticLoss(name=None)])
def test_negative_labels_would_silently_learn_nothing(implementation):
  runtimes = np.array([[3.0, 1.0, 2.0]], np.float32)
  gradients = {}
  for key, labels in (("negative", -runtimes),
                      ("ours", labels_lib.make_labels(runtimes[0]).order[None])):
    scores = tf.constant([[0.1, 0.2, 0.3]])
    with tf.GradientTape() as tape:
      tape.watch(scores)
      loss = implementation.compute_per_list(tf.constant(labels), scores, None)[0]
    gradients[key] = tape.gradient(loss, scores).numpy()
  assert (gradients["negative"] == 0).all()
  assert (gradients["ours"] != 0).any() and np.argmin(gradients["ours"]) == 1


# ---- sums of losses ------------------------------------------------------------------------------


def test_the_combined_loss_is_the_weighted_sum():
  step = _step([[3.0, 1.0, 2.0], [5.0, 9.0]])
  scores = tf.constant([[0.1, 0.2, 0.3], [1.0, 0.0, 7.0]])
  combined = losses.combined_loss(["list_mle", "mse"], [2.0, 0.5])(step, scores)
  np.testing.assert_allclose(
      combined, 2.0 * losses.get("list_mle")(step, scores)
      + 0.5 * losses.get("mse")(step, scores), rtol=1e-6)
