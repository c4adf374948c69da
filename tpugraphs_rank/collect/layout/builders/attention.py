"""Attention families: transformer encoder and decoder blocks and their relatives."""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp
import numpy as np

from tpugraphs_rank.collect.layout.builders import blocks


def _self_attention(w: blocks.Weights, x: jax.Array, heads: int, causal: bool = False
                    ) -> jax.Array:
  query, key, value = (blocks.split_heads(blocks.linear(w, x, x.shape[-1]), heads)
                       for _ in range(3))
  return blocks.linear(w, blocks.merge_heads(blocks.attend(query, key, value, causal)),
                       x.shape[-1])


def _encoder(batch: int, length: int, width: int, heads: int, layers: int) -> blocks.Model:
  """Self-attention and feed-forward blocks, each after a normalisation."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      x = x + _self_attention(w, blocks.layer_norm(w, x), heads)
      x = x + blocks.feed_forward(w, blocks.layer_norm(w, x))
    return blocks.layer_norm(w, x)
  return blocks.Model(forward, blocks.normal_inputs((batch, length, width)))


def _decoder(batch: int, length: int, memory: int, width: int, heads: int) -> blocks.Model:
  """Causal self-attention, attention to an encoder's output, feed-forward, each then normalised."""
  def forward(w: blocks.Weights, x: jax.Array, encoded: jax.Array) -> jax.Array:
    x = blocks.layer_norm(w, x + _self_attention(w, x, heads, causal=True))
    query = blocks.split_heads(blocks.linear(w, x, width), heads)
    both = blocks.linear(w, encoded, 2 * width)
    key, value = (blocks.split_heads(part, heads) for part in jnp.split(both, 2, axis=-1))
    y = blocks.linear(w, blocks.merge_heads(blocks.attend(query, key, value)), width)
    x = blocks.layer_norm(w, x + y)
    return blocks.layer_norm(w, x + blocks.feed_forward(w, x))
  return blocks.Model(forward, blocks.normal_inputs(
      (batch, length, width), (batch, memory, width)))


def _vision_transformer(batch: int, side: int, patch: int, width: int, heads: int
                        ) -> blocks.Model:
  """Patches of an image, one encoder block, and the mean over all patches."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    count = side // patch
    x = x.reshape(batch, count, patch, count, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    x = blocks.linear(w, x.reshape(batch, count * count, patch * patch * 3), width)
    x = x + _self_attention(w, blocks.layer_norm(w, x), heads)
    x = x + blocks.feed_forward(w, blocks.layer_norm(w, x))
    return blocks.linear(w, x.mean(1), 10)
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 3)))


def _multi_query(batch: int, length: int, width: int, heads: int, layers: int) -> blocks.Model:
  """Causal attention with one key and value for all heads, gated feed-forward, RMS norms."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    size = width // heads
    for _ in range(layers):
      y = blocks.rms_norm(w, x)
      query = blocks.split_heads(y @ w.kernel(width, width), heads)
      key, value = ((y @ w.kernel(width, size))[:, None] for _ in range(2))
      key, value = (jnp.broadcast_to(part, query.shape) for part in (key, value))
      y = blocks.merge_heads(blocks.attend(query, key, value, causal=True))
      x = x + y @ w.kernel(width, width)
      y = blocks.rms_norm(w, x)
      y = jax.nn.silu(y @ w.kernel(width, 2 * width)) * (y @ w.kernel(width, 2 * width))
      x = x + y @ w.kernel(2 * width, width)
    return blocks.rms_norm(w, x)
  return blocks.Model(forward, blocks.normal_inputs((batch, length, width)))


