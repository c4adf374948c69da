"""A program as one graph of values, with fusions and calls replaced by what they compute."""

from collections.abc import Sequence
import dataclasses
import math

from tpugraphs_rank import errors
from tpugraphs_rank.hlo import hlo_pb2

Shape = tuple[int, ...]
_INLINED = ("fusion", "call")


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
  """The result of one instruction of the expanded program.

  Attributes:
    opcode: such as `"dot"`.
    shape: its dimensions; () for scalars and tuples.
    layout: its axes from minor to major; descending if the program does not specify it.
    operands: the values that it uses, all with smaller numbers.
    instruction: the original instruction.
    parameter: its number if it is a parameter of the program; otherwise -1.
  """

  opcode: str
  shape: Shape
  layout: Shape
  operands: tuple[int, ...]
  instruction: hlo_pb2.HloInstructionProto
  parameter: int = -1

  @property
  def volume(self) -> int:
    """Its number of elements."""
    return math.prod(self.shape)


def layout_of(shape: hlo_pb2.ShapeProto) -> Shape:
  """The axes of an array, minor to major."""
  axes = tuple(shape.layout.minor_to_major)
  rank = len(shape.dimensions)
  return axes if sorted(axes) == list(range(rank)) else tuple(reversed(range(rank)))


def entry(module: hlo_pb2.HloModuleProto) -> hlo_pb2.HloComputationProto:
  """The entry computation of a program: the one that it names, or else the last one."""
  for computation in module.computations:
    if computation.id == module.entry_computation_id or (
        module.entry_computation_name and computation.name == module.entry_computation_name):
      return computation
  return module.computations[-1]


class Expanded:
  """All values that a program computes, and the one that it returns.

  Attributes:
    values: in an order with operands before their users.
    root: the value that the program returns. For a tuple, its largest array, the first if several
      are equal.

  Raises:
    DataError: computations call one another recursively.
  """

  def __init__(self, module: hlo_pb2.HloModuleProto, source: str = "the module") -> None:
    self.values: list[Value] = []
    self._source = source
    self._computations = {computation.id: computation for computation in module.computations}
    root = self._expand(entry(module), None, ())
    value = self.values[root]
    if value.opcode == "tuple" and value.operands:
      root = max(value.operands, key=lambda number: self.values[number].volume)
    self.root = root

  def _expand(self, computation: hlo_pb2.HloComputationProto, arguments: Sequence[int] | None,
              callers: tuple[int, ...]) -> int:
    """Adds a computation's values; returns the number of its result."""
    if computation.id in callers:
      raise errors.DataError(
          f"{self._source}: computation {computation.name!r} calls itself; expected a program "
          "without recursion; dump the program again")
    numbers: dict[int, int] = {}
    last = -1
    for instruction in computation.instructions:
      operands = tuple(numbers[key] for key in instruction.operand_ids if key in numbers)
      called = [self._computations[key] for key in instruction.called_computation_ids
                if key in self._computations]
      if instruction.opcode == "parameter" and arguments is not None and (
          instruction.parameter_number < len(arguments)):
        last = arguments[instruction.parameter_number]
      elif instruction.opcode in _INLINED and len(called) == 1 and called[0].instructions:
        last = self._expand(called[0], operands, (*callers, computation.id))
      else:
        is_input = instruction.opcode == "parameter"
        self.values.append(Value(
            instruction.opcode, tuple(instruction.shape.dimensions), layout_of(instruction.shape),
            operands, instruction, instruction.parameter_number if is_input else -1))
        last = len(self.values) - 1
      numbers[instruction.id] = last
    return numbers.get(computation.root_id, last)
