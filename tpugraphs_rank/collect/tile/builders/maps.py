"""Kernels that reduce little or nothing: transposes, elementwise chains, gathers."""

import jax
import jax.numpy as jnp
import numpy as np

from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile.builders import engine

cut = engine.cut
widen = engine.widen


def _pointwise(kernel: geometry.Kernel, compute, block_of, shapes) -> engine.TiledProgram:
  """A kernel without reductions: `compute` runs on whole operands or on their blocks.

  Args:
    kernel: the kernel.
    compute: operands -> result of any type.
    block_of: (tile's output sides, starts, *operands) -> the blocks from which that output block is
      computed.
    shapes: shapes of the operands.
  """
  dtype = engine.DTYPES[kernel.dtype]

  def step(acc, tile, at, red, *operands):
    return compute(*block_of(tile.output, at, *operands)).astype(acc.dtype)

  return engine.TiledProgram(lambda *operands: compute(*operands).astype(dtype),
                        engine.blocked(kernel, step, lambda acc, *_: acc),
                        engine.operands(kernel.dtype, *shapes))


def transpose(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Permutes the axes in the order of the digits in the family's name."""
  permutation = tuple(int(digit) for digit in kernel.family.rsplit("_", 1)[1])
  inverse = tuple(permutation.index(axis) for axis in range(len(permutation)))
  dtype = engine.DTYPES[kernel.dtype]

  def tiled(tile):
    sizes = tuple(tile.output[axis] for axis in inverse)

    def program(x):
      def block(index, result):
        at = engine.unravel(index, kernel.output_axes, tile.output)
        source = cut(x, tuple(at[axis] for axis in inverse), sizes)
        return engine.store(result, jnp.transpose(source, permutation), at, dtype)
      steps = engine.blocks(kernel.output_axes, tile.output)
      return engine.loaded(jax.lax.fori_loop(0, steps, block, engine.blank(kernel)), dtype)
    return program

  return engine.TiledProgram(lambda x: jnp.transpose(x, permutation), tiled,
                        engine.operands(kernel.dtype, kernel.shape))


def chain(kernel: geometry.Kernel) -> engine.TiledProgram:
  """A chain of operations on one operand: tanh and exp for floats, shifts and xor for integers."""
  def compute(x):
    x = widen(x)
    if kernel.dtype == "s32":
      return (x * 3 + (x >> 1)) ^ (x * x - 5)
    return jnp.tanh(x * 0.5 + 0.1) * x + jnp.exp(-jnp.square(x))
  return _pointwise(kernel, compute, lambda sides, at, x: (cut(x, at, sides),), [kernel.shape])


def gate(kernel: geometry.Kernel) -> engine.TiledProgram:
  """x * sigmoid(y) (integers: x times y's sign)."""
  def compute(x, y):
    x, y = widen(x), widen(y)
    return x * jnp.sign(y) if kernel.dtype == "s32" else x * jax.nn.sigmoid(y)
  return _pointwise(kernel, compute, lambda sides, at, x, y: (cut(x, at, sides), cut(y, at, sides)),
                    [kernel.shape] * 2)


def select(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Memory-bound arithmetic on two operands: where(x > y, x - y, x + y)."""
  def compute(x, y):
    x, y = widen(x), widen(y)
    return jnp.where(x > y, x - y, x + y)
  return _pointwise(kernel, compute, lambda sides, at, x, y: (cut(x, at, sides), cut(y, at, sides)),
                    [kernel.shape] * 2)


def broadcast(kernel: geometry.Kernel) -> engine.TiledProgram:
  """x[p, r, c] * column[c] + row[p, r], clipped."""
  planes, rows, columns = kernel.shape

  def compute(x, column, row):
    return jnp.clip(widen(x) * widen(column) + widen(row)[..., None], -4, 4)

  def block_of(sides, at, x, column, row):
    return cut(x, at, sides), cut(column, at[2:], sides[2:]), cut(row, at[:2], sides[:2])

  return _pointwise(kernel, compute, block_of, [kernel.shape, (columns,), (planes, rows)])


def _indices(rng: np.random.Generator, vocabulary: int, *shape: int) -> np.ndarray:
  return rng.integers(0, vocabulary, shape).astype(np.int32)


def _take(table: jax.Array, indices: jax.Array, axis: int) -> jax.Array:
  # The indices are in range by construction; "clip" avoids the code for indices out of range.
  return jnp.take(table, indices, axis=axis, mode="clip")


def gather_rows(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Rows of table[v, d] at index[n]; `gather_position` scales them and adds position[n, d]."""
  vocabulary, depth, tokens = kernel.shape
  dtype = engine.DTYPES[kernel.dtype]
  positions = kernel.family == "gather_position"

  def compute(table, index, *position):
    rows = _take(table, index, 0)
    return widen(rows) * 3 + widen(position[0]) if positions else rows

  def step(acc, tile, at, red, table, index, *position):
    (tn, td) = tile.output
    panel = cut(table, (0, at[1]), (vocabulary, td)) if td < depth else table
    parts = [cut(array, at, tile.output) for array in position]
    return compute(panel, cut(index, at[:1], (tn,)), *parts).astype(acc.dtype)

  def inputs(rng):
    more = [engine.draw(rng, (tokens, depth), kernel.dtype)] if positions else []
    return [engine.draw(rng, (vocabulary, depth), kernel.dtype),
            _indices(rng, vocabulary, tokens)] + more

  return engine.TiledProgram(lambda *operands: compute(*operands).astype(dtype),
                        engine.blocked(kernel, step, lambda acc, *_: acc), inputs)


def gather_columns(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Columns of x[r, v] at index[n]."""
  rows, vocabulary, tokens = kernel.shape
  dtype = engine.DTYPES[kernel.dtype]

  def step(acc, tile, at, red, x, index):
    tr, tn = tile.output
    return _take(cut(x, (at[0], 0), (tr, vocabulary)), cut(index, at[1:], (tn,)),
                 1).astype(acc.dtype)

  def inputs(rng):
    return [engine.draw(rng, (rows, vocabulary), kernel.dtype), _indices(rng, vocabulary, tokens)]

  return engine.TiledProgram(lambda x, index: _take(x, index, 1).astype(dtype),
                        engine.blocked(kernel, step, lambda acc, *_: acc), inputs)


def gather_bag(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Sums of rows of table[v, d] at index[bags, length]: an embedding bag."""
  vocabulary, depth, bags, length = kernel.shape
  dtype = engine.DTYPES[kernel.dtype]

  def compute(table, index):
    return widen(_take(table, index, 0)).sum(axis=1)

  def step(acc, tile, at, red, table, index):
    (tb, td), (tl,) = tile.output, tile.reduction
    panel = cut(table, (0, at[1]), (vocabulary, td)) if td < depth else table
    return acc + compute(panel, cut(index, (at[0], red[0]), (tb, tl)))

  def inputs(rng):
    return [engine.draw(rng, (vocabulary, depth), kernel.dtype),
            _indices(rng, vocabulary, bags, length)]

  return engine.TiledProgram(lambda table, index: compute(table, index).astype(dtype),
                        engine.blocked(kernel, step, lambda acc, *_: acc), inputs)


BUILDERS = {
    **dict.fromkeys(("transpose_10", "transpose_021", "transpose_102", "transpose_120",
                     "transpose_201", "transpose_210"), transpose),
    "elementwise_chain": chain,
    "elementwise_gate": gate,
    "elementwise_select": select,
    "elementwise_broadcast": broadcast,
    **dict.fromkeys(("gather_rows", "gather_position"), gather_rows),
    "gather_columns": gather_columns,
    "gather_bag": gather_bag,
}
