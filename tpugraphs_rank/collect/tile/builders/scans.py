"""Cumulative operations and recurrences: a value is carried from block to block along an axis."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile.builders import engine

cut = engine.cut
widen = engine.widen

Pair = tuple[jax.Array, jax.Array]


def _carried(kernel: geometry.Kernel, axis: int, initial: float,
             step: Callable[..., jax.Array]) -> Callable[[geometry.Tile], Callable[..., jax.Array]]:
  """Builds `tiled` of a computation in which each block needs the last slice of the one before.

  Args:
    kernel: the kernel.
    axis: the axis along which the blocks follow one another.
    initial: value before the first block.
    step: (last slice of the block before, sides, starts, *operands) -> the block.
  """
  sizes, dtype = kernel.output_axes, engine.DTYPES[kernel.dtype]

  def tiled(tile: geometry.Tile) -> Callable[..., jax.Array]:
    sides = tile.output
    lines = sides[:axis] + sizes[axis:axis + 1] + sides[axis + 1:]
    thin = sides[:axis] + (1,) + sides[axis + 1:]

    def program(*operands: jax.Array) -> jax.Array:
      def line(index: Any, result: jax.Array) -> jax.Array:
        at = engine.unravel(index, sizes, lines)

        def block(number: Any, state: Pair) -> Pair:
          carry, result = state
          starts = at[:axis] + (number * sides[axis],) + at[axis + 1:]
          done = step(carry, sides, starts, *operands)
          carry = lax.slice_in_dim(done, sides[axis] - 1, sides[axis], axis=axis)
          return carry, engine.store(result, done, starts, dtype)

        first = jnp.full(thin, initial, engine.accumulator(kernel.dtype))
        return lax.fori_loop(0, sizes[axis] // sides[axis], block, (first, result))[1]

      return engine.loaded(
          lax.fori_loop(0, engine.blocks(sizes, lines), line, engine.blank(kernel)), dtype)
    return program
  return tiled


# family -> (scanned axis, scan of a block, combination with what is carried, value before)
_SCANS: dict[str, tuple[int, Any, Any, float]] = {
    "scan_sum_minor": (1, lax.cumsum, jnp.add, 0),
    "scan_sum_major": (0, lax.cumsum, jnp.add, 0),
    "scan_max_middle": (1, lax.cummax, jnp.maximum, -1e9),
}


def scan(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Cumulative sums or maxima of one operand along the family's axis."""
  axis, function, join, initial = _SCANS[kernel.family]
  dtype = engine.DTYPES[kernel.dtype]

  def step(carry, sides, starts, x):
    return join(function(widen(cut(x, starts, sides)), axis=axis), carry)

  return engine.TiledProgram(lambda x: function(widen(x), axis=axis).astype(dtype),
                             _carried(kernel, axis, initial, step),
                             engine.operands(kernel.dtype, kernel.shape))


def recurrence(kernel: geometry.Kernel) -> engine.TiledProgram:
  """h[t] = sigmoid(gate[t]) * h[t - 1] + x[t] along the middle axis of x[batch, time, features]."""
  dtype = engine.DTYPES[kernel.dtype]

  def combine(left: Pair, right: Pair) -> Pair:
    return left[0] * right[0], right[0] * left[1] + right[1]

  def compute(gate, x):
    """The product of all factors up to t, and h[t] for a value of zero before."""
    return lax.associative_scan(combine, (jax.nn.sigmoid(widen(gate)), widen(x)), axis=1)

  def step(carry, sides, starts, gate, x):
    factors, sums = compute(cut(gate, starts, sides), cut(x, starts, sides))
    return factors * carry + sums

  return engine.TiledProgram(lambda gate, x: compute(gate, x)[1].astype(dtype),
                             _carried(kernel, 1, 0, step),
                             engine.operands(kernel.dtype, kernel.shape, kernel.shape))


_DECAY = 0.9


def decay(kernel: geometry.Kernel) -> engine.TiledProgram:
  """y[t] = 0.9 y[t - 1] + 0.1 x[t] along the rows of x[time, features].

  A block is a product with the triangular matrix of the powers of 0.9, so its work grows with the
  square of its rows.
  """
  dtype = engine.DTYPES[kernel.dtype]

  def reference(x):
    def advance(value, row):
      value = _DECAY * value + (1 - _DECAY) * row
      return value, value
    return lax.scan(advance, jnp.zeros(x.shape[1:], jnp.float32), widen(x))[1].astype(dtype)

  def step(carry, sides, starts, x):
    ages = np.subtract.outer(np.arange(sides[0]), np.arange(sides[0]))
    weights = np.where(ages >= 0, (1 - _DECAY) * _DECAY ** np.maximum(ages, 0), 0)
    fading = _DECAY ** np.arange(1, sides[0] + 1)
    return (jnp.matmul(jnp.asarray(weights, jnp.float32), widen(cut(x, starts, sides)))
            + jnp.asarray(fading, jnp.float32)[:, None] * carry)

  return engine.TiledProgram(reference, _carried(kernel, 0, 0, step),
                             engine.operands(kernel.dtype, kernel.shape))


def table(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Summed-area table: sums over all elements above and to the left, these included.

  A row of blocks carries the sums to the left of each row, and all blocks share the last row of the
  result above.
  """
  (rows, columns), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def sums(x):
    # For blocks this runs several times as fast as `cumsum`, which XLA computes from windows.
    return lax.associative_scan(jnp.add, lax.associative_scan(jnp.add, x, axis=1), axis=0)

  def tiled(tile):
    tr, tc = tile.output

    def program(x):
      def row_block(row, state):
        def column_block(column, state):
          left, above, result = state
          at = (row * tr, column * tc)
          local = sums(widen(cut(x, at, (tr, tc))))
          done = local + left + cut(above, (0, at[1]), (1, tc))
          above = lax.dynamic_update_slice(above, done[-1:], (0, at[1]))
          return left + local[:, -1:], above, engine.store(result, done, at, dtype)

        above, result = state
        left = jnp.zeros((tr, 1), above.dtype)
        return lax.fori_loop(0, columns // tc, column_block, (left, above, result))[1:]

      above = jnp.zeros((1, columns), engine.accumulator(kernel.dtype))
      _, result = lax.fori_loop(0, rows // tr, row_block, (above, engine.blank(kernel)))
      return engine.loaded(result, dtype)
    return program

  return engine.TiledProgram(
      lambda x: jnp.cumsum(jnp.cumsum(widen(x), axis=1), axis=0).astype(dtype), tiled,
      engine.operands(kernel.dtype, kernel.shape))


BUILDERS = {
    **dict.fromkeys(_SCANS, scan),
    "scan_recurrence": recurrence,
    "scan_decay": decay,
    "scan_table": table,
}
