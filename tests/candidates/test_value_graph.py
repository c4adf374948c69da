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


def _tuple_shape(computation, *shapes):
  """Makes the shape of the last instruction a tuple of arrays; a list is a tuple in the tuple."""
  def fill(shape, entry):
    if isinstance(entry, list):
      shape.element_type = hlo_pb2.TUPLE
      for inner in entry:
        fill(shape.tuple_shapes.add(), inner)
    else:
      shape.element_type = hlo_pb2.F32 if entry else hlo_pb2.TOKEN
      shape.dimensions.extend(entry or ())
  computation.instructions[-1].shape.Clear()
  fill(computation.instructions[-1].shape, list(shapes))


@pytest.mark.parametrize("opcode", ["sort", "custom-call", "while", "rng-bit-generator"])
def test_the_root_of_an_instruction_with_several_results_is_the_largest(opcode):
  module, main = small_programs.program()
  p = small_programs.add(main, "parameter", [64])
  small_programs.add(main, opcode, [], [p])
  _tuple_shape(main, (), (3,), [(2, 3), (8, 2)], (16, 1), None)
  main.instructions[-1].shape.tuple_shapes[2].tuple_shapes[1].layout.minor_to_major.extend([0, 1])
  program = value_graph.Expanded(module)
  value = program.values[program.root]
  # The first of the two arrays with 16 elements.
  assert (value.opcode, value.shape, value.layout) == (opcode, (8, 2), (0, 1))
  assert value.element_type == hlo_pb2.F32


def test_a_reduction_of_several_arrays_has_the_shape_of_each_result():
  module, main = small_programs.program()
  x, y = (small_programs.add(main, "parameter", [4, 6], parameter_number=k) for k in range(2))
  zero = small_programs.add(main, "constant", [])
  pair = small_programs.add(main, "reduce", [], [x, y, zero, zero], dimensions=[1])
  _tuple_shape(main, (4,), (4,))
  first = small_programs.add(main, "get-tuple-element", [4], [pair])
  small_programs.add(main, "negate", [4], [first])
  program = value_graph.Expanded(module)
  assert [value.shape for value in program.values] == [(4, 6), (4, 6), (), (4,), (4,), (4,)]


def test_an_element_of_a_tuple_is_the_operand_itself():
  module, main = small_programs.program()
  x, y = (small_programs.add(main, "parameter", [4 + k], parameter_number=k) for k in range(2))
  pair = small_programs.add(main, "tuple", [], [x, y])
  nested = small_programs.add(main, "tuple", [], [pair, x])
  inner = small_programs.add(main, "get-tuple-element", [], [nested], tuple_index=0)
  element = small_programs.add(main, "get-tuple-element", [5], [inner], tuple_index=1)
  small_programs.add(main, "negate", [5], [element])
  program = value_graph.Expanded(module)
  assert _opcodes(program) == ["parameter", "parameter", "tuple", "tuple", "negate"]
  assert program.values[-1].operands == (1,)


def test_a_scalar_is_smaller_than_every_array():
  module, main = small_programs.program()
  scalar = small_programs.add(main, "constant", [])
  small = small_programs.add(main, "parameter", [1])
  small_programs.add(main, "tuple", [], [scalar, small, scalar])
  assert value_graph.Expanded(module).root == 1


def test_nested_tuples_do_not_double_the_work():
  module, main = small_programs.program()
  x = small_programs.add(main, "parameter", [3])
  for _ in range(200):
    x = small_programs.add(main, "tuple", [], [x, x])
  assert value_graph.Expanded(module).root == 0


def test_operands_may_be_listed_after_their_users():
  module, main = small_programs.program()
  x = small_programs.add(main, "parameter", [4])
  y = small_programs.add(main, "negate", [4], [x])
  z = small_programs.add(main, "tanh", [4], [y])
  main.root_id = z
  reordered = [main.instructions[k].SerializeToString() for k in (2, 1, 0)]
  del main.instructions[:]
  main.instructions.extend(map(hlo_pb2.HloInstructionProto.FromString, reordered))
  program = value_graph.Expanded(module)
  assert _opcodes(program) == ["parameter", "negate", "tanh"]
  assert [value.operands for value in program.values] == [(), (0,), (1,)]
  assert program.root == 2


def test_calls_may_be_nested_deeply():
  module = hlo_pb2.HloModuleProto(entry_computation_id=1201)
  for level in range(1, 1202):
    computation = module.computations.add(id=level, name=f"c{level}")
    x = small_programs.add(computation, "parameter", [4])
    if level > 1:
      small_programs.add(computation, "call", [4], [x], called_computation_ids=[level - 1])
    else:
      small_programs.add(computation, "negate", [4], [x])
  program = value_graph.Expanded(module)
  assert _opcodes(program) == ["parameter", "negate"] and program.root == 1


