"""Programs as one graph of values."""

import pytest

from tests.candidates import small_programs
from tpugraphs_rank import errors
from tpugraphs_rank.candidates import value_graph
from tpugraphs_rank.hlo import hlo_pb2


def _opcodes(program):
  return [value.opcode for value in program.values]


def test_calls_and_fusions_are_replaced_by_what_they_compute():
  module, main = small_programs.program()
  callee = module.computations.add(id=2, name="callee")
  a, b = (small_programs.add(callee, "parameter", [4], parameter_number=number)
          for number in range(2))
  small_programs.add(callee, "subtract", [4], [a, b])
  p = small_programs.add(main, "parameter", [4])
  q = small_programs.add(main, "parameter", [4], parameter_number=1)
  first = small_programs.add(main, "fusion", [4], [q, p], called_computation_ids=[2])
  small_programs.add(main, "call", [4], [first, p], called_computation_ids=[2])
  program = value_graph.Expanded(module)
  assert _opcodes(program) == ["parameter", "parameter", "subtract", "subtract"]
  assert [value.operands for value in program.values] == [(), (), (1, 0), (2, 0)]
  assert [value.parameter for value in program.values] == [0, 1, -1, -1]
  assert program.root == 3


def test_the_functions_of_reductions_and_loops_are_not_expanded():
  module, main = small_programs.program()
  adder = module.computations.add(id=2, name="add")
  a, b = (small_programs.add(adder, "parameter", [], parameter_number=number)
          for number in range(2))
  small_programs.add(adder, "add", [], [a, b])
  p, zero = small_programs.add(main, "parameter", [3, 4]), small_programs.add(main, "constant", [])
  small_programs.add(main, "reduce", [3], [p, zero], dimensions=[1], called_computation_ids=[2])
  assert _opcodes(value_graph.Expanded(module)) == ["parameter", "constant", "reduce"]


def test_the_root_of_a_tuple_is_its_largest_array():
  module, main = small_programs.program()
  small = small_programs.add(main, "parameter", [3])
  large = small_programs.add(main, "parameter", [2, 4])
  other = small_programs.add(main, "parameter", [8])
  small_programs.add(main, "tuple", [], [small, large, other])
  program = value_graph.Expanded(module)
  assert program.values[program.root].shape == (2, 4)


def test_the_root_is_the_one_that_the_computation_names():
  module, main = small_programs.program()
  p = small_programs.add(main, "parameter", [3])
  small_programs.add(main, "negate", [3], [p])
  main.root_id = p
  assert value_graph.Expanded(module).root == 0


def test_a_program_that_names_no_entry_starts_with_its_last_computation():
  module = hlo_pb2.HloModuleProto(entry_computation_id=77)
  for number, opcode in ((1, "negate"), (2, "tanh")):
    computation = module.computations.add(id=number, name=f"c{number}")
    p = small_programs.add(computation, "parameter", [3])
    small_programs.add(computation, opcode, [3], [p])
  assert _opcodes(value_graph.Expanded(module)) == ["parameter", "tanh"]


def test_layouts_are_descending_unless_specified():
  shape = hlo_pb2.ShapeProto(dimensions=[2, 3, 4])
  assert value_graph.layout_of(shape) == (2, 1, 0)
  shape.layout.minor_to_major.extend([0, 2, 1])
  assert value_graph.layout_of(shape) == (0, 2, 1)


def test_recursion_is_refused():
  module, main = small_programs.program()
  p = small_programs.add(main, "parameter", [3])
  small_programs.add(main, "call", [3], [p], called_computation_ids=[1])
  with pytest.raises(errors.DataError, match="mine.pb: computation 'main' calls itself"):
    value_graph.Expanded(module, "mine.pb")
