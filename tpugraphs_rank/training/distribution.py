"""The devices that train together: several of one machine, or those of several machines.

This is a thin layer over `tf.distribute`. Its strategies hold a copy of each variable on each
device and add up tensors across devices; what a device computes is in `shared_steps`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
from typing import Any

import numpy as np
import tensorflow as tf

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import termination
from tpugraphs_rank.training import rendezvous

_logger = logging.getLogger(__name__)

VARIABLE = "TF_CONFIG"
_MOST_DEVICES = 1024
_ADDRESS = re.compile(r"(?P<host>[^\s:/]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})")
_ENDS = ("interrupted; the run up to its last checkpoint is kept; the same command for all "
         "processes resumes")
# What TensorFlow raises where another process has ended or cannot be reached.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError,
         tf.errors.DeadlineExceededError, tf.errors.FailedPreconditionError,
         tf.errors.InternalError, tf.errors.UnknownError)


@dataclasses.dataclass(frozen=True)
class Choice:
  """The devices that a user has chosen.

  Attributes:
    devices: devices of this machine: GPUs, or, without any, parts of the CPU. None: one, or with
      `workers` all GPUs of each machine.
    workers: addresses HOST:PORT of the processes that train together; the first one is the chief,
      which writes the run directory. Empty: one process.
    worker: the position of this process in `workers`.
  """

  devices: int | None = None
  workers: tuple[str, ...] = ()
  worker: int = 0

  def __post_init__(self) -> None:
    """Raises ConfigError if the values do not fit together."""
    if self.devices is not None and not 1 <= self.devices <= _MOST_DEVICES:
      raise errors.ConfigError(
          f"--devices={self.devices}: expected a number from 1 to {_MOST_DEVICES}")
    if self.workers and self.devices:
      raise errors.ConfigError(
          "--devices is for one machine; with --workers, every process uses all GPUs of its "
          "machine (the variable CUDA_VISIBLE_DEVICES chooses some of them)")
    for address in self.workers:
      match = _ADDRESS.fullmatch(address)
      if match is None or not 0 < int(match["port"]) < 65536:
        raise errors.ConfigError(
            f"--workers: {address!r} is not an address; expected HOST:PORT, such as 10.0.0.1:9870")
    if len(set(self.workers)) < len(self.workers):
      raise errors.ConfigError(
          "--workers names an address twice; expected one address for each process")
    if not 0 <= self.worker < max(len(self.workers), 1):
      raise errors.ConfigError(
          f"--worker={self.worker}: expected the position of this process in --workers, from 0 to "
          f"{max(len(self.workers), 1) - 1}")


def from_environment() -> Choice:
  """The choice in the variable TF_CONFIG, which cluster managers set.

  Raises:
    ConfigError: it is not set, or does not name workers.
  """
  text = os.environ.get(VARIABLE)
  if not text:
    raise errors.ConfigError(
        f"--workers={VARIABLE}, but the variable {VARIABLE} is not set; list the addresses instead")
  try:
    stored = files.parse_json(text, VARIABLE)
    cluster, task = stored["cluster"], stored["task"]
    chief, workers = cluster.get("chief", []), cluster.get("worker", [])
    addresses = tuple(map(str, [*chief, *workers]))
    place = int(task["index"]) + (len(chief) if task["type"] == "worker" else 0)
    known = task["type"] in ("chief", "worker")
  except (errors.DataError, AttributeError, KeyError, TypeError, ValueError) as error:
    raise errors.ConfigError(
        f"{VARIABLE} cannot be used ({error}); expected "
        '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'
    ) from None
  if not known or not addresses:
    raise errors.ConfigError(
        f"{VARIABLE} describes a task of type {task['type']!r} among {len(addresses)} workers; "
        "expected chief or worker")
  return Choice(workers=addresses, worker=place)


class Distribution:
  """Devices that train together. All of them call the same methods in the same order.

  Attributes:
    count: the number of devices, and so of shares of a batch.
    local: the numbers of the shares that this process computes.
    is_chief: whether this process validates, and writes the run directory.
  """

  def __init__(self, strategy: tf.distribute.Strategy | None = None, processes: int = 1,
               process: int = 0):
    """Stores a strategy of `processes` processes, of which this is number `process`."""
    self._strategy = strategy
    self._processes = processes
    self.count = 1 if strategy is None else int(strategy.num_replicas_in_sync)
    each = self.count // processes
    self.local = range(process * each, (process + 1) * each)
    self.is_chief = process == 0
    self._add: Callable[[tf.Tensor], tf.Tensor] | None = None

  @property
  def text(self) -> str:
    """The devices in words; "" for a single one."""
    if self.count == 1:
      return ""
    if self._processes == 1:
      return f"{self.count} devices"
    return f"{self.count} devices of {self._processes} processes"

  def scope(self) -> contextlib.AbstractContextManager[Any]:
    """Variables that are created in this block exist on all devices."""
    return contextlib.nullcontext() if self._strategy is None else self._strategy.scope()

  def run(self, function: Callable[[int, Callable[[tf.Tensor], tf.Tensor]], Mapping[str, tf.Tensor]]
          ) -> dict[str, tf.Tensor]:
    """Runs a function on each device of this process, as a part of a `tf.function`.

    Args:
      function: takes the position of the device in `local`, and a function that adds up a tensor of
        all devices. Its results are the same on all of them.
    """
    assert self._strategy is not None
    strategy = self._strategy

    def replica() -> Mapping[str, tf.Tensor]:
      context = tf.distribute.get_replica_context()
      assert context is not None
      # The identity is on this replica's device; an argument of a function may be on none.
      add = lambda tensor: context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(tensor))
      return function(context._replica_id, add)  # A number, where the public one is a tensor.

    results = strategy.run(replica)
    return {key: strategy.experimental_local_results(value)[0] for key, value in results.items()}

  def added(self, values: np.ndarray) -> np.ndarray:
    """The sum of one array of each process."""
    if self._processes == 1:
      return values
    if self._add is None:
      self._add = tf.function(
          lambda tensor: self.run(lambda place, add: {
              "sum": add(tensor if place == 0 else tf.zeros_like(tensor))})["sum"],
          input_signature=[tf.TensorSpec([None], tf.float64)], autograph=False)
    flat = tf.constant(np.ravel(values).astype(np.float64))
    return self._add(flat).numpy().reshape(np.shape(values)).astype(values.dtype)

  def from_chief(self, values: np.ndarray) -> np.ndarray:
    """The chief's array. Whole numbers must be below 2^53."""
    return self.added(values if self.is_chief else np.zeros_like(values))

  def copy_from_chief(self, variables: Sequence[tf.Variable]) -> None:
    """Sets variables to those of the chief, bit by bit."""
    if self._processes == 1:
      return
    for variable in variables:
      value = self.from_chief(variable.numpy())
      if not self.is_chief:
        variable.assign(value)

  def check_equal(self, what: str, value: Any) -> None:
    """Checks that all processes have the same JSON value; all of them notice a difference.

    Raises:
      ConfigError: they do not.
    """
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
    numbers = np.frombuffer(digest, np.uint8).astype(np.float64)
    differs = float(np.abs(self.from_chief(numbers) - numbers).sum())
    if self.added(np.array([differs]))[0]:
      raise errors.ConfigError(
          f"the processes of this training have different {what}; give all of them the same flags, "
          "files and version")

  def wait(self) -> None:
    """Waits until all processes have come here."""
    self.added(np.zeros(1))

  @contextlib.contextmanager
  def together(self) -> Iterator[None]:
    """Whatever processes do together. Raises a TrainingError where another one ends.

    With several processes, Ctrl-C and SIGTERM end this one at once: it may wait for another one
    inside of TensorFlow, where Python handles no signals.
    """
    ends = (contextlib.nullcontext() if self._processes == 1
            else termination.signals_end_with(_ENDS))
    try:
      with ends:
        yield
    except _LOST as error:
      if self._processes == 1:
        raise
      _logger.debug("TensorFlow's error", exc_info=True)
      raise errors.TrainingError(
          f"another process of this training has ended or cannot be reached{_reason(error)}; run "
          "the same command for all of them again: "
          "training resumes after its last complete epoch") from None


