"""Ensembles whose networks differ in model, objective and features."""

import json
import pathlib
import shutil
from typing import NamedTuple

import numpy as np
import pytest

from tests.candidates import small_programs
from tests.cli.test_train import TINY
from tests.helpers import commands
from tests.training import small_runs
import tpugraphs_rank as tgr
from tpugraphs_rank import errors
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import trees
from tpugraphs_rank.training import kinds as kinds_lib
from tpugraphs_rank.training import kinds_file
from tpugraphs_rank.training import networks
from tpugraphs_rank.training import run as run_lib
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import trainer

# The second has other features, so that it scales them in its own way.
KINDS = [{"model": "attention_gnn"},
         {"losses": ["pairwise_hinge"], "tile_features": "costs", "epochs": 2}]


class Trained(NamedTuple):
  """A trained run, and what trained it."""

  descriptor: pathlib.Path
  path: pathlib.Path
  trainer: trainer.Trainer
  result: trainer.Result
  run: run_lib.Run  # Loaded once, because loading traces the networks again.


@pytest.fixture(scope="module", name="trained")
def _trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp("kinds")
  descriptor = small_runs.collection(folder / "data")
  config = small_runs.settings(descriptor, model_kinds=KINDS, training_epochs=1)
  training = trainer.Trainer(config)
  result = training.train(folder / "run")
  return Trained(descriptor, folder / "run", training, result, run_lib.load_run(folder / "run"))


def _train(path, descriptor, *more):
  return commands.run("train", "--run_dir", path, "--collection", descriptor, *TINY,
                      "--epochs=1", *more)


@pytest.fixture(name="copy")
def _copy(trained, tmp_path):
  return shutil.copytree(trained.path, tmp_path / "moved")


def _graphs(trained, split="test"):
  return list(tgr.load_collection(str(trained.descriptor), split))


def _separate(path):
  """The run's own networks, then those of each kind, as runs of their own."""
  return [run_lib.Run(run_directory.RunDirectory(one), prior="none", networks_only=True)
          for one in (path, path / "kinds" / "1", path / "kinds" / "2")]


