"""Writes `transformer_block.hlo.pb`: a block of a transformer in JAX, before optimisation.

  python examples/transformer_block.py tpugraphs_rank/bundled/examples/transformer_block.hlo.pb

Needs JAX, for instance in the collector's environment.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp

BATCH, LENGTH, WIDTH, HEADS = 4, 64, 128, 4


def normalised(x, scale):
  centred = x - x.mean(axis=-1, keepdims=True)
  variance = jnp.square(centred).mean(axis=-1, keepdims=True)
  return scale * centred * jax.lax.rsqrt(variance + 1e-6)


def transformer_block(x, parameters):
  """Attention and a perceptron, each with a residual: (batch, length, width) to the same."""
  y = normalised(x, parameters["scale_1"])
  query, key, value = ((y @ parameters[name]).reshape(BATCH, LENGTH, HEADS, WIDTH // HEADS)
                       for name in ("query", "key", "value"))
  weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", query, key) / (WIDTH // HEADS) ** 0.5)
  mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(BATCH, LENGTH, WIDTH)
  x = x + mixed @ parameters["project"]
  y = normalised(x, parameters["scale_2"])
  return x + jax.nn.gelu(y @ parameters["wide"]) @ parameters["narrow"]


def main():
  shape = lambda *axes: jax.ShapeDtypeStruct(axes, jnp.float32)
  parameters = {name: shape(WIDTH, WIDTH) for name in ("query", "key", "value", "project")}
  parameters |= {"scale_1": shape(WIDTH), "scale_2": shape(WIDTH),
                 "wide": shape(WIDTH, 4 * WIDTH), "narrow": shape(4 * WIDTH, WIDTH)}
  lowered = jax.jit(transformer_block).lower(shape(BATCH, LENGTH, WIDTH), parameters)
  hlo = lowered.compiler_ir("hlo").as_serialized_hlo_module_proto()
  pathlib.Path(sys.argv[1]).write_bytes(hlo)


if __name__ == "__main__":
  main()
