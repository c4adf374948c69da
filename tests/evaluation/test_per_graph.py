"""Rows per graph, compared with the formulas."""

import dataclasses
import itertools
import math

import numpy as np
import pandas as pd
import pytest

from tests import synthetic
from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank import run_config
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import aggregate
from tpugraphs_rank.evaluation import baselines
from tpugraphs_rank.evaluation import per_graph
from tpugraphs_rank.evaluation import result_tables
from tpugraphs_rank.evaluation import task as task_lib

COLLECTION = registry.Collection(
    name="tile:made_up", kind="tile", target="none", splits={"test": 2},
    family_regex=r"^(?P<family>[a-z]+)\.", groups={"pairs": ("cat", "dog")})


def _tile(name, runtimes, **changes):
  count = len(runtimes)
  return synthetic.tile_graph(
      1, num_configs=count, name=name, config_runtime=np.array(runtimes, np.int64),
      config_runtime_normalizers=np.full(count, 100, np.int64), **changes)


def test_a_row_is_its_formulas():
  graph = _tile("cat.1", [100, 102, 200, 400])
  scores = np.array([3.0, 4.0, 1.0, 2.0])  # The best two swapped, and the worst two.
  frame = per_graph.evaluate([splits.ProgramView(graph)], [scores], COLLECTION, {"pairs"})
  row = frame.iloc[0]
  assert (row["graph"], row["family"], row["group"], row["seen"]) == ("cat.1", "cat", "pairs", True)
  assert (row["nodes"], row["configurations"], row["degenerate"]) == (6, 4, False)
  assert row["opa"] == 4 / 6 and row["opa_pairs"] == 6
  assert row["kendall_tau"] == row["kendall_tau_b"] == pytest.approx((4 - 2) / 6)
  assert row["kendall_tau_within3"] == pytest.approx((2 - 1) / 3)  # 400 is left out.
  assert row["opa_gap5"] == 4 / 5  # (100, 102) is left out.
  assert row["top1_slowdown"] == pytest.approx(102 / 100 - 1)
  assert row["top5_slowdown"] == row["top10_slowdown"] == 0.0
  assert row["best_runtime_ns"] == 100 and row["median_runtime_ns"] == (102 + 200) / 2
  assert math.isnan(row["top1_gain_share"])  # The default is the fastest.
  assert row["measured_until_good"] == 1  # 102 is nearly 100.
  assert not [name for name in frame if "pass" in name]


def test_tiles_are_evaluated_over_their_normalizers_unless_raw():
  graph = synthetic.tile_graph(
      1, num_configs=2, config_runtime=np.array([100, 300]),
      config_runtime_normalizers=np.array([100, 600]), name="cat.1")
  metrics_of = lambda raw: per_graph.evaluate(
      [splits.ProgramView(graph)], [np.array([1.0, 0.0])], COLLECTION, raw=raw).iloc[0]
  assert metrics_of(False)["kendall_tau"] == -1.0 and metrics_of(True)["kendall_tau"] == 1.0
  assert metrics_of(False)["top1_slowdown"] == (100 / 100) / (300 / 600) - 1
  assert metrics_of(False)["best_runtime_ns"] == 100  # Nanoseconds in either case.
  assert metrics_of(False)["seen"] is None


def test_equal_runtimes_everywhere_give_no_metrics(caplog):
  equal = [splits.ProgramView(_tile(name, [100] * 3)) for name in ("cat.1", "dog.1")]
  scores = [np.array([3.0, 2.0, 1.0])] * 2
  frame = per_graph.evaluate(equal, scores, COLLECTION, {"pairs"})
  assert frame[per_graph.metric_columns(frame)].isna().all().all()
  assert frame["configurations"].tolist() == [3, 3]
  assert "tile:made_up: there is nothing to rank, so all metrics are undefined" in caplog.text
  summary = aggregate.aggregate(frame, COLLECTION, "test")
  assert set(summary["mean"].values()) == {None}
  assert result_tables.figures([frame]) == {}
  # One graph with an order is enough.
  caplog.clear()
  other = splits.ProgramView(_tile("emu.1", [100, 200, 300]))
  frame = per_graph.evaluate([*equal, other], [*scores, scores[0]], COLLECTION, {"pairs"})
  assert frame["kendall_tau"].isna().tolist() == [True, True, False] and not caplog.text
  assert frame["top1_slowdown"].tolist() == [0.0, 0.0, 0.0]


