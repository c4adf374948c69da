"""Changes of programs that keep what they compute, and changes that damage them."""

from collections.abc import Callable
import random

from tests.candidates import small_programs
from tests.candidates import tile_oracle
from tpugraphs_rank.hlo import hlo_pb2

Module = hlo_pb2.HloModuleProto
Computation = hlo_pb2.HloComputationProto


def program(kernel: tile_oracle.Kernel, rng: random.Random) -> Module:
  """A kernel as a program: perhaps called through other computations, perhaps with more results."""
  module, main = small_programs.program("k")
  main.root_id = kernel.build(module, main)
  for _ in range(rng.choice([0, 0, 0, 1, 2, 30])):
    main = _called(module, main, kernel, rng)
  if rng.random() < 0.4:
    _more_results(main, kernel, rng)
  module.entry_computation_id = main.id
  return module


def _called(module: Module, inner: Computation, kernel: tile_oracle.Kernel, rng: random.Random
            ) -> Computation:
  """A computation that only calls another."""
  outer = module.computations.add(id=inner.id + 1, name=f"c{inner.id + 1}")
  operands = [small_programs.add(outer, "parameter", shape, parameter_number=number)
              for number, shape in enumerate(kernel.parameters)]
  root = next(i for i in inner.instructions if i.id == inner.root_id)
  small_programs.add(outer, rng.choice(["call", "fusion"]), [], operands,
                     called_computation_ids=[inner.id])
  outer.instructions[-1].shape.CopyFrom(root.shape)
  return outer


def _more_results(main: Computation, kernel: tile_oracle.Kernel, rng: random.Random) -> None:
  """Returns a tuple with smaller arrays before the result, in a tuple of its own or not."""
  root = main.root_id
  small = small_programs.add(main, "constant", [])
  if rng.random() < 0.5:
    inner = small_programs.add(main, "tuple", [], [small, root])
    small_programs.add(main, "tuple", [], [small, inner, small])
  else:
    pair = small_programs.add(main, "tuple", [], [small, root])
    small_programs.add(main, "get-tuple-element", [], [pair], tuple_index=1)


# ---- changes that keep the kernel ---------------------------------------------------------------


def _shuffle_instructions(module: Module, rng: random.Random) -> None:
  for computation in module.computations:
    shuffled = list(computation.instructions)
    rng.shuffle(shuffled)
    copies = [hlo_pb2.HloInstructionProto.FromString(i.SerializeToString()) for i in shuffled]
    del computation.instructions[:]
    computation.instructions.extend(copies)


def _shuffle_computations(module: Module, rng: random.Random) -> None:
  shuffled = [Computation.FromString(c.SerializeToString()) for c in module.computations]
  rng.shuffle(shuffled)
  del module.computations[:]
  module.computations.extend(shuffled)


def _renumber(module: Module, rng: random.Random) -> None:
  """New ids, which several computations share or which are large."""
  numbers = {c.id: number for c, number in zip(
      module.computations, rng.sample(range(1, 2**40), len(module.computations)))}
  start = rng.choice([1, 2**33])
  for computation in module.computations:
    ids = {i.id: start + k for i, k in zip(computation.instructions, rng.sample(
        range(len(computation.instructions)), len(computation.instructions)))}
    computation.id, computation.root_id = numbers[computation.id], ids[computation.root_id]
    for instruction in computation.instructions:
      instruction.id = ids[instruction.id]
      instruction.operand_ids[:] = [ids[key] for key in instruction.operand_ids]
      instruction.called_computation_ids[:] = [
          numbers[key] for key in instruction.called_computation_ids]
  module.entry_computation_id = numbers[module.entry_computation_id]


def _name_the_entry(module: Module, rng: random.Random) -> None:
  """The entry is named instead of numbered."""
  [main] = [c for c in module.computations if c.id == module.entry_computation_id]
  main.name = "the entry"
  module.entry_computation_name, module.entry_computation_id = "the entry", 0


def _hostile_names(module: Module, rng: random.Random) -> None:
  for computation in module.computations:
    for instruction in computation.instructions:
      instruction.name = rng.choice(["\x1b[2J", "a\nERROR b", "", "x" * 5000, "\u202e"])


