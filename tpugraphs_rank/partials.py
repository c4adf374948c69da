"""Temporary files next to the file that they will become, and the removal of those left behind.

A process that is killed cannot remove its temporary file. So each process locks its own while it
writes; the system releases the locks of a process that ends. A temporary file without a lock was
left behind, and the next process that writes in the folder removes it.
"""

from collections.abc import Iterator
import contextlib
import fcntl
import os
import pathlib
import re
import secrets
import time
from typing import BinaryIO

SUFFIX = ".partial"

# Bytes of a file's name that the usual file systems allow.
LONGEST_NAME = 255
_NAME = re.compile(r"\..*\.[0-9a-f]{16}\.partial")
# Seconds after which a process looks for leftovers in the same folder again: listing a large folder
# for each of its files would take long.
_AGAIN = 60.0

_looked: dict[pathlib.Path, float] = {}


def name_for(name: str) -> str:
  """A temporary name that is no longer than a file system allows, if `name` itself is not."""
  end = f".{secrets.token_hex(8)}{SUFFIX}"
  # Cut bytes, not characters: the limit is on bytes.
  start = os.fsencode(name)[:LONGEST_NAME - len(end) - 1]
  return f".{start.decode('utf-8', 'ignore')}{end}"


def create(path: pathlib.Path) -> BinaryIO:
  """Creates and locks the temporary file of a file, whose folder exists.

  Raises:
    OSError: it cannot be written.
  """
  while True:
    # `tempfile` would create files that only the owner can read. The mode of an ordinary file
    # follows the process's umask, and reading the umask would change it for other threads.
    handle = open(path.with_name(name_for(path.name)), "xb")
    with contextlib.suppress(OSError):  # A file system without locks.
      fcntl.flock(handle, fcntl.LOCK_EX)
    # Another process may have removed the file between these two calls.
    if os.fstat(handle.fileno()).st_nlink:
      return handle
    handle.close()


def remove_leftovers(folder: pathlib.Path) -> None:
  """Removes what killed processes left in a folder; at most once a minute for each folder."""
  now = time.monotonic()
  if now - _looked.get(folder, -_AGAIN) < _AGAIN:
    return
  _looked[folder] = now
  with contextlib.suppress(OSError):
    for path in _leftovers(folder):
      with contextlib.suppress(OSError), open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # An OSError if its process still writes.
        os.unlink(path)


def look_again() -> None:
  """Forgets which folders were looked through, for a command that runs in the same process."""
  _looked.clear()


def _leftovers(folder: pathlib.Path) -> Iterator[str]:
  with os.scandir(folder) as entries:
    for entry in entries:
      if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
        yield entry.path
