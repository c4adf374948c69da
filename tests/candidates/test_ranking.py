"""Rankings as tables, JSON and raw data."""

import json

import numpy as np
import pytest

from tests.candidates import small_programs
from tests.hlo import modules
from tpugraphs_rank import metrics
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.candidates import ranking
from tpugraphs_rank.hlo import reading


def _ranked(kind="tile", runs=(), top_k=3, nodes=(), scores=None):
  module = small_programs.matmul(4, 6, 8) if kind == "tile" else small_programs.perceptron()
  program = programs.HloProgram("p", "f.pb", small_programs.data_of(module, runs, nodes))
  actual = programs.find(program, kind, "", "elements", 20, 0)
  if scores is None:
    scores = np.random.default_rng(0).permutation(actual.count) / 8
  return ranking.rank(program, actual, np.asarray(scores), top_k)


RUNS = [modules.tile_run(9, output=(2, 2)), modules.tile_run(9, output=(4, 2), kernel=(8,)),
        modules.tile_run(9, is_default=True, output=(1, 3), inputs=(1, 8)),
        modules.tile_run(9, output=(2, 6))]


def test_the_order_equals_the_ranking_of_the_metrics():
  result = _ranked()
  assert result.order.tolist() == metrics.ranking(result.scores).tolist()
  assert result.best == result.order[:3].tolist()
  assert _ranked(runs=RUNS, scores=[1, 2, 2, 0], top_k=9).best == [1, 2, 0, 3]


@pytest.mark.parametrize("scores, rank, listed", [
    ([4, 3, 2, 1], 3, [0, 1, 2]),  # The default is not among the best two, and follows them.
    ([1, 3, 4, 2], 1, [2, 1]), ([4, 1, 2, 3], 3, [0, 3, 2])])
def test_raw_data_hold_the_best_and_the_default(scores, rank, listed):
  result = _ranked(runs=RUNS, scores=scores, top_k=2)
  assert result.rank_of_default == rank
  raw = reading.parse_raw(ranking.raw_bytes([result, result]))
  assert raw.kind == reading.TUNING_DATA and len(raw.modules) == 2
  for data in raw.modules:
    assert data.module == result.program.data.module
    assert [run.op_config for run in data.runs] == [RUNS[index].op_config for index in listed]
    assert [run.is_default for run in data.runs] == [index == 2 for index in listed]
    assert not any(run.HasField("profile") for run in data.runs)


def test_raw_data_of_layouts_read_back():
  result = _ranked("layout", top_k=4)
  raw = reading.parse_raw(ranking.raw_bytes([result]))
  assert raw.kind == reading.MODULE_TUNING_DATA
  again = programs.find(programs.HloProgram("p", "f.pb", raw.modules[0]), "layout", "", "tpu", 1, 0)
  chosen = result.best + [0] * (0 not in result.best)
  np.testing.assert_array_equal(again.arrays["node_config_ids"], [2, 3, 5])
  np.testing.assert_array_equal(again.arrays["node_config_feat"],
                                result.candidates.arrays["node_config_feat"][chosen])
  assert again.default == chosen.index(0)


def test_raw_data_of_one_configuration_read_back():
  result = _ranked("layout", top_k=1, scores=np.arange(20)[::-1])
  raw = reading.parse_raw(ranking.raw_bytes([result]))
  assert raw.kind == reading.MODULE_TUNING_DATA and len(raw.modules[0].runs) == 1
  result = _ranked(top_k=1)
  raw = reading.parse_raw(ranking.raw_bytes([result]))
  assert raw.kind == reading.TUNING_DATA and len(raw.modules[0].runs) == 1


def test_json_of_tiles():
  result = _ranked(runs=RUNS, scores=[1, 3, 4, 2], top_k=2)
  assert json.loads(json.dumps(ranking.to_json(result))) == {
      "program": "p", "kind": "tile",
      "candidates": {"count": 4, "source": "runs", "given": 4, "equal": 0}, "rank_of_default": 1,
      "configurations": [
          {"rank": 1, "candidate": 2, "score": 4.0, "is_default": True, "kernel_bounds": [],
           "output_bounds": [1, 3], "input_bounds": [1, 8]},
          {"rank": 2, "candidate": 1, "score": 3.0, "is_default": False, "kernel_bounds": [8],
           "output_bounds": [4, 2], "input_bounds": []}]}
  assert ranking.to_json(_ranked())["rank_of_default"] is None


def test_json_of_layouts():
  runs = [modules.layout_run([[(0, 1), (), (1, 0)], [(), (1, 0)]])]
  result = _ranked("layout", runs, nodes=[2, 3])
  assert json.loads(json.dumps(ranking.to_json(result))) == {
      "program": "p", "kind": "layout", "nodes": [2, 3],
      "candidates": {"count": 1, "source": "runs", "given": 1, "equal": 0},
      "rank_of_default": None, "configurations": [
          {"rank": 1, "candidate": 0, "score": 0.0, "is_default": False,
           "layouts": [[[0, 1], [], [1, 0]], [[], [1, 0]]]}]}


def test_table_of_tiles():
  lines = ranking.table(_ranked(runs=RUNS, scores=[1, 3, 4, 2], top_k=2)).splitlines()
  assert lines == [
      "p: best 2 of 4 candidates; the default has rank 1",
      "rank   score  candidate  kernel  output  input",
      "   1  4.0000          2  -       1x3     1x8    default",
      "   2  3.0000          1  8       4x2     -"]


def test_table_of_layouts():
  runs = [modules.layout_run([[(0, 1), (), (1, 0)], [(), (1, 0)], [(), ()]]),
          modules.layout_run([[], [], []], is_default=True)]
  result = _ranked("layout", runs, nodes=[2, 3, 5])
  lines = ranking.table(ranking.rank(result.program, result.candidates, np.array([2., 1.]), 2)
                       ).splitlines()
  assert lines == [
      "p: best 2 of 2 candidates; the default has rank 2",
      "rank   score  candidate  requests  node: output/input/kernel",
      "   1  2.0000          0  3         2: 01//10  3: /10",
      "   2  1.0000          1  0         -                          default"]


def test_tables_list_only_a_few_nodes():
  runs = [modules.layout_run([[(0, 1)]] * 5)]
  result = _ranked("layout", runs, nodes=[2, 3, 5, 0, 1])
  assert ranking.table(result).splitlines()[-1].endswith("2: 01  3: 01  5: 01  and 2 more nodes")
