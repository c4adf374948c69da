"""Order: the largest elements, medians, ranks, positions of maxima, a step of a merge."""

import jax
from jax import lax
import jax.numpy as jnp

from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile.builders import engine

cut = engine.cut
widen = engine.widen


def top(kernel: geometry.Kernel) -> engine.TiledProgram:
  """The `count` largest elements of each row, in descending order.

  Blocks of columns are merged with the best so far. A tile that cuts the ranks finds all of them
  again for each part.
  """
  count, dtype = kernel.shape[2], engine.DTYPES[kernel.dtype]

  def reference(x):
    return jnp.sort(widen(x), axis=1, descending=True)[:, :count].astype(dtype)

  def start(tile, at, x):
    return jnp.full((tile.output[0], count), -jnp.inf)

  def step(best, tile, at, red, x):
    part = widen(cut(x, (at[0], red[0]), (tile.output[0], tile.reduction[0])))
    return lax.top_k(jnp.concatenate([best, part], axis=1), count)[0]

  def finish(best, tile, at, x):
    return cut(best, (0, at[1]), tile.output)

  return engine.TiledProgram(reference, engine.folded(kernel, start, step, finish),
                             engine.operands(kernel.dtype, kernel.shape[:2]))


def _middle(values: list[jax.Array]) -> jax.Array:
  """The median of the arrays, element by element: a sorting network by odd and even neighbours."""
  values = list(values)
  for stage in range(len(values)):
    for i in range(stage % 2, len(values) - 1, 2):
      low, high = values[i], values[i + 1]
      # Unlike minima and maxima, these have no rule for NaNs, and are much faster.
      ordered = low < high
      values[i], values[i + 1] = jnp.where(ordered, low, high), jnp.where(ordered, high, low)
  return values[len(values) // 2]


def median(kernel: geometry.Kernel) -> engine.TiledProgram:
  """The median over the first axis of x[workers, rows, columns], as for robust averages."""
  workers, dtype = kernel.shape[0], engine.DTYPES[kernel.dtype]

  def step(acc, tile, at, red, x):
    block = widen(cut(x, (0,) + at, (workers,) + tile.output))
    return _middle([block[worker] for worker in range(workers)])

  return engine.TiledProgram(
      lambda x: jnp.sort(widen(x), axis=0)[workers // 2].astype(dtype),
      engine.blocked(kernel, step, lambda acc, *_: acc),
      engine.operands(kernel.dtype, kernel.shape))


def window(kernel: geometry.Kernel) -> engine.TiledProgram:
  """A running median along the rows of x[rows + 4, columns], over windows of five."""
  (rows, columns), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def shifted(x):
    return [x[i:i + x.shape[0] - 4] for i in range(5)]

  def step(acc, tile, at, red, x):
    (tr, tc) = tile.output
    return _middle(shifted(widen(cut(x, at, (tr + 4, tc)))))

  return engine.TiledProgram(
      lambda x: jnp.sort(jnp.stack(shifted(widen(x))), axis=0)[2].astype(dtype),
      engine.blocked(kernel, step, lambda acc, *_: acc),
      engine.operands(kernel.dtype, (rows + 4, columns)))


def rank(kernel: geometry.Kernel) -> engine.TiledProgram:
  """For each element of a row: how many elements of the row are smaller. Compares all pairs."""
  dtype = engine.DTYPES[kernel.dtype]

  def smaller(others, x):
    return (others[:, None, :] < x[:, :, None]).astype(jnp.int32).sum(axis=-1)

  def step(acc, tile, at, red, x):
    others = cut(x, (at[0], red[0]), (tile.output[0], tile.reduction[0]))
    return acc + smaller(others, cut(x, at, tile.output)).astype(acc.dtype)

  return engine.TiledProgram(lambda x: smaller(x, x).astype(dtype),
                             engine.blocked(kernel, step, lambda acc, *_: acc),
                             engine.operands(kernel.dtype, kernel.shape))


def argmax(kernel: geometry.Kernel) -> engine.TiledProgram:
  """The position of the first maximum along the middle axis of x[planes, rows, columns]."""
  dtype = engine.DTYPES[kernel.dtype]

  def start(tile, at, x):
    return (jnp.full(tile.output, -1e9, engine.accumulator(kernel.dtype)),
            jnp.zeros(tile.output, jnp.int32))

  def step(best, tile, at, red, x):
    value, position = best
    (tp, tc), (tr,) = tile.output, tile.reduction
    part = widen(cut(x, (at[0], red[0], at[1]), (tp, tr, tc)))
    highest = part.max(axis=1)
    # An earlier block wins ties, as the first of equal elements does in `jnp.argmax`.
    wins = highest > value
    place = jnp.argmax(part, axis=1).astype(jnp.int32) + red[0]
    return jnp.where(wins, highest, value), jnp.where(wins, place, position)

  return engine.TiledProgram(lambda x: jnp.argmax(x, axis=1).astype(dtype),
                             engine.folded(kernel, start, step, lambda best, *_: best[1]),
                             engine.operands(kernel.dtype, kernel.shape))


def merge_step(kernel: geometry.Kernel) -> engine.TiledProgram:
  """The first step of a bitonic merge of the halves of x[rows, 2, columns].

  Minima and maxima of the first half and the reversed second half. A block of the result therefore
  reads the second half from the other end.
  """
  (_, columns), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def compute(first, second):
    second = jnp.flip(second, axis=-1)
    return jnp.stack([jnp.minimum(first, second), jnp.maximum(first, second)], axis=1)

  def step(acc, tile, at, red, x):
    tr, th, tc = tile.output
    first = cut(x, (at[0], 0, at[2]), (tr, 1, tc))[:, 0]
    second = cut(x, (at[0], 1, columns - tc - at[2]), (tr, 1, tc))[:, 0]
    both = compute(widen(first), widen(second))
    return cut(both, (0, at[1], 0), (tr, th, tc))

  return engine.TiledProgram(lambda x: compute(x[:, 0], x[:, 1]).astype(dtype),
                             engine.blocked(kernel, step, lambda acc, *_: acc),
                             engine.operands(kernel.dtype, kernel.output_axes))


BUILDERS = {
    "sort_top": top,
    "sort_median": median,
    "sort_window": window,
    "sort_rank": rank,
    "sort_argmax": argmax,
    "sort_merge_step": merge_step,
}
