"""Features of tiles that leave out the kind of kernel, against values computed by hand."""

import numpy as np
import pytest

from tests.costs import kernels
from tpugraphs_rank.costs import targets
from tpugraphs_rank.costs import tile_cost
from tpugraphs_rank.costs import tile_geometry
from tpugraphs_rank.costs import tile_relative

_TERMS = len(tile_cost.TERMS)
_REDUCTION = """sum {
  p = f32[] parameter(0)
  q = f32[] parameter(1)
  ROOT s = f32[] add(p, q)
}

ENTRY e {
  x = f32[SHAPE] parameter(0)
  zero = f32[] constant(0)
  ROOT y = f32[96] reduce(x, zero), dimensions={AXIS}, to_apply=sum
}
"""
_ROWS = _REDUCTION.replace("SHAPE", "96,480").replace("AXIS", "1")
_COLUMNS = _REDUCTION.replace("SHAPE", "480,96").replace("AXIS", "0")


def test_lengths_of_a_sum_along_the_minor_axis():
  graph = kernels.graph(_ROWS, [kernels.tile((48,), (40,)), kernels.tile((24,), (480,))])
  log = np.log2
  np.testing.assert_allclose(tile_relative.lengths(graph, tile_geometry.kernel(graph)), [
      [1, 1, log(40), log(40), log(48), log(48), log(48 * 40), log(48), 0,
       3, 3, 4, 4, log(40), log(40), 1, 0, 0],
      [1, 1, log(480), log(480), log(24), log(24), log(24 * 480), log(24), 0,
       5, 5, 3, 3, log(480), log(480), 0, 0, 1]])


def test_lengths_of_a_sum_along_the_major_axis():
  # The rows of a block stay contiguous: nothing is added along them.
  graph = kernels.graph(_COLUMNS, [kernels.tile((48,), (40,))])
  log = np.log2
  np.testing.assert_allclose(tile_relative.lengths(graph, tile_geometry.kernel(graph)), [
      [1, 0, log(40), log(48), log(48), log(48), log(48 * 40), log(48), 0,
       3, 4, 4, 4, 0, 0, 0, log(48), 0]])


@pytest.mark.parametrize("text", [kernels.MATMUL, kernels.TRANSPOSE])
def test_lengths_of_other_kernels_are_those_of_a_block(text):
  graph = kernels.graph(text, [kernels.tile((16, 8), (32,))])
  np.testing.assert_allclose(tile_relative.lengths(graph, tile_geometry.kernel(graph)), [
      [0, 0, 0, 3, 7, 3, 7, 3, 4, 0, 3, 3, 6, 0, 0, 0, 0, 0]])


def test_the_cost_is_relative_to_the_cheapest_configuration():
  tiles = [kernels.tile(sides, (side,)) for sides in ((96, 32), (8, 8), (32, 8))
           for side in (8, 64)]
  facts = targets.TargetFacts((8192, 16384), 64, (1, 1))
  graph = kernels.graph(kernels.MATMUL, tiles)
  features = tile_relative.features(graph, facts)
  assert features.shape == (6, tile_relative.WIDTH) == (6, 68)
  weighted = tile_cost.terms(graph, facts) * tile_cost.PRESET
  total = weighted.sum(axis=1)
  np.testing.assert_allclose(2 ** features[:, :_TERMS] - 1e-3, weighted / total.min(), rtol=1e-6,
                             atol=1e-9)
  np.testing.assert_allclose(features[:, _TERMS:2 * _TERMS].sum(axis=1), 1)
  cost, centred, steps, place, place_of_steps = features[:, 2 * _TERMS:2 * _TERMS + 5].T
  np.testing.assert_allclose(2 ** cost, total / total.min())
  np.testing.assert_allclose(centred, cost - cost.mean(), atol=1e-12)
  # Iterations: 8 and 1, 12 * 4 * 8 and 12 * 4, 3 * 4 * 8 and 3 * 4.
  np.testing.assert_allclose(2 ** steps, [8, 1, 384, 48, 96, 12])
  np.testing.assert_allclose(6 * place_of_steps, [2, 1, 6, 4, 5, 3])
  np.testing.assert_array_equal(np.argsort(place), np.argsort(total))
  # Another order of the configurations changes the order of the rows only.
  order = np.array([3, 0, 5, 1, 4, 2])
  np.testing.assert_allclose(
      tile_relative.features(kernels.graph(kernels.MATMUL, [tiles[one] for one in order]), facts),
      features[order], atol=1e-9)


@pytest.mark.parametrize("text, expected", [
    (_ROWS, tile_relative.FLOAT_SUM), (_ROWS.replace("f32", "s32"), tile_relative.INTEGER_SUM),
    (_ROWS.replace("f32", "bf16"), tile_relative.FLOAT_SUM),
    (_ROWS.replace("f32", "u8"), tile_relative.INTEGER_SUM),
    (kernels.MATMUL, tile_relative.OTHER), (kernels.TRANSPOSE, tile_relative.OTHER)])
def test_kernels_differ_in_what_they_add_up(text, expected):
  graph = kernels.graph(text, [kernels.tile((16, 8), (32,)), kernels.tile((8, 8), (32,))])
  assert tile_relative.features(graph)[:, tile_relative.KIND].tolist() == [expected] * 2
