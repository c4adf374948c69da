"""Critics: which of several generated graphs is selected, and errors."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from tests.synthesis import small_dags
from tests.synthesis.judging import test_surrogate
from tests.synthesis.layerdag import test_growth
from tests.synthesis.layerdag import test_model
from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.layerdag import critic as critic_lib
from tpugraphs_rank.synthesis.layerdag import sampler


class _FixedPredictions:
  """A surrogate with given predictions."""

  def __init__(self, labels):
    self._labels = np.asarray(labels, np.float64)

  def predict(self, graphs):
    return self._labels[:len(graphs)]


def test_the_nearest_graph_in_ranks_is_selected_from_each_group():
  graphs = small_dags.graphs(6)
  requested = np.array([1.0, 1.0, 1.0, 100.0, 100.0, 100.0])
  graphs = graphs.with_labels(requested, ["runtime"])
  # Predictions are averaged over the members: 3, 1.5, 60; 2, 4, 3.
  critic = critic_lib.Critic(
      [_FixedPredictions([2.0, 1.0, 60.0, 2.0, 5.0, 3.0]),
       _FixedPredictions([4.0, 2.0, 60.0, 2.0, 3.0, 3.0])],
      "runtime", np.array([1.0, 2.0, 3.0, 4.0, 100.0]), tries=3)
  # In ranks 100 is one step from 4, though 60 is nearer to 100 than to 1.
  rank = {1.0: 0.1, 2.0: 0.3, 3.0: 0.5, 4.0: 0.7, 100.0: 0.9}
  middle = 0.7 + 0.2 * (60 - 4) / 96
  np.testing.assert_allclose(critic.label_errors(graphs), [
      rank[3.0] - 0.1, 0.2 - 0.1, middle - 0.1, 0.9 - rank[2.0], 0.9 - rank[4.0],
      0.9 - rank[3.0]], atol=1e-12)
  assert critic.select(graphs).tolist() == [1, 4]
  with pytest.raises(errors.DataError, match="5 graphs; expected groups of 3"):
    critic.select(graphs.take(range(5)))


def test_equal_labels_share_a_rank():
  critic = critic_lib.Critic([], "runtime", np.array([1.0, 1.0, 1.0, 5.0]))
  np.testing.assert_allclose(critic._rank(np.array([0.0, 1.0, 5.0, 9.0])),
                             [0.375, 0.375, 0.875, 0.875])


@pytest.mark.slow
def test_a_trained_critic_is_accurate_and_reproducible():
  graphs = small_dags.graphs(120, 0)
  one, same = (critic_lib.Critic.fit(graphs, "runtime", 2, options=test_surrogate.SMALL)
               for _ in range(2))
  requested = small_dags.graphs(40, 5)
  np.testing.assert_array_equal(one.label_errors(requested), same.label_errors(requested))
  # Errors are smaller for the true labels than for permuted ones.
  turned = requested.with_labels(np.roll(requested.label(), 1), ["runtime"])
  assert one.label_errors(requested).mean() < 0.5 * one.label_errors(turned).mean()


def test_selected_graphs_match_the_requested_labels():
  model, dags = test_model.untrained()
  options = sampler.Options(max_nodes=400, max_layers=60)

  class _BySize(_FixedPredictions):

    def predict(self, graphs):
      return graphs.sizes / 100.0

  runtimes = np.linspace(0.0, 1.0, 6)
  known = np.sort(dags.label("runtime"))
  plain = model.sample(6, {"runtime": runtimes}, options=options)
  chosen = model.sample(6, {"runtime": runtimes}, options=options, critic=critic_lib.Critic(
      [_BySize([])], "runtime", known, tries=4))
  assert len(chosen) == 6 and chosen.provenance["tries"] == 4
  np.testing.assert_array_equal(chosen.y, plain.y)
  every = model.sample(24, {name: np.repeat(plain.label(name), 4) for name in plain.y_names},
                       options=options)
  misses = critic_lib.Critic([_BySize([])], "runtime", known).label_errors
  best = misses(every).reshape(6, 4).argmin(axis=1) + 4 * np.arange(6)
  np.testing.assert_array_equal(chosen.hashes(), every.hashes()[best])


def test_errors():
  graphs = test_growth.make(1)
  with pytest.raises(errors.ConfigError, match="0 surrogates that chooses among 2 graphs"):
    critic_lib.Critic.fit(graphs, "runtime", 0)
  model, _ = test_model.untrained(data__conditions=("size",))
  with pytest.raises(errors.ConfigError, match="predicts 'runtime'; .* conditions: size"):
    model.sample(2, critic=critic_lib.Critic([], "runtime", np.ones([3])))
