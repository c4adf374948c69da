"""Node features, compared with handwritten values."""

import numpy as np
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.hlo import features
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import opcodes

from . import modules


def _one(**fields):
  """A module of one instruction, which is not the root."""
  return hlo_pb2.HloModuleProto(computations=[hlo_pb2.HloComputationProto(
      id=1, root_id=99, instructions=[hlo_pb2.HloInstructionProto(
          id=1, opcode="convolution", **fields)])])


def _nonzero(module, padding=0):
  """{feature name: value} of the first instruction where it is not 0."""
  row = features.node_features(module, padding)[0]
  return {name: value for name, value in zip(features.NODE_FEATURE_NAMES, row) if value != 0}


# Products of empty lists.
EMPTY = {name: 1.0 for name in features.NODE_FEATURE_NAMES if name.endswith("_product")}


def test_names_are_those_of_the_columns():
  names = features.NODE_FEATURE_NAMES
  assert len(names) == len(set(names)) == features.NODE_FEATURE_COUNT == 140
  at = {
      0: "is_root", 2: "shape_element_type_is_invalid_type", 20: "shape_element_type_is_token",
      21: "shape_dimensions_0", 28: "shape_dimensions_product", 29: "shape_tuple_shapes_size",
      30: "parameter_number", 31: "dimensions_0", 37: "window_size_0", 45: "window_stride_0",
      53: "window_padding_low_0", 61: "window_padding_high_0", 69: "window_window_dilation_0",
      77: "window_base_dilation_0", 85: "window_window_reversal_0",
      91: "window_window_reversal_true_count", 92: "window_window_reversal_false_count",
      93: "convolution_dim_numbers_input_batch_dim",
      95: "convolution_dim_numbers_input_spatial_dims_0",
      99: "convolution_dim_numbers_kernel_input_feature_dim",
      101: "convolution_dim_numbers_kernel_spatial_dims_0",
      106: "convolution_dim_numbers_output_feature_dim", 107: "feature_group_count",
      108: "batch_group_count", 109: "slice_dims_start_0", 113: "slice_dims_stride_0",
      117: "slice_dims_limit_0", 121: "dynamic_slice_sizes_0",
      125: "padding_config_edge_padding_low_0", 129: "padding_config_edge_padding_high_0",
      133: "is_stable", 134: "layout_minor_to_major_0", 139: "layout_minor_to_major_5"}
  assert {column: names[column] for column in at} == at


def test_an_empty_instruction():
  assert _nonzero(_one()) == {**EMPTY, "shape_element_type_is_invalid_type": 1}


def test_a_convolution():
  module = _one(feature_group_count=3, batch_group_count=1, is_stable=True)
  instruction = module.computations[0].instructions[0]
  instruction.shape.element_type = hlo_pb2.BF16
  instruction.shape.dimensions.extend([2, 3, 4, 5])
  instruction.shape.layout.minor_to_major.extend([3, 0, 1, 2])
  instruction.window.dimensions.add(
      size=7, stride=2, padding_low=-1, padding_high=3, window_dilation=1, base_dilation=1)
  instruction.window.dimensions.add(
      size=5, stride=1, padding_low=2, padding_high=0, window_dilation=2, base_dilation=1,
      window_reversal=True)
  c = instruction.convolution_dimension_numbers
  c.input_batch_dimension, c.input_feature_dimension = 3, 1
  c.input_spatial_dimensions.extend([0, 2])
  c.kernel_input_feature_dimension, c.kernel_output_feature_dimension = 2, 4
  c.kernel_spatial_dimensions.extend([1, 3])
  c.output_batch_dimension, c.output_feature_dimension = 6, 5
  c.output_spatial_dimensions.extend([8, 9])  # not a feature
  conv = "convolution_dim_numbers_"
  expected = {
      **EMPTY, "shape_element_type_is_bf16": 1, "feature_group_count": 3, "batch_group_count": 1,
      "is_stable": 1, "shape_dimensions_0": 2, "shape_dimensions_1": 3, "shape_dimensions_2": 4,
      "shape_dimensions_3": 5, "shape_dimensions_sum": 2 + 3 + 4 + 5,
      "shape_dimensions_product": 2 * 3 * 4 * 5,
      "layout_minor_to_major_0": 3, "layout_minor_to_major_2": 1, "layout_minor_to_major_3": 2,
      "window_size_0": 7, "window_size_1": 5, "window_size_sum": 12, "window_size_product": 35,
      "window_stride_0": 2, "window_stride_1": 1, "window_stride_sum": 3,
      "window_stride_product": 2, "window_padding_low_0": -1, "window_padding_low_1": 2,
      "window_padding_low_sum": 1, "window_padding_low_product": -2,
      "window_padding_high_0": 3, "window_padding_high_sum": 3,
      "window_window_dilation_0": 1, "window_window_dilation_1": 2,
      "window_window_dilation_sum": 3, "window_window_dilation_product": 2,
      "window_base_dilation_0": 1, "window_base_dilation_1": 1, "window_base_dilation_sum": 2,
      "window_window_reversal_1": 1, "window_window_reversal_true_count": 1,
      "window_window_reversal_false_count": 1,
      conv + "input_batch_dim": 3, conv + "input_feature_dim": 1,
      conv + "input_spatial_dims_1": 2, conv + "kernel_input_feature_dim": 2,
      conv + "kernel_output_feature_dim": 4, conv + "kernel_spatial_dims_0": 1,
      conv + "kernel_spatial_dims_1": 3, conv + "output_batch_dim": 6,
      conv + "output_feature_dim": 5,
  }
  del expected["window_padding_high_product"]  # 3 * 0
  assert _nonzero(module) == expected


