"""Gains in Pearson's correlation and mean absolute error, compared with a plain bootstrap."""

import numpy as np
import pytest

from experiments import label_gains
from tpugraphs_rank import errors
from tpugraphs_rank import metrics

FAMILIES = ["a", "a", "b", "c", "c", "c", "d", "e"]


def _predictions(noise, seeds=3, seed=0):
  rng = np.random.default_rng(seed)
  y = np.arange(8.0) ** 1.5
  return y, y + noise * rng.normal(size=[seeds, 8])


def test_the_mean_is_that_of_paired_differences():
  y, ours = _predictions(0.5)
  _, theirs = _predictions(4.0, seed=1)
  actual = label_gains.gains(y, ours, theirs, FAMILIES, resamples=200)
  assert actual["pearson"].mean == pytest.approx(np.mean(
      [metrics.pearson(y, one) - metrics.pearson(y, other) for one, other in zip(ours, theirs)]))
  assert actual["mae"].mean == pytest.approx(np.mean(
      [metrics.mean_absolute_error(y, other) - metrics.mean_absolute_error(y, one)
       for one, other in zip(ours, theirs)]))
  assert actual["mae"].low > 0 and actual["mae"].n == 8
  back = label_gains.gains(y, theirs, ours, FAMILIES, resamples=200)
  assert back["mae"].mean == pytest.approx(-actual["mae"].mean)
  assert back["pearson"].low == pytest.approx(-actual["pearson"].high)


def test_the_interval_equals_that_of_explicit_resampling():
  y, ours = _predictions(2.0)
  _, theirs = _predictions(3.0, seed=1)
  actual = label_gains.gains(y, ours, theirs, FAMILIES, level=0.8, resamples=2000)
  rng = np.random.default_rng(5)
  names, drawn = sorted(set(FAMILIES)), {"pearson": [], "mae": []}
  for _ in range(2000):
    rows = np.concatenate([np.flatnonzero(np.array(FAMILIES) == name)
                           for name in rng.choice(names, len(names))])
    if len(set(rows.tolist())) < 2:
      continue
    seeds = rng.integers(3, size=3)
    each = lambda measure: np.mean([
        measure(y[rows], ours[seed][rows]) - measure(y[rows], theirs[seed][rows])
        for seed in seeds])
    drawn["pearson"].append(each(metrics.pearson))
    drawn["mae"].append(-each(metrics.mean_absolute_error))
  for name, values in drawn.items():
    low, high = np.quantile(values, [0.1, 0.9])
    tolerance = 0.1 * (high - low)
    assert actual[name].low == pytest.approx(low, abs=tolerance), name
    assert actual[name].high == pytest.approx(high, abs=tolerance), name


def test_constant_predictions_have_no_correlation():
  y, ours = _predictions(0.1)
  actual = label_gains.gains(y, ours, np.full([3, 8], 7.0), FAMILIES, resamples=50)
  assert actual["pearson"].mean == pytest.approx(
      np.mean([metrics.pearson(y, one) for one in ours]))


@pytest.mark.parametrize("labels, ours, text", [
    (np.zeros(3), np.zeros([2, 4]), r"predictions \(2, 4\)"),
    (np.zeros(2), np.array([[0.0, np.nan]]), "not finite"),
    (np.zeros(0), np.zeros([2, 0]), "one seed and one graph"),
    (np.zeros(2), np.zeros([0, 2]), "one seed and")])
def test_errors(labels, ours, text):
  with pytest.raises(errors.DataError, match=text):
    label_gains.gains(labels, ours, ours, ["a"] * len(labels))
