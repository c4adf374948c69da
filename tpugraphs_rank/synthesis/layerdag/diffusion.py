"""Discrete diffusion whose noise is the marginal distribution of the categories.

At time t a category is kept with probability a(t), and otherwise resampled from the marginal m:

  q(x_t | x_0) = a(t) [x_t = x_0] + (1 - a(t)) m(x_t),   a(0) = 1, a falls to about 0 at t = T.

A category survives two spans only if it survives each, so for s < t also q(x_t | x_s) =
r [x_t = x_s] + (1 - r) m(x_t) with r = a(t) / a(s). Sampling may therefore skip times, and each
span is exact. Source: the marginal noise of DiGress (arXiv 2209.14734, section 4.1), which LayerDAG
(arXiv 2411.02322, section 3.3) uses.

Shapes: M variables of K categories each; `marginal` is [K], or [M, K] for one per variable.
"""

import math

import numpy as np
import tensorflow as tf

_EPSILON = 1e-30  # Below any probability that occurs, above the smallest float32.


def cosine_schedule(steps: int) -> np.ndarray:
  """a(t) for t = 0..steps, (steps + 1,) float64: cos^2 of a quarter turn, shifted by 0.008.

  Source: arXiv 2102.09672, equation 17. The last value is about 1e-5 instead of 0.
  """
  times = (np.arange(steps + 1) / steps + 0.008) / 1.008
  values = np.cos(0.5 * math.pi * times) ** 2
  return np.maximum(values / values[0], 1e-5)


def times(steps: int, spans: int) -> list[int]:
  """Descending times from `steps` to 0 that divide the interval into evenly spaced spans."""
  return sorted({round(steps * index / spans) for index in range(spans + 1)}, reverse=True)


def noised(x: tf.Tensor, kept: tf.Tensor, marginal: tf.Tensor) -> tf.Tensor:
  """q(x_t | x_0), [M, K].

  Args:
    x: [M] categories at time 0.
    kept: [M] or scalar, a(t).
    marginal: [K] or [M, K].
  """
  marginal = tf.convert_to_tensor(marginal)
  kept = _column(kept, marginal.dtype)
  return kept * tf.one_hot(x, marginal.shape[-1], dtype=marginal.dtype) + (1.0 - kept) * marginal


def reverse(clean: tf.Tensor, x: tf.Tensor, kept_before: tf.Tensor, kept: tf.Tensor,
            marginal: tf.Tensor) -> tf.Tensor:
  """p(x_s | x_t) = sum over k of q(x_s | x_t, x_0 = k) p(x_0 = k | x_t), [M, K].

  By Bayes q(j | i, k) = q(i | j) q_s(j | k) / q_t(i | k). With w(k) = p(k) / q_t(i | k) the sum
  over k is q(i | j) (a(s) w(j) + (1 - a(s)) m(j) sum w): it takes K numbers instead of K^2.

  Args:
    clean: [M, K] p(x_0 | x_t); a one-hot row gives the posterior q(x_s | x_t, x_0).
    x: [M] categories at time t.
    kept_before: [M] or scalar, a(s).
    kept: [M] or scalar, a(t), s < t.
    marginal: [K] or [M, K].
  """
  marginal = tf.cast(marginal, clean.dtype)
  kept_before, kept = _column(kept_before, clean.dtype), _column(kept, clean.dtype)
  here = tf.one_hot(x, clean.shape[-1], dtype=clean.dtype)
  resampled = tf.reduce_sum(here * marginal, axis=-1, keepdims=True)  # m(i)
  weights = clean / tf.maximum(kept * here + (1.0 - kept) * resampled, _EPSILON)
  before = (kept_before * weights
            + (1.0 - kept_before) * marginal * tf.reduce_sum(weights, axis=-1, keepdims=True))
  span = kept / kept_before
  joint = (span * here + (1.0 - span) * resampled) * before
  return joint / tf.maximum(tf.reduce_sum(joint, axis=-1, keepdims=True), _EPSILON)


def bound(x: tf.Tensor, noisy: tf.Tensor, clean: tf.Tensor, kept_before: tf.Tensor,
          kept: tf.Tensor, marginal: tf.Tensor) -> tf.Tensor:
  """[M] contribution of one span to the upper bound of -log p(x_0), in nats, given x_t.

  KL(q(x_s | x_t, x_0) || p(x_s | x_t)); for s = 0 this is -log p(x_0 | x_t). The sum over all
  spans, each in expectation over x_t, plus KL(q(x_T | x_0) || m) is an upper bound of -log p(x_0).

  Args:
    x: [M] categories at time 0.
    noisy: [M] categories at time t.
    clean: [M, K] p(x_0 | x_t).
    kept_before: [M] or scalar, a(s).
    kept: [M] or scalar, a(t).
    marginal: [K] or [M, K].
  """
  truth = reverse(tf.one_hot(x, clean.shape[-1], dtype=clean.dtype), noisy, kept_before, kept,
                  marginal)
  predicted = reverse(clean, noisy, kept_before, kept, marginal)
  return tf.reduce_sum(truth * (tf.math.log(tf.maximum(truth, _EPSILON))
                                - tf.math.log(tf.maximum(predicted, _EPSILON))), axis=-1)


def draw(probabilities: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """[M] int32: samples one category from each row of [M, K].

  Args:
    probabilities: [M, K], not necessarily normalized; a category of probability 0 is never sampled.
    seed: (2,) int32.
  """
  uniform = tf.random.stateless_uniform(
      tf.shape(probabilities), seed, minval=1e-7, maxval=1.0 - 1e-7, dtype=tf.float32)
  noise = -tf.math.log(-tf.math.log(uniform))
  logits = tf.math.log(tf.maximum(tf.cast(probabilities, tf.float32), _EPSILON))
  return tf.argmax(logits + noise, axis=-1, output_type=tf.int32)


def _column(kept: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
  """The factor as a column that broadcasts over categories."""
  # Convert a Python number directly, not through float32, to keep float64 precision.
  kept = tf.cast(kept, dtype) if tf.is_tensor(kept) else tf.convert_to_tensor(kept, dtype)
  return kept if kept.shape.rank == 0 else kept[:, None]
