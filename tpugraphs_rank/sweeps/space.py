"""The search space of a sweep: for each setting a list of choices, or a range of numbers.

    {"hidden_width": {"choices": [32, 64, 128]},
     "learning_rate": {"low": 3e-4, "high": 1e-2, "log": true},
     "num_convolutions": {"low": 1, "high": 4, "step": 1}}

Settings have the names of the flags that `tpugraphs-rank train --help` lists. A range of a whole
number has whole ends; its step is 1 if there is none.
"""

from collections.abc import Mapping
import decimal
import json
import math
from typing import Any

import optuna

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import run_config

Distribution = optuna.distributions.BaseDistribution

_NUMBERS = (optuna.distributions.IntDistribution, optuna.distributions.FloatDistribution)
_RANGE = {"low", "high", "log", "step"}
# Settings of the sweep itself: trials that differ in them could not be compared.
_FIXED = ("collection", "data_root", "packed_root", "split_by", "validation_metric", "plugin",
          "validation_configs", "train_fraction", "valid_fraction", "initial_checkpoint",
          # Trials are compared by the run's own networks.
          "kinds")
_MOST_STEPS = 10**9
_EXPECTED = ('expected {"choices": [...]}, or {"low": ..., "high": ...} with "log": true or '
             '"step": ... if wanted')


class Space:
  """A search space, checked against the settings of a run."""

  def __init__(self, ranges: Any, base: run_config.RunConfig, source: str):
    """Checks the ranges.

    Args:
      ranges: as in the description of this module.
      base: the settings that the sweep does not search.
      source: where the ranges come from; messages begin with it.

    Raises:
      ConfigError: an unknown setting, or a range or value that the setting cannot have.
    """
    if not isinstance(ranges, Mapping) or not ranges:
      raise errors.ConfigError(f"{source}: expected a JSON object with a range for each setting")
    self._source = source
    self._names = config_lib.flag_names(run_config.RunConfig)
    self.ranges = {name: dict(one) if isinstance(one, Mapping) else one
                   for name, one in ranges.items()}
    values = {name: value for name, _, value in config_lib.leaves(base)}
    self.distributions: dict[str, Distribution] = {}
    for name, one in self.ranges.items():
      if name in _FIXED:
        raise errors.ConfigError(
            f"{source}: {name} cannot be searched, because trials that differ in it cannot be "
            "compared; leave it out")
      if not isinstance(one, Mapping):
        raise self._error(name, f"is {escaping.value(one)}; {_EXPECTED}")
      is_whole = isinstance(values.get(self._names.get(name, "")), int)
      self.distributions[name] = self._distribution(name, one, is_whole)
      for value in self._examples(name):
        self.applied(base, {name: value})

  def _error(self, name: str, text: str) -> errors.ConfigError:
    return errors.ConfigError(f"{self._source}: the range of {escaping.value(name)} {text}")

  def _distribution(self, name: str, one: Mapping[str, Any], is_whole: bool) -> Distribution:
    unknown = set(one) - _RANGE - {"choices"}
    if unknown or ("choices" in one) == bool(_RANGE & set(one)):
      keys = ", ".join(map(escaping.shown, sorted(one)))
      raise self._error(name, f"has the keys {keys or 'none'}; {_EXPECTED}")
    if "choices" in one:
      choices = one["choices"]
      if not isinstance(choices, (list, tuple)) or not choices:
        raise self._error(name, "has no choices; expected a list of values")
      texts = [json.dumps(choice) for choice in choices]
      if len(set(texts)) < len(texts):
        raise self._error(name, "names a choice twice; expected different values")
      # As text, since lists are valid values of settings but not of Optuna's choices.
      return optuna.distributions.CategoricalDistribution(texts)
    values: dict[str, Any] = {key: one.get(key) for key in ("low", "high", "step", "log")}
    low, high, step, log = values.values()
    if log not in (None, True, False):
      raise self._error(name, f"has log = {escaping.value(log)}; expected true or false")
    kinds = (int,) if is_whole else (int, float)
    for key, value in (("low", low), ("high", high), ("step", step)):
      if value is None and key == "step":
        continue
      if not isinstance(value, kinds) or isinstance(value, bool) or not math.isfinite(value):
        raise self._error(name, f"has {key} = {escaping.value(value)}; expected a "
                          f"{'whole' if is_whole else 'finite'} number")
    if not low < high or (log and low <= 0):
      raise self._error(name, f"goes from {low} to {high}; expected low < high"
                        + (", and low > 0 because of log" if log else ""))
    if step is not None and (log or not 0 < step <= high - low):
      raise self._error(name, f"has the step {step}; expected more than 0, at most {high - low}, "
                        "and no log")
    if step is not None and (high - low) / step > _MOST_STEPS:
      raise self._error(name, f"has the step {step} from {low} to {high}; expected at most "
                        f"{_MOST_STEPS:,} steps")
    if is_whole:
      # Optuna warns if the last step does not end at `high`.
      step = step or 1
      return optuna.distributions.IntDistribution(
          low, low + (high - low) // step * step, bool(log), step)
    if step is not None:
      first, width = decimal.Decimal(str(low)), decimal.Decimal(str(step))
      high = float(first + (decimal.Decimal(str(high)) - first) // width * width)
    return optuna.distributions.FloatDistribution(low, high, bool(log), step)

  def _examples(self, name: str) -> list[Any]:
    """Values at the limits of a range, as Optuna has them."""
    distribution = self.distributions[name]
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
      return list(distribution.choices)
    assert isinstance(distribution, _NUMBERS)
    return [distribution.low, distribution.high]

  def values(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The settings for parameters of Optuna."""
    return {name: files.parse_json(value, self._source) if isinstance(
        self.distributions[name], optuna.distributions.CategoricalDistribution) else value
            for name, value in parameters.items()}

  def applied(self, base: run_config.RunConfig, parameters: Mapping[str, Any]
              ) -> run_config.RunConfig:
    """The settings of a trial.

    Raises:
      ConfigError: a setting is unknown, or cannot have this value.
    """
    return config_lib.override_by_flag(base, self.values(parameters), source=self._source)

  def parameters_of(self, config: run_config.RunConfig) -> dict[str, Any]:
    """Optuna's parameters of given settings, where the space contains their values."""
    stored = {name: value for name, _, value in config_lib.leaves(config)}
    result = {}
    for name, distribution in self.distributions.items():
      value = stored[self._names[name]]
      if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        value = json.dumps(value)
        is_inside = value in distribution.choices
      else:
        assert isinstance(distribution, _NUMBERS)
        steps = 0.0 if distribution.step is None else (value - distribution.low) / distribution.step
        is_inside = (distribution.low <= value <= distribution.high
                     and abs(steps - round(steps)) < 1e-9)
      if is_inside:
        result[name] = value
    return result


def read(path: str) -> Any:
  """The ranges in a JSON file.

  Raises:
    ConfigError: there is no such file, or it is no JSON.
  """
  try:
    return files.read_json(files.expanded(path))
  except (errors.MissingDataError, errors.DataError) as error:
    raise errors.ConfigError(f"--space: {error}") from error