def _linear_attention(batch: int, length: int, width: int, heads: int, layers: int
                      ) -> blocks.Model:
  """Attention without softmax; keys and values are multiplied first."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      y = blocks.layer_norm(w, x)
      query, key, value = (blocks.split_heads(blocks.linear(w, y, width), heads)
                           for _ in range(3))
      query, key = jax.nn.elu(query) + 1, jax.nn.elu(key) + 1
      states = jnp.einsum("bhld,bhle->bhde", key, value)
      norm = jnp.einsum("bhld,bhd->bhl", query, key.sum(2))
      y = jnp.einsum("bhld,bhde->bhle", query, states) / norm[..., None]
      x = x + blocks.linear(w, blocks.merge_heads(y), width)
      x = x + blocks.feed_forward(w, blocks.layer_norm(w, x))
    return x
  return blocks.Model(forward, blocks.normal_inputs((batch, length, width)))


def _talking_heads(batch: int, length: int, width: int, heads: int, layers: int) -> blocks.Model:
  """Self-attention with heads that are mixed before and after the softmax."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      y = blocks.layer_norm(w, x)
      query, key, value = (blocks.split_heads(blocks.linear(w, y, width), heads)
                           for _ in range(3))
      scores = jnp.einsum("bhqd,bhkd->bhqk", query, key) / math.sqrt(width // heads)
      scores = jnp.einsum("bhqk,hg->bgqk", scores, w.kernel(heads, heads))
      weights = jnp.einsum("bhqk,hg->bgqk", jax.nn.softmax(scores), w.kernel(heads, heads))
      y = blocks.merge_heads(jnp.einsum("bhqk,bhkd->bhqd", weights, value))
      x = x + blocks.linear(w, y, width)
    return blocks.linear(w, x, width)
  return blocks.Model(forward, blocks.normal_inputs((batch, length, width)))


def _window_attention(batch: int, side: int, window: int, width: int, heads: int) -> blocks.Model:
  """Self-attention within the windows of a map, then within windows shifted by half a window."""
  count = side // window

  def attend(w: blocks.Weights, x: jax.Array) -> jax.Array:
    y = x.reshape(batch, count, window, count, window, width).transpose(0, 1, 3, 2, 4, 5)
    y = _self_attention(w, y.reshape(-1, window * window, width), heads)
    y = y.reshape(batch, count, count, window, window, width).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(x.shape)

  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = x + attend(w, blocks.layer_norm(w, x))
    x = x + blocks.feed_forward(w, blocks.layer_norm(w, x))
    moved = jnp.roll(blocks.layer_norm(w, x), (-window // 2, -window // 2), (1, 2))
    x = x + jnp.roll(attend(w, moved), (window // 2, window // 2), (1, 2))
    return blocks.linear(w, x.mean((1, 2)), 10)
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, width)))


def _axial_attention(batch: int, side: int, width: int, heads: int, layers: int) -> blocks.Model:
  """Self-attention along the rows of a map, then along its columns."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      for turn in (False, True):
        y = blocks.layer_norm(w, x)
        y = (y.transpose(0, 2, 1, 3) if turn else y).reshape(-1, side, width)
        y = _self_attention(w, y, heads).reshape(x.shape)
        x = x + (y.transpose(0, 2, 1, 3) if turn else y)
    return blocks.linear(w, x, 10)
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, width)))


def _projected_attention(batch: int, length: int, short: int, width: int, heads: int
                         ) -> blocks.Model:
  """All positions attend to a few projections of the keys and values of a long sequence."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    y = blocks.layer_norm(w, x)
    query = blocks.split_heads(blocks.linear(w, y, width), heads)
    key, value = (blocks.split_heads(
        jnp.einsum("blc,ls->bsc", blocks.linear(w, y, width), w.kernel(length, short)), heads)
        for _ in range(2))
    y = blocks.merge_heads(blocks.attend(query, key, value))
    x = x + blocks.linear(w, y, width)
    return x + blocks.feed_forward(w, blocks.layer_norm(w, x))
  return blocks.Model(forward, blocks.normal_inputs((batch, length, width)))


def _grouped_query(batch: int, length: int, width: int, heads: int, groups: int) -> blocks.Model:
  """Causal attention in which groups of heads share keys and values."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    size = width // heads
    y = blocks.rms_norm(w, x)
    query = (y @ w.kernel(width, width)).reshape(batch, length, groups, heads // groups, size)
    key, value = ((y @ w.kernel(width, groups * size)).reshape(batch, length, groups, size)
                  for _ in range(2))
    scores = jnp.einsum("bqghd,bkgd->bghqk", query, key) / math.sqrt(size)
    scores = jnp.where(np.triu(np.ones((length, length), bool), 1), -1e9, scores)
    y = jnp.einsum("bghqk,bkgd->bqghd", jax.nn.softmax(scores), value)
    x = x + y.reshape(batch, length, width) @ w.kernel(width, width)
    y = blocks.rms_norm(w, x)
    gated = jax.nn.silu(y @ w.kernel(width, 2 * width)) * (y @ w.kernel(width, 2 * width))
    return x + gated @ w.kernel(2 * width, width)
  return blocks.Model(forward, blocks.normal_inputs((batch, length, width)))


def _latent_attention(batch: int, length: int, latents: int, width: int, heads: int
                      ) -> blocks.Model:
  """A few learned vectors attend to a long input, then to each other."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    start = jnp.broadcast_to(w.kernel(latents, width), (batch, latents, width))
    query = blocks.split_heads(blocks.linear(w, start, width), heads)
    key, value = (blocks.split_heads(blocks.linear(w, x, width), heads) for _ in range(2))
    y = start + blocks.linear(w, blocks.merge_heads(blocks.attend(query, key, value)), width)
    y = y + _self_attention(w, blocks.layer_norm(w, y), heads)
    y = y + blocks.feed_forward(w, blocks.layer_norm(w, y))
    return blocks.linear(w, y.reshape(batch, latents * width), 10)
  return blocks.Model(forward, blocks.normal_inputs((batch, length, width // 2)))


def _relative_attention(batch: int, length: int, width: int, heads: int, layers: int
                        ) -> blocks.Model:
  """Attention scores with a term that depends only on the positions of query and key."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      y = blocks.layer_norm(w, x)
      query, key, value = jnp.split(blocks.linear(w, y, 3 * width), 3, axis=-1)
      query, key, value = (part.reshape(batch, length, heads, -1)
                           for part in (query, key, value))
      place = w.kernel(length, width // heads)
      scores = jnp.einsum("bqhd,bkhd->bhqk", query, key)
      scores = scores + jnp.einsum("bqhd,kd->bhqk", query, place)
      weights = jax.nn.softmax(scores / math.sqrt(width // heads))
      y = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(batch, length, width)
      x = x + blocks.linear(w, y, width)
      x = x + blocks.feed_forward(w, blocks.layer_norm(w, x))
    return x
  return blocks.Model(forward, blocks.normal_inputs((batch, length, width)))


BUILDERS: dict[str, Callable[..., blocks.Model]] = {
    "encoder": _encoder, "decoder": _decoder, "vision_transformer": _vision_transformer,
    "multi_query": _multi_query, "linear_attention": _linear_attention,
    "talking_heads": _talking_heads, "window_attention": _window_attention,
    "axial_attention": _axial_attention, "projected_attention": _projected_attention,
    "grouped_query": _grouped_query, "latent_attention": _latent_attention,
    "relative_attention": _relative_attention}
