"""Kernels that write where an index says: sums of segments, rows that are replaced, maxima."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile.builders import engine

cut = engine.cut
widen = engine.widen


def _places(ids: jax.Array, start: Any, size: int) -> jax.Array:
  """Places within an output block; `size`, which a scatter drops, for ids outside of it."""
  places = ids - start
  return jnp.where((places >= 0) & (places < size), places, size)


def _zeros(kernel: geometry.Kernel, shape: geometry.Sides) -> jax.Array:
  return jnp.zeros(shape, engine.accumulator(kernel.dtype))


def _ids(rng: np.random.Generator, segments: int, count: int) -> np.ndarray:
  return rng.integers(0, segments, count).astype(np.int32)


def segment_sum(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Sums of the rows of data[n, d] with the same id; each block takes all updates and drops some.

  With sorted ids an output block reads only the updates from its first to its last segment.
  """
  (updates, depth, segments), dtype = kernel.shape, engine.DTYPES[kernel.dtype]
  in_order = kernel.family == "segment_sum_sorted"

  def add(acc, data, places):
    return acc.at[places].add(widen(data), mode="drop", indices_are_sorted=in_order)

  def reference(data, ids):
    return add(_zeros(kernel, (segments, depth)), data, ids).astype(dtype)

  def step(acc, tile, at, red, data, ids, *_):
    (ts, td), (tu,) = tile.output, tile.reduction
    places = _places(cut(ids, red, (tu,)), at[0], ts)
    # Dropped updates have the place `ts`, before and after the others: the places are not sorted.
    return acc.at[places].add(widen(cut(data, (red[0], at[1]), (tu, td))), mode="drop")

  def prepare(data, ids):
    return data, ids, jnp.searchsorted(ids, jnp.arange(segments + 1)).astype(jnp.int32)

  def span(tile, at, data, ids, begins):
    (tu,), end = tile.reduction, at[0] + tile.output[0]
    return cut(begins, at[:1], (1,))[0] // tu, (cut(begins, (end,), (1,))[0] + tu - 1) // tu

  def inputs(rng):
    data, ids = engine.draw(rng, (updates, depth), kernel.dtype), _ids(rng, segments, updates)
    return [data, np.sort(ids) if in_order else ids]

  return engine.TiledProgram(
      reference,
      engine.folded(kernel, lambda tile, *_: _zeros(kernel, tile.output), step,
                    lambda acc, *_: acc, span if in_order else None,
                    prepare if in_order else None), inputs)


def onehot_sum(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Sums of the rows of data[n, d] with the same id, as a product with a matrix of 0 and 1."""
  (updates, depth, segments), dtype = kernel.shape, engine.DTYPES[kernel.dtype]
  wide = engine.accumulator(kernel.dtype)

  def product(data, ids, start, count):
    onehot = engine.positions(start, count)[:, None] == ids[None, :]
    return jnp.matmul(onehot.astype(wide), widen(data))

  def step(acc, tile, at, red, data, ids):
    (ts, td), (tu,) = tile.output, tile.reduction
    return acc + product(cut(data, (red[0], at[1]), (tu, td)), cut(ids, red, (tu,)), at[0], ts)

  return engine.TiledProgram(
      lambda data, ids: product(data, ids, 0, segments).astype(dtype),
      engine.blocked(kernel, step, lambda acc, *_: acc),
      lambda rng: [engine.draw(rng, (updates, depth), kernel.dtype), _ids(rng, segments, updates)])


def into_table(kernel: geometry.Kernel) -> engine.TiledProgram:
  """table[r, d] with updates[n, d] at the rows index[n].

  `scatter_max` takes the largest of a row and its updates. `scatter_rows` replaces rows, and no row
  occurs twice in the index.
  """
  (rows, depth, updates), dtype = kernel.shape, engine.DTYPES[kernel.dtype]
  replaces = kernel.family == "scatter_rows"

  def write(array, places, data, **options):
    return (array.at[places].set if replaces else array.at[places].max)(data, **options)

  def reference(table, ids, data):
    return write(table, ids, data, unique_indices=replaces).astype(dtype)

  def step(acc, tile, at, red, table, ids, data):
    (tr, td), (tu,) = tile.output, tile.reduction
    places = _places(cut(ids, red, (tu,)), at[0], tr)
    return write(acc, places, widen(cut(data, (red[0], at[1]), (tu, td))), mode="drop")

  def inputs(rng):
    table = engine.draw(rng, (rows, depth), kernel.dtype)
    ids = (rng.permutation(rows)[:updates].astype(np.int32) if replaces
           else _ids(rng, rows, updates))
    return [table, ids, engine.draw(rng, (updates, depth), kernel.dtype)]

  return engine.TiledProgram(
      reference,
      engine.folded(kernel, lambda tile, at, table, *_: widen(cut(table, at, tile.output)), step,
                    lambda acc, *_: acc), inputs)


def scatter_columns(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Sums of the columns of x[r, n] with the same id."""
  (rows, updates, segments), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def step(acc, tile, at, red, x, ids):
    (tr, ts), (tu,) = tile.output, tile.reduction
    places = _places(cut(ids, red, (tu,)), at[1], ts)
    return acc.at[:, places].add(widen(cut(x, (at[0], red[0]), (tr, tu))), mode="drop")

  return engine.TiledProgram(
      lambda x, ids: _zeros(kernel, (rows, segments)).at[:, ids].add(widen(x)).astype(dtype),
      engine.folded(kernel, lambda tile, *_: _zeros(kernel, tile.output), step,
                    lambda acc, *_: acc),
      lambda rng: [engine.draw(rng, (rows, updates), kernel.dtype), _ids(rng, segments, updates)])


BUILDERS = {
    **dict.fromkeys(("segment_sum", "segment_sum_sorted"), segment_sum),
    "onehot_sum": onehot_sum,
    **dict.fromkeys(("scatter_max", "scatter_rows"), into_table),
    "scatter_columns": scatter_columns,
}
