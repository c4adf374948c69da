"""Which ranks take part in the communication of an HLO program.

A program has R replicas of P partitions each, and the rank of partition p of replica r is r P + p,
XLA's flattened id. What the numbers in a list of groups mean follows from the instruction, by XLA's
rules (`CollectiveOpGroupMode`):

  no channel                             replicas; each partition apart
  a channel, use_global_device_ids       ranks
  a channel, without it                  replicas with all their partitions; for all-to-all,
                                         collective-permute and collective-broadcast: partitions,
                                         each replica apart
"""

from collections.abc import Sequence
import dataclasses
import math
import re

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank.hlo import hlo_pb2

Instruction = hlo_pb2.HloInstructionProto
Groups = tuple[tuple[int, ...], ...]

MAX_RANKS = 65_536
# The largest number of ranks that a program alone can ask for: each rank is a file, and a program
# of a few bytes can state any number.
STATED_RANKS = 1024
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all",
               "collective-broadcast")
PERMUTE = "collective-permute"
_OF_PARTITIONS = ("all-to-all", "ragged-all-to-all", "collective-broadcast", PERMUTE)
_PAIRS = "_xla_send_recv_source_target_pairs"
_PAIR = re.compile(r"\{\s*(\d{1,9})\s*,\s*(\d{1,9})\s*\}", re.ASCII)


@dataclasses.dataclass(frozen=True)
class World:
  """The ranks of a program.

  Attributes:
    replicas: number of replicas.
    partitions: number of partitions of each.
  """

  replicas: int = 1
  partitions: int = 1

  @property
  def ranks(self) -> int:
    """Number of ranks."""
    return self.replicas * self.partitions


def base_opcode(opcode: str) -> str:
  """An opcode without the ending of its asynchronous form."""
  return opcode.removesuffix("-start")


def world_of(module: hlo_pb2.HloModuleProto, ranks: int | None, source: str) -> World:
  """The ranks of a program: those that it states, or else that its groups name.

  Args:
    module: the program.
    ranks: what the user says; None: what the program says.
    source: its name in error messages.

  Raises:
    DataError: the program states another number of ranks.
    LimitError: it has too many ranks, or more than `STATED_RANKS` that the user does not state.
  """
  stated = World(max(module.device_assignment.replica_count, 1),
                 max(module.device_assignment.computation_count, 1))
  if stated.ranks > 1:
    _check_count(stated.ranks, source)
    if ranks not in (None, stated.ranks):
      raise errors.DataError(
          f"{source} is a program for {stated.ranks:,} ranks (replicas: {stated.replicas:,}, "
          f"partitions of each: {stated.partitions:,}), but --ranks is {ranks:,}; leave it out")
    _check_stated(stated.ranks, ranks, source)
    return stated
  has_channel, largest = False, -1
  for computation in module.computations:
    for instruction in computation.instructions:
      if base_opcode(instruction.opcode) in (*COLLECTIVES, PERMUTE):
        has_channel |= instruction.channel_id > 0
        largest = max([largest, _largest(instruction), *(
            end for pair in instruction.source_target_pairs for end in (pair.source, pair.target))])
  count = ranks or largest + 1
  _check_count(count, source)
  _check_stated(count, ranks, source)
  return World(1, max(count, 1)) if has_channel else World(max(count, 1), 1)


def _check_stated(count: int, ranks: int | None, source: str) -> None:
  if ranks is None and count > STATED_RANKS:
    raise errors.LimitError(
        f"{source} runs on {count:,} ranks, each of which becomes a file; the limit is "
        f"{STATED_RANKS:,} unless the number is stated; state it to write all of them (--ranks "
        f"{count})")


def _largest(instruction: Instruction) -> int:
  """The largest rank that the groups of an instruction name, -1 if none, without listing them."""
  device_list = instruction.collective_device_list
  groups = instruction.replica_groups or device_list.replica_groups
  if groups:
    return max((number for group in groups for number in group.replica_ids), default=-1)
  short = instruction.iota_collective_device_list
  if not short.ByteSize():
    short = device_list.iota_replica_group_list
  if short.ByteSize():
    return math.prod(short.iota_reshape_dims) - 1
  mesh = instruction.mesh_axes_replica_group_list.mesh
  if mesh.device_ids:
    return max(mesh.device_ids)
  return math.prod(axis.size for axis in mesh.axes) - 1 if mesh.axes else -1


def _check_count(count: int, source: str) -> None:
  if count > MAX_RANKS:
    raise errors.LimitError(f"{source} runs on {count:,} ranks; the limit is {MAX_RANKS:,}; "
                            "compile the program for fewer devices")


def groups_of(instruction: Instruction, world: World, source: str) -> Groups:
  """The groups of ranks in which a collective runs.

  Raises:
    DataError: a group names a rank that does not exist, or a rank twice; or the groups have a form
      that this version does not know.
  """
  listed = _listed(instruction, source)
  opcode = base_opcode(instruction.opcode)
  replicas, partitions = range(world.replicas), range(world.partitions)
  if instruction.channel_id <= 0:
    listed = listed or [list(replicas)]
    limit = world.replicas
    result = [[replica * world.partitions + part for replica in group]
              for part in partitions for group in listed]
  elif opcode in _OF_PARTITIONS:
    listed = listed or [list(partitions)]
    limit = world.partitions
    result = [[replica * world.partitions + part for part in group]
              for replica in replicas for group in listed]
  elif instruction.use_global_device_ids:
    limit = world.ranks
    result = listed = listed or [list(range(world.ranks))]
  else:
    listed = listed or [list(replicas)]
    limit = world.replicas
    result = [[replica * world.partitions + part for replica in group for part in partitions]
              for group in listed]
  flat = [number for group in listed for number in group]
  if len(set(flat)) < len(flat) or flat and not 0 <= min(flat) <= max(flat) < limit:
    raise errors.DataError(
        f"{source}: instruction {escaping.quoted(instruction.name)} has replica groups "
        f"{str(listed)[:60]}; expected each number from 0 to {limit - 1} at most once; "
        "state the number of ranks (--ranks), or dump the program again")
  return tuple(tuple(group) for group in result if group)


