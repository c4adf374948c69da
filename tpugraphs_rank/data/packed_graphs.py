"""Graphs in packed files: what a program of any size is in memory is a few kilobytes.

Arrays are read when they are asked for, and not kept; configurations only those that are asked for.
A packed graph is used as any other.

Beside the arrays of the `.npz` file (but for `node_config_feat`, see `data.packed_layouts`), a file
holds `order` (c,) uint32, as `graph.runtime_order()`, `digests` and `keys`. Its meta are `kind`,
`feature_padding`, `has_runtimes`, and `source`, which tells what it was made of (see `source_key`).
"""

from collections.abc import Iterator
import functools
import hashlib
import pathlib
from typing import Any
import zipfile

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import headers
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import packed_format
from tpugraphs_rank.data import packed_layouts

SUFFIX = ".pack"
_LAYOUTS = "node_config_feat"
# Bytes of layouts, as stored, that are unpacked at a time.
_BLOCK_BYTES = 16 * 2**20


def _stored(name: str) -> property:
  """The field of that name, read from the file."""
  return property(lambda graph: graph.reader.read(name) if name in graph.reader.arrays else None)


class _PackedGraph:
  """What both kinds share. It comes first among the bases: its properties hide the fields.

  Attributes:
    reader: of the file.
  """

  node_feat = _stored("node_feat")
  edge_index = _stored("edge_index")
  node_splits = _stored("node_splits")
  config_runtime = _stored("config_runtime")
  config_runtime_passes = _stored("config_runtime_passes")

  def __init__(self, reader: packed_format.Reader):
    """Takes nothing from the file but its table, which is in memory."""
    values = {"reader": reader, "name": reader.path.stem,
              "feature_padding": reader.meta["feature_padding"]}
    for name, value in values.items():
      object.__setattr__(self, name, value)  # Graphs are frozen.

  def __repr__(self) -> str:  # Not the arrays: they would all be read.
    return f"{type(self).__name__}({str(self.reader.path)!r})"

  def __reduce__(self):
    return type(self), (self.reader,)

  @functools.cached_property
  def node_opcode(self) -> np.ndarray:
    """Kept: a byte a node, of which every batch asks."""
    return self.reader.read("node_opcode")

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
    """Bytes of the arrays that whoever prepares the graph reads; configurations stay where they are."""
    return sum(self.reader.arrays[name].nbytes
               for name in ("node_feat", "node_opcode", "edge_index", "config_runtime"))

  def runtime_order(self) -> np.ndarray:
    return self.reader.read("order").astype(np.int64)

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

  def __init__(self, reader: packed_format.Reader):
    super().__init__(reader)
    object.__setattr__(self, "_layouts", packed_layouts.PackedLayouts(reader))

  @functools.cached_property
  def node_config_ids(self) -> np.ndarray:
    """Kept, as the opcodes are."""
    return self.reader.read("node_config_ids")

  @property
  def node_config_feat(self) -> np.ndarray:
    """(c, nc, 18) float32: all of them, in memory; for what has to have them whole."""
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


def open_graph(reader: packed_format.Reader) -> graphs.Graph:
  """The graph in a file.

  Raises:
    DataError: the file holds something else.
  """
  kinds = {"tile": PackedTileGraph, "layout": PackedLayoutGraph}
  kind = reader.meta.get("kind")
  if kind not in kinds:
    reader.fail(f"holds a graph of kind {kind!r}; expected tile or layout")
  return kinds[kind](reader)


def source_key(path: files.PathLike) -> str:
  """What the content of an `.npz` file is, told without reading more than its directory.

  The directory of a zip file holds the CRC-32 and the size of each array, so that the key follows
  from the content alone: neither a copy nor a new date changes it.

  Raises:
    MissingDataError: there is no such file.
    DataError: it is no `.npz` file.
  """
  path = pathlib.Path(path)
  with headers.reading(path), zipfile.ZipFile(path) as archive:
    members = sorted((member.filename, member.CRC, member.file_size)
                     for member in archive.infolist())
  return hashlib.sha256(repr(members).encode()).hexdigest()[:32]


def pack_graph(source: files.PathLike, target: files.PathLike) -> None:
  """Packs one graph; its layouts are unpacked some at a time, never as a whole.

  Args:
    source: an `.npz` file.
    target: the packed file, which appears once it is complete.

  Raises:
    MissingDataError: there is no source.
    DataError: it is damaged, breaks the format, has no configurations, or was changed meanwhile.
    OutputError: the target cannot be written.
  """
  source = pathlib.Path(source)
  key = source_key(source)
  shapes = headers.read_headers(source)
  arrays: dict[str, Any] = npz.read_arrays(source, [name for name in shapes if name != _LAYOUTS])
  if _LAYOUTS in shapes:
    arrays[_LAYOUTS] = graphs.Unread(*shapes[_LAYOUTS])
  try:
    graph = graphs.graph_from_arrays(source.stem, arrays)
    if graph.kind is None:
      raise errors.DataError(
          f"{graph.name} has no configurations; only tile and layout graphs are packed")
    with files.atomic_write(target) as file:
      writer = packed_format.Writer(file)
      _write(writer, graph, source)
      if source_key(source) != key:
        raise errors.DataError("was changed while it was packed; run the same command again")
      writer.finish({
          "kind": graph.kind, "feature_padding": graph.feature_padding, "source": key,
          "has_runtimes": graph.has_runtimes})
  except errors.DataError as error:
    raise errors.DataError(f"{source}: {error}") from None


def _write(writer: packed_format.Writer, graph: graphs.Graph, source: pathlib.Path) -> None:
  """Writes the arrays of a graph."""
  for name, array in graph.arrays().items():
    if name == "node_splits":
      writer.add(name, graph.node_splits)
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
  """The stored layouts of a graph, some rows at a time, checked as those of any graph are.

  Raises:
    DataError: the file is damaged, or a number is no layout's.
  """
  start = 0
  for rows in npz.read_rows(source, _LAYOUTS, _BLOCK_BYTES):
    graph.check_layouts(rows, start)
    start += len(rows)
    yield rows