@pytest.mark.parametrize("empty", [False, True])
def test_calls_that_multiply_are_limited(empty):
  module = hlo_pb2.HloModuleProto(entry_computation_id=40)
  for level in range(1, 41):
    computation = module.computations.add(id=level, name=f"c{level}")
    x = small_programs.add(computation, "parameter", [4])
    if level == 1 and not empty:
      small_programs.add(computation, "negate", [4], [x])
    for _ in range(2 * (level > 1)):
      x = small_programs.add(computation, "call", [4], [x], called_computation_ids=[level - 1])
  with pytest.raises(errors.LimitError, match="k.pb: the number of instructions and operands, .* "
                     "is 65,53[78]; the limit is 65,536; rank a smaller part"):
    value_graph.Expanded(module, "k.pb")


@pytest.mark.parametrize("shape, message", [
    ([2**32], "the longest axis of instruction 'parameter.100' is 4,294,967,296; the limit"),
    ([2**62, 0], "the longest axis of instruction 'parameter.100' is 4,611,"),
    ([2**24, 2**24], "the number of elements of instruction 'parameter.100' is 281,474,976"),
    ([1] * 33, "the number of axes of instruction 'parameter.100' is 33; the limit is 32")])
def test_arrays_are_limited(shape, message):
  module, main = small_programs.program()
  p = small_programs.add(main, "parameter", shape)
  small_programs.add(main, "negate", shape, [p])
  with pytest.raises(errors.LimitError, match=f"k.pb: {message}"):
    value_graph.Expanded(module, "k.pb")
  small_programs.add(main, "tuple", [], [])
  _tuple_shape(main, (3,), tuple(shape))
  with pytest.raises(errors.LimitError, match="k.pb: "):
    value_graph.Expanded(module, "k.pb")


@pytest.mark.parametrize("extent", [-1, -2**63])
def test_unknown_dimensions_are_refused(extent):
  module, main = small_programs.program()
  small_programs.add(main, "parameter", [8, extent])
  with pytest.raises(errors.DataError, match=r"k.pb: instruction 'parameter.100' has shape "
                     r"f32\[8,\?\], whose dimension 1 has no known size"):
    value_graph.Expanded(module, "k.pb")
  _tuple_shape(main, (3,), [(4,), (2, extent)])
  with pytest.raises(errors.DataError, match=r"has shape f32\[2,\?\], whose dimension 1 has no "):
    value_graph.Expanded(module, "k.pb")


def test_bounded_dynamic_dimensions_have_the_size_of_their_bound():
  module, main = small_programs.program()
  small_programs.add(main, "parameter", [8, 10])
  shape = main.instructions[0].shape
  # Field 6, is_dynamic_dimension: f32[8,<=10].
  shape.MergeFromString(bytes([6 << 3 | 2, 2, 0, 1]))
  program = value_graph.Expanded(module)
  assert program.values[program.root].shape == (8, 10)


def test_what_refers_to_nothing():
  module, main = small_programs.program()
  small_programs.add(main, "negate", [3], [77])
  with pytest.raises(errors.DataError, match="'negate.100' has operand id 77, but its comput"):
    value_graph.Expanded(module, "k.pb")
  module, main = small_programs.program()
  small_programs.add(main, "call", [3], called_computation_ids=[9])
  with pytest.raises(errors.DataError, match="'call.100' has called computation id 9, but the mod"):
    value_graph.Expanded(module, "k.pb")
  module, main = small_programs.program()
  small_programs.add(main, "constant", [3])
  main.root_id = 9
  with pytest.raises(errors.DataError, match=r"computation 'main' has no root instruction \(id 9"):
    value_graph.Expanded(module, "k.pb")
  main.root_id = 0  # Not stated: the last instruction.
  assert value_graph.Expanded(module).root == 0
  module, main = small_programs.program()
  called = module.computations.add(id=2, name="called")
  small_programs.add(called, "parameter", [3], parameter_number=1)
  p = small_programs.add(main, "constant", [3])
  small_programs.add(main, "call", [3], [p], called_computation_ids=[2])
  with pytest.raises(errors.DataError, match="'parameter.200' is parameter 1, but its computation "
                     "is called with 1 operands"):
    value_graph.Expanded(module, "k.pb")


@pytest.mark.parametrize("number, name, ids, names, position", [
    (2, "", [1, 2, 3], "abc", 1), (2, "c", [1, 2, 3], "abc", 1), (0, "b", [1, 2, 3], "abc", 1),
    (0, "b", [0, 2, 3], "abc", 1), (0, "b", [0, 0, 0], "abc", 1), (7, "b", [1, 2, 3], "abc", 1),
    (0, "", [0, 2, 3], "abc", 0), (0, "", [0, 0, 0], "abc", 2), (0, "", [1, 2, 3], "abc", 2),
    (7, "", [1, 2, 3], "abc", 2), (2, "b", [2, 2, 3], "abc", 1), (0, "x", [0, 2, 3], "abc", 2)])
def test_the_entry(number, name, ids, names, position):
  module = hlo_pb2.HloModuleProto(entry_computation_id=number, entry_computation_name=name)
  for own, called in zip(ids, names):
    module.computations.add(id=own, name=called)
  assert value_graph.entry(module).name == names[position]


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
