"""Runnable programs of dataflow operations, as plain data without JAX or TensorFlow.

`realization` makes them from synthetic graphs; `tpugraphs_rank.collect` compiles and measures them.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import re
from typing import Any

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank.synthesis.programs import nodes as nodes_lib
from tpugraphs_rank.synthesis.programs import operations

Shape = tuple[int, ...]

# Limits of what is read from files: nodes of a program, and elements and axes of an array.
MAX_NODES = 10_000
MAX_ELEMENTS = 2**31 - 1
MAX_AXES = 16

# <source>_<kind>.<number>.<element type>; the part before the first dot is the family.
_STEM = re.compile(r"[a-z][a-z0-9_]*\.[0-9]+\.[a-z0-9]+")


@dataclasses.dataclass(frozen=True)
class Node:
  """One operation with everything that is needed to run it.

  Attributes:
    operation: one of `operations.ALL`.
    operands: indices of earlier nodes; an index may occur twice.
    type: element type of the result.
    shape: shape of the result; () for a constant.
    equation: for broadcasts, transposes, reductions and dots, in einsum notation such as
      "ac,cb->ab"; axes of an operand that the result lacks are summed (or combined).
    starts: for a slice, the start along each axis.
    axis: for a concatenation, its axis.
    value: for a constant, its value.
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
  """A runnable kernel or layout program: operands before users, the result last.

  Attributes:
    stem: its name, `<source>_<kind>.<number>.<type>`.
    nodes: the operations.
  """

  stem: str
  nodes: tuple[Node, ...]

  def __post_init__(self) -> None:
    if not _STEM.fullmatch(self.stem):
      raise errors.DataError(f"{self.stem!r} is not a valid name of a synthetic program; expected "
                             "<source>_<kind>.<number>.<type>, such as layerdag_dot.7.f32")
    for index, node in enumerate(self.nodes):
      fault = _fault(node, index, self.nodes)
      if fault:
        raise errors.DataError(
            f"{self.stem}: node {index} ({escaping.shown(node.operation)}): {fault}")

  @property
  def family(self) -> str:
    return self.stem.partition(".")[0]

  @property
  def result(self) -> Node:
    return self.nodes[-1]

  @property
  def parameters(self) -> list[int]:
    """Indices of the program's parameters, in the order in which it takes them."""
    return [place for place, node in enumerate(self.nodes)
            if node.operation == operations.PARAMETER]

  def dataflow(self) -> list[nodes_lib.Node]:
    """The graph that `dataflow.of_graph` reads from the program's HLO, up to node order."""
    return [nodes_lib.Node(node.operation, node.type, nodes_lib.bucket_of(elements(node.shape)),
                          tuple(sorted(set(node.operands)))) for node in self.nodes]

  def to_json(self) -> dict[str, Any]:
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> "RunnableProgram":
    """Reads what `to_json` wrote.

    Raises:
      DataError: a part is missing or invalid.
    """
    try:
      stem, nodes = value["stem"], value["nodes"]
      if not isinstance(stem, str) or not isinstance(nodes, (list, tuple)) or not nodes:
        raise ValueError("stem is no string, or nodes is no list of at least one node")
      if len(nodes) > MAX_NODES:
        raise errors.LimitError(
            f"the program {stem[:100]!r} has {len(nodes):,} nodes; the limit is {MAX_NODES:,}")
      return cls(stem, tuple(map(_node, nodes)))
    except errors.TpuGraphsRankError:
      raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
      raise errors.DataError(
          f"not a program: {error}; expected stem and nodes, as "
          f"{commands.command('synthesize')} writes them") from error


_TYPES: Mapping[str, type] = {
    "operation": str, "operands": tuple, "type": str, "shape": tuple, "equation": str,
    "starts": tuple, "axis": int, "value": float}


