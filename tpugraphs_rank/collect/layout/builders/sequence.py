"""Families of sequence models: decaying linear attention, long filters, recursions over states."""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp
import numpy as np

from tpugraphs_rank.collect.layout.builders import blocks

sigmoid = jax.nn.sigmoid


def _rotate(x: jax.Array) -> jax.Array:
  """Rotates pairs of channels by angles that grow with the position; (..., length, size)."""
  length, half = x.shape[-2], x.shape[-1] // 2
  angles = np.arange(length)[:, None] * 100.0 ** (-np.arange(half) / half)
  cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
  one, other = jnp.split(x, 2, axis=-1)
  return jnp.concatenate([one * cosines - other * sines, one * sines + other * cosines], axis=-1)


def _retention(batch: int, length: int, width: int, heads: int, layers: int) -> blocks.Model:
  """Products of queries and keys decay with the distance, at one rate per head; no softmax."""
  distance = np.arange(length)[:, None] - np.arange(length)
  rates = 1 - 2.0 ** (-2 - np.arange(heads))
  decay = np.tril(rates[:, None, None] ** np.abs(distance)).astype(np.float32)

  def forward(w: blocks.Weights, x: jax.Array, decay: jax.Array) -> jax.Array:
    for _ in range(layers):
      y = blocks.layer_norm(w, x)
      query, key, value = (blocks.split_heads(y @ w.kernel(width, width), heads)
                           for _ in range(3))
      scores = jnp.einsum("bhqd,bhkd->bhqk", _rotate(query), _rotate(key)) * decay
      scores = scores / (1 + jnp.abs(scores).sum(-1, keepdims=True))
      # Without the value itself, a score near 0 at the first position has an unbounded gradient.
      kept = blocks.layer_norm(w, value + jnp.einsum("bhqk,bhkd->bhqd", scores, value))
      gate = jax.nn.silu(y @ w.kernel(width, width))
      x = x + (gate * blocks.merge_heads(kept)) @ w.kernel(width, width)
    return x + blocks.feed_forward(w, blocks.layer_norm(w, x))
  return blocks.Model(forward, lambda rng: [
      rng.standard_normal((batch, length, width)).astype(np.float32), decay])


def _gated_linear_attention(batch: int, chunks: int, length: int, width: int, heads: int
                            ) -> blocks.Model:
  """Linear attention with learned damping: masked products in chunks, states between them."""
  size = width // heads

  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    def split(y: jax.Array) -> jax.Array:
      return y.reshape(batch, chunks, length, heads, size).transpose(0, 3, 1, 2, 4)

    y = blocks.rms_norm(w, x)
    query, key, value = (split(y @ w.kernel(width, width)) for _ in range(3))
    damping = split(jax.nn.log_sigmoid(blocks.linear(w, y @ w.kernel(width, 8), width)) / 8)
    past = np.tril(np.ones((length, length), np.float32))
    total = jnp.einsum("bhncd,ec->bhned", damping, past)
    query, key = query * jnp.exp(total) / math.sqrt(size), key * jnp.exp(-total)
    scores = jnp.einsum("bhnqd,bhnkd->bhnqk", query, key) * past
    within = jnp.einsum("bhnqk,bhnkd->bhnqd", scores, value)
    state, between = jnp.zeros((batch, heads, size, size)), []
    for chunk in range(chunks):
      between.append(jnp.einsum("bhqd,bhde->bhqe", query[:, :, chunk], state))
      entered = jnp.einsum("bhkd,bhke->bhde", key[:, :, chunk], value[:, :, chunk])
      state = jnp.exp(total[:, :, chunk, -1])[..., None] * (state + entered)
    y = blocks.rms_norm(w, within + jnp.stack(between, axis=2))
    y = y.transpose(0, 2, 3, 1, 4).reshape(batch, chunks * length, width)
    y = y * jax.nn.silu(x @ w.kernel(width, width))
    return x + y @ w.kernel(width, width)
  return blocks.Model(forward, blocks.normal_inputs((batch, chunks * length, width)))


