"""Tile candidates of a kernel."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from tests.candidates import small_programs
from tpugraphs_rank import errors
from tpugraphs_rank.candidates import tile_spaces
from tpugraphs_rank.candidates import tiles
from tpugraphs_rank.hlo import tuning


def _profiles(candidates):
  return [candidates.profile(position) for position in range(candidates.count)]


def _sides(candidates):
  return [(*tile.output_bounds, *tile.kernel_bounds) for profile in _profiles(candidates)
          for tile in [profile.op_config.tile_size_config]]


def test_all_tiles_in_order():
  actual = tiles.enumerate_tiles(small_programs.matmul(6, 5, 3), "elements", 1000, seed=0)
  assert _sides(actual) == list(itertools.product((1, 2, 3, 4, 6), (1, 2, 3, 4, 5), (1, 2, 3)))
  assert actual.about == {"source": "auto", "tiling": "elements", "legal": 75, "seed": 0}
  assert actual.default is None and actual.kind == "tile" and actual.count == 75


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 300),
       st.sampled_from(["tpu", "elements"]))
def test_features_are_those_of_the_raw_data(m, n, k, tiling):
  actual = tiles.enumerate_tiles(small_programs.matmul(m, n, k), tiling, 30, seed=1)
  np.testing.assert_array_equal(
      actual.arrays["config_feat"], tuning.tile_features(_profiles(actual)))
  assert actual.arrays["config_feat"].dtype == np.float32
  assert len(np.unique(actual.arrays["config_feat"], axis=0)) == actual.count


def test_a_sample_is_seeded_distinct_and_legal():
  kernel = small_programs.matmul(960, 960, 960)
  space = tile_spaces.tile_space(kernel, "xla_cpu")
  draws = [tiles.enumerate_tiles(kernel, "xla_cpu", 50, seed) for seed in (1, 1, 2)]
  sets = [_sides(actual) for actual in draws]
  assert sets[0] == sets[1] != sets[2]
  for sides in sets:
    assert len(set(sides)) == 50 and space.is_legal(np.array(sides)).all()
    assert sides == sorted(sides)
  every = tiles.enumerate_tiles(kernel, "xla_cpu", 1 << 30, 0)
  assert every.about["legal"] == every.count == draws[0].about["legal"]
  assert set(sets[0]) < set(_sides(every))


def test_another_name_gives_other_tiles():
  one, other = (_sides(tiles.enumerate_tiles(
      small_programs.matmul(960, 960, 960, name), "elements", 50, 0))
                for name in ("one", "other"))
  assert one != other


def test_tiles_are_sampled_uniformly():
  kernel = small_programs.matmul(4, 4, 4)  # 3 sides per axis: 27 tiles, of which 9 are drawn.
  counts = np.zeros([4, 4, 4], int)
  for seed in range(300):
    for sides in _sides(tiles.enumerate_tiles(kernel, "elements", 9, seed)):
      counts[tuple(side - 1 for side in sides)] += 1
  counts = counts[counts > 0]
  # Binomial with 300 draws of probability 1/3: deviation 8.2.
  assert len(counts) == 27 and abs(counts - 100).max() < 5 * 8.2


def test_spaces_that_are_too_large_to_enumerate(monkeypatch):
  kernel = small_programs.matmul(96, 96, 96)
  every = tiles.enumerate_tiles(kernel, "xla_cpu", 1 << 30, 0)
  monkeypatch.setattr(tiles, "_ENUMERATED", 10)
  some = tiles.enumerate_tiles(kernel, "xla_cpu", 20, 0)
  assert some.count == 20 and some.about["legal"] is None
  assert set(_sides(some)) < set(_sides(every)) and _sides(some) == sorted(_sides(some))
  # Drawing often enough finds all of them, each once.
  assert _sides(tiles.enumerate_tiles(kernel, "xla_cpu", 1 << 30, 0)) == _sides(every)


def test_the_last_hardware_tile_need_not_be_full():
  # Eleven rows are two hardware tiles of eight, one of them partly empty.
  actual = tiles.enumerate_tiles(small_programs.matmul(11, 128, 128), "tpu", 100, 0)
  assert [sides[0] for sides in _sides(actual)] == [1, 2]


def test_ranks_beyond_the_columns_keep_their_bounds():
  module, main = small_programs.program()
  shape = [1, 2, 1, 1, 1, 1, 1, 3]
  p = small_programs.add(main, "parameter", shape)
  small_programs.add(main, "tanh", shape, [p])
  actual = tiles.enumerate_tiles(module, "elements", 100, 0)
  np.testing.assert_array_equal(
      actual.arrays["config_feat"], tuning.tile_features(_profiles(actual)))
  assert len(_sides(actual)[0]) == 8


def test_kernels_without_a_legal_tile():
  with pytest.raises(errors.DataError, match="mine: none of the 1 tiles takes 2 to 4096 steps"):
    tiles.enumerate_tiles(small_programs.matmul(1, 1, 1), "xla_cpu", 10, 0, "mine")
  with pytest.raises(errors.ConfigError, match="the maximum number of candidates is 0; expected 1"):
    tiles.enumerate_tiles(small_programs.matmul(8, 8, 8), "xla_cpu", 0, 0)