def _node(stored: Mapping[str, Any]) -> Node:
  """Reads a node; raises ValueError if a value is of another type."""
  for key, value in stored.items():
    expected = _TYPES.get(key)
    good = (isinstance(value, (list, tuple)) and all(type(part) is int and abs(part) <= MAX_ELEMENTS
                                            for part in value) if expected is tuple
            else type(value) in (int, float) and abs(value) < math.inf if expected is float
            else type(value) is expected)
    if not good:
      raise ValueError(f"{escaping.shown(key)} of a node is {escaping.value(value)}")
  values: dict[str, Any] = {
      key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()}
  node = Node(**values)
  if len(node.shape) > MAX_AXES or elements(node.shape) > MAX_ELEMENTS:
    raise errors.LimitError(
        f"a node has the shape {escaping.value(list(node.shape))}; the limits are {MAX_AXES} axes "
        f"and {MAX_ELEMENTS:,} elements")
  return node


def elements(shape: Sequence[int]) -> int:
  """The number of elements of an array."""
  count = 1
  for size in shape:
    count *= size
  return count


def labels(node: Node) -> tuple[list[str], str]:
  """The axis labels of each operand and of the result, for a node with an equation."""
  left, _, right = node.equation.partition("->")
  return left.split(","), right


def sites(nodes: Sequence[Node], min_elements: int = 0) -> int:
  """The number of dots, convolutions and reshapes with a large tensor of two or more axes."""
  count = 0
  for node in nodes:
    tensors = [node.shape, *(nodes[operand].shape for operand in node.operands)]
    count += node.operation in operations.SITES and any(
        sum(size > 1 for size in shape) > 1 and elements(shape) >= min_elements
        for shape in tensors)
  return count


def work(nodes: Sequence[Node]) -> float:
  """An estimate of the arithmetic operations that a program executes."""
  total = 0.0
  for node in nodes:
    size: float = elements(node.shape)
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
  """A description of what is invalid about a node, or ""."""
  if node.operation not in operations.ALL:
    return f"unknown operation; expected one of {', '.join(sorted(operations.ALL))}"
  if node.type not in operations.TYPES:
    return (f"unknown element type {node.type!r}; expected one of "
            f"{', '.join(sorted(operations.TYPES))}")
  if any(not 0 <= operand < place for operand in node.operands):
    return f"operands {node.operands}; expected indices below {place}"
  if any(not isinstance(size, int) or size < 1 for size in node.shape):
    return f"shape {node.shape}; expected sizes of 1 or more"
  if len(set(node.operands)) not in operations.ARITIES[node.operation]:
    return f"{len(set(node.operands))} distinct operands"
  operands = [nodes[operand] for operand in node.operands]
  shapes = [operand.shape for operand in operands]
  if node.operation in operations.ELEMENTWISE:
    if any(shape not in ((), node.shape) for shape in shapes):
      return f"operands of shapes {shapes}; expected {node.shape}, or scalars"
  elif node.equation:
    return _equation_fault(node, shapes)
  elif node.operation == operations.SLICE:
    starts = node.starts
    if len(shapes[0]) != len(node.shape) or len(starts) != len(node.shape) or any(
        start < 0 or start + size > whole
        for start, size, whole in zip(starts, node.shape, shapes[0])):
      return f"{starts} + {node.shape} of an operand of shape {shapes[0]}"
  elif node.operation == operations.CONCATENATE:
    whole = list(node.shape)
    whole[node.axis] = sum(shape[node.axis] for shape in shapes)
    if tuple(whole) != node.shape or any(
        shape[:node.axis] + shape[node.axis + 1:]
        != node.shape[:node.axis] + node.shape[node.axis + 1:] for shape in shapes):
      return f"operands of shapes {shapes} do not give {node.shape} along axis {node.axis}"
  elif node.operation == operations.RESHAPE:
    if elements(shapes[0]) != elements(node.shape):
      return f"{shapes[0]} does not hold as many elements as {node.shape}"
  elif node.operation == operations.GATHER:
    table, rows = shapes
    if len(rows) != 1 or node.shape != rows + table[1:] or operands[1].type != "s32":
      return f"rows {rows} of a table {table} do not give {node.shape}"
  elif node.operation == operations.CONVOLUTION:
    if [len(shape) for shape in (node.shape, *shapes)] != [4, 4, 4]:
      return "expected arrays with four axes"
    (n, h, w, co), (images, tall, wide, ci), (kh, kw, depth, width) = node.shape, *shapes
    if (images, tall - kh + 1, wide - kw + 1, ci, co) != (n, h, w, depth, width):
      return f"operands of shapes {shapes} do not give {node.shape}"
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
