"""The applications of LayerDAG, one after the other, as a user calls them."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from tests.synthesis.layerdag import test_growth
from tpugraphs_rank.synthesis.dags import dags as dags_lib

_SMALL = ["--width=16", "--edge_width=8", "--encoder_layers=1", "--node_layers=1", "--heads=2",
          "--node_steps=4", "--edge_steps=4", "--epochs=2", "--validate_every=1", "--notensorboard"]


def _run(app, *arguments):
  return subprocess.run([sys.executable, "-m", f"experiments.{app}", *map(str, arguments)],
                        capture_output=True, text=True)


def test_train_then_sample(tmp_path):
  dags_lib.save(tmp_path / "graphs.npz", test_growth.make(1, count=16))
  run = tmp_path / "run"
  train = ["--graphs", tmp_path / "graphs.npz", "--conditions=runtime,size", "--run_dir", run,
           *_SMALL]
  planned = _run("layerdag_train", *train, "--dry_run")
  assert planned.returncode == 0, planned.stderr
  assert json.loads(planned.stdout)["plan"]["conditions"] == ["runtime", "size"]
  assert not run.exists()
  done = _run("layerdag_train", *train)
  assert done.returncode == 0, done.stderr
  assert "finished after epoch 2" in done.stdout and "next: python -m tpugraphs_rank.cli.layerdag_sample" \
      in done.stdout
  sample = ["--run_dir", run, "--count=6", "--most_nodes=300", "--most_layers=40", "--seed=2"]
  made = _run("layerdag_sample", *sample, "--output", tmp_path / "a.npz", "--labels=runtime=0.5")
  assert made.returncode == 0, made.stderr
  assert made.stdout.startswith("6 graphs, ")
  drawn = dags_lib.load(tmp_path / "a.npz")
  assert len(drawn) == 6 and (drawn.label("runtime") == 0.5).all()
  assert drawn.provenance["seed"] == 2 and drawn.provenance["graphs_per_cpu_second"] > 0
  again = _run("layerdag_sample", *sample, "--output", tmp_path / "b.npz", "--labels_from",
               tmp_path / "graphs.npz")
  assert again.returncode == 0, again.stderr
  given = dags_lib.load(tmp_path / "graphs.npz")
  np.testing.assert_array_equal(
      dags_lib.load(tmp_path / "b.npz").label("runtime"), given.label("runtime")[:6])
  for arguments, message in (
      (["--labels=runtime"], "--labels has 'runtime'; expected NAME=NUMBER"),
      (["--labels=speed=1"], "this model was trained on the conditions: runtime, size"),
      (["--run_dir", tmp_path / "none"], "no file")):
    failed = _run("layerdag_sample", *sample, "--output", tmp_path / "c.npz", *arguments)
    assert failed.returncode == 1 and message in failed.stderr, failed.stderr
    assert not (tmp_path / "c.npz").exists()
