"""Attention families: transformer encoder and decoder blocks and their relatives."""

from typing import Callable, Dict

import jax
import jax.numpy as jnp

from tools.collect.layouts.models import blocks


def _self_attention(w: blocks.Weights, x: jax.Array, heads: int, causal: bool = False
                    ) -> jax.Array:
  query, key, value = (blocks.split_heads(blocks.linear(w, x, x.shape[-1]), heads)
                       for _ in range(3))
  return blocks.linear(w, blocks.merge_heads(blocks.attend(query, key, value, causal)),
                       x.shape[-1])


def _encoder(batch: int, length: int, width: int, heads: int, layers: int) -> blocks.Model:
  """Self-attention and feed-forward blocks, normalised before each."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      x = x + _self_attention(w, blocks.layer_norm(w, x), heads)
      x = x + blocks.feed_forward(w, blocks.layer_norm(w, x))
    return blocks.layer_norm(w, x)
  return blocks.Model(forward, blocks.normal_inputs((batch, length, width)))


def _decoder(batch: int, length: int, memory: int, width: int, heads: int) -> blocks.Model:
  """Causal self-attention, attention to an encoder's output, feed-forward; normalised after each.
  """
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
  """Patches of an image, one encoder block, the mean over all patches."""
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
  """Attention without softmax: keys and values are multiplied first."""
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


BUILDERS: Dict[str, Callable[..., blocks.Model]] = {
    "encoder": _encoder, "decoder": _decoder, "vision_transformer": _vision_transformer,
    "multi_query": _multi_query, "linear_attention": _linear_attention}
