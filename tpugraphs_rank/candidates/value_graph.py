"""A program as one graph of values, with fusions and calls replaced by what they compute."""

from collections.abc import Sequence
import dataclasses
import functools
import math

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import limits
from tpugraphs_rank.hlo import order
from tpugraphs_rank.hlo import shapes

Shape = tuple[int, ...]
_INLINED = ("fusion", "call")
# Their results have the same dimensions if they have several.
_SAME_RESULTS = ("reduce", "reduce-window")
_NO_PARAMETER = 1 << 30


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
  """The result of one instruction of the expanded program.

  Attributes:
    opcode: such as `"dot"`.
    shape: its dimensions; () for scalars and most tuples. A reduction of several arrays at once
      has the dimensions that its results share. If the program returns a tuple that is not the
      result of a `tuple` instruction (a sort of several arrays, a loop), the dimensions of the
      array that `Expanded.root` names.
    layout: its axes from minor to major; descending if the program does not specify it.
    operands: the values that it uses, all with smaller numbers.
    instruction: the original instruction.
    parameter: its number if it is a parameter of the program; otherwise -1.
    element_type: number of its `PrimitiveType`.
  """

  opcode: str
  shape: Shape
  layout: Shape
  operands: tuple[int, ...]
  instruction: hlo_pb2.HloInstructionProto
  parameter: int = -1
  element_type: int = 0

  @property
  def volume(self) -> int:
    """Its number of elements."""
    return math.prod(self.shape)

  @property
  def name(self) -> str:
    """The name of its instruction for messages, in quotes."""
    return escaping.quoted(self.instruction.name or str(self.instruction.id))


def layout_of(shape: hlo_pb2.ShapeProto) -> Shape:
  """The axes of an array, minor to major."""
  axes = tuple(shape.layout.minor_to_major)
  rank = len(shape.dimensions)
  return axes if sorted(axes) == list(range(rank)) else tuple(reversed(range(rank)))


def entry(module: hlo_pb2.HloModuleProto) -> hlo_pb2.HloComputationProto:
  """The entry computation of a program; see `order.entry_position`."""
  return module.computations[order.entry_position(module)]


@dataclasses.dataclass(frozen=True, eq=False)
class _Step:
  """An instruction with what every expansion of its computation needs.

  Attributes:
    value: its value, without operands.
    operands: positions of its operands among the steps of the computation.
    called: position of the computation that replaces it in the module; -1: it stays.
  """

  value: Value
  operands: tuple[int, ...]
  called: int


class _Frame:
  """A computation that is being expanded."""

  def __init__(self, steps: Sequence[_Step], root: int, arguments: Sequence[int] | None) -> None:
    self.steps = steps
    self.root = root
    self.arguments = arguments
    self.numbers: list[int] = []  # Of the value of each step so far.


