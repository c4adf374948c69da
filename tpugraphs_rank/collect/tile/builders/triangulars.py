"""Triangular matrices: solving, products that skip blocks of zeros, updates of one triangle."""

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


def _lower(block: jax.Array, row: Any, column: Any, other: jax.Array | int = 0) -> jax.Array:
  """Elements on and below the diagonal; the last two axes start at `row` and `column`."""
  rows, columns = block.shape[-2:]
  first, second = engine.positions(row, rows), engine.positions(column, columns)
  return jnp.where(first[:, None] >= second[None, :], block, other)


def _dot(kernel: geometry.Kernel, a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.matmul(a, b, preferred_element_type=engine.accumulator(kernel.dtype))


def _zeros(kernel: geometry.Kernel) -> Callable[..., jax.Array]:
  return lambda tile, *_: jnp.zeros(tile.output, engine.accumulator(kernel.dtype))


def _until(row: Any, side: int) -> Any:
  """The number of blocks of `side` columns that hold all columns before `row`."""
  return (row + side - 1) // side


def triangular_solve(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Solves a[n, n] x = b[n, m] for a lower triangle `a`, by forward substitution."""
  n, m = kernel.shape

  def substitute(a, b):
    """Row after row; rows of `x` that are not yet solved are zero, so they add nothing."""
    def row(index, x):
      coefficients = cut(a, (index, 0), (1, a.shape[0]))
      known = jnp.matmul(coefficients, x)
      value = (cut(b, (index, 0), (1, b.shape[1])) - known) / cut(a, (index, index), (1, 1))
      return lax.dynamic_update_slice(x, value, (index, 0))
    return lax.fori_loop(0, a.shape[0], row, jnp.zeros_like(b))

  def tiled(tile):
    (tr, tc), (tk,) = tile.output, tile.reduction

    def program(a, b):
      def block(index, x):
        # Blocks of rows vary fastest: each needs the solution of those above it.
        at = engine.unravel(index, (m, n), (tc, tr))[::-1]

        def subtract(number, acc):
          k = number * tk
          return acc - jnp.matmul(cut(a, (at[0], k), (tr, tk)), cut(x, (k, at[1]), (tk, tc)))

        # Up to the end of the diagonal block, whose rows of `x` are still zero: the loop is then
        # never empty, and the reduction tile matters even if all rows are one block.
        right = lax.fori_loop(0, _until(at[0] + tr, tk), subtract, cut(b, at, (tr, tc)))
        solved = substitute(cut(a, (at[0], at[0]), (tr, tr)), right)
        return lax.dynamic_update_slice(x, solved, at)
      return lax.fori_loop(0, engine.blocks((n, m), (tr, tc)), block, engine.blank(kernel))
    return program

  def inputs(rng):
    # A dominant diagonal keeps the solution from growing from row to row.
    a = rng.standard_normal((n, n)).astype(np.float32) / np.float32(n)
    np.fill_diagonal(a, rng.uniform(1, 2, n))
    return [np.tril(a), engine.draw(rng, (n, m), kernel.dtype)]

  return engine.TiledProgram(substitute, tiled, inputs)


def triangular_matmul(kernel: geometry.Kernel) -> engine.TiledProgram:
  """The lower triangle of a[m, m] times b[m, n]; blocks right of the diagonal are skipped."""
  (m, n), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def step(acc, tile, at, red, a, b):
    (tm, tn), (tk,) = tile.output, tile.reduction
    left = _lower(cut(a, (at[0], red[0]), (tm, tk)), at[0], red[0])
    return acc + _dot(kernel, left, cut(b, (red[0], at[1]), (tk, tn)))

  return engine.TiledProgram(
      lambda a, b: _dot(kernel, jnp.tril(a), b).astype(dtype),
      engine.folded(kernel, _zeros(kernel), step, lambda acc, *_: acc,
                    lambda tile, at, *_: (0, _until(at[0] + tile.output[0], tile.reduction[0]))),
      engine.operands(kernel.dtype, (m, m), (m, n)))


def _lower_span(tile: geometry.Tile, at: engine.Starts, depth: int) -> tuple[Any, Any]:
  """All reduction blocks for an output block that reaches the lower triangle, otherwise none."""
  reaches = at[0] + tile.output[0] > at[1]
  return 0, jnp.where(reaches, depth // tile.reduction[0], 0)


def syrk_lower(kernel: geometry.Kernel) -> engine.TiledProgram:
  """The lower triangle of a[n, k] times its transpose."""
  (n, k), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def step(acc, tile, at, red, a):
    (tr, tc), (tk,) = tile.output, tile.reduction
    return acc + _dot(kernel, cut(a, (at[0], red[0]), (tr, tk)),
                      cut(a, (at[1], red[0]), (tc, tk)).T)

  return engine.TiledProgram(
      lambda a: jnp.tril(_dot(kernel, a, a.T)).astype(dtype),
      engine.folded(kernel, _zeros(kernel), step,
                    lambda acc, tile, at, *_: _lower(acc, *at),
                    lambda tile, at, *_: _lower_span(tile, at, k)),
      engine.operands(kernel.dtype, (n, k)))


def ldl_update(kernel: geometry.Kernel) -> engine.TiledProgram:
  """c - factor diag(d) factor' in the lower triangle of c[n, n]: the update of an LDL step."""
  (n, k), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def product(left, diagonal, right):
    return jnp.matmul(widen(left) * widen(diagonal), widen(right).T)

  def reference(c, factor, d):
    c = widen(c)
    return _lower(c - product(factor, d, factor), 0, 0, c).astype(dtype)

  def step(acc, tile, at, red, c, factor, d):
    (tr, tc), (tk,) = tile.output, tile.reduction
    return acc - product(cut(factor, (at[0], red[0]), (tr, tk)), cut(d, red, (tk,)),
                         cut(factor, (at[1], red[0]), (tc, tk)))

  def finish(acc, tile, at, c, factor, d):
    return _lower(acc, *at, widen(cut(c, at, tile.output)))

  return engine.TiledProgram(
      reference,
      engine.folded(kernel, lambda tile, at, c, *_: widen(cut(c, at, tile.output)), step, finish,
                    lambda tile, at, *_: _lower_span(tile, at, k)),
      engine.operands(kernel.dtype, (n, n), (n, k), (k,)))


def causal_product(kernel: geometry.Kernel) -> engine.TiledProgram:
  """The lower triangle of queries[h, s, f] times keys[h, t, f], times values[h, t, d].

  Each tile of the depth computes the scores again.
  """
  (heads, length, depth, width), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def product(q, k, v, row, column):
    scores = jnp.einsum("hsf,htf->hst", q, k, preferred_element_type=jnp.float32)
    return jnp.matmul(_lower(scores, row, column), widen(v))

  def step(acc, tile, at, red, q, k, v):
    (th, ts, td), (tt,) = tile.output, tile.reduction
    return acc + product(cut(q, (at[0], at[1], 0), (th, ts, width)),
                         cut(k, (at[0], red[0], 0), (th, tt, width)),
                         cut(v, (at[0], red[0], at[2]), (th, tt, td)), at[1], red[0])

  return engine.TiledProgram(
      lambda q, k, v: product(q, k, v, 0, 0).astype(dtype),
      engine.folded(kernel, _zeros(kernel), step, lambda acc, *_: acc,
                    lambda tile, at, *_: (0, _until(at[1] + tile.output[1], tile.reduction[0]))),
      engine.operands(kernel.dtype, (heads, length, width), (heads, length, width),
                      (heads, length, depth)))


BUILDERS = {
    "triangular_solve": triangular_solve,
    "triangular_matmul": triangular_matmul,
    "syrk_lower": syrk_lower,
    "ldl_update": ldl_update,
    "causal_product": causal_product,
}
