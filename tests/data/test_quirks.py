"""Allowed irregularities: nodes without edges, and the padding derived from features."""

import pathlib

from hypothesis import given
import numpy as np
import pytest

from tests import synthetic
from tests.data import drawn
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import quirks
from tpugraphs_rank.hlo import features
from tpugraphs_rank.hlo import hlo_pb2

MODULE = (pathlib.Path(__file__).resolve().parents[1] / "hlo" / "data"
          / "jax_row_sums.cpu_after_optimizations.hlo.pb")


@given(drawn.digraphs())
def test_isolated_nodes(drawn_graph):
  edges, count = drawn_graph
  graph = synthetic.tile_graph(0, num_nodes=count, edge_index=edges)
  assert quirks.isolated_nodes(graph) == sum(
      all(node not in row for row in edges.tolist()) for node in range(count))


def _graph(node_feat):
  return synthetic.tile_graph(0, num_nodes=len(node_feat), node_feat=node_feat)


@pytest.mark.parametrize("padding", features.PADDINGS)
def test_the_padding_of_a_real_program(padding):
  module = hlo_pb2.HloProto.FromString(MODULE.read_bytes()).hlo_module
  assert quirks.observed_padding(_graph(features.node_features(module, padding))) == padding


def test_the_observed_padding_of_bundled_graphs_is_the_declared_one():
  for split in ("train", "valid", "test"):
    for graph in collections.load_collection("tile:xla_cpu", split):
      assert quirks.observed_padding(graph) == graph.feature_padding == 0


def test_the_padded_columns_are_the_lists_without_sum_and_product():
  names = features.NODE_FEATURE_NAMES
  assert [names[column] for column in quirks._PADDED] == [
      name for name in names
      if name.startswith(("dimensions_", "layout_minor_to_major_")) or "spatial_dims" in name]


def _with_layouts(*layouts):
  node_feat = np.zeros([len(layouts), 140], np.float32)
  node_feat[:, 134:140] = layouts
  return _graph(node_feat)


def test_full_layouts_show_no_padding():
  full = [5, 4, 3, 2, 1, 0]
  assert quirks.observed_padding(_with_layouts(full, full[::-1])) is None
  assert quirks.observed_padding(_with_layouts(full, [4, 3, 2, 1, 0, 0])) == 0
  assert quirks.observed_padding(_with_layouts(full, [4, 3, 2, 1, 0, -1])) == -1
