"""What must be in a submission, from the data or from a sample."""

import collections as collections_lib
import json
import tracemalloc

import numpy as np
import pytest

from tests import public_tree
from tests import synthetic
from tests import testdata
from tests.submission import small_submissions
from tpugraphs_rank import errors
from tpugraphs_rank import submission
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import registry
from tpugraphs_rank.submission import expectation as expectation_lib
from tpugraphs_rank.submission import public_graphs


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
  np.savez_compressed(path, config_runtime=np.zeros(1 << 22, np.float32),
                      config_feat=np.zeros([1 << 22, 2], np.float32))  # 16 MB and 32 MB.
  tracemalloc.start()
  try:
    assert expectation_lib.num_configs(path, "tile") == 1 << 22
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
  finally:
    tracemalloc.stop()


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


def test_a_sample_determines_the_ids_and_nothing_else(tmp_path, whole):
  data = submission.render(submission.Row(row.id, range(row.length)) for row in whole.rows)
  for actual in (_sample(tmp_path, data), _sample(tmp_path, b"\xef\xbb\xbf" + data.replace(
      b"\n", b"\r\n")[:-2])):
    assert list(actual.places) == list(whole.places)
    assert actual.collections == whole.collections and not actual.small
    for ours, theirs in zip(actual.rows, whole.rows):
      assert ours == submission.ExpectedRow(
          theirs.id, theirs.collection, theirs.kind, None, None)
    assert not submission.validate(data, actual)


@pytest.mark.parametrize("indices", [b"4;2", b"0;1;0", b"0;1;2;3;4;5;6", b"x;y", b"", b'"7"'])
def test_the_lists_of_a_sample_are_not_used(tmp_path, indices):
  actual = _sample(tmp_path, b"ID,TopConfigs\nlayout:nlp:random:b:c,%b\ntile:xla:a,%b\n" % (
      indices, indices))
  assert actual.rows == (
      submission.ExpectedRow("layout:nlp:random:b:c", "layout:nlp:random", "layout", None, None),
      submission.ExpectedRow("tile:xla:a", "tile:xla", "tile", None, None))


@pytest.mark.parametrize("data, message", [
    (b"", "line 1: the file is empty"),
    (b"ID,TopConfigs\n", "has no rows"),
    (b"id,rank\ntile:xla:a,0\n", "line 1: the header is"),
    (b"ID,TopConfigs\ntile:xla:a,0\ntile:xla:a,0\n", "line 3: tile:xla:a: appears twice"),
    (b"ID,TopConfigs\nlayout:xla:random,0\n", "expected an ID tile:<source>:<stem> or layout:"),
    (b"ID,TopConfigs\nkernel,0\n", "expected an ID"),
])
def test_a_faulty_sample_is_refused(tmp_path, data, message):
  with pytest.raises(errors.DataError, match=f"sample .*sample.csv.*{message}.*--data_root"):
    _sample(tmp_path, data)


def test_the_data_completes_a_sample_as_far_as_it_exists(tree, tmp_path, whole):
  rows = list(reversed(whole.rows))
  (tmp_path / "sample.csv").write_bytes(
      submission.render(submission.Row(row.id, range(5)) for row in rows))
  both = submission.from_sample(tmp_path / "sample.csv", data_root=tree)
  assert both.rows == tuple(rows) and "894 from the data" in both.knowledge()
  gone = [row for row in rows if row.path.stem.startswith("a")]
  copy = tmp_path / "copy"
  for row in rows:
    if row not in gone:
      target = copy / row.path.relative_to(tree)
      target.parent.mkdir(parents=True, exist_ok=True)
      target.symlink_to(row.path)
  part = submission.from_sample(tmp_path / "sample.csv", data_root=copy)
  for row, known in zip(part.rows, rows, strict=True):
    assert row.num_configs == (None if known in gone else known.num_configs)
  assert part.knowledge() == (f"numbers of configurations of 894 graphs: {894 - len(gone)} from "
                              f"the data, {len(gone)} unknown")


def test_a_data_folder_without_the_graphs_of_the_sample_is_refused(tree, tmp_path):
  path = tmp_path / "sample.csv"
  path.write_bytes(b"ID,TopConfigs\ntile:xla:a,0\n")
  with pytest.raises(errors.MissingDataError,
                     match="has no test graph of tile:xla; check that --data"):
    submission.from_sample(path, data_root=tmp_path)
  with pytest.raises(errors.DataError, match="no test graph in .* is in the sample .*same version"):
    submission.from_sample(path, data_root=tree)


