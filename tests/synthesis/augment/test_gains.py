"""Gains from synthetic programs: means, paired gains, corrected intervals, text, plot."""

import json

import numpy as np
import pandas as pd
import pytest

from tpugraphs_rank.evaluation import plots
from tpugraphs_rank.evaluation import two_way
from tpugraphs_rank.synthesis.augment import gains as gains_lib

GAINS = {"real": -0.05, "real_oversampled": 0.0, "layerdag": 0.1, "random_graphs": 0.06}


def frame(gains=None, budgets=(5, 10), subsets=(0, 1, 2), seen=lambda place: place < 4):
  """Six programs of six families; each arm's tau is a base plus its gain plus a little noise."""
  rng = np.random.default_rng(0)
  rows = []
  for budget in budgets:
    for subset in subsets:
      base = rng.uniform(0.2, 0.6, 6)
      for arm, gain in (GAINS if gains is None else gains).items():
        for place in range(6):
          tau = base[place] + gain + 0.01 * rng.normal()
          rows.append({
              "task": "tile:x", "budget": budget, "arm": arm, "subset": subset,
              "graph": f"g{place}", "family": f"f{place}", "seen": seen(place), "kendall_tau": tau,
              "top1_slowdown": 1 - tau, "top5_slowdown": (1 - tau) / 5})
  return pd.DataFrame(rows)


def test_means_over_programs_then_over_subsets():
  table = frame()
  (entry,) = [one for one in gains_lib.means(table)
              if (one["budget"], one["arm"]) == (10, "layerdag")]
  rows = table[(table["budget"] == 10) & (table["arm"] == "layerdag")]
  assert entry["n_seeds"] == 3
  for name, keep in (("all", rows["graph"] != ""), ("seen", rows["graph"] < "g4"),
                     ("unseen_groups", rows["graph"] >= "g4")):
    each = rows[keep].groupby("subset")["kendall_tau"].mean()
    assert entry[name]["tau"] == {
        "mean": pytest.approx(each.mean()), "sd": pytest.approx(each.std()), "n": 3}


def test_comparisons():
  table = frame()
  actual = gains_lib.comparisons(table, resamples=2000)
  assert [(one["budget"], one["arm"]) for one in actual] == [
      (5, "layerdag"), (5, "random_graphs"), (10, "layerdag"), (10, "random_graphs")]
  one = actual[2]
  # Four arms with synthetic programs, each evaluated on seen and on unseen groups.
  assert one["level"] == two_way.corrected_level(8) and one["n_seeds"] == 3
  assert one["programs"] == "seen"
  seen = lambda rows: rows[rows["graph"] < "g4"]
  cell = lambda arm: table[(table["budget"] == 10) & (table["arm"] == arm)]
  for rival, short, gain in (("real", "real", 0.15), ("real_oversampled", "oversampled", 0.1)):
    expected, _ = two_way.paired_interval(
        seen(cell("layerdag")), seen(cell(rival)), "kendall_tau", one["level"], 2000)
    assert (one[f"gain_vs_{short}"], one[f"low_vs_{short}"], one[f"high_vs_{short}"]) == (
        expected.mean, expected.low, expected.high)
    assert expected.mean == pytest.approx(gain, abs=0.01) and expected.low > 0
    assert one["parts"]["all"][rival]["top5_slowdown"]["mean"] == pytest.approx(gain / 5, abs=0.01)
    assert one["parts"]["seen"][rival]["tau"]["n"] == 12
    assert one["parts"]["unseen_groups"][rival]["tau"]["n"] == 6
  # Rivals that did not run, and the arm itself.
  assert one["low_vs_templates"] is one["gain_vs_templates"] is None
  assert actual[3]["low_vs_random_graphs"] is None
  # The arm has another number of synthetic programs than the random graphs.
  assert one["low_vs_random_graphs"] is None and "random_graphs" not in one["parts"]["seen"]
  json.dumps(actual, allow_nan=False)


def test_an_arm_is_compared_with_its_control():
  table = frame({"real_oversampled": 0.0, "layerdag_selfsupervised": 0.2,
                "real_selfsupervised": 0.15}, budgets=(5,))
  one, other = gains_lib.comparisons(table, resamples=500)
  assert one["gain_vs_control"] == pytest.approx(0.05, abs=0.01)
  assert one["low_vs_control"] < one["gain_vs_control"] < one["high_vs_control"]
  assert one["parts"]["all"]["real_selfsupervised"]["tau"]["n"] == 18
  assert other["arm"] == "real_selfsupervised" and "gain_vs_control" not in other
  assert other["gain_vs_oversampled"] == pytest.approx(0.15, abs=0.01)


