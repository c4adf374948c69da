"""Graphs in packed files: a program of any size occupies a few kilobytes of memory.

Arrays are read on access and not kept. Only the requested configurations are read. A packed graph
is used like any other graph.

In addition to the arrays of the `.npz` file (except `node_config_feat`, see `data.packed_layouts`),
a packed file holds `order` (c,) uint32, which is `graph.runtime_order()`, `digests` and `keys`. Its
meta values are `kind`, `feature_padding`, `has_runtimes`, and `source`, which identifies the
content of the `.npz` file (see `source_key`).
"""

from collections.abc import Iterator
import dataclasses
import functools
import hashlib
import pathlib
from typing import Any, NamedTuple
import zipfile

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import headers
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import packed_format
from tpugraphs_rank.data import packed_layouts

SUFFIX = ".pack"
_LAYOUTS = "node_config_feat"
# Size of a block of layouts, as stored, when a graph is packed.
_BLOCK_BYTES = 16 * 2**20


def _stored(name: str) -> property:
  """A property that reads the field of that name from the file."""
  return property(lambda graph: graph.reader.read(name) if name in graph.reader.arrays else None)


class _PackedGraph:
  """The common part of both kinds. As the first base class, its properties hide the fields.

  Attributes:
    reader: the reader of the file.
  """

  reader: packed_format.Reader
  node_feat = _stored("node_feat")
  node_splits = _stored("node_splits")
  config_runtime = _stored("config_runtime")
  config_runtime_passes = _stored("config_runtime_passes")

  def __init__(self, reader: packed_format.Reader):
    """Uses only the table of the file, which is already in memory."""
    values = {"reader": reader, "name": reader.path.stem,
              "feature_padding": reader.meta["feature_padding"]}
    for name, value in values.items():
      object.__setattr__(self, name, value)  # Graphs are frozen.

  def __repr__(self) -> str:  # Reads no array.
    return (f"<{type(self).__name__} {self.reader.path.stem}: {self.num_nodes} nodes, "
            f"{self.num_configs} configurations>")

  def __reduce__(self) -> tuple[type, tuple[packed_format.Reader]]:
    return type(self), (self.reader,)

  @property
  def edge_index(self) -> np.ndarray:
    return self._below("edge_index", self.num_nodes)

  @functools.cached_property
  def node_opcode(self) -> np.ndarray:
    """Cached, because every batch needs it; it has one byte per node."""
    return self._below("node_opcode", graphs.NUM_OPCODES)

  def _below(self, name: str, limit: int) -> np.ndarray:
    """An array of numbers from 0 that others index with.

    Raises:
      DataError: a number is negative or not below the limit.
    """
    array = self.reader.read(name)
    if array.size and not 0 <= array.min() <= array.max() < limit:
      self.reader.fail(f"is damaged: its array {name} holds numbers other than 0 to {limit - 1}")
    return array

  @property
  def num_nodes(self) -> int:
    return self.reader.arrays["node_opcode"].shape[0]

  @property
  def num_configs(self) -> int:
    return self.reader.arrays["config_runtime"].shape[0]

  @property
  def has_runtimes(self) -> bool:
    return self.reader.meta["has_runtimes"]

  @property
  def nbytes(self) -> int:
    """Size of the arrays that preparing the graph reads; configurations stay in the file."""
    return sum(self.reader.arrays[name].nbytes
               for name in ("node_feat", "node_opcode", "edge_index", "config_runtime"))

  def runtime_order(self) -> np.ndarray:
    return self._below("order", self.num_configs).astype(np.int64)

  def config_digests(self) -> np.ndarray:
    return self.reader.read("digests")

  def config_keys(self) -> np.ndarray:
    return self.reader.read("keys").astype(np.int64)


class PackedTileGraph(_PackedGraph, graphs.TileGraph):
  """A `TileGraph` in a packed file."""

  config_feat = _stored("config_feat")
  config_runtime_normalizers = _stored("config_runtime_normalizers")


class PackedLayoutGraph(_PackedGraph, graphs.LayoutGraph):
  """A `LayoutGraph` in a packed file."""

  _layouts: packed_layouts.PackedLayouts

  def __init__(self, reader: packed_format.Reader):
    super().__init__(reader)
    object.__setattr__(self, "_layouts", packed_layouts.PackedLayouts(reader))

  @functools.cached_property
  def node_config_ids(self) -> np.ndarray:
    """Cached, like the opcodes."""
    return self._below("node_config_ids", self.num_nodes)

  @property
  def node_config_feat(self) -> np.ndarray:
    """(c, nc, 18) float32: all layouts in memory, for code that needs the whole array."""
    feat = np.empty((self.num_configs, len(self.node_config_ids), graphs.NUM_LAYOUT_FEATURES),
                    np.float32)
    start = 0
    for rows in self.layout_blocks():
      feat[start:start + len(rows)] = rows
      start += len(rows)
    feat.setflags(write=False)
    return feat

  def layouts(self, rows: np.ndarray) -> np.ndarray:
    return self._layouts(rows)


def open_graph(reader: packed_format.Reader) -> graphs.ConfiguredGraph:
  """The graph in a file.

  Raises:
    DataError: the file holds something else.
  """
  kind = reader.meta.get("kind")
  if not isinstance(kind, str) or kind not in _FIELDS:
    reader.fail(f"holds a graph of kind {escaping.value(kind)}; expected tile or layout")
  _check_table(reader, kind)
  return PackedTileGraph(reader) if kind == "tile" else PackedLayoutGraph(reader)


