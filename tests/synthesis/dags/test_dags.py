"""Files of many graphs: level order, validation, vocabularies, splits."""

import dataclasses
import time

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import testdata
from tests.data import drawn
from tpugraphs_rank import errors
from tpugraphs_rank.data import twins
from tpugraphs_rank.synthesis.dags import dags as dags_lib

# 1 and 2 consume 3; 0 consumes 1 and 2: levels 0, 1, 1, 2.
DIAMOND = np.array([[0, 1], [0, 2], [1, 3], [2, 3]])


@st.composite
def attributed(draw, max_nodes=9, attributes=2):
  edges, count = draw(drawn.dags(max_nodes))
  x = draw(st.lists(st.lists(st.integers(0, 3), min_size=attributes, max_size=attributes),
                    min_size=count, max_size=count))
  return edges, np.array(x)


def _two_graphs(**changes):
  """Two graphs; `changes` replace arrays."""
  dags = dags_lib.canonical(
      [(DIAMOND, np.array([5, 7, 7, 5])), (np.array([[0, 1]]), np.array([9, 5]))],
      y=np.array([1.5, 2.0]), provenance={"source": "a test"})
  return dataclasses.replace(dags, **changes)


def _longest_paths(edges, count):
  """Levels by definition: the longest of all paths from a node without consumers."""
  users = {node: [u for u, v in edges if v == node] for node in range(count)}
  deepest = lambda node: max((1 + deepest(user) for user in users[node]), default=0)
  return [deepest(node) for node in range(count)]


@given(attributed())
def test_nodes_are_stored_in_level_order(graph):
  edges, x = graph
  dags = dags_lib.canonical([graph], ("a", "b"))
  level = _longest_paths(edges.tolist(), len(x))
  order = sorted(range(len(x)), key=level.__getitem__)  # Stable.
  assert dags.level.tolist() == [level[node] for node in order]
  values = np.stack([words[column] for words, column in zip(dags.vocabularies, dags.x.T)], axis=1)
  np.testing.assert_array_equal(values, x[order])
  place = {node: index for index, node in enumerate(order)}
  assert sorted(map(tuple, dags.edges(0).tolist())) == sorted(
      {(place[u], place[v]) for u, v in edges.tolist()})
  assert dags.num_operands.tolist() == [len({v for u, v in edges.tolist() if u == node})
                                        for node in order]
  assert dags.num_users.tolist() == [len({u for u, v in edges.tolist() if v == node})
                                     for node in order]
  assert dags.depths.tolist() == [max(level) + 1]


@given(attributed(), st.data())
def test_reordered_nodes_differ_only_within_levels(graph, data):
  edges, x = graph
  order = np.array(data.draw(st.permutations(range(len(x)))))
  moved = np.empty_like(x)
  moved[order] = x
  one, other = (dags_lib.canonical([g], ("a", "b")) for g in (graph, (order[edges], moved)))
  np.testing.assert_array_equal(one.wl, other.wl)
  np.testing.assert_array_equal(one.level, other.level)
  rows = lambda dags: sorted(zip(
      dags.level.tolist(), dags.x.tolist(), dags.num_operands.tolist(), dags.num_users.tolist()))
  assert rows(one) == rows(other)


@given(drawn.digraphs())
def test_cycles_are_refused(graph):
  edges, count = graph
  reached = np.zeros([count, count], bool)
  reached[edges[:, 0], edges[:, 1]] = True
  for node in range(count):
    reached |= reached[:, [node]] & reached[[node]]
  x = np.zeros(count, int)
  if reached.diagonal().any():
    with pytest.raises(errors.DataError, match=r"^graph 1: node \d+ is on or behind .*cycl"):
      dags_lib.canonical([(DIAMOND, np.zeros(4, int)), (edges, x)])
  else:
    assert len(dags_lib.canonical([(edges, x)])) == 1


@given(st.lists(attributed(), min_size=1, max_size=4), st.data())
def test_graphs_are_independent_of_each_other(graphs, data):
  dags = dags_lib.canonical(graphs, ("a", "b"), y=np.arange(len(graphs)))
  alone = [dags_lib.canonical([graph], ("a", "b"), y=np.array([float(place)]))
           for place, graph in enumerate(graphs)]
  _equal(dags, dags_lib.concat(alone))
  taken = data.draw(st.lists(st.integers(0, len(graphs) - 1), max_size=6))
  part = dags.take(taken)
  assert part.y[:, 0].tolist() == taken
  if taken:
    _equal(part, dags_lib.concat([alone[place] for place in taken]).in_vocabularies(
        dags.vocabularies))
  assert part.hashes().tolist() == dags.hashes()[np.array(taken, int)].tolist()


