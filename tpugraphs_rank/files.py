"""Atomic writing of files: under a temporary name, which is renamed once the file is complete.

Also the only reader of JSON in the package, because the files may come from anywhere.
"""

import codecs
import collections
from collections.abc import Iterable, Iterator
import contextlib
import errno
import json
import logging
import math
import os
import pathlib
import shutil
import stat
import tempfile
from typing import Any, BinaryIO

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import partials

PathLike = str | os.PathLike[str]

# Bytes of a file that is read at once: protobuf, whose messages have at most 2 GB, sets the limit.
MAX_FILE_BYTES = 2**31 - 1
# Limits of the JSON that is read.
MAX_JSON_BYTES = 256 * 2**20
MAX_JSON_DEPTH = 64
MAX_JSON_DIGITS = 100
# Of a whole path, in bytes: the limit of Linux.
LONGEST_PATH = 4095

# Files that operating systems and file managers add to folders, in lower case.
_COMPANIONS = frozenset({".ds_store", "thumbs.db", "desktop.ini"})


def is_companion(path: PathLike) -> bool:
  """Whether an operating system or file manager added this file to a folder, judging by its name.

  macOS adds `.DS_Store`, and `._NAME` next to a file `NAME` on foreign disks and in archives, where
  it may also collect them in `__MACOSX`. Windows adds `Thumbs.db` and `desktop.ini`.
  """
  path = pathlib.PurePath(path)
  return (path.name.startswith("._") or path.name.lower() in _COMPANIONS
          or "__MACOSX" in path.parts)


def without_companions(paths: Iterable[pathlib.Path], logger: logging.Logger,
                       place: PathLike) -> list[pathlib.Path]:
  """The paths that are no companion files. A log line counts the others.

  Args:
    paths: files of a folder.
    logger: where to log the number.
    place: the folder, for the log.
  """
  kept: list[pathlib.Path] = []
  passed_over: list[pathlib.Path] = []
  for path in paths:
    (passed_over if is_companion(path) else kept).append(path)
  if passed_over:
    names = ", ".join([*sorted(path.name for path in passed_over)[:3], "..."][:len(passed_over)])
    logger.info("%s: passed over %d %s of the operating system (%s)", place, len(passed_over),
                "file" if len(passed_over) == 1 else "files", names)
  return kept


def why_no_path(text: str) -> str:
  """Why no file can have this path, as the end of a sentence; "" if one can."""
  if "\0" in text:
    return "holds a null character; expected a path"
  if len(os.fsencode(text)) > LONGEST_PATH:
    return f"is too long; expected a path of at most {LONGEST_PATH:,} bytes"
  if any(len(os.fsencode(part)) > partials.LONGEST_NAME for part in text.split(os.sep)):
    return f"has a part that is too long; expected names of at most {partials.LONGEST_NAME} bytes"
  return ""


def expanded(path: PathLike) -> pathlib.Path:
  """A path in which `~` and `~user` are replaced by the home folder.

  Raises:
    ConfigError: there is no such user, or no file can have this path.
  """
  problem = why_no_path(os.fspath(path))
  if problem:
    raise errors.ConfigError(f"{escaping.quoted(str(path))} {problem}")
  try:
    return pathlib.Path(path).expanduser()
  except RuntimeError:
    raise errors.ConfigError(
        f"{path} is in the home folder of a user that does not exist; expected ~ or the name of "
        "a user of this machine; write the whole path") from None


def check_regular(path: PathLike, expected: str) -> None:
  """Checks that something is an ordinary file, so that reading it ends.

  Args:
    path: the input.
    expected: what it should be, for instance "a JSON file".

  Raises:
    MissingDataError: there is no such file, or it is a folder.
    DataError: it is a pipe, a socket or a device.
  """
  shown = escaping.printable(str(path))
  try:
    mode = os.stat(path).st_mode
  except FileNotFoundError:
    raise errors.MissingDataError(f"no file {shown}") from None
  except OSError as error:
    raise errors.MissingDataError(f"cannot read {shown}: {error.strerror}") from error
  except ValueError as error:  # The name holds a null character.
    raise errors.MissingDataError(f"no file {shown}: {error}") from None
  if stat.S_ISDIR(mode):
    raise errors.MissingDataError(f"no file {shown}: it is a folder; expected {expected}")
  if not stat.S_ISREG(mode):
    raise errors.DataError(
        f"{shown} is {_special(mode)}, which may never end; expected {expected}; copy what it "
        "contains to an ordinary file first")


def _special(mode: int) -> str:
  if stat.S_ISFIFO(mode):
    return "a pipe"
  return "a socket" if stat.S_ISSOCK(mode) else "a device"


