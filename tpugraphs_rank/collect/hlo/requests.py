"""Puts requested layouts into an HLO program.

A request becomes an instruction `custom-call` with the target `LayoutConstraint`, the same that
`jax.experimental.layout.with_layout_constraint` writes. A request for an output constrains the
value for all of its users; one for an input or a kernel constrains it for this instruction alone.
XLA removes the instruction after its layout assignment. This module needs no JAX.
"""

from collections.abc import Sequence

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank.candidates import layouts as layouts_lib
from tpugraphs_rank.candidates import tile_spaces
from tpugraphs_rank.collect.hlo import wire
from tpugraphs_rank.collect.layout import configurations
from tpugraphs_rank.hlo import hlo_pb2

TARGET = "LayoutConstraint"
# Fields of HloInstructionProto (xla/service/hlo.proto) that the proto here does not declare.
_CONSTRAIN_LAYOUT, _OPERAND_SHAPES_WITH_LAYOUT = 56, 57
# Fields of HloModuleProto that say how a compiler is to place a program: schedule, donated
# arguments (a measured program runs many times with the same arguments, so it must not overwrite
# them), and devices. A program for several devices is measured on one.
_PLACEMENT = {"schedule": 7, "input_output_alias": 8, "cross_program_prefetches": 10,
              "spmd_output_sharding": 12, "spmd_parameters_shardings": 14,
              "device_assignment": 15, "use_auto_spmd_partitioning": 16, "buffer_donor": 18}
_PROGRAM_SHAPE = 4
# Instructions that wait for something outside the program.
_OUTSIDE = frozenset(("infeed", "outfeed", "send", "send-done", "recv", "recv-done"))
_CALLBACKS = frozenset(("xla_python_cpu_callback", "xla_ffi_python_cpu_callback",
                        "xla_ffi_partitioned_python_cpu_callback", "xla_python_gpu_callback",
                        "xla_ffi_python_gpu_callback"))
# Instructions whose results change from run to run, so that they cannot be compared.
_RANDOM = frozenset(("rng", "rng-get-and-update-state"))
_SHARDING = 40  # HloInstructionProto.sharding
# Calls that only annotate values for several devices.
_ANNOTATIONS = frozenset(("Sharding", "xla.sdy.ShardingConstraint", "annotate_device_placement"))
# Computations that a compiler has finished, or whose instructions have no layouts of their own.
_CLOSED_CALLERS = frozenset((
    "fusion", "reduce", "reduce-window", "scatter", "select-and-scatter", "sort", "map",
    "all-reduce", "reduce-scatter"))


def open_sites(module: hlo_pb2.HloModuleProto, source: str = "the module"
               ) -> list[configurations.Site]:
  """The instructions of a program for which layouts can be requested.

  These are the dots, convolutions and reshapes in the entry computation and in those that it
  calls: loops, branches and functions, but neither fusions nor the scalar functions of reductions.

  Raises:
    DataError: a convolution is damaged.
  """
  open_numbers = _open_computations(module)
  node = 0
  allowed: set[int] = set()
  for computation in module.computations:
    if computation.id in open_numbers:
      allowed.update(range(node, node + len(computation.instructions)))
    node += len(computation.instructions)
  sites = [configurations.Site(site.node, site.opcode, site.shapes)
           for site in layouts_lib.sites(module, None, source) if site.node in allowed]
  return [site for site in sites if site.slots]


def _open_computations(module: hlo_pb2.HloModuleProto) -> set[int]:
  """The ids of the computations into which a request can be put."""
  called, closed = set(), set()
  for computation in module.computations:
    for instruction in computation.instructions:
      called.update(instruction.called_computation_ids)
      if instruction.opcode in _CLOSED_CALLERS or instruction.opcode == "custom-call":
        closed.update(instruction.called_computation_ids)
  return {computation.id for computation in module.computations} - closed


def complete(layout: Sequence[int], rank: int) -> tuple[int, ...]:
  """A layout of all axes, minor to major: those that a layout leaves out follow, the last first."""
  return (*layout, *(axis for axis in reversed(range(rank)) if axis not in layout))


def for_one_device(module: hlo_pb2.HloModuleProto, source: str = "the module"
                   ) -> hlo_pb2.HloModuleProto:
  """A program that runs on one device, as often as wanted, and leaves its arguments as they are.

  Computations and instructions keep their positions.

  Raises:
    DataError: the program lacks what compilers need, as one does that lost undeclared fields; or
      it waits for a host, another device or Python.
  """
  content = wire.without(module.SerializeToString(), tuple(_PLACEMENT.values()))
  single = hlo_pb2.HloModuleProto.FromString(content)
  if not wire.undeclared(single, _PROGRAM_SHAPE):
    raise errors.DataError(
        f"{source} describes a program, but lacks parts that a compiler needs (the types of its "
        "parameters, the values of its constants); expected the program as XLA, JAX or TensorFlow "
        "writes it")
  for computation in single.computations:
    for instruction in computation.instructions:
      if instruction.opcode in _OUTSIDE or instruction.custom_call_target in _CALLBACKS:
        name = instruction.custom_call_target or instruction.opcode
        raise errors.DataError(
            f"{source}: {escaping.quoted(instruction.name)} ({escaping.shown(name)}) needs "
            "something outside the program (a host, another device or Python), so it cannot be "
            "measured alone; export the part without it")
      if instruction.opcode in _RANDOM:
        raise errors.DataError(
            f"{source}: {escaping.quoted(instruction.name)} ({escaping.shown(instruction.opcode)}) "
            "draws random numbers that change from run to run, so that the results of two "
            "configurations cannot be compared; export the program for inference, or with random "
            "numbers from a seed that is a parameter, such as those of jax.random")
      if instruction.custom_call_target in _ANNOTATIONS and len(instruction.operand_ids) == 1:
        plain = hlo_pb2.HloInstructionProto(
            name=instruction.name, opcode="copy", shape=instruction.shape, id=instruction.id,
            operand_ids=instruction.operand_ids,
            control_predecessor_ids=instruction.control_predecessor_ids)
        instruction.CopyFrom(plain)
      if wire.undeclared(instruction, _SHARDING):
        content = wire.without(instruction.SerializeToString(), (_SHARDING,))
        instruction.Clear()
        instruction.MergeFromString(content)
  return single


