"""Synthetic programs in JAX: any dataflow program, untiled and tiled.

Broadcasting is left to the operations that use its result, as in programs written by hand, so that
the HLO has the same chains of reshapes and broadcasts.
"""

from collections.abc import Callable, Sequence
import math
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from tpugraphs_rank.collect.tile import blocks
from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile.builders import engine
from tpugraphs_rank.synthesis.programs import operations as ops
from tpugraphs_rank.synthesis.programs import programs

DTYPES: dict[str, Any] = {**engine.DTYPES, "pred": jnp.bool_}

_UNARY: dict[str, Callable[[jax.Array], jax.Array]] = {
    "abs": lax.abs, "negate": lax.neg, "sign": lax.sign, "exponential": lax.exp,
    "exponential-minus-one": lax.expm1, "log": lax.log, "log-plus-one": lax.log1p,
    "logistic": lax.logistic, "sqrt": lax.sqrt, "rsqrt": lax.rsqrt, "cbrt": lax.cbrt,
    "tanh": lax.tanh, "sine": lax.sin, "cosine": lax.cos, "floor": lax.floor, "ceil": lax.ceil,
    "round-nearest-afz": lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO),
    "round-nearest-even": lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN),
    "not": lax.bitwise_not}
_BINARY: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "add": jnp.add, "subtract": jnp.subtract, "multiply": jnp.multiply,
    "divide": lambda x, y: x / y if jnp.issubdtype(x.dtype, jnp.floating) else _divide(x, y),
    "maximum": jnp.maximum, "minimum": jnp.minimum, "remainder": lambda x, y: _same(lax.rem, x, y),
    "power": lambda x, y: _same(lax.pow, x, y), "atan2": lambda x, y: _same(lax.atan2, x, y),
    "and": jnp.bitwise_and, "or": jnp.bitwise_or, "xor": jnp.bitwise_xor,
    "shift-left": lambda x, y: _same(lax.shift_left, x, y),
    "shift-right-arithmetic": lambda x, y: _same(lax.shift_right_arithmetic, x, y),
    "shift-right-logical": lambda x, y: _same(lax.shift_right_logical, x, y)}
# reduction -> (reduction over axes, combination of two partial results, dtype -> initial value)
_REDUCTIONS: dict[str, tuple[Any, Any, Callable[[Any], Any]]] = {
    "reduce-add": (jnp.sum, jnp.add, lambda dtype: 0),
    "reduce-multiply": (jnp.prod, jnp.multiply, lambda dtype: 1),
    "reduce-maximum": (jnp.max, jnp.maximum, lambda dtype: _ends(dtype).min),
    "reduce-minimum": (jnp.min, jnp.minimum, lambda dtype: _ends(dtype).max)}


def _ends(dtype: Any) -> Any:
  return jnp.finfo(dtype) if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype)


