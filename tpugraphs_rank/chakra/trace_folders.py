"""Folders of traces that are written as a whole, or not at all."""

from collections.abc import Iterator
import contextlib
import fcntl
import os
import pathlib
import re
import secrets
import shutil

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import partials
from tpugraphs_rank.chakra import graphs
from tpugraphs_rank.chakra import ranks

# What simulators read: traces, and the ranks of process groups.
OF_SIMULATORS = (*graphs.SUFFIXES, f".{ranks.GROUPS}")
_LEFTOVER = re.compile(r"\.traces-\d+(-[0-9a-f]{16})?\.partial")


@contextlib.contextmanager
def staged(folder: files.PathLike) -> Iterator[pathlib.Path]:
  """A folder to write to; what it holds at the end moves to `folder`, after an error nothing does.

  Args:
    folder: without traces and groups of ranks so far; it is created if necessary.

  Raises:
    OutputError: the folder has traces or groups already, or cannot be written.
  """
  folder = pathlib.Path(folder)
  if folder.exists() and not folder.is_dir():
    raise errors.OutputError(
        f"{folder} is a file; expected a folder for the traces; choose another")
  try:
    old = sorted(path.name for path in (folder.iterdir() if folder.exists() else ())
                 if path.name.endswith(OF_SIMULATORS))
    if old:
      kind = "traces" if any(name.endswith(graphs.SUFFIXES) for name in old) else (
          "groups of ranks")
      raise errors.OutputError(
          f"{folder} has {kind} already, such as {escaping.shown(old[0])}; simulators would read "
          "old and new files together; choose another folder, or remove those files")
    is_new = not folder.exists()
    with staging(folder) as temporary:
      yield temporary
      for path in sorted(temporary.iterdir()):
        os.replace(path, folder / path.name)
  except OSError as error:
    if isinstance(error, errors.TpuGraphsRankError):
      raise
    raise errors.OutputError(
        f"cannot write traces to {folder}: {error.strerror}; choose a folder that you can write to"
        ) from error
  finally:
    with contextlib.suppress(OSError, UnboundLocalError):
      if is_new:
        folder.rmdir()  # Only if nothing was written.


@contextlib.contextmanager
def staging(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """A temporary folder in a folder, which is created if necessary; it is removed at the end.

  A killed process leaves its own behind. The lock on it is free then, and the next call in the same
  folder removes it.

  Raises:
    OSError: it cannot be created.
  """
  folder.mkdir(parents=True, exist_ok=True)
  _remove_leftovers(folder)
  temporary, handle = _create(folder)
  try:
    yield temporary
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
    os.close(handle)


def _create(folder: pathlib.Path) -> tuple[pathlib.Path, int]:
  while True:
    path = folder / f".traces-{os.getpid()}-{secrets.token_hex(8)}{partials.SUFFIX}"
    path.mkdir()
    # Another process may take the folder for a leftover until it is locked.
    with contextlib.suppress(FileNotFoundError):
      handle = os.open(path, os.O_RDONLY)
      with contextlib.suppress(OSError):  # A file system without locks.
        fcntl.flock(handle, fcntl.LOCK_EX)
      if path.exists():
        return path, handle
      os.close(handle)


def _remove_leftovers(folder: pathlib.Path) -> None:
  for path in folder.iterdir():
    if _LEFTOVER.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
      with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
          fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError if its process still writes.
          shutil.rmtree(path, ignore_errors=True)
        finally:
          os.close(handle)