def _equal(one, other):
  for name in ("node_off", "edge_off", "src", "dst", "x", "level", "y", "wl"):
    np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert getattr(one, name).dtype == getattr(other, name).dtype
  for words, others in zip(one.vocabularies, other.vocabularies, strict=True):
    np.testing.assert_array_equal(words, others)
  assert (one.x_names, one.y_names) == (other.x_names, other.y_names)


@settings(max_examples=20)
@given(graphs=st.lists(attributed(), max_size=3))
def test_saved_graphs_are_loaded_unchanged(tmp_path_factory, graphs):
  path = tmp_path_factory.mktemp("files") / "graphs.npz"
  for y, y_names in ((None, ()), (np.zeros([len(graphs), 2]), ("cost", "size"))):
    dags = dags_lib.canonical(graphs, ("opcode", "type"), y=y, y_names=y_names,
                              provenance={"seed": 3, "options": {"a": [1.5, None]}})
    dags_lib.save(path, dags)
    again = dags_lib.load(path)
    _equal(dags, again)
    assert again.provenance == dags.provenance


def test_vocabularies_may_contain_strings(tmp_path):
  words = (np.array(["dot", "add"]), np.array([32, 16]))
  dags = dags_lib.canonical([(DIAMOND, np.array([[0, 0], [1, 0], [1, 1], [0, 1]]))],
                            ("opcode", "bits"), words)
  dags_lib.save(tmp_path / "a.npz", dags)
  _equal(dags_lib.load(tmp_path / "a.npz"), dags)
  other = dags.in_vocabularies((np.array(["add", "dot", "tanh"]), np.array([8, 16, 32])))
  assert other.x.tolist() == [[1, 2], [0, 2], [0, 1], [1, 1]]
  np.testing.assert_array_equal(other.hashes(), dags.hashes())


def test_a_file_of_one_attribute_and_label_need_not_name_them(tmp_path):
  np.savez(tmp_path / "plain.npz", node_off=[0, 4], edge_off=[0, 4], src=DIAMOND[:, 0],
           dst=DIAMOND[:, 1], x=np.array([4, 9, 9, 2], np.int16), level=[0, 1, 1, 2], y=[2.5])
  dags = dags_lib.load(tmp_path / "plain.npz")
  assert dags.x_names == ("opcode",) and dags.y_names == ("runtime",)
  assert dags.vocabularies[0].tolist() == [2, 4, 9] and dags.x.tolist() == [[1], [2], [2], [0]]
  assert dags.label().tolist() == dags.label("runtime").tolist() == [2.5]
  # A single integer attribute is hashed by value.
  expected = twins.graph_hash(np.array([4, 9, 9, 2]), DIAMOND)
  assert f"{dags.wl[0]:016x}" == expected[:16]
  assert dags.provenance == {}


@pytest.mark.parametrize("changes, message", [
    ({"node_off": [0, 4, 5]}, "node_off does not increase from 0 to 6"),
    ({"node_off": [0, 0, 6]}, "node_off does not increase from 0 to 6"),
    ({"edge_off": [0, 6, 5]}, "edge_off does not increase from 0 to 5"),
    ({"edge_off": [0, 4, 4, 5]}, "edge_off has 4 rows; expected G.1 = 3"),
    ({"src": [0, 0, 1, 3, 0]}, r"edge 3, in graph 0 of 4 nodes, is \(3, 3\); expected 0 <= src"),
    ({"dst": [1, 2, 3, 3, 2]}, r"edge 4, in graph 1 of 2 nodes, is \(0, 2\)"),
    ({"src": [0, 0, 2, 2, 0]}, "graph 0 contains the same edge twice"),
    ({"src": [0.0, 0, 1, 2, 0]}, "src has dtype float64; expected integers"),
    ({"dst": [1, 2, 3, 3]}, "dst has 4 rows; expected E = 5"),
    ({"x": np.zeros([6], int)}, r"x has shape \(6,\); expected 2 dimensions"),
    ({"x": np.full([6, 1], 3)}, r"x: opcode holds 3; expected indices 0..2 into vocab_opcode"),
    ({"x": np.full([6, 1], -1)}, r"x: opcode holds -1; expected indices 0..2"),
    ({"x": np.full([6, 1], 2**40)}, "x holds 1099511627776; expected numbers of int32"),
    ({"level": [0, 1, 1, 3, 0, 1]}, "level of node 3 of graph 0 is 3; expected its longest path"),
    ({"level": [0, 1, 1, 2, 0]}, "level has 5 rows; expected N = 6"),
    ({"dst": [1, 3, 2, 3, 1], "edge_off": [0, 4, 5], "src": [0, 0, 1, 1, 0],
      "level": [0, 1, 2, 2, 0, 0]}, "level of node 1 of graph 1 is 0; expected its longest path"),
    ({"y": [[1.0]]}, "y has 1 rows; expected G = 2"),
    ({"y": [[1.0], [np.nan]]}, "y is not finite"),
    ({"y": [["a"], ["b"]]}, "y has dtype <U1; expected numbers"),
    ({"y_names": ("a", "b")}, "y_names are .* for each of 1 columns"),
    ({"wl": np.array([-1, 2])}, "wl holds -1; expected no negative"),
    ({"wl": np.array([2])}, "wl has 1 rows; expected G = 2"),
    ({"vocabularies": (np.array([1, 2, 1]),)}, "vocab_opcode contains a duplicate"),
    ({"vocabularies": (np.array([1.0, 2, 3]),)}, "vocab_opcode has .* expected .V,. integers"),
])
def test_invalid_arrays_are_refused(changes, message, tmp_path):
  with pytest.raises(errors.DataError, match=message):
    _two_graphs(**changes)
  arrays = {name: getattr(_two_graphs(), name)
            for name in ("node_off", "edge_off", "src", "dst", "x", "level", "y", "wl")}
  arrays.update({"x_names": np.array(["opcode"]), "y_names": np.array(["runtime"]),
                 "vocab_opcode": np.array([5, 7, 9])})
  if "vocabularies" in changes:
    changes = {"vocab_opcode": changes["vocabularies"][0]}
  if np.shape(changes.get("x", np.zeros([1, 1]))) == (6,):
    return  # In a file, a single attribute may be one-dimensional.
  path = tmp_path / "bad.npz"
  np.savez(path, **{**arrays, **{name: np.array(value) for name, value in changes.items()}})
  with pytest.raises(errors.DataError, match=f"{path}: .*(canonical|names)"):
    dags_lib.load(path)


