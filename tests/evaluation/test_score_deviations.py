"""The unit of scores of several rankers."""

import numpy as np
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.evaluation import score_deviations


def test_the_mean_is_that_of_the_programs():
  scores = [np.array([0.0, 2.0]), np.array([1.0, 1.0, 1.0]), np.array([0.0, 0.0, 3.0, 3.0])]
  assert score_deviations.mean(scores) == pytest.approx((1 + 0 + 1.5) / 3)


def test_constant_scores_have_a_deviation_that_can_be_divided_by():
  least = score_deviations.mean([np.ones(3)])
  assert least > 0 and score_deviations.is_constant(least) and score_deviations.is_valid(least)
  assert not score_deviations.is_constant(1e-3)


@pytest.mark.parametrize("scale", [1e12, 3e38, np.inf, np.nan])
def test_scores_that_have_diverged_are_an_error(scale):
  with pytest.raises(
      errors.TrainingError, match="expected at most 1e\\+09: the training has diverged"):
    score_deviations.mean([np.array([0.0, scale], np.float32)])


def test_scores_whose_squares_overflow_are_an_error():
  with pytest.raises(errors.TrainingError, match="deviate by inf"):
    score_deviations.mean([np.array([0.0, 1e200])])


@pytest.mark.parametrize("value", [0, -1, 1e-7, 1e10, float("inf"), float("nan")])
def test_what_cannot_be_a_deviation(value):
  assert not score_deviations.is_valid(value)
  with pytest.raises(errors.DataError, match="^unit is .*; expected a number from 1e-06"):
    score_deviations.check("unit", value)
