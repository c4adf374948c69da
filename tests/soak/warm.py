"""Runs commands in forks of a process that has imported everything already, and kills them.

Importing TensorFlow takes longer than a small training. The server imports the commands' modules,
starts no thread of its own and no TensorFlow runtime, and forks for each run. A fork does what
`python -m MODULE ARGUMENTS` does, in a session of its own.

  with warm.Server() as server:
    done = server.run(warm.Run("tpugraphs_rank.cli", ["train", ...], folder, seconds=3.5))

The server is `python -m tests.soak.warm MODULE ...`, a process that reads requests from its
standard input and answers on its standard output, one JSON value a line.
"""

from collections.abc import Mapping, Sequence
import ctypes
import dataclasses
import importlib
import json
import os
import pathlib
import random
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What takes long to import, for the commands on which TensorFlow's time depends.
HEAVY = ("tensorflow", "tensorflow_gnn", "tensorflow_ranking", "sklearn.ensemble",
         "tpugraphs_rank.training.trainer", "tpugraphs_rank.training.run",
         "tpugraphs_rank.training.prediction", "tpugraphs_rank.models.search_spaces",
         "tpugraphs_rank.synthesis.layerdag.training", "tpugraphs_rank.synthesis.layerdag.model",
         "tpugraphs_rank.evaluation.task", "tpugraphs_rank.evaluation.plots",
         "tpugraphs_rank.evaluation.report", "tpugraphs_rank.sweeps.sweep")
# Seconds for the processes of a killed group to disappear.
_GONE_SECONDS = 10.0
_TIMEOUT = 1800.0
_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass(frozen=True)
class Run:
  """A run of a program.

  Attributes:
    module: what `python -m` runs.
    words: its arguments.
    folder: where it writes; operations on files in it are counted.
    seconds: time after which the run and its children are killed.
    operation: the operation on files before which they are killed, counted from 1.
    python: the interpreter of a new process; forks have the server's.
    cpu: whether the time of a fork is its own CPU time, which does not depend on what else the
      machine does. Wrong for a run that waits for others.
  """

  module: str
  words: Sequence[str]
  folder: pathlib.Path
  seconds: float | None = None
  operation: int | None = None
  python: str = sys.executable
  cpu: bool = True


@dataclasses.dataclass(frozen=True)
class Done:
  """How a run ended.

  Attributes:
    status: exit status; None if it was killed.
    seconds: how long it took, as in `Run.cpu`.
    operations: files opened for writing, renamed, removed and folders created and removed, in the
      process itself; 0 if it was killed or is not a fork.
    messages: the end of its standard error.
  """

  status: int | None
  seconds: float
  operations: int = 0
  messages: str = ""


