"""Full-size models whose HLO the scale study uses. Nothing is computed, and there are no weights.

  python -m experiments.scale.programs --output build/scale/hlo

runs in the collector's environment, because this module needs JAX. It traces every model of
`catalogue` for abstract arguments and writes the HLO before optimisation, `<name>.pb`. Calls of
jitted functions are inlined, as in the programs of TpuGraphs.
"""

import argparse
from collections.abc import Callable, Sequence
import pathlib
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from tpugraphs_rank import files
from tpugraphs_rank.collect.layout import sites
from tpugraphs_rank.collect.layout.builders import blocks

Weights = blocks.Weights
relu = jax.nn.relu


class Program(NamedTuple):
  """A program to export.

  Attributes:
    name: `<family>.<number>_<forward or gradient>`.
    forward: (weights, input) -> output.
    shape: of the input.
    gradient: whether the program also computes the gradient for all weights.
  """

  name: str
  forward: Callable[[Weights, jax.Array], jax.Array]
  shape: tuple[int, ...]
  gradient: bool


class _Recorded(Weights):
  """Records the shapes of the weights that a model requests."""

  def _take(self, shape: Sequence[int], mean: float, deviation: float) -> jax.Array:
    del mean, deviation
    self.arrays.append(jax.ShapeDtypeStruct(tuple(shape), jnp.float32))  # type: ignore[arg-type]
    return jnp.zeros(tuple(shape), jnp.float32)


def _pool(x: jax.Array) -> jax.Array:
  """The largest of 3 x 3, every other row and column."""
  return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")


def _classify(w: Weights, x: jax.Array) -> jax.Array:
  return blocks.linear(w, x.mean(tuple(range(1, x.ndim - 1))), 1000)


def _unit(w: Weights, x: jax.Array, channels: int, size: int = 3, stride: int = 1,
          groups: int = 1) -> jax.Array:
  """Convolution, normalisation, activation."""
  return relu(blocks.batch_norm(w, blocks.convolve(w, x, channels, size, stride, groups=groups)))


