"""Graphs in `.npz` files of the TpuGraphs format. `tpugraphs_rank.data.graphs` lists the keys."""

from collections.abc import Callable, Collection, Iterator, Mapping
import dataclasses
import math
import pathlib
from typing import IO

import numpy as np

from tpugraphs_rank import array_files
from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import memory
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import headers

Keys = Collection[str] | Callable[[str], bool]
# The types to which the caller converts arrays, by key.
Types = Mapping[str, np.dtype]

# Bytes that the arrays of a file may unpack to, unless its reader allows more.
MAX_BYTES = 1 << 30
# The same for the layouts of a graph. Those of the largest public one have 1.7 GB.
MAX_LAYOUT_BYTES = 1 << 33
# Larger layouts may be at most this multiple of their file, whose layouts are compressed. In public
# files it is about 60; where all rows are alike, it may be 1,000.
MAX_LAYOUT_RATIO = 500
MAX_LAYOUT_BYTES_OF_ANY_FILE = 1 << 28

# Limits of a graph: nodes (as for the instructions of HLO programs), edges and configurations. The
# largest public programs have 44,000 nodes, two edges for each, and 100,000 configurations. A file
# of a few kilobytes can hold a thousand times as many rows, which all are alike.
MAX_NODES = 1 << 18
MAX_EDGES = 1 << 20
MAX_CONFIGS = 1 << 20
_ROWS = {"node_feat": (MAX_NODES, "nodes"), "node_opcode": (MAX_NODES, "nodes"),
         "edge_index": (MAX_EDGES, "edges"), "config_feat": (MAX_CONFIGS, "configurations"),
         "config_runtime": (MAX_CONFIGS, "configurations"),
         "node_config_feat": (MAX_CONFIGS, "configurations")}

_LAYOUTS = "node_config_feat"
# The keys of graphs. Others are not read: later versions of the public data may add some.
GRAPH_KEYS = frozenset(
    field.name for kind in (graphs.TileGraph, graphs.LayoutGraph)
    for field in dataclasses.fields(kind)) - {"name"}
# The types that graphs convert their arrays to.
GRAPH_TYPES: Types = {
    field.name: field.metadata["dtype"] for kind in (graphs.TileGraph, graphs.LayoutGraph)
    for field in dataclasses.fields(kind) if "dtype" in field.metadata}
_LAST_CHARACTER = 0x10FFFF
_READ_BYTES = 1 << 20


def read_arrays(path: files.PathLike, keys: Keys | None = None, limit: int = MAX_BYTES,
                types: Types | None = None) -> dict[str, np.ndarray]:
  """Reads arrays of an `.npz` file, by key, as read-only arrays.

  Pickled objects are rejected, never loaded. The sizes of the arrays are compared with the limit
  and with the free memory before any is unpacked.

  Args:
    path: the file.
    keys: the keys to read, or a function that chooses them. Keys that the file lacks are skipped;
      other arrays are not unpacked. None: all.
    limit: bytes that these arrays may unpack to.
    types: the types to which the caller will convert arrays, by key. The arrays are returned as
      they are stored, but their sizes count after the conversion where it widens them.

  Raises:
    MissingDataError: there is no such file.
    DataError: the file is damaged or not an `.npz` file; the message names file and key.
    LimitError: the arrays are too large.
  """
  path = pathlib.Path(path)
  return _read(path, keys, lambda stored: memory.check(
      sum(_sizes(stored, types or {}).values()), limit, str(path)))


def _sizes(stored: Mapping[str, headers.Header], types: Types) -> dict[str, int]:
  """Bytes of each array as stored, or after its conversion if it is larger then."""
  return {key: max(header.nbytes, math.prod(header.shape) * types[key].itemsize)
          if key in types else header.nbytes for key, header in stored.items()}


def _read(path: pathlib.Path, keys: Keys | None,
          check: Callable[[Mapping[str, headers.Header]], None]) -> dict[str, np.ndarray]:
  """As `read_arrays`, with a function that checks the headers before an array is unpacked."""
  arrays = {}
  with headers.opened(path) as (archive, at):
    stored: dict[str, headers.Header] = {}
    for at.key in archive.keys:
      if keys is None or (keys(at.key) if callable(keys) else at.key in keys):
        with archive.open(at.key) as (_, stored[at.key], _):
          pass
    at.key = None
    check(stored)
    for at.key in stored:
      with archive.open(at.key) as (stream, header, fortran_order):
        arrays[at.key] = _read_array(stream, header, fortran_order)
  return arrays


def _read_array(stream: IO[bytes], header: headers.Header, fortran_order: bool) -> np.ndarray:
  """Reads the values of an array to the end of its member, where the checksum is verified."""
  array = np.empty(math.prod(header.shape), header.dtype)
  _read_into(stream, array.view(np.uint8).data)
  if stream.read(1):
    raise ValueError("the array continues after its last row")
  array = array.reshape(header.shape[::-1]).T if fortran_order else array.reshape(header.shape)
  array = array.astype(header.dtype.newbyteorder("="), copy=False)
  if array.dtype.kind == "U":
    _check_text(array)
  array.setflags(write=False)  # A graph does not copy read-only arrays.
  return array


