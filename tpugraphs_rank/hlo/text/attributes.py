"""Attributes of instructions in HLO text that have a field in `HloInstructionProto`.

The formats are those of XLA's printer: `dimensions={0,1}`, `window={size=3x3 pad=1_1x1_1}`,
`padding=0_1_0x2_2`, `slice={[0:8:2]}`, `dim_labels=b01f_01io->b01f`.
"""

from collections.abc import Callable
import re

from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo.text import communication
from tpugraphs_rank.hlo.text.scanner import integer

# Attributes that name computations. XLA names the computation of an operation in many ways.
CALLED = (
    "calls", "to_apply", "body", "condition", "branch_computations", "true_computation",
    "false_computation", "select", "scatter", "called_computations")
CONTROL_PREDECESSORS = "control-predecessors"

_NAMES = re.compile(r"%?([A-Za-z_0-9][\w.\-]*)", re.ASCII)
_NAME_OR_NAMES = re.compile(
    r"%?[A-Za-z_0-9][\w.\-]*|\{\s*(?:%?[A-Za-z_0-9][\w.\-]*\s*(?:,\s*|(?=\})))*\}", re.ASCII)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_SETTING = re.compile(r"(\w+)=([^\s={}]+)")
_SLICE = re.compile(r"\[\s*(-?\d+)\s*:\s*(-?\d+)\s*(?::\s*(-?\d+)\s*)?\]")
_LABELS = re.compile(r"([0-9bf?]*)_([0-9io?]*)->([0-9bf?]*)")


class Malformed(ValueError):
  """A value does not have the format of its attribute; the message says what is expected."""


def names(value: str) -> list[str]:
  """The names in `%name`, `name` or `{%name, name}`.

  Raises:
    Malformed: it is something else, for example a computation that is written in place.
  """
  value = _COMMENT.sub("", value).strip()
  if not _NAME_OR_NAMES.fullmatch(value):
    raise Malformed("expected the name of a computation or instruction, or a list in braces")
  return _NAMES.findall(value)


def apply(instruction: hlo_pb2.HloInstructionProto, name: str, value: str) -> None:
  """Sets the field of an attribute; does nothing if it has none.

  Raises:
    Malformed: the value has another format.
  """
  setter = _SETTERS.get(name)
  if setter is None:
    return
  try:
    setter(instruction, _COMMENT.sub("", value))
  except Malformed:
    raise
  except ValueError:  # `int`, or a protobuf field that is too narrow.
    raise Malformed("expected whole numbers below 2**63") from None


def _integers(value: str) -> list[int]:
  value = value.strip()
  if not (value.startswith("{") and value.endswith("}")):
    raise Malformed("expected a list such as {0,1}")
  return [integer(item) for item in value[1:-1].split(",") if item.strip()]


