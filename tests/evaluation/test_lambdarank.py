"""Trees with the objective of LambdaMART."""

import importlib.metadata
import sys

import numpy as np
import pytest

from tests import synthetic
from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import baselines
from tpugraphs_rank.evaluation import fit_cache
from tpugraphs_rank.evaluation import lambdarank
from tpugraphs_rank.evaluation import tree_scores
from tpugraphs_rank.evaluation import trees

SMALL = lambdarank.Settings(iterations=15, learning_rate=0.3, num_leaves=8)


def _programs(seeds, **sizes):
  return [splits.ProgramView(synthetic.tile_graph(seed, **sizes)) for seed in seeds]


def test_relevances_are_shares_of_slower_configurations():
  # 3, 2, 0 and 0 of three others are slower.
  assert lambdarank.relevances(np.array([2.0, 5.0, 1.0, 5.0])).tolist() == [20, 0, 30, 0]
  assert lambdarank.relevances(np.array([7.0])).tolist() == [0]
  many = lambdarank.relevances(np.arange(1000.0))
  assert many.min() == 0 and many.max() == lambdarank.RELEVANCES - 1 and (np.diff(many) <= 0).all()


def test_lambdarank_ranks_unseen_programs():
  train, test = _programs(range(25), num_configs=16), _programs(range(100, 108), num_configs=16)
  table = trees.training_table(train, 0)
  assert table.sizes.tolist() == [16] * 25
  ranker = lambdarank.fit_table(table, SMALL, 0)
  scores = ranker.score(test)
  assert np.mean([metrics.kendall_tau(program.graph.relative_runtime, score)
                  for program, score in zip(test, scores)]) > 0.6
  for one, other in zip(scores, lambdarank.fit_table(table, SMALL, 0).score(test)):
    np.testing.assert_array_equal(one, other)
  stages = list(ranker.stages(trees.features_of(test, table.columns), 10))
  assert [count for count, _ in stages] == [10, 15]
  np.testing.assert_allclose(stages[-1][1], np.concatenate(scores))


def test_arrays_have_the_scores_of_the_trees():
  train, test = _programs(range(12), num_configs=16), _programs(range(100, 104), num_configs=16)
  table = trees.training_table(train, 0)
  features = trees.features_of(test)
  arrays = lambdarank.fit_arrays(table, SMALL, 0, features.shape[1])
  expected = np.concatenate(lambdarank.fit_table(table, SMALL, 0).score(test))
  assert np.ptp(expected) > 0
  np.testing.assert_allclose(arrays.scores(features), expected, rtol=0, atol=1e-12)


def test_scores_are_tuned_and_cached_under_the_name(monkeypatch, tmp_path):
  monkeypatch.setattr(lambdarank, "GRID", (SMALL,))
  monkeypatch.setenv(fit_cache.VARIABLE, str(tmp_path))
  train, valid, test = _programs(range(6)), _programs([10, 11]), _programs([20])
  arguments = (train, valid, test, [0], baselines.LAMBDARANK)
  (scores,), = tree_scores.scores(*arguments)
  assert scores.shape == (12,)
  assert [path.name for path in tmp_path.iterdir()] == ["lambdarank"]
  assert len(list((tmp_path / "lambdarank").glob("*.npz"))) == 3
  monkeypatch.setattr(lambdarank, "fit_table", None)  # Not called again.
  np.testing.assert_array_equal(tree_scores.scores(*arguments)[0][0], scores)


def test_without_lightgbm(monkeypatch):
  def missing(name):
    raise importlib.metadata.PackageNotFoundError(name)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(errors.ConfigError, match="not installed: pip install lightgbm"):
      tree_scores.method("lambdarank")

  class Finder:
    def find_spec(self, name, *_):
      if name == "lightgbm":
        raise OSError("libgomp.so.1: cannot open shared object file")

  monkeypatch.delitem(sys.modules, "lightgbm", raising=False)
  monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
  table = trees.training_table(_programs(range(3)), 0)
  with pytest.raises(errors.ConfigError, match="libgomp.*apt install libgomp1"):
    lambdarank.fit_table(table, SMALL, 0)
  with pytest.raises(errors.ConfigError, match="libgomp.*apt install libgomp1"):
    lambdarank.check()
