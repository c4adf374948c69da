"""Ranking metrics on the validation split, for early stopping."""

from collections.abc import Sequence

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import plugins
from tpugraphs_rank.data import batches
from tpugraphs_rank.metrics import validation

# Metrics that are computed in every run, whichever selects the checkpoint.
STANDARD = ("kendall_tau", "opa", "top1_slowdown", "top5_slowdown", "top10_slowdown")


def metric_names(selected: str) -> tuple[str, ...]:
  """The metrics of a run whose setting `validation_metric` is `selected`."""
  return STANDARD if selected in STANDARD else (*STANDARD, selected)


def higher_is_better(name: str) -> bool:
  """Whether a larger value of a metric is better."""
  return validation.get(name).higher_is_better


def ranking_metrics(prepared: Sequence[batches.PreparedGraph], scores: Sequence[np.ndarray],
                    selected: str = STANDARD[0]) -> dict[str, float | None]:
  """Means of the metrics over graphs.

  A graph for which a metric is not defined is left out of its mean: those without a pair of unequal
  runtimes have no OPA and no Kendall's tau. The value is None without any graph, and for all
  metrics if no graph has a pair of unequal runtimes.

  Args:
    prepared: the graphs.
    scores: for each graph the scores of its usable configurations.
    selected: the setting `validation_metric`.

  Raises:
    ConfigError: a registered metric fails or returns no number.
  """
  metrics: dict[str, float | None] = {}
  runtimes = [member.runtimes[member.choice] for member in prepared]
  has_order = any(np.ptp(values) > 0 for values in runtimes)
  for name in metric_names(selected):
    function = validation.get(name).function
    values = [_value(name, function, times, score) for times, score in zip(runtimes, scores)]
    defined = [value for value in values if np.isfinite(value)]
    metrics[name] = float(np.mean(defined)) if defined and has_order else None
  return metrics


def _value(name: str, function: validation.Function, runtimes: np.ndarray, scores: np.ndarray
           ) -> float:
  with plugins.calling(f"the validation metric {name!r}"):
    value = function(runtimes, scores)
  if value is None or isinstance(value, str) or np.ndim(value):
    raise errors.ConfigError(
        f"the validation metric {name!r} returns {type(value).__name__}; expected a number")
  return float(value)
