"""Many labeled directed acyclic graphs in flat arrays, and the `.npz` files that store them.

The format is the pickle-free form in which LayerDAG's TPU kernel graphs are published
(arXiv 2411.02322), extended by several attributes per node, several labels per graph, and
provenance. Shapes: G graphs, N nodes and E edges in total, F attributes per node, T labels per
graph.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from tpugraphs_rank import array_files
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import headers
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import segments
from tpugraphs_rank.data import twins
from tpugraphs_rank.synthesis.dags import checks
from tpugraphs_rank.synthesis.dags import file_fields

# Split of the graphs that generators are evaluated on; training gets the rest.
SHARES = {"valid": 0.2, "test": 0.2}
# The arrays of `Dags`, with their types and numbers of axes.
_ARRAYS: dict[str, tuple[type, int]] = {
    "node_off": (np.int64, 1), "edge_off": (np.int64, 1), "src": (np.int32, 1),
    "dst": (np.int32, 1), "x": (np.int32, 2), "level": (np.int32, 1), "y": (np.float64, 2),
    "wl": (np.uint64, 1)}
# The same for the size of a file; attributes without vocabularies are read as int64.
_TYPES = {**{name: np.dtype(kind) for name, (kind, _) in _ARRAYS.items()}, "x": np.dtype(np.int64)}
# Nodes, edges and graphs that any file may hold, and how many for each byte of a larger one. Rows
# that are alike are compressed by a factor of thousand; real files take a byte or more for a node.
_FREE_ROWS = 1 << 20
_ROWS_PER_BYTE = 8
_REMEDY = "write the file again, with graphs from `tpugraphs_rank.synthesis.dags.dags.canonical`"


@dataclasses.dataclass(frozen=True, eq=False)
class Dags:
  """Graphs whose nodes are stored in level order; the arrays are validated and read-only.

  Attributes:
    node_off: (G+1,) int64; the nodes of graph g are the rows from node_off[g] to node_off[g + 1].
    edge_off: (G+1,) int64; the edges of graph g are the rows from edge_off[g] to edge_off[g + 1].
    src: (E,) int32; the consuming node, as an index within its graph.
    dst: (E,) int32; the producing node, as an index within its graph; always src < dst.
    x: (N, F) int32 indices into the vocabulary of each attribute.
    level: (N,) int32 longest path from a root; roots are the nodes without consumers.
    vocabularies: for each attribute (V,) values, integers or strings, that its indices refer to.
    x_names: (F,) names of the attributes.
    y: (G, T) float64 labels.
    y_names: (T,) names of the labels.
    wl: (G,) uint64, equal for graphs that differ only in the order of their nodes. The numbers
      depend on the program that wrote the file (see `hashes`).
    provenance: where the graphs come from; must be serializable as JSON.

  Raises:
    DataError: an array violates these conditions; the message names it.
  """

  node_off: np.ndarray
  edge_off: np.ndarray
  src: np.ndarray
  dst: np.ndarray
  x: np.ndarray
  level: np.ndarray
  vocabularies: tuple[np.ndarray, ...]
  x_names: tuple[str, ...]
  y: np.ndarray
  y_names: tuple[str, ...]
  wl: np.ndarray
  provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    for name, (dtype, ndim) in _ARRAYS.items():
      array = checks.canonical_array(name, getattr(self, name), dtype, ndim)
      object.__setattr__(self, name, array)
    object.__setattr__(self, "x_names", tuple(map(str, self.x_names)))
    object.__setattr__(self, "y_names", tuple(map(str, self.y_names)))
    object.__setattr__(self, "vocabularies", tuple(
        checks.checked_vocabulary(f"vocab_{name}", words)
        for name, words in zip(self.x_names, self.vocabularies, strict=True)))
    checks.check(self)

  def __len__(self) -> int:
    return len(self.node_off) - 1

  @property
  def sizes(self) -> np.ndarray:
    """(G,) int64 nodes of each graph."""
    return np.diff(self.node_off)

  @property
  def graph_of_node(self) -> np.ndarray:
    """(N,) int64 index of the graph that each node belongs to."""
    return np.repeat(np.arange(len(self)), self.sizes)

  @property
  def graph_of_edge(self) -> np.ndarray:
    """(E,) int64 index of the graph that each edge belongs to."""
    return np.repeat(np.arange(len(self)), np.diff(self.edge_off))

  @property
  def flat_src(self) -> np.ndarray:
    """(E,) int64 `src` as row indices of `x`."""
    return self.src + self.node_off[self.graph_of_edge]

  @property
  def flat_dst(self) -> np.ndarray:
    """(E,) int64 `dst` as row indices of `x`."""
    return self.dst + self.node_off[self.graph_of_edge]

  @property
  def num_operands(self) -> np.ndarray:
    """(N,) int64 number of distinct operands of each node."""
    return np.bincount(self.flat_src, minlength=len(self.x))

  @property
  def num_users(self) -> np.ndarray:
    """(N,) int64 number of nodes that consume each node's output."""
    return np.bincount(self.flat_dst, minlength=len(self.x))

  @property
  def depths(self) -> np.ndarray:
    """(G,) int64 number of levels of each graph."""
    return self.level[self.node_off[1:] - 1].astype(np.int64) + 1

  def nodes(self, graph: int) -> slice:
    """The rows of `x` that hold a graph's nodes."""
    return slice(int(self.node_off[graph]), int(self.node_off[graph + 1]))

  def edges(self, graph: int) -> np.ndarray:
    """(m, 2) int32 edges [consumer, producer] of a graph, as node indices within the graph."""
    rows = slice(int(self.edge_off[graph]), int(self.edge_off[graph + 1]))
    return np.stack([self.src[rows], self.dst[rows]], axis=1)

  def label(self, name: str | None = None) -> np.ndarray:
    """(G,) float64 values of one label, by default the first.

    Raises:
      DataError: the label does not exist, or the graphs have no labels.
    """
    if not self.y_names or (name is not None and name not in self.y_names):
      raise errors.DataError(
          f"y: no label {name or ''!r} for these graphs; they have: "
          f"{', '.join(self.y_names) or 'none'}; write the file with labels")
    return self.y[:, 0 if name is None else self.y_names.index(name)]

  def take(self, indices: Sequence[int] | np.ndarray) -> "Dags":
    """The graphs at these indices, in this order; an index may occur more than once."""
    chosen = np.asarray(indices)
    chosen = np.arange(len(self))[chosen] if chosen.size else np.zeros([0], np.int64)
    nodes, node_off = _rows(self.node_off, chosen)
    edges, edge_off = _rows(self.edge_off, chosen)
    return dataclasses.replace(
        self, node_off=node_off, edge_off=edge_off, src=self.src[edges], dst=self.dst[edges],
        x=self.x[nodes], level=self.level[nodes], y=self.y[chosen], wl=self.wl[chosen])

  def with_labels(self, y: np.ndarray, y_names: Sequence[str]) -> "Dags":
    """The same graphs with these labels, (G, T) or (G,)."""
    y = np.asarray(y, np.float64)
    return dataclasses.replace(
        self, y=y[:, None] if y.ndim == 1 else y, y_names=tuple(y_names))

  def with_provenance(self, provenance: Mapping[str, Any]) -> "Dags":
    """The same graphs with another provenance."""
    return dataclasses.replace(self, provenance=dict(provenance))

  def in_vocabularies(self, vocabularies: Sequence[np.ndarray]) -> "Dags":
    """The same graphs with their attributes re-indexed into other vocabularies.

    Raises:
      DataError: a value that occurs in the graphs is missing from the new vocabulary.
    """
    columns = []
    for name, column, old, new in zip(
        self.x_names, self.x.T, self.vocabularies, vocabularies, strict=True):
      index_of = {word: index for index, word in enumerate(np.asarray(new).tolist())}
      table = np.array([index_of.get(word, -1) for word in old.tolist()], np.int32)
      indices = table[column] if len(column) else column
      if (indices < 0).any():
        missing = old[column[np.flatnonzero(indices < 0)[0]]]
        raise errors.DataError(
            f"vocab_{name} lacks {missing.item()!r}, which occurs in the graphs; pass a vocabulary "
            "that contains every value (`common_vocabularies`)")
      columns.append(indices)
    return dataclasses.replace(
        self, x=np.stack(columns, axis=1), vocabularies=tuple(vocabularies))

  def hashes(self) -> np.ndarray:
    """(G,) uint64 Weisfeiler-Lehman hashes of the attribute values and edges.

    They are comparable between files and machines, whatever the vocabularies. `wl` may come from
    another program and differ.
    """
    values = np.stack([_codes(words)[column]
                       for words, column in zip(self.vocabularies, self.x.T)], axis=1)
    result = np.zeros([len(self)], np.uint64)
    for graph in range(len(self)):
      rows = values[self.nodes(graph)]
      result[graph] = int(twins.graph_hash(
          rows[:, 0], self.edges(graph), rows[:, 1:] if rows.shape[1] > 1 else None)[:16], 16)
    return result