def test_gains_over_the_default():
  # The default is the first with the runtime of its normalizer, 100.
  graph = _tile("cat.1", [80, 100, 50, 200])
  scores = np.array([3.0, 0.0, 2.0, 1.0])
  for program, gains, measured in (
      (splits.ProgramView(graph), [(100 - 80) / (100 - 50), 1.0], 2),
      (splits.ProgramView(graph, np.array([3, 0])), [1.0, 1.0], 1)):  # Without the default.
    row = per_graph.evaluate([program], [scores[program.indices]], COLLECTION).iloc[0]
    assert [row["top1_gain_share"], row["top5_gain_share"]] == pytest.approx(gains)
    assert row["measured_until_good"] == measured
  unknown = per_graph.evaluate([program], [scores[program.indices]], COLLECTION, defaults=[None])
  assert unknown["top1_gain_share"].isna().all()
  little = per_graph.evaluate(
      [splits.ProgramView(_tile("cat.1", [99, 100]))], [np.arange(2.0)], COLLECTION)
  assert little["top1_gain_share"].isna().all()  # Only 1 % can be gained.


def test_rows_do_not_depend_on_the_order_of_storage():
  rng = np.random.default_rng(0)
  passes = rng.integers(90, 99, (2, 12))
  graph = synthetic.tile_graph(1, num_configs=12, name="cat.1", config_runtime_passes=passes,
                               config_runtime=passes.mean(axis=0).astype(np.int64),
                               config_runtime_normalizers=np.full(12, 120, np.int64))
  scores = rng.integers(0, 3, 12).astype(float)
  order = rng.permutation(12)
  frames = [per_graph.evaluate([program], [scores[program.indices]], COLLECTION, defaults=[97.0])
            for program in (splits.ProgramView(graph), splits.ProgramView(graph, order))]
  pd.testing.assert_frame_equal(*frames, check_exact=False, rtol=1e-12)


def test_only_the_usable_configurations_take_part():
  graph = _tile("cat.1", [400, 100, 200, 300],
                config_runtime_passes=np.array([[400, 100, 200, 300], [400, 100, 310, 300]]))
  program = splits.ProgramView(graph, np.array([2, 3]))
  row = per_graph.evaluate([program], [np.array([0.0, 1.0])], COLLECTION).iloc[0]
  assert row["configurations"] == 2 and row["best_runtime_ns"] == 200
  assert row["kendall_tau"] == -1.0 and row["top1_slowdown"] == pytest.approx(300 / 200 - 1)
  assert row["other_pass_kendall_tau"] == -1.0  # Among these two the passes disagree.


def test_runtimes_of_merged_configurations():
  graph = synthetic.tile_graph(
      1, num_configs=3, config_runtime=np.array([100, 300, 500]), name="cat.1",
      config_runtime_normalizers=np.array([100, 600, 500]))
  program = splits.ProgramView(graph, np.array([2, 0]), np.array([0.75, 0.5, 1.0]))
  assert per_graph.runtimes_of(program).tolist() == [1.0, 0.75]
  assert per_graph.runtimes_of(program, raw=True).tolist() == [500, 100]  # As measured.


def test_the_other_pass_is_the_mean_of_both_ways():
  first, second = np.array([100, 120, 140, 300]), np.array([110, 100, 150, 290])
  graph = _tile("dog.1", [105, 110, 145, 295], config_runtime_passes=np.stack([first, second]))
  row = per_graph.evaluate([splits.ProgramView(graph)], [np.arange(4.0)], COLLECTION).iloc[0]
  assert row["other_pass_kendall_tau"] == pytest.approx((5 - 1) / 6)
  assert row["other_pass_opa"] == pytest.approx(5 / 6)
  assert row["other_pass_top1_slowdown"] == pytest.approx(
      ((120 / 100 - 1) + (110 / 100 - 1)) / 2)
  assert row["other_pass_top5_slowdown"] == 0.0
  # 290 is chosen from one; the passes choose 100 and 110 from all.
  assert row["top1_slowdown_across_passes"] == pytest.approx(
      ((290 / 110 - 1) + (300 / 120 - 1)) / 2)
  assert row["top5_slowdown_across_passes"] == 0.0
  # Some graphs have passes and others do not.
  both = per_graph.evaluate(
      [splits.ProgramView(graph), splits.ProgramView(_tile("dog.2", [1, 2]))],
      [np.arange(4.0), np.arange(2.0)], COLLECTION)
  assert both["other_pass_opa"].isna().tolist() == [False, True]


@pytest.mark.parametrize("passes", [None, [[100, 200]], [[100, 200], [0, 200]]])
def test_no_ceiling_without_two_measured_passes(passes):
  changes = {} if passes is None else {"config_runtime_passes": np.array(passes)}
  assert per_graph.other_pass(splits.ProgramView(_tile("cat.1", [100, 200], **changes))) == {}


def test_nothing_to_rank_is_nan_and_constant_scores_are_degenerate():
  programs = [splits.ProgramView(_tile("cat.1", [100, 100])),
              splits.ProgramView(_tile("dog.1", [100, 200]))]
  frame = per_graph.evaluate(programs, [np.array([0.0, 1.0]), np.array([1.0, 1.0])], COLLECTION)
  assert math.isnan(frame["kendall_tau"][0]) and math.isnan(frame["opa"][0])
  assert frame["kendall_tau"][1] == 0.0 and frame["opa"][1] == 0.0
  assert frame["degenerate"].tolist() == [False, True] and frame["tied"].tolist() == [0.0, 1.0]


