"""Stencils: each element of the result depends on its neighbours, so blocks have halos."""

from collections.abc import Callable

import jax
from jax import lax
import jax.numpy as jnp

from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile.builders import engine

cut = engine.cut
widen = engine.widen


def _local(kernel: geometry.Kernel, compute: Callable[..., jax.Array], halo: tuple[int, ...],
           others: int = 0) -> engine.TiledProgram:
  """A kernel whose first operand is larger than its result, by the halo.

  Args:
    kernel: the kernel.
    compute: operands, in float32 rather than bfloat16 -> result; runs on operands or on blocks.
    halo: by how much the first operand exceeds the result along each axis.
    others: number of further operands; they have the shape of the result.
  """
  dtype, sizes = engine.DTYPES[kernel.dtype], kernel.output_axes

  def larger(sides):
    return tuple(side + extra for side, extra in zip(sides, halo))

  def step(acc, tile, at, red, x, *more):
    parts = [widen(cut(array, at, tile.output)) for array in more]
    return compute(widen(cut(x, at, larger(tile.output))), *parts)

  return engine.TiledProgram(
      lambda *operands: compute(*map(widen, operands)).astype(dtype),
      engine.blocked(kernel, step, lambda acc, *_: acc),
      engine.operands(kernel.dtype, larger(sizes), *[sizes] * others))


def _cross(x: jax.Array) -> jax.Array:
  """Sum of the four neighbours minus four times the centre; the result is smaller by 2."""
  return x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:] - 4 * x[1:-1, 1:-1]


def laplacian(kernel: geometry.Kernel) -> engine.TiledProgram:
  """The residual of a Poisson equation: source minus the five-point Laplacian."""
  return _local(kernel, lambda x, source: source - _cross(x), (2, 2), others=1)


def blur(kernel: geometry.Kernel) -> engine.TiledProgram:
  """A 3 x 3 binomial blur of x[rows, columns, channels]; the border is padded with zeros."""
  dtype = engine.DTYPES[kernel.dtype]

  def pad(x):
    return jnp.pad(x, ((1, 1), (1, 1), (0, 0)))

  def compute(x):
    x = widen(x)
    x = x[:-2] + 2 * x[1:-1] + x[2:]
    x = x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]
    return x >> 4 if kernel.dtype == "s32" else x / 16

  def step(acc, tile, at, red, x):
    tr, tc, tf = tile.output
    return compute(cut(x, at, (tr + 2, tc + 2, tf)))

  return engine.TiledProgram(
      lambda x: compute(pad(x)).astype(dtype),
      engine.blocked(kernel, step, lambda acc, *_: acc, prepare=lambda x: (pad(x),)),
      engine.operands(kernel.dtype, kernel.shape))


def heat(kernel: geometry.Kernel) -> engine.TiledProgram:
  """A time step of the heat equation in three dimensions: seven points."""
  def compute(x):
    centre = x[1:-1, 1:-1, 1:-1]
    around = (x[:-2, 1:-1, 1:-1] + x[2:, 1:-1, 1:-1] + x[1:-1, :-2, 1:-1] + x[1:-1, 2:, 1:-1]
              + x[1:-1, 1:-1, :-2] + x[1:-1, 1:-1, 2:])
    return centre + (around - 6 * centre) * 0.125
  return _local(kernel, compute, (2, 2, 2))