class Expanded:
  """All values that a program computes, and the one that it returns.

  Attributes:
    source: the program's name in error messages.
    values: in an order with operands before their users.
    root: the value that the program returns. For a tuple, its largest array, the first if several
      are equal. A scalar is smaller than every array.

  Raises:
    DataError: computations call one another recursively, an instruction refers to one that does
      not exist, or a dimension has no known size.
    LimitError: the expanded program or an array is too large; see `limits`.
  """

  def __init__(self, module: hlo_pb2.HloModuleProto, source: str = "the module") -> None:
    self.source = source
    self.values: list[Value] = []
    if not any(computation.instructions for computation in module.computations):
      raise errors.DataError(
          f"{source} has no instructions; expected a program; dump it again")
    shapes.check(module, source)
    order.callees_first(module, source)  # Refuses recursion.
    self._module = module
    self._positions = order.computation_positions(module, source)
    self._prepared: dict[int, tuple[list[_Step], int]] = {}
    self._size = 0
    self.root = self._largest_array(self._expand(order.entry_position(module)))

  @functools.cached_property
  def first_parameters(self) -> list[int]:
    """For each value, the number of the parameter that its chain of first operands leads to.

    It is very large if the chain ends elsewhere.
    """
    first: list[int] = []
    for value in self.values:
      if value.operands:
        first.append(first[value.operands[0]])
      else:
        first.append(value.parameter if value.parameter >= 0 else _NO_PARAMETER)
    return first

  def _expand(self, entry_position: int) -> int:
    """Adds all values; returns the number of the program's result."""
    frames = [_Frame(*self._steps(entry_position), None)]
    while True:
      frame = frames[-1]
      if len(frame.numbers) == len(frame.steps):
        result = frame.numbers[frame.root]
        frames.pop()
        if not frames:
          return result
        frames[-1].numbers.append(result)
        continue
      step = frame.steps[len(frame.numbers)]
      operands = tuple(frame.numbers[position] for position in step.operands)
      self._size += 1 + len(operands)
      limits.check(
          self._size, limits.EXPANDED_VALUES,
          f"{self.source}: the number of instructions and operands, with every call and fusion "
          "replaced by what it computes,", "rank a smaller part of the program")
      if step.called >= 0:
        frames.append(_Frame(*self._steps(step.called), operands))
      else:
        frame.numbers.append(self._number(step.value, operands, frame.arguments))

  def _number(self, value: Value, operands: tuple[int, ...], arguments: Sequence[int] | None
              ) -> int:
    """The number of an instruction's value, which is new unless it only names another value."""
    if value.opcode == "parameter":
      number = value.instruction.parameter_number
      if arguments is not None and 0 <= number < len(arguments):
        return arguments[number]
      if arguments is not None or number < 0:
        raise errors.DataError(
            f"{self.source}: {value.name} is parameter {number}, but its computation is called "
            f"with {len(arguments or ())} operands; the file is damaged: dump the program again")
      value = dataclasses.replace(value, parameter=number)
    if value.opcode == "get-tuple-element" and len(operands) == 1:
      source, index = self.values[operands[0]], value.instruction.tuple_index
      if source.opcode == "tuple" and 0 <= index < len(source.operands):
        return source.operands[index]
    self.values.append(dataclasses.replace(value, operands=operands))
    return len(self.values) - 1

  def _steps(self, position: int) -> tuple[list[_Step], int]:
    """The steps of a computation, operands first, and the place of its root among them."""
    if position in self._prepared:
      return self._prepared[position]
    computation = self._module.computations[position]
    positions = order.instruction_positions(computation, self.source)
    root_id = computation.root_id
    if computation.instructions and not root_id and root_id not in positions:
      root_id = computation.instructions[-1].id  # Not stated: the last instruction is the root.
    if root_id not in positions:
      raise errors.DataError(
          f"{self.source}: computation {escaping.quoted(computation.name)} has no root instruction "
          f"(id {root_id}); the file is truncated or damaged: dump the program again")
    places: dict[int, int] = {}
    steps: list[_Step] = []
    for place, index in enumerate(order.operands_first(computation, positions, self.source)):
      instruction = computation.instructions[index]
      places[instruction.id] = place
      for operand in instruction.operand_ids:
        if operand not in places:
          raise self._missing(instruction, f"operand id {operand}, but its computation has no such "
                              "instruction")
      steps.append(_Step(self._value(instruction),
                         tuple(places[operand] for operand in instruction.operand_ids),
                         self._called(instruction)))
    self._prepared[position] = steps, places[root_id]
    return self._prepared[position]

  def _called(self, instruction: hlo_pb2.HloInstructionProto) -> int:
    if instruction.opcode not in _INLINED or len(instruction.called_computation_ids) != 1:
      return -1
    called = self._positions.get(instruction.called_computation_ids[0])
    if called is None:
      raise self._missing(
          instruction, f"called computation id {instruction.called_computation_ids[0]}, but the "
          "module has no such computation")
    return called

  def _missing(self, instruction: hlo_pb2.HloInstructionProto, what: str) -> errors.DataError:
    return errors.DataError(
        f"{self.source}: instruction {escaping.quoted(instruction.name or str(instruction.id))} "
        f"has {what}; the file is truncated or damaged: dump or download it again")

  def _value(self, instruction: hlo_pb2.HloInstructionProto) -> Value:
    shape = instruction.shape
    if instruction.opcode in _SAME_RESULTS and shape.tuple_shapes:
      shape = shape.tuple_shapes[0]
    where = f"instruction {escaping.quoted(instruction.name or str(instruction.id))}"
    return Value(instruction.opcode, self._dimensions(shape, where), layout_of(shape), (),
                 instruction, -1, shape.element_type)

  def _dimensions(self, shape: hlo_pb2.ShapeProto, where: str) -> Shape:
    """The dimensions of an array, within the limits."""
    remedy = "rank a program with smaller arrays"
    limits.check(len(shape.dimensions), limits.RANK,
                 f"{self.source}: the number of axes of {where}", remedy)
    limits.check(max(shape.dimensions, default=0), limits.EXTENT,
                 f"{self.source}: the longest axis of {where}", remedy)
    limits.check(math.prod(shape.dimensions), limits.ELEMENTS,
                 f"{self.source}: the number of elements of {where}", remedy)
    return tuple(shape.dimensions)

  def _largest_array(self, root: int) -> int:
    """The value with the largest array of a result; a tuple's value gets this array's shape."""
    if self.values[root].opcode != "tuple" and not self.values[root].instruction.shape.tuple_shapes:
      return root
    needed, waiting = {root}, [root]
    while waiting:
      value = self.values[waiting.pop()]
      if value.opcode == "tuple":
        waiting.extend(set(value.operands) - needed)
        needed.update(value.operands)
    # For each value, its largest array: number of elements, value, shape of an array in it.
    best: dict[int, tuple[int, int, hlo_pb2.ShapeProto | None]] = {}
    entries: dict[int, tuple[int, hlo_pb2.ShapeProto | None]] = {}  # By instruction.
    for number in sorted(needed):
      value = self.values[number]
      if value.opcode == "tuple" and value.operands:
        best[number] = max(
            (best[operand] for operand in value.operands), key=lambda entry: entry[0])
      elif value.instruction.shape.tuple_shapes:
        key = id(value.instruction)
        if key not in entries:
          entries[key] = self._largest_entry(value)
        size, array = entries[key]
        best[number] = size, number, array
      else:
        best[number] = value.volume if value.shape else 0, number, None
    _, number, array = best[root]
    if array is not None:
      self.values[number] = dataclasses.replace(
          self.values[number], shape=self._dimensions(array, self.values[number].name),
          layout=layout_of(array), element_type=array.element_type)
    return number

  def _largest_entry(self, value: Value) -> tuple[int, hlo_pb2.ShapeProto | None]:
    """Number of elements and shape of the largest array in a value's tuple; 0 and None if none."""
    sizes = [(math.prod(self._dimensions(array, value.name)), array)
             for array in shapes.arrays(value.instruction.shape) if array.dimensions]
    return max(sizes, key=lambda entry: entry[0], default=(0, None))
