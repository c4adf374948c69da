"""Counting: values in bins, pairs of values, values below edges."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile.builders import engine

cut = engine.cut
widen = engine.widen


def _counts(tile: geometry.Tile, *_: Any) -> jax.Array:
  return jnp.zeros(tile.output, jnp.int32)


def _categories(rng: np.random.Generator, count: int, *shape: int) -> np.ndarray:
  """Numbers from 0 to `count - 1`, small ones more often than large ones."""
  return np.floor(count * rng.random(shape) ** 1.5).astype(np.int32)


def _is(x: jax.Array, start: Any, count: int) -> jax.Array:
  """Whether x equals each of the `count` categories from `start`, along a new last axis."""
  return x[..., None] == engine.positions(start, count)


def row_histogram(kernel: geometry.Kernel) -> engine.TiledProgram:
  """How often each category occurs in each row of x[r, n]."""
  (rows, values, bins), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def count(x, start, number):
    equal = x[:, None, :] == engine.positions(start, number)[None, :, None]
    return equal.astype(jnp.int32).sum(axis=-1)

  def step(acc, tile, at, red, x):
    (tr, tb), (tn,) = tile.output, tile.reduction
    return acc + count(cut(x, (at[0], red[0]), (tr, tn)), at[1], tb)

  return engine.TiledProgram(lambda x: count(x, 0, bins).astype(dtype),
                             engine.folded(kernel, _counts, step, lambda acc, *_: acc),
                             lambda rng: [_categories(rng, bins, rows, values)])


def weighted_histogram(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Sums of the rows of weights[n, c] whose x[n] is in the same bin, as a product with 0 and 1.

  Every block computes the bins of its values again.
  """
  (values, channels, bins), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def total(x, weights, start, number):
    place = jnp.clip(jnp.floor((widen(x) + 3) * (bins / 6)), 0, bins - 1).astype(jnp.int32)
    return jnp.matmul(_is(place, start, number).astype(jnp.float32).T, widen(weights))

  def step(acc, tile, at, red, x, weights):
    (tb, tc), (tn,) = tile.output, tile.reduction
    return acc + total(cut(x, red, (tn,)), cut(weights, (red[0], at[1]), (tn, tc)), at[0], tb)

  return engine.TiledProgram(
      lambda x, weights: total(x, weights, 0, bins).astype(dtype),
      engine.blocked(kernel, step, lambda acc, *_: acc),
      engine.operands(kernel.dtype, (values,), (values, channels)))


def histogram_2d(kernel: geometry.Kernel) -> engine.TiledProgram:
  """How often each pair of categories of x[n] and y[n] occurs, by comparing with all pairs."""
  (values, rows, columns), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def count(x, y, at, sides):
    both = _is(x, at[0], sides[0])[:, :, None] & _is(y, at[1], sides[1])[:, None, :]
    return both.astype(jnp.int32).sum(axis=0)

  def step(acc, tile, at, red, x, y):
    return acc + count(cut(x, red, tile.reduction), cut(y, red, tile.reduction), at, tile.output)

  return engine.TiledProgram(
      lambda x, y: count(x, y, (0, 0), (rows, columns)).astype(dtype),
      engine.folded(kernel, _counts, step, lambda acc, *_: acc),
      lambda rng: [_categories(rng, rows, values), _categories(rng, columns, values)])


def joint_counts(kernel: geometry.Kernel) -> engine.TiledProgram:
  """How often category c of feature f in x[n, f] occurs with label l in y[n], as a product."""
  (values, features, categories, labels), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def count(x, y, at, sides):
    first = _is(x, at[1], sides[1]).astype(jnp.float32)
    second = _is(y, at[2], sides[2]).astype(jnp.float32)
    return jnp.einsum("nfc,nl->fcl", first, second)

  def step(acc, tile, at, red, x, y):
    (tn,) = tile.reduction
    return acc + count(cut(x, (red[0], at[0]), (tn, tile.output[0])), cut(y, red, (tn,)), at,
                       tile.output)

  return engine.TiledProgram(
      lambda x, y: count(x, y, (0, 0, 0), kernel.output_axes).astype(dtype),
      engine.folded(kernel, lambda tile, *_: jnp.zeros(tile.output, jnp.float32), step,
                    lambda acc, *_: acc),
      lambda rng: [_categories(rng, categories, values, features),
                   _categories(rng, labels, values)])


def cumulative_counts(kernel: geometry.Kernel) -> engine.TiledProgram:
  """The number of values in each column of x[n, c] that are at most edge[e]."""
  (values, columns, edges), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def count(x, edge):
    return (x[None, :, :] <= edge[:, None, None]).astype(jnp.int32).sum(axis=1)

  def step(acc, tile, at, red, x, edge):
    (te, tc), (tn,) = tile.output, tile.reduction
    return acc + count(cut(x, (red[0], at[1]), (tn, tc)), cut(edge, at[:1], (te,)))

  return engine.TiledProgram(
      lambda x, edge: count(x, edge).astype(dtype),
      engine.folded(kernel, _counts, step, lambda acc, *_: acc),
      engine.operands(kernel.dtype, (values, columns), (edges,)))


def digitise(kernel: geometry.Kernel) -> engine.TiledProgram:
  """The bin of each element of x[r, c]: the number of edges that are at most as large."""
  (rows, columns, edges), dtype = kernel.shape, engine.DTYPES[kernel.dtype]
  source = "f32" if kernel.dtype == "s32" else kernel.dtype

  def count(x, edge):
    return (x[:, :, None] >= edge[None, None, :]).astype(jnp.int32).sum(axis=-1)

  def step(acc, tile, at, red, x, edge):
    return acc + count(cut(x, at, tile.output), cut(edge, red, tile.reduction))

  def inputs(rng):
    return [engine.draw(rng, (rows, columns), source), np.sort(engine.draw(rng, (edges,), source))]

  return engine.TiledProgram(lambda x, edge: count(x, edge).astype(dtype),
                             engine.folded(kernel, _counts, step, lambda acc, *_: acc), inputs)


BUILDERS = {
    "row_histogram": row_histogram,
    "weighted_histogram": weighted_histogram,
    "histogram_2d": histogram_2d,
    "joint_counts": joint_counts,
    "cumulative_counts": cumulative_counts,
    "digitise": digitise,
}
