"""Runs downloads in child processes and kills them at a chosen step. test_download.py runs it.

    python -m tests.data.killed_download ADDRESS FOLDER EXPECTED RUNS

A step is an operation on a file, or a chunk of a file that is read, received or unpacked. Each of
the runs, "7" or "7,3", starts with an empty folder. It is killed at step 7; if more steps are
listed, it is run and killed again; finally it runs to its end. "all" means "1", "2", ... until a
run ends by itself. Prints the number of killed runs; fails if a run ends with a tree that differs
from EXPECTED.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import itertools
import os
import pathlib
import shutil
import signal
import sys
from typing import Any

from tpugraphs_rank.data import archives
from tpugraphs_rank.data import download
from tpugraphs_rank.data import transfer

GRAPHS = 3  # Graphs in the archive at ADDRESS.

_STEPS = ("open", "os.", "shutil.", "fcntl.", "tempfile.")


def _kill_at(step: int) -> None:
  """Makes this process kill itself with SIGKILL just before that step."""
  left = itertools.count(step - 1, -1)

  def count() -> None:
    if next(left) == 0:
      os.kill(os.getpid(), signal.SIGKILL)

  def hook(event: str, args: Any) -> None:
    if event.startswith(_STEPS) and event not in ("os.kill", "os.listdir", "os.scandir"):
      count()

  check_stop = transfer.check_stop

  def counted(stop: Any) -> None:
    count()
    check_stop(stop)

  transfer.check_stop = counted
  sys.addaudithook(hook)


def _killed(remotes: Sequence[archives.Remote], root: pathlib.Path, step: int) -> bool:
  """Downloads in a child process; returns whether it reached the step that kills it."""
  process = os.fork()
  if process == 0:
    try:
      _kill_at(step)
      download.download(remotes, root, parallel=1)
      os._exit(0)
    except BaseException as error:  # pylint: disable=broad-except
      sys.stderr.write(f"{type(error).__name__}: {error}\n")
      os._exit(1)
  status = os.waitpid(process, 0)[1]
  if os.WIFEXITED(status) and os.WEXITSTATUS(status):
    sys.exit(f"failed, to be killed at {step}")
  return os.WIFSIGNALED(status)


def tree(root: pathlib.Path) -> dict[str, bytes]:
  """The content of all files except records and locks."""
  return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*")
          if path.is_file() and not (path.parent.name == "downloads" and
                                     path.suffix in (".json", ".lock"))}


def _plans(runs: str) -> Iterator[str]:
  return map(str, itertools.count(1)) if runs == "all" else iter(runs.split())


def main() -> None:
  address, folder, expected, runs = sys.argv[1:]
  # Data that a killed process has written is not lost, so syncing is not needed here.
  os.sync = lambda: None
  os.fsync = lambda _: None
  transfer._FIRST_WAIT = 0.0
  archive, = archives.collection_archives(["layout:xla:random"], ["valid"], base_url=address)
  # Few graphs, to limit the number of steps.
  remotes = [dataclasses.replace(archive, graphs=GRAPHS),
             archives.Remote("small.json", f"{address}small.json", pathlib.PurePosixPath(
                 "eval_indices/small.json"), is_archive=False)]
  # Import lazily imported modules once, not in every child process.
  download.download(remotes, pathlib.Path(folder) / "warm", parallel=1)
  killed = 0
  for plan in _plans(runs):
    root = pathlib.Path(folder) / "root"
    ended = not [_killed(remotes, root, int(step)) for step in plan.split(",")][0]
    killed += not ended
    download.download(remotes, root, parallel=1)
    actual = tree(root)
    assert actual == tree(pathlib.Path(expected)), f"another tree after {plan}: {sorted(actual)}"
    leftovers = {path.name for path in (root / "downloads").iterdir()}
    names = {"npz_layout_xla_random_valid.tar", "small.json"}
    allowed = {f"{name}{suffix}" for name in names for suffix in (".json", ".lock")}
    assert leftovers <= allowed, f"after {plan}: {leftovers - allowed}"
    assert all(result.was_complete for result in download.download(remotes, root))
    shutil.rmtree(root)
    if runs == "all" and ended:
      break
  print(killed)


if __name__ == "__main__":
  main()