def _dimensions(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  instruction.dimensions.extend(_integers(value))


def _iota_dimension(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  instruction.dimensions.append(integer(value))


def _dynamic_slice_sizes(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  # The `slice_sizes` of gather and collective-permute belong to other fields.
  instruction.dynamic_slice_sizes.extend(_integers(value))


def _fft_length(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  instruction.fft_length.extend(_integers(value))


def _is_stable(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  if value not in ("true", "false"):
    raise Malformed("expected true or false")
  instruction.is_stable = value == "true"


def _index(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  if instruction.opcode == "get-tuple-element":
    instruction.tuple_index = integer(value)


def _feature_group_count(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  instruction.feature_group_count = integer(value)


def _batch_group_count(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  instruction.batch_group_count = integer(value)


def _contracting(field: str) -> Callable[[hlo_pb2.HloInstructionProto, str], None]:
  def setter(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
    # A ragged dot has these numbers in another field.
    if instruction.opcode != "ragged-dot":
      getattr(instruction.dot_dimension_numbers, field).extend(_integers(value))
  return setter


def _slices(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  found = _SLICE.findall(value)
  if len(found) != value.count("["):
    raise Malformed("expected ranges such as {[0:8], [0:4:2]}")
  for start, limit, stride in found:
    instruction.slice_dimensions.add(
        start=integer(start), limit=integer(limit), stride=integer(stride or "1"))


def _padding(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  instruction.padding_config.SetInParent()
  for axis in value.strip().split("x"):
    numbers = [integer(number) for number in axis.split("_")]
    if len(numbers) not in (2, 3):
      raise Malformed("expected padding such as 0_1x2_2_1")
    instruction.padding_config.dimensions.add(
        edge_padding_low=numbers[0], edge_padding_high=numbers[1],
        interior_padding=numbers[2] if len(numbers) == 3 else 0)


def _window(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  expected = Malformed("expected a window such as {size=3x3 stride=2x2 pad=0_1x0_1}, with as many "
                       "axes in each part")
  settings = dict(_SETTING.findall(value))
  instruction.window.SetInParent()
  if not settings:
    return
  sizes = [integer(size) for size in settings.get("size", "").split("x")]

  def numbers(name: str, default: int) -> list[int]:
    values = [integer(number) for number in settings[name].split("x")] if name in settings else [
        default] * len(sizes)
    if len(values) != len(sizes):
      raise expected
    return values

  pads = [axis.split("_") for axis in settings["pad"].split("x")] if "pad" in settings else [
      ["0", "0"]] * len(sizes)
  if len(pads) != len(sizes) or any(len(pad) != 2 for pad in pads):
    raise expected
  for size, stride, (low, high), base, window, is_reversed in zip(
      sizes, numbers("stride", 1), pads, numbers("lhs_dilate", 1), numbers("rhs_dilate", 1),
      numbers("rhs_reversal", 0)):
    instruction.window.dimensions.add(
        size=size, stride=stride, padding_low=integer(low), padding_high=integer(high),
        window_dilation=window, base_dilation=base, window_reversal=bool(is_reversed))


def _dim_labels(instruction: hlo_pb2.HloInstructionProto, value: str) -> None:
  found = _LABELS.fullmatch(value.strip())
  if found is None:
    raise Malformed("expected labels such as b01f_01io->b01f")
  lhs, rhs, output = found.groups()
  spatial = sorted(label for label in lhs if label.isdigit())
  if any(sorted(c for c in labels if c.isdigit()) != spatial for labels in (rhs, output)) or (
      spatial != [str(axis) for axis in range(len(spatial))]):
    raise Malformed("expected the same spatial axes 0, 1, ... in all three parts")
  for labels, letters in ((lhs, "bf"), (rhs, "io"), (output, "bf")):
    if any(labels.count(letter) != 1 for letter in letters):
      raise Malformed(f"expected one {letters[0]!r} and one {letters[1]!r} in {labels!r}")
  c = instruction.convolution_dimension_numbers
  c.input_batch_dimension, c.input_feature_dimension = lhs.index("b"), lhs.index("f")
  c.kernel_input_feature_dimension = rhs.index("i")
  c.kernel_output_feature_dimension = rhs.index("o")
  c.output_batch_dimension, c.output_feature_dimension = output.index("b"), output.index("f")
  c.input_spatial_dimensions.extend(lhs.index(axis) for axis in spatial)
  c.kernel_spatial_dimensions.extend(rhs.index(axis) for axis in spatial)
  c.output_spatial_dimensions.extend(output.index(axis) for axis in spatial)


_SETTERS: dict[str, Callable[[hlo_pb2.HloInstructionProto, str], None]] = {
    "dimensions": _dimensions,
    "iota_dimension": _iota_dimension,
    "dynamic_slice_sizes": _dynamic_slice_sizes,
    "fft_length": _fft_length,
    "is_stable": _is_stable,
    "index": _index,
    "feature_group_count": _feature_group_count,
    "batch_group_count": _batch_group_count,
    "lhs_contracting_dims": _contracting("lhs_contracting_dimensions"),
    "rhs_contracting_dims": _contracting("rhs_contracting_dimensions"),
    "lhs_batch_dims": _contracting("lhs_batch_dimensions"),
    "rhs_batch_dims": _contracting("rhs_batch_dimensions"),
    "slice": _slices,
    "padding": _padding,
    "window": _window,
    "dim_labels": _dim_labels,
    "replica_groups": communication.replica_groups,
    "source_target_pairs": communication.source_target_pairs,
    "frontend_attributes": communication.frontend_attributes,
    "channel_id": communication.channel_id,
    "use_global_device_ids": communication.use_global_device_ids,
    "is_host_transfer": communication.is_host_transfer,
    "custom_call_target": communication.custom_call_target,
    "direction": communication.direction,
    "backend_config": communication.backend_config,
}
