"""Shapes of the arrays in an `.npz` file, read from the headers alone.

A layout file of a few megabytes may unpack to gigabytes, but its first bytes contain the shapes.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import pathlib
from typing import IO, NamedTuple
import zipfile

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files

_SUFFIX = ".npy"
_READERS = {(1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0}


class Header(NamedTuple):
  """Shape and dtype of a stored array."""
  shape: tuple[int, ...]
  dtype: np.dtype


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
    DataError: the file is damaged, not an `.npz` file, or holds pickles.
  """
  if not path.is_file():
    raise errors.MissingDataError(f"no file {path}")
  at = Reading()
  try:
    yield at
  except errors.DataError:
    raise
  except Exception as error:  # zipfile, zlib and NumPy raise many types for damaged files.
    where = str(path) if at.key is None else f"{path}: key {at.key!r}"
    if "allow_pickle" in str(error):
      raise errors.DataError(
          f"{where} holds pickled objects or is not an .npz file; pickles are never loaded (they "
          "can run code): store plain arrays with np.savez_compressed") from None
    raise errors.DataError(
        f"{where} cannot be read ({type(error).__name__}: {error}); the file is truncated, damaged "
        "or not an .npz file") from error


def read_headers(path: files.PathLike) -> dict[str, Header]:
  """The shape and dtype of every array of an `.npz` file, by key; no array is unpacked.

  Raises:
    MissingDataError: there is no such file.
    DataError: the file is damaged or not an `.npz` file; the message names file and key.
  """
  path = pathlib.Path(path)
  headers = {}
  with reading(path) as at:
    with zipfile.ZipFile(path) as archive:
      for name in archive.namelist():
        if not name.endswith(_SUFFIX):
          continue  # NumPy also skips members that are not arrays.
        at.key = key = name[:-len(_SUFFIX)]
        with archive.open(name) as member:
          headers[key], _ = read_header(member)
  return headers


def read_header(member: IO[bytes]) -> tuple[Header, bool]:
  """Reads the header at the beginning of a stored array, and nothing after it.

  Returns:
    The header, and whether the array is in Fortran order.

  Raises:
    ValueError: the version of the header is unknown.
  """
  version = np.lib.format.read_magic(member)
  if version not in _READERS:
    raise ValueError(f"header of version {version}; expected 1.0 or 2.0")
  shape, fortran_order, dtype = _READERS[version](member)
  return Header(shape, dtype), fortran_order
