"""Intervals against brute force and theory; signs; pairing."""

import math

import numpy as np
import pandas as pd
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.evaluation import bootstrap


def _frame(taus, slowdowns=None, names=None, families=None):
  count = len(taus)
  return pd.DataFrame({
      "graph": names or [f"g{i}" for i in range(count)],
      "family": families or ["f"] * count,
      "kendall_tau": taus, "top1_slowdown": slowdowns or [0.0] * count})


def test_an_interval_is_that_of_a_plain_loop():
  values = np.random.default_rng(3).exponential(size=40)
  result = bootstrap.mean_interval(values, resamples=4000)
  rng = np.random.default_rng(9)
  means = [rng.choice(values, 40).mean() for _ in range(4000)]
  assert result.mean == values.mean() and result.n == 40
  assert result.low == pytest.approx(np.quantile(means, 0.025), abs=0.02)
  assert result.high == pytest.approx(np.quantile(means, 0.975), abs=0.02)


def test_intervals_have_their_nominal_coverage():
  rng = np.random.default_rng(0)
  covered = 0
  for seed in range(200):
    result = bootstrap.mean_interval(rng.normal(size=50), resamples=400, seed=seed)
    covered += result.low <= 0.0 <= result.high
  assert 0.88 <= covered / 200 <= 0.99


def test_blocks_change_nothing(monkeypatch):
  values = np.random.default_rng(1).normal(size=30)
  whole = bootstrap.mean_interval(values, resamples=500)
  monkeypatch.setattr(bootstrap, "_BLOCK", 7 * 30)
  assert bootstrap.mean_interval(values, resamples=500) == whole
  assert bootstrap.mean_interval(values, resamples=500, seed=1) != whole


def test_clusters_are_drawn_whole():
  values = [0.0] * 10 + [1.0] * 10
  families = ["a"] * 10 + ["b"] * 10
  plain = bootstrap.mean_interval(values)
  clustered = bootstrap.mean_interval(values, families)
  assert plain.mean == clustered.mean == 0.5 and clustered.n == 20
  assert (clustered.low, clustered.high) == (0.0, 1.0)  # Both draws are "a" in a quarter of cases.
  assert plain.low > 0.2
  # Clusters of unequal size: a drawn mean is over all values drawn.
  uneven = bootstrap.mean_interval([0.0, 1.0, 1.0, 1.0], ["a", "b", "b", "b"], level=0.4)
  assert uneven.low == pytest.approx(3 / 4) or uneven.high == pytest.approx(3 / 4)


def test_graphs_with_nothing_to_rank_are_left_out():
  assert bootstrap.mean_interval([1.0, math.nan, 1.0]) == bootstrap.Interval(1.0, 1.0, 1.0, 2)


def test_one_graph_or_family_has_no_interval():
  expected = {"mean": 2.0, "low": None, "high": None, "n": 1}
  assert bootstrap.mean_interval([2.0]).as_dict() == expected
  assert bootstrap.mean_interval([math.nan, 2.0]).as_dict() == expected
  assert bootstrap.mean_interval([1.0, 3.0], ["a", "a"]).as_dict() == {**expected, "n": 2}
  assert bootstrap.mean_interval([1.0, 3.0], ["a", "b"]).low == 1.0


@pytest.mark.parametrize("values,clusters", [
    ([], None), ([math.nan], None), ([math.inf], None), ([[1.0]], None), ([1.0], ["a", "b"])])
def test_bad_values_are_a_data_error(values, clusters):
  with pytest.raises(errors.DataError):
    bootstrap.mean_interval(values, clusters)


def test_a_gain_is_positive_where_the_model_is_better():
  model, baseline = _frame([0.9, 0.8], [0.0, 0.1]), _frame([0.5, 0.2], [0.3, 0.2])
  tau = bootstrap.paired_difference([model], [baseline], "kendall_tau")
  assert tau.mean == pytest.approx((0.4 + 0.6) / 2) and tau.low > 0
  slowdown = bootstrap.paired_difference([model], [baseline], "top1_slowdown")
  assert slowdown.mean == pytest.approx((0.3 + 0.1) / 2)


def test_seeds_are_averaged_before_graphs_are_resampled():
  seeds = [_frame([0.0, 1.0]), _frame([1.0, 0.0])]
  result = bootstrap.paired_difference(seeds, [_frame([0.0, 0.0])], "kendall_tau")
  assert (result.mean, result.low, result.high, result.n) == (0.5, 0.5, 0.5, 2)


def test_graphs_are_paired_by_name():
  model = _frame([0.9, 0.1], names=["a", "b"], families=["x", "y"])
  baseline = _frame([0.0, 0.8], names=["b", "a"], families=["y", "x"])
  result = bootstrap.paired_difference([model], [baseline], "kendall_tau", by_family=True)
  assert result.mean == pytest.approx(0.1) and result.high == pytest.approx(0.1)
  other = _frame([0.0, 0.8], names=["b", "c"])
  with pytest.raises(errors.DataError, match="different graphs"):
    bootstrap.paired_difference([model], [other], "kendall_tau")
  with pytest.raises(errors.DataError, match="different graphs"):
    bootstrap.seed_mean([model, other], "kendall_tau")
  with pytest.raises(errors.DataError, match="no frame"):
    bootstrap.seed_mean([], "kendall_tau")


def test_a_model_against_all_others():
  frames = {"model": [_frame([0.9, 0.7])], "a": [_frame([0.1, 0.1])], "b": [_frame([0.9, 0.9])]}
  result = bootstrap.paired_differences(frames, "model")
  assert list(result) == ["a", "b"] and list(result["a"]) == ["kendall_tau", "top1_slowdown"]
  assert result["a"]["kendall_tau"].mean == pytest.approx(0.7)
  assert result["b"]["kendall_tau"].mean == pytest.approx(-0.1)
  assert list(bootstrap.paired_differences(frames, "model", ["b"], ["kendall_tau"])) == ["b"]
