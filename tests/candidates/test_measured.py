"""The comparison of predicted and measured runtimes."""

import json
import math

import numpy as np
import pytest

from tests.candidates import small_programs
from tests.hlo import modules
from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.candidates import measured
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.candidates import ranking

TILES = [(8, 2), (4, 2), (2, 2), (1, 2)]


def _prediction(top_k=4, scores=(4, 3, 2, 1)):
  runs = [modules.tile_run(None, output=tile, kernel=(3,), inputs=(1,)) for tile in TILES]
  program = programs.HloProgram(
      "p", "f.pb: module 'p'", small_programs.data_of(small_programs.matmul(8, 8, 3), runs))
  actual = programs.find(program, "tile", "", "elements", 9, 0)
  return ranking.rank(program, actual, np.array(scores, float), top_k)


def _passes(times, default=40, order=(2, 0, 1, 3)):
  """Two measurements in a different order than the prediction; `times` holds both, by tile."""
  passes = []
  for one in times:
    runs = [modules.tile_run(default, output=(8, 8), kernel=(3,), is_default=True)]
    # The collector computes the input bounds itself.
    runs += [modules.tile_run(one[index], output=TILES[index], kernel=(3,), inputs=(5,))
             for index in order if one[index]]
    passes.append(small_programs.data_of(small_programs.matmul(8, 8, 3), runs))
  return passes


def test_figures():
  result = measured.compare(_prediction(), _passes([(20, 10, 30, 50), (22, 10, 32, 20)]))
  assert result.positions.tolist() == [0, 1, 2, 3]
  assert result.passes.tolist() == [[20, 10, 30, 50], [22, 10, 32, 20]]
  assert result.runtimes.tolist() == [21, 10, 31, 35]
  # One of six pairs is predicted in the wrong order: (5 - 1) / 6.
  assert result.tau == pytest.approx((5 - 1) / 6)
  assert result.tau_of_passes == pytest.approx(
      metrics.kendall_tau(np.array([20, 10, 30, 50]), -np.array([22., 10, 32, 20])))
  # The passes disagree on two pairs, the last with the first and with the third: (4 - 2) / 6.
  assert result.tau_of_passes == pytest.approx((4 - 2) / 6)
  assert result.default == 40 and result.speedup == 40 / 10


def test_only_the_best_that_were_measured_count():
  result = measured.compare(_prediction(top_k=3), _passes([(20, 0, 10, 5)] * 2))
  assert result.positions.tolist() == [0, 2] and result.runtimes.tolist() == [20, 10]
  assert result.speedup == 40 / 10  # Not 40 / 5: that one was not among the best three.
  assert measured.table(result).endswith("; 1 compile to the same programs as others")


def test_the_default_may_be_among_the_best():
  prediction = _prediction()
  passes = _passes([(20, 10, 30, 50)] * 2)
  for data in passes:
    del data.runs[0]
    data.runs[0].is_default = True
  assert measured.compare(prediction, passes).default == 30


def test_json():
  stored = json.loads(json.dumps(measured.to_json(
      measured.compare(_prediction(), _passes([(20, 10, 30, 50)] * 2)))))
  assert stored == {
      "tau": pytest.approx(4 / 6), "tau_of_passes": 1.0, "default_ns": 40.0,
      "speedup_over_default": 4.0, "configurations": [
          {"candidate": 0, "measured_rank": 2, "runtime_ns": 20.0},
          {"candidate": 1, "measured_rank": 1, "runtime_ns": 10.0},
          {"candidate": 2, "measured_rank": 3, "runtime_ns": 30.0},
          {"candidate": 3, "measured_rank": 4, "runtime_ns": 50.0}]}


def test_table():
  times = (2_000_000, 1_000_000, 3_000_000, 5_000_000)
  text = measured.table(measured.compare(
      _prediction(scores=(1, 2, 3, 4)), _passes([times] * 2, default=4_000_000)))
  assert text.splitlines() == [
      "p: measured",
      "predicted  measured    runtime  default / runtime",
      "        1         4  5.0000 ms              0.800",
      "        2         3  3.0000 ms              1.333",
      "        3         1  1.0000 ms              4.000",
      "        4         2  2.0000 ms              2.000",
      "tau of predicted and measured: -0.667 (two passes: 1.000); the fastest is 4.000 times as "
      "fast as the default"]


def test_where_all_are_equal_tau_is_undefined():
  result = measured.compare(_prediction(), _passes([(7, 7, 7, 7)] * 2))
  assert result.tau is None and result.tau_of_passes is None
  assert "measured: undefined (two passes: undefined)" in measured.table(result)
  assert not math.isnan(measured.to_json(result)["speedup_over_default"])


def test_layouts_are_matched_by_their_axes():
  runs = [modules.layout_run([[(0, 1)], [], []]), modules.layout_run([[], [(0, 1)], []])]
  program = programs.HloProgram(
      "p", "f.pb", small_programs.data_of(small_programs.perceptron(), runs, [2, 3, 5]))
  actual = programs.find(program, "layout", "", "elements", 9, 0)
  prediction = ranking.rank(program, actual, np.array([1., 2.]), 5)
  passes = [small_programs.data_of(small_programs.perceptron(), [
      modules.layout_run([[], [], []], 9, is_default=True),
      modules.layout_run([[(0, 1)], [], []], 7), modules.layout_run([[], [(0, 1)], []], 6)],
                         [2, 3, 5]) for _ in range(2)]
  result = measured.compare(prediction, passes)
  assert result.positions.tolist() == [1, 0] and result.runtimes.tolist() == [6, 7]


def test_too_little_was_measured():
  with pytest.raises(errors.DataError, match="module 'p': 1 of the best 4 configurations and 1 "
                     "defaults were measured; expected two or more and the default"):
    measured.compare(_prediction(), _passes([(20, 0, 0, 0)] * 2))
  passes = _passes([(20, 10, 30, 50)] * 2)
  for data in passes:
    del data.runs[0]
  with pytest.raises(errors.DataError, match="4 of the best 4 configurations and 0 defaults"):
    measured.compare(_prediction(), passes)
