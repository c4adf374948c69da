"""Kernels and programs: a tile run ranks kernels, so a program is cut into them first.

A tile belongs to one kernel: a loop nest over one result. A program is one kernel if

- it has no loop, branch, communication or transfer to the host;
- it has at most one dot, convolution or library call, three reductions, four results and 1,000
  instructions;
- it was not optimised yet, or its top level has one fusion and nothing else that computes.

Otherwise `split` makes kernels of its parts. After optimisation each fusion is a kernel, as the
compiler decided. What the compiler left outside of fusions, and everything before optimisation, has
one kernel for each dot, convolution, reduction, sort, gather, scatter and transpose. Elementwise
instructions outside of fusions have none: the compiler fuses them with others in ways that the
program does not show.
"""

from collections.abc import Iterable, Iterator
import dataclasses
import hashlib

from tpugraphs_rank import escaping
from tpugraphs_rank.candidates import value_graph
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import limits
from tpugraphs_rank.hlo import order
from tpugraphs_rank.hlo import shapes
from tpugraphs_rank.hlo import stages

_CONTRACTIONS = ("dot", "convolution", "custom-call")
_REDUCTIONS = ("reduce", "reduce-window", "sort", "scatter", "select-and-scatter")
_CONTROL = ("while", "conditional")
_OUTSIDE = (
    "all-gather", "all-reduce", "all-to-all", "collective-", "reduce-scatter", "infeed", "outfeed",
    "recv", "send", "async-", "partition-id", "replica-id")
# They move or name values, and compute nothing.
_TRIVIAL = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "copy", "reshape",
            "broadcast", "iota", "after-all", "add-dependency", "opt-barrier", "domain")
# Instructions outside of fusions that are kernels of their own.
_ALONE = ("dot", "convolution", "reduce", "reduce-window", "sort", "gather", "scatter",
          "select-and-scatter", "transpose")
_ENTERED = ("call", "while", "conditional", "async-start")
_MOST_REDUCTIONS, _MOST_RESULTS, _MOST_INSTRUCTIONS = 3, 4, 1000
_MANY = 10**9


@dataclasses.dataclass(frozen=True)
class Kernel:
  """A part of a program as a program of its own.

  Attributes:
    name: the instruction that it was: a fusion, a dot and so on.
    opcode: of that instruction.
    shape: of its result, as HLO text.
    module: the kernel.
    copies: names of all instructions of the program with the same computation, itself first.
  """

  name: str
  opcode: str
  shape: str
  module: hlo_pb2.HloModuleProto
  copies: tuple[str, ...]


def why_not_one(module: hlo_pb2.HloModuleProto, source: str = "the module") -> str:
  """Why a program is not one kernel, as the end of "the program ..."; "" if it is one.

  Args:
    module: the program.
    source: its name in error messages.

  Raises:
    DataError: computations call one another recursively.
  """
  top = [instruction for computation in _top_computations(module)
         for instruction in computation.instructions]
  fusions = sum(instruction.opcode == "fusion" for instruction in top)
  others = sum(instruction.opcode not in (*_TRIVIAL, "fusion", "call") for instruction in top)
  if fusions and fusions + others > 1:
    return f"has {fusions} fusions" if fusions > 1 else (
        f"has a fusion and {others} other instruction{'s' * (others > 1)} that compute")
  for instruction in top:
    if instruction.opcode in _CONTROL or instruction.opcode.startswith(_OUTSIDE):
      opcode = escaping.shown(instruction.opcode)
      return f"has the instruction {escaping.shown(instruction.name)} ({opcode})"
  results = _results(module)
  if results > _MOST_RESULTS:
    return f"returns {results} arrays"
  if fusions:
    return ""
  counted = _counts(module, source)
  for opcodes, most, what in (
      (_CONTRACTIONS, 1, "dots, convolutions and library calls"),
      (_REDUCTIONS, _MOST_REDUCTIONS, "reductions")):
    number = sum(counted.get(opcode, 0) for opcode in opcodes)
    if number > most:
      return f"has {number} {what}"
  total = sum(counted.values())
  return f"has {total} instructions" if total > _MOST_INSTRUCTIONS else ""


