"""Operations and bytes of HLO instructions, a function of their shapes alone.

Operations, where n is the number of elements of the result:

  elementwise                    n; exponentials, roots and the like count as one operation each
  dot                            2 n k, with k the product of the contracted extents
  convolution                    2 x the products of an input and a kernel element that exist, as
                                 padding and the zeros of a base dilation need none
  reduce                         (elements reduced - results) x operations of its computation
  reduce-window                  n (window - 1) x operations of its computation
  select-and-scatter             n (window - 1) x those of its selection + sources x its scatter
  map, scatter                   n, or elements of the updates, x operations of its computation
  sort                           n ceil(log2 n), with n the elements of its first operand
  fft                            5 n ceil(log2(length)), with n the elements of the input
                                 or the result, the larger number
  cholesky                       n m / 3 for matrices of m rows
  triangular-solve               n m
  batch-norm-training, -grad, -inference    8 n, 12 n, 4 n
  fusion                         the sum over its instructions
  cuBLAS and cuDNN calls         as dot, and 2 x outputs x kernel elements of one output
  all others                     0: they move data
  other custom calls and opcodes that this module does not know    0, and they are reported

An instruction with 0 operations that moves data counts one operation for each element that it
writes (`Cost.operations`): simulators divide by the operations of a node. At the rates of real
devices its bytes decide its time.

Bytes: of all operands and results, as often as they are used, with these exceptions.

  slice, dynamic-slice, gather           read as much as they write, and their indices
  dynamic-update-slice, scatter          are in place: they read the update and the indices, and
                                         write the update (scatter reads what it updates, too)
  fusion                                 an operand that only such instructions use is read as far
                                         as they do; a result that such an instruction gives is
                                         written as far as it does
  iota, constants                        read nothing

For elementwise instructions, dot, convolution, reductions, windows and sort, these are the numbers
of XLA's own cost analysis (flops and transcendentals together; bytes accessed).
"""

from collections.abc import Sequence
import dataclasses
import math

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank.chakra import hlo_convolutions
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import order
from tpugraphs_rank.hlo import shapes

Instruction = hlo_pb2.HloInstructionProto

LARGEST = 2 ** 63 - 1
_MAX_CONFIG = 1 << 20
# Results of a fusion.
_MAX_RESULTS = 10_000
# Parameters that one instruction may be a view of; those of others count as read whole.
_MAX_VIEWED = 64
_BITS = {
    "pred": 8, "token": 0, "opaque": 0, "tuple": 0, "c64": 64, "c128": 128, "bf16": 16,
    "f4e2m1fn": 4}
# Nothing runs for these.
FREE = frozenset("""
    parameter constant tuple get-tuple-element bitcast bitcast-convert reshape dynamic-reshape
    after-all add-dependency opt-barrier optimization-barrier domain partition-id replica-id
    get-dimension-size set-dimension-size trace copy-done async-done async-update all-gather-done
    all-reduce-done collective-permute-done send-done recv-done
""".split())
# Custom calls that the partitioner removes.
FREE_CALLS = frozenset(("Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"))
_ELEMENTWISE = frozenset("""
    abs acos acosh add and asin asinh atan2 atanh cbrt ceil clamp compare complex convert cosine
    cosh count-leading-zeros divide erf exponential exponential-minus-one floor imag is-finite log
    log-plus-one logistic maximum minimum multiply negate not or popcnt power real reduce-precision
    remainder round-nearest-afz round-nearest-even rsqrt select shift-left shift-right-arithmetic
    shift-right-logical sign sine sinh sqrt stochastic-convert subtract tan tanh xor rng
    rng-bit-generator
""".split())
_MOVES = frozenset("""
    broadcast concatenate copy copy-start dynamic-slice dynamic-update-slice gather iota pad reverse
    rng-get-and-update-state slice transpose tuple-select infeed outfeed send recv all-reduce
    all-reduce-start all-gather all-gather-start reduce-scatter all-to-all ragged-all-to-all
    collective-permute collective-permute-start collective-broadcast
""".split())
_BATCH_NORM = {"batch-norm-training": 8, "batch-norm-grad": 12, "batch-norm-inference": 4}
_PARTIAL_READS = ("slice", "dynamic-slice", "gather")
_IN_PLACE = ("dynamic-update-slice", "scatter")
_VIEWS = ("bitcast", "reshape", "bitcast-convert")


