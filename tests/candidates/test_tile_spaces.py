"""The tiles of a kernel, compared with the collector's rules and measurements on a TPU."""

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import testdata
from tests.candidates import small_programs
from tpugraphs_rank import errors
from tpugraphs_rank.candidates import tile_spaces
from tpugraphs_rank.collect.tile import configurations
from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.data import registry
from tpugraphs_rank.hlo import reading

MODULES = {data.module.name: data for data in reading.read_raw(small_programs.KERNELS).modules}


def _all_tiles(space):
  """The sides of every legal tile."""
  tile = np.array(list(itertools.product(*space.sides)))
  return tile[space.is_legal(tile)]


def _bounds(space, tile):
  """(c,) tuples of output, kernel and input bounds."""
  groups = [np.stack([bound.of(tile) for bound in bounds], axis=1).tolist() if bounds
            else [[]] * len(tile) for bounds in (space.output, space.kernel, space.inputs)]
  return [tuple(map(tuple, entry)) for entry in zip(*groups)]


# The collector tiles the features that its patches come from, which a dot cannot know.
@pytest.mark.parametrize("stem", sorted(
    stem for stem in MODULES if not stem.startswith("conv_im2col")))
def test_the_tiles_are_those_that_the_collector_admits(stem):
  kernel = geometry.parse_stem(stem)
  space = tile_spaces.tile_space(MODULES[stem].module, "xla_cpu")
  assert space.axes == kernel.output_axes + kernel.reduction_axes
  expected = {(tile.output, tile.reduction, kernel.input_bounds(tile))
              for tile in configurations.admissible(kernel)}
  assert set(_bounds(space, _all_tiles(space))) == expected
  measured = {tuple(tuple(getattr(run.op_config.tile_size_config, f"{name}_bounds"))
                    for name in ("output", "kernel", "input")) for run in MODULES[stem].runs}
  assert len(measured) == len(MODULES[stem].runs) and measured <= expected


def test_there_is_a_kernel_of_each_family_that_was_measured_first():
  first = registry.get_collection("tile:xla_cpu:v1").groups.values()
  assert {stem.split(".")[0] for stem in MODULES} == {name for names in first for name in names}


@testdata.required
def test_all_tiles_measured_on_a_tpu_are_admitted():
  raw = reading.read_raw(testdata.path("tpu_raw") / "op_tuning_data.pb")
  checked = 0
  for data in raw.modules:
    if data.module.name.startswith("reshape"):
      continue
    space = tile_spaces.tile_space(data.module, "tpu")
    admitted = set(_bounds(space, _all_tiles(space)))
    measured = {(tuple(tile.output_bounds), tuple(tile.kernel_bounds), tuple(tile.input_bounds))
                for run in data.runs for tile in [run.op_config.tile_size_config]}
    assert measured <= admitted, data.module.name
    checked += len(data.runs)
  assert checked == 754 - 7  # Three reshapes, which have no bounds, have 7 runs.


@testdata.required
def test_a_lone_reshape_is_not_tiled_on_a_tpu():
  raw = reading.read_raw(testdata.path("tpu_raw") / "op_tuning_data.pb")
  for data in raw.modules:
    if data.module.name.startswith("reshape"):
      assert not any(run.op_config.tile_size_config.output_bounds for run in data.runs)
      with pytest.raises(errors.DataError, match="nothing to tile"):
        tile_spaces.tile_space(data.module, "tpu")


