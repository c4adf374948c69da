"""Shapes as text, arrays in tuples, and dimensions without a size."""

import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import shapes


def _array(*dimensions, kind=hlo_pb2.F32):
  return hlo_pb2.ShapeProto(element_type=kind, dimensions=dimensions)


def _tuple(*entries):
  return hlo_pb2.ShapeProto(element_type=hlo_pb2.TUPLE, tuple_shapes=entries)


@pytest.mark.parametrize("shape, text", [
    (_array(), "f32[]"), (_array(64, 128, kind=hlo_pb2.BF16), "bf16[64,128]"),
    (_array(-1, -2**63, -7, 0), "f32[?,?,-7,0]"),
    (_array(*range(1, 11)), "f32[1,2,3,4,5,6,7,8,...]"),
    (_array(kind=hlo_pb2.TOKEN), "token[]"), (_array(kind=hlo_pb2.OPAQUE_TYPE), "opaque[]"),
    (_array(3, kind=hlo_pb2.F8E4M3FN), "f8e4m3fn[3]"), (_array(3, kind=99), "type99[3]"),
    (_tuple(), "()"), (_tuple(_array(2), _tuple(_array(3))), "(f32[2], (...))"),
    (_tuple(*[_array(k) for k in range(9)]), "(f32[0], f32[1], f32[2], f32[3], ...)")])
def test_text(shape, text):
  assert shapes.text(shape) == text


def test_the_arrays_of_tuples_in_order():
  shape = _tuple(_array(1), _tuple(_array(2), _tuple(), _tuple(_array(3))), _array(4))
  assert [list(array.dimensions) for array in shapes.arrays(shape)] == [[1], [2], [3], [4]]
  assert list(shapes.arrays(_array(5))) == [_array(5)]


def _module(shape):
  return hlo_pb2.HloModuleProto(computations=[hlo_pb2.HloComputationProto(instructions=[
      hlo_pb2.HloInstructionProto(name="fine", shape=_array(2, 0)),
      hlo_pb2.HloInstructionProto(name="x\n", shape=shape)])])


def test_known_sizes():
  for shape in (_array(), _array(0, 2**62), _tuple(_array(3), _tuple(_array(0)))):
    shapes.check(_module(shape))


@pytest.mark.parametrize("shape, message", [
    (_array(4, -1), r"has shape f32\[4,\?\], whose dimension 1 has no known size"),
    (_array(-2**63, 4), r"has shape f32\[\?,4\], whose dimension 0 has no known size"),
    (_array(4, -5), r"has shape f32\[4,-5\], whose dimension 1 is -5; expected 0 or more; the"),
    (_tuple(_array(4), _tuple(_array(2, -1))), r"has shape f32\[2,\?\], whose dimension 1 has no")])
def test_unknown_sizes(shape, message):
  with pytest.raises(errors.DataError, match=r"^k.pb: instruction 'x\\n' " + message):
    shapes.check(_module(shape), "k.pb")
