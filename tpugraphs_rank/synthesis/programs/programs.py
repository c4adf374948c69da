"""Runnable programs of dataflow operations, as plain data: no JAX, no TensorFlow.

`realise` makes them of synthetic graphs; `tpugraphs_rank.collect` compiles and measures them.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import re
from typing import Any

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.programs import nodes as nodes_lib
from tpugraphs_rank.synthesis.programs import operations

Shape = tuple[int, ...]

# <source>_<kind>.<number>.<element type>: what stands before the first dot is the family.
_STEM = re.compile(r"^[a-z][a-z0-9_]*\.[0-9]+\.[a-z0-9]+$")


@dataclasses.dataclass(frozen=True)
class Node:
  """One operation with everything that it needs to run.

  Attributes:
    operation: one of `operations.ALL`.
    operands: places of earlier nodes; one may be given twice.
    type: element type of the result.
    shape: of the result; a constant's is ().
    equation: of broadcasts, transposes, reductions and dots, in the notation of einsum, such as
      "ac,cb->ab"; what stands in an operand but not in the result is summed (or combined).
    starts: of a slice, where it begins along each axis.
    axis: of a concatenation.
    value: of a constant.
  """

  operation: str
  operands: tuple[int, ...]
  type: str
  shape: Shape
  equation: str = ""
  starts: Shape = ()
  axis: int = 0
  value: float = 0.0


@dataclasses.dataclass(frozen=True)
class RunnableProgram:
  """A kernel: nodes, operands before users, the result last.

  Attributes:
    stem: its name, `<source>_<kind>.<number>.<type>`.
    nodes: the operations.
  """

  stem: str
  nodes: tuple[Node, ...]

  def __post_init__(self) -> None:
    if not _STEM.match(self.stem):
      raise errors.DataError(f"{self.stem!r} is no name of a made program; expected "
                             "<source>_<kind>.<number>.<type>, such as layerdag_dot.7.f32")
    for place, node in enumerate(self.nodes):
      wrong = _fault(node, place, self.nodes)
      if wrong:
        raise errors.DataError(f"{self.stem}: node {place} ({node.operation}): {wrong}")

  @property
  def family(self) -> str:
    return self.stem.partition(".")[0]

  @property
  def result(self) -> Node:
    return self.nodes[-1]

  @property
  def parameters(self) -> list[int]:
    """Places of the operands of the program, in the order in which it takes them."""
    return [place for place, node in enumerate(self.nodes)
            if node.operation == operations.PARAMETER]

  def dataflow(self) -> list[nodes_lib.Node]:
    """What `dataflow.of_graph` finds in the program's HLO, the order of nodes apart."""
    return [nodes_lib.Node(node.operation, node.type, nodes_lib.bucket_of(elements(node.shape)),
                          tuple(sorted(set(node.operands)))) for node in self.nodes]

  def to_json(self) -> dict[str, Any]:
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> "RunnableProgram":
    """The inverse of `to_json`.

    Raises:
      DataError: something is missing, or makes no sense.
    """
    try:
      nodes = [Node(**{key: tuple(part) if isinstance(part, list) else part
                       for key, part in node.items()}) for node in value["nodes"]]
      return cls(str(value["stem"]), tuple(nodes))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
      raise errors.DataError(
          f"no program: {error}; expected stem and nodes, as python -m "
          "experiments.realise_graphs writes them") from error


def elements(shape: Sequence[int]) -> int:
  """How many elements an array has."""
  count = 1
  for size in shape:
    count *= size
  return count


def labels(node: Node) -> tuple[list[str], str]:
  """The labels of each operand's axes, and of the result's, of a node with an equation."""
  left, _, right = node.equation.partition("->")
  return left.split(","), right


def sites(nodes: Sequence[Node], least: int = 0) -> int:
  """How many dots, convolutions and reshapes have a tensor of two axes and so many elements."""
  count = 0
  for node in nodes:
    tensors = [node.shape, *(nodes[operand].shape for operand in node.operands)]
    count += node.operation in operations.SITES and any(
        sum(size > 1 for size in shape) > 1 and elements(shape) >= least
        for shape in tensors)
  return count


