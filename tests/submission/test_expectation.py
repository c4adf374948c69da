"""What must be in a submission, from the data or from a sample."""

import json
import zipfile

import numpy as np
import pytest

from tests import public_tree
from tests import synthetic
from tests.submission import small_submissions
from tpugraphs_rank import errors
from tpugraphs_rank import submission
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import registry
from tpugraphs_rank.submission import expectation as expectation_lib


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
  root = tmp_path_factory.mktemp("tree")
  public_tree.write_tree(root, splits=["test"])
  return root


@pytest.fixture(scope="module")
def whole(tree):
  return submission.from_data(data_root=tree)


def test_the_rows_of_the_public_test_splits(whole):
  assert whole.count(whole.places) == {
      "tile:xla": 844, "layout:xla:default": 8, "layout:xla:random": 8, "layout:nlp:default": 17,
      "layout:nlp:random": 17}
  assert len(whole.rows) == len(whole.places) == 894
  order = [(whole.collections.index(row.collection), row.path.stem) for row in whole.rows]
  assert order == sorted(order) and whole.collections == expectation_lib.COLLECTIONS
  for row in whole.rows:
    assert row.id == f"{row.collection}:{row.path.stem}"
    assert row.length == (min(5, row.num_configs) if row.kind == "tile" else row.num_configs)
  layout = [row.length for row in whole.rows if row.kind == "layout"]
  assert sorted(layout) == [1000] * 48 + [1001] * 2
  assert {2, 3, 4, 5} == {row.length for row in whole.rows if row.kind == "tile"}


def test_counts_equal_those_of_the_graphs(tree, whole):
  for name in ("tile:xla", "layout:xla:random"):
    rows = [row for row in whole.rows if row.collection == name]
    for row in rows[::10]:
      assert row.num_configs == npz.load_graph(row.path).num_configs
    assert {row.path for row in rows} == set(
        collections.load_collection(name, "test", tree).paths)


def test_only_headers_are_read(tmp_path):
  path = tmp_path / "large.npz"
  with zipfile.ZipFile(path, "w") as archive:
    for key, shape in (("config_runtime", (10**9,)), ("config_feat", (10**9, 24))):
      with archive.open(f"{key}.npy", "w") as member:
        np.lib.format.write_array_header_1_0(
            member, {"shape": shape, "fortran_order": False, "descr": "<f4"})
        # Nothing follows: 4 GB and 96 GB that are not there.
  assert expectation_lib.num_configs(path, "tile") == 10**9


@pytest.mark.parametrize("kind, arrays, message", [
    ("tile", {"config_runtime": np.zeros(3)}, "lacks the key 'config_feat' of a tile graph"),
    ("tile", {"config_runtime": np.zeros(3), "node_config_feat": np.zeros([3, 1, 18])},
     r"lacks the key 'config_feat' of a tile graph \(found: config_runtime, node_config_feat\)"),
    ("layout", {"config_feat": np.zeros([3, 24])}, "lacks the key 'config_runtime' of a layout"),
    ("tile", {"config_runtime": np.float32(1), "config_feat": np.zeros([3, 24])},
     "lacks the key 'config_runtime'"),
    ("tile", {"config_runtime": np.zeros(3), "config_feat": np.zeros([4, 24])},
     "config_runtime has 3 entries, config_feat has 4; expected one for each"),
    ("layout", {"config_runtime": np.zeros(0), "node_config_feat": np.zeros([0, 1, 18])},
     "has no configurations, so there is nothing to rank"),
])
def test_a_file_without_a_valid_graph_is_refused(tmp_path, kind, arrays, message):
  np.savez(tmp_path / "bad.npz", **arrays)
  with pytest.raises(errors.DataError, match=f"bad.npz.*{message}"):
    expectation_lib.num_configs(tmp_path / "bad.npz", kind)


def test_an_incomplete_data_folder_is_refused(tree, tmp_path):
  with pytest.raises(errors.MissingDataError, match="no data of tile:xla test at "):
    submission.from_data(data_root=tmp_path)
  public_tree.write_tree(tmp_path, collections=["layout:xla:default"], splits=["test"])
  next(tmp_path.rglob("*.npz")).unlink()
  with pytest.raises(errors.DataError, match="7 of the 8 graphs of layout:xla:default test"):
    submission.from_data(["layout:xla:default"], data_root=tmp_path)
  with pytest.raises(errors.UnknownNameError, match="no split 'tst'"):
    submission.from_data(["tile:xla"], "tst", tree)


