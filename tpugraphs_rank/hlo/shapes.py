"""Shapes of instructions: their text, the arrays in a tuple, and dimensions without a size."""

from collections.abc import Iterator

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank.hlo import hlo_pb2

# XLA writes this number for a dimension without a bound; StableHLO and older versions write -1.
_UNBOUNDED = -2**63
_SHOWN_AXES = 8
_SHOWN_ARRAYS = 4


def text(shape: hlo_pb2.ShapeProto) -> str:
  """A shape as HLO text without layout, such as `f32[64,128]` or `(s32[], f32[?,8])`."""
  if shape.element_type != hlo_pb2.TUPLE:
    return _array_text(shape)
  shown = [_array_text(entry) if entry.element_type != hlo_pb2.TUPLE else "(...)"
           for entry in shape.tuple_shapes[:_SHOWN_ARRAYS]]
  return f"({', '.join(shown + ['...'] * (len(shape.tuple_shapes) > _SHOWN_ARRAYS))})"


def _array_text(shape: hlo_pb2.ShapeProto) -> str:
  axes = ["?" if extent in (_UNBOUNDED, -1) else str(extent)
          for extent in shape.dimensions[:_SHOWN_AXES]]
  axes += ["..."] * (len(shape.dimensions) > _SHOWN_AXES)
  return f"{element_type(shape.element_type)}[{','.join(axes)}]"


def element_type(number: int) -> str:
  """The name of an element type as in HLO text, such as `f32`; `type99` for unknown numbers."""
  known = hlo_pb2.PrimitiveType.DESCRIPTOR.values_by_number.get(number)
  return known.name.lower().removesuffix("_type") if known is not None else f"type{number}"


def arrays(shape: hlo_pb2.ShapeProto) -> Iterator[hlo_pb2.ShapeProto]:
  """The shape itself, or the arrays of a tuple and of the tuples in it, in order."""
  waiting = [shape]
  while waiting:
    current = waiting.pop()
    if current.element_type == hlo_pb2.TUPLE or current.tuple_shapes:
      waiting.extend(reversed(current.tuple_shapes))
    else:
      yield current


def check(module: hlo_pb2.HloModuleProto, source: str = "the module") -> None:
  """Refuses a program in which a dimension has no known size.

  The size of a dynamic dimension with a bound (`f32[<=10]`) is its bound.

  Args:
    module: the program.
    source: its name in error messages.

  Raises:
    DataError: a dimension is unknown or negative; the message names instruction and dimension.
  """
  for computation in module.computations:
    for instruction in computation.instructions:
      shape = instruction.shape
      if shape.tuple_shapes:
        for array in arrays(shape):
          _check_array(array, instruction, source)
      elif shape.dimensions:
        _check_array(shape, instruction, source)


def _check_array(array: hlo_pb2.ShapeProto, instruction: hlo_pb2.HloInstructionProto,
                 source: str) -> None:
  if not array.dimensions or min(array.dimensions) >= 0:
    return
  axis, extent = next((axis, extent) for axis, extent in enumerate(array.dimensions) if extent < 0)
  where = f"{source}: instruction {escaping.quoted(instruction.name or str(instruction.id))}"
  if extent not in (_UNBOUNDED, -1):
    raise errors.DataError(
        f"{where} has shape {text(array)}, whose dimension {axis} is {extent}; expected 0 or more; "
        "the file is damaged: dump the program again")
  raise errors.DataError(
      f"{where} has shape {text(array)}, whose dimension {axis} has no known size; expected the "
      "size of every dimension; compile or export the program for arguments of fixed shapes, and "
      "dump it again")
