"""An analytic cost of the configurations of a tiled kernel, from its graph alone.

A kernel runs loops over the blocks of its result, and in each of them over the blocks of the axes
that its main contraction sums over (see `tile_geometry`). The cost is a weighted sum of

  blocks         blocks of the result: the product of the iterations of the output loops
  steps          steps of the sums: the product of the iterations of all loops around them
  beyond_0, _1   bytes that operands move from beyond the first and the second cache: of the nest of
                 inner loops whose arrays fit together into the cache, the bytes of the cache lines
                 that it touches, times the number of times that it runs with another block; where
                 an operand has another minor axis than the result, the loops over the elements of a
                 block count too, and so do the sets of the cache that columns fall into
  read_runs      contiguous ranges of memory from which operands are read, in all steps
  written_runs   contiguous ranges to which the result is written
  accumulator    bytes of the block of partial sums, read and written in each step
  copied         bytes of slices that a library routine or a gather needs as arrays of their own
  calls          calls of library routines: dots and convolutions
  arithmetic     multiplications of dots and convolutions, the minor side padded to whole vectors
  elementwise    other operations, padded in the same way
  functions      exponentials, divisions and other slow functions, padded in the same way
  horizontal     sums across the elements of a vector: of reductions of the minor axis, per step;
                 and elements that a scatter along the minor axis adds one at a time

The weights are nanoseconds for each unit. `PRESET` holds round constants; `fit` chooses
non-negative ones from measured kernels.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import math

import numpy as np

from tpugraphs_rank.costs import targets
from tpugraphs_rank.costs import tile_geometry
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import tile_features
from tpugraphs_rank.hlo import opcodes

# Nanoseconds of a unit of each term. The terms and the orders of magnitude were chosen on the
# training and validation kernels of the bundled collection `tile:xla_cpu`; factors of two change
# Kendall's tau there by less than 0.01.
_WEIGHTS = {
    "blocks": 70.0, "steps": 10.0, "beyond_0": 0.01, "beyond_1": 0.02, "read_runs": 1.0,
    "written_runs": 1.0, "accumulator": 0.02, "copied": 0.02, "calls": 500.0, "arithmetic": 0.02,
    "elementwise": 0.05, "functions": 0.3, "horizontal": 1.0}
TERMS = tuple(_WEIGHTS)
PRESET = np.array(list(_WEIGHTS.values()))

_LINE = 64.0  # Bytes of a cache line.
_WAYS = 8  # Lines of a set.
_ACCUMULATED = 4.0  # Bytes of a partial sum.
_FREE = ("parameter", "constant", "call", "fusion", "tuple", "get-tuple-element", "reshape",
         "bitcast", "broadcast", "iota", "slice", "copy", "convert", "transpose", "gather")
_FUNCTIONS = ("exponential", "exponential-minus-one", "log", "log-plus-one", "tanh", "logistic",
              "divide", "power", "sqrt", "rsqrt", "cbrt", "sine", "cosine", "tan", "atan2",
              "remainder")
_ROUTINES = ("dot", "convolution")
_SUMS = (*_ROUTINES, "reduce", "scatter")


@dataclasses.dataclass(frozen=True)
class _Array:
  """An array that steps read or write.

  Attributes:
    axes: its ranges.
    item: bytes of an element.
    gathered: the ranges of the gather that reads it; None if it is read completely.
    copied: whether its slices become arrays of their own.
    again: whether the sums have read it before.
  """

  axes: tile_geometry.Axes
  item: float
  gathered: tile_geometry.Axes | None = None
  copied: bool = False
  again: bool = False

  def elements(self, sides: np.ndarray) -> np.ndarray:
    """(c,) elements that are read."""
    total = _volume(self.axes, sides)
    # A step reads only the rows that it gathers.
    return total if self.gathered is None else np.minimum(total, _volume(self.gathered, sides))

  def run(self, sides: np.ndarray) -> np.ndarray:
    """(c,) elements of a contiguous range of memory."""
    length = np.ones(len(sides))
    whole = np.ones(len(sides), bool)
    for axis in reversed(self.axes):
      if self.gathered is not None and axis.loop < 0:
        break  # The rows that are gathered are anywhere along this axis.
      span = axis.range(sides)
      length = np.where(whole, length * span, length)
      whole &= span >= axis.size
    return length

  def runs(self, sides: np.ndarray) -> np.ndarray:
    """(c,) contiguous ranges of memory."""
    return np.maximum(self.elements(sides) / self.run(sides), 1.0)

  def bytes_of_lines(self, sides: np.ndarray) -> np.ndarray:
    """(c,) bytes of the cache lines that are touched, if no two ranges share one."""
    lines = self.runs(sides) * np.ceil(self.item * self.run(sides) / _LINE)
    return np.minimum(lines * _LINE, self.item * math.prod(axis.size for axis in self.axes) + _LINE)

  def conflicts(self, sides: np.ndarray, sets: int) -> np.ndarray:
    """(c,) by what factor a cache with `sets` sets holds less of the ranges, at least 1.

    Short ranges in rows whose length has factors of two fall into few sets of the cache.
    """
    row = self.item * self.axes[-1].size if self.axes else 1.0
    if row % _LINE or sets < 2:
      return np.ones(len(sides))
    lines = np.ceil(self.item * self.run(sides) / _LINE)
    return np.maximum(math.gcd(int(row / _LINE), sets) / lines, 1.0)

  def copies(self, sides: np.ndarray) -> np.ndarray:
    """(c,) bytes of the slice; 0 for the whole array."""
    slices = _volume(self.axes, sides)
    whole = math.prod(float(axis.size) for axis in self.axes)
    return np.where((slices < whole) & self.copied, self.item * slices, 0.0)

  def depends_on(self, loop: int) -> bool:
    return any(axis.loop == loop for axis in (*self.axes, *(self.gathered or ())))


def _volume(axes: tile_geometry.Axes, sides: np.ndarray) -> np.ndarray:
  """(c,) elements of the ranges."""
  result = np.ones(len(sides))
  for axis in axes:
    result = result * axis.range(sides)
  return result


class _Costs:
  """The terms of one kernel, for all its configurations.

  Attributes:
    values: the terms (c,) by name.
    summed_trips: (c,) iterations of the loops over the summed axes.
  """

  def __init__(self, graph: graphs.TileGraph, facts: targets.TargetFacts):
    self._graph, self._facts = graph, facts
    self._kernel = kernel = tile_geometry.kernel(graph)
    self._names = [opcodes.opcode_name(number) for number in graph.node_opcode.tolist()]
    self._sides = kernel.sides(graph.config_feat)
    self._extents = kernel.extents(graph.config_feat)
    self._trips = kernel.trips(graph.config_feat)
    self._blocks = self._trips[:, :kernel.outputs].prod(axis=1)
    self._steps = self._trips[:, list(kernel.summing)].prod(axis=1)
    self.summed_trips = self._trips[:, kernel.outputs:].prod(axis=1)
    self.values = {name: np.zeros(len(self._sides)) for name in TERMS}
    self._compute()

  def _compute(self) -> None:
    kernel, values = self._kernel, self.values
    result = self._array(kernel.root, kernel.rest[kernel.root] or ())
    values["blocks"] = self._blocks
    values["written_runs"] = result.runs(self._sides) * self._blocks
    summed = self._read(kernel.sums, frozenset())
    if kernel.summing:
      values["steps"] = self._steps
      main = kernel.rest[kernel.main] or ()
      partial = _Array(main, _ACCUMULATED)
      if self._names[kernel.main] != "scatter":  # It changes the block in place.
        values["accumulator"] = 2 * _ACCUMULATED * partial.elements(self._sides) * self._steps
      self._add_reads(list(summed.values()), partial, kernel.summing, self._steps)
    rest = self._read(kernel.rest, frozenset(summed))
    self._add_reads(list(rest.values()), result, tuple(range(kernel.outputs)), self._blocks)
    for node, (inner, outer) in enumerate(zip(kernel.sums, kernel.rest)):
      if outer is not None:
        self._add_work(node, outer, self._blocks)
      # Sums that both need are computed once.
      if inner is not None and (outer is None or self._names[node] not in _SUMS):
        self._add_work(node, inner, self._steps)

  def _array(self, node: int, axes: tile_geometry.Axes, **known: object) -> _Array:
    item = float(self._graph.node_feat[node, tile_features.TYPES] @ tile_features.ITEM_BYTES)
    return _Array(axes, max(item, 1.0), **known)  # type: ignore[arg-type]

  def _read(self, regions: Sequence[tile_geometry.Axes | None], before: frozenset[int]
            ) -> dict[int, _Array]:
    """The parameters of the program that are read, by node."""
    gather = next((node for node, name in enumerate(self._names) if name == "gather"), None)
    of_routines = {operand for user, operands in enumerate(self._kernel.operands)
                   if self._names[user] in _ROUTINES for operand in operands}
    arrays = {}
    for node, axes in enumerate(regions):
      if self._names[node] != "parameter" or self._kernel.called[node] or not axes:
        continue
      rows = None
      if gather is not None and any(axis.loop < 0 and axis.size > 1 for axis in axes):
        rows = self._kernel.sums[gather] or self._kernel.rest[gather]
      # Slices of a table are copied by each step of the sums; without sums they are fused.
      copied = node in of_routines or (rows is not None and regions is self._kernel.sums)
      arrays[node] = self._array(
          node, axes, gathered=rows, again=node in before, copied=copied)
    return arrays

  def _add_reads(self, arrays: Sequence[_Array], written: _Array, loops: tuple[int, ...],
                 repeats: np.ndarray) -> None:
    """Adds the terms of reading some arrays in a nest of loops."""
    values, sides = self.values, self._sides
    inner_trips = self._trips[:, [loop for loop in loops if loop >= self._kernel.outputs]]
    for array in arrays:
      values["read_runs"] = values["read_runs"] + array.runs(sides) * repeats
      copies = array.copies(sides)
      if array.gathered is not None:
        copies = np.where(inner_trips.prod(axis=1) > 1, copies, 0.0)
      values["copied"] = values["copied"] + copies * repeats
    nests, trips, fulls = self._nests([*arrays, written], loops)
    summing = frozenset(self._kernel.summing)
    shared = next((place for place, loop in enumerate(loops) if loop not in summing), len(loops))
    for level, capacity in enumerate((*self._facts.cache_bytes, self._facts.cache_bytes[-1])[:2]):
      sizes = [np.sum(nest, axis=0) for nest in nests]
      if len(nests) > len(loops) + 1:
        sets = max(int(capacity / (_LINE * _WAYS)), 1)
        sizes = [np.sum([size * array.conflicts(full, sets) for size, array in zip(
            nest, (*arrays, written))], axis=0) for nest, full in zip(nests, fulls)]
      for number, array in enumerate(arrays):
        moved = self._moved(number, array, nests, sizes, loops, trips, float(capacity))
        if array.again:
          # The sums have left it in the cache if the loops that they lack fit.
          moved = np.where(sum(nests[shared]) <= capacity, 0.0, moved)
        values[f"beyond_{level}"] = values[f"beyond_{level}"] + moved

  def _nests(self, arrays: Sequence[_Array], loops: tuple[int, ...]
             ) -> tuple[list[list[np.ndarray]], list[np.ndarray], list[np.ndarray]]:
    """What each nest of inner loops touches, and how often each loop runs.

    Around the steps run the loops over blocks. In a step, loops over the elements of a block follow
    in the same order if an array has another minor axis than the result. Otherwise the compiler
    reads all arrays in the order of memory, or reorders the loops of a sum.

    Returns:
      For each number of outer loops the bytes (c,) that a run of the others touches of each array;
      the iterations (c,) of each loop; and for each number of outer loops the sides (c, l) that the
      others cover.
    """
    sides = self._sides
    minor = {array.axes[-1].loop for array in arrays if array.axes} - {-1}
    blocks = len(minor) < 2 or loops == self._kernel.summing
    order = loops if blocks else (*loops, *loops)
    nests, fulls = [], []
    for place in range(len(order) + 1):
      full = sides.copy() if blocks else np.ones_like(sides)
      inner = list(order[max(place, len(loops)):])
      full[:, inner] = sides[:, inner]
      outer = list(loops[place:])
      full[:, outer] = self._extents[:, outer]
      others = [loop for loop in range(sides.shape[1]) if loop not in loops]
      full[:, others] = sides[:, others]
      fulls.append(full)
      nests.append([array.bytes_of_lines(full) for array in arrays])
    trips = [self._trips[:, loop] for loop in loops]
    return nests, trips if blocks else [*trips, *(sides[:, loop] for loop in loops)], fulls

  def _moved(self, number: int, array: _Array, nests: Sequence[Sequence[np.ndarray]],
             sizes: Sequence[np.ndarray], loops: tuple[int, ...], trips: Sequence[np.ndarray],
             capacity: float) -> np.ndarray:
    """(c,) bytes that one of the arrays moves from beyond a cache.

    Args:
      number: of the array.
      array: the array.
      nests, loops, trips: see `_nests`.
      sizes: the room (c,) that each nest needs in the cache.
      capacity: of the cache, in bytes.
    """
    depth = len(nests) - 1
    level = np.full(len(self._sides), depth)  # The outermost nest that fits.
    for place in range(depth - 1, -1, -1):
      level = np.where((sizes[place] <= capacity) & (level == place + 1), place, level)
    fits = sizes[-1] <= capacity
    level = np.where(fits, level, depth)
    moved = np.stack([nest[number] for nest in nests])[level, np.arange(len(level))]
    kept = fits  # An array stays while the loops around its nest do not change its block.
    minor = array.axes[-1].loop if array.axes else -1
    for place in range(depth - 1, -1, -1):
      loop = loops[place % len(loops)]
      outside = place < level
      times = trips[place]
      if array.depends_on(loop):
        if loop == minor and place >= len(loops):
          # The next elements of the lines that stay are in the cache.
          times = np.where(kept, np.maximum(times * array.item / _LINE, 1.0), times)
        kept = np.where(outside, False, kept)
      moved = np.where(outside & ~kept, moved * times, moved)
    return moved

  def _add_work(self, node: int, axes: tile_geometry.Axes, repeats: np.ndarray) -> None:
    """Adds the terms of computing a node's ranges."""
    name = self._names[node]
    if name in _FREE:
      return
    inner = self._summed_operand(node) if name in _SUMS else ()
    if any(axis.loop >= self._kernel.outputs for axis in inner):
      repeats = self._steps  # Each step of the sums adds a part.
    work = self._padded(axes) * repeats
    term = "functions" if name in _FUNCTIONS else "elementwise"
    if name in _ROUTINES:
      self._add("calls", repeats)
      work, term = work * self._summed(node), "arithmetic"
    elif name == "scatter":
      work = self._padded(inner) * repeats
      for axis in inner:
        if axis.loop >= self._kernel.outputs:
          self._add("steps", axis.range(self._sides) * repeats)
      if inner and inner[-1].loop >= self._kernel.outputs:
        self._add("horizontal", _volume(inner, self._sides) * repeats)
    elif name == "reduce":
      work = self._padded(inner) * repeats
      if inner and not any(axis == inner[-1] for axis in axes if axis.loop >= 0):
        self._add("horizontal", _volume(axes, self._sides) * repeats)
    self._add(term, work)

  def _add(self, term: str, value: np.ndarray) -> None:
    self.values[term] = self.values[term] + value

  def _regions_of(self, node: int) -> tile_geometry.Axes | None:
    axes = self._kernel.sums[node]
    return self._kernel.rest[node] if axes is None else axes

  def _summed_operand(self, node: int) -> tile_geometry.Axes:
    """The ranges of the largest operand of a node, of those that loops of the sums cut if any."""
    known = [one for one in self._kernel.operands[node] if self._regions_of(one)]
    is_cut = lambda one: any(
        axis.loop >= self._kernel.outputs for axis in self._regions_of(one) or ())
    largest = max(known, default=None, key=lambda one: (
        is_cut(one), self._graph.node_feat[one, tile_features.VOLUME]))
    return () if largest is None else self._regions_of(largest) or ()

  def _summed(self, node: int) -> np.ndarray:
    """(c,) elements that one step of a dot or convolution sums for an element of its value."""
    own = {axis.loop for axis in self._regions_of(node) or ()}
    total = np.ones(len(self._sides))
    for operand in self._kernel.operands[node]:
      others = [axis for axis in self._regions_of(operand) or () if axis.loop not in own]
      total = np.maximum(total, _volume(tuple(others), self._sides))
    return total

  def _padded(self, axes: tile_geometry.Axes) -> np.ndarray:
    """(c,) elements of ranges whose minor side is padded to whole vectors of 4-byte elements."""
    if not axes:
      return np.ones(len(self._sides))
    lanes = max(self._facts.vector_bytes // 4, 1)
    minor = axes[-1].range(self._sides)
    return _volume(axes[:-1], self._sides) * np.ceil(minor / lanes) * lanes


def terms(graph: graphs.TileGraph, facts: targets.TargetFacts = targets.CPU) -> np.ndarray:
  """(c, 13) float64: the TERMS of a kernel's configurations, each at least 0.

  A row depends on its configuration and on the graph, never on the other configurations.

  Args:
    graph: the kernel. Its sides count elements.
    facts: the target's caches and vectors.
  """
  costs = _Costs(graph, facts)
  return np.stack([costs.values[name] for name in TERMS], axis=1)


def log_cost(graph: graphs.TileGraph, weights: np.ndarray = PRESET,
             facts: targets.TargetFacts = targets.CPU) -> np.ndarray:
  """(c,) float64: the natural logarithm of the predicted nanoseconds."""
  return log_of_terms(terms(graph, facts), weights)


def log_of_terms(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """(c,) float64: `log_cost` from the result of `terms`."""
  return np.log(np.maximum(values @ weights, 1e-9))


def features(graph: graphs.TileGraph, facts: targets.TargetFacts = targets.CPU) -> np.ndarray:
  """(c, 28) float64: for models, what the cost says of each configuration.

  log2(1 + term) of each term, the share of each term in the cost with the preset weights, log2 of
  that cost, and log2 of the number of iterations of the summed axes' loops.
  """
  costs = _Costs(graph, facts)
  values = np.stack([costs.values[name] for name in TERMS], axis=1)
  weighted = values * PRESET
  total = np.maximum(weighted.sum(axis=1, keepdims=True), 1e-9)
  return np.concatenate([np.log2(1.0 + values), weighted / total, np.log2(total),
                         np.log2(costs.summed_trips)[:, None]], axis=1)


def fit(kernels: Iterable[tuple[np.ndarray, np.ndarray]], strength: float = 0.1) -> np.ndarray:
  """(13,) non-negative weights with small relative errors that are close to `PRESET`.

  They minimise mean(mean((terms @ weights / runtime - 1)^2)) + strength * sum((weights / scaled
  preset - 1)^2), where the outer mean is over kernels, and the preset is scaled to the runtimes.

  Args:
    kernels: of each kernel, `terms` (c, 13) and the runtimes (c,) in nanoseconds; at least one.
    strength: of the preset.
  """
  from scipy import optimize  # pylint: disable=import-outside-toplevel
  rows = []
  for values, runtimes in kernels:
    rows.append(values * PRESET / runtimes[:, None] / np.sqrt(len(runtimes)))
  matrix = np.concatenate(rows) / np.sqrt(len(rows))
  goals = np.concatenate([np.full(len(row), 1 / np.sqrt(len(row) * len(rows))) for row in rows])
  predicted = matrix.sum(axis=1)
  scale = (predicted @ goals) / max(predicted @ predicted, 1e-300)
  root = np.sqrt(strength)
  factors = optimize.nnls(
      np.concatenate([matrix * scale, root * np.eye(len(PRESET))]),
      np.concatenate([goals, np.full(len(PRESET), root)]))[0]
  return factors * scale * PRESET
