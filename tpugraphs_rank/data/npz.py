"""Graphs in `.npz` files of the TpuGraphs format; `tpugraphs_rank.data.graphs` has the keys."""

from collections.abc import Collection, Iterator
import math
import pathlib
import zipfile

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import headers


def read_arrays(path: files.PathLike, keys: Collection[str] | None = None
                ) -> dict[str, np.ndarray]:
  """Reads arrays of an `.npz` file, by key; they are read-only.

  Pickled objects are refused, never loaded.

  Args:
    path: the file.
    keys: those that are wanted, as far as they are there: the others are not unpacked. None: all.

  Raises:
    MissingDataError: there is no such file.
    DataError: the file is damaged or no `.npz` file; file and key are named.
  """
  path = pathlib.Path(path)
  arrays = {}
  # Opened here, because NumPy leaves a damaged archive's file open.
  with headers.reading(path) as at, open(path, "rb") as file:
    stored = np.load(file, allow_pickle=False)
    if not isinstance(stored, np.lib.npyio.NpzFile):
      raise errors.DataError(f"{path} holds a single array; expected an .npz file with named keys")
    for at.key in stored.files:
      if keys is not None and at.key not in keys:
        continue
      array = stored[at.key]
      if not isinstance(array, np.ndarray):  # NumPy hands out what is no array as bytes.
        raise ValueError("not an array")
      array.setflags(write=False)  # Ours alone, so that a graph need not copy it.
      arrays[at.key] = array
  return arrays


def read_rows(path: files.PathLike, key: str, block_bytes: int) -> Iterator[np.ndarray]:
  """Reads an array of an `.npz` file in blocks of rows, of which one is in memory at a time.

  An array in Fortran order has no rows in one piece; it is read as a whole, and comes in one block.

  Args:
    path: the file.
    key: of the array, of one dimension or more.
    block_bytes: of a block at most, but at least one row.

  Yields:
    (r, ...) each; the memory of one may be that of the next.

  Raises:
    MissingDataError: there is no such file.
    DataError: the file is damaged, or there is no such array; file and key are named.
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
          arrived = member.readinto(wanted)
          if not arrived:
            raise ValueError("the array ends before its last row")
          wanted = wanted[arrived:]
        yield np.frombuffer(buffer, dtype, count * math.prod(shape[1:])).reshape(
            (count, *shape[1:]))
      if member.read(1):  # Only at its end the checksum is compared.
        raise ValueError("the array goes on after its last row")


def load_graph(path: files.PathLike) -> graphs.Graph:
  """Reads one graph: layout, tile, or without configurations; released or README dtypes.

  Pickled objects are refused, never loaded.

  Args:
    path: an `.npz` file.

  Returns:
    A `LayoutGraph`, `TileGraph` or `Graph`, named after the file's stem.

  Raises:
    MissingDataError: there is no such file.
    DataError: the file is damaged, lacks a key or breaks the format; file and key are named.
  """
  path = pathlib.Path(path)
  try:
    arrays = read_arrays(path)
  except errors.MissingDataError as error:
    raise errors.MissingDataError(
        f"{error}; `python -m tpugraphs_rank.cli.featurize --input X --output DIR` makes .npz files "
        "from raw .pb files") from None
  except errors.DataError as error:
    raise errors.DataError(
        f"{error}; download the file again, or write it again with `python -m "
        "tpugraphs_rank.cli.featurize`") from error
  try:
    return graphs.graph_from_arrays(path.stem, arrays)
  except errors.DataError as error:
    raise errors.DataError(f"{path}: {error}") from None


def save_graph(path: files.PathLike, graph: graphs.Graph) -> None:
  """Writes a graph with the dtypes of the public release, compressed, atomically.

  Raises:
    OutputError: the file cannot be written.
  """
  with files.atomic_write(path) as file:
    np.savez_compressed(file, **graph.arrays())
