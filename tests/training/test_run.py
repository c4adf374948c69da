"""Loading runs that are incomplete or damaged. Complete runs are tested with the trainer."""

import json
import shutil

import numpy as np
import pytest

from tests import synthetic
from tests.training import small_runs
from tpugraphs_rank import errors
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import element_types
from tpugraphs_rank.data import graphs
from tpugraphs_rank.training import run
from tpugraphs_rank.training import trainer


@pytest.fixture(scope="module")
def stub_run(tmp_path_factory):
  """A run directory that a stub has trained into."""
  folder = tmp_path_factory.mktemp("finished")
  training = trainer.Trainer(small_runs.settings(
      small_runs.collection(folder / "data"), training_epochs=1))
  with pytest.MonkeyPatch.context() as monkeypatch:
    small_runs.Stub(training, monkeypatch, [0.5])
    training.train(folder / "run")
  return folder / "run"


@pytest.fixture
def finished(stub_run, tmp_path):
  """A copy of the run directory, which a test may damage."""
  return shutil.copytree(stub_run, tmp_path / "run")


def test_attributes_of_a_run(finished):
  opened = run.load_run(str(finished))
  assert opened.about == {"collection": "tile:tiny", "kind": "tile", "target": "chip",
                          "hlo_stage": "after_optimization",
                          "element_types": [element_types.OTHER]}  # The graphs have no types.
  assert opened.config.training.epochs == 1 and not opened.strict


def test_a_folder_that_is_not_a_run(tmp_path):
  for path in (tmp_path, tmp_path / "gone"):
    with pytest.raises(errors.RunDirectoryError, match="is not a run directory: it has no config"):
      run.load_run(path)


def test_a_run_without_a_checkpoint_names_the_command_that_resumes_it(finished):
  (finished / "checkpoints" / "best.npz").unlink()
  with pytest.raises(errors.RunDirectoryError, match=(
      "best.npz is missing, although training has ended; train again into an empty --run_dir")):
    run.load_run(finished)
  (finished / "status.json").write_text('{"state": "training", "epoch": 0}')
  with pytest.raises(errors.RunDirectoryError, match=(
      f"has no checkpoint yet; resume .*tpugraphs-rank train --run_dir {finished} --config")):
    run.load_run(finished)


def test_a_missing_or_damaged_normalizer(finished):
  path = finished / "normalizer.npz"
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(errors.RunDirectoryError, match="normalizer.npz cannot be read"):
    run.load_run(finished)
  path.unlink()
  with pytest.raises(errors.RunDirectoryError, match="normalizer.npz cannot be read"):
    run.load_run(finished)


@pytest.mark.parametrize("about", [{}, {"kind": "chain"}, None, []])
def test_a_run_without_its_kind_is_damaged(finished, about):
  stored = json.loads((finished / "config.json").read_text())
  stored["about"] = about
  (finished / "config.json").write_text(json.dumps(stored))
  with pytest.raises(errors.RunDirectoryError, match="expected 'tile' or 'layout'"):
    run.load_run(finished)


def test_a_damaged_checkpoint_is_an_error_when_it_is_read(finished):
  path = finished / "checkpoints" / "best.npz"
  path.write_bytes(path.read_bytes()[:500])
  with pytest.raises(errors.RunDirectoryError, match="best.npz cannot be read"):
    run.load_run(finished).score(small_runs.synthetic.tile_graph(0))


def test_non_finite_weights_give_no_scores(finished):
  opened = run.load_run(finished)
  opened.score(small_runs.synthetic.tile_graph(0))
  variable = opened._networks._model.trainable_variables[0]
  variable.assign(variable * float("nan"))
  with pytest.raises(errors.DataError, match="scores are not finite"):
    opened.score(small_runs.synthetic.tile_graph(0))


def test_scoring_other_configurations_than_the_graphs(tmp_path):
  for kind, rows in (("tile", "config_feat"), ("layout", "node_config_feat")):
    descriptor = small_runs.collection(tmp_path / kind, kind)
    small_runs.untrained_run(small_runs.settings(descriptor), tmp_path / f"{kind}_run")
    opened = run.load_run(tmp_path / f"{kind}_run")
    graph, *_ = collections.load_collection(str(descriptor), "valid")
    configs = getattr(graph, rows)
    scores = opened.score(graph)
    np.testing.assert_allclose(opened.score(graph, configs), scores, rtol=1e-5, atol=1e-6)
    # Fewer and in another order; the graph itself does not change.
    np.testing.assert_allclose(opened.score(graph, configs[3:0:-1]), scores[3:0:-1], rtol=1e-4,
                               atol=1e-5)
    assert not graphs.with_configs(graph, configs).has_runtimes and graph.has_runtimes
    with pytest.raises(errors.DataError, match=f"{graph.name}: {rows} has shape"):
      opened.score(graph, configs[:, :-1])
    with pytest.raises(errors.DataError, match=f"{rows}"):
      opened.score(graph, np.zeros([]))


def test_a_bare_graph_takes_no_configurations():
  arrays = synthetic.node_arrays(np.random.default_rng(0), 3)
  with pytest.raises(errors.DataError, match="bare is a graph without configurable nodes"):
    graphs.with_configs(graphs.Graph("bare", **arrays), np.zeros([1, 24]))
