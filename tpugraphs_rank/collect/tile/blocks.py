"""Which blocks of which arrays one step of a tiled program touches, for any dataflow program.

A tile gives a side for each axis of the result and for each axis that the *hero* sums: the
reduction or product nearest to the result. From a block of the result follow the blocks of all
arrays that it needs; what no block rule is known for (reshapes, concatenations along a cut axis) is
computed as a whole before the loop. No JAX here.
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
    axis: of the tile: the result's axes, then the hero's; -1: the same range in every step.
    offset: added to where the tile's block begins.
    extra: added to the tile's side (a window's halo); the size itself where `axis` is -1.
  """

  axis: int
  offset: int = 0
  extra: int = 0


# For each axis of an array a range, or None for all of it.
Region = tuple[Cut | None, ...]


class Need(NamedTuple):
  """A node, and the part of its result that is needed."""

  node: int
  region: Region


@dataclasses.dataclass(frozen=True)
class SyntheticKernel:
  """A made program as the collector sees a kernel; see `geometry.Kernel`."""

  program: programs.RunnableProgram

  def __post_init__(self) -> None:
    hero = find_hero(self.program)
    object.__setattr__(self, "hero", hero)
    object.__setattr__(self, "_needs", needs(self.program, hero))
    object.__setattr__(self, "summed", () if hero is None else tuple(
        _sizes_of_labels(self.program, hero)[name] for name in summed_labels(self.program, hero)))

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

  @property
  def reduction_axes(self) -> geometry.Sides:
    return self.summed

  def iterations(self, tile: geometry.Tile) -> int:
    """Steps of the blocked loops."""
    return math.prod(size // side for size, side in zip(
        self.output_axes + self.reduction_axes, tile.output + tile.reduction))

  def input_bounds(self, tile: geometry.Tile) -> geometry.Sides:
    """Block of the first operand that one step reads; of a scalar, ()."""
    return self._blocks(tile)[self.program.parameters[0]]

  def working_set(self, tile: geometry.Tile) -> int:
    """Bytes of the operands' blocks and of the result's."""
    nodes = self.program.nodes
    total = math.prod(tile.output) * ITEM_BYTES[self.dtype]
    for parameter, sides in self._blocks(tile).items():
      total += math.prod(sides) * ITEM_BYTES[nodes[parameter].type]
    return total

  def _blocks(self, tile: geometry.Tile) -> dict[int, geometry.Sides]:
    """Parameter -> the largest block of it that a step reads."""
    sides = tile.output + tile.reduction
    found = {parameter: tuple(0 for _ in self.program.nodes[parameter].shape)
             for parameter in self.program.parameters}
    for need in self._needs.needed:
      if need.node in found:
        shape = self.program.nodes[need.node].shape
        found[need.node] = tuple(max(known, extent(cut, size, sides)) for known, cut, size in zip(
            found[need.node], need.region, shape))
    whole = {operand for node in self._needs.wholes
             for operand in ancestors(self.program, node)}
    # What only goes into arrays that are made before the loop is no part of a step.
    return {parameter: sides if any(sides) or parameter not in whole
            else tuple(self.program.nodes[parameter].shape) for parameter, sides in found.items()}


def extent(cut: Cut | None, size: int, sides: Sequence[int]) -> int:
  """How many elements a range holds along an axis of `size`."""
  if cut is None:
    return size
  return cut.extra + (sides[cut.axis] if cut.axis >= 0 else 0)


def summed_labels(program: programs.RunnableProgram, node: int) -> str:
  """The labels that an operation sums, in the order of its first operand."""
  given = program.nodes[node]
  if given.operation == ops.CONVOLUTION:
    return "d"
  sides, result = programs.labels(given)
  return "".join(name for name in sides[0] if name not in result)


def _sizes_of_labels(program: programs.RunnableProgram, node: int) -> dict[str, int]:
  given = program.nodes[node]
  if given.operation == ops.CONVOLUTION:
    return {"d": program.nodes[given.operands[0]].shape[3]}
  sides, _ = programs.labels(given)
  return {name: size for names, operand in zip(sides, given.operands)
          for name, size in zip(names, program.nodes[operand].shape)}


def find_hero(program: programs.RunnableProgram) -> int | None:
  """The reduction, product or convolution whose sums the tile cuts; None where there is none.

  The nearest to the result; of several as near the one that reads most.
  """
  nodes = program.nodes
  level, seen = [len(nodes) - 1], {len(nodes) - 1}
  while level:
    able = [node for node in level if nodes[node].operation in ops.CONTRACTIONS]
    if able:
      return max(able, key=lambda node: (programs.elements(
          nodes[nodes[node].operands[0]].shape), -node))
    below = [operand for node in level for operand in nodes[node].operands]
    level = [node for node in dict.fromkeys(below) if node not in seen]
    seen.update(level)
  return None


def ancestors(program: programs.RunnableProgram, node: int) -> set[int]:
  """The node and all that it depends on."""
  found, waiting = {node}, [node]
  while waiting:
    for operand in program.nodes[waiting.pop()].operands:
      if operand not in found:
        found.add(operand)
        waiting.append(operand)
  return found


def operand_needs(program: programs.RunnableProgram, need: Need, loops: int | None,
                  hero: int | None) -> list[Need] | None:
  """What a block of a node's result is computed from; None: it is cut from the whole array.

  Args:
    program: the kernel.
    need: the node and the region.
    loops: number of the result's axes, after which the axes of the hero's sums come; None: sums
      are taken in one piece.
    hero: whose sums are cut.
  """
  node = program.nodes[need.node]
  shape_of = lambda place: program.nodes[place].shape
  full = lambda place: (None,) * len(shape_of(place))
  if node.operation in ops.LEAVES:
    return [] if node.operation != ops.IOTA else None
  if node.operation in ops.ELEMENTWISE:
    return [Need(operand, need.region if shape_of(operand) == node.shape else ())
            for operand in node.operands]
  if all(cut is None for cut in need.region) and (loops is None or need.node != hero):
    return [Need(operand, full(operand)) for operand in node.operands]
  if node.equation:
    sides, result = programs.labels(node)
    cuts = dict(zip(result, need.region))
    if need.node == hero and loops is not None:
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
    depth = Cut(loops) if need.node == hero and loops is not None else None
    return [Need(image, (need.region[0], *halo, depth)),
            Need(kernel, (None, None, depth, need.region[3]))]
  return None


class Needs(NamedTuple):
  """Everything that one step computes.

  Attributes:
    needed: nodes and regions, users before operands.
    wholes: nodes that are computed once, before the loop.
  """

  needed: list[Need]
  wholes: set[int]


def needs(program: programs.RunnableProgram, hero: int | None) -> Needs:
  """What a step of the tiled program computes and reads."""
  axes = len(program.result.shape)
  root = Need(len(program.nodes) - 1, tuple(Cut(axis) for axis in range(axes)))
  found: list[Need] = []
  wholes: set[int] = set()
  waiting, seen = [root], {root}
  while waiting:
    need = waiting.pop(0)
    found.append(need)
    below = operand_needs(program, need, axes, hero)
    if below is None:
      wholes.add(need.node)
      continue
    for operand in below:
      if operand not in seen:
        seen.add(operand)
        waiting.append(operand)
  return Needs(found, wholes)


def is_inner(region: Region, loops: int) -> bool:
  """Whether a region moves with the loop over the hero's sums."""
  return any(cut is not None and cut.axis >= loops for cut in region)


def kind(program: programs.RunnableProgram) -> str:
  """The kind of kernel; see `nodes.kind`."""
  return nodes_lib.kind(program.dataflow())
