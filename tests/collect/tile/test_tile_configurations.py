"""Kernels, tiles and the catalogue: everything that precedes the measurement."""

import math

import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.collect.tile import catalogue
from tpugraphs_rank.collect.tile import configurations
from tpugraphs_rank.collect.tile import geometry


def test_stem_round_trip() -> None:
  kernel = geometry.Kernel("matmul_bias_gelu", (512, 256, 128), "f32")
  assert kernel.stem == "matmul_bias_gelu.512x256x128.f32"
  assert geometry.parse_stem(kernel.stem) == kernel


@pytest.mark.parametrize("stem", ["matmul", "matmul.8x8.", "matmul.8xax8.f32", "a.b.c.d", ""])
def test_names_that_do_not_name_kernels(stem: str) -> None:
  with pytest.raises(errors.DataError, match="not the name of a kernel"):
    geometry.parse_stem(stem)


def test_kernels_are_validated() -> None:
  with pytest.raises(errors.UnknownNameError, match="families are"):
    geometry.Kernel("matmull", (8, 8, 8), "f32")
  with pytest.raises(errors.ConfigError, match="m, n, k"):
    geometry.Kernel("matmul", (8, 8), "f32")
  with pytest.raises(errors.ConfigError, match="element type"):
    geometry.Kernel("matmul", (8, 8, 8), "f64")


def test_blocks_of_a_strided_convolution_hold_the_halo() -> None:
  kernel = geometry.Kernel("conv_strided", (1, 24, 24, 32, 48), "f32")
  tile = geometry.Tile((1, 8, 12, 24), (16,))
  assert kernel.output_axes == (1, 24, 24, 48)
  assert kernel.reduction_axes == (32,)
  # (side - 1) * stride 2 + window 3
  assert kernel.input_bounds(tile) == (1, 7 * 2 + 3, 11 * 2 + 3, 16)
  expected = 17 * 25 * 16 + 3 * 3 * 16 * 24 + 8 * 12 * 24
  assert kernel.working_set(tile) == 4 * expected
  assert kernel.iterations(tile) == 3 * 2 * 2 * 2


def test_transposed_blocks_have_the_axes_of_the_operand() -> None:
  kernel = geometry.Kernel("transpose_120", (64, 96, 160), "f32")
  assert kernel.output_axes == (96, 160, 64)
  assert kernel.input_bounds(geometry.Tile((8, 16, 32), ())) == (32, 8, 16)


def test_divisors_and_sides() -> None:
  assert configurations.divisors(12) == (1, 2, 3, 4, 6, 12)
  assert configurations.sides(12) == (1, 2, 3, 4, 6, 12)  # Too short for sides of 8.
  assert configurations.sides(48) == (8, 12, 16, 24, 48)
  assert configurations.sides(17) == (17,)
  with pytest.raises(errors.ConfigError):
    configurations.divisors(0)


def test_default_is_the_largest_tile_that_fits_the_first_level_cache() -> None:
  kernel = geometry.Kernel("matmul", (256, 256, 256), "f32")
  default = configurations.default_tile(kernel)
  volume = default.output_volume * default.reduction[0]
  assert kernel.working_set(default) <= 32 * 1024
  for tile in configurations.admissible(kernel):
    if kernel.working_set(tile) <= 32 * 1024:
      assert tile.output_volume * tile.reduction[0] <= volume


def test_default_where_nothing_fits() -> None:
  # With 4,096 steps, blocks have at least 16,384 elements, more than the cache holds.
  kernel = geometry.Kernel("elementwise_chain", (8192, 8192), "f32")
  default = configurations.default_tile(kernel)
  assert kernel.working_set(default) == 2 * 4 * 16384


def test_kernels_that_cannot_be_tiled_have_no_default() -> None:
  primes = geometry.Kernel("elementwise_gate", (4099, 4099), "f32")  # Only the whole.
  with pytest.raises(errors.ConfigError, match="no tile"):
    configurations.default_tile(primes)


def test_samples_are_seeded_distinct_and_spread() -> None:
  kernel = geometry.Kernel("pairwise_l2", (192, 256, 64), "f32")
  tiles = configurations.sample(kernel, 28, seed=3)
  assert tiles == configurations.sample(kernel, 28, seed=3)
  assert tiles != configurations.sample(kernel, 28, seed=4)
  assert tiles[0] == configurations.default_tile(kernel)
  assert len(set(tiles)) == 28
  volumes = [tile.output_volume for tile in tiles]
  assert max(volumes) / min(volumes) > 100


def test_sample_of_a_small_space_takes_all_of_it() -> None:
  kernel = geometry.Kernel("conv_depthwise", (1, 8, 8, 16), "f32")
  tiles = configurations.sample(kernel, 10_000, seed=0)
  assert sorted(tiles, key=str) == sorted(configurations.admissible(kernel), key=str)


@pytest.mark.parametrize("kernel", catalogue.kernels(), ids=lambda kernel: kernel.stem)
def test_every_catalogued_kernel_can_be_sampled(kernel: geometry.Kernel) -> None:
  tiles = configurations.sample(kernel, 28, seed=0)
  assert len(tiles) == 28
  for tile in tiles:
    assert 2 <= kernel.iterations(tile) <= 4096
    for size, side in zip(kernel.output_axes + kernel.reduction_axes,
                          tile.output + tile.reduction):
      assert size % side == 0
      assert side >= 8 or size < 16
    assert len(kernel.input_bounds(tile)) <= 6
    assert kernel.definition.blocks(kernel.shape, tile)[-1] == tile.output
  assert math.prod(kernel.output_axes) > 0


def test_catalogue() -> None:
  kernels = catalogue.kernels()
  assert len({kernel.stem for kernel in kernels}) == len(kernels) >= 260
  assert {kernel.family for kernel in kernels} == set(geometry.FAMILIES)
  assert len(catalogue.UNSEEN_GROUPS) >= 2
  assert set(catalogue.UNSEEN_GROUPS) < set(geometry.groups())
  assert kernels == catalogue.kernels(seed=0)
  assert {kernel.family for kernel in catalogue.kernels(["softmax"])} == {"softmax"}
  with pytest.raises(errors.UnknownNameError):
    catalogue.kernels(["softmin"])
