"""What happens around the epochs of every training: resume, progress, TensorBoard, status, files.

The rankers' trainer and LayerDAG's use it. Imports TensorFlow.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import logging
import pathlib
from typing import Any, Generic, TypeVar

import tensorflow as tf
import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.training import checkpoints
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import stored_state

_logger = logging.getLogger(__name__)

Variables = Mapping[str, Sequence[tf.Variable]]


@dataclasses.dataclass
class Progress:
  """How far training is. A checkpoint stores it next to the variables.

  Attributes:
    epoch, step: completed so far.
    history: rows of history.csv.
  """

  epoch: int = 0
  step: int = 0
  history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


ProgressT = TypeVar("ProgressT", bound=Progress)


def is_out_of_patience(epoch: int, best_epoch: int | None, patience: int) -> bool:
  """Whether validation has not improved for `patience` epochs. None: no validation yet."""
  return bool(best_epoch) and epoch - (best_epoch or 0) >= patience


def step_bar(total: int, done: int = 0, label: str = "training") -> tqdm.tqdm:
  """A progress bar over training steps, with the time left; silent if the output is no terminal."""
  return tqdm.tqdm(total=total, initial=done, desc=label, unit="step", disable=None,
                   smoothing=0.05, mininterval=0.5, dynamic_ncols=True)


class EpochLoop(Generic[ProgressT]):
  """Runs epochs in a run directory."""

  def __init__(self, directory: run_directory.RunDirectory, variables: Variables,
               progress: ProgressT, epochs: int, steps_per_epoch: int, tensorboard: bool):
    """Stores what the loop works on; refuses links in the run directory.

    Args:
      directory: the run directory, already claimed.
      variables: everything that changes during training, in groups.
      progress: of a training that has not begun.
      epochs: the maximum number of epochs.
      steps_per_epoch: steps of each epoch.
      tensorboard: whether to write TensorBoard event files.
    """
    files.without_links(directory.path, "checkpoints")
    self._directory = directory
    self._variables = variables
    self.progress = progress
    self._epochs = epochs
    self._steps_per_epoch = steps_per_epoch
    self._tensorboard = tensorboard

  @property
  def _latest(self) -> pathlib.Path:
    return self._directory / "checkpoints" / "latest.npz"

  @property
  def has_checkpoint(self) -> bool:
    """Whether there is a checkpoint to resume from."""
    return self._latest.exists()

  def resume(self) -> None:
    """Restores the latest checkpoint, and history.csv, whose last row a killed process can lack.

    Raises:
      RunDirectoryError: it is missing, damaged or of another model.
    """
    def check(state: Mapping[str, Any]) -> None:
      source = f"{self._latest}: state"
      stored_state.check(type(self.progress), state, source, ("epoch", "step", "history"))
      for row in state["history"]:
        if not all(isinstance(value, (int, float, str, type(None))) for value in row.values()):
          raise errors.RunDirectoryError(
              f"{source}: history holds values that are neither numbers nor text; the run "
              "directory is damaged")

    for name, value in checkpoints.restore(self._latest, self._variables, check).items():
      setattr(self.progress, name, value)
    self._directory.write_history(self.progress.history)
    _logger.info("resumed %s after epoch %d", self._directory.path, self.progress.epoch)

  def last_epoch(self, stop_after: int | None) -> int:
    """The last epoch of this call.

    Args:
      stop_after: stop after this many epochs, to resume later; None: do not stop.
    """
    if stop_after is None:
      return self._epochs
    return min(self._epochs, self.progress.epoch + stop_after)

  def run(self, epoch: Callable[[Callable[[], Any]], Mapping[str, Any]],
          final_state: Callable[[], str | None], stop_after: int | None = None,
          shown: Sequence[str] = ()) -> str:
    """Runs epochs until training is over.

    Args:
      epoch: runs one epoch, calls its argument after each step, and returns a row of history.
      final_state: the state of the run once training is over; None before.
      stop_after: as for `last_epoch`.
      shown: keys of the row that the progress bar shows.

    Returns:
      The state of the run.
    """
    progress, name = self.progress, self._directory.label
    end = self.last_epoch(stop_after)
    writer = tf.summary.create_file_writer(
        str(files.without_links(self._directory.path, "tensorboard"))
        ) if self._tensorboard else None
    with step_bar(self._epochs * self._steps_per_epoch, progress.epoch * self._steps_per_epoch,
                  name) as bar:
      while not final_state() and progress.epoch < end:
        bar.set_description(f"{name} epoch {progress.epoch + 1}/{self._epochs}")
        with self.noting_interrupts():
          row = epoch(bar.update)
        bar.set_postfix({key: f"{row[key]:.4f}" for key in shown if row.get(key) is not None})
        if writer is not None:
          with writer.as_default(step=progress.epoch):
            for key, value in row.items():
              if isinstance(value, float):
                tf.summary.scalar(key, value)
    if writer is not None:
      writer.close()
    return final_state() or run_directory.INTERRUPTED

  @contextlib.contextmanager
  def noting_interrupts(self) -> Iterator[None]:
    """Writes into status.json that the run was interrupted, if the block is."""
    try:
      yield
    except KeyboardInterrupt:
      self._note_interrupt()
      raise

  def _note_interrupt(self) -> None:
    """Changes the state in status.json, whose other values belong to the latest checkpoint."""
    status = self._directory.read_status()
    if status.get("state") == run_directory.TRAINING:
      self._directory.write_status(**{**status, "state": run_directory.INTERRUPTED})
    _logger.info("interrupted; the same command resumes training after epoch %d",
                 status.get("epoch", 0))

  def save(self, state: str, **figures: Any) -> None:
    """Writes the latest checkpoint, the history and the status."""
    checkpoints.save(self._latest, self._variables, dataclasses.asdict(self.progress))
    self._directory.write_history(self.progress.history)
    self.write_status(state, **figures)

  def write_status(self, state: str, **figures: Any) -> None:
    """Replaces status.json: the state, how far training is, and figures."""
    self._directory.write_status(
        state=state, epoch=self.progress.epoch, step=self.progress.step, **figures)
