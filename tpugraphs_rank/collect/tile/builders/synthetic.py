"""Made programs in JAX: any dataflow program, untiled and tiled.

Broadcasts are left to the operations that take them, as programs written by hand leave them: so
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
# reduction -> (over axes, of two partial results, before anything is reduced)
_REDUCTIONS: dict[str, tuple[Any, Any, Callable[[Any], Any]]] = {
    "reduce-add": (jnp.sum, jnp.add, lambda dtype: 0),
    "reduce-multiply": (jnp.prod, jnp.multiply, lambda dtype: 1),
    "reduce-maximum": (jnp.max, jnp.maximum, lambda dtype: _ends(dtype).min),
    "reduce-minimum": (jnp.min, jnp.minimum, lambda dtype: _ends(dtype).max)}


def _ends(dtype: Any) -> Any:
  return jnp.finfo(dtype) if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype)


def _same(function: Callable[..., jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
  """Functions of `lax` take arrays of one shape."""
  shape = jnp.broadcast_shapes(x.shape, y.shape)
  return function(jnp.broadcast_to(x, shape), jnp.broadcast_to(y, shape))


def _divide(x: jax.Array, y: jax.Array) -> jax.Array:
  return _same(lax.div, x, y)


def whole(program: programs.RunnableProgram) -> Callable[..., jax.Array]:
  """A made program as a function of its parameters."""
  def run(*operands: jax.Array) -> jax.Array:
    return _Evaluation(program, operands, None, (), None).whole(len(program.nodes) - 1)
  return run


def build(kernel: blocks.SyntheticKernel) -> engine.TiledProgram:
  """The program of a made kernel."""
  program = kernel.program
  axes = len(program.result.shape)
  dtype = DTYPES[kernel.dtype]

  def tiled(tile: geometry.Tile) -> Callable[..., jax.Array]:
    needed = blocks.needs(program, kernel.hero)

    def run(*operands: jax.Array) -> jax.Array:
      before = _Evaluation(program, operands, None, (), None)
      wholes = {node: before.whole(node) for node in sorted(needed.wholes)}

      def block(index: Any, result: jax.Array) -> jax.Array:
        at = engine.unravel(index, kernel.output_axes, tile.output)
        evaluation = _Evaluation(program, operands, kernel, tile.output + tile.reduction, at,
                                 wholes)
        made = evaluation.value(blocks.Need(
            len(program.nodes) - 1, tuple(blocks.Cut(axis) for axis in range(axes))))
        return engine.store(result, jnp.broadcast_to(made, tile.output), at, dtype)

      start = jnp.zeros(kernel.output_axes, jnp.uint16 if dtype == jnp.bfloat16 else dtype)
      return engine.loaded(lax.fori_loop(
          0, engine.blocks(kernel.output_axes, tile.output), block, start), dtype)
    return run

  return engine.TiledProgram(whole(program), tiled, lambda rng: inputs(program, rng))


def inputs(program: programs.RunnableProgram, rng: np.random.Generator, averaging: bool = False
           ) -> list[np.ndarray]:
  """Operands: numbers from 0.25 to 1.25, whole numbers from -8 to 7, rows within their tables.

  Args:
    program: the program.
    rng: draws them.
    averaging: whether numbers that a product or convolution takes are divided by how many it sums,
      so that of several in a row nothing grows beyond what hyperbolic tangents and exponentials
      tell apart.
  """
  summed: dict[int, int] = {}
  for node in program.nodes if averaging else ():
    if node.operation in (ops.DOT, ops.CONVOLUTION):
      given = [operand for operand in node.operands
               if program.nodes[operand].operation == ops.PARAMETER]
      summed.update(dict.fromkeys(given[-1:], _terms(program, node)))
  rows = {node.operands[1]: program.nodes[node.operands[0]].shape[0]
          for node in program.nodes if node.operation == ops.GATHER}
  found = []
  for place in program.parameters:
    node = program.nodes[place]
    if node.type == "pred":
      found.append(rng.integers(2, size=node.shape).astype(bool))
    elif node.type == "s32":
      low, high = (0, rows[place]) if place in rows else (-8, 8)
      found.append(rng.integers(low, high, node.shape).astype(np.int32))
    else:
      drawn = np.asarray(rng.uniform(0.25, 1.25, node.shape)) / summed.get(place, 1)
      found.append(drawn.astype(DTYPES[node.type]))
  return found


def _terms(program: programs.RunnableProgram, node: programs.Node) -> int:
  """How many products each number of a dot or convolution sums."""
  if node.operation == ops.CONVOLUTION:
    return math.prod(program.nodes[node.operands[1]].shape[:-1])
  (one, _), result = programs.labels(node)
  return math.prod(size for name, size in zip(one, program.nodes[node.operands[0]].shape)
                   if name not in result)


class _Evaluation:
  """Computes blocks of nodes, each once; without a kernel whole arrays."""

  def __init__(self, program: programs.RunnableProgram, operands: Sequence[jax.Array],
               kernel: blocks.SyntheticKernel | None, sides: Sequence[int],
               starts: Sequence[Any] | None, wholes: dict[int, jax.Array] | None = None,
               known: dict[blocks.Need, jax.Array] | None = None):
    self._program = program
    self._operands = dict(zip(program.parameters, operands))
    self._kernel = kernel
    self._sides = sides
    self._starts = tuple(starts or ())
    self._wholes = wholes or {}
    self._known = dict(known or {})
    self._loops = None if kernel is None else len(kernel.output_axes)

  def whole(self, node: int) -> jax.Array:
    """All of a node's result."""
    shape = self._program.nodes[node].shape
    return jnp.broadcast_to(self.value(blocks.Need(node, (None,) * len(shape))), shape)

  def value(self, need: blocks.Need) -> jax.Array:
    """A block; axes of size 1 stand for what is broadcast along them."""
    if need not in self._known:
      self._known[need] = self._compute(need)
    return self._known[need]

  def _full(self, need: blocks.Need) -> jax.Array:
    """A block with all of its axes as long as they are."""
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
    below = blocks.operand_needs(self._program, need, self._loops,
                                 self._kernel and self._kernel.hero)
    if node.operation in ops.ELEMENTWISE:
      return self._elementwise(node, need, below).astype(dtype)
    if node.operation == ops.BROADCAST:
      names, result = programs.labels(node)
      return jnp.expand_dims(self._full(below[0]), tuple(
          axis for axis, name in enumerate(result) if name not in names[0]))
    if self._kernel is not None and need.node == self._kernel.hero:
      return self._looped(node, need, below).astype(dtype)
    if node.operation in ops.CONTRACTIONS:
      return self._partial(node, [self._full(operand) for operand in below], False).astype(dtype)
    given = [self._full(operand) for operand in below]
    if node.operation == ops.TRANSPOSE:
      names, result = programs.labels(node)
      return lax.transpose(given[0], tuple(names[0].index(name) for name in result))
    if node.operation == ops.RESHAPE:
      return given[0].reshape(node.shape)
    if node.operation == ops.SLICE:
      # Where a step needs a block of it, the operand's region is that block already.
      return given[0] if self._loops is not None and any(need.region) else lax.slice(
          given[0], node.starts, tuple(np.add(node.starts, node.shape)))
    if node.operation == ops.CONCATENATE:
      return jnp.concatenate(given, axis=node.axis)
    table, rows = given  # A gather.
    return table.at[rows].get(mode="promise_in_bounds")

  def _elementwise(self, node: programs.Node, need: blocks.Need, below: list[blocks.Need]
                   ) -> jax.Array:
    given = [self.value(operand) for operand in below]
    size = lambda array: math.prod(array.shape)
    shapes = [array.shape for array in given if array.shape]
    target = tuple(blocks.extent(cut, length, self._sides)
                   for cut, length in zip(need.region, node.shape))
    # What is broadcast in all operands is made as long as it is before anything is computed.
    if not shapes or np.broadcast_shapes(*shapes) != target:
      largest = max(range(len(given)), key=lambda place: size(given[place]))
      given[largest] = jnp.broadcast_to(given[largest], target)
    if node.operation in _UNARY:
      return _UNARY[node.operation](given[0])
    if node.operation in _BINARY:
      dtype = DTYPES[node.type]
      return _BINARY[node.operation](*(array.astype(dtype) for array in given))
    if node.operation == ops.CONVERT:
      return given[0]
    if node.operation == ops.COMPARE:
      return jnp.greater(*given)
    return jnp.where(given[0], *(array.astype(DTYPES[node.type]) for array in given[1:]))

  def _partial(self, node: programs.Node, given: list[jax.Array], wide: bool) -> jax.Array:
    """A reduction, product or convolution of blocks; `wide`: of the type that sums are kept in."""
    dtype = engine.accumulator("s32" if node.type == "s32" else "f32") if wide else (
        DTYPES[node.type])
    if node.operation in ops.REDUCTIONS:
      names, result = programs.labels(node)
      axes = tuple(axis for axis, name in enumerate(names[0]) if name not in result)
      return _REDUCTIONS[node.operation][0](given[0], axis=axes)
    if node.operation == ops.CONVOLUTION:
      return lax.conv_general_dilated(given[0], given[1], (1, 1), "VALID",
                                      dimension_numbers=("NHWC", "HWIO", "NHWC"),
                                      preferred_element_type=dtype)
    (one, other), result = programs.labels(node)
    shared = [name for name in one if name in other and name in result]
    numbers = ((tuple(one.index(name) for name in one if name not in result),
                tuple(other.index(name) for name in one if name not in result)),
               (tuple(one.index(name) for name in shared),
                tuple(other.index(name) for name in shared)))
    return lax.dot_general(given[0], given[1], numbers, preferred_element_type=dtype)

  def _looped(self, node: programs.Node, need: blocks.Need, below: list[blocks.Need]
              ) -> jax.Array:
    """The hero: a loop over the blocks of what it sums."""
    kernel = self._kernel
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
      given = [inner._full(operand) for operand in below]
      return join(sums, self._partial(node, given, True).astype(kept))

    shape = tuple(blocks.extent(cut, size, self._sides)
                  for cut, size in zip(need.region, node.shape))
    return lax.fori_loop(0, engine.blocks(kernel.reduction_axes, reductions), step,
                         jnp.full(shape, initial, kept))

  def _compute_outside(self, below: list[blocks.Need]) -> None:
    """Computes once what each step of the inner loop would compute anew, though it is the same."""
    waiting, seen = list(below), set(below)
    while waiting:
      need = waiting.pop()
      if not blocks.is_inner(need.region, self._loops):
        if self._program.nodes[need.node].operation not in (ops.PARAMETER, ops.BROADCAST):
          self.value(need)
        if self._program.nodes[need.node].operation != ops.BROADCAST:
          continue
      for operand in blocks.operand_needs(self._program, need, self._loops,
                                          self._kernel.hero) or ():
        if need.node not in self._wholes and operand not in seen:
          seen.add(operand)
          waiting.append(operand)
