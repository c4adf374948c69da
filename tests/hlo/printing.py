"""Prints HLO protobufs as text, in the styles of XLA's versions. For tests of the reader."""

import dataclasses

from tpugraphs_rank.hlo import hlo_pb2


@dataclasses.dataclass(frozen=True)
class Style:
  """How text is printed.

  Attributes:
    percent: whether names start with `%`.
    operand_shapes: whether operands are printed with their shapes, as older versions do.
    program_shape: whether computations are printed with their parameters and results.
    metadata: whether instructions have attributes that contain brackets, quotes and comments.
  """
  percent: bool = True
  operand_shapes: bool = False
  program_shape: bool = True
  metadata: bool = False


STYLES = (
    Style(), Style(operand_shapes=True, metadata=True),
    Style(percent=False, program_shape=False), Style(percent=False, metadata=True))
_METADATA = (
    'metadata={op_type="dot" op_name="jit(f)/{x} \\"y\\" ] //" source_file="a/*.py"}, '
    'sharding={devices=[2,1]<=[2] last_tile_dim_replicate}, '
    'backend_config={"a":{"b":["}",0.5]},"c":"/*"}, frontend_attributes={k="{"}')
_DEPTH = {hlo_pb2.TOKEN: "token", hlo_pb2.OPAQUE_TYPE: "opaque"}
_UNKNOWN = -2**63


def shape(proto, tiles="") -> str:
  """A shape with its layout."""
  if proto.element_type == hlo_pb2.TUPLE:
    elements = []
    for i, element in enumerate(proto.tuple_shapes):
      elements.append((f"/*index={i}*/" if i and i % 5 == 0 else "") + shape(element, tiles))
    return f"({', '.join(elements)})"
  name = _DEPTH.get(proto.element_type) or hlo_pb2.PrimitiveType.Name(proto.element_type).lower()
  sizes = ",".join("?" if size == _UNKNOWN else str(size) for size in proto.dimensions)
  order = ",".join(map(str, proto.layout.minor_to_major))
  return f"{name}[{sizes}]" + (f"{{{order}{tiles}}}" if proto.dimensions else "")


def _window(window) -> str:
  def join(values):
    return "x".join(map(str, values))
  d = window.dimensions
  parts = [f"size={join(x.size for x in d)}"]
  if any(x.stride != 1 for x in d):
    parts.append(f"stride={join(x.stride for x in d)}")
  if any(x.padding_low or x.padding_high for x in d):
    parts.append("pad=" + join(f"{x.padding_low}_{x.padding_high}" for x in d))
  if any(x.base_dilation != 1 for x in d):
    parts.append(f"lhs_dilate={join(x.base_dilation for x in d)}")
  if any(x.window_dilation != 1 for x in d):
    parts.append(f"rhs_dilate={join(x.window_dilation for x in d)}")
  if any(x.window_reversal for x in d):
    parts.append(f"rhs_reversal={join(int(x.window_reversal) for x in d)}")
  return f"window={{{' '.join(parts)}}}"


def _labels(c) -> str:
  def labels(rank, letters, spatial):
    text = ["?"] * rank
    for axis, letter in letters.items():
      text[axis] = letter
    for i, axis in enumerate(spatial):
      text[axis] = str(i)
    return "".join(text)
  rank = len(c.input_spatial_dimensions) + 2
  lhs = labels(rank, {c.input_batch_dimension: "b", c.input_feature_dimension: "f"},
               c.input_spatial_dimensions)
  rhs = labels(
      rank, {c.kernel_input_feature_dimension: "i", c.kernel_output_feature_dimension: "o"},
      c.kernel_spatial_dimensions)
  out = labels(rank, {c.output_batch_dimension: "b", c.output_feature_dimension: "f"},
               c.output_spatial_dimensions)
  return f"dim_labels={lhs}_{rhs}->{out}"


_CALLS = {
    "while": ("condition", "body"), "conditional": ("branch_computations",), "fusion": ("calls",),
    "async-start": ("calls",), "select-and-scatter": ("select", "scatter"),
    "custom-call": ("called_computations",)}


