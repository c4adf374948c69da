"""Reads a module of HLO text: header, computations, instructions."""

import re

from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import limits
from tpugraphs_rank.hlo.text import attributes
from tpugraphs_rank.hlo.text import communication
from tpugraphs_rank.hlo.text import modules
from tpugraphs_rank.hlo.text import scanner as scanning
from tpugraphs_rank.hlo.text import shapes

_HEADER = re.compile(r"HloModule\b")
_MODULE_NAME = re.compile(r"[^\s,]+")
_ENTRY = re.compile(r"ENTRY\b(?!\s*=)")
_HEAD = re.compile(r"(ROOT\s+)?%?([A-Za-z_0-9][\w.\-]*)\s*=", re.ASCII)
_OPCODE = re.compile(r"([a-z][a-z0-9\-]*)\s*(?=\()")
_PARAMETER = re.compile(r"\(\s*([0-9]{1,18})\s*\)")
_ATTRIBUTE = re.compile(r",\s*([A-Za-z_][\w.\-]*)\s*=", re.ASCII)
# Tables of source locations, which newer versions of XLA print before the computations.
_TABLE = re.compile(r"(?:FileNames|FunctionNames|FileLocations|StackFrames)\b")
_COUNTS = ("replica_count", "num_partitions")
_COUNT = re.compile(r"[0-9]{1,9}")
_TABLE_ROW = re.compile(r"[0-9]+\s+(?=[\"'{])")
# Operations whose group counts are 1 where the text has none.
_GROUPED = ("convolution", "custom-call")
# Operations that have a window, even where it has no axes.
_WINDOWED = ("convolution", "reduce-window", "select-and-scatter")
# Any other operation that ends with one of these starts or ends an asynchronous computation, which
# consists of the operation without this ending.
_ASYNCHRONOUS = re.compile(r"(.+)-(start|update|done)")
_OPCODES_WITH_SUCH_ENDINGS = frozenset((
    "all-gather-start", "all-gather-done", "all-reduce-start", "all-reduce-done", "async-start",
    "async-update", "async-done", "collective-permute-start", "collective-permute-done",
    "copy-start", "copy-done", "send-done", "recv-done"))


def parse(text: str, source: str) -> hlo_pb2.HloModuleProto:
  """The module that a text describes.

  Args:
    text: the text of a module, or only of its computations: then the module has no name. Comments
      and white space may come before it.
    source: its name in error messages.

  Returns:
    The module, with instructions in the order in which XLA serialises them. Ids are consecutive
    numbers, since the text has none.

  Raises:
    DataError: the text is no module, is cut off, or refers to something that it does not define;
      the message names line and column.
    LimitError: it has too many instructions.
  """
  return _Parser(text, source).module()


