"""Families of computer vision: rendering, warping, matching, parts, codes, point clouds, video."""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp
import numpy as np

from tpugraphs_rank.collect.layout.builders import blocks

relu = jax.nn.relu


def _windows(x: jax.Array) -> list[jax.Array]:
  """The nine shifts of each image, (batch, height, width, channels), by at most one pixel."""
  height, width = x.shape[1:3]
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  return [padded[:, row:row + height, column:column + width]
          for row in range(3) for column in range(3)]


def _pool(x: jax.Array, size: int) -> jax.Array:
  """Means over squares of each image, (batch, height, width, channels)."""
  batch, height, width, channels = x.shape
  return x.reshape(batch, height // size, size, width // size, size, channels).mean((2, 4))


def _squeeze(x: jax.Array, size: int) -> jax.Array:
  """Squares of pixels become channels."""
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height // size, size, width // size, size, channels)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(
      batch, height // size, width // size, size * size * channels)


def _radiance_field(rays: int, samples: int, width: int, bands: int) -> blocks.Model:
  """Colours and densities of samples along rays, which are then combined as light is absorbed."""
  depths = np.linspace(0.5, 2, samples, dtype=np.float32)
  earlier = np.triu(np.ones((samples, samples), np.float32), 1)

  def forward(w: blocks.Weights, origins: jax.Array, directions: jax.Array) -> jax.Array:
    places = origins[:, None] + directions[:, None] * depths[:, None]
    waves = places[..., None] * 2.0 ** np.arange(bands)
    x = jnp.stack([jnp.sin(waves), jnp.cos(waves)], axis=-1).reshape(rays, samples, 6 * bands)
    y = relu(blocks.linear(w, relu(blocks.linear(w, x, width)), width))
    y = relu(blocks.linear(w, jnp.concatenate([x, y], axis=-1), width))
    absorbed = jax.nn.softplus(blocks.linear(w, y, 1)[..., 0]) / samples
    share = jnp.exp(-absorbed @ earlier) * (1 - jnp.exp(-absorbed))
    toward = blocks.linear(w, directions, width)[:, None]
    colours = jax.nn.sigmoid(blocks.linear(w, relu(blocks.linear(w, y, width) + toward), 3))
    return jnp.einsum("rs,rsc->rc", share, colours)
  return blocks.Model(forward, blocks.normal_inputs((rays, 3), (rays, 3)))


def _coupling_flow(batch: int, side: int, width: int, steps: int) -> blocks.Model:
  """Likelihoods by an invertible net: one half of the channels scales and shifts the other."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = _squeeze(x, 2)
    channels = x.shape[-1]
    total = jnp.zeros(x.shape[:-1])
    for _ in range(steps):
      x = blocks.linear(w, x * jnp.exp(w.shift(channels)), channels)
      fixed, changed = jnp.split(x, 2, axis=-1)
      y = relu(blocks.linear(w, relu(blocks.convolve(w, fixed, width)), width))
      scale, shift = jnp.split(blocks.convolve(w, y, channels), 2, axis=-1)
      scale = jnp.tanh(scale)
      total = total + scale.sum(-1)
      x = jnp.concatenate([fixed, changed * jnp.exp(scale) + shift], axis=-1)
    return (total - 0.5 * jnp.square(x).sum(-1)) / channels
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 3)))


def _optical_flow(batch: int, side: int, channels: int) -> blocks.Model:
  """Correlations of all positions of two images, and the mean displacement of each position."""
  half = side // 2
  grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, half)] * 2, indexing="ij"), -1)
  grid = grid.reshape(-1, 2).astype(np.float32)

  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = relu(blocks.convolve(w, x.reshape(2 * batch, side, side, 3), channels, stride=2))
    x = blocks.convolve(w, x, channels).reshape(2, batch, half, half, channels)
    volume = jnp.einsum("bijc,bklc->bijkl", x[0], x[1]) / math.sqrt(channels)
    match = jax.nn.softmax(volume.reshape(batch, half * half, half * half))
    flow = (match @ grid - grid).reshape(batch, half, half, 2)
    coarse = volume.reshape(batch, half * half, half // 2, 2, half // 2, 2).mean((3, 5))
    context = relu(blocks.linear(w, coarse.reshape(batch, half, half, -1), channels))
    y = jnp.concatenate([x[0], flow, context], axis=-1)
    return flow + blocks.convolve(w, relu(blocks.convolve(w, y, channels)), 2)
  return blocks.Model(forward, blocks.normal_inputs((2, batch, side, side, 3)))


def _spatial_transformer(batch: int, side: int, channels: int) -> blocks.Model:
  """An affine map of the image from a small net; bilinear sampling by products with weights."""
  axis = np.linspace(-1, 1, side, dtype=np.float32)
  grid = np.stack([*(part.reshape(-1) for part in np.meshgrid(axis, axis, indexing="ij")),
                   np.ones(side * side)]).astype(np.float32)

  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = relu(blocks.convolve(w, x, channels))
    y = relu(blocks.linear(w, _pool(x, 4).reshape(batch, -1), 16))
    affine = np.eye(2, 3, dtype=np.float32) + 0.2 * blocks.linear(w, y, 6).reshape(batch, 2, 3)
    places = (jnp.clip(affine @ grid, -1, 1) + 1) * ((side - 1) / 2)
    rows, columns = (relu(1 - jnp.abs(places[:, part, :, None] - np.arange(side)))
                     for part in range(2))
    sampled = jnp.einsum("bph,bhwc->bpwc", rows, x)
    sampled = jnp.einsum("bpw,bpwc->bpc", columns, sampled).reshape(x.shape)
    y = _pool(relu(blocks.convolve(w, sampled, 2 * channels)), 4)
    return blocks.linear(w, y.reshape(batch, -1), 10)
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 3)))


def _deformable_parts(batch: int, side: int, parts: int) -> blocks.Model:
  """Histograms of edge directions, scores of parts, and for each part its best displacement."""
  turns = np.arange(8) * np.pi / 4
  directions = np.stack([np.cos(turns), np.sin(turns)]).astype(np.float32)
  far = np.array([[row * row, column * column] for row in (-1, 0, 1) for column in (-1, 0, 1)],
                 np.float32)

  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    shifts = _windows(x)
    edges = jnp.concatenate([shifts[7] - shifts[1], shifts[5] - shifts[3]], axis=-1)
    cells = _pool(relu(edges @ directions), 4)
    cells = cells * jax.lax.rsqrt(jnp.square(cells).sum(-1, keepdims=True) + 0.1)
    costs = jnp.einsum("sa,ap->sp", far, jnp.square(w.kernel(2, parts)))
    scores = [shift - costs[index] for index, shift in
              enumerate(_windows(blocks.convolve(w, cells, parts)))]
    best = jax.nn.logsumexp(4 * jnp.stack(scores, axis=3), axis=3) / 4
    total = blocks.convolve(w, cells, 10) + blocks.linear(w, best, 10)
    return jax.nn.logsumexp(total, axis=(1, 2))
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 1)))


def _vector_quantiser(batch: int, side: int, width: int, heads: int, codes: int) -> blocks.Model:
  """Patches as mixtures of the nearest codes; a second codebook has the codes of the rests."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    short = side // 4
    y = _squeeze(x, 4).reshape(batch, short * short, 48)
    y = blocks.linear(w, relu(blocks.linear(w, y, 2 * width)), width)
    rest = y.reshape(batch, short * short, heads, width // heads)
    total = jnp.zeros_like(rest)
    for _ in range(2):
      book = w.experts(heads, width // heads, codes)
      apart = (jnp.square(rest).sum(-1, keepdims=True) + jnp.square(book).sum(1)
               - 2 * jnp.einsum("bthd,hdk->bthk", rest, book))
      nearest = jnp.einsum("bthk,hdk->bthd", jax.nn.softmax(-apart), book)
      total, rest = total + nearest, rest - nearest
    y = relu(blocks.linear(w, total.reshape(y.shape), 2 * width))
    y = blocks.linear(w, y, 48).reshape(batch, short, short, 4, 4, 3)
    return y.transpose(0, 1, 3, 2, 4, 5).reshape(batch, side, side, 3)
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 3)))


