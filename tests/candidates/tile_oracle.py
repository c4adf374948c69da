"""Kernels with their tiles, enumerated from the documented rules without the code under test.

The rules are in the docstring of `candidates.tile_spaces`. A kernel here says which axes it has,
which arrays the bounds describe, and in which units; `tiles` then tries all combinations of sides.
"""

from collections.abc import Callable
import dataclasses
import itertools
import math
import random

from tests.candidates import small_programs
from tpugraphs_rank.hlo import hlo_pb2

Shape = tuple[int, ...]
Bounds = tuple[Shape, Shape, Shape]  # Output, kernel, inputs.


@dataclasses.dataclass(frozen=True)
class Kernel:
  """A kernel as mathematics: an array, perhaps sums, and the block of its first operand.

  Attributes:
    build: adds the kernel's instructions to a computation.
    result: shape of the array that is returned.
    summed: extents of the axes that are summed over.
    block: from a tile's sides, result then summed axes, to the block of the first operand.
    tpu: arrays that a TPU tiles: (axes of the tile by array axis, extents). The first is the one
      that output bounds describe; if there are three, the last is the kernel. None: not tiled.
    parameters: shapes of the parameters.
  """

  build: Callable[[hlo_pb2.HloModuleProto, hlo_pb2.HloComputationProto], int]
  result: Shape
  summed: Shape
  block: Callable[[Shape], Shape]
  tpu: tuple[tuple[Shape, Shape], ...] | None
  parameters: tuple[Shape, ...]


def _parameters(computation: hlo_pb2.HloComputationProto, *shapes: Shape) -> list[int]:
  return [small_programs.add(computation, "parameter", shape, parameter_number=number)
          for number, shape in enumerate(shapes)]


def _tuple_shape(computation: hlo_pb2.HloComputationProto, *shapes: Shape) -> None:
  """Makes the shape of the last instruction a tuple of arrays."""
  shape = computation.instructions[-1].shape
  shape.Clear()
  shape.element_type = hlo_pb2.TUPLE
  for dimensions in shapes:
    shape.tuple_shapes.add(element_type=hlo_pb2.F32, dimensions=dimensions)


def _same(rank: int) -> Callable[[Shape], Shape]:
  return lambda sides: sides[:rank]


def elementwise(rng: random.Random) -> Kernel:
  shape = tuple(rng.choice([1, 3, 8, 16, 24, 40]) for _ in range(rng.randint(1, 3)))

  def build(module: hlo_pb2.HloModuleProto, main: hlo_pb2.HloComputationProto) -> int:
    [x, y] = _parameters(main, shape, shape)
    both = small_programs.add(main, rng.choice(["add", "multiply"]), shape, [x, y])
    return small_programs.add(main, "tanh", shape, [both])

  axes = tuple(range(len(shape)))
  return Kernel(build, shape, (), _same(len(shape)), ((axes, shape),), (shape, shape))


def product(rng: random.Random) -> Kernel:
  """A dot of matrices or of batches of matrices, sometimes followed by something elementwise."""
  batch = (rng.choice([2, 3]),) * rng.randint(0, 1)
  m, n, k = rng.sample([5, 8, 16, 24, 40, 64], 3)
  left, right, result = (*batch, m, k), (*batch, k, n), (*batch, m, n)
  b = len(batch)
  activation = rng.random() < 0.5

  def build(module: hlo_pb2.HloModuleProto, main: hlo_pb2.HloComputationProto) -> int:
    x, y = _parameters(main, left, right)
    numbers = hlo_pb2.DotDimensionNumbers(
        lhs_batch_dimensions=range(b), rhs_batch_dimensions=range(b),
        lhs_contracting_dimensions=[b + 1], rhs_contracting_dimensions=[b])
    # The extents are distinct, so that the contraction follows from the shapes.
    known = {"dot_dimension_numbers": numbers} if rng.random() < 0.5 else {}
    root = small_programs.add(main, "dot", result, [x, y], **known)
    return small_programs.add(main, "tanh", result, [root]) if activation else root

  rows, columns, inner = b, b + 1, b + 2
  leading = tuple(range(b))
  return Kernel(
      build, result, (k,), lambda sides: (*sides[:b], sides[rows], sides[inner]),
      (((*leading, rows, columns), result), ((*leading, rows, inner), left),
       ((*leading, inner, columns), right)), (left, right))


def _reduced(rng: random.Random, several: bool) -> Kernel:
  shape = tuple(rng.choice([3, 8, 16, 24]) for _ in range(3))
  axes = tuple(sorted(rng.sample(range(3), rng.randint(1, 2))))
  kept = tuple(axis for axis in range(3) if axis not in axes)
  result = tuple(shape[axis] for axis in kept)

  def build(module: hlo_pb2.HloModuleProto, main: hlo_pb2.HloComputationProto) -> int:
    arrays = _parameters(main, *[shape] * (2 if several else 1))
    zeros = [small_programs.add(main, "constant", []) for _ in arrays]
    root = small_programs.add(main, "reduce", result, [*arrays, *zeros], dimensions=axes)
    if several:
      _tuple_shape(main, result, result)
    return root

  def block(sides: Shape) -> Shape:
    place = {**{axis: number for number, axis in enumerate(kept)},
             **{axis: len(kept) + number for number, axis in enumerate(axes)}}
    return tuple(sides[place[axis]] for axis in range(3))

  # On a TPU, output bounds divide the operand of the reduction, in its own order of axes.
  return Kernel(build, result, tuple(shape[axis] for axis in axes), block,
                (((0, 1, 2), shape),), (shape,) * (2 if several else 1))


