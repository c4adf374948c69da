"""Child processes that never outlive their parent: Ctrl-C and SIGTERM end them too."""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import logging
import os
import subprocess
import sys
import threading
from typing import Any

from tpugraphs_rank import errors
from tpugraphs_rank import termination

_SECONDS_TO_CLEAN_UP = 20.0


class Processes:
  """The child processes that currently run, so that all of them can be ended at once."""

  def __init__(self) -> None:
    self._running: set[subprocess.Popen] = set()
    self._lock = threading.Lock()
    self.ended = False

  def start(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen:
    """Starts a process.

    Args:
      command: the program and its arguments.
      environment: variables that the process has in addition to this one's.

    Raises:
      InterruptedError: `end_all` was called.
    """
    with self._lock:
      if self.ended:
        raise InterruptedError("the collection was stopped")
      with termination.sigterm_postponed():
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL)
        self._running.add(process)
      return process

  def end(self, process: subprocess.Popen) -> None:
    """Kills a process if it still runs, and removes it from the list."""
    if process.poll() is None:
      process.kill()
      process.wait()
    with self._lock:
      self._running.discard(process)

  def end_all(self) -> None:
    """Kills all processes; no further one starts."""
    with self._lock:
      self.ended = True
      for process in self._running:
        process.kill()


def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
  """Runs a program to its end and returns its exit status.

  When this process is interrupted, the program gets SIGTERM, and time to end its own children.

  Args:
    command: the program and its arguments.
    environment: all variables of the program.
  """
  with termination.sigterm_raises(), started(command, env=dict(environment)) as process:
    return process.wait()


@contextlib.contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen]:
  """Starts a program and ends it politely if it still runs at the end of the block.

  Args:
    command: the program and its arguments.
    **options: of `subprocess.Popen`.
  """
  with contextlib.ExitStack() as stack:
    with termination.sigterm_postponed():
      process = stack.enter_context(
          subprocess.Popen(command, stdin=subprocess.DEVNULL, **options))  # Closes its pipes.
      stack.callback(end_politely, process)
    yield process


def end_politely(process: subprocess.Popen) -> None:
  """Ends a process that still runs: SIGTERM, and SIGKILL if it does not react."""
  if process.poll() is not None:
    return
  process.terminate()
  try:
    process.wait(_SECONDS_TO_CLEAN_UP)
  except subprocess.TimeoutExpired:
    process.kill()
    process.wait()


def main(function: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> int:
  """Runs a program of the collector: logs, exit status, one line for a typed error."""
  logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
  with termination.sigterm_raises():
    try:
      function(arguments)
    except errors.TpuGraphsRankError as error:
      print(f"error: {error}", file=sys.stderr)
      return 1
    except (KeyboardInterrupt, InterruptedError):
      print("interrupted; the same command resumes", file=sys.stderr)
      return 130
  return 0


def exit_quietly(function: Callable[[], None]) -> None:
  """Runs the main function of a measuring process; Ctrl-C ends it without a traceback."""
  try:
    function()
  except KeyboardInterrupt:
    sys.exit(130)