def work(nodes: Sequence[Node]) -> float:
  """About how many operations on numbers a program takes."""
  total = 0.0
  for node in nodes:
    size = elements(node.shape)
    if node.operation in operations.REDUCTIONS:
      size = elements(nodes[node.operands[0]].shape)
    elif node.operation == operations.DOT:
      size = size * elements(nodes[node.operands[0]].shape) / max(1, elements(
          [extent for name, extent in zip(node.equation.partition(",")[0],
                                          nodes[node.operands[0]].shape) if name != "k"]))
    elif node.operation == operations.CONVOLUTION:
      size *= elements(nodes[node.operands[1]].shape[:3])
    total += size
  return total


def _fault(node: Node, place: int, nodes: Sequence[Node]) -> str:
  """What is wrong with a node, or ""."""
  if node.operation not in operations.ALL:
    return f"no operation of that name; there are {', '.join(sorted(operations.ALL))}"
  if node.type not in operations.TYPES:
    return f"unknown element type {node.type!r}; one of {', '.join(sorted(operations.TYPES))}"
  if any(not 0 <= operand < place for operand in node.operands):
    return f"operands {node.operands}; expected places before {place}"
  if any(not isinstance(size, int) or size < 1 for size in node.shape):
    return f"shape {node.shape}; expected sizes of 1 or more"
  if len(set(node.operands)) not in operations.ARITIES[node.operation]:
    return f"{len(set(node.operands))} distinct operands"
  operands = [nodes[operand] for operand in node.operands]
  shapes = [operand.shape for operand in operands]
  if node.operation in operations.ELEMENTWISE:
    if any(shape not in ((), node.shape) for shape in shapes):
      return f"operands of the shapes {shapes}; expected {node.shape}, or scalars"
  elif node.equation:
    return _equation_fault(node, shapes)
  elif node.operation == operations.SLICE:
    starts = node.starts
    if len(shapes[0]) != len(node.shape) or len(starts) != len(node.shape) or any(
        start < 0 or start + size > whole
        for start, size, whole in zip(starts, node.shape, shapes[0])):
      return f"{starts} + {node.shape} of an operand of the shape {shapes[0]}"
  elif node.operation == operations.CONCATENATE:
    whole = list(node.shape)
    whole[node.axis] = sum(shape[node.axis] for shape in shapes)
    if tuple(whole) != node.shape or any(
        shape[:node.axis] + shape[node.axis + 1:]
        != node.shape[:node.axis] + node.shape[node.axis + 1:] for shape in shapes):
      return f"operands of the shapes {shapes} do not make {node.shape} along axis {node.axis}"
  elif node.operation == operations.RESHAPE:
    if elements(shapes[0]) != elements(node.shape):
      return f"{shapes[0]} does not hold as many elements as {node.shape}"
  elif node.operation == operations.GATHER:
    table, rows = shapes
    if len(rows) != 1 or node.shape != rows + table[1:] or operands[1].type != "s32":
      return f"rows {rows} of a table {table} are not {node.shape}"
  elif node.operation == operations.CONVOLUTION:
    if [len(shape) for shape in (node.shape, *shapes)] != [4, 4, 4]:
      return "expected arrays of four axes"
    (n, h, w, co), (images, tall, wide, ci), (kh, kw, depth, width) = node.shape, *shapes
    if (images, tall - kh + 1, wide - kw + 1, ci, co) != (n, h, w, depth, width):
      return f"operands of the shapes {shapes} do not make {node.shape}"
  elif node.operation not in operations.LEAVES:
    return "no equation"
  return ""


def _equation_fault(node: Node, shapes: Sequence[Shape]) -> str:
  sides, result = labels(node)
  sizes: dict[str, int] = {}
  for names, shape in [*zip(sides, shapes), (result, node.shape)]:
    if len(names) != len(shape):
      return f"{node.equation} does not fit the shapes {shapes} and {node.shape}"
    for name, size in zip(names, shape):
      if sizes.setdefault(name, size) != size:
        return f"{node.equation}: axis {name} is {sizes[name]} and {size} long"
  if len(sides) != len(shapes):
    return f"{node.equation} has {len(sides)} operands, not {len(shapes)}"
  return ""