def reduction(rng: random.Random) -> Kernel:
  return _reduced(rng, several=False)


def argmax(rng: random.Random) -> Kernel:
  """A reduction of two arrays at once, whose result is a tuple."""
  return _reduced(rng, several=True)


def transpose(rng: random.Random) -> Kernel:
  shape = tuple(rng.choice([3, 8, 16, 24]) for _ in range(rng.randint(2, 3)))
  axes = tuple(rng.sample(range(len(shape)), len(shape)))
  result = tuple(shape[axis] for axis in axes)

  def build(module: hlo_pb2.HloModuleProto, main: hlo_pb2.HloComputationProto) -> int:
    [x] = _parameters(main, shape)
    return small_programs.add(main, "transpose", result, [x], dimensions=axes)

  return Kernel(build, result, (), lambda sides: tuple(
      sides[axes.index(axis)] for axis in range(len(shape))),
                ((tuple(range(len(shape))), result),), (shape,))


def sort(rng: random.Random) -> Kernel:
  """A sort of two arrays: what it reads is not known, so that its own tile counts."""
  shape = tuple(rng.choice([8, 16, 24, 64]) for _ in range(2))

  def build(module: hlo_pb2.HloModuleProto, main: hlo_pb2.HloComputationProto) -> int:
    root = small_programs.add(main, "sort", shape, _parameters(main, shape, shape), dimensions=[1])
    _tuple_shape(main, shape, shape)
    return root

  return Kernel(build, shape, (), _same(2), (((0, 1), shape),), (shape, shape))


def top_k(rng: random.Random) -> Kernel:
  """A library call that returns a tuple; the first of its largest arrays counts."""
  shape, result = (rng.choice([16, 24]), 128), (rng.choice([16, 24]), 8)

  def build(module: hlo_pb2.HloModuleProto, main: hlo_pb2.HloComputationProto) -> int:
    root = small_programs.add(main, "custom-call", [], _parameters(main, shape))
    _tuple_shape(main, (3,), result, result)
    return root

  return Kernel(build, result, (), _same(2), (((0, 1), result),), (shape,))


def loop(rng: random.Random) -> Kernel:
  """A loop whose state is a counter and two arrays."""
  large, small = (24, 40), (rng.choice([3, 8]),)

  def build(module: hlo_pb2.HloModuleProto, main: hlo_pb2.HloComputationProto) -> int:
    counter = small_programs.add(main, "constant", [])
    x, y = _parameters(main, small, large)
    start = small_programs.add(main, "tuple", [], [counter, x, y])
    _tuple_shape(main, (), small, large)
    root = small_programs.add(main, "while", [], [start])
    _tuple_shape(main, (), small, large)
    return root

  return Kernel(build, large, (), _same(2), (((0, 1), large),), (small, large))


KERNELS = (elementwise, product, reduction, argmax, transpose, sort, top_k, loop)


def _divisors(extent: int) -> list[int]:
  return [side for side in range(1, extent + 1)
          if extent % side == 0 and (side >= 8 or extent < 16)]


def _balanced(extent: int) -> list[int]:
  even = {math.ceil(extent / count) for count in range(1, extent + 1)}
  powers = {2**power for power in range(extent.bit_length())}
  return sorted(even | powers)


def _units(rank: int) -> Shape:
  """Elements of a hardware tile by axis, for arrays in the usual order."""
  return (8 * 128,) if rank == 1 else (*(1,) * (rank - 2), 8, 128)


def tiles(kernel: Kernel, tiling: str) -> set[Bounds]:
  """The bounds of all tiles of a kernel."""
  if tiling == "tpu":
    return _hardware_tiles(kernel)
  summed = [extent for extent in kernel.summed if extent > 1]
  axes = (*kernel.result, *summed)
  found = set()
  for sides in itertools.product(*(
      _divisors(extent) if tiling == "xla_cpu" else _balanced(extent) for extent in axes)):
    steps = math.prod(math.ceil(extent / side) for extent, side in zip(axes, sides))
    if tiling == "elements" or 2 <= steps <= 4096:
      rank = len(kernel.result)
      found.add((sides[:rank], sides[rank:], kernel.block(sides)))
  return found


def _hardware_tiles(kernel: Kernel) -> set[Bounds]:
  assert kernel.tpu is not None
  extents: dict[int, int] = {}
  step: dict[int, int] = {}
  for axes, shape in kernel.tpu:
    for axis, extent, unit in zip(axes, shape, _units(len(shape))):
      extents[axis] = extent
      step[axis] = math.lcm(step.get(axis, 1), unit)
  order = sorted(extents)
  found = set()
  for counts in itertools.product(*(
      _balanced(math.ceil(extents[axis] / step[axis])) for axis in order)):
    side = {axis: min(count * step[axis], extents[axis]) for axis, count in zip(order, counts)}
    bounds = [tuple(math.ceil(side[axis] / unit) for axis, unit in zip(axes, _units(len(axes))))
              for axes, _ in kernel.tpu]
    found.add((bounds[0], bounds[2] if len(bounds) == 3 else (), ()))
  return found
