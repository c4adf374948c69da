"""Losses over lists of configurations; the one module that imports TensorFlow Ranking.

Each takes labels and scores [B, C] and a mask of the real configurations, and returns the loss of
each list, (B,). A higher score means a faster configuration. Labels are those of
`tpugraphs_rank.data.labels`: never negative, since TensorFlow Ranking silently takes negative ones
for padding.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_ranking as tfr

Loss = Callable[[Mapping[str, Any], tf.Tensor], tf.Tensor]

_LIST_MLE_SPAN = 50.0
# Gains are 2^label - 1, so that relevance times this spreads them over 0..15.
_NDCG_SCALE = 4.0
# Of the sigmoids that stand for ranks: TensorFlow Ranking's own default.
_NDCG_TEMPERATURE = 0.1


def _per_list(implementation: Any, key: str, scale: float = 1.0, temperature: float = 1.0) -> Loss:
  def loss(step: Mapping[str, Any], scores: tf.Tensor) -> tf.Tensor:
    # Padding gets the score log(1e-10), which is low only beside scores about 0. Rankings do not
    # depend on where a list's scores lie, so all lists are moved to begin at 0.
    scores -= tf.stop_gradient(_range(step, scores)[0])
    # Here, because most of the implementations take no notice of their temperature in this call.
    return implementation.compute_per_list(
        step[key] * scale, scores / temperature, weights=None, mask=step["mask"])[0]
  return loss


def _range(step: Mapping[str, Any], scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """Least and greatest score of each list's real configurations, both (B, 1)."""
  mask, dtype = step["mask"], scores.dtype
  return (tf.reduce_min(tf.where(mask, scores, dtype.max), axis=1, keepdims=True),
          tf.reduce_max(tf.where(mask, scores, dtype.min), axis=1, keepdims=True))


def list_mle(step: Mapping[str, Any], scores: tf.Tensor) -> tf.Tensor:
  """Negative log likelihood of the true order under Plackett-Luce, a configuration.

  With the configurations sorted from fast to slow, sum_i [log sum_{j >= i} exp(s_j) - s_i] / c
  (Xia et al., "Listwise approach to learning to rank", ICML 2008; the sum, divided by the length
  so that lists of all lengths weigh the same). Where the scores of a list span more than 50, the
  likelihood is that of the scores scaled to span 50.
  """
  # TensorFlow Ranking takes the logarithm of sums of exp(s_j - max s), which are 0 in float32 where a
  # confident model spreads a long list over 90 or so.
  lowest, highest = _range(step, scores)
  span = tf.stop_gradient(highest - lowest)
  scores *= _LIST_MLE_SPAN / tf.maximum(span, _LIST_MLE_SPAN)
  # Padding gives a constant to the likelihood, log of the number of padded entries behind each;
  # it has no gradient but would make losses of different batches incomparable.
  count = tf.reduce_sum(tf.cast(step["mask"], scores.dtype), axis=1)
  padded = tf.cast(tf.shape(scores)[1], scores.dtype) - count
  likelihood = _LIST_MLE(step, scores) - tf.math.lgamma(padded + 1.0)
  return likelihood / tf.maximum(count, 1.0)


def mean_squared_error(step: Mapping[str, Any], scores: tf.Tensor) -> tf.Tensor:
  """Mean of (s - t)^2 over a list, t being the standardised -log(runtime), s the centred score.

  Centred, because ranking is free to shift the scores of a list, and the other losses do.
  """
  mask = tf.cast(step["mask"], scores.dtype)
  count = tf.maximum(tf.reduce_sum(mask, axis=1, keepdims=True), 1.0)
  centred = scores - tf.reduce_sum(scores * mask, axis=1, keepdims=True) / count
  return tf.reduce_sum(tf.square(centred - step["target"]) * mask, axis=1) / count[:, 0]


_LIST_MLE = _per_list(tfr.losses_impl.ListMLELoss(name=None), "order")

LOSSES: dict[str, Loss] = {
    "list_mle": list_mle,
    "pairwise_logistic": _per_list(tfr.losses_impl.PairwiseLogisticLoss(name=None), "relevance"),
    "pairwise_hinge": _per_list(tfr.losses_impl.PairwiseHingeLoss(name=None), "relevance"),
    "softmax": _per_list(tfr.losses_impl.SoftmaxLoss(name=None), "relevance"),
    "approx_ndcg": _per_list(tfr.losses_impl.ApproxNDCGLoss(name=None), "relevance", _NDCG_SCALE,
                             _NDCG_TEMPERATURE),
    "mse": mean_squared_error,
}


def combined_loss(names: Sequence[str], weights: Sequence[float]) -> Loss:
  """The weighted sum of losses, each list's loss being (B,)."""
  terms = [(LOSSES[name], weight) for name, weight in zip(names, weights)]

  def loss(step: Mapping[str, Any], scores: tf.Tensor) -> tf.Tensor:
    return tf.add_n([weight * term(step, scores) for term, weight in terms])

  return loss
