"""Seeds, determinism and threads of TensorFlow."""

import logging

import tensorflow as tf

_logger = logging.getLogger(__name__)


def configure(seed: int, threads: int) -> None:
  """Makes TensorFlow reproducible: seeds, deterministic operations, a fixed number of threads."""
  tf.keras.utils.set_random_seed(seed)
  tf.config.experimental.enable_op_determinism()
  if not limit_threads(threads):
    _logger.debug("TensorFlow is already running, so its number of threads is unchanged")


def limit_threads(threads: int) -> bool:
  """Limits TensorFlow to a number of threads within an operation, and to two operations at a time.

  Returns:
    Whether the limit applies. It can only be set before TensorFlow's first operation.
  """
  try:
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(2)
  except RuntimeError:
    return False
  return True


