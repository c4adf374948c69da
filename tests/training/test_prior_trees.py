"""The boosted trees of a prior."""

import numpy as np

from tests import synthetic
from tpugraphs_rank import metrics
from tpugraphs_rank.costs import targets
from tpugraphs_rank.costs import tile_cost
from tpugraphs_rank.costs import tile_relative
from tpugraphs_rank.training import prior_trees


def test_targets_are_places():
  # Places 4, 1.5, 1.5, 3 of the slowest first: fast ones have high targets.
  places = prior_trees.places(np.array([1.0, 9.0, 9.0, 3.0]))
  expected = np.array([4, 1.5, 1.5, 3]) - 2.5
  np.testing.assert_allclose(places, expected / expected.std())
  np.testing.assert_array_equal(prior_trees.places(np.ones(3)), 0)


def test_scores_never_rise_with_a_term():
  rng = np.random.default_rng(0)
  chosen = [synthetic.tile_graph(seed, num_configs=20) for seed in range(30)]
  features = [prior_trees.rows_of(graph, targets.CPU) for graph in chosen]
  # Fast is what costs little; the noise would make free trees rise here and there.
  cost = 2 * len(tile_cost.TERMS)
  runtimes = [np.exp(rows[:, cost] + rng.normal(size=20)) for rows in features]
  fitted = prior_trees.fit(features, runtimes, 0)
  taus = [metrics.kendall_tau(time, fitted.scores(rows)) for time, rows in zip(runtimes, features)]
  assert np.mean(taus) > 0.4
  rows = np.concatenate(features)
  for column in (*range(len(tile_cost.TERMS)), cost, cost + 1):
    more = rows.copy()
    more[:, column] += rng.uniform(0.1, 4, len(rows)).astype(np.float32)
    assert (fitted.scores(more) <= fitted.scores(rows) + 1e-9).all()


def test_each_kind_of_kernel_has_trees_of_its_own():
  rng = np.random.default_rng(0)
  cost = 2 * len(tile_cost.TERMS)
  length = cost + 5 + 2  # Of the sum that a step adds up.

  def kernel(kind):
    rows = np.zeros([20, tile_relative.WIDTH], np.float32)
    rows[:, tile_relative.KIND] = kind
    rows[:, length] = rng.permutation(20)
    return rows

  # Long loops make one kind fast, and the other slow.
  sign = {tile_relative.FLOAT_SUM: -1, tile_relative.INTEGER_SUM: 1}
  kinds = [kind for kind in sign for _ in range(prior_trees.LEAST_OF_A_KIND)]
  features = [kernel(kind) for kind in kinds]
  runtimes = [np.exp(sign[kind] * rows[:, length] / 10) for kind, rows in zip(kinds, features)]
  fitted = prior_trees.fit(features, runtimes, 0)
  for kind in sign:
    rows = kernel(kind)
    runtime = np.exp(sign[kind] * rows[:, length] / 10)
    assert metrics.kendall_tau(runtime, fitted.scores(rows)) > 0.8