def test_the_published_facts_about_the_test_graphs():
  known = public_graphs.configurations()
  by_collection = collections_lib.Counter(name.rpartition(":")[0] for name in known)
  assert by_collection == {"tile:xla": 844, "layout:xla:default": 8, "layout:xla:random": 8,
                           "layout:nlp:default": 17, "layout:nlp:random": 17}
  layout = collections_lib.Counter(
      count for name, count in known.items() if name.startswith("layout:"))
  assert layout == {1000: 48, 1001: 2}
  assert {name for name, count in known.items() if count == 1001} == {
      "layout:nlp:default:3a0c5517a87df8d82fd637b83298a3ba",
      "layout:xla:random:937ee0eb0d5d6151b7b8252933b5c1c9"}
  assert sum(public_graphs.SMALL_KERNELS["tile:xla"].values()) == 844 - 828


@testdata.required
def test_the_published_facts_agree_with_the_public_files(tmp_path):
  folder = testdata.path("tpugraphs_npz")
  known = public_graphs.configurations()
  sample = submission.parse((folder / "sample_submission.csv").read_bytes())
  assert [row.id for row in sample.rows] == list(known)
  (tmp_path / "npz").symlink_to(folder)
  read = [row for row in submission.expect(data_root=tmp_path).rows if row.path]
  assert len(read) == 5 and all(known[row.id] == row.num_configs for row in read)


@pytest.mark.parametrize("data_root", [None, "partly"])
def test_without_the_data_the_published_facts_are_expected(tmp_path, monkeypatch, data_root):
  monkeypatch.setenv(registry.DATA_ROOT_VARIABLE, str(tmp_path / "nothing"))
  known = public_graphs.configurations()
  if data_root:
    data_root = tmp_path / data_root
    stem = next(name for name in known if known[name] is None).rpartition(":")[2]
    npz.save_graph(data_root / "npz" / "tile" / "xla" / "test" / f"{stem}.npz",
                   synthetic.tile_graph(1, num_configs=3, name=stem))
  names = ["tile:xla"] if data_root else expectation_lib.COLLECTIONS
  actual = submission.expect(names, data_root=data_root)
  assert actual.small == public_graphs.SMALL_KERNELS
  assert len(actual.rows) == (844 if data_root else 894)
  for row in actual.rows:
    if row.path:
      assert row.path.stem == stem and (row.num_configs, row.length) == (3, 3)
    else:
      assert row.num_configs == known[row.id]
      assert row.length == (None if row.num_configs is None else
                            5 if row.kind == "tile" else row.num_configs)
  order = [(actual.collections.index(row.collection), row.id) for row in actual.rows]
  assert order == sorted(order)
  with pytest.raises(errors.MissingDataError):  # Which graphs another split has is not known.
    submission.expect(names, "valid", data_root)


def test_the_graphs_that_exist(tmp_path):
  public_tree.write_tree(tmp_path, collections=["layout:xla:default"], splits=["test"],
                         counts={"test": 3})
  with pytest.raises(errors.DataError, match="3 of the 8 .*the 3 graphs that exist: --partial"):
    submission.expect(["layout:xla:default"], data_root=tmp_path)
  actual = submission.expect(["layout:xla:default"], data_root=tmp_path, partial=True)
  assert len(actual.rows) == 3 and actual.rows == submission.from_data(
      ["layout:xla:default"], data_root=tmp_path, partial=True).rows


def test_selecting_some_collections_of_an_expectation():
  part = small_submissions.EXPECTATION.only(["layout:xla:random", "tile:xla"])
  assert part.collections == ("tile:xla", "layout:xla:random") and len(part.rows) == 5
  assert part.count(["tile:xla:bert_7c", "unknown"]) == {"tile:xla": 1, "layout:xla:random": 0}


def test_custom_collections_use_their_names(tmp_path):
  path = synthetic.write_collection(tmp_path, kind="layout", name="layout:my:search")
  assert json.loads(path.read_text())["name"] == "layout:my:search"
  assert {row.collection for row in submission.from_data([str(path)]).rows} == {"layout:my:search"}
