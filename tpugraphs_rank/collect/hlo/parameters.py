"""What the parameters of a program are used for, and values that the program can run on.

A parameter that chooses rows of a table, or the place of a slice, gets whole numbers that stay
within the table. This module needs no JAX.
"""

from collections.abc import Iterator
import dataclasses
import math

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank.collect.hlo import wire
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import shapes

# Whole numbers that are no index are drawn from 1 to here, excluding the end: they may be divisors,
# or numbers of steps.
_END_OF_NUMBERS = 5
# Ranges of real numbers, in the order in which they are tried until the results are finite.
# Positive numbers first: logarithms and roots are defined.
REAL_RANGES = ((0.25, 1.25), (0.01, 0.05), (-0.05, 0.05), (-1.0, 1.0))

# Fields of HloInstructionProto and of its messages that the proto here does not declare.
_GATHER_DIMENSIONS, _GATHER_SLICE_SIZES, _SCATTER_DIMENSIONS = 33, 34, 48
_START_INDEX_MAP, _SCATTER_TO_OPERAND = 3, 3
_DYNAMIC = 6  # ShapeProto.is_dynamic_dimension.

_INTEGERS = frozenset(getattr(hlo_pb2, name) for name in (
    "S8", "S16", "S32", "S64", "U8", "U16", "U32", "U64", "S4", "U4", "S2", "U2"))
_REALS = frozenset(getattr(hlo_pb2, name) for name in (
    "F16", "F32", "F64", "BF16", "F8E5M2", "F8E4M3FN", "F8E4M3B11FNUZ", "F8E5M2FNUZ",
    "F8E4M3FNUZ", "F8E4M3", "F8E3M4"))
_COMPLEX = frozenset((hlo_pb2.C64, hlo_pb2.C128))
# Operations that pass the numbers of all their operands on, changed or moved.
_PASSING = frozenset((
    "abs", "add", "and", "bitcast", "bitcast-convert", "broadcast", "clamp", "concatenate",
    "convert", "copy", "divide", "dynamic-update-slice", "maximum", "minimum", "multiply", "negate",
    "optimization-barrier", "or", "pad", "reshape", "reverse", "select", "slice", "subtract",
    "transpose"))
# Operations that pass on the numbers of their first operand.
_SELECTING = frozenset(("all-gather", "dynamic-slice", "gather", "reduce", "sort"))


@dataclasses.dataclass(frozen=True)
class Parameter:
  """A parameter of the entry computation.

  Attributes:
    name: of its instruction.
    shape: its type and sizes.
    end: for whole numbers: the values are below this. 0 for all others.
    start: for whole numbers: the lowest value.
  """

  name: str
  shape: hlo_pb2.ShapeProto
  start: int = 0
  end: int = 0

  @property
  def elements(self) -> int:
    """The number of its elements."""
    return math.prod(self.shape.dimensions)


