"""Which ranges of every array one step of a tiled kernel touches, from the kernel's graph.

A tile has a side for each axis of the result, and one for each axis that the *main contraction*
sums over: the dot, convolution, reduction, scatter, filter or selection of the largest elements
nearest to the result. Every axis of every array is related to one of these loops, or is touched
whole. The relations follow from the shapes and a few node features. The public format stores the
operands of a node as a set and omits the axes of dots and scatters, so axes are matched by size
where nothing else decides.
"""

import collections
from collections.abc import Iterator, Sequence, Set
import dataclasses
from typing import NamedTuple

import numpy as np

from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import tile_features
from tpugraphs_rank.hlo import features
from tpugraphs_rank.hlo import opcodes

_COLUMN = {name: place for place, name in enumerate(features.NODE_FEATURE_NAMES)}
_CONVOLUTION = "convolution_dim_numbers_"
_SPATIAL = 4
# A slice of a sorted array selects the largest or smallest elements; an addition may be the last of
# a filter.
_CONTRACTIONS = ("convolution", "dot", "reduce", "scatter", "slice", "add")
# The public format gives a result that consists of several arrays no shape.
_SEVERAL_RESULTS = ("reduce", "sort")
_CALLS = ("call", "fusion")
_OPERANDS_OF_SCATTER = 4  # With the root of the computation that it calls; more: several arrays.
# What may be between a sorted array and the slice that selects its largest elements.
_SAME_ELEMENTS = (*_CALLS, "reverse", "copy", "get-tuple-element")
_BETWEEN = 8
_MOST_TAPS = 64  # Of a filter.
# Sizes above this are not lengths of axes, and their conversion to integers is undefined.
_LONGEST = 2.0 ** 40


@dataclasses.dataclass(frozen=True)
class Axis:
  """How the range along one axis of an array depends on the tile.

  The range has `stride * side + extra` elements, where `side` is the tile's side of a loop.

  Attributes:
    size: elements of the axis.
    loop: the loop; -1 if every step touches the whole axis.
    stride: of a convolution's window.
    extra: the halo of a window; negative if `stride` is larger than the window.
  """

  size: int
  loop: int = -1
  stride: int = 1
  extra: int = 0

  def range(self, sides: np.ndarray) -> np.ndarray:
    """(c,) float64: elements that one step touches, from (c, loops) sides."""
    if self.loop < 0:
      return np.full(len(sides), float(self.size))
    return np.clip(self.stride * sides[:, self.loop] + self.extra, 1.0, float(self.size))


Axes = tuple[Axis, ...]


class Parts(NamedTuple):
  """Equal parts of a summed axis that a tile may cut at the same time.

  Attributes:
    loop: the loop of the axis.
    size: elements of a part.
    axis: of the first operand; the side of the operand's block shows whether the parts are cut.
    multiple: the operand's block has this many times the side of the loop if the parts are cut.
  """

  loop: int
  size: int
  axis: int
  multiple: int


class _Scatter(NamedTuple):
  """The operands of a scatter.

  Attributes:
    indices: node of the indices.
    updates: node of the updates.
    axis: of the updates, along which they are added to, or replace, any elements.
  """

  indices: int
  updates: int
  axis: int


