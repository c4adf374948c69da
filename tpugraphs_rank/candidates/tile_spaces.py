"""The tiles of a kernel, and the bounds with which raw data describe a tile.

Files do not say what the bounds of a tile mean. It follows from the hardware:

- `tpu` (the public data): a bound counts hardware tiles, 8 x 128 elements of the two minor axes
  (1,024 elements of a vector), axis by axis in physical order, major first. Output bounds divide
  what a kernel iterates over: the result of its largest dot or convolution, otherwise the operand
  of its largest reduction, otherwise its result. Kernel bounds divide the second operand of the dot
  or convolution. There are no input bounds. A single reshape is not tiled.
- `elements`: output bounds are the sides of the result's axes in elements, in the order of the
  axes. Kernel bounds are those of the axes that the largest contraction sums over. Input bounds are
  the block of the first operand that one step reads.
- `xla_cpu` (the bundled collection): as `elements`, but sides divide their axes, because the
  collector's loops have no remainders. Sides are at least 8 on axes longer than 15. A kernel takes
  2 to 4,096 steps.
"""

from collections.abc import Sequence
import dataclasses
import math

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.candidates import axis_checks
from tpugraphs_rank.candidates import blocks
from tpugraphs_rank.candidates import value_graph
from tpugraphs_rank.hlo import hlo_pb2

TPU, ELEMENTS, XLA_CPU = TILINGS = ("tpu", "elements", "xla_cpu")
MIN_SIDE = 8
CPU_STEPS = (2, 4096)
_SUBLANES, _LANES = 8, 128


def tiling_of(target: str | None) -> str:
  """The tiling of a target, by its name: `tpu...`, `xla_cpu...` or any other."""
  name = (target or "").lower()
  return next((tiling for tiling in (TPU, XLA_CPU) if name.startswith(tiling)), ELEMENTS)


