"""The search space of a sweep."""

import json

import pytest

from tpugraphs_rank import errors
from tpugraphs_rank import run_config

optuna = pytest.importorskip("optuna", reason="needs the extra `sweep`")

from tpugraphs_rank.sweeps import space as space_lib

BASE = run_config.RunConfig()


def test_ranges_become_distributions():
  space = space_lib.Space({
      "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
      "dropout": {"low": 0, "high": 0.35, "step": 0.1},
      "num_convolutions": {"low": 1, "high": 4}, "hidden_width": {"low": 16, "high": 100,
                                                                  "step": 16},
      "head_widths": {"choices": [[64], [64, 64]]}, "layer_norm": {"choices": [False, True]}},
                          BASE, "space.json")
  distributions = optuna.distributions
  assert space.distributions == {
      "learning_rate": distributions.FloatDistribution(1e-4, 1e-2, log=True),
      "dropout": distributions.FloatDistribution(0.0, 0.3, step=0.1),
      "num_convolutions": distributions.IntDistribution(1, 4),
      "hidden_width": distributions.IntDistribution(16, 96, step=16),
      "head_widths": distributions.CategoricalDistribution(["[64]", "[64, 64]"]),
      "layer_norm": distributions.CategoricalDistribution(["false", "true"])}
  config = space.applied(BASE, {"head_widths": "[64, 64]", "layer_norm": "true", "dropout": 0.1})
  assert config.model.head_widths == (64, 64) and config.model.layer_norm
  assert config.model.dropout == 0.1
  assert space.values({"head_widths": "[64]", "dropout": 0.1}) == {
      "head_widths": [64], "dropout": 0.1}


def test_settings_as_parameters():
  space = space_lib.Space({
      "learning_rate": {"low": 1e-4, "high": 1e-2}, "hidden_width": {"choices": [8, 16]},
      "num_convolutions": {"low": 2, "high": 6, "step": 2}, "max_configs": {"low": 1 + 2,
                                                                             "high": 9, "step": 3},
      "head_widths": {"choices": [[64], [8]]}, "dropout": {"low": 0.1, "high": 0.2}},
                          BASE, "space.json")
  # Values outside of the space (the width, the configurations, the dropout) have no parameter.
  assert space.parameters_of(BASE) == {
      "learning_rate": BASE.optimizer.learning_rate, "num_convolutions": 2,
      "head_widths": "[64]"}


@pytest.mark.parametrize("ranges, expected", [
    ([], "expected a JSON object"), ({}, "expected a JSON object"),
    ({"hiden_width": {"choices": [1]}}, "hidden_width"),
    ({"hidden_width": 3}, "is 3; expected"),
    ({"hidden_width": {}}, "has the keys none"),
    ({"hidden_width": {"choices": [1], "low": 1}}, "has the keys choices, low"),
    ({"hidden_width": {"low": 1, "hihg": 2}}, "has the keys hihg, low"),
    ({"hidden_width": {"choices": []}}, "no choices"),
    ({"hidden_width": {"choices": [8, 8]}}, "twice"),
    ({"hidden_width": {"choices": [8, 0]}}, "expected at least 1"),
    ({"hidden_width": {"choices": ["wide"]}}, "is not a whole number"),
    ({"hidden_width": {"low": 1, "high": 2.5}}, "high = 2.5; expected a whole number"),
    ({"hidden_width": {"low": 1}}, "high = None"),
    ({"hidden_width": {"low": 8, "high": 8}}, "low < high"),
    ({"hidden_width": {"low": 0, "high": 8}}, "expected at least 1"),
    ({"dropout": {"low": 0.0, "high": 0.5, "log": True}}, "low > 0"),
    ({"dropout": {"low": 0.1, "high": 0.5, "log": 1.5}}, "log = 1.5"),
    ({"dropout": {"low": 0.1, "high": 0.5, "step": 0.5}}, "has the step 0.5"),
    ({"dropout": {"low": 0.1, "high": 1.5}}, "expected at most 0.9"),
    ({"dropout": {"low": float("nan"), "high": 1.5}}, "low = nan"),
    ({"model": {"low": 1, "high": 2}}, "model"),
    ({"collection": {"choices": ["tile:xla_cpu"]}}, "collection cannot be searched"),
])
def test_wrong_ranges_are_refused(ranges, expected):
  with pytest.raises(errors.ConfigError, match="space.json") as error:
    space_lib.Space(ranges, BASE, "space.json")
  assert expected in str(error.value)


def test_files(tmp_path):
  path = tmp_path / "space.json"
  with pytest.raises(errors.ConfigError, match="--space: no file"):
    space_lib.read(str(path))
  path.write_text("{", encoding="utf-8")
  with pytest.raises(errors.ConfigError, match="--space: .*JSON"):
    space_lib.read(str(path))
  path.write_text(json.dumps({"dropout": {"low": 0.1, "high": 0.2}}), encoding="utf-8")
  assert space_lib.read(str(path)) == {"dropout": {"low": 0.1, "high": 0.2}}
