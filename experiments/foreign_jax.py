"""JAX programs of families that no collection has. Runs in the collector's environment.

`foreign_programs` starts this module. Weights and inputs are parameters of the program, so that
nothing is a constant that a compiler could fold.
"""

import argparse
from collections.abc import Callable
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

Program = tuple[Callable, tuple]


def _array(*sides: int, dtype: type = np.float32) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(sides, dtype)


def selective_scan() -> Program:
  """A block of Mamba: a state space whose steps depend on the input, and a parallel scan."""
  length, width, states, rank = 64, 64, 8, 4

  def function(x, into, steps, step_out, decay, readout):
    value, gate = jnp.split(x @ into, 2, axis=-1)
    value = jax.nn.silu(value)
    low, b, c = jnp.split(value @ steps, [rank, rank + states], axis=-1)
    step = jax.nn.softplus(low @ step_out)
    factors = jnp.exp(-step[..., None] * jnp.exp(decay))
    added = (step * value)[..., None] * b[..., None, :]
    _, state = jax.lax.associative_scan(
        lambda first, second: (first[0] * second[0], second[0] * first[1] + second[1]),
        (factors, added), axis=1)
    return (jnp.einsum("blws,bls->blw", state, c) * jax.nn.silu(gate)) @ readout

  return function, (_array(2, length, width), _array(width, 2 * width),
                    _array(width, rank + 2 * states), _array(rank, width), _array(width, states),
                    _array(width, width))


def normalising_flow() -> Program:
  """RealNVP: affine couplings, and the logarithm of the determinant."""
  rows, width, hidden, layers = 256, 64, 96, 4

  def function(x, first, second):
    logarithm = jnp.zeros(rows)
    for layer in range(layers):
      kept, changed = jnp.split(x, 2, axis=1)
      scale, shift = jnp.split(jnp.tanh(kept @ first[layer]) @ second[layer], 2, axis=1)
      scale = jnp.tanh(scale)
      logarithm += scale.sum(axis=1)
      x = jnp.concatenate([changed * jnp.exp(scale) + shift, kept], axis=1)
    return -0.5 * (x ** 2).sum(axis=1) + logarithm

  return function, (_array(rows, width), _array(layers, width // 2, hidden),
                    _array(layers, hidden, width))


def radiance_field() -> Program:
  """A neural radiance field: encoded positions along rays, a network, and volume rendering."""
  rays, samples, octaves, hidden = 64, 16, 6, 64

  def function(origins, directions, first, second, third):
    depths = jnp.linspace(0.1, 1.0, samples)
    points = origins[:, None] + depths[:, None] * directions[:, None]
    angles = points[..., None] * 2.0 ** jnp.arange(octaves)
    encoded = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1).reshape(rays, samples, -1)
    hidden_values = jax.nn.relu(jax.nn.relu(encoded @ first) @ second)
    colour, density = jnp.split(hidden_values @ third, [3], axis=-1)
    opacity = 1 - jnp.exp(-jax.nn.softplus(density[..., 0]) / samples)
    passed = jnp.cumprod(1 - opacity + 1e-6, axis=1)
    return jnp.einsum("rs,rsc->rc", opacity * passed, jax.nn.sigmoid(colour))

  return function, (_array(rays, 3), _array(rays, 3), _array(6 * octaves, hidden),
                    _array(hidden, hidden), _array(hidden, 4))


def physics_informed() -> Program:
  """The residual of the heat equation by a network, and the gradient of its square."""
  points, hidden = 128, 48

  def network(weights, place):
    first, second, third = weights
    return (jnp.tanh(jnp.tanh(place @ first) @ second) @ third)[0]

  def residual(weights, place):
    gradient = jax.grad(network, argnums=1)
    along = jnp.array([0.0, 1.0])
    _, second = jax.jvp(lambda p: gradient(weights, p)[1], (place,), (along,))
    return gradient(weights, place)[0] - second

  def function(weights, places):
    return jax.value_and_grad(lambda w: jnp.mean(jax.vmap(residual, (None, 0))(w, places) ** 2))(
        weights)

  return function, ((_array(2, hidden), _array(hidden, hidden), _array(hidden, 1)),
                    _array(points, 2))


