"""Trivial rankers."""

import dataclasses

import numpy as np
import pytest

from tests import synthetic
from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.costs import tile_cost
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import baselines


def _tile(runtimes, normalizer, volumes=None, **changes):
  count = len(runtimes)
  feat = np.zeros([count, graphs.NUM_TILE_FEATURES], np.float32)
  feat[:, 0] = feat[:, 8] = np.arange(count)  # Distinct configurations.
  if volumes is not None:
    feat[:, 7], feat[:, 15] = np.transpose(volumes)
  return synthetic.tile_graph(
      0, num_configs=count, config_feat=feat, config_runtime=np.array(runtimes, np.int64),
      config_runtime_normalizers=np.full(count, normalizer, np.int64), **changes)


def test_random_depends_on_the_seed_and_the_graph_alone():
  programs = [splits.ProgramView(synthetic.tile_graph(seed, name=f"k.{seed}")) for seed in range(3)]
  first = baselines.random(programs, 0)
  assert [scores.shape for scores in first] == [(12,)] * 3
  np.testing.assert_array_equal(first[2], baselines.random(programs[2:], 0)[0])
  assert (first[0] != first[1]).all()
  assert (first[0] != baselines.random(programs, 1)[0]).all()


def test_random_is_no_better_than_chance():
  graph = synthetic.tile_graph(0, num_configs=30)
  programs = [splits.ProgramView(graph)]
  taus = [metrics.kendall_tau(graph.relative_runtime, baselines.random(programs, seed)[0])
          for seed in range(200)]
  assert abs(np.mean(taus)) < 0.05


def test_the_default_of_a_tile_is_where_runtime_and_normalizer_agree():
  graph = _tile([300, 200, 100, 200], 200)
  assert baselines.default_index(graph) == 1
  scores = baselines.default_configuration([splits.ProgramView(graph)], 3)[0]
  assert metrics.ranking(scores)[0] == 1
  orders = {tuple(metrics.ranking(
      baselines.default_configuration([splits.ProgramView(graph)], s)[0]))
            for s in range(50)}
  assert len(orders) == 6  # All orders of the other three.


def test_repeats_of_the_default_come_first_too():
  graph = _tile([300, 200, 100, 210], 200)
  feat = graph.config_feat.copy()
  feat[3] = feat[1]
  graph = dataclasses.replace(graph, config_feat=feat)
  scores = baselines.default_configuration([splits.ProgramView(graph)], 0)[0]
  assert set(metrics.ranking(scores)[:2]) == {1, 3}


@pytest.mark.parametrize("graph", [
    _tile([300, 200], 150), _tile([0, 0], 0), synthetic.layout_graph(0, num_config_nodes=5)],
                         ids=["no equal", "no runtimes", "layout"])
def test_the_order_is_random_where_the_default_is_unknown(graph):
  program = splits.ProgramView(graph)
  assert baselines.default_index(graph) is None and not baselines.has_default(program)
  np.testing.assert_array_equal(
      baselines.default_configuration([program], 5)[0], baselines.random([program], 5)[0])


def test_a_default_on_the_other_side_of_a_split_does_not_count():
  graph = _tile([300, 200, 100], 200)
  assert not baselines.has_default(splits.ProgramView(graph, np.array([0, 2])))
  program = splits.ProgramView(graph, np.array([0, 1]))
  assert baselines.has_default(program)
  assert metrics.ranking(baselines.default_configuration([program], 0)[0]).tolist() == [1, 0]


def _layout(rows):
  feat = np.full([len(rows), 2, graphs.NUM_LAYOUT_FEATURES], -1, np.float32)
  for config, tensors in enumerate(rows):
    for node, tensor in tensors:
      feat[config, node, 6 * tensor:6 * tensor + 2] = [1, 0]
  return synthetic.layout_graph(
      0, num_configs=len(rows), num_config_nodes=2, node_config_feat=feat,
      config_runtime=np.arange(1, len(rows) + 1) * 100)


def test_layouts():
  graph = _layout([[(0, 0), (1, 2)], [], [(0, 1)], []])
  program = splits.ProgramView(graph)
  assert baselines.default_index(graph) == 1
  assert set(metrics.ranking(baselines.default_configuration([program])[0])[:2]) == {1, 3}
  np.testing.assert_array_equal(baselines.size_heuristic([program])[0], [-2, 0, -1, 0])


def test_configurations_that_take_no_part_are_not_read(monkeypatch):
  graph = _layout([[(0, 0), (1, 2)], [], [(0, 1)], [], [(1, 1)]])
  choice = np.array([3, 0, 3])
  read = []
  layouts = graphs.LayoutGraph.layouts
  monkeypatch.setattr(graphs.LayoutGraph, "layouts", lambda self, rows: (
      read.extend(rows) or layouts(self, rows)))
  programs = [splits.ProgramView(graph, choice)]
  assert baselines.has_default(programs[0])
  scores = [baselines.trivial(name, programs, 0)[0] for name in baselines.TRIVIAL]
  assert [score.shape for score in scores] == [(3,)] * 3
  assert set(metrics.ranking(scores[1])[:2]) == {0, 2}
  np.testing.assert_array_equal(scores[2], [0, -2, 0])
  assert set(read) == set(choice)


def test_larger_tiles_first_and_larger_outputs_among_equals():
  #                                                (kernel, output) volumes; 0: nothing is reduced.
  graph = _tile([100] * 4, 100, [(8, 64), (0, 512), (16, 32), (64, 64)])
  program = splits.ProgramView(graph)
  assert metrics.ranking(baselines.size_heuristic([program])[0]).tolist() == [3, 1, 0, 2]
  part = splits.ProgramView(graph, np.array([0, 3]))
  assert metrics.ranking(baselines.size_heuristic([part])[0]).tolist() == [1, 0]


def test_the_analytic_cost_ranks_tiles():
  graph = synthetic.tile_graph(0)
  rows = np.array([5, 0, 7])
  scores = baselines.trivial("analytic_cost", [splits.ProgramView(graph, rows)])[0]
  np.testing.assert_array_equal(scores, -tile_cost.log_cost(graph)[rows])
  with pytest.raises(errors.ConfigError, match="analytic_cost ranks tiles, and .* has layouts"):
    baselines.trivial("analytic_cost", [splits.ProgramView(_layout([[], []]))])


def test_unknown_names_and_bare_graphs():
  assert baselines.check_names(["random"]) == ("random",)
  with pytest.raises(errors.UnknownNameError, match="no baseline 'best'.*boosted_trees"):
    baselines.check_names(["random", "best"])
  with pytest.raises(errors.UnknownNameError, match="boosted_trees"):
    baselines.trivial("boosted_trees", [])
  bare = graphs.Graph("bare", **{key: value for key, value in synthetic.node_arrays(
      np.random.default_rng(0), 4).items()})
  assert baselines.default_index(bare) is None
  with pytest.raises(errors.DataError, match="bare has no configurations"):
    baselines.size_heuristic([splits.ProgramView(bare)])
