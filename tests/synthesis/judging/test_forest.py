"""The random forest, a judge that is unrelated to the critic."""

import numpy as np
import pytest

from tests.synthesis import small_dags
from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.synthesis.judging import forest as forest_lib


def test_it_learns_labels_that_depend_on_counts():
  graphs, valid, test = (small_dags.graphs(count, seed) for count, seed in (
      (200, 0), (30, 1), (60, 2)))
  forest = forest_lib.train(graphs, valid, 0, "runtime")
  predicted = forest.predict(test)
  assert predicted.shape == (60,) and metrics.pearson(test.label(), predicted) > 0.7
  assert metrics.mean_absolute_error(test.label(), predicted) < test.label().std()
  # The same seed gives the same forest, whatever the validation graphs are.
  same = forest_lib.train(graphs, valid.take([]), 0)
  np.testing.assert_array_equal(same.predict(test), predicted)
  assert (forest_lib.train(graphs, valid, 1).predict(test) != predicted).any()
  assert forest.details == {}


def test_predictions_do_not_depend_on_other_graphs():
  forest = forest_lib.train(small_dags.graphs(40, 0), small_dags.graphs(5, 1), 0)
  test = small_dags.graphs(20, 2)
  order = np.random.default_rng(0).permutation(20)[:7]
  np.testing.assert_allclose(forest.predict(test.take(order)), forest.predict(test)[order])


def test_errors():
  graphs = small_dags.graphs(10, 0)
  with pytest.raises(errors.DataError, match="no label 'cost'"):
    forest_lib.train(graphs, graphs, 0, "cost")
  with pytest.raises(errors.DataError, match="a forest has no training graphs"):
    forest_lib.train(graphs.take([]), graphs, 0)
