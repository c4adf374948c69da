"""Boosted trees that score together with a run's networks."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from tests.training import small_runs
import tpugraphs_rank as tgr
from tpugraphs_rank import errors
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import lambdarank
from tpugraphs_rank.evaluation import tree_features
from tpugraphs_rank.evaluation import trees
from tpugraphs_rank.training import run as run_lib
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import trainer
from tpugraphs_rank.training import training_data
from tpugraphs_rank.training import tree_member

WEIGHT = 0.5


@pytest.fixture(scope="module", name="trained", params=[
    "tile", pytest.param("layout", marks=pytest.mark.slow)])
def _trained(request, tmp_path_factory):
  """A run of networks and trees: its configuration and directory."""
  folder = tmp_path_factory.mktemp(request.param)
  config = small_runs.settings(
      small_runs.collection(folder / "data", request.param), training_epochs=1, model_members=2,
      model_trees_weight=WEIGHT, model_trees_objectives=("regression", "lambdarank"))
  with pytest.MonkeyPatch.context() as patch:
    _small_grids(patch)
    trainer.Trainer(config).train(folder / "run")
  return config, folder / "run"


def _small_grids(patch):
  patch.setattr(trees, "GRID", (trees.Settings(iterations=25, min_samples_leaf=2),))
  patch.setattr(lambdarank, "GRID", (lambdarank.Settings(iterations=25, min_data_in_leaf=2),))


def _graphs(config):
  return tgr.load_collection(config.data.collection, "test")


def test_the_scores_add_trees_to_networks(trained):
  config, path = trained
  run = run_lib.load_run(path)
  networks = run_lib.Run(run_directory.RunDirectory(path), networks_only=True)
  factor = run.trees.network_deviation / run.trees.tree_deviation
  for graph in _graphs(config):
    own = run.trees.scores(graph)
    assert own.shape == (graph.num_configs,) and np.ptp(own) > 0
    np.testing.assert_allclose(run.score(graph), networks.score(graph) + WEIGHT * own, atol=1e-5)
    assert (run.trees.scores(graph, np.array([2, 0])).shape == (2,))
    assert np.isfinite(factor) and factor > 0


def test_the_deviations_are_equal_on_the_training_programs(trained):
  config, path = trained
  run = run_lib.load_run(path)
  networks = run_lib.Run(run_directory.RunDirectory(path), networks_only=True)
  training = tgr.load_collection(config.data.collection, "train")
  deviation = lambda score: np.mean([np.std(score(graph)) for graph in training])
  assert deviation(networks.score) == pytest.approx(run.trees.network_deviation, rel=1e-4)
  assert deviation(run.trees.scores) == pytest.approx(run.trees.network_deviation, rel=1e-4)


def test_the_trees_of_both_objectives_have_the_same_unit(trained, monkeypatch):
  config, _ = trained
  _small_grids(monkeypatch)
  train, valid = (splits.load(config.data, split, 0).programs for split in ("train", "valid"))
  fit = lambda *objectives: tree_member.fit(
      train, valid, [np.array([0.0, 2.0])], 1.0, objectives, train[0].facts, 0)
  regression, order, both = fit("regression"), fit("lambdarank"), fit("regression", "lambdarank")
  for program in valid:
    features = tree_features.features(program.graph, program.indices, program.facts)
    np.testing.assert_allclose(
        both.arrays.scores(features),
        (regression.arrays.scores(features) / regression.tree_deviation
         + order.arrays.scores(features) / order.tree_deviation) / 2, atol=1e-9)


def test_trees_that_score_all_alike_are_left_out(trained, monkeypatch, caplog):
  config, path = trained
  programs = splits.load(config.data, "valid", 0).programs
  good = tree_member.read(run_directory.RunDirectory(path)).arrays
  constant = good._replace(value=np.zeros_like(good.value), baseline=-0.37)
  monkeypatch.setattr(tree_member, "_fit", lambda train, valid, objective, *_: (
      constant if objective == "lambdarank" else good))
  member = tree_member.fit(programs, programs, [np.array([0.0, 2.0])], 1.0,
                           ("lambdarank", "regression"), programs[0].facts, 0)
  assert member.arrays is good and "trees of lambdarank score all" in caplog.text


@pytest.mark.parametrize("objectives", [(), ("lambdarank", "lambdarank")])
def test_objectives_that_no_trees_have(trained, objectives):
  config = dataclasses.replace(trained[0], model=dataclasses.replace(
      trained[0].model, trees_objectives=objectives))
  with pytest.raises(errors.ConfigError, match=(
      "^model.trees_objectives is .*; expected one or more of: regression, lambdarank, each once")):
    training_data.check(config)


def test_the_calibration_includes_the_trees(trained):
  config, path = trained
  run = run_lib.load_run(path, prior="none")
  taus = [tgr.kendall_tau(graph.config_runtime, run.score(graph))
          for graph in tgr.load_collection(config.data.collection, "valid")]
  assert run.evidence.of("all").kendall_tau == pytest.approx(np.mean(taus), abs=1e-6)


def test_the_trees_are_the_last_member(trained):
  config, path = trained
  run = run_lib.load_run(path)
  for graph, scores, members in run.score_each_with_members(_graphs(config)):
    assert members.shape == (3, graph.num_configs)
    np.testing.assert_allclose(members[2], run.trees.scores(graph), atol=1e-6)
    np.testing.assert_allclose(scores, members[:2].mean(axis=0) + WEIGHT * members[2], atol=1e-5)
    np.testing.assert_allclose(scores, run.score(graph), atol=1e-5)


@pytest.mark.slow
def test_an_interrupted_fit_is_repeated_with_the_same_result(
    trained, tmp_path, monkeypatch, caplog):
  config, path = trained
  copy = tmp_path / "run"
  shutil.copytree(path, copy)
  (copy / tree_member.FILE).unlink()  # It is written last.
  assert run_lib.load_run(copy).trees is None
  assert "has no trees.json, so it scores without the boosted trees" in caplog.text
  _small_grids(monkeypatch)
  trainer.Trainer(config).train(copy)
  for graph in _graphs(config):
    np.testing.assert_allclose(run_lib.load_run(copy).score(graph),
                               run_lib.load_run(path).score(graph), atol=1e-6)


def test_a_run_scores_with_the_features_that_its_trees_know(trained, tmp_path):
  config, path = trained
  stored = json.loads((path / tree_member.FILE).read_text())
  assert stored["features"] == tree_features.VERSION
  graph = _graphs(config)[0]
  scores = run_lib.load_run(path).trees.scores(graph)
  # Trees that split on the cost of a tile need it; files of earlier versions name no version.
  shutil.copytree(path, tmp_path / "run")
  del stored["features"]
  (tmp_path / "run" / tree_member.FILE).write_text(json.dumps(stored))
  older = run_lib.load_run(tmp_path / "run").trees
  assert older.version == tree_features.WITHOUT_TILE_COSTS
  if isinstance(graph, graphs.TileGraph):
    with pytest.raises(errors.DataError, match="another version of the package"):
      older.scores(graph)
    width = tree_features.features(graph, np.arange(2), version=1).shape[1]
    known = dataclasses.replace(older, arrays=older.arrays._replace(
        width=width, columns=np.minimum(older.arrays.columns, width - 1)))
    assert known.scores(graph).shape == scores.shape
  else:
    np.testing.assert_array_equal(older.scores(graph), scores)


def _changed(**changes):
  return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("damage", [
    _changed(features=3), _changed(weight=-1), _changed(weight=1e7), _changed(weight=True),
    _changed(network_deviation=0), _changed(network_deviation=1e10),
    _changed(tree_deviation=1e-7), _changed(tree_deviation=None),
    lambda path: path.write_text("[]"), lambda path: path.write_text("{}"),
    lambda path: path.with_name(tree_member.ARRAYS).unlink(),
    lambda path: path.with_name(tree_member.ARRAYS).write_bytes(b"no arrays")])
def test_damaged_files_are_refused(trained, tmp_path, damage):
  shutil.copytree(trained[1], tmp_path / "run")
  damage(tmp_path / "run" / tree_member.FILE)
  with pytest.raises(errors.RunDirectoryError, match="is damaged.*fits the trees again"):
    run_lib.load_run(tmp_path / "run")


def test_without_a_weight_there_are_no_trees(tiny_tile_run):
  assert run_lib.load_run(tiny_tile_run.path).trees is None
  assert not (tiny_tile_run.path / tree_member.FILE).exists()
