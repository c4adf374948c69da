"""Converts the runs of a measured program to the configuration and runtime arrays of a graph file.

The same runs may have been measured several times ("passes"). Then a run is used only if it is
valid in every pass, and its runtime is the mean over all passes.
"""

from collections.abc import Callable, Sequence
import dataclasses
import math

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.hlo import limits
from tpugraphs_rank.hlo import lists
from tpugraphs_rank.hlo import tuning_pb2

TILE_BOUNDS = ("kernel_bounds", "output_bounds", "input_bounds")
BOUNDS_LENGTH = 6
TENSORS = 3  # Output, input, kernel.
DIMS_LENGTH = 6
LAYOUT_PADDING = -1

Module = tuning_pb2.ModuleTuningData
Run = tuning_pb2.ConfigProfile


@dataclasses.dataclass(frozen=True)
class Runs:
  """The valid runs of one program.

  Attributes:
    arrays: the configuration and runtime arrays of the graph file.
    total: number of runs of the program, valid or not.
    valid: number of valid runs; c in the shapes of the arrays.
  """
  arrays: dict[str, np.ndarray]
  total: int
  valid: int


def tile_arrays(passes: Sequence[Module], source: str = "the module") -> Runs:
  """Configurations and runtimes of a kernel whose tile size was tuned.

  Args:
    passes: one or more measurements of the same runs, in the same order.
    source: name of the program in error messages.

  Returns:
    `config_feat` (c, 24) float32, `config_runtime` and `config_runtime_normalizers` (c,) int64 in
    nanoseconds; with several passes also `config_runtime_passes` (p, c) int64.

  Raises:
    DataError: no default run is valid, default runs have different configurations, a bound is
      negative, or the passes differ in their runs.
  """
  check_bounds(passes[0].runs, source)
  valid = _valid_runs(passes, _is_valid_tile_run, source)
  config_feat = tile_features([passes[0].runs[index] for index in valid])
  return Runs(
      {"config_feat": config_feat, **_runtime_arrays(passes, valid, source)},
      total=len(passes[0].runs), valid=len(valid))


def layout_arrays(
    passes: Sequence[Module], node_count: int, source: str = "the module") -> Runs:
  """Configurations and runtimes of a program whose layouts were tuned.

  Args:
    passes: one or more measurements of the same runs, in the same order.
    node_count: n, the number of instructions of the program.
    source: name of the program in error messages.

  Returns:
    `node_config_ids` (nc,) int64, `node_config_feat` (c, nc, 18) float32 of integers,
    `config_runtime` and `config_runtime_normalizers` (c,) int64 in nanoseconds; with several
    passes also `config_runtime_passes` (p, c) int64.

  Raises:
    DataError: no default run is valid, default runs have different configurations, a
      configuration does not fit the program, only some runs have a runtime, or the passes differ
      in their runs.
  """
  ids = np.array(passes[0].config_index_to_node, np.uint64)
  if np.any(ids >= node_count):
    raise errors.DataError(
        f"{source}: config_index_to_node holds {ids[ids >= node_count][0]}; expected positions "
        f"of instructions, 0 to {node_count - 1}; the file is damaged or belongs to another "
        "program")
  valid = _valid_runs(passes, _is_valid_layout_run, source)
  return Runs(
      {
          "node_config_ids": ids.astype(np.int64),
          "node_config_feat": layout_features(passes[0], valid, source),
          **_runtime_arrays(passes, valid, source),
      },
      total=len(passes[0].runs), valid=len(valid))


def tile_features(runs: Sequence[Run]) -> np.ndarray:
  """(c, 24) float32: the bounds of each run's tile, measured or not."""
  bounds = [lists.Lists() for _ in TILE_BOUNDS]
  for row, run in enumerate(runs):
    for column, name in zip(bounds, TILE_BOUNDS):
      column.add(row, getattr(run.op_config.tile_size_config, name))
  return np.concatenate(
      [column.aggregated(len(runs), BOUNDS_LENGTH, empty_product=0)[0] for column in bounds],
      axis=1).astype(np.float32)


def check_bounds(runs: Sequence[Run], source: str = "the module") -> None:
  """Refuses tiles with a negative side, or larger than any array.

  Args:
    runs: runs of a kernel, measured or not. Failed runs (`error`) are not checked.
    source: name of the program in error messages.

  Raises:
    DataError: a bound is negative; the message names the run.
    LimitError: the product of the bounds is above `limits.ELEMENTS`.
  """
  for index, run in enumerate(runs):
    tile = run.op_config.tile_size_config
    for name in TILE_BOUNDS:
      bounds = getattr(tile, name)
      if bounds and min(bounds) < 0 and not run.error:
        raise errors.DataError(
            f"{source}: run {index} has {name} {list(bounds[:BOUNDS_LENGTH])}; expected sides of "
            "0 or more; mark the run as failed with error = true, or measure it again")
      if not run.error:
        limits.check(math.prod(bounds), limits.ELEMENTS,
                     f"{source}: the product of the {name} of run {index}",
                     "mark the run as failed with error = true, or measure it again")


def has_tile_size_config(run: Run) -> bool:
  """Whether a run configures the tile size, possibly with empty bounds."""
  return run.op_config.HasField("tile_size_config")


