"""Results over seeds, and their tables."""

import json
import math

import pandas as pd
import pytest

from tpugraphs_rank import tables
from tpugraphs_rank.evaluation import bootstrap
from tpugraphs_rank.evaluation import noise
from tpugraphs_rank.evaluation import result_tables


def _frame(taus, seen=(True, True, False), **columns):
  count = len(taus)
  return pd.DataFrame({
      "graph": [f"g{i}" for i in range(count)], "seen": list(seen), "kendall_tau": taus,
      "opa": [(tau + 1) / 2 for tau in taus], "top1_slowdown": [0.125] * count, **columns})


def test_a_figure_is_over_seeds():
  assert result_tables.figure([0.5]) == {"mean": 0.5, "sd": 0.0, "n": 1}
  assert result_tables.figure([1.0, 2.0, 3.0]) == {"mean": 2.0, "sd": 1.0, "n": 3}


def test_results_keep_unseen_groups_separate():
  results = result_tables.summarise({
      "gnn": [_frame([0.5, 0.7, 0.1]), _frame([0.7, 0.9, 0.3])],
      "random": [_frame([0.0, 0.0, 0.0])]})
  assert results["models"]["gnn"]["tau"] == {
      "mean": pytest.approx(0.7), "sd": pytest.approx(0.2 / math.sqrt(2)), "n": 2}
  assert results["models"]["gnn"]["opa"]["mean"] == pytest.approx(0.85)
  assert results["models_unseen_groups"]["gnn"]["tau"]["mean"] == pytest.approx(0.2)
  assert results["models"]["random"]["tau"] == {"mean": 0.0, "sd": 0.0, "n": 1}
  assert (results["graphs"], results["graphs_unseen_groups"]) == (2, 1)
  assert "other_pass" not in results
  json.dumps(results, allow_nan=False)


def test_results_of_one_part():
  all_seen = result_tables.summarise({"gnn": [_frame([0.5, 0.7, 0.1], seen=[True] * 3)]})
  assert set(all_seen) == {"models", "graphs"} and all_seen["graphs"] == 3
  none_seen = result_tables.summarise({"gnn": [_frame([0.5, 0.7, 0.1], seen=[False] * 3)]})
  assert set(none_seen) == {"models_unseen_groups", "graphs_unseen_groups"}
  unknown = result_tables.summarise({"gnn": [_frame([0.5, 0.7, 0.1], seen=[None] * 3)]})
  assert unknown["models"]["gnn"]["tau"]["mean"] == pytest.approx(1.3 / 3)


def test_the_other_pass_comes_last():
  frame = _frame([0.5, 0.7, 0.1], other_pass_kendall_tau=[0.9, 1.0, 0.8])
  results = result_tables.summarise({"gnn": [frame]})
  assert results["other_pass"] == {"tau": {"mean": pytest.approx(0.95), "sd": 0.0, "n": 1}}
  header, rows = result_tables.rows_of(results, "", ("tau", "top1_slowdown"))
  assert header == ["ranker", "tau", "top-1 slowdown"]
  assert rows == [["gnn", "0.600", "12.50 %"], ["other pass", "0.950", "-"]]
  assert result_tables.rows_of(results, "", ("top1_slowdown",))[1] == [["gnn", "12.50 %"]]


def test_undefined_graphs_are_left_out_and_undefined_figures_too():
  results = result_tables.summarise({"gnn": [_frame([0.5, math.nan, math.nan])]})
  assert results["models"]["gnn"]["tau"]["mean"] == 0.5
  assert "tau" not in results["models_unseen_groups"]["gnn"]


def test_cells():
  assert result_tables.cell("tau", {"mean": 0.7654, "sd": 0.0123, "n": 3}) == "0.765 ± 0.012"
  figure = {"mean": 0.0856, "sd": 0.01, "n": 3}
  assert result_tables.cell("top1_slowdown", figure) == "8.56 ± 1.00 %"
  assert result_tables.cell("top5_gain_share", {**figure, "mean": 0.625}) == "62 ± 1 %"
  assert result_tables.cell("top1_slowdown_across_passes", {**figure, "n": 1}) == "8.56 %"
  assert result_tables.cell("measured_until_good", {"mean": 5.25, "sd": 0.5, "n": 2}) == "5.2 ± 0.5"
  assert result_tables.cell("opa", {"mean": 0.5, "sd": 0.0, "n": 1}) == "0.500"
  assert result_tables.cell("opa", None) == "-"


def test_tables_as_text():
  header, rows = ["ranker", "tau"], [["gnn", "0.7 ± 0.1"], ["random", "0.0"]]
  assert tables.markdown(header, rows) == (
      "| ranker | tau |\n| --- | ---: |\n| gnn | 0.7 ± 0.1 |\n| random | 0.0 |\n")
  assert tables.text(header, rows) == (
      "ranker        tau\n------  ---------\ngnn     0.7 ± 0.1\nrandom        0.0\n")


def test_a_table_of_differences():
  interval = bootstrap.Interval(0.25, 0.125, 0.5, 9)
  header, rows = result_tables.difference_rows(
      "gnn", {"random": {"kendall_tau": interval, "top1_slowdown": interval}})
  assert header == ["gain of gnn over", "tau", "top-1 slowdown", "graphs"]
  assert rows == [["random", "+0.250 [+0.125, +0.500]", "+25.00 [+12.50, +50.00] %", "9"]]
  assert result_tables.difference_rows("gnn", {})[1] == []


def test_a_table_of_noise_ceilings():
  header, rows = result_tables.ceiling_rows({
      "known": noise.NoiseCeiling(12, 10, 2, 0.0162, 1.2e-5, 0.005, 0.5, 0.48, 0.05, 0.74),
      "bare": noise.NoiseCeiling(3, 3, 0, 7.5)})
  assert len(header) == len(rows[0]) == len(rows[1])
  assert rows[0] == ["known", "12", "10", "2", "1.62 %", "0.0012 %", "0.50 %", "0.500",
                     "0.480 ± 0.050", "0.740"]
  assert rows[1] == ["bare", "3", "3", "0", "750.00 %", *["-"] * 5]
