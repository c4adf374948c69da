"""The main operation of a program: what kind of program it is, for figures by kind."""

from collections.abc import Iterable

from tpugraphs_rank.hlo import opcodes

ELEMENTWISE = "elementwise"
# A program has the kind of the first operation here that it contains.
_BY_COST = ("convolution", "dot", "scatter", "sort", "gather", "reduce-window", "reduce",
            "transpose")
KINDS = (*_BY_COST, ELEMENTWISE)
_NUMBERS = {opcodes.opcode_id(name): place for place, name in enumerate(_BY_COST)}


def main_operation(opcode_numbers: Iterable[int]) -> str:
  """The kind of a program, one of `KINDS`.

  Args:
    opcode_numbers: the opcode ids of its instructions.
  """
  present = [_NUMBERS[number] for number in set(opcode_numbers) if number in _NUMBERS]
  return _BY_COST[min(present)] if present else ELEMENTWISE
