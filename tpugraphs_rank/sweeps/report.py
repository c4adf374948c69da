"""What a sweep has reached: a table of its trials, the best settings, and a figure."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import optuna
import pandas as pd

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import files
from tpugraphs_rank import run_config
from tpugraphs_rank.evaluation import plots
from tpugraphs_rank.sweeps import space as space_lib

TABLE, BEST, FIGURE = "sweep.csv", "best.json", "sweep.png"
REASON = "reason"  # The attribute of a failed trial with the error.

_State = optuna.trial.TrialState
_WORDS = {_State.COMPLETE: "finished", _State.PRUNED: "ended early", _State.FAIL: "failed",
          _State.RUNNING: "running"}
# Importances of fewer finished trials are noise.
_LEAST_FOR_IMPORTANCE = 8


@dataclasses.dataclass(frozen=True)
class Trial:
  """A trial.

  Attributes:
    number: of its folder, `trials/0007` for 7.
    state: finished, ended early, failed or running.
    value: the best validation metric so far; None if there is none.
    epoch: the last validated epoch; 0 if there is none.
    settings: the searched settings, by flag name.
    reason: why it failed; "" if it did not.
  """

  number: int
  state: str
  value: float | None
  epoch: int
  settings: dict[str, Any]
  reason: str


@dataclasses.dataclass(frozen=True)
class Outcome:
  """The trials of a sweep, best first; those without a metric come last.

  Attributes:
    trials: the trials.
    metric: the validation metric.
    importance: for each setting its share of the variance between the finished trials, largest
      first (fANOVA, Hutter et al., ICML 2014); empty for few trials.
  """

  trials: list[Trial]
  metric: str
  importance: dict[str, float]

  @property
  def best(self) -> Trial | None:
    """The best finished trial; None if none is finished."""
    return next((one for one in self.trials if one.state == "finished"), None)


def write(folder: pathlib.Path, study: optuna.Study, space: space_lib.Space, metric: str,
          config: run_config.RunConfig, is_over: bool) -> Outcome:
  """Writes sweep.csv and best.json, and returns what they hold.

  Args:
    folder: of the sweep.
    study: its trials.
    space: its search space.
    metric: the validation metric.
    config: the settings that the sweep does not search.
    is_over: whether to write sweep.png and to compute the importance, too. Both take a while.

  Raises:
    OutputError: a file cannot be written.
  """
  higher = study.direction == optuna.study.StudyDirection.MAXIMIZE
  choose = max if higher else min
  trials = []
  for one in study.get_trials(deepcopy=False):
    if one.state == _State.WAITING:
      continue
    values = one.intermediate_values
    value = one.value if one.state == _State.COMPLETE else choose(values.values(), default=None)
    trials.append(Trial(one.number, _WORDS[one.state], value, max(values, default=0),
                        space.values(one.params), one.user_attrs.get(REASON, "")))
  trials.sort(key=lambda one: (one.value is None, 0.0 if one.value is None else
                               -one.value if higher else one.value, one.number))
  outcome = Outcome(trials, metric, _importance(study) if is_over else {})
  files.write_text(folder / TABLE, pd.DataFrame([
      {"trial": one.number, "state": one.state, f"valid_{metric}": one.value, "epoch": one.epoch,
       **one.settings, "reason": one.reason} for one in trials],
      columns=["trial", "state", f"valid_{metric}", "epoch", *space.ranges, "reason"]
  ).to_csv(index=False, lineterminator="\n"))
  if outcome.best is not None:
    best = config_lib.override_by_flag(config, outcome.best.settings)
    files.write_json(folder / BEST, config_lib.to_dict(best))
    if is_over:
      plots.sweep(folder / FIGURE, metric, higher, [
          (one.number, one.value, one.state == "finished", one.settings)
          for one in trials if one.value is not None], outcome.importance)
  return outcome


def _importance(study: optuna.Study) -> dict[str, float]:
  finished = [one for one in study.get_trials(deepcopy=False) if one.state == _State.COMPLETE]
  if len(finished) < _LEAST_FOR_IMPORTANCE or np.ptp([one.value for one in finished]) == 0:
    return {}
  varied = [name for name in finished[0].params
            if len({one.params.get(name) for one in finished}) > 1]
  if not varied:
    return {}
  return dict(optuna.importance.get_param_importances(
      study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0), params=varied))
