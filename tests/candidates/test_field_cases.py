"""Files on which `rank` failed or answered wrongly, and files that are made to hurt."""

import tracemalloc

import pytest

from tests import testdata
from tests.candidates import small_programs
from tests.helpers import timing
from tpugraphs_rank import errors
from tpugraphs_rank.candidates import layouts
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.candidates import tile_spaces
from tpugraphs_rank.candidates import tiles

_MIB = 1 << 20


def _read(name):
  return programs.read(testdata.path("field_cases") / f"{name}.pb")[0]


def _tiles(module, tiling, source="k.pb"):
  return tiles.enumerate_tiles(module, tiling, 4096, 0, source)


@testdata.required
@pytest.mark.parametrize("name, counts", [
    # Tiles for tpu, elements and xla_cpu. A sort of two f32[64,128]: for xla_cpu, 8, 16, 32 and 64
    # by 8, 16, 32, 64 and 128, less the single step.
    ("tuple_root_sort", (5, 15 * 22, 4 * 5 - 1)),
    # The largest array of (f32[64,8], s32[64,8]): 8 to 64 by 1, 2, 4 and 8, less the single step.
    ("tuple_root_topk_custom_call", (5, 15 * 5, 4 * 4 - 1)),
    # A product of f32[64,64] and f32[64,64]: four sides each, less the single step.
    ("operands_first_control", (5, 15**3, 4**3 - 1)),
    ("operands_later", (5, 15**3, 4**3 - 1)),
    ("module_name_251", (5, 15**3, 4**3 - 1)),
])
def test_tiles(name, counts):
  module = _read(name).data.module
  assert tuple(_tiles(module, tiling).count for tiling in tile_spaces.TILINGS) == counts


@testdata.required
def test_the_order_of_instructions_changes_nothing():
  one, other = (_read(f"operands_{order}").data.module for order in ("first_control", "later"))
  for tiling in tile_spaces.TILINGS:
    assert (_tiles(one, tiling).arrays["config_feat"]
            == _tiles(other, tiling).arrays["config_feat"]).all()


@testdata.required
@pytest.mark.parametrize("name, error, message", [
    ("unbounded_dynamic_dim", errors.DataError,
     r"instruction 'Arg_0.1' has shape f32\[\?,64\], whose dimension 0 has no known size"),
    ("hostile/negative_dimension", errors.DataError,
     r"instruction 'i1' has shape f32\[\?,8\], whose dimension 0 has no known size"),
    ("hostile/call_bomb_14", errors.LimitError, "with every call and fusion replaced"),
    ("hostile/call_bomb_17", errors.LimitError, "with every call and fusion replaced"),
    ("hostile/dot_of_rank_20", errors.LimitError, "does not say which axes 'i3' contracts"),
    ("hostile/extent_2_to_53_plus_1", errors.LimitError,
     "the longest axis of instruction 'i1' is 9,007,199,254,740,993; the limit is 4,294,967,295"),
    ("hostile/three_hundred_axes", errors.LimitError,
     "the number of axes of instruction 'i1' is 300; the limit is 32"),
])
def test_what_is_refused(name, error, message):
  program = _read(name)
  for tiling in tile_spaces.TILINGS:
    with timing.takes_at_most(2), pytest.raises(error, match=message) as caught:
      _tiles(program.data.module, tiling, program.source)
    assert str(caught.value).startswith(program.source)


@testdata.required
def test_negative_bounds_of_runs_are_refused():
  program = _read("td_negative_bounds")
  with pytest.raises(errors.DataError, match=r"run 2 has output_bounds \[-8, 8\]"):
    programs.find(program, "tile", "runs", "xla_cpu", 100, 0)


def _elementwise(shape):
  module, main = small_programs.program()
  p = small_programs.add(main, "parameter", shape)
  small_programs.add(main, "tanh", shape, [p])
  return module


@pytest.mark.parametrize("shape, refused", [
    ([2**30 - 1], False), ([2**32], True), ([2**53 + 1], True), ([2**62], True),
    ([2] * 20, False), ([4] * 23, False), ([4] * 24, True), ([1] * 32, False), ([1] * 33, True)])
@pytest.mark.parametrize("tiling", ["elements", "tpu"])
def test_extreme_shapes_take_little_time_and_memory(shape, refused, tiling):
  module = _elementwise(shape)
  tracemalloc.start()
  try:
    with timing.takes_at_most(4):
      if refused:
        with pytest.raises(errors.LimitError):
          _tiles(module, tiling)
      else:
        assert 1 <= _tiles(module, tiling).count <= 4096
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert peak < 300 * _MIB


def test_layouts_of_a_huge_program_are_refused_with_a_remedy():
  module, main = small_programs.program()
  x = small_programs.add(main, "parameter", [2, 3])
  for _ in range(7500):
    x = small_programs.add(main, "reshape", [2, 3], [x])
  data = small_programs.data_of(module)
  with pytest.raises(errors.LimitError, match="k.pb: the size in bytes of 4,096 candidates for its "
                     "7,500 configurable instructions is 552,960,000; .*; lower --max_candidates"):
    layouts.draw_layouts(data, "elements", 4096, 0, "k.pb")
  assert layouts.draw_layouts(data, "elements", 1, 0, "k.pb").count == 1


def test_layouts_of_a_damaged_convolution_are_refused():
  module, main = small_programs.program()
  x, kernel = (small_programs.add(main, "parameter", [2, 3, 4, 5], parameter_number=k)
               for k in range(2))
  numbers = small_programs.convolution_numbers()
  numbers.input_feature_dimension = 2**40
  small_programs.add(main, "convolution", [2, 3, 4, 5], [x, kernel],
                     convolution_dimension_numbers=numbers)
  with pytest.raises(errors.DataError, match="'convolution.102' has the batch and feature axes "
                     r"\[0, 1099511627776\] of its input, which has 4 axes"):
    layouts.draw_layouts(small_programs.data_of(module), "tpu", 10, 0, "k.pb")


def test_configured_nodes_that_do_not_exist_are_refused():
  data = small_programs.data_of(small_programs.matmul(4, 5, 6), nodes=[9])
  with pytest.raises(errors.DataError, match="k.pb: instruction 9 is configured, but the program "
                     "has instructions 0 to 2"):
    layouts.draw_layouts(data, "elements", 10, 0, "k.pb")


def test_layouts_of_a_program_with_unknown_dimensions_are_refused():
  module = small_programs.matmul(4, 5, 6)
  module.computations[0].instructions[2].shape.dimensions[0] = -1
  with pytest.raises(errors.DataError, match=r"'dot.102' has shape f32\[\?,5\], whose dimension 0"):
    layouts.draw_layouts(small_programs.data_of(module), "elements", 10, 0, "k.pb")
