"""The competition's score of a file, compared with its formula."""

import itertools

import numpy as np
import pytest

from tests import synthetic
from tpugraphs_rank import errors
from tpugraphs_rank import submission
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import registry

RUNTIMES = {
    "k1": [500, 100, 300, 200, 900, 250, 600], "k2": [70, 50],
    "p1": [5, 1, 4, 2, 3, 6], "p2": [10, 10, 20], "p3": [7, 7, 7]}
NORMALIZERS = {"k1": [100, 10, 100, 50, 300, 100, 100], "k2": [10, 10]}


def _collection(folder, kind, runtimes, name):
  for stem, values in runtimes.items():
    values = np.int64(values)
    if kind == "tile":
      graph = synthetic.tile_graph(
          1, num_configs=len(values), name=stem, config_runtime=values,
          config_runtime_normalizers=np.int64(NORMALIZERS.get(stem, values)))
    else:
      graph = synthetic.layout_graph(
          1, num_configs=len(values), name=stem, config_runtime=values)
    npz.save_graph(folder / "valid" / f"{stem}.npz", graph)
  return registry.Collection(name=name, kind=kind, target="chip", splits={"valid": len(runtimes)},
                             folder=folder)


@pytest.fixture
def tile(tmp_path):
  return _collection(tmp_path / "tile", "tile", {k: RUNTIMES[k] for k in ("k1", "k2")}, "tile:made")


@pytest.fixture
def layout(tmp_path):
  return _collection(tmp_path / "layout", "layout",
                     {k: RUNTIMES[k] for k in ("p1", "p2", "p3")}, "layout:made:up")


FILE = (b"ID,TopConfigs\ntile:made:k1,0;2;3;6;1\ntile:made:k2,1;0\n"
        b"layout:made:up:p1,1;3;0;4;2;5\nlayout:made:up:p2,2;0;1\nlayout:made:up:p3,0;1;2\n")


def _tau(runtimes, order):
  """(C - D) / (C + D) over the pairs of unequal runtimes."""
  rank = {index: place for place, index in enumerate(order)}
  pairs = [(i, j) for i, j in itertools.combinations(range(len(runtimes)), 2)
           if runtimes[i] != runtimes[j]]
  signs = [np.sign((rank[i] - rank[j]) * (runtimes[i] - runtimes[j])) for i, j in pairs]
  return sum(signs) / len(signs)


def test_scores_are_the_competitions_formula(tile, layout):
  result = submission.score(FILE, "valid", [tile, layout])
  relative = [runtime / unit for runtime, unit in zip(RUNTIMES["k1"], NORMALIZERS["k1"])]
  expected = {
      # 2 - the best of the five / the best of all.
      ("tile:made", "k1"): 2 - min(relative[i] for i in (0, 2, 3, 6, 1)) / min(relative),
      ("tile:made", "k2"): 2 - 5.0 / 5.0,
      ("layout:made:up", "p1"): _tau(RUNTIMES["p1"], [1, 3, 0, 4, 2, 5]),
      ("layout:made:up", "p2"): _tau(RUNTIMES["p2"], [2, 0, 1])}
  actual = {(graph.collection, graph.graph): graph.score for graph in result.graphs}
  assert np.isnan(actual.pop(("layout:made:up", "p3")))  # Equal runtimes: nothing to rank.
  assert actual == {key: pytest.approx(value) for key, value in expected.items()}
  assert actual["tile:made", "k1"] < 1 and actual["layout:made:up", "p2"] == -1
  assert [graph.configurations for graph in result.graphs] == [7, 2, 6, 3, 3]

  tile_mean = (expected["tile:made", "k1"] + expected["tile:made", "k2"]) / 2
  layout_mean = (expected["layout:made:up", "p1"] + expected["layout:made:up", "p2"]) / 2
  assert result.as_dict() == {
      "score": pytest.approx((tile_mean + layout_mean) / 2),
      "partial": pytest.approx((tile_mean + layout_mean) / 2), "missing": [],
      "collections": {
          "tile:made": {"score": pytest.approx(tile_mean), "graphs": 2, "skipped": 0},
          "layout:made:up": {"score": pytest.approx(layout_mean), "graphs": 2, "skipped": 1}},
      "without_runtimes": {}}


