"""SIGTERM as an exception, so that all blocks on the way end what they started."""

from collections.abc import Callable, Iterator
import contextlib
import os
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
def signals_end_with(message: str) -> Iterator[None]:
  """Lets Ctrl-C and SIGTERM end the process during the block, also while it waits in a library.

  A thread notices the signal, prints the message, and ends the process without cleaning up, as
  SIGKILL would.

  Args:
    message: one line for the standard error.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  reader, writer = os.pipe()
  os.set_blocking(writer, False)

  def watch() -> None:
    while number := os.read(reader, 1):
      if number[0] in numbers:
        with contextlib.suppress(OSError):
          os.write(2, f"{message}\n".encode())
        os._exit(128 + number[0])

  numbers = (signal.SIGINT, signal.SIGTERM)
  # A handler in Python, so that the number is written to the pipe as soon as the signal arrives.
  before = [signal.signal(number, lambda *_: None) for number in numbers]
  other = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  thread = threading.Thread(target=watch, daemon=True)
  thread.start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(other)
    for number, handler in zip(numbers, before):
      signal.signal(number, handler if handler is not None else signal.SIG_DFL)
    os.close(writer)
    thread.join()
    os.close(reader)
