"""Boosted trees and their features."""

import numpy as np
import pytest
from sklearn import ensemble
import threadpoolctl

from tests import synthetic
from tests.data import changed
from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.costs import layout_features
from tpugraphs_rank.costs import targets
from tpugraphs_rank.costs import tile_cost
from tpugraphs_rank.data import duplicates
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import labels
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import tree_features
from tpugraphs_rank.evaluation import trees

SMALL = trees.Settings(iterations=15, learning_rate=0.3, max_leaf_nodes=8)


def _programs(seeds, make=synthetic.tile_graph, **sizes):
  return [splits.ProgramView(make(seed, **sizes)) for seed in seeds]


def _mean_tau(programs, scores):
  return np.mean([metrics.kendall_tau(program.graph.relative_runtime, score)
                  for program, score in zip(programs, scores)])


@pytest.mark.parametrize("make,sizes", [
    (synthetic.tile_graph, {"num_configs": 16}),
    (synthetic.layout_graph, {"num_configs": 30, "num_config_nodes": 2})])
def test_trees_rank_unseen_programs(make, sizes):
  train, test = _programs(range(25), make, **sizes), _programs(range(100, 108), make, **sizes)
  ranker = trees.fit(train, SMALL)
  assert _mean_tau(test, ranker.score(test)) > 0.6
  for first, again in zip(ranker.score(test), trees.fit(train, SMALL).score(test)):
    np.testing.assert_array_equal(first, again)
  assert (ranker.score(test)[0] != trees.fit(train, SMALL, seed=1).score(test)[0]).any()


def test_only_usable_configurations_are_used_for_fitting_and_scored():
  program = splits.ProgramView(synthetic.tile_graph(0), np.array([1, 4, 7]))
  hidden = splits.ProgramView(
      synthetic.tile_graph(0, config_runtime=_shuffled(program.graph.config_runtime, [1, 4, 7])),
      program.choice)
  others = _programs(range(1, 12))
  scores = trees.fit([program, *others], SMALL).score([program])
  assert scores[0].shape == (3,)
  np.testing.assert_array_equal(scores[0], trees.fit([hidden, *others], SMALL).score([program])[0])


def _shuffled(runtimes, fixed):
  changed = runtimes[::-1].copy()
  changed[fixed] = runtimes[fixed]
  return changed


def test_scoring_needs_no_runtimes():
  ranker = trees.fit(_programs(range(10)), SMALL)
  graph = synthetic.tile_graph(50)
  hidden = synthetic.tile_graph(
      50, config_runtime=np.zeros(12, np.int64), config_runtime_normalizers=np.zeros(12, np.int64))
  views = [splits.ProgramView(graph), splits.ProgramView(hidden)]
  np.testing.assert_array_equal(*ranker.score(views))
  with pytest.raises(errors.DataError, match="no runtimes"):
    trees.fit([splits.ProgramView(hidden)], SMALL)


def test_merged_configurations_are_fitted_once_with_their_merged_runtime():
  graph = changed.with_configs(synthetic.tile_graph(0, num_configs=6), [0, 1, 0, 2, 0])
  keys = graph.config_keys()
  kept, merged = duplicates.merge(
      keys, np.array([9.0, 4.0, 3.0, 5.0, 6.0]), np.arange(5), "mean")
  table = trees.training_table([splits.ProgramView(graph, kept, merged)], 0, 100)
  assert kept.tolist() == [0, 1, 3]
  np.testing.assert_array_equal(
      table.targets, labels.make_labels(np.array([(9 + 3 + 6) / 3, 4.0, 5.0])).target)
  np.testing.assert_array_equal(
      table.features, trees.training_table([splits.ProgramView(graph, kept)], 0, 100).features)


def test_tuning_picks_the_best_stage_on_validation():
  train, valid = _programs(range(12)), _programs(range(30, 34))
  grid = (trees.Settings(iterations=50, min_samples_leaf=10_000),  # Not even one split.
          trees.Settings(iterations=50, learning_rate=0.2, max_leaf_nodes=8))
  best = trees.tune(train, valid, grid)
  assert best.learning_rate == 0.2 and best.iterations in (25, 50)
  taus = [_mean_tau(valid, scores)
          for scores in trees.fit(train, grid[1]).staged_scores(valid)]
  assert taus[best.iterations - 1] == max(taus[24], taus[49])
  assert taus[best.iterations - 1] == _mean_tau(valid, trees.fit(train, best).score(valid))


