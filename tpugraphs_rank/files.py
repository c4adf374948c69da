"""Atomic writing of files: under a temporary name, which is renamed once the file is complete."""

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import secrets
from typing import Any, BinaryIO

from tpugraphs_rank import errors

PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def atomic_write(path: PathLike) -> Iterator[BinaryIO]:
  """Opens a binary file that appears at `path` only once the block ends without an error.

  Raises:
    OutputError: the folder cannot be created or written.
  """
  path = pathlib.Path(path)
  handle = None
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    # `tempfile` would create files that only the owner can read. The mode of an ordinary file
    # follows the process's umask, and reading the umask would change it for other threads.
    handle = open(path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial"), "xb")
    with handle:
      yield handle
      handle.flush()
      os.fsync(handle.fileno())
    os.replace(handle.name, path)
    handle = None
  except errors.TpuGraphsRankError:
    raise
  except OSError as error:
    raise errors.OutputError(
        f"cannot write {path}: {error.strerror or error}; choose an output folder that you can "
        "write to and that has free space") from error
  finally:
    if handle is not None:
      with contextlib.suppress(OSError):
        os.unlink(handle.name)


def write_text(path: PathLike, text: str) -> None:
  """Writes `text` as UTF-8 with `\\n` line ends, atomically."""
  with atomic_write(path) as file:
    file.write(text.encode("utf-8"))


def write_json(path: PathLike, value: Any) -> None:
  """Writes `value` as indented JSON, atomically. NaN and infinity are refused: JSON lacks them."""
  write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: PathLike) -> Any:
  """Reads a JSON file.

  Raises:
    MissingDataError: there is no such file.
    DataError: it is not JSON; the message names the line and the column.
  """
  path = pathlib.Path(path)
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    raise errors.MissingDataError(f"no file {path}") from None
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise errors.DataError(f"{path} is not valid JSON: {error}") from error
  except OSError as error:
    raise errors.MissingDataError(f"cannot read {path}: {error.strerror}") from error