def layout_features(module: Module, runs: Sequence[int], source: str = "the module") -> np.ndarray:
  """The layouts of each configured node's tensors, minor to major: (c, nc, 18) float32.

  Args:
    module: a program with layout runs, measured or not.
    runs: indices of the runs to decode.
    source: name of the program in error messages.

  Raises:
    DataError: a run configures another number of nodes, or more tensors than a node can have, or
      an axis is negative.
  """
  node_count = len(module.config_index_to_node)
  # Ten thousand runs of hundreds of nodes have few distinct node configurations, so decode each
  # only once.
  rows: list[np.ndarray] = []
  row_of: dict[bytes, int] = {}
  chosen = np.empty((len(runs), node_count), np.int64)
  for c, index in enumerate(runs):
    nodes = module.runs[index].module_config.layout_config.nodes
    if len(nodes) != node_count:
      raise errors.DataError(
          f"{source}: run {index} configures {len(nodes)} nodes; expected {node_count}, the "
          "length of config_index_to_node; the file is truncated or damaged: download it again")
    for k, node in enumerate(nodes):
      key = node.SerializeToString()
      if key not in row_of:
        row_of[key] = len(rows)
        rows.append(_node_row(node, f"{source}: run {index}, node {k}"))
      chosen[c, k] = row_of[key]
  table = np.array(rows, np.float32).reshape(-1, TENSORS * DIMS_LENGTH)
  return table[chosen]


def check_same_runs(first: Module, other: Module, source: str, other_source: str) -> None:
  """Rejects a second measurement whose configurations differ from those of the first.

  Raises:
    DataError: the number of runs, a configuration, a default mark or the configured nodes differ.
  """
  def differ(what: str, ours: object, theirs: object) -> errors.DataError:
    return errors.DataError(
        f"{other_source} is not a repeat of {source}: {what} {theirs} instead of {ours}; expected "
        "another measurement of the same configurations in the same order; measure them again")

  if len(first.runs) != len(other.runs):
    raise differ("its number of runs is", len(first.runs), len(other.runs))
  if first.config_index_to_node != other.config_index_to_node:
    raise differ("config_index_to_node holds", "the same", "other nodes")
  for index, (ours, theirs) in enumerate(zip(first.runs, other.runs)):
    if ours.is_default != theirs.is_default:
      raise differ(f"run {index} has is_default", ours.is_default, theirs.is_default)
    if ours.op_config != theirs.op_config or ours.module_config != theirs.module_config:
      raise differ(f"run {index} has", "the same", "another configuration")


def _is_valid_tile_run(run: Run) -> bool:
  # A runtime of 1 ns or less marks a failed measurement.
  return (has_tile_size_config(run) and not run.error and run.HasField("profile")
          and run.profile.compute_time_ns > 1)


def _is_valid_layout_run(run: Run) -> bool:
  return (run.module_config.HasField("layout_config") and not run.error
          and run.HasField("profile"))


def _valid_runs(
    passes: Sequence[Module], is_valid: Callable[[Run], bool], source: str) -> list[int]:
  """Indices of the runs that are valid in every pass. At least one of them is a default run."""
  valid = [
      index for index, runs in enumerate(zip(*(module.runs for module in passes)))
      if all(is_valid(run) for run in runs)]
  defaults = [index for index in valid if passes[0].runs[index].is_default]
  _check_defaults(passes[0], defaults, source)
  if not defaults:
    raise errors.DataError(
        f"{source}: none of its {len(valid)} valid runs (of {len(passes[0].runs)}) is marked "
        "is_default; expected one, because its runtime is the normalizer; measure the compiler's "
        "default configuration as well")
  return valid


def _check_defaults(module: Module, defaults: Sequence[int], source: str) -> None:
  """A default may be measured more than once, but there is only one default configuration."""
  for index in defaults[1:]:
    first, other = module.runs[defaults[0]], module.runs[index]
    if first.op_config != other.op_config or first.module_config != other.module_config:
      raise errors.DataError(
          f"{source}: runs {defaults[0]} and {index} are both marked is_default, but have "
          "different configurations; expected one default, because its runtime is the normalizer; "
          "mark only the configuration that the compiler chooses itself")


def _runtime_arrays(
    passes: Sequence[Module], valid: Sequence[int], source: str) -> dict[str, np.ndarray]:
  times = np.array(
      [[module.runs[index].profile.compute_time_ns for index in valid] for module in passes],
      np.int64)
  # The public test splits hide their runtimes as all zeros. A single zero is not a runtime.
  if np.any(times) and np.any(times <= 0):
    which, k = np.argwhere(times <= 0)[0]
    raise errors.DataError(
        f"{source}: run {valid[k]} of measurement {which + 1} has compute_time_ns "
        f"{times[which, k]} and no error; expected a positive time in nanoseconds, as in its other "
        "runs; mark a failed run with error = true")
  # NumPy's rint rounds halves to the even neighbour.
  runtime = times[0] if len(passes) == 1 else np.rint(times.mean(axis=0)).astype(np.int64)
  default = next(k for k, index in enumerate(valid) if passes[0].runs[index].is_default)
  arrays = {
      "config_runtime": runtime,
      "config_runtime_normalizers": np.full(len(valid), runtime[default], np.int64),
  }
  if len(passes) > 1:
    arrays["config_runtime_passes"] = times
  return arrays


def _node_row(node: tuning_pb2.LayoutConfig.NodeLayoutConfig, source: str) -> np.ndarray:
  """(18,) numbers: tensor t starts at position 6t; short lists are padded with -1."""
  if len(node.tensors) > TENSORS:
    raise errors.DataError(
        f"{source} configures {len(node.tensors)} tensors; expected at most {TENSORS} (output, "
        "input, kernel); give each instruction its own entry")
  row = np.full((TENSORS, DIMS_LENGTH), LAYOUT_PADDING, np.float32)
  for tensor, config in zip(row, node.tensors):
    dims = config.dims[:DIMS_LENGTH]
    if dims and min(dims) < 0:
      raise errors.DataError(
          f"{source} has layout {list(dims)}; expected axes, 0 or more, minor to major; the file "
          "is damaged: measure or download it again")
    tensor[:len(dims)] = dims
  return row.ravel()
