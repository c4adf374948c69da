"""The sites of a program, where layouts can be requested, and the program under such requests.

A program is traced once. It is then run again, equation by equation: every dot, convolution and
reshape has its own named scope, and `with_layout_constraint` wraps the tensors for which a
configuration requests a layout. XLA respects these constraints, while it would fold plain
transposes away. The scopes remain in the metadata of the HLO and identify the instruction that an
equation has become. This module needs JAX.
"""

from collections.abc import Callable, Sequence
import re
from typing import Any

from google.protobuf import empty_pb2
from google.protobuf import unknown_fields
import jax
from jax.experimental import layout
from jax.extend import core
import numpy as np

from tpugraphs_rank.collect.layout import configurations
from tpugraphs_rank.hlo import hlo_pb2

# Primitive -> HLO opcode.
OPCODES: dict[str, str] = {
    "dot_general": "dot", "conv_general_dilated": "convolution", "reshape": "reshape"}
_INLINED = ("jit", "custom_jvp_call", "custom_vjp_call")
# Fields of the public HloInstructionProto and OpMetadata that the proto here does not declare.
_METADATA_FIELD, _OP_NAME_FIELD = 7, 2

Requests = dict[int, configurations.Layouts]


class Traced:
  """A program as a list of equations.

  Attributes:
    shapes: for each configurable equation, in the order of execution, the shapes of its output,
      its input and, except for a reshape, its kernel.
    opcodes: the opcode of each of these equations.
  """

  def __init__(self, function: Callable[..., Any], arguments: Sequence[np.ndarray]) -> None:
    self._closed = jax.make_jaxpr(function)(*arguments)
    self._arguments = arguments
    self.shapes: list[tuple[tuple[int, ...], ...]] = []
    self.opcodes: list[str] = []
    # This only determines shapes; nothing is computed.
    jax.eval_shape(self.under({}, record=True), *arguments)

  def lower(self, requests: Requests) -> jax.stages.Lowered:
    """The program with the layouts that are requested for some equations (by their number)."""
    return jax.jit(self.under(requests)).lower(*self._arguments)

  def under(self, requests: Requests, record: bool = False) -> Callable[..., list[Any]]:
    """The program as a function, with the layouts that are requested for some equations.

    Args:
      requests: the layouts of output, input and kernel, by the number of the equation.
      record: whether to add to `shapes` and `opcodes`.
    """
    def program(*arguments: Any) -> list[Any]:
      counter = iter(range(1 << 30))
      return self._evaluate(self._closed.jaxpr, self._closed.consts, arguments, requests, counter,
                            record)
    return program

  def _evaluate(self, jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any],
                requests: Requests, counter: Any, record: bool) -> list[Any]:
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *arguments)))

    def read(variable: Any) -> Any:
      return variable.val if isinstance(variable, core.Literal) else values[variable]

    for equation in jaxpr.eqns:
      operands, name = [read(variable) for variable in equation.invars], equation.primitive.name
      if name in _INLINED:
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        results = self._evaluate(inner.jaxpr, inner.consts, operands, requests, counter, record)
      elif name in OPCODES:
        number = next(counter)
        results = [_constrained(equation, operands, number, requests.get(number, ()))]
        if record:
          self.shapes.append((results[0].shape, *(operand.shape for operand in operands)))
          self.opcodes.append(OPCODES[name])
      else:
        results = equation.primitive.bind(*operands, **equation.params)
        if not equation.primitive.multiple_results:
          results = [results]
      values.update(zip(equation.outvars, results))
    return [read(variable) for variable in jaxpr.outvars]


def _constrained(equation: Any, operands: list[Any], number: int, requested: configurations.Layouts
                 ) -> Any:
  """One dot, convolution or reshape, in the scope with its number."""
  def request(value: Any, tensor: int) -> Any:
    minor_to_major = requested[tensor] if tensor < len(requested) else ()
    if not minor_to_major:
      return value
    return layout.with_layout_constraint(
        value, layout.Layout(major_to_minor=tuple(reversed(minor_to_major))))

  with jax.named_scope(f"site_{number}"):
    operands = [request(operand, tensor) for tensor, operand in enumerate(operands, 1)]
    return request(equation.primitive.bind(*operands, **equation.params), 0)


def module_bytes(lowered: jax.stages.Lowered) -> bytes:
  """The program's HLO before optimisation, a serialized `HloModuleProto`."""
  return lowered.compiler_ir("hlo").as_serialized_hlo_module_proto()


def configurable(traced: Traced, module: bytes) -> tuple[list[configurations.Site], list[int]]:
  """The sites of a program, in the order of their instructions.

  An equation is a site if it has become exactly one instruction with its opcode and shapes (a
  reshape of a constant has not, nor have two reshapes that became one), and if one of its tensors
  has more than one layout.

  Args:
    traced: the program.
    module: its HLO before optimisation, without requests.

  Returns:
    The sites, and the numbers of their equations.
  """
  positions_of: dict[int, list[int]] = {}
  position = 0
  for computation in hlo_pb2.HloModuleProto.FromString(module).computations:
    shapes = {instruction.id: tuple(instruction.shape.dimensions)
              for instruction in computation.instructions}
    for instruction in computation.instructions:
      match = re.search(r"(?:^|/)site_(\d+)/", _op_name(instruction))
      if match:
        number = int(match[1])
        tensors = tuple(shapes[key] for key in (instruction.id, *instruction.operand_ids))
        if (instruction.opcode, tensors) == (traced.opcodes[number], traced.shapes[number]):
          positions_of.setdefault(number, []).append(position)
      position += 1
  chosen = sorted((positions[0], number) for number, positions in positions_of.items()
                  if len(positions) == 1)
  sites = [(configurations.Site(node, traced.opcodes[number], traced.shapes[number]), number)
           for node, number in chosen]
  sites = [(site, number) for site, number in sites if site.slots]
  return [site for site, _ in sites], [number for _, number in sites]


def _op_name(instruction: hlo_pb2.HloInstructionProto) -> str:
  """The scopes and the primitive of an instruction, from fields that the proto does not declare."""
  for field in unknown_fields.UnknownFieldSet(instruction):
    if field.field_number == _METADATA_FIELD:
      # The field holds bytes. Parsed as a message without fields, all of its fields are unknown.
      for inner in unknown_fields.UnknownFieldSet(empty_pb2.Empty.FromString(field.data)):
        if inner.field_number == _OP_NAME_FIELD:
          return inner.data.decode()
  return ""