@dataclasses.dataclass(frozen=True)
class Bound:
  """One entry of a bounds list: a side in units.

  Attributes:
    side: the side as a function of the tile.
    unit: number of elements that the entry counts as one.
  """

  side: blocks.Side
  unit: int = 1

  def of(self, sides: np.ndarray) -> np.ndarray:
    """(c,) the entry for each of the tiles (c, axes)."""
    return -(-self.side.of(sides) // self.unit)


@dataclasses.dataclass(frozen=True)
class TileSpace:
  """The tiles of one kernel.

  Attributes:
    axes: extent of each axis that tiles divide, in elements.
    sides: valid sides of each axis, ascending.
    output, kernel, inputs: entries of the three bounds lists.
    steps: minimum and maximum number of steps (tiles) of a kernel; None: no limit.
  """

  axes: tuple[int, ...]
  sides: tuple[tuple[int, ...], ...]
  output: tuple[Bound, ...]
  kernel: tuple[Bound, ...]
  inputs: tuple[Bound, ...]
  steps: tuple[int, int] | None = None

  @property
  def combinations(self) -> int:
    """The number of combinations of sides."""
    return math.prod(map(len, self.sides))

  def is_legal(self, sides: np.ndarray) -> np.ndarray:
    """(c, axes) tiles to (c,) whether their number of steps is valid."""
    if self.steps is None:
      return np.ones(len(sides), bool)
    count = np.prod(-(-np.array(self.axes, np.float64) // sides), axis=1)
    return (count >= self.steps[0]) & (count <= self.steps[1])

  def tiles(self, chosen: np.ndarray) -> np.ndarray:
    """(c, axes) positions in `sides` to (c, axes) sides."""
    return np.stack([np.array(options, np.int64)[column]
                     for options, column in zip(self.sides, chosen.T)], axis=1)


def tile_space(module: hlo_pb2.HloModuleProto, tiling: str, source: str = "the module"
               ) -> TileSpace:
  """The tiles of a kernel.

  Args:
    module: the kernel.
    tiling: one of `TILINGS`, see above.
    source: the kernel's name in error messages.

  Raises:
    DataError: the kernel returns no array, a dimension has no known size, or an instruction does
      not fit its shapes.
    LimitError: the kernel is too large to be expanded; see `hlo.limits`.
    UnknownNameError: there is no such tiling.
  """
  if tiling not in TILINGS:
    raise errors.UnknownNameError(
        f"unknown tiling {tiling!r}; expected one of {', '.join(TILINGS)}")
  program = value_graph.Expanded(module, source)
  axis_checks.check(program)
  space = _of_hardware_tiles(program) if tiling == TPU else _of_elements(
      program, exact=tiling == XLA_CPU)
  if not space.axes or 0 in space.axes:
    raise errors.DataError(
        f"{source} returns no array with elements, so there is nothing to tile; use the HLO of "
        "one kernel, or supply configurations with --candidates FILE.npz")
  if any(bound.side.extent == 0 for bound in (*space.output, *space.kernel, *space.inputs)):
    raise errors.DataError(
        f"{source} reads an array without elements, so there is nothing to tile; use the HLO of a "
        "kernel that computes something")
  return space


def divisors(extent: int) -> tuple[int, ...]:
  """Sides that divide an axis, ascending: at least `MIN_SIDE`, or any for a short axis."""
  low = [side for side in range(1, math.isqrt(extent) + 1) if extent % side == 0]
  return tuple(side for side in sorted({*low, *(extent // side for side in low)})
               if side >= MIN_SIDE or extent < 2 * MIN_SIDE)


def balanced(extent: int) -> tuple[int, ...]:
  """Sides that divide an axis into k tiles as evenly as possible, ceil(extent / k), ascending.

  They include all divisors. The measured public kernels have no other sides. Powers of two are
  added.
  """
  sides = {1 << power for power in range(extent.bit_length())}
  side = extent
  while side > 1:
    sides.add(side)
    side = -(-extent // -(-extent // (side - 1)))  # The next smaller side, with the fewest tiles.
  return tuple(sorted(sides))


def _largest(program: value_graph.Expanded, numbers: Sequence[int], opcodes: Sequence[str]
             ) -> blocks.Contraction | None:
  """The contraction with the most work among some values; the first if several are equal."""
  contractions = [contraction for number in numbers if program.values[number].opcode in opcodes
                  for contraction in [blocks.contraction(program, number)] if contraction]
  return max(contractions, key=lambda contraction: contraction.work, default=None)


def _of_elements(program: value_graph.Expanded, exact: bool) -> TileSpace:
  shape = program.values[program.root].shape
  axes = list(shape)
  output = tuple(blocks.Side(extent, axis) for axis, extent in enumerate(shape))
  needed_blocks = blocks.blocks(program, program.root, output)
  main = _largest(program, sorted(needed_blocks), ("dot", "convolution", "reduce"))
  start, block, kernel = program.root, output, []
  if main is not None:
    operand = program.values[main.number].operands[0]
    inner = blocks.operand_block(program, main.number, 0, needed_blocks[main.number])
    if inner is not None:
      start, sides = operand, list(inner)
      for axis in main.axes:
        extent = program.values[operand].shape[axis]
        if extent > 1:
          sides[axis] = blocks.Side(extent, len(axes))
          kernel.append(sides[axis])
          axes.append(extent)
      block = tuple(sides)
  reached = [(number, needed) for number, needed in
             blocks.leaves(program, blocks.blocks(program, start, block)) if needed]
  inputs = min(reached, key=lambda leaf: program.first_parameters[leaf[0]],
               default=(start, block))[1]
  return TileSpace(
      tuple(axes), tuple((divisors if exact else balanced)(extent) for extent in axes),
      tuple(map(Bound, output)), tuple(map(Bound, kernel)), tuple(map(Bound, inputs)),
      CPU_STEPS if exact else None)


def _units(value: value_graph.Value) -> list[int]:
  """For each axis of an array, the number of its elements in a hardware tile."""
  units = [1] * len(value.shape)
  if len(value.shape) == 1:
    return [_SUBLANES * _LANES]
  for axis, unit in zip(value.layout, (_LANES, _SUBLANES)):
    units[axis] = unit
  return units


def _physical(value: value_graph.Value, sides: Sequence[blocks.Side]) -> tuple[Bound, ...]:
  """Bounds of an array in its physical order, major first."""
  units = _units(value)
  return tuple(Bound(sides[axis], units[axis]) for axis in reversed(value.layout))


def _of_hardware_tiles(program: value_graph.Expanded) -> TileSpace:
  everything = range(len(program.values))
  main = _largest(program, everything, ("dot", "convolution"))
  if main is None:
    reduction = _largest(program, everything, ("reduce",))
    value = program.values[program.root if reduction is None else
                           program.values[reduction.number].operands[0]]
    shape = () if value.opcode == "reshape" else value.shape
    sides = [blocks.Side(extent, axis) for axis, extent in enumerate(shape)]
    return _counted(
        list(shape), [_units(value)], [sides], _physical(value, sides) if shape else (), ())
  value = program.values[main.number]
  left, right = (program.values[operand] for operand in value.operands)
  output = [blocks.Side(extent, axis) for axis, extent in enumerate(value.shape)]
  axes = list(value.shape)
  lhs = list(blocks.operand_block(program, main.number, 0, tuple(output)) or ())
  kernel = blocks.whole(right.shape)
  if value.opcode == "convolution":
    numbers = value.instruction.convolution_dimension_numbers
    kernel[numbers.kernel_output_feature_dimension] = output[numbers.output_feature_dimension]
    summed = {numbers.kernel_input_feature_dimension: numbers.input_feature_dimension}
    cut = [numbers.kernel_input_feature_dimension, *numbers.kernel_spatial_dimensions]
  else:
    dot = blocks.dot_axes(value, [left.shape, right.shape])
    rhs = blocks.operand_block(program, main.number, 1, tuple(output))
    assert dot is not None and rhs is not None  # Otherwise the dot is not a contraction.
    for axis, side in enumerate(rhs):
      kernel[axis] = side
    summed = dict(zip(dot.contracting[1], dot.contracting[0]))
    cut = list(dot.contracting[1])
  for axis in cut:
    kernel[axis] = blocks.Side(right.shape[axis], len(axes))
    axes.append(right.shape[axis])
    if axis in summed and lhs and left.shape[summed[axis]] == right.shape[axis]:
      lhs[summed[axis]] = kernel[axis]
  return _counted(axes, [_units(array) for array in (value, left, right)], [output, lhs, kernel],
                  _physical(value, output), _physical(right, kernel))


def _counted(axes: Sequence[int], units: Sequence[Sequence[int]],
             arrays: Sequence[Sequence[blocks.Side]], output: tuple[Bound, ...],
             kernel: tuple[Bound, ...]) -> TileSpace:
  """A space whose sides are whole hardware tiles of every array that has the axis."""
  steps = [1] * len(axes)
  for lengths, sides in zip(units, arrays):
    for unit, side in zip(lengths, sides):
      if side.axis >= 0 and (side.factor, side.offset) == (1, 0):
        steps[side.axis] = math.lcm(steps[side.axis], unit)
  options = tuple(
      tuple(min(count * step, extent) for count in balanced(-(-extent // step)))
      for extent, step in zip(axes, steps))
  return TileSpace(tuple(axes), options, output, kernel, ())
