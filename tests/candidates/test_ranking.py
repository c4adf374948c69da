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
from tpugraphs_rank.metrics import evidence


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


def _evidence(share_of_dots=True):
  """Programs in which each lead over the default is the same speedup: 2 ** lead."""
  rng = np.random.default_rng(0)
  programs = []
  for _ in range(8):
    scores = np.concatenate([[0], rng.integers(-4, 5, 60)]).astype(float)
    programs.append(evidence.Scored(
        "dot" if share_of_dots else "reduce", 1000 * 2.0 ** -scores, scores, 0))
  return evidence.gather(programs, "valid")


def _with(result, **known):
  return ranking.rank(result.program, result.candidates, result.scores, result.top_k, **known)


def test_json_of_tiles():
  result = _ranked(runs=RUNS, scores=[1, 3, 4, 2], top_k=2)
  stored = json.loads(json.dumps(ranking.to_json(result)))
  configurations = stored.pop("configurations")
  assert stored == {
      "program": "p", "kind": "tile", "instructions": 3, "operation": "dot", "hlo_stage": None,
      "validation_of_this_operation": None,
      "candidates": {"count": 4, "source": "runs", "given": 4, "equal": 0}, "rank_of_default": 1,
      "why_no_gain_is_predicted": "the run has no calibration",
      "weight_of_analytic_cost": 0.0, "unseen_opcodes": [], "unseen_types": [],
      "tiled_array": {"instruction": "dot.102", "opcode": "dot", "shape": "f32[4,6]",
                      "unit": "as in the file"}}
  unknown = {"tied_with": 0, "faster_than_default": None, "speed_over_default": None,
             "ranks_by_member": [], "members_above_default": None}
  assert configurations == [
      {"rank": 1, "candidate": 2, "score": 4.0, "is_default": True, "kernel_bounds": [],
       "output_bounds": [1, 3], "input_bounds": [1, 8], **unknown},
      {"rank": 2, "candidate": 1, "score": 3.0, "is_default": False, "kernel_bounds": [8],
       "output_bounds": [4, 2], "input_bounds": [], **unknown}]
  assert ranking.to_json(_ranked())["rank_of_default"] is None


def test_json_of_layouts():
  runs = [modules.layout_run([[(0, 1), (), (1, 0)], [(), (1, 0)]])]
  result = _ranked("layout", runs, nodes=[2, 3])
  stored = json.loads(json.dumps(ranking.to_json(result)))
  assert stored["nodes"] == [2, 3] and "tiled_array" not in stored
  [only] = stored["configurations"]
  assert only["layouts"] == [[[0, 1], [], [1, 0]], [[], [1, 0]]]
  assert [(one["instruction"], one["tensor"], one["minor_to_major"]) for one in only["requests"]
          ] == [("dot.102", "output", [0, 1]), ("dot.102", "kernel", [1, 0]),
                ("reshape.103", "input", [1, 0])]


def test_what_validation_says_about_a_lead():
  result = _with(_ranked(runs=RUNS, scores=[1, 4, 2, 2], top_k=4), evidence=_evidence())
  [best, first, second, worst] = ranking.to_json(result)["configurations"]
  # A lead of 2 was four times as fast; the bin may join it with its neighbours.
  assert best["faster_than_default"]["share"] == 1 and best["faster_than_default"]["clear"]
  assert 2 <= best["speed_over_default"]["median"] <= 8
  assert worst["faster_than_default"]["share"] == 0
  assert first["is_default"] and first["faster_than_default"] is None
  assert second["faster_than_default"] is not None
  assert ranking.to_json(result)["validation_of_this_operation"]["programs"] == 8
  other = _with(result, evidence=_evidence(share_of_dots=False))
  assert ranking.to_json(other)["validation_of_this_operation"] is None


def test_equal_scores_share_a_rank():
  result = _ranked(runs=RUNS, scores=[3, 1, 3 + 1e-7, 1])
  assert [result.shared_rank(position) for position in range(4)] == [
      (1, 1), (3, 1), (1, 1), (3, 1)]
  assert [entry["tied_with"] for entry in ranking.to_json(result)["configurations"]] == [1, 1, 1]


def test_networks_disagree():
  members = np.array([[4.0, 3, 2, 1], [1, 2, 3, 4], [4, 3, 2, 1]])
  result = _with(_ranked(runs=RUNS, scores=members.mean(axis=0)), members=members)
  assert result.member_ranks(0) == [1, 4, 1]
  # The default is at position 2.
  assert result.members_for(0) == 2 and result.members_for(3) == 1
  assert _ranked(runs=RUNS).members_for(0) is None and _ranked(runs=RUNS).member_ranks(0) == []