def with_requests(module: hlo_pb2.HloModuleProto, nodes: Sequence[int],
                  configuration: configurations.Configuration, source: str = "the module"
                  ) -> hlo_pb2.HloModuleProto:
  """A program with the requests of a configuration in it.

  Args:
    module: the program, with all of its fields; it is not changed.
    nodes: the configured instructions by their positions, computations then instructions.
    configuration: for each of them the layouts of output, input and kernel, minor to major; an
      empty layout requests nothing.
    source: the program's name in error messages.

  Raises:
    DataError: a request does not fit the program, or is in a fusion; the message names the
      instruction.
  """
  requested = {node: layouts for node, layouts in zip(nodes, configuration, strict=True)
               if any(layouts)}
  result = hlo_pb2.HloModuleProto()
  result.CopyFrom(module)
  open_numbers = _open_computations(module)
  position = 0
  for computation in result.computations:
    count = len(computation.instructions)
    here = {node - position: layouts for node, layouts in requested.items()
            if position <= node < position + count}
    position += count
    if here:
      if computation.id not in open_numbers:
        name = computation.instructions[next(iter(here))].name
        raise errors.DataError(
            f"{source}: layouts are requested for {escaping.quoted(name)} in a fusion or in the "
            "function of a reduction, where a compiler takes no requests; use the program before "
            "optimisation")
      _constrain(computation, here, source)
  return result


def _constrain(computation: hlo_pb2.HloComputationProto,
               requested: dict[int, configurations.Layouts], source: str) -> None:
  named = {instruction.id: instruction for instruction in computation.instructions}
  next_id = max(named) + 1
  listed: list[hlo_pb2.HloInstructionProto] = []
  renamed: dict[int, int] = {}  # A constrained output -> its constraint.
  for index, original in enumerate(computation.instructions):
    instruction = hlo_pb2.HloInstructionProto()
    instruction.CopyFrom(original)
    layouts = requested.get(index, ())
    operands = [renamed.get(key, key) for key in instruction.operand_ids]
    for tensor, layout in enumerate(layouts[1:]):
      if layout:
        if tensor >= len(operands) or instruction.operand_ids[tensor] not in named:
          raise errors.DataError(
              f"{source}: a layout of operand {tensor} is requested, but "
              f"{escaping.quoted(instruction.name)} has {len(operands)} operands; supply "
              "configurations of this program")
        value = named[instruction.operand_ids[tensor]]
        listed.append(_constraint(value, operands[tensor], layout, next_id, source))
        operands[tensor] = next_id
        next_id += 1
    del instruction.operand_ids[:]
    instruction.operand_ids.extend(operands)
    for position, key in enumerate(instruction.control_predecessor_ids):
      instruction.control_predecessor_ids[position] = renamed.get(key, key)
    listed.append(instruction)
    if layouts and layouts[0]:
      listed.append(_constraint(original, original.id, layouts[0], next_id, source))
      renamed[original.id] = next_id
      next_id += 1
  computation.root_id = renamed.get(computation.root_id, computation.root_id)
  del computation.instructions[:]
  computation.instructions.extend(listed)


def _constraint(value: hlo_pb2.HloInstructionProto, operand: int, layout: Sequence[int],
                number: int, source: str) -> hlo_pb2.HloInstructionProto:
  rank = len(value.shape.dimensions)
  if sorted(full := complete(layout, rank)) != list(range(rank)):
    raise errors.DataError(
        f"{source}: the layout {list(layout)} is requested for {escaping.quoted(value.name)}, "
        f"which has {rank} axes; expected distinct axes from 0 to {rank - 1}, minor to major")
  shape = hlo_pb2.ShapeProto()
  shape.CopyFrom(value.shape)
  shape.ClearField("layout")
  shape.layout.minor_to_major.extend(full)
  instruction = hlo_pb2.HloInstructionProto(
      name=f"{value.name}.layout.{number}", opcode="custom-call", shape=shape,
      custom_call_target=TARGET, id=number, operand_ids=[operand])
  instruction.MergeFromString(
      wire.encoded(_CONSTRAIN_LAYOUT, 1)
      + wire.encoded(_OPERAND_SHAPES_WITH_LAYOUT, shape.SerializeToString()))
  return instruction


def layouts_of(site: configurations.Site, tensor: int) -> tuple[tuple[int, ...], ...]:
  """All layouts that can be requested for a tensor; empty if it has only one."""
  return layouts_lib.Site(site.node, site.opcode, site.shapes).layouts(
      tensor, tile_spaces.ELEMENTS)