@dataclasses.dataclass(frozen=True)
class Kernel:
  """The loops of a tiled kernel, and the arrays that they cut.

  The statistics of a normalisation do not depend on the loops over the axes that they sum up, so
  they are computed once for all blocks along these axes. Therefore an array may be needed twice:
  by the sums, and by what follows them.

  Attributes:
    outputs: number of loops over the result's axes, which come first.
    loops: (l,) float64, the extents of all loops: of the result's axes, then of the summed axes.
    sums: for each node the ranges of its value that a step of the sums needs; None if it needs none
      (constants, instructions of reducers, and what is computed from the sums).
    rest: the same for what is computed without the sums, or after them.
    called: for each node, whether it belongs to a called computation: its parameters are no arrays
      of their own.
    operands: for each node its operands.
    main: node of the main contraction; -1 if there is none.
    root: node of the result.
    parts: where a summed axis consists of equal parts that were concatenated, the ways in which a
      tile may cut each of the parts instead.
  """

  outputs: int
  loops: np.ndarray
  sums: tuple[Axes | None, ...]
  rest: tuple[Axes | None, ...]
  called: tuple[bool, ...]
  operands: tuple[tuple[int, ...], ...]
  main: int
  root: int
  parts: tuple[Parts, ...] = ()

  @property
  def summing(self) -> tuple[int, ...]:
    """The loops around a step of the sums, outer first; empty if nothing is summed."""
    if len(self.loops) == self.outputs:
      return ()
    of_main = {axis.loop for axis in self.rest[self.main] or ()}
    return tuple(loop for loop in range(len(self.loops))
                 if loop >= self.outputs or loop in of_main)

  def sides(self, config_feat: np.ndarray) -> np.ndarray:
    """(c, 24) configurations to (c, l) float64: the side of each loop, from 1 to its extent.

    A missing bound leaves its loop whole.
    """
    bounds = config_feat.astype(np.float64)
    of = lambda first, count: np.pad(
        bounds[:, first:first + min(count, tile_features.SIDES)],
        [(0, 0), (0, max(count - tile_features.SIDES, 0))])
    summed = len(self.loops) - self.outputs
    sides = np.concatenate(
        [of(tile_features.OUTPUT, self.outputs), of(tile_features.KERNEL, summed)], axis=1)
    return np.clip(np.where(sides > 0, sides, self.loops), 1.0, self.loops)

  def extents(self, config_feat: np.ndarray) -> np.ndarray:
    """(c, l) float64: the extent of each loop; it differs only where a loop may cut `parts`."""
    extents = np.tile(self.loops, (len(config_feat), 1))
    sides = self.sides(config_feat)
    for loop, size, axis, multiple in self.parts:
      block = config_feat[:, tile_features.INPUT + axis]
      extents[(block == multiple * sides[:, loop]) & (sides[:, loop] <= size), loop] = size
    return extents

  def trips(self, config_feat: np.ndarray) -> np.ndarray:
    """(c, l) float64: the number of iterations of each loop."""
    return np.ceil(self.extents(config_feat) / self.sides(config_feat))


def kernel(graph: graphs.Graph) -> Kernel:
  """The loops and ranges of a kernel whose sides count elements."""
  return _Walk(graph).kernel()