def _same(function: Callable[..., jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
  """Applies a function of `lax` that requires arrays of the same shape."""
  shape = jnp.broadcast_shapes(x.shape, y.shape)
  return function(jnp.broadcast_to(x, shape), jnp.broadcast_to(y, shape))


def _divide(x: jax.Array, y: jax.Array) -> jax.Array:
  return _same(lax.div, x, y)


def whole(program: programs.RunnableProgram) -> Callable[..., jax.Array]:
  """A synthetic program as a function of its parameters."""
  def run(*operands: jax.Array) -> jax.Array:
    return _Evaluation(program, operands, None, (), None).whole(len(program.nodes) - 1)
  return run


def build(kernel: blocks.SyntheticKernel) -> engine.TiledProgram:
  """The tiled program of a synthetic kernel."""
  program = kernel.program
  axes = len(program.result.shape)
  dtype = DTYPES[kernel.dtype]

  def tiled(tile: geometry.Tile) -> Callable[..., jax.Array]:
    needed = blocks.needs(program, kernel.main)

    def run(*operands: jax.Array) -> jax.Array:
      before = _Evaluation(program, operands, None, (), None)
      wholes = {node: before.whole(node) for node in sorted(needed.wholes)}

      def block(index: Any, result: jax.Array) -> jax.Array:
        at = engine.unravel(index, kernel.output_axes, tile.output)
        evaluation = _Evaluation(program, operands, kernel, tile.output + tile.reduction, at,
                                 wholes)
        value = evaluation.value(blocks.Need(
            len(program.nodes) - 1, tuple(blocks.Cut(axis) for axis in range(axes))))
        return engine.store(result, jnp.broadcast_to(value, tile.output), at, dtype)

      start = jnp.zeros(kernel.output_axes, jnp.uint16 if dtype == jnp.bfloat16 else dtype)
      return engine.loaded(lax.fori_loop(
          0, engine.blocks(kernel.output_axes, tile.output), block, start), dtype)
    return run

  return engine.TiledProgram(whole(program), tiled, lambda rng: inputs(program, rng))


def inputs(program: programs.RunnableProgram, rng: np.random.Generator, averaging: bool = False
           ) -> list[np.ndarray]:
  """The operands: numbers from 0.25 to 1.25, integers from -8 to 7, valid indices of table rows.

  Args:
    program: the program.
    rng: draws them.
    averaging: whether one operand of each product or convolution is divided by the number of terms
      of its sums. Otherwise the values would grow from product to product, until hyperbolic
      tangents saturate and exponentials overflow.
  """
  summed: dict[int, int] = {}
  for node in program.nodes if averaging else ():
    if node.operation in (ops.DOT, ops.CONVOLUTION):
      parameters = [operand for operand in node.operands
                    if program.nodes[operand].operation == ops.PARAMETER]
      summed.update(dict.fromkeys(parameters[-1:], _terms(program, node)))
  rows = {node.operands[1]: program.nodes[node.operands[0]].shape[0]
          for node in program.nodes if node.operation == ops.GATHER}
  arrays = []
  for place in program.parameters:
    node = program.nodes[place]
    if node.type == "pred":
      arrays.append(rng.integers(2, size=node.shape).astype(bool))
    elif node.type == "s32":
      low, high = (0, rows[place]) if place in rows else (-8, 8)
      arrays.append(rng.integers(low, high, node.shape).astype(np.int32))
    else:
      drawn = np.asarray(rng.uniform(0.25, 1.25, node.shape)) / summed.get(place, 1)
      arrays.append(drawn.astype(DTYPES[node.type]))
  return arrays


def _terms(program: programs.RunnableProgram, node: programs.Node) -> int:
  """The number of products in each sum of a dot or convolution."""
  if node.operation == ops.CONVOLUTION:
    return math.prod(program.nodes[node.operands[1]].shape[:-1])
  (one, _), result = programs.labels(node)
  return math.prod(size for name, size in zip(one, program.nodes[node.operands[0]].shape)
                   if name not in result)


class _Evaluation:
  """Computes regions of nodes, each once; without a kernel, whole arrays.

  Args:
    program: the program.
    operands: the values of its parameters.
    kernel: the kernel whose tile is computed; None: whole arrays are computed.
    sides: the sides of the tile, output axes first.
    starts: the starts of the block.
    wholes: the nodes that were computed before the loop.
    known: regions that are already computed.
  """

  def __init__(self, program: programs.RunnableProgram, operands: Sequence[jax.Array],
               kernel: blocks.SyntheticKernel | None, sides: Sequence[int],
               starts: Sequence[Any] | None, wholes: dict[int, jax.Array] | None = None,
               known: dict[blocks.Need, jax.Array] | None = None) -> None:
    self._program = program
    self._operands = dict(zip(program.parameters, operands))
    self._kernel = kernel
    self._sides = sides
    self._starts = tuple(starts or ())
    self._wholes = wholes or {}
    self._known = dict(known or {})
    self._loops = None if kernel is None else len(kernel.output_axes)

  def whole(self, node: int) -> jax.Array:
    """The whole result of a node."""
    shape = self._program.nodes[node].shape
    return jnp.broadcast_to(self.value(blocks.Need(node, (None,) * len(shape))), shape)

  def value(self, need: blocks.Need) -> jax.Array:
    """A region; an axis of size 1 may represent an axis that is broadcast."""
    if need not in self._known:
      self._known[need] = self._compute(need)
    return self._known[need]

  def _full(self, need: blocks.Need) -> jax.Array:
    """A region with all axes in their full size."""
    shape = self._program.nodes[need.node].shape
    return jnp.broadcast_to(self.value(need), tuple(
        blocks.extent(cut, size, self._sides) for cut, size in zip(need.region, shape)))

  def _cut(self, array: jax.Array, region: blocks.Region) -> jax.Array:
    if all(cut is None for cut in region):
      return array
    starts = [0 if cut is None else cut.offset + (self._starts[cut.axis] if cut.axis >= 0 else 0)
              for cut in region]
    sizes = [blocks.extent(cut, size, self._sides) for cut, size in zip(region, array.shape)]
    return engine.cut(array, starts, sizes)

  def _compute(self, need: blocks.Need) -> jax.Array:
    node = self._program.nodes[need.node]
    dtype = DTYPES[node.type]
    if need.node in self._wholes:
      return self._cut(self._wholes[need.node], need.region)
    if node.operation == ops.PARAMETER:
      return self._cut(self._operands[need.node], need.region)
    if node.operation == ops.CONSTANT:
      return jnp.asarray(node.value, dtype)
    if node.operation == ops.IOTA:
      return lax.broadcasted_iota(jnp.int32, node.shape, 0).astype(dtype)
    below = self._operand_needs(need)
    if node.operation in ops.ELEMENTWISE:
      return self._elementwise(node, need, below).astype(dtype)
    if node.operation == ops.BROADCAST:
      names, result = programs.labels(node)
      return jnp.expand_dims(self._full(below[0]), tuple(
          axis for axis, name in enumerate(result) if name not in names[0]))
    if self._kernel is not None and need.node == self._kernel.main:
      return self._looped(node, need, below).astype(dtype)
    if node.operation in ops.CONTRACTIONS:
      return self._partial(node, [self._full(operand) for operand in below], False).astype(dtype)
    values = [self._full(operand) for operand in below]
    if node.operation == ops.TRANSPOSE:
      names, result = programs.labels(node)
      return lax.transpose(values[0], tuple(names[0].index(name) for name in result))
    if node.operation == ops.RESHAPE:
      return values[0].reshape(node.shape)
    if node.operation == ops.SLICE:
      # If a step needs only a region of the slice, the operand's region is already that region.
      return values[0] if self._loops is not None and any(need.region) else lax.slice(
          values[0], node.starts, tuple(np.add(node.starts, node.shape)))
    if node.operation == ops.CONCATENATE:
      return jnp.concatenate(values, axis=node.axis)
    table, rows = values  # A gather.
    return table.at[rows].get(mode="promise_in_bounds")

  def _operand_needs(self, need: blocks.Need) -> list[blocks.Need]:
    """The regions of a node's operands; nodes without such a rule are among the wholes."""
    main = None if self._kernel is None else self._kernel.main
    return blocks.operand_needs(self._program, need, self._loops, main) or []

  def _elementwise(self, node: programs.Node, need: blocks.Need, below: list[blocks.Need]
                   ) -> jax.Array:
    values = [self.value(operand) for operand in below]
    shapes = [array.shape for array in values if array.shape]
    target = tuple(blocks.extent(cut, length, self._sides)
                   for cut, length in zip(need.region, node.shape))
    # An axis that is broadcast in all operands must be expanded before the operation.
    if not shapes or np.broadcast_shapes(*shapes) != target:
      largest = max(range(len(values)), key=lambda place: math.prod(values[place].shape))
      values[largest] = jnp.broadcast_to(values[largest], target)
    if node.operation in _UNARY:
      return _UNARY[node.operation](values[0])
    if node.operation in _BINARY:
      dtype = DTYPES[node.type]
      return _BINARY[node.operation](*(array.astype(dtype) for array in values))
    if node.operation == ops.CONVERT:
      return values[0]
    if node.operation == ops.COMPARE:
      return jnp.greater(*values)
    return jnp.where(values[0], *(array.astype(DTYPES[node.type]) for array in values[1:]))

  def _partial(self, node: programs.Node, values: list[jax.Array], wide: bool) -> jax.Array:
    """A reduction, product or convolution of blocks.

    Args:
      node: the operation.
      values: the blocks of its operands.
      wide: whether the result has the accumulator's type instead of the node's.
    """
    dtype = engine.accumulator("s32" if node.type == "s32" else "f32") if wide else (
        DTYPES[node.type])
    if node.operation in ops.REDUCTIONS:
      names, result = programs.labels(node)
      axes = tuple(axis for axis, name in enumerate(names[0]) if name not in result)
      return _REDUCTIONS[node.operation][0](values[0], axis=axes)
    if node.operation == ops.CONVOLUTION:
      return lax.conv_general_dilated(values[0], values[1], (1, 1), "VALID",
                                      dimension_numbers=("NHWC", "HWIO", "NHWC"),
                                      preferred_element_type=dtype)
    (one, other), result = programs.labels(node)
    shared = [name for name in one if name in other and name in result]
    numbers = ((tuple(one.index(name) for name in one if name not in result),
                tuple(other.index(name) for name in one if name not in result)),
               (tuple(one.index(name) for name in shared),
                tuple(other.index(name) for name in shared)))
    return lax.dot_general(values[0], values[1], numbers, preferred_element_type=dtype)

  def _looped(self, node: programs.Node, need: blocks.Need, below: list[blocks.Need]
              ) -> jax.Array:
    """The main contraction: a loop over the blocks of its sums."""
    kernel = self._kernel
    assert kernel is not None
    self._compute_outside(below)
    join, initial = jnp.add, 0
    kept = engine.accumulator("s32" if node.type == "s32" else "f32")
    if node.operation in ops.REDUCTIONS:
      _, join, first = _REDUCTIONS[node.operation]
      initial = first(kept)
    reductions = self._sides[self._loops:]

    def step(number: Any, sums: jax.Array) -> jax.Array:
      at = engine.unravel(number, kernel.reduction_axes, reductions)
      inner = _Evaluation(self._program, list(self._operands.values()), kernel, self._sides,
                          self._starts + at, self._wholes, self._known)
      values = [inner._full(operand) for operand in below]
      return join(sums, self._partial(node, values, True).astype(kept))

    shape = tuple(blocks.extent(cut, size, self._sides)
                  for cut, size in zip(need.region, node.shape))
    return lax.fori_loop(0, engine.blocks(kernel.reduction_axes, reductions), step,
                         jnp.full(shape, initial, kept))

  def _compute_outside(self, below: list[blocks.Need]) -> None:
    """Computes once the values that are the same in all steps of the inner loop."""
    assert self._loops is not None
    waiting, seen = list(below), set(below)
    while waiting:
      need = waiting.pop()
      if not blocks.is_inner(need.region, self._loops):
        if self._program.nodes[need.node].operation not in (ops.PARAMETER, ops.BROADCAST):
          self.value(need)
        if self._program.nodes[need.node].operation != ops.BROADCAST:
          continue
      for operand in self._operand_needs(need):
        if need.node not in self._wholes and operand not in seen:
          seen.add(operand)
          waiting.append(operand)
