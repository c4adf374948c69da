"""Feature scaling. It is fitted on the training split only, and stored with the model."""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import itertools

import numpy as np

from tpugraphs_rank import array_files
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.costs import targets
from tpugraphs_rank.costs import tile_cost
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import operand_roles
from tpugraphs_rank.data import tile_features

# Scaled features are clipped to this range: a column that hardly varies in training may have any
# value in an unseen program.
_LIMIT = 6.0
# Columns that vary less in training are left out.
_LEAST_DEVIATION = 1e-6
# More columns than any version has had: a stored scaling may come from another one.
_MOST_CONFIG_FEATURES = 1024


def signed_log(values: np.ndarray) -> np.ndarray:
  """sign(x) log2(1 + |x|): sizes span ten orders of magnitude, and paddings are -1."""
  values = np.asarray(values, np.float64)
  return np.sign(values) * np.log2(1.0 + np.abs(values))


def node_rows(graph: graphs.Graph) -> np.ndarray:
  """(n, 140) float64: the signed logs of the node features."""
  return signed_log(graph.node_feat)


def relative_sizes(graph: graphs.Graph) -> np.ndarray:
  """(n,) float64: sqrt(elements of a node / mean elements of the program's nodes).

  This is a damped measure of the cost of moving a tensor, relative to the other tensors of the
  program. Logarithms hide it: a network would have to turn differences into factors.
  """
  elements = np.maximum(graph.node_feat[:, tile_features.VOLUME], 0).astype(np.float64)
  return np.sqrt(elements / max(elements.mean(), 1.0))


def tensor_sizes(graph: graphs.LayoutGraph) -> np.ndarray:
  """(nc, 3) float64: `relative_sizes` of each configurable node's output, input and kernel.

  Requesting a layout moves the tensor that has the layout, so a small product of large matrices
  costs as much as its matrices. `operand_roles` determines the input and the kernel.
  """
  return relative_sizes(graph)[_tensors(graph)]


def _tensors(graph: graphs.LayoutGraph) -> np.ndarray:
  """(nc, 3) int: the nodes whose results are each configurable node's output, input and kernel."""
  return np.concatenate(
      [graph.node_config_ids[:, None], operand_roles.inputs_and_kernels(graph)], axis=1)


def axis_lengths(graph: graphs.LayoutGraph) -> np.ndarray:
  """(nc, 24) float64: log2 of the lengths of the axes of each configurable node's tensors.

  First the six axes of the output, of the input and of the kernel, 0 for axes that a tensor does
  not have. Then for each of the three the minor-most axis and the next one in row-major order.
  """
  lengths = np.maximum(graph.node_feat[:, tile_features.DIMENSIONS], 0).astype(np.float64)
  last = (lengths > 0).sum(axis=1)[:, None] - [1, 2]
  minor = np.where(last >= 0, np.take_along_axis(lengths, np.maximum(last, 0), axis=1), 0)
  each = np.log2(np.maximum(np.concatenate([lengths, minor], axis=1), 1.0))[_tensors(graph)]
  parts = np.split(each, [lengths.shape[1]], axis=2)
  return np.concatenate([part.reshape(len(each), part.shape[1] * part.shape[2])
                         for part in parts], axis=1)


def tile_rows(graph: graphs.TileGraph, costs: bool = False) -> np.ndarray:
  """(c, f) float64: the signed logs of the 24 tile features, and `tile_features` of the kernel.

  Args:
    graph: the kernel.
    costs: whether `tile_cost.features` follow.
  """
  rows = [signed_log(graph.config_feat), tile_features.tile_features(graph)]
  return np.concatenate([*rows, tile_cost.features(graph)] if costs else rows, axis=1)