class _Walk:
  """Relates the axes of all nodes to the loops, from the result back to the parameters."""

  def __init__(self, graph: graphs.Graph):
    self._feat = graph.node_feat
    self._names = [opcodes.opcode_name(number) for number in graph.node_opcode.tolist()]
    self._root = tile_features.root(graph)
    self._shapes = [
        tuple(int(size) for size in row if 0 < size <= _LONGEST)
        for row in graph.node_feat[:, tile_features.DIMENSIONS].astype(np.float64).tolist()]
    self._operands: list[list[int]] = [[] for _ in range(graph.num_nodes)]
    for user, operand in graph.edge_index.tolist():
      self._operands[user].append(operand)
    self._largest: dict[int, int] = {}  # The largest operand by node.
    self._scatters: dict[int, _Scatter | None] = {}
    self._called = self._find_called()
    self._inline_calls()
    for node, name in enumerate(self._names):
      if name == "get-tuple-element":
        for operand in self._operands[node]:
          if self._names[operand] in _SEVERAL_RESULTS and not self._shapes[operand]:
            self._shapes[operand] = self._shapes[node]
    self._main = self._find_main()

  def _numbers(self, node: int, name: str, count: int) -> list[int]:
    first = _COLUMN[f"{name}_0"]
    return np.clip(self._feat[node, first:first + count], -1, _LONGEST).astype(int).tolist()

  def _number(self, node: int, name: str) -> int:
    return int(np.clip(self._feat[node, _COLUMN[name]], -1, _LONGEST))

  def _find_called(self) -> tuple[bool, ...]:
    """For each node, whether it belongs to a called computation."""
    waiting = [node for node in np.flatnonzero(
        self._feat[:, tile_features.IS_ROOT] > 0).tolist() if node != self._root]
    called = set(waiting)
    while waiting:
      below = [node for node in self._operands[waiting.pop()] if node not in called]
      called.update(below)
      waiting += below
    return tuple(node in called for node in range(len(self._names)))

  def _inline_calls(self) -> None:
    """Makes the arguments of a call the operands of the parameters of the called computation.

    The public format does not order the arguments, so those of one shape are taken in the order of
    their nodes. Computations that several calls share remain as they are.
    """
    original = tuple(map(tuple, self._operands))
    users = collections.Counter(operand for operands in original for operand in set(operands))
    is_called = lambda node: self._called[node] and self._feat[node, tile_features.IS_ROOT] > 0
    inlined: set[int] = set()
    for node, name in enumerate(self._names):
      roots = [operand for operand in original[node] if is_called(operand)]
      if name not in _CALLS or len(roots) != 1 or users[roots[0]] > 1:
        continue
      waiting, inside = list(roots), set(roots)
      while waiting:
        below = [operand for operand in original[waiting.pop()]
                 if operand not in inside and not is_called(operand)]
        # Nodes of two computations are damage, and would make this take quadratic time.
        if not inlined.isdisjoint(below):
          break
        inside.update(below)
        waiting += below
      else:
        self._inline(node, roots[0], inside)
      inlined |= inside

  def _inline(self, call: int, root: int, inside: Set[int]) -> None:
    """Does this for one call of the computation with a root and the nodes `inside`."""
    arguments: dict[tuple[int, ...], list[int]] = collections.defaultdict(list)
    for operand in reversed(self._operands[call]):
      if operand not in inside:
        arguments[self._shapes[operand]].append(operand)
    parameters = sorted(
        (one for one in inside if self._names[one] == "parameter" and self._shapes[one]),
        key=lambda one: (self._number(one, "parameter_number"), one))
    if all(arguments.get(self._shapes[one]) for one in parameters):
      for one in parameters:
        of_shape = arguments[self._shapes[one]]
        self._operands[one].append(of_shape.pop() if len(of_shape) > 1 else of_shape[0])
      self._operands[call] = [root]

  def _find_main(self) -> int:
    """The contraction nearest to the result; of equally near ones the one with most elements."""
    level, seen = [self._root], {self._root}
    while level:
      found = [node for node in level if self._names[node] in _CONTRACTIONS
               and self._summed(node)]
      if found:
        return max(found, key=lambda node: (self._volume(self._array_operand(node)), -node))
      below = dict.fromkeys(operand for node in level for operand in self._operands[node])
      level = [node for node in below if node not in seen]
      seen.update(level)
    return -1

  def _volume(self, node: int) -> float:
    return float(np.prod(self._shapes[node], dtype=np.float64)) if self._shapes[node] else 1.0

  def _array_operand(self, node: int) -> int:
    """The largest operand; of a convolution or dot the first of two equally large ones."""
    if node not in self._largest:
      self._largest[node] = max(
          self._operands[node], key=lambda operand: (self._volume(operand), -operand))
    return self._largest[node]

  def _summed(self, node: int) -> list[int]:
    """Sizes of the axes that a contraction sums over; sizes of 1 have no loop."""
    if not self._operands[node]:
      return []
    if self._names[node] == "convolution":
      feature = self._number(node, f"{_CONVOLUTION}kernel_input_feature_dim")
      shape = self._shapes[self._kernel_of(node)]
      return [shape[feature]] if 0 <= feature < len(shape) and shape[feature] > 1 else []
    if self._names[node] == "dot":
      return [size for size in self._dot(node)[2] if size > 1]
    if self._names[node] == "scatter":
      scatter = self._scatter(node)
      return [] if scatter is None else [self._shapes[scatter.updates][scatter.axis]]
    if self._names[node] == "add":
      taps = self._taps(node)
      return [taps] if taps > 1 else []
    if self._names[node] == "slice":
      axis = self._selected(node)
      return [] if axis < 0 else [self._shapes[self._operands[node][0]][axis]]
    operand = self._shapes[self._array_operand(node)]
    return [operand[axis] for axis in self._reduced(node) if operand[axis] > 1]

  def _scatter(self, node: int) -> _Scatter | None:
    """The operands of a scatter along one axis; None if it is another one, or has one update."""
    if node not in self._scatters:
      self._scatters[node] = self._find_scatter(node)
    return self._scatters[node]

  def _find_scatter(self, node: int) -> _Scatter | None:
    result, operands = self._shapes[node], self._operands[node]
    if len(operands) > _OPERANDS_OF_SCATTER:
      return None
    arrays = [operand for operand in operands if len(self._shapes[operand]) == len(result) > 0]
    for updates in reversed(arrays):
      shape = self._shapes[updates]
      others = [operand for operand in operands if operand != updates]
      if not any(self._shapes[operand] == result for operand in others):
        continue
      differing = [axis for axis in range(len(shape)) if shape[axis] != result[axis]]
      for indices in others:
        count = self._shapes[indices][:1]
        fitting = [axis for axis in differing or range(len(shape)) if shape[axis:axis + 1] == count]
        if count > (1,) and len(self._shapes[indices]) <= 2 and fitting and len(differing) < 2:
          return _Scatter(indices, updates, fitting[0])
    return None

  def _taps(self, node: int) -> int:
    """The number of products that the additions of a filter sum, one for each weight in a list.

    Returns:
      The number; 0 if the addition is not the last of a filter.
    """
    waiting, products = [node], 0
    weights: set[int] = set()
    for _ in range(2 * _MOST_TAPS):
      if not waiting:
        break
      one = waiting.pop()
      if self._names[one] == "add":
        waiting += self._operands[one]
      else:
        products += 1
        weights.add(self._weights(one) if self._names[one] == "multiply" else -1)
      if -1 in weights or len(weights) > 1:
        return 0
    return products if not waiting and any(
        self._shapes[one] == (products,) for one in weights) else 0

  def _weights(self, node: int) -> int:
    """The list of which a product takes one weight for all of its elements; -1: there is none."""
    for operand in self._operands[node]:
      for _ in range(_BETWEEN):
        below = self._operands[operand]
        if self._names[operand] == "slice" and self._shapes[operand] == (1,) and below:
          return below[0]
        if self._names[operand] not in ("broadcast", "reshape", "convert") or not below:
          break
        operand = below[0]
    return -1

  def _selected(self, node: int) -> int:
    """The axis of a slice along which its operand is sorted; -1: there is none."""
    if not self._operands[node]:
      return -1
    shape, below = self._shapes[self._operands[node][0]], self._operands[node][0]
    for _ in range(_BETWEEN):
      if self._names[below] not in _SAME_ELEMENTS or not self._operands[below]:
        break
      below = self._operands[below][0]
    if self._names[below] != "sort" or len(shape) != len(self._shapes[node]):
      return -1
    cut = [axis for axis in range(len(shape)) if shape[axis] != self._shapes[node][axis]]
    return cut[0] if cut == self._numbers(below, "dimensions", 1) else -1

  def _reduced(self, node: int) -> list[int]:
    """The axes of a reduction's operand that its result lacks."""
    operand, result = self._shapes[self._array_operand(node)], self._shapes[node]
    count = len(operand) - len(result)
    if count <= 0:
      return []
    # The list is padded with 0, so its length follows from the ranks.
    stated = self._numbers(node, "dimensions", min(count, tile_features.SIDES))
    kept = tuple(size for axis, size in enumerate(operand) if axis not in stated)
    if len(set(stated)) == count and kept == result:
      return sorted(stated)
    return sorted(set(range(len(operand))) - set(_matched(operand, result)))

  def _kernel_of(self, node: int) -> int:
    """The kernel of a convolution: the operand with the window's size and the output features."""
    place = self._number(node, f"{_CONVOLUTION}kernel_output_feature_dim")
    spatial = self._numbers(node, f"{_CONVOLUTION}kernel_spatial_dims", _SPATIAL)
    window = [size for size in self._numbers(node, "window_size", _SPATIAL) if size > 0]
    result = self._shapes[node]
    feature = self._number(node, f"{_CONVOLUTION}output_feature_dim")

    def fits(operand: int) -> bool:
      shape = self._shapes[operand]
      if not (0 <= place < len(shape) and 0 <= feature < len(result)):
        return False
      return shape[place] == result[feature] and all(
          0 <= axis < len(shape) and shape[axis] == size for axis, size in zip(spatial, window))

    fitting = [operand for operand in self._operands[node] if fits(operand)]
    return fitting[-1] if fitting else self._operands[node][-1]

  def _dot(self, node: int) -> tuple[int, int, list[int], list[int], list[int]]:
    """Of a dot: both operands, the summed sizes, and for each axis of the operands its axis of the
    result, or -1 - (place among the summed axes)."""
    result = self._shapes[node]
    operands = self._operands[node] * (2 if len(self._operands[node]) == 1 else 1)
    for left, right in ((operands[0], operands[1]), (operands[1], operands[0])):
      one, other = self._shapes[left], self._shapes[right]
      for batch in range(len(result) + 1):
        own, odd = divmod(len(result) - batch + len(one) - len(other), 2)
        if odd or not 0 <= own <= len(result) - batch:
          continue
        if not result[:batch] == one[:batch] == other[:batch]:
          continue
        first = _matched(one, result[:batch + own])
        second = _matched(
            other, result[:batch] + result[batch + own:], from_end=len(other) > batch + 1)
        if len(first) != batch + own or len(second) != len(result) - own:
          continue
        rest = [axis for axis in range(len(one)) if axis not in first]
        free = [axis for axis in range(len(other)) if axis not in second]
        if sorted(one[axis] for axis in rest) != sorted(other[axis] for axis in free):
          continue
        summed = [one[axis] for axis in rest]
        ones = [first[axis] if axis in first else -1 - rest.index(axis) for axis in range(len(one))]
        others = []
        left_over = list(range(len(rest)))
        for axis, size in enumerate(other):
          if axis in second:
            place = second[axis]
            others.append(place if place < batch else place + own)
          else:
            chosen = next(place for place in left_over if summed[place] == size)
            left_over.remove(chosen)
            others.append(-1 - chosen)
        return left, right, summed, ones, others
    return operands[0], operands[1], [], [], []

  def kernel(self) -> Kernel:
    """The kernel; see `Kernel`."""
    result = self._shapes[self._root]
    summed = self._summed(self._main) if self._main >= 0 else []
    sums: list[Axes | None] = [None] * len(self._names)
    rest: list[Axes | None] = [None] * len(self._names)
    rest[self._root] = tuple(Axis(size, loop) for loop, size in enumerate(result))
    for node in self._users_first():
      summing = self._is_summed(node, summed)
      for regions in (sums, rest):
        region = regions[node]
        if region is None:
          continue
        targets = sums if summing else regions
        for operand, needed in self._needs(node, region, len(result) if summing else -1):
          known = targets[operand]
          targets[operand] = needed if known is None else _both(known, needed)
    return Kernel(
        len(result), np.array([*result, *summed], np.float64), tuple(sums), tuple(rest),
        self._called, tuple(map(tuple, self._operands)), self._main, self._root,
        self._parts(sums))

  def _is_summed(self, node: int, summed: list[int]) -> bool:
    """Whether the loops of the sums cut what a node sums over.

    This holds for the main contraction, and for reductions of axes of the same sizes, such as the
    other statistics of a normalisation.
    """
    if node == self._main:
      # Each step of a filter computes some of the products, not parts of them all.
      return bool(summed) and self._names[node] != "add"
    return (self._names[node] == "reduce" and self._main >= 0
            and self._names[self._main] == "reduce" and self._summed(node) == summed)

  def _parts(self, axes: list[Axes | None]) -> tuple[Parts, ...]:
    """See `Kernel.parts`."""
    first = next((node for node, name in enumerate(self._names) if name == "parameter"
                  and not self._called[node] and self._number(node, "parameter_number") == 0), None)
    parts = []
    for node, name in enumerate(self._names):
      if name != "concatenate" or first is None or axes[node] is None or axes[first] is None:
        continue
      of_node, of_first = axes[node], axes[first]
      for axis, cut in enumerate(of_node or ()):
        sizes = {self._shapes[operand][axis] for operand in self._operands[node]
                 if axis < len(self._shapes[operand])}
        if cut.loop < len(self._shapes[self._root]) or len(sizes) != 1 or sizes == {cut.size}:
          continue
        size = sizes.pop()
        parts += [Parts(cut.loop, size, place, 1 if own.loop < 0 else cut.size // size)
                  for place, own in enumerate(of_first or ())
                  if (own.loop, own.size) in ((-1, size), (cut.loop, cut.size))][-1:]
    return tuple(parts)

  def _users_first(self) -> list[int]:
    """The nodes that the result depends on, every node after all of its users."""
    order: list[int] = []
    state: dict[int, Iterator[int]] = {self._root: iter(self._operands[self._root])}
    stack = [self._root]
    while stack:
      child = next(state[stack[-1]], None)
      if child is None:
        order.append(stack.pop())
      elif child not in state:
        state[child] = iter(self._operands[child])
        stack.append(child)
    return order[::-1]

  def _needs(self, node: int, region: Axes, first: int) -> list[tuple[int, Axes]]:
    """The operands of a node and their ranges for a range of its value.

    Args:
      node: the node.
      region: the range.
      first: the loop over the first axis that the node sums over; -1: none cuts these axes.
    """
    name, operands = self._names[node], self._operands[node]
    if not operands:  # Of a parameter of a called computation, they are the arguments.
      return []
    if name == "dot":
      left, right, summed, ones, others = self._dot(node)
      if ones or others or not (self._shapes[left] or self._shapes[right]):
        loops = [-1] * len(summed)
        if first >= 0:
          long = [place for place, size in enumerate(summed) if size > 1]
          for loop, place in enumerate(long, first):
            loops[place] = loop
        cut = lambda places, shape: tuple(
            dataclasses.replace(region[place], size=size) if place >= 0
            else Axis(size, loops[-1 - place]) for place, size in zip(places, shape))
        return [(left, cut(ones, self._shapes[left])), (right, cut(others, self._shapes[right]))]
    if name == "convolution":
      return self._convolution(node, region, first)
    if name == "scatter":
      scatter = self._scatter(node)
      if scatter is not None:
        count = self._shapes[scatter.updates][scatter.axis]
        cuts = [*region[:scatter.axis], Axis(count, first), *region[scatter.axis + 1:]]
        return [(scatter.indices, (Axis(count, first), *map(
                    Axis, self._shapes[scatter.indices][1:]))),
                (scatter.updates, tuple(cuts)),
                *((operand, region) for operand in operands if self._shapes[operand]
                  == self._shapes[node] and operand != scatter.updates)]
    if name == "slice" and first >= 0:
      axis, shape = self._selected(node), self._shapes[operands[0]]
      return [(operands[0], (*region[:axis], Axis(shape[axis], first), *region[axis + 1:]))]
    return [(operand, self._need(node, operand, region, first)) for operand in operands
            if self._shapes[operand] or name in _CALLS]

  def _need(self, node: int, operand: int, region: Axes, first: int) -> Axes:
    """The range of one operand, for every operation but dots and convolutions."""
    name, shape, result = self._names[node], self._shapes[operand], self._shapes[node]
    if name == "reduce" and shape == self._shapes[self._array_operand(node)]:
      reduced = self._reduced(node)
      kept = iter(region)
      loop = first
      cuts = []
      for axis, size in enumerate(shape):
        if axis not in reduced:
          cuts.append(next(kept, Axis(size)))
        elif first >= 0 and size > 1:
          cuts.append(Axis(size, loop))
          loop += 1
        else:
          cuts.append(Axis(size))
      return tuple(cuts)
    if name in ("broadcast", "transpose"):
      stated = self._numbers(node, "dimensions", min(len(shape), tile_features.SIDES))
      if len(set(stated)) == len(shape) and all(0 <= axis < len(result) for axis in stated):
        if name == "broadcast" and all(
            size == result[axis] for axis, size in zip(stated, shape)):
          return tuple(region[axis] for axis in stated)
        if name == "transpose" and len(result) == len(shape) and all(
            shape[axis] == size for axis, size in zip(stated, result)):
          return tuple(region[stated.index(axis)] for axis in range(len(shape)))
    if shape == result:
      return region
    if name in ("slice", "pad", "concatenate") and len(shape) == len(result):
      same = name != "concatenate"
      return tuple(
          cut if size == length else
          dataclasses.replace(cut, size=size, extra=cut.extra + max(size - length, 0))
          if same and cut.loop >= 0 else Axis(size)
          for cut, size, length in zip(region, shape, result))
    places = _matched(shape, result)
    return tuple(region[places[axis]] if axis in places else Axis(size)
                 for axis, size in enumerate(shape))

  def _convolution(self, node: int, region: Axes, first: int) -> list[tuple[int, Axes]]:
    kernel_node = self._kernel_of(node)
    images = [operand for operand in self._operands[node] if operand != kernel_node]
    result = self._shapes[node]
    at = lambda name: self._number(node, f"{_CONVOLUTION}{name}")
    batch, feature = at("output_batch_dim"), at("output_feature_dim")
    spatial = [axis for axis in range(len(result)) if axis not in (batch, feature)]
    loop = first if self._summed(node) else -1
    needs = []
    for image in images or [kernel_node]:
      shape = self._shapes[image]
      cuts = [Axis(size) for size in shape]
      if 0 <= at("input_batch_dim") < len(shape) and 0 <= batch < len(region):
        cuts[at("input_batch_dim")] = region[batch]
      place = at("input_feature_dim")
      if 0 <= place < len(shape):
        grouped = self._number(node, "feature_group_count") > 1
        cuts[place] = (region[feature] if grouped and 0 <= feature < len(region)
                       and shape[place] == result[feature] else Axis(shape[place], loop))
      names = zip(self._numbers(node, f"{_CONVOLUTION}input_spatial_dims", _SPATIAL), spatial,
                  self._numbers(node, "window_size", _SPATIAL),
                  self._numbers(node, "window_stride", _SPATIAL))
      for axis, source, window, stride in names:
        if 0 <= axis < len(shape) and region[source].loop >= 0 and region[source].stride == 1:
          cuts[axis] = Axis(shape[axis], region[source].loop, max(stride, 1),
                            max(window, 1) - max(stride, 1))
      needs.append((image, tuple(cuts)))
    shape = self._shapes[kernel_node]
    weights = [Axis(size) for size in shape]
    for axis, cut in ((at("kernel_output_feature_dim"), region[feature] if 0 <= feature < len(
        region) else None), (at("kernel_input_feature_dim"), None)):
      if 0 <= axis < len(shape):
        weights[axis] = (cut if cut is not None and cut.size == shape[axis]
                         else Axis(shape[axis], loop if shape[axis] > 1 else -1))
    return [*needs, (kernel_node, tuple(weights))]


def _matched(shape: Sequence[int], result: Sequence[int], from_end: bool = True
             ) -> dict[int, int]:
  """Axis of `shape` -> axis of `result` with the same size, in the same order where possible.

  Args:
    shape: sizes of an operand.
    result: sizes of the node's value.
    from_end: whether the last axes are matched first.
  """
  turn = reversed if from_end else iter
  free = list(turn(range(len(shape))))  # type: ignore[operator]
  places: dict[int, int] = {}
  for axis in turn(range(len(result))):  # type: ignore[operator]
    same = [one for one in free if shape[one] == result[axis]]
    if same:
      places[same[0]] = axis
      free.remove(same[0])
  return places


def _both(one: Axes | None, other: Axes) -> Axes:
  """The ranges that satisfy two users: where they differ, the whole axis."""
  assert one is not None
  return tuple(cut if cut == same else
               dataclasses.replace(cut, extra=max(cut.extra, same.extra))
               if (cut.loop, cut.stride) == (same.loop, same.stride) else Axis(cut.size)
               for cut, same in zip(one, other))
