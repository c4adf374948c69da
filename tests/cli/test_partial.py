"""From a partly filled collection to a run, its evaluation and its rankings."""

import json

from tests import testdata
from tests.cli import test_train
from tests.helpers import commands
from tests.training import small_runs


def test_a_partly_filled_collection_can_be_used_on_request(tmp_path):
  descriptor = small_runs.collection(tmp_path / "data")
  for split in ("train", "test"):
    min((descriptor.parent / split).iterdir()).unlink()
  run_dir = tmp_path / "run"
  train = ["train", "--run_dir", run_dir, "--collection", descriptor, "--epochs=1",
           *test_train.TINY]
  refused = commands.run(*train)
  assert refused.returncode == 1 and not run_dir.exists()
  assert refused.stderr.endswith("; or work with the 3 graphs that exist: --partial (partial=True "
                                 "in Python)\n")
  done = commands.run(*train, "--partial")
  assert done.returncode == 0, done.stderr
  assert "warning: tile:tiny train is partial: 1 of its 4 graphs are missing in " in done.stderr
  assert "; partial: 1 of 4 graphs are missing" in done.stderr

  # The run knows that its collection is incomplete.
  done = commands.run("evaluate", "--run_dir", run_dir, "--baselines=")
  assert done.returncode == 0, done.stderr
  assert ("partial: 1 graph is missing in tile:tiny test, so these are not the figures of the "
          "whole split") in done.stdout.splitlines()
  metrics = json.loads((run_dir / "evaluation" / "test" / "metrics.json").read_text())
  assert metrics["missing_graphs"] == 1
  done = commands.run("predict", "--run_dir", run_dir)
  assert done.returncode == 0 and done.stdout.endswith("(1 rows)\n"), done.stderr

  part = run_dir / "submission_part.csv"
  only = ["--collections", descriptor, "--parts", part, "--output", tmp_path / "merged.csv"]
  assert "1 of the 2 graphs of tile:tiny test" in commands.run("submission merge", *only).stderr
  done = commands.run("submission merge", *only, "--partial")
  assert done.returncode == 0 and (tmp_path / "merged.csv").read_bytes() == part.read_bytes()
  score = ["submission score", "--submission", part, "--collections", descriptor, "--split=test"]
  assert commands.run(*score).returncode == 1
  done = commands.run(*score, "--partial")
  assert done.returncode == 0 and "competition score (test): " in done.stdout

  # A run that was trained with all graphs can be asked for the same.
  stored = json.loads((run_dir / "config.json").read_text())
  stored["config"]["data"]["partial"] = False
  (run_dir / "config.json").write_text(json.dumps(stored))
  for command in ("evaluate", "report", "predict"):
    done = commands.run(command, "--run_dir", run_dir)
    assert done.returncode == 1 and "or work with the one that exists: --partial" in done.stderr
  assert commands.run("predict", "--run_dir", run_dir, "--partial").returncode == 0


@testdata.required
def test_a_few_real_graphs_in_the_released_folders(tmp_path):
  (tmp_path / "npz").symlink_to(testdata.path("tpugraphs_npz"))
  real = ["--collection", "layout:xla:default", "--data_root", tmp_path]
  assert commands.run("describe", *real).returncode == 1
  done = commands.run("describe", *real, "--partial")
  assert done.returncode == 0 and done.stdout.endswith(
      "\nMissing: train has 1 of 61 graphs; valid has 1 of 7 graphs; test has 1 of 8 graphs.\n\n")
  done = commands.run("pack", *real, "--partial", "--output", tmp_path / "packed")
  assert done.returncode == 0, done.stderr
  assert [": 1 graphs, " in line for line in done.stdout.splitlines()] == [True] * 3