def _unused_instructions(module: Module, rng: random.Random) -> None:
  for computation in module.computations:
    root = computation.root_id
    x = small_programs.add(computation, "constant", [2, 2])
    small_programs.add(computation, "negate", [2, 2], [x])
    computation.root_id = root


def _without_layouts(module: Module, rng: random.Random) -> None:
  for computation in module.computations:
    for instruction in computation.instructions:
      instruction.shape.ClearField("layout")


KEEPING: tuple[Callable[[Module, random.Random], None], ...] = (
    _unused_instructions, _shuffle_instructions, _shuffle_computations, _renumber, _hostile_names,
    _without_layouts, _name_the_entry)


# ---- changes that damage the kernel --------------------------------------------------------------


def _main(module: Module) -> Computation:
  return next(c for c in module.computations if c.id == module.entry_computation_id)


def _any(module: Module, rng: random.Random) -> hlo_pb2.HloInstructionProto:
  return rng.choice([i for c in module.computations for i in c.instructions])


def _with_axes(module: Module, rng: random.Random) -> hlo_pb2.HloInstructionProto | None:
  arrays = [i for c in module.computations for i in c.instructions if i.shape.dimensions]
  return rng.choice(arrays) if arrays else None


def _set_extent(extent: int) -> Callable[[Module, random.Random], bool]:
  def change(module: Module, rng: random.Random) -> bool:
    instruction = _with_axes(module, rng)
    if instruction is None:
      return False
    dimensions = instruction.shape.dimensions
    dimensions[rng.randrange(len(dimensions))] = extent
    return True
  return change


def _too_many_axes(module: Module, rng: random.Random) -> bool:
  instruction = _with_axes(module, rng)
  if instruction is not None:
    instruction.shape.dimensions.extend([2] * 300)
  return instruction is not None


def _no_such_operand(module: Module, rng: random.Random) -> bool:
  _any(module, rng).operand_ids.append(rng.choice([-1, 2**62, 123_456_789]))
  return True


def _no_such_computation(module: Module, rng: random.Random) -> bool:
  instruction = small_programs.add(_main(module), "call", [2])
  _main(module).instructions[-1].called_computation_ids.append(2**50)
  return instruction >= 0


def _no_such_root(module: Module, rng: random.Random) -> bool:
  rng.choice(module.computations).root_id = 2**50
  return True


def _repeated_id(module: Module, rng: random.Random) -> bool:
  computation = rng.choice(module.computations)
  computation.instructions.add(opcode="constant", id=computation.instructions[0].id)
  return True


def _cycle(module: Module, rng: random.Random) -> bool:
  main = _main(module)
  first, second = small_programs.add(main, "negate", [2]), small_programs.add(main, "negate", [2])
  main.instructions[-2].operand_ids[:] = [second]
  main.instructions[-1].operand_ids[:] = [first]
  return True


def _recursion(module: Module, rng: random.Random) -> bool:
  computation = rng.choice(module.computations)
  small_programs.add(computation, "call", [2], called_computation_ids=[_main(module).id])
  return True


def _explosion(module: Module, rng: random.Random) -> bool:
  """Each of 40 computations calls the one before it twice."""
  main = _main(module)
  before = module.computations.add(id=10_000, name="b0")
  small_programs.add(before, "parameter", [2])
  for level in range(1, 40):
    computation = module.computations.add(id=10_000 + level, name=f"b{level}")
    x = small_programs.add(computation, "parameter", [2])
    for _ in range(2):
      x = small_programs.add(computation, "call", [2], [x], called_computation_ids=[before.id])
    before = computation
  x = small_programs.add(main, "constant", [2])
  small_programs.add(main, "call", [2], [x], called_computation_ids=[before.id])
  return True


