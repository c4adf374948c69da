"""Writes named arrays to `.npz` files: the bytes are those of `np.savez` and `np.savez_compressed`.

Those two leave an archive open if the disk is full, and Python prints a traceback when it cleans
up. They also need all arrays at once, and refuse the name "file".
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
from typing import Any, BinaryIO
import zipfile

import numpy as np

from tpugraphs_rank import files


def save(path: files.PathLike, arrays: Mapping[str, Any], compressed: bool = True) -> None:
  """Writes arrays, or numbers and texts, by their names; the file appears once it is complete.

  Raises:
    OutputError: the file cannot be written.
  """
  with files.atomic_write(path) as file, writing(file, compressed) as add:
    for name, array in arrays.items():
      add(name, array)


@contextlib.contextmanager
def writing(file: BinaryIO, compressed: bool = True) -> Iterator[Callable[[str, Any], None]]:
  """Writes one array after another.

  Args:
    file: an open file, at its beginning.
    compressed: whether the arrays are compressed.

  Yields:
    A function of a name and an array, which writes it.
  """
  archive = zipfile.ZipFile(
      file, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED, allowZip64=True)

  def add(name: str, array: Any) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
      np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)

  try:
    yield add
    archive.close()
  except BaseException:
    archive.fp = None  # Its finalizer would write again, when the file is closed.
    raise
