"""Values while an HLO program is inlined: which operations they wait for, and known numbers."""

from collections.abc import Sequence
import dataclasses

from tpugraphs_rank.hlo import hlo_pb2

Instruction = hlo_pb2.HloInstructionProto


@dataclasses.dataclass(frozen=True, eq=False)
class Leaf:
  """An array, or a tuple whose parts are not known apart.

  Attributes:
    waits: ascending positions of the operations that give it.
    number: its value, if it is a known whole number.
  """

  waits: tuple[int, ...] = ()
  number: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
  """A tuple.

  Attributes:
    members: its parts.
  """

  members: tuple["Value", ...]


Value = Leaf | Parts
NOTHING = Leaf()


def waits(values: Sequence[Value]) -> tuple[tuple[int, ...], int]:
  """Ascending positions of the operations that any of the values waits for.

  Returns:
    The positions, and how many values and positions were looked at.
  """
  found: dict[int, tuple[int, ...]] = {}
  waiting = list(values)
  seen: set[int] = set()
  looks = 0
  while waiting:
    value = waiting.pop()
    looks += 1
    if isinstance(value, Leaf):
      if value.waits:
        found[id(value.waits)] = value.waits
    elif id(value) not in seen:
      seen.add(id(value))
      waiting += value.members
  if len(found) == 1:
    return next(iter(found.values())), looks
  looks += sum(map(len, found.values()))
  return tuple(sorted(set().union(*found.values()))), looks


def scalar(instruction: Instruction) -> bool:
  """Whether the result of an instruction is one number or truth value."""
  return not instruction.shape.dimensions and not instruction.shape.tuple_shapes


def constant(instruction: Instruction) -> int | None:
  """The whole number that a scalar constant holds; None for another one."""
  if scalar(instruction):
    literal = instruction.literal
    for numbers in (literal.s32s, literal.s64s, literal.u32s, literal.u64s):
      if len(numbers) == 1:
        return int(numbers[0])
  return None


def compute(instruction: Instruction, numbers: Sequence[int | None]) -> int | None:
  """The result of an operation on known whole numbers; None if it is not known."""
  if not scalar(instruction) or not numbers or any(number is None for number in numbers):
    return None
  known = [number for number in numbers if number is not None]
  opcode = instruction.opcode
  if len(known) == 1:
    return {"copy": known[0], "bitcast": known[0], "reshape": known[0], "negate": -known[0]}.get(
        opcode) if opcode != "convert" or instruction.shape.element_type not in _INTEGERS else (
            known[0])
  if len(known) == 3 and opcode == "select":
    return known[1] if known[0] else known[2]
  if len(known) != 2:
    return None
  first, second = known
  if opcode == "compare":
    return _compare(instruction.comparison_direction, first, second)
  result = {"add": first + second, "subtract": first - second, "multiply": first * second,
            "minimum": min(first, second), "maximum": max(first, second)}.get(opcode)
  if result is None and opcode in ("and", "or") and {first, second} <= {0, 1}:
    result = min(known) if opcode == "and" else max(known)
  # Integers of programs wrap around; no trip count needs that.
  return result if result is not None and -2 ** 31 <= result < 2 ** 31 else None


_INTEGERS = (hlo_pb2.S32, hlo_pb2.S64, hlo_pb2.U32, hlo_pb2.U64)


def _compare(direction: str, first: int, second: int) -> int | None:
  result = {"LT": first < second, "LE": first <= second, "GT": first > second,
            "GE": first >= second, "EQ": first == second, "NE": first != second}.get(direction)
  return None if result is None else int(result)
