"""Training runs of LayerDAG: resuming, and refusal to resume with other settings or graphs."""

import json
import pathlib
import shutil

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from tests.synthesis.layerdag import test_growth
from tests.synthesis.layerdag import test_model
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.layerdag import model
from tpugraphs_rank.synthesis.layerdag import training


def _config(graphs, **changes):
  if not graphs.exists():
    dags_lib.save(graphs, test_growth.make(1, count=12))
  return test_model.small(data__graphs=str(graphs), fit__epochs=4, fit__validate_every=2,
                          network__dropout=0.1, **changes)


@pytest.fixture(scope="module", name="begun")
def fixture_begun(tmp_path_factory):
  """A run that was interrupted after the first of its epochs, and its settings."""
  folder = tmp_path_factory.mktemp("begun")
  config = _config(folder / "graphs.npz")
  part = training.Trainer(config).train(folder / "run", stop_after=1)
  assert (part.state, part.epochs) == ("interrupted", 1)
  assert not (folder / "run" / "model.npz").exists()
  return config, folder / "run"


@pytest.fixture(name="copied")
def fixture_copied(begun, tmp_path):
  """The settings, and a copy of the run."""
  config, run = begun
  return config, shutil.copytree(run, tmp_path / "run")


@pytest.mark.slow  # The soak kills `layerdag train` and compares, too.
def test_a_resumed_run_equals_an_uninterrupted_one(copied, tmp_path):
  config, run = copied
  whole = training.Trainer(config).train(tmp_path / "whole")
  resumed = training.Trainer(config).train(run)
  assert (whole.state, whole.epochs) == (resumed.state, resumed.epochs) == ("finished", 4)
  assert whole.metrics == resumed.metrics
  first, second = (np.load(folder / "model.npz") for folder in (tmp_path / "whole", run))
  for key in first.files:
    np.testing.assert_array_equal(first[key], second[key], err_msg=key)
  assert model.LayerDAG.load(tmp_path / "whole" / "model.npz").hash() == model.LayerDAG.load(
      run / "model.npz").hash()
  rows = (tmp_path / "whole" / "history.csv").read_text().splitlines()
  assert len(rows) == 5 and rows[0].startswith("epoch,step,sizes_loss,nodes_loss,edges_loss")
  stored = json.loads((tmp_path / "whole" / "metrics.json").read_text())["metrics"]
  assert stored["valid_sizes"] == whole.metrics["valid_sizes"]
  # A finished run is not trained again.
  again = training.Trainer(config).train(tmp_path / "whole")
  assert again == whole


def test_a_directory_of_another_run_is_refused(copied):
  config, run = copied
  other = config_lib.override(config, {"network.width": 12})
  with pytest.raises(errors.RunDirectoryError, match="network.width: stored 16, requested 12"):
    training.Trainer(other).train(run)


def test_a_run_on_other_graphs_is_refused(copied):
  config, run = copied
  path = pathlib.Path(config.data.graphs)
  before = path.read_bytes()
  try:
    dags_lib.save(path, test_growth.make(2, count=12))
    with pytest.raises(errors.RunDirectoryError, match="other graphs than those in .*graphs.npz"):
      training.Trainer(config).train(run)
  finally:
    path.write_bytes(before)


def test_a_run_of_an_earlier_version_is_refused(copied):
  config, run = copied
  path = run / "config.json"
  stored = json.loads(path.read_text())
  del stored["about"]["features"]
  path.write_text(json.dumps(stored))
  with pytest.raises(errors.RunDirectoryError, match="begun by an earlier version"):
    training.Trainer(config).train(run)


def test_the_graphs_must_be_set_and_exist():
  with pytest.raises(errors.ConfigError, match="--graphs FILE.npz.*layerdag graphs"):
    training.Trainer(test_model.small())
  with pytest.raises(errors.MissingDataError, match="no file .*none.npz"):
    training.Trainer(test_model.small(data__graphs="none.npz"))


def test_structural_twins_are_on_the_same_side_of_the_split(tmp_path):
  one = test_growth.make(1, count=6)
  dags_lib.save(tmp_path / "graphs.npz", one.take([0, 1, 2, 3, 4, 5] * 3))
  trainer = training.Trainer(_config(tmp_path / "graphs.npz"))
  assert not set(trainer.train_graphs.wl.tolist()) & set(trainer.valid_graphs.wl.tolist())
  assert len(trainer.train_graphs) + len(trainer.valid_graphs) == 18
