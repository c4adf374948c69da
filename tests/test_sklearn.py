"""The scikit-learn style ranker: parameters, fit on a list of graphs, predict, save and load."""

import numpy as np
import pytest
import sklearn.base

from tests import synthetic
from tests.training import small_runs
from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank import sklearn as sklearn_lib
from tpugraphs_rank.sklearn import Ranker

SETTINGS = {name.rpartition(".")[2]: value for name, value in small_runs.TINY.items()}
GRAPHS = [synthetic.tile_graph(seed, num_configs=6, name="one name") for seed in range(5)]


@pytest.fixture(scope="module")
def fitted():
  return Ranker(**{**SETTINGS, "epochs": 1}).fit(GRAPHS[1:], GRAPHS[:1])


def test_fit_predict_rank_and_score(fitted):
  scores = fitted.predict(GRAPHS[0])
  assert scores.shape == (6,) and np.isfinite(scores).all()
  np.testing.assert_array_equal(fitted.rank(GRAPHS[0], 2), metrics.ranking(scores)[:2])
  assert -1 <= fitted.score(GRAPHS) <= 1
  other = synthetic.tile_graph(9, num_configs=4)
  np.testing.assert_array_equal(
      fitted.predict(GRAPHS[0], other.config_feat).shape, (other.num_configs,))


def test_saved_and_loaded(fitted, tmp_path):
  fitted.save(tmp_path / "run")
  loaded = Ranker.load(tmp_path / "run")
  np.testing.assert_array_equal(loaded.predict(GRAPHS[1]), fitted.predict(GRAPHS[1]))
  with pytest.raises(errors.OutputError, match="choose a new folder"):
    fitted.save(tmp_path / "run")


def test_a_fifth_of_the_graphs_validates_by_default():
  train, valid = sklearn_lib._divide(GRAPHS, None, seed=3)
  again = sklearn_lib._divide(GRAPHS, None, seed=3)
  assert (len(train), len(valid)) == (4, 1) and again == (train, valid)
  assert {id(graph) for graph in (*train, *valid)} == {id(graph) for graph in GRAPHS}


def test_parameters():
  ranker = Ranker(config="tile_xla_cpu", epochs=3)
  assert ranker.get_params() == {"config": "tile_xla_cpu", "epochs": 3}
  assert ranker.set_params(seed=2) is ranker and ranker.get_params()["seed"] == 2
  assert repr(ranker) == "Ranker(config='tile_xla_cpu', epochs=3, seed=2)"
  clone = sklearn.base.clone(ranker)
  assert clone is not ranker and clone.get_params() == ranker.get_params()


@pytest.mark.parametrize("graphs, error, message", [
    (GRAPHS[:1], errors.DataError, "0 training and 1 validation graphs"),
    ([GRAPHS[0], synthetic.layout_graph(1)], errors.DataError, "of the kinds layout, tile"),
    (GRAPHS[0], errors.DataError, "expected a list of graphs, not TileGraph"),
    ("tile:xla_cpu", errors.DataError, "expected a list of graphs, not str"),
    (["a.npz"], errors.DataError, "expected a list of graphs, not list"),
])
def test_graphs_that_cannot_be_fitted(graphs, error, message):
  with pytest.raises(error, match=message):
    Ranker().fit(graphs)


def test_before_fit_and_with_wrong_settings():
  with pytest.raises(errors.RunDirectoryError, match="is not fitted"):
    Ranker().predict(GRAPHS[0])
  with pytest.raises(errors.ConfigError, match="did you mean 'epochs'"):
    Ranker(epoch=1).fit(GRAPHS)