def test_any_valid_file_has_the_score_of_its_canonical_form(tile, layout):
  header, k1, *rows = FILE.decode().splitlines()
  k1 = '"{}",{};4;5'.format(*k1.split(","))
  other = "\ufeff" + "\r\n".join([header, *reversed(rows), k1])
  assert submission.score(other.encode(), "valid", [tile, layout]) == (
      submission.score(FILE, "valid", [tile, layout]))


def test_the_graphs_that_exist_are_scored(tile):
  (tile.folder / "valid" / "k2.npz").unlink()
  data = FILE[:FILE.index(b"tile:made:k2")]
  with pytest.raises(errors.DataError, match="1 of the 2 graphs .*the one that exists: --partial"):
    submission.score(data, "valid", [tile])
  result = submission.score(data, "valid", [tile], partial=True)
  assert [graph.graph for graph in result.graphs] == ["k1"]


def test_collections_that_are_not_in_the_file_are_missing(tile, layout):
  result = submission.score(b"".join(FILE.splitlines(keepends=True)[:3]), "valid", [tile, layout])
  stored = result.as_dict()
  assert stored["missing"] == ["layout:made:up"] and stored["score"] is None
  assert stored["partial"] == stored["collections"]["tile:made"]["score"]


def test_graphs_without_runtimes_are_counted(tile, tmp_path):
  zero = _collection(tmp_path / "zero", "tile", {"k3": [0, 0], "k4": [3, 5]}, "tile:zero")
  data = FILE[:FILE.index(b"layout")] + b"tile:zero:k3,0;1\ntile:zero:k4,0;1\n"
  result = submission.score(data, "valid", [tile, zero])
  assert result.without_runtimes == {"tile:zero": 1}
  assert result.competition.collections["tile:zero"].graphs == 1


def test_a_file_without_any_measured_graph_is_refused(tmp_path):
  zero = _collection(tmp_path / "zero", "layout", {"a": [0, 0], "b": [0, 0]}, "layout:zero:z")
  data = b"ID,TopConfigs\nlayout:zero:z:a,0;1\nlayout:zero:z:b,0;1\n"
  with pytest.raises(errors.DataError, match=(
      "none of the 2 graphs of layout:zero:z valid has runtimes.*--split=valid")):
    submission.score(data, "valid", [zero])


def test_faulty_files_and_other_collections_are_not_scored(tile, layout):
  with pytest.raises(errors.DataError, match=(
      r"not valid for valid: line 2: tile:made:k1: 4 indices; expected the best 5 .* "
      r"\(and 1 more\); "
      "`tpugraphs-rank submission validate --split valid` lists all faults")):
    submission.score(FILE[:FILE.index(b";1\ntile:made:k2")], "valid", [tile])
  with pytest.raises(errors.DataError, match="no row of tile:made; name its collections with"):
    submission.score(FILE[:14] + FILE[FILE.index(b"layout"):], "valid", [tile])


def test_a_damaged_graph_is_named(tile):
  path = tile.folder / "valid" / "k1.npz"
  with np.load(path) as stored:
    arrays = dict(stored)
  data = FILE[:FILE.index(b"layout")]
  for key, value, message in (
      ("config_runtime", np.int64([5, 0, 1, 1, 1, 1, 1]), "runtimes hold 1 of 7 values that are"),
      ("config_runtime_normalizers", np.zeros(7, np.int64), "normalizers hold 7 of 7 values"),
      ("config_runtime_normalizers", None, "key 'config_runtime_normalizers' is missing")):
    changed = {**arrays, key: value}
    if value is None:
      del changed[key]
    np.savez(path, **changed)
    with pytest.raises(errors.DataError, match=f"k1.npz: {message}"):
      submission.score(data, "valid", [tile])