def test_sources_are_compared_at_equal_numbers():
  table = frame().replace({"arm": {"layerdag": "layerdag_matched"}})
  one, other = (entry for entry in gains_lib.comparisons(table, resamples=500)
                if entry["budget"] == 10)
  assert one["gain_vs_random_graphs"] == pytest.approx(0.04, abs=0.01)
  assert other["arm"] == "random_graphs" and other["gain_vs_random_graphs"] is None


def test_equal_arms_have_no_gain():
  same = frame({"real": 0.0})
  arms = ("real", "real_oversampled", "layerdag")
  table = pd.concat([same.assign(arm=arm) for arm in arms])
  for one in gains_lib.comparisons(table, resamples=200):
    assert one["gain_vs_real"] == one["low_vs_real"] == one["high_vs_oversampled"] == 0.0


def test_only_common_subsets_are_paired():
  table = frame()
  lacking = table[~((table["arm"] == "layerdag") & (table["subset"] == 2))]
  one = gains_lib.comparisons(lacking, resamples=200)[0]
  assert one["n_seeds"] == 2 and one["parts"]["all"]["real"]["tau"]["n"] == 12
  alone = table[(table["arm"] == "layerdag") | (table["subset"] == 9)]
  one = gains_lib.comparisons(alone, resamples=200)[0]
  assert one["n_seeds"] == 0 and one["gain_vs_real"] is None and one["parts"] == {}


def test_it_may_be_unknown_which_groups_were_seen():
  table = frame(seen=lambda place: None)
  one = gains_lib.comparisons(table, resamples=200)[0]
  assert one["programs"] == "all" and one["gain_vs_real"] is not None
  assert set(one["parts"]) == {"all"} and set(gains_lib.means(table)[0]) >= {"all"}
  assert "seen" not in gains_lib.means(table)[0]


def test_a_task_without_unseen_groups_has_one_part_and_counts_once():
  other = frame(seen=lambda place: True).assign(task="layout:x")
  actual = gains_lib.comparisons(pd.concat([frame(), other]), resamples=200)
  by_task = {task: [one for one in actual if one["task"] == task]
             for task in ("tile:x", "layout:x")}
  assert {one["level"] for one in actual} == {two_way.corrected_level(4 * 2 + 4)}
  assert {one["programs"] for one in by_task["tile:x"]} == {"seen"}
  assert {one["programs"] for one in by_task["layout:x"]} == {"all"}
  assert {tuple(one["parts"]) for one in by_task["layout:x"]} == {("all",)}
  averages = gains_lib.means(other)
  assert not any("seen" in one for one in averages) and all("all" in one for one in averages)


def test_text():
  table = frame()
  averages, compared = gains_lib.means(table), gains_lib.comparisons(table, resamples=500)
  header, rows = gains_lib.rows_of(
      gains_lib.of(averages, "tile:x", 10), gains_lib.of(compared, "tile:x", 10))
  assert header[:5] == ["training", "tau", "top-1 slowdown", "top-5 slowdown",
                        "tau: gain over real"]
  assert [row[0] for row in rows] == ["real", "real oversampled", "layerdag", "random graphs"]
  assert rows[0][4:] == ["-"] * 4 + ["3"] and all(len(row) == len(header) for row in rows)
  assert rows[2][4].startswith("+0.1") and rows[2][-2].endswith("] %")
  assert gains_lib.gain_text({"mean": 0.0604, "low": -0.03, "high": 0.08}) == (
      "+0.060 [-0.030, +0.080]")
  assert gains_lib.gain_text({"mean": 0.1, "low": 0.0, "high": 0.2}, "top1_slowdown") == (
      "+10.0 [+0.0, +20.0] %")


def test_the_plot(tmp_path):
  compared = gains_lib.comparisons(frame(), resamples=200)
  series = gains_lib.gain_series(compared, "tile:x")
  assert {arm: [budget for budget, _ in points] for arm, points in series.items()} == {
      "layerdag": [5, 10], "random_graphs": [5, 10]}
  assert gains_lib.gain_series(compared, "tile:other") == {}
  plots.gain_against_budget(tmp_path / "gain.png", {"all": series, "none": {}})
  assert (tmp_path / "gain.png").read_bytes().startswith(b"\x89PNG")
