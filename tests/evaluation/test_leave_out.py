"""Leave-one-group-out through the command."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from tests import synthetic
from tests.helpers import commands
from tests.training import small_runs
import tpugraphs_rank as tgr
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank.data import registry
from tpugraphs_rank.evaluation import leave_out
from tpugraphs_rank.evaluation import per_graph
from tpugraphs_rank.training import trainer

_BASELINES = "--baselines=random,size_heuristic"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run of a collection with two groups, whose test split is gone."""
  folder = tmp_path_factory.mktemp("leave_out")
  descriptor = synthetic.write_collection(folder / "data", counts=(6, 3, 3))
  values = json.loads(descriptor.read_text())
  values["groups"] = {"siblings": ["family0", "family1"]}
  descriptor.write_text(json.dumps(values))
  shutil.rmtree(folder / "data" / "npz" / "test")
  config = small_runs.settings(descriptor, training_epochs=1)
  small_runs.untrained_run(config, folder / "run")
  return folder / "run"


def _evaluate(run, *words):
  done = commands.run("evaluate", "--run_dir", run, "--leave_out=group", *words)
  assert done.returncode == 0, done.stderr
  return done


def test_baselines_only_and_what_is_added_later(run, tmp_path, monkeypatch):
  monkeypatch.setattr(trainer, "Trainer", None)  # Nothing is trained.
  arguments = ("--epochs=0", "--output", tmp_path)
  done = _evaluate(run, *arguments, "--baselines=random")
  assert "each group is ranked by what was fitted to the others" in done.stdout
  done = _evaluate(run, *arguments, _BASELINES)
  results = json.loads((tmp_path / "metrics.json").read_text())
  assert results["leave_out"] == "group" and results["model"] == ""
  assert list(results["groups"]) == ["family2", "siblings"]
  rows = pd.read_csv(tmp_path / "per_graph.csv")
  assert rows["ranker"].unique().tolist() == ["random", "size_heuristic"] and len(rows) == 2 * 9
  assert not rows["seen"].any()
  graphs = {graph.name: graph for split in ("train", "valid") for graph in tgr.load_collection(
      json.loads((run / "config.json").read_text())["config"]["data"]["collection"], split)}
  for _, row in rows[rows["ranker"] == "random"].iterrows():  # The mean over all orders.
    runtimes = graphs[row["graph"]].relative_runtime
    assert row["top1_slowdown"] == pytest.approx(runtimes.mean() / runtimes.min() - 1)
  taus = rows[rows["ranker"] == "random"].groupby("left_out")["kendall_tau"].mean()
  assert results["mean_over_groups"]["random"]["kendall_tau"] == {
      "mean": pytest.approx(taus.mean()), "se": pytest.approx(taus.std() / np.sqrt(2)), "n": 2}
  lines = done.stdout.splitlines()
  assert lines[3].split() == ["group", "left", "out", "programs", "random", "size_heuristic"]
  assert lines[7].startswith("mean ± standard error") and lines[7].split()[4] == "9"


@pytest.mark.slow
def test_the_recipe_is_trained_for_each_group_and_resumes(run, tmp_path, monkeypatch):
  shutil.copytree(run, tmp_path / "run")
  output = tmp_path / "run" / "evaluation" / "leave_out_group"
  trained = []
  train = trainer.Trainer.train

  def recorded(self, run_dir, *rest):
    if len(trained) == 1 and not (output / "01_siblings" / "stop").exists():
      (output / "01_siblings" / "stop").write_text("")
      raise KeyboardInterrupt
    trained.append(self.collection)
    return train(self, run_dir, *rest)

  monkeypatch.setattr(trainer.Trainer, "train", recorded)
  arguments = ("--run_dir", tmp_path / "run", "--leave_out=group", "--epochs=2", _BASELINES)
  try:
    commands.run("evaluate", *arguments)
  except KeyboardInterrupt:
    pass
  assert not (output / "metrics.json").exists()
  done = commands.run("evaluate", *arguments)
  assert done.returncode == 0, done.stderr
  assert [collection.name for collection in trained] == [
      "tile:synthetic without family2", "tile:synthetic without siblings"]
  results = json.loads((output / "metrics.json").read_text())
  assert results["model"] == "residual_gnn"
  gain = results["paired_differences"]["random"]["kendall_tau"]
  means = results["mean_over_groups"]
  assert gain["mean"] == pytest.approx(
      means["residual_gnn"]["kendall_tau"]["mean"] - means["random"]["kendall_tau"]["mean"])
  assert "gain of residual_gnn over" in done.stdout
  stored = json.loads((output / "00_family2" / "run" / "config.json").read_text())
  assert stored["config"]["training"]["epochs"] == 2
  # Again: nothing is trained, and the results are the same.
  monkeypatch.setattr(trainer, "Trainer", None)
  again = commands.run("evaluate", *arguments)
  assert again.returncode == 0 and again.stdout == done.stdout
  other = commands.run("evaluate", *arguments[:2], "--leave_out=group", "--epochs=3", _BASELINES)
  assert other.returncode != 0 and "Choose another --output" in other.stderr
  family = commands.run("evaluate", *arguments[:2], "--leave_out=family", "--output", output,
                        "--epochs=0", _BASELINES)
  assert family.returncode != 0 and "leave_out" in family.stderr


@pytest.mark.parametrize("words, message", [
    (["--epochs=3"], "--epochs needs --leave_out"),
    (["--leave_out=group", "--split=valid"], "--split cannot be combined with --leave_out"),
    (["--leave_out=group", "--epochs=0", "--baselines="], "there are no baselines"),
    (["--leave_out=group", "--baselines=best"], "no baseline 'best'")])
def test_mistakes(run, tmp_path, words, message):
  done = commands.run("evaluate", "--run_dir", run, "--output", tmp_path / "out", *words)
  assert done.returncode != 0 and message in done.stderr
  assert not (tmp_path / "out").exists()


def test_recipes_that_may_have_seen_the_group_are_refused(run):
  settings = json.loads((run / "config.json").read_text())["config"]
  for key, value, message in (
      ("data.split_by", "configuration", "no group can be left out"),
      ("training.initial_checkpoint", "elsewhere", "starts from the weights of elsewhere")):
    config = config_lib.override(
        config_lib.from_dict(run_config.RunConfig, settings), {key: value})
    with pytest.raises(errors.ConfigError, match=message):
      leave_out.evaluate(config, run / "nowhere")
  assert not (run / "nowhere").exists()


def test_undefined_groups_have_no_error():
  assert leave_out.mean_and_error(np.array([np.nan, 2.0])) == {"mean": 2.0, "se": None, "n": 1}
  assert leave_out.mean_and_error(np.array([np.nan])) == {"mean": None, "se": None, "n": 0}
  collection = registry.Collection(name="tile:x", kind="tile", target="none", splits={})
  frame = pd.DataFrame({
      "left_out": ["a", "b"], "kendall_tau": [0.5, np.nan], "top1_slowdown": [0.25, 0.5],
      "top10_slowdown": [0.0, 0.0]})
  results = leave_out.Results(collection, "group", "", {"random": frame})
  lines = results.text().splitlines()
  assert lines[5].split()[-1] == "0.500" and lines[6].split()[-1] == "-"
  assert per_graph.metric_columns(frame) == ["kendall_tau", "top1_slowdown", "top10_slowdown"]
