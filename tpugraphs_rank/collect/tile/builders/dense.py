"""Matrix products, attention products, convolutions and pairwise distances."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile.builders import engine

cut = engine.cut
widen = engine.widen

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "matmul_bias_relu": lambda x: jnp.maximum(x, 0),
    "matmul_bias_gelu": lambda x: x * (1 + jnp.tanh(0.7978846 * (x + 0.044715 * x * x * x))) / 2,
}


def _dot(kernel: geometry.Kernel, a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.matmul(a, b, preferred_element_type=engine.accumulator(kernel.dtype))


def matmul(kernel: geometry.Kernel) -> engine.TiledProgram:
  """a[m, k] @ b[k, n], with a bias and an activation if the family has them."""
  (m, n, k), dtype = kernel.shape, engine.DTYPES[kernel.dtype]
  activation = _ACTIVATIONS.get(kernel.family)

  def reference(a, b, *bias):
    out = _dot(kernel, a, b)
    if activation is not None:
      out = activation(out + widen(bias[0]))
    return out.astype(dtype)

  def step(acc, tile, at, red, a, b, *bias):
    (tm, tn), (tk,) = tile.output, tile.reduction
    return acc + _dot(kernel, cut(a, (at[0], red[0]), (tm, tk)), cut(b, (red[0], at[1]), (tk, tn)))

  def finish(acc, tile, at, a, b, *bias):
    if activation is not None:
      acc = activation(acc + widen(cut(bias[0], at[1:], tile.output[1:])))
    return acc

  shapes = ((m, k), (k, n)) + (((n,),) if activation else ())
  return engine.TiledProgram(reference, engine.blocked(kernel, step, finish),
                        engine.operands(kernel.dtype, *shapes))


def matmul_batched(kernel: geometry.Kernel) -> engine.TiledProgram:
  """a[b, m, k] @ b[b, k, n]."""
  (batch, m, n, k), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def reference(a, b):
    return _dot(kernel, a, b).astype(dtype)

  def step(acc, tile, at, red, a, b):
    (tb, tm, tn), (tk,) = tile.output, tile.reduction
    return acc + _dot(kernel, cut(a, (at[0], at[1], red[0]), (tb, tm, tk)),
                      cut(b, (at[0], red[0], at[2]), (tb, tk, tn)))

  return engine.TiledProgram(reference, engine.blocked(kernel, step, lambda acc, *_: acc),
                        engine.operands(kernel.dtype, (batch, m, k), (batch, k, n)))


def attention_scores(kernel: geometry.Kernel) -> engine.TiledProgram:
  """queries[h, s, d] times keys[h, t, d], scaled, plus a bias[s, t] shared by all heads."""
  (h, s, t, d), dtype = kernel.shape, engine.DTYPES[kernel.dtype]
  scale = d ** -0.5

  def product(queries, keys):
    return jnp.einsum("hsd,htd->hst", queries, keys, preferred_element_type=jnp.float32)

  def reference(queries, keys, bias):
    return (product(queries, keys) * scale + widen(bias)).astype(dtype)

  def step(acc, tile, at, red, queries, keys, bias):
    (th, ts, tt), (td,) = tile.output, tile.reduction
    return acc + product(cut(queries, (at[0], at[1], red[0]), (th, ts, td)),
                         cut(keys, (at[0], at[2], red[0]), (th, tt, td)))

  def finish(acc, tile, at, queries, keys, bias):
    return acc * scale + widen(cut(bias, at[1:], tile.output[1:]))

  return engine.TiledProgram(reference, engine.blocked(kernel, step, finish),
                        engine.operands(kernel.dtype, (h, s, d), (h, t, d), (s, t)))


def attention_values(kernel: geometry.Kernel) -> engine.TiledProgram:
  """exp(scores[h, s, t] - top[h, s]) @ values[h, t, d]; each tile of d recomputes the exponentials.
  """
  (h, s, d, t), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def product(scores, top, values):
    weights = jnp.exp(widen(scores) - widen(top)[..., None]).astype(dtype)
    return jnp.matmul(weights, values, preferred_element_type=jnp.float32)

  def reference(scores, top, values):
    return product(scores, top, values).astype(dtype)

  def step(acc, tile, at, red, scores, top, values):
    (th, ts, td), (tt,) = tile.output, tile.reduction
    return acc + product(cut(scores, (at[0], at[1], red[0]), (th, ts, tt)),
                         cut(top, at[:2], (th, ts)),
                         cut(values, (at[0], red[0], at[2]), (th, tt, td)))

  def inputs(rng):
    scores = engine.draw(rng, (h, s, t), kernel.dtype)
    return [scores, scores.max(axis=-1), engine.draw(rng, (h, t, d), kernel.dtype)]

  return engine.TiledProgram(reference, engine.blocked(kernel, step, lambda acc, *_: acc), inputs)


_CONVOLUTIONS: dict[str, tuple[int, int]] = {"conv_1x1": (1, 1), "conv_3x3": (3, 1),
                                             "conv_strided": (3, 2), "conv_im2col": (3, 1)}
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolution(kernel: geometry.Kernel) -> engine.TiledProgram:
  """x[n, h', w', ci] with w[kh, kw, ci, co]: direct, or as patches times a matrix (im2col).

  `conv_3x3` pads its input (SAME); strided and im2col convolutions read a larger input (VALID).
  """
  (n, h, w, ci, co), dtype = kernel.shape, engine.DTYPES[kernel.dtype]
  size, stride = _CONVOLUTIONS[kernel.family]
  same = kernel.family == "conv_3x3"
  span_h, span_w = (h - 1) * stride + size, (w - 1) * stride + size
  input_shape = (n, h, w, ci) if same else (n, span_h, span_w, ci)

  def convolve(x, weights, padding):
    if kernel.family != "conv_im2col":
      return lax.conv_general_dilated(x, weights, (stride, stride), padding,
                                      dimension_numbers=_LAYOUT,
                                      preferred_element_type=jnp.float32)
    rows, columns = x.shape[1] - size + 1, x.shape[2] - size + 1
    shifted = [x[:, i:i + rows, j:j + columns, :] for i in range(size) for j in range(size)]
    patches = jnp.concatenate(shifted, axis=-1)
    matrix = weights.reshape(size * size * weights.shape[2], weights.shape[3])
    return jnp.matmul(patches, matrix, preferred_element_type=jnp.float32)

  def reference(x, weights):
    return convolve(x, weights, "SAME" if same else "VALID").astype(dtype)

  def prepare(x, weights):
    return (jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))) if same else x), weights

  def step(acc, tile, at, red, x, weights):
    (tn, th, tw, tco), (tci,) = tile.output, tile.reduction
    halo = cut(x, (at[0], at[1] * stride, at[2] * stride, red[0]),
               (tn, (th - 1) * stride + size, (tw - 1) * stride + size, tci))
    return acc + convolve(halo, cut(weights, (0, 0, red[0], at[3]), (size, size, tci, tco)),
                          "VALID")

  return engine.TiledProgram(
      reference, engine.blocked(kernel, step, lambda acc, *_: acc, prepare=prepare),
      engine.operands(kernel.dtype, input_shape, (size, size, ci, co)))


def depthwise(kernel: geometry.Kernel) -> engine.TiledProgram:
  """A 3x3 convolution of each feature with its own filter, as a grouped convolution (VALID)."""
  (n, h, w, c), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def convolve(x, weights):
    return lax.conv_general_dilated(x, weights, (1, 1), "VALID", dimension_numbers=_LAYOUT,
                                    feature_group_count=x.shape[-1],
                                    preferred_element_type=jnp.float32)

  def step(acc, tile, at, red, x, weights):
    tn, th, tw, tc = tile.output
    return convolve(cut(x, at, (tn, th + 2, tw + 2, tc)),
                    cut(weights, (0, 0, 0, at[3]), (3, 3, 1, tc)))

  return engine.TiledProgram(
      lambda x, weights: convolve(x, weights).astype(dtype),
      engine.blocked(kernel, step, lambda acc, *_: acc),
      engine.operands(kernel.dtype, (n, h + 2, w + 2, c), (3, 3, 1, c)))


# family -> (difference -> term, reduction over the last axis, combination of partial results, final
# function)
_DISTANCES: dict[str, tuple[Any, Any, Any, Any]] = {
    "pairwise_l2": (lambda x, y: jnp.square(x - y), jnp.sum, jnp.add, lambda d: d),
    "pairwise_l1": (lambda x, y: jnp.abs(x - y), jnp.sum, jnp.add, lambda d: d),
    "pairwise_linf": (lambda x, y: jnp.abs(x - y), jnp.max, jnp.maximum, lambda d: d),
    "pairwise_rbf": (lambda x, y: jnp.square(x - y), jnp.sum, jnp.add,
                     lambda d: jnp.exp(d * -0.01)),
    "pairwise_hamming": (lambda x, y: (x != y).astype(jnp.int32), jnp.sum, jnp.add, lambda d: d),
}


def pairwise(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Distances between the rows of x[n, d] and the rows of y[m, d], by broadcasting."""
  (n, m, d), dtype = kernel.shape, engine.DTYPES[kernel.dtype]
  term, reducer, join, last = _DISTANCES[kernel.family]

  def partial(x, y):
    return reducer(term(widen(x)[:, None, :], widen(y)[None, :, :]), axis=-1)

  def step(acc, tile, at, red, x, y):
    (tn, tm), (td,) = tile.output, tile.reduction
    return join(acc, partial(cut(x, (at[0], red[0]), (tn, td)), cut(y, (at[1], red[0]), (tm, td))))

  return engine.TiledProgram(
      lambda x, y: last(partial(x, y)).astype(dtype),
      engine.blocked(kernel, step, lambda acc, *_: last(acc)),
      engine.operands(kernel.dtype, (n, d), (m, d)))


BUILDERS = {
    **dict.fromkeys(("matmul", "matmul_skinny", "matmul_bias_relu", "matmul_bias_gelu"), matmul),
    "matmul_batched": matmul_batched,
    "attention_scores": attention_scores,
    "attention_values": attention_values,
    **dict.fromkeys(_CONVOLUTIONS, convolution),
    "conv_depthwise": depthwise,
    **dict.fromkeys(_DISTANCES, pairwise),
}