def fourier_operator() -> Program:
  """A layer of a Fourier neural operator: products of the low frequencies, and a bypass."""
  batch, side, width, modes = 2, 32, 16, 8

  def function(x, real, imaginary, bypass, out):
    spectrum = jnp.fft.rfft2(x, axes=(1, 2))[:, :modes, :modes]
    mixed = jnp.einsum("bxyi,xyio->bxyo", spectrum, real + 1j * imaginary)
    padded = jnp.zeros((batch, side, side // 2 + 1, width), jnp.complex64)
    padded = padded.at[:, :modes, :modes].set(mixed)
    smooth = jnp.fft.irfft2(padded, (side, side), axes=(1, 2))
    return jax.nn.gelu(smooth + x @ bypass) @ out

  return function, (_array(batch, side, side, width), _array(modes, modes, width, width),
                    _array(modes, modes, width, width), _array(width, width),
                    _array(width, width))


def tensor_train() -> Program:
  """A dense layer whose matrix is a train of four small tensors."""
  rows, rank = 64, 8

  def function(x, a, b, c, d):
    x = jnp.einsum("nijkl,iap->njklap", x.reshape(rows, 6, 6, 6, 6), a)
    x = jnp.einsum("njklap,pjbq->nklabq", x, b)
    x = jnp.einsum("nklabq,qkcr->nlabcr", x, c)
    return jax.nn.relu(jnp.einsum("nlabcr,rld->nabcd", x, d).reshape(rows, -1))

  return function, (_array(rows, 1296), _array(6, 4, rank), _array(rank, 6, 4, rank),
                    _array(rank, 6, 4, rank), _array(rank, 6, 4))


def decoding_step() -> Program:
  """A step of a language model: rotated keys go into a cache at a position, in bfloat16."""
  batch, longest, heads, size = 4, 256, 4, 16

  def rotated(x, position):
    angle = position.astype(jnp.float32) * 10.0 ** -jnp.arange(0, 4, 8 / size)
    sine, cosine = jnp.sin(angle).astype(x.dtype), jnp.cos(angle).astype(x.dtype)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cosine - second * sine, first * sine + second * cosine], -1)

  def function(token, position, table, qkv, keys, values, out):
    x = table[token]
    query, key, value = jnp.split((x @ qkv).reshape(batch, heads, 3 * size), 3, axis=-1)
    query, key = rotated(query, position), rotated(key, position)
    keys = jax.lax.dynamic_update_slice(keys, key[:, None], (0, position, 0, 0))
    values = jax.lax.dynamic_update_slice(values, value[:, None], (0, position, 0, 0))
    scores = jnp.einsum("bhd,blhd->bhl", query, keys).astype(jnp.float32)
    scores = jnp.where(jnp.arange(longest) <= position, scores / size ** 0.5, -1e9)
    weights = jax.nn.softmax(scores).astype(keys.dtype)
    mixed = jnp.einsum("bhl,blhd->bhd", weights, values).reshape(batch, -1)
    return (x + mixed @ out) @ table.T, keys, values

  width, kind = heads * size, jnp.bfloat16
  return jax.jit(function, donate_argnums=(4, 5)), (
      _array(batch, dtype=np.int32), _array(dtype=np.int32), _array(500, width, dtype=kind),
      _array(width, 3 * width, dtype=kind), _array(batch, longest, heads, size, dtype=kind),
      _array(batch, longest, heads, size, dtype=kind), _array(width, width, dtype=kind))


def kalman_filter() -> Program:
  """A Kalman filter over many series: a loop of small products and solutions."""
  series, steps, state, seen = 32, 12, 8, 4

  def function(observed, transition, readout):
    def step(carry, value):
      mean, covariance = carry
      mean = mean @ transition.T
      covariance = transition @ covariance @ transition.T + 0.1 * jnp.eye(state)
      innovation = readout @ covariance @ readout.T + jnp.eye(seen)
      gain = jnp.linalg.solve(innovation, readout @ covariance).transpose(0, 2, 1)
      mean += jnp.einsum("nso,no->ns", gain, value - mean @ readout.T)
      covariance = covariance - gain @ readout @ covariance
      return (mean, covariance), mean
    start = jnp.zeros((series, state)), jnp.tile(jnp.eye(state), (series, 1, 1))
    return jax.lax.scan(step, start, observed)[1]

  return function, (_array(steps, series, seen), _array(state, state), _array(seen, state))


def optimal_transport() -> Program:
  """Sinkhorn's iterations between two clouds of points, until they converge or a limit."""
  points, width = 192, 32

  def function(first, second):
    cost = (first ** 2).sum(1)[:, None] + (second ** 2).sum(1) - 2 * first @ second.T
    kernel = jnp.exp(-cost / cost.mean())

    def body(carry):
      number, u, _ = carry
      v = 1 / (kernel.T @ u)
      new = 1 / (kernel @ v)
      return number + 1, new, jnp.abs(new - u).max()

    _, u, _ = jax.lax.while_loop(lambda carry: (carry[0] < 40) & (carry[2] > 1e-12), body,
                                 (0, jnp.ones(points), jnp.inf))
    plan = u[:, None] * kernel / (kernel.T @ u)
    return plan @ second, (plan * cost).sum()

  return function, (_array(points, width), _array(points, width))


def image_codec() -> Program:
  """A codec of images in blocks of 8 by 8: cosine transform, quantisation, and back."""
  batch, side = 8, 64

  def function(images, transform, steps):
    blocks = images.reshape(batch, side // 8, 8, side // 8, 8, 3).transpose(0, 1, 3, 5, 2, 4)
    spectrum = jnp.einsum("ux,bijcxy,vy->bijcuv", transform, blocks, transform)
    rounded = jnp.round(spectrum / steps) * steps
    back = jnp.einsum("ux,bijcuv,vy->bijcxy", transform, rounded, transform)
    return back.transpose(0, 1, 4, 2, 5, 3).reshape(batch, side, side, 3)

  return function, (_array(batch, side, side, 3), _array(8, 8), _array(8, 8))


PROGRAMS = (selective_scan, normalising_flow, radiance_field, physics_informed, fourier_operator,
            tensor_train, decoding_step, kalman_filter, optimal_transport, image_codec)


def export(folder: pathlib.Path) -> None:
  """Writes every program to `<folder>/jax_<name>.hlo.pb`, unless the file exists."""
  for build in PROGRAMS:
    path = folder / f"jax_{build.__name__}.hlo.pb"
    if path.exists():
      continue
    start = time.monotonic()
    function, arguments = build()
    module = jax.jit(function).lower(*arguments).compiler_ir("hlo")
    partial = path.with_suffix(".partial")
    partial.write_bytes(module.as_serialized_hlo_module_proto())
    partial.replace(path)
    print(f"{path.name}: exported in {time.monotonic() - start:.1f} s", flush=True)


def main() -> None:
  """Exports with command-line arguments."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--folder", required=True, type=pathlib.Path)
  export(parser.parse_args().folder)


if __name__ == "__main__":
  main()
