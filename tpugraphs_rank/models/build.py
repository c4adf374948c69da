"""The model that a configuration names."""

from typing import Any

from tpugraphs_rank import errors
from tpugraphs_rank import plugins
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
  models = [_new_model(name, model_class, kind, config) for _ in range(members)]
  with plugins.calling(f"required_inputs of the model {name!r}"):
    inputs.check_names(models[0].required_inputs())
  if config.batch.segment_mode == "backprop" and not models[0].supports_segments:
    raise errors.ConfigError(
        f"batch.segment_mode = 'backprop': the model {name!r} cannot limit gradients to a segment; "
        "choose 'full' or 'drop'")
  return models[0] if members == 1 else ensemble.Ensemble(models)


def _new_model(name: str, model_class: Any, kind: str, config: run_config.RunConfig
               ) -> interface.RankingModel:
  """One member of the model of this name."""
  base = interface.RankingModel
  if isinstance(model_class, type) and issubclass(model_class, base):
    for method in ("required_inputs", "call"):
      if getattr(model_class, method) is getattr(base, method):
        raise errors.ConfigError(
            f"the model {name!r} lacks the method {method}; {model_class.__name__} must implement "
            "it")
  # The loss is a mean over members, so their regularisation is a mean, too.
  l2 = config.loss.l2_regularization / config.model.members
  with plugins.calling(f"the model {name!r}"):
    model = model_class(kind, config.model, l2)
  if not isinstance(model, base):
    raise errors.ConfigError(
        f"the model {name!r} is a {type(model).__name__}; expected a class derived from "
        "tpugraphs_rank.models.RankingModel")
  return model
