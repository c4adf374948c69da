"""The standard streams of a command: closed ones, full disks, readers that leave."""

import contextlib
import os
import sys
from typing import Any, TextIO

from tpugraphs_rank import errors


class _Stream:
  """A text stream that passes everything on to another one."""

  def __init__(self, stream: TextIO):
    self._stream = stream

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)


class _Output(_Stream):
  """The standard output. What it cannot write is a typed error, unless its reader has left."""

  def write(self, text: str) -> int:
    with _typed():
      return self._stream.write(text)

  def flush(self) -> None:
    with _typed():
      self._stream.flush()


class _Messages(_Stream):
  """The standard error. A message that cannot be written is no reason to fail."""

  def write(self, text: str) -> int:
    with contextlib.suppress(OSError, ValueError):
      self._stream.write(text)
    return len(text)

  def flush(self) -> None:
    with contextlib.suppress(OSError, ValueError):
      self._stream.flush()


@contextlib.contextmanager
def _typed() -> Any:
  try:
    yield
  except BrokenPipeError:
    raise
  except OSError as error:
    raise errors.OutputError(
        f"cannot write to the standard output: {error.strerror or error}; free some space, or "
        "send the output elsewhere") from error


def prepare() -> None:
  """Prepares the streams of a new process, before it opens any file.

  A closed stream discards what it gets. Otherwise the next file that is opened would take its
  place, and messages would end up in that file.
  """
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      # The lowest free number is the one that is closed, as those below are open by now.
      os.open(os.devnull, os.O_RDWR)
  if sys.stdout is None:
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
  if sys.stderr is None:
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
  sys.stdout = _Output(sys.stdout)  # type: ignore[assignment]
  sys.stderr = _Messages(sys.stderr)  # type: ignore[assignment]


def discard_output() -> None:
  """Discards what is left in the buffer, about which Python would complain when it exits."""
  with contextlib.suppress(OSError, ValueError):
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
