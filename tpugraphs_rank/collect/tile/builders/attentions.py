"""Fused attention: the scores of a block of keys are used at once and never stored."""

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

_LOWEST = -1e30  # Scores of keys that a query does not see.


def _start(shape: geometry.Sides) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Sum of values, running maximum of the scores, and sum of weights, before the first key."""
  return (jnp.zeros(shape, jnp.float32), jnp.full(shape[:-1], _LOWEST, jnp.float32),
          jnp.zeros(shape[:-1], jnp.float32))


def _fold(state: tuple[jax.Array, jax.Array, jax.Array], scores: jax.Array, values: jax.Array
          ) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Adds a block of keys to a softmax whose maximum is not yet known."""
  acc, top, total = state
  new = jnp.maximum(top, scores.max(axis=-1))
  correction = jnp.exp(top - new)
  weights = jnp.exp(scores - new[..., None])
  return (acc * correction[..., None] + jnp.matmul(weights, values), new,
          total * correction + weights.sum(axis=-1))


def _quotient(state: tuple[jax.Array, jax.Array, jax.Array], *_: Any) -> jax.Array:
  acc, _, total = state
  return acc / total[..., None]


def _scores(queries: jax.Array, keys: jax.Array) -> jax.Array:
  """queries[..., s, d] times keys[..., t, d], scaled."""
  product = jnp.einsum("...sd,...td->...st", queries, keys, preferred_element_type=jnp.float32)
  return product * queries.shape[-1] ** -0.5


def _distances(start: Any, queries: int, first: Any, keys: int) -> jax.Array:
  """Position of each query minus position of each key."""
  return engine.positions(start, queries)[:, None] - engine.positions(first, keys)[None, :]


def _attention(kernel: geometry.Kernel, keys_axis: int,
               adjust: Callable[..., jax.Array],
               extra: Callable[[np.random.Generator], list[np.ndarray]],
               span: Callable[..., tuple[Any, Any]] | None = None) -> engine.TiledProgram:
  """Attention of several heads.

  Args:
    kernel: the kernel; its output axes are heads, queries and depth.
    keys_axis: number of the keys in the shape.
    adjust: (scores[h, s, t], first head, first query, first key, *further operands) -> scores,
      with a bias or a mask.
    extra: rng -> operands after queries, keys and values.
    span: as in `engine.folded`.
  """
  heads, queries, depth = kernel.output_axes
  keys = kernel.shape[keys_axis]
  dtype = engine.DTYPES[kernel.dtype]

  def reference(q, k, v, *more):
    weights = jax.nn.softmax(adjust(_scores(q, k), 0, 0, 0, *more), axis=-1)
    return jnp.matmul(weights, widen(v)).astype(dtype)

  def step(state, tile, at, red, q, k, v, *more):
    (th, ts, td), (tt,) = tile.output, tile.reduction
    # Every tile of the depth computes the scores again: they need the whole depth.
    scores = _scores(cut(q, (at[0], at[1], 0), (th, ts, depth)),
                     cut(k, (at[0], red[0], 0), (th, tt, depth)))
    return _fold(state, adjust(scores, at[0], at[1], red[0], *more),
                 widen(cut(v, (at[0], red[0], at[2]), (th, tt, td))))

  def inputs(rng):
    shapes = ((heads, queries, depth), (heads, keys, depth), (heads, keys, depth))
    return [engine.draw(rng, shape, kernel.dtype) for shape in shapes] + extra(rng)

  return engine.TiledProgram(
      reference, engine.folded(kernel, lambda tile, *_: _start(tile.output), step, _quotient, span),
      inputs)


def flash_attention(kernel: geometry.Kernel) -> engine.TiledProgram:
  """softmax(queries keys / sqrt(depth)) values, with all keys visible."""
  return _attention(kernel, 2, lambda scores, *_: scores, lambda rng: [])


