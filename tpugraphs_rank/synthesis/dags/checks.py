"""Validates the arrays of a `dags.Dags`; each violation has its own error message."""

from typing import Any

import numpy as np

from tpugraphs_rank import errors


def canonical_array(name: str, value: Any, dtype: type, ndim: int) -> np.ndarray:
  """Returns a read-only array of this dtype, or raises a DataError that names the array."""
  array = np.asarray(value)
  kinds = "iuf" if dtype is np.float64 else "iu"
  if array.dtype.kind not in kinds and array.size:
    raise errors.DataError(
        f"{name} has dtype {array.dtype}; expected {'numbers' if 'f' in kinds else 'integers'}")
  if array.ndim != ndim:
    raise errors.DataError(f"{name} has shape {array.shape}; expected {ndim} dimensions")
  if dtype is np.uint64:
    if array.size and array.dtype.kind == "i" and array.min() < 0:
      raise errors.DataError(f"{name} holds {array.min()}; expected no negative numbers")
  elif dtype is not np.float64 and array.size and not (
      np.iinfo(dtype).min <= array.min() and array.max() <= np.iinfo(dtype).max):
    raise errors.DataError(f"{name} holds {array.max()}; expected numbers of {np.dtype(dtype)}")
  array = array.astype(dtype, copy=False).view()
  array.setflags(write=False)
  return array


def checked_vocabulary(key: str, words: Any) -> np.ndarray:
  """Returns a read-only (V,) array of int64 or strings, or raises a DataError that names it."""
  words = np.asarray(words)
  if words.ndim != 1 or words.dtype.kind not in "iuU":
    raise errors.DataError(f"{key} has shape {words.shape} and dtype {words.dtype}; expected (V,) "
                           "integers or strings")
  if len(np.unique(words)) != len(words):
    raise errors.DataError(f"{key} contains a duplicate; expected distinct values")
  words = (words if words.dtype.kind == "U" else words.astype(np.int64)).view()
  words.setflags(write=False)
  return words


def check(dags: Any) -> None:
  """Raises DataError where the arrays of a `dags.Dags` contradict each other."""
  for key, rows in (("node_off", dags.x), ("edge_off", dags.src)):
    offsets = getattr(dags, key)
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(rows) or (
        np.diff(offsets) < (key == "node_off")).any():
      raise errors.DataError(
          f"{key} does not increase from 0 to {len(rows)}, the number of "
          + ("nodes, with at least one per graph" if key == "node_off" else "edges"))
  for key, length, what in (("edge_off", len(dags.node_off), "G+1"), ("dst", len(dags.src), "E"),
                            ("level", len(dags.x), "N"), ("y", len(dags), "G"),
                            ("wl", len(dags), "G")):
    if len(getattr(dags, key)) != length:
      raise errors.DataError(
          f"{key} has {len(getattr(dags, key))} rows; expected {what} = {length}")
  for key, count in (("x", len(dags.x_names)), ("y", len(dags.y_names))):
    if getattr(dags, key).shape[1] != count or len(set(getattr(dags, f"{key}_names"))) != count:
      raise errors.DataError(f"{key}_names are {getattr(dags, f'{key}_names')}; expected a unique "
                             f"name for each of {getattr(dags, key).shape[1]} columns of {key}")
  if not dags.x_names:
    raise errors.DataError("x has no attributes; expected at least one")
  for name, column, words in zip(dags.x_names, dags.x.T, dags.vocabularies):
    if column.size and not 0 <= column.min() <= column.max() < len(words):
      raise errors.DataError(
          f"x: {name} holds {column.max() if column.min() >= 0 else column.min()}; expected "
          f"indices 0..{len(words) - 1} into vocab_{name}")
  if not np.isfinite(dags.y).all():
    raise errors.DataError("y is not finite everywhere; expected a finite number for each graph")
  _check_edges(dags)


def _check_edges(dags: Any) -> None:
  graph_of = dags.graph_of_edge
  wrong = np.flatnonzero((dags.src < 0) | (dags.src >= dags.dst)
                         | (dags.dst >= dags.sizes[graph_of]))
  if wrong.size:
    edge = wrong[0]
    raise errors.DataError(
        f"src, dst: edge {edge}, in graph {graph_of[edge]} of "
        f"{dags.sizes[graph_of[edge]]} nodes, is "
        f"({dags.src[edge]}, {dags.dst[edge]}); expected 0 <= src < dst < nodes")
  source, target = dags.flat_src, dags.flat_dst
  keys = np.sort(source * len(dags.x) + target)
  if (keys[1:] == keys[:-1]).any():
    duplicate = keys[1:][keys[1:] == keys[:-1]][0] // len(dags.x)
    raise errors.DataError(
        f"src, dst: graph {dags.graph_of_node[duplicate]} contains the same edge twice; expected "
        "each edge once")
  # Since src < dst, a single pass checks the longest paths: it assumes the claimed levels, and any
  # wrong level contradicts its neighbors.
  expected = np.zeros([len(dags.x)], np.int64)
  np.maximum.at(expected, target, dags.level[source] + 1)
  same_graph = np.diff(dags.graph_of_node) == 0
  for what, node in (
      ("its longest path from a root", np.flatnonzero(expected != dags.level)),
      ("at least the one before: nodes are stored in level order",
       np.flatnonzero(same_graph & (np.diff(dags.level) < 0)) + 1)):
    if node.size:
      graph = dags.graph_of_node[node[0]]
      raise errors.DataError(
          f"level of node {node[0] - dags.node_off[graph]} of graph {graph} is "
          f"{dags.level[node[0]]}; expected {what}")