def test_slices_and_padding():
  module = _one(dynamic_slice_sizes=[4, 5, 6])
  instruction = module.computations[0].instructions[0]
  for start, limit, stride in ((1, 10, 2), (3, 20, 4), (5, 30, 6)):
    instruction.slice_dimensions.add(start=start, limit=limit, stride=stride)
  instruction.padding_config.dimensions.add(
      edge_padding_low=2, edge_padding_high=-3, interior_padding=7)
  row = features.node_features(module)[0]
  # Cut to two entries, but the sum and the product are over all three.
  np.testing.assert_array_equal(row[109:113], [1, 3, 1 + 3 + 5, 1 * 3 * 5])
  np.testing.assert_array_equal(row[113:117], [2, 4, 2 + 4 + 6, 2 * 4 * 6])
  np.testing.assert_array_equal(row[117:121], [10, 20, 10 + 20 + 30, 10 * 20 * 30])
  np.testing.assert_array_equal(row[121:125], [4, 5, 4 + 5 + 6, 4 * 5 * 6])
  np.testing.assert_array_equal(row[125:129], [2, 0, 2, 2])
  np.testing.assert_array_equal(row[129:133], [-3, 0, -3, -3])


def test_lists_are_cut_and_aggregated_over_all_entries():
  module = _one(dimensions=[1, 2, 3, 4, 5, 6, 7, 8])
  module.computations[0].instructions[0].shape.dimensions.extend([2] * 8)
  row = features.node_features(module)[0]
  np.testing.assert_array_equal(row[31:37], [1, 2, 3, 4, 5, 6])
  np.testing.assert_array_equal(row[21:29], [2] * 6 + [8 * 2, 2**8])


def test_products_wrap_at_64_bits_and_are_cast_once():
  module = _one()
  dimensions = module.computations[0].instructions[0].shape.dimensions
  dimensions.extend([2**32, 2**31])  # 2**63 wraps to -2**63
  assert features.node_features(module)[0, 28] == -2.0**63
  del dimensions[:]
  dimensions.extend([2**32, 2**32])
  assert features.node_features(module)[0, 28] == 0
  del dimensions[:]
  # Half-way between two float32 values and one more: rounding to float64 first would lose the one.
  dimensions.append(2**60 + 2**36 + 1)
  assert features.node_features(module)[0, 21] == 2.0**60 + 2.0**37


def test_reversal_counts_all_dimensions():
  module = _one()
  for k in range(8):
    module.computations[0].instructions[0].window.dimensions.add(window_reversal=k in (0, 6, 7))
  np.testing.assert_array_equal(
      features.node_features(module)[0, 85:93], [1, 0, 0, 0, 0, 0, 3, 5])


def test_tuple_types_and_types_without_a_column():
  module = _one(parameter_number=4)
  shape = module.computations[0].instructions[0].shape
  shape.element_type = hlo_pb2.TUPLE
  inner = shape.tuple_shapes.add(element_type=hlo_pb2.TUPLE)
  inner.tuple_shapes.add(element_type=hlo_pb2.F32)
  shape.tuple_shapes.add(element_type=hlo_pb2.S32, dimensions=[9])
  assert _nonzero(module) == {
      **EMPTY, "shape_element_type_is_tuple": 1, "shape_tuple_shapes_size": 2,
      "parameter_number": 4}
  module = _one()
  for number in (hlo_pb2.F8E5M2, hlo_pb2.S4, 77):
    module.computations[0].instructions[0].shape.element_type = number
    assert _nonzero(module) == EMPTY


def test_the_root_flag_refers_to_the_instructions_computation():
  module = hlo_pb2.HloModuleProto(computations=[
      modules.tiny().computations[0], modules.tiny().computations[0]])
  module.computations[1].root_id = 11
  np.testing.assert_array_equal(features.node_features(module)[:, 0], [0, 1, 1, 0])


def test_padding_of_minus_one_touches_lists_without_aggregates_only():
  module = _one(dimensions=[3])
  module.computations[0].instructions[0].shape.layout.minor_to_major.extend([1, 0])
  zero, minus = features.node_features(module)[0], features.node_features(module, -1)[0]
  expected = zero.copy()
  for first, last in ((32, 37), (95, 99), (101, 105), (136, 140)):
    expected[first:last] = -1
  np.testing.assert_array_equal(minus, expected)
  assert minus.dtype == np.float32


def test_other_paddings_are_refused():
  with pytest.raises(errors.ConfigError, match=r"padding is 1; expected 0 .* or -1"):
    features.node_features(modules.tiny(), padding=1)


def test_no_instructions():
  assert features.node_features(hlo_pb2.HloModuleProto()).shape == (0, 140)


def test_opcode_names_and_ids():
  assert (opcodes.opcode_id("abs"), opcodes.opcode_id("tan")) == (1, 120)
  assert opcodes.opcode_id("dot") == 34 and opcodes.opcode_name(34) == "dot"
  assert opcodes.opcode_id("ragged-dot") == 0 and opcodes.opcode_name(0) == "unknown"
  assert opcodes.opcode_name(121) == "unknown"
  assert len(opcodes.OPCODE_IDS) == len(opcodes.OPCODE_NAMES) == 120
