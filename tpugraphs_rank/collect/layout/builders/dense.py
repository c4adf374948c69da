"""Families of dense layers: perceptrons with normalisation, mixers, autoencoders, experts."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tpugraphs_rank.collect.layout.builders import blocks


def _mlp_layer_norm(rows: int, width: int, layers: int) -> blocks.Model:
  """Residual layers, each after a normalisation."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      x = x + jax.nn.gelu(blocks.linear(w, blocks.layer_norm(w, x), width))
    return blocks.linear(w, x, 10)
  return blocks.Model(forward, blocks.normal_inputs((rows, width)))


def _mlp_batch_norm(rows: int, width: int, layers: int) -> blocks.Model:
  """Plain layers with batch normalisation and decreasing width."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for index in range(layers):
      x = x @ w.kernel(x.shape[-1], width - index * width // (2 * layers))
      x = jax.nn.relu(blocks.batch_norm(w, x))
    return blocks.linear(w, x, 10)
  return blocks.Model(forward, blocks.normal_inputs((rows, width)))


def _autoencoder(rows: int, width: int, code: int) -> blocks.Model:
  """Two layers to a code, and two layers back with the same matrices, transposed."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    outer, inner = w.kernel(width, width // 2), w.kernel(width // 2, code)
    y = jax.nn.tanh(x @ outer + w.shift(width // 2))
    y = jax.nn.tanh(y @ inner + w.shift(code))
    y = jax.nn.tanh(y @ inner.T + w.shift(width // 2))
    return y @ outer.T + w.shift(width)
  return blocks.Model(forward, blocks.normal_inputs((rows, width)))


def _mixer(batch: int, tokens: int, width: int, layers: int) -> blocks.Model:
  """Feed-forward layers across tokens and across channels, alternating."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      y = blocks.layer_norm(w, x).transpose(0, 2, 1)
      x = x + blocks.feed_forward(w, y).transpose(0, 2, 1)
      x = x + blocks.feed_forward(w, blocks.layer_norm(w, x))
    return blocks.linear(w, x.mean(1), 10)
  return blocks.Model(forward, blocks.normal_inputs((batch, tokens, width)))


def _gated_mlp(batch: int, tokens: int, width: int, layers: int) -> blocks.Model:
  """One half of the channels, mixed across tokens, gates the other half."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      y = jax.nn.gelu(blocks.linear(w, blocks.layer_norm(w, x), 2 * width))
      value, gate = jnp.split(y, 2, axis=-1)
      gate = jnp.einsum("btc,ts->bsc", blocks.layer_norm(w, gate), w.kernel(tokens, tokens))
      x = x + blocks.linear(w, value * (1 + gate), width)
    return x
  return blocks.Model(forward, blocks.normal_inputs((batch, tokens, width)))


def _experts(rows: int, width: int, experts: int) -> blocks.Model:
  """All experts process all rows; a softmax gate weights them."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    gate = jax.nn.softmax(blocks.linear(w, x, experts))
    hidden = jnp.einsum("rd,edf->erf", x, w.experts(experts, width, 2 * width))
    y = jnp.einsum("erf,efd->erd", jax.nn.relu(hidden), w.experts(experts, 2 * width, width))
    return blocks.layer_norm(w, x + jnp.einsum("re,erd->rd", gate, y))
  return blocks.Model(forward, blocks.normal_inputs((rows, width)))


def _highway(rows: int, width: int, layers: int) -> blocks.Model:
  """A learned gate interpolates between the input and the output of each layer."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      gate = jax.nn.sigmoid(blocks.linear(w, x, width))
      x = gate * jax.nn.relu(blocks.linear(w, x, width)) + (1 - gate) * x
    return blocks.linear(w, x, 10)
  return blocks.Model(forward, blocks.normal_inputs((rows, width)))


def _low_rank(rows: int, width: int, rank: int, layers: int) -> blocks.Model:
  """A low-rank matrix in each layer, added to a full matrix that all layers share."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    full = w.kernel(width, width)
    for _ in range(layers):
      y = x @ full + (x @ w.kernel(width, rank)) @ w.kernel(rank, width)
      x = jax.nn.gelu(blocks.layer_norm(w, y + w.shift(width)))
    return x
  return blocks.Model(forward, blocks.normal_inputs((rows, width)))


def _cross_network(rows: int, width: int, layers: int) -> blocks.Model:
  """Repeated products of the input with a layer of the state, parallel to a plain deep net."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    crossed = deep = x
    for _ in range(layers):
      crossed = x * blocks.linear(w, crossed, width) + crossed
      deep = jax.nn.relu(blocks.linear(w, deep, width))
    return blocks.linear(w, jnp.concatenate([crossed, deep], axis=-1), 10)
  return blocks.Model(forward, blocks.normal_inputs((rows, width)))


def _block_diagonal(rows: int, parts: int, size: int, layers: int) -> blocks.Model:
  """Block-diagonal matrices; the channels of the blocks are shuffled between them."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      y = jnp.einsum("rps,pst->rpt", x.reshape(rows, parts, size), w.experts(parts, size, size))
      y = y.transpose(0, 2, 1).reshape(rows, parts, size)
      y = jnp.einsum("rps,pst->rpt", y, w.experts(parts, size, size))
      x = jax.nn.relu(y.reshape(rows, parts * size) + w.shift(parts * size)) + x
    return blocks.linear(w, blocks.layer_norm(w, x), 10)
  return blocks.Model(forward, blocks.normal_inputs((rows, parts * size)))


def _variational(rows: int, width: int, code: int) -> blocks.Model:
  """An encoder to the mean and deviation of a code, a sample of the code, and a decoder."""
  def forward(w: blocks.Weights, x: jax.Array, noise: jax.Array) -> jax.Array:
    y = jax.nn.relu(blocks.linear(w, x, width // 2))
    mean, spread = blocks.linear(w, y, code), blocks.linear(w, y, code)
    y = mean + noise * jax.nn.softplus(spread)
    y = jax.nn.relu(blocks.linear(w, y, width // 2))
    return jax.nn.sigmoid(blocks.linear(w, y, width))
  return blocks.Model(forward, blocks.normal_inputs((rows, width), (rows, code)))


def _interaction_features(rows: int, fields: int, width: int) -> blocks.Model:
  """Products of all pairs of a row's vectors and a dense net, as in recommender systems."""
  def forward(w: blocks.Weights, x: jax.Array, dense: jax.Array) -> jax.Array:
    bottom = jax.nn.relu(blocks.linear(w, jax.nn.relu(blocks.linear(w, dense, 2 * width)), width))
    every = jnp.concatenate([blocks.linear(w, x, width), bottom[:, None]], axis=1)
    pairs = jnp.einsum("rfw,rgw->rfg", every, every).reshape(rows, -1)
    top = jnp.concatenate([pairs, bottom], axis=-1)
    return blocks.linear(w, jax.nn.relu(blocks.linear(w, top, 4 * width)), 1)
  return blocks.Model(forward, blocks.normal_inputs((rows, fields, width), (rows, width)))


def _hypernetwork(batch: int, tokens: int, width: int, rank: int) -> blocks.Model:
  """A dense net on the mean of a set computes the matrices that are applied to its members."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    about = jax.nn.relu(blocks.linear(w, x.mean(1), 32))
    down = blocks.linear(w, about, width * rank).reshape(batch, width, rank)
    up = blocks.linear(w, about, rank * width).reshape(batch, rank, width)
    y = jax.nn.gelu(jnp.einsum("btw,bwr->btr", blocks.layer_norm(w, x), down))
    x = x + jnp.einsum("btr,brw->btw", y, up)
    return blocks.linear(w, jax.nn.relu(blocks.linear(w, x, width)), 10)
  return blocks.Model(forward, blocks.normal_inputs((batch, tokens, width)))


def _capsules(batch: int, inputs: int, outputs: int, size: int) -> blocks.Model:
  """Votes of the input vectors for the output vectors, weighted by their agreement."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    kernel = w.experts(inputs, size, outputs * size)
    votes = jnp.einsum("bis,ist->bit", x, kernel).reshape(batch, inputs, outputs, size)
    logits = jnp.zeros((batch, inputs, outputs))
    for turn in range(2):
      total = jnp.einsum("bio,biot->bot", jax.nn.softmax(logits), votes)
      square = jnp.square(total).sum(-1, keepdims=True)
      output = total * square / (1 + square) * jax.lax.rsqrt(square + 1e-6)
      if turn == 0:
        logits = logits + jnp.einsum("biot,bot->bio", votes, output)
    return blocks.linear(w, output.reshape(batch, outputs * size), 10)
  return blocks.Model(forward, blocks.normal_inputs((batch, inputs, size)))


BUILDERS: dict[str, Callable[..., blocks.Model]] = {
    "mlp_layer_norm": _mlp_layer_norm, "mlp_batch_norm": _mlp_batch_norm,
    "autoencoder": _autoencoder, "mixer": _mixer, "gated_mlp": _gated_mlp, "experts": _experts,
    "highway": _highway, "low_rank": _low_rank, "cross_network": _cross_network,
    "block_diagonal": _block_diagonal, "variational": _variational,
    "interaction_features": _interaction_features, "hypernetwork": _hypernetwork,
    "capsules": _capsules}
