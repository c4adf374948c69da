"""Diverse programs of JAX, and texts of protobufs. Runs in the collector's environment.

    XLA_FLAGS='--xla_dump_to=DIR --xla_dump_hlo_as_proto --xla_dump_hlo_as_text' \\
        python jax_programs.py
    python jax_programs.py MODULE.pb TEXT_PREFIX
    python jax_programs.py TEXT...

Without arguments, compiles the programs, and XLA dumps them. With a module and a prefix, writes the
texts of the `HloModuleProto` in the styles of XLA's versions. With texts, writes what XLA's own
parser makes of each, as TEXT.parsed.pb.
"""

import functools
import pathlib
import sys

import jax
from jax import lax
import jax.numpy as jnp


def transformer_block(x, w):
  """Attention and a feed-forward layer, with layer normalisation."""
  def normalised(y):
    mean = y.mean(-1, keepdims=True)
    return (y - mean) * lax.rsqrt(jnp.var(y, -1, keepdims=True) + 1e-6)
  q, k, v = (jnp.einsum("btd,dhe->bthe", normalised(x), w[name]) for name in "qkv")
  weights = jax.nn.softmax(jnp.einsum("bthe,bshe->bhts", q, k) / 4.0, axis=-1)
  x = x + jnp.einsum("bhts,bshe,hed->btd", weights, v, w["o"])
  return x + jax.nn.gelu(normalised(x) @ w["up"]) @ w["down"]


def convnet(x, kernels):
  """Convolutions with strides, dilation, groups and the gradient of all of it."""
  def loss(kernels):
    dims = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(x, kernels[0], (2, 1), "SAME", dimension_numbers=dims)
    y = lax.conv_general_dilated(
        jax.nn.relu(y), kernels[1], (1, 1), ((1, 2), (0, 1)), rhs_dilation=(2, 1),
        dimension_numbers=dims, feature_group_count=4)
    y = lax.reduce_window(y, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return (lax.conv_transpose(y, kernels[2], (2, 2), "SAME", dimension_numbers=dims) ** 2).sum()
  return jax.grad(loss)(kernels)


def loops(x, w):
  """A scan in a while loop with a condition."""
  def step(carry, row):
    carry = jnp.tanh(carry @ w + row)
    return carry, carry.sum()
  def body(state):
    i, y = state
    y, sums = lax.scan(step, y, x)
    return i + 1, y + sums.mean()
  return lax.while_loop(lambda state: (state[0] < 3) & (state[1].sum() < 1e6), body,
                        (0, jnp.ones((4, 8))))


def branches(i, x):
  """Two-way and many-way conditionals."""
  y = lax.cond(i > 1, lambda v: v * 2, lambda v: jnp.sin(v), x)
  return lax.switch(i, [jnp.cos, lambda v: v @ v.T @ v, lambda v: -v], y)


def sorting(x, y):
  """Sorts with several operands, arg sorts, top k."""
  a, b = lax.sort((x, y), dimension=1, is_stable=True, num_keys=1)
  return a, b, jnp.argsort(x, axis=0), lax.top_k(x, 3), jnp.median(x)


def indexing(x, i, updates):
  """Gathers, scatters, dynamic slices and updates."""
  y = x[i] + x[:, i[:3]].sum()
  y = y.at[i].add(updates).at[:, 2].set(1.0)
  part = lax.dynamic_slice(y, (i[0], i[1]), (2, 3))
  return (lax.dynamic_update_slice(y, part, (i[1], 0)), y[1:7:2, ::-1],
          lax.pad(y, 0.0, ((0, 1, 0), (2, -1, 3))), jnp.take_along_axis(y, i[:, None], 1))


def transforms(x):
  """Fourier transforms, complex numbers, and linear algebra."""
  spectrum = jnp.fft.rfft2(x) * jnp.exp(1j * x[:, :5])
  a = x @ x.T + 8 * jnp.eye(8)
  factor = jnp.linalg.cholesky(a)
  return jnp.fft.irfft2(spectrum), jax.scipy.linalg.solve_triangular(factor, x, lower=True)


def windows(x):
  """Reductions over windows: pooling, cumulative sums, and the gradient of a maximum."""
  def pooled(y):
    return lax.reduce_window(y, -jnp.inf, lax.max, (3, 2), (2, 2), ((1, 0), (0, 1)),
                             window_dilation=(1, 2)).sum()
  return jnp.cumsum(x, 0), jnp.cumprod(x, 1), jax.grad(lambda y: lax.reduce_window(
      y, -jnp.inf, lax.max, (2, 2), (2, 2), "VALID").sum())(x), pooled(x), lax.reduce(
          (x, x * 2), (0.0, -jnp.inf), lambda a, b: (a[0] + b[0], jnp.maximum(a[1], b[1])), (1,))


def random_numbers(key, x):
  """Random bits, and what distributions make of them."""
  keys = jax.random.split(key, 3)
  return (jax.random.normal(keys[0], (8, 8)), jax.random.permutation(keys[1], x),
          jax.random.categorical(keys[2], x), jax.random.randint(key, (4,), 0, 9))


def quantised(x, w):
  """Integer and narrow float products, conversions, and bit tricks."""
  scale = jnp.max(jnp.abs(x), axis=1, keepdims=True) / 127
  q = jnp.round(x / scale).astype(jnp.int8)
  product = lax.dot_general(q, w, (((1,), (0,)), ((), ())), preferred_element_type=jnp.int32)
  narrow = x.astype(jnp.float8_e4m3fn).astype(jnp.bfloat16) @ x.T.astype(jnp.bfloat16)
  bits = lax.bitcast_convert_type(x, jnp.uint32) >> 3
  return product * scale, narrow, lax.population_count(bits), x.astype(jnp.int4)


def checkpointed(x, w):
  """Rematerialisation, an optimisation barrier, derivatives, and nested tuples of results."""
  @functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.nothing_saveable)
  def layer(y):
    return jax.nn.silu(y @ w)
  value, grad = jax.value_and_grad(lambda y: layer(layer(y)).sum())(x)
  return {"value": (value, (grad, lax.optimization_barrier(x))), "empty": ()}


