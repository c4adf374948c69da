"""Runs the commands of `tpugraphs-rank` in the process of the tests.

  done = commands.run("train", "--run_dir", tmp_path / "run", "--epochs=1")
  assert done.returncode == 0, done.stderr

A command sees fresh flags, the current folder and the environment of the test, so that monkeypatch
works as usual. `run_process` runs one as a user does, in a process of its own.
"""

from collections.abc import Sequence
import contextlib
import functools
import importlib
import io
import os
import pathlib
import subprocess
import sys
from typing import Any, NamedTuple

from tpugraphs_rank.cli import __main__ as dispatcher
from tpugraphs_rank.cli import app

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Result(NamedTuple):
  """What a command left: like that of `subprocess.run`."""

  args: list[str]
  returncode: int
  stdout: str
  stderr: str


def run(*words: Any) -> Result:
  """Runs a command in this process: its name, then its arguments."""
  arguments = _words(words)
  output, log = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(output), contextlib.redirect_stderr(log):
    try:
      status = dispatcher.main(arguments)
    except SystemExit as error:  # As Python itself turns it into an exit status.
      status = error.code if isinstance(error.code, int) else int(error.code is not None)
  return Result(arguments, status, output.getvalue(), log.getvalue())


def process(*words: Any) -> list[str]:
  """The command line that runs a command in a process of its own."""
  return [sys.executable, "-m", "tpugraphs_rank.cli", *_words(words)]


def run_process(*words: Any, cwd: pathlib.Path = ROOT, **options: Any
                ) -> subprocess.CompletedProcess[str]:
  """Runs a command in a process of its own."""
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  return subprocess.run(process(*words), cwd=cwd, env=environment, capture_output=True, text=True,
                        stdin=subprocess.DEVNULL, check=False, **options)


def started(program: str, *arguments: Any, **options: Any) -> subprocess.Popen[str]:
  """Starts a Python program, and returns when it has printed "ready". It reads its input next."""
  process = subprocess.Popen(
      [sys.executable, "-c", program, *map(str, arguments)], cwd=ROOT, text=True,
      stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
  assert process.stdout is not None and process.stdout.readline() == "ready\n"
  return process


def _words(words: Sequence[Any]) -> list[str]:
  """The words of a command line; the first may hold several, as in "submission merge"."""
  return [*str(words[0]).split(), *map(str, words[1:])] if words else []


@functools.cache
def flag_names(name: str) -> set[str]:
  """The names of a command's flags."""
  module = importlib.import_module(dispatcher.module_name(name))
  resumes = dispatcher.COMMANDS[name].kept is not None
  with app.defined(module.define_flags) as defined:
    return {flag.name for flag in defined} | ({"wait"} if resumes else set())


def problem(words: Sequence[str]) -> str:
  """What is wrong with a command line in a text: an unknown command or flag; "" if nothing.

  Args:
    words: the words after the program's name. Upper-case words are placeholders.
  """
  if not words or words[0].isupper() or words[0] in ("--version", "--help"):
    return ""
  if any(name.startswith(f"{words[0]} ") for name in dispatcher.COMMANDS) and (
      len(words) == 1 or words[1].isupper()):
    return ""  # A group of commands.
  try:
    name, rest = dispatcher.find(words)
  except LookupError as error:
    return str(error.args[0])
  known = flag_names(name) | {"help", "helpfull"}
  for word in rest:
    if word.startswith("--") and len(word) > 2:
      flag = word[2:].partition("=")[0]
      if flag not in known and flag.removeprefix("no") not in known:
        return f"{name} has no flag --{flag}"
  return ""
