"""Builds an `HloModuleProto` from computations as they are written: resolves names, adds ids."""

from collections.abc import Sequence
import dataclasses

from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo.text import post_order
from tpugraphs_rank.hlo.text import scanner as scanning


@dataclasses.dataclass(frozen=True)
class Reference:
  """A name, and where it is used.

  Attributes:
    name: the name, without `%`.
    position: index in the text.
  """
  name: str
  position: int


@dataclasses.dataclass
class Instruction:
  """An instruction whose references are still names.

  Attributes:
    proto: its message, without ids.
    position: index of its name in the text.
    is_root: whether it is marked as `ROOT`.
    operands: its operands.
    called: the computations that it calls.
    predecessors: instructions that must run before it although it does not need their results.
    wrapped: for an operation that is written as `<opcode>-start`, the operation that runs
      asynchronously; XLA does not print its computation.
  """
  proto: hlo_pb2.HloInstructionProto
  position: int
  is_root: bool = False
  operands: list[Reference] = dataclasses.field(default_factory=list)
  called: list[Reference] = dataclasses.field(default_factory=list)
  predecessors: list[Reference] = dataclasses.field(default_factory=list)
  wrapped: "Instruction | None" = None


@dataclasses.dataclass
class Computation:
  """A computation as it is written.

  Attributes:
    name: its name, without `%`.
    position: index of its name in the text.
    is_entry: whether it is marked as `ENTRY`.
    instructions: its instructions, in the order of the text.
  """
  name: str
  position: int
  is_entry: bool = False
  instructions: list[Instruction] = dataclasses.field(default_factory=list)


def build(
    name: str, computations: Sequence[Computation], scanner: scanning.Scanner,
) -> hlo_pb2.HloModuleProto:
  """The message of a module.

  Args:
    name: of the module.
    computations: at least one.
    scanner: of the text, for the positions of errors.

  Raises:
    DataError: a name is defined twice or not at all, there are two entry computations or two
      roots, a computation is empty, or an instruction needs its own result.
  """
  computations = _with_wrapped(computations, scanner)
  numbers: dict[str, int] = {}
  for number, computation in enumerate(computations, 1):
    if computation.name in numbers:
      raise scanner.error(
          f"a second computation has the name {computation.name!r}", computation.position)
    numbers[computation.name] = number
  entries = [computation for computation in computations if computation.is_entry]
  if len(entries) > 1:
    raise scanner.error("a second computation is marked as ENTRY", entries[1].position)
  # XLA takes the last computation if none is marked.
  entry = entries[0] if entries else computations[-1]

  module = hlo_pb2.HloModuleProto(
      name=name, entry_computation_name=entry.name, entry_computation_id=numbers[entry.name])
  next_id = len(computations) + 1
  for computation in computations:
    _add(module, computation, numbers, next_id, scanner)
    next_id += len(computation.instructions)
  return module


def _add(
    module: hlo_pb2.HloModuleProto, computation: Computation, numbers: dict[str, int],
    first_id: int, scanner: scanning.Scanner) -> None:
  """Adds a computation to a module."""
  instructions = computation.instructions
  if not instructions:
    raise scanner.error(
        f"computation {computation.name!r} has no instructions", computation.position)
  positions = _positions(computation, scanner)
  roots = [instruction for instruction in instructions if instruction.is_root]
  if len(roots) > 1:
    raise scanner.error(
        f"a second instruction of {computation.name!r} is marked as ROOT", roots[1].position)

  def resolve(references: Sequence[Reference]) -> list[int]:
    for reference in references:
      if reference.name not in positions:
        raise scanner.error(
            f"computation {computation.name!r} has no instruction {reference.name!r}",
            reference.position)
    return [positions[reference.name] for reference in references]

  operands = [resolve(instruction.operands) for instruction in instructions]
  predecessors = [resolve(instruction.predecessors) for instruction in instructions]
  ordered = post_order.post_order(operands, predecessors)
  if len(ordered) < len(instructions):
    repeated = instructions[_in_cycle(operands, set(range(len(instructions))) - set(ordered))]
    raise scanner.error(
        f"instruction {repeated.proto.name!r} needs its own result", repeated.position)

  root = roots[0] if roots else instructions[-1]
  message = module.computations.add(
      name=computation.name, id=numbers[computation.name],
      root_id=first_id + ordered.index(positions[root.proto.name]))
  ids = dict(zip(ordered, range(first_id, first_id + len(ordered))))
  for position in ordered:
    instruction = instructions[position]
    proto = instruction.proto
    proto.id = ids[position]
    proto.operand_ids.extend(ids[operand] for operand in operands[position])
    proto.control_predecessor_ids.extend(ids[other] for other in predecessors[position])
    for called in instruction.called:
      if called.name not in numbers:
        raise scanner.error(f"the module has no computation {called.name!r}", called.position)
      proto.called_computation_ids.append(numbers[called.name])
    message.instructions.append(proto)


