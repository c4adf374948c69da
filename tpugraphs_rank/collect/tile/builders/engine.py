"""The blocked loop that all tiled programs share.

The program really runs tile by tile: a `fori_loop` over the output blocks contains one over the
reduction blocks, which slices the operands with `dynamic_slice` and adds to an accumulator. The
finished block is stored with `dynamic_update_slice`.
"""

from collections.abc import Callable, Sequence
import dataclasses
import math
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from tpugraphs_rank.collect.tile import geometry

DTYPES: dict[str, Any] = {"f32": jnp.float32, "bf16": jnp.bfloat16, "s32": jnp.int32}

Starts = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class TiledProgram:
  """A kernel that can be run, untiled and tiled.

  Attributes:
    reference: the untiled computation; its HLO before optimisation is featurized.
    tiled: tile -> the same computation in blocks.
    inputs: rng -> the operands, as arrays of the host.
  """

  reference: Callable[..., jax.Array]
  tiled: Callable[[geometry.Tile], Callable[..., jax.Array]]
  inputs: Callable[[np.random.Generator], list[np.ndarray]]


def accumulator(dtype: str) -> Any:
  """The type of sums: float32 for floating-point types, int32 for integers."""
  return jnp.int32 if dtype == "s32" else jnp.float32


def widen(array: jax.Array) -> jax.Array:
  """Converts bfloat16 to float32; other types are unchanged."""
  return array.astype(jnp.float32) if array.dtype == jnp.bfloat16 else array


def cut(array: jax.Array, starts: Sequence[Any], sizes: Sequence[int]) -> jax.Array:
  """The block of `array` at `starts`."""
  return lax.dynamic_slice(array, tuple(starts), tuple(sizes))


def unravel(index: Any, sizes: Sequence[int], tile: Sequence[int]) -> Starts:
  """The starts of block number `index`; the last axis varies fastest, and an unsplit axis has 0."""
  starts: list[Any] = []
  for size, side in zip(reversed(sizes), reversed(tile)):
    count = size // side
    starts.append(0 if count == 1 else index % count * side)
    index = index // count if count > 1 else index
  return tuple(reversed(starts))


def blocks(sizes: Sequence[int], tile: Sequence[int]) -> int:
  """The number of blocks that cover the axes."""
  return math.prod(size // side for size, side in zip(sizes, tile))


def blocked(kernel: geometry.Kernel,
            step: Callable[..., jax.Array],
            finish: Callable[..., jax.Array],
            initial: float = 0,
            prepare: Callable[..., tuple[jax.Array, ...]] | None = None,
            ) -> Callable[[geometry.Tile], Callable[..., jax.Array]]:
  """Builds `tiled` from the computation of one block.

  Args:
    kernel: the kernel, for the axes and the type of the result.
    step: (acc, tile, output starts, reduction starts, *operands) -> acc. `acc` has the shape of
      the output block and the accumulator's type. Without reduction axes, `step` runs once.
    finish: (acc, tile, output starts, *operands) -> the finished block, of any type.
    initial: initial value of the accumulator.
    prepare: operands -> operands, once before the loop (padding).
  """
  start = lambda tile, at, *operands: jnp.full(tile.output, initial, accumulator(kernel.dtype))
  return folded(kernel, start, step, finish, prepare=prepare)


def draw(rng: np.random.Generator, shape: Sequence[int], dtype: str) -> np.ndarray:
  """A random operand: standard normal numbers, or integers from -8 to 7."""
  if dtype == "s32":
    return rng.integers(-8, 8, shape).astype(np.int32)
  return np.asarray(rng.standard_normal(shape, dtype=np.float32)).astype(DTYPES[dtype])


def blank(kernel: geometry.Kernel) -> jax.Array:
  """The result before its first block is stored; bfloat16 is stored as its bit pattern.

  XLA:CPU converts a bfloat16 `dynamic_update_slice` to float32 and therefore rewrites the whole
  result in each step. The bit pattern is stored in place, as all other types are.
  """
  dtype = DTYPES[kernel.dtype]
  return jnp.zeros(kernel.output_axes, jnp.uint16 if dtype == jnp.bfloat16 else dtype)


def store(result: jax.Array, block: jax.Array, starts: Sequence[Any],
          dtype: Any) -> jax.Array:
  """Puts a finished block, rounded to `dtype`, at `starts` of a result begun by `blank`."""
  block = block.astype(dtype)
  if dtype == jnp.bfloat16:
    block = lax.bitcast_convert_type(block, jnp.uint16)
  return lax.dynamic_update_slice(result, block, tuple(starts))


def loaded(result: jax.Array, dtype: Any) -> jax.Array:
  """The finished result in its own type."""
  return lax.bitcast_convert_type(result, dtype) if dtype == jnp.bfloat16 else result


def operands(dtype: str, *shapes: Sequence[int]
             ) -> Callable[[np.random.Generator], list[np.ndarray]]:
  """`inputs` of a program whose operands are plain arrays of its own type."""
  return lambda rng: [draw(rng, shape, dtype) for shape in shapes]


def positions(start: Any, count: int) -> jax.Array:
  """The numbers from `start` to `start + count - 1`."""
  numbers = jnp.arange(count)
  return numbers if isinstance(start, int) and start == 0 else start + numbers


def part(array: jax.Array, starts: Sequence[Any], sizes: Sequence[int]) -> jax.Array:
  """`cut`, or the array itself if the block is all of it."""
  return array if array.shape == tuple(sizes) else cut(array, starts, sizes)


def folded(kernel: geometry.Kernel,
           start: Callable[..., Any],
           step: Callable[..., Any],
           finish: Callable[..., jax.Array],
           span: Callable[..., tuple[Any, Any]] | None = None,
           prepare: Callable[..., tuple[jax.Array, ...]] | None = None,
           ) -> Callable[[geometry.Tile], Callable[..., jax.Array]]:
  """Like `blocked`, for kernels that carry more than a sum or skip reduction blocks.

  Args:
    kernel: the kernel. Without reduction axes, `step` runs once.
    start: (tile, output starts, *operands) -> the state before the first reduction block.
    step: (state, tile, output starts, reduction starts, *operands) -> state.
    finish: (state, tile, output starts, *operands) -> the finished block, of any type.
    span: (tile, output starts, *operands) -> numbers of the first reduction block and of the one
      after the last; None: all.
    prepare: operands -> operands, once before the loop.
  """
  output_axes, reduction_axes = kernel.output_axes, kernel.reduction_axes
  dtype = DTYPES[kernel.dtype]

  def tiled(tile: geometry.Tile) -> Callable[..., jax.Array]:
    reductions = blocks(reduction_axes, tile.reduction)

    def program(*operands: jax.Array) -> jax.Array:
      if prepare is not None:
        operands = prepare(*operands)

      def block(index: Any, result: jax.Array) -> jax.Array:
        at = unravel(index, output_axes, tile.output)
        low, high = (0, reductions) if span is None else span(tile, at, *operands)

        def fold(number: Any, state: Any) -> Any:
          return step(state, tile, at, unravel(number, reduction_axes, tile.reduction), *operands)

        state = start(tile, at, *operands)
        if reduction_axes:
          state = lax.fori_loop(low, high, fold, state)
        else:
          state = step(state, tile, at, (), *operands)
        return store(result, finish(state, tile, at, *operands), at, dtype)

      return loaded(lax.fori_loop(0, blocks(output_axes, tile.output), block, blank(kernel)),
                    dtype)
    return program
  return tiled
