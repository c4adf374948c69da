"""HLO programs as execution traces, one for each rank.

Operations and bytes come from `hlo_costs`, the order of operations from `hlo_program`, and ranks
from `hlo_groups`. HLO has no times: the durations of these traces are 0, and a simulator computes
them from operations and bytes.

  computation            COMP_NODE with `num_ops` and `tensor_size`, and `flops`: `num_ops` without
                         the elements that are only moved
  collectives            COMM_COLL_NODE with `comm_type`, `comm_size` (bytes that each rank passes
                         in), `involved_dim`, and `pg_name` if not all ranks take part together
  collective-permute,    COMM_SEND_NODE and COMM_RECV_NODE with `comm_src`, `comm_dst`, `comm_tag`
  send, recv             and `comm_size`, on the ranks that send and receive; a rank that sends to
                         itself copies
  infeed, outfeed,       MEM_LOAD_NODE, MEM_STORE_NODE with `tensor_size`
  transfers to the host
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import math

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import tables
from tpugraphs_rank.chakra import attributes
from tpugraphs_rank.chakra import et_def_pb2
from tpugraphs_rank.chakra import hlo_groups
from tpugraphs_rank.chakra import hlo_program
from tpugraphs_rank.chakra import node_kinds
from tpugraphs_rank.chakra import operators
from tpugraphs_rank.chakra import ranks as ranks_lib
from tpugraphs_rank.chakra import traces
from tpugraphs_rank.hlo import graph
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import shapes
from tpugraphs_rank.hlo import stages

MAX_DIMS = 16
_SHOWN = 4
_COLLECTIVES = {
    "all-reduce": et_def_pb2.ALL_REDUCE, "all-gather": et_def_pb2.ALL_GATHER,
    "reduce-scatter": et_def_pb2.REDUCE_SCATTER, "all-to-all": et_def_pb2.ALL_TO_ALL,
    "ragged-all-to-all": et_def_pb2.ALL_TO_ALL, "collective-broadcast": et_def_pb2.BROADCAST}
# Nodes of a rank, unless a user allows more.
_SMALL_LIMIT, _NODES_PER_INSTRUCTION, _LARGE_LIMIT = 20_000, 50, 200_000
# Nodes of all ranks together, unless a user allows more.
_SMALL_TOTAL, _TOTAL_PER_INSTRUCTION = 100_000, 1000
# References of the nodes of a rank to others, for each node that it may have.
_DEPENDENCIES_PER_NODE = 200
_MEMORY = {"load": node_kinds.MEM_LOAD, "store": node_kinds.MEM_STORE}


@dataclasses.dataclass(frozen=True)
class Settings:
  """How programs become traces.

  Attributes:
    ranks: number of ranks, for a program that does not state it; None: as many as its groups name.
    topology: sizes of the network's dimensions, the first one varying fastest; empty: one
      dimension. Their product is the number of ranks.
    fusions: "whole": a fusion is a node; "open": its instructions are.
    max_nodes: of one rank. None: 20,000, or 50 for each instruction of the program if that is
      more, at most 200,000.
    max_iterations: of each loop; further ones are left out. 0: all.
    max_total_nodes: of all ranks together. None: 100,000, or 1,000 for each instruction of the
      program if that is more.
  """

  ranks: int | None = None
  topology: tuple[int, ...] = ()
  fusions: str = hlo_program.WHOLE
  max_nodes: int | None = None
  max_iterations: int = 0
  max_total_nodes: int | None = None

  def __post_init__(self):
    if self.ranks is not None and not 1 <= self.ranks <= hlo_groups.MAX_RANKS:
      raise errors.ConfigError(
          f"ranks is {self.ranks}; expected 1 to {hlo_groups.MAX_RANKS:,}")
    if len(self.topology) > MAX_DIMS or any(extent < 1 for extent in self.topology):
      raise errors.ConfigError(
          f"topology is {', '.join(map(str, self.topology))}; expected at most {MAX_DIMS} positive "
          "numbers, such as 4,2")
    if self.fusions not in (hlo_program.WHOLE, hlo_program.OPEN):
      raise errors.ConfigError(f"fusions is {self.fusions!r}; expected whole or open")
    if (self.max_nodes is not None and self.max_nodes < 1) or self.max_iterations < 0:
      raise errors.ConfigError(
          f"max_nodes is {self.max_nodes} and max_iterations {self.max_iterations}; expected a "
          "positive number, and 0 or a positive number")
    if self.max_total_nodes is not None and self.max_total_nodes < 1:
      raise errors.ConfigError(
          f"max_total_nodes is {self.max_total_nodes}; expected a positive number")


@dataclasses.dataclass(frozen=True, eq=False)
class Workload:
  """A program on its ranks.

  Attributes:
    source: its name in messages.
    world: its ranks.
    operations: what each rank runs.
    groups: the ranks of each process group, by `pg_name`.
    notes: what did not follow from the program alone.
    unpartitioned: whether the program has several partitions but no communication yet.
    copied: whether there are several ranks without communication for another reason.
    settings: of the conversion.
  """

  source: str
  world: hlo_groups.World
  operations: Sequence[hlo_program.Operation]
  groups: Mapping[str, tuple[int, ...]]
  notes: hlo_program.Notes
  unpartitioned: bool
  copied: bool
  settings: Settings

  def trace(self, rank: int) -> traces.Trace:
    """The trace of a rank."""
    return self._with_metadata(_Writer(self, rank).nodes(), rank)

  def all_ranks(self) -> Iterator[traces.Trace]:
    """The traces of all ranks; where all ranks run the same, they share their nodes."""
    alike = not self.groups and not any(operation.role in ("permute", "send", "recv")
                                        for operation in self.operations)
    nodes: list[traces.Node] = []
    for rank in range(self.world.ranks):
      if not (alike and rank):
        nodes = _Writer(self, rank).nodes()
      yield self._with_metadata(nodes, rank)

  def _with_metadata(self, nodes: list[traces.Node], rank: int) -> traces.Trace:
    result = traces.Trace(nodes=nodes)
    attributes.put(result.metadata, "rank", rank)
    attributes.put(result.metadata, "world_size", self.world.ranks)
    if self.groups:
      attributes.put(result.metadata, ranks_lib.GROUPS, ranks_lib.groups_text(self.groups))
    return result

  def __str__(self) -> str:
    notes, world = self.notes, self.world
    counts: dict[str, int] = {}
    for operation in self.operations:
      kind = operation.operator if operation.role == "collective" else operation.role
      counts[kind] = counts.get(kind, 0) + 1
    text = [f"{escaping.printable(self.source)}: {tables.counted(world.ranks, 'rank')}, "
            f"{tables.counted(len(self.operations), 'operation')} each (" + ", ".join(
        f"{count:,} {kind}" for kind, count in sorted(counts.items(), key=lambda e: -e[1])) + ")"]
    if world.replicas > 1 < world.partitions:
      text.append(f"{world.replicas:,} replicas of {world.partitions:,} partitions")
    text.append(f"total: {sum(o.cost.flops for o in self.operations):.4g} operations on numbers, "
                f"{sum(o.cost.size for o in self.operations if o.role == 'compute'):.4g} bytes "
                "read and written, "
                f"{sum(o.cost.size for o in self.operations if o.role != 'compute'):.4g} bytes "
                "passed into communication")
    if notes.loops:
      text.append(f"loops unrolled: {notes.loops:,}, with {notes.iterations:,} iterations")
    for names, what in (
        (notes.once, "loops with an unknown number of iterations, which run once"),
        (notes.cut, f"loops cut after {self.settings.max_iterations:,} iterations"),
        (notes.branches, "conditionals with an unknown branch, of which the one of most operations "
                         "runs")):
      if names:
        text.append(f"{what}: {len(names):,} (" + ", ".join(map(escaping.shown, names[:_SHOWN]))
                    + ", ..." * (len(names) > _SHOWN) + ")")
    if notes.free:
      text.append(f"{tables.counted(notes.free, 'instruction')} without cost fused: "
                  "their users wait for what they waited for")
    if notes.unknown:
      text.append("no operations are known for " + ", ".join(
          f"{escaping.shown(kind)} ({count:,})"
          for kind, count in sorted(notes.unknown.items())[:_SHOWN])
                  + ", ..." * (len(notes.unknown) > _SHOWN)
                  + "; each counts one operation for an element that it writes")
    if self.unpartitioned:
      text.append(f"the program is not partitioned yet, so each of the {world.ranks:,} ranks runs "
                  "all of it without communication; convert the program after optimisation instead")
    if self.copied:
      text.append(f"the program does not communicate, so each of the {world.ranks:,} ranks runs a "
                  "copy of it; for a distributed program, compile it for several devices first")
    return "\n".join(text)


def convert(module: hlo_pb2.HloModuleProto, source: str, settings: Settings = Settings()
            ) -> Workload:
  """Turns a program into the workload of its ranks.

  Args:
    module: the program, before or after optimisation.
    source: its name in messages.
    settings: how to convert it.

  Raises:
    DataError: the program is damaged, or does not fit the ranks of the settings; nothing in it
      costs anything.
    LimitError: it becomes too large, or runs on too many ranks.
  """
  if not any(computation.instructions for computation in module.computations):
    raise errors.DataError(f"{source} has no instructions; expected a program; dump it again")
  shapes.check(module, source)
  graph.edge_index(module, source)  # Refuses missing operands, cycles and recursion.
  asked = settings.ranks
  if asked is None and settings.topology and not module.device_assignment.ByteSize():
    asked = math.prod(settings.topology)
  world = hlo_groups.world_of(module, asked, source)
  if settings.topology and math.prod(settings.topology) != world.ranks:
    raise errors.DataError(
        f"{source} runs on {world.ranks:,} ranks, but the topology "
        f"{','.join(map(str, settings.topology))} has {math.prod(settings.topology):,}; expected "
        "sizes whose product is the number of ranks; correct --topology")
  program = hlo_program.Program(
      module, world, source, settings.fusions, settings.max_nodes or _node_limit(module),
      settings.max_iterations)
  operations = program.operations
  if not operations:
    raise errors.DataError(f"{source} has no instruction that costs anything; expected "
                           "computation or communication; pass a program that computes")
  _check_total(len(operations), world.ranks, module, source, settings)
  communicates = any(operation.groups for operation in operations)
  unpartitioned = (world.partitions > 1 and not communicates
                   and stages.of(module).name != stages.AFTER)
  return Workload(source, world, operations, _named_groups(operations, world, settings.topology),
                  program.notes, unpartitioned,
                  world.ranks > 1 and not communicates and not unpartitioned, settings)


def _node_limit(module: hlo_pb2.HloModuleProto) -> int:
  """The largest number of nodes of a program unless a user allows more; see `Settings`.

  Calls in calls can double the nodes with every few instructions.
  """
  instructions = sum(len(computation.instructions) for computation in module.computations)
  return min(max(_SMALL_LIMIT, _NODES_PER_INSTRUCTION * instructions), _LARGE_LIMIT)


def _check_total(operations: int, ranks: int, module: hlo_pb2.HloModuleProto, source: str,
                 settings: Settings) -> None:
  """Raises LimitError if all ranks together have too many nodes."""
  instructions = sum(len(computation.instructions) for computation in module.computations)
  limit = settings.max_total_nodes or max(_SMALL_TOTAL, _TOTAL_PER_INSTRUCTION * instructions)
  if operations * ranks > limit:
    raise errors.LimitError(
        f"{source} has {operations:,} operations on each of {ranks:,} ranks; the limit for all of "
        f"them is {limit:,} nodes; limit the iterations of each loop (--max_iterations), or allow "
        f"more nodes (--max_total_nodes {operations * ranks})")


def _named_groups(operations: Sequence[hlo_program.Operation], world: hlo_groups.World,
                  topology: Sequence[int]) -> dict[str, tuple[int, ...]]:
  """Names of the groups that neither are all ranks nor span whole dimensions of the network."""
  names: dict[tuple[int, ...], str] = {}
  # Operations that run in the same groups share one object.
  distinct = {id(operation.groups): operation.groups for operation in operations
              if operation.role == "collective"}
  for groups in distinct.values():
    for members in groups:
      key = tuple(sorted(members))
      if key not in names and _dims(key, world, topology) is None:
        names[key] = str(len(names) + 1)  # Simulators take 0 for all ranks.
  return {name: members for members, name in names.items()}


def _dims(members: Sequence[int], world: hlo_groups.World, topology: Sequence[int]
          ) -> list[bool] | None:
  """The network dimensions that say all about a group; None if it needs a name."""
  if len(members) == world.ranks:
    return [True] * max(len(topology), 1)
  return hlo_groups.spanned(members, topology) if topology else None


class _Writer:
  """Writes the trace of one rank."""

  def __init__(self, workload: Workload, rank: int):
    self._workload = workload
    self._rank = rank
    self._nodes: list[traces.Node] = []
    self._names = {members: name for name, members in workload.groups.items()}
    self._tags: dict[tuple[int, int, int], int] = {}
    self._members: dict[int, tuple[int, ...]] = {}
    self._ends: dict[int, tuple[int | None, int | None]] = {}
    self._dims: dict[tuple[int, ...], tuple[list[bool] | None, str]] = {}

  def nodes(self) -> list[traces.Node]:
    workload = self._workload
    # For each operation the nodes that its users wait for.
    given: list[tuple[int, ...]] = []
    total = 0
    for operation in workload.operations:
      waits = sorted({node for other in operation.waits for node in given[other]})
      after = sorted({node for other in operation.after for node in given[other]} - set(waits))
      given.append(self._add(operation, waits, after))
      total += len(waits) + len(after)
      if total > _DEPENDENCIES_PER_NODE * max(len(workload.operations), _SMALL_LIMIT):
        raise errors.LimitError(
            f"{workload.source}: the nodes of rank {self._rank} wait for more than {total - 1:,} "
            "others, the limit; limit the iterations of each loop (--max_iterations)")
    return self._nodes

  def _add(self, operation: hlo_program.Operation, waits: list[int], after: list[int]
           ) -> tuple[int, ...]:
    """Adds the nodes of an operation; gives those that its users wait for."""
    role, size = operation.role, operation.cost.size
    if role == "collective":
      key = id(operation.groups)
      if key not in self._members:
        self._members[key] = next((group for group in operation.groups if self._rank in group), ())
      members = self._members[key]
      if len(members) > 1:
        return self._collective(operation, members, waits, after)
      return tuple(waits)
    if role in ("permute", "send", "recv"):
      return self._messages(operation, waits, after)
    node = self._node(operation, _MEMORY.get(role, node_kinds.COMP), waits, after)
    if role == "compute":
      attributes.add(node, "num_ops", operation.cost.operations)
      attributes.add(node, "flops", operation.cost.flops)
    attributes.add(node, "tensor_size", size)
    return (node.id,)

  def _node(self, operation: hlo_program.Operation, kind: int, waits: Sequence[int],
            after: Sequence[int]) -> traces.Node:
    node = traces.Node(id=len(self._nodes), name=operators.printable(operation.name),
                       data_deps=waits, ctrl_deps=after)
    node.type = kind  # type: ignore[assignment]
    attributes.add(node, "is_cpu_op", False)
    attributes.add(node, operators.ATTRIBUTE, operation.operator)
    self._nodes.append(node)
    return node

  def _collective(self, operation: hlo_program.Operation, members: tuple[int, ...],
                  waits: list[int], after: list[int]) -> tuple[int, ...]:
    workload = self._workload
    node = self._node(operation, node_kinds.COMM_COLL, waits, after)
    attributes.add(node, "comm_type", _COLLECTIVES[operation.operator])
    attributes.add(node, "comm_size", operation.cost.size)
    topology = workload.settings.topology
    if members not in self._dims:
      dims = _dims(members, workload.world, topology)
      self._dims[members] = dims, "" if dims else self._names[tuple(sorted(members))]
    dims, name = self._dims[members]
    attributes.add(node, "involved_dim", dims or [True] * max(len(topology), 1))
    if dims is None:
      attributes.add(node, "pg_name", name)
    return (node.id,)

  def _messages(self, operation: hlo_program.Operation, waits: list[int], after: list[int]
                ) -> tuple[int, ...]:
    sends = operation.role != "recv"
    receives = operation.role != "send"
    key = id(operation.groups)
    if key not in self._ends:
      self._ends[key] = (
          next((end for start, end in operation.groups if start == self._rank), None),
          next((start for start, end in operation.groups if end == self._rank), None))
    target, source = self._ends[key]
    if operation.role == "permute" and target == self._rank:
      node = self._node(operation, node_kinds.COMP, waits, after)
      attributes.add(node, "num_ops", max(operation.cost.moved, 1))
      attributes.add(node, "flops", 0)
      attributes.add(node, "tensor_size", 2 * operation.cost.size)
      return (node.id,)
    given = tuple(waits)
    if sends and target is not None and target != self._rank:
      given = (self._message(operation, node_kinds.COMM_SEND, (self._rank, target), waits, after),)
    if receives and source is not None and source != self._rank:
      given = (self._message(operation, node_kinds.COMM_RECV, (source, self._rank), waits, after),)
    return given

  def _message(self, operation: hlo_program.Operation, kind: int, ends: tuple[int, int],
               waits: list[int], after: list[int]) -> int:
    node = self._node(operation, kind, waits, after)
    key = kind, ends[0], ends[1]
    tag = self._tags.get(key, 0)
    self._tags[key] = tag + 1
    for name, number in (("comm_src", ends[0]), ("comm_dst", ends[1]), ("comm_tag", tag),
                         ("comm_size", operation.cost.size)):
      attributes.add(node, name, number)
    return node.id
