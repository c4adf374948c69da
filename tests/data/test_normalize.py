"""Feature scaling: the formula, storage in a file, and errors for damaged files."""

import io

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import synthetic
from tpugraphs_rank import errors
from tpugraphs_rank.costs import tile_cost
from tpugraphs_rank.data import normalize
from tpugraphs_rank.data import tile_features

LIMIT = 6.0


def test_held_back_configurations_do_not_affect_the_scaling():
  graph = synthetic.tile_graph(0)
  feat = graph.config_feat.copy()
  feat[7] *= 1000
  other = synthetic.tile_graph(0, config_feat=feat)
  choice = np.array([0, 2, 3, 9])
  ours, theirs = (normalize.Normalizer.fit([g], [choice]) for g in (graph, other))
  np.testing.assert_array_equal(ours.configs.mean, theirs.configs.mean)
  np.testing.assert_array_equal(ours.configs.deviation, theirs.configs.deviation)
  assert not np.array_equal(normalize.Normalizer.fit([graph]).configs.mean,
                            normalize.Normalizer.fit([other]).configs.mean)


def _signed_log(x):
  return np.sign(x) * np.log2(1 + abs(x))


@given(st.floats(-1e12, 1e12))
def test_signed_log(value):
  assert normalize.signed_log(np.array([value]))[0] == pytest.approx(_signed_log(value), rel=1e-12)


def test_signed_log_of_feature_values():
  np.testing.assert_allclose(
      normalize.signed_log(np.array([-1, 0, 1, 127, 1023])), [-1, 0, 1, 7, 10])


def test_fit_and_scale_follow_the_formula():
  rows = np.array([[0, 1, 5, -1], [2, 1, 8, -1], [7, 1, 12, 3]], np.float64)
  scaling = normalize.Scaling.fit(rows)
  np.testing.assert_array_equal(scaling.columns, [0, 2, 3])  # Column 1 never varies.
  for place, column in enumerate([0, 2, 3]):
    values = rows[:, column].tolist()
    mean = sum(values) / 3
    deviation = (sum((value - mean) ** 2 for value in values) / 3) ** 0.5
    np.testing.assert_allclose(scaling.mean[place], mean)
    np.testing.assert_allclose(scaling.deviation[place], deviation)
    np.testing.assert_allclose(
        scaling(rows)[:, place], [(value - mean) / deviation for value in values], rtol=1e-6)
  assert scaling(rows).dtype == np.float32


def test_extreme_values_are_clipped():
  scaling = normalize.Scaling.fit(np.array([[0.0], [1.0]]))
  np.testing.assert_array_equal(
      scaling(np.array([[1e30], [-1e30]])), np.array([[LIMIT], [-LIMIT]], np.float32))


@given(st.integers(0, 50))
def test_the_scaled_training_rows_have_mean_0_and_deviation_1(seed):
  rows = np.random.default_rng(seed).integers(-1, 60, [40, 5]).astype(np.float64)
  scaled = normalize.Scaling.fit(rows)(rows).astype(np.float64)
  np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
  np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-5)


@given(count=st.integers(1, 400), width=st.integers(2, 9), seed=st.integers(0, 99),
       cuts=st.lists(st.integers(0, 400), max_size=5))
def test_blocks_give_the_mean_and_the_deviation_of_all_rows_to_the_last_bit(
    count, width, seed, cuts):
  rng = np.random.default_rng(seed)
  rows = rng.normal(size=(count, width)) * 10 ** rng.uniform(-3, 9, width)
  blocks = np.split(rows, sorted(cuts))
  actual = normalize.Scaling.fit_blocks(lambda: blocks)
  kept = rows.std(axis=0) > 1e-6
  np.testing.assert_array_equal(actual.columns, np.flatnonzero(kept))
  np.testing.assert_array_equal(actual.mean, rows.mean(axis=0)[kept])
  np.testing.assert_array_equal(actual.deviation, rows.std(axis=0)[kept])


def test_nothing_varies():
  scaling = normalize.Scaling.fit(np.ones([3, 4]))
  assert scaling(np.ones([2, 4])).shape == (2, 0)


