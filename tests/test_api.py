"""The Python API on tiny collections: train, evaluate, predict, rank, and short reprs."""

import numpy as np
import pandas as pd
import pytest

from tests.training import small_runs
import tpugraphs_rank as tgr
from tpugraphs_rank import api
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import metrics
from tpugraphs_rank import recipes
from tpugraphs_rank import run_config
from tpugraphs_rank.training import run_directory

SETTINGS = {name.rpartition(".")[2]: value for name, value in small_runs.TINY.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp("api")
  descriptor = small_runs.collection(folder / "data")
  return descriptor, tgr.train(descriptor, folder / "run", **{**SETTINGS, "epochs": 2})


def test_train_returns_a_run_that_ranks(trained):
  descriptor, run = trained
  assert run.directory.read_status()["state"] == "finished"
  graph = tgr.load_collection(str(descriptor), "test")[0]
  scores = run.score(graph)
  assert scores.shape == (graph.num_configs,)
  np.testing.assert_array_equal(run.rank(graph, k=3), metrics.ranking(scores)[:3])
  assert list(run.history["epoch"]) == [1, 2]


def test_arguments_of_wrong_types_and_sizes(trained, tmp_path):
  descriptor, run = trained
  graph = tgr.load_collection(descriptor, "test")[0]
  for k in (0, 2.5, "3"):
    with pytest.raises(errors.ConfigError, match="expected a whole number from 1"):
      run.rank(graph, k)
  with pytest.raises(errors.DataError, match="list is no graph; expected one, such as"):
    run.score([graph])
  with pytest.raises(errors.ConfigError, match="configurations is 'best'; expected 'all'"):
    run.evaluate("test", "best")
  with pytest.raises(errors.UnknownNameError, match="no split None"):
    run.evaluate(None)


def test_a_finished_run_is_only_loaded(trained):
  descriptor, run = trained
  before = (run.directory / "checkpoints" / "latest.npz").read_bytes()
  again = tgr.train(str(descriptor), run.directory.path, **{**SETTINGS, "epochs": 2})
  assert (again.directory / "checkpoints" / "latest.npz").read_bytes() == before


def test_evaluate_gives_a_row_per_graph_and_a_summary(trained):
  table = trained[1].evaluate("test")
  assert list(table["configurations"]) == [5, 7] and table["kendall_tau"].notna().all()
  assert not (trained[1].directory / "evaluation").exists()
  summary = table.summary()
  assert list(summary.columns) == ["mean", "low", "high", "graphs"]
  assert summary.loc["kendall_tau", "mean"] == pytest.approx(table["kendall_tau"].mean())
  assert (summary["low"] <= summary["mean"] + 1e-12).all() and (summary["graphs"] == 2).all()
  part = table[table["nodes"] > 3]
  assert isinstance(part, api.Evaluation) and part.summary().loc["opa", "graphs"] == 1
  clustered = table.assign(family="one").summary(by_family=True)
  assert clustered[["low", "high"]].isna().all().all()  # One family has no interval.
  with pytest.raises(errors.UnknownNameError, match="has no split 'tset'"):
    trained[1].evaluate("tset")


def test_predict_writes_what_the_command_writes(trained, tmp_path):
  run = trained[1]
  prediction = run.predict("test", tmp_path / "part.csv")
  assert prediction.part == tmp_path / "part.csv"
  assert len(prediction.part.read_text().splitlines()) == 3
  scores = prediction.load()
  graph = tgr.load_collection(str(trained[0]), "test")[0]
  np.testing.assert_allclose(scores[graph.name], run.score(graph), rtol=1e-5, atol=1e-6)


def test_settings_are_named_as_flags(tmp_path):
  resolved = api.configuration("tile_xla_cpu", {
      "losses": "mse", "loss_weights": 2, "data_root": tmp_path, "seed": 3}, tmp_path / "c.json")
  assert resolved.loss == run_config.LossConfig(("mse",), (2.0,))
  assert resolved.data.data_root == str(tmp_path) and resolved.training.seed == 3
  assert resolved.data.collection == str(tmp_path / "c.json")
  assert resolved.training.epochs == recipes.read("tile_xla_cpu")["training"]["epochs"]
  collection = tgr.load_collection("tile:xla_cpu", "test").collection
  assert api.configuration(None, {}, collection).data.collection == "tile:xla_cpu"


@pytest.mark.parametrize("settings, message", [
    ({"hiden_width": 8}, "unknown setting 'hiden_width' (did you mean 'hidden_width'?)"),
    ({"hidden_width": "wide"}, "model.hidden_width = 'wide' is not a whole number"),
    ({"model": "residual"}, "did you mean 'residual_gnn'?"),
    ({"model": "mine"}, "A plugin (--plugin) registers further names"),
])
def test_wrong_settings_are_refused_before_anything_is_written(tmp_path, settings, message):
  with pytest.raises(errors.ConfigError) as caught:
    tgr.train("tile:xla_cpu", tmp_path / "run", **settings)
  assert message in str(caught.value) and not (tmp_path / "run").exists()


def test_reprs_are_one_short_line(trained):
  descriptor, run = trained
  split = tgr.load_collection(str(descriptor), "test")
  for value in (run, split, split.collection, split[0], run.directory,
                run.predict("valid")):
    assert "\n" not in repr(value) and len(repr(value)) < 160, repr(value)
  assert "residual_gnn on tile:tiny" in repr(run)


def test_models_losses_and_metrics_are_reached_from_the_package():
  assert tgr.metrics.opa is tgr.opa and callable(tgr.models.register)
  assert callable(tgr.losses.register) and tgr.sklearn.Ranker


def _bundle(trained, folder, monkeypatch):
  """Makes the trained run a bundled one; nothing may write into it."""
  trained[1].directory.path.parent.mkdir(exist_ok=True)
  (folder / "models").mkdir(parents=True)
  (folder / "models" / "tiny").symlink_to(trained[1].directory.path)
  monkeypatch.setattr(run_directory, "_BUNDLED_FOLDER", folder / "models")


def test_a_bundled_run_is_named_and_read_only(trained, tmp_path, monkeypatch):
  _bundle(trained, tmp_path / "package", monkeypatch)
  monkeypatch.chdir(tmp_path)
  before = {path: path.read_bytes() for path in trained[1].directory.path.rglob("*")
            if path.is_file()}
  run = tgr.load_run("bundled:tiny")
  graph = tgr.load_collection(str(trained[0]), "test")[0]
  np.testing.assert_array_equal(run.score(graph), trained[1].score(graph))
  assert "bundled:tiny" in repr(run)
  assert run.predict("test").part.resolve() == (tmp_path / "submission_part.csv").resolve()
  with pytest.raises(errors.RunDirectoryError, match="read-only"):
    tgr.train(trained[0], "bundled:tiny", **{**SETTINGS, "epochs": 3})
  with pytest.raises(errors.RunDirectoryError, match="read-only"):
    run.directory.write_status(state="training")
  assert before == {path: path.read_bytes() for path in trained[1].directory.path.rglob("*")
                    if path.is_file()}
  with pytest.raises(errors.UnknownNameError, match="no bundled model 'tinny' .*bundled:tiny"):
    tgr.load_run("bundled:tinny")


def test_the_bundled_models_are_complete_runs():
  for name in run_directory.bundled_names():
    run = tgr.load_run(f"bundled:{name}")
    assert run.config.data.collection and len(run.history)
    assert files.read_json(run.directory / "metrics.json")["metrics"]
    assert files.read_json(run.directory / "evaluation" / "test" / "metrics.json")
    stored = files.read_json(run.directory / "model.json")
    assert stored["recipe"] == name and stored["collection"] == run.config.data.collection
    assert len(stored["collection_sha256"]) == 64


def test_an_evaluation_is_a_data_frame():
  empty = api.Evaluation({"graph": ["a"], "family": ["a"], "opa": [np.nan]})
  assert isinstance(empty, pd.DataFrame) and empty.summary().empty
