"""A command that waits for a child process. test_app.py runs and ends it.

    python -m tests.cli.waiting_command NOTE

The child notes its number in the file NOTE, and NOTE.ended once it has ended itself.
"""

import os
import pathlib
import signal
import sys
import time

from tpugraphs_rank.cli import app
from tpugraphs_rank.cli import layerdag_demo
from tpugraphs_rank.collect.common import processes


def define_flags() -> None:
  """This command has no flags."""


def main(argv: list[str]) -> None:
  """Runs the child as `layerdag demo` runs the commands that it consists of."""
  del argv
  real = processes.run
  processes.run = lambda command, variables: real(
      [sys.executable, "-m", "tests.cli.waiting_command", *sys.argv[1:], "child"], variables)
  layerdag_demo._run("sample", "--count", 3)


def _child(note: pathlib.Path) -> None:
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  try:
    note.with_suffix(".number").write_text(str(os.getpid()))
    note.with_suffix(".number").rename(note)
    time.sleep(600)
  finally:
    note.with_suffix(".ended").touch()


if __name__ == "__main__":
  if sys.argv[2:]:
    _child(pathlib.Path(sys.argv[1]))
  sys.exit(app.run_command("waits", "tests.cli.waiting_command", []))
