"""A second, slow featurizer: column by column, on TensorFlow's protobuf classes.

Written from the description of the format alone and sharing no code with the package. Numbers are
unbounded integers until `_float` wraps them to 64 bits and casts them.
"""

import numpy as np

TYPES = ["PRIMITIVE_TYPE_INVALID", "PRED", "S8", "S16", "S32", "S64", "U8", "U16", "U32", "U64",
         "F16", "F32", "F64", "BF16", "C64", "C128", "TUPLE", "OPAQUE_TYPE", "TOKEN"]


def _float(number):
  wrapped = (number + 2**63) % 2**64 - 2**63
  return np.array([wrapped], np.int64).astype(np.float32)[0]


def _product(numbers, empty=1):
  if not numbers:
    return empty
  product = 1
  for number in numbers:
    product *= number
  return product


def _cut(numbers, length, padding=0):
  numbers = list(numbers)[:length]
  return numbers + [padding] * (length - len(numbers))


def _agg(numbers, length, empty=1):
  numbers = list(numbers)
  return _cut(numbers, length) + [sum(numbers), _product(numbers, empty)]


def node_row(instruction, computation, xla_data_pb2, padding=0):
  """140 numbers of one instruction; every slice states the columns it fills."""
  row = [None] * 140
  shape = instruction.shape
  row[0] = 1 if instruction.id == computation.root_id else 0
  row[1] = 0
  row[2:21] = [1 if shape.element_type == xla_data_pb2.PrimitiveType.Value(t) else 0 for t in TYPES]
  row[21:29] = _agg(shape.dimensions, 6)
  row[29] = len(shape.tuple_shapes)
  row[30] = instruction.parameter_number
  row[31:37] = _cut(instruction.dimensions, 6, padding)
  window = list(instruction.window.dimensions)
  row[37:45] = _agg([d.size for d in window], 6)
  row[45:53] = _agg([d.stride for d in window], 6)
  row[53:61] = _agg([d.padding_low for d in window], 6)
  row[61:69] = _agg([d.padding_high for d in window], 6)
  row[69:77] = _agg([d.window_dilation for d in window], 6)
  row[77:85] = _agg([d.base_dilation for d in window], 6)
  flags = [d.window_reversal for d in window]
  row[85:91] = _cut([1 if flag else 0 for flag in flags], 6)
  row[91] = flags.count(True)
  row[92] = flags.count(False)
  c = instruction.convolution_dimension_numbers
  row[93] = c.input_batch_dimension
  row[94] = c.input_feature_dimension
  row[95:99] = _cut(c.input_spatial_dimensions, 4, padding)
  row[99] = c.kernel_input_feature_dimension
  row[100] = c.kernel_output_feature_dimension
  row[101:105] = _cut(c.kernel_spatial_dimensions, 4, padding)
  row[105] = c.output_batch_dimension
  row[106] = c.output_feature_dimension
  row[107] = instruction.feature_group_count
  row[108] = instruction.batch_group_count
  row[109:113] = _agg([s.start for s in instruction.slice_dimensions], 2)
  row[113:117] = _agg([s.stride for s in instruction.slice_dimensions], 2)
  row[117:121] = _agg([s.limit for s in instruction.slice_dimensions], 2)
  row[121:125] = _agg(instruction.dynamic_slice_sizes, 2)
  pads = instruction.padding_config.dimensions
  row[125:129] = _agg([d.edge_padding_low for d in pads], 2)
  row[129:133] = _agg([d.edge_padding_high for d in pads], 2)
  row[133] = 1 if instruction.is_stable else 0
  row[134:140] = _cut(shape.layout.minor_to_major, 6, padding)
  assert len(row) == 140 and None not in row
  return [_float(number) for number in row]


def graph(module, xla_data_pb2, opcode_ids, padding=0):
  """The arrays of an `xla.HloModuleProto`; `opcode_ids` maps names to ids."""
  nodes = [(i, c) for c in module.computations for i in c.instructions]
  index = {i.id: k for k, (i, _) in enumerate(nodes)}
  edges = set()
  for consumer, (instruction, _) in enumerate(nodes):
    for operand in instruction.operand_ids:
      edges.add((consumer, index[operand]))
    for called in instruction.called_computation_ids:
      [root] = [c.root_id for c in module.computations if c.id == called]
      edges.add((consumer, index[root]))
  splits = [0]
  seen = 0
  for computation in module.computations:
    seen += len(computation.instructions)
    name = computation.name
    if "cluster" in name or "while" in name or "cond" in name:
      splits.append(seen)
  if splits[-1] != seen:
    splits.append(seen)
  return {
      "node_feat": np.array([node_row(i, c, xla_data_pb2, padding) for i, c in nodes], np.float32),
      "node_opcode": np.array([opcode_ids.get(i.opcode, 0) for i, _ in nodes], np.uint8),
      "edge_index": np.array(sorted(edges), np.int64).reshape(-1, 2),
      "node_splits": np.array([splits], np.int64),
      "feature_padding": np.array(padding, np.int64),
  }


def tile(module):
  """Configuration and runtime arrays of a kernel (a `ModuleTuningData`)."""
  counted = [
      run for run in module.runs
      if run.WhichOneof("config") == "op_config" and run.op_config.HasField("tile_size_config")
      and not run.error and run.HasField("profile") and run.profile.compute_time_ns > 1]
  rows = []
  for run in counted:
    config = run.op_config.tile_size_config
    rows.append([_float(x) for x in (
        _agg(config.kernel_bounds, 6, empty=0) + _agg(config.output_bounds, 6, empty=0)
        + _agg(config.input_bounds, 6, empty=0))])
  return {"config_feat": np.array(rows, np.float32), **_runtimes(counted)}


def layout(module):
  """Configuration and runtime arrays of a program (a `ModuleTuningData`)."""
  counted = [
      run for run in module.runs
      if run.WhichOneof("config") == "module_config"
      and run.module_config.HasField("layout_config") and not run.error
      and run.HasField("profile")]
  rows = []
  for run in counted:
    rows.append([
        sum((_cut(node.tensors[t].dims if t < len(node.tensors) else [], 6, -1)
             for t in range(3)), [])
        for node in run.module_config.layout_config.nodes])
  return {
      "node_config_ids": np.array(list(module.config_index_to_node), np.int64),
      "node_config_feat": np.array(rows, np.float32), **_runtimes(counted)}


def _runtimes(counted):
  default = [run.profile.compute_time_ns for run in counted if run.is_default][0]
  return {
      "config_runtime": np.array([r.profile.compute_time_ns for r in counted], np.int64),
      "config_runtime_normalizers": np.array([default for _ in counted], np.int64)}