class _Program:
  """The computations of a program, and the walk from an index back to the parameters."""

  def __init__(self, module: hlo_pb2.HloModuleProto) -> None:
    self.computations = {computation.id: computation for computation in module.computations}
    self.entry = module.entry_computation_id or next(
        (computation.id for computation in module.computations
         if computation.name == module.entry_computation_name), module.computations[-1].id)
    self.named = {key: {instruction.id: instruction for instruction in computation.instructions}
                  for key, computation in self.computations.items()}
    self._callers: dict[int, list[tuple[int, hlo_pb2.HloInstructionProto]]] = {}
    for key, computation in self.computations.items():
      for instruction in computation.instructions:
        for called in instruction.called_computation_ids:
          self._callers.setdefault(called, []).append((key, instruction))

  def parameters_behind(self, computation: int, value: int) -> set[int]:
    """The numbers of the entry's parameters from which a value is computed as an index."""
    found: set[int] = set()
    waiting: list[tuple[int, int, tuple[int, ...]]] = [(computation, value, ())]
    seen = set(waiting)
    while waiting:
      place = waiting.pop()
      instruction = self.named[place[0]].get(place[1])
      if instruction is None:
        continue
      if instruction.opcode == "parameter" and place[0] == self.entry:
        found.add(instruction.parameter_number)
      for other in self._before(place[0], instruction, place[2]):
        if other not in seen:
          seen.add(other)
          waiting.append(other)
    return found

  def _before(self, computation: int, instruction: hlo_pb2.HloInstructionProto,
              path: tuple[int, ...]) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Where the numbers of a value come from; the path chooses a part of a tuple."""
    opcode, operands = instruction.opcode, instruction.operand_ids
    if opcode == "parameter":
      for caller, call in self._callers.get(computation, ()):
        if call.opcode == "while":
          yield caller, call.operand_ids[0], path
        elif call.opcode == "conditional":
          branch = list(call.called_computation_ids).index(computation) + 1
          if branch < len(call.operand_ids):
            yield caller, call.operand_ids[branch], path
        elif instruction.parameter_number < len(call.operand_ids):
          yield caller, call.operand_ids[instruction.parameter_number], path
    elif opcode == "get-tuple-element":
      yield computation, operands[0], (instruction.tuple_index, *path)
    elif opcode == "tuple":
      for position, operand in enumerate(operands):
        if not path or path[0] == position:
          yield computation, operand, path[1:]
    elif opcode in ("while", "call", "fusion", "conditional"):
      if opcode == "while":
        yield computation, operands[0], path
      for called in instruction.called_computation_ids:
        yield called, self.computations[called].root_id, path
    elif opcode in _PASSING:
      for operand in operands:
        yield computation, operand, path
    elif opcode in _SELECTING and operands:
      yield computation, operands[0], path

  def index_uses(self) -> Iterator[tuple[int, int, int]]:
    """All indices: computation, value, and the end of its range."""
    for key, computation in self.computations.items():
      for instruction in computation.instructions:
        for operand, end in _indices(instruction, self.named[key]):
          yield key, operand, end


def _indices(instruction: hlo_pb2.HloInstructionProto,
             named: dict[int, hlo_pb2.HloInstructionProto]) -> Iterator[tuple[int, int]]:
  """The operands of an instruction that are indices, and the ends of their ranges."""
  operands = list(instruction.operand_ids)
  if not operands or operands[0] not in named:
    return
  sides = list(named[operands[0]].shape.dimensions)
  if instruction.opcode == "dynamic-slice":
    for axis, operand in enumerate(operands[1:1 + len(sides)]):
      yield operand, max(1, sides[axis] - instruction.dynamic_slice_sizes[axis] + 1)
  elif instruction.opcode == "dynamic-update-slice" and len(operands) > 1:
    update = named[operands[1]].shape.dimensions
    for axis, operand in enumerate(operands[2:2 + len(sides)]):
      yield operand, max(1, sides[axis] - update[axis] + 1)
  elif instruction.opcode == "gather" and len(operands) > 1:
    slices = _numbers(instruction, _GATHER_SLICE_SIZES) or [1] * len(sides)
    axes = _axes(instruction, _GATHER_DIMENSIONS, _START_INDEX_MAP, len(sides))
    yield operands[1], min((max(1, sides[axis] - slices[axis] + 1) for axis in axes), default=1)
  elif instruction.opcode == "scatter" and len(operands) > 2:
    axes = _axes(instruction, _SCATTER_DIMENSIONS, _SCATTER_TO_OPERAND, len(sides))
    yield operands[len(operands) // 2], min((sides[axis] for axis in axes), default=1)


def _numbers(message: hlo_pb2.HloInstructionProto, field: int) -> list[int]:
  values: list[int] = []
  for value in wire.undeclared(message, field):
    values += [value] if isinstance(value, int) else wire.unpacked(value)
  return values


def _axes(instruction: hlo_pb2.HloInstructionProto, field: int, inner: int, rank: int
          ) -> list[int]:
  """The axes that an index chooses in; all axes if the program does not say."""
  axes: list[int] = []
  for message in wire.undeclared(instruction, field):
    axes += wire.numbers(message if isinstance(message, bytes) else b"", inner)
  axes = [axis for axis in axes if axis < rank]
  return axes or list(range(rank))


def parameters(module: hlo_pb2.HloModuleProto, source: str = "the module") -> list[Parameter]:
  """The parameters of a program, with the ranges of the whole numbers among them.

  Raises:
    DataError: a parameter cannot be fed: it is a token or buffer, has a size that the program does
      not know, or is missing. The message names it.
  """
  program = _Program(module)
  entry = program.computations[program.entry]
  numbered = {instruction.parameter_number: instruction for instruction in entry.instructions
              if instruction.opcode == "parameter"}
  if sorted(numbered) != list(range(len(numbered))):
    raise errors.DataError(
        f"{source}: the entry computation has the parameters {sorted(numbered)}; expected 0 to "
        f"{len(numbered) - 1}; the program is damaged: dump it again")
  ends: dict[int, int] = {}
  for computation, value, end in program.index_uses():
    for number in program.parameters_behind(computation, value):
      ends[number] = min(end, ends.get(number, end))
  listed = []
  for number, instruction in sorted(numbered.items()):
    _check(instruction, source)
    kind = instruction.shape.element_type
    if kind in _INTEGERS:
      is_index = number in ends
      listed.append(Parameter(instruction.name, instruction.shape, 0 if is_index else 1,
                              ends[number] if is_index else _END_OF_NUMBERS))
    else:
      listed.append(Parameter(instruction.name, instruction.shape))
  return listed


def _check(instruction: hlo_pb2.HloInstructionProto, source: str) -> None:
  shape, kind = instruction.shape, instruction.shape.element_type
  problem = ""
  if any(wire.undeclared(shape, _DYNAMIC)) and _is_dynamic(shape):
    problem = "it has a dimension of unknown size"
  elif kind not in _INTEGERS | _REALS | _COMPLEX | {hlo_pb2.PRED}:
    problem = "it is neither an array of numbers nor of truth values"
  if problem:
    raise errors.DataError(
        f"{source}: parameter {instruction.parameter_number} "
        f"({escaping.quoted(instruction.name)}, {shapes.text(shape)}) cannot be fed: {problem}; "
        "export the program with arrays of fixed sizes as its only parameters")


def _is_dynamic(shape: hlo_pb2.ShapeProto) -> bool:
  return any(any(unpacked) for value in wire.undeclared(shape, _DYNAMIC)
             for unpacked in [[value] if isinstance(value, int) else wire.unpacked(value)])


def draw(parameter: Parameter, dtype: np.dtype, rng: np.random.Generator,
         reals: tuple[float, float] = REAL_RANGES[0]) -> np.ndarray:
  """Random values of a parameter.

  Args:
    parameter: the parameter.
    dtype: its type in NumPy.
    rng: the random generator.
    reals: the range of real numbers.
  """
  sides = tuple(parameter.shape.dimensions)
  kind = parameter.shape.element_type
  if kind == hlo_pb2.PRED:
    return rng.random(sides) < 0.5
  if kind in _INTEGERS:
    limit = 2 if kind in (hlo_pb2.S2, hlo_pb2.U2) else 8 if kind in (
        hlo_pb2.S4, hlo_pb2.U4) else 128
    small = dtype.itemsize == 1
    end = min(parameter.end, limit) if small else parameter.end
    return rng.integers(min(parameter.start, end - 1), end, sides).astype(dtype)
  values = rng.uniform(*reals, sides)
  if kind in _COMPLEX:
    return (values + 1j * rng.uniform(*reals, sides)).astype(dtype)
  return values.astype(dtype)
