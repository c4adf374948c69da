"""HLO modules for the tests: a builder, and random ones."""

from hypothesis import strategies as st

from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import opcodes
from tpugraphs_rank.hlo import tuning_pb2

INT64 = st.integers(-2**63, 2**63 - 1)
# Mostly the small numbers of real programs, sometimes ones whose product exceeds 64 bits.
NUMBER = st.one_of(st.integers(0, 300), st.integers(0, 300), INT64)
EXTENT = st.one_of(st.integers(0, 300), st.integers(0, 300), st.integers(0, 2**63 - 1))


def tiny(name="tiny", computation_name="main"):
  """parameter -> tanh (root), in one computation."""
  return hlo_pb2.HloModuleProto(name=name, computations=[hlo_pb2.HloComputationProto(
      name=computation_name, id=1, root_id=12, instructions=[
          hlo_pb2.HloInstructionProto(name="p", opcode="parameter", id=11),
          hlo_pb2.HloInstructionProto(name="t", opcode="tanh", id=12, operand_ids=[11])])])


def tile_run(time_ns=100, is_default=False, kernel=(), output=(), inputs=(), **more):
  """A run of a kernel; `time_ns` None leaves the profile out."""
  run = tuning_pb2.ConfigProfile(is_default=is_default, **more)
  run.op_config.tile_size_config.kernel_bounds.extend(kernel)
  run.op_config.tile_size_config.output_bounds.extend(output)
  run.op_config.tile_size_config.input_bounds.extend(inputs)
  run.op_config.tile_size_config.SetInParent()
  if time_ns is not None:
    run.profile.compute_time_ns = time_ns
    run.profile.SetInParent()
  return run


def layout_run(nodes, time_ns=100, is_default=False, **more):
  """A run of a program; `nodes` holds a list of tensors per node, each a list of dims."""
  run = tuning_pb2.ConfigProfile(is_default=is_default, **more)
  run.module_config.layout_config.SetInParent()
  for tensors in nodes:
    node = run.module_config.layout_config.nodes.add()
    for dims in tensors:
      node.tensors.add(dims=dims)
  if time_ns is not None:
    run.profile.compute_time_ns = time_ns
    run.profile.SetInParent()
  return run


def measured(runs, module=None, nodes=()):
  """A `ModuleTuningData`."""
  return tuning_pb2.ModuleTuningData(
      module=module or tiny(), runs=runs, config_index_to_node=nodes)


@st.composite
def _instructions(draw, instruction_id, earlier, computation_ids):
  numbers = lambda most, of=NUMBER: st.lists(of, max_size=most)
  instruction = hlo_pb2.HloInstructionProto(
      id=instruction_id, name=f"i{instruction_id}",
      opcode=draw(st.sampled_from(sorted(opcodes.OPCODE_IDS) + ["ragged-dot"])),
      parameter_number=draw(st.sampled_from([0, 0, 1, 7, 2**40 + 1])),
      dimensions=draw(numbers(8)),
      is_stable=draw(st.booleans()),
      feature_group_count=draw(NUMBER), batch_group_count=draw(NUMBER),
      dynamic_slice_sizes=draw(numbers(4)))
  if draw(st.booleans()):
    instruction.shape.element_type = draw(st.integers(0, 30))
    instruction.shape.dimensions.extend(draw(numbers(9, EXTENT)))
    for _ in range(draw(st.integers(0, 3))):
      instruction.shape.tuple_shapes.add(element_type=hlo_pb2.F32, dimensions=[3])
    instruction.shape.layout.minor_to_major.extend(draw(numbers(8)))
  if draw(st.booleans()):
    for _ in range(draw(st.integers(0, 8))):
      instruction.window.dimensions.add(
          size=draw(NUMBER), stride=draw(NUMBER), padding_low=draw(INT64),
          padding_high=draw(INT64), window_dilation=draw(NUMBER), base_dilation=draw(NUMBER),
          window_reversal=draw(st.booleans()))
  if draw(st.booleans()):
    c = instruction.convolution_dimension_numbers
    c.input_batch_dimension, c.input_feature_dimension = draw(NUMBER), draw(NUMBER)
    c.kernel_input_feature_dimension, c.kernel_output_feature_dimension = 3, draw(NUMBER)
    c.output_batch_dimension, c.output_feature_dimension = draw(NUMBER), 5
    c.input_spatial_dimensions.extend(draw(numbers(6)))
    c.kernel_spatial_dimensions.extend(draw(numbers(6)))
    c.output_spatial_dimensions.extend(draw(numbers(6)))
  for _ in range(draw(st.integers(0, 3))):
    instruction.slice_dimensions.add(start=draw(NUMBER), limit=draw(NUMBER), stride=draw(NUMBER))
  if draw(st.booleans()):
    for _ in range(draw(st.integers(0, 3))):
      instruction.padding_config.dimensions.add(
          edge_padding_low=draw(INT64), edge_padding_high=draw(NUMBER), interior_padding=9)
  if earlier:
    instruction.operand_ids.extend(draw(st.lists(st.sampled_from(earlier), max_size=4)))
  if computation_ids:
    instruction.called_computation_ids.extend(
        draw(st.lists(st.sampled_from(computation_ids), max_size=2)))
  return instruction


@st.composite
def programs(draw):
  """Random modules. Operands and callees come before the instruction that uses them."""
  module = hlo_pb2.HloModuleProto(name="random")
  ids = draw(st.lists(st.integers(0, 2**40), min_size=12, max_size=12, unique=True))
  called = []
  for k in range(draw(st.integers(1, 3))):
    computation = module.computations.add(
        id=50 - k, name=draw(st.sampled_from(["fused", "main", "while_body", "cond.1", "cluster"])))
    own = []
    for _ in range(draw(st.integers(1, 4))):
      instruction_id = ids.pop()
      computation.instructions.append(draw(_instructions(instruction_id, own, called)))
      own.append(instruction_id)
    computation.root_id = draw(st.sampled_from(own))
    called.append(computation.id)
  return module
