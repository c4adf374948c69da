"""The classifier two-sample test."""

import numpy as np
import pytest

from tests.synthesis import small_dags
from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.judging import two_sample


def test_equal_distributions_are_indistinguishable_and_others_are_not():
  one, same = small_dags.graphs(70, 0), small_dags.graphs(60, 1)
  result = two_sample.two_sample(one, same, seed=0)
  assert result["n"] == 60 and 0.3 < result["auc"] < 0.7 and 0.3 < result["accuracy"] < 0.7
  other = small_dags.graphs(60, 2, chance=0.0)
  result = two_sample.two_sample(one, other, seed=0)
  assert result["auc"] > 0.9 and result["accuracy"] > 0.8
  assert two_sample.two_sample(one, other, seed=0) == result


def test_recognizing_single_graphs_does_not_help():
  # Ten graphs in each sample, many times each: with twins on both sides of a fold, trees would
  # recognize every one of them.
  rng = np.random.default_rng(0)
  pool = small_dags.graphs(20, 0)
  first, second = (pool.take(rng.integers(0, 10, 60) + start) for start in (0, 10))
  assert two_sample.two_sample(first, second, seed=0)["auc"] < 0.8


def test_features_of_small_graphs():
  # A diamond and a chain of two.
  dags = dags_lib.canonical([
      (np.array([[0, 1], [0, 2], [1, 3], [2, 3]]), np.array([5, 7, 7, 5])),
      (np.array([[0, 1]]), np.array([5, 7]))])
  np.testing.assert_allclose(two_sample.features(dags), [
      [4, 3, 4 / 4, 4 / 3, 2, 1 / 3, 1 / 4, 6 / 4, 2, 1 / 4, 6 / 4, 2, 1 / 3, 1, 1 / 2, 1 / 2],
      [2, 2, 1 / 2, 2 / 2, 1, 0, 1 / 2, 1 / 2, 1, 0, 1 / 2, 1, 1 / 4, 1, 1 / 2, 1 / 2]])


def test_too_few_graphs():
  few = small_dags.graphs(4)
  with pytest.raises(errors.DataError, match="4 different graphs; expected at least 10"):
    two_sample.two_sample(few, few, 0)
