"""Convolutional families: residual nets, dense nets, U-Net, autoencoder, one-dimensional nets."""

from collections.abc import Callable

import jax
from jax import lax
import jax.numpy as jnp

from tpugraphs_rank.collect.layout.builders import blocks

CLASSES = 10
relu = jax.nn.relu


def _classify(w: blocks.Weights, x: jax.Array) -> jax.Array:
  """Mean over all positions, then a linear layer."""
  return blocks.linear(w, x.mean(tuple(range(1, x.ndim - 1))), CLASSES)


def _resnet(batch: int, side: int, channels: int, count: int) -> blocks.Model:
  """Basic residual blocks with batch normalisation; the last one halves the side."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = relu(blocks.batch_norm(w, blocks.convolve(w, x, channels)))
    for index in range(count):
      stride = 2 if index == count - 1 else 1
      y = relu(blocks.batch_norm(w, blocks.convolve(w, x, stride * channels, stride=stride)))
      y = blocks.batch_norm(w, blocks.convolve(w, y, stride * channels))
      if stride > 1:
        x = blocks.convolve(w, x, stride * channels, size=1, stride=stride)
      x = relu(x + y)
    return _classify(w, x)
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 3)))


def _separable(batch: int, side: int, channels: int, count: int) -> blocks.Model:
  """Depthwise convolutions, each followed by a 1x1 convolution."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = relu(blocks.convolve(w, x, channels))
    for _ in range(count):
      y = relu(blocks.batch_norm(w, blocks.convolve(w, x, channels, groups=channels)))
      x = x + blocks.convolve(w, y, channels, size=1)
    return _classify(w, relu(x))
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 3)))


def _densenet(batch: int, side: int, growth: int, layers: int) -> blocks.Model:
  """Every layer reads the outputs of all previous layers; then channels and side are halved."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = blocks.convolve(w, x, 2 * growth)
    for _ in range(layers):
      y = blocks.convolve(w, relu(blocks.batch_norm(w, x)), growth)
      x = jnp.concatenate([x, y], axis=-1)
    x = blocks.convolve(w, relu(x), x.shape[-1] // 2, size=1)
    x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
    return _classify(w, x)
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 3)))


def _convolution_1d(batch: int, length: int, channels: int, count: int) -> blocks.Model:
  """Residual blocks over a sequence; the dilation doubles from block to block."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = blocks.convolve(w, x, channels)
    for index in range(count):
      y = relu(blocks.convolve(w, blocks.layer_norm(w, x), channels, dilation=2 ** index))
      x = x + blocks.convolve(w, y, channels, size=1)
    return blocks.linear(w, x, CLASSES)
  return blocks.Model(forward, blocks.normal_inputs((batch, length, 8)))


def _conv_autoencoder(batch: int, side: int, channels: int, depth: int) -> blocks.Model:
  """Strided convolutions to a code, a dense layer on it, transposed convolutions back."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    y = x
    for index in range(depth):
      y = relu(blocks.batch_norm(w, blocks.convolve(w, y, channels << index, stride=2)))
    shape = y.shape
    y = y.reshape(shape[0], -1)
    code = blocks.linear(w, y, 32)
    y = relu(blocks.linear(w, code, y.shape[1])).reshape(shape)
    for index in reversed(range(depth)):
      y = relu(blocks.batch_norm(w, blocks.upconvolve(w, y, channels << index)))
    return blocks.convolve(w, y, 3)
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 3)))


def _bottleneck(batch: int, side: int, channels: int, count: int) -> blocks.Model:
  """Residual blocks 1x1, 3x3, 1x1 with group normalisation and a quarter of the channels inside."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = blocks.convolve(w, x, channels)
    for _ in range(count):
      y = relu(blocks.group_norm(w, x, 4))
      y = relu(blocks.group_norm(w, blocks.convolve(w, y, channels // 4, size=1), 4))
      y = relu(blocks.convolve(w, y, channels // 4))
      x = x + blocks.convolve(w, y, channels, size=1)
    return _classify(w, relu(x))
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 3)))


def _unet(batch: int, side: int, channels: int, depth: int) -> blocks.Model:
  """Halves the side `depth` times, then doubles it; skip connections join the levels."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    levels = []
    for index in range(depth):
      x = relu(blocks.convolve(w, x, channels << index))
      levels.append(x)
      x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = relu(blocks.convolve(w, x, channels << depth))
    for index in reversed(range(depth)):
      x = jnp.concatenate([levels[index], blocks.upconvolve(w, x, channels << index)], axis=-1)
      x = relu(blocks.convolve(w, x, channels << index))
    return blocks.convolve(w, x, 2, size=1)
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 3)))


def _squeeze_excite(batch: int, side: int, channels: int, count: int) -> blocks.Model:
  """Residual convolutions; a small dense net on the channel means weights the channels."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = blocks.convolve(w, x, channels)
    for _ in range(count):
      y = relu(blocks.batch_norm(w, blocks.convolve(w, x, channels)))
      gate = relu(blocks.linear(w, y.mean((1, 2)), channels // 4))
      gate = jax.nn.sigmoid(blocks.linear(w, gate, channels))
      x = relu(x + y * gate[:, None, None, :])
    return _classify(w, x)
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 3)))


def _inception(batch: int, side: int, channels: int, count: int) -> blocks.Model:
  """Parallel convolutions of three sizes; a 1x1 convolution precedes the larger ones."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = relu(blocks.convolve(w, x, 2 * channels))
    for _ in range(count):
      wide = relu(blocks.convolve(w, x, channels // 2, size=1))
      branches = [blocks.convolve(w, x, channels, size=1), blocks.convolve(w, wide, channels),
                  blocks.convolve(w, blocks.convolve(w, wide, channels), channels)]
      x = relu(blocks.batch_norm(w, jnp.concatenate(branches, axis=-1)))
    return _classify(w, x)
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 3)))


def _channel_shuffle(batch: int, side: int, channels: int, count: int) -> blocks.Model:
  """Grouped 1x1 convolutions with shuffled channels, and depthwise convolutions between them."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = relu(blocks.convolve(w, x, channels))
    for _ in range(count):
      y = relu(blocks.batch_norm(w, blocks.convolve(w, x, channels, size=1, groups=2)))
      y = y.reshape(*y.shape[:-1], 2, channels // 2).swapaxes(-1, -2).reshape(x.shape)
      y = blocks.convolve(w, y, channels, groups=channels)
      x = relu(x + blocks.convolve(w, y, channels, size=1, groups=2))
    return _classify(w, x)
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 3)))


