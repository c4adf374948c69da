"""Splits are lazy sequences, and errors explain files that differ from the description."""

import json
import pathlib
import shutil

import pytest

from tests import synthetic
import tpugraphs_rank
from tpugraphs_rank import errors
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import registry


@pytest.fixture
def descriptor(tmp_path):
  return synthetic.write_collection(tmp_path, counts=(3, 2, 1))


def _damage(path):
  path.write_bytes(b"damaged")


def test_the_graphs_of_a_split_in_the_order_of_their_names(descriptor):
  split = tpugraphs_rank.load_collection(str(descriptor), "train")
  assert len(split) == 3 and split.split == "train" and split.collection.name == "tile:synthetic"
  assert [graph.name for graph in split] == sorted(path.stem for path in split.paths)
  assert split[1].name == split.paths[1].stem and split[-1].name == split.paths[2].stem
  with pytest.raises(IndexError):
    split[3]
  part = split[1:]
  assert isinstance(part, collections.Split) and part.paths == split.paths[1:]


def test_files_are_read_on_access_only(descriptor):
  split = collections.load_collection(str(descriptor), "train")
  _damage(split.paths[2])
  again = collections.load_collection(str(descriptor), "train")  # Finds them without opening them.
  assert again[0].name == split.paths[0].stem
  assert next(iter(again)).name == split.paths[0].stem
  with pytest.raises(errors.DataError, match=str(split.paths[2].name)):
    again[2]


def test_each_access_reads_the_file_again(descriptor):
  split = collections.load_collection(str(descriptor), "valid")
  assert split[0] is not split[0]


def test_a_graph_of_another_kind(descriptor):
  split = collections.load_collection(str(descriptor), "test")
  npz.save_graph(split.paths[0], synthetic.layout_graph(0))
  with pytest.raises(errors.DataError, match=(
      "is a graph of kind layout, but collection tile:synthetic holds kind tile")) as caught:
    list(split)
  assert str(split.paths[0]) in str(caught.value)


def test_the_number_of_files_must_match_the_description(descriptor):
  folder = descriptor.parent / "npz" / "train"
  next(folder.glob("*.npz")).unlink()
  with pytest.raises(errors.DataError, match=(
      "holds 2 of the 3 graphs of tile:synthetic train .`tpugraphs-rank describe` lists missing "
      "and damaged files.; .*check the path and files")):
    collections.load_collection(str(descriptor), "train")


@pytest.mark.parametrize("listed", [False, True])
def test_the_graphs_that_exist(descriptor, listed, caplog):
  folder = descriptor.parent / "npz" / "train"
  names = sorted(path.name for path in folder.iterdir())
  values = json.loads(descriptor.read_text())
  if listed:
    values["files"] = {split: [f"{split}/{path.name}" for path in
                               sorted((folder.parent / split).iterdir())]
                       for split in values["splits"]}
    values["splits"]["train"] = None  # The list is known, and so is what is missing.
    descriptor.write_text(json.dumps(values))
  (folder / names[1]).unlink()
  with pytest.raises(errors.TpuGraphsRankError, match=(
      r"; or work with the 2 graphs that exist: --partial \(partial=True in Python\)$")):
    collections.load_collection(str(descriptor), "train")
  split = collections.load_collection(str(descriptor), "train", partial=True)
  assert [path.name for path in split.paths] == [names[0], names[2]] and split.missing == 1
  assert caplog.messages == [
      "tile:synthetic train is partial: 1 of its 3 graphs are missing in "
      f"{folder.parent if listed else folder}"]
  assert collections.load_collection(str(descriptor), "valid", partial=True).missing == 0
  for name in (names[0], names[2]):
    (folder / name).unlink()
  with pytest.raises(errors.MissingDataError) as caught:  # Nothing is not a part.
    collections.load_collection(str(descriptor), "train", partial=True)
  assert "--partial" not in str(caught.value)


def test_the_remedy_for_one_file_too_many_is_not_a_download(descriptor):
  folder = descriptor.parent / "npz" / "train"
  npz.save_graph(folder / "stray.npz", synthetic.tile_graph(0))
  with pytest.raises(errors.DataError) as caught:
    collections.load_collection(str(descriptor), "train")
  assert str(caught.value).startswith(
      f"{folder} holds 4 graphs, not the 3 graphs of tile:synthetic train (`tpugraphs-rank "
      "describe` lists missing")
  assert str(caught.value).endswith("move the files that do not belong there elsewhere")


