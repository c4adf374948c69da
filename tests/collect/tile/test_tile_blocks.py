"""Blocks of synthetic programs, compared with those of the catalogue's families."""

import math

import pytest

from tests.synthesis.programs import small_programs
from tpugraphs_rank.collect.tile import blocks
from tpugraphs_rank.collect.tile import configurations
from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.synthesis.programs import programs


@pytest.mark.parametrize("program, kernel", [
    (small_programs.MATMUL, geometry.Kernel("matmul", (48, 64, 32), "f32")),
    (small_programs.BATCHED, geometry.Kernel("matmul_batched", (4, 16, 32, 24), "f32")),
    (small_programs.BIAS, geometry.Kernel("matmul_bias_relu", (24, 40, 16), "f32")),
    (small_programs.PAIRWISE, geometry.Kernel("pairwise_l2", (24, 32, 16), "f32"))],
                         ids=lambda case: case.stem)
def test_blocks_equal_those_of_the_catalogue(program, kernel):
  synthetic = blocks.SyntheticKernel(program)
  assert synthetic.output_axes == kernel.output_axes
  assert synthetic.reduction_axes == kernel.reduction_axes
  assert configurations.admissible(synthetic) == configurations.admissible(kernel)
  for tile in configurations.admissible(kernel):
    assert synthetic.iterations(tile) == kernel.iterations(tile)
    assert synthetic.input_bounds(tile) == kernel.input_bounds(tile)
    assert synthetic.working_set(tile) == kernel.working_set(tile)


def test_a_window_reads_its_halo():
  synthetic = blocks.SyntheticKernel(small_programs.CONVOLUTION)
  tile = geometry.Tile((1, 8, 4, 16), (4,))
  assert synthetic.reduction_axes == (8,)
  assert synthetic.input_bounds(tile) == (1, 10, 6, 4)
  assert synthetic.working_set(tile) == 4 * (10 * 6 * 4 + 3 * 3 * 4 * 16 + 8 * 4 * 16)


def test_rows_are_read_whole_where_a_sum_over_them_is_needed():
  synthetic = blocks.SyntheticKernel(small_programs.SOFTMAX)
  # The columns of the result are split, but the maximum of a row needs all of them.
  assert synthetic.reduction_axes == (48,)
  assert synthetic.input_bounds(geometry.Tile((8, 16), (24,))) == (8, 48)


def test_operands_of_whole_arrays_are_counted_whole():
  synthetic = blocks.SyntheticKernel(small_programs.MOVED)
  tile = geometry.Tile((16, 8), ())
  assert synthetic.reduction_axes == ()
  # 64 rows of the result are 64 columns of a concatenation, which are split.
  assert synthetic.input_bounds(tile) == (26, 48)
  assert synthetic.working_set(tile) == 4 * (26 * 48 + 24 * 16 + 16 * 96 + 16 * 8)


def test_all_rows_of_a_table_are_read_and_its_columns_in_blocks():
  synthetic = blocks.SyntheticKernel(small_programs.GATHER)
  tile = geometry.Tile((16, 8), ())
  assert synthetic.input_bounds(tile) == (40, 8)
  assert synthetic.working_set(tile) == 2 * 40 * 8 + 4 * 16 + 2 * 16 * 8 + 2 * 16 * 8


def test_the_main_contraction_is_the_nearest_to_the_result():
  nodes = small_programs.BIAS.nodes
  chained = programs.RunnableProgram("hand_dot.9.f32", nodes + (
      programs.Node("parameter", (), "f32", (40, 8)),
      programs.Node("dot", (7, 8), "f32", (24, 8), "ak,kb->ab"),
      programs.Node("negate", (9,), "f32", (24, 8))))
  synthetic = blocks.SyntheticKernel(chained)
  assert synthetic.main == 9 and synthetic.reduction_axes == (40,)
  # The sum of the inner product is computed in full, again in each step.
  regions = {need.node: need.region for need in blocks.needs(chained, synthetic.main).needed}
  assert regions[0] == (blocks.Cut(0), None) and regions[1] == (None, blocks.Cut(2))
  assert math.prod(synthetic.output_axes) == 24 * 8
