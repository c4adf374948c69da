"""Collections that leave out one group."""

import json
import shutil

import pytest

from tests import synthetic
from tpugraphs_rank import errors
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import folds
from tpugraphs_rank.data import registry


def _collection(folder, counts=(6, 3, 3), **changes):
  path = synthetic.write_collection(folder, counts=counts)
  values = json.loads(path.read_text())
  values.update(changes)
  path.write_text(json.dumps(values))
  return registry.read_descriptor(path)


def _families(collection, split):
  return [collection.family(path.stem)
          for path in collections.load_collection(collection, split).paths]


@pytest.mark.parametrize("by", ["group", "family"])
def test_each_group_is_the_test_split_once(tmp_path, by):
  collection = _collection(tmp_path, groups={"siblings": ["family0", "family1"]},
                           target_facts={"vector_bytes": 32})
  shutil.rmtree(tmp_path / "npz" / "test")  # It is not read.
  made = folds.leave_one_out(collection, by)
  names = ["family2", "siblings"] if by == "group" else ["family0", "family1", "family2"]
  assert [fold.name for fold in made] == names
  programs = sorted(sum((fold.files["test"] for fold in made), []))
  assert len(programs) == 9 and {name.split("/")[0] for name in programs} == {"train", "valid"}
  name_of = collection.group if by == "group" else collection.family
  for fold in made:
    written = folds.write(collection, fold, tmp_path / "folds" / fold.name / "collection.json")
    assert written.name == f"tile:synthetic without {fold.name}"
    assert written.facts == collection.facts and written.facts.vector_bytes == 32
    assert {name_of(file.rsplit("/")[-1]) for file in fold.files["test"]} == {fold.name}
    for split in ("train", "valid"):
      stems = [path.stem for path in collections.load_collection(written, split).paths]
      assert stems and fold.name not in map(name_of, stems)
      assert all(file.startswith(split) for file in fold.files[split])
    assert sum(map(len, fold.files.values())) == 9


def test_groups_without_validation_of_their_own_borrow_training_programs():
  by_split = {"train": [("a", f"a{i}") for i in range(16)] + [("b", "b0")], "valid": [("b", "b1")]}
  fold = folds._fold("b", by_split)
  assert fold.files == {
      "train": [f"a{i}" for i in range(16) if i not in (4, 12)], "valid": ["a4", "a12"],
      "test": ["b0", "b1"]}
  fold = folds._fold("a", by_split)
  assert fold.files["train"] == ["b0"] and fold.files["valid"] == ["b1"]
  # A single program must do both.
  assert folds._fold("a", {"train": [("a", "a0"), ("b", "b0")], "valid": []}).files == {
      "train": ["b0"], "valid": ["b0"], "test": ["a0"]}
  only_valid = {"train": [("a", "a0")], "valid": [("b", "b0"), ("b", "b1"), ("b", "b2")]}
  assert folds._fold("a", only_valid).files["train"] == ["b0", "b2"]


def test_what_cannot_be_divided(tmp_path):
  one = _collection(tmp_path / "one", groups={"all": ["family0", "family1", "family2"]})
  with pytest.raises(errors.ConfigError, match="are of one group: all; .* needs two or more"):
    folds.leave_one_out(one)
  whole = registry.Collection(name="tile:whole", kind="tile", target="x", splits={"all": 3})
  with pytest.raises(errors.ConfigError, match="has the splits all; .* needs train and valid"):
    folds.leave_one_out(whole)
  with pytest.raises(errors.ConfigError, match="leave out 'kind'; expected one of: group, family"):
    folds.leave_one_out(one, "kind")
  shutil.rmtree(tmp_path / "one" / "npz" / "valid")
  with pytest.raises(errors.MissingDataError, match="no data of tile:synthetic valid"):
    folds.leave_one_out(one, "family")


def test_names_of_folders():
  assert str(folds.folder_name("a b/..", ["x", "a b/.."])) == "01_a_b___"
