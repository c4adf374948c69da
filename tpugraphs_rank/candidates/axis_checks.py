"""Checks that the axes and windows that instructions name fit their shapes.

Tiles are computed from these numbers, and a wrong one must not give a wrong tile: Python would take
axis -1 as the last one, and a window of negative size as a negative side. The rules are those of
XLA's shape inference.
"""

from collections.abc import Callable, Sequence
import math

from tpugraphs_rank import errors
from tpugraphs_rank.candidates import value_graph
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import limits

_Shapes = Sequence[value_graph.Shape]
# Returns what is wrong with an instruction, or "".
_Check = Callable[[value_graph.Value, _Shapes], str]


def check(program: value_graph.Expanded) -> None:
  """Refuses a program in which an instruction does not fit its shapes.

  Raises:
    DataError: an axis or a window is wrong; the message names the instruction.
    LimitError: a dot without contracted axes has too many axes to infer them.
  """
  for value in program.values:
    checked = _CHECKS.get(value.opcode)
    if checked is None or not value.operands:
      continue
    shapes = [program.values[operand].shape for operand in value.operands]
    if value.opcode == "dot" and not value.instruction.HasField("dot_dimension_numbers"):
      limits.check(
          max(map(len, shapes)), limits.INFERRED_RANK,
          f"{program.source}: the file does not say which axes {value.name} contracts, and the "
          "number of axes of its operands", "dump the program again with XLA, which writes "
          "dot_dimension_numbers")
    problem = checked(value, shapes)
    if problem:
      raise errors.DataError(
          f"{program.source}: the {value.opcode} {value.name} has shape {_text(value.shape)}, "
          f"operands of shapes {' and '.join(map(_text, shapes[:2]))}, and {problem}; the file is "
          "damaged: dump the program again")


def _text(shape: value_graph.Shape) -> str:
  return f"[{','.join(map(str, shape))}]"


def _are_axes(axes: Sequence[int], rank: int) -> bool:
  return len(set(axes)) == len(axes) and all(0 <= axis < rank for axis in axes)


def _lengths(shape: value_graph.Shape, axes: Sequence[int]) -> list[int]:
  return [shape[axis] for axis in axes]


def _others(shape: value_graph.Shape, *used: Sequence[int]) -> list[int]:
  """The lengths of the axes that are not among `used`."""
  taken = {axis for axes in used for axis in axes}
  return [extent for axis, extent in enumerate(shape) if axis not in taken]


def _broadcast(value: value_graph.Value, shapes: _Shapes) -> str:
  axes = value.instruction.dimensions
  if len(axes) != len(shapes[0]) or not _are_axes(axes, len(value.shape)):
    return f"dimensions {list(axes)}; expected one axis of the result for each of the operand"
  if _lengths(value.shape, axes) != list(shapes[0]):
    return f"dimensions {list(axes)}, whose lengths differ"
  return ""


def _transpose(value: value_graph.Value, shapes: _Shapes) -> str:
  axes = value.instruction.dimensions
  if len(axes) != len(shapes[0]) or not _are_axes(axes, len(shapes[0])):
    return f"dimensions {list(axes)}; expected every axis of the operand once"
  return ("" if _lengths(shapes[0], axes) == list(value.shape)
          else f"dimensions {list(axes)}, whose lengths differ")