def read_bytes(path: PathLike, expected: str, limit: int = MAX_FILE_BYTES) -> bytes:
  """Reads a whole file.

  Args:
    path: the file.
    expected: what it should be, for instance "a JSON file".
    limit: the most bytes that it may have.

  Raises:
    MissingDataError: there is no such file, or it cannot be read.
    DataError: it is not an ordinary file.
    LimitError: it has more bytes than `limit`.
  """
  check_regular(path, expected)
  try:
    with open(path, "rb") as file:
      size = os.fstat(file.fileno()).st_size
      if size <= limit:
        return file.read()
  except OSError as error:
    raise errors.MissingDataError(
        f"cannot read {escaping.printable(str(path))}: {error.strerror}") from error
  raise errors.LimitError(
      f"{escaping.printable(str(path))} has {size:,} bytes; the limit is {limit:,}; expected "
      f"{expected}")


@contextlib.contextmanager
def atomic_write(path: PathLike) -> Iterator[BinaryIO]:
  """Opens a binary file that appears at `path` only once the block ends without an error.

  What killed processes left in the folder is removed; see `partials`.

  Raises:
    OutputError: the folder cannot be created or written.
  """
  path = pathlib.Path(path)
  handle = None
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
      raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not path.is_file():  # Renaming would replace a device such as /dev/null.
      raise errors.OutputError(
          f"cannot write {path}: it is {_special(os.stat(path).st_mode)}; expected the name of an "
          "ordinary file")
    partials.remove_leftovers(path.parent)
    handle = partials.create(path)
    with handle:
      yield handle
      handle.flush()
      os.fsync(handle.fileno())
      os.replace(handle.name, path)
    handle = None
  except errors.TpuGraphsRankError:
    raise
  except OSError as error:
    raise output_error(path, error) from error
  finally:
    if handle is not None:
      with contextlib.suppress(OSError):
        os.unlink(handle.name)


def check_output(path: PathLike) -> None:
  """Checks, before long work, that a file can be written; nothing is created.

  The nearest folder that exists must take a temporary file.

  Raises:
    OutputError: as `atomic_write`.
  """
  path = pathlib.Path(path)
  try:
    if path.is_dir():
      raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise output_error(path, error) from error


def without_links(folder: PathLike, *names: str) -> pathlib.Path:
  """The path of an output below a folder that may come from anywhere, such as a run directory.

  Args:
    folder: the folder. It may itself be a link, because the user has named it.
    *names: of the folders and of the output in it.

  Raises:
    OutputError: one of them is a link, which could lead to a folder outside.
  """
  path = pathlib.Path(folder)
  for name in names:
    path /= name
    if path.is_symlink():
      raise errors.OutputError(
          f"cannot write {path}: it is a symbolic link; remove it, or replace it by a folder")
  return path


def open_to_append(path: PathLike) -> BinaryIO:
  """Opens a file for appending and reading; creates it if it does not exist.

  For locks and logs in folders that may come from anywhere: a link could lead to a file outside the
  folder, and opening a pipe would wait for another process. Both are refused.

  Raises:
    OutputError: it is a link or no regular file, or cannot be written.
  """
  path = pathlib.Path(path)
  flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
  for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"):
    flags |= getattr(os, name, 0)
  try:
    handle = os.open(path, flags, 0o666)
  except OSError as error:
    if error.errno == errno.ELOOP:
      raise errors.OutputError(f"cannot write {path}: it is a symbolic link; remove it") from error
    raise output_error(path, error) from error
  if not stat.S_ISREG(os.fstat(handle).st_mode):
    os.close(handle)
    raise errors.OutputError(f"cannot write {path}: it is not a regular file; remove it")
  return os.fdopen(handle, "a+b")


def output_error(path: PathLike, error: OSError) -> errors.OutputError:
  """The typed error for a failure to write: what is wrong with the output, and the remedy."""
  return errors.OutputError(f"cannot write {path}: {_problem(pathlib.Path(path), error)}")


def _problem(path: pathlib.Path, error: OSError) -> str:
  text = error.strerror or str(error)
  match error.errno:
    case errno.ENAMETOOLONG:
      longest = max(path.parts, key=lambda part: len(os.fsencode(part)))
      return (f"{text}: {longest[:20]}... has {len(os.fsencode(longest))} bytes; choose a name of "
              f"at most {partials.LONGEST_NAME}, and a shorter path")
    case errno.ENOSPC | errno.EDQUOT:
      return f"{text}; free some space, or choose an output folder on another disk"
    case errno.ENOTDIR | errno.EEXIST:
      return f"{text}: a file is where a folder is expected; choose another output folder"
    case errno.EISDIR:
      return f"{text}; choose another name for the file"
  return f"{text}; choose an output folder that you can write to"


def copy(source: PathLike, path: PathLike) -> None:
  """Copies the content of a file, atomically.

  Raises:
    MissingDataError: there is no source.
    OutputError: the copy cannot be written.
  """
  check_regular(source, "a file to copy")
  with open(source, "rb") as original, atomic_write(path) as file:
    shutil.copyfileobj(original, file)


def write_text(path: PathLike, text: str) -> None:
  """Writes `text` as UTF-8 with `\\n` line ends, atomically."""
  with atomic_write(path) as file:
    file.write(text.encode("utf-8"))