def canonical(graphs: Sequence[tuple[np.ndarray, np.ndarray]],
              x_names: Sequence[str] = (file_fields.DEFAULT_ATTRIBUTE,),
              vocabularies: Sequence[np.ndarray] | None = None,
              y: np.ndarray | None = None, y_names: Sequence[str] = (),
              wl: np.ndarray | None = None, provenance: Mapping[str, Any] | None = None,
              names: Sequence[str] | None = None) -> Dags:
  """Puts graphs into level order and drops duplicate edges.

  Nodes of the same level keep their input order. Reordering the nodes of a graph therefore changes
  nothing but the order within its levels.

  Args:
    graphs: for each graph its edges (m, 2) [consumer, producer] and attributes (n, F) or (n,).
    x_names: (F,) names of the attributes.
    vocabularies: values that the attributes index; None: the attributes are values themselves, and
      the sorted distinct values become the vocabulary.
    y: (G, T) or (G,) labels; None: no labels.
    y_names: (T,) names of the labels; by default "runtime" for a single one.
    wl: (G,) uint64; None: computed (`Dags.hashes`).
    provenance: where the graphs come from.
    names: (G,) names of the graphs in error messages; None: their indices.

  Raises:
    DataError: a graph is empty or has a cycle or a self-loop, or an array is invalid.
  """
  name = lambda graph: f"graph {graph if names is None else names[graph]}"
  edges = [np.asarray(rows, np.int64).reshape(-1, 2) for rows, _ in graphs]
  features = [np.asarray(rows) for _, rows in graphs]
  for graph, rows in enumerate(features):
    if not rows.size:
      raise errors.DataError(f"{name(graph)} has no nodes; expected at least one")
  features = [rows.reshape(len(rows), -1) for rows in features]
  sizes = np.array([len(rows) for rows in features], np.int64)
  for graph, (rows, size) in enumerate(zip(edges, sizes)):
    if rows.size and not 0 <= rows.min() <= rows.max() < size:
      raise errors.DataError(
          f"{name(graph)}: an edge names node {rows.max() if rows.min() >= 0 else rows.min()}; "
          f"expected numbers from 0 to {size - 1}")
  node_off = _offsets(sizes)
  graph_of_edge = np.repeat(np.arange(len(graphs)), [len(rows) for rows in edges])
  flat = np.concatenate([np.zeros([0, 2], np.int64), *edges]) + node_off[graph_of_edge][:, None]
  # Levels count from the users to their operands, so the roots come first.
  level = segments.levels(flat[:, ::-1], int(node_off[-1]))
  wrong = np.flatnonzero(level[flat[:, 1]] <= level[flat[:, 0]])
  if wrong.size:
    graph = graph_of_edge[wrong[0]]
    loop = "an edge to itself" if flat[wrong[0], 0] == flat[wrong[0], 1] else "a cycle"
    raise errors.DataError(
        f"{name(graph)}: node {flat[wrong[0], 0] - node_off[graph]} is on or behind {loop}; "
        "expected an acyclic graph: remove that edge")
  graph_of_node = np.repeat(np.arange(len(graphs)), sizes)
  order = np.lexsort((level, graph_of_node))  # Stable.
  position = np.empty_like(order)
  position[order] = np.arange(len(order))
  # Sorted by producer, then consumer: a node's edges follow all edges of earlier nodes.
  flat = np.unique(position[flat][:, ::-1], axis=0)[:, ::-1]
  graph_of_edge = graph_of_node[flat[:, 0]]
  local = flat - node_off[graph_of_edge][:, None]
  x = np.concatenate([np.zeros([0, len(x_names)], np.int64), *features])[order]
  if vocabularies is None:
    vocabularies, x = file_fields.vocabularies_of(x)
  y = np.zeros([len(graphs), 0]) if y is None else np.asarray(y, np.float64)
  y = y[:, None] if y.ndim == 1 else y
  result = Dags(
      node_off, _offsets(np.bincount(graph_of_edge, minlength=len(graphs))), local[:, 0],
      local[:, 1], x, level[order], tuple(vocabularies), tuple(x_names), y,
      tuple(y_names) or (file_fields.DEFAULT_LABEL,) * (y.shape[1] == 1),
      np.zeros([len(graphs)], np.uint64) if wl is None else wl, dict(provenance or {}))
  return result if wl is not None else dataclasses.replace(result, wl=result.hashes())


