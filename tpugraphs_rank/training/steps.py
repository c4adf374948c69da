"""One training step and one validation step as TensorFlow functions."""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import tensorflow as tf

from tpugraphs_rank import losses
from tpugraphs_rank import models
from tpugraphs_rank import run_config
from tpugraphs_rank.data import pipeline


class WarmupSchedule(tf.keras.optimizers.schedules.LearningRateSchedule):
  """Linear over the warm-up, then constant, or half a cosine down to 1 % at the last step."""

  def __init__(self, config: run_config.OptimizerConfig, total_steps: int):
    super().__init__()
    self._peak = config.learning_rate
    self._warmup = min(config.warmup_steps, total_steps)
    self._cosine = config.schedule == "cosine"
    self._total = total_steps

  def __call__(self, step):
    step = tf.cast(step, tf.float32)
    rate = tf.minimum((step + 1.0) / max(self._warmup, 1), 1.0)
    if self._cosine:
      done = tf.clip_by_value(
          (step - self._warmup) / max(self._total - self._warmup, 1), 0.0, 1.0)
      rate *= 0.01 + 0.99 * 0.5 * (1.0 + tf.cos(math.pi * done))
    return self._peak * rate

  def get_config(self) -> dict[str, Any]:
    raise NotImplementedError("the schedule is rebuilt from the run's configuration")


class Stepper:
  """The model with its optimizer: what changes in a step, and the step."""

  def __init__(self, model: models.Model, config: run_config.RunConfig, total_steps: int,
               element_spec: Mapping[str, Any]):
    """Makes the optimizer and the functions.

    Args:
      model: the model, its variables already created.
      config: the run's configuration.
      total_steps: steps of the longest possible run, for the schedule.
      element_spec: of the training data set; the step is traced once with it.
    """
    self.model = model
    self._clip_norm = config.optimizer.clip_norm
    self._loss = losses.combined_loss(config.loss.losses, config.loss.loss_weights)
    self.optimizer = tf.keras.optimizers.Adam(WarmupSchedule(config.optimizer, total_steps))
    self.optimizer.build(model.trainable_variables)
    self._ema_decay = config.optimizer.ema_decay
    self._dropout = config.model.dropout > 0
    # The averaged weights; without averaging, the weights themselves.
    self.averaged: list[tf.Variable] = [
        tf.Variable(variable, trainable=False) for variable in model.trainable_variables
    ] if self._ema_decay else list(model.trainable_variables)
    self._seed = config.training.seed
    # No AutoGraph: nothing here needs its control flow, and it would double the time to trace.
    options = {"input_signature": [dict(element_spec)], "autograph": False}
    self.train = tf.function(self._train, **options)
    self.validate = tf.function(self._validate, **options)

  def variables(self) -> dict[str, list[tf.Variable]]:
    """All that a checkpoint must hold to go on."""
    return {"model": list(self.model.trainable_variables),
            "optimizer": list(self.optimizer.variables),
            "averaged": self.averaged if self._ema_decay else []}

  def best_variables(self) -> dict[str, list[tf.Variable]]:
    """What scoring uses."""
    return {"model": self.averaged}

  def _scores_and_loss(self, step: Mapping[str, Any], training: bool
                       ) -> tuple[tf.Tensor, tf.Tensor]:
    seed = None
    if training and self._dropout:
      seed = tf.stack([tf.cast(self._seed, tf.int32),
                       tf.cast(self.optimizer.iterations, tf.int32)])
    scores = self.model.member_scores(
        step["graph"], segment=step.get("segment") if training else None,
        segment_node_ids=step.get("segment_node_ids") if training else None, dropout_seed=seed)
    losses_of_members = [
        weighted_mean(self._loss(step, member), step.get("weight")) for member in scores]
    count = len(scores)
    return tf.add_n(scores) / count, tf.add_n(losses_of_members) / count

  def _train(self, arrays: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Updates the weights unless loss or gradient are not finite."""
    step = pipeline.to_step(arrays)
    with tf.GradientTape() as tape:
      scores, loss = self._scores_and_loss(step, training=True)
      total = loss + tf.add_n(self.model.losses) if self.model.losses else loss
    variables = self.model.trainable_variables
    gradients = tape.gradient(total, variables)
    gradients = [gradient if gradient is not None else tf.zeros_like(variable)
                 for gradient, variable in zip(gradients, variables)]
    gradients, norm = tf.clip_by_global_norm(gradients, self._clip_norm)
    finite = tf.math.is_finite(total) & tf.math.is_finite(norm)
    rate = tf.identity(self.optimizer.learning_rate)
    tf.cond(finite, lambda: self._update(gradients), lambda: tf.constant(False))
    correct, pairs = ordered_pairs(step, scores)
    return {"loss": loss, "gradient_norm": norm, "learning_rate": rate, "finite": finite,
            "correct": correct, "pairs": pairs}

  def _update(self, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    variables = self.model.trainable_variables
    self.optimizer.apply_gradients(zip(gradients, variables))
    if self._ema_decay:
      # Early on, an average over as many steps as there were.
      done = tf.cast(self.optimizer.iterations, tf.float32)
      decay = tf.minimum(self._ema_decay, (1.0 + done) / (10.0 + done))
      for average, variable in zip(self.averaged, variables):
        average.assign_add((1.0 - decay) * (variable - average))
    return tf.constant(True)

  def _validate(self, arrays: Mapping[str, tf.Tensor]) -> tf.Tensor:
    return self._scores_and_loss(pipeline.to_step(arrays), training=False)[1]


def weighted_mean(values: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
  """sum_i w_i l_i / sum_i w_i of losses l (B,) and weights w (B,); None: the plain mean."""
  if weights is None:
    return tf.reduce_mean(values)
  return tf.reduce_sum(weights * values) / tf.reduce_sum(weights)


def ordered_pairs(step: Mapping[str, Any], scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """Pairs of the batch's lists that the scores order correctly, and pairs in all (both float32)."""
  relevance, mask = step["relevance"], step["mask"]
  faster = (relevance[:, :, None] > relevance[:, None, :]) & mask[:, :, None] & mask[:, None, :]
  correct = faster & (scores[:, :, None] > scores[:, None, :])
  count = lambda pairs: tf.reduce_sum(tf.cast(pairs, tf.float32))
  return count(correct), count(faster)