def environment() -> dict[str, str]:
  """The variables of all runs."""
  return {**os.environ, "TPUGRAPHS_RANK_CACHE": "", "TF_CPP_MIN_LOG_LEVEL": "3",
          "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(ROOT)}


def run_process(run: Run) -> Done:
  """Runs a program as a new process, as a user does."""
  start = time.monotonic()
  with open(os.devnull, "rb") as null, open(run.folder.parent / "messages", "w+b") as messages:
    process = subprocess.Popen(
        [run.python, "-m", run.module, *run.words], cwd=ROOT, stdin=null,
        stdout=subprocess.DEVNULL, stderr=messages, start_new_session=True, env=environment())
    killed = _wait_or_kill(process.pid, run.seconds)
    status = process.wait()
    if killed:
      _wait_for_group(process.pid)
    messages.seek(0)
    text = messages.read().decode("utf-8", "replace")
  return Done(None if killed else status, time.monotonic() - start, 0, text[-4000:])


def _wait_or_kill(pid: int, seconds: float | None) -> bool:
  """Waits for the leader of a group; kills the group after some seconds. Whether it was killed."""
  handle = os.pidfd_open(pid)
  try:
    ended, _, _ = select.select([handle], [], [], _TIMEOUT if seconds is None else seconds)
  finally:
    os.close(handle)
  killed = not ended
  if killed:
    os.killpg(pid, signal.SIGKILL)
    if seconds is None:
      raise TimeoutError(f"a run takes more than {_TIMEOUT} s")
  return killed


def _wait_for_group(group: int) -> None:
  """Waits until no process of a killed group is left."""
  end = time.monotonic() + _GONE_SECONDS
  while time.monotonic() < end:
    try:
      os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
      return
    time.sleep(0.002)


class Server:
  """The process that forks; a context manager."""

  def __init__(self, modules: Sequence[str] = HEAVY):
    """Starts it.

    Args:
      modules: what it imports in addition to the modules of all commands.
    """
    self._process = subprocess.Popen(
        [sys.executable, "-m", "tests.soak.warm", *modules], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())

  def __enter__(self) -> "Server":
    return self

  def __exit__(self, *_: object) -> None:
    self._process.communicate("")

  def run(self, run: Run) -> Done:
    """Runs a program in a fork.

    Raises:
      RuntimeError: the server has died.
    """
    assert self._process.stdin is not None and self._process.stdout is not None
    request = {**dataclasses.asdict(run), "folder": str(run.folder)}
    self._process.stdin.write(json.dumps(request) + "\n")
    self._process.stdin.flush()
    answer = self._process.stdout.readline()
    if not answer:
      raise RuntimeError("the server of the soak has died")
    return Done(**json.loads(answer))


# ---- the server ----------------------------------------------------------------------------------


def _serve(modules: Sequence[str]) -> None:
  requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
  answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
  with open(os.devnull, "r+b") as null:
    os.dup2(null.fileno(), 0)
    os.dup2(null.fileno(), 1)
  from tpugraphs_rank.cli import __main__ as dispatcher
  for name in dispatcher.COMMANDS:
    importlib.import_module(dispatcher.module_name(name))
  for module in modules:
    importlib.import_module(module)
  if threading.active_count() > 1:
    raise RuntimeError(f"an import started a thread, so forks may hang: {threading.enumerate()}")
  for line in requests:
    done = _run_fork(json.loads(line))
    answers.write(json.dumps(dataclasses.asdict(done)) + "\n")
    answers.flush()


def _run_fork(request: Mapping[str, Any]) -> Done:
  folder = pathlib.Path(request["folder"])
  path, counted = folder.parent / "messages", folder.parent / "operations"
  counted.unlink(missing_ok=True)
  start = time.monotonic()
  pid = os.fork()
  if not pid:
    _work(request, folder, path, counted)
  _wait_or_kill(pid, None if request["cpu"] else request["seconds"])
  _, raw, usage = os.wait4(pid, 0)
  seconds = usage.ru_utime + usage.ru_stime if request["cpu"] else time.monotonic() - start
  status = os.waitstatus_to_exitcode(raw)
  killed = status in (-signal.SIGKILL, -signal.SIGPROF)
  if killed:
    _wait_for_group(pid)
  text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
  operations = int(counted.read_text()) if counted.exists() else 0
  return Done(None if killed else status, seconds, operations, text[-4000:])


def _work(request: Mapping[str, Any], folder: pathlib.Path, messages: pathlib.Path,
          counted: pathlib.Path) -> None:
  """What a fork does; it never returns."""
  status = 70
  try:
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # It ends with the server.
    with open(messages, "wb") as file:
      os.dup2(file.fileno(), 2)
    # As in a new process: nothing random may be the same in all forks.
    random.seed()
    importlib.import_module("numpy").random.seed()
    operations = _Operations(folder, request["operation"])
    sys.addaudithook(operations)
    if request["cpu"] and request["seconds"] is not None:
      # Ends the process at once, as SIGKILL does: nothing handles this signal.
      signal.signal(signal.SIGPROF, signal.SIG_DFL)
      signal.setitimer(signal.ITIMER_PROF, max(request["seconds"], 0.001))
    sys.argv = [request["module"], *request["words"]]
    try:
      runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
      status = 0
    except SystemExit as error:
      status = error.code if isinstance(error.code, int) else int(error.code is not None)
    threading._shutdown()  # type: ignore[attr-defined]
    counted.write_text(str(operations.count))
  except BaseException:
    traceback.print_exc()
    status = status or 1
  finally:
    try:
      sys.stderr.flush()
    finally:
      os._exit(status)


class _Operations:
  """Counts the operations on files in a folder, and kills the group before one of them."""

  _EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"})

  def __init__(self, folder: pathlib.Path, last: int | None):
    self.count = 0
    self._folder = str(folder)
    self._last = last

  def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
    if event not in self._EVENTS or not arguments:
      return
    path = arguments[0]
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
      return
    if isinstance(path, bytes):
      path = os.fsdecode(path)
    if not isinstance(path, (str, os.PathLike)) or not str(path).startswith(self._folder):
      return
    self.count += 1
    if self.count == self._last:
      os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
  _serve(sys.argv[1:])
