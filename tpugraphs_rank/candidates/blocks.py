"""The block of each value that one tile of the result needs, computed backwards from the result.

A block has one side per axis. Each side is a function of the tile's sides, so that it is computed
once per program and not once per configuration.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import itertools
import math

import numpy as np

from tpugraphs_rank.candidates import value_graph
from tpugraphs_rank.hlo import hlo_pb2

# Larger than every extent, padded or not. A side that grows faster than this covers its axis.
_WHOLE = 1 << 34

# Opcodes that keep the axes of their operands, although they may shorten or lengthen them.
_SAME_AXES = ("concatenate", "dynamic-slice", "pad", "slice")
# Opcodes that move elements or combine several. All others compute each element from the elements
# at the same place in operands of the same shape, except for those of which nothing is known.
_MOVING = (*_SAME_AXES, "bitcast", "broadcast", "convolution", "dot", "reduce", "reduce-window",
           "reshape", "transpose")
_UNKNOWN = ("gather", "scatter", "sort", "while")


@dataclasses.dataclass(frozen=True)
class Side:
  """The side of a block along one axis of a value: min(factor * side of an axis + offset, extent).

  Attributes:
    extent: length of the value along this axis.
    axis: axis of the tile; -1: the block is as long as the value.
    factor: see above.
    offset: see above.
  """

  extent: int
  axis: int = -1
  factor: int = 1
  offset: int = 0

  def of(self, sides: np.ndarray) -> np.ndarray:
    """(c,) this side for each of the tiles (c, axes)."""
    if self.axis < 0:
      return np.full(len(sides), self.extent, np.int64)
    column = sides[:, self.axis]
    # The longest side below the extent, so that no product exceeds 64 bits.
    longest = max((self.extent - self.offset) // self.factor, 0)
    return np.where(column > longest, self.extent,
                    self.factor * np.minimum(column, longest) + self.offset)

  def within(self, extent: int) -> "Side":
    """The same side along an axis of another value."""
    return dataclasses.replace(self, extent=extent)

  def through_window(self, extent: int, size: int, stride: int) -> "Side":
    """The input side that a window needs to compute this side: (side - 1) * stride + size."""
    if self.axis < 0:
      return Side(extent)
    # Both numbers may grow from window to window, but above the extent they make no difference.
    first = min((self.factor + self.offset - 1) * stride + size, _WHOLE)
    factor = min(self.factor * stride, _WHOLE)
    return Side(extent, self.axis, factor, first - factor)


Sides = tuple[Side, ...]


def whole(shape: value_graph.Shape) -> list[Side]:
  """The block that covers a whole value."""
  return [Side(extent) for extent in shape]


@dataclasses.dataclass(frozen=True)
class Contraction:
  """A dot, convolution or reduction.

  Attributes:
    number: number of its value.
    axes: axes of its first operand that it sums over, ascending, without the window of a
      convolution.
    work: number of multiplications or similar operations.
  """

  number: int
  axes: tuple[int, ...]
  work: int


@dataclasses.dataclass(frozen=True)
class DotAxes:
  """The axes of a dot's operands by their role; see XLA's DotDimensionNumbers."""

  batch: tuple[tuple[int, ...], tuple[int, ...]]
  contracting: tuple[tuple[int, ...], tuple[int, ...]]

  def free(self, operand: int, rank: int) -> list[int]:
    """The axes of an operand that are neither batch nor contracted axes."""
    used = (*self.batch[operand], *self.contracting[operand])
    return [axis for axis in range(rank) if axis not in used]


def dot_axes(value: value_graph.Value, shapes: Sequence[value_graph.Shape]) -> DotAxes | None:
  """The axes of a dot; inferred from the shapes if the file lacks them; None if nothing fits.

  Files that contain only what the features need lack them. Then the leading axes are taken as the
  batch. If several contractions fit, the usual one is chosen: the last axes of the first operand
  with the first axes of the second.
  """
  if len(shapes) != 2:
    return None
  if value.instruction.HasField("dot_dimension_numbers"):
    numbers = value.instruction.dot_dimension_numbers
    return DotAxes(
        (tuple(numbers.lhs_batch_dimensions), tuple(numbers.rhs_batch_dimensions)),
        (tuple(numbers.lhs_contracting_dimensions), tuple(numbers.rhs_contracting_dimensions)))
  return _inferred(value.shape, *shapes)


@functools.lru_cache(maxsize=4096)
def _inferred(result: value_graph.Shape, left: value_graph.Shape, right: value_graph.Shape
              ) -> DotAxes | None:
  """The axes of a dot whose shapes are known; see `dot_axes`."""
  double = len(left) + len(right) - len(result)  # batch axes + 2 * contracted axes
  for contracted in range(1, double // 2 + 1):
    batch = double - 2 * contracted
    if batch > min(len(left), len(right), len(result)) or not (
        left[:batch] == right[:batch] == result[:batch]):
      continue
    free = len(left) - batch - contracted
    firsts = _choices(left, batch, contracted, result[batch:batch + free])
    seconds: dict[value_graph.Shape, tuple[int, ...]] = {}
    for axes in _choices(right, batch, contracted, result[batch + free:]):
      seconds.setdefault(tuple(right[axis] for axis in axes), axes)
    for axes in reversed(firsts):
      other = seconds.get(tuple(left[axis] for axis in axes))
      if other is not None:
        both = tuple(range(batch))
        return DotAxes((both, both), (axes, other))
  return None


def _choices(shape: value_graph.Shape, batch: int, contracted: int, free: value_graph.Shape
             ) -> list[tuple[int, ...]]:
  """The axes after the batch that can be contracted, so that the others have the given lengths."""
  return [axes for axes in itertools.combinations(range(batch, len(shape)), contracted)
          if tuple(extent for axis, extent in enumerate(shape)
                   if axis >= batch and axis not in axes) == free]


def contraction(program: value_graph.Expanded, number: int) -> Contraction | None:
  """The value as a contraction, or None if it is not one."""
  value = program.values[number]
  shapes = [program.values[operand].shape for operand in value.operands]
  if value.opcode == "reduce" and shapes and len(value.shape) + len(
      value.instruction.dimensions) == len(shapes[0]):
    axes = tuple(sorted(value.instruction.dimensions))
    return Contraction(number, axes, math.prod(shapes[0]))
  if len(shapes) != 2:
    return None
  if value.opcode == "dot":
    dot = dot_axes(value, shapes)
    if dot is None:
      return None
    summed = math.prod(shapes[0][axis] for axis in dot.contracting[0])
    return Contraction(number, tuple(sorted(dot.contracting[0])), value.volume * summed)
  if value.opcode == "convolution" and value.instruction.HasField("convolution_dimension_numbers"):
    numbers = value.instruction.convolution_dimension_numbers
    features = shapes[1][numbers.kernel_output_feature_dimension]
    work = value.volume * math.prod(shapes[1]) // max(features, 1)
    grouped = _grouped(value.instruction)
    return Contraction(number, () if grouped else (numbers.input_feature_dimension,), work)
  return None


def _grouped(convolution: hlo_pb2.HloInstructionProto) -> bool:
  return convolution.feature_group_count > 1 or convolution.batch_group_count > 1


def operand_block(program: value_graph.Expanded, number: int, position: int, block: Sides
                  ) -> Sides | None:
  """The block of an operand that a block of a value needs; None if it cannot be determined.

  Axes that a contraction sums over are needed in full; the caller may divide them.

  Args:
    program: the program.
    number: number of the value.
    position: position of the operand.
    block: block of the value.
  """
  value = program.values[number]
  operand = program.values[value.operands[position]]
  is_elementwise = operand.shape == value.shape and value.opcode not in _UNKNOWN
  if value.opcode not in _MOVING:
    return block if is_elementwise else None
  needed: list[Side] = whole(operand.shape)
  if value.opcode == "broadcast":
    for axis, source in enumerate(value.instruction.dimensions):
      needed[axis] = block[source]
  elif value.opcode == "transpose":
    for axis, source in enumerate(value.instruction.dimensions):
      needed[source] = block[axis]
  elif value.opcode in ("reshape", "bitcast") and value.volume == operand.volume:
    return _regrouped(value, operand, block)
  elif value.opcode == "reduce" and position == 0 and contraction(program, number):
    kept = [axis for axis in range(len(needed)) if axis not in value.instruction.dimensions]
    for side, axis in zip(block, kept):
      needed[axis] = side
  elif value.opcode == "reduce-window" and position == 0:
    for axis, window in enumerate(value.instruction.window.dimensions):
      needed[axis] = _windowed(block[axis], operand.shape[axis], window)
  elif value.opcode == "dot":
    axes = dot_axes(value, [program.values[other].shape for other in value.operands])
    if axes is None:
      return None
    free = [axes.free(side, len(program.values[other].shape))
            for side, other in enumerate(value.operands)]
    first = len(axes.batch[0]) + (len(free[0]) if position else 0)
    for axis, side in zip(axes.batch[position], block):
      needed[axis] = side
    for axis, side in zip(free[position], block[first:]):
      needed[axis] = side
  elif value.opcode == "convolution":
    if position or contraction(program, number) is None:
      return None
    return _convolved(value.instruction, operand.shape, block)
  elif value.opcode in _SAME_AXES and len(operand.shape) == len(value.shape) and (
      position == 0 or value.opcode == "concatenate"):
    joined = value.instruction.dimensions if value.opcode == "concatenate" else ()
    needed = [Side(extent) if axis in joined else side.within(extent)
              for axis, (extent, side) in enumerate(zip(operand.shape, block))]
  elif is_elementwise:
    return block
  else:
    return None
  return tuple(needed)


def _windowed(side: Side, extent: int, window: hlo_pb2.WindowDimension) -> Side:
  if window.base_dilation > 1:  # A transposed convolution: zeros are inserted into its operand.
    return Side(extent)
  size = (window.size - 1) * max(window.window_dilation, 1) + 1
  # Padding counts like other elements.
  padded = max(extent + window.padding_low + window.padding_high, 1)
  return side.through_window(padded, size, max(window.stride, 1))


def _convolved(instruction: hlo_pb2.HloInstructionProto, shape: value_graph.Shape, block: Sides
               ) -> Sides:
  """The block of a convolution's input."""
  numbers = instruction.convolution_dimension_numbers
  needed = whole(shape)
  if instruction.batch_group_count <= 1:
    needed[numbers.input_batch_dimension] = block[numbers.output_batch_dimension]
  for window, source, axis in zip(instruction.window.dimensions, numbers.output_spatial_dimensions,
                                  numbers.input_spatial_dimensions):
    needed[axis] = _windowed(block[source], shape[axis], window)
  feature = numbers.input_feature_dimension
  if instruction.feature_group_count == shape[feature] > 1 and (
      block[numbers.output_feature_dimension].extent == shape[feature]):
    needed[feature] = block[numbers.output_feature_dimension]  # A depthwise convolution.
  return tuple(needed)