def test_hardware_tiles_of_a_product():
  # [64, 384] x [384, 256]: all rows in eights, all columns in 128s.
  space = tile_spaces.tile_space(small_programs.matmul(64, 256, 384), "tpu")
  assert space.axes == (64, 256, 384)
  assert space.sides == ((8, 16, 24, 32, 64), (128, 256), (128, 256, 384))
  assert _bounds(space, np.array([[64, 256, 384], [16, 128, 256]])) == [
      ((64 // 8, 256 // 128), (384 // 8, 256 // 128), ()),
      ((16 // 8, 128 // 128), (256 // 8, 128 // 128), ())]


def test_elements_of_a_product():
  space = tile_spaces.tile_space(small_programs.matmul(6, 5, 3), "elements")
  assert space.axes == (6, 5, 3)
  assert space.sides == ((1, 2, 3, 4, 6), (1, 2, 3, 4, 5), (1, 2, 3))
  assert space.combinations == 5 * 5 * 3
  assert _bounds(space, np.array([[4, 2, 3]])) == [((4, 2), (3,), (4, 3))]


def test_the_largest_contraction_counts():
  module, main = small_programs.program()
  x, w = (small_programs.add(main, "parameter", shape, parameter_number=number)
          for number, shape in enumerate([(8, 64), (64, 32)]))
  product = small_programs.add(main, "dot", [8, 32], [x, w])
  v = small_programs.add(main, "parameter", [32, 4], parameter_number=2)
  small_programs.add(main, "dot", [8, 4], [product, v])
  space = tile_spaces.tile_space(module, "elements")
  # 8 * 32 * 64 multiplications in the first, 8 * 4 * 32 in the second, whose rows are cut too.
  assert space.axes == (8, 4, 64)
  assert _bounds(space, np.array([[2, 4, 16]])) == [((2, 4), (16,), (2, 16))]


@given(st.integers(1, 5000))
def test_balanced_sides(extent):
  expected = {-(-extent // count) for count in range(1, extent + 1)}
  expected |= {1 << power for power in range(13) if 1 << power <= extent}
  assert tile_spaces.balanced(extent) == tuple(sorted(expected))


@given(st.integers(1, 5000))
def test_divisors_are_the_collectors_sides(extent):
  assert tile_spaces.divisors(extent) == configurations.sides(extent)


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 64),
       st.sampled_from(tile_spaces.TILINGS))
def test_sides_stay_within_their_axes(m, n, k, tiling):
  space = tile_spaces.tile_space(small_programs.matmul(m, n, k), tiling)
  for extent, sides in zip(space.axes, space.sides):
    assert 1 <= min(sides) and max(sides) == extent and len(set(sides)) == len(sides)
  for bounds, extents in ((space.output, (m, n)),):
    for bound, extent in zip(bounds, extents):
      assert bound.of(np.array([space.axes]))[0] == math.ceil(extent / bound.unit)


def test_the_collectors_limits():
  space = tile_spaces.tile_space(small_programs.matmul(1024, 1024, 64), "xla_cpu")
  assert space.is_legal(np.array([
      [1024, 1024, 64], [1024, 512, 64], [16, 16, 64], [16, 16, 32]])).tolist() == [
          False, True, True, False]  # 1, 2, 4,096 and 8,192 steps.
  assert tile_spaces.tile_space(small_programs.matmul(8, 8, 8), "elements").is_legal(
      np.array([[8, 8, 8]])).all()


@pytest.mark.parametrize("target, tiling", [
    ("tpu_v3", "tpu"), ("TPU v5e", "tpu"), ("xla_cpu:AMD EPYC", "xla_cpu"), ("my_chip", "elements"),
    ("", "elements"), (None, "elements")])
def test_the_target_determines_the_tiling(target, tiling):
  assert tile_spaces.tiling_of(target) == tiling


def test_what_cannot_be_tiled():
  module, main = small_programs.program()
  small_programs.add(main, "constant", [])
  with pytest.raises(errors.DataError, match="mine: .* returns no array with elements"):
    tile_spaces.tile_space(module, "elements", "mine: module 'made'")
  module, main = small_programs.program()
  p = small_programs.add(main, "parameter", [4, 0])
  small_programs.add(main, "tanh", [4, 0], [p])
  with pytest.raises(errors.DataError, match="nothing to tile"):
    tile_spaces.tile_space(module, "elements")
  module, main = small_programs.program()
  p, zero = small_programs.add(main, "parameter", [4, 0]), small_programs.add(main, "constant", [])
  small_programs.add(main, "reduce", [4], [p, zero], dimensions=[1])
  with pytest.raises(errors.DataError, match="mine reads an array without elements, so there is"):
    tile_spaces.tile_space(module, "xla_cpu", "mine")
  module, main = small_programs.program()
  p = small_programs.add(main, "parameter", [4])
  small_programs.add(main, "transpose", [4], [p], dimensions=[3])
  with pytest.raises(errors.DataError, match=r"the transpose .* and dimensions \[3\]; expected"):
    tile_spaces.tile_space(module, "elements")
  with pytest.raises(errors.UnknownNameError, match="unknown tiling 'gpu'; expected one of tpu, "):
    tile_spaces.tile_space(small_programs.matmul(8, 8, 8), "gpu")