def test_columns_follow_the_kind():
  layout = registry.Collection(name="layout:x:y", kind="layout", target="none", splits={})
  assert per_graph.slowdown_ks(layout) == (1, 5, 10, 100)
  assert per_graph.slowdown_ks(COLLECTION) == (1, 5, 10)
  graph = synthetic.layout_graph(0)
  frame = per_graph.evaluate(
      [splits.ProgramView(graph)], [-graph.relative_runtime], layout, {"elsewhere"})
  assert frame["top100_slowdown"][0] == 0.0 and frame["kendall_tau"][0] == 1.0
  assert not frame["seen"][0]
  assert per_graph.metric_columns(frame) == [
      *per_graph.RANKING_COLUMNS, *(f"top{k}_{name}" for k in (1, 5, 10, 100)
                                    for name in ("slowdown", "gain_share")),
      "measured_until_good"]
  assert all(map(per_graph.higher_is_better, ("opa", "kendall_tau", "top1_gain_share")))
  assert not any(map(per_graph.higher_is_better, (
      "top1_slowdown", "top5_slowdown_across_passes", "measured_until_good")))


def test_training_groups_are_of_families_with_siblings():
  assert per_graph.training_groups(COLLECTION, ["cat.9", "bird.1"]) == {"pairs", "bird"}


def test_a_csv_keeps_the_rows(tmp_path):
  graph = _tile("cat.1", [100, 102, 200, 400])
  frame = per_graph.evaluate([splits.ProgramView(graph)], [np.arange(4.0)], COLLECTION, {"pairs"})
  frame.to_csv(tmp_path / "rows.csv", index=False)
  pd.testing.assert_frame_equal(
      pd.read_csv(tmp_path / "rows.csv"), frame, check_dtype=False, check_exact=True)


def test_bad_input_is_a_data_error():
  graph = _tile("cat.1", [100, 200])
  with pytest.raises(errors.DataError, match="1 arrays of scores for 2 programs"):
    per_graph.evaluate([splits.ProgramView(graph)] * 2, [np.arange(2.0)], COLLECTION)
  with pytest.raises(errors.DataError, match="one for each runtime"):
    per_graph.evaluate([splits.ProgramView(graph)], [np.arange(3.0)], COLLECTION)
  hidden = _tile("cat.2", [0, 0])
  with pytest.raises(errors.DataError, match="cat.2 has no runtimes"):
    per_graph.evaluate([splits.ProgramView(hidden)], [np.arange(2.0)], COLLECTION)


def test_the_rows_agree_with_the_metrics():
  programs = [splits.ProgramView(synthetic.tile_graph(seed, num_configs=20)) for seed in range(4)]
  scores = [np.random.default_rng(seed).normal(size=20) for seed in range(4)]
  frame = per_graph.evaluate(programs, scores, COLLECTION)
  for index, (program, score) in enumerate(zip(programs, scores)):
    runtimes = program.graph.relative_runtime
    assert frame["opa"][index] == metrics.opa(runtimes, score)
    assert frame["kendall_tau_b"][index] == metrics.kendall_tau(runtimes, score, "b")
    assert frame["top5_slowdown"][index] == metrics.topk_slowdown(runtimes, score, 5)


def test_random_orders_are_judged_by_all_orders_and_not_by_one():
  graph = dataclasses.replace(_tile("cat.1", [100, 102, 200, 400]),
                              config_runtime_normalizers=np.full(4, 102))  # That of the default.
  programs = [splits.ProgramView(graph)]
  task = task_lib.Task(run_config.DataConfig(), COLLECTION, "test", 0, tuple(programs), None)
  for name, orders in (
      ("random", list(itertools.permutations(range(4)))),
      ("default_configuration", [(1, *rest) for rest in itertools.permutations((0, 2, 3))])):
    rows = [per_graph.evaluate(programs, [-np.argsort(order).astype(float)], COLLECTION).iloc[0]
            for order in orders]
    scores = baselines.trivial(name, programs, 3)
    row = task.evaluate(scores, name).iloc[0]
    for column in ("top1_slowdown", "top5_slowdown", "measured_until_good"):
      assert row[column] == pytest.approx(np.mean([each[column] for each in rows])), column
    # Correlations are those of the one order.
    assert row["kendall_tau"] == metrics.kendall_tau(graph.relative_runtime, scores[0])
  assert task.evaluate(scores).iloc[0]["top1_slowdown"] == pytest.approx(
      metrics.topk_slowdown(graph.relative_runtime, scores[0], 1))
