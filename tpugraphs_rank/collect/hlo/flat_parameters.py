"""Replaces tuples among the parameters of a program by their parts, as devices take arrays only."""

from tpugraphs_rank.collect.hlo import wire
from tpugraphs_rank.hlo import hlo_pb2

_PROGRAM_SHAPE = 4  # In HloModuleProto and HloComputationProto.
# Fields of ProgramShapeProto (xla/xla_data.proto).
_PARAMETERS, _RESULT, _NAMES = 1, 2, 3


def flatten(module: hlo_pb2.HloModuleProto) -> hlo_pb2.HloModuleProto:
  """A program with only arrays as parameters. One that has no tuples is returned as it is.

  An instruction `tuple` takes the place of each parameter. The parts become parameters in the order
  of a walk through the tuples.
  """
  entry = next((computation for computation in module.computations
                if computation.id == module.entry_computation_id), module.computations[-1])
  tuples = [instruction for instruction in entry.instructions
            if instruction.opcode == "parameter" and instruction.shape.tuple_shapes]
  if not tuples:
    return module
  result = hlo_pb2.HloModuleProto()
  result.CopyFrom(module)
  changed = next(computation for computation in result.computations if computation.id == entry.id)
  listed: list[hlo_pb2.HloInstructionProto] = []
  parts: list[hlo_pb2.HloInstructionProto] = []
  next_id = max(instruction.id for instruction in entry.instructions) + 1

  def part(name: str, shape: hlo_pb2.ShapeProto) -> int:
    """Adds the instructions of a part, and returns the id of its value."""
    nonlocal next_id
    operands = [part(f"{name}.{index}", inner) for index, inner in enumerate(shape.tuple_shapes)]
    instruction = hlo_pb2.HloInstructionProto(
        name=name, shape=shape, id=next_id, operand_ids=operands,
        opcode="tuple" if operands else "parameter")
    next_id += 1
    if not operands:
      instruction.parameter_number = len(parts)
      parts.append(instruction)
    listed.append(instruction)
    return instruction.id

  parameters = sorted((instruction for instruction in entry.instructions
                       if instruction.opcode == "parameter"),
                      key=lambda instruction: instruction.parameter_number)
  for parameter in parameters:
    if parameter.shape.tuple_shapes:
      part(f"{parameter.name}.part", parameter.shape)
      listed[-1].id, listed[-1].name = parameter.id, parameter.name
    else:
      kept = hlo_pb2.HloInstructionProto()
      kept.CopyFrom(parameter)
      kept.parameter_number = len(parts)
      parts.append(kept)
      listed.append(kept)
  rest = [instruction for instruction in entry.instructions if instruction.opcode != "parameter"]
  root = next(instruction for instruction in entry.instructions
              if instruction.id == entry.root_id)
  del changed.instructions[:]
  changed.instructions.extend([*listed, *rest])
  shape = b"".join([
      *(wire.encoded(_PARAMETERS, instruction.shape.SerializeToString()) for instruction in parts),
      wire.encoded(_RESULT, root.shape.SerializeToString()),
      *(wire.encoded(_NAMES, instruction.name.encode()) for instruction in parts)])
  field = wire.encoded(_PROGRAM_SHAPE, shape)
  content = wire.without(changed.SerializeToString(), (_PROGRAM_SHAPE,)) + field
  changed.Clear()
  changed.MergeFromString(content)
  return hlo_pb2.HloModuleProto.FromString(
      wire.without(result.SerializeToString(), (_PROGRAM_SHAPE,)) + field)
