"""Runs a pipeline so that Ctrl-C, SIGTERM and the death of a worker end it at once.

Beam itself waits for its workers in all three cases, for ever in the last one.
"""

from collections.abc import Iterator
import contextlib
import logging
import os
import pathlib
import signal
import threading
from typing import Any

import apache_beam as beam

from tpugraphs_rank import errors
from tpugraphs_rank import memory
from tpugraphs_rank.beam import elements
from tpugraphs_rank.beam import worker

# Seconds between two looks at the workers.
_POLL_SECONDS = 0.2
# Seconds that an ended pipeline has to leave by itself.
_PATIENCE = 5.0
# Beam's threads that talk to a worker.
_THREADS = ("run_worker", "beam_control_read", "read_grpc_client_inputs")


class _Pipeline(threading.Thread):
  """Runs a pipeline in a thread, which does not keep this process from ending."""

  def __init__(self, pipeline: beam.Pipeline):
    super().__init__(daemon=True)
    self._pipeline = pipeline
    self.result: Any = None
    self.state: str | None = None
    self.error: BaseException | None = None
    # Before Python 3.13, a `join` that a signal interrupts takes the thread for ended.
    self.done = threading.Event()

  def run(self) -> None:
    try:
      self.result = self._pipeline.run()
      self.state = self.result.wait_until_finish()
    except BaseException as error:
      self.error = error
    finally:
      self.done.set()


def run(pipeline: beam.Pipeline, name: str, folder: pathlib.Path) -> list[int]:
  """Runs a pipeline to its end.

  Args:
    pipeline: the pipeline.
    name: of its runner, for messages.
    folder: its folder, in which workers of this machine note that they run.

  Returns:
    The processes of the workers that died. All others have been ended then.

  Raises:
    PipelineError: it failed.
  """
  thread = _Pipeline(pipeline)
  elements.here.stopped = False
  with _quiet():
    thread.start()
    try:
      while not thread.done.wait(_POLL_SECONDS):
        dead = worker.dead(folder)
        if dead:
          _end(thread, folder)
          return dead
    except BaseException:  # Such as Ctrl-C and SIGTERM.
      _end(thread, folder)
      raise
  if thread.error is not None and memory.ran_out(thread.error):
    raise errors.OutOfMemoryError("memory ran out") from thread.error
  if thread.error is not None:
    raise errors.PipelineError(
        f"the pipeline on {name} failed: {_last_line(thread.error)}; check the options of the "
        "runner and the logs of its workers, or work without --runner") from thread.error
  if thread.state not in (None, "DONE"):
    raise errors.PipelineError(
        f"the pipeline on {name} ended in the state {thread.state}; expected DONE; check the logs "
        "of its workers")
  return []


def _end(thread: _Pipeline, folder: pathlib.Path) -> None:
  """Ends a pipeline and its workers."""
  elements.here.stopped = True
  if thread.result is not None:  # It runs elsewhere.
    with contextlib.suppress(Exception):
      thread.result.cancel()
  for pid in worker.stop(folder):
    with contextlib.suppress(OSError):
      os.kill(pid, signal.SIGKILL)
  thread.done.wait(_PATIENCE)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Beam's threads print errors if a worker is ended; this process reports that itself."""
  before = threading.excepthook
  data_plane = logging.getLogger("apache_beam.runners.worker.data_plane")
  level = data_plane.level

  def hook(arguments: threading.ExceptHookArgs) -> None:
    if not (arguments.thread and arguments.thread.name.startswith(_THREADS)):
      before(arguments)

  threading.excepthook = hook
  data_plane.setLevel(logging.CRITICAL)
  try:
    yield
  finally:
    threading.excepthook = before
    data_plane.setLevel(level)


def _last_line(error: BaseException) -> str:
  lines = str(error).strip().splitlines()
  return lines[-1] if lines else type(error).__name__
