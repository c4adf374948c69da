"""Graphs in `.npz` files of the TpuGraphs format. `tpugraphs_rank.data.graphs` lists the keys."""

from collections.abc import Collection, Iterator
import math
import pathlib
import zipfile

import numpy as np

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import headers


def read_arrays(path: files.PathLike, keys: Collection[str] | None = None
                ) -> dict[str, np.ndarray]:
  """Reads arrays of an `.npz` file, by key, as read-only arrays.

  Pickled objects are rejected, never loaded.

  Args:
    path: the file.
    keys: the keys to read. Keys that the file lacks are skipped; other arrays are not unpacked.
      None: all.

  Raises:
    MissingDataError: there is no such file.
    DataError: the file is damaged or not an `.npz` file; the message names file and key.
  """
  path = pathlib.Path(path)
  arrays = {}
  # Open the file here, because NumPy does not close it if the archive is damaged.
  with headers.reading(path) as at, open(path, "rb") as file:
    stored = np.load(file, allow_pickle=False)
    if not isinstance(stored, np.lib.npyio.NpzFile):
      raise errors.DataError(f"{path} holds a single array; expected an .npz file with named keys")
    for at.key in stored.files:
      if keys is not None and at.key not in keys:
        continue
      array = stored[at.key]
      if not isinstance(array, np.ndarray):  # NumPy returns bytes for members that are not arrays.
        raise ValueError("not an array")
      array.setflags(write=False)  # A graph does not copy read-only arrays.
      arrays[at.key] = array
  return arrays


def read_rows(path: files.PathLike, key: str, block_bytes: int) -> Iterator[np.ndarray]:
  """Reads an array of an `.npz` file in blocks of rows; only one block is in memory at a time.

  The rows of an array in Fortran order are not contiguous, so it is read as one block.

  Args:
    path: the file.
    key: key of an array with at least one dimension.
    block_bytes: maximum size of a block. A block has at least one row.

  Yields:
    (r, ...) blocks. A block may reuse the memory of the one before.

  Raises:
    MissingDataError: there is no such file.
    DataError: the file is damaged or has no such array; the message names file and key.
  """
  path = pathlib.Path(path)
  with headers.reading(path) as at:
    at.key = key
    with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as member:
      (shape, dtype), fortran_order = headers.read_header(member)
      if dtype.hasobject:
        raise ValueError("pickled objects, which are never loaded")
      if fortran_order:
        yield read_arrays(path, [key])[key]
        return
      row_bytes = math.prod(shape[1:]) * dtype.itemsize
      size = max(block_bytes // max(row_bytes, 1), 1)
      buffer = bytearray(min(size, shape[0]) * row_bytes)
      for start in range(0, shape[0], size):
        count = min(size, shape[0] - start)
        wanted = memoryview(buffer)[:count * row_bytes]
        while wanted:
          count_read = member.readinto(wanted)  # type: ignore[attr-defined]
          if not count_read:
            raise ValueError("the array ends before its last row")
          wanted = wanted[count_read:]
        yield np.frombuffer(buffer, dtype, count * math.prod(shape[1:])).reshape(
            (count, *shape[1:]))
      if member.read(1):  # Reading to the end makes zipfile compare the checksum.
        raise ValueError("the array continues after its last row")


def load_graph(path: files.PathLike) -> graphs.Graph:
  """Reads one graph: tile, layout, or without configurations.

  Both the dtypes of the released files and those of the data's README are accepted. Pickled
  objects are rejected, never loaded.

  Args:
    path: an `.npz` file.

  Returns:
    A `LayoutGraph`, `TileGraph` or `Graph`, named after the file's stem.

  Raises:
    MissingDataError: there is no such file.
    DataError: the file is damaged, lacks a key or violates the format; the message names file and
      key.
  """
  path = pathlib.Path(path)
  try:
    arrays = read_arrays(path)
  except errors.MissingDataError as error:
    raise errors.MissingDataError(
        f"{error}; {commands.command('featurize', '--input FILE', '--output DIR')} converts raw "
        ".pb files to .npz files") from None
  except errors.DataError as error:
    raise errors.DataError(
        f"{error}; download the file again, or write it again with "
        f"{commands.command('featurize')}") from error
  try:
    return graphs.graph_from_arrays(path.stem, arrays)
  except errors.DataError as error:
    raise errors.DataError(f"{path}: {error}") from None


def save_graph(path: files.PathLike, graph: graphs.Graph) -> None:
  """Writes a graph atomically, compressed and with the dtypes of the public release.

  Raises:
    OutputError: the file cannot be written.
  """
  with files.atomic_write(path) as file:
    np.savez_compressed(file, **graph.arrays())
