"""Metrics that can select a checkpoint (the setting `validation_metric`), by name.

`register("ndcg", ndcg, higher_is_better=True)` adds one: a function of (runtimes, scores) of one
graph that returns a float, or NaN where the metric is not defined. The value for a split is the
mean over the graphs where it is defined.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import numpy as np

from tpugraphs_rank import registries
from tpugraphs_rank.metrics import pairs
from tpugraphs_rank.metrics import slowdown

Function = Callable[[np.ndarray, np.ndarray], float]


class Metric(NamedTuple):
  """A validation metric.

  Attributes:
    function: of runtimes (c,) > 0 and scores (c,), higher = predicted faster; NaN if undefined.
    higher_is_better: whether a larger value is better.
  """

  function: Function
  higher_is_better: bool


KENDALL_TAU = Metric(pairs.kendall_tau, True)
OPA = Metric(pairs.opa, True)
TOP1_SLOWDOWN = Metric(functools.partial(slowdown.topk_slowdown, k=1), False)
TOP5_SLOWDOWN = Metric(functools.partial(slowdown.topk_slowdown, k=5), False)
TOP10_SLOWDOWN = Metric(functools.partial(slowdown.topk_slowdown, k=10), False)


def register(name: str, function: Function | None = None, *, higher_is_better: bool,
             replace: bool = False) -> Any:
  """Registers a validation metric. Without a function it is a decorator.

  Args:
    name: the name that the setting `validation_metric` uses.
    function: of (runtimes, scores), as of `Metric`.
    higher_is_better: whether a larger value is better.
    replace: whether it may replace another metric of that name.

  Raises:
    ConfigError: the name is taken.
  """
  if function is None:
    return lambda decorated: register(
        name, decorated, higher_is_better=higher_is_better, replace=replace)
  registries.VALIDATION_METRICS.register(name, Metric(function, higher_is_better), replace=replace)
  return function


def get(name: str) -> Metric:
  """The metric of a name; raises UnknownNameError, see `plugins.Registry.get`."""
  return registries.VALIDATION_METRICS.get(name)


def names() -> tuple[str, ...]:
  """The names of all validation metrics, the built-in ones first."""
  return registries.VALIDATION_METRICS.names()
