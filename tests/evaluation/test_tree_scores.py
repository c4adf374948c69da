"""The cache of tuned settings and scores of the boosted trees."""

import numpy as np
import pytest

from tests import synthetic
from tpugraphs_rank import files
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import fit_cache
from tpugraphs_rank.evaluation import tree_scores
from tpugraphs_rank.evaluation import trees

SMALL = trees.Settings(iterations=10, max_leaf_nodes=4)


def _programs(seeds):
  return [splits.ProgramView(synthetic.tile_graph(seed)) for seed in seeds]


TRAIN, VALID, TEST = _programs(range(5)), _programs(range(10, 12)), _programs(range(20, 23))


@pytest.fixture(name="fits")
def _fits(monkeypatch, tmp_path):
  """The settings of all fits, with a cache in tmp_path."""
  monkeypatch.setattr(trees, "GRID", (SMALL,))
  monkeypatch.setenv(fit_cache.VARIABLE, str(tmp_path))
  fits = []
  fit_table = trees.fit_table
  monkeypatch.setattr(trees, "fit_table", lambda table, settings, seed: (
      fits.append(settings) or fit_table(table, settings, seed)))
  return fits


def _assert_equal(one, other):
  assert len(one) == len(other)
  for seed_scores, other_scores in zip(one, other):
    for first, second in zip(seed_scores, other_scores, strict=True):
      np.testing.assert_array_equal(first, second)


def test_scores_are_means_of_the_members(fits):
  scores = tree_scores.scores(TRAIN, VALID, TEST, [0, 1])
  settings = trees.tune(TRAIN, VALID)
  expected = [
      [np.mean(values, axis=0) for values in zip(*(
          trees.fit(TRAIN, settings, 3 * seed + member).score(TEST) for member in range(3)))]
      for seed in (0, 1)]
  _assert_equal(scores, expected)


def test_unchanged_data_is_neither_tuned_nor_fitted_again(fits, tmp_path):
  scores = tree_scores.scores(TRAIN, VALID, TEST, [0, 1])
  assert len(fits) == 1 + 2 * 3
  assert len(list((tmp_path / "boosted_trees").glob("*.npz"))) == 6
  _assert_equal(tree_scores.scores(TRAIN, VALID, TEST, [0, 1]), scores)
  assert len(fits) == 7
  tree_scores.scores(TRAIN, VALID, TEST[:2], [0])  # Tuned settings are reused.
  assert len(fits) == 7 + 3


@pytest.mark.parametrize("change", ["train", "valid", "grid"])
def test_changed_data_is_tuned_again(fits, monkeypatch, change):
  tree_scores.scores(TRAIN, VALID, TEST, [0])
  if change == "grid":
    monkeypatch.setattr(trees, "GRID", (trees.Settings(iterations=5),))
  tree_scores.scores(TRAIN[:4] if change == "train" else TRAIN,
                     _programs([10, 13]) if change == "valid" else VALID, TEST, [0])
  assert len(fits) >= 4 + 1
  assert fits[4] == trees.GRID[0]  # A fit of the grid, not of tuned settings.


def test_damaged_files_of_the_cache_are_ignored(fits, tmp_path, caplog):
  scores = tree_scores.scores(TRAIN, VALID, TEST, [0])
  folder = tmp_path / "boosted_trees"
  settings, = folder.glob("*.json")
  first, second, third = sorted(folder.glob("*.npz"))
  settings.write_text("{")
  first.write_bytes(b"PK")
  for path, values in ((second, np.zeros(3)), (third, np.full(36, np.nan))):
    with open(path, "wb") as file:
      np.savez(file, scores=values)
  _assert_equal(tree_scores.scores(TRAIN, VALID, TEST, [0]), scores)
  assert caplog.text.count("damaged file of the cache") == 4
  files.write_json(settings, {"settings": {"trees": 3}})
  _assert_equal(tree_scores.scores(TRAIN, VALID, TEST, [0]), scores)


def test_pickled_arrays_are_not_loaded(fits, tmp_path):
  scores = tree_scores.scores(TRAIN, VALID, TEST, [0])
  for path in (tmp_path / "boosted_trees").glob("*.npz"):
    with open(path, "wb") as file:
      np.savez(file, scores=np.array([{"code": 1}], object))
  _assert_equal(tree_scores.scores(TRAIN, VALID, TEST, [0]), scores)


def test_a_cache_that_cannot_be_written_is_no_error(fits, monkeypatch, tmp_path, caplog):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv(fit_cache.VARIABLE, str(tmp_path / "file"))
  scores = tree_scores.scores(TRAIN, VALID, TEST, [0])
  assert "results are not cached" in caplog.text
  monkeypatch.setenv(fit_cache.VARIABLE, "")
  assert fit_cache.folder("boosted_trees") is None
  _assert_equal(tree_scores.scores(TRAIN, VALID, TEST, [0]), scores)


def test_the_cache_is_in_the_users_cache_folder_by_default(monkeypatch, tmp_path):
  monkeypatch.delenv(fit_cache.VARIABLE)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  assert fit_cache.folder("boosted_trees").name == "boosted_trees"
