"""The settings of an ensemble's further kinds."""

import pytest

from tests.training import small_runs
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank.training import kind_settings
from tpugraphs_rank.training import training_data


def _with(*kinds, **changes):
  return small_runs.settings("c.json", model_kinds=list(kinds), **changes)


def test_a_kind_has_the_settings_of_the_run_except_for_its_own():
  run = _with({"model": "attention_gnn", "members": 2, "epochs": 9}, {"losses": ["mse"]},
              model_trees_weight=0.5, training_seed=7, training_initial_checkpoint="before",
              batch_feature_noise=0.25)
  first, second = kind_settings.of(run)
  assert config_lib.differences(run, first) == [
      "model.model: stored 'residual_gnn', requested 'attention_gnn'",
      "model.members: stored 1, requested 2",
      f"model.kinds: stored {run.model.kinds!r}, requested ()",
      "model.prior: stored 'analytic', requested 'none'",
      "model.trees_weight: stored 0.5, requested 0.0",
      "training.epochs: stored 4, requested 9"]
  assert second.loss.losses == ("mse",) and second.model.model == "residual_gnn"
  # The seed divides data, so that only the initial weights have another one.
  assert first.training.seed == second.training.seed == 7
  assert len({7, *(kind_settings.weights_seed(run, number) for number in (1, 2))}) == 3
  # Weights of the run's own architecture are no start for another one.
  assert first.training.initial_checkpoint is None
  (again,) = kind_settings.of(_with({"initial_checkpoint": "runs/a/kinds/1"}))
  assert again.training.initial_checkpoint == "runs/a/kinds/1"


def test_without_kinds_the_hash_is_as_if_the_setting_did_not_exist():
  run = run_config.RunConfig()
  assert kind_settings.of(run) == ()
  hashed = [name for name, field, value in config_lib.leaves(run)
            if field.metadata["hashed"] and value != {}]
  assert "model.kinds" in hashed  # Of a version that would not leave it out.
  hash_ = config_lib.stable_hash(run)
  assert hash_ != config_lib.stable_hash(config_lib.override(run, {"model.kinds": [{}]}))
  assert hash_ == "4d506b10bbed70d0"


@pytest.mark.parametrize("name", [
    "collection", "seed", "split_by", "plugin", "threads", "kinds", "trees_weight",
    "trees_objectives", "prior", "synthetic", "validation_configs", "scoring_megabytes",
    "max_graphs"])
def test_what_all_kinds_share(name):
  with pytest.raises(errors.ConfigError, match=(
      rf"^kinds: kind 2: {name} is the same for all kinds; a kind may set: activation, .*losses")):
    kind_settings.of(_with({}, {name: 1}))


@pytest.mark.parametrize("kind, message", [
    ({"hiden_width": 3}, r"kinds: kind 1: unknown setting 'hiden_width' \(did you mean "
                         r"'hidden_width'\?\); a kind may set: activation, "),
    ({"model": "gnn"}, "kinds: kind 1: model.model = 'gnn'"),
    ({"hidden_width": 0}, "kinds: kind 1: model.hidden_width = 0; expected at least 1"),
    ({"losses": ["mse", "softmax"]}, "kinds: kind 1: loss.losses names 2 losses, .* gives 1"),
    ({"pooling": []}, "kinds: kind 1: model.pooling is empty")])
def test_wrong_settings_of_a_kind(kind, message):
  with pytest.raises(errors.ConfigError, match=message):
    training_data.check(_with(kind))


@pytest.mark.parametrize("value", [{"model": "attention_gnn"}, "attention_gnn", [1], [[]]])
def test_kinds_are_a_list_of_objects(value):
  with pytest.raises(errors.ConfigError, match=(
      "model.kinds = .* is not a list in which each element is a JSON object")):
    config_lib.override(run_config.RunConfig(), {"model.kinds": value})


def test_a_line_about_a_kind():
  assert kind_settings.text({"model": "attention_gnn", "epochs": 3}) == (
      "model 'attention_gnn', epochs 3")
  assert kind_settings.text({}) == "other initial weights only"
