"""Means over graphs, groups and programs, and the measures of the surrogate regression."""

import math

import numpy as np
import pytest
import scipy.stats

from tpugraphs_rank import errors
from tpugraphs_rank import metrics


def test_means_skip_and_count_what_is_undefined():
  assert metrics.mean_over_graphs([0.5, math.nan, 1.0]) == (0.75, 2, 1)
  assert metrics.mean_over_graphs([0.5, math.nan, 1.0], [3, 0, 1]) == ((3 * 0.5 + 1.0) / 4, 2, 1)
  for values in ([], [math.nan]):
    result = metrics.mean_over_graphs(values)
    assert math.isnan(result.mean) and result.graphs == 0 and result.skipped == len(values)


def test_the_weighted_mean_of_opa_is_the_share_of_correct_pairs():
  first, second = ([1.0, 2.0], [1.0, 2.0]), ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])
  values = [metrics.opa(*graph) for graph in (first, second)]
  assert metrics.mean_over_graphs(values).mean == (0 + 1) / 2
  weights = [metrics.opa_pairs(graph[0]) for graph in (first, second)]
  assert metrics.mean_over_graphs(values, weights).mean == 3 / (1 + 3)


def test_means_by_group():
  result = metrics.mean_by_group([0.0, 1.0, 0.5], ["b", "a", "b"], [1, 1, 3])
  assert list(result) == ["a", "b"]
  assert result["a"] == (1.0, 1, 0) and result["b"] == (1.5 / 4, 2, 0)
  assert metrics.mean_by_group([], []) == {}


def test_means_over_programs():
  assert metrics.program_of("resnet_v1_50_batch_128_6e7a") == "resnet_v1_50_batch_128"
  assert metrics.program_of("plain") == "plain"
  assert metrics.mean_over_programs([0.0, 1.0, 1.0], ["a_b_1", "a_b_2", "a_c_1"]) == (0.5 + 1) / 2


@pytest.mark.parametrize("values,weights", [
    ([1.0, 2.0], [1.0]), ([[1.0]], None), ([math.inf], None), ([1.0], [-1.0]), ([1.0], [math.nan])])
def test_bad_aggregates_are_a_data_error(values, weights):
  with pytest.raises(errors.DataError):
    metrics.mean_over_graphs(values, weights)


def test_groups_must_match_the_values():
  with pytest.raises(errors.DataError, match="2 values, 1 groups"):
    metrics.mean_by_group([1.0, 2.0], ["a"])


def test_regression_measures_are_their_formulas():
  labels, predictions = np.array([1.0, 2.0, 4.0, 4.0]), np.array([2.0, 1.0, 5.0, 9.0])
  x, y = labels - labels.mean(), predictions - predictions.mean()
  assert metrics.pearson(labels, predictions) == pytest.approx(
      (x * y).sum() / math.sqrt((x**2).sum() * (y**2).sum()))
  assert metrics.spearman(labels, predictions) == pytest.approx(
      scipy.stats.spearmanr(labels, predictions).statistic)
  assert metrics.mean_absolute_error(labels, predictions) == (1 + 1 + 1 + 5) / 4


def test_regression_edge_cases():
  assert math.isnan(metrics.pearson([1.0, 1.0], [1.0, 2.0]))
  assert math.isnan(metrics.spearman([1.0, 2.0], [0.1, 0.1]))
  assert metrics.pearson([0.0, 1e200], [0.0, 1e-200]) == 1.0
  for bad in ([1.0], [1.0, math.nan], [[1.0, 2.0]]):
    with pytest.raises(errors.DataError):
      metrics.pearson([1.0, 2.0], bad)
