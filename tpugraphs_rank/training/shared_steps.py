"""The training step of several devices that train together: each computes on its share of a batch.

The loss of a batch is the weighted mean over its lists, so its gradient is the sum of what the
shares contribute (see `data.shares`). The devices add up their contributions; clipping and Adam
then see the same numbers everywhere, those of a single device up to rounding.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tpugraphs_rank import models
from tpugraphs_rank import run_config
from tpugraphs_rank.data import pipeline
from tpugraphs_rank.training import distribution as distribution_lib
from tpugraphs_rank.training import steps

_FIGURES = 3  # Loss, correctly ordered pairs and pairs follow the gradient in the sums of a share.


class SharedStepper(steps.Stepper):
  """A `Stepper` whose `train` takes the shares of this process."""

  def __init__(self, model: models.RankingModel, config: run_config.RunConfig, total_steps: int,
               element_spec: Mapping[str, Any], share_specs: Sequence[Mapping[str, Any]],
               distribution: distribution_lib.Distribution):
    """Creates the optimizer and the functions.

    Args:
      model, config, total_steps: as of `Stepper`.
      element_spec: signature of whole batches, for validation.
      share_specs: signature of each share of this process.
      distribution: the devices.
    """
    super().__init__(model, config, total_steps, element_spec)
    self._distribution = distribution
    self.train = tf.function(self._train_shares, autograph=False,
                             input_signature=[tuple(dict(spec) for spec in share_specs)])

  def share_sums(self, share: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """What a share contributes: (P + 3,) float32, the gradient of all P weights and the figures."""
    step = pipeline.labels(share)
    with tf.GradientTape() as tape:
      scores, loss = self._scores_and_loss(share, step, training=True, reduce=_weighted_sum)
      total = loss
      if self.model.losses:
        total += tf.add_n(self.model.losses) / self._distribution.count
    gradients = self._gradients(tape, total)
    # A list of weight 0 only fills an empty share.
    counted = {**step, "mask": step["mask"] & (step["weight"] > 0)[:, None]}
    correct, pairs = steps.ordered_pairs(counted, scores)
    return tf.concat([*(tf.reshape(tf.convert_to_tensor(gradient), [-1]) for gradient in gradients),
                      tf.stack([loss, correct, pairs])], axis=0)

  def apply_sums(self, sums: tf.Tensor) -> dict[str, tf.Tensor]:
    """Updates the weights by the added contributions of all shares.

    Unlike a single device, it does so even if they are not finite, because no variable of several
    devices may change under a condition. Training ends with an error then, and nothing is stored.
    """
    variables = self.model.trainable_variables
    sizes = [variable.shape.num_elements() for variable in variables]
    *parts, figures = tf.split(sums, [*sizes, _FIGURES])
    gradients, norm = tf.clip_by_global_norm(
        [tf.reshape(part, variable.shape) for part, variable in zip(parts, variables)],
        self._clip_norm)
    loss, correct, pairs = tf.unstack(figures)
    rate = tf.identity(self.optimizer.learning_rate)
    self._update(gradients)
    return {"loss": loss, "gradient_norm": norm, "learning_rate": rate,
            "finite": tf.math.is_finite(loss) & tf.math.is_finite(norm),
            "correct": correct, "pairs": pairs}

  def _train_shares(self, shares: Sequence[Mapping[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
    return self._distribution.run(
        lambda place, add: self.apply_sums(add(self.share_sums(shares[place]))))


def _weighted_sum(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
  """sum_i w_i l_i: the weights of all shares of a batch add up to 1."""
  return tf.reduce_sum(weights * values)
