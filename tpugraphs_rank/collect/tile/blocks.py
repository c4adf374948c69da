"""The blocks of arrays that one step of a tiled program touches, for any dataflow program.

A tile has a side for each axis of the result and for each axis that the *main contraction* sums
over: the reduction, product or convolution nearest to the result. A block of the result determines
the blocks of all arrays that it depends on. Operations without a rule for blocks (reshapes,
concatenations along a split axis) are computed as a whole before the loop. This module needs no
JAX.
"""

from collections.abc import Sequence
import dataclasses
import math
from typing import NamedTuple

from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.synthesis.programs import nodes as nodes_lib
from tpugraphs_rank.synthesis.programs import operations as ops
from tpugraphs_rank.synthesis.programs import programs

ITEM_BYTES: dict[str, int] = {**geometry.ITEM_BYTES, "pred": 1}


class Cut(NamedTuple):
  """A range along one axis of an array.

  Attributes:
    axis: axis of the tile: the axes of the result, then those of the main contraction; -1: the same
      range in every step.
    offset: added to the start of the tile's block.
    extra: added to the tile's side (the halo of a window); the size itself if `axis` is -1.
  """

  axis: int
  offset: int = 0
  extra: int = 0


# For each axis of an array: a range, or None for the whole axis.
Region = tuple[Cut | None, ...]


class Need(NamedTuple):
  """A node and the region of its result that is needed."""

  node: int
  region: Region


@dataclasses.dataclass(frozen=True)
class SyntheticKernel:
  """A synthetic program with the interface of a kernel; see `geometry.Kernel`.

  Attributes:
    program: the program.
    main: the main contraction, a place among the nodes; None: there is none.
    reduction_axes: the sizes of the axes that the main contraction sums over.
  """

  program: programs.RunnableProgram
  main: int | None = dataclasses.field(init=False)
  reduction_axes: geometry.Sides = dataclasses.field(init=False)
  _needs: "Needs" = dataclasses.field(init=False, repr=False, compare=False)

  def __post_init__(self) -> None:
    main = find_main_contraction(self.program)
    sizes = {} if main is None else _sizes_of_labels(self.program, main)
    # The class is frozen; these fields follow from the program.
    for name, value in (
        ("main", main), ("_needs", needs(self.program, main)),
        ("reduction_axes", () if main is None else tuple(
            sizes[label] for label in summed_labels(self.program, main)))):
      object.__setattr__(self, name, value)

  @property
  def stem(self) -> str:
    return self.program.stem

  @property
  def family(self) -> str:
    return self.program.family

  @property
  def dtype(self) -> str:
    return self.program.result.type

  @property
  def output_axes(self) -> geometry.Sides:
    return self.program.result.shape

  def iterations(self, tile: geometry.Tile) -> int:
    """Steps of the blocked loops."""
    return math.prod(size // side for size, side in zip(
        self.output_axes + self.reduction_axes, tile.output + tile.reduction))

  def input_bounds(self, tile: geometry.Tile) -> geometry.Sides:
    """The block of the first operand that one step reads; () for a scalar."""
    return self._blocks(tile)[self.program.parameters[0]]

  def working_set(self, tile: geometry.Tile) -> int:
    """Bytes of the blocks of the operands and of the result."""
    nodes = self.program.nodes
    total = math.prod(tile.output) * ITEM_BYTES[self.dtype]
    for parameter, sides in self._blocks(tile).items():
      total += math.prod(sides) * ITEM_BYTES[nodes[parameter].type]
    return total

  def _blocks(self, tile: geometry.Tile) -> dict[int, geometry.Sides]:
    """Parameter -> the largest block of it that a step reads."""
    sides = tile.output + tile.reduction
    blocks = {parameter: tuple(0 for _ in self.program.nodes[parameter].shape)
             for parameter in self.program.parameters}
    for need in self._needs.needed:
      if need.node in blocks:
        shape = self.program.nodes[need.node].shape
        blocks[need.node] = tuple(max(known, extent(cut, size, sides)) for known, cut, size in zip(
            blocks[need.node], need.region, shape))
    whole = {operand for node in self._needs.wholes
             for operand in ancestors(self.program, node)}
    # A step does not read what is only used by the arrays that are computed before the loop.
    return {parameter: sides if any(sides) or parameter not in whole
            else tuple(self.program.nodes[parameter].shape) for parameter, sides in blocks.items()}


def extent(cut: Cut | None, size: int, sides: Sequence[int]) -> int:
  """The number of elements of a range along an axis of `size`."""
  if cut is None:
    return size
  return cut.extra + (sides[cut.axis] if cut.axis >= 0 else 0)


def summed_labels(program: programs.RunnableProgram, node: int) -> str:
  """The labels of the axes that an operation sums over, in the order of its first operand."""
  contraction = program.nodes[node]
  if contraction.operation == ops.CONVOLUTION:
    return "d"
  sides, result = programs.labels(contraction)
  return "".join(name for name in sides[0] if name not in result)