def _attributes(instruction, computations, style) -> list[str]:
  def braces(values):
    return "{" + ",".join(map(str, values)) + "}"
  percent = "%" * style.percent
  out = []
  if instruction.opcode == "iota":
    out.append(f"iota_dimension={instruction.dimensions[0]}")
  elif instruction.dimensions or instruction.opcode in ("broadcast", "reduce", "transpose"):
    out.append(f"dimensions={braces(instruction.dimensions)}")
  if instruction.window.dimensions:
    out.append(_window(instruction.window))
  if instruction.HasField("convolution_dimension_numbers"):
    out.append(_labels(instruction.convolution_dimension_numbers))
  if instruction.feature_group_count > 1:
    out.append(f"feature_group_count={instruction.feature_group_count}")
  if instruction.batch_group_count > 1:
    out.append(f"batch_group_count={instruction.batch_group_count}")
  if instruction.slice_dimensions:
    out.append("slice={" + ", ".join(
        f"[{s.start}:{s.limit}" + (f":{s.stride}]" if s.stride != 1 else "]")
        for s in instruction.slice_dimensions) + "}")
  if instruction.dynamic_slice_sizes:
    out.append(f"dynamic_slice_sizes={braces(instruction.dynamic_slice_sizes)}")
  if instruction.HasField("padding_config"):
    out.append("padding=" + "x".join(
        f"{p.edge_padding_low}_{p.edge_padding_high}"
        + (f"_{p.interior_padding}" if p.interior_padding else "")
        for p in instruction.padding_config.dimensions))
  if instruction.HasField("dot_dimension_numbers"):
    d = instruction.dot_dimension_numbers
    for name, values in (("lhs_contracting", d.lhs_contracting_dimensions),
                         ("rhs_contracting", d.rhs_contracting_dimensions),
                         ("lhs_batch", d.lhs_batch_dimensions),
                         ("rhs_batch", d.rhs_batch_dimensions)):
      if values or "contracting" in name:
        out.append(f"{name}_dims={braces(values)}")
  if instruction.is_stable:
    out.append("is_stable=true")
  if instruction.opcode == "get-tuple-element":
    out.append(f"index={instruction.tuple_index}")
  called = [percent + computations[number] for number in instruction.called_computation_ids]
  names = _CALLS.get(instruction.opcode, ("to_apply",))
  if len(names) == 1 and (len(called) > 1 or names[0].endswith("computations")) and called:
    out.append(f"{names[0]}={{{', '.join(called)}}}")
  elif called:
    out += [f"{name}={one}" for name, one in zip(names, called)]
  if style.metadata:
    out.append(_METADATA)
  return out


def module_text(module, style=Style()) -> str:
  """The text of a module whose attributes XLA could print."""
  computations = {computation.id: computation.name for computation in module.computations}
  percent = "%" * style.percent
  last = module.computations[-1].id
  entry = module.entry_computation_id if module.entry_computation_id in computations else last
  lines = [f"HloModule {module.name}, entry_computation_layout={{(f32[2]{{0}})->(s32[], f32[])}}"]
  for computation in module.computations:
    names = {i.id: i for i in computation.instructions}
    lines.append("")
    parameters = ", ".join(
        f"{i.name}: {shape(i.shape)}" for i in computation.instructions if i.opcode == "parameter")
    lines.append(
        "ENTRY " * (computation.id == entry) + percent + computation.name
        + f" ({parameters}) -> {shape(names[computation.root_id].shape)}" * style.program_shape
        + " {")
    for instruction in computation.instructions:
      if instruction.opcode == "parameter":
        operands = str(instruction.parameter_number)
      elif instruction.opcode == "constant":
        operands = "{ {1, -inf}, /*i0=1*/ {nan, 2e-3} }" if len(
            instruction.shape.dimensions) == 2 else "{...}" if instruction.shape.dimensions else "0"
      else:
        operands = ", ".join(
            f"{shape(names[o].shape) + ' ' if style.operand_shapes else ''}{percent}{names[o].name}"
            for o in instruction.operand_ids)
      lines.append("  " + ", ".join([
          f"{'ROOT ' * (instruction.id == computation.root_id)}{percent}{instruction.name} = "
          f"{shape(instruction.shape)} {instruction.opcode}({operands})",
          *_attributes(instruction, computations, style)]))
    lines.append("}")
  return "\n".join(lines) + "\n"
