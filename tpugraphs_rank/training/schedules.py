"""The learning-rate schedule of all trainings. Imports TensorFlow."""

import math
from typing import Any

import tensorflow as tf


class WarmupSchedule(tf.keras.optimizers.schedules.LearningRateSchedule):
  """Linear warm-up, then a constant rate or a cosine decay to 1 % of the peak at the last step.

      rate(step) = peak * min((step + 1) / warmup, 1) * decay(step)
      decay(step) = 0.01 + 0.99 (1 + cos(pi (step - warmup) / (total - warmup))) / 2
  """

  def __init__(self, peak: float, warmup_steps: int, total_steps: int, cosine: bool = True):
    """Defines the schedule.

    Args:
      peak: the highest learning rate.
      warmup_steps: steps of linear warm-up.
      total_steps: steps of the longest possible training.
      cosine: whether the rate decays after the warm-up.
    """
    super().__init__()
    self._peak = peak
    self._warmup = warmup_steps
    self._total = total_steps
    self._cosine = cosine

  def __call__(self, step: Any) -> tf.Tensor:
    step = tf.cast(step, tf.float32)
    rate = tf.minimum((step + 1.0) / max(self._warmup, 1), 1.0)
    if self._cosine:
      done = tf.clip_by_value(
          (step - self._warmup) / max(self._total - self._warmup, 1), 0.0, 1.0)
      rate *= 0.01 + 0.99 * 0.5 * (1.0 + tf.cos(math.pi * done))
    return self._peak * rate

  def get_config(self) -> dict[str, Any]:
    raise NotImplementedError("the schedule is rebuilt from the run's configuration")