def _regrouped(value: value_graph.Value, operand: value_graph.Value, block: Sides) -> Sides:
  """The block of a reshape's operand: axes that it neither splits nor joins keep their sides.

  A bitcast keeps the elements in place, so it follows their physical order.
  """
  physical = value.opcode == "bitcast"
  outer = list(reversed(value.layout)) if physical else list(range(len(value.shape)))
  inner = list(reversed(operand.layout)) if physical else list(range(len(operand.shape)))
  outer = [axis for axis in outer if value.shape[axis] > 1]
  inner = [axis for axis in inner if operand.shape[axis] > 1]
  needed = whole(operand.shape)
  if not value.volume:
    return tuple(needed)
  while outer and inner:
    ours, theirs = [outer.pop()], [inner.pop()]
    our_size, their_size = value.shape[ours[0]], operand.shape[theirs[0]]
    while our_size != their_size:
      if our_size > their_size:
        theirs.append(inner.pop())
        their_size *= operand.shape[theirs[-1]]
      else:
        ours.append(outer.pop())
        our_size *= value.shape[ours[-1]]
    if len(ours) == len(theirs) == 1:
      needed[theirs[0]] = block[ours[0]]
  return tuple(needed)


def blocks(program: value_graph.Expanded, start: int, block: Sides) -> dict[int, Sides]:
  """The blocks of all values that a block of one value needs, by the value's number.

  If several paths lead to a value, the one through earlier operands is used.
  """
  result: dict[int, Sides] = {}
  waiting = [(start, block)]
  while waiting:
    number, needed = waiting.pop()
    if number in result:
      continue
    result[number] = needed
    for position in reversed(range(len(program.values[number].operands))):
      inner = operand_block(program, number, position, needed)
      if inner is not None:
        waiting.append((program.values[number].operands[position], inner))
  return result


def leaves(program: value_graph.Expanded, needed: dict[int, Sides]
           ) -> Iterator[tuple[int, Sides]]:
  """The values with a block whose operands have none, such as parameters and gathers."""
  for number, block in needed.items():
    if not any(operand in needed for operand in program.values[number].operands):
      yield number, block
