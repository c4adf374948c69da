"""Fitted boosted trees as plain arrays: scores with NumPy, and a file that needs no unpickling."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tpugraphs_rank import array_files
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import npz

# Visits of nodes at a time: rows times trees.
_BLOCK = 1_000_000
_MOST_COLUMNS = 100_000
_LARGEST_SCORE = 1e15  # Logarithms of runtimes and places are far smaller.
_SIDES = ("left", "right")


class TreeArrays(NamedTuple):
  """The trees of a fit, or of several whose scores are averaged.

  A row goes to the left child of a node if its value in the node's column is at most the threshold.

  Attributes:
    columns: (f,) int64, the columns of `tree_features.features` that the trees use.
    width: the number of columns of `tree_features.features`.
    roots: (t,) int64, the root of each tree.
    column: (n,) int64, the place in `columns` that a node compares; 0 for a leaf.
    threshold: (n,) float64; 0 for a leaf.
    children: (n, 2) int64, left and right child; a leaf has itself.
    value: (n,) float64, what a leaf adds to the score; 0 for other nodes.
    baseline: the score of a row before the first tree.
  """

  columns: np.ndarray
  width: int
  roots: np.ndarray
  column: np.ndarray
  threshold: np.ndarray
  children: np.ndarray
  value: np.ndarray
  baseline: float

  def scores(self, features: np.ndarray) -> np.ndarray:
    """(r,) float64 scores of rows (r, width) of `tree_features.features`, higher = faster.

    Raises:
      DataError: the rows have another number of columns.
    """
    if features.shape[1] != self.width:
      raise errors.DataError(
          f"boosted trees of {self.width} features cannot score rows of {features.shape[1]}: "
          "another version of the package fitted them; train the run again")
    rows = features[:, self.columns]
    result = np.empty([len(rows)])
    step = max(_BLOCK // max(len(self.roots), 1), 1)
    for start in range(0, len(rows), step):
      block = rows[start:start + step]
      place = np.arange(len(block))[:, None]
      nodes = np.broadcast_to(self.roots, (len(block), len(self.roots)))
      while True:
        right = block[place, self.column[nodes]] > self.threshold[nodes]
        following = self.children[nodes, right.astype(np.int64)]
        if (following == nodes).all():
          break
        nodes = following
      result[start:start + step] = self.value[nodes].sum(axis=1)
    return result + self.baseline


def from_regressor(regressor: Any, columns: np.ndarray, width: int,
                   edges: Sequence[np.ndarray] | None = None) -> TreeArrays:
  """The arrays of a fit of scikit-learn's HistGradientBoostingRegressor.

  Args:
    regressor: the fit.
    columns: (f,) the columns that it uses.
    width: the number of columns of `tree_features.features`.
    edges: upper edges of the bins that the regressor was fitted on instead of the values; None: it
      was fitted on the values.
  """
  parts: list[TreeArrays] = []
  for (tree,) in regressor._predictors:
    nodes = tree.nodes
    leaf = nodes["is_leaf"].astype(bool)
    column = np.where(leaf, 0, nodes["feature_idx"]).astype(np.int64)
    threshold = np.where(leaf, 0.0, nodes["num_threshold"])
    places = np.arange(len(nodes))
    children = np.stack([np.where(leaf, places, nodes[side].astype(np.int64))
                         for side in _SIDES], axis=1)
    parts.append(TreeArrays(
        np.asarray(columns, np.int64), width, np.zeros(1, np.int64), column,
        _of_values(column, threshold, leaf, edges), children, np.where(leaf, nodes["value"], 0.0),
        0.0))
  return _sum(parts)._replace(baseline=float(np.squeeze(regressor._baseline_prediction)))


def from_booster(booster: Any, columns: np.ndarray, width: int,
                 edges: Sequence[np.ndarray] | None = None) -> TreeArrays:
  """The arrays of a fit of LightGBM on numbers; the arguments are those of `from_regressor`."""
  parts: list[TreeArrays] = []
  for tree in booster.dump_model()["tree_info"]:
    nodes, children = [tree["tree_structure"]], []
    for place, node in enumerate(nodes):  # Grows while it is read.
      is_leaf = "leaf_value" in node
      children.append((place, place) if is_leaf else (len(nodes), len(nodes) + 1))
      nodes += [] if is_leaf else [node[f"{side}_child"] for side in _SIDES]
    leaf = np.array(["leaf_value" in node for node in nodes])
    column = np.array([node.get("split_feature", 0) for node in nodes], np.int64)
    threshold = np.array([node.get("threshold", 0.0) for node in nodes])
    parts.append(TreeArrays(
        np.asarray(columns, np.int64), width, np.zeros(1, np.int64), column,
        _of_values(column, threshold, leaf, edges), np.array(children),
        np.array([node.get("leaf_value", 0.0) for node in nodes]), 0.0))
  return _sum(parts)


def _of_values(column: np.ndarray, threshold: np.ndarray, leaf: np.ndarray,
               edges: Sequence[np.ndarray] | None) -> np.ndarray:
  """(n,) float64 thresholds of values instead of bins, where `edges` says what the bins are."""
  if edges is None:
    return np.where(leaf, 0.0, threshold)
  # A bin number is at most the threshold where the value is at most the upper edge of the last such
  # bin.
  return np.array([
      0.0 if is_leaf else edges[where][min(int(limit), len(edges[where]) - 1)]
      for is_leaf, where, limit in zip(leaf, column, threshold)])


def joined(fits: Sequence[TreeArrays], deviations: Sequence[float] | None = None) -> TreeArrays:
  """The mean of several fits, which may use different columns of the same features.

  Args:
    fits: the fits.
    deviations: the scores of each fit are divided by its own one; None: they are not.
  """
  units = [1.0] * len(fits) if deviations is None else deviations
  return _sum([fit._replace(value=fit.value / (unit * len(fits)),
                            baseline=fit.baseline / (unit * len(fits)))
               for fit, unit in zip(fits, units)])


def _sum(fits: Sequence[TreeArrays]) -> TreeArrays:
  """The sum of several fits."""
  columns = np.unique(np.concatenate([fit.columns for fit in fits]))
  starts = np.cumsum([0, *(len(fit.column) for fit in fits)])[:-1]
  together = lambda values: np.concatenate(list(values))
  return TreeArrays(
      columns, fits[0].width,
      together(fit.roots + start for fit, start in zip(fits, starts)),
      together(np.searchsorted(columns, fit.columns)[fit.column] for fit in fits),
      together(fit.threshold for fit in fits),
      together(fit.children + start for fit, start in zip(fits, starts)),
      together(fit.value for fit in fits), float(np.sum([fit.baseline for fit in fits])))


def routed(fits: Sequence[TreeArrays], column: int) -> TreeArrays:
  """Fits of which each scores the rows of one kind.

  Args:
    fits: the fit of each kind, of the same features.
    column: the column with the number of a row's kind.

  Returns:
    Trees whose score of a row is that of `fits[kind]`.
  """
  parts = []
  for kind, fit in enumerate(fits):
    trees = len(fit.roots)
    # For each tree two nodes that ask whether the kind is lower and whether it is higher; then a
    # leaf for all other kinds; then the trees.
    lower, higher, leaf = np.arange(trees), trees + np.arange(trees), 2 * trees
    children = np.concatenate([
        np.stack([np.full(trees, leaf), higher], axis=1),
        np.stack([fit.roots + leaf + 1, np.full(trees, leaf)], axis=1),
        [[leaf, leaf]], fit.children + leaf + 1])
    is_leaf = fit.children[:, 0] == np.arange(len(fit.column))
    parts.append(TreeArrays(
        np.append(fit.columns, column), fit.width, lower,
        np.concatenate([np.full(2 * trees, len(fit.columns)), [0], fit.column]),
        np.concatenate([np.full(trees, kind - 0.5), np.full(trees, kind + 0.5), [0.0],
                        fit.threshold]), children,
        np.concatenate([np.zeros(2 * trees + 1),
                        fit.value + np.where(is_leaf, fit.baseline / trees, 0.0)]), 0.0))
  return _sum(parts)


def write(path: files.PathLike, trees: TreeArrays) -> None:
  """Writes trees.

  Raises:
    OutputError: the file cannot be written.
  """
  array_files.save(path, trees._asdict())


def read(path: files.PathLike) -> TreeArrays:
  """Reads what `write` has written, and checks it.

  Raises:
    MissingDataError: there is no such file.
    DataError: the file is damaged; the message names what is wrong.
    LimitError: its arrays are too large.
  """
  arrays = npz.read_arrays(path, TreeArrays._fields)
  for name, kinds, shape in (
      ("columns", "iu", 1), ("width", "iu", 0), ("roots", "iu", 1), ("column", "iu", 1),
      ("threshold", "f", 1), ("children", "iu", 2), ("value", "f", 1), ("baseline", "f", 0)):
    if name not in arrays:
      raise errors.DataError(f"{path} lacks the array {name!r}")
    array = arrays[name]
    largest = _LARGEST_SCORE if name in ("value", "baseline") else np.finfo(np.float64).max
    if array.dtype.kind not in kinds or array.ndim != shape or (
        kinds == "f" and not (np.abs(array) <= largest).all()):
      raise errors.DataError(f"{path}: {name} has values of another kind than boosted trees have")
  _check(path, arrays)
  values: dict[str, Any] = {name: arrays[name] for name in TreeArrays._fields}
  values.update(width=int(arrays["width"]), baseline=float(arrays["baseline"]))
  return TreeArrays(**values)


def _check(path: files.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
  """Raises DataError if numbers are out of range, or if scoring would not end."""
  count, children = len(arrays["column"]), arrays["children"]
  places = np.arange(count)
  # Children come after their parents, so that no path is endless.
  good = (
      0 < arrays["width"] <= _MOST_COLUMNS
      and len(arrays["threshold"]) == len(arrays["value"]) == count > 0
      and children.shape == (count, 2) and children.max() < count
      and np.logical_or((children > places[:, None]).all(axis=1),
                        (children == places[:, None]).all(axis=1)).all()
      and len(arrays["columns"]) and arrays["columns"].min() >= 0
      and arrays["columns"].max() < arrays["width"]
      and arrays["column"].min() >= 0 and arrays["column"].max() < len(arrays["columns"])
      and len(arrays["roots"]) and arrays["roots"].min() >= 0 and arrays["roots"].max() < count)
  if not good:
    raise errors.DataError(f"{path} does not hold the nodes of boosted trees")
