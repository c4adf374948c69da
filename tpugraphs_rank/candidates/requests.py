"""What a candidate changes in a program, by the names of the program's instructions."""

from collections.abc import Sequence
import dataclasses
from typing import Any

from tpugraphs_rank import escaping
from tpugraphs_rank.candidates import candidate_set
from tpugraphs_rank.candidates import layouts
from tpugraphs_rank.candidates import tile_spaces
from tpugraphs_rank.candidates import value_graph
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import shapes
from tpugraphs_rank.hlo import tuning

TENSORS = ("output", "input", "kernel")


@dataclasses.dataclass(frozen=True)
class Request:
  """A layout that a candidate requests for one tensor, and the default does not.

  Attributes:
    instruction, opcode: the instruction.
    shape: of its result, as HLO text.
    tensor: `output`, `input` (its first operand) or `kernel` (its second).
    tensor_shape: of that tensor, as HLO text.
    minor_to_major: the requested axes, the minor first; empty: the compiler chooses, where the
      default requests a layout.
    complete: whether these are all axes of the tensor. Otherwise they are the minor ones.
  """

  instruction: str
  opcode: str
  shape: str
  tensor: str
  tensor_shape: str
  minor_to_major: tuple[int, ...]
  complete: bool

  def __str__(self) -> str:
    layout = "{" + ",".join(map(str, self.minor_to_major)) + "}"
    if not self.minor_to_major:
      layout = " as the compiler chooses"
    elif not self.complete:
      layout = f" minor axes {layout}"
    elif self.tensor == "output":
      layout = f" {layout}"
    shape = "" if self.tensor == "output" else f" {self.tensor_shape}"
    return f"{self.tensor}{shape}{layout}"

  def to_json(self) -> dict[str, Any]:
    """All fields, for JSON."""
    return {**dataclasses.asdict(self), "minor_to_major": list(self.minor_to_major)}


class LayoutRequests:
  """Names the layouts that the candidates of a program request."""

  def __init__(self, module: hlo_pb2.HloModuleProto, candidates: candidate_set.Candidates):
    """Looks the configurable nodes up in the program."""
    listed = layouts.instructions(module)
    self._nodes = [listed[node] for node in candidates.arrays["node_config_ids"].tolist()]
    self._candidates = candidates
    self._default = self._layouts(candidates.default)

  def _layouts(self, position: int | None) -> list[list[tuple[int, ...]]]:
    """The requested axes of each tensor of each node; nothing for an unknown default."""
    rows = (self._candidates.arrays["node_config_feat"][position].astype(int).tolist()
            if position is not None else [[tuning.LAYOUT_PADDING] * tuning.DIMS_LENGTH
                                          * tuning.TENSORS] * len(self._nodes))
    return [[tuple(axis for axis in row[first:first + tuning.DIMS_LENGTH] if axis >= 0)
             for first in range(0, len(row), tuning.DIMS_LENGTH)] for row in rows]

  def of(self, position: int) -> list[Request]:
    """What a candidate requests and the default does not, node by node."""
    requests = []
    for (instruction, operands), ours, theirs in zip(
        self._nodes, self._layouts(position), self._default):
      for tensor, value, layout, default in zip(
          TENSORS, (instruction, *operands), ours, theirs):
        if layout != default:
          requests.append(Request(
              escaping.shown(instruction.name or str(instruction.id)),
              escaping.shown(instruction.opcode),
              shapes.text(instruction.shape), tensor, shapes.text(value.shape), layout,
              len(layout) == len(value.shape.dimensions)))
    return requests


def text(requests: Sequence[Request], most: int | None = None) -> str:
  """Requests as one line, by instruction: `dot.16 f32[64,512]: output {0,1}`.

  Args:
    requests: the requests, node by node.
    most: how many instructions to list; None: all.
  """
  by_instruction: dict[str, list[str]] = {}
  for request in requests:
    opcode = "" if request.instruction.startswith(request.opcode) else f" {request.opcode}"
    by_instruction.setdefault(
        f"{request.instruction}{opcode} {request.shape}", []).append(str(request))
  listed = [f"{name}: {', '.join(tensors)}" for name, tensors in by_instruction.items()]
  more = 0 if most is None else len(listed) - most
  rest = [f"and {more} more instruction{'s' * (more > 1)}"] if more > 0 else []
  return "; ".join(listed[:most] + rest) or "no request"


@dataclasses.dataclass(frozen=True)
class TiledArray:
  """The array that the tiles of a kernel divide.

  Attributes:
    instruction, opcode: the instruction that computes it.
    shape: its shape, as HLO text.
    unit: what the bounds of a tile count.
  """

  instruction: str
  opcode: str
  shape: str
  unit: str

  def __str__(self) -> str:
    opcode = "" if self.instruction.startswith(self.opcode) else f" ({self.opcode})"
    return f"{self.instruction}{opcode} {self.shape}"


def tiled_array(module: hlo_pb2.HloModuleProto, tiling: str | None, source: str) -> TiledArray:
  """The result of a kernel, which its tiles divide.

  Args:
    module: the kernel.
    tiling: what the bounds mean; None: the file of the candidates does not say.
    source: the kernel's name in error messages.

  Raises:
    DataError: the kernel is damaged.
  """
  program = value_graph.Expanded(module, source)
  value = program.values[program.root]
  unit = {None: "as in the file", tile_spaces.TPU: "in hardware tiles of 8 x 128 elements"}.get(
      tiling, "in elements")
  sides = ",".join(map(str, value.shape))
  name = escaping.shown(value.instruction.name or str(value.instruction.id))
  return TiledArray(
      name, escaping.shown(value.opcode), f"{shapes.element_type(value.element_type)}[{sides}]",
      unit)
