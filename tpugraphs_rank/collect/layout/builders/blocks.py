"""Parts of the models: weights, convolutions, normalisations, attention heads."""

from collections.abc import Callable, Sequence
import dataclasses
import math

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

_CONVOLUTION = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}


class Weights:
  """Provides the weights of a model in the order in which the model requests them.

  Args:
    arrays: the weights; None: they are drawn from `rng`.
    rng: the random generator.

  Attributes:
    arrays: the weights, also those that were drawn.
  """

  def __init__(self, arrays: list[jax.Array] | None = None,
               rng: np.random.Generator | None = None) -> None:
    self.arrays = [] if arrays is None else arrays
    self._rng = rng if arrays is None else None
    self._next = 0

  def _take(self, shape: Sequence[int], mean: float, deviation: float) -> jax.Array:
    if self._rng is not None:
      self.arrays.append(
          self._rng.normal(mean, deviation, tuple(shape)).astype(np.float32))
    self._next += 1
    return jnp.asarray(self.arrays[self._next - 1])

  def kernel(self, *shape: int) -> jax.Array:
    """Weights of a product or convolution, which sums over all axes except the last."""
    return self._take(shape, 0.0, 1 / math.sqrt(math.prod(shape[:-1])))

  def experts(self, *shape: int) -> jax.Array:
    """One matrix for each expert, (experts, in, out)."""
    return self._take(shape, 0.0, 1 / math.sqrt(shape[-2]))

  def scale(self, size: int) -> jax.Array:
    return self._take((size,), 1.0, 0.1)

  def shift(self, size: int) -> jax.Array:
    return self._take((size,), 0.0, 0.1)


@dataclasses.dataclass(frozen=True)
class Model:
  """A model of a family.

  Attributes:
    forward: (weights, *inputs) -> output.
    inputs: rng -> the inputs, as arrays of the host.
  """

  forward: Callable[..., jax.Array]
  inputs: Callable[[np.random.Generator], list[np.ndarray]]


def normal_inputs(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], list[np.ndarray]]:
  """Inputs drawn from the normal distribution."""
  return lambda rng: [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def linear(w: Weights, x: jax.Array, width: int) -> jax.Array:
  """x @ kernel + bias, over the last axis."""
  return x @ w.kernel(x.shape[-1], width) + w.shift(width)


def convolve(w: Weights, x: jax.Array, channels: int, size: int = 3, stride: int = 1,
             dilation: int = 1, groups: int = 1) -> jax.Array:
  """A convolution with padding, which keeps the size if the stride is 1; channels are last."""
  axes = x.ndim - 2
  kernel = w.kernel(*(size,) * axes, x.shape[-1] // groups, channels)
  return lax.conv_general_dilated(
      x, kernel, (stride,) * axes, "SAME", rhs_dilation=(dilation,) * axes,
      dimension_numbers=_CONVOLUTION[axes], feature_group_count=groups)


def upconvolve(w: Weights, x: jax.Array, channels: int) -> jax.Array:
  """A transposed convolution that doubles both sides."""
  return lax.conv_transpose(x, w.kernel(3, 3, x.shape[-1], channels), (2, 2), "SAME",
                            dimension_numbers=_CONVOLUTION[2])


def _standardise(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
  centred = x - x.mean(axes, keepdims=True)
  return centred * lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + 1e-5)


def batch_norm(w: Weights, x: jax.Array) -> jax.Array:
  """Normalises each channel to mean 0 and variance 1 over all other axes; then scale and shift."""
  size = x.shape[-1]
  return _standardise(x, tuple(range(x.ndim - 1))) * w.scale(size) + w.shift(size)


def layer_norm(w: Weights, x: jax.Array) -> jax.Array:
  """Normalises the last axis to mean 0 and variance 1; then scale and shift."""
  size = x.shape[-1]
  return _standardise(x, (x.ndim - 1,)) * w.scale(size) + w.shift(size)


def rms_norm(w: Weights, x: jax.Array) -> jax.Array:
  """The last axis to mean square 1, then scale."""
  return x * lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-5) * w.scale(x.shape[-1])


def group_norm(w: Weights, x: jax.Array, groups: int) -> jax.Array:
  """Normalises groups of channels to mean 0 and variance 1 in each image; then scale and shift."""
  size = x.shape[-1]
  grouped = x.reshape(*x.shape[:-1], groups, size // groups)
  normal = _standardise(grouped, (*range(1, x.ndim - 1), x.ndim)).reshape(x.shape)
  return normal * w.scale(size) + w.shift(size)


def squared_distances(x: jax.Array, y: jax.Array) -> jax.Array:
  """Between all pairs of points, (..., n, d) and (..., m, d) -> (..., n, m)."""
  squares = jnp.square(x).sum(-1)[..., :, None] + jnp.square(y).sum(-1)[..., None, :]
  return jnp.maximum(squares - 2 * x @ y.swapaxes(-1, -2), 0.0)


def split_heads(x: jax.Array, heads: int) -> jax.Array:
  """(batch, length, width) -> (batch, heads, length, width / heads)."""
  batch, length, width = x.shape
  return x.reshape(batch, length, heads, width // heads).transpose(0, 2, 1, 3)


def merge_heads(x: jax.Array) -> jax.Array:
  """The inverse of `split_heads`."""
  batch, heads, length, size = x.shape
  return x.transpose(0, 2, 1, 3).reshape(batch, length, heads * size)


def attend(query: jax.Array, key: jax.Array, value: jax.Array, causal: bool = False
           ) -> jax.Array:
  """Softmax attention; (batch, heads, length, size) each."""
  scores = jnp.einsum("bhqd,bhkd->bhqk", query, key) / math.sqrt(query.shape[-1])
  if causal:
    later = np.triu(np.ones(scores.shape[-2:], bool), 1)
    scores = jnp.where(later, -1e9, scores)
  return jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(scores), value)


def feed_forward(w: Weights, x: jax.Array, factor: int = 2) -> jax.Array:
  """Two linear layers with a GELU between them."""
  return linear(w, jax.nn.gelu(linear(w, x, factor * x.shape[-1])), x.shape[-1])