def _results(module: hlo_pb2.HloModuleProto) -> int:
  main = value_graph.entry(module)
  root = next((instruction for instruction in main.instructions
               if instruction.id == main.root_id), None)
  return 1 if root is None else sum(1 for _ in shapes.arrays(root.shape))


def _counts(module: hlo_pb2.HloModuleProto, source: str) -> dict[str, int]:
  """How often a program executes each opcode, if calls are replaced by what they compute."""
  by_id: dict[int, dict[str, int]] = {}
  for position in order.callees_first(module, source):
    computation = module.computations[position]
    counts: dict[str, int] = {}
    for instruction in computation.instructions:
      counts[instruction.opcode] = counts.get(instruction.opcode, 0) + 1
      if instruction.opcode == "call":
        for called in instruction.called_computation_ids:
          for opcode, number in by_id.get(called, {}).items():
            # Calls of calls double the number at each level.
            counts[opcode] = min(counts.get(opcode, 0) + number, _MANY)
    by_id[computation.id] = counts
  return by_id[value_graph.entry(module).id]


def _top_computations(module: hlo_pb2.HloModuleProto) -> Iterator[hlo_pb2.HloComputationProto]:
  """The computations outside of fusions, each once: the entry, and what it calls, loops over or
  branches to."""
  computations = {computation.id: computation for computation in module.computations}
  waiting = [value_graph.entry(module)]
  seen = {waiting[0].id}
  while waiting:
    computation = waiting.pop()
    yield computation
    for instruction in computation.instructions:
      if instruction.opcode in _ENTERED:
        for called in instruction.called_computation_ids:
          if called in computations and called not in seen:
            seen.add(called)
            waiting.append(computations[called])


@dataclasses.dataclass(frozen=True)
class Split:
  """The kernels of a program.

  Attributes:
    kernels: one of each computation, in the order of the program.
    opaque: number of library calls, whose computation the program does not contain.
    fused_later: number of elementwise instructions outside of fusions.
  """

  kernels: tuple[Kernel, ...]
  opaque: int
  fused_later: int


def split(module: hlo_pb2.HloModuleProto, stage: str, source: str = "the module") -> Split:
  """Cuts a program into kernels. Equal computations are one kernel.

  Args:
    module: the program.
    stage: HLO stage of the run's training graphs. After optimisation, a kernel is a program with
      one fusion instruction, as in the public data; before, it is what the fusion computes.
    source: the program's name in error messages.

  Raises:
    LimitError: the kernels have too many instructions together.
  """
  computations = _Computations(module)
  found: dict[bytes, Kernel] = {}
  copies: dict[bytes, list[str]] = {}
  opaque = fused_later = size = 0
  for computation in _top_computations(module):
    operands = {instruction.id: instruction for instruction in computation.instructions}
    for instruction in computation.instructions:
      called = [computations.by_id[key] for key in instruction.called_computation_ids
                if key in computations.by_id]
      if instruction.opcode == "fusion" and called:
        kernel = (_whole(called[0], computations) if stage == stages.BEFORE
                  else _single(instruction, operands, computations))
      elif instruction.opcode in _ALONE:
        kernel = _single(instruction, operands, computations)
      else:
        opaque += instruction.opcode == "custom-call"
        fused_later += (instruction.opcode not in (*_TRIVIAL, *_ENTERED, "custom-call")
                        and len(instruction.shape.dimensions) > 0)
        continue
      size += sum(1 + len(part.instructions) for part in kernel.computations)
      limits.check(size, limits.KERNEL_INSTRUCTIONS, f"{source}: the number of instructions of its "
                   "kernels, each with the computations that it calls,",
                   "rank a smaller part of the program")
      kernel.name = instruction.name
      key = _digest(kernel)
      name = instruction.name
      copies.setdefault(key, []).append(name)
      if key not in found:
        found[key] = Kernel(name, instruction.opcode, shapes.text(instruction.shape), kernel, ())
  kernels = tuple(dataclasses.replace(kernel, copies=tuple(copies[key]))
                  for key, kernel in found.items())
  return Split(kernels, opaque, fused_later)