def _point_net(batch: int, points: int, width: int) -> blocks.Model:
  """Point clouds, turned by matrices that a small net computes; a label for each point."""
  def turned(w: blocks.Weights, x: jax.Array) -> jax.Array:
    size = x.shape[-1]
    y = relu(blocks.linear(w, relu(blocks.linear(w, x, width)), 2 * width)).max(1)
    matrix = blocks.linear(w, relu(blocks.linear(w, y, width)), size * size)
    return x @ (np.eye(size, dtype=np.float32) + 0.3 * matrix.reshape(batch, size, size))

  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = relu(blocks.linear(w, turned(w, x), width // 2))
    y = relu(blocks.linear(w, blocks.layer_norm(w, x), 2 * width))
    everywhere = jnp.broadcast_to(y.max(1, keepdims=True), y.shape)
    y = jnp.concatenate([x, everywhere], axis=-1)
    return blocks.linear(w, relu(blocks.linear(w, y, width)), 10)
  return blocks.Model(forward, blocks.normal_inputs((batch, points, 3)))


def _involution(batch: int, side: int, channels: int, groups: int, layers: int) -> blocks.Model:
  """Each position computes its own 3x3 kernels, which the channels of a group share."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = blocks.linear(w, _squeeze(x, 2), channels)
    grouped = (*x.shape[:3], groups, channels // groups)
    for _ in range(layers):
      kernels = relu(blocks.linear(w, x, channels // 2))
      kernels = blocks.linear(w, kernels, 9 * groups).reshape(*grouped[:3], 9, groups, 1)
      shifts = jnp.stack(_windows(x), axis=3).reshape(*grouped[:3], 9, *grouped[3:])
      y = (kernels * shifts).sum(3).reshape(x.shape)
      x = relu(blocks.batch_norm(w, x + y))
      x = x + blocks.linear(w, x, channels)
    return blocks.linear(w, x.mean((1, 2)), 10)
  return blocks.Model(forward, blocks.normal_inputs((batch, side, side, 3)))


def _spatiotemporal(batch: int, frames: int, side: int, channels: int, layers: int
                    ) -> blocks.Model:
  """Video: convolutions over each frame and over the time of each position, alternating."""
  def forward(w: blocks.Weights, x: jax.Array) -> jax.Array:
    x = blocks.linear(w, _squeeze(x.reshape(batch * frames, side, side, 3), 2), channels)
    half = side // 2
    for _ in range(layers):
      y = relu(blocks.batch_norm(w, blocks.convolve(w, x, channels, groups=channels)))
      y = y.reshape(batch, frames, half * half, channels).swapaxes(1, 2)
      y = blocks.convolve(w, y.reshape(batch * half * half, frames, channels), channels)
      y = y.reshape(batch, half * half, frames, channels).swapaxes(1, 2)
      x = x + relu(blocks.linear(w, y.reshape(x.shape), channels))
    return blocks.linear(w, x.reshape(batch, frames, half * half, channels).mean(2), 10)
  return blocks.Model(forward, blocks.normal_inputs((batch, frames, side, side, 3)))


BUILDERS: dict[str, Callable[..., blocks.Model]] = {
    "radiance_field": _radiance_field, "coupling_flow": _coupling_flow,
    "optical_flow": _optical_flow, "spatial_transformer": _spatial_transformer,
    "deformable_parts": _deformable_parts, "vector_quantiser": _vector_quantiser,
    "point_net": _point_net, "involution": _involution, "spatiotemporal": _spatiotemporal}