def write_json(path: PathLike, value: Any) -> None:
  """Writes `value` as indented JSON, atomically. NaN and infinity are refused: JSON lacks them."""
  write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: PathLike) -> Any:
  """Reads a JSON file; see `parse_json` for what is accepted.

  Raises:
    MissingDataError: there is no such file, or it cannot be read.
    DataError: it is not valid JSON, or has more than MAX_JSON_BYTES.
  """
  return parse_json(read_bytes(path, "a JSON file", MAX_JSON_BYTES), str(path))


def parse_json(text: str | bytes, source: str) -> Any:
  """Parses JSON that somebody else may have written.

  A byte order mark at the beginning is ignored. Stricter than `json.loads`: a key may occur only
  once in an object; numbers must be finite and have at most MAX_JSON_DIGITS digits; lists and
  objects may be nested MAX_JSON_DEPTH deep; strings must be valid Unicode.

  Args:
    text: the JSON text; bytes are UTF-8.
    source: name of the file, and of the key if it is a part of one, for error messages.

  Raises:
    DataError: the text is anything else; the message names the source and the place.
  """
  try:
    if isinstance(text, bytes):
      if text[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise ValueError("it is encoded in UTF-16; save it as UTF-8")
      text = text.decode("utf-8")
    value = json.loads(text.removeprefix("\ufeff"), **_HOOKS)
    _check_depth(value)
    if "\\ud" in text.lower():
      _check_unicode(value)
  except RecursionError:
    raise errors.DataError(f"{source} is not valid JSON: {_TOO_DEEP}") from None
  except ValueError as error:
    raise errors.DataError(f"{source} is not valid JSON: {error}") from None
  return value


def parse_json_values(text: str, source: str) -> Iterator[tuple[int, Any]]:
  """Parses JSON values that follow one another, with or without space in between.

  What is accepted is as in `parse_json`.

  Args:
    text: the values, without a byte order mark.
    source: name of the file for error messages.

  Yields:
    The position at which each value starts, and the value.

  Raises:
    DataError: the text is anything else; the message names the source and the place.
  """
  decoder = json.JSONDecoder(**_HOOKS)
  position = _after_space(text, 0)
  while position < len(text):
    try:
      value, end = decoder.raw_decode(text, position)
      _check_depth(value)
      if "\\ud" in text[position:end].lower():
        _check_unicode(value)
    except RecursionError:
      raise errors.DataError(
          f"{source} is not valid JSON in the value that starts at character {position:,}: "
          f"{_TOO_DEEP}") from None
    except json.JSONDecodeError as error:
      raise errors.DataError(f"{source} is not valid JSON: {error}") from None
    except ValueError as error:
      raise errors.DataError(
          f"{source} is not valid JSON in the value that starts at character {position:,}: {error}"
          ) from None
    yield position, value
    position = _after_space(text, end)


def _after_space(text: str, position: int) -> int:
  while position < len(text) and text[position] in " \t\r\n":
    position += 1
  return position


_TOO_DEEP = f"lists or objects are nested more than {MAX_JSON_DEPTH} deep"


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  values = dict(pairs)
  if len(values) < len(pairs):
    counts = collections.Counter(key for key, _ in pairs)
    repeated = next(key for key, count in counts.items() if count > 1)
    raise ValueError(f"the key {_shortened(repeated)!r} occurs twice in one object; keep one")
  return values


def _no_constant(name: str) -> Any:
  raise ValueError(f"{name} is not a JSON number; expected finite numbers")


def _short_int(digits: str) -> int:
  count = len(digits.removeprefix("-"))
  if count > MAX_JSON_DIGITS:
    raise ValueError(f"the number {_shortened(digits)} has {count} digits; expected at most "
                     f"{MAX_JSON_DIGITS}")
  return int(digits)


def _finite(digits: str) -> float:
  value = float(digits)
  if not math.isfinite(value):
    raise ValueError(f"the number {_shortened(digits)} is too large; expected finite numbers")
  return value


def _shortened(text: str) -> str:
  return text if len(text) <= 40 else f"{text[:37]}..."


_HOOKS: dict[str, Any] = {
    "object_pairs_hook": _unique_keys, "parse_constant": _no_constant, "parse_int": _short_int,
    "parse_float": _finite}


def _check_unicode(value: Any) -> None:
  """Raises ValueError if a string holds half a character, which cannot be written or printed."""
  try:
    json.dumps(value, ensure_ascii=False).encode("utf-8")
  except UnicodeEncodeError as error:
    raise ValueError(
        f"a string holds {error.object[error.start]!r}, which is half a Unicode character"
        ) from None


def _check_depth(value: Any) -> None:
  """Raises ValueError if lists and objects are nested too deeply; does not recurse."""
  level = [value]
  for _ in range(MAX_JSON_DEPTH):
    level = [inner for outer in level if isinstance(outer, (dict, list))
             for inner in (outer.values() if isinstance(outer, dict) else outer)
             if isinstance(inner, (dict, list))]
    if not level:
      return
  raise ValueError(_TOO_DEEP)
