"""The name of the installed command, for messages that tell a user what to run."""

from collections.abc import Sequence
import pathlib
import shlex
import sys

NAME = "tpugraphs-rank"

# The words that started the command of this process; None: no command runs.
_running: tuple[str, ...] | None = None


def command(*words: str) -> str:
  """A command line as a message quotes it: `tpugraphs-rank train --run_dir runs/a`."""
  return "`" + " ".join((NAME, *words)) + "`"


def set_running(words: Sequence[str] | None) -> Sequence[str] | None:
  """Notes the command of this process: its words after the program's name; None: no command.

  Returns:
    The words that were noted before, so that a caller can restore them.
  """
  global _running
  before = _running
  _running = None if words is None else tuple(words)
  return before


def running() -> str:
  """The command line of this process, as files of results record it."""
  if _running is not None:
    return shlex.join((NAME, *_running))
  module = getattr(sys.modules.get("__main__"), "__spec__", None)
  program = f"python -m {module.name}" if module else pathlib.Path(sys.argv[0]).name
  return " ".join([program, *sys.argv[1:]])