def test_a_split_described_as_empty(tmp_path):
  empty = registry.Collection(
      name="tile:none", kind="tile", target="t", splits={"train": 1, "test": 0}, folder=tmp_path)
  assert list(collections.load_collection(empty, "test")) == []
  with pytest.raises(errors.MissingDataError, match="no data of tile:none train"):
    collections.load_collection(empty, "train")


def test_missing_files_of_a_users_collection(descriptor):
  shutil.rmtree(descriptor.parent / "npz" / "valid")
  with pytest.raises(errors.MissingDataError, match=(
      "no data of tile:synthetic valid at .*check the path and files")):
    collections.load_collection(str(descriptor), "valid")


def test_missing_public_data_names_the_download_command(tmp_path, monkeypatch):
  monkeypatch.setenv("TPUGRAPHS_RANK_DATA", str(tmp_path / "variable"))
  for argument, root in ((None, tmp_path / "variable"), (tmp_path / "a", tmp_path / "a")):
    with pytest.raises(errors.MissingDataError) as caught:
      collections.load_collection("tile:xla", "train", argument)
    message = str(caught.value)
    assert f"no data of tile:xla train at {root}/npz/tile/xla/train; " in message
    where = f" --data_root {argument}" if argument else ""
    assert ("`tpugraphs-rank download --collections tile:xla --splits train"
            f"{where}`") in message


def test_public_data_is_read_below_the_data_root(tmp_path, monkeypatch):
  folder = tmp_path / "npz" / "layout" / "xla" / "random" / "test"
  for index in range(8):
    npz.save_graph(folder / f"g{index}.npz", synthetic.layout_graph(index, num_configs=3))
  assert len(collections.load_collection("layout:xla:random", "test", tmp_path)) == 8
  monkeypatch.setenv("TPUGRAPHS_RANK_DATA", str(tmp_path))
  split = collections.load_collection("layout:xla:random", "test")
  assert [graph.name for graph in split] == [f"g{index}" for index in range(8)]
  (folder / "g3.npz").unlink()
  with pytest.raises(errors.DataError, match="holds 7 of the 8 graphs .* `tpugraphs-rank download"):
    collections.load_collection("layout:xla:random", "test")


@pytest.mark.parametrize("split", ["all", "Train", ""])
def test_an_unknown_split(descriptor, split):
  with pytest.raises(errors.UnknownNameError, match="it has: train, valid, test"):
    collections.load_collection(str(descriptor), split)


def _listed(folder, files, splits):
  return registry.Collection(
      name="tile:listed", kind="tile", target="t", splits=splits, files=files, folder=folder)


def test_a_split_by_a_list_of_files_keeps_its_order(tmp_path):
  for name in ("a", "b", "sub/c"):
    npz.save_graph(tmp_path / f"{name}.npz", synthetic.tile_graph(0))
  collection = _listed(
      tmp_path, {"train": ("sub/c.npz", "a.npz"), "test": ("b.npz",)}, {"train": 2, "test": 1})
  split = collections.load_collection(collection, "train")
  assert [path.relative_to(tmp_path) for path in split.paths] == [
      pathlib.Path("sub/c.npz"), pathlib.Path("a.npz")]
  (tmp_path / "b.npz").unlink()
  with pytest.raises(errors.MissingDataError, match="no data of tile:listed test at .*b.npz"):
    collections.load_collection(collection, "test")
  with pytest.raises(errors.DataError, match="holds 2 of the 3 graphs"):
    collections.load_collection(_listed(
        tmp_path, {"train": ("sub/c.npz", "a.npz")}, {"train": 3}), "train")


def test_a_collection_that_is_not_divided(tmp_path):
  for index in range(2):
    npz.save_graph(tmp_path / f"{index}.npz", synthetic.tile_graph(index))
  whole = registry.Collection(
      name="tile:whole", kind="tile", target="t", splits={"all": None}, folder=tmp_path)
  assert len(collections.load_collection(whole, "all")) == 2
  with pytest.raises(errors.UnknownNameError, match="it has: all"):
    collections.load_collection(whole, "train")
