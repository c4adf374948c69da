"""The settings of an ensemble's further kinds: what may differ from the run's own, and the result.

The setting `kinds` is a list of objects. Each describes networks that differ from those of the run
in model, objective or features, by the names of the flags:

    [{"model": "attention_gnn"}, {"losses": ["pairwise_hinge"], "tile_features": "bounds"}]
"""

from collections.abc import Mapping
from typing import Any

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import run_config

_SECTIONS = ("batch", "model", "loss", "optimizer", "training")
# Members are averaged over the same programs, and a run has one prior, one set of trees and one
# seed, which also divides configurations between training and validation.
_OF_THE_RUN = ("model.kinds", "model.trees_weight", "model.trees_objectives", "model.prior",
               "training.seed", "training.validation_configs")
_OF_EACH = "training.initial_checkpoint"  # Weights of another architecture do not fit.


def may_differ() -> dict[str, str]:
  """The dotted name of each setting that a kind may have for itself, by the name of its flag."""
  return {name.rpartition(".")[2]: name
          for name, field, _ in config_lib.leaves(run_config.RunConfig)
          if name == _OF_EACH or name.partition(".")[0] in _SECTIONS
          and field.metadata["hashed"] and name not in _OF_THE_RUN}


def of(config: run_config.RunConfig) -> tuple[run_config.RunConfig, ...]:
  """The configuration of each further kind of a run, in order.

  A kind has the settings of the run, except for those that it sets itself. It has neither trees nor
  a prior of its own.

  Raises:
    ConfigError: a kind sets what is not known, what may not differ, or a wrong value.
  """
  shared = config_lib.override(config, {
      "model.kinds": (), "model.trees_weight": 0.0, "model.prior": "none", _OF_EACH: None})
  return tuple(_of_one(shared, kind, f"kinds: kind {number}")
               for number, kind in enumerate(config.model.kinds, start=1))


def _of_one(shared: run_config.RunConfig, kind: Mapping[str, Any], source: str
            ) -> run_config.RunConfig:
  known = may_differ()
  for name in kind:
    if name not in known:
      is_setting = name in config_lib.flag_names(run_config.RunConfig)
      problem = (f"{name} is the same for all kinds" if is_setting else
                 f"unknown setting {escaping.value(name)}{config_lib.nearest(name, known)}")
      raise errors.ConfigError(
          f"{source}: {problem}; a kind may set: {', '.join(sorted(known))}")
  return config_lib.override(
      shared, {known[name]: value for name, value in kind.items()}, source=source)


def text(kind: Mapping[str, Any]) -> str:
  """What a kind sets, on one line."""
  return ", ".join(f"{name} {escaping.value(value)}" for name, value in kind.items()) or (
      "other initial weights only")


def weights_seed(config: run_config.RunConfig, number: int) -> int:
  """The seed of the initial weights of a kind, from 1, so that equal kinds differ."""
  return (config.training.seed + number * 1_000_003) % 2**31