def _sizes_of_labels(program: programs.RunnableProgram, node: int) -> dict[str, int]:
  contraction = program.nodes[node]
  if contraction.operation == ops.CONVOLUTION:
    return {"d": program.nodes[contraction.operands[0]].shape[3]}
  sides, _ = programs.labels(contraction)
  return {name: size for names, operand in zip(sides, contraction.operands)
          for name, size in zip(names, program.nodes[operand].shape)}


def find_main_contraction(program: programs.RunnableProgram) -> int | None:
  """The reduction, product or convolution whose sums the tile splits; None if there is none.

  This is the one nearest to the result; among equally near ones, the one with the largest operand.
  """
  nodes = program.nodes
  level, seen = [len(nodes) - 1], {len(nodes) - 1}
  while level:
    contractions = [node for node in level if nodes[node].operation in ops.CONTRACTIONS]
    if contractions:
      return max(contractions, key=lambda node: (programs.elements(
          nodes[nodes[node].operands[0]].shape), -node))
    below = [operand for node in level for operand in nodes[node].operands]
    level = [node for node in dict.fromkeys(below) if node not in seen]
    seen.update(level)
  return None


def ancestors(program: programs.RunnableProgram, node: int) -> set[int]:
  """The node and all nodes that it depends on."""
  reached, waiting = {node}, [node]
  while waiting:
    for operand in program.nodes[waiting.pop()].operands:
      if operand not in reached:
        reached.add(operand)
        waiting.append(operand)
  return reached


def operand_needs(program: programs.RunnableProgram, need: Need, loops: int | None,
                  main: int | None) -> list[Need] | None:
  """The regions from which a region of a node is computed; None: it is sliced from the whole array.

  Args:
    program: the kernel.
    need: the node and the region.
    loops: number of axes of the result, which precede the axes of the main contraction in a tile;
      None: sums are not split.
    main: the main contraction, whose sums are split.
  """
  node = program.nodes[need.node]
  shape_of = lambda place: program.nodes[place].shape
  full = lambda place: (None,) * len(shape_of(place))
  if node.operation in ops.LEAVES:
    return [] if node.operation != ops.IOTA else None
  if node.operation in ops.ELEMENTWISE:
    return [Need(operand, need.region if shape_of(operand) == node.shape else ())
            for operand in node.operands]
  if all(cut is None for cut in need.region) and (loops is None or need.node != main):
    return [Need(operand, full(operand)) for operand in node.operands]
  if node.equation:
    sides, result = programs.labels(node)
    cuts = dict(zip(result, need.region))
    if need.node == main and loops is not None:
      for place, name in enumerate(summed_labels(program, need.node)):
        cuts[name] = Cut(loops + place)
    return [Need(operand, tuple(cuts.get(name) for name in names))
            for names, operand in zip(sides, node.operands)]
  if node.operation == ops.SLICE:
    region = tuple(
        Cut(-1, start, size) if cut is None else cut._replace(offset=cut.offset + start)
        for cut, start, size in zip(need.region, node.starts, node.shape))
    return [Need(node.operands[0], region)]
  if node.operation == ops.CONCATENATE and need.region[node.axis] is None:
    return [Need(operand, need.region) for operand in node.operands]
  if node.operation == ops.GATHER:
    table, rows = node.operands
    return [Need(table, (None, *need.region[1:])), Need(rows, need.region[:1])]
  if node.operation == ops.CONVOLUTION:
    image, kernel = node.operands
    window = shape_of(kernel)[0] - 1
    halo = tuple(cut and cut._replace(extra=cut.extra + window) for cut in need.region[1:3])
    depth = Cut(loops) if need.node == main and loops is not None else None
    return [Need(image, (need.region[0], *halo, depth)),
            Need(kernel, (None, None, depth, need.region[3]))]
  return None


class Needs(NamedTuple):
  """Everything that one step computes.

  Attributes:
    needed: nodes and regions, users before their operands.
    wholes: nodes that are computed once, before the loop.
  """

  needed: list[Need]
  wholes: set[int]


def needs(program: programs.RunnableProgram, main: int | None) -> Needs:
  """The regions that a step of the tiled program computes and reads."""
  axes = len(program.result.shape)
  root = Need(len(program.nodes) - 1, tuple(Cut(axis) for axis in range(axes)))
  needed: list[Need] = []
  wholes: set[int] = set()
  waiting, seen = [root], {root}
  while waiting:
    need = waiting.pop(0)
    needed.append(need)
    below = operand_needs(program, need, axes, main)
    if below is None:
      wholes.add(need.node)
      continue
    for operand in below:
      if operand not in seen:
        seen.add(operand)
        waiting.append(operand)
  return Needs(needed, wholes)


def is_inner(region: Region, loops: int) -> bool:
  """Whether a region depends on the loop over the sums of the main contraction."""
  return any(cut is not None and cut.axis >= loops for cut in region)


def kind(program: programs.RunnableProgram) -> str:
  """The kind of kernel; see `nodes.kind`."""
  return nodes_lib.kind(program.dataflow())
