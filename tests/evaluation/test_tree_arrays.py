"""Boosted trees as arrays have the scores of scikit-learn, and damaged files are refused."""

import functools

import numpy as np
import pytest
from sklearn import ensemble

from tpugraphs_rank import errors
from tpugraphs_rank.evaluation import tree_arrays
from tpugraphs_rank.evaluation import trees

WIDTH = 7


def _rows(seed):
  rows = np.random.default_rng(seed).normal(size=(400, WIDTH)).astype(np.float32)
  rows[:, 3] = np.round(rows[:, 3])  # Ties at the thresholds.
  return rows


def _fit(seed, columns, binned):
  """A fit of random rows: its arrays and a function that scores rows with scikit-learn."""
  rows = _rows(seed)
  edges = [trees._edges(rows[:, column]) for column in columns] if binned else None
  kept = trees.Columns(np.array(columns), edges)
  regressor = ensemble.HistGradientBoostingRegressor(
      max_iter=12, max_leaf_nodes=9, max_features=0.5, random_state=seed)
  with trees.one_thread():
    regressor.fit(kept.of(rows), rows[:, 0] * rows[:, 3] + rows[:, 5])
  return (tree_arrays.from_regressor(regressor, kept.kept, WIDTH, edges),
          functools.partial(_predicted, regressor, kept))


def _predicted(regressor, kept, values):
  with trees.one_thread():
    return regressor.predict(kept.of(values))


@pytest.fixture(scope="module", name="arrays")
def _arrays():
  return _fit(0, [5, 0, 3], False)[0]


@pytest.mark.parametrize("binned", [False, True])
def test_the_scores_are_those_of_the_regressor(binned):
  arrays, expected = _fit(0, [5, 0, 3], binned)
  rows = np.concatenate([_rows(0), _rows(1)])
  np.testing.assert_allclose(arrays.scores(rows), expected(rows), rtol=0, atol=1e-12)


def test_blocks_of_rows_change_nothing(arrays, monkeypatch):
  whole = arrays.scores(_rows(1))
  monkeypatch.setattr(tree_arrays, "_BLOCK", 50)
  assert (arrays.scores(_rows(1)) == whole).all()


def test_routed_fits_score_the_rows_of_their_kind():
  # The kind is in a column that two of the fits use themselves.
  fits = [_fit(0, [5, 0, 3], True), _fit(1, [1, 6], False), _fit(2, [3, 0], True)]
  rows = _rows(3)
  rows[:, 3] = np.arange(len(rows)) % 3
  routed = tree_arrays.routed([arrays for arrays, _ in fits], 3)
  expected = np.choose(rows[:, 3].astype(int), [predict(rows) for _, predict in fits])
  np.testing.assert_allclose(routed.scores(rows), expected, rtol=0, atol=1e-12)


def test_joined_fits_score_their_mean():
  fits = [_fit(0, [5, 0, 3], True), _fit(1, [1, 3, 6], False), _fit(2, [0], True)]
  rows = _rows(3)
  np.testing.assert_allclose(
      tree_arrays.joined([arrays for arrays, _ in fits]).scores(rows),
      np.mean([expected(rows) for _, expected in fits], axis=0), rtol=0, atol=1e-12)


def test_a_file_holds_the_same_trees(arrays, tmp_path):
  tree_arrays.write(tmp_path / "trees.npz", arrays)
  assert (tree_arrays.read(tmp_path / "trees.npz").scores(_rows(1))
          == arrays.scores(_rows(1))).all()


def test_rows_of_another_width_are_refused(arrays):
  with pytest.raises(errors.DataError, match="7 features cannot score rows of 8"):
    arrays.scores(np.zeros([2, WIDTH + 1], np.float32))


@pytest.mark.parametrize("change", [
    {"children": lambda x: np.zeros_like(x)},  # An endless path.
    {"children": lambda x: x + 10_000}, {"children": lambda x: x[:, :1]},
    {"column": lambda x: x - 1}, {"column": lambda x: x + 5},
    {"columns": lambda x: x + WIDTH}, {"columns": lambda x: x[:0]},
    {"roots": lambda x: x - 1}, {"roots": lambda x: x + 10_000},
    {"threshold": lambda x: x[1:]}, {"threshold": lambda x: np.full_like(x, np.nan)},
    {"value": lambda x: x.astype(str)}, {"value": lambda x: x + 1e16},
    {"baseline": lambda x: np.inf}, {"baseline": lambda x: -1e16},
    {"width": lambda x: 0}, {"width": lambda x: 10 ** 9}])
def test_a_damaged_file_is_refused(arrays, tmp_path, change):
  (name, function), = change.items()
  values = arrays._asdict()
  values[name] = function(np.asarray(values[name]))
  np.savez(tmp_path / "trees.npz", **values)
  with pytest.raises(errors.DataError, match="trees.npz"):
    tree_arrays.read(tmp_path / "trees.npz")


def test_a_file_without_an_array_is_refused(arrays, tmp_path):
  values = arrays._asdict()
  del values["roots"]
  np.savez(tmp_path / "trees.npz", **values)
  with pytest.raises(errors.DataError, match="lacks the array 'roots'"):
    tree_arrays.read(tmp_path / "trees.npz")
