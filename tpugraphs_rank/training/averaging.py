"""Moving averages of weights, which validation and scoring use. Imports TensorFlow."""

from collections.abc import Iterator, Sequence
import contextlib
from typing import Any

import tensorflow as tf


class WeightAverage:
  """Moving averages of a model's weights.

  Attributes:
    variables: the averages; without averaging, the weights themselves.
  """

  def __init__(self, weights: Sequence[tf.Variable], enabled: bool = True):
    """Creates the averages, which begin at the weights.

    Args:
      weights: the weights.
      enabled: False: no averages are kept, and the weights stand in for them.
    """
    self._weights = list(weights)
    self._enabled = enabled
    self.variables: list[tf.Variable] = [
        tf.Variable(weight, trainable=False) for weight in weights] if enabled else self._weights

  def update(self, share: tf.Tensor) -> None:
    """Moves each average towards its weight: average += share * (weight - average).

    The share is 1 - decay, and larger in the first steps: about 9 / (10 + steps so far). Otherwise
    the initial weights would dominate the averages.
    """
    if self._enabled:
      for average, weight in zip(self.variables, self._weights):
        average.assign_add(share * (weight - average))

  def stored(self) -> list[tf.Variable]:
    """The variables that a checkpoint must store in addition to the weights."""
    return self.variables if self._enabled else []

  def reset(self) -> None:
    """Sets the averages to the weights."""
    if self._enabled:
      assign(self.variables, self._weights)

  @contextlib.contextmanager
  def applied(self) -> Iterator[None]:
    """Gives the model the averages during the block, then its own weights again."""
    if not self._enabled:
      yield
      return
    kept = [weight.numpy() for weight in self._weights]
    assign(self._weights, self.variables)
    try:
      yield
    finally:
      assign(self._weights, kept)


def assign(variables: Sequence[tf.Variable], values: Sequence[Any]) -> None:
  """Assigns each variable its value."""
  for variable, value in zip(variables, values):
    variable.assign(value)
