"""Ctrl-C and SIGTERM: a command ends its children, and states what it keeps and how to resume."""

from collections.abc import Iterator
import contextlib
import pathlib
import signal
import threading
from types import FrameType

from absl import flags

from tpugraphs_rank import commands

# Exit statuses, as shells use them.
CTRL_C = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
  """The process got SIGTERM. Whatever handles Ctrl-C handles it in the same way."""


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
  """Lets SIGTERM raise `Terminated`, so that all blocks on the way end what they started."""
  if threading.current_thread() is not threading.main_thread():
    yield  # Only the main thread may handle signals.
    return

  def leave(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise Terminated

  before = signal.signal(signal.SIGTERM, leave)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def message(terminated: bool, kept: str | None) -> str:
  """What an interrupted command prints.

  Args:
    terminated: whether it was SIGTERM.
    kept: what the command keeps and resumes from; "": nothing yet; None: it has not stated that it
      resumes.
  """
  what = "terminated" if terminated else "interrupted"
  if kept:
    return f"{what}; {kept}; `{commands.running()}` resumes"
  state = "every file that was written is complete" if kept is None else "nothing was written yet"
  return f"{what}; {state}; run `{commands.running()}` again"


def kept(what: str, flag: str) -> str:
  """States that the folder in a flag keeps something; "" if the folder does not exist.

  Args:
    what: for instance "the measurements so far are kept".
    flag: name of the flag.
  """
  value = flags.FLAGS[flag].value
  return f"{what} in {value}" if value and pathlib.Path(value).exists() else ""