class _Computations:
  """The computations of a program.

  Attributes:
    by_id: each, by its id.
    free_id: an id that none has.
  """

  def __init__(self, module: hlo_pb2.HloModuleProto):
    self.by_id = {computation.id: computation for computation in module.computations}
    self.free_id = max(self.by_id, default=0) + 1
    self._places = {key: place for place, key in enumerate(self.by_id)}

  def called(self, instructions: Iterable[hlo_pb2.HloInstructionProto]
             ) -> list[hlo_pb2.HloComputationProto]:
    """All that some instructions call, directly or not, in the order of the program."""
    reached: set[int] = set()
    waiting = [key for instruction in instructions for key in instruction.called_computation_ids]
    while waiting:
      key = waiting.pop()
      if key in self.by_id and key not in reached:
        reached.add(key)
        waiting += [called for instruction in self.by_id[key].instructions
                    for called in instruction.called_computation_ids]
    return [self.by_id[key] for key in sorted(reached, key=self._places.__getitem__)]


def _whole(computation: hlo_pb2.HloComputationProto, computations: _Computations
           ) -> hlo_pb2.HloModuleProto:
  """What a fusion computes, as a program."""
  return hlo_pb2.HloModuleProto(
      entry_computation_id=computation.id, entry_computation_name=computation.name,
      computations=[*computations.called(computation.instructions), computation])


def _single(instruction: hlo_pb2.HloInstructionProto,
            operands: dict[int, hlo_pb2.HloInstructionProto],
            computations: _Computations) -> hlo_pb2.HloModuleProto:
  """One instruction as a program, whose parameters are its operands. Scalar constants stay."""
  number = computations.free_id
  main = hlo_pb2.HloComputationProto(id=number, name="main")
  parameters = 0
  numbers: dict[int, int] = {}
  for key in instruction.operand_ids:
    if key in numbers or key not in operands:
      continue
    operand = operands[key]
    numbers[key] = len(main.instructions) + 1
    is_constant = operand.opcode == "constant" and not operand.shape.dimensions
    main.instructions.add(
        id=numbers[key], name=operand.name, shape=operand.shape,
        opcode="constant" if is_constant else "parameter",
        parameter_number=0 if is_constant else parameters)
    parameters += not is_constant
  root = main.instructions.add()
  root.CopyFrom(instruction)
  root.id = len(main.instructions)
  del root.operand_ids[:]
  root.operand_ids.extend(numbers[key] for key in instruction.operand_ids if key in numbers)
  main.root_id = root.id
  return hlo_pb2.HloModuleProto(
      entry_computation_id=number, entry_computation_name="main",
      computations=[*computations.called([instruction]), main])


def _digest(module: hlo_pb2.HloModuleProto) -> bytes:
  """A digest of what a kernel computes, whatever its names and ids."""
  computations = {computation.id: place for place, computation in enumerate(module.computations)}
  digest = hashlib.sha256()
  for computation in module.computations:
    places = {instruction.id: place for place, instruction in enumerate(computation.instructions)}
    for instruction in computation.instructions:
      plain = hlo_pb2.HloInstructionProto()
      plain.CopyFrom(instruction)
      plain.DiscardUnknownFields()
      plain.ClearField("name")
      plain.id = places[instruction.id]
      for field, numbers in ((plain.operand_ids, places),
                             (plain.called_computation_ids, computations)):
        renumbered = [numbers.get(key, -1) for key in field]
        del field[:]
        field.extend(renumbered)
      digest.update(plain.SerializeToString(deterministic=True))
    digest.update(places.get(computation.root_id, -1).to_bytes(8, "little", signed=True))
  return digest.digest()
