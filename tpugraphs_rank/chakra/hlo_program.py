"""An HLO program as operations in the order in which it runs: calls inlined, loops unrolled.

- Called computations, asynchronous ones too, are inlined. Fusions stay whole, or are opened.
- A loop runs as often as the compiler noted (`known_trip_count`), or else as its condition says,
  where that follows from constants; otherwise once. Its condition gives no operations.
- A conditional takes the branch that is known, or else the one of most operations.
- Instructions without cost give no operation: what waits for one waits for what it waits for.
"""

from collections.abc import Sequence
import dataclasses

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank.chakra import hlo_costs
from tpugraphs_rank.chakra import hlo_groups
from tpugraphs_rank.chakra import hlo_values as values_lib
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import order

Instruction = hlo_pb2.HloInstructionProto
Value = values_lib.Value

WHOLE, OPEN = "whole", "open"
_MAX_DEPTH = 100
# Instructions that are looked at for each operation that a program may have. Many operands and
# called computations count as further instructions.
_STEPS = 20
_REFERENCES_PER_STEP = 8
# Values and operations that are looked at, for each operation that a program may have, to see what
# operations wait for: an operation may wait for all earlier ones.
_LOOKS = 200
# An operation that waits for more others drops those that the last of them waits for.
_MANY_WAITS = 64
# Characters of the name of an operation. Names of loops may be long, and are repeated with each.
_MAX_NAME = 200
# Only such small fusions are searched for the counter of a loop.
_MAX_COUNTER_INSTRUCTIONS = 16
_TRANSFERS = {"infeed": "load", "recv": "load", "outfeed": "store", "send": "store"}


@dataclasses.dataclass(frozen=True)
class Operation:
  """An operation of a program; `waits` and `after` are positions of earlier operations.

  Attributes:
    name: of its instruction, with the loops that it is in and their iterations.
    operator: its kind, such as "dot" or "fusion.dot".
    cost: what it costs; of communication and transfers, only `size` counts.
    waits: whose results it needs.
    after: what else it must wait for.
    groups: of a collective its groups of ranks; of a message its (sending, receiving) ranks.
    role: "compute", "collective", "permute", "send", "recv", "load" or "store"; the last two are
      transfers from and to the host.
  """

  name: str
  operator: str
  cost: hlo_costs.Cost
  waits: tuple[int, ...]
  after: tuple[int, ...] = ()
  groups: hlo_groups.Groups = ()
  role: str = "compute"


@dataclasses.dataclass
class _Step:
  """An instruction, and what about it is the same whenever it runs; the rest is filled in once.

  Attributes:
    instruction: itself.
    operands: ids of its operands.
    predecessors: ids of the instructions that must run before it for another reason.
    called: positions of the computations that it calls.
    weight: what it counts towards the limit of steps.
    loop: of a loop the positions of body and condition, and the number of iterations that the
      compiler noted.
    branch: of a conditional the branch of most operations.
    communication: its role and groups.
    cost: of its operation.
    operator: of its operation.
  """

  instruction: Instruction
  operands: tuple[int, ...]
  predecessors: tuple[int, ...]
  called: tuple[int, ...]
  weight: int
  loop: tuple[int, int, int | None] | None = None
  branch: int | None = None
  communication: tuple[str, hlo_groups.Groups] | None = None
  cost: hlo_costs.Cost | None = None
  operator: str = ""


@dataclasses.dataclass
class Notes:
  """What does not follow from the program alone.

  Attributes:
    loops: loops that were unrolled, counted as often as they run.
    iterations: iterations of them.
    once: names of loops whose number of iterations is not known, and that run once.
    cut: names of loops that were cut at the limit of iterations.
    branches: names of conditionals whose branch is not known.
    free: instructions without cost, which give no operation.
    unknown: kinds of instructions whose operations are not known, and how many the program has.
  """

  loops: int = 0
  iterations: int = 0
  once: list[str] = dataclasses.field(default_factory=list)
  cut: list[str] = dataclasses.field(default_factory=list)
  branches: list[str] = dataclasses.field(default_factory=list)
  free: int = 0
  unknown: dict[str, int] = dataclasses.field(default_factory=dict)