def _state_space_duality(batch: int, length: int, width: int, heads: int, states: int
                         ) -> blocks.Model:
  """A selective state space as one masked product; the decay between positions is learned."""
  def shifted(x: jax.Array, steps: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (steps, 0), (0, 0)))[:, :length]

  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    y = blocks.rms_norm(w, x)
    mixed = blocks.linear(w, y, width + 2 * states)
    taps = [w.shift(width + 2 * states) for _ in range(3)]
    mixed = jax.nn.silu(mixed + sum(tap * shifted(mixed, steps)
                                    for steps, tap in enumerate(taps, 1)))
    value, enter, leave = jnp.split(mixed, (width, width + states), axis=-1)
    value = value.reshape(batch, length, heads, width // heads)
    step = jax.nn.softplus(blocks.linear(w, y, heads))
    total = jnp.einsum("bkh,qk->bqh", -step * jnp.exp(w.shift(heads)),
                       np.tril(np.ones((length, length), np.float32)))
    later = np.triu(np.ones((length, length), bool), 1)[:, :, None]
    decay = jnp.exp(jnp.where(later, -1e9, total[:, :, None] - total[:, None]))
    scores = jnp.einsum("bqs,bks->bqk", leave, enter) / math.sqrt(states)
    weights = scores[..., None] * decay * step[:, None]
    output = jnp.einsum("bqkh,bkhd->bqhd", weights, value) + w.scale(heads)[:, None] * value
    output = output.reshape(batch, length, width) * jax.nn.silu(blocks.linear(w, y, width))
    return x + blocks.linear(w, blocks.rms_norm(w, output), width)
  return blocks.Model(forward, blocks.normal_inputs((batch, length, width)))


def _long_convolution(batch: int, length: int, width: int, order: int) -> blocks.Model:
  """Gated filters as long as the sequence, which a dense net computes, as Toeplitz matrices."""
  places = np.arange(length)[:, None] / length
  waves = np.concatenate([np.cos(places * math.pi * np.arange(1, 9)),
                          np.sin(places * math.pi * np.arange(1, 9))], axis=1)

  def toeplitz(filters: jax.Array) -> jax.Array:
    # Rows of 2 n numbers, read as rows of 2 n - 1, move by one position from row to row.
    padded = jnp.concatenate([filters, jnp.zeros_like(filters)], axis=1)
    rows = jnp.broadcast_to(padded[:, None], (width, length, 2 * length))
    rows = rows.reshape(width, 2 * length * length)[:, :length * (2 * length - 1)]
    return rows.reshape(width, length, 2 * length - 1)[:, :, :length]

  def forward(w: blocks.Weights, x: jax.Array, waves: jax.Array) -> jax.Array:
    y = blocks.layer_norm(w, x)
    hidden = jnp.sin(blocks.linear(w, waves, 32))
    value = blocks.linear(w, y, width)
    for _ in range(order):
      filters = blocks.linear(w, hidden, width) * np.exp(-4 * places).astype(np.float32)
      matrices = toeplitz(filters.T) / math.sqrt(length)
      value = blocks.linear(w, y, width) * jnp.einsum("ckq,bkc->bqc", matrices, value)
    x = x + blocks.linear(w, value, width)
    return x + blocks.feed_forward(w, blocks.layer_norm(w, x))
  return blocks.Model(forward, lambda rng: [
      rng.standard_normal((batch, length, width)).astype(np.float32), waves.astype(np.float32)])


def _rwkv(batch: int, steps: int, width: int, layers: int) -> blocks.Model:
  """Weighted means over all earlier steps, from two damped sums; then a gated squared ReLU."""
  def previous(x: jax.Array) -> jax.Array:
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :steps]

  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    def mixed(y: jax.Array, parts: int) -> jax.Array:
      shares = sigmoid(w.experts(parts, 1, width))[:, :, None]
      both = y * shares + previous(y) * (1 - shares)
      return jnp.einsum("pbsw,pwu->pbsu", both, w.experts(parts, width, width))

    for _ in range(layers):
      key, value, gate = mixed(blocks.rms_norm(w, x), 3)
      key = jnp.exp(jnp.tanh(key))
      both = jnp.stack([key * value, key])
      damping, bonus = jnp.exp(-jnp.exp(w.shift(width))), jnp.exp(w.shift(width))
      state, sums = jnp.zeros((2, batch, width)), []
      for step in range(steps):
        sums.append(state + bonus * both[:, :, step])
        state = damping * state + both[:, :, step]
      above, below = jnp.stack(sums, axis=2)
      x = x + (sigmoid(gate) * above / below) @ w.kernel(width, width)
      gate, value = mixed(blocks.rms_norm(w, x), 2)
      x = x + sigmoid(gate) * (jnp.square(jax.nn.relu(value)) @ w.kernel(width, width))
    return blocks.linear(w, x, 16)
  return blocks.Model(forward, blocks.normal_inputs((batch, steps, width)))