@dataclasses.dataclass(frozen=True)
class Scaling:
  """Keeps the columns that vary, subtracts the mean and divides by the standard deviation.

  Attributes:
    columns: (k,) int64 columns kept.
    mean: (k,) float64.
    deviation: (k,) float64, positive.
  """

  columns: np.ndarray
  mean: np.ndarray
  deviation: np.ndarray

  @classmethod
  def fit(cls, rows: np.ndarray) -> "Scaling":
    """Fits on at least one row (r, f) of `node_rows` or `tile_rows`."""
    return cls.fit_blocks(lambda: [rows])

  @classmethod
  def fit_blocks(cls, blocks: Callable[[], Iterable[np.ndarray]]) -> "Scaling":
    """Fits on all rows of several blocks; only one block is in memory at a time.

    Sums accumulate row by row, as NumPy does for the rows of one array, so the result does not
    depend on the block boundaries.

    Args:
      blocks: called twice; returns the same blocks (r, f) each time, at least one row in total.
    """
    count, total = 0, None
    for rows in blocks():
      count += len(rows)
      total = _added(total, rows)
    assert total is not None, "no rows to fit on"
    mean = total / count
    squares = None
    for rows in blocks():
      squares = _added(squares, np.square(rows - mean))
    assert squares is not None
    deviation = np.sqrt(squares / count)
    columns = np.flatnonzero(deviation > _LEAST_DEVIATION)
    return cls(columns, mean[columns], deviation[columns])

  def __call__(self, rows: np.ndarray) -> np.ndarray:
    """Scales rows (r, f) to (r, k) float32.

    Raises:
      CompatibilityError: there are fewer columns than those that were fitted.
    """
    if self.columns.size and self.columns[-1] >= rows.shape[1]:
      raise errors.CompatibilityError(
          f"the run's feature scaling uses feature {self.columns[-1]}, and this version computes "
          f"{rows.shape[1]}; use the version that trained the run, or train again")
    scaled = (rows[:, self.columns] - self.mean) / self.deviation
    return np.clip(scaled, -_LIMIT, _LIMIT).astype(np.float32)