def concat(several: Sequence[Dags]) -> Dags:
  """Concatenates graphs in common vocabularies; the provenance is that of the first.

  Raises:
    DataError: the inputs have different attributes or labels.
  """
  several = in_common_vocabularies(several)
  first = several[0]
  for other in several[1:]:
    if other.y_names != first.y_names:
      raise errors.DataError(
          f"y_names differ: {other.y_names} and {first.y_names}; expected graphs with the same "
          "labels (`Dags.with_labels`)")
  join = lambda name: np.concatenate([getattr(dags, name) for dags in several])
  return dataclasses.replace(
      first, **{name: join(name) for name in ("src", "dst", "x", "level", "y", "wl")},
      node_off=_offsets(np.concatenate([dags.sizes for dags in several])),
      edge_off=_offsets(np.concatenate([np.diff(dags.edge_off) for dags in several])))


def common_vocabularies(several: Sequence[Dags]) -> tuple[np.ndarray, ...]:
  """For each attribute the sorted union of the vocabularies.

  Raises:
    DataError: the graphs have different attributes, or values of different kinds.
  """
  names = several[0].x_names
  for dags in several[1:]:
    if dags.x_names != names:
      raise errors.DataError(
          f"x_names differ: {dags.x_names} and {names}; expected graphs with the same attributes")
  united = []
  for name, *words in zip(names, *(dags.vocabularies for dags in several)):
    if len({part.dtype.kind for part in words}) > 1:
      raise errors.DataError(
          f"vocab_{name} mixes numbers here and strings there; expected one kind")
    united.append(np.unique(np.concatenate(words)))
  return tuple(united)


