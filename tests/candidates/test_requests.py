"""What candidates change, by the names of a program's instructions."""

import numpy as np
import pytest

from tests.candidates import small_programs
from tests.hlo import modules
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.candidates import requests
from tpugraphs_rank.hlo import hlo_pb2


def _requests(runs, module=None, nodes=(2, 3, 5)):
  module = module or small_programs.perceptron()
  program = programs.HloProgram("p", "f.pb", small_programs.data_of(module, runs, nodes))
  candidates = programs.find(program, "layout", "", "elements", 20, 0)
  return requests.LayoutRequests(module, candidates)


NONE = [[], [], []]


def test_requests_by_name():
  named = _requests([modules.layout_run([[(0, 1), (), (1, 0)], [(), (0, 1)], [(), ()]]),
                     modules.layout_run(NONE, is_default=True)])
  first, second, third = named.of(0)
  assert first == requests.Request(
      "dot.102", "dot", "f32[4,12]", "output", "f32[4,12]", (0, 1), True)
  assert second.tensor == "kernel" and second.tensor_shape == "f32[6,12]"
  assert requests.text([first, second, third]) == (
      "dot.102 f32[4,12]: output {0,1}, kernel f32[6,12]{1,0}; "
      "reshape.103 f32[8,6]: input f32[4,12]{0,1}")
  assert requests.text([first, second, third], 1) == (
      "dot.102 f32[4,12]: output {0,1}, kernel f32[6,12]{1,0}; and 1 more instruction")
  assert named.of(1) == [] and requests.text([]) == "no request"
  assert third.to_json() == {
      "instruction": "reshape.103", "opcode": "reshape", "shape": "f32[8,6]", "tensor": "input",
      "tensor_shape": "f32[4,12]", "minor_to_major": [0, 1], "complete": True}


def test_what_the_default_requests_too_is_no_change():
  default = modules.layout_run([[(0, 1)], [(0, 1)], []], is_default=True)
  named = _requests([default, modules.layout_run([[(0, 1)], [], []]),
                     modules.layout_run([[(0, 1)], [(1, 0)], []])])
  assert requests.text(named.of(1)) == "reshape.103 f32[8,6]: output as the compiler chooses"
  assert requests.text(named.of(2)) == "reshape.103 f32[8,6]: output {1,0}"


def test_without_a_known_default_all_requests_are_listed():
  named = _requests([modules.layout_run([[axes], [], []]) for axes in ((0, 1), (1, 0))])
  assert requests.text(named.of(1)) == "dot.102 f32[4,12]: output {1,0}"


def test_layouts_of_two_axes_are_the_minor_ones():
  module, main = small_programs.program()
  x = small_programs.add(main, "parameter", [2, 8, 8, 4])
  w = small_programs.add(main, "parameter", [1, 1, 4, 6], parameter_number=1)
  small_programs.add(main, "convolution", [2, 8, 8, 6], [x, w],
                     convolution_dimension_numbers=small_programs.convolution_numbers())
  named = _requests([modules.layout_run([[(3, 0)]]), modules.layout_run([[]], is_default=True)],
                    module, [2])
  assert requests.text(named.of(0)) == "convolution.102 f32[2,8,8,6]: output minor axes {3,0}"


def test_names_cannot_write_to_the_terminal():
  module = small_programs.perceptron()
  module.computations[0].instructions[2].name = "\x1b[31mred\nline"
  named = _requests([modules.layout_run([[(0, 1)], [], []]),
                     modules.layout_run(NONE, is_default=True)], module)
  assert requests.text(named.of(0)) == (
      "\\x1b[31mred\\nline dot f32[4,12]: output {0,1}")


@pytest.mark.parametrize("tiling, unit", [
    ("xla_cpu", "in elements"), ("elements", "in elements"),
    ("tpu", "in hardware tiles of 8 x 128 elements"), (None, "as in the file")])
def test_what_tiles_divide(tiling, unit):
  tiled = requests.tiled_array(small_programs.matmul(8, 16, 4), tiling, "m")
  assert tiled == requests.TiledArray("dot.102", "dot", "f32[8,16]", unit)
  assert str(tiled) == "dot.102 f32[8,16]"


def test_the_tiled_array_of_a_tuple_is_its_largest():
  module, main = small_programs.program()
  p = small_programs.add(main, "parameter", [4, 8])
  a = small_programs.add(main, "negate", [4, 8], [p])
  b = small_programs.add(main, "convert", [4], [p])
  main.instructions[1].name = "best"
  root = small_programs.add(main, "tuple", [], [b, a])
  shape = next(one for one in main.instructions if one.id == root).shape
  shape.element_type = hlo_pb2.TUPLE
  for extents in ([4], [4, 8]):
    shape.tuple_shapes.add(element_type=hlo_pb2.F32, dimensions=extents)
  tiled = requests.tiled_array(module, "xla_cpu", "m")
  assert str(tiled) == "best (negate) f32[4,8]"
  np.testing.assert_equal(tiled.unit, "in elements")
