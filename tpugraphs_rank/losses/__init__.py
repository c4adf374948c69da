"""Losses over lists of configurations, by name.

A loss is a function of a step and scores [B, C] that returns the loss of each list, (B,); see
`losses.ranking`. `register("my_loss", my_loss)` makes it available as the setting `losses=my_loss`.
Importing this package does not import TensorFlow.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tpugraphs_rank import errors
from tpugraphs_rank import plugins
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
    UnknownNameError: no loss is registered under a name. The returned function raises ConfigError
      if a loss fails or returns something else than the loss of each list.
  """
  terms = [(name, get(name), weight) for name, weight in zip(losses, weights)]

  def loss(step: Mapping[str, Any], scores: Any) -> Any:
    import tensorflow as tf
    return tf.add_n([weight * _values(name, term, step, scores) for name, term, weight in terms])

  return loss


def _values(name: str, term: Callable[[Mapping[str, Any], Any], Any], step: Mapping[str, Any],
            scores: Any) -> Any:
  """The result of a loss, checked.

  Raises:
    ConfigError: the loss is registered by a plugin, and fails or does not return (B,) float32.
  """
  import tensorflow as tf
  with plugins.calling(f"the loss {name!r}"):
    values = term(step, scores)
  expected = tf.TensorShape(scores.shape[:1])
  if not tf.is_tensor(values) or values.dtype != tf.float32 or (
      values.shape.rank != 1 or not expected.is_compatible_with(values.shape)):
    returned = (f"{values.dtype.name} of shape {values.shape}" if tf.is_tensor(values)
                else type(values).__name__)
    raise errors.ConfigError(
        f"the loss {name!r} returns {returned}; expected float32 of shape [B], the loss of each "
        "list")
  return values
