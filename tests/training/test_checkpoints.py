"""Checkpoints load completely or not at all, and every problem is one typed error."""

import numpy as np
import pytest
import tensorflow as tf

from tpugraphs_rank import errors
from tpugraphs_rank.training import checkpoints


def _variables(value=0.0, shapes=((2, 3), ())):
  return [tf.Variable(np.full(shape, value, np.float32)) for shape in shapes]


@pytest.fixture
def stored(tmp_path):
  rng = np.random.default_rng(0)
  model = [tf.Variable(rng.normal(size=shape).astype(np.float32)) for shape in ((2, 3), ())]
  counter = [tf.Variable(7, dtype=tf.int64)]
  path = tmp_path / "checkpoints" / "latest.npz"
  checkpoints.save(path, {"model": model, "optimizer": counter, "averaged": []},
                   {"epoch": 3, "best": None, "history": [{"loss": 1 / 3}]})
  return path, model, counter


def test_round_trip_bit_by_bit(stored):
  path, model, counter = stored
  fresh, count = _variables(), [tf.Variable(0, dtype=tf.int64)]
  state = checkpoints.restore(path, {"model": fresh, "optimizer": count, "averaged": []})
  assert state == {"epoch": 3, "best": None, "history": [{"loss": 1 / 3}]}
  for one, other in zip([*fresh, *count], [*model, *counter]):
    np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert one.dtype == other.dtype


def test_a_group_alone(stored):
  path, model, _ = stored
  fresh = _variables()
  checkpoints.restore(path, {"model": fresh})
  np.testing.assert_array_equal(fresh[0].numpy(), model[0].numpy())


@pytest.mark.parametrize("shapes, message", [
    (((2, 3),), "holds 2 variables of the model; this model has 1: .*another model"),
    (((2, 3), (), (4,)), "holds 2 variables of the model; this model has 3"),
    (((2, 3), (1,)), r"stored with shape \(\), expected \(1,\): .*another model"),
    (((3, 2), ()), r"stored with shape \(2, 3\), expected \(3, 2\)"),
])
def test_another_models_checkpoint_assigns_nothing(stored, shapes, message):
  fresh = _variables(5.0, shapes)
  with pytest.raises(errors.RunDirectoryError, match=message):
    checkpoints.restore(stored[0], {"model": fresh})
  assert all((variable.numpy() == 5.0).all() for variable in fresh)


def test_a_missing_checkpoint(tmp_path):
  with pytest.raises(errors.RunDirectoryError, match="latest.npz cannot be read .no file"):
    checkpoints.restore(tmp_path / "latest.npz", {})


def test_a_damaged_checkpoint_assigns_nothing(stored):
  path = stored[0]
  content = path.read_bytes()
  for size in range(0, len(content), 53):
    path.write_bytes(content[:size])
    fresh = _variables(5.0)
    with pytest.raises(errors.RunDirectoryError, match="latest.npz cannot be read .*damaged"):
      checkpoints.restore(path, {"model": fresh})
    assert all((variable.numpy() == 5.0).all() for variable in fresh)


@pytest.mark.parametrize("arrays", [
    {"model/0000": np.zeros(2)},  # No state.
    {"model/0000": np.zeros(2), "state": np.array("not json")},
    {"model/0000": np.array([object()], object), "state": np.array("{}")},
])
def test_files_that_are_not_checkpoints(tmp_path, arrays):
  np.savez(tmp_path / "c.npz", **arrays)
  with pytest.raises(errors.RunDirectoryError, match="c.npz cannot be read"):
    checkpoints.restore(tmp_path / "c.npz", {"model": [tf.Variable(np.zeros(2))]})


def test_a_checkpoint_that_cannot_be_written(tmp_path):
  (tmp_path / "file").write_text("in the way")
  with pytest.raises(errors.OutputError):
    checkpoints.save(tmp_path / "file" / "c.npz", {"model": _variables()}, {})
