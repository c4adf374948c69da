"""The bytes of a trace file: messages, each with its length as a varint in front.

A file may be compressed with gzip, which its content shows. Reading takes no more memory than the
largest message, and never more than a file holds, whatever lengths it states.
"""

from collections.abc import Iterator
import contextlib
import gzip
import io
import os
import pathlib
from typing import BinaryIO
import zlib

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files

# The largest real nodes have some hundred kilobytes: the text of long lists of tensors.
MAX_MESSAGE_BYTES = 16 << 20
# Unpacked bytes of a file, so that a small compressed one cannot run for hours.
MAX_FILE_BYTES = 8 << 30
# Bytes that any compressed file may unpack to, and how many for each of its own bytes: real traces
# become 5 to 40 times as large, while gzip reaches a factor of thousand.
FREE_UNPACKED = 8 << 20
UNPACKED_RATIO = 64
_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20
# A length is a varint of at most 5 bytes in practice; 10 is the limit for 64 bits.
_VARINT_BYTES = 10


@contextlib.contextmanager
def open_content(path: files.PathLike) -> Iterator[tuple[BinaryIO, str, int | None]]:
  """Opens a file for reading, unpacked if it is compressed with gzip.

  Yields:
    The content, for the functions of this module; how messages call a position in it ("byte" or
    "unpacked byte"); and its size in bytes, None if it is compressed.

  Raises:
    MissingDataError: there is no such file, or it cannot be read.
    DataError: it is no regular file, or is empty.
  """
  path = pathlib.Path(path)
  try:
    if path.is_dir():
      raise errors.DataError(f"{path} is a folder; expected a trace file; name a file in it")
    if path.exists() and not path.is_file():
      raise errors.DataError(
          f"{path} is not a regular file; expected a trace file; write the trace to a file first")
    file = open(path, "rb")
  except FileNotFoundError:
    raise errors.MissingDataError(
        f"no file {path}; check the path, or list the folder for names that end in .et") from None
  except OSError as error:
    raise errors.MissingDataError(f"cannot read {path}: {error.strerror}; check its permissions"
                                  ) from error
  except ValueError as error:
    if isinstance(error, errors.TpuGraphsRankError):
      raise
    raise errors.MissingDataError(f"no file {str(path)!r}: {error}") from None
  with file:
    magic = file.read(len(_GZIP))
    file.seek(0)
    if not magic:
      raise errors.DataError(f"{path} is empty; expected a Chakra trace; write or copy it again")
    if magic == _GZIP:
      with _Unpacked(file, path) as unpacked:
        yield io.BufferedReader(unpacked, _CHUNK), "unpacked byte", None
    else:
      yield file, "byte", os.fstat(file.fileno()).st_size


class _Unpacked(gzip.GzipFile):
  """A compressed file that refuses to become far larger than other files of its size."""

  def __init__(self, file: BinaryIO, path: pathlib.Path):
    super().__init__(fileobj=file, mode="rb")
    self._path = path
    self._limit = max(FREE_UNPACKED, UNPACKED_RATIO * os.fstat(file.fileno()).st_size)
    self._given = 0

  def read(self, size: int | None = -1) -> bytes:
    result = super().read(size)
    self._given += len(result)
    if self._given > self._limit:
      raise errors.LimitError(
          f"{escaping.printable(str(self._path))} unpacks to more than {self._limit:,} bytes, the "
          "limit for a compressed file of its size; check where it comes from; to read it all the "
          "same, unpack it first (gunzip)")
    return result


def peek(content: BinaryIO, source: files.PathLike) -> bytes:
  """The first bytes, some hundred or more if there are as many; they remain to be read.

  Raises:
    DataError: the compressed data is damaged.
  """
  try:
    return content.peek(512)  # type: ignore[attr-defined]
  except (EOFError, OSError, zlib.error) as error:
    raise errors.DataError(_not_unpacked(source, error)) from None


def read(content: BinaryIO, size: int, source: files.PathLike) -> bytes:
  """Reads up to `size` bytes; fewer only at the end of the content.

  Raises:
    DataError: the compressed data is damaged or cut off, or the device fails.
  """
  parts = []
  missing = size
  try:
    while missing > 0:
      part = content.read(min(missing, _CHUNK))
      if not part:
        break
      parts.append(part)
      missing -= len(part)
  except (EOFError, OSError, zlib.error) as error:
    raise errors.DataError(_not_unpacked(source, error)) from None
  return parts[0] if len(parts) == 1 else b"".join(parts)


def _not_unpacked(source: files.PathLike, error: Exception) -> str:
  return (f"{source} starts as a gzip file, but cannot be unpacked ({error}); copy or download it "
          "again")


def messages(content: BinaryIO, source: files.PathLike, unit: str,
             size: int | None) -> Iterator[tuple[int, bytes]]:
  """The messages of a file, one after another.

  Args:
    content: what `open_content` gives.
    source: name of the file in error messages.
    unit: how messages call a position.
    size: bytes of the content, if known.

  Yields:
    Position of the message's length in the content, and the message.

  Raises:
    DataError: a message is cut off or its length is no varint; the error names the byte.
    LimitError: a message or the file is larger than the limits of this module.
  """
  position = 0
  while True:
    length, width = _length(content, source, unit, position)
    if not width:
      return
    start = position + width
    if size is not None and length > size - start:
      raise errors.DataError(
          f"{source}: the message at {unit} {position:,} is cut off: it has {length:,} bytes, but "
          f"only {size - start:,} follow; copy the file again, or write it again")
    if length > MAX_MESSAGE_BYTES:
      raise errors.LimitError(
          f"{source}: the message at {unit} {position:,} has {length:,} bytes; the limit is "
          f"{MAX_MESSAGE_BYTES:,}; the file is damaged, or no Chakra trace")
    message = read(content, length, source)
    if len(message) < length:
      raise errors.DataError(
          f"{source}: the message at {unit} {position:,} is cut off: it has {length:,} bytes, but "
          f"only {len(message):,} follow; copy the file again, or write it again")
    yield position, message
    position = start + length
    if position > MAX_FILE_BYTES:
      raise errors.LimitError(
          f"{source} has more than {MAX_FILE_BYTES >> 30} GiB, the limit for a trace; divide the "
          "trace")


def _length(content: BinaryIO, source: files.PathLike, unit: str,
            position: int) -> tuple[int, int]:
  """The varint at the current position and its width in bytes; width 0 at the end."""
  result = 0
  for index in range(_VARINT_BYTES):
    byte = read(content, 1, source)
    if not byte:
      if index:
        raise errors.DataError(
            f"{source} is cut off at {unit} {position + index:,}, within the length of a message; "
            "copy the file again, or write it again")
      return 0, 0
    result |= (byte[0] & 0x7F) << (7 * index)
    if byte[0] < 0x80:
      return result, index + 1
  raise errors.DataError(
      f"{source}: expected the length of a message at {unit} {position:,}, but these bytes are no "
      "varint; the file is damaged, or no Chakra trace")
