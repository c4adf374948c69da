"""Memory-mapped files of named arrays. They are written once, as a stream, and have checksums.

  prefix   8 bytes of MAGIC; uint32 VERSION; uint32 CRC-32 of the table; uint64 offset of the table;
           uint64 length of the table; all little-endian
  arrays   one after the other, C order, each aligned to 64 bytes
  table    JSON: "meta" with the writer's values, and "arrays" with the dtype, shape, offset and
           CRC-32 of each array by name; it is the end of the file

Opening a file fails if it is truncated, or if its prefix or table was changed. Reading an array
fails if the array was changed. Code that reads parts of an array must check them itself.
"""

from collections.abc import Iterable
import json
import math
import mmap
import os
import pathlib
import struct
from typing import Any, BinaryIO, NamedTuple, NoReturn
import zlib

import numpy as np

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files

MAGIC = b"TPUGPACK"
VERSION = 1
_PREFIX = struct.Struct("<8sIIQQ")
_ALIGNMENT = 64
_CHUNK = 16 * 2**20
# The read-ahead of the system already covers many rows that are smaller than this.
_SCATTERED_BYTES = 64

# What the entry of an array may state: little-endian numbers, and a few axes.
_DTYPES = frozenset(np.dtype(kind).newbyteorder("<").str for kind in (
    "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8"))
_MOST_AXES = 8
_LONGEST_EMPTY_AXIS = 1 << 24


class Entry(NamedTuple):
  """An array in the file."""

  dtype: np.dtype
  shape: tuple[int, ...]
  offset: int
  crc32: int

  @property
  def nbytes(self) -> int:
    return math.prod(self.shape) * self.dtype.itemsize