def test_large_graphs_are_thinned(monkeypatch):
  monkeypatch.setattr(trees, "MAX_CONFIGS", 5)
  table = trees.training_table(_programs(range(2)) + _programs([9], num_configs=3), 0, 100)
  assert len(table.features) == len(table.targets) == 5 + 5 + 3
  # Every graph weighs the same.
  np.testing.assert_allclose(table.weights.sum() / 3, table.weights[-3:].sum())


def test_many_graphs_share_the_rows():
  most = 4 * 5 + 3
  programs = _programs(range(3)) + _programs([9], num_configs=3)
  thinned = trees.thin(programs, most, np.random.default_rng(7))
  assert [len(program.indices) for program in thinned] == [5, 5, 5, 3]
  for program, whole in zip(thinned, programs):
    assert program.graph is whole.graph
    assert (np.diff(program.indices) > 0).all() and program.indices[-1] < whole.graph.num_configs
  assert len({tuple(program.indices) for program in thinned[:3]}) > 1  # Each graph's own draw.
  assert len(trees.training_table(programs, 0, most).targets) == 5 * 3 + 3
  # Two of a graph at least: one alone cannot be ranked.
  assert {len(program.indices) for program in trees.thin(programs, 1, np.random.default_rng(0))
          } == {2}


def test_thinned_programs_keep_their_choice_and_their_merged_runtimes():
  choice, merged = np.array([2, 3, 5, 7, 11]), np.arange(12.0) + 1
  program = splits.ProgramView(synthetic.tile_graph(0), choice, merged)
  thinned, = trees.thin([program], 3, np.random.default_rng(1))
  assert len(thinned.choice) == 3 and set(thinned.choice) < set(choice)
  assert thinned.merged is merged
  assert trees.thin([program], 5, np.random.default_rng(1)) == [program]


