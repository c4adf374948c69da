"""Sums and differences of pairs: Hadamard and Haar transforms, a stage of an FFT, rotations."""

import math

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile.builders import engine

cut = engine.cut
widen = engine.widen


def _transform(x: jax.Array, axis: int) -> jax.Array:
  """The Walsh-Hadamard transform along an axis, whose size is a power of two."""
  shape, half = x.shape, 1
  while half < shape[axis]:
    pairs = x.reshape(shape[:axis] + (shape[axis] // (2 * half), 2, half) + shape[axis + 1:])
    low, high = (lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1))
    x = jnp.stack([low + high, low - high], axis=axis + 1).reshape(shape)
    half *= 2
  return x


def hadamard(kernel: geometry.Kernel) -> engine.TiledProgram:
  """The Walsh-Hadamard transform along the second axis of x[rows, size] or x[batch, size, columns].

  Where a tile cuts the transformed axis, each block reads the whole axis: it adds its parts with
  the signs of the last stages and transforms the sum.
  """
  size, dtype = kernel.shape[1], engine.DTYPES[kernel.dtype]

  def step(acc, tile, at, red, x):
    side = tile.output[1]
    whole = tile.output[:1] + (size,) + tile.output[2:]
    block = widen(cut(x, at[:1] + (0,) + at[2:], whole))
    if side < size:
      parts = jnp.arange(size // side, dtype=jnp.int32)
      odd = lax.population_count(parts & (at[1] // side)) % 2
      signs = (1 - 2 * odd).astype(block.dtype).reshape((-1, 1) + (1,) * len(at[2:]))
      split = block.reshape(whole[:1] + (size // side, side) + whole[2:])
      block = (split * signs).sum(axis=1)
    return _transform(block, 1)

  return engine.TiledProgram(lambda x: _transform(widen(x), 1).astype(dtype),
                             engine.blocked(kernel, step, lambda acc, *_: acc),
                             engine.operands(kernel.dtype, kernel.shape))


def fft_stage(kernel: geometry.Kernel) -> engine.TiledProgram:
  """The first stage of an FFT of x[part, half, batch, size]: parts are real and imaginary.

  The sum of the halves, and their difference times the twiddle factors. A tile of one part or one
  half reads everything and keeps what it needs.
  """
  (batch, size), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def compute(x, factors):
    x, factors = widen(x), widen(factors)
    total, difference = x[:, 0] + x[:, 1], x[:, 0] - x[:, 1]
    real = difference[0] * factors[0] - difference[1] * factors[1]
    imaginary = difference[0] * factors[1] + difference[1] * factors[0]
    return jnp.stack([total, jnp.stack([real, imaginary])], axis=1)

  def step(acc, tile, at, red, x, factors):
    tb, ts = tile.output[2:]
    both = compute(cut(x, (0, 0) + at[2:], (2, 2, tb, ts)), cut(factors, (0, at[3]), (2, ts)))
    return cut(both, at[:2] + (0, 0), tile.output)

  def inputs(rng):
    angles = np.arange(size) * (math.pi / size)
    factors = np.stack([np.cos(angles), -np.sin(angles)]).astype(np.float32).astype(dtype)
    return [engine.draw(rng, (2, 2, batch, size), kernel.dtype), factors]

  return engine.TiledProgram(lambda x, factors: compute(x, factors).astype(dtype),
                             engine.blocked(kernel, step, lambda acc, *_: acc), inputs)


def rotary(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Rotates the pairs of x[tokens, heads, 2, half] by angle[tokens, half].

  All heads share the angles, so a tile that cuts the heads computes sines and cosines repeatedly.
  """
  (tokens, heads, half), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def compute(x, angle):
    x, angle = widen(x), widen(angle)
    # The barrier keeps XLA from computing both for each head.
    cosine, sine = lax.optimization_barrier((jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]))
    first, second = x[:, :, 0], x[:, :, 1]
    return jnp.stack([first * cosine - second * sine, second * cosine + first * sine], axis=2)

  def step(acc, tile, at, red, x, angle):
    tt, th, _, td = tile.output
    both = compute(cut(x, (at[0], at[1], 0, at[3]), (tt, th, 2, td)),
                   cut(angle, (at[0], at[3]), (tt, td)))
    return cut(both, (0, 0, at[2], 0), tile.output)

  return engine.TiledProgram(lambda x, angle: compute(x, angle).astype(dtype),
                             engine.blocked(kernel, step, lambda acc, *_: acc),
                             engine.operands(kernel.dtype, (tokens, heads, 2, half),
                                             (tokens, half)))


def haar(kernel: geometry.Kernel) -> engine.TiledProgram:
  """One level of a Haar wavelet of x[2 rows, 2 columns]: four bands of [rows, columns]."""
  (rows, columns), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def compute(x):
    x = widen(x)
    a, b, c, d = x[0::2, 0::2], x[0::2, 1::2], x[1::2, 0::2], x[1::2, 1::2]
    bands = jnp.stack([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d])
    return bands if kernel.dtype == "s32" else bands * 0.5

  def step(acc, tile, at, red, x):
    _, tr, tc = tile.output
    bands = compute(cut(x, (2 * at[1], 2 * at[2]), (2 * tr, 2 * tc)))
    return cut(bands, (at[0], 0, 0), tile.output)

  return engine.TiledProgram(lambda x: compute(x).astype(dtype),
                             engine.blocked(kernel, step, lambda acc, *_: acc),
                             engine.operands(kernel.dtype, (2 * rows, 2 * columns)))


BUILDERS = {
    **dict.fromkeys(("butterfly_hadamard", "butterfly_hadamard_minor"), hadamard),
    "butterfly_fft": fft_stage,
    "butterfly_rotary": rotary,
    "butterfly_haar": haar,
}