def _check_text(array: np.ndarray) -> None:
  """Raises ValueError if the numbers of an array of text are not all Unicode characters."""
  numbers = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
  wrong = (numbers > _LAST_CHARACTER) | ((numbers >= 0xD800) & (numbers < 0xE000))
  if wrong.any():
    raise ValueError(f"its text holds {int(numbers[wrong][0]):#x}, which is no character")


def _read_into(stream: IO[bytes], wanted: memoryview) -> None:
  """Fills the memory, or raises a ValueError if the stream ends before."""
  while wanted:
    count = stream.readinto(wanted[:_READ_BYTES])  # type: ignore[attr-defined]
    if not count:
      raise ValueError("the array ends before its last row")
    wanted = wanted[count:]


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
    LimitError: an array in Fortran order is too large.
  """
  path = pathlib.Path(path)
  with headers.opened(path) as (archive, at):
    at.key = key
    with archive.open(key) as (stream, (shape, dtype), fortran_order):
      if fortran_order:
        yield read_arrays(path, [key], MAX_LAYOUT_BYTES)[key]
        return
      if not shape:
        raise ValueError("it is a single value; expected rows")
      row_bytes = math.prod(shape[1:]) * dtype.itemsize
      size = max(block_bytes // max(row_bytes, 1), 1)
      buffer = bytearray(min(size, shape[0]) * row_bytes)
      for start in range(0, shape[0], size):
        count = min(size, shape[0] - start)
        _read_into(stream, memoryview(buffer)[:count * row_bytes])
        yield np.frombuffer(buffer, dtype, count * math.prod(shape[1:])).reshape(
            (count, *shape[1:]))
      if stream.read(1):  # Reading to the end makes zipfile compare the checksum.
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
    LimitError: it has too many nodes, edges or configurations; or its arrays take more than
      MAX_BYTES, or its layouts more than MAX_LAYOUT_BYTES, with the dtypes of graphs; or its
      layouts are much larger than the file.
  """
  path = pathlib.Path(path)
  try:
    arrays = _read(path, GRAPH_KEYS, lambda stored: _check_sizes(path, stored))
  except errors.MissingDataError as error:
    raise errors.MissingDataError(
        f"{error}; {commands.command('featurize', '--input FILE', '--output DIR')} converts raw "
        ".pb files to .npz files") from None
  except errors.LimitError:
    raise
  except errors.DataError as error:
    raise errors.DataError(
        f"{error}; download the file again, or write it again with "
        f"{commands.command('featurize')}") from error
  try:
    return graphs.graph_from_arrays(path.stem, arrays)
  except errors.DataError as error:
    raise errors.DataError(f"{path}: {error}") from None


def _check_sizes(path: pathlib.Path, stored: Mapping[str, headers.Header]) -> None:
  """Raises LimitError if a graph is too large to be read at once."""
  check_rows(path, stored)
  check_layouts(path, stored)
  sizes = _sizes(stored, GRAPH_TYPES)
  memory.check(sizes.pop(_LAYOUTS, 0), MAX_LAYOUT_BYTES, f"{path}: key {_LAYOUTS!r}")
  memory.check(sum(sizes.values()), MAX_BYTES, str(path))


def check_layouts(path: pathlib.Path, stored: Mapping[str, headers.Header]) -> None:
  """Raises LimitError if layouts are much larger than their file.

  A megabyte of equal layouts would take a gigabyte of memory, or many seconds to read.

  Args:
    path: the file.
    stored: the headers of its arrays, by key.
  """
  size = _sizes(stored, GRAPH_TYPES).get(_LAYOUTS, 0)
  if _is_dense(size, path.stat().st_size):
    return
  raise errors.LimitError(
      f"{path}: key {_LAYOUTS!r} needs {size:,} bytes, {size // path.stat().st_size:,} times the "
      f"size of the file; the limit is {MAX_LAYOUT_RATIO} times; if the layouts are real, store "
      "the arrays uncompressed (np.savez instead of np.savez_compressed)")


def _is_dense(layout_bytes: int, file_bytes: int) -> bool:
  """Whether a file is not too small for the layouts that it holds."""
  return layout_bytes <= max(MAX_LAYOUT_BYTES_OF_ANY_FILE, MAX_LAYOUT_RATIO * file_bytes)


def check_rows(path: files.PathLike, stored: Mapping[str, headers.Header]) -> None:
  """Raises LimitError if a graph has too many nodes, edges or configurations.

  Args:
    path: the file.
    stored: the headers of its arrays, by key.
  """
  for key, (limit, what) in _ROWS.items():
    count = stored[key].shape[0] if key in stored and stored[key].shape else 0
    if count > limit:
      raise errors.LimitError(
          f"{path}: key {key!r} has {count:,} rows; the limit is {limit:,} {what} of a program; "
          "expected a smaller program: check where the file comes from")


def save_graph(path: files.PathLike, graph: graphs.Graph) -> None:
  """Writes a graph atomically, compressed and with the dtypes of the public release.

  Raises:
    OutputError: the file cannot be written.
  """
  save_arrays(path, graph.arrays())


def save_arrays(path: files.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes the arrays of a graph, compressed unless `load_graph` would refuse the file then.

  Raises:
    OutputError: the file cannot be written.
  """
  array_files.save(path, arrays)
  path = pathlib.Path(path)
  if _LAYOUTS in arrays and not _is_dense(
      arrays[_LAYOUTS].size * GRAPH_TYPES[_LAYOUTS].itemsize, path.stat().st_size):
    array_files.save(path, arrays, compressed=False)
