"""Rankers of other libraries, which are not installed for the tests of the project."""

import sys

import numpy as np
import pytest

from experiments import peers
from tests import synthetic
from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import trees

_SMALL = {peers.XGBOOST: peers.PairwiseSettings(30, 0.3, 8, 1.0),
          peers.CATBOOST: peers.YetiSettings(30, 0.3, 4, 1.0)}


def _programs(seeds):
  return [splits.ProgramView(synthetic.tile_graph(seed, num_configs=16)) for seed in seeds]


@pytest.mark.parametrize("name", peers.NAMES)
def test_a_peer_ranks_unseen_programs(name):
  pytest.importorskip(name.partition("_")[0], reason="the peer's library is not installed")
  table = trees.training_table(_programs(range(25)), 0)
  ranker = peers.method(name).fit(table, _SMALL[name], 0)
  test = _programs(range(100, 108))
  scores = ranker.score(test)
  assert np.mean([metrics.kendall_tau(program.graph.relative_runtime, score)
                  for program, score in zip(test, scores)]) > 0.5
  stages = list(ranker.stages(_rows(test, table), 20))
  assert [count for count, _ in stages] == [20, 30]
  # The trees are the same, so sums of stages differ from the scores by a constant at most.
  np.testing.assert_allclose(np.ptp(stages[-1][1] - np.concatenate(scores)), 0, atol=1e-5)


def _rows(programs, table):
  """The rows that a ranker gets for programs."""
  return trees.features_of(programs, table.columns)


def test_a_missing_library_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "catboost", None)
  with pytest.raises(errors.ConfigError, match="needs catboost.*pip install catboost"):
    peers.method(peers.CATBOOST)
  with pytest.raises(errors.UnknownNameError, match="no peer 'x'; expected some of: xgboost"):
    peers.method("x")
