"""Attention families with other patterns: bands, landmarks, channels, pairs, alignments."""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp
import numpy as np

from tpugraphs_rank.collect.layout.builders import blocks


def _sliding_window_attention(batch: int, windows: int, size: int, width: int, heads: int
                              ) -> blocks.Model:
  """Positions attend to a band around them: blocks attend to themselves and both neighbours."""
  query, key = np.arange(size)[:, None] + size, np.arange(3 * size)
  band = np.broadcast_to(np.abs(query - key) <= size, (windows, size, 3 * size)).copy()
  band[0, :, :size] = band[-1, :, 2 * size:] = False

  def widened(x: jax.Array) -> jax.Array:
    before = jnp.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0), (0, 0)))
    after = jnp.pad(x[:, 1:], ((0, 0), (0, 1), (0, 0), (0, 0), (0, 0)))
    return jnp.concatenate([before, x, after], axis=2)

  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    y = blocks.layer_norm(w, x)
    query, key, value = (
        blocks.linear(w, y, width).reshape(batch, windows, size, heads, width // heads)
        for _ in range(3))
    scores = jnp.einsum("bnqhd,bnkhd->bnhqk", query, widened(key)) / math.sqrt(width // heads)
    weights = jax.nn.softmax(jnp.where(band[:, None], scores, -1e9))
    y = jnp.einsum("bnhqk,bnkhd->bnqhd", weights, widened(value)).reshape(x.shape)
    x = x + blocks.linear(w, y, width)
    return x + blocks.feed_forward(w, blocks.layer_norm(w, x))
  return blocks.Model(forward, blocks.normal_inputs((batch, windows * size, width)))


def _nystrom_attention(batch: int, length: int, landmarks: int, width: int, heads: int
                       ) -> blocks.Model:
  """Softmax attention through means of segments, with an iterated pseudo-inverse between them."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    def means(part: jax.Array) -> jax.Array:
      return part.reshape(batch, heads, landmarks, length // landmarks, -1).mean(3)

    def weights(one: jax.Array, other: jax.Array) -> jax.Array:
      scores = jnp.einsum("bhqd,bhkd->bhqk", one, other)
      return jax.nn.softmax(scores / math.sqrt(width // heads))

    y = blocks.layer_norm(w, x)
    query, key, value = (blocks.split_heads(blocks.linear(w, y, width), heads) for _ in range(3))
    middle = weights(means(query), means(key))
    inverse = middle.swapaxes(2, 3) / middle.sum(2).max(-1)[:, :, None, None]
    for _ in range(2):
      product = middle @ inverse
      inner = 15 * product - product @ (7 * product - product @ product)
      inverse = (13 * inverse - inverse @ inner) / 4
    y = inverse @ (weights(means(query), key) @ value)
    y = blocks.merge_heads(weights(query, means(key)) @ y)
    x = x + blocks.linear(w, y, width)
    return x + blocks.feed_forward(w, blocks.layer_norm(w, x))
  return blocks.Model(forward, blocks.normal_inputs((batch, length, width)))


def _synthesizer(batch: int, length: int, width: int, heads: int, layers: int) -> blocks.Model:
  """Attention weights that a dense net computes from each position, mixed with learned ones."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      y = blocks.layer_norm(w, x)
      scores = blocks.linear(w, jax.nn.relu(blocks.linear(w, y, width)), heads * length)
      scores = scores.reshape(batch, length, heads, length).transpose(0, 2, 1, 3)
      fixed = jnp.einsum("hqr,hrk->hqk", w.experts(heads, length, 8), w.experts(heads, 8, length))
      value = blocks.split_heads(blocks.linear(w, y, width), heads)
      y = jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(scores + fixed), value)
      x = x + blocks.linear(w, blocks.merge_heads(y), width)
      x = x + blocks.feed_forward(w, blocks.layer_norm(w, x))
    return x
  return blocks.Model(forward, blocks.normal_inputs((batch, length, width)))


def _triangle_update(batch: int, side: int, width: int, layers: int) -> blocks.Model:
  """Each pair of a square is updated by the products of the two other sides of all triangles."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      for equation in ("bikc,bjkc->bijc", "bkic,bkjc->bijc"):
        y = blocks.layer_norm(w, x)
        gates, values = jnp.split(blocks.linear(w, y, 4 * width), 2, axis=-1)
        left, right = jnp.split(jax.nn.sigmoid(gates) * values, 2, axis=-1)
        product = jnp.einsum(equation, left, right) / math.sqrt(side)
        gate = jax.nn.sigmoid(blocks.linear(w, y, width))
        x = x + gate * blocks.linear(w, blocks.layer_norm(w, product), width)
      x = x + blocks.linear(w, jax.nn.relu(blocks.linear(w, x, 2 * width)), width)
    return blocks.linear(w, x + x.transpose(0, 2, 1, 3), 10)
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, width)))


def _outer_product_mean(batch: int, rows: int, residues: int, width: int, heads: int
                        ) -> blocks.Model:
  """Gated attention in each row of an alignment, biased by pairs; its columns update the pairs."""
  small, pair_width = 6, 16

  def forward(w: blocks.Weights, x: jax.Array, pairs: jax.Array) -> jax.Array:
    y = blocks.layer_norm(w, x)
    parts = blocks.linear(w, y, 4 * width)
    parts = parts.reshape(batch, rows, residues, 4, heads, width // heads)
    query, key, value, gate = (parts[:, :, :, index] for index in range(4))
    bias = blocks.linear(w, blocks.layer_norm(w, pairs), heads).transpose(0, 3, 1, 2)
    scores = jnp.einsum("bsihd,bsjhd->bshij", query, key) / math.sqrt(width // heads)
    weights = jax.nn.softmax(scores + bias[:, None])
    y = jax.nn.sigmoid(gate) * jnp.einsum("bshij,bsjhd->bsihd", weights, value)
    x = x + blocks.linear(w, y.reshape(x.shape), width)
    y = blocks.layer_norm(w, x)
    left, right = blocks.linear(w, y, small), blocks.linear(w, y, small)
    outer = jnp.einsum("bsic,bsjd->bijcd", left, right) / rows
    outer = outer.reshape(batch, residues, residues, small * small)
    pairs = pairs + blocks.linear(w, outer, pair_width)
    return pairs + blocks.linear(w, jax.nn.relu(blocks.linear(w, pairs, 32)), pair_width)
  return blocks.Model(forward, blocks.normal_inputs(
      (batch, rows, residues, width), (batch, residues, residues, pair_width)))


def _cross_covariance_attention(batch: int, length: int, width: int, heads: int, layers: int
                                ) -> blocks.Model:
  """Channels attend to channels of the same head, by their correlation over the positions."""
  def normal(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-5)

  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      parts = blocks.linear(w, blocks.layer_norm(w, x), 3 * width)
      parts = parts.reshape(batch, length, 3, heads, width // heads).transpose(2, 0, 3, 4, 1)
      scores = jnp.einsum("bhdl,bhel->bhde", normal(parts[0]), normal(parts[1]))
      weights = jax.nn.softmax(scores * w.scale(heads)[:, None, None])
      y = jnp.einsum("bhde,bhel->bhdl", weights, parts[2])
      y = y.transpose(0, 3, 1, 2).reshape(batch, length, width)
      x = x + w.scale(width) * blocks.linear(w, y, width)
      x = x + w.scale(width) * blocks.feed_forward(w, blocks.layer_norm(w, x))
    return blocks.linear(w, x.mean(1), 10)
  return blocks.Model(forward, blocks.normal_inputs((batch, length, width)))


def _attention_flow(batch: int, context: int, query: int, width: int) -> blocks.Model:
  """A text and a question attend to each other by a trilinear score; scores of answer spans."""
  def forward(w: blocks.Weights, x: jax.Array, asked: jax.Array) -> jax.Array:
    kernel = w.kernel(width, width)
    x, asked = jnp.tanh(x @ kernel), jnp.tanh(asked @ kernel)
    scores = jnp.einsum("bcw,bqw->bcq", x * w.scale(width), asked)
    scores = scores + blocks.linear(w, x, 1) + blocks.linear(w, asked, 1).transpose(0, 2, 1)
    answers = jnp.einsum("bcq,bqw->bcw", jax.nn.softmax(scores), asked)
    weights = jax.nn.softmax(scores.max(2))
    summary = jnp.einsum("bc,bcw->bw", weights, x)[:, None]
    merged = jnp.concatenate([x, answers, x * answers, x * summary], axis=-1)
    y = jax.nn.relu(blocks.linear(w, merged, width))
    own = jnp.einsum("bcw,bdw->bcd", y @ w.kernel(width, width), y) / math.sqrt(width)
    y = y + jax.nn.softmax(own) @ y
    start = blocks.linear(w, jnp.concatenate([merged, y], axis=-1), 1)
    end = blocks.linear(w, jnp.tanh(blocks.linear(w, y, width)), 1)
    return jax.nn.log_softmax(jnp.concatenate([start, end], axis=-1), axis=1)
  return blocks.Model(forward, blocks.normal_inputs(
      (batch, context, width), (batch, query, width)))


BUILDERS: dict[str, Callable[..., blocks.Model]] = {
    "sliding_window_attention": _sliding_window_attention,
    "nystrom_attention": _nystrom_attention, "synthesizer": _synthesizer,
    "triangle_update": _triangle_update, "outer_product_mean": _outer_product_mean,
    "cross_covariance_attention": _cross_covariance_attention,
    "attention_flow": _attention_flow}
