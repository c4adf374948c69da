"""The built-in losses; the one module that imports TensorFlow Ranking.

Each loss takes a step (see `data.pipeline`: labels [B, C] and the mask of the real configurations)
and scores [B, C], and returns the loss of each list, (B,). A higher score means a faster
configuration. The labels come from `tpugraphs_rank.data.labels` and are never negative, since
TensorFlow Ranking silently treats negative labels as padding.
"""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
import tensorflow_ranking as tfr

Loss = Callable[[Mapping[str, Any], tf.Tensor], tf.Tensor]

_LIST_MLE_SPAN = 50.0
# Gains are 2^label - 1. Relevance in 0..1 times this gives gains in 0..15.
_NDCG_SCALE = 4.0
# Of the sigmoids that approximate ranks: the default of TensorFlow Ranking.
_NDCG_TEMPERATURE = 0.1


def _per_list(implementation: Any, key: str, scale: float = 1.0, temperature: float = 1.0) -> Loss:
  def loss(step: Mapping[str, Any], scores: tf.Tensor) -> tf.Tensor:
    # Padding gets the score log(1e-10), which is low only compared with scores around 0. Rankings
    # do not depend on the offset of a list's scores, so all lists are shifted to start at 0.
    scores -= tf.stop_gradient(_range(step, scores)[0])
    # Divided here, because most implementations ignore their temperature in this call.
    return implementation.compute_per_list(
        step[key] * scale, scores / temperature, weights=None, mask=step["mask"])[0]
  return loss


def _range(step: Mapping[str, Any], scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """The minimum and maximum score of each list's real configurations, both (B, 1)."""
  mask, dtype = step["mask"], scores.dtype
  return (tf.reduce_min(tf.where(mask, scores, dtype.max), axis=1, keepdims=True),
          tf.reduce_max(tf.where(mask, scores, dtype.min), axis=1, keepdims=True))


def list_mle(step: Mapping[str, Any], scores: tf.Tensor) -> tf.Tensor:
  """Negative log likelihood of the true order under the Plackett-Luce model, per configuration.

  With the configurations sorted from fast to slow, sum_i [log sum_{j >= i} exp(s_j) - s_i] / c
  (Xia et al., "Listwise approach to learning to rank", ICML 2008). The sum is divided by the length
  c, so that lists of all lengths have the same weight. If the scores of a list span more than 50,
  they are first scaled to span 50.
  """
  # TensorFlow Ranking takes the logarithm of sums of exp(s_j - max s). These are 0 in float32 where
  # a confident model spreads a long list over a range of about 90.
  lowest, highest = _range(step, scores)
  span = tf.stop_gradient(highest - lowest)
  scores *= _LIST_MLE_SPAN / tf.maximum(span, _LIST_MLE_SPAN)
  # Padding adds a constant to the likelihood, the log of the factorial of the padded entries. It
  # has no gradient but would make the losses of different batches incomparable.
  count = tf.reduce_sum(tf.cast(step["mask"], scores.dtype), axis=1)
  padded = tf.cast(tf.shape(scores)[1], scores.dtype) - count
  likelihood = _LIST_MLE(step, scores) - tf.math.lgamma(padded + 1.0)
  return likelihood / tf.maximum(count, 1.0)


def mean_squared_error(step: Mapping[str, Any], scores: tf.Tensor) -> tf.Tensor:
  """Mean of (s - t)^2 over a list, with t the standardised -log(runtime) and s the centred score.

  Scores are centred, because a ranking does not depend on their offset, and the other losses ignore
  it.
  """
  mask = tf.cast(step["mask"], scores.dtype)
  count = tf.maximum(tf.reduce_sum(mask, axis=1, keepdims=True), 1.0)
  centred = scores - tf.reduce_sum(scores * mask, axis=1, keepdims=True) / count
  return tf.reduce_sum(tf.square(centred - step["target"]) * mask, axis=1) / count[:, 0]


_LIST_MLE = _per_list(tfr.losses_impl.ListMLELoss(name=None), "order")

pairwise_logistic = _per_list(tfr.losses_impl.PairwiseLogisticLoss(name=None), "relevance")
pairwise_hinge = _per_list(tfr.losses_impl.PairwiseHingeLoss(name=None), "relevance")
softmax = _per_list(tfr.losses_impl.SoftmaxLoss(name=None), "relevance")
approx_ndcg = _per_list(tfr.losses_impl.ApproxNDCGLoss(name=None), "relevance", _NDCG_SCALE,
                        _NDCG_TEMPERATURE)