def test_the_scores_are_the_weighted_sum_of_separate_runs(trained):
  runs = _separate(trained.path)
  deviations = [np.mean([np.std(run.score(graph)) for graph in _graphs(trained, "train")])
                for run in runs]
  whole = trained.run
  np.testing.assert_allclose(whole.kinds.deviations, deviations, rtol=1e-4)
  for graph, scores, members in whole.score_each_with_members(_graphs(trained)):
    separate = [run.score(graph) for run in runs]
    assert all(np.ptp(values) > 0 for values in separate)
    # Each network is listed, in the unit of the run's own.
    in_unit = [deviations[0] / deviation * values
               for deviation, values in zip(deviations, separate)]
    np.testing.assert_allclose(members, in_unit, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(scores, np.mean(in_unit, axis=0), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(whole.score(graph), scores, rtol=1e-4, atol=1e-6)
  assert (runs[1].config.model.model, runs[2].config.model.tile_features) == (
      "attention_gnn", "costs")


class _Stub:
  """Networks with given scores (m, c) of every program."""

  def __init__(self, rows):
    self.count = len(rows)
    self._rows = np.array(rows, np.float32)

  def scores(self, programs):
    return [self._rows.mean(axis=0) for _ in programs]

  def by_member(self, programs):
    return [self._rows for _ in programs]


def test_every_network_has_the_same_weight():
  own, pair, single = _Stub([[1, 2], [3, 6], [2, 7]]), _Stub([[4, 0], [0, 8]]), _Stub([[9, 3]])
  kinds = kinds_lib.Kinds(own.count, (pair, single), (1.0, 2.0, 0.5))
  programs = ["one", "two"]
  expected = [[1, 2], [3, 6], [2, 7], [2, 0], [0, 4], [18, 6]]
  for scores, members in zip(kinds.add(programs, own.scores(programs)),
                             kinds.members(programs, own.by_member(programs)), strict=True):
    np.testing.assert_allclose(members, expected)
    np.testing.assert_allclose(scores, np.mean(expected, axis=0), rtol=1e-6)
    assert scores.dtype == members.dtype == np.float32


def test_the_metrics_and_the_calibration_are_those_of_the_mean(trained):
  tau = np.mean([tgr.kendall_tau(graph.config_runtime, trained.run.score(graph))
                 for graph in _graphs(trained, "valid")])
  assert trained.run.evidence.of("all").kendall_tau == pytest.approx(tau, abs=1e-6)
  assert trained.result.of_all_kinds["kendall_tau"] == pytest.approx(tau, abs=1e-6)
  assert trained.run.kinds.metrics == trained.result.of_all_kinds


@pytest.mark.slow
def test_an_interrupted_run_resumes_with_the_same_result(trained, copy):
  """The second kind is deleted, and interrupted when it is trained again; the folder has moved."""
  shutil.rmtree(copy / "kinds" / "2")
  first = {path: path.stat().st_mtime_ns for path in (copy / "kinds" / "1").rglob("*.npz")}
  assert trained.trainer.train(copy, stop_after=1).state == "interrupted"
  assert json.loads((copy / "status.json").read_text())["state"] == "interrupted"
  assert not (copy / kinds_file.FILE).exists()  # The run does not score with half a kind.
  assert json.loads((copy / "kinds" / "2" / "status.json").read_text())["epoch"] == 1
  done = _train(copy, trained.descriptor, f"--kinds={json.dumps(KINDS)}")
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith("finished after epoch 1; best epoch 1\n")
  header, tau = (next(line for line in done.stdout.splitlines() if line.startswith(start))
                 for start in ("validation metric", "kendall_tau"))
  assert header.endswith("all kinds")
  assert float(tau.split()[-1]) == round(trained.result.of_all_kinds["kendall_tau"], 4)
  log = (copy / "train.log").read_text()
  assert log.count("kind 1 of 2: model 'attention_gnn'\n") == 1
  assert log.count("kind 2 of 2: losses ['pairwise_hinge'], tile_features 'costs', ") == 3
  assert first == {path: path.stat().st_mtime_ns for path in first}  # It was kept.
  small_runs.assert_same_run(copy / "kinds" / "2", trained.path / "kinds" / "2")
  assert (copy / kinds_file.FILE).read_bytes() == (trained.path / kinds_file.FILE).read_bytes()


def test_evaluate_predict_and_rank(trained, tmp_path, monkeypatch):
  monkeypatch.setattr(run_lib, "load_run", lambda *_, **__: trained.run)
  done = commands.run("evaluate", "--run_dir", trained.path, "--output", tmp_path / "evaluation",
                      "--baselines=random")
  assert done.returncode == 0, done.stderr
  done = commands.run("predict", "--run_dir", trained.path, "--output", tmp_path / "part.csv")
  assert done.returncode == 0, done.stderr
  with np.load(trained.path / "predictions" / "test.npz") as stored:
    for graph in _graphs(trained):
      np.testing.assert_allclose(stored[graph.name], trained.run.score(graph), atol=1e-5)
  assert len((tmp_path / "part.csv").read_text().splitlines()) == 1 + len(_graphs(trained))
  small_programs.write(tmp_path / "tile.pb", small_programs.matmul(8, 8, 8, "a"))
  done = commands.run("rank", "--run_dir", trained.path, "--hlo", tmp_path / "tile.pb",
                      "--top_k=2", "--max_candidates=9", "--output", tmp_path / "ranked")
  assert done.returncode == 0, done.stderr
  assert "the run's 3 networks" in done.stdout


@pytest.mark.slow
def test_a_dry_run_counts_all_kinds(trained, tmp_path):
  done = _train(tmp_path / "none", trained.descriptor, "--kinds=[{\"hidden_width\": 3}]",
                "--dry_run")
  assert done.returncode == 0, done.stderr
  rows = [tuple(line.split()) for line in done.stdout.splitlines() if len(line.split()) == 2]
  parameters = [int(value) for name, value in rows if name == "parameters"]
  assert len(parameters) == 2 and parameters[0] > parameters[1]
  assert ("hidden_width", "3") in rows and ("networks", "2") in rows
  assert ("parameters_of_all", str(sum(parameters))) in rows
  assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("text, message", [
    ("[{", "error: --kinds"),
    ("{}", "error: flags: model.kinds = {} is not a list in which each element is a JSON object"),
    ('[{"seed": 1}]', "error: kinds: kind 1: seed is the same for all kinds; a kind may set: ")])
def test_wrong_kinds_on_the_command_line(trained, tmp_path, text, message):
  done = _train(tmp_path / "none", trained.descriptor, f"--kinds={text}")
  assert done.returncode == 1 and done.stderr.startswith(message)
  assert done.stderr.count("\n") == 1 and not (tmp_path / "none").exists()


def test_without_the_file_the_run_scores_alone(trained, copy, caplog):
  (copy / kinds_file.FILE).unlink()
  run = run_lib.load_run(copy)
  assert run.kinds is None and "without the further kinds of its ensemble" in caplog.text


def _change_config(copy):
  path = copy / "kinds" / "1" / "config.json"
  stored = json.loads(path.read_text())
  stored["config"]["training"]["patience"] = 77
  path.write_text(json.dumps(stored))


@pytest.mark.parametrize("damage, message", [
    (lambda copy: (copy / kinds_file.FILE).write_text("[]"),
     "kinds.json is damaged.*delete it and run the training command again"),
    (lambda copy: (copy / kinds_file.FILE).write_text('{"deviations": [1, 2], "metrics": {}}'),
     "kinds.json is damaged: deviations is .*expected 3 numbers from 1e-06 to 1e\\+09"),
    (lambda copy: (copy / kinds_file.FILE).write_text('{"deviations": [1, 0, 1], "metrics": {}}'),
     "kinds.json is damaged: deviations is .*expected 3 numbers from 1e-06 to 1e\\+09"),
    (lambda copy: (copy / kinds_file.FILE).write_text(
        '{"deviations": [1e200, 1, 1], "metrics": {}}'),
     "kinds.json is damaged: deviations is .*expected 3 numbers from 1e-06 .*; delete it"),
    (lambda copy: shutil.rmtree(copy / "kinds" / "2"),
     "kind 2 of .*moved is missing or damaged .*delete .*2 and run the training command again"),
    (lambda copy: (copy / "kinds" / "1" / "checkpoints" / "best.npz").unlink(),
     "kind 1 of .*moved is missing or damaged .*best.npz is missing, although training has ended"),
    (lambda copy: (copy / "kinds" / "1" / "config.json").write_text('{"config": {"modle": 1}}'),
     "kind 1 of .*moved is missing or damaged .*delete .*1 and run the training command again"),
    (_change_config, "1 is not kind 1 of .*training.patience: stored 77, requested 20; restore")])
def test_a_missing_or_damaged_kind_is_refused(copy, damage, message):
  damage(copy)
  with pytest.raises(errors.RunDirectoryError, match=message):
    run_lib.load_run(copy)


def test_damaged_weights_of_a_kind_are_refused_each_time(trained, copy):
  path = copy / "kinds" / "1" / "checkpoints" / "best.npz"
  stored = dict(np.load(path))
  stored["model/0000"] = np.full_like(stored["model/0000"], np.nan)
  np.savez(path, **stored)
  run = run_lib.load_run(copy)
  for _ in range(2):
    with pytest.raises(errors.RunDirectoryError, match=(
        "not finite: .*restore it, or delete .*1, which is a kind of an ensemble, and run "
        f".*--run_dir {copy} .*which trains this kind again")):
      run.score(_graphs(trained)[0])


def test_a_damaged_status_of_a_kind_names_the_kind(trained, copy):
  (copy / "kinds" / "2" / "status.json").write_text("{")
  done = _train(copy, trained.descriptor, f"--kinds={json.dumps(KINDS)}")
  assert done.returncode == 1
  assert "error: kind 2 of 2: " in done.stderr and "delete it and run the same" in done.stderr


def test_a_kind_is_trained_by_the_command_of_its_run(trained, copy):
  for name in ("best.npz", "latest.npz"):
    (copy / "kinds" / "1" / "checkpoints" / name).unlink()
  (copy / "kinds" / "1" / "status.json").write_text('{"state": "training", "epoch": 0}')
  with pytest.raises(errors.RunDirectoryError, match=f"no checkpoint yet; .*--run_dir {copy} "):
    networks.Networks(run_directory.RunDirectory(copy / "kinds" / "1"))
  done = commands.run("train", "--run_dir", copy / "kinds" / "1", "--config",
                      copy / "kinds" / "1" / "config.json")
  assert done.returncode == 1 and f"is a kind of the ensemble {copy}, whose command" in done.stderr


def test_a_constant_kind_has_no_weight():
  np.testing.assert_array_equal(kinds_file.factors([2.0, 1e-6, 0.5]), [0, 4])


def test_a_kind_whose_training_diverged_is_named(trained, monkeypatch):
  own = networks.Networks(run_directory.RunDirectory(trained.path))
  programs = splits.load(own.config.data, "valid", 0).programs
  directory = str(trained.path / "kinds" / "1")
  measured = networks.Networks.scores
  monkeypatch.setattr(networks.Networks, "scores", lambda self, programs: [
      values * np.float32(1e30 if str(self.directory.path) == directory else 1)
      for values in measured(self, programs)])
  with pytest.raises(errors.TrainingError, match=f"{directory}: .* the training has diverged"):
    kinds_lib.fit(own, programs)


@pytest.mark.slow
def test_the_calibration_is_that_of_all_members_after_the_averaging_is_repeated(
    trained, tmp_path, monkeypatch):
  monkeypatch.setattr(trees, "GRID", (trees.Settings(iterations=5, min_samples_leaf=2),))
  config = small_runs.settings(trained.descriptor, model_kinds=[{}], model_trees_weight=0.5,
                               training_epochs=1)
  training = trainer.Trainer(config)
  training.train(tmp_path / "run")
  names = ("calibration.json", kinds_file.FILE, "trees.json")
  before = [(tmp_path / "run" / name).read_bytes() for name in names]
  (tmp_path / "run" / kinds_file.FILE).unlink()
  training.train(tmp_path / "run")
  assert before == [(tmp_path / "run" / name).read_bytes() for name in names]
  run = run_lib.load_run(tmp_path / "run")
  taus = [tgr.kendall_tau(graph.config_runtime, run.score(graph))
          for graph in _graphs(trained, "valid")]
  assert run.evidence.of("all").kendall_tau == pytest.approx(np.mean(taus), abs=1e-6)


def test_a_link_in_place_of_a_kind_is_not_followed(trained, copy):
  shutil.rmtree(copy / "kinds")
  (copy / "kinds").symlink_to(trained.path / "kinds")
  with pytest.raises(errors.OutputError, match="symbolic link"):
    kinds_lib.of_number(run_directory.RunDirectory(copy), 1)


def test_the_label_of_a_kind(tmp_path):
  assert run_directory.RunDirectory(tmp_path / "a").label == "a"
  assert run_directory.RunDirectory(tmp_path / "a" / "kinds" / "2").label == "a kind 2"
  assert run_directory.RunDirectory("a").label == "a"


def test_networks_of_no_programs(trained):
  assert networks.Networks(run_directory.RunDirectory(trained.path)).by_member([]) == []
