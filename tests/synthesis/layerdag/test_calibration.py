"""Calibration: its formulas, its effect on generated graphs, and saved shifts."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from tests.synthesis.layerdag import test_model
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
  assert calibration.distance(0 * first, second) == 2  # The largest, so that it is never chosen.


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


def test_shares_of_kinds_are_compared_within_those_with_as_many_operands():
  wanted, generated = _counts([30], [10], [60]), _counts([10], [10], [30])
  ratios = calibration.log_ratios(wanted, generated, np.array([1, 1, 2]))
  # Kinds 0 and 1 have one operand: 40 of 100 nodes, and 20 of 50.
  of_group = np.log((40.5 / 100.5) / (20.5 / 50.5))
  mean = 20 * np.array([(3 / 4 + 1 / 2) / 2, (1 / 4 + 1 / 2) / 2])
  shares = (np.array([30, 10]) + mean) / 60, (np.array([10, 10]) + mean) / 40
  np.testing.assert_allclose(ratios[:2], of_group + np.log(shares[0] / shares[1]), rtol=1e-6)
  np.testing.assert_allclose(ratios[2], np.log((60.5 / 100.5) / (30.5 / 50.5)), rtol=1e-6)
  np.testing.assert_allclose(
      calibration.log_ratios(wanted, wanted, np.array([1, 1, 2])), 0, atol=1e-12)


@pytest.mark.parametrize("direction", ["users_first", "operands_first"])
def test_shifts_move_by_part_of_the_difference_within_limits(direction):
  wanted, generated, operands = _counts([7], [0, 2, 1]), _counts([3], [0, 5]), np.array([0, 1])
  start = calibration.Shifts(np.ones(2), np.zeros([2, calibration.COUNTS]))
  shifts = calibration.next_shifts(start, wanted, generated, operands, direction)
  np.testing.assert_allclose(
      shifts.kinds, 1 + 0.7 * calibration.log_ratios(wanted, generated, operands))
  figure = calibration.logits_of_more if direction == "users_first" else calibration.log_means
  np.testing.assert_allclose(shifts.users, 0.7 * (figure(wanted) - figure(generated)))
  # The rate of round 2 is lower by 1 + 0.3 x 2.
  later = calibration.next_shifts(start, wanted, generated, operands, direction, 2)
  np.testing.assert_allclose(later.kinds - 1, (shifts.kinds - 1) / 1.6)
  far = calibration.next_shifts(shifts, _counts([10**9], [0]), _counts([0], [10**9]), operands,
                                direction)
  assert np.abs(far.kinds).max() == 3.0


@pytest.mark.slow
def test_calibration_brings_generated_graphs_nearer(tmp_path):
  # An untrained generator draws all kinds with similar probabilities.
  model, dags = test_model.untrained(seed=3)
  reached = calibration.calibrate(model.generator, dags, 2, seed=0)
  assert len(reached) == 3
  assert reached[-1] < 0.8 * reached[0]
  model.save(tmp_path / "model.npz")
  loaded = model_lib.LayerDAG.load(tmp_path / "model.npz")
  assert loaded.hash() == model.hash()
  assert loaded.generator.kind_shift.numpy().any() and loaded.generator.user_shift.any()
  options = sampler.Options(max_nodes=400, max_layers=60)
  np.testing.assert_array_equal(
      loaded.sample(4, options=options).x, model.sample(4, options=options).x)
