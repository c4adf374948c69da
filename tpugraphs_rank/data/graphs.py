"""Programs as immutable, validated dataclasses. Their fields are named after the npz keys.

Shapes: n nodes, m edges, c configurations, nc configurable nodes. Row `[u, v]` of `edge_index`
means that node u consumes the output of node v. Runtimes are in nanoseconds.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import hashlib
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank.data import distinct_rows

NUM_NODE_FEATURES = 140
NUM_TILE_FEATURES = 24
NUM_LAYOUT_FEATURES = 18
NUM_OPCODES = 128  # The largest id is 120; the published models embed 128.
_ROWS_PER_CHECK = 1024
# Layout values per block. Decoding a block makes a temporary float32 copy of it.
_BLOCK_VALUES = 2 * 2**20


class Unread(NamedTuple):
  """Placeholder for an array that stays in its file. Only its shape and dtype are checked."""

  shape: tuple[int, ...]
  dtype: np.dtype


def _array_field(shape: tuple[Any, ...], dtype: Any, required: bool = True) -> Any:
  metadata = {"shape": shape, "dtype": np.dtype(dtype)}
  if required:
    return dataclasses.field(metadata=metadata)
  return dataclasses.field(default=None, metadata=metadata)


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
  """A program without configurations, such as a plain HLO module gives.

  Attributes:
    name: file stem.
    node_feat: (n, 140) float32, in the order of `tpugraphs_rank.hlo.features`.
    node_opcode: (n,) uint8.
    edge_index: (m, 2) int64.
    feature_padding: the value, 0 or -1, that pads feature lists without aggregates.
    node_splits: (S,) int64, the first node of each major computation, followed by n; or None.
  """

  kind: ClassVar[str | None] = None

  name: str
  node_feat: np.ndarray = _array_field(("n", NUM_NODE_FEATURES), np.float32)
  node_opcode: np.ndarray = _array_field(("n",), np.uint8)
  edge_index: np.ndarray = _array_field(("m", 2), np.int64)
  feature_padding: int = dataclasses.field(default=0, kw_only=True)
  node_splits: np.ndarray | None = dataclasses.field(
      default=None, kw_only=True, metadata={"shape": ("S",), "dtype": np.dtype(np.int64)})

  def __post_init__(self) -> None:
    sizes: dict[str, int] = {}
    for field in dataclasses.fields(self):
      if "dtype" in field.metadata:
        array = _canonical(self, field, sizes)
        object.__setattr__(self, field.name, array)
    self._validate()

  def _fail(self, key: str, problem: str) -> None:
    raise errors.DataError(
        f"{self.name}: {key} {problem}; download the file again, or write it again with "
        f"{commands.command('featurize')} if the program is your own")

  def _validate(self) -> None:
    n = self.num_nodes
    if n == 0:
      self._fail("node_feat", "has no nodes; expected at least one")
    if self.feature_padding not in (0, -1):
      self._fail("feature_padding", f"is {self.feature_padding}; expected 0 or -1")
    if self.node_opcode.max() >= NUM_OPCODES:
      self._fail("node_opcode", f"holds {self.node_opcode.max()}; expected ids below {NUM_OPCODES}")
    if self.edge_index.size and not (0 <= self.edge_index.min() and self.edge_index.max() < n):
      row = int(np.flatnonzero(((self.edge_index < 0) | (self.edge_index >= n)).any(axis=1))[0])
      self._fail("edge_index", f"row {row} is {self.edge_index[row].tolist()}; expected node ids "
                 f"from 0 to {n - 1}")
    if self.node_splits is not None and self.node_splits.size:
      if (np.diff(self.node_splits) < 0).any() or self.node_splits[0] < 0 or (
          self.node_splits[-1] > n):
        self._fail("node_splits", f"does not rise from 0 to the number of nodes ({n})")

  def __repr__(self) -> str:
    parts = [f"{self.num_nodes} nodes", f"{len(self.edge_index)} edges"]
    if self.kind is not None:
      parts.append(f"{self.num_configs} configurations")
      if not self.has_runtimes:
        parts.append("no runtimes")
    return f"<{type(self).__name__} {self.name}: {', '.join(parts)}>"

  @property
  def num_nodes(self) -> int:
    return len(self.node_feat)

  @property
  def num_configs(self) -> int:
    return 0

  @property
  def has_runtimes(self) -> bool:
    """Whether the runtimes were measured; the released test splits hold zeros instead."""
    return False

  @property
  def nbytes(self) -> int:
    """Size of the graph's arrays in memory, in bytes."""
    return sum(array.nbytes for array in self.arrays().values())

  def arrays(self) -> dict[str, np.ndarray]:
    """The arrays to store, by npz key."""
    stored = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)
              if "dtype" in field.metadata and getattr(self, field.name) is not None}
    if "node_splits" in stored:
      stored["node_splits"] = stored["node_splits"][None, :]  # The released shape, (1, S).
    stored["feature_padding"] = np.int64(self.feature_padding)
    return stored


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ConfiguredGraph(Graph):
  """The common part of tile and layout graphs: configurations and their runtimes."""

  config_runtime: np.ndarray = _array_field(("c",), np.int64)

  def _validate(self) -> None:
    super()._validate()
    runtime = self.config_runtime
    if (runtime < 0).any():
      self._fail("config_runtime", f"entry {int(np.argmin(runtime))} is {runtime.min()}; expected "
                 "positive nanoseconds")
    if runtime.size and (runtime == 0).any() and (runtime > 0).any():
      self._fail("config_runtime", f"entry {int(np.argmin(runtime))} is 0 while others are "
                 "measured; expected every runtime to be positive, or all to be zero (no runtimes)")

  @property
  def num_configs(self) -> int:
    return len(self.config_runtime)

  @property
  def has_runtimes(self) -> bool:
    return bool(self.config_runtime.size) and bool(self.config_runtime[0] > 0)

  @property
  def relative_runtime(self) -> np.ndarray:
    """(c,) float64: the runtimes that evaluation uses for rankings and slowdowns."""
    return self.config_runtime.astype(np.float64)

  def runtime_order(self) -> np.ndarray:
    """(c,) the configurations from fastest to slowest; ties keep their order in the file."""
    return np.argsort(self.relative_runtime, kind="stable")

  def config_digests(self) -> np.ndarray:
    """(c,) uint64: a hash of each configuration's features alone."""
    return row_digests(self.config_rows())

  def config_keys(self) -> np.ndarray:
    """(c,) int64: equal for equal configurations; numbered from 0 by first occurrence."""
    return distinct_rows.find(self.config_rows()).group

  def config_rows(self) -> np.ndarray:
    """(c, ...) one row per configuration; equal rows are equal configurations."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TileGraph(ConfiguredGraph):
  """A kernel with tile sizes.

  Attributes in addition to those of `Graph`:
    config_runtime: (c,) int64 ns; all zeros if nothing was measured.
    config_feat: (c, 24) float32: kernel bounds (6), their sum and product, then the same for the
      output bounds and the input bounds.
    config_runtime_normalizers: (c,) int64 ns, runtime of the default configuration in the same run.
    config_runtime_passes: (p, c) int64 ns, the independent measurements whose mean is
      `config_runtime`; or None.
  """

  kind: ClassVar[str] = "tile"

  config_feat: np.ndarray = _array_field(("c", NUM_TILE_FEATURES), np.float32)
  config_runtime_normalizers: np.ndarray = _array_field(("c",), np.int64)
  config_runtime_passes: np.ndarray | None = _array_field(("p", "c"), np.int64, required=False)

  def _validate(self) -> None:
    super()._validate()
    if self.has_runtimes and (self.config_runtime_normalizers <= 0).any():
      entry = int(np.argmin(self.config_runtime_normalizers))
      self._fail("config_runtime_normalizers",
                 f"entry {entry} is {self.config_runtime_normalizers[entry]}; expected positive "
                 "nanoseconds")

  @property
  def relative_runtime(self) -> np.ndarray:
    if not self.has_runtimes:
      return self.config_runtime.astype(np.float64)
    return self.config_runtime / self.config_runtime_normalizers

  def config_rows(self) -> np.ndarray:
    return self.config_feat + np.float32(0)  # Turns -0 into 0: rows are compared by bytes.


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LayoutGraph(ConfiguredGraph):
  """A program with tensor layouts at some of its nodes.

  Attributes in addition to those of `Graph`:
    config_runtime: (c,) int64 ns; all zeros if nothing was measured.
    node_config_ids: (nc,) int64, the configurable nodes.
    node_config_feat: (c, nc, 18) float32, integers from -1 to 5: layouts of the output (6), the
      input (6) and the kernel (6), minor to major, padded with -1.
    config_runtime_passes: (p, c) int64 ns, as in `TileGraph`; or None.
  """

  kind: ClassVar[str] = "layout"

  node_config_ids: np.ndarray = _array_field(("nc",), np.int64)
  node_config_feat: np.ndarray = _array_field(("c", "nc", NUM_LAYOUT_FEATURES), np.float32)
  config_runtime_passes: np.ndarray | None = _array_field(("p", "c"), np.int64, required=False)

  def _validate(self) -> None:
    super()._validate()
    ids = self.node_config_ids
    if ids.size and not (0 <= ids.min() and ids.max() < self.num_nodes):
      wrong = ids.min() if ids.min() < 0 else ids.max()
      self._fail("node_config_ids", f"holds {wrong}; expected node ids from 0 to "
                 f"{self.num_nodes - 1}")
    if len(np.unique(ids)) != len(ids):
      self._fail("node_config_ids", "lists a node twice")
    feat = self.node_config_feat
    if isinstance(feat, Unread):
      return
    # In blocks: the largest array of the public data has 1.74 GB, and a check of all of it at once
    # would need as much again.
    for start in range(0, len(feat), _ROWS_PER_CHECK):
      self.check_layouts(feat[start:start + _ROWS_PER_CHECK], start)

  def check_layouts(self, rows: np.ndarray, start: int = 0) -> None:
    """Raises DataError if rows of `node_config_feat` hold anything but integers from -1 to 5.

    Args:
      rows: (r, nc, 18).
      start: index of the first row's configuration, for the message.
    """
    # The condition also catches NaN.
    wrong = ~((rows >= -1) & (rows <= 5) & (rows == np.trunc(rows)))
    if wrong.any():
      place = tuple(np.argwhere(wrong)[0].tolist())
      self._fail("node_config_feat", f"entry {[start + place[0], *place[1:]]} is "
                 f"{rows[place]}; expected integers from -1 to 5")

  def layouts(self, rows: np.ndarray) -> np.ndarray:
    """(r, nc, 18) int8: `node_config_feat` of the configurations `rows` (r,), in any order.

    Code that reads configurations calls this method, so that a packed graph decodes only the
    configurations it is asked for.
    """
    return self.node_config_feat[rows].astype(np.int8)

  def layout_blocks(self, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """`layouts` of all configurations, or of `rows`, block by block."""
    rows = np.arange(self.num_configs) if rows is None else rows
    size = max(_BLOCK_VALUES // (max(len(self.node_config_ids), 1) * NUM_LAYOUT_FEATURES), 1)
    return (self.layouts(rows[start:start + size]) for start in range(0, len(rows), size))

  def config_digests(self) -> np.ndarray:
    return np.concatenate(
        [np.zeros([0], np.uint64), *(row_digests(rows) for rows in self.layout_blocks())])

  def config_rows(self) -> np.ndarray:
    # One byte per value: float32 would make comparisons four times as slow.
    rows = np.empty([self.num_configs, len(self.node_config_ids) * NUM_LAYOUT_FEATURES], np.int8)
    start = 0
    for block in self.layout_blocks():
      rows[start:start + len(block)] = block.reshape(len(block), -1)
      start += len(block)
    return rows


class _CompactLayoutGraph(LayoutGraph):
  """A `LayoutGraph` that stores its configurations with one byte per value."""

  compact: np.ndarray  # (c, nc, 18) int8

  def layouts(self, rows: np.ndarray) -> np.ndarray:
    return self.compact[rows]

  @property
  def nbytes(self) -> int:
    return self.compact.nbytes + sum(
        array.nbytes for name, array in self.arrays().items() if name != "node_config_feat")


def _compact(name: str, arrays: Mapping[str, Any], layouts: np.ndarray) -> LayoutGraph:
  """Builds a graph without a float32 copy of the layouts. Layouts in int8 are not copied at all."""
  graph = _CompactLayoutGraph(name, **{
      **arrays, "node_config_feat": Unread(layouts.shape, layouts.dtype)})
  compact = layouts if layouts.dtype == np.int8 else np.empty(layouts.shape, np.int8)
  for start in range(0, len(layouts), _ROWS_PER_CHECK):
    block = layouts[start:start + _ROWS_PER_CHECK]
    graph.check_layouts(block, start)
    if compact is not layouts:
      compact[start:start + len(block)] = block
  object.__setattr__(graph, "compact", compact)
  return graph


def row_digests(rows: np.ndarray) -> np.ndarray:
  """(r,) uint64: a hash of the bytes of each of `rows` (r, ...)."""
  rows = np.ascontiguousarray(rows)
  return np.array([int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "big")
                   for row in rows], np.uint64)


def with_configs(graph: Graph, configs: np.ndarray) -> ConfiguredGraph:
  """The same program with other, unmeasured configurations.

  Args:
    graph: a `TileGraph` or `LayoutGraph`.
    configs: (c, 24) tile features, or (c, nc, 18) layouts of the graph's configurable nodes.
      Layouts in int8 are not copied.

  Raises:
    DataError: the configurations do not fit the graph, or the graph has no configurable parts.
  """
  keys = {"tile": "config_feat", "layout": "node_config_feat"}
  if graph.kind not in keys:
    raise errors.DataError(
        f"{graph.name} is a graph without configurable nodes or tiles; featurize it with its "
        f"configurations ({commands.command('featurize')}), or use {commands.command('rank')}")
  configs = np.asarray(configs)
  unmeasured = np.zeros(len(configs) if configs.ndim else 0, np.int64)
  arrays = {field.name: getattr(graph, field.name) for field in dataclasses.fields(graph)
            if field.name not in ("name", "config_runtime_passes", keys[graph.kind])}
  arrays.update({keys[graph.kind]: configs, "config_runtime": unmeasured})
  if graph.kind == "tile":
    arrays["config_runtime_normalizers"] = unmeasured
    return TileGraph(graph.name, **arrays)
  del arrays["node_config_feat"]
  return _compact(graph.name, arrays, configs)


def _canonical(graph: Graph, field: dataclasses.Field, sizes: dict[str, int]
               ) -> np.ndarray | None:
  """The array of `field`: checked, read-only and with its canonical dtype."""
  value = getattr(graph, field.name)
  if value is None:
    return None
  array: Any = value if isinstance(value, Unread) else np.asarray(value)
  if field.name == "node_splits" and len(array.shape) == 2 and len(array) == 1:
    array = array[0]
  key, shape, dtype = field.name, field.metadata["shape"], field.metadata["dtype"]
  if len(array.shape) != len(shape):
    graph._fail(key, f"has shape {array.shape}; expected ({', '.join(map(str, shape))})")
  for length, expected in zip(array.shape, shape):
    wanted = sizes.setdefault(expected, length) if isinstance(expected, str) else expected
    if length != wanted:
      named = "" if not isinstance(expected, str) else f" with {expected} = {wanted}"
      graph._fail(key, f"has shape {array.shape}; expected ({', '.join(map(str, shape))}){named}")
  if array.dtype.kind not in "iufb":
    graph._fail(key, f"has dtype {array.dtype}; expected {dtype}")
  if isinstance(value, Unread):
    return array
  if array.dtype.kind == "f":
    if not np.isfinite(array).all():
      where = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
      graph._fail(key, f"entry {where} is {array[tuple(where)]}; expected finite numbers")
    if dtype.kind in "iu" and (array != np.trunc(array)).any():
      graph._fail(key, f"has dtype {array.dtype} and fractions; expected {dtype}")
  if dtype.kind in "iu" and array.size:
    limits = np.iinfo(dtype)
    if array.min() < limits.min or array.max() > limits.max:
      graph._fail(key, f"ranges from {array.min()} to {array.max()}; expected {dtype}")
  array = np.array(array, dtype=dtype, order="C") if (
      array.dtype != dtype or array.flags.writeable) else np.ascontiguousarray(array)
  array.setflags(write=False)
  return array


def graph_from_arrays(name: str, arrays: Mapping[str, np.ndarray]) -> Graph:
  """Builds a `TileGraph`, a `LayoutGraph` or a plain `Graph` from arrays by npz key.

  Unknown keys are ignored: later versions of the public data may add some.

  Raises:
    DataError: a key is missing or an array violates the format; the message names key and entry.
  """
  cls: type[Graph]
  if "config_feat" in arrays:
    cls = TileGraph
  elif "node_config_feat" in arrays or "node_config_ids" in arrays:
    cls = LayoutGraph
  elif "config_runtime" in arrays:
    raise errors.DataError(
        f"{name}: has config_runtime, but neither config_feat (tile) nor node_config_feat "
        f"(layout); write the file again with {commands.command('featurize')}")
  else:
    cls = Graph
  values: dict[str, Any] = {}
  for field in dataclasses.fields(cls):
    if field.name == "name":
      continue
    if field.name in arrays:
      values[field.name] = arrays[field.name]
    elif field.default is dataclasses.MISSING:
      raise errors.DataError(
          f"{name}: key {field.name!r} is missing (found: {', '.join(sorted(arrays)) or 'none'}); "
          f"download the file again, or write it again with {commands.command('featurize')}")
  if "feature_padding" in values:
    padding = np.asarray(values["feature_padding"])
    if padding.size != 1 or padding.dtype.kind not in "iu":
      raise errors.DataError(f"{name}: feature_padding is {padding!r}; expected 0 or -1")
    values["feature_padding"] = int(padding.reshape(()))
  return cls(name, **values)
