"""calibration.json: written by training, completed for older runs, and read by rank."""

import json
import shutil

import numpy as np
import pytest

from tests import synthetic
from tests.training import small_runs
from tpugraphs_rank import errors
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import baselines
from tpugraphs_rank.evaluation import calibrating
from tpugraphs_rank.metrics import evidence
from tpugraphs_rank.training import evidence_files
from tpugraphs_rank.training import run as run_lib
from tpugraphs_rank.training import run_directory


def test_training_stores_figures_of_its_checkpoint(tiny_tile_run, tiny_layout_run):
  for tiny in (tiny_tile_run, tiny_layout_run):
    directory = run_directory.RunDirectory(tiny.path)
    stored = evidence_files.read(directory)
    metrics = json.loads((tiny.path / "metrics.json").read_text())["metrics"]
    total = stored.of(evidence.ALL)
    assert total.programs == 2 and total.kendall_tau == pytest.approx(metrics["kendall_tau"])
    assert total.top1_slowdown == pytest.approx(metrics["top1_slowdown"])
    # Two validation programs are too few.
    assert stored.calibration is None and "a calibration needs 5" in stored.reason
    assert directory.read_about()["element_types"]


def test_an_older_run_is_completed(tiny_tile_run, tmp_path):
  path = shutil.copytree(tiny_tile_run.path, tmp_path / "run")
  directory = run_directory.RunDirectory(path)
  stored = evidence_files.read(directory)
  assert not calibrating.complete(path)
  (path / evidence.FILE).unlink()
  assert run_lib.load_run(path).evidence is None
  assert calibrating.complete(path)
  again = evidence_files.read(directory)
  assert again.reason == stored.reason and len(again.figures) == len(stored.figures)
  assert again.of(evidence.ALL).kendall_tau == pytest.approx(stored.of(evidence.ALL).kendall_tau)


def test_a_run_on_new_configurations_is_calibrated_with_the_defaults(tmp_path):
  descriptor = synthetic.write_collection(tmp_path / "data", counts=(6, 1, 1), num_configs=40)
  config = small_runs.settings(descriptor, data_split_by="configuration", training_seed=1)
  small_runs.untrained_run(config, tmp_path / "run")
  directory = run_directory.RunDirectory(tmp_path / "run")
  evidence_files.write(directory, evidence.gather([], "valid"))  # As training left it.
  assert calibrating.complete(tmp_path / "run")
  stored = evidence_files.read(directory)
  # All six programs have their default, on whichever side it is.
  assert stored.calibration.programs == stored.of(evidence.ALL).programs == 6
  assert not calibrating.complete(tmp_path / "run")


def test_a_run_without_its_data_stays_as_it_is(tiny_tile_run, tmp_path, caplog):
  path = shutil.copytree(tiny_tile_run.path, tmp_path / "run")
  (path / evidence.FILE).unlink()
  config = json.loads((path / "config.json").read_text())
  config["config"]["data"]["collection"] = str(tmp_path / "gone.json")
  (path / "config.json").write_text(json.dumps(config))
  assert not calibrating.complete(path) and "stays without a calibration" in caplog.text
  assert not (path / evidence.FILE).exists()


def test_bundled_runs_are_read_only():
  assert not calibrating.complete("bundled:tile_xla_cpu")


@pytest.mark.parametrize("text", ["{", "[]", '{"split": 3}'])
def test_a_damaged_file(tiny_tile_run, tmp_path, text):
  path = shutil.copytree(tiny_tile_run.path, tmp_path / "run")
  (path / evidence.FILE).write_text(text)
  with pytest.raises(errors.RunDirectoryError, match="calibration.json is damaged"):
    evidence_files.read(run_directory.RunDirectory(path))


def test_the_default_joins_the_configurations_of_its_program():
  graph = synthetic.tile_graph(0, num_nodes=4, num_configs=9)
  default = baselines.default_index(graph)
  choice = np.array([index for index in range(9) if index != default])
  whole = splits.ProgramView(graph)
  [first, second] = evidence_files.with_defaults([splits.ProgramView(graph, choice), whole])
  assert second is whole
  if default is None:
    assert first.indices.tolist() == choice.tolist()
  else:
    assert first.indices.tolist() == [*choice.tolist(), default]
  scores = [np.arange(len(view.indices), dtype=float) for view in (first, second)]
  one, other = evidence_files.scored([first, second], scores)
  assert one.default == (None if default is None else 8) and other.default == default
  np.testing.assert_array_equal(one.runtimes, whole.runtimes[first.indices])


@pytest.mark.parametrize("name", run_directory.bundled_names())
def test_bundled_models_are_calibrated(name):
  stored = evidence_files.read(run_directory.RunDirectory(f"bundled:{name}"))
  assert stored.calibration is not None and stored.of("dot") is not None
  about = run_directory.RunDirectory(f"bundled:{name}").read_about()
  assert "f32" in about["element_types"]


@pytest.mark.slow
@pytest.mark.parametrize("name", run_directory.bundled_names())
def test_the_calibration_of_bundled_models_is_that_of_their_weights(name):
  run = run_lib.load_run(f"bundled:{name}")
  again, stored = calibrating.of_run(run), run.evidence
  assert again.of(evidence.ALL).kendall_tau == pytest.approx(
      stored.of(evidence.ALL).kendall_tau, abs=1e-3)
  assert len(again.calibration.bins) == len(stored.calibration.bins)
