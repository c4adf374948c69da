"""Graphs are canonical and immutable, and format errors name the key."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import synthetic
from tpugraphs_rank import errors
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import splits

MAKERS = {"tile": synthetic.tile_graph, "layout": synthetic.layout_graph}
# According to the public README; the released files differ from it.
README_DTYPES = {
    "node_feat": np.float32, "node_opcode": np.int32, "edge_index": np.int64,
    "node_config_ids": np.int64, "node_config_feat": np.float32, "config_feat": np.float32,
    "config_runtime": np.int64, "config_runtime_normalizers": np.int64, "node_splits": np.int64}
CANONICAL = {**README_DTYPES, "node_opcode": np.uint8}


def _arrays(kind, seed=0):
  return dict(MAKERS[kind](seed).arrays())


def _fields(graph):
  return {field.name: getattr(graph, field.name) for field in dataclasses.fields(graph)
          if "dtype" in field.metadata and getattr(graph, field.name) is not None}


def _assert_equal(one, other):
  assert type(one) is type(other) and one.feature_padding == other.feature_padding
  ours, theirs = _fields(one), _fields(other)
  assert ours.keys() == theirs.keys()
  for key in ours:
    assert ours[key].dtype == theirs[key].dtype, key
    np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)


# ---- what is accepted ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
def test_kind_sizes_and_dtypes(kind):
  graph = graphs.graph_from_arrays("p", _arrays(kind))
  assert type(graph) is {"tile": graphs.TileGraph, "layout": graphs.LayoutGraph}[kind]
  assert (graph.kind, graph.name, graph.num_nodes, graph.num_configs) == (
      kind, "p", len(graph.node_feat), len(graph.config_runtime))
  assert {key: array.dtype for key, array in _fields(graph).items()} == {
      key: CANONICAL[key] for key in _fields(graph)}


_INTEGERS = st.sampled_from([np.int16, np.int32, np.int64, np.uint16, np.uint64, np.float64])
_FLOATS = st.sampled_from([np.float32, np.float64])


@pytest.mark.parametrize("kind", MAKERS)
@given(data=st.data())
def test_any_dtype_that_holds_the_values_gives_the_same_graph(kind, data):
  arrays = _arrays(kind)
  changed = {}
  for key, array in arrays.items():
    if key == "feature_padding":
      changed[key] = array
      continue
    dtype = data.draw(_FLOATS if array.dtype.kind == "f" else _INTEGERS, label=key)
    fits = np.array_equal(array.astype(dtype).astype(np.float64), array.astype(np.float64))
    changed[key] = array.astype(dtype) if fits else array
  _assert_equal(graphs.graph_from_arrays("p", changed), graphs.graph_from_arrays("p", arrays))


@pytest.mark.parametrize("kind", MAKERS)
def test_the_dtypes_of_the_public_readme(kind):
  arrays = _arrays(kind)
  readme = {key: array.astype(README_DTYPES.get(key, array.dtype))
            for key, array in arrays.items()}
  assert readme["node_opcode"].dtype == np.int32 and arrays["node_opcode"].dtype == np.uint8
  _assert_equal(graphs.graph_from_arrays("p", readme), graphs.graph_from_arrays("p", arrays))


@pytest.mark.parametrize("splits", [[0, 4, 10], [[0, 4, 10]], [10], []])
def test_node_splits_with_one_or_two_dimensions(splits):
  graph = synthetic.layout_graph(0, num_nodes=10, node_splits=np.array(splits, np.int64))
  np.testing.assert_array_equal(graph.node_splits, np.array(splits).reshape(-1))
  assert graph.arrays()["node_splits"].shape == (1, np.size(splits))


def test_unknown_keys_are_ignored():
  graph = graphs.graph_from_arrays("p", {**_arrays("tile"), "new_key": np.array(["text"])})
  assert graph.kind == "tile"


def test_without_configurations():
  arrays = _arrays("tile")
  bare = graphs.graph_from_arrays("p", {key: arrays[key] for key in (
      "node_feat", "node_opcode", "edge_index")})
  assert type(bare) is graphs.Graph
  assert (bare.kind, bare.num_configs, bare.has_runtimes, bare.feature_padding) == (
      None, 0, False, 0)


def test_one_node_without_edges():
  graph = synthetic.tile_graph(0, num_nodes=1)
  assert graph.edge_index.shape == (0, 2)


def test_no_configurations_and_no_configurable_nodes():
  empty = synthetic.tile_graph(0, config_feat=np.zeros([0, 24]), config_runtime=np.zeros([0]),
                               config_runtime_normalizers=np.zeros([0]))
  assert (empty.num_configs, empty.has_runtimes) == (0, False)
  assert empty.config_keys().shape == (0,)
  fixed = synthetic.layout_graph(0, num_configs=3, node_config_ids=np.zeros([0], np.int64),
                                 node_config_feat=np.zeros([3, 0, 18], np.float32))
  np.testing.assert_array_equal(fixed.config_keys(), [0, 0, 0])  # All configurations are equal.


# ---- immutable -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
def test_nothing_can_be_changed(kind):
  graph = MAKERS[kind](0)
  for field in dataclasses.fields(graph):
    with pytest.raises(dataclasses.FrozenInstanceError):
      setattr(graph, field.name, None)
  for key, array in _fields(graph).items():
    with pytest.raises(ValueError, match="read-only"):
      array[...] = 0
    assert array.size, key


def test_changing_the_source_changes_no_graph():
  arrays = {key: np.array(array) for key, array in _arrays("tile").items()}
  graph = graphs.graph_from_arrays("p", arrays)
  before = {key: array.copy() for key, array in _fields(graph).items()}
  for array in arrays.values():
    array[...] = 7
  for key, array in _fields(graph).items():
    np.testing.assert_array_equal(array, before[key], err_msg=key)


# ---- runtimes ------------------------------------------------------------------------------------


def test_all_zeros_are_no_runtimes():
  count = 12
  graph = synthetic.tile_graph(0, num_configs=count, config_runtime=np.zeros(count),
                               config_runtime_normalizers=np.zeros(count))
  assert not graph.has_runtimes and graph.num_configs == count
  np.testing.assert_array_equal(graph.relative_runtime, np.zeros(count))
  assert not synthetic.layout_graph(0, num_configs=count, config_runtime=np.zeros(count)
                                    ).has_runtimes


def test_relative_runtime():
  tile = synthetic.tile_graph(
      0, num_configs=2, config_runtime=np.array([3, 8]),
      config_runtime_normalizers=np.array([2, 4]))
  np.testing.assert_array_equal(tile.relative_runtime, [3 / 2, 8 / 4])
  layout = synthetic.layout_graph(0, num_configs=2, config_runtime=np.array([3, 8]))
  np.testing.assert_array_equal(layout.relative_runtime, [3.0, 8.0])


@pytest.mark.parametrize("kind", MAKERS)
@given(picks=st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_config_keys_distinguish_configurations_and_count_from_0(kind, picks):
  source = MAKERS[kind](3, num_configs=5)
  key = {"tile": "config_feat", "layout": "node_config_feat"}[kind]
  graph = MAKERS[kind](3, num_configs=len(picks), **{key: getattr(source, key)[picks]})
  seen, expected = {}, []
  for row in getattr(graph, key):
    expected.append(seen.setdefault(tuple(row.ravel().tolist()), len(seen)))
  np.testing.assert_array_equal(graph.config_keys(), expected)
  assert graph.config_keys().dtype == np.int64


def test_minus_zero_is_zero_in_config_keys():
  feat = np.zeros([2, 24], np.float32)
  feat[1] = -0.0
  np.testing.assert_array_equal(
      synthetic.tile_graph(0, num_configs=2, config_feat=feat).config_keys(), [0, 0])


# ---- what is refused -----------------------------------------------------------------------------


def _put(array, index, value, dtype=None):
  changed = np.array(array, dtype)
  changed[index] = value
  return changed


WRONG = [
    # kind, key, change of its array, expected message
    ("tile", "node_feat", lambda a: a[:, :139], r"has shape \(6, 139\); expected \(n, 140\)"),
    ("tile", "node_feat", lambda a: a[0], r"has shape \(140,\); expected \(n, 140\)"),
    ("tile", "node_feat", lambda a: _put(a, (2, 30), np.nan), r"entry \[2, 30\] is nan"),
    ("tile", "node_feat", lambda a: _put(a, (1, 0), np.inf), r"entry \[1, 0\] is inf"),
    ("tile", "node_feat", lambda a: a.astype("U4"), r"has dtype <U4; expected float32"),
    ("tile", "node_feat", lambda a: a.astype(complex), r"has dtype complex128; expected float32"),
    ("tile", "node_opcode", lambda a: a[:-1], r"has shape \(5,\); expected \(n\) with n = 6"),
    ("tile", "node_opcode", lambda a: _put(a, 0, 128), r"holds 128; expected ids below 128"),
    ("tile", "node_opcode", lambda a: _put(a, 0, -1, np.int32), r"ranges from -1 to"),
    ("tile", "node_opcode", lambda a: _put(a, 0, 300, np.int32), r"ranges from .* to 300"),
    ("tile", "node_opcode", lambda a: a + 0.5, r"has dtype float64 and fractions"),
    ("tile", "node_opcode", lambda a: a.astype("S2"), r"has dtype \|S2; expected uint8"),
    ("tile", "edge_index", lambda a: a.T[:, :3], r"has shape \(2, 3\); expected \(m, 2\)"),
    ("tile", "edge_index", lambda a: _put(a, (3, 1), 6), r"row 3 is .*expected node ids from 0 to"),
    ("tile", "edge_index", lambda a: _put(a, (2, 0), -1), r"row 2 is .*expected node ids from 0"),
    ("tile", "config_feat", lambda a: a[:, :-1], r"has shape \(12, 23\); expected \(c, 24\)"),
    ("tile", "config_feat", lambda a: a[:-1], r"has shape \(11, 24\); expected .* with c = 12"),
    ("tile", "config_feat", lambda a: _put(a, (11, 3), np.nan), r"entry \[11, 3\] is nan"),
    ("tile", "config_runtime", lambda a: _put(a, 4, 0), r"entry 4 is 0 while others are measured"),
    ("tile", "config_runtime", lambda a: _put(a, 5, -3), "entry 5 is -3; expected positive"),
    ("tile", "config_runtime", lambda a: a[:, None], r"has shape \(12, 1\); expected \(c\)"),
    ("tile", "config_runtime", lambda a: a * 1e15, r"ranges from .*; expected int64"),
    ("tile", "config_runtime_normalizers", lambda a: _put(a, 7, 0), r"entry 7 is 0; expected"),
    ("tile", "config_runtime_normalizers", lambda a: a[:3], r"has shape \(3,\)"),
    ("tile", "feature_padding", lambda a: np.int64(3), r"is 3; expected 0 or -1"),
    ("tile", "feature_padding", lambda a: np.array([0, 0]), r"expected 0 or -1"),
    ("tile", "feature_padding", lambda a: np.array("zero"), r"expected 0 or -1"),
    ("layout", "node_config_ids", lambda a: _put(a, 2, 10), r"holds 10; expected node ids"),
    ("layout", "node_config_ids", lambda a: _put(a, 0, -1), r"holds -1; expected node ids"),
    ("layout", "node_config_ids", lambda a: _put(a, 0, a[1]), r"lists a node twice"),
    ("layout", "node_config_feat", lambda a: a[:, :2], r"has shape \(12, 2, 18\).* with nc = 3"),
    ("layout", "node_config_feat", lambda a: a[..., :17], r"expected \(c, nc, 18\)"),
    ("layout", "node_config_feat", lambda a: a[:, 0], r"has shape \(12, 18\)"),
    ("layout", "node_config_feat", lambda a: _put(a, (0, 0, 0), 6),
     r"entry \[0, 0, 0\] is 6.0; expected"),
    ("layout", "node_config_feat", lambda a: _put(a, (0, 0, 0), -2),
     r"entry \[0, 0, 0\] is -2.0; expected"),
    ("layout", "node_config_feat", lambda a: _put(a, (1, 2, 3), 0.5),
     r"entry \[1, 2, 3\] is 0.5; expected integers from -1 to 5"),
    ("layout", "node_splits", lambda a: np.array([0, 7, 3, 10]), r"does not rise"),
    ("layout", "node_splits", lambda a: np.array([0, 11]), r"does not rise from 0 to .*\(10\)"),
    ("layout", "node_splits", lambda a: np.array([-1, 10]), r"does not rise"),
    ("layout", "node_splits", lambda a: np.zeros([2, 2]), r"has shape \(2, 2\); expected \(S\)"),
]


@pytest.mark.parametrize("kind, key, change, detail", WRONG)
def test_one_clear_error_that_names_the_key(kind, key, change, detail):
  arrays = _arrays(kind)
  arrays[key] = change(np.asarray(arrays[key]))
  with pytest.raises(errors.DataError, match=detail) as caught:
    graphs.graph_from_arrays("kernel_7", arrays)
  message = str(caught.value)
  assert message.startswith("kernel_7: ") and key in message and "\n" not in message


@pytest.mark.parametrize("row", [0, 1023, 1024, 2499])
def test_a_fraction_is_detected_in_every_row(row):
  # More rows than are checked at a time.
  arrays = synthetic.layout_graph(0, num_configs=2500).arrays()
  arrays["node_config_feat"] = _put(arrays["node_config_feat"], (row, 1, 2), 0.5)
  with pytest.raises(errors.DataError, match=rf"entry \[{row}, 1, 2\] is 0.5; expected integers"):
    graphs.graph_from_arrays("p", arrays)


@pytest.mark.parametrize("kind, keys", [
    ("tile", ["node_feat", "node_opcode", "edge_index", "config_runtime",
              "config_runtime_normalizers"]),
    ("layout", ["node_feat", "node_opcode", "edge_index", "config_runtime", "node_config_ids",
                "node_config_feat"])])
def test_each_missing_key_is_named(kind, keys):
  for key in keys:
    arrays = _arrays(kind)
    del arrays[key]
    with pytest.raises(errors.DataError, match=f"p: key '{key}' is missing .found: "):
      graphs.graph_from_arrays("p", arrays)


def test_runtimes_without_configurations_are_refused():
  arrays = _arrays("tile")
  del arrays["config_feat"]
  with pytest.raises(errors.DataError, match="p: has config_runtime, but neither config_feat"):
    graphs.graph_from_arrays("p", arrays)


def test_nothing_at_all():
  with pytest.raises(errors.DataError, match="key 'node_feat' is missing .found: none"):
    graphs.graph_from_arrays("p", {})


def test_a_graph_without_nodes():
  with pytest.raises(errors.DataError, match="p: node_feat has no nodes"):
    graphs.graph_from_arrays("p", {
        "node_feat": np.zeros([0, 140]), "node_opcode": np.zeros([0]),
        "edge_index": np.zeros([0, 2])})


def test_an_error_states_the_remedy():
  arrays = _arrays("tile")
  arrays["node_opcode"] = arrays["node_opcode"][:2]
  with pytest.raises(errors.DataError, match="download the file again, or .*-rank featurize"):
    graphs.graph_from_arrays("p", arrays)


# ---- configurations ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
def test_the_order_of_the_runtimes_is_stable(kind):
  runtimes = np.array([30, 10, 30, 20, 10])
  more = {"config_runtime_normalizers": np.array([10, 10, 1, 10, 10])} if kind == "tile" else {}
  graph = MAKERS[kind](0, num_configs=5, config_runtime=runtimes, **more)
  # Tiles by runtime over normalizer: the third is the slowest then.
  assert graph.runtime_order().tolist() == ([1, 4, 3, 0, 2])


@pytest.mark.parametrize("kind", MAKERS)
def test_digests_are_equal_for_equal_configurations_only(kind):
  graph = MAKERS[kind](0, num_configs=40)
  digests, keys = graph.config_digests(), graph.config_keys()
  assert digests.dtype == np.uint64 and len(np.unique(keys)) > 1
  np.testing.assert_array_equal(digests[:, None] == digests, keys[:, None] == keys)


def test_layouts_of_any_configurations_in_any_order(monkeypatch):
  graph = synthetic.layout_graph(0, num_configs=20)
  monkeypatch.setattr(graphs, "_BLOCK_VALUES", 3 * 18 * 3)
  for rows in (np.arange(20), np.array([7, 3, 3, 19, 0]), np.zeros([0], np.int64)):
    actual = graph.layouts(rows)
    assert actual.dtype == np.int8 and actual.shape == (len(rows), 3, 18)
    np.testing.assert_array_equal(actual, graph.node_config_feat[rows])
    blocks = list(graph.layout_blocks(rows))
    assert [len(block) for block in blocks] == [
        min(3, len(rows) - start) for start in range(0, len(rows), 3)]
    np.testing.assert_array_equal(np.concatenate([actual[:0], *blocks]), actual)
  assert sum(map(len, graph.layout_blocks())) == 20


# ---- representation ------------------------------------------------------------------------------


def test_the_repr_is_one_short_line():
  graph = synthetic.tile_graph(0, num_nodes=6, num_configs=12, name="kernel")
  edges = len(graph.edge_index)
  assert repr(graph) == f"<TileGraph kernel: 6 nodes, {edges} edges, 12 configurations>"
  unmeasured = graphs.with_configs(graph, graph.config_feat[:2])
  assert repr(unmeasured) == (
      f"<TileGraph kernel: 6 nodes, {edges} edges, 2 configurations, no runtimes>")
  bare = graphs.Graph("p", graph.node_feat, graph.node_opcode, graph.edge_index)
  assert repr(bare) == f"<Graph p: 6 nodes, {edges} edges>"
  assert repr(splits.ProgramView(graph, np.array([1, 2]))) == (
      "<ProgramView kernel: 2 configurations>")
  split = collections.load_collection("tile:xla_cpu", "test")
  assert repr(split) == f"<Split tile:xla_cpu test: {len(split)} graphs>"
  assert repr(split.collection).startswith("<Collection tile:xla_cpu: train ")
  assert "\n" not in repr(split.collection) and len(repr(split.collection)) < 100
