"""The tiles that a kernel is measured with: admissible sides, the default, a seeded sample."""

import hashlib
import itertools
import math
from typing import Protocol

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.collect.tile import geometry

MIN_SIDE = 8          # Shorter sides leave vector lanes empty.
MAX_ITERATIONS = 4096
MIN_ITERATIONS = 2    # One step is the untiled kernel: XLA removes its loop.
L1_BYTES = 32 * 1024  # Size of the first-level data cache, into which the default tile must fit.

DEFAULT_RULE = (
    "among the tiles of 2 to 4,096 steps whose blocks (operands' and output's) together fit "
    "32 KiB, the one with most output elements times reduction elements; ties: longer minor side "
    "of the output, then the lexicographically larger tile; where none fits, the smallest working "
    "set")


class TileableKernel(Protocol):
  """What this module needs of a kernel of the catalogue or of a synthetic program."""

  @property
  def stem(self) -> str: ...

  @property
  def output_axes(self) -> geometry.Sides: ...

  @property
  def reduction_axes(self) -> geometry.Sides: ...

  def iterations(self, tile: geometry.Tile) -> int: ...

  def working_set(self, tile: geometry.Tile) -> int: ...


def divisors(size: int) -> tuple[int, ...]:
  """All divisors of `size`, ascending."""
  if size < 1:
    raise errors.ConfigError(f"an axis has size {size}; expected at least one element")
  return tuple(side for side in range(1, size + 1) if size % side == 0)


def sides(size: int) -> tuple[int, ...]:
  """Admissible tile sides of an axis: all divisors that are at least 8.

  An axis shorter than 16 cannot be split into sides of 8. All of its divisors are admissible, so
  that batches, heads and small windows can be tiled too.
  """
  if size < 2 * MIN_SIDE:
    return divisors(size)
  return tuple(side for side in divisors(size) if side >= MIN_SIDE)


def admissible(kernel: TileableKernel) -> list[geometry.Tile]:
  """All tiles with 2 to 4,096 steps, in lexicographic order."""
  outputs = [sides(size) for size in kernel.output_axes]
  reductions = [sides(size) for size in kernel.reduction_axes]
  tiles = []
  for choice in itertools.product(*outputs, *reductions):
    tile = geometry.Tile(choice[:len(outputs)], choice[len(outputs):])
    if MIN_ITERATIONS <= kernel.iterations(tile) <= MAX_ITERATIONS:
      tiles.append(tile)
  return tiles


def default_tile(kernel: TileableKernel) -> geometry.Tile:
  """The default configuration: the largest tile whose blocks fit the first-level cache.

  `DEFAULT_RULE` has the full rule. The longer minor side wins ties, because it is stored
  contiguously.
  """
  tiles = admissible(kernel)
  if not tiles:
    raise errors.ConfigError(
        f"{kernel.stem} has no tile of {MIN_ITERATIONS} to {MAX_ITERATIONS} steps")
  fitting = [tile for tile in tiles if kernel.working_set(tile) <= L1_BYTES]
  if not fitting:
    return min(tiles, key=lambda tile: (kernel.working_set(tile), tile.output, tile.reduction))
  return max(fitting, key=lambda tile: (
      tile.output_volume * math.prod(tile.reduction), tile.output[-1], tile.output,
      tile.reduction))


def kernel_rng(kernel: TileableKernel, seed: int, purpose: str) -> np.random.Generator:
  """A generator that depends only on the kernel's name, the seed and the purpose."""
  digest = hashlib.sha256(f"{seed}/{purpose}/{kernel.stem}".encode()).digest()
  return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def sample(kernel: TileableKernel, count: int, seed: int) -> list[geometry.Tile]:
  """Up to `count` distinct tiles, the default first, spread over the whole range of volumes.

  The admissible tiles are sorted by output volume (ties in random order) and divided into strata,
  and one tile is drawn from each stratum. The sample therefore has small, medium and large tiles
  of all aspect ratios.
  """
  default = default_tile(kernel)
  others = [tile for tile in admissible(kernel) if tile != default]
  rng = kernel_rng(kernel, seed, "tiles")
  others = [others[index] for index in rng.permutation(len(others))]
  others.sort(key=lambda tile: tile.output_volume)
  places = min(count - 1, len(others))
  edges = np.linspace(0, len(others), places + 1).astype(int)
  chosen = [others[int(rng.integers(low, high))] for low, high in zip(edges[:-1], edges[1:])]
  return [default] + [chosen[index] for index in rng.permutation(len(chosen))]
