"""Validation in training on the published configurations of the public layout collections."""

import numpy as np
import pytest

from tests import public_tree
from tests.training import small_runs
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.data import published
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.training import run as run_lib
from tpugraphs_rank.training import trainer

NAME = "layout:xla:random"


def _settings(root, **changes):
  return config_lib.override(small_runs.settings(NAME), {
      "data.data_root": str(root), "data.max_graphs": 3, "training.epochs": 1,
      "training.validation_configs": "published",
      **{name.replace("_", ".", 1): value for name, value in changes.items()}})


@pytest.fixture(scope="module", name="root")
def fixture_root(tmp_path_factory):
  root = tmp_path_factory.mktemp("public")
  public_tree.write_tree(root, collections=[NAME], splits=["train", "valid"])
  return root


def test_the_validation_metric_is_that_of_the_published_configurations(root, tmp_path):
  config = _settings(root, batch_eval_batch_configs=300)
  training = trainer.Trainer(config)
  graphs = registry.get_collection(NAME).splits["valid"]
  assert training.plan()["valid_configurations"] == graphs * public_tree.EVAL_INDICES
  result = training.train(tmp_path / "run")
  # The slow way: score everything, then pick, repeats kept.
  run = run_lib.load_run(tmp_path / "run")
  listed = published.read_indices(root / "eval_indices" / "xla_random.json")
  taus = []
  for program in splits.load_programs(config.data, "valid"):
    picked = listed[program.graph.name]
    taus.append(metrics.kendall_tau(
        program.graph.config_runtime[picked], run.score(program.graph)[picked]))
  np.testing.assert_allclose(result.metrics["kendall_tau"], np.mean(taus), atol=1e-4)


def test_without_the_indices(root, tmp_path):
  (tmp_path / "npz").symlink_to(root / "npz")
  with pytest.raises(errors.MissingDataError, match="download --collections= --extras"):
    trainer.Trainer(_settings(tmp_path))


@pytest.mark.parametrize("changes", [
    {"data_collection": "tile:xla_cpu"}, {"data_split_by": "configuration"}])
def test_where_nothing_is_published(root, changes):
  with pytest.raises(errors.ConfigError, match="nothing is published for .*validation_configs=all"):
    trainer.Trainer(_settings(root, **changes))