def test_collections_as_small_as_the_bundled_are_not_thinned():
  # 162 kernels train and 33 validate, with 28 configurations each.
  for count, most in ((162, trees.MAX_ROWS), (162, trees.MAX_TUNING_ROWS),
                      (33, trees.MAX_VALIDATION_ROWS)):
    programs = _programs(range(3), num_configs=28) * (count // 3)
    assert trees.thin(programs, most, np.random.default_rng(0)) == programs


def test_bins_of_few_values_are_the_values():
  edges = trees._edges(np.array([3, 1, 1, 7], np.float32))
  assert edges.tolist() == [(1 + 3) / 2, (3 + 7) / 2]
  columns = trees.Columns(np.array([1]), [edges])
  # Values beyond those of training, and between them, fall into the nearest bin.
  result = columns.of(np.array([[9, -5], [9, 1], [9, 2.5], [9, 7], [9, 80]], np.float32))
  assert result.dtype == np.uint8 and result.tolist() == [[0], [0], [1], [2], [2]]


def test_bins_of_many_values_hold_equally_many():
  values = np.random.default_rng(0).lognormal(size=51_000).astype(np.float32)
  columns = trees.Columns(np.array([0]), [trees._edges(values)])
  counts = np.bincount(columns.of(values[:, None])[:, 0], minlength=255)
  assert counts.shape == (255,) and abs(counts - 51_000 / 255).max() <= 2
  # Half of the values equal: their quantiles are one edge.
  values[::2] = 1
  assert np.unique(columns.of(values[:, None])).max() <= 254
  assert (np.diff(trees._edges(values)) > 0).all()


def test_trees_of_bins_are_those_of_the_values():
  # Equal weights and few distinct values: scikit-learn's own bins are the very same.
  train, test = _programs(range(12)), _programs(range(40, 44))
  table = trees.training_table(train, 0, trees.MAX_ROWS)
  binned = trees.fit(train, SMALL)
  columns = trees.Columns(table.columns.kept)
  plain = trees.fit_table(table._replace(
      features=columns.of(trees.features_of(train)), columns=columns), SMALL, 0)
  assert table.features.dtype == np.uint8 and len(table.columns.edges) == len(columns.kept)
  for one, other in zip(plain.score(test), binned.score(test)):
    np.testing.assert_allclose(one, other, rtol=1e-12)
  for one, other in zip(plain.staged_scores(test), binned.staged_scores(test)):
    np.testing.assert_allclose(one[0], other[0], rtol=1e-12)


def test_tuning_fits_some_programs_of_many(monkeypatch):
  train, valid = _programs(range(10)), _programs(range(30, 33))
  fitted = []
  table = trees.training_table
  monkeypatch.setattr(trees, "training_table", lambda programs, *rest: (
      fitted.append(programs) or table(programs, *rest)))
  trees.tune(train, valid, (SMALL,))
  monkeypatch.setattr(trees, "MAX_TUNING_ROWS", 4 * 12)
  trees.tune(train, valid, (SMALL,))
  assert fitted == [train, train[::3]]  # 10 * 12 rows are three times too many, nearly.


def test_tuning_evaluates_on_a_limited_number_of_rows(monkeypatch):
  train, valid = _programs(range(4)), _programs(range(30, 33))
  monkeypatch.setattr(trees, "MAX_VALIDATION_ROWS", 3 * 4)
  data = trees.tuning_data(train, valid)
  assert [len(program.indices) for program in data.valid] == [4, 4, 4]
  assert [len(runtimes) for runtimes in data.runtimes] == [4, 4, 4] and len(data.features) == 12


def test_fits_use_one_thread():
  def threads():
    return {each["num_threads"] for each in threadpoolctl.threadpool_info()
            if each["user_api"] == "openmp"}
  fitted = []
  fit = ensemble.HistGradientBoostingRegressor.fit

  def recorded(self, *arguments, **options):
    fitted.append(threads())
    return fit(self, *arguments, **options)

  before = threads()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(ensemble.HistGradientBoostingRegressor, "fit", recorded)
    trees.tune(_programs(range(6)), _programs(range(30, 33)), (SMALL, SMALL))
    trees.fit(_programs(range(6)), SMALL)
  assert fitted == [{1}] * 3 and threads() == before


def test_results_of_parallel_fits_keep_their_order_and_errors_are_raised():
  assert trees.run_all(lambda value: 2 * value, range(5), "doubling", "number") == [0, 2, 4, 6, 8]
  with pytest.raises(ZeroDivisionError):
    trees.run_all(lambda value: 1 // value, [1, 0, 2], "dividing", "number")


def test_tile_features_have_their_documented_meaning():
  graph = synthetic.tile_graph(0)
  features = tree_features.features(graph, np.arange(12))
  assert features.dtype == np.float32 and np.isfinite(features).all()
  # The first column but those of the reduction: log2 of the first output side.
  np.testing.assert_allclose(features[:, 3], np.log2(graph.config_feat[:, 8]))
  rows = np.array([3, 5])
  part = tree_features.features(graph, rows)
  np.testing.assert_array_equal(part[:, 3], features[rows, 3])
  # Relative columns are relative to the listed configurations.
  width = (features == features[0]).all(axis=0)[::-1].argmin()  # Pooled columns are last.
  relative = features[:, :-width][:, features[:, :-width].shape[1] // 2:]
  np.testing.assert_allclose(relative.mean(axis=0), 0, atol=1e-4)


def test_layout_sorts():
  tensors = np.array([
      [-1] * 6, [3, 2, 1, 0, -1, -1], [0, 1, 2, 3, -1, -1], [0, -1, -1, -1, -1, -1]])
  free, usual, other = tree_features._layout_sorts(tensors.astype(np.int8))
  assert free.tolist() == [True, False, False, False]
  assert usual.tolist() == [False, True, False, True]
  assert other.tolist() == [False, False, True, False]


@pytest.mark.parametrize("make, version, facts", [
    (synthetic.tile_graph, 2, targets.CPU), (synthetic.tile_graph, 2, targets.TPU),
    (synthetic.tile_graph, 1, targets.CPU), (synthetic.layout_graph, 2, targets.CPU)])
def test_features_are_those_of_the_parts(make, version, facts):
  graph, rows = make(3), np.array([7, 2, 2])
  result = tree_features.features(graph, rows, facts, version)
  if isinstance(graph, graphs.TileGraph):
    configs = tree_features._tile(graph)[rows]
    # The sides of a TPU's tiles count registers, which the cost does not know.
    if version == 2 and facts == targets.CPU:
      configs = np.concatenate([configs, tile_cost.features(graph)[rows]], axis=1)
  else:
    configs = np.concatenate([
        tree_features._layout(graph, rows),
        layout_features.LayoutFeatures(graph, targets.CPU)(rows)[0]], axis=1)
  pooled = tree_features._pooled(graph)
  np.testing.assert_array_equal(result, np.concatenate(
      [configs, configs - configs.mean(axis=0), [pooled] * 3], axis=1).astype(np.float32))
  assert result.dtype == np.float32


def test_layout_features_in_blocks_are_the_same(monkeypatch):
  graph = synthetic.layout_graph(1, num_configs=11)
  whole = tree_features.features(graph, np.arange(11))
  monkeypatch.setattr(tree_features, "_BLOCK", 3 * 3 * 4)
  np.testing.assert_allclose(tree_features.features(graph, np.arange(11)), whole, rtol=1e-6)