def _resnet(stages: Sequence[int], channels: int, squeeze: bool = False):
  def forward(w: Weights, x: jax.Array) -> jax.Array:
    x = _pool(_unit(w, x, channels, 7, 2))
    for stage, count in enumerate(stages):
      width = channels * 2 ** stage
      for index in range(count):
        stride = 2 if stage and not index else 1
        y = _unit(w, _unit(w, x, width, 1), width, 3, stride)
        y = blocks.batch_norm(w, blocks.convolve(w, y, 4 * width, 1))
        if squeeze:
          gate = relu(blocks.linear(w, y.mean((1, 2)), width // 4))
          y = y * jax.nn.sigmoid(blocks.linear(w, gate, 4 * width))[:, None, None]
        if not index:
          x = blocks.convolve(w, x, 4 * width, 1, stride)
        x = relu(x + y)
    return _classify(w, x)
  return forward


def _mobilenet(counts: Sequence[int], channels: int):
  def forward(w: Weights, x: jax.Array) -> jax.Array:
    x = _unit(w, x, channels, 3, 2)
    for stage, count in enumerate(counts):
      width = channels * (stage + 1)
      for index in range(count):
        y = _unit(w, x, 6 * x.shape[-1], 1)
        y = _unit(w, y, y.shape[-1], 3, 1 if index else 2, groups=y.shape[-1])
        y = blocks.batch_norm(w, blocks.convolve(w, y, width, 1))
        x = x + y if index else y
    return _classify(w, _unit(w, x, 4 * x.shape[-1], 1))
  return forward


def _densenet(counts: Sequence[int], growth: int):
  def forward(w: Weights, x: jax.Array) -> jax.Array:
    x = _pool(_unit(w, x, 2 * growth, 7, 2))
    for stage, count in enumerate(counts):
      for _ in range(count):
        y = blocks.convolve(w, relu(blocks.batch_norm(w, x)), 4 * growth, 1)
        y = blocks.convolve(w, relu(blocks.batch_norm(w, y)), growth)
        x = jnp.concatenate([x, y], axis=-1)
      if stage + 1 < len(counts):
        x = _pool(blocks.convolve(w, relu(blocks.batch_norm(w, x)), x.shape[-1] // 2, 1))
    return _classify(w, x)
  return forward


def _inception(count: int, channels: int):
  def forward(w: Weights, x: jax.Array) -> jax.Array:
    x = _pool(_unit(w, x, channels, 7, 2))
    for index in range(count):
      if index % 3 == 2:
        x = _pool(x)
      branches = [_unit(w, x, channels, 1), _unit(w, _unit(w, x, channels, 1), channels),
                  _unit(w, _unit(w, _unit(w, x, channels // 2, 1), channels), channels),
                  _unit(w, x, channels // 2, 1)]
      x = jnp.concatenate(branches, axis=-1)
    return _classify(w, x)
  return forward


def _convnext(counts: Sequence[int], channels: int):
  def forward(w: Weights, x: jax.Array) -> jax.Array:
    x = blocks.layer_norm(w, blocks.convolve(w, x, channels, 4, 4))
    for stage, count in enumerate(counts):
      for _ in range(count):
        y = blocks.convolve(w, x, x.shape[-1], 7, groups=x.shape[-1])
        x = x + w.scale(x.shape[-1]) * blocks.feed_forward(w, blocks.layer_norm(w, y), 4)
      if stage + 1 < len(counts):
        x = blocks.convolve(w, blocks.layer_norm(w, x), 2 * x.shape[-1], 2, 2)
    return _classify(w, x)
  return forward


def _unet(depth: int, channels: int, units: int):
  def forward(w: Weights, x: jax.Array) -> jax.Array:
    skips = []
    for level in range(depth):
      for _ in range(units):
        x = _unit(w, x, channels * 2 ** level)
      skips.append(x)
      x = _pool(x)
    for _ in range(units):
      x = _unit(w, x, channels * 2 ** depth)
    for level in reversed(range(depth)):
      x = jnp.concatenate([skips[level], blocks.upconvolve(w, x, channels * 2 ** level)], axis=-1)
      for _ in range(units):
        x = _unit(w, x, channels * 2 ** level)
    return blocks.convolve(w, x, 4, 1)
  return forward


def _wavenet(layers: int, channels: int):
  def forward(w: Weights, x: jax.Array) -> jax.Array:
    x = blocks.convolve(w, x, channels, 2)
    total = jnp.zeros_like(x)
    for index in range(layers):
      y = blocks.convolve(w, x, 2 * channels, 2, dilation=2 ** (index % 8))
      y = jnp.tanh(y[..., :channels]) * jax.nn.sigmoid(y[..., channels:])
      x = x + blocks.convolve(w, y, channels, 1)
      total = total + blocks.convolve(w, y, channels, 1)
    return blocks.convolve(w, relu(total), 256, 1)
  return forward


def _attention(w: Weights, x: jax.Array, heads: int) -> jax.Array:
  query, key, value = (blocks.split_heads(blocks.linear(w, x, x.shape[-1]), heads)
                       for _ in range(3))
  return blocks.linear(w, blocks.merge_heads(blocks.attend(query, key, value)), x.shape[-1])


def _transformer(layers: int, heads: int):
  def forward(w: Weights, x: jax.Array) -> jax.Array:
    for _ in range(layers):
      x = blocks.layer_norm(w, x + _attention(w, x, heads))
      x = blocks.layer_norm(w, x + blocks.feed_forward(w, x, 4))
    return x
  return forward


def _gated_decoder(layers: int, heads: int):
  def forward(w: Weights, x: jax.Array) -> jax.Array:
    width = x.shape[-1]
    for _ in range(layers):
      y = blocks.rms_norm(w, x)
      query = blocks.split_heads(y @ w.kernel(width, width), heads)
      key, value = ((y @ w.kernel(width, width // heads))[:, None] for _ in range(2))
      key, value = (jnp.broadcast_to(part, query.shape) for part in (key, value))
      x = x + blocks.merge_heads(blocks.attend(query, key, value)) @ w.kernel(width, width)
      y = blocks.rms_norm(w, x)
      y = jax.nn.silu(y @ w.kernel(width, 3 * width)) * (y @ w.kernel(width, 3 * width))
      x = x + y @ w.kernel(3 * width, width)
    return blocks.rms_norm(w, x)
  return forward


def _vit(layers: int, heads: int, patch: int, width: int):
  def forward(w: Weights, x: jax.Array) -> jax.Array:
    x = blocks.convolve(w, x, width, patch, patch)
    x = x.reshape(x.shape[0], -1, width)
    for _ in range(layers):
      x = x + _attention(w, blocks.layer_norm(w, x), heads)
      x = x + blocks.feed_forward(w, blocks.layer_norm(w, x), 4)
    return _classify(w, x)
  return forward


def _mixer(layers: int, patch: int, width: int):
  def forward(w: Weights, x: jax.Array) -> jax.Array:
    x = blocks.convolve(w, x, width, patch, patch)
    x = x.reshape(x.shape[0], -1, width)
    for _ in range(layers):
      y = blocks.layer_norm(w, x).transpose(0, 2, 1)
      x = x + blocks.feed_forward(w, y, 2).transpose(0, 2, 1)
      x = x + blocks.feed_forward(w, blocks.layer_norm(w, x), 4)
    return _classify(w, x)
  return forward


def _lstm(layers: int, width: int):
  def forward(w: Weights, x: jax.Array) -> jax.Array:
    steps = [x[:, step] for step in range(x.shape[1])]
    for _ in range(layers):
      kernel, shift = w.kernel(steps[0].shape[-1] + width, 4 * width), w.shift(4 * width)
      hidden = cell = jnp.zeros([x.shape[0], width])
      for step, value in enumerate(steps):
        gates = jnp.concatenate([value, hidden], axis=-1) @ kernel + shift
        take, keep, give, new = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(take) * jnp.tanh(new)
        hidden = jax.nn.sigmoid(give) * jnp.tanh(cell)
        steps[step] = hidden
    return jnp.stack(steps, axis=1) @ w.kernel(width, 1000)
  return forward


def _gru(layers: int, width: int):
  def forward(w: Weights, x: jax.Array) -> jax.Array:
    steps = [x[:, step] for step in range(x.shape[1])]
    for _ in range(layers):
      of_input, of_state = (w.kernel(steps[0].shape[-1], 3 * width), w.kernel(width, 3 * width))
      hidden = jnp.zeros([x.shape[0], width])
      for step, value in enumerate(steps):
        one, other = jnp.split(value @ of_input, 3, axis=-1), jnp.split(hidden @ of_state, 3, -1)
        keep = jax.nn.sigmoid(one[0] + other[0])
        new = jnp.tanh(one[2] + jax.nn.sigmoid(one[1] + other[1]) * other[2])
        hidden = keep * hidden + (1 - keep) * new
        steps[step] = hidden
    return blocks.linear(w, jnp.stack(steps, axis=1), 1000)
  return forward


def catalogue() -> list[Program]:
  """The programs: of every model the forward pass, the gradient, or both."""
  image = lambda batch, side=224: (batch, side, side, 3)
  models: dict[str, list[tuple[Any, tuple[int, ...]]]] = {
      "resnet": [(_resnet([3, 4, 6, 3], 64), image(32)), (_resnet([3, 4, 23, 3], 64), image(16)),
                 (_resnet([2, 2, 2, 2], 48), image(8, 160))],
      "squeeze_resnet": [(_resnet([2, 3, 4, 2], 40, True), image(20, 192)),
                         (_resnet([3, 4, 6, 3], 64, True), image(8))],
      "mobilenet": [(_mobilenet([2, 3, 4, 3], 24), image(64)),
                    (_mobilenet([3, 4, 6, 3], 32), image(24, 192))],
      "densenet": [(_densenet([6, 12, 24, 16], 32), image(16)),
                   (_densenet([4, 8, 12], 24), image(32, 160))],
      "inception": [(_inception(9, 96), image(32)), (_inception(14, 64), image(12, 256))],
      "convnext": [(_convnext([3, 3, 9, 3], 96), image(16)),
                   (_convnext([2, 2, 6, 2], 80), image(48, 192))],
      "unet": [(_unet(4, 64, 3), image(4, 256)), (_unet(5, 32, 3), image(8)),
               (_unet(4, 48, 3), image(2, 512))],
      "wavenet": [(_wavenet(70, 128), (4, 8000, 1)), (_wavenet(100, 64), (8, 4000, 1))],
      "transformer": [(_transformer(8, 8), (16, 512, 512)), (_transformer(12, 12), (8, 384, 768)),
                      (_transformer(24, 16), (4, 512, 1024))],
      "gated_decoder": [(_gated_decoder(11, 16), (4, 1024, 1024)),
                        (_gated_decoder(20, 8), (12, 320, 768))],
      "vit": [(_vit(12, 12, 16, 768), image(32)), (_vit(8, 6, 32, 384), image(100, 320))],
      "mixer": [(_mixer(12, 16, 512), image(32)), (_mixer(24, 32, 768), image(48, 256))],
      "lstm": [(_lstm(2, 512), (64, 40, 256)), (_lstm(3, 320), (20, 60, 320))],
      "gru": [(_gru(2, 640), (48, 48, 200)), (_gru(4, 256), (128, 40, 256))],
  }
  programs = []
  for family, members in models.items():
    for number, (forward, shape) in enumerate(members):
      for gradient in (False, True):
        what = "gradient" if gradient else "forward"
        programs.append(Program(f"{family}.{number}_{what}", forward, shape, gradient))
  return programs


def module(program: Program) -> bytes:
  """The HLO of a program before optimisation, a serialised `HloModuleProto`."""
  recorded = _Recorded([])
  abstract = jax.ShapeDtypeStruct(program.shape, jnp.float32)
  jax.eval_shape(lambda x: program.forward(recorded, x), abstract)

  def forward(weights: list[jax.Array], x: jax.Array) -> jax.Array:
    return program.forward(Weights(weights), x)

  def loss(weights: list[jax.Array], x: jax.Array) -> jax.Array:
    return jnp.square(forward(weights, x)).mean()

  function = jax.grad(loss) if program.gradient else forward
  flat = lambda x, *weights: function(list(weights), x)
  return sites.module_bytes(sites.Traced(flat, [abstract, *recorded.arrays]).lower({}))


def main() -> None:
  """Exports all programs that do not exist yet."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--output", required=True, type=pathlib.Path)
  parser.add_argument("--only", default="", help="Names that begin with this.")
  arguments = parser.parse_args()
  for program in catalogue():
    path = arguments.output / f"{program.name}.pb"
    if program.name.startswith(arguments.only) and not path.exists():
      with files.atomic_write(path) as file:
        file.write(module(program))
      print(f"{path}: {path.stat().st_size} bytes", flush=True)


if __name__ == "__main__":
  main()
