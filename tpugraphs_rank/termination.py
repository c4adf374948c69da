"""SIGTERM as an exception, so that all blocks on the way end what they started."""

from collections.abc import Callable, Iterator
import contextlib
import signal
import threading
from types import FrameType

STATUS = 128 + signal.SIGTERM  # The exit status of a terminated process, as shells use it.


@contextlib.contextmanager
def sigterm_raises(error: Callable[[], BaseException] = lambda: SystemExit(STATUS)
                   ) -> Iterator[None]:
  """Lets SIGTERM raise an exception during the block.

  Args:
    error: makes the exception; by default SystemExit with the status of a terminated process.
  """
  if threading.current_thread() is not threading.main_thread():
    yield  # Only the main thread may handle signals.
    return

  def leave(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise error()

  before = signal.signal(signal.SIGTERM, leave)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


@contextlib.contextmanager
def sigterm_postponed() -> Iterator[None]:
  """Postpones SIGTERM to the end of the block, so that it cannot arrive in the middle of a step.

  A process that the block starts is then known to the code that has to end it.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  arrived = []
  before = signal.signal(signal.SIGTERM, lambda *_: arrived.append(True))
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
    if arrived:
      signal.raise_signal(signal.SIGTERM)


@contextlib.contextmanager
def signals_end_at_once() -> Iterator[None]:
  """Lets Ctrl-C and SIGTERM end the process during the block, without running any Python code.

  For code that waits inside of a library, where Python's own handlers would not be called, and that
  has nothing to clean up.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  numbers = (signal.SIGINT, signal.SIGTERM)
  before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
  try:
    yield
  finally:
    for number, handler in zip(numbers, before):
      signal.signal(number, handler if handler is not None else signal.SIG_DFL)