def test_nodes_out_of_level_order_are_refused():
  # Two roots; the second comes after a node of the next level.
  with pytest.raises(errors.DataError, match="node 2 of graph 0 is 0; expected at least the one"):
    dags_lib.Dags(np.array([0, 3]), np.array([0, 1]), np.array([0]), np.array([1]),
                  np.zeros([3, 1], int), np.array([0, 1, 0]), (np.array([1]),), ("opcode",),
                  np.zeros([1, 0]), (), np.zeros([1], np.uint64))


@pytest.mark.parametrize("changes, message", [
    ({"src": None}, "key src is missing; the file holds: .*node_off"),
    ({"x": np.zeros([1, 1, 1], int)}, r"x has shape \(1, 1, 1\)"),
    ({"x": np.zeros([6, 2], int)}, "key x_names is missing; expected the names of 2"),
    ({"x_names": np.array([3])}, r"x_names has shape \(1,\) and dtype int"),
    ({"x": np.zeros([6, 2], int), "x_names": np.array(["a", "b"]), "vocab_a": np.array([1])},
     "key vocab_b is missing"),
    ({"y": np.zeros([2, 1, 1])}, r"y has shape \(2, 1, 1\)"),
    ({"provenance": np.array("{")}, "provenance is not a single string"),
    ({"provenance": np.array("[]")}, "provenance is not a single string"),
    ({"provenance": np.array(3)}, "provenance is not a single string"),
])
def test_damaged_files_name_file_and_key(changes, message, tmp_path):
  arrays = {name: getattr(_two_graphs(), name)
            for name in ("node_off", "edge_off", "src", "dst", "x", "level")}
  arrays.update(changes)
  path = tmp_path / "bad.npz"
  np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
  with pytest.raises(errors.DataError, match=f"{path}: {message}"):
    dags_lib.load(path)


def test_a_file_of_other_arrays_names_what_it_holds(tmp_path):
  np.savez(tmp_path / "few.npz", **{"a": np.zeros(1), "b\n": np.zeros(1)})
  with pytest.raises(errors.DataError, match=r"key node_off is missing; the file holds: a, b\\n; "):
    dags_lib.load(tmp_path / "few.npz")
  np.savez(tmp_path / "many.npz", **{f"key_{index}": np.zeros(1) for index in range(20)})
  with pytest.raises(errors.DataError, match=r"the file holds: key_0, .*, key_11, \.\.\.; "):
    dags_lib.load(tmp_path / "many.npz")


def test_other_and_missing_files(tmp_path):
  (tmp_path / "text.npz").write_text("no archive")
  with pytest.raises(errors.DataError, match="text.npz"):
    dags_lib.load(tmp_path / "text.npz")
  np.savez(tmp_path / "pickled.npz", x=np.array([{}], object))
  with pytest.raises(errors.DataError, match="pickled.npz.*x"):
    dags_lib.load(tmp_path / "pickled.npz")
  with pytest.raises(errors.MissingDataError, match="none.npz"):
    dags_lib.load(tmp_path / "none.npz")