class _Field(NamedTuple):
  """An array of a file: its shape, of lengths or their names, and whether it may be absent."""

  shape: tuple[int | str, ...]
  dtype: np.dtype
  optional: bool


# The arrays of each kind: those of its graphs, without layouts, and the additional ones.
_FIELDS: dict[str, dict[str, _Field]] = {
    kind: {**{field.name: _Field(field.metadata["shape"], field.metadata["dtype"],
                                 field.default is None)
              for field in dataclasses.fields(graph)
              if "dtype" in field.metadata and field.name != _LAYOUTS},
           **{name: _Field(("c",), np.dtype(dtype), False) for name, dtype in more.items()}}
    for kind, graph, more in (
        ("tile", graphs.TileGraph,
         {"order": np.uint32, "digests": np.uint64, "keys": np.uint32}),
        ("layout", graphs.LayoutGraph,
         {"order": np.uint32, "digests": np.uint64, "keys": np.uint32, "code_checks": np.uint32}))}


def _check_table(reader: packed_format.Reader, kind: str) -> None:
  """Refuses a table whose arrays cannot be those of a graph; no array is read."""
  meta = reader.meta
  if (not isinstance(meta.get("source"), str) or not isinstance(meta.get("has_runtimes"), bool)
      or type(meta.get("feature_padding")) is not int or meta["feature_padding"] not in (0, -1)):
    reader.fail("is damaged: its table lacks source, has_runtimes or feature_padding")
  sizes: dict[str, int] = {}
  for name, field in _FIELDS[kind].items():
    entry = reader.arrays.get(name)
    if entry is None and field.optional:
      continue
    if entry is None or entry.dtype != field.dtype or len(entry.shape) != len(field.shape) or any(
        side != (sizes.setdefault(wanted, side) if isinstance(wanted, str) else wanted)
        for side, wanted in zip(entry.shape, field.shape)):
      reader.fail(f"is damaged: its array {name} is missing, or has another shape or dtype than "
                  "the other arrays require")
  if kind == "layout":
    packed_layouts.check_table(reader, sizes["c"], sizes["nc"])


def source_key(path: files.PathLike) -> str:
  """A hash of the content of an `.npz` file, computed from its directory alone.

  The directory of a zip file holds the CRC-32 and the size of each array, so the key depends only
  on the content. A copy or a new date does not change it.

  Raises:
    MissingDataError: there is no such file.
    DataError: it is not an `.npz` file.
  """
  path = pathlib.Path(path)
  with headers.reading(path), zipfile.ZipFile(path) as archive:
    members = sorted((member.filename, member.CRC, member.file_size)
                     for member in archive.infolist())
  return hashlib.sha256(repr(members).encode()).hexdigest()[:32]


def pack_graph(source: files.PathLike, target: files.PathLike) -> None:
  """Packs one graph. Its layouts are unpacked block by block, never all at once.

  Args:
    source: an `.npz` file.
    target: the packed file. It appears once it is complete.

  Raises:
    MissingDataError: the source does not exist.
    DataError: the source is damaged, violates the format, has no configurations, or changed in the
      meantime.
    LimitError: the source has too many nodes, edges or configurations, or its layouts are much
      larger than the file.
    OutputError: the target cannot be written.
  """
  source = pathlib.Path(source)
  key = source_key(source)
  shapes = headers.read_headers(source)
  npz.check_rows(source, shapes)
  npz.check_layouts(source, shapes)
  arrays: dict[str, Any] = npz.read_arrays(
      source, npz.GRAPH_KEYS - {_LAYOUTS}, types=npz.GRAPH_TYPES)
  if _LAYOUTS in shapes:
    arrays[_LAYOUTS] = graphs.Unread(*shapes[_LAYOUTS])
  try:
    graph = graphs.graph_from_arrays(source.stem, arrays)
    if not isinstance(graph, graphs.ConfiguredGraph):
      raise errors.DataError(
          f"{graph.name} has no configurations; only tile and layout graphs can be packed")
    with files.atomic_write(target) as file:
      writer = packed_format.Writer(file)
      _write(writer, graph, source)
      if source_key(source) != key:
        raise errors.DataError("changed while it was packed; run the same command again")
      writer.finish({
          "kind": graph.kind, "feature_padding": graph.feature_padding, "source": key,
          "has_runtimes": graph.has_runtimes})
  except errors.DataError as error:
    raise errors.DataError(f"{source}: {error}") from None


def _write(writer: packed_format.Writer, graph: graphs.ConfiguredGraph, source: pathlib.Path
           ) -> None:
  """Writes the arrays of a graph."""
  for name, array in graph.arrays().items():
    if name == "node_splits":
      writer.add(name, array[0])
    elif name not in ("feature_padding", _LAYOUTS):
      writer.add(name, array)
  writer.add("order", graph.runtime_order().astype(np.uint32))
  if isinstance(graph, graphs.LayoutGraph):
    packed_layouts.write(writer, len(graph.node_config_ids),
                         lambda: _layout_blocks(graph, source))
  else:
    writer.add("digests", graph.config_digests())
    writer.add("keys", graph.config_keys().astype(np.uint32))


def _layout_blocks(graph: graphs.LayoutGraph, source: pathlib.Path) -> Iterator[np.ndarray]:
  """The stored layouts of a graph in blocks, with the same checks as for any graph.

  Raises:
    DataError: the file is damaged, or a value is not valid in a layout.
  """
  start = 0
  for rows in npz.read_rows(source, _LAYOUTS, _BLOCK_BYTES):
    graph.check_layouts(rows, start)
    start += len(rows)
    yield rows