def test_rows_are_sorted_by_stem_and_not_by_file_name(tmp_path):
  for stem in ("k.b", "k", "k-a", "K"):  # As file names, "k.npz" follows "k.b.npz".
    npz.save_graph(tmp_path / "npz" / f"{stem}.npz", synthetic.tile_graph(1, name=stem))
  collection = registry.Collection(
      name="tile:mine", kind="tile", target="chip", splits={"all": None}, folder=tmp_path,
      path="npz")
  expected = submission.from_data([collection], "all")
  assert [row.id for row in expected.rows] == [
      "tile:mine:K", "tile:mine:k", "tile:mine:k-a", "tile:mine:k.b"]
  assert [row.length for row in expected.rows] == [5] * 4


def test_ambiguous_names_and_collections_are_refused(tmp_path):
  path = synthetic.write_collection(tmp_path, counts=(1, 1, 1))
  with pytest.raises(errors.DataError, match="two graphs have the same ID; name each"):
    submission.from_data([str(path), str(path)])
  target = next((tmp_path / "npz" / "test").iterdir())
  target.rename(target.with_name("a b.npz"))
  with pytest.raises(errors.DataError, match="contains ' ', so it cannot be the ID of a row"):
    submission.from_data([str(path)])


def _sample(tmp_path, data):
  (tmp_path / "sample.csv").write_bytes(data)
  return submission.from_sample(tmp_path / "sample.csv")


def test_a_complete_sample_determines_all_but_the_range_of_full_tile_rows(tmp_path, whole):
  data = submission.render(submission.Row(row.id, range(row.length)) for row in whole.rows)
  for actual in (_sample(tmp_path, data), _sample(tmp_path, b"\xef\xbb\xbf" + data.replace(
      b"\n", b"\r\n")[:-2])):
    assert actual.places == whole.places and actual.collections == whole.collections
    for ours, theirs in zip(actual.rows, whole.rows):
      assert (ours.collection, ours.kind, ours.length) == (
          theirs.collection, theirs.kind, theirs.length)
      unknown = theirs.kind == "tile" and theirs.length == 5
      assert ours.num_configs == (None if unknown else theirs.num_configs)
    assert not submission.validate(data, actual)


def test_a_sample_of_placeholders_determines_the_ids(tmp_path):
  actual = _sample(tmp_path, b"ID,TopConfigs\nlayout:nlp:random:b:c,0;1;2;3;4\ntile:xla:a,4;2\n")
  assert actual.rows == (
      submission.ExpectedRow("layout:nlp:random:b:c", "layout:nlp:random", "layout", None, None),
      submission.ExpectedRow("tile:xla:a", "tile:xla", "tile", 2, None))


@pytest.mark.parametrize("data, message", [
    (b"", "line 1: the file is empty"),
    (b"ID,TopConfigs\n", "has no rows"),
    (b"id,rank\ntile:xla:a,0\n", "line 1: the header is"),
    (b"ID,TopConfigs\ntile:xla:a,0;x\n", "line 2: tile:xla:a: entry 2, 'x'"),
    (b"ID,TopConfigs\ntile:xla:a,0\ntile:xla:a,0\n", "line 3: tile:xla:a: appears twice"),
    (b"ID,TopConfigs\ntile:xla:a,0;1;0;1;0\n", "line 2: tile:xla:a: repeats an index"),
    (b"ID,TopConfigs\ntile:xla:a,0;1;2;3;4;5\n", "has 6 indices; expected at most 5 for a tile"),
    (b"ID,TopConfigs\nlayout:xla:random:a,0;1;2;3;4;6\n", "is not a permutation of 0 to 5"),
    (b"ID,TopConfigs\nlayout:xla:random,0\n", "expected an ID tile:<source>:<stem> or layout:"),
    (b"ID,TopConfigs\nkernel,0\n", "expected an ID"),
])
def test_a_faulty_sample_is_refused(tmp_path, data, message):
  with pytest.raises(errors.DataError, match=f"sample .*sample.csv.*{message}.*--data_root"):
    _sample(tmp_path, data)


def test_selecting_some_collections_of_an_expectation():
  part = small_submissions.EXPECTATION.only(["layout:xla:random", "tile:xla"])
  assert part.collections == ("tile:xla", "layout:xla:random") and len(part.rows) == 5
  assert part.count(["tile:xla:bert_7c", "unknown"]) == {"tile:xla": 1, "layout:xla:random": 0}


def test_custom_collections_use_their_names(tmp_path):
  path = synthetic.write_collection(tmp_path, kind="layout", name="layout:my:search")
  assert json.loads(path.read_text())["name"] == "layout:my:search"
  assert {row.collection for row in submission.from_data([str(path)]).rows} == {"layout:my:search"}