class Writer:
  """Writes arrays to a file opened for writing, for instance by `files.atomic_write`."""

  def __init__(self, file: BinaryIO):
    self._file = file
    self._arrays: dict[str, Entry] = {}
    file.write(b"\0" * _PREFIX.size)

  def add(self, name: str, array: np.ndarray) -> None:
    """Writes an array."""
    self.add_blocks(name, array.dtype, array.shape[1:], [array])

  def add_blocks(self, name: str, dtype: Any, row_shape: tuple[int, ...],
                 blocks: Iterable[np.ndarray]) -> None:
    """Writes an array in blocks of rows.

    If the iterator of blocks raises an error, the file is restored to its previous state.

    Args:
      name: name of the array.
      dtype: dtype of all blocks.
      row_shape: shape of one row.
      blocks: blocks of shape (r, *row_shape).
    """
    before = self._file.tell()
    start = -(-before // _ALIGNMENT) * _ALIGNMENT
    self._file.write(b"\0" * (start - before))
    rows, crc32 = 0, 0
    try:
      for block in blocks:
        content = np.ascontiguousarray(block, dtype).reshape(-1).view(np.uint8).data
        self._file.write(content)
        crc32 = zlib.crc32(content, crc32)
        rows += len(block)
    except BaseException:
      self._file.seek(before)
      self._file.truncate()
      raise
    self._arrays[name] = Entry(np.dtype(dtype), (rows, *row_shape), start, crc32)

  def finish(self, meta: dict[str, Any]) -> None:
    """Writes the table and the prefix, which complete the file."""
    table = json.dumps({"meta": meta, "arrays": {
        name: {"dtype": entry.dtype.str, "shape": list(entry.shape), "offset": entry.offset,
               "crc32": entry.crc32} for name, entry in self._arrays.items()}}).encode()
    start = self._file.tell()
    self._file.write(table)
    self._file.seek(0)
    self._file.write(_PREFIX.pack(MAGIC, VERSION, zlib.crc32(table), start, len(table)))
    self._file.seek(0, os.SEEK_END)


def _is_count(value: Any) -> bool:
  return type(value) is int and 0 <= value < 2**63


class _Identity(NamedTuple):
  """Identifies a file, to detect that another file has replaced it."""

  inode: int
  size: int
  changed: int

  @classmethod
  def of(cls, file: BinaryIO) -> "_Identity":
    status = os.fstat(file.fileno())
    return cls(status.st_ino, status.st_size, status.st_mtime_ns)


class Reader:
  """Reads arrays of a file. Between two calls the file is neither open nor mapped.

  So a process can have thousands of readers, and mapped memory counts as resident only during an
  access. Readers may be copied to other processes.

  Attributes:
    path: the file.
    meta: the writer's values.
    arrays: the table entry of each array by name.
  """

  def __init__(self, path: files.PathLike):
    """Reads the table.

    Raises:
      MissingDataError: there is no such file.
      DataError: the file has another format or version, is truncated or damaged.
    """
    self.path = pathlib.Path(path)
    files.check_regular(self.path, "a packed graph")
    try:
      with open(self.path, "rb") as file:
        self._identity = _Identity.of(file)
        self.meta, self.arrays = self._table(file)
    except OSError as error:
      raise errors.MissingDataError(
          f"cannot read {self.path}: {error.strerror or error}") from None

  def _table(self, file: BinaryIO) -> tuple[dict[str, Any], dict[str, Entry]]:
    prefix = file.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size or not prefix.startswith(MAGIC):
      self.fail("is not a file of packed arrays, or was never completed")
    _, version, crc32, start, length = _PREFIX.unpack(prefix)
    if version != VERSION:
      self.fail(f"has version {version} of the format; expected version {VERSION}")
    if start < _PREFIX.size or start + length != self._identity.size:
      self.fail(f"has {self._identity.size} bytes; expected {start + length}: it is truncated")
    file.seek(start)
    table = file.read(length)
    if zlib.crc32(table) != crc32:
      self.fail("is damaged: the checksum of its table is wrong")
    stored = files.parse_json(table, f"{self.path}: table")
    if not isinstance(stored, dict) or not all(
        isinstance(stored.get(key), dict) for key in ("meta", "arrays")):
      self.fail("is damaged: its table lacks meta or arrays")
    return stored["meta"], {
        name: self._entry(name, entry, start) for name, entry in stored["arrays"].items()}

  def _entry(self, name: str, stored: Any, end: int) -> Entry:
    """An entry of the table; the arrays end at the byte `end` at the latest."""
    shown = escaping.quoted(name)
    if not isinstance(stored, dict) or set(stored) != {"dtype", "shape", "offset", "crc32"}:
      self.fail(f"is damaged: the entry of its array {shown} is incomplete")
    dtype, shape, offset, crc32 = (stored[key] for key in ("dtype", "shape", "offset", "crc32"))
    if not isinstance(dtype, str) or dtype not in _DTYPES:
      self.fail(f"is damaged: its array {shown} has the dtype {escaping.value(dtype)}")
    if not isinstance(shape, list) or not 0 < len(shape) <= _MOST_AXES or not all(
        _is_count(side) for side in (*shape, offset, crc32)) or offset < _PREFIX.size:
      self.fail(f"is damaged: its array {shown} has no valid shape, offset or checksum")
    entry = Entry(np.dtype(dtype), tuple(shape), offset, crc32)
    if offset + entry.nbytes > end or not entry.nbytes and max(shape) > _LONGEST_EMPTY_AXIS:
      self.fail(f"is damaged: its array {shown} is longer than the file")
    return entry

  def fail(self, problem: str) -> NoReturn:
    """Raises the error about a file that cannot be used."""
    raise errors.DataError(
        f"{self.path} {problem}; remove it, and run {commands.command('pack')} again for its "
        "collection, which packs what is missing")

  def mapped(self, name: str) -> np.ndarray:
    """An array as a read-only view of the file; its checksum is not verified.

    The file stays mapped while the view exists. Keep copies of the values, not the view.

    Args:
      name: name of the array.

    Raises:
      MissingDataError: the file no longer exists.
      DataError: the file was replaced after it was opened.
    """
    return self._view(name, self._map(name))

  def rows(self, name: str, rows: np.ndarray) -> np.ndarray:
    """(r, ...) copies of rows of an array, in any order; their checksum is not verified.

    Raises:
      IndexError: there is no such row; and as `mapped`.
    """
    content = self._map(name)
    entry = self.arrays[name]
    row_bytes = entry.nbytes // max(entry.shape[0], 1)
    if content is not None and row_bytes >= _SCATTERED_BYTES and (np.diff(rows) != 1).any():
      # Request all rows from the disk at once, and nothing else. Separate page faults would make
      # the time proportional to the number of rows.
      content.madvise(mmap.MADV_RANDOM)
      starts = entry.offset + np.unique(rows[(rows >= 0) & (rows < entry.shape[0])]) * row_bytes
      firsts = starts // mmap.PAGESIZE * mmap.PAGESIZE
      for first, length in zip(firsts.tolist(), (starts + row_bytes - firsts).tolist()):
        content.madvise(mmap.MADV_WILLNEED, first, length)
    return self._view(name, content)[rows]

  def _map(self, name: str) -> mmap.mmap | None:
    """The mapped file; None if the array is empty, because an empty range cannot be mapped."""
    if not self.arrays[name].nbytes:
      return None
    try:
      with open(self.path, "rb") as file:
        if _Identity.of(file) == self._identity:
          return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
      raise errors.MissingDataError(
          f"cannot read {self.path}: {error.strerror or error}") from None
    raise errors.DataError(
        f"{self.path} was packed again while it was in use; run the same command again")

  def _view(self, name: str, content: mmap.mmap | None) -> np.ndarray:
    entry = self.arrays[name]
    if content is None:
      empty = np.zeros(entry.shape, entry.dtype)
      empty.setflags(write=False)
      return empty
    count = math.prod(entry.shape)
    return np.frombuffer(content, entry.dtype, count, entry.offset).reshape(entry.shape)

  def read(self, name: str) -> np.ndarray:
    """A read-only copy of an array.

    Raises:
      DataError: the checksum is wrong; and as `mapped`.
    """
    array = np.array(self.mapped(name))
    if zlib.crc32(array.reshape(-1).view(np.uint8).data) != self.arrays[name].crc32:
      self._fail_array(name)
    array.setflags(write=False)
    return array

  def verify(self) -> None:
    """Reads all arrays in chunks, and verifies their checksums.

    Raises:
      DataError: an array is damaged; and as `mapped`.
    """
    for name, entry in self.arrays.items():
      crc32 = 0
      for start in range(0, entry.nbytes, _CHUNK):
        # A new mapping for each chunk: accessed pages stay resident as long as their mapping.
        chunk = self.mapped(name).reshape(-1).view(np.uint8)[start:start + _CHUNK]
        crc32 = zlib.crc32(chunk.data, crc32)
      if crc32 != entry.crc32:
        self._fail_array(name)

  def _fail_array(self, name: str) -> NoReturn:
    self.fail(f"is damaged: the checksum of its array {name!r} is wrong")
