"""Private folders for what travels between processes, and the removal of those left behind.

A process locks a file in its folder for as long as it lives. A folder without such a lock belonged
to a process that was killed, and the next process that works in the same place removes it.
"""

from collections.abc import Iterator
import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
import time

from tpugraphs_rank import errors
from tpugraphs_rank import files

_PREFIX = "tpugraphs_rank_beam_"
_LOCK = ".lock"
# Seconds that a process has to create the lock of its new folder.
_GRACE = 60.0


@contextlib.contextmanager
def folder(parent: files.PathLike | None) -> Iterator[pathlib.Path]:
  """A folder that only this user can write, for the time of the block.

  Args:
    parent: where to create it; None: in the system's folder for temporary files.

  Raises:
    OutputError: it cannot be created.
  """
  place = pathlib.Path(tempfile.gettempdir() if parent is None else files.expanded(parent))
  lock = None
  try:
    place.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(place)
    path = pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place)).absolute()
    lock = open(path / _LOCK, "wb")
    with contextlib.suppress(OSError):  # A file system without locks.
      fcntl.flock(lock, fcntl.LOCK_EX)
  except OSError as error:
    raise errors.OutputError(
        f"cannot create a folder in {place}: {error.strerror or error}; choose another "
        "--work_folder") from error
  try:
    yield path
  finally:
    shutil.rmtree(path, ignore_errors=True)
    lock.close()


def _remove_leftovers(place: pathlib.Path) -> None:
  for path in place.glob(f"{_PREFIX}*"):
    with contextlib.suppress(OSError):  # Another user's, or another process removes it now.
      if path.stat().st_uid == os.getuid() and _is_left(path):
        shutil.rmtree(path, ignore_errors=True)


def _is_left(path: pathlib.Path) -> bool:
  try:
    with open(path / _LOCK, "rb") as lock:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return True
  except FileNotFoundError:
    return time.time() - path.stat().st_mtime > _GRACE
  except OSError:  # Its process lives.
    return False