class _Parser:
  """Reads one module."""

  def __init__(self, text: str, source: str):
    self._scanner = scanning.Scanner(text, source)
    self._shapes = shapes.Shapes(self._scanner)
    # By XLA, which marks the entry computation. Text by hand may leave the mark out.
    self._is_printed = False
    self._count = 0
    self._counted = f"{source}: the number of instructions"

  def module(self) -> hlo_pb2.HloModuleProto:
    scanner = self._scanner
    name, counts = self._header()
    computations = []
    while scanner.peek():
      computations.append(self._computation())
    if not computations:
      raise scanner.error("expected at least one computation; the text is cut off")
    if self._is_printed and not any(computation.is_entry for computation in computations):
      raise scanner.error(
          "expected the computation that is marked as ENTRY; the text is cut off")
    module = modules.build(name, computations, scanner)
    if counts:
      module.device_assignment.replica_count = counts.get("replica_count", 1)
      module.device_assignment.computation_count = counts.get("num_partitions", 1)
    return module

  def _header(self) -> tuple[str, dict[str, int]]:
    """Passes over what comes before the computations.

    Returns:
      The name of the module, and how many replicas and partitions it has, if it says so.
    """
    scanner = self._scanner
    counts: dict[str, int] = {}
    if not scanner.match(_HEADER):
      return "", counts
    name = scanner.match(_MODULE_NAME)
    if name is None:
      raise scanner.error("expected the name of the module")
    while attribute := scanner.match(_ATTRIBUTE):
      value = scanner.value()
      self._is_printed |= attribute[1] == "entry_computation_layout"
      if attribute[1] in _COUNTS and _COUNT.fullmatch(value):
        counts[attribute[1]] = int(value)
    while scanner.match(_TABLE):
      while scanner.match(_TABLE_ROW):
        scanner.value()
    return name[0], counts

  def _computation(self) -> modules.Computation:
    scanner = self._scanner
    is_entry = scanner.match(_ENTRY) is not None
    name = scanner.match(scanning.NAME)
    if name is None:
      raise scanner.error(f"expected a computation, but there is {scanner.upcoming()}")
    computation = modules.Computation(name[1], name.start(), is_entry)
    if scanner.peek() == "(":
      scanner.group()
      scanner.expect("->", "after the parameters of a computation")
      self._shapes.read()
    scanner.expect("{", f"at the start of computation {name[1]!r}")
    while not scanner.take("}"):
      computation.instructions.append(self._instruction())
      self._count += 1
      limits.check(self._count, limits.INSTRUCTIONS, self._counted,
                   "use a smaller part of the program")
    while scanner.match(_ATTRIBUTE):
      scanner.value()
    return computation

  def _instruction(self) -> modules.Instruction:
    scanner = self._scanner
    head = scanner.match(_HEAD)
    if head is None:
      raise scanner.error(
          f"expected an instruction such as `name = f32[2]{{0}} add(a, b)` or '}}', but there is "
          f"{scanner.upcoming()}")
    proto = hlo_pb2.HloInstructionProto(name=head[2])
    instruction = modules.Instruction(proto, head.start(2), is_root=bool(head[1]))
    proto.shape.CopyFrom(self._shapes.read())
    opcode = scanner.match(_OPCODE)
    if opcode is None:
      raise scanner.error(
          f"expected the operation of {proto.name!r}, but there is {scanner.upcoming()}")
    proto.opcode = opcode[1]
    target = self._asynchronous(instruction) or instruction
    if target.proto.opcode in _GROUPED:
      target.proto.feature_group_count = target.proto.batch_group_count = 1
    if target.proto.opcode in _WINDOWED:
      target.proto.window.SetInParent()
    if proto.opcode == "parameter":
      number = scanner.match(_PARAMETER)
      if number is None:
        raise scanner.error(
            f"expected the number of parameter {proto.name!r}, but there is {scanner.upcoming()}")
      proto.parameter_number = int(number[1])
    elif proto.opcode == "constant":
      scanner.blank()
      communication.constant(proto, scanner.group())
    else:
      self._operands(instruction)
    while attribute := scanner.match(_ATTRIBUTE):
      self._attribute(instruction, target, attribute[1])
    return instruction

  def _asynchronous(self, instruction: modules.Instruction) -> modules.Instruction | None:
    """Changes `<opcode>-start` to `async-start`, and returns the operation that it wraps."""
    opcode = instruction.proto.opcode
    found = _ASYNCHRONOUS.fullmatch(opcode)
    if found is None or opcode in _OPCODES_WITH_SUCH_ENDINGS:
      return None
    instruction.proto.opcode = f"async-{found[2]}"
    wrapped = modules.Instruction(
        hlo_pb2.HloInstructionProto(name="async_op", opcode=found[1]), instruction.position)
    if found[2] == "start":
      instruction.wrapped = wrapped
    return wrapped

  def _operands(self, instruction: modules.Instruction) -> None:
    scanner = self._scanner
    scanner.expect("(", "before the operands")
    while not scanner.take(")"):
      if instruction.operands:
        scanner.expect(",", "or ')' after an operand")
      if self._shapes.comes_next():
        self._shapes.read()
      name = scanner.match(scanning.NAME)
      if name is None or scanner.peek() == "(":
        raise scanner.error(
            f"expected the name of an operand of {instruction.proto.name!r}, but there is "
            f"{scanner.upcoming()}")
      instruction.operands.append(modules.Reference(name[1], name.start(1)))

  def _attribute(
      self, instruction: modules.Instruction, target: modules.Instruction, name: str) -> None:
    """Reads the value of an attribute, and sets the field that belongs to it."""
    scanner = self._scanner
    scanner.blank()
    start = scanner.position
    value = scanner.value()
    try:
      if name in attributes.CALLED:
        target.called += [modules.Reference(called, start) for called in attributes.names(value)]
      elif name == attributes.CONTROL_PREDECESSORS:
        instruction.predecessors += [
            modules.Reference(predecessor, start) for predecessor in attributes.names(value)]
      else:
        attributes.apply(target.proto, name, value)
    except attributes.Malformed as error:
      raise scanner.error(
          f"attribute {name} of {instruction.proto.name!r} is {value[:40]!r}; {error}",
          start) from None