def _wrong_axes(module: Module, rng: random.Random) -> bool:
  """An axis that does not exist."""
  axis = rng.choice([-1, 7, 2**40])
  for computation in module.computations:
    for instruction in computation.instructions:
      if instruction.opcode in ("reduce", "transpose"):
        instruction.dimensions[0] = axis
        return True
      if instruction.HasField("dot_dimension_numbers"):
        instruction.dot_dimension_numbers.rhs_contracting_dimensions[0] = axis
        return True
  return False


def _wrong_window(module: Module, rng: random.Random) -> bool:
  main = _main(module)
  x = small_programs.add(main, "constant", [8])
  field, number = rng.choice([("size", 0), ("size", -3), ("stride", -1), ("window_dilation", -2),
                              ("size", 2**60), ("padding_low", -2**63)])
  window = hlo_pb2.WindowDimension(size=2, stride=1)
  setattr(window, field, number)
  small_programs.add(main, "reduce-window", [8], [x], window=hlo_pb2.Window(dimensions=[window]))
  return True


def _wrong_parameter(module: Module, rng: random.Random) -> bool:
  main = _main(module)
  called = module.computations.add(id=20_000, name="called")
  small_programs.add(called, "parameter", [2], parameter_number=rng.choice([1, -1, 2**40]))
  x = small_programs.add(main, "constant", [2])
  small_programs.add(main, "call", [2], [x], called_computation_ids=[20_000])
  return True


# Each returns whether it applies to the program. All damage what every expansion sees.
DAMAGING: tuple[Callable[[Module, random.Random], bool], ...] = (
    _set_extent(-1), _set_extent(-2**63), _set_extent(-7), _set_extent(2**53 + 1),
    _set_extent(2**62), _too_many_axes, _no_such_operand, _no_such_computation, _no_such_root,
    _repeated_id, _cycle, _recursion, _explosion, _wrong_axes, _wrong_window, _wrong_parameter)


# ---- arbitrary changes ---------------------------------------------------------------------------

_NUMBERS = (-2**63, -1, 0, 1, 2, 3, 8, 100, 2**31, 2**32, 2**62, 2**63 - 1)
_OPCODES = ("dot", "reduce", "transpose", "broadcast", "reshape", "bitcast", "concatenate", "sort",
            "convolution", "reduce-window", "tuple", "get-tuple-element", "while", "fusion", "call",
            "parameter", "gather", "slice", "nonsense")


def scramble(module: Module, rng: random.Random) -> None:
  """A change of one number, list or opcode, whatever it means."""
  instruction = _any(module, rng)
  field = rng.choice(["dimensions", "shape", "operand_ids", "called_computation_ids", "opcode",
                      "window", "dot", "convolution", "tuple", "layout", "number"])
  number = rng.choice(_NUMBERS)
  lists = {"dimensions": instruction.dimensions, "shape": instruction.shape.dimensions,
           "operand_ids": instruction.operand_ids,
           "called_computation_ids": instruction.called_computation_ids,
           "layout": instruction.shape.layout.minor_to_major}
  if field in lists:
    _scramble_list(lists[field], number, module, rng)
  elif field == "opcode":
    instruction.opcode = rng.choice(_OPCODES)
  elif field == "window":
    window = instruction.window.dimensions.add(size=3, stride=1)
    setattr(window, rng.choice(["size", "stride", "padding_low", "base_dilation"]), number)
  elif field == "dot":
    numbers = instruction.dot_dimension_numbers
    _scramble_list(rng.choice([numbers.lhs_batch_dimensions, numbers.rhs_contracting_dimensions]),
                   number, module, rng)
  elif field == "convolution":
    instruction.convolution_dimension_numbers.kernel_output_feature_dimension = number
  elif field == "tuple":
    instruction.shape.tuple_shapes.add(dimensions=[number])
  else:
    setattr(instruction, rng.choice(["parameter_number", "tuple_index", "id",
                                     "feature_group_count"]), number)


def _scramble_list(values, number: int, module: Module, rng: random.Random) -> None:
  known = rng.choice([i.id for c in module.computations for i in c.instructions])
  number = rng.choice([number, known])
  choice = rng.random()
  if values and choice < 0.4:
    values[rng.randrange(len(values))] = number
  elif values and choice < 0.7:
    values.pop()
  else:
    values.append(number)
