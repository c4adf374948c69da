"""The commands of LayerDAG, one after the other, as a user runs them."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from tests.helpers import commands
from tests.synthesis.layerdag import test_growth
from tpugraphs_rank.synthesis.dags import dags as dags_lib

_SMALL = ["--width=16", "--edge_width=8", "--encoder_layers=1", "--node_layers=1", "--heads=2",
          "--node_steps=2", "--edge_steps=2", "--epochs=1", "--validate_every=1", "--notensorboard"]


def _run(command, *arguments):
  return commands.run(f"layerdag {command}", *arguments)


def test_train_then_sample(tmp_path):
  dags_lib.save(tmp_path / "graphs.npz", test_growth.make(1, count=16))
  run = tmp_path / "run"
  train = ["--graphs", tmp_path / "graphs.npz", "--conditions=runtime,size", "--run_dir", run,
           "--calibration_rounds=1", *_SMALL]
  planned = _run("train", *train, "--dry_run")
  assert planned.returncode == 0, planned.stderr
  assert [line.split(maxsplit=1)[1] for line in planned.stdout.splitlines()
          if line.startswith("conditions ")] == ["runtime, size"]
  assert not run.exists()
  done = _run("train", *train)
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith("finished after epoch 1\n")
  assert "calibration: distance to the training graphs" in (run / "train.log").read_text()
  assert f"next: `tpugraphs-rank layerdag sample --run_dir {run} --count 100" in done.stdout
  sample = ["--run_dir", run, "--count=6", "--max_nodes=300", "--max_layers=40", "--seed=2"]
  sampled = _run("sample", *sample, "--output", tmp_path / "a.npz", "--labels=runtime=0.5")
  assert sampled.returncode == 0, sampled.stderr
  assert sampled.stdout.startswith("6 graphs, ")
  samples = dags_lib.load(tmp_path / "a.npz")
  assert len(samples) == 6 and (samples.label("runtime") == 0.5).all()
  assert samples.provenance["seed"] == 2 and samples.provenance["graphs_per_cpu_second"] > 0
  assert "requested runtime" not in sampled.stderr
  again = _run("sample", *sample, "--output", tmp_path / "b.npz", "--labels_from",
               tmp_path / "graphs.npz")
  assert again.returncode == 0, again.stderr
  graphs = dags_lib.load(tmp_path / "graphs.npz")
  np.testing.assert_array_equal(
      dags_lib.load(tmp_path / "b.npz").label("runtime"), graphs.label("runtime")[:6])
  for arguments, message in (
      (["--labels=runtime"], "--labels has 'runtime'; expected NAME=NUMBER"),
      (["--labels=runtime=99,speed=1"], "requested runtime: 99; in the training graphs: "),
      (["--labels=speed=1"], "this model was trained on the conditions: runtime, size"),
      (["--run_dir", tmp_path / "none"], "no file")):
    failed = _run("sample", *sample, "--output", tmp_path / "c.npz", *arguments)
    assert failed.returncode == 1 and message in failed.stderr, failed.stderr
    assert not (tmp_path / "c.npz").exists()
