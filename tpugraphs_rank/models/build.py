"""The model that a configuration names."""

from tpugraphs_rank import errors
from tpugraphs_rank import registries
from tpugraphs_rank import run_config
from tpugraphs_rank.models import ensemble
from tpugraphs_rank.models import inputs
from tpugraphs_rank.models import interface


def build_model(kind: str, config: run_config.RunConfig) -> interface.RankingModel:
  """The model of a run's configuration. Its variables do not exist yet.

  Args:
    kind: "tile" or "layout".
    config: the run's configuration; its plugins are loaded.

  Raises:
    UnknownNameError: no model is registered under the name, or it asks for an unknown input.
    ConfigError: settings that exclude one another, or a class that is not a `RankingModel`.
  """
  name, members = config.model.model, config.model.members
  model_class = registries.MODELS.get(name)
  # The loss is a mean over members, so their regularisation is a mean, too.
  models = [model_class(kind, config.model, config.loss.l2_regularization / members)
            for _ in range(members)]
  for model in models:
    if not isinstance(model, interface.RankingModel):
      raise errors.ConfigError(
          f"the model {name!r} is a {type(model).__name__}; expected a class derived from "
          "tpugraphs_rank.models.RankingModel")
  inputs.check_names(models[0].required_inputs())
  if config.batch.segment_mode == "backprop" and not models[0].supports_segments:
    raise errors.ConfigError(
        f"batch.segment_mode = 'backprop': the model {name!r} cannot limit gradients to a segment; "
        "choose 'full' or 'drop'")
  return models[0] if members == 1 else ensemble.Ensemble(models)
