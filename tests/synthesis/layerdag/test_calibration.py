"""Calibration: its formulas, its effect on generated graphs, and saved shifts."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from tests.synthesis.layerdag import test_model
from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.layerdag import calibration
from tpugraphs_rank.synthesis.layerdag import growth
from tpugraphs_rank.synthesis.layerdag import model as model_lib
from tpugraphs_rank.synthesis.layerdag import sampler


def _counts(*rows):
  """Rows of the nodes with 0, 1, ... users, filled up to the width of `users_of_kinds`."""
  return np.array([row + [0] * (calibration.COUNTS + 2 - len(row)) for row in rows])


def test_nodes_are_counted_by_kind_and_users():
  # 0 -> 1, 2 and 1 -> 2: node 2 has two users. A wide root 3 -> 4 and nine users of one node.
  star = np.array([[user, 9] for user in range(1, 9)] + [[0, user] for user in range(1, 9)])
  dags = dags_lib.canonical([
      (np.array([[0, 1], [0, 2], [1, 2]]), np.array([[0], [1], [2]])),
      (star, np.array([[0]] + 8 * [[1]] + [[2]]))], ("opcode",), (np.arange(3),))
  kinds = growth.Kinds.of(dags)
  # Kinds: the two roots with 2 and 8 operands, nodes with one operand, and the ends.
  np.testing.assert_array_equal(kinds.operands, [2, 8, 1, 0])
  np.testing.assert_array_equal(calibration.users_of_kinds(dags, kinds), _counts(
      [1], [1], [0, 9], [0, 0, 1, 0, 0, 0, 0, 1]))


def test_the_distance_adds_the_total_variations_of_kinds_and_of_users():
  first, second = _counts([4], [0, 4]), _counts([0, 2], [0, 6])
  assert calibration.distance(first, second) == pytest.approx(0.25 + 0.5)
  assert calibration.distance(second, second) == 0


def test_users_are_compared_by_the_share_that_has_more():
  counts = _counts([0, 70, 20, 10], [5, 5])
  logits = calibration.logits_of_more(counts)
  # Of all 105 nodes with a user 30 have two, and 10 of these have three.
  prior = np.array([30.5 / 106, 10.5 / 31])
  share = (np.array([30, 10]) + 20 * prior) / (np.array([100, 30]) + 20)
  np.testing.assert_allclose(logits[0, :2], np.log(share / (1 - share)))
  share = (0 + 20 * prior[0]) / (5 + 20)
  np.testing.assert_allclose(logits[1, 0], np.log(share / (1 - share)))
  mean = (140 + 5 + 0.5) / 111
  np.testing.assert_allclose(calibration.log_means(counts)[:, 3], np.log(
      [(140 + 20 * mean) / 120, (5 + 20 * mean) / 30]))


@pytest.mark.parametrize("direction", ["users_first", "operands_first"])
def test_shifts_follow_the_logarithms_of_the_ratios(direction):
  wanted, generated = _counts([7], [0, 2, 1]), _counts([3], [0, 5])
  start = calibration.Shifts(np.zeros(2), np.zeros([2, calibration.COUNTS]))
  shifts = calibration.next_shifts(start, wanted, generated, direction)
  # 8 and 4 of 12 nodes, with one more of each, compared with 4 and 6 of 10.
  np.testing.assert_allclose(shifts.kinds, 0.7 * np.log([(8 / 12) / (4 / 10), (4 / 12) / (6 / 10)]))
  figure = (calibration.logits_of_more if direction == "users_first" else calibration.log_means)
  np.testing.assert_allclose(shifts.users, 0.7 * (figure(wanted) - figure(generated)))
  same = calibration.next_shifts(shifts, wanted, wanted, direction)
  np.testing.assert_array_equal(same.kinds, shifts.kinds)
  np.testing.assert_array_equal(same.users, shifts.users)
  far = calibration.next_shifts(shifts, wanted, _counts([0], [0, 10**9]), direction)
  assert np.abs(far.kinds).max() == 3.0


def test_calibration_brings_generated_graphs_nearer(tmp_path):
  # An untrained generator draws all kinds with similar probabilities.
  model, dags = test_model.untrained(seed=3)
  reached = calibration.calibrate(model.generator, dags, 2, seed=0)
  assert len(reached) == 3
  assert min(reached) < 0.8 * reached[0]
  model.save(tmp_path / "model.npz")
  loaded = model_lib.LayerDAG.load(tmp_path / "model.npz")
  assert loaded.hash() == model.hash()
  assert loaded.generator.kind_shift.numpy().any() and loaded.generator.user_shift.any()
  options = sampler.Options(max_nodes=400, max_layers=60)
  np.testing.assert_array_equal(
      loaded.sample(4, options=options).x, model.sample(4, options=options).x)


def test_damaged_shifts_are_refused(tmp_path):
  model, _ = test_model.untrained()
  model.save(tmp_path / "model.npz")
  with np.load(tmp_path / "model.npz") as stored:
    arrays = dict(stored)
  assert "kind_shift" not in arrays
  kinds = len(model.generator.facts.kinds)
  for shift, users in ((np.zeros(1), np.zeros([kinds, 1])), (np.zeros(kinds), np.zeros([kinds, 99])),
                       (np.full(kinds, np.nan), np.zeros([kinds, 1]))):
    np.savez(tmp_path / "damaged.npz", **arrays, kind_shift=shift, user_shift=users)
    with pytest.raises(errors.DataError, match="kind_shift and user_shift are no finite numbers"):
      model_lib.LayerDAG.load(tmp_path / "damaged.npz")
