"""Runs the scripts of `experiments` in the process of the tests."""

import contextlib
import io
from typing import Any

from tests.helpers import commands
from tpugraphs_rank.cli import app


def run(name: str, *arguments: Any) -> commands.Result:
  """Runs `python -m experiments.NAME ARGUMENTS` in this process."""
  words = [str(argument) for argument in arguments]
  output, log = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(output), contextlib.redirect_stderr(log):
    status = app.run_command(name, f"experiments.{name}", words)
  return commands.Result([name, *words], status, output.getvalue(), log.getvalue())