class Program:
  """Inlines a module.

  Args:
    module: a program whose shapes and references were checked.
    world: its ranks.
    source: its name in error messages.
    fusions: WHOLE or OPEN.
    max_operations: largest number of operations.
    max_iterations: of each loop; further iterations are left out. 0: all.

  Attributes:
    operations: in an order in which each comes after those that it waits for.
    notes: what does not follow from the program alone.

  Raises:
    DataError: the shapes of an instruction do not fit it, or its groups do not fit the ranks.
    LimitError: the program becomes too large.
  """

  def __init__(self, module: hlo_pb2.HloModuleProto, world: hlo_groups.World, source: str,
               fusions: str, max_operations: int, max_iterations: int):
    self._module = module
    self._world = world
    self._source = source
    self._fusions = fusions
    self._max_operations = max_operations
    self._max_iterations = max_iterations
    self._costs = hlo_costs.CostModel(module, source)
    self._where = order.computation_positions(module, source)
    self._orders: dict[int, list[_Step]] = {}
    self._groups: dict[hlo_groups.Groups, hlo_groups.Groups] = {}
    self._steps = 0
    self._looks = 0
    self.operations: list[Operation] = []
    self.notes = Notes(unknown=dict(self._costs.unknown))
    entry = order.entry_position(module)
    self._inline(entry, [], "", 0)

  def _ordered(self, position: int) -> list[_Step]:
    if position not in self._orders:
      computation = self._module.computations[position]
      local = order.instruction_positions(computation, self._source)
      self._orders[position] = [
          self._prepared(computation.instructions[at])
          for at in order.operands_first(computation, local, self._source)]
    return self._orders[position]

  def _prepared(self, instruction: Instruction) -> _Step:
    operands = tuple(instruction.operand_ids)
    predecessors = tuple(instruction.control_predecessor_ids)
    called = tuple(self._where[number] for number in instruction.called_computation_ids
                   if number in self._where)
    references = len(operands) + len(predecessors) + len(called)
    return _Step(instruction, operands, predecessors, called,
                 1 + references // _REFERENCES_PER_STEP)

  def _count(self, weight: int) -> None:
    self._steps += weight
    if self._steps > self._max_operations * _STEPS:
      self._refuse(f"runs more than {self._max_operations * _STEPS:,} instructions")

  def _refuse(self, what: str) -> None:
    raise errors.LimitError(
        f"{self._source} {what} once its calls and loops are expanded; limit the "
        "iterations of each loop (--max_iterations), or allow more nodes (--max_nodes)")

  def _waits(self, values: Sequence[Value]) -> tuple[int, ...]:
    """Ascending positions of the operations that any of the values waits for."""
    result, looks = values_lib.waits(values)
    self._looks += looks
    if self._looks > self._max_operations * _LOOKS:
      self._refuse("has operations that wait for too many others")
    if len(result) > _MANY_WAITS:
      implied = set(self.operations[result[-1]].waits)
      result = tuple(other for other in result if other not in implied)
    return result

  def _inline(self, position: int, arguments: Sequence[Value], path: str, depth: int) -> Value:
    """Runs a computation; gives the value of its root."""
    if depth > _MAX_DEPTH:
      raise errors.LimitError(f"{self._source}: computations call each other more than "
                              f"{_MAX_DEPTH} levels deep; dump the program again")
    known: dict[int, Value] = {}
    for step in self._ordered(position):
      self._count(step.weight)
      given = [known.get(number, values_lib.NOTHING) for number in step.operands]
      after = self._waits([known[number] for number in step.predecessors if number in known]
                          ) if step.predecessors else ()
      known[step.instruction.id] = self._value(position, step, given, after, arguments, path, depth)
    return known.get(self._module.computations[position].root_id, values_lib.NOTHING)

  def _value(self, position: int, step: _Step, given: Sequence[Value],
             after: tuple[int, ...], arguments: Sequence[Value], path: str, depth: int) -> Value:
    instruction, called = step.instruction, step.called
    opcode = instruction.opcode
    if opcode == "parameter":
      number = instruction.parameter_number
      return arguments[number] if 0 <= number < len(arguments) else values_lib.NOTHING
    if opcode == "constant":
      return values_lib.Leaf((), values_lib.constant(instruction))
    if opcode == "tuple":
      return values_lib.Parts(tuple(given))
    if opcode == "get-tuple-element":
      return self._element(instruction, given)
    if not called:
      return self._operation(position, step, given, after, path)
    inside = _joined(path, instruction) + "/"
    if opcode in ("call", "async-start") or opcode == "fusion" and self._fusions == OPEN:
      return self._inline(called[0], given, inside if opcode == "call" else path, depth + 1)
    if opcode == "while" and len(called) == 2:
      return self._loop(step, given, inside, depth)
    if opcode == "conditional":
      return self._branch(position, step, given, inside, depth)
    return self._operation(position, step, given, after, path)

  def _element(self, instruction: Instruction, given: Sequence[Value]) -> Value:
    value = given[0] if given else values_lib.NOTHING
    if isinstance(value, values_lib.Leaf):
      return values_lib.Leaf(value.waits)
    if not 0 <= instruction.tuple_index < len(value.members):
      raise errors.DataError(
          f"{self._source}: instruction {escaping.quoted(instruction.name)} takes element "
          f"{instruction.tuple_index} of a tuple of {len(value.members)}; expected a smaller "
          "number; the file is damaged: dump the program again")
    return value.members[instruction.tuple_index]

  # ---- control flow -----------------------------------------------------------------------------

  def _loop(self, step: _Step, given: Sequence[Value], path: str, depth: int) -> Value:
    value = given[0] if given else values_lib.NOTHING
    if step.loop is None:
      # In a protobuf the body comes first; the condition gives a truth value.
      body, condition = step.called
      if self._root_type(body) == hlo_pb2.PRED and self._root_type(condition) != hlo_pb2.PRED:
        body, condition = condition, body
      step.loop = body, condition, _trip_count(step.instruction.backend_config)
    body, condition, noted = step.loop
    count, is_known = 0, True
    while True:
      if noted is not None:
        runs: int | None = int(count < noted)
      else:
        result = self._numbers(condition, [value], depth + 1)
        runs = result.number if isinstance(result, values_lib.Leaf) else None
      if runs is None:
        is_known = count > 0
        if count:  # The condition was known before: the loop's count depends on data.
          self.notes.once.append(path.rstrip("/"))
          break
        runs = 1
      if not runs:
        break
      if self._max_iterations and count >= self._max_iterations:
        self.notes.cut.append(path.rstrip("/"))
        break
      self._count(1)
      value = self._inline(body, [value], f"{path}{count}/", depth + 1)
      count += 1
      if not is_known:
        self.notes.once.append(path.rstrip("/"))
        break
    self.notes.loops += 1
    self.notes.iterations += count
    return value

  def _root_type(self, position: int) -> int:
    computation = self._module.computations[position]
    return next((i.shape.element_type for i in computation.instructions
                 if i.id == computation.root_id), hlo_pb2.PRIMITIVE_TYPE_INVALID)

  def _numbers(self, position: int, arguments: Sequence[Value], depth: int) -> Value:
    """The value of a computation as far as it follows from known numbers, without operations."""
    if depth > _MAX_DEPTH:
      return values_lib.NOTHING
    known: dict[int, Value] = {}
    for step in self._ordered(position):
      self._count(step.weight)
      given = [known.get(number, values_lib.NOTHING) for number in step.operands]
      instruction = step.instruction
      opcode = instruction.opcode
      if opcode in ("parameter", "constant", "tuple", "get-tuple-element"):
        value = self._value(position, step, given, (), arguments, "", depth)
      elif step.called and opcode in ("call", "fusion"):
        value = self._numbers(step.called[0], given, depth + 1)
      else:
        value = values_lib.Leaf((), _number(instruction, given))
      known[instruction.id] = value
    return known.get(self._module.computations[position].root_id, values_lib.NOTHING)

  def _branch(self, position: int, step: _Step, given: Sequence[Value], path: str, depth: int
              ) -> Value:
    called = step.called
    index = given[0].number if given and isinstance(given[0], values_lib.Leaf) else None
    if index is None:
      if step.branch is None:
        flops = [self._costs.computation_flops(self._module.computations[at].id) for at in called]
        step.branch = flops.index(max(flops))
      chosen = step.branch
      self.notes.branches.append(path.rstrip("/"))
    elif self._predicate(position, step.instruction):
      chosen = 0 if index else 1
    else:
      # XLA runs the last branch for an index out of range.
      chosen = index if 0 <= index < len(called) else len(called) - 1
    chosen = min(chosen, len(called) - 1)
    argument = given[chosen + 1] if chosen + 1 < len(given) else values_lib.NOTHING
    return self._inline(called[chosen], [argument], path, depth + 1)

  def _predicate(self, position: int, instruction: Instruction) -> bool:
    """Whether a conditional chooses by a truth value: true comes first then."""
    operands = self._costs.operands(position, instruction)
    return bool(operands) and operands[0].shape.element_type == hlo_pb2.PRED

  # ---- operations -------------------------------------------------------------------------------

  def _operation(self, position: int, step: _Step, given: Sequence[Value],
                 after: tuple[int, ...], path: str) -> Value:
    instruction = step.instruction
    opcode = instruction.opcode
    free_call = (opcode == "custom-call"
                 and instruction.custom_call_target in hlo_costs.FREE_CALLS)
    if opcode in hlo_costs.FREE or free_call:
      self.notes.free += opcode != "get-tuple-element"
      if len(given) == 1:
        value = given[0]
        if isinstance(value, values_lib.Leaf) and not values_lib.scalar(instruction):
          return values_lib.Leaf(value.waits)
        return value
      return values_lib.Leaf(self._waits(given))
    waits = self._waits(given)
    if step.communication is None or step.cost is None:
      cost = self._costs.cost(position, instruction)
      role, groups = self._communication(instruction)
      if role in ("collective", "permute", "send", "recv"):
        cost = dataclasses.replace(cost, size=self._sent(position, instruction))
      step.communication, step.cost = (role, self._groups.setdefault(groups, groups)), cost
      step.operator = self._operator(instruction, step.called)
    (role, groups), cost = step.communication, step.cost
    alone = role == "collective" and max(map(len, groups), default=0) <= 1
    if cost.size <= 0 or alone or role == "compute" and cost.operations <= 0:
      self.notes.free += 1
      return values_lib.Leaf(waits)
    self.operations.append(Operation(
        _joined(path, instruction), step.operator, cost, waits,
        tuple(sorted(set(after) - set(waits))), groups, role))
    if len(self.operations) > self._max_operations:
      self._refuse(f"has more than {self._max_operations:,} operations")
    return self._result(instruction, given, step.called)

  def _result(self, instruction: Instruction, given: Sequence[Value], called: Sequence[int]
              ) -> Value:
    """The value of the operation that was added last."""
    own = (len(self.operations) - 1,)
    number = _number(instruction, given)
    if instruction.opcode == "fusion" and called and len(
        self._module.computations[called[0]].instructions) <= _MAX_COUNTER_INSTRUCTIONS:
      result = self._numbers(called[0], given, 0)
      if isinstance(result, values_lib.Parts):
        return values_lib.Parts(tuple(values_lib.Leaf(
            own, part.number if isinstance(part, values_lib.Leaf) else None)
                                      for part in result.members))
      number = result.number
    return values_lib.Leaf(own, number)

  def _communication(self, instruction: Instruction) -> tuple[str, hlo_groups.Groups]:
    opcode = hlo_groups.base_opcode(instruction.opcode)
    if opcode in hlo_groups.COLLECTIVES:
      return "collective", hlo_groups.groups_of(instruction, self._world, self._source)
    if opcode == hlo_groups.PERMUTE:
      return "permute", hlo_groups.pairs_of(instruction, self._world, self._source)
    if opcode in ("send", "recv") and not instruction.is_host_transfer:
      pairs = hlo_groups.pairs_of(instruction, self._world, self._source)
      if pairs:
        return opcode, pairs
    return _TRANSFERS.get(opcode, "compute"), ()

  def _sent(self, position: int, instruction: Instruction) -> int:
    """Bytes that a rank passes into a collective, or that a message has."""
    shapes = [operand.shape for operand in self._costs.operands(position, instruction)]
    opcode = hlo_groups.base_opcode(instruction.opcode)
    if opcode == "recv":
      return hlo_costs.size(instruction.shape.tuple_shapes[0]) if (
          instruction.shape.tuple_shapes) else hlo_costs.size(instruction.shape)
    if opcode in ("send", hlo_groups.PERMUTE, "ragged-all-to-all"):
      shapes = shapes[:1]  # The others are contexts, tokens and offsets.
    return sum(map(hlo_costs.size, shapes))

  def _operator(self, instruction: Instruction, called: Sequence[int]) -> str:
    if instruction.opcode == "custom-call":
      return instruction.custom_call_target or "custom-call"
    if instruction.opcode != "fusion" or not called:
      return hlo_groups.base_opcode(instruction.opcode)
    computation = self._module.computations[called[0]]
    calls = [i.custom_call_target for i in computation.instructions if i.custom_call_target]
    if calls:
      return f"fusion.{calls[0]}"
    inside = {i.opcode for i in computation.instructions}
    for opcode in ("convolution", "dot", "scatter", "sort", "reduce-window", "reduce"):
      if opcode in inside:
        return f"fusion.{opcode}"
    root = next((i.opcode for i in computation.instructions if i.id == computation.root_id), "")
    return f"fusion.{root}" if root and root not in hlo_costs.FREE else "fusion"


def _joined(path: str, instruction: Instruction) -> str:
  return (path + instruction.name[:_MAX_NAME])[:_MAX_NAME]


def _number(instruction: Instruction, given: Sequence[Value]) -> int | None:
  return values_lib.compute(instruction, [
      value.number if isinstance(value, values_lib.Leaf) else None for value in given])


def _trip_count(config: bytes) -> int | None:
  """The number of iterations that the compiler noted; None if it did not."""
  if b"known_trip_count" not in config or len(config) > 1 << 20:
    return None
  try:
    count = int(files.parse_json(config, "the settings")["known_trip_count"]["n"])
  except (errors.DataError, ValueError, KeyError, TypeError):
    return None
  return count if count >= 0 else None
