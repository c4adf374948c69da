"""Networks that are built for weights of a file do not become larger than those weights.

The settings of the file state the sizes of the networks. A few digits there can ask for
thousands of millions of weights, which the file does not hold.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import math
from typing import Any

import tensorflow as tf

from tpugraphs_rank import errors
from tpugraphs_rank import run_config

# Numbers, and variables, that may be created in addition: what models compute from their settings
# and do not store.
_MORE_NUMBERS = 1 << 20
_MORE_VARIABLES = 64
_REMEDY = ("the settings and the weights belong to different models; train again into an empty "
           "folder")
# The models of which `check_count` knows the layers.
_BUILT_IN = ("residual_gnn", "attention_gnn")


def check_count(settings: run_config.ModelConfig, shapes: Sequence[tuple[int, ...]], source: str
                ) -> None:
  """Refuses settings of far more layers than a run stores, before any layer is created.

  Args:
    settings: of the run.
    shapes: of the weights that its checkpoint stores.
    source: the checkpoint, for the message.

  Raises:
    RunDirectoryError: the settings need more weights.
  """
  layers = 1
  if settings.model in _BUILT_IN:
    layers += settings.num_convolutions * settings.mlp_layers + len(settings.head_widths)
  if settings.members * layers > len(shapes) + _MORE_VARIABLES:
    raise errors.RunDirectoryError(
        f"{source} stores {len(shapes):,} arrays of weights, and the networks of its settings "
        f"({settings.members} members) have at least {settings.members * layers:,}; {_REMEDY}")


@contextlib.contextmanager
def no_more_than(shapes: Iterable[tuple[int, ...]], source: str,
                 error: type[errors.TpuGraphsRankError] = errors.DataError) -> Iterator[None]:
  """Refuses to create far more weights during the block than a file stores.

  Each variable is counted before its memory is allocated.

  Args:
    shapes: of the weights that the file stores.
    source: the file, for the message.
    error: the class of the error.

  Raises:
    DataError, or as `error` says: the block would create more.
  """
  stored = list(shapes)
  numbers = sum(map(math.prod, stored)) + _MORE_NUMBERS
  variables = len(stored) + _MORE_VARIABLES
  refused: list[errors.TpuGraphsRankError] = []

  def create(following: Callable[..., tf.Variable], **options: Any) -> tf.Variable:
    nonlocal numbers, variables
    shape = _shape_of(options)
    numbers -= math.prod(shape)
    variables -= 1
    if numbers < 0 or variables < 0:
      refused.append(error(
          f"{source} stores {len(stored):,} arrays of weights with "
          f"{sum(map(math.prod, stored)):,} numbers, and the networks of its settings need more; "
          f"{_REMEDY}"))
      raise refused[0]
    return following(**options)

  try:
    with tf.variable_creator_scope(create):
      yield
  except Exception:  # Keras and plugins wrap what is raised in a call.
    if refused:
      raise refused[0] from None
    raise


def _shape_of(options: dict[str, Any]) -> tuple[int, ...]:
  """The shape of a variable to be created; () where it is not known in advance."""
  shape = options.get("shape")
  if shape is None:
    shape = getattr(options.get("initial_value"), "shape", None)
  if shape is None:
    return ()
  shape = tf.TensorShape(shape)
  return tuple(shape.as_list()) if shape.is_fully_defined() else ()
