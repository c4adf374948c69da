"""Trains a ranker for a number of CPU seconds, and evaluates it on the way."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import itertools
import time
from typing import Any

import numpy as np

from tpugraphs_rank import metrics
from tpugraphs_rank import models
from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import pipeline
from tpugraphs_rank.data import registry
from tpugraphs_rank.training import runtime
from tpugraphs_rank.training import scoring
from tpugraphs_rank.training import steps
from tpugraphs_rank.training import training_data

TOPS = (1, 5, 10)
# Measures of programs from their scores.
Measure = Callable[[Sequence[batches.PreparedGraph], Sequence[np.ndarray]], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Budget:
  """How long to train.

  Attributes:
    seconds: CPU seconds of all threads at which the model is evaluated; the last one ends training.
    valid_configs: configurations of each validation program that are scored.
    train_programs: training programs on which the model is evaluated, too.
    count_first: whether the first execution of a step counts. TensorFlow optimises the step's graph
      in it, which takes seconds. Otherwise a step is executed and undone first.
  """

  seconds: tuple[float, ...]
  valid_configs: int = 60
  train_programs: int = 3
  count_first: bool = True


def train(config: run_config.RunConfig, budget: Budget, measure: Measure | None = None
          ) -> dict[str, Any]:
  """Trains by CPU seconds; reading data, tracing and evaluation do not count.

  Args:
    config: of the run; its schedule must not depend on the number of steps, which is unknown.
    budget: how long.
    measure: what an evaluation returns, with "tau" at least. None: `evaluate`.

  Returns:
    "steps_per_second", "trace_seconds", and "curve": for each evaluation "seconds", "steps",
    "loss" (the mean since the last one), "train_tau" (and "train_opa", if it is measured) and the
    measures.
  """
  measure = measure or evaluate
  runtime.configure(config.training.seed, config.training.threads)
  collection = registry.get_collection(config.data.collection)
  data = training_data.load(config, collection)
  model = models.build_model(collection.kind, config)
  lists = pipeline.dataset(lambda: _lists(model, data.train, config))
  iterator = iter(lists)
  first = next(iterator)
  model.create_variables(first)
  started = time.process_time()
  stepper = steps.Stepper(model, config, 10 ** 6, lists.element_spec)
  step = stepper.train.get_concrete_function()
  if not budget.count_first:
    _execute_once(stepper, step, first)
  trace = time.process_time() - started
  scorer = scoring.Scorer(model, config)
  valid = [_limited(member, budget.valid_configs) for member in data.valid]
  known = [_limited(member, budget.valid_configs)
           for member in data.train[:budget.train_programs]]
  curve: list[dict[str, Any]] = []
  losses: list[float] = []
  used, count = 0.0, 0
  for end in budget.seconds:
    losses = losses[-1:] if used >= end else []
    while used < end:
      before = time.process_time()
      losses.append(float(step(first)["loss"]))
      first = next(iterator)
      used += time.process_time() - before
      count += 1
    with stepper.average.applied():
      of_known = measure(known, scorer(known))
      measures = measure(valid, scorer(valid))
    curve.append({"seconds": round(used, 1), "steps": count,
                  "loss": round(float(np.mean(losses)), 4),
                  **{f"train_{name}": of_known[name] for name in ("tau", "opa")
                     if name in of_known}, **measures})
    print(config.model.model, {name: value for name, value in curve[-1].items()
                               if not isinstance(value, dict)}, flush=True)
  return {"steps_per_second": round(count / used, 3), "trace_seconds": round(trace, 1),
          "parameters": sum(int(np.prod(v.shape)) for v in model.trainable_variables),
          "curve": curve}


def _execute_once(stepper: steps.Stepper, step: Callable[..., Any], batch: Any) -> None:
  """Executes a step and restores all variables."""
  variables = [one for group in stepper.variables().values() for one in group]
  before = [variable.numpy() for variable in variables]
  step(batch)
  for variable, value in zip(variables, before):
    variable.assign(value)


def _lists(model: models.RankingModel, prepared: Sequence[batches.PreparedGraph],
           config: run_config.RunConfig) -> Iterator[batches.Batch]:
  for epoch in itertools.count(1):
    yield from map(model.arrange, batches.training_batches(
        prepared, config.batch, config.training.seed, epoch))


def _limited(member: batches.PreparedGraph, count: int) -> batches.PreparedGraph:
  """A program with a random choice of its configurations, the same for every model."""
  choice = member.choice
  if len(choice) > count:
    choice = np.sort(np.random.default_rng(0).choice(choice, count, replace=False))
  return dataclasses.replace(member, choice=choice, plain=False)


def evaluate(prepared: Sequence[batches.PreparedGraph], scores: Sequence[np.ndarray]
             ) -> dict[str, float]:
  """Means over programs of tau, and of the slowdowns of the best of the first k.

  Programs without an order of runtimes have no tau; the mean of none is 0.
  """
  measures: dict[str, list[float]] = {}
  for member, values in zip(prepared, scores):
    times = member.runtimes[member.choice]
    measures.setdefault("tau", []).append(metrics.kendall_tau(times, values))
    for k in TOPS:
      measures.setdefault(f"top{k}_slowdown", []).append(metrics.topk_slowdown(times, values, k))
  return {name: round(float(np.mean([value for value in values if np.isfinite(value)] or [0.0])), 4)
          for name, values in measures.items()}