def test_fit_on_graphs():
  graphs = [synthetic.tile_graph(seed, num_nodes=seed + 2) for seed in range(3)]
  fitted = normalize.Normalizer.fit(graphs)
  rows = np.concatenate([normalize.node_rows(graph) for graph in graphs])
  configs = np.concatenate([normalize.tile_rows(graph) for graph in graphs])
  for scaling, expected in ((fitted.nodes, normalize.Scaling.fit(rows)),
                            (fitted.configs, normalize.Scaling.fit(configs))):
    np.testing.assert_array_equal(scaling.columns, expected.columns)
    np.testing.assert_array_equal(scaling.mean, expected.mean)
    np.testing.assert_array_equal(scaling.deviation, expected.deviation)
  assert set(fitted.opcodes.tolist()) == {int(op) for graph in graphs for op in graph.node_opcode}
  assert fitted.feature_padding == 0


def test_rows_are_signed_logs_followed_by_tile_features():
  graph = synthetic.tile_graph(0)
  np.testing.assert_allclose(normalize.node_rows(graph), normalize.signed_log(graph.node_feat))
  rows = normalize.tile_rows(graph)
  np.testing.assert_allclose(rows[:, :24], normalize.signed_log(graph.config_feat))
  np.testing.assert_array_equal(rows[:, 24:], tile_features.tile_features(graph))


def test_relative_sizes_are_roots_of_shares():
  graph = synthetic.layout_graph(0, num_nodes=3)
  features = graph.node_feat.copy()
  features[:, 28] = [0, 4, 32]  # Tuples have no elements of their own; the mean is 12.
  changed = synthetic.layout_graph(0, num_nodes=3, node_feat=features)
  np.testing.assert_allclose(
      normalize.relative_sizes(changed), [0, np.sqrt(1 / 3), np.sqrt(32 / 12)])
  features[:, 28] = 0
  empty = synthetic.layout_graph(0, num_nodes=3, node_feat=features)
  np.testing.assert_array_equal(normalize.relative_sizes(empty), np.zeros(3))


def test_layouts_are_not_scaled():
  fitted = normalize.Normalizer.fit([synthetic.layout_graph(0)])
  assert fitted.configs.columns.shape == (0,)


def test_mixed_paddings_are_refused():
  padded = synthetic.tile_graph(1, name="padded", feature_padding=np.int64(-1))
  with pytest.raises(errors.DataError, match="differ in feature_padding: .*'padded'.*--padding"):
    normalize.Normalizer.fit([synthetic.tile_graph(0), padded])
  assert normalize.Normalizer.fit([padded]).feature_padding == -1


def test_unseen_opcodes():
  fitted = normalize.Normalizer.fit([synthetic.tile_graph(
      0, num_nodes=3, node_opcode=np.array([1, 5, 5]))])
  graph = synthetic.tile_graph(1, num_nodes=4, node_opcode=np.array([5, 7, 1, 120]))
  assert normalize.unseen_opcodes(fitted, graph) == (7, 120)
  assert normalize.unseen_opcodes(fitted, synthetic.tile_graph(
      2, num_nodes=1, node_opcode=np.array([5]))) == ()


# ---- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", [synthetic.tile_graph(0), synthetic.layout_graph(
    1, feature_padding=np.int64(-1))])
def test_save_and_load(tmp_path, graph):
  fitted = normalize.Normalizer.fit([graph])
  fitted.save(tmp_path / "normalizer.npz")
  again = normalize.Normalizer.load(tmp_path / "normalizer.npz")
  rows = normalize.node_rows(graph)
  np.testing.assert_array_equal(again.nodes(rows), fitted.nodes(rows))
  np.testing.assert_array_equal(again.configs.columns, fitted.configs.columns)
  np.testing.assert_array_equal(again.opcodes, fitted.opcodes)
  assert again.feature_padding == fitted.feature_padding == graph.feature_padding


def test_damaged_files_are_an_incomplete_run_directory(tmp_path):
  path = tmp_path / "normalizer.npz"
  with pytest.raises(errors.RunDirectoryError, match="normalizer.npz cannot be read .no file"):
    normalize.Normalizer.load(path)
  normalize.Normalizer.fit([synthetic.tile_graph(0)]).save(path)
  content = path.read_bytes()
  for size in range(0, len(content), 97):
    path.write_bytes(content[:size])
    with pytest.raises(errors.RunDirectoryError, match="normalizer.npz cannot be read"):
      normalize.Normalizer.load(path)
  flipped = bytearray(content)
  flipped[100] ^= 0xff  # In compressed data.
  path.write_bytes(flipped)
  with pytest.raises(errors.RunDirectoryError, match="normalizer.npz cannot be read"):
    normalize.Normalizer.load(path)


