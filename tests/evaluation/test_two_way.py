"""Two-way intervals against brute force, theory and simulation."""

import itertools

import numpy as np
import pandas as pd
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.evaluation import two_way


def _brute_force(values, families, subsets):
  """All resampled means of a tiny case, each as often as it is drawn."""
  names, columns = sorted(set(families)), sorted(set(subsets))
  means = []
  for rows in itertools.product(names, repeat=len(names)):
    for drawn in itertools.product(columns, repeat=len(columns)):
      weights = np.array([rows.count(f) * drawn.count(s) for f, s in zip(families, subsets)])
      if weights.sum():
        means.append((weights * values).sum() / weights.sum())
  return np.array(means)


def _cdf(means, point):
  return np.mean(means <= point + 1e-9), np.mean(means < point - 1e-9)


@pytest.mark.parametrize("families, subsets", [
    (["a", "a", "b", "b", "c", "c"], [0, 1, 0, 1, 0, 1]),
    (["a", "a", "a", "b", "b", "c"], [0, 0, 1, 1, 2, 2]),  # Unequal sizes, and cells without value.
    (["a", "b", "c", "d", "d", "d"], [0, 0, 0, 0, 0, 0]),
    (["a", "a", "a", "a", "a", "a"], [0, 0, 1, 1, 2, 2])])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_an_interval_is_that_of_all_resamples(families, subsets, level):
  values = np.array([0.3, -1.2, 0.9, 2.0, -0.4, 0.75])
  means = _brute_force(values, families, subsets)
  result = two_way.mean_interval(values, families, subsets, level, resamples=20_000)
  assert result.mean == pytest.approx(values.mean()) and result.n == 6
  for point, share in ((result.low, (1 - level) / 2), (result.high, (1 + level) / 2)):
    up_to, below = _cdf(means, point)
    assert below - 0.015 <= share <= up_to + 0.015


def test_zero_differences_give_a_zero_interval():
  result = two_way.mean_interval(np.zeros(12), list("aabbccddeeff"), [0, 1] * 6)
  assert (result.mean, result.low, result.high) == (0.0, 0.0, 0.0)


def test_it_is_wider_than_either_one_way_interval_and_is_reproducible():
  rng = np.random.default_rng(1)
  families, subsets = (grid.reshape(-1) for grid in np.meshgrid(range(10), range(8)))
  values = rng.normal(size=10)[families] + rng.normal(size=8)[subsets]
  width = lambda result: result.high - result.low
  both = two_way.mean_interval(values, families, subsets)
  assert two_way.mean_interval(values, families, subsets) == both
  assert two_way.mean_interval(values, families, subsets, seed=1) != both
  for one in (two_way.mean_interval(values, families, np.zeros(80)),
              two_way.mean_interval(values, np.zeros(80), subsets)):
    assert width(both) > width(one)
  corrected = two_way.mean_interval(values, families, subsets, two_way.corrected_level(20))
  assert corrected.low < both.low < both.high < corrected.high


def test_blocks_change_little(monkeypatch):
  values = np.random.default_rng(1).normal(size=30)
  families, subsets = np.repeat(range(10), 3), np.tile(range(3), 10)
  whole = two_way.mean_interval(values, families, subsets, resamples=5000)
  monkeypatch.setattr(two_way, "_BLOCK", 70)
  parts = two_way.mean_interval(values, families, subsets, resamples=5000)
  assert parts.low == pytest.approx(whole.low, abs=0.05)
  assert parts.high == pytest.approx(whole.high, abs=0.05)


def test_intervals_have_at_least_their_nominal_coverage():
  """Families, subsets and their interaction each add an error; the truth is 0."""
  rng = np.random.default_rng(0)
  families, subsets = (grid.reshape(-1) for grid in np.meshgrid(range(25), range(12)))
  two_ways = one_way = 0
  for trial in range(200):
    values = (rng.normal(0, 1, 25)[families] + rng.normal(0, 1, 12)[subsets]
              + rng.normal(0, 1, families.size))
    result = two_way.mean_interval(values, families, subsets, 0.9, 400, seed=trial)
    two_ways += result.low <= 0 <= result.high
    plain = two_way.mean_interval(values, np.arange(values.size), np.zeros(values.size), 0.9, 400)
    one_way += plain.low <= 0 <= plain.high
  assert 0.83 <= two_ways / 200 <= 0.97
  assert one_way / 200 < 0.5  # Programs are not independent: a plain interval claims too much.


def test_the_corrected_level():
  assert two_way.corrected_level(1) == 0.95
  assert two_way.corrected_level(20) == pytest.approx(1 - 0.05 / 20)
  with pytest.raises(errors.ConfigError, match="0 comparisons"):
    two_way.corrected_level(0)


def test_nan_is_skipped_and_bad_input_is_refused():
  result = two_way.mean_interval([1.0, np.nan, 3.0], ["a", "b", "c"], [0, 0, 1])
  assert result.n == 2 and result.mean == 2.0
  for values, message in (([np.nan], "at least one value"), ([np.inf], "finite")):
    with pytest.raises(errors.DataError, match=message):
      two_way.mean_interval(values, ["a"], [0])
  with pytest.raises(errors.DataError, match=r"expected \(n,\) each"):
    two_way.mean_interval([1.0, 2.0], ["a"], [0, 1])


# ---- pairing -------------------------------------------------------------------------------------


def _frame(taus, slowdowns, subsets, graphs=("g0", "g1")):
  rows = [(graph, f"f{graph}", subset) for subset in subsets for graph in graphs]
  return pd.DataFrame(rows, columns=["graph", "family", "subset"]).assign(
      kendall_tau=taus, top1_slowdown=slowdowns)


def test_gains_are_paired_by_program_and_subset():
  ours = _frame([0.5, 0.6, 0.7, 0.9], [0.1, 0.2, 0.3, 0.4], [0, 1])
  theirs = _frame([0.1, 0.2, 0.4, 0.3, 9.0, 9.0], [0.3, 0.3, 0.1, 0.2, 9.0, 9.0], [1, 0, 2])
  theirs = theirs.sample(frac=1, random_state=0)  # In any order.
  gains = two_way.paired_gains(ours, theirs, "kendall_tau").set_index(["subset", "graph"])["gain"]
  assert gains.to_dict() == pytest.approx(
      {(0, "g0"): 0.1, (0, "g1"): 0.3, (1, "g0"): 0.6, (1, "g1"): 0.7})
  slower = two_way.paired_gains(ours, theirs, "top1_slowdown")
  assert slower["gain"].tolist() == pytest.approx([0.0, 0.0, 0.0, -0.1])
  result, subsets = two_way.paired_interval(ours, theirs, "kendall_tau", resamples=100)
  assert result.mean == pytest.approx(1.7 / 4) and subsets == 2


def test_what_cannot_be_paired():
  frame = _frame([0.1, 0.2], [0.0, 0.0], [0])
  with pytest.raises(errors.DataError, match="no subset in common"):
    two_way.paired_gains(frame, frame.assign(subset=1), "kendall_tau")
  with pytest.raises(errors.DataError, match="different programs: 2 and 1 over 1 subsets"):
    two_way.paired_gains(frame, frame[:1], "kendall_tau")
  with pytest.raises(errors.DataError, match="g0 occurs twice in subset 0"):
    two_way.paired_gains(pd.concat([frame, frame[:1]]), frame, "kendall_tau")
