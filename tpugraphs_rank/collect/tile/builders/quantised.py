"""Arithmetic with small integers: products of int8 and int4, rounding to a grid, rescaling."""

from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile.builders import engine

cut = engine.cut
widen = engine.widen

GROUP = 32  # Rows of a weight matrix that share a scale.


def _int8(rng: np.random.Generator, *shape: int) -> np.ndarray:
  return rng.integers(-127, 128, shape).astype(np.int8)


def _scales(rng: np.random.Generator, *shape: int) -> np.ndarray:
  return (rng.uniform(0.5, 1.5, shape) / 127).astype(np.float32)


def _integer_dot(a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.matmul(a, b, preferred_element_type=jnp.int32)


def _integers(tile: geometry.Tile, *_: Any) -> jax.Array:
  return jnp.zeros(tile.output, jnp.int32)


def _floats(tile: geometry.Tile, *_: Any) -> jax.Array:
  return jnp.zeros(tile.output, jnp.float32)


def int8_matmul(kernel: geometry.Kernel) -> engine.TiledProgram:
  """a[m, k] @ b[k, n] in int8 with sums in int32, scaled by row and by column."""
  (m, n, k), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def scaled(acc, by_row, by_column):
    return acc.astype(jnp.float32) * by_row[:, None] * by_column[None, :]

  def step(acc, tile, at, red, a, b, by_row, by_column):
    (tm, tn), (tk,) = tile.output, tile.reduction
    return acc + _integer_dot(cut(a, (at[0], red[0]), (tm, tk)), cut(b, (red[0], at[1]), (tk, tn)))

  def finish(acc, tile, at, a, b, by_row, by_column):
    return scaled(acc, cut(by_row, at[:1], tile.output[:1]),
                  cut(by_column, at[1:], tile.output[1:]))

  return engine.TiledProgram(
      lambda a, b, by_row, by_column: scaled(_integer_dot(a, b), by_row, by_column).astype(dtype),
      engine.folded(kernel, _integers, step, finish),
      lambda rng: [_int8(rng, m, k), _int8(rng, k, n), _scales(rng, m), _scales(rng, n)])


def dynamic_matmul(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Rows of x[m, k] are rounded to int8 with the factors inverse[m], then multiplied as integers.

  Every tile of the columns rounds its rows again.
  """
  (m, n, k), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def product(x, inverse, weights):
    levels = jnp.clip(jnp.round(widen(x) * inverse[:, None]), -127, 127)
    return _integer_dot(levels.astype(jnp.int8), weights)

  def scaled(acc, inverse, scale):
    return acc.astype(jnp.float32) * scale[None, :] / inverse[:, None]

  def step(acc, tile, at, red, x, inverse, weights, scale):
    (tm, tn), (tk,) = tile.output, tile.reduction
    return acc + product(cut(x, (at[0], red[0]), (tm, tk)), cut(inverse, at[:1], (tm,)),
                         cut(weights, (red[0], at[1]), (tk, tn)))

  def finish(acc, tile, at, x, inverse, weights, scale):
    return scaled(acc, cut(inverse, at[:1], tile.output[:1]), cut(scale, at[1:], tile.output[1:]))

  def inputs(rng):
    return [engine.draw(rng, (m, k), kernel.dtype),
            rng.uniform(30, 60, m).astype(np.float32), _int8(rng, k, n), _scales(rng, n)]

  return engine.TiledProgram(
      lambda x, inverse, weights, scale: scaled(product(x, inverse, weights), inverse,
                                                scale).astype(dtype),
      engine.folded(kernel, _integers, step, finish), inputs)


def group_matmul(kernel: geometry.Kernel) -> engine.TiledProgram:
  """x[m, k] times int8 weights[k, n] that have a scale for every `GROUP` rows and each column."""
  (m, n, k), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def product(x, weights, scale):
    return jnp.matmul(widen(x), weights.astype(jnp.float32) * scale)

  def reference(x, weights, scale):
    return product(x, weights, jnp.repeat(scale, GROUP, axis=0)).astype(dtype)

  def rows_of(scale, first, rows, at, columns):
    """The scale of each row of a block."""
    if GROUP % rows == 0:
      return cut(scale, (first // GROUP, at), (1, columns))
    if rows % GROUP == 0:
      return jnp.repeat(cut(scale, (first // GROUP, at), (rows // GROUP, columns)), GROUP, axis=0)
    panel = cut(scale, (0, at), (k // GROUP, columns))
    return jnp.take(panel, (first + jnp.arange(rows)) // GROUP, axis=0, mode="clip")

  def step(acc, tile, at, red, x, weights, scale):
    (tm, tn), (tk,) = tile.output, tile.reduction
    return acc + product(cut(x, (at[0], red[0]), (tm, tk)),
                         cut(weights, (red[0], at[1]), (tk, tn)),
                         rows_of(scale, red[0], tk, at[1], tn))

  return engine.TiledProgram(
      reference, engine.folded(kernel, _floats, step, lambda acc, *_: acc),
      lambda rng: [engine.draw(rng, (m, k), kernel.dtype), _int8(rng, k, n),
                   _scales(rng, k // GROUP, n)])


def int4_matmul(kernel: geometry.Kernel) -> engine.TiledProgram:
  """x[m, 2k] times weights of four bits; a byte of packed[k, n] holds the rows i and i + k."""
  (m, n, k), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def unpacked(packed):
    """The low and the high four bits, with their signs."""
    low = jnp.right_shift(jnp.left_shift(packed, 4), 4)
    return low.astype(jnp.float32), jnp.right_shift(packed, 4).astype(jnp.float32)

  def reference(x, packed, scale):
    weights = jnp.concatenate(unpacked(packed), axis=0)
    return (jnp.matmul(widen(x), weights) * scale[None, :]).astype(dtype)

  def step(acc, tile, at, red, x, packed, scale):
    (tm, tn), (tk,) = tile.output, tile.reduction
    for half, weights in enumerate(unpacked(cut(packed, (red[0], at[1]), (tk, tn)))):
      acc += jnp.matmul(widen(cut(x, (at[0], red[0] + half * k), (tm, tk))), weights)
    return acc

  def finish(acc, tile, at, x, packed, scale):
    return acc * cut(scale, at[1:], tile.output[1:])[None, :]

  return engine.TiledProgram(
      reference, engine.folded(kernel, _floats, step, finish),
      lambda rng: [engine.draw(rng, (m, 2 * k), kernel.dtype),
                   rng.integers(-128, 128, (k, n)).astype(np.int8), _scales(rng, n) * 16])


def fake_quantise(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Rounds each row of x[rows, columns] to 255 levels between plus and minus its largest magnitude.

  The reduction tile finds the magnitudes, the output tile rounds.
  """
  (rows, columns), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def largest(x):
    return jnp.abs(widen(x)).max(axis=1, keepdims=True)

  def rounded(x, top):
    # One quotient for a row: quotients of elements could be compiled in two ways and round apart.
    inverse, scale = 127 / top, top / 127
    return jnp.round(widen(x) * inverse) * scale

  def tiled(tile):
    (tr, tc), (tk,) = tile.output, tile.reduction

    def program(x):
      def row_block(index, result):
        row = index * tr

        def gather(number, top):
          return jnp.maximum(top, largest(cut(x, (row, number * tk), (tr, tk))))

        top = lax.fori_loop(0, columns // tk, gather, jnp.full((tr, 1), 1e-6, jnp.float32))

        def column_block(number, result):
          at = (row, number * tc)
          return engine.store(result, rounded(cut(x, at, (tr, tc)), top), at, dtype)

        return lax.fori_loop(0, columns // tc, column_block, result)
      return engine.loaded(lax.fori_loop(0, rows // tr, row_block, engine.blank(kernel)), dtype)
    return program

  return engine.TiledProgram(
      lambda x: rounded(x, jnp.maximum(largest(x), 1e-6)).astype(dtype), tiled,
      engine.operands(kernel.dtype, kernel.shape))


def requantise_add(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Adds two int8 arrays with scales by row and by column, then rounds and clips to 8 bits."""
  (rows, columns), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def compute(a, b, by_row, by_column):
    total = (a.astype(jnp.float32) - 3) * by_row[:, None] + b.astype(jnp.float32) * by_column
    return jnp.clip(jnp.round(total) + 5, -128, 127)

  def step(acc, tile, at, red, a, b, by_row, by_column):
    return compute(cut(a, at, tile.output), cut(b, at, tile.output),
                   cut(by_row, at[:1], tile.output[:1]),
                   cut(by_column, at[1:], tile.output[1:])).astype(acc.dtype)

  def inputs(rng):
    # Multiples of 1/128 are exact in all sums, so that rounding does not depend on the program.
    factors = [rng.integers(16, 128, size).astype(np.float32) / 128 for size in (rows, columns)]
    return [_int8(rng, rows, columns), _int8(rng, rows, columns), *factors]

  return engine.TiledProgram(lambda *operands: compute(*operands).astype(dtype),
                             engine.blocked(kernel, step, lambda acc, *_: acc), inputs)


BUILDERS = {
    "int8_matmul": int8_matmul,
    "dynamic_matmul": dynamic_matmul,
    "group_matmul": group_matmul,
    "int4_matmul": int4_matmul,
    "fake_quantise": fake_quantise,
    "requantise_add": requantise_add,
}
