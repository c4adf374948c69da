"""Losses over lists of configurations, by name.

A loss is a function of a step and scores [B, C] that returns the loss of each list, (B,); see
`losses.ranking`. `register("my_loss", my_loss)` makes it available as the setting `losses=my_loss`.
Importing this package does not import TensorFlow.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tpugraphs_rank import registries

register = registries.LOSSES.register
get = registries.LOSSES.get
names = registries.LOSSES.names

__all__ = [
    "combined_loss",
    "get",
    "names",
    "register",
]


def combined_loss(losses: Sequence[str], weights: Sequence[float]
                  ) -> Callable[[Mapping[str, Any], Any], Any]:
  """The weighted sum of losses.

  Args:
    losses: registered names.
    weights: one for each loss.

  Raises:
    UnknownNameError: no loss is registered under a name.
  """
  terms = [(get(name), weight) for name, weight in zip(losses, weights)]

  def loss(step: Mapping[str, Any], scores: Any) -> Any:
    import tensorflow as tf
    return tf.add_n([weight * term(step, scores) for term, weight in terms])

  return loss