def two_steps(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Two time steps of diffusion with a reaction. A block computes the first step on its halo too.
  """
  def advance(x):
    return x[1:-1, 1:-1] + 0.1 * _cross(x) + 0.2 * jnp.tanh(x[1:-1, 1:-1])
  return _local(kernel, lambda x: advance(advance(x)), (4, 4))


def filter_rows(kernel: geometry.Kernel) -> engine.TiledProgram:
  """A filter with many taps along the rows of x[rows + taps - 1, columns].

  The taps are a reduction axis: a block of taps reads the rows of the block and the taps' halo.
  """
  (rows, columns, taps), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def compute(x, weights):
    count = x.shape[0] - weights.shape[0] + 1
    x, weights = widen(x), widen(weights)
    total = x[:count] * weights[0]
    for tap in range(1, weights.shape[0]):
      total = total + x[tap:tap + count] * weights[tap]
    return total

  def step(acc, tile, at, red, x, weights):
    (tr, tc), (tk,) = tile.output, tile.reduction
    block = cut(x, (at[0] + red[0], at[1]), (tr + tk - 1, tc))
    return acc + compute(block, cut(weights, red, (tk,)))

  return engine.TiledProgram(lambda x, weights: compute(x, weights).astype(dtype),
                             engine.blocked(kernel, step, lambda acc, *_: acc),
                             engine.operands(kernel.dtype, (rows + taps - 1, columns), (taps,)))


def upwind(kernel: geometry.Kernel) -> engine.TiledProgram:
  """A step of upwind advection on a periodic grid, with a field of velocities for each axis."""
  dtype = engine.DTYPES[kernel.dtype]

  def compute(centre, above, below, left, right, down, across):
    step = (jnp.maximum(down, 0) * (centre - above) + jnp.minimum(down, 0) * (below - centre)
            + jnp.maximum(across, 0) * (centre - left) + jnp.minimum(across, 0) * (right - centre))
    return centre - 0.1 * step

  def reference(x, down, across):
    x, down, across = widen(x), widen(down), widen(across)
    return compute(x, jnp.roll(x, 1, 0), jnp.roll(x, -1, 0), jnp.roll(x, 1, 1),
                   jnp.roll(x, -1, 1), down, across).astype(dtype)

  def prepare(x, down, across):
    return jnp.pad(x, 1, mode="wrap"), down, across

  def step(acc, tile, at, red, x, down, across):
    tr, tc = tile.output
    x = widen(cut(x, at, (tr + 2, tc + 2)))
    return compute(x[1:-1, 1:-1], x[:-2, 1:-1], x[2:, 1:-1], x[1:-1, :-2], x[1:-1, 2:],
                   widen(cut(down, at, tile.output)), widen(cut(across, at, tile.output)))

  return engine.TiledProgram(
      reference, engine.blocked(kernel, step, lambda acc, *_: acc, prepare=prepare),
      engine.operands(kernel.dtype, *[kernel.shape] * 3))


_STRIDES = {"stencil_pool": 1, "stencil_pool_strided": 2}


def pool(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Maxima of 3 x 3 windows of x[batch, rows', columns', features], with the family's stride."""
  (n, h, w, c), dtype = kernel.shape, engine.DTYPES[kernel.dtype]
  stride = _STRIDES[kernel.family]

  def span(side):
    return (side - 1) * stride + 3

  def reference(x):
    lowest = -jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min
    return lax.reduce_window(x, jnp.asarray(lowest, dtype), lax.max, (1, 3, 3, 1),
                             (1, stride, stride, 1), "VALID")

  def along(x, axis):
    """Maxima of windows along one axis.

    Shifted copies and comparisons, because XLA's windows and its maximum, which has a rule for
    NaNs, use no vectors.
    """
    last = x.shape[axis] - 2
    highest = lax.slice_in_dim(x, 0, last, stride, axis)
    for i in (1, 2):
      other = lax.slice_in_dim(x, i, last + i, stride, axis)
      highest = jnp.where(highest < other, other, highest)
    return highest

  def step(acc, tile, at, red, x):
    tn, th, tw, tc = tile.output
    block = widen(cut(x, (at[0], at[1] * stride, at[2] * stride, at[3]),
                      (tn, span(th), span(tw), tc)))
    return along(along(block, 1), 2)

  return engine.TiledProgram(reference, engine.blocked(kernel, step, lambda acc, *_: acc),
                             engine.operands(kernel.dtype, (n, span(h), span(w), c)))


BUILDERS = {
    "stencil_laplacian": laplacian,
    "stencil_blur": blur,
    "stencil_heat": heat,
    "stencil_two_steps": two_steps,
    "stencil_filter": filter_rows,
    "stencil_upwind": upwind,
    **dict.fromkeys(_STRIDES, pool),
}
