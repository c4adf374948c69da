"""Attributes of HLO text that traces need: ranks of collectives, trip counts, custom calls.

The formats are those of XLA's printer: `replica_groups={{0,1},{2,3}}`, `[2,4]<=[4,2]T(1,0)` or
`mesh['x'=2,'y'=4] {'y'}`, and `source_target_pairs={{0,1},{1,0}}`.
"""

import re

from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo.text.scanner import integer

# The number of groups of a list whose form this module does not know.
UNKNOWN_GROUPS = -1
SEND_RECV_PAIRS = "_xla_send_recv_source_target_pairs"

_LIST = re.compile(r"\{([^{}]*)\}")
_LISTS = re.compile(r"\{\s*(?:\{[\d,\s]*\}\s*,?\s*)*\}", re.ASCII)
_IOTA = re.compile(r"\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", re.ASCII)
_MESH = re.compile(r"mesh\s*\[([^\]]*)\]\s*\{([^{}]*)\}")
_AXIS = re.compile(r"""['"]?([\w.\-]+)['"]?\s*=\s*(\d+)""", re.ASCII)
_AXIS_REFERENCE = re.compile(r"""['"]?([\w.\-]+)['"]?(?::\((\d+)\)(\d+))?""", re.ASCII)
_PAIRS = re.compile(SEND_RECV_PAIRS + r"""\s*=\s*["']?(\{(?:\s*\{[^{}]*\}\s*,?)*\s*\})""")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def integer_lists(value: str) -> list[list[int]] | None:
  """The numbers in `{{0,1},{2,3}}`, also in `{}`; None if it is something else.

  Raises:
    ValueError: a number has more than 64 bits.
  """
  value = value.strip()
  if not _LISTS.fullmatch(value):
    return None
  return [[integer(number) for number in part.split(",") if number.strip()]
          for part in _LIST.findall(value[1:-1])]


def unquoted(value: str) -> str:
  """The content of a string in quotes, or the text itself."""
  value = value.strip()
  if len(value) < 2 or value[0] not in "\"'" or value[-1] != value[0]:
    return value
  return _ESCAPED.sub(lambda match: _ESCAPES.get(match[1], match[1]), value[1:-1])


def replica_groups(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  """Sets the ranks of a collective; of a form that is not known, UNKNOWN_GROUPS."""
  lists = integer_lists(value)
  iota, mesh = _IOTA.fullmatch(value.strip()), _MESH.fullmatch(value.strip())
  if lists is not None:
    for members in lists:
      instruction.replica_groups.add(replica_ids=members)
  elif iota:
    short = instruction.iota_collective_device_list
    short.num_replica_groups, short.num_devices_per_group = integer(iota[1]), integer(iota[2])
    short.iota_reshape_dims.extend(map(integer, iota[3].split(",")))
    short.iota_transpose_perm.extend(map(integer, iota[4].split(",") if iota[4] else ()))
  elif not (mesh and _mesh_groups(instruction, mesh[1], mesh[2])):
    instruction.iota_collective_device_list.num_replica_groups = UNKNOWN_GROUPS


def _mesh_groups(instruction: hlo_pb2.HloInstructionProto, axes: str, references: str) -> bool:
  """Sets groups along axes of a mesh; whether all of it has a known form."""
  parts = [_AXIS.fullmatch(part.strip()) for part in axes.split(",")]
  wanted = [_AXIS_REFERENCE.fullmatch(part.strip()) for part in references.split(",")]
  known = [part for part in parts if part]
  names = [part[1] for part in known]
  chosen = [part for part in wanted if part and part[1] in names]
  if len(known) < len(parts) or len(chosen) < len(wanted):
    return False
  groups = instruction.mesh_axes_replica_group_list
  for part in known:
    groups.mesh.axes.add(name=part[1], size=integer(part[2]))
  for part in chosen:
    axis = groups.axes.add(mesh_axis_index=names.index(part[1]))
    if part[2]:
      axis.sub_axis_info.pre_size, axis.sub_axis_info.size = integer(part[2]), integer(part[3])
  return True


def source_target_pairs(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  """Sets who sends to whom."""
  for pair in integer_lists(value) or ():
    if len(pair) == 2:
      instruction.source_target_pairs.add(source=pair[0], target=pair[1])


def frontend_attributes(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  """Keeps who sends to whom, of what a frontend noted about an operation."""
  found = _PAIRS.search(value)
  if found:
    instruction.frontend_attributes.map.add(key=SEND_RECV_PAIRS, value=found[1])


def channel_id(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  """Sets the channel."""
  instruction.channel_id = integer(value)


def use_global_device_ids(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  """Sets whether replica groups count devices."""
  instruction.use_global_device_ids = value.strip() == "true"


def is_host_transfer(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  """Sets whether the other end of a transfer is the host."""
  instruction.is_host_transfer = value.strip() == "true"


def custom_call_target(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  """Sets the name of what a custom call runs."""
  instruction.custom_call_target = unquoted(value)


def direction(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  """Sets the direction of a comparison."""
  instruction.comparison_direction = value.strip()


def backend_config(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  """Sets the settings of the compiler's backend."""
  instruction.backend_config = unquoted(value).encode()


def constant(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  """Sets the value of a whole number; other constants keep none.

  Args:
    instruction: a constant with its shape.
    value: its value, in parentheses.
  """
  fields = {hlo_pb2.S32: "s32s", hlo_pb2.S64: "s64s", hlo_pb2.U32: "u32s", hlo_pb2.U64: "u64s"}
  field = fields.get(instruction.shape.element_type)
  if field is None or instruction.shape.dimensions:
    return
  try:
    getattr(instruction.literal, field).append(int(integer(value.strip("() \t\n"))))
  except ValueError:
    instruction.ClearField("literal")  # No number of this type.
