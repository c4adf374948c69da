"""Computes the 140 node features of TpuGraphs from HLO instructions.

Source: the public featurizer of google-research-datasets/tpu_graphs
(`tpu_graphs/process_data/xla/featurizers.h`). The feature names are the same.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import lists

PADDINGS = (0, -1)

# The one-hot columns have this order, which differs from the enum's. Newer types of XLA (8-bit
# floats, 4-bit integers) have no column, so all their columns are 0.
_ELEMENT_TYPES = (
    ("invalid_type", hlo_pb2.PRIMITIVE_TYPE_INVALID), ("pred", hlo_pb2.PRED),
    ("s8", hlo_pb2.S8), ("s16", hlo_pb2.S16), ("s32", hlo_pb2.S32), ("s64", hlo_pb2.S64),
    ("u8", hlo_pb2.U8), ("u16", hlo_pb2.U16), ("u32", hlo_pb2.U32), ("u64", hlo_pb2.U64),
    ("f16", hlo_pb2.F16), ("f32", hlo_pb2.F32), ("f64", hlo_pb2.F64), ("bf16", hlo_pb2.BF16),
    ("c64", hlo_pb2.C64), ("c128", hlo_pb2.C128), ("tuple", hlo_pb2.TUPLE),
    ("opaque_type", hlo_pb2.OPAQUE_TYPE), ("token", hlo_pb2.TOKEN))
_TYPE_COLUMN = {number: column for column, (_, number) in enumerate(_ELEMENT_TYPES)}

_WINDOW_NUMBERS = (
    "size", "stride", "padding_low", "padding_high", "window_dilation", "base_dilation")
_SHAPE_LENGTH = 6  # Also the length of `dimensions`, the window and the layout.
_SPATIAL_LENGTH = 4
_SLICE_LENGTH = 2  # Also the length of the dynamic slice and the padding.


def _numbered(name: str, length: int, *after: str) -> list[str]:
  return [f"{name}_{i}" for i in range(length)] + [f"{name}_{suffix}" for suffix in after]


def _aggregated(names: Iterable[str], length: int) -> list[str]:
  return [column for name in names for column in _numbered(name, length, "sum", "product")]


_CONVOLUTION = "convolution_dim_numbers_"
# The name of each column of `node_feat`, in order.
NODE_FEATURE_NAMES: tuple[str, ...] = (
    "is_root",
    "element_size_in_bits",  # The public featurizer always writes 0.
    *(f"shape_element_type_is_{name}" for name, _ in _ELEMENT_TYPES),
    *_aggregated(["shape_dimensions"], _SHAPE_LENGTH),
    "shape_tuple_shapes_size",
    "parameter_number",
    *_numbered("dimensions", _SHAPE_LENGTH),
    *_aggregated([f"window_{name}" for name in _WINDOW_NUMBERS], _SHAPE_LENGTH),
    *_numbered("window_window_reversal", _SHAPE_LENGTH, "true_count", "false_count"),
    _CONVOLUTION + "input_batch_dim",
    _CONVOLUTION + "input_feature_dim",
    *_numbered(_CONVOLUTION + "input_spatial_dims", _SPATIAL_LENGTH),
    _CONVOLUTION + "kernel_input_feature_dim",
    _CONVOLUTION + "kernel_output_feature_dim",
    *_numbered(_CONVOLUTION + "kernel_spatial_dims", _SPATIAL_LENGTH),
    _CONVOLUTION + "output_batch_dim",
    _CONVOLUTION + "output_feature_dim",
    "feature_group_count",
    "batch_group_count",
    *_aggregated([f"slice_dims_{name}" for name in ("start", "stride", "limit")], _SLICE_LENGTH),
    *_aggregated(["dynamic_slice_sizes"], _SLICE_LENGTH),
    *_aggregated(
        [f"padding_config_edge_padding_{side}" for side in ("low", "high")], _SLICE_LENGTH),
    "is_stable",
    *_numbered("layout_minor_to_major", _SHAPE_LENGTH),
)
NODE_FEATURE_COUNT = len(NODE_FEATURE_NAMES)


class _Fields:
  """The fields of all instructions of a module that the features need."""

  def __init__(self) -> None:
    # One number per instruction.
    self.root: list[bool] = []
    self.element_type: list[int] = []
    self.tuple_size: list[int] = []
    self.parameter_number: list[int] = []
    self.group_counts: list[tuple[int, int]] = []
    self.stable: list[bool] = []
    # Lists, empty for most instructions.
    self.shape = lists.Lists()
    self.layout = lists.Lists()
    self.dimensions = lists.Lists()
    self.window = lists.Lists(len(_WINDOW_NUMBERS) + 1)
    self.convolution = lists.Lists()
    self.input_spatial = lists.Lists()
    self.kernel_spatial = lists.Lists()
    self.slice = lists.Lists(3)
    self.dynamic_slice = lists.Lists()
    self.padding = lists.Lists(2)

  def add(self, row: int, instruction: hlo_pb2.HloInstructionProto, root_id: int) -> None:
    shape = instruction.shape
    self.root.append(instruction.id == root_id)
    self.element_type.append(_TYPE_COLUMN.get(shape.element_type, -1))
    self.tuple_size.append(len(shape.tuple_shapes))
    self.parameter_number.append(instruction.parameter_number)
    self.group_counts.append((instruction.feature_group_count, instruction.batch_group_count))
    self.stable.append(instruction.is_stable)
    self.shape.add(row, shape.dimensions)
    self.layout.add(row, shape.layout.minor_to_major)
    self.dimensions.add(row, instruction.dimensions)
    self.dynamic_slice.add(row, instruction.dynamic_slice_sizes)
    if instruction.HasField("window"):
      self.window.add(row, [
          number for d in instruction.window.dimensions
          for number in (
              d.size, d.stride, d.padding_low, d.padding_high, d.window_dilation,
              d.base_dilation, d.window_reversal)])
    if instruction.HasField("convolution_dimension_numbers"):
      c = instruction.convolution_dimension_numbers
      self.convolution.add(row, (
          c.input_batch_dimension, c.input_feature_dimension, c.kernel_input_feature_dimension,
          c.kernel_output_feature_dimension, c.output_batch_dimension,
          c.output_feature_dimension))
      self.input_spatial.add(row, c.input_spatial_dimensions)
      self.kernel_spatial.add(row, c.kernel_spatial_dimensions)
    if instruction.slice_dimensions:
      self.slice.add(row, [
          number for s in instruction.slice_dimensions for number in (s.start, s.stride, s.limit)])
    if instruction.HasField("padding_config"):
      self.padding.add(row, [
          number for d in instruction.padding_config.dimensions
          for number in (d.edge_padding_low, d.edge_padding_high)])


def node_features(module: hlo_pb2.HloModuleProto, padding: int = 0) -> np.ndarray:
  """The features of every instruction, computation by computation.

  Args:
    module: the program, before or after optimisation.
    padding: fills the columns of short lists that have no sum and product: `dimensions`, the
      spatial dimensions of a convolution, and the layout. 0 as in the release, or -1 as in a later
      variant of the public data, which distinguishes "dimension 0" from "no more dimensions".

  Returns:
    (n, 140) float32 with the columns `NODE_FEATURE_NAMES`.

  Raises:
    ConfigError: `padding` is neither 0 nor -1.
  """
  if padding not in PADDINGS:
    raise errors.ConfigError(
        f"padding is {padding!r}; expected 0 (the release) or -1 (the later variant)")
  g = _Fields()
  n = 0
  for computation in module.computations:
    root_id = computation.root_id
    for instruction in computation.instructions:
      g.add(n, instruction, root_id)
      n += 1

  window = g.window.aggregated(n, _SHAPE_LENGTH)
  reversal = g.window.columns(n, _SHAPE_LENGTH)[-1]
  reversed_count = g.window.sums_and_products(n)[-1, :, 0]
  dimension_count = g.window.counts(n)
  convolution = g.convolution.columns(n, 6)[0]
  input_spatial = g.input_spatial.columns(n, _SPATIAL_LENGTH, padding)[0]
  kernel_spatial = g.kernel_spatial.columns(n, _SPATIAL_LENGTH, padding)[0]
  return _concatenated(n, [
      g.root,
      np.zeros(n, np.int64),
      _one_hot(g.element_type, len(_ELEMENT_TYPES)),
      g.shape.aggregated(n, _SHAPE_LENGTH)[0],
      g.tuple_size,
      g.parameter_number,
      g.dimensions.columns(n, _SHAPE_LENGTH, padding)[0],
      *window[:-1],
      reversal, reversed_count, dimension_count - reversed_count,
      convolution[:, 0:2], input_spatial,
      convolution[:, 2:4], kernel_spatial,
      convolution[:, 4:6],
      np.asarray(g.group_counts, np.int64).reshape(n, 2),
      *g.slice.aggregated(n, _SLICE_LENGTH),
      *g.dynamic_slice.aggregated(n, _SLICE_LENGTH),
      *g.padding.aggregated(n, _SLICE_LENGTH),
      g.stable,
      g.layout.columns(n, _SHAPE_LENGTH, padding)[0],
  ])


def _one_hot(columns: Sequence[int], width: int) -> np.ndarray:
  """(n, width) with a 1 in the given column of each row; a negative column means no 1."""
  return np.asarray(columns, np.int64).reshape(-1, 1) == np.arange(width)


def _concatenated(n: int, blocks: Sequence) -> np.ndarray:
  """Joins integer blocks of shape (n,) or (n, w). Casts to float32 after all arithmetic."""
  out = np.empty((n, NODE_FEATURE_COUNT), np.float32)
  end = 0
  for block in blocks:
    block = np.asarray(block).reshape(n, -1) if n else np.empty((0, 0))
    out[:, end:end + block.shape[1]] = block
    end += block.shape[1]
  if n and end != NODE_FEATURE_COUNT:
    raise AssertionError(f"{end} columns were computed, but {NODE_FEATURE_COUNT} have names")
  return out
