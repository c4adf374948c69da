"""Tile features follow their formulas, and depend on their own row and the graph only."""

import math

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import synthetic
from tests.data import changed
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import tile_features

LANE_COLUMNS = 5 * 3  # Five sides, three widths of lanes.
F32, BF16 = 2 + 11, 2 + 13  # One-hot columns of the element type.


def _kernel(output, config_feat, item=F32):
  """Two parameters and a root that returns `output` elements along its axes."""
  feat = np.zeros([3, 140], np.float32)
  feat[:, item] = 1
  feat[2, 0] = 1
  feat[:, 21:21 + len(output)] = output
  feat[:, 28] = math.prod(output)
  feat[1, 30] = 1
  rows = len(config_feat)
  return graphs.graph_from_arrays("k", {
      "node_feat": feat, "node_opcode": np.array([63, 63, 2]),
      "edge_index": np.array([[2, 0], [2, 1]]), "config_feat": config_feat,
      "config_runtime": np.arange(1, rows + 1), "config_runtime_normalizers": np.ones(rows)})


def _tile(output=(), kernel=(), inputs=()):
  row = np.zeros(24, np.float32)
  for first, sides in ((0, kernel), (8, output), (16, inputs)):
    row[first:first + len(sides)] = sides
    row[first + 6:first + 8] = sum(sides), math.prod(sides) if sides else 0
  return row


def test_the_value_that_is_returned():
  graph = synthetic.tile_graph(0, num_nodes=6)
  assert tile_features.root(graph) == 5
  # The roots of called computations are consumed by their callers.
  feat = graph.node_feat.copy()
  feat[[1, 5], 0] = 1
  edges = np.array([[5, 1], [1, 0], [5, 2], [4, 3], [5, 4]])
  called = synthetic.tile_graph(0, num_nodes=6, node_feat=feat, edge_index=edges)
  assert tile_features.root(called) == 5
  assert tile_features.root(synthetic.tile_graph(
      0, num_nodes=6, node_feat=np.zeros([6, 140]))) == 5  # None is marked.


@pytest.mark.parametrize("column, size", [(2 + 1, 1), (2 + 4, 4), (F32, 4), (2 + 12, 8), (BF16, 2),
                                          (2 + 15, 16), (2 + 16, 0)])
def test_bytes_of_an_element(column, size):
  assert tile_features.item_bytes(_kernel((8,), np.zeros([1, 24]), column)) == size


def _named(graph):
  """The single columns by name; they are the last ones, in this order."""
  names = ["kernel", "output", "input", "work", "output_steps", "input_steps", "more_input_steps",
           "bytes"]
  columns = tile_features.tile_features(graph)
  sides = 3 + 5 + 5 + 5 + LANE_COLUMNS
  return {name: columns[:, sides + place] for place, name in enumerate(names)}, columns


def test_volumes_steps_and_bytes():
  tiles = [_tile((8, 16), (4,), (8, 4)), _tile((64, 128), (), (64, 128))]
  actual, columns = _named(_kernel((64, 128), np.array(tiles), BF16))
  log2 = math.log2
  np.testing.assert_allclose(actual["output"], [log2(8 * 16), log2(64 * 128)])
  np.testing.assert_allclose(actual["kernel"], [log2(4), 0])
  np.testing.assert_allclose(actual["work"], [log2(8 * 16 * 4), log2(64 * 128)])
  # Blocks along each axis: 64/8 and 128/16, or one.
  np.testing.assert_allclose(columns[:, 13:15], [[log2(8), log2(8)], [0, 0]])
  np.testing.assert_allclose(actual["output_steps"], [log2(8) + log2(8), 0])
  np.testing.assert_allclose(actual["input_steps"], [log2(64 * 128 / (8 * 4)), 0])
  np.testing.assert_allclose(
      actual["bytes"], [log2(2 * (8 * 16 + 8 * 4)), log2(2 * (64 * 128 + 64 * 128))])


def test_sides_from_the_minor_one():
  sides = np.array([[8, 16, 32, 0, 0, 0], [0, 7, 0, 5, -1, 0], [0, 0, 0, 0, 0, 0]], np.float64)
  np.testing.assert_array_equal(tile_features.minor(sides), [32, 5, 1])
  np.testing.assert_array_equal(tile_features.real_side(sides, 1), [16, 7, 1])
  np.testing.assert_array_equal(tile_features.real_side(sides, 2), [8, 1, 1])


def test_lane_waste():
  # 24 fits 8 exactly, needs 32 for 16 and 128 for 128.
  np.testing.assert_allclose(
      tile_features.lane_waste(np.array([24.0, 128.0, 1.0])),
      [[0, math.log2(32 / 24), math.log2(128 / 24)], [0, 0, 0], [3, 4, 7]])


def test_lane_columns_follow_the_sides():
  tile = np.array([_tile((8, 24), (4,), (16, 4))])
  columns = tile_features.tile_features(_kernel((64, 96), tile))
  expected = [tile_features.lane_waste(np.array([side], np.float64))[0]
              for side in (24, 8, 4, 16, 4)]
  np.testing.assert_allclose(columns[0, 18:18 + LANE_COLUMNS], np.concatenate(expected))


@settings(max_examples=20)
@given(data=st.data())
def test_a_row_depends_on_its_configuration_and_the_graph_only(data):
  graph = synthetic.tile_graph(data.draw(st.integers(0, 5)))
  expected = tile_features.tile_features(graph)
  rows = data.draw(st.lists(st.integers(0, graph.num_configs - 1), min_size=1, max_size=20))
  np.testing.assert_allclose(
      tile_features.tile_features(changed.with_configs(graph, rows)), expected[rows], rtol=1e-12)
  order = data.draw(st.permutations(range(graph.num_nodes)))
  np.testing.assert_allclose(
      tile_features.tile_features(changed.relabelled(graph, order)), expected, rtol=1e-12)


@settings(max_examples=20)
@given(st.lists(st.lists(st.sampled_from([-1.0, 0.0, 1.0, 7.0, 4096.0, 2.0 ** 31]), min_size=24,
                         max_size=24), min_size=1, max_size=4))
def test_finite_whatever_the_bounds(rows):
  actual = tile_features.tile_features(_kernel((8, 16), np.array(rows)))
  assert actual.shape[0] == len(rows) and np.isfinite(actual).all()


def test_no_configurations():
  graph = synthetic.tile_graph(0, config_feat=np.zeros([0, 24]), config_runtime=np.zeros([0]),
                               config_runtime_normalizers=np.zeros([0]))
  assert tile_features.tile_features(graph).shape[0] == 0