def in_common_vocabularies(several: Sequence[Dags]) -> tuple[Dags, ...]:
  """The same graphs with one shared vocabulary per attribute, so equal indices are equal values."""
  common = common_vocabularies(several)
  return tuple(dags.in_vocabularies(common) for dags in several)


def split_by_wl(dags: Dags, fractions: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
  """Splits graphs so that structurally equal ones are never in different splits.

  Args:
    dags: the graphs.
    fractions: the share of each split; training gets the remainder, and a "train" entry is ignored.
    seed: seed of the random split.

  Returns:
    For "train" and each split the sorted indices of its graphs.

  Raises:
    DataError: there are fewer distinct graphs than splits.
  """
  others = {name: share for name, share in fractions.items() if name != "train"}
  names = np.array(twins.divide([f"{value:016x}" for value in dags.wl.tolist()], others, seed))
  return {name: np.flatnonzero(names == name) for name in ("train", *others)}


def digest(dags: Dags) -> str:
  """16 hexadecimal digits that identify the graphs' structures and labels."""
  return hashlib.sha256(dags.wl.tobytes() + dags.y.tobytes()).hexdigest()[:16]


def save(path: files.PathLike, dags: Dags) -> None:
  """Writes graphs as a compressed `.npz` file without pickle, atomically.

  Raises:
    OutputError: the file cannot be written.
  """
  arrays = {name: getattr(dags, name)
            for name in ("node_off", "edge_off", "src", "dst", "x", "level", "wl")}
  arrays.update({f"vocab_{name}": words for name, words in zip(dags.x_names, dags.vocabularies)})
  arrays["x_names"] = np.array(dags.x_names)
  if dags.y_names:
    arrays.update({"y": dags.y, "y_names": np.array(dags.y_names)})
  arrays["provenance"] = np.array(json.dumps(dags.provenance, allow_nan=False))
  array_files.save(path, arrays)


def load(path: files.PathLike) -> Dags:
  """Reads graphs; a file with one attribute and one label need not name them.

  Raises:
    MissingDataError: the file does not exist.
    DataError: the file is damaged, lacks a key or violates the format; the message names both.
    LimitError: it has more nodes, edges or graphs than other files of its size.
  """
  path = pathlib.Path(path)
  _check_growth(path)
  held: list[str] = []

  def chosen(key: str) -> bool:
    held.append(key)
    return key in file_fields.KEYS or key.startswith("vocab_")

  arrays = npz.read_arrays(path, chosen, types=_TYPES)
  try:
    return _from_arrays(arrays, held)
  except errors.DataError as error:
    raise errors.DataError(f"{path}: {error}; {_REMEDY}") from None


def _check_growth(path: pathlib.Path) -> None:
  """Raises LimitError if a file holds far more rows than files of its size do."""
  stored = headers.read_headers(path)
  limit = max(_FREE_ROWS, _ROWS_PER_BYTE * path.stat().st_size)
  for key in _ARRAYS:
    rows = stored[key].shape[0] if key in stored and stored[key].shape else 0
    if rows > limit:
      raise errors.LimitError(
          f"{path}: key {key} has {rows:,} rows; the limit for a file of this size is {limit:,}; "
          "expected graphs that differ from one another: check where the file comes from")


def _from_arrays(arrays: Mapping[str, np.ndarray], held: Sequence[str]) -> Dags:
  fields = file_fields.parse(arrays, held)
  if "wl" in fields:
    return Dags(**fields)
  result = Dags(**fields, wl=np.zeros([max(arrays["node_off"].size - 1, 0)], np.uint64))
  return dataclasses.replace(result, wl=result.hashes())


def _codes(words: np.ndarray) -> np.ndarray:
  """(V,) int64 codes of the words, below 2^53 so that a float64 represents them exactly."""
  if words.dtype.kind != "U":
    return words
  return np.array([int(hashlib.sha256(word.encode("utf-8")).hexdigest()[:12], 16)
                   for word in words.tolist()], np.int64)


def _offsets(sizes: np.ndarray) -> np.ndarray:
  return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _rows(offsets: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The rows of the selected groups, concatenated, and the new offsets."""
  sizes = np.diff(offsets)[indices]
  result = _offsets(sizes)
  return np.arange(result[-1]) + np.repeat(offsets[indices] - result[:-1], sizes), result