def _in_cycle(operands: Sequence[Sequence[int]], left: set[int]) -> int:
  """A position in a cycle; all that use one of the positions `left` are in `left` themselves."""
  users = {operand: position for position in left for operand in operands[position]}
  position = min(left)
  seen: set[int] = set()
  while position not in seen:
    seen.add(position)
    position = users[position]
  return position


def _positions(computation: Computation, scanner: scanning.Scanner) -> dict[str, int]:
  """The position of each instruction by its name."""
  positions: dict[str, int] = {}
  for position, instruction in enumerate(computation.instructions):
    if instruction.proto.name in positions:
      raise scanner.error(
          f"a second instruction of {computation.name!r} has the name {instruction.proto.name!r}",
          instruction.position)
    positions[instruction.proto.name] = position
  return positions


def _with_wrapped(
    computations: Sequence[Computation], scanner: scanning.Scanner) -> list[Computation]:
  """Adds the computations of asynchronous operations, each before the one that calls it."""
  taken = {computation.name for computation in computations}
  complete = []
  for computation in computations:
    shapes = {instruction.proto.name: instruction.proto.shape
              for instruction in computation.instructions}
    for instruction in computation.instructions:
      if instruction.wrapped is None:
        continue
      name = _unused("async_wrapped", taken)
      complete.append(_wrapping(name, instruction, shapes, scanner))
      instruction.called.append(Reference(name, instruction.position))
    complete.append(computation)
  return complete


def _wrapping(
    name: str, instruction: Instruction, shapes: dict[str, hlo_pb2.ShapeProto],
    scanner: scanning.Scanner) -> Computation:
  """The computation that an asynchronous operation runs: its parameters and one operation."""
  wrapped = instruction.wrapped
  assert wrapped is not None
  if len(instruction.proto.shape.tuple_shapes) < 2:
    raise scanner.error(
        f"{instruction.proto.name!r} starts an asynchronous operation; expected a shape such as "
        "((operands), results, ...)", instruction.position)
  wrapped.proto.shape.CopyFrom(instruction.proto.shape.tuple_shapes[1])
  computation = Computation(name, instruction.position)
  for number, operand in enumerate(instruction.operands):
    parameter = hlo_pb2.HloInstructionProto(
        name=f"async_param.{number}" if number else "async_param", opcode="parameter",
        parameter_number=number)
    if operand.name in shapes:  # `_add` refuses other names.
      parameter.shape.CopyFrom(shapes[operand.name])
    computation.instructions.append(Instruction(parameter, operand.position))
    wrapped.operands.append(Reference(parameter.name, operand.position))
  wrapped.is_root = True
  computation.instructions.append(wrapped)
  return computation


def _unused(name: str, taken: set[str]) -> str:
  number = 0
  while (candidate := f"{name}.{number}" if number else name) in taken:
    number += 1
  taken.add(candidate)
  return candidate
