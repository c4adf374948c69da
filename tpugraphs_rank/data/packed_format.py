"""Files of named arrays that are mapped into memory: written once, streaming, and checked.

  prefix   8 bytes of MAGIC; uint32 VERSION; uint32 CRC-32 of the table; uint64 where the table
           begins; uint64 its length, all little-endian
  arrays   one after the other, C order, each at a multiple of 64 bytes
  table    JSON: "meta", whatever the writer says, and "arrays", for each name its dtype, shape,
           offset and CRC-32; the file ends with it

A file that was cut off, or whose prefix or table was changed, is refused when it is opened; an array
that was changed, when it is read. Arrays that are read in parts are checked by what reads them.
"""

from collections.abc import Iterable
import json
import math
import mmap
import os
import pathlib
import struct
from typing import Any, BinaryIO, NamedTuple
import zlib

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files

MAGIC = b"TPUGPACK"
VERSION = 1
_PREFIX = struct.Struct("<8sIIQQ")
_ALIGNMENT = 64
_CHUNK = 16 * 2**20
# Rows of fewer bytes lie so close that the system reads many at a time of its own accord.
_SCATTERED_BYTES = 64


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
  """Writes arrays into a file that is opened for this, for instance by `files.atomic_write`."""

  def __init__(self, file: BinaryIO):
    self._file = file
    self._arrays: dict[str, Entry] = {}
    file.write(b"\0" * _PREFIX.size)

  def add(self, name: str, array: np.ndarray) -> None:
    """Writes an array."""
    self.add_blocks(name, array.dtype, array.shape[1:], [array])

  def add_blocks(self, name: str, dtype: Any, row_shape: tuple[int, ...],
                 blocks: Iterable[np.ndarray]) -> None:
    """Writes an array that comes in blocks of rows.

    Where the blocks end in an error, the file is as it was before.

    Args:
      name: of the array.
      dtype: of all blocks.
      row_shape: the shape of one row.
      blocks: (r, *row_shape) each.
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
    """Writes the table, and the prefix that makes the file whole."""
    table = json.dumps({"meta": meta, "arrays": {
        name: {"dtype": entry.dtype.str, "shape": list(entry.shape), "offset": entry.offset,
               "crc32": entry.crc32} for name, entry in self._arrays.items()}}).encode()
    start = self._file.tell()
    self._file.write(table)
    self._file.seek(0)
    self._file.write(_PREFIX.pack(MAGIC, VERSION, zlib.crc32(table), start, len(table)))
    self._file.seek(0, os.SEEK_END)


class _Identity(NamedTuple):
  """Tells a file from another that took its name."""

  inode: int
  size: int
  changed: int

  @classmethod
  def of(cls, file: BinaryIO) -> "_Identity":
    found = os.fstat(file.fileno())
    return cls(found.st_ino, found.st_size, found.st_mtime_ns)


class Reader:
  """Reads arrays of a file; between two calls it holds neither the file nor any of its pages.

  A process may so hold thousands of readers, and memory that is mapped counts as resident only
  while it is looked at. Readers may be copied to other processes.

  Attributes:
    path: the file.
    meta: what the writer said.
    arrays: what there is, by name.
  """

  def __init__(self, path: files.PathLike):
    """Reads the table.

    Raises:
      MissingDataError: there is no such file.
      DataError: it is no such file, of another version of the format, cut off or damaged.
    """
    self.path = pathlib.Path(path)
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
      self.fail("is no file of packed arrays, or was never completed")
    _, version, crc32, start, length = _PREFIX.unpack(prefix)
    if version != VERSION:
      self.fail(f"is of version {version} of the format; this is version {VERSION}")
    if start + length != self._identity.size:
      self.fail(f"has {self._identity.size} bytes; expected {start + length}: it is truncated")
    file.seek(start)
    table = file.read(length)
    if zlib.crc32(table) != crc32:
      self.fail("is damaged: its table has another checksum")
    found = json.loads(table)
    return found["meta"], {
        name: Entry(np.dtype(entry["dtype"]), tuple(entry["shape"]), entry["offset"],
                    entry["crc32"]) for name, entry in found["arrays"].items()}

  def fail(self, problem: str) -> None:
    """Raises the error about a file that cannot be used."""
    raise errors.DataError(
        f"{self.path} {problem}; remove it, and run `python -m tpugraphs_rank.cli.pack` again for its "
        "collection, which packs anew what is missing")

  def mapped(self, name: str) -> np.ndarray:
    """An array as a view of the file, read-only; its bytes are not checked.

    The file is mapped until the view is gone: keep what is picked from it, not the view.

    Args:
      name: of the array.

    Raises:
      MissingDataError: the file is gone.
      DataError: the file was written anew since it was opened.
    """
    return self._view(name, self._map(name))

  def rows(self, name: str, rows: np.ndarray) -> np.ndarray:
    """(r, ...) copies of rows of an array, in any order; their bytes are not checked.

    Raises:
      IndexError: there is no such row; and as `mapped`.
    """
    content = self._map(name)
    entry = self.arrays[name]
    row_bytes = entry.nbytes // max(entry.shape[0], 1)
    if content is not None and row_bytes >= _SCATTERED_BYTES and (np.diff(rows) != 1).any():
      # All are asked of the disk at once, and no more than they are: one after the other would
      # take as long as there are rows.
      content.madvise(mmap.MADV_RANDOM)
      starts = entry.offset + np.unique(rows[(rows >= 0) & (rows < entry.shape[0])]) * row_bytes
      firsts = starts // mmap.PAGESIZE * mmap.PAGESIZE
      for first, length in zip(firsts.tolist(), (starts + row_bytes - firsts).tolist()):
        content.madvise(mmap.MADV_WILLNEED, first, length)
    return self._view(name, content)[rows]

  def _map(self, name: str) -> mmap.mmap | None:
    """The file in memory; None where the array is empty, so that nothing can be mapped."""
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
        f"{self.path} was packed anew while it was in use; run the same command again")

  def _view(self, name: str, content: mmap.mmap | None) -> np.ndarray:
    entry = self.arrays[name]
    if content is None:
      empty = np.zeros(entry.shape, entry.dtype)
      empty.setflags(write=False)
      return empty
    count = math.prod(entry.shape)
    return np.frombuffer(content, entry.dtype, count, entry.offset).reshape(entry.shape)

  def read(self, name: str) -> np.ndarray:
    """A copy of an array, read-only.

    Raises:
      DataError: its bytes are not those that were written; and as `mapped`.
    """
    array = np.array(self.mapped(name))
    if zlib.crc32(array.reshape(-1).view(np.uint8).data) != self.arrays[name].crc32:
      self._fail_array(name)
    array.setflags(write=False)
    return array

  def verify(self) -> None:
    """Reads all arrays, some megabytes at a time, and compares checksums.

    Raises:
      DataError: an array is damaged; and as `mapped`.
    """
    for name, entry in self.arrays.items():
      crc32 = 0
      for start in range(0, entry.nbytes, _CHUNK):
        # Mapped for each piece: pages that were looked at stay resident as long as the mapping.
        piece = self.mapped(name).reshape(-1).view(np.uint8)[start:start + _CHUNK]
        crc32 = zlib.crc32(piece.data, crc32)
      if crc32 != entry.crc32:
        self._fail_array(name)

  def _fail_array(self, name: str) -> None:
    self.fail(f"is damaged: its array {name!r} has another checksum")
