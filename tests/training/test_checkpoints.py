"""Checkpoints load completely or not at all, and every problem is one typed error."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tpugraphs_rank import errors
from tpugraphs_rank.data import npz
from tpugraphs_rank.training import checkpoints
from tpugraphs_rank.training import stored_state


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


@pytest.mark.parametrize("key, value, message", [
    ("model/0000", np.full([2, 3], np.nan, np.float32), "holds numbers that are not finite"),
    ("model/0000", np.zeros([2, 3], np.int64), "is stored as int64, expected float32"),
    ("model/0000", np.array([["a"] * 3] * 2), "is stored as <U1, expected float32"),
    ("optimizer/0000", np.array(1.5), "is stored as float64, expected int64"),
    ("state", np.array(["{}", "{}"]), "state is not a single text"),
    ("state", np.array(3), "state is not a single text"),
    ("state", np.array("[" * 200 + "]" * 200), "nested more than"),
    ("state", np.array("[]"), "state is not a JSON object"),
])
def test_a_valid_file_of_wrong_values_assigns_nothing(stored, key, value, message):
  path, _, _ = stored
  arrays = {**npz.read_arrays(path), key: value}
  np.savez(path, **arrays)
  fresh, count = _variables(), [tf.Variable(0, dtype=tf.int64)]
  with pytest.raises(errors.RunDirectoryError, match=f"latest.npz.*{message}"):
    checkpoints.restore(path, {"model": fresh, "optimizer": count})
  assert not fresh[0].numpy().any() and count[0].numpy() == 0


@dataclasses.dataclass
class _Progress:
  epoch: int = 0
  best: float | None = None
  metrics: dict[str, float | None] = dataclasses.field(default_factory=dict)
  history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


@pytest.mark.parametrize("state, message", [
    ({}, "lacks the key 'epoch'"),
    ({"epoch": "3"}, "epoch is '3'; expected int"),
    ({"epoch": -3}, "epoch is -3; expected int"),
    ({"epoch": True}, "epoch is True; expected int"),
    ({"epoch": 2, "best": [1]}, r"best is \[1\]; expected float | None"),
    ({"epoch": 2, "metrics": {"a": "x"}}, "metrics is {'a': 'x'}; expected dict"),
    ({"epoch": 2, "history": [1]}, r"history is \[1\]; expected list"),
    ({"epoch": 2, "__class__": 1}, "has the unknown key '__class__'"),
])
def test_a_state_of_other_types_is_refused(state, message):
  with pytest.raises(errors.RunDirectoryError, match=f"here: ?{message}|here {message}"):
    stored_state.check(_Progress, state, "here", ("epoch",))


def test_a_state_of_the_right_types():
  stored_state.check(_Progress, {"epoch": 0}, "here")
  stored_state.check(_Progress, {"epoch": 3, "best": 2, "metrics": {"a": None, "b": 0.5},
                                 "history": [{"loss": 1}]}, "here", ("epoch",))
