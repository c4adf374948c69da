"""Ids of instructions and computations, and orders in which everything comes before its users.

Files usually list operands before their consumers and computations before their callers, but need
not. Ids are unique in a computation; some versions of XLA restart them in each computation.
"""

from collections.abc import Callable, Iterable

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank.hlo import hlo_pb2


def instruction_positions(computation: hlo_pb2.HloComputationProto, source: str = "the module"
                          ) -> dict[int, int]:
  """The position of each instruction in its computation, by id.

  Raises:
    DataError: an id occurs twice.
  """
  positions: dict[int, int] = {}
  for position, instruction in enumerate(computation.instructions):
    if instruction.id in positions:
      raise errors.DataError(
          f"{source}: computation {escaping.quoted(computation.name)} has two instructions with id "
          f"{instruction.id}; expected distinct ids; dump the program again")
    positions[instruction.id] = position
  return positions


def computation_positions(module: hlo_pb2.HloModuleProto, source: str = "the module"
                          ) -> dict[int, int]:
  """The position of each computation in its module, by id.

  Raises:
    DataError: an id occurs twice, and an instruction calls it.
  """
  positions: dict[int, int] = {}
  repeated: set[int] = set()
  for position, computation in enumerate(module.computations):
    if computation.id in positions:
      repeated.add(computation.id)
    positions[computation.id] = position
  if repeated:
    for computation in module.computations:
      for instruction in computation.instructions:
        for called in instruction.called_computation_ids:
          if called in repeated:
            raise errors.DataError(
                f"{source}: instruction {escaping.quoted(instruction.name)} calls computation id "
                f"{called}, which several computations have; expected distinct ids; dump the "
                "program again")
  return positions


def entry_position(module: hlo_pb2.HloModuleProto) -> int:
  """The position of the entry computation.

  It is the one with the id that the module states, or else (0 is the same as no id) with the name
  that it states, or else the last one.
  """
  ids = [computation.id for computation in module.computations]
  number, name = module.entry_computation_id, module.entry_computation_name
  named = [position for position, computation in enumerate(module.computations)
           if name and computation.name == name]
  numbered = [position for position, other in enumerate(ids) if other == number]
  both = [position for position in named if position in numbered]
  if both:
    return both[0]
  if number and numbered:
    return numbered[0]
  if named:
    return named[0]
  # Without a name, id 0 is an id only if the other computations have other ids.
  return numbered[0] if len(numbered) == 1 and not name else len(ids) - 1


def operands_first(computation: hlo_pb2.HloComputationProto, positions: dict[int, int],
                   source: str = "the module") -> list[int]:
  """Positions of all instructions, operands before their consumers, otherwise in file order.

  Args:
    computation: the computation.
    positions: see `instruction_positions`. Operands that it lacks are ignored.
    source: name of the program in error messages.

  Raises:
    DataError: an instruction consumes its own output, directly or through others.
  """
  instructions = computation.instructions

  def operands(position: int) -> list[int]:
    return [positions[key] for key in instructions[position].operand_ids if key in positions]

  order, repeated = _ordered(len(instructions), operands)
  if repeated is not None:
    raise errors.DataError(
        f"{source}: instruction {escaping.quoted(instructions[repeated].name)} of computation "
        f"{escaping.quoted(computation.name)} consumes its own output; expected a program without "
        "cycles; dump the program again")
  return order


def callees_first(module: hlo_pb2.HloModuleProto, source: str = "the module") -> list[int]:
  """Positions of all computations, those that are called before their callers.

  Raises:
    DataError: a computation calls itself, directly or through others; or its id occurs twice.
  """
  positions = computation_positions(module, source)
  calls = [sorted({positions[called] for instruction in computation.instructions
                   for called in instruction.called_computation_ids if called in positions})
           for computation in module.computations]
  order, repeated = _ordered(len(calls), lambda position: calls[position])
  if repeated is not None:
    name = escaping.quoted(module.computations[repeated].name)
    raise errors.DataError(
        f"{source}: computation {name} calls itself; expected a program without recursion; dump "
        "the program again")
  return order


def _ordered(count: int, needs: Callable[[int], Iterable[int]]) -> tuple[list[int], int | None]:
  """The numbers below `count` after those that they need; and a number that needs itself."""
  order: list[int] = []
  state = bytearray(count)  # 0: not seen, 1: in progress, 2: done.
  for start in range(count):
    if state[start]:
      continue
    state[start] = 1
    waiting = [(start, iter(needs(start)))]
    while waiting:
      number, rest = waiting[-1]
      for needed in rest:
        if state[needed] == 1:
          return order, needed
        if not state[needed]:
          state[needed] = 1
          waiting.append((needed, iter(needs(needed))))
          break
      else:
        state[number] = 2
        order.append(number)
        waiting.pop()
  return order, None
