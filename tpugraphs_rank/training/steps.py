"""One training step and one validation step as TensorFlow functions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tpugraphs_rank import losses
from tpugraphs_rank import models
from tpugraphs_rank import plugins
from tpugraphs_rank import run_config
from tpugraphs_rank.data import pipeline
from tpugraphs_rank.training import averaging
from tpugraphs_rank.training import schedules


class Stepper:
  """The model with its optimizer: what changes in a step, and the step."""

  def __init__(self, model: models.RankingModel, config: run_config.RunConfig, total_steps: int,
               element_spec: Mapping[str, Any]):
    """Creates the optimizer and the functions.

    Args:
      model: the model, whose variables exist already.
      config: the run's configuration.
      total_steps: steps of the longest possible run, for the schedule.
      element_spec: signature of the training data set; the step is traced once with it.
    """
    self.model = model
    self._clip_norm = config.optimizer.clip_norm
    self._loss = losses.combined_loss(config.loss.losses, config.loss.loss_weights)
    self.optimizer = tf.keras.optimizers.Adam(schedules.WarmupSchedule(
        config.optimizer.learning_rate, min(config.optimizer.warmup_steps, total_steps),
        total_steps, config.optimizer.schedule == "cosine"))
    self.optimizer.build(model.trainable_variables)
    self._ema_decay = config.optimizer.ema_decay
    self.average = averaging.WeightAverage(model.trainable_variables, self._ema_decay > 0)
    self._seed = config.training.seed
    # No AutoGraph: nothing here needs its control flow, and it would double the time to trace.
    options = {"input_signature": [dict(element_spec)], "autograph": False}
    self.train = tf.function(self._train, **options)
    self.validate = tf.function(self._validate, **options)

  def variables(self) -> dict[str, list[tf.Variable]]:
    """Everything that a checkpoint must store to resume."""
    return {"model": list(self.model.trainable_variables),
            "optimizer": list(self.optimizer.variables),
            "averaged": self.average.stored()}

  def best_variables(self) -> dict[str, list[tf.Variable]]:
    """The variables that scoring uses."""
    return {"model": self.average.variables}

  def _scores_and_loss(self, arrays: Mapping[str, tf.Tensor], step: Mapping[str, Any],
                       training: bool, reduce: Callable[..., tf.Tensor] | None = None
                       ) -> tuple[tf.Tensor, tf.Tensor]:
    """The mean score of the members, and their mean loss.

    Args:
      arrays, step: a batch, and its labels.
      training: whether gradients are wanted.
      reduce: makes a number of the losses and weights of the lists; None: `weighted_mean`.
    """
    seed = tf.stack([tf.cast(self._seed, tf.int32), tf.cast(self.optimizer.iterations, tf.int32)
                     ]) if training else None
    with plugins.calling(f"the model {self.model.name!r}"):
      scores = self.model.member_scores(arrays, training, seed)
    losses_of_members = [
        (reduce or weighted_mean)(self._loss(step, member), step.get("weight"))
        for member in scores]
    count = len(scores)
    return tf.add_n(scores) / count, tf.add_n(losses_of_members) / count

  def _train(self, arrays: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Updates the weights if loss and gradient are finite."""
    step = pipeline.labels(arrays)
    with tf.GradientTape() as tape:
      scores, loss = self._scores_and_loss(arrays, step, training=True)
      total = loss + tf.add_n(self.model.losses) if self.model.losses else loss
    gradients, norm = tf.clip_by_global_norm(self._gradients(tape, total), self._clip_norm)
    finite = tf.math.is_finite(total) & tf.math.is_finite(norm)
    rate = tf.identity(self.optimizer.learning_rate)
    tf.cond(finite, lambda: self._update(gradients), lambda: tf.constant(False))
    correct, pairs = ordered_pairs(step, scores)
    return {"loss": loss, "gradient_norm": norm, "learning_rate": rate, "finite": finite,
            "correct": correct, "pairs": pairs}

  def _gradients(self, tape: tf.GradientTape, total: tf.Tensor) -> list[tf.Tensor]:
    variables = self.model.trainable_variables
    return [gradient if gradient is not None else tf.zeros_like(variable)
            for gradient, variable in zip(tape.gradient(total, variables), variables)]

  def _update(self, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    variables = self.model.trainable_variables
    # Devices that train together have added up their gradients before clipping.
    self.optimizer.apply_gradients(zip(gradients, variables), skip_gradients_aggregation=True)
    if self._ema_decay:
      done = tf.cast(self.optimizer.iterations, tf.float32)
      self.average.update(1.0 - tf.minimum(self._ema_decay, (1.0 + done) / (10.0 + done)))
    return tf.constant(True)

  def _validate(self, arrays: Mapping[str, tf.Tensor]) -> tf.Tensor:
    return self._scores_and_loss(arrays, pipeline.labels(arrays), training=False)[1]


def weighted_mean(values: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
  """sum_i w_i l_i / sum_i w_i for losses l (B,) and weights w (B,); None: the plain mean."""
  if weights is None:
    return tf.reduce_mean(values)
  return tf.reduce_sum(weights * values) / tf.reduce_sum(weights)


def ordered_pairs(step: Mapping[str, Any], scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """The number of pairs that the scores order correctly, and of all pairs, in a batch (float32)."""
  relevance, mask = step["relevance"], step["mask"]
  faster = (relevance[:, :, None] > relevance[:, None, :]) & mask[:, :, None] & mask[:, None, :]
  correct = faster & (scores[:, :, None] > scores[:, None, :])
  count = lambda pairs: tf.reduce_sum(tf.cast(pairs, tf.float32))
  return count(correct), count(faster)
