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


@pytest.fixture(scope="module", name="graphs")
def _graphs(tmp_path_factory):
  """A file of graphs."""
  path = tmp_path_factory.mktemp("graphs") / "graphs.npz"
  dags_lib.save(path, test_growth.make(1, count=16))
  return path


@pytest.fixture(scope="module", name="trained")
def _trained(graphs):
  """The run directory of a model, and what its training printed."""
  run = graphs.parent / "run"
  done = _run("train", *_train_flags(graphs, run))
  assert done.returncode == 0, done.stderr
  return run, done.stdout


def _train_flags(graphs, run):
  return ["--graphs", graphs, "--conditions=runtime,size", "--run_dir", run,
          "--calibration_rounds=1", *_SMALL]


def _sample_flags(run):
  return ["--run_dir", run, "--count=6", "--max_nodes=300", "--max_layers=40", "--seed=2"]


@pytest.mark.slow
def test_a_plan(graphs, tmp_path):
  planned = _run("train", *_train_flags(graphs, tmp_path / "run"), "--dry_run")
  assert planned.returncode == 0, planned.stderr
  assert [line.split(maxsplit=1)[1] for line in planned.stdout.splitlines()
          if line.startswith("conditions ")] == ["runtime, size"]
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_labels_of_other_graphs(graphs, trained, tmp_path):
  done = _run("sample", *_sample_flags(trained[0]), "--output", tmp_path / "b.npz",
              "--labels_from", graphs)
  assert done.returncode == 0, done.stderr
  np.testing.assert_array_equal(dags_lib.load(tmp_path / "b.npz").label("runtime"),
                                dags_lib.load(graphs).label("runtime")[:6])


def test_train_then_sample(trained, tmp_path):
  run, printed = trained
  assert printed.startswith("finished after epoch 1\n")
  assert "calibration: distance to the training graphs" in (run / "train.log").read_text()
  assert f"next: `tpugraphs-rank layerdag sample --run_dir {run} --count 100" in printed
  sample = _sample_flags(run)
  sampled = _run("sample", *sample, "--output", tmp_path / "a.npz", "--labels=runtime=0.5")
  assert sampled.returncode == 0, sampled.stderr
  assert sampled.stdout.startswith("6 graphs, ")
  samples = dags_lib.load(tmp_path / "a.npz")
  assert len(samples) == 6 and (samples.label("runtime") == 0.5).all()
  assert samples.provenance["seed"] == 2 and samples.provenance["graphs_per_cpu_second"] > 0
  assert "requested runtime" not in sampled.stderr
  for arguments, message in (
      (["--labels=runtime"], "--labels has 'runtime'; expected NAME=NUMBER"),
      (["--labels=runtime=99,speed=1"], "requested runtime: 99; in the training graphs: "),
      (["--labels=speed=1"], "this model was trained on the conditions: runtime, size"),
      (["--run_dir", tmp_path / "none"], "no file")):
    failed = _run("sample", *sample, "--output", tmp_path / "c.npz", *arguments)
    assert failed.returncode == 1 and message in failed.stderr, failed.stderr
    assert not (tmp_path / "c.npz").exists()