def _hidden_markov(batch: int, steps: int, states: int, features: int) -> blocks.Model:
  """Forward and backward probabilities of states whose transitions depend on the input."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    logits = blocks.linear(w, x, states * states).reshape(batch, steps, states, states)
    transition = jax.nn.softmax(logits)
    means = w.kernel(features, states)
    emission = jnp.exp(jax.nn.log_softmax(x @ means - jnp.square(means).sum(0) / 2))
    ahead = [emission[:, 0] / emission[:, 0].sum(-1, keepdims=True)]
    for step in range(1, steps):
      reached = jnp.einsum("bs,bst->bt", ahead[-1], transition[:, step]) * emission[:, step]
      ahead.append(reached / reached.sum(-1, keepdims=True))
    back = [jnp.ones((batch, states))]
    for step in range(steps - 1, 0, -1):
      reached = jnp.einsum("bst,bt->bs", transition[:, step], back[-1] * emission[:, step])
      back.append(reached / reached.sum(-1, keepdims=True))
    both = jnp.stack(ahead, axis=1) * jnp.stack(back[::-1], axis=1)
    smoothed = both / both.sum(-1, keepdims=True)
    return jnp.einsum("bts,fs->btf", smoothed, means)
  return blocks.Model(forward, blocks.normal_inputs((batch, steps, features)))


def _conditional_random_field(batch: int, steps: int, chains: int, tags: int, width: int
                              ) -> blocks.Model:
  """Logarithmic sums over all sequences of tags, in both directions, for several chains."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    hidden = jnp.tanh(blocks.convolve(w, x, width))
    scores = blocks.linear(w, hidden, chains * tags).reshape(batch, steps, chains, tags)
    transition = jnp.exp(w.experts(chains, tags, tags))

    def extended(past: jax.Array, equation: str) -> jax.Array:
      most = past.max(-1, keepdims=True)
      return jnp.log(jnp.einsum(equation, jnp.exp(past - most), transition)) + most

    ahead, back = [scores[:, 0]], [jnp.zeros((batch, chains, tags))]
    for step in range(1, steps):
      ahead.append(scores[:, step] + extended(ahead[-1], "bct,ctu->bcu"))
      back.append(extended(back[-1] + scores[:, steps - step], "bcu,ctu->bct"))
    both = jnp.stack(ahead, axis=1) + jnp.stack(back[::-1], axis=1)
    return jax.nn.log_softmax(both)
  return blocks.Model(forward, blocks.normal_inputs((batch, steps, width)))


BUILDERS: dict[str, Callable[..., blocks.Model]] = {
    "retention": _retention, "gated_linear_attention": _gated_linear_attention,
    "state_space_duality": _state_space_duality, "long_convolution": _long_convolution,
    "rwkv": _rwkv, "hidden_markov": _hidden_markov,
    "conditional_random_field": _conditional_random_field}
