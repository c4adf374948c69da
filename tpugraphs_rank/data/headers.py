"""Shapes of the arrays in an `.npz` file, read from the headers alone.

A layout file of a few megabytes may unpack to gigabytes, but its first bytes contain the shapes.
A few bytes can declare any size. So everything that reads `.npz` files does it through this module,
which compares what a file states about itself with its real size before memory is allocated.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import io
import math
import os
import pathlib
import struct
from typing import IO, NamedTuple
import zipfile

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files

_SUFFIX = ".npy"
_READERS = {(1, 0): (struct.Struct("<H"), np.lib.format.read_array_header_1_0),
            (2, 0): (struct.Struct("<I"), np.lib.format.read_array_header_2_0)}
_LONGEST_HEADER = 10_000  # Bytes. NumPy has the same limit, but applies it after reading.
_ARRAY_START = b"\x93NUMPY"
_PICKLE_START = b"\x80"

_KINDS = "biufUS"  # Booleans, numbers and text.
_MOST_AXES = 32  # NumPy 1 has no arrays with more.
# An axis of an array without elements costs nothing to store, but time to walk along.
_LONGEST_EMPTY_AXIS = 1 << 24
_DEFLATE_RATIO = 1032  # No byte of deflate expands to more.


class Header(NamedTuple):
  """Shape and dtype of a stored array."""
  shape: tuple[int, ...]
  dtype: np.dtype

  @property
  def nbytes(self) -> int:
    """Bytes of the values."""
    return math.prod(self.shape) * self.dtype.itemsize


@dataclasses.dataclass
class Reading:
  """The progress of reading a file: the current key; None before the first."""
  key: str | None = None


@contextlib.contextmanager
def reading(path: pathlib.Path) -> Iterator[Reading]:
  """Converts any error of reading an `.npz` file to a typed error that names file and key.

  Args:
    path: the file.

  Yields:
    A `Reading`. The caller keeps its key up to date.

  Raises:
    MissingDataError: there is no such file.
    DataError: the file is damaged, not an `.npz` file, not a regular file, or holds pickles.
  """
  files.check_regular(path, "an .npz file")
  at = Reading()
  try:
    yield at
  except (errors.TpuGraphsRankError, MemoryError):
    raise
  except Exception as error:  # zipfile, zlib and NumPy raise many types for damaged files.
    where = str(path) if at.key is None else f"{path}: key {escaping.quoted(at.key)}"
    if "pickle" in str(error):
      raise errors.DataError(
          f"{where} holds pickled objects, which are never loaded (they can run code): store plain "
          "arrays with np.savez_compressed") from None
    raise errors.DataError(
        f"{where} cannot be read ({type(error).__name__}: {escaping.printable(str(error))}); the "
        "file is truncated, damaged or not an .npz file") from error


class Archive:
  """The arrays of an open `.npz` file. Errors are ValueErrors, for use inside `reading`.

  Attributes:
    keys: the keys, in the order of the file. Members that are not arrays have none.
  """

  def __init__(self, file: IO[bytes], path: pathlib.Path):
    """Reads the directory of the archive.

    Args:
      file: the file, at its beginning.
      path: its name, for messages.

    Raises:
      DataError: it holds a single array.
      ValueError, BadZipFile: it is not a zip archive, holds one key twice, or declares more bytes
        than a file of this size can unpack to.
    """
    start = file.read(len(_ARRAY_START))
    if start == _ARRAY_START:
      raise errors.DataError(f"{path} holds a single array; expected named arrays, as np.savez "
                             "writes them")
    if start[:1] == _PICKLE_START:
      raise ValueError("it is a pickle")
    file.seek(0)
    self._zip = zipfile.ZipFile(file)
    self._members: dict[str, zipfile.ZipInfo] = {}
    stored = 0
    for member in self._zip.infolist():
      if not member.filename.endswith(_SUFFIX):
        continue  # NumPy also skips members that are not arrays.
      key = member.filename[:-len(_SUFFIX)]
      if key in self._members:
        raise ValueError(f"the key {escaping.quoted(key)} occurs twice")
      self._members[key] = member
      stored += member.compress_size
    if stored > os.fstat(file.fileno()).st_size:
      raise ValueError("its members are longer than the file")
    self.keys = tuple(self._members)

  @contextlib.contextmanager
  def open(self, key: str) -> Iterator[tuple[IO[bytes], Header, bool]]:
    """Opens an array behind its header.

    Args:
      key: one of `keys`.

    Yields:
      The values as a stream, the header, and whether the array is in Fortran order. The number of
      bytes that the archive declares is the one that the header requires.

    Raises:
      KeyError: there is no such key.
      ValueError: the header is not valid, or contradicts the directory of the archive.
    """
    if key not in self._members:
      raise KeyError(f"there is no key {key}")
    member = self._members[key]
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
      raise ValueError("it is compressed by another method than deflate; write it with "
                       "np.savez_compressed")
    ratio = 1 if member.compress_type == zipfile.ZIP_STORED else _DEFLATE_RATIO
    if member.file_size > ratio * member.compress_size:
      raise ValueError(f"{member.compress_size:,} bytes cannot unpack to {member.file_size:,}")
    with self._zip.open(member) as stream:
      header, fortran_order, read = _read_header(stream)
      if read + header.nbytes != member.file_size:
        raise ValueError(f"its header requires {header.nbytes:,} bytes of values, and "
                         f"{member.file_size - read:,} are stored")
      yield stream, header, fortran_order


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[tuple[Archive, Reading]]:
  """Opens an `.npz` file.

  Yields:
    The archive, and a `Reading` whose key the caller keeps up to date.

  Raises:
    MissingDataError, DataError: as `reading`.
  """
  with reading(path) as at, open(path, "rb") as file:
    yield Archive(file, path), at


def read_headers(path: files.PathLike) -> dict[str, Header]:
  """The shape and dtype of every array of an `.npz` file, by key; no array is unpacked.

  Raises:
    MissingDataError: there is no such file.
    DataError: the file is damaged or not an `.npz` file; the message names file and key.
  """
  path = pathlib.Path(path)
  headers = {}
  with opened(path) as (archive, at):
    for at.key in archive.keys:
      with archive.open(at.key) as (_, headers[at.key], _):
        pass
  return headers


def _read_header(stream: IO[bytes]) -> tuple[Header, bool, int]:
  """Reads the header at the beginning of a stored array, and nothing after it.

  Returns:
    The header, whether the array is in Fortran order, and the bytes of the header.

  Raises:
    ValueError: it is not the header of an array of numbers, truth values or text.
  """
  version = np.lib.format.read_magic(stream)
  if version not in _READERS:
    raise ValueError(f"header of version {version}; expected 1.0 or 2.0")
  length, read = _READERS[version]
  first = stream.read(length.size)
  count, = length.unpack(first)
  if count > _LONGEST_HEADER:
    raise ValueError(f"its header has {count:,} bytes; expected at most {_LONGEST_HEADER:,}")
  try:
    shape, fortran_order, dtype = read(io.BytesIO(first + stream.read(count)))
  except (MemoryError, RecursionError):  # Python's parser raises these for deep nesting.
    raise ValueError("its header is nested too deeply") from None
  if dtype.hasobject:
    raise ValueError("pickled objects, which are never loaded")
  if dtype.kind not in _KINDS or dtype.subdtype or not dtype.itemsize:
    raise ValueError(f"its dtype is {escaping.shown(str(dtype))}; expected numbers, truth values "
                     "or text")
  if len(shape) > _MOST_AXES or any(type(side) is not int or side < 0 for side in shape):
    raise ValueError(f"its shape is {escaping.shown(str(shape))}; expected at most {_MOST_AXES} "
                     "sides from 0")
  if 0 in shape and max(shape) > _LONGEST_EMPTY_AXIS:
    raise ValueError(f"its shape is {shape} without elements; expected sides of at most "
                     f"{_LONGEST_EMPTY_AXIS:,}")
  return Header(shape, dtype), fortran_order, len(_ARRAY_START) + 2 + length.size + count