@pytest.mark.parametrize("graph, message", [
    ((DIAMOND, np.zeros(3, int)), "graph 0: an edge names node 3; expected numbers from 0 to 2"),
    ((DIAMOND - 1, np.zeros(3, int)), "graph 0: an edge names node -1"),
    ((np.zeros([0, 2]), np.zeros(0, int)), "graph 0 has no nodes"),
    ((np.array([[1, 1]]), np.zeros(2, int)), "graph 0: node 1 is on or behind an edge to itself"),
])
def test_invalid_graphs(graph, message):
  with pytest.raises(errors.DataError, match=message):
    dags_lib.canonical([graph])


def test_attributes_and_labels_must_agree():
  one = _two_graphs()
  with pytest.raises(errors.DataError, match="no label 'cost' for these graphs; they have: runt"):
    one.label("cost")
  with pytest.raises(errors.DataError, match="they have: none"):
    one.with_labels(np.zeros([2, 0]), ()).label()
  with pytest.raises(errors.DataError, match="y_names differ"):
    dags_lib.concat([one, one.with_labels(np.zeros(2), ["cost"])])
  with pytest.raises(errors.DataError, match="x_names differ"):
    dags_lib.concat([one, dataclasses.replace(one, x_names=("kind",))])
  with pytest.raises(errors.DataError, match="numbers here and strings there"):
    dags_lib.concat([one, dataclasses.replace(one, vocabularies=(np.array(["a", "b", "c"]),))])
  with pytest.raises(errors.DataError, match="vocab_opcode lacks 9, which occurs"):
    one.in_vocabularies((np.array([5, 7]),))
  # Values that do not occur may be missing.
  assert one.take([0]).in_vocabularies((np.array([5, 7]),)).x.max() == 1


def test_arrays_are_read_only():
  with pytest.raises(ValueError, match="read-only"):
    _two_graphs().x[0] = 1


def test_structural_twins_are_in_the_same_split():
  chains = [(np.stack([np.arange(n - 1), np.arange(1, n)], axis=1), np.zeros(n, int))
            for n in np.repeat(np.arange(2, 22), 3)]
  dags = dags_lib.canonical(chains)
  parts = dags_lib.split_by_wl(dags, {"train": 0.6, "valid": 0.2, "test": 0.2}, seed=1)
  assert list(parts) == ["train", "valid", "test"]
  assert sorted(np.concatenate(list(parts.values()))) == list(range(60))
  assert [len(part) for part in parts.values()] == [36, 12, 12]
  for name, part in parts.items():
    others = np.concatenate([rows for other, rows in parts.items() if other != name])
    assert not set(dags.wl[part]) & set(dags.wl[others])
  again = dags_lib.split_by_wl(dags, {"valid": 0.2, "test": 0.2}, seed=1)
  assert all(np.array_equal(parts[name], again[name]) for name in parts)
  other = dags_lib.split_by_wl(dags, {"valid": 0.2, "test": 0.2}, seed=2)
  assert not np.array_equal(parts["test"], other["test"])


def test_large_graphs_are_fast():
  rng = np.random.default_rng(0)
  ends = np.sort(rng.integers(0, 40_000, [80_000, 2]), axis=1)
  ends = ends[ends[:, 0] != ends[:, 1]]
  seconds = []
  for _ in range(3):
    start = time.process_time()
    dags_lib.canonical([(ends, rng.integers(0, 9, 40_000))])
    seconds.append(time.process_time() - start)
  assert min(seconds) < 2  # 0.25 s on an idle core.


@testdata.required
def test_real_kernels_are_read_unchanged():
  real = dags_lib.load(testdata.path("layerdag_tpu_tile/tpu_tile_val.npz"))
  assert len(real) == 630 and real.sizes.max() == 113 and real.depths.max() == 27
  values = real.vocabularies[0][real.x]
  again = dags_lib.canonical(
      [(real.edges(graph), values[real.nodes(graph)]) for graph in range(len(real))], y=real.y)
  for name in ("node_off", "x", "level", "y"):
    np.testing.assert_array_equal(getattr(again, name), getattr(real, name))
  # Our hashes distinguish the same graphs as the hashes in the file.
  assert len(set(zip(again.wl.tolist(), real.wl.tolist()))) == len(set(real.wl.tolist())) == 302


def test_small_files_do_not_hold_millions_of_equal_nodes(tmp_path):
  count = 2_000_000
  np.savez_compressed(
      tmp_path / "d.npz", node_off=np.array([0, count]), edge_off=np.array([0, 0]),
      src=np.zeros(0, np.int32), dst=np.zeros(0, np.int32), x=np.zeros((count, 1), np.int8),
      level=np.zeros(count, np.int8), vocab_opcode=np.array([1]))
  with pytest.raises(errors.LimitError, match="key x has 2,000,000 rows; the limit for a file of "
                     "this size is 1,048,576; expected graphs that differ"):
    dags_lib.load(tmp_path / "d.npz")
