"""Packed graphs train, validate, evaluate and predict like the graphs that were packed."""

import numpy as np
import pytest

from tests.training import small_runs
from tpugraphs_rank import config as config_lib
from tpugraphs_rank.cli import evaluate
from tpugraphs_rank.cli import predict
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import packed_graphs
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import baselines
from tpugraphs_rank.evaluation import comparison
from tpugraphs_rank.evaluation import tree_features
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import trainer

# Each reads configurations in a different way.
SETTINGS = {
    "tile": {"model_model": "attention_gnn", "batch_config_skew": 2.0},
    "layout segments": {"model_model": "attention_gnn", "batch_segment_mode": "backprop",
                        "batch_max_nodes": 4, "data_duplicates": "mean"},
    "layout sides": {"data_split_by": "configuration", "data_min_configs": 3,
                     "batch_config_skew": 1.0},
}


@pytest.fixture(scope="module", params=[
    "tile", *(pytest.param(one, marks=pytest.mark.slow)
              for one in ("layout segments", "layout sides"))])
def runs(request, tmp_path_factory):
  """A run on the .npz files, and one on packed files."""
  folder = tmp_path_factory.mktemp("runs")
  descriptor = small_runs.collection(folder / "data", kind=request.param.partition(" ")[0])
  actual = {}
  for how in ("never", "always"):
    config = small_runs.settings(
        descriptor, data_packed=how, training_epochs=2, **SETTINGS[request.param])
    training = trainer.Trainer(config)
    graphs = [member.graph for member in (*training.train_graphs, *training.valid_graphs)]
    assert {isinstance(graph, packed_graphs._PackedGraph) for graph in graphs} == {how == "always"}
    training.train(folder / how)
    actual[how] = folder / how
  return actual


def test_the_same_weights(runs):
  small_runs.assert_same_run(runs["never"], runs["always"])
  one, other = (run_directory.RunDirectory(path).read_config() for path in runs.values())
  assert config_lib.stable_hash(one) == config_lib.stable_hash(other) and one != other
  assert "read from packed files" in (runs["always"] / "train.log").read_text()
  assert "packed" not in (runs["never"] / "train.log").read_text()


def test_the_same_evaluation(runs):
  actual = {how: evaluate.evaluate(path, "valid", baselines=baselines.TRIVIAL)
           for how, path in runs.items()}
  assert actual["never"] == actual["always"]
  csv = [(path / "evaluation" / "valid" / "per_graph.csv").read_text() for path in runs.values()]
  assert csv[0] == csv[1] and "size_heuristic" in csv[0]


def test_the_same_features_for_boosted_trees(runs):
  configs = [run_directory.RunDirectory(path).read_config() for path in runs.values()]
  for one, other in zip(*(splits.load_programs(config.data, "train") for config in configs)):
    assert isinstance(other.graph, packed_graphs._PackedGraph)
    np.testing.assert_array_equal(tree_features.features(one.graph, one.indices),
                                  tree_features.features(other.graph, other.indices))


def test_the_same_prediction(runs):
  done = {how: predict.predict(path, "test") for how, path in runs.items()}
  assert done["never"].part.read_bytes() == done["always"].part.read_bytes()
  scores = [npz.read_arrays(actual.scores) for actual in done.values()]
  assert scores[0].keys() == scores[1].keys() and len(scores[0]) == 2
  for name in scores[0]:
    np.testing.assert_array_equal(scores[0][name], scores[1][name])


@pytest.mark.slow
@pytest.mark.parametrize("runs", ["tile"], indirect=True)
def test_a_run_resumes_with_either_kind_of_files(runs, tmp_path):
  configs = {how: run_directory.RunDirectory(path).read_config() for how, path in runs.items()}
  trainer.Trainer(configs["never"]).train(tmp_path, stop_after=1)
  trainer.Trainer(configs["always"]).train(tmp_path)
  small_runs.assert_same_run(tmp_path, runs["never"])


def test_packed_and_unpacked_runs_can_be_compared(runs):
  actual = comparison.compare({"a": [runs["never"]], "b": [runs["always"]]}, "valid", [0], [])
  for one, other in zip(actual.scores["a"][0], actual.scores["b"][0], strict=True):
    np.testing.assert_array_equal(one, other)