def pairs_of(instruction: Instruction, world: World, source: str) -> Groups:
  """The (sending, receiving) ranks of a collective-permute, a send or a receive.

  Raises:
    DataError: a pair names a rank that does not exist, or two pairs have the same end.
  """
  listed = [(pair.source, pair.target) for pair in instruction.source_target_pairs]
  for entry in instruction.frontend_attributes.map:
    if entry.key == _PAIRS and not listed:
      listed = [(int(start), int(end)) for start, end in _PAIR.findall(entry.value)]
  of_partitions = instruction.channel_id > 0 and (
      world.partitions > 1 or world.replicas == 1)
  limit = world.partitions if of_partitions else world.replicas
  for ends in zip(*listed):
    if len(set(ends)) < len(ends) or not 0 <= min(ends) <= max(ends) < limit:
      raise errors.DataError(
          f"{source}: instruction {escaping.quoted(instruction.name)} has the source-target pairs "
          f"{str(listed)[:60]}; expected each source and each target once, from 0 to {limit - 1}; "
          "state the number of ranks (--ranks), or dump the program again")
  if of_partitions:
    return tuple((replica * world.partitions + start, replica * world.partitions + end)
                 for replica in range(world.replicas) for start, end in listed)
  return tuple((start * world.partitions + part, end * world.partitions + part)
               for part in range(world.partitions) for start, end in listed)


def spanned(members: Sequence[int], topology: Sequence[int]) -> list[bool] | None:
  """The dimensions of a network that a group of ranks spans; None if it is no such block.

  Args:
    members: ranks.
    topology: sizes of the dimensions; the first one varies fastest.
  """
  places = np.unravel_index(np.asarray(members), tuple(topology), order="F")
  used = [len(set(axis.tolist())) for axis in places]
  full = all(count in (1, extent) for count, extent in zip(used, topology))
  if not full or math.prod(used) != len(members):
    return None
  return [count > 1 for count in used]


def _listed(instruction: Instruction, source: str) -> list[list[int]]:
  """The groups as the instruction has them."""
  if instruction.replica_groups:
    return [list(group.replica_ids) for group in instruction.replica_groups]
  device_list = instruction.collective_device_list
  if device_list.replica_groups:
    return [list(group.replica_ids) for group in device_list.replica_groups]
  short = instruction.iota_collective_device_list
  if not short.ByteSize():
    short = device_list.iota_replica_group_list
  try:
    if short.ByteSize():
      numbers = _iota(short.iota_reshape_dims, short.iota_transpose_perm)
      return numbers.reshape(short.num_replica_groups, short.num_devices_per_group).tolist()
    if instruction.mesh_axes_replica_group_list.ByteSize():
      return _mesh(instruction.mesh_axes_replica_group_list)
  except (ValueError, IndexError):
    raise errors.DataError(
        f"{source}: instruction {escaping.quoted(instruction.name)} has replica groups of an "
        "unknown form; expected a list of groups, [groups,size]<=[sizes] or axes of a mesh; dump "
        "the program as a protobuf") from None
  return []


def _iota(sizes: Sequence[int], permutation: Sequence[int]) -> np.ndarray:
  count = math.prod(sizes)
  if not 0 < count <= MAX_RANKS or min(sizes, default=1) < 1:
    raise ValueError(count)
  numbers = np.arange(count).reshape(tuple(sizes))
  return numbers.transpose(tuple(permutation)) if permutation else numbers


def _mesh(groups: hlo_pb2.MeshAxesReplicaGroupListProto) -> list[list[int]]:
  sizes = [axis.size for axis in groups.mesh.axes]
  transform = groups.mesh.iota_transform
  numbers = _iota(transform.reshape_dims or sizes, transform.transpose_perm).reshape(sizes)
  if groups.mesh.device_ids:
    numbers = np.asarray(groups.mesh.device_ids).reshape(sizes)
  # Each axis as its parts: before the sub-axis, the sub-axis, after it.
  parts: list[int] = []
  chosen: list[int] = []
  wanted = {axis.mesh_axis_index: axis for axis in groups.axes}
  if len(wanted) < len(groups.axes) or any(not 0 <= at < len(sizes) for at in wanted):
    raise ValueError("axes")
  place: dict[int, int] = {}
  for number, extent in enumerate(sizes):
    sub = wanted[number].sub_axis_info if number in wanted else None
    if sub is not None and sub.size:
      if min(sub.pre_size, sub.size) < 1 or extent % (sub.pre_size * sub.size):
        raise ValueError("sub-axis")
      place[number] = len(parts) + 1
      parts += [sub.pre_size, sub.size, extent // (sub.pre_size * sub.size)]
    else:
      place[number] = len(parts)
      parts.append(extent)
  chosen = [place[axis.mesh_axis_index] for axis in groups.axes]
  rest = [at for at in range(len(parts)) if at not in chosen]
  count = math.prod(parts[at] for at in chosen)
  return numbers.reshape(parts).transpose((*rest, *chosen)).reshape(-1, count).tolist()