def _patch_convolution(batch: int, side: int, channels: int, count: int) -> blocks.Model:
  """4x4 patches, then wide depthwise convolutions and dense layers at each position."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = blocks.convolve(w, x, channels, size=4, stride=4)
    for _ in range(count):
      y = blocks.layer_norm(w, blocks.convolve(w, x, channels, size=5, groups=channels))
      x = x + blocks.feed_forward(w, y)
    return _classify(w, blocks.layer_norm(w, x))
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 3)))


def _gated_convolution_1d(batch: int, length: int, channels: int, count: int) -> blocks.Model:
  """Dilated gated convolutions over a sequence; the outputs of all layers are added."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x, total = blocks.convolve(w, x, channels, size=1), 0.0
    for index in range(count):
      both = blocks.convolve(w, x, 2 * channels, size=2, dilation=2 ** index)
      value, gate = jnp.split(both, 2, axis=-1)
      y = jnp.tanh(value) * jax.nn.sigmoid(gate)
      total = total + blocks.convolve(w, y, channels, size=1)
      x = x + blocks.convolve(w, y, channels, size=1)
    return blocks.linear(w, relu(total), CLASSES)
  return blocks.Model(forward, blocks.normal_inputs((batch, length, 8)))


def _fire(batch: int, side: int, channels: int, count: int) -> blocks.Model:
  """A 1x1 convolution to a quarter of the channels, then parallel 1x1 and 3x3 convolutions."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = relu(blocks.convolve(w, x, channels, stride=2))
    for _ in range(count):
      y = relu(blocks.convolve(w, x, channels // 4, size=1))
      x = relu(jnp.concatenate([blocks.convolve(w, y, channels // 2, size=1),
                                blocks.convolve(w, y, channels // 2)], axis=-1))
    return blocks.convolve(w, x, CLASSES, size=1).mean((1, 2))
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 3)))


def _super_resolution(batch: int, side: int, channels: int, count: int) -> blocks.Model:
  """Residual convolutions; then channels become pixels of an image with twice the side."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = blocks.convolve(w, x, channels)
    for _ in range(count):
      x = x + blocks.convolve(w, relu(blocks.convolve(w, x, channels)), channels)
    x = blocks.convolve(w, x, 12).reshape(batch, side, side, 2, 2, 3)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * side, 2 * side, 3)
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 3)))


def _non_local(batch: int, side: int, channels: int, count: int) -> blocks.Model:
  """Convolutions, and attention between all positions."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = relu(blocks.convolve(w, x, channels, stride=2))
    for _ in range(count):
      x = relu(blocks.batch_norm(w, blocks.convolve(w, x, channels)))
      query, key, value = (
          blocks.convolve(w, x, channels // 2, size=1).reshape(batch, 1, -1, channels // 2)
          for _ in range(3))
      y = blocks.attend(query, key, value).reshape(*x.shape[:-1], channels // 2)
      x = x + blocks.convolve(w, y, channels, size=1)
    return _classify(w, x)
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 3)))


BUILDERS: dict[str, Callable[..., blocks.Model]] = {
    "resnet": _resnet, "separable": _separable, "densenet": _densenet,
    "convolution_1d": _convolution_1d, "conv_autoencoder": _conv_autoencoder,
    "bottleneck": _bottleneck, "unet": _unet, "squeeze_excite": _squeeze_excite,
    "inception": _inception, "channel_shuffle": _channel_shuffle,
    "patch_convolution": _patch_convolution, "gated_convolution_1d": _gated_convolution_1d,
    "fire": _fire, "super_resolution": _super_resolution, "non_local": _non_local}