def test_a_missing_key_is_named(tmp_path):
  file = io.BytesIO()
  np.savez(file, opcodes=np.zeros(1))
  (tmp_path / "n.npz").write_bytes(file.getvalue())
  with pytest.raises(errors.RunDirectoryError, match="n.npz cannot be read .'nodes_columns'"):
    normalize.Normalizer.load(tmp_path / "n.npz")


def test_tensor_sizes_are_those_of_the_operands():
  # 0, 1: arrays; 2: of both, the larger first; 3: of one; 4: of none.
  graph = synthetic.layout_graph(0, num_nodes=5, num_config_nodes=3)
  features = graph.node_feat.copy()
  features[:, 28] = [4, 16, 36, 64, 100]
  changed = synthetic.layout_graph(
      0, num_nodes=5, num_config_nodes=3, node_feat=features, node_config_ids=np.array([4, 2, 3]),
      edge_index=np.array([[3, 2], [2, 1], [2, 0]]))
  root = np.sqrt(np.array([4, 16, 36, 64, 100]) / 44)
  np.testing.assert_allclose(
      normalize.tensor_sizes(changed), root[[[4, 4, 4], [2, 1, 0], [3, 2, 2]]])


def _set(name, new):
  return lambda arrays: arrays.update({name: new(arrays[name])})


@pytest.mark.parametrize("change, message", [
    (_set("nodes_deviation", lambda a: a * 0), "nodes_deviation holds 0.0; expected numbers above"),
    (_set("configs_deviation", lambda a: -a), "configs_deviation holds -"),
    (_set("nodes_mean", lambda a: a * np.nan), "nodes_mean or nodes_deviation holds other"),
    (_set("nodes_mean", lambda a: a.astype(np.float32)), "nodes_mean or nodes_deviation holds"),
    (_set("nodes_columns", lambda a: a + 140), "nodes_columns do not ascend from 0 to 139"),
    (_set("nodes_columns", lambda a: a - 140), "nodes_columns do not ascend from 0 to 139"),
    (_set("nodes_columns", lambda a: a[::-1]), "nodes_columns do not ascend from 0 to 139"),
    (_set("nodes_columns", lambda a: a * 1.0), "nodes_columns, .* the first of whole numbers"),
    (_set("configs_mean", lambda a: a[1:]), "configs_columns, configs_mean and configs_deviation"),
    (_set("opcodes", lambda a: a + 128), "opcodes are not ids below 128"),
    (_set("feature_padding", lambda a: a + 1), "feature_padding is neither 0 nor -1"),
    (_set("feature_padding", lambda a: np.zeros(2, int)), "feature_padding is neither 0 nor -1"),
])
def test_a_valid_file_of_wrong_values_is_refused(tmp_path, change, message):
  arrays = normalize.Normalizer.fit([synthetic.tile_graph(0)]).arrays()
  change(arrays)
  np.savez(tmp_path / "n.npz", **arrays)
  with pytest.raises(errors.RunDirectoryError, match=f"n.npz cannot be read .*{message}"):
    normalize.Normalizer.load(tmp_path / "n.npz")


def test_columns_that_this_version_does_not_compute():
  scaling = normalize.Scaling(np.array([0, 9]), np.zeros(2), np.ones(2))
  with pytest.raises(errors.CompatibilityError, match="feature 9, and this version computes 5"):
    scaling(np.zeros([1, 5]))


def test_costs_of_tiles_follow_the_other_features():
  graphs_ = [synthetic.tile_graph(seed) for seed in range(3)]
  plain, costs = (normalize.Normalizer.fit(graphs_, costs=value) for value in (False, True))
  width = normalize.tile_rows(graphs_[0]).shape[1]
  rows = normalize.tile_rows(graphs_[0], costs=True)
  np.testing.assert_array_equal(rows[:, width:], tile_cost.features(graphs_[0]))
  # A normalizer of an older run reads the columns that it was fitted to.
  assert plain.configs.columns.max() < width <= costs.configs.columns.max()
  for fitted, with_costs in ((plain, False), (costs, True)):
    np.testing.assert_array_equal(
        fitted.tiles(graphs_[1]), fitted.configs(normalize.tile_rows(graphs_[1], with_costs)))
  np.testing.assert_array_equal(
      costs.tiles(graphs_[1])[:, :plain.configs.columns.size], plain.tiles(graphs_[1]))