def f32(*shape):
  """The shape of an argument."""
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def i32(*shape):
  """The shape of an integer argument."""
  return jax.ShapeDtypeStruct(shape, jnp.int32)


HEADS = {name: f32(16, 2, 8) for name in "qkv"} | {
    "o": f32(2, 8, 16), "up": f32(16, 32), "down": f32(32, 16)}
PROGRAMS = {
    transformer_block: (f32(2, 6, 16), HEADS),
    convnet: (f32(2, 12, 10, 4), [f32(3, 3, 4, 8), f32(2, 2, 2, 8), f32(3, 3, 8, 4)]),
    loops: (f32(5, 4, 8), f32(8, 8)),
    branches: (i32(), f32(4, 4)),
    sorting: (f32(6, 8), i32(6, 8)),
    indexing: (f32(8, 8), i32(8), f32(8, 8)),
    transforms: (f32(8, 8),),
    windows: (f32(8, 6),),
    random_numbers: (jax.ShapeDtypeStruct((2,), jnp.uint32), f32(8, 8)),
    quantised: (f32(8, 16), jax.ShapeDtypeStruct((16, 8), jnp.int8)),
    checkpointed: (f32(4, 8), f32(8, 8)),
}

def write_texts(module: str, prefix: str) -> None:
  """Writes the texts of a module: as XLA dumps it now, and as it did before."""
  from jaxlib import xla_client
  hlo = xla_client.hlo
  loaded = hlo.HloModule.from_serialized_hlo_module_proto(pathlib.Path(module).read_bytes())
  older = hlo.HloPrintOptions()
  older.print_operand_shape = True
  older.print_large_constants = True
  for name, options in (("now", hlo.HloPrintOptions()), ("older", older)):
    pathlib.Path(f"{prefix}.{name}.txt").write_text(loaded.to_string(options))


def parse_texts(texts: list[str]) -> None:
  """Parses texts with XLA's parser."""
  from jaxlib import xla_client
  for text in texts:
    module = xla_client.hlo.hlo_module_from_text(pathlib.Path(text).read_text())
    pathlib.Path(f"{text}.parsed.pb").write_bytes(module.as_serialized_hlo_module_proto())


if __name__ == "__main__":
  if sys.argv[1:] and sys.argv[1].endswith(".txt"):
    parse_texts(sys.argv[1:])
  elif sys.argv[1:]:
    write_texts(*sys.argv[1:])
  else:
    # Files of results name this file without its folder.
    jax.config.update("jax_hlo_source_file_canonicalization_regex", ".*/")
    for function, shapes in PROGRAMS.items():
      jax.jit(function).lower(*shapes).compile()