@dataclasses.dataclass(frozen=True)
class Cost:
  """What an instruction costs.

  Attributes:
    flops: operations on numbers.
    moved: elements that it writes.
    size: bytes that it reads and writes.
  """

  flops: int
  moved: int
  size: int

  @property
  def operations(self) -> int:
    """`flops`; of an instruction that only moves data, the elements that it writes."""
    return self.flops or self.moved


def elements(shape: hlo_pb2.ShapeProto) -> int:
  """The number of elements of all arrays of a shape."""
  return sum(math.prod(array.dimensions) for array in shapes.arrays(shape)
             if _element_bits(array.element_type))


def size(shape: hlo_pb2.ShapeProto) -> int:
  """Bytes of all arrays of a shape; numbers of less than a byte are packed."""
  return sum(-(-math.prod(array.dimensions) * _element_bits(array.element_type) // 8)
             for array in shapes.arrays(shape))


def _element_bits(number: int) -> int:
  name = shapes.element_type(number)
  if name in _BITS:
    return _BITS[name]
  digits = "".join(char if char.isdigit() else " " for char in name).split()
  return int(digits[0]) if digits and name[0] in "suf" else 0


class CostModel:
  """Costs of the instructions of a module.

  Args:
    module: a checked module: its operands exist, no computation calls itself.
    source: its name in error messages.
  """

  def __init__(self, module: hlo_pb2.HloModuleProto, source: str):
    self._source = source
    self._module = module
    self._where = order.computation_positions(module, source)
    self._by_id = [{i.id: i for i in computation.instructions}
                   for computation in module.computations]
    self._flops: dict[int, int] = {}
    self._read_of: dict[int, dict[int, int]] = {}
    # Kinds of instructions whose operations are not known, and how many the module has.
    self.unknown: dict[str, int] = {}
    for position in order.callees_first(module, source):
      self._flops[position] = sum(
          self.flops(position, i) for i in module.computations[position].instructions)

  def computation_flops(self, number: int) -> int:
    """Operations of the computation with this id, run once."""
    return self._flops.get(self._where.get(number, -1), 0)

  def cost(self, position: int, instruction: Instruction) -> Cost:
    """The cost of an instruction of the computation at a position of the module.

    Raises:
      DataError: its shapes do not fit its kind.
      LimitError: a number is above 2^63 - 1.
    """
    operands = self.operands(position, instruction)
    written = self._written(position, instruction)
    read = sum(self._read(instruction, operands, place) for place in range(len(operands)))
    result = Cost(self.flops(position, instruction), sum(map(elements, written)),
                  sum(map(size, written)) + read)
    for number in (result.flops, result.moved, result.size):
      if number > LARGEST:
        raise errors.LimitError(
            f"{self._named(instruction)}: its cost is {number:.3g}; the limit is 2^63 - 1; check "
            "the shapes of the program")
    return result

  def operands(self, position: int, instruction: Instruction) -> list[Instruction]:
    """The instructions that give the operands."""
    by_id = self._by_id[position]
    return [by_id[number] for number in instruction.operand_ids if number in by_id]

  def _named(self, instruction: Instruction) -> str:
    return f"{self._source}: instruction {escaping.quoted(instruction.name)}"

  # ---- operations -------------------------------------------------------------------------------

  def flops(self, position: int, instruction: Instruction) -> int:
    """Operations of an instruction, with those of computations that run for it."""
    opcode, shape = instruction.opcode, instruction.shape
    if opcode in FREE or opcode in _MOVES:
      return 0
    if opcode in _ELEMENTWISE:
      return elements(shape)
    called = [self.computation_flops(number) for number in instruction.called_computation_ids]
    if opcode in ("fusion", "call", "while", "async-start"):
      return sum(called)
    if opcode == "conditional":
      return max(called, default=0)
    operands = self.operands(position, instruction)
    try:
      return self._other_flops(instruction, [operand.shape for operand in operands], called)
    except (IndexError, ZeroDivisionError):
      raise errors.DataError(
          f"{self._named(instruction)}: its operands do not fit {escaping.quoted(opcode)}; "
          "expected shapes and dimension numbers that fit; the file is damaged: dump the program "
          "again") from None

  def _other_flops(self, instruction: Instruction, given: Sequence[hlo_pb2.ShapeProto],
                   called: Sequence[int]) -> int:
    opcode, count = instruction.opcode, elements(instruction.shape)
    if opcode in ("dot", "ragged-dot", "scaled-dot"):
      axes = list(instruction.dot_dimension_numbers.lhs_contracting_dimensions)
      if not instruction.HasField("dot_dimension_numbers"):
        axes = [len(given[0].dimensions) - 1]
      return dot_flops(count, given[0], axes)
    if opcode == "convolution":
      return hlo_convolutions.flops(instruction, given[0], self._named(instruction))
    if opcode == "custom-call":
      return self._call_flops(instruction, given)
    if opcode == "reduce":
      arrays = max(len(given) // 2, 1)
      reduced = math.prod(given[0].dimensions) - count // arrays
      return max(reduced, 0) * sum(called)
    if opcode == "reduce-window":
      window = math.prod(axis.size for axis in instruction.window.dimensions)
      return max(window - 1, 0) * (count // max(len(given) // 2, 1)) * sum(called)
    if opcode == "select-and-scatter":
      window = math.prod(axis.size for axis in instruction.window.dimensions)
      return max(window - 1, 0) * elements(given[1]) * called[0] + elements(given[1]) * called[1]
    if opcode == "map":
      return count * sum(called)
    if opcode == "scatter":
      return elements(given[-1]) * sum(called)
    if opcode in ("sort", "topk"):
      first = elements(given[0])
      return first * max(first - 1, 0).bit_length()
    if opcode == "fft":
      inner = math.prod(instruction.fft_length)
      return 5 * max(count, elements(given[0])) * max(inner - 1, 1).bit_length()
    if opcode == "cholesky":
      return count * given[0].dimensions[-1] // 3
    if opcode == "triangular-solve":
      return elements(given[1]) * given[0].dimensions[-1]
    if opcode in _BATCH_NORM:
      return _BATCH_NORM[opcode] * elements(given[0])
    self.unknown[opcode] = self.unknown.get(opcode, 0) + 1
    return 0

  def _call_flops(self, instruction: Instruction, given: Sequence[hlo_pb2.ShapeProto]) -> int:
    target = instruction.custom_call_target
    if target in FREE_CALLS:
      return 0
    result = next(shapes.arrays(instruction.shape), instruction.shape)
    if target.startswith("__cublas$"):
      axes = _gemm_axes(instruction.backend_config)
      if axes is not None:
        return dot_flops(elements(result), given[0], axes)
    if target.startswith("__cudnn$conv") and instruction.HasField("convolution_dimension_numbers"):
      kernel, outputs = given[1], result
      if "BackwardInput" in target:
        outputs = given[0]
      elif "BackwardFilter" in target:
        kernel, outputs = result, given[1]
      features = kernel.dimensions[
          instruction.convolution_dimension_numbers.kernel_output_feature_dimension]
      return 2 * elements(outputs) * elements(kernel) // features
    key = f"custom-call {escaping.shown(target, 60)}"
    self.unknown[key] = self.unknown.get(key, 0) + 1
    return 0

  # ---- bytes ------------------------------------------------------------------------------------

  def _written(self, position: int, instruction: Instruction) -> list[hlo_pb2.ShapeProto]:
    """The shapes of what an instruction writes."""
    operands = self.operands(position, instruction)
    if instruction.opcode in _IN_PLACE and len(operands) > 1:
      return [_update(instruction, operands).shape]
    if instruction.opcode != "fusion" or not instruction.called_computation_ids:
      return [_results(instruction)]
    fused = self._where.get(instruction.called_computation_ids[0])
    if fused is None:
      return [instruction.shape]
    by_id = self._by_id[fused]
    result: list[hlo_pb2.ShapeProto] = []
    waiting = [by_id.get(self._module.computations[fused].root_id)]
    while waiting:
      part = waiting.pop()
      while part is not None and part.opcode in _VIEWS and part.operand_ids:
        part = by_id.get(part.operand_ids[0])
      # A damaged program can nest tuples of tuples that are far larger than their stated shape.
      if part is None or len(waiting) + len(result) > _MAX_RESULTS:
        return [instruction.shape]
      if part.opcode == "tuple":
        waiting += [by_id.get(number) for number in part.operand_ids]
      else:
        result += [part.shape] if part.opcode == "fusion" else self._written(fused, part)
    # A tuple may name one result several times.
    return result if sum(map(size, result)) <= size(instruction.shape) else [instruction.shape]

  def _read(self, instruction: Instruction, operands: Sequence[Instruction], place: int) -> int:
    opcode, full = instruction.opcode, size(operands[place].shape)
    if opcode in _PARTIAL_READS and place == 0:
      return min(size(instruction.shape), full)
    if opcode == "dynamic-update-slice" and place == 0:
      return 0
    if opcode == "scatter" and place < max(len(operands) // 2, 1):
      return min(size(_update(instruction, operands).shape), full)
    if opcode == "fusion" and instruction.called_computation_ids:
      fused = self._where.get(instruction.called_computation_ids[0])
      if fused is not None:
        return min(self._read_inside(fused, place), full)
    return full

  def _read_inside(self, fused: int, number: int) -> int:
    """Bytes that a fused computation reads of one of its parameters; at most 2^63 - 1."""
    if fused not in self._read_of:
      self._read_of[fused] = self._read_of_all(fused)
    return self._read_of[fused].get(number, LARGEST)

  def _read_of_all(self, fused: int) -> dict[int, int]:
    """For each parameter of a fused computation the bytes that it reads, in a single pass."""
    computation = self._module.computations[fused]
    totals: dict[int, int] = {}
    # The parameters that an instruction is a view of.
    viewed: dict[int, tuple[int, ...]] = {}
    for instruction in computation.instructions:
      if instruction.opcode == "parameter" and instruction.parameter_number not in totals:
        totals[instruction.parameter_number] = 0
        viewed[instruction.id] = (instruction.parameter_number,)
    for user in computation.instructions:
      is_root = user.id == computation.root_id
      if is_root:
        totals |= dict.fromkeys(viewed.get(user.id, ()), LARGEST)
      places: dict[int, list[int]] = {}
      for at, operand in enumerate(user.operand_ids):
        for number in viewed.get(operand, ()):
          places.setdefault(number, []).append(at)
      if not places:
        continue
      if user.opcode in _VIEWS:
        viewed[user.id] = tuple({*viewed.get(user.id, ()), *places})
        if is_root or len(viewed[user.id]) > _MAX_VIEWED:
          totals |= dict.fromkeys(viewed.pop(user.id), LARGEST)
        continue
      for number, own in places.items():
        if own == [0] and user.opcode in _PARTIAL_READS:
          totals[number] = min(totals[number] + size(user.shape), LARGEST)
        elif not (own == [0] and user.opcode == "dynamic-update-slice"):
          totals[number] = LARGEST
    return totals


def dot_flops(results: int, lhs: hlo_pb2.ShapeProto, contracted: Sequence[int]) -> int:
  """Operations of a matrix product: 2 x results x contracted extents."""
  if any(axis < 0 for axis in contracted):
    raise IndexError
  return 2 * results * math.prod(lhs.dimensions[axis] for axis in contracted)


def _update(instruction: Instruction, operands: Sequence[Instruction]) -> Instruction:
  return operands[1 if instruction.opcode == "dynamic-update-slice" else -1]


def _results(instruction: Instruction) -> hlo_pb2.ShapeProto:
  """The shape of what an instruction writes: without workspaces and contexts."""
  shape = instruction.shape
  call = instruction.opcode == "custom-call" and instruction.custom_call_target.startswith("__cu")
  if (call or instruction.opcode == "copy-start") and shape.tuple_shapes:
    return shape.tuple_shapes[0]
  return shape


def _gemm_axes(config: bytes) -> list[int] | None:
  """The axes that a cuBLAS call contracts, from its settings; None if they do not say."""
  if len(config) > _MAX_CONFIG:
    return None
  try:
    value = files.parse_json(config, "the settings")
    value = value.get("gemm_backend_config", value)
    axes = value["dot_dimension_numbers"]["lhs_contracting_dimensions"]
    return [int(axis) for axis in axes]
  except (errors.DataError, ValueError, KeyError, TypeError, AttributeError):
    return None
