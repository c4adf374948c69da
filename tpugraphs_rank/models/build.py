"""The model that a configuration names."""

from typing import Union

from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank.models import ensemble
from tpugraphs_rank.models import ranker

Model = Union[ranker.Ranker, ensemble.Members]


def build_model(kind: str, config: run_config.RunConfig) -> Model:
  """The model of a run's configuration, its variables not yet created.

  Raises:
    ConfigError: settings that exclude one another.
  """
  if config.model.model == "attention_gnn" and config.model.join == "late" and kind == "tile":
    raise errors.ConfigError(
        "model.join = 'late' keeps tile configurations out of the convolutions, where "
        "attention_gnn compares them; choose join = 'early' or 'both', or model = 'residual_gnn'")
  make = ranker.Ranker if config.model.members == 1 else ensemble.Members
  return make(kind, config.model, config.loss.l2_regularization)