ALONE = Distribution()


def start(choice: Choice) -> Distribution:
  """Prepares the devices. With several processes, waits for all of them, see `rendezvous`.

  It must come before TensorFlow's first operation in this process.

  Raises:
    ConfigError: there are fewer devices, or TensorFlow is already running.
    TrainingError: the other processes cannot be reached.
  """
  if len(choice.workers) > 1:
    return _workers(choice)
  if choice.devices is not None and choice.devices > 1:
    return _devices(choice.devices)
  return ALONE


def _devices(count: int) -> Distribution:
  gpus = tf.config.list_physical_devices("GPU")
  if gpus:
    if count > len(gpus):
      raise errors.ConfigError(f"--devices={count}, but TensorFlow finds {len(gpus)} GPUs")
    return Distribution(tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(count)]))
  # Parts of the CPU: as fast as one device with as many threads, and good for a trial.
  (processor, *_) = tf.config.list_physical_devices("CPU")
  try:
    tf.config.set_logical_device_configuration(
        processor, [tf.config.LogicalDeviceConfiguration()] * count)
  except RuntimeError:
    if len(tf.config.list_logical_devices("CPU")) < count:
      raise errors.ConfigError(
          f"--devices={count}: TensorFlow is already running in this process; choose the devices "
          "before its first operation") from None
  return Distribution(tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(count)]))


def _workers(choice: Choice) -> Distribution:
  address = choice.workers[choice.worker]
  os.environ[VARIABLE] = json.dumps({
      "cluster": {"worker": list(choice.workers)},
      "task": {"type": "worker", "index": choice.worker}})
  try:
    with rendezvous.meeting(choice.workers, choice.worker):
      strategy = tf.distribute.MultiWorkerMirroredStrategy()
    result = Distribution(strategy, len(choice.workers), choice.worker)
    with termination.signals_end_with(_ENDS):
      result.wait()
  except RuntimeError as error:
    raise errors.ConfigError(
        "TensorFlow is already running in this process; choose the workers before its first "
        f"operation ({str(error).splitlines()[0]})") from None
  except _LOST as error:
    raise errors.TrainingError(
        f"the {len(choice.workers)} processes cannot reach one another, one of them has ended, or "
        f"{address} is in use{_reason(error)}; check --workers, and run the same command for all "
        "of them again") from None
  return result


def _reason(error: Exception) -> str:
  """What TensorFlow says about a connection, in parentheses; "" if nothing."""
  match = re.search(r"aborted by: ([^\n]{1,200})", str(error))
  return f" ({match[1].strip()})" if match else ""
