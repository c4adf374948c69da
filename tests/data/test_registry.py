"""The table of collections, descriptors, and the location of data."""

import json
import pathlib

import platformdirs
import pytest

from tests import public_tree
from tests import testdata
from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import registry

GOOD = {"name": "tile:mine", "kind": "tile", "target": "my_chip", "splits": {"train": 2, "test": 1}}


@pytest.fixture(autouse=True)
def _own_table(monkeypatch):
  monkeypatch.setattr(registry, "_COLLECTIONS", dict(registry._COLLECTIONS))


def _descriptor(folder, values, name="mine.json"):
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / name
  path.write_text(json.dumps(values), encoding="utf-8")
  return path


# ---- the public collections ----------------------------------------------------------------------

# name: graphs in train, valid, test; folder; one archive.
PUBLIC = {
    "tile:xla": ((5709, 676, 844), "npz/tile/xla", "npz_tile_xla_train.tar"),
    "layout:xla:default": (
        (61, 7, 8), "npz/layout/xla/default", "npz_layout_xla_default_train.tar"),
    "layout:xla:random": ((69, 7, 8), "npz/layout/xla/random", "npz_layout_xla_random_train.tar"),
    "layout:nlp:default": (
        (198, 20, 17), "npz/layout/nlp/default", "npz_layout_nlp_default_train.tar"),
    "layout:nlp:random": (
        (207, 20, 17), "npz/layout/nlp/random", "npz_layout_nlp_random_train.tar"),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_collections(name):
  counts, path, archive = PUBLIC[name]
  collection = registry.get_collection(name)
  assert collection.splits == dict(zip(("train", "valid", "test"), counts))
  assert collection.location("/data") == pathlib.Path("/data", path)
  assert collection.addresses["train"] == (
      f"http://download.tensorflow.org/data/tpu_graphs/v0/{archive}")
  assert collection.has_runtimes == {"train": True, "valid": True, "test": False}
  assert collection.kind == name.partition(":")[0] and collection.target == "tpu_v3"
  assert collection.metric == ("slowdown" if name == "tile:xla" else "kendall_tau")
  assert collection.slowdown_ks == ((1, 5, 10) if name == "tile:xla" else (1, 10, 100))


def test_the_names():
  bundled = ("layout:xla_cpu:mixed", "tile:xla_cpu")
  assert set(registry.collection_names()) == {
      *PUBLIC, *bundled, *(f"{name}:v1" for name in bundled), "layout:xla_cpu:mixed:v2"}


@pytest.mark.parametrize("name, version, counts", [
    ("tile:xla_cpu", "v1", (162, 33, 86)), ("layout:xla_cpu:mixed", "v1", (100, 26, 49)),
    ("layout:xla_cpu:mixed", "v2", (121, 35, 49))])
def test_earlier_versions_of_bundled_collections(name, version, counts):
  first, whole = registry.get_collection(f"{name}:{version}"), registry.get_collection(name)
  assert first.splits == dict(zip(registry.SPLITS, counts))
  for split in registry.SPLITS:
    paths = collections.load_collection(first.name, split).paths
    assert len(paths) == first.splits[split]
    assert set(paths) <= set(collections.load_collection(name, split).paths)
  assert set(first.groups) <= set(whole.groups)


def test_a_public_tile_kernel_belongs_to_its_program():
  collection = registry.get_collection("tile:xla")
  assert collection.family("resnet_v1_50_official_batch_128_bf16_-42ca8") == (
      "resnet_v1_50_official_batch_128_bf16")
  assert collection.family("noseparator") == "noseparator"
  assert registry.get_collection("layout:xla:random").family("unet_3d.4x4.bf16") == (
      "unet_3d.4x4.bf16")


def test_the_family_of_a_public_tile_kernel_is_the_program_that_metrics_average_over():
  collection = registry.get_collection("tile:xla")
  stems = [stem for split in registry.SPLITS for stem in public_tree.stems("tile:xla", split)]
  assert {stem: collection.family(stem) for stem in stems} == {
      stem: metrics.program_of(stem) for stem in stems}
  assert len({collection.family(stem) for stem in stems[:5709]}) < 100  # Of training's kernels.


def test_an_unknown_name_lists_the_known_ones():
  with pytest.raises(errors.UnknownNameError) as caught:
    registry.get_collection("tile:xls")
  message = str(caught.value)
  assert "no collection 'tile:xls' (did you mean 'tile:xla'?)" in message
  assert all(name in message for name in PUBLIC) and "tpugraphs-rank make-collection" in message


def test_an_unknown_split_lists_the_known_ones():
  with pytest.raises(errors.UnknownNameError, match=(
      r"collection tile:xla has no split 'vaild' \(did you mean 'valid'\?\); it has: train, valid, "
      "test")):
    registry.get_collection("tile:xla").check_split("vaild")


# ---- where data is looked for --------------------------------------------------------------------


def test_argument_then_variable_then_platform(monkeypatch, tmp_path):
  monkeypatch.setenv("TPUGRAPHS_RANK_DATA", str(tmp_path / "variable"))
  assert registry.resolve_data_root(tmp_path / "argument") == tmp_path / "argument"
  assert registry.resolve_data_root() == tmp_path / "variable"
  monkeypatch.delenv("TPUGRAPHS_RANK_DATA")
  assert registry.resolve_data_root() == pathlib.Path(
      platformdirs.user_data_dir("tpugraphs_rank", appauthor=False))
  monkeypatch.setenv("HOME", str(tmp_path))
  assert registry.resolve_data_root("~/d") == tmp_path / "d"


def test_a_collection_with_a_folder_of_its_own_needs_no_data_root(tmp_path):
  collection = registry.read_descriptor(_descriptor(tmp_path / "c", {**GOOD, "path": "graphs"}))
  assert collection.location("/elsewhere") == tmp_path / "c" / "graphs"


def test_the_hint_is_a_download_command(tmp_path):
  collection = registry.get_collection("layout:nlp:random")
  command = "tpugraphs-rank download --collections layout:nlp:random --splits valid"
  hint = collection.fetch_hint("valid", tmp_path)
  assert f"`{command} --data_root {tmp_path}`" in hint
  assert "--data_root" in hint and "TPUGRAPHS_RANK_DATA" in hint
  assert f"`{command} --data_root '/my data'`" in collection.fetch_hint("valid", "/my data")
  # The command finds the root as the caller did.
  assert f"`{command}`" in collection.fetch_hint("valid")


def test_the_hint_for_a_users_data_names_its_archive(tmp_path):
  collection = registry.read_descriptor(_descriptor(
      tmp_path, {**GOOD, "addresses": {"train": "http://host/file.tar"}}))
  expected = f"is in {tmp_path}; check the path and files that it lists"
  assert collection.fetch_hint("train").endswith(f"{expected}; its archive is http://host/file.tar")
  assert collection.fetch_hint("test").endswith(expected)
  assert not collection.is_public


# ---- families and groups -------------------------------------------------------------------------


def test_families_and_groups(tmp_path):
  collection = registry.read_descriptor(_descriptor(tmp_path, {
      **GOOD, "family_regex": r"^(?P<family>[a-z]+)_", "groups": {"linear": ["matmul", "dense"]}}))
  assert collection.family("matmul_8x8") == "matmul"
  assert collection.group("matmul_8x8") == collection.group("dense_1") == "linear"
  assert collection.group("softmax_3") == "softmax"  # Named by no group: a group of its own.
  assert collection.family("12") == "12"  # Does not match.


# ---- descriptors ---------------------------------------------------------------------------------


def test_a_descriptor_by_its_folder_and_without_a_suffix(tmp_path):
  path = _descriptor(tmp_path, GOOD)
  described = registry.get_collection(str(path))
  plain = path.rename(tmp_path / "mine")
  assert registry.get_collection(str(plain)) == described
  plain.rename(tmp_path / "collection.json")
  assert registry.get_collection(str(tmp_path)) == described
  with pytest.raises(errors.UnknownNameError, match="no collection ''"):
    registry.get_collection("")


def test_a_descriptor_by_its_path_and_by_its_name(tmp_path):
  path = _descriptor(tmp_path, GOOD)
  read = registry.get_collection(str(path))
  assert read.name == "tile:mine" and read.splits == {"train": 2, "test": 1}
  assert read.folder == tmp_path
  assert registry.get_collection(read) is read
  with pytest.raises(errors.UnknownNameError):
    registry.get_collection("tile:mine")
  assert registry.register_collection(path) == read
  assert registry.get_collection("tile:mine") == read
  assert "tile:mine" in registry.collection_names()
  registry.register_collection(path)  # Once more is no mistake.


def test_all_keys(tmp_path):
  values = {
      **GOOD, "path": "npz", "files": {"train": ["a.npz", "b.npz"], "test": ["c.npz"]},
      "hlo_stage": "before_optimization", "family_regex": "(?P<family>.)", "groups": {"g": ["a"]},
      "has_runtimes": {"train": True, "test": False}, "padding": -1, "metric": "slowdown",
      "addresses": {"train": "http://host/file.tar"}, "description": "D.", "citation": "C."}
  read = registry.read_descriptor(_descriptor(tmp_path, values))
  assert read.files == {"train": ("a.npz", "b.npz"), "test": ("c.npz",)}
  for key in values.keys() - {"files", "groups"}:
    assert getattr(read, key) == values[key], key


@pytest.mark.parametrize("name", ["tile:xla", "tile:xla_cpu"])
def test_a_name_is_registered_once(tmp_path, name):
  with pytest.raises(errors.DataError, match=f"another collection is registered as {name}"):
    registry.register_collection(_descriptor(tmp_path, {**GOOD, "name": name}))


@pytest.mark.parametrize("change, expected", [
    ({"kindd": "tile"}, "unknown key 'kindd' (did you mean 'kind'?); known: "),
    ({"folder": "/x"}, "unknown key 'folder'"),
    ({"name": None}, "key 'name' is missing"),
    ({"kind": None}, "key 'kind' is missing"),
    ({"target": None}, "key 'target' is missing"),
    ({"splits": None}, "key 'splits' is missing"),
    ({"kind": "tiles"}, "kind is 'tiles'; expected 'tile' or 'layout'"),
    ({"kind": ["tile"]}, "kind is ['tile']; expected 'tile' or 'layout'"),
    ({"name": "mine"}, "name is 'mine'; expected tile:<source>"),
    ({"name": "layout:mine"}, "name is 'layout:mine'; expected tile:<source>"),
    ({"name": 3}, "name is 3; expected tile:<source>"),
    ({"target": 3}, "target is 3; expected a string"),
    ({"target": "\x1b[31mtpu"}, r"target is '\x1b[31mtpu'; expected a string of at most 255 prin"),
    ({"splits": {}}, "splits is {}; expected an object"),
    ({"name": "tile:" + "x" * 300}, "expected tile:<source> of at most 255 characters"),
    ({"name": "tile:\x1b[2J"}, r"name is 'tile:\x1b[2J'; expected tile:<source> of at most"),
    ({"files": {"train": ["x" * 300 + ".npz"], "test": []}}, "expected an object from splits to"),
    ({"padding": False}, "padding is False; expected 0 or -1"),
    ({"splits": ["train"]}, "splits is ['train']; expected an object"),
    ({"splits": {"train": 1, "dev": 1}}, "expected an object from train, valid, test"),
    ({"splits": {"train": 1, "all": 1}}, "expected an object from train, valid, test"),
    ({"splits": {"train": "two"}}, "to a number of graphs or null"),
    ({"splits": {"train": -1}}, "to a number of graphs or null"),
    ({"splits": {"train": True}}, "to a number of graphs or null"),
    ({"path": 3}, "path is 3; expected the path of a folder"),
    ({"path": "a" * 5000}, "...aa'; expected the path of a folder: printed characters, names of"),
    ({"path": "a" * 256}, "...aa'; expected the path of a folder"),
    ({"path": "a/" * 2100}, "...a/'; expected the path of a folder"),
    ({"path": "a\0b"}, "path is 'a\\x00b'; expected the path of a folder"),
    ({"path": "\x1b[31ma\nerror: b"}, "path is '\\x1b[31ma\\nerror: b'; expected"),
    ({"addresses": {"train": "http://x\n"}}, "addresses is {'train': 'http://x\\n'}; expected"),
    ({"files": ["a.npz"]}, "files is ['a.npz']; expected an object from splits to lists"),
    ({"files": {"valid": ["a.npz"]}}, "expected an object from splits to lists"),
    ({"files": {"train": "a.npz", "test": []}}, "expected an object from splits to lists"),
    ({"files": {"train": [1], "test": []}}, "expected an object from splits to lists"),
    ({"files": {"train": ["a.npz"]}}, "expected an object from splits to lists"),
    ({"groups": ["g"]}, "groups is ['g']; expected an object from groups to"),
    ({"groups": {"g": "family"}}, "expected an object from groups to"),
    ({"padding": 1}, "padding is 1; expected 0 or -1"),
    ({"hlo_stage": "optimized"}, "hlo_stage is 'optimized'; expected"),
    ({"has_runtimes": True}, "has_runtimes is True; expected an object"),
    ({"has_runtimes": {"train": "yes"}}, "expected an object from splits to true or false"),
    ({"addresses": ["http://host"]}, "addresses is ['http://host']; expected an object"),
    ({"metric": 1}, "metric is 1; expected a string"),
    ({"family_regex": "("}, "family_regex is not a regular expression of RE2: "),
    ({"family_regex": 3}, "family_regex is not a regular expression: "),
    ({"family_regex": None}, "family_regex is not a regular expression: expected a string"),
    ({"family_regex": [1]}, "family_regex is not a regular expression: expected a string"),
    ({"family_regex": r"(?P<family>a)(?=b)"}, "family_regex is not a regular expression of RE2"),
    ({"family_regex": "(?P<family>" + "a" * 1000 + ")"}, "the limit is 1,000; write a shorter"),
    ({"family_regex": "^(.*)$"}, "family_regex lacks the group (?P<family>...)"),
])
def test_a_wrong_descriptor_is_refused_with_file_and_key(tmp_path, change, expected):
  values = {key: value for key, value in {**GOOD, **change}.items()
            if value is not None or key == "family_regex"}
  path = _descriptor(tmp_path, values)
  for read in (registry.read_descriptor, registry.register_collection,
               lambda path: registry.get_collection(str(path))):
    with pytest.raises(errors.DataError) as caught:
      read(path)
    assert str(caught.value).startswith(f"{path}: ") and expected in str(caught.value)


def test_splits_may_not_be_null(tmp_path):
  for more in ({}, {"files": {}}, {"addresses": {}}, {"has_runtimes": {"train": True}}):
    path = _descriptor(tmp_path, {**GOOD, **more, "splits": None})
    with pytest.raises(errors.DataError, match="mine.json: splits is None; expected an object"):
      registry.read_descriptor(path)


def test_families_of_an_expression_that_would_take_python_years(tmp_path):
  collection = registry.read_descriptor(_descriptor(
      tmp_path, {**GOOD, "family_regex": "^(?P<family>(a+)+)_x$"}))
  assert collection.family("a" * 100) == "a" * 100  # No match: the stem itself.
  assert collection.family("aaa_x") == "aaa"


@testdata.required
def test_descriptors_from_the_field():
  folder = testdata.path("field_cases") / "hostile"
  with pytest.raises(errors.DataError, match="splits is None; expected an object from train"):
    registry.read_descriptor(folder / "descriptor_splits_null.json")
  assert registry.read_descriptor(folder / "redos_collection.json").family("a" * 200 + "!") == (
      "a" * 200 + "!")


@pytest.mark.parametrize("values", [[], "tile:mine", None, 3])
def test_a_descriptor_is_an_object(tmp_path, values):
  with pytest.raises(errors.DataError, match="expected an object"):
    registry.read_descriptor(_descriptor(tmp_path, values))


def test_a_descriptor_that_is_missing_or_not_json(tmp_path):
  with pytest.raises(errors.MissingDataError, match="no file .*gone.json"):
    registry.get_collection(str(tmp_path / "gone.json"))
  (tmp_path / "c.json").write_text("{'name': }")
  with pytest.raises(errors.DataError, match="c.json is not valid JSON.*line 1"):
    registry.get_collection(str(tmp_path / "c.json"))


def test_names_that_no_file_has():
  for name in ("a" * 300 + ".json", "b/" * 3000 + "c.json", "c\0.json"):
    with pytest.raises(errors.UnknownNameError, match="no collection .*: it (is|has|holds)"):
      registry.get_collection(name)
