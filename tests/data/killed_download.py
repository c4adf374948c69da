"""Downloads in processes of their own, killed at a chosen step. Run by test_download.py.

    python -m tests.data.killed_download ADDRESS FOLDER EXPECTED RUNS

A step is an operation on a file, or a piece of a file that is read, received or unpacked. Each of
the runs, "7" or "7,3", starts with nothing: it is killed at step 7, and then, where more steps are
named, run and killed again; at last it is run to its end. "all" stands for "1", "2", ... until a
run ends by itself. Prints how many runs were killed; fails where one ends in another tree than
EXPECTED.
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

GRAPHS = 3  # Of the archive at ADDRESS.

_STEPS = ("open", "os.", "shutil.", "fcntl.", "tempfile.")


def _kill_at(step: int) -> None:
  """From now on this process dies by SIGKILL just before that step."""
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
  """Downloads in a process of its own; whether it came as far as the step that kills it."""
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
  """Content of all files but records and locks."""
  return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*")
          if path.is_file() and not (path.parent.name == "downloads" and
                                     path.suffix in (".json", ".lock"))}


def _plans(runs: str) -> Iterator[str]:
  return map(str, itertools.count(1)) if runs == "all" else iter(runs.split())


def main() -> None:
  address, folder, expected, runs = sys.argv[1:]
  # A killed process takes nothing with it that it has written; only a power cut would.
  os.sync = lambda: None
  os.fsync = lambda _: None
  transfer._FIRST_WAIT = 0.0
  archive, = archives.collection_archives(["layout:xla:random"], ["valid"], base_url=address)
  # Of few graphs, so that there are not too many steps.
  remotes = [dataclasses.replace(archive, graphs=GRAPHS),
             archives.Remote("small.json", f"{address}small.json", pathlib.PurePosixPath(
                 "eval_indices/small.json"), is_archive=False)]
  # What is imported on first use is imported once, not in every process.
  download.download(remotes, pathlib.Path(folder) / "warm", parallel=1)
  killed = 0
  for plan in _plans(runs):
    root = pathlib.Path(folder) / "root"
    ended = not [_killed(remotes, root, int(step)) for step in plan.split(",")][0]
    killed += not ended
    download.download(remotes, root, parallel=1)
    found = tree(root)
    assert found == tree(pathlib.Path(expected)), f"another tree after {plan}: {sorted(found)}"
    leftovers = {path.name for path in (root / "downloads").iterdir()}
    names = {"npz_layout_xla_random_valid.tar", "small.json"}
    allowed = {f"{name}{suffix}" for name in names for suffix in (".json", ".lock")}
    assert leftovers <= allowed, f"after {plan}: {leftovers - allowed}"
    assert all(brought.was_complete for brought in download.download(remotes, root))
    shutil.rmtree(root)
    if runs == "all" and ended:
      break
  print(killed)


if __name__ == "__main__":
  main()