def _arrays(shapes: _Shapes) -> set[value_graph.Shape]:
  """The different shapes of the arrays that a reduction reads; their initial values follow."""
  return set(shapes[:max(len(shapes) // 2, 1)])


def _reduce(value: value_graph.Value, shapes: _Shapes) -> str:
  axes = value.instruction.dimensions
  if len(_arrays(shapes)) > 1:
    return "arrays of different shapes"
  if not _are_axes(axes, len(shapes[0])):
    return f"dimensions {list(axes)}; expected distinct axes of the operand"
  return ("" if _others(shapes[0], axes) == list(value.shape)
          else f"dimensions {list(axes)}; the lengths of the other axes differ")


def _reshape(value: value_graph.Value, shapes: _Shapes) -> str:
  return "" if math.prod(shapes[0]) == value.volume else "another number of elements"


def _concatenate(value: value_graph.Value, shapes: _Shapes) -> str:
  axes = value.instruction.dimensions
  if len(axes) != 1 or not _are_axes(axes, len(value.shape)):
    return f"dimensions {list(axes)}; expected one axis"
  return ""


def _reduce_window(value: value_graph.Value, shapes: _Shapes) -> str:
  windows = value.instruction.window.dimensions
  if len(_arrays(shapes)) > 1:
    return "arrays of different shapes"
  if len(windows) != len(shapes[0]):
    return f"{len(windows)} windows; expected one for each axis"
  if len(value.shape) != len(shapes[0]):
    return "a result with another number of axes"
  return _windows(windows)


def _windows(windows: Sequence[hlo_pb2.WindowDimension]) -> str:
  for axis, window in enumerate(windows):
    for name, low in (("size", 1), ("stride", 0), ("window_dilation", 0), ("base_dilation", 0),
                      ("padding_low", -limits.EXTENT), ("padding_high", -limits.EXTENT)):
      number = getattr(window, name)
      if not low <= number <= limits.EXTENT:
        return f"window {axis} with {name} {number}; expected {low} to {limits.EXTENT}"
  return ""


def _dot(value: value_graph.Value, shapes: _Shapes) -> str:
  if len(shapes) < 2:
    return "one operand; expected two"
  if not value.instruction.HasField("dot_dimension_numbers"):
    return ""
  n = value.instruction.dot_dimension_numbers
  sides = ((n.lhs_batch_dimensions, n.lhs_contracting_dimensions),
           (n.rhs_batch_dimensions, n.rhs_contracting_dimensions))
  for (batch, contracting), shape in zip(sides, shapes):
    if not _are_axes([*batch, *contracting], len(shape)):
      return (f"batch axes {list(batch)} and contracted axes {list(contracting)}; expected "
              "distinct axes of the operand")
  for role, ours, theirs in zip(("batch", "contracted"), *sides):
    if _lengths(shapes[0], ours) != _lengths(shapes[1], theirs):
      return f"{role} axes {list(ours)} and {list(theirs)}, whose lengths differ"
  expected = [*_lengths(shapes[0], sides[0][0]), *_others(shapes[0], *sides[0]),
              *_others(shapes[1], *sides[1])]
  if len(shapes) == 2 and expected != list(value.shape):
    return f"axes that give shape {_text(tuple(expected))}"
  return ""


def _convolution(value: value_graph.Value, shapes: _Shapes) -> str:
  if len(shapes) < 2:
    return "one operand; expected two"
  if not value.instruction.HasField("convolution_dimension_numbers"):
    return ""
  c = value.instruction.convolution_dimension_numbers
  for name, axes, shape in (
      ("output", (c.output_batch_dimension, c.output_feature_dimension,
                  *c.output_spatial_dimensions), value.shape),
      ("input", (c.input_batch_dimension, c.input_feature_dimension, *c.input_spatial_dimensions),
       shapes[0]),
      ("kernel", (c.kernel_input_feature_dimension, c.kernel_output_feature_dimension,
                  *c.kernel_spatial_dimensions), shapes[1])):
    if len(axes) != len(shape) or not _are_axes(axes, len(shape)):
      return f"{name} axes {list(axes)}; expected every axis of its {name} once"
  windows = value.instruction.window.dimensions
  if windows and len(windows) != len(c.input_spatial_dimensions):
    return f"{len(windows)} windows; expected one for each spatial axis"
  for name in ("feature_group_count", "batch_group_count"):
    if getattr(value.instruction, name) < 0:
      return f"{name} {getattr(value.instruction, name)}; expected 1 or more"
  return _windows(windows)


_CHECKS: dict[str, _Check] = {
    "broadcast": _broadcast, "concatenate": _concatenate,
    "convolution": _convolution, "dot": _dot, "reduce": _reduce, "reduce-window": _reduce_window,
    "reshape": _reshape, "transpose": _transpose}
