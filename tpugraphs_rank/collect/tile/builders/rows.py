"""Reductions along different axes, and row-wise normalisations."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile.builders import engine

cut = engine.cut
widen = engine.widen

# family -> (reduced axes of the operand, map before, reduction, combination of partial results,
# initial value, map after)
_REDUCTIONS: dict[str, tuple[tuple[int, ...], Any, Any, Any, float, Any]] = {
    "reduce_sum_minor": ((1,), lambda x: x, jnp.sum, jnp.add, 0, lambda x: x),
    "reduce_max_minor": ((1,), lambda x: x, jnp.max, jnp.maximum, -1e9, lambda x: x),
    "reduce_logsumexp_minor": ((1,), jnp.exp, jnp.sum, jnp.add, 0, jnp.log),
    "reduce_sum_major": ((0,), lambda x: x, jnp.sum, jnp.add, 0, lambda x: x),
    "reduce_norm_major": ((0,), jnp.square, jnp.sum, jnp.add, 0, jnp.sqrt),
    "reduce_sum_middle": ((1,), lambda x: x, jnp.sum, jnp.add, 0, lambda x: x),
    "reduce_sum_outer": ((0, 2), lambda x: x, jnp.sum, jnp.add, 0, lambda x: x),
}


def reduction(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Reduces one operand along the family's axes."""
  axes, before, reducer, join, initial, after = _REDUCTIONS[kernel.family]
  kept = tuple(axis for axis in range(len(kernel.shape)) if axis not in axes)
  dtype = engine.DTYPES[kernel.dtype]

  def spread(outputs, reductions):
    """The values of output and reduction axes in the order of the operand's axes."""
    parts = dict(zip(kept, outputs)) | dict(zip(axes, reductions))
    return tuple(parts[axis] for axis in range(len(kernel.shape)))

  def reference(x):
    return after(reducer(before(widen(x)), axis=axes)).astype(dtype)

  def step(acc, tile, at, red, x):
    block = cut(x, spread(at, red), spread(tile.output, tile.reduction))
    return join(acc, reducer(before(widen(block)), axis=axes))

  return engine.TiledProgram(
      reference, engine.blocked(kernel, step, lambda acc, *_: after(acc), initial=initial),
      engine.operands(kernel.dtype, kernel.shape))


def _normalise(kernel: geometry.Kernel, initial: tuple[float, ...],
               fold: Callable[..., tuple[jax.Array, ...]],
               write: Callable[..., jax.Array], weights: int,
               reference: Callable[..., jax.Array]) -> engine.TiledProgram:
  """Statistics of each row over column blocks (the reduction tile), then the rows, block by block.

  Args:
    kernel: the kernel.
    initial: initial value of each statistic; every row has one number of each.
    fold: (statistics, block[rows, columns]) -> statistics.
    write: (statistics, block, *weight blocks) -> normalised block.
    weights: number of vectors of length `columns` that follow the first operand.
    reference: the untiled computation.
  """
  rows, columns = kernel.shape
  dtype = engine.DTYPES[kernel.dtype]

  def tiled(tile):
    (tr, tc), (tk,) = tile.output, tile.reduction

    def program(x, *vectors):
      def row_block(index, result):
        row = index * tr

        def gather(number, statistics):
          return fold(statistics, widen(cut(x, (row, number * tk), (tr, tk))))

        start = tuple(jnp.full((tr, 1), value, jnp.float32) for value in initial)
        statistics = lax.fori_loop(0, columns // tk, gather, start)

        def column_block(number, result):
          column = number * tc
          parts = [widen(cut(vector, (column,), (tc,))) for vector in vectors]
          done = write(statistics, widen(cut(x, (row, column), (tr, tc))), *parts)
          return engine.store(result, done, (row, column), dtype)

        return lax.fori_loop(0, columns // tc, column_block, result)
      return engine.loaded(lax.fori_loop(0, rows // tr, row_block, engine.blank(kernel)), dtype)
    return program

  shapes = [(rows, columns)] + [(columns,)] * weights
  return engine.TiledProgram(lambda x, *vectors: reference(x, *vectors).astype(dtype), tiled,
                        engine.operands(kernel.dtype, *shapes))


def _fold_softmax(statistics, block):
  """Running maximum and the sum of exponentials relative to it."""
  top, total = statistics
  new = jnp.maximum(top, block.max(axis=1, keepdims=True))
  return new, total * jnp.exp(top - new) + jnp.exp(block - new).sum(axis=1, keepdims=True)


def softmax(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Softmax along the rows, or its logarithm."""
  log = kernel.family == "log_softmax"

  def write(statistics, block):
    top, total = statistics
    return block - top - jnp.log(total) if log else jnp.exp(block - top) / total

  function = jax.nn.log_softmax if log else jax.nn.softmax
  return _normalise(kernel, (-1e30, 0.0), _fold_softmax, write, 0,
                    lambda x: function(widen(x), axis=-1))


def layer_norm(kernel: geometry.Kernel) -> engine.TiledProgram:
  """(x - mean) / deviation * scale + shift along the rows."""
  columns = kernel.shape[1]

  def fold(statistics, block):
    total, squares = statistics
    return (total + block.sum(axis=1, keepdims=True),
            squares + jnp.square(block).sum(axis=1, keepdims=True))

  def write(statistics, block, scale, shift):
    mean = statistics[0] / columns
    variance = statistics[1] / columns - jnp.square(mean)
    return (block - mean) * lax.rsqrt(variance + 1e-5) * scale + shift

  def reference(x, scale, shift):
    x = widen(x)
    mean = x.mean(axis=1, keepdims=True)
    variance = jnp.square(x - mean).mean(axis=1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5) * widen(scale) + widen(shift)

  return _normalise(kernel, (0.0, 0.0), fold, write, 2, reference)


def rms_norm(kernel: geometry.Kernel) -> engine.TiledProgram:
  """x / root mean square * scale along the rows."""
  columns = kernel.shape[1]

  def reference(x, scale):
    x = widen(x)
    return x * lax.rsqrt(jnp.square(x).mean(axis=1, keepdims=True) + 1e-5) * widen(scale)

  return _normalise(
      kernel, (0.0,),
      lambda statistics, block: (statistics[0] + jnp.square(block).sum(axis=1, keepdims=True),),
      lambda statistics, block, scale: block * lax.rsqrt(statistics[0] / columns + 1e-5) * scale,
      1, reference)


BUILDERS = {
    **dict.fromkeys(_REDUCTIONS, reduction),
    **dict.fromkeys(("softmax", "log_softmax"), softmax),
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
}
