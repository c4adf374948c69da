"""What is known of a tile without regard to the kind of kernel: features that carry over.

Boosted trees on the shapes and operations of kernels learn about the kernels of their training.
These features leave both out. They describe a configuration by

  its cost     each term of `tile_cost` relative to the cheapest configuration of the kernel, the
               share of each term, and the place of its cost and of its steps among them
  its loops    the lengths of the loops inside a step, and the powers of two that divide them
  its sums     whether a step adds up floating-point numbers, integers, or nothing

A compiler unrolls and vectorises a loop by its length, which changes the time of an element by
factors of three to six. The cost has no terms for that, because the rules are not known. A compiler
may reorder a sum of integers, but not one of floating-point numbers. On the bundled kernels, long
loops of a sum mostly make the former slower and the latter faster.
"""

import numpy as np

from tpugraphs_rank import metrics
from tpugraphs_rank.costs import targets
from tpugraphs_rank.costs import tile_cost
from tpugraphs_rank.costs import tile_geometry
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import tile_features
from tpugraphs_rank.hlo import opcodes

# The number of columns, and what it was before the last column existed.
WIDTH = 2 * len(tile_cost.TERMS) + 5 + 2 * 18 + 1
WIDTH_WITHOUT_KIND = WIDTH - 1
KIND = WIDTH - 1  # The column of `kind`.
KINDS = FLOAT_SUM, INTEGER_SUM, OTHER = range(3)
_FIRST_INTEGER, _LAST_INTEGER = 1, 9  # Element types from PRED to U64, in XLA's order.
_LEAST = 1e-3  # Of the cheapest cost: smaller terms are equal.
_SHORT = 64  # Elements up to which a summed loop counts as short.
_LARGE = 4096  # Elements from which a step counts as large.
_POWERS = 64  # The largest power of two of a length that counts.


def features(graph: graphs.TileGraph, facts: targets.TargetFacts = targets.CPU,
             terms: np.ndarray | None = None) -> np.ndarray:
  """(c, WIDTH) float64: for each configuration, relative to all configurations of the kernel.

  Args:
    graph: the kernel. Its sides count elements.
    facts: the target's caches and vectors.
    terms: the result of `tile_cost.terms`, if the caller has it.
  """
  weighted = (tile_cost.terms(graph, facts) if terms is None else terms) * tile_cost.PRESET
  total = np.maximum(weighted.sum(axis=1), 1e-9)
  best = total.min()
  kernel = tile_geometry.kernel(graph)
  trips = kernel.trips(graph.config_feat)
  steps = np.log2(trips).sum(axis=1)
  relative = np.log2(total / best)
  loops = lengths(graph, kernel)
  return np.concatenate([
      np.log2(_LEAST + weighted / best), weighted / total[:, None],
      np.stack([relative, relative - relative.mean(), steps - steps.min(),
                metrics.mean_ranks(-total) / len(total), metrics.mean_ranks(-steps) / len(steps)],
               axis=1),
      loops, loops - loops.mean(axis=0), np.full([len(total), 1], kind(graph, kernel))], axis=1)


def kind(graph: graphs.TileGraph, kernel: tile_geometry.Kernel) -> int:
  """Which of KINDS a kernel is: what its main contraction adds up, if that is a reduction."""
  if not _is_sum(graph, kernel):
    return OTHER
  number = int(graph.node_feat[kernel.main, tile_features.TYPES].argmax())
  return INTEGER_SUM if _FIRST_INTEGER <= number <= _LAST_INTEGER else FLOAT_SUM


def _is_sum(graph: graphs.TileGraph, kernel: tile_geometry.Kernel) -> bool:
  """Whether the main contraction is a reduction with loops of its own."""
  return kernel.main >= 0 and len(kernel.loops) > kernel.outputs and (
      opcodes.opcode_name(int(graph.node_opcode[kernel.main])) == "reduce")


def lengths(graph: graphs.TileGraph, kernel: tile_geometry.Kernel) -> np.ndarray:
  """(c, 18) float64: the loops inside a step.

  If the main contraction is a reduction, they are the loops of its sum; otherwise those over a
  block of the result. The columns:

    0, 1       whether there is such a sum, and whether it runs along the minor axis of its operand
    2 to 6     log2 of the elements that an element of the sum adds up, of the side along the minor
               axis of the operand, of the elements of the sum, of its minor side, and of the step
    7, 8       log2 of the minor side of the block of the result, and of its other elements
    9 to 12    log2 of the power of two that divides the lengths of 2, 3, 5 and 4
    13 to 15   for sums along the minor axis: columns 2 and 3, and whether the side is short
    16, 17     column 5 for other sums, and whether a step has at least 4096 elements
  """
  sides = kernel.sides(graph.config_feat)
  result = kernel.rest[kernel.root] or ()
  of_result, minor = _elements(result, sides), _minor(result, sides)
  one = np.ones(len(sides))
  is_sum = _is_sum(graph, kernel)
  horizontal, added, inner, summed, summed_minor = False, one, minor, of_result, minor
  if is_sum:
    own = kernel.rest[kernel.main] or ()
    operands = [node for node in kernel.operands[kernel.main] if kernel.sums[node]]
    axes: tile_geometry.Axes = ()
    if operands:
      axes = kernel.sums[max(operands, key=lambda node: graph.node_feat[
          node, tile_features.VOLUME])] or ()
    kept = {axis.loop for axis in own} - {-1}
    reduced = tuple(axis for axis in axes if axis.loop not in kept)
    horizontal = bool(axes) and axes[-1].loop not in kept
    added, inner = _elements(reduced, sides), _minor(axes, sides)
    summed, summed_minor = _elements(own, sides), _minor(own, sides)
  step = summed * added
  log = tile_features.log2_size
  along = one * horizontal
  return np.stack([
      one * is_sum, along, log(added), log(inner), log(summed), log(summed_minor), log(step),
      log(minor), log(of_result / minor), *map(_power, (added, inner, summed_minor, summed)),
      along * log(added), along * log(inner), along * (inner < _SHORT),
      (1 - along) * is_sum * log(summed_minor), one * (step >= _LARGE)], axis=1)


def _elements(axes: tile_geometry.Axes, sides: np.ndarray) -> np.ndarray:
  """(c,) elements of ranges."""
  result = np.ones(len(sides))
  for axis in axes:
    result = result * axis.range(sides)
  return result


def _minor(axes: tile_geometry.Axes, sides: np.ndarray) -> np.ndarray:
  """(c,) elements along the last axis."""
  return axes[-1].range(sides) if axes else np.ones(len(sides))


def _power(values: np.ndarray) -> np.ndarray:
  """(c,) log2 of the largest power of two, up to 64, that divides lengths (c,)."""
  return np.log2(np.gcd(np.minimum(values, 2.0 ** 53).astype(np.int64), _POWERS))