def _added(total: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
  """(f,) the sum of the rows and of the total so far."""
  return rows.sum(axis=0) if total is None else np.concatenate([total[None], rows]).sum(axis=0)


@dataclasses.dataclass(frozen=True)
class Normalizer:
  """The statistics of the training data that scoring needs.

  Attributes:
    nodes: scaling of `node_rows`.
    configs: scaling of `tile_rows`. It has no columns for layouts, which are categorical.
    opcodes: ids that occur in training.
    feature_padding: padding of the training graphs' feature lists.
    facts: the hardware for which effects of layouts are simulated; None: they are not features.
  """

  nodes: Scaling
  configs: Scaling
  opcodes: np.ndarray
  feature_padding: int
  facts: targets.TargetFacts | None = None

  @classmethod
  def fit(cls, training_graphs: Sequence[graphs.Graph],
          choices: Sequence[np.ndarray | None] | None = None, costs: bool = False,
          facts: targets.TargetFacts | None = None) -> "Normalizer":
    """Fits on the graphs of the training split, each counted once.

    Only the features of one graph are in memory at a time.

    Args:
      training_graphs: the graphs.
      choices: the training configurations of each graph, or None for all of them.
      costs: whether `tile_rows` include costs.
      facts: as the attribute.

    Raises:
      DataError: the graphs differ in their feature padding.
    """
    opcodes: set[int] = set()
    paddings: dict[int, str] = {}
    for graph in training_graphs:
      opcodes.update(np.unique(graph.node_opcode).tolist())
      paddings.setdefault(graph.feature_padding, graph.name)
    if len(paddings) > 1:
      raise errors.DataError(
          f"training graphs differ in feature_padding: {paddings}; featurize all with one "
          "--padding")
    tiles = [(graph, choice) for graph, choice in zip(
        training_graphs, choices or itertools.repeat(None)) if isinstance(graph, graphs.TileGraph)]
    empty = Scaling(np.zeros([0], np.int64), np.zeros([0]), np.ones([0]))
    return cls(Scaling.fit_blocks(lambda: map(node_rows, training_graphs)),
               Scaling.fit_blocks(lambda: (
                   tile_rows(graph, costs)[slice(None) if choice is None else choice]
                   for graph, choice in tiles)) if tiles else empty,
               np.array(sorted(opcodes), np.int64), next(iter(paddings)), facts)

  def tiles(self, graph: graphs.TileGraph) -> np.ndarray:
    """(c, k) float32: the scaled `tile_rows`, with costs if the normalizer was fitted with them."""
    rows = tile_rows(graph)
    if self.configs.columns.size and self.configs.columns[-1] >= rows.shape[1]:
      rows = np.concatenate([rows, tile_cost.features(graph)], axis=1)
    return self.configs(rows)

  def arrays(self) -> dict[str, np.ndarray]:
    """The arrays to store, by key."""
    facts = {} if self.facts is None else {
        f"facts_{name}": np.array(value) for name, value in dataclasses.asdict(self.facts).items()}
    return {"opcodes": self.opcodes, "feature_padding": np.array(self.feature_padding), **{
        f"{name}_{field.name}": getattr(scaling, field.name)
        for name, scaling in (("nodes", self.nodes), ("configs", self.configs))
        for field in dataclasses.fields(Scaling)}, **facts}

  def is_same(self, other: "Normalizer") -> bool:
    """Whether the other normalizer scales every graph in the same way."""
    theirs = other.arrays()
    ours = self.arrays()
    return ours.keys() == theirs.keys() and all(
        np.array_equal(array, theirs[key]) for key, array in ours.items())

  def save(self, path: files.PathLike) -> None:
    """Writes an `.npz` file atomically."""
    array_files.save(path, self.arrays())

  @classmethod
  def load(cls, path: files.PathLike) -> "Normalizer":
    """Reads a file that `save` wrote.

    Raises:
      RunDirectoryError: the file is missing or damaged.
    """
    try:
      stored = npz.read_arrays(path)
      nodes, configs = (Scaling(*(stored[f"{name}_{field.name}"]
                                  for field in dataclasses.fields(Scaling)))
                        for name in ("nodes", "configs"))
      _check(nodes, "nodes", graphs.NUM_NODE_FEATURES)
      _check(configs, "configs", _MOST_CONFIG_FEATURES)
      opcodes, padding = stored["opcodes"], stored["feature_padding"]
      if opcodes.ndim != 1 or opcodes.dtype.kind not in "iu" or not (
          (0 <= opcodes) & (opcodes < graphs.NUM_OPCODES)).all():
        raise errors.DataError(f"opcodes are not ids below {graphs.NUM_OPCODES}")
      if padding.size != 1 or padding.dtype.kind not in "iu" or padding.item() not in (0, -1):
        raise errors.DataError("feature_padding is neither 0 nor -1")
      facts = {key.removeprefix("facts_"): array.tolist() for key, array in stored.items()
               if key.startswith("facts_")}
      return cls(nodes, configs, opcodes.astype(np.int64), padding.item(),
                 targets.from_dict(facts, "") if facts else None)
    except (errors.DataError, errors.MissingDataError, KeyError) as error:
      raise errors.RunDirectoryError(
          f"{path} cannot be read ({error}); the run directory is incomplete or damaged: train "
          "again with an empty one") from error


def _check(scaling: Scaling, name: str, features: int) -> None:
  """Raises DataError if a stored scaling is none that `Scaling.fit` returns."""
  columns, count = scaling.columns, scaling.columns.size
  if scaling.columns.dtype.kind not in "iu" or any(
      getattr(scaling, field.name).shape != (count,) for field in dataclasses.fields(Scaling)):
    raise errors.DataError(f"{name}_columns, {name}_mean and {name}_deviation are not lists of one "
                           "length, the first of whole numbers")
  if count and (columns[0] < 0 or columns[-1] >= features or (np.diff(columns) <= 0).any()):
    raise errors.DataError(f"{name}_columns do not ascend from 0 to {features - 1} at most")
  if any(array.dtype != np.float64 or not np.isfinite(array).all()
         for array in (scaling.mean, scaling.deviation)):
    raise errors.DataError(f"{name}_mean or {name}_deviation holds other values than finite "
                           "numbers of 64 bits")
  if not (scaling.deviation > _LEAST_DEVIATION).all():
    raise errors.DataError(f"{name}_deviation holds {scaling.deviation.min()}; expected numbers "
                           f"above {_LEAST_DEVIATION}")


def unseen_opcodes(normalizer: Normalizer, graph: graphs.Graph) -> tuple[int, ...]:
  """Opcode ids of the graph that do not occur in training."""
  return tuple(np.setdiff1d(graph.node_opcode, normalizer.opcodes).tolist())
