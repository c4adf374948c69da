"""Families of dense layers: perceptrons with normalisation, mixers, autoencoders, experts."""

from typing import Callable, Dict

import jax
import jax.numpy as jnp

from tools.collect.layouts.models import blocks


def _mlp_layer_norm(rows: int, width: int, layers: int) -> blocks.Model:
  """Residual layers, each normalised before."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      x = x + jax.nn.gelu(blocks.linear(w, blocks.layer_norm(w, x), width))
    return blocks.linear(w, x, 10)
  return blocks.Model(forward, blocks.normal_inputs((rows, width)))


def _mlp_batch_norm(rows: int, width: int, layers: int) -> blocks.Model:
  """Plain layers with batch normalisation, narrower from layer to layer."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for index in range(layers):
      x = x @ w.kernel(x.shape[-1], width - index * width // (2 * layers))
      x = jax.nn.relu(blocks.batch_norm(w, x))
    return blocks.linear(w, x, 10)
  return blocks.Model(forward, blocks.normal_inputs((rows, width)))


def _autoencoder(rows: int, width: int, code: int) -> blocks.Model:
  """Two layers to a code and, with the same matrices transposed, two back."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    outer, inner = w.kernel(width, width // 2), w.kernel(width // 2, code)
    y = jax.nn.tanh(x @ outer + w.shift(width // 2))
    y = jax.nn.tanh(y @ inner + w.shift(code))
    y = jax.nn.tanh(y @ inner.T + w.shift(width // 2))
    return y @ outer.T + w.shift(width)
  return blocks.Model(forward, blocks.normal_inputs((rows, width)))


def _mixer(batch: int, tokens: int, width: int, layers: int) -> blocks.Model:
  """Feed-forward layers across tokens and across channels in turn."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      y = blocks.layer_norm(w, x).transpose(0, 2, 1)
      x = x + blocks.feed_forward(w, y).transpose(0, 2, 1)
      x = x + blocks.feed_forward(w, blocks.layer_norm(w, x))
    return blocks.linear(w, x.mean(1), 10)
  return blocks.Model(forward, blocks.normal_inputs((batch, tokens, width)))


def _gated_mlp(batch: int, tokens: int, width: int, layers: int) -> blocks.Model:
  """Half of the channels, mixed across tokens, gate the other half."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      y = jax.nn.gelu(blocks.linear(w, blocks.layer_norm(w, x), 2 * width))
      value, gate = jnp.split(y, 2, axis=-1)
      gate = jnp.einsum("btc,ts->bsc", blocks.layer_norm(w, gate), w.kernel(tokens, tokens))
      x = x + blocks.linear(w, value * (1 + gate), width)
    return x
  return blocks.Model(forward, blocks.normal_inputs((batch, tokens, width)))


def _experts(rows: int, width: int, experts: int) -> blocks.Model:
  """Every expert on every row, weighted by a softmax gate."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    gate = jax.nn.softmax(blocks.linear(w, x, experts))
    hidden = jnp.einsum("rd,edf->erf", x, w.experts(experts, width, 2 * width))
    y = jnp.einsum("erf,efd->erd", jax.nn.relu(hidden), w.experts(experts, 2 * width, width))
    return blocks.layer_norm(w, x + jnp.einsum("re,erd->rd", gate, y))
  return blocks.Model(forward, blocks.normal_inputs((rows, width)))


BUILDERS: Dict[str, Callable[..., blocks.Model]] = {
    "mlp_layer_norm": _mlp_layer_norm, "mlp_batch_norm": _mlp_batch_norm,
    "autoencoder": _autoencoder, "mixer": _mixer, "gated_mlp": _gated_mlp, "experts": _experts}
