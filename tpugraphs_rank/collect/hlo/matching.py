"""Finds the instructions of two forms of a program that compute the same value.

Two values are the same if the same operations with the same attributes compute them from the same
parameters, whatever the names, the order and the functions into which a program is divided. This
module needs no JAX.
"""

import hashlib

from tpugraphs_rank.collect.hlo import wire
from tpugraphs_rank.hlo import hlo_pb2

# Fields of HloInstructionProto that do not change the value: name, metadata, result accuracy, ids
# and operands (which are followed instead), shardings, frontend attributes.
_IGNORED = (1, 7, 35, 36, 37, 38, 40, 68)
_MOST_CALLS = 64  # Nested calls; deeper ones are not followed.


def values(module: hlo_pb2.HloModuleProto) -> dict[int, set[str]]:
  """For each instruction of the entry and of called functions, what it computes.

  Args:
    module: the program.

  Returns:
    Position of the instruction, computations then instructions -> names of the values that it
    computes, one for each distinct call of its function. Loops and branches are left out.
  """
  positions: dict[int, int] = {}
  count = 0
  for computation in module.computations:
    positions[computation.id] = count
    count += len(computation.instructions)
  computations = {computation.id: computation for computation in module.computations}
  entry = module.entry_computation_id or module.computations[-1].id
  found: dict[int, set[str]] = {}

  def walk(number: int, arguments: list[str] | None, depth: int) -> str:
    """Visits a computation, and returns the name of its result."""
    named: dict[int, str] = {}
    for index, instruction in enumerate(computations[number].instructions):
      operands = [named.get(key, "?") for key in instruction.operand_ids]
      if instruction.opcode == "parameter" and arguments is not None:
        value = arguments[instruction.parameter_number]
      elif (instruction.opcode == "call" and len(instruction.called_computation_ids) == 1
            and depth < _MOST_CALLS):
        value = walk(instruction.called_computation_ids[0], operands, depth + 1)
      else:
        value = _name(instruction, operands)
      named[instruction.id] = value
      found.setdefault(positions[number] + index, set()).add(value)
    return named[computations[number].root_id]

  walk(entry, None, 0)
  return found


def _name(instruction: hlo_pb2.HloInstructionProto, operands: list[str]) -> str:
  own = hlo_pb2.HloInstructionProto()
  own.CopyFrom(instruction)
  own.shape.ClearField("layout")
  content = wire.without(own.SerializeToString(deterministic=True), _IGNORED)
  called = len(instruction.called_computation_ids)
  return hashlib.sha256(
      b"\0".join([content, str(called).encode(), *(one.encode() for one in operands)])).hexdigest()
