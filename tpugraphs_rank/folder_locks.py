"""One process at a time in a folder.

The lock is a file `.lock` in the folder, which names the process that holds it. The system releases
the lock of a process that ends, so a killed process blocks nobody.
"""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import json
import logging
import os
import pathlib
import socket
import time
from typing import BinaryIO

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files

NAME = ".lock"

_logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def hold(folder: files.PathLike, wait: bool = False) -> Iterator[None]:
  """Holds the lock of a folder, which is created if it does not exist.

  If the block leaves nothing in a folder that it created, the folder is removed again.

  Args:
    folder: the folder.
    wait: whether to wait for a process that holds the lock. Otherwise an error names it.

  Raises:
    RunDirectoryError: another process works in the folder.
    OutputError: the folder cannot be written.
  """
  folder = pathlib.Path(folder)
  is_new = not folder.exists()
  try:
    file = _acquire(folder, wait)
  except OSError as error:
    if isinstance(error, errors.TpuGraphsRankError):
      raise
    raise files.output_error(folder / NAME, error) from error
  try:
    yield
  finally:
    # Removed while it is locked: whoever waits for it notices that it is gone.
    with contextlib.suppress(OSError):
      os.unlink(folder / NAME)
    file.close()
    if is_new:
      with contextlib.suppress(OSError):
        folder.rmdir()


def _acquire(folder: pathlib.Path, wait: bool) -> BinaryIO:
  logged = False
  while True:
    folder.mkdir(parents=True, exist_ok=True)
    file = files.open_to_append(folder / NAME)
    try:
      if _lock(file, folder):
        file.truncate(0)
        file.write(json.dumps({
            "process": os.getpid(), "host": socket.gethostname()}).encode() + b"\n")
        file.flush()
        return file
      if not wait:
        raise errors.RunDirectoryError(
            f"{folder} is in use by {_holder(file)}; wait for it with --wait, end it, or choose "
            "another folder")
      if not logged:
        _logger.info("%s is in use by %s; waiting for it", folder, _holder(file))
        logged = True
    except BaseException:
      file.close()
      raise
    file.close()
    time.sleep(_POLL_SECONDS)


def _lock(file: BinaryIO, folder: pathlib.Path) -> bool:
  """Whether the lock is taken; False if another process holds it, or has just removed the file."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except (BlockingIOError, PermissionError):
    return False
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      raise
    _logger.warning("%s is on a file system without locks: make sure that no other process works "
                    "in it", folder)
    return True
  return bool(os.fstat(file.fileno()).st_nlink)


def _holder(file: BinaryIO) -> str:
  """The process in a lock file, in words."""
  try:
    file.seek(0)
    stored = files.parse_json(file.read(4096), NAME)
    return f"process {int(stored['process'])} on {escaping.shown(str(stored['host']))}"
  except (OSError, errors.DataError, KeyError, TypeError, ValueError):
    return "another process"