def masked_attention(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Cross-attention: mask[s, t], shared by all heads, says which keys a query sees."""
  _, queries, keys, _ = kernel.shape

  def adjust(scores, head, query, key, mask):
    return jnp.where(engine.part(mask, (query, key), scores.shape[1:]), scores, _LOWEST)

  def extra(rng):
    mask = rng.random((queries, keys)) < 0.7
    mask[:, 0] = True  # A query that sees no key has no defined result.
    return [mask]

  return _attention(kernel, 2, adjust, extra)


def alibi_attention(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Causal attention; slope[h] times the distance is subtracted from the scores (ALiBi)."""
  heads = kernel.shape[0]

  def adjust(scores, head, query, key, slopes):
    distance = _distances(query, scores.shape[1], key, scores.shape[2])
    slope = engine.part(slopes, (head,), scores.shape[:1])[:, None, None]
    return jnp.where(distance >= 0, scores - slope * distance, _LOWEST)

  def span(tile, at, *_):
    return 0, (at[1] + tile.output[1] + tile.reduction[0] - 1) // tile.reduction[0]

  def extra(rng):
    return [rng.uniform(0.01, 0.5, heads).astype(np.float32)]

  return _attention(kernel, 1, adjust, extra, span)


def window_attention(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Each query sees itself and the `window - 1` keys before it; other blocks are skipped."""
  window = kernel.shape[3]

  def adjust(scores, head, query, key):
    distance = _distances(query, scores.shape[1], key, scores.shape[2])
    return jnp.where((distance >= 0) & (distance < window), scores, _LOWEST)

  def span(tile, at, *_):
    side = tile.reduction[0]
    return (jnp.maximum(at[1] - window + 1, 0) // side,
            (at[1] + tile.output[1] + side - 1) // side)

  return _attention(kernel, 1, adjust, lambda rng: [], span)


def grouped_attention(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Grouped-query attention: the queries[h, g, s, d] of a group share keys[h, t, d] and values."""
  (heads, group, queries, keys, depth), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def reference(q, k, v):
    scores = jnp.einsum("hgsd,htd->hgst", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores * depth ** -0.5, axis=-1)
    return jnp.einsum("hgst,htd->hgsd", weights, widen(v)).astype(dtype)

  # The queries of a group are rows of one product, so that a step reads its keys once.
  def start(tile, *_):
    th, tg, ts, td = tile.output
    return _start((th, tg * ts, td))

  def step(state, tile, at, red, q, k, v):
    (th, tg, ts, td), (tt,) = tile.output, tile.reduction
    rows = cut(q, (*at[:3], 0), (th, tg, ts, depth)).reshape(th, tg * ts, depth)
    return _fold(state, _scores(rows, cut(k, (at[0], red[0], 0), (th, tt, depth))),
                 widen(cut(v, (at[0], red[0], at[3]), (th, tt, td))))

  def finish(state, tile, *_):
    return _quotient(state).reshape(tile.output)

  return engine.TiledProgram(
      reference, engine.folded(kernel, start, step, finish),
      engine.operands(kernel.dtype, (heads, group, queries, depth), (heads, keys, depth),
                      (heads, keys, depth)))


def _features(x: jax.Array) -> jax.Array:
  """A positive feature map: 1 + elu(x)."""
  x = widen(x)
  return jnp.where(x > 0, x + 1, jnp.exp(jnp.minimum(x, 0)))


def linear_attention(kernel: geometry.Kernel) -> engine.TiledProgram:
  """Causal attention with products of features as weights.

  The tiled program carries the sum of features times values from one block of queries to the next;
  within a block it computes all pairs.
  """
  (heads, length, depth, width), dtype = kernel.shape, engine.DTYPES[kernel.dtype]

  def pairs(q, k):
    weights = jnp.einsum("hsf,htf->hst", q, k)
    return jnp.where(_distances(0, q.shape[1], 0, k.shape[1]) >= 0, weights, 0)

  def reference(q, k, v):
    weights = pairs(_features(q), _features(k))
    return (jnp.matmul(weights, widen(v)) / weights.sum(axis=-1, keepdims=True)).astype(dtype)

  def tiled(tile):
    th, ts, td = tile.output
    outer = ((heads, depth), (th, td))

    def program(q, k, v):
      def panel(index, result):
        head, column = engine.unravel(index, *outer)

        def chunk(number, carried):
          result, sums, norms = carried
          row = number * ts
          query = _features(cut(q, (head, row, 0), (th, ts, width)))
          key = _features(cut(k, (head, row, 0), (th, ts, width)))
          value = widen(cut(v, (head, row, column), (th, ts, td)))
          weights = pairs(query, key)
          acc = jnp.matmul(weights, value) + jnp.matmul(query, sums)
          total = weights.sum(axis=-1) + jnp.einsum("hsf,hf->hs", query, norms)
          result = engine.store(result, acc / total[..., None], (head, row, column), dtype)
          return (result, sums + jnp.einsum("htf,htd->hfd", key, value), norms + key.sum(axis=1))

        sums = jnp.zeros((th, width, td), jnp.float32)
        norms = jnp.zeros((th, width), jnp.float32)
        return lax.fori_loop(0, length // ts, chunk, (result, sums, norms))[0]

      result = lax.fori_loop(0, engine.blocks(*outer), panel, engine.blank(kernel))
      return engine.loaded(result, dtype)
    return program

  return engine.TiledProgram(
      reference, tiled,
      engine.operands(kernel.dtype, (heads, length, width), (heads, length, width),
                      (heads, length, depth)))


BUILDERS = {
    "flash_attention": flash_attention,
    "masked_attention": masked_attention,
    "alibi_attention": alibi_attention,
    "window_attention": window_attention,
    "grouped_attention": grouped_attention,
    "linear_attention": linear_attention,
}
