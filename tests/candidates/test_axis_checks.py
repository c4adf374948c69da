"""Instructions whose axes or windows do not fit their shapes."""

import pytest

from tests.candidates import small_programs
from tpugraphs_rank import errors
from tpugraphs_rank.candidates import axis_checks
from tpugraphs_rank.candidates import value_graph
from tpugraphs_rank.hlo import hlo_pb2


def _check(opcode, shape, operands, **fields):
  module, main = small_programs.program()
  ids = [small_programs.add(main, "parameter", operand, parameter_number=number)
         for number, operand in enumerate(operands)]
  small_programs.add(main, opcode, shape, ids, **fields)
  axis_checks.check(value_graph.Expanded(module, "k.pb"))


def _dot(*axes):
  left_batch, right_batch, left, right = axes
  return {"dot_dimension_numbers": hlo_pb2.DotDimensionNumbers(
      lhs_batch_dimensions=left_batch, rhs_batch_dimensions=right_batch,
      lhs_contracting_dimensions=left, rhs_contracting_dimensions=right)}


def _window(rank=1, **fields):
  return {"window": hlo_pb2.Window(dimensions=[
      hlo_pb2.WindowDimension(**{"size": 3, "stride": 1, **fields})] * rank)}


def _convolution(**changes):
  numbers = small_programs.convolution_numbers()
  for name, value in changes.items():
    setattr(numbers, name, value)
  return {"convolution_dimension_numbers": numbers}


GOOD = [
    ("broadcast", [4, 3, 6], [(4, 6)], {"dimensions": [0, 2]}),
    ("broadcast", [4], [()], {}),
    ("transpose", [6, 4], [(4, 6)], {"dimensions": [1, 0]}),
    ("reduce", [4], [(4, 6), ()], {"dimensions": [1]}),
    ("reshape", [24], [(4, 6)], {}),
    ("bitcast", [12], [(4, 6)], {}),  # Elements of another size.
    ("concatenate", [4, 8], [(4, 6), (4, 2)], {"dimensions": [1]}),
    ("reduce-window", [4], [(6,)], _window()),
    ("reduce-window", [4], [(6,)], _window(stride=0)),  # Not written: 1.
    ("dot", [2, 4, 6], [(2, 4, 5), (2, 5, 6)], _dot([0], [0], [2], [1])),
    ("dot", [4, 6], [(4, 5), (5, 6)], {}),
    ("dot", [4, 6], [(4,), (6,)], _dot([], [], [], [])),
    ("convolution", [1, 4, 4, 3], [(1, 6, 6, 2), (3, 3, 2, 3)], {**_convolution(), **_window(2)}),
    ("tanh", [4], [(5,)], {"dimensions": [9]}),  # Not an axis of a tanh.
]


@pytest.mark.parametrize("opcode, shape, operands, fields", GOOD)
def test_what_fits(opcode, shape, operands, fields):
  _check(opcode, shape, operands, **fields)


@pytest.mark.parametrize("opcode, shape, operands, fields, message", [
    ("broadcast", [4, 6], [(4,)], {"dimensions": [2]}, r"dimensions \[2\]; expected one axis"),
    ("broadcast", [4, 6], [(4,)], {"dimensions": [-2]}, r"dimensions \[-2\]; expected one axis"),
    ("broadcast", [4, 4], [(4, 4)], {"dimensions": [0, 0]}, "expected one axis of the result for"),
    ("broadcast", [4, 6], [(4,)], {"dimensions": [1]}, r"dimensions \[1\], whose lengths differ"),
    ("broadcast", [4, 6], [(4,)], {}, "expected one axis of the result for each"),
    ("transpose", [4, 6], [(6, 4)], {"dimensions": [1, 1]}, "expected every axis of the operand"),
    ("transpose", [4, 6], [(4, 6)], {"dimensions": [1, 0]}, "whose lengths differ"),
    ("reduce", [4], [(4, 6), ()], {"dimensions": [-1]}, "expected distinct axes of the operand"),
    ("reduce", [6], [(4, 6), ()], {"dimensions": [1]}, "the lengths of the other axes differ"),
    ("reduce", [4], [(4, 6), (6, 4), (), ()], {"dimensions": [1]}, "arrays of different shapes"),
    ("reduce-window", [4], [(6,), (7,), (), ()], _window(), "arrays of different shapes"),
    ("reshape", [5, 5], [(4, 6)], {}, "another number of elements"),
    ("concatenate", [4, 8], [(4, 8)], {"dimensions": [2]}, r"dimensions \[2\]; expected one axis"),
    ("concatenate", [4, 8], [(4, 8)], {}, "expected one axis"),
    ("reduce-window", [4], [(6,)], _window(2), "2 windows; expected one for each axis"),
    ("reduce-window", [4, 1], [(6,)], _window(1), "a result with another number of axes"),
    ("reduce-window", [4], [(6,)], _window(size=0), "window 0 with size 0; expected 1 to 42949"),
    ("reduce-window", [4], [(6,)], _window(stride=-1), "window 0 with stride -1; expected 0 to"),
    ("reduce-window", [4], [(6,)], _window(padding_low=-2**40), "padding_low -1099511627776; exp"),
    ("reduce-window", [4], [(6,)], _window(window_dilation=2**62), "window_dilation 46116860184"),
    ("dot", [4], [(4,)], {}, "one operand; expected two"),
    ("dot", [4, 6], [(4, 5), (5, 6)], _dot([], [], [-1], [0]), "expected distinct axes"),
    ("dot", [4, 6], [(4, 5), (5, 6)], _dot([], [], [1], [7]), "expected distinct axes"),
    ("dot", [4, 6], [(4, 5), (5, 6)], _dot([], [], [1], [1]), "contracted axes .*lengths differ"),
    ("dot", [4, 6], [(4, 5), (5, 6)], _dot([0], [0], [1], [1]), "batch axes .*lengths differ"),
    ("dot", [6, 4], [(4, 5), (5, 6)], _dot([], [], [1], [0]), r"axes that give shape \[4,6\]"),
    ("convolution", [1, 4, 4, 3], [(1, 6, 6, 2), (3, 3, 2, 3)],
     _convolution(output_feature_dimension=4), r"output axes \[0, 4, 1, 2\]; expected every axis"),
    ("convolution", [1, 4, 4, 3], [(1, 6, 6, 2), (3, 3, 2, 3)],
     _convolution(input_batch_dimension=-1), r"input axes \[-1, 3, 1, 2\]; expected every axis"),
    ("convolution", [1, 4, 4, 3], [(1, 6, 6, 2), (3, 3, 2)], _convolution(), "kernel axes"),
    ("convolution", [1, 4, 4, 3], [(1, 6, 6, 2), (3, 3, 2, 3)],
     {**_convolution(), **_window(1)}, "1 windows; expected one for each spatial axis"),
    ("convolution", [1, 4, 4, 3], [(1, 6, 6, 2), (3, 3, 2, 3)],
     {**_convolution(), "feature_group_count": -3}, "feature_group_count -3; expected 1 or more"),
])
def test_what_does_not_fit(opcode, shape, operands, fields, message):
  with pytest.raises(errors.DataError, match=f"^k.pb: the {opcode} '{opcode}.10.' has .*{message}"):
    _check(opcode, shape, operands, **fields)


def test_a_dot_of_many_axes_must_say_what_it_contracts():
  with pytest.raises(errors.LimitError, match="'dot.102' contracts.* is 9; the limit is 8"):
    _check("dot", [2] * 16, [[2] * 9, [2] * 9])
  _check("dot", [2] * 16, [[2] * 9, [2] * 9], **_dot([], [], [8], [0]))
