"""Searches the settings of a training: many runs, of which bad ones end early.

The trials are kept in Optuna's journal, a file in the sweep's folder. Several processes, also of
several machines that share the folder, work on one sweep: each takes a trial, trains it in a run
directory of its own, and reports its validation metric. A trial whose process was killed is resumed
by the next process that looks for work.

The sampler is a tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011). A trial ends
early if its best validation metric so far is worse than the median of the other trials at that
epoch.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import logging
import os
import pathlib
import time
from typing import Any

import numpy as np
import optuna
from optuna.storages import journal
import tensorflow as tf

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import folder_locks
from tpugraphs_rank import folder_settings
from tpugraphs_rank import run_config
from tpugraphs_rank.evaluation import run_files
from tpugraphs_rank.metrics import validation as validation_metrics
from tpugraphs_rank.sweeps import report
from tpugraphs_rank.sweeps import space as space_lib
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import trainer

_logger = logging.getLogger(__name__)

_STUDY = "sweep"
# Trials that are not ended early, because there is too little to compare them with.
_STARTUP_TRIALS = 5
# If this many first trials all fail, the others would fail, too.
_FAILURES = 3
# After this time, a process that lives has removed a lock that it had renamed.
_REMOVED_SECONDS = 1.0
_State = optuna.trial.TrialState

# Trains a run in a folder; yields each epoch, its metric (NaN: not validated) and whether the run
# is finished.
Train = Callable[[run_config.RunConfig, pathlib.Path], Iterator[tuple[int, float, bool]]]


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a sweep searches.

  Attributes:
    trials: the number of trials of the sweep, over all processes and calls.
    minutes: begin no trial after this time; None: no limit.
    prune: whether bad trials end early.
    seed: of the sampler.
  """

  trials: int = 30
  minutes: float | None = None
  prune: bool = True
  seed: int = 0


def run(folder: files.PathLike, config: run_config.RunConfig, space: space_lib.Space,
        settings: Settings, train: Train | None = None) -> report.Outcome:
  """Runs trials until the sweep has enough of them, and writes its report after each.

  Args:
    folder: of the sweep; `trials/0000/run` and so on are the run directories.
    config: the settings that the space does not search. The first trial has these settings, where
      the space contains them.
    space: what is searched.
    settings: how.
    train: trains a run; the default trains with `trainer.Trainer`.

  Raises:
    RunDirectoryError: the folder belongs to another sweep.
    TrainingError: the first trials all failed.
    OutputError: the folder cannot be written.
  """
  folder = pathlib.Path(folder)
  metric = config.training.validation_metric
  folder_settings.check(folder, {
      "config": {name: value for name, value in _plain(config).items()
                 if name.rpartition(".")[2] not in space.ranges},
      "space": space.ranges, "prune": settings.prune, "seed": settings.seed})
  study = _study(folder, config, space, settings)
  deadline = None if settings.minutes is None else time.monotonic() + 60 * settings.minutes
  while deadline is None or time.monotonic() < deadline:
    with _next(folder, study, space, settings) as trial:
      if trial is None:
        break
      _run_trial(folder, study, trial, config, space, settings, train or _train)
    outcome = report.write(folder, study, space, metric, config, is_over=False)
    failed = [one for one in outcome.trials if one.state == "failed"]
    if len(failed) == len(outcome.trials) >= _FAILURES:
      raise errors.TrainingError(
          f"the first {len(failed)} trials failed, the last one with: {failed[-1].reason}; "
          f"{folder / report.TABLE} lists them; correct the settings or the search space, and "
          "choose another folder")
  return report.write(folder, study, space, metric, config, is_over=True)


def _plain(config: run_config.RunConfig) -> dict[str, Any]:
  """The settings that results depend on, as JSON values, by dotted name."""
  return {name: list(value) if isinstance(value, tuple) else value
          for name, field, value in config_lib.leaves(config)
          if field.metadata.get("hashed", True)}


def _remove_left_locks(journal_file: pathlib.Path) -> None:
  """Removes lock files that killed processes left.

  Optuna renames a lock and then removes it. A process that lives removes it at once; what is still
  there after a second is a killed one's.
  """
  left = list(journal_file.parent.glob(f"{journal_file.name}.lock*.rename"))
  if left:
    time.sleep(_REMOVED_SECONDS)
    for path in left:
      path.unlink(missing_ok=True)


def _repair(path: pathlib.Path) -> None:
  """Removes an incomplete last line, which a full disk or the loss of power leaves.

  Optuna would add the next line to it. Whoever wrote it did not go on.

  Raises:
    OutputError: the file is a link or a pipe, or cannot be written.
  """
  with files.open_to_append(path) as file:
    lock = journal.JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
      size = file.seek(0, os.SEEK_END)
      file.seek(0)
      complete = file.read().rfind(b"\n") + 1
      if complete < size:
        _logger.warning("%s: removed its last line, which was incomplete", path)
        file.truncate(complete)
    finally:
      lock.release()


def _study(folder: pathlib.Path, config: run_config.RunConfig, space: space_lib.Space,
           settings: Settings) -> optuna.Study:
  optuna.logging.set_verbosity(optuna.logging.ERROR)
  # A link as a lock works on network file systems, too.
  path = str(folder / "journal.log")
  try:
    _remove_left_locks(folder / "journal.log")
    _repair(folder / "journal.log")
    storage = optuna.storages.JournalStorage(journal.JournalFileBackend(
        path, journal.JournalFileSymlinkLock(path)))
    higher = validation_metrics.get(config.training.validation_metric).higher_is_better
    study = optuna.create_study(
        storage=storage, study_name=_STUDY, load_if_exists=True,
        direction="maximize" if higher else "minimize",
        pruner=optuna.pruners.MedianPruner(
            _STARTUP_TRIALS, n_warmup_steps=config.training.epochs // 10)
        if settings.prune else optuna.pruners.NopPruner())
  except errors.TpuGraphsRankError:
    raise
  except OSError as error:
    raise files.output_error(path, error) from error
  except (ValueError, LookupError, TypeError, AssertionError, RuntimeError) as error:
    raise errors.RunDirectoryError(
        f"{path} is damaged: {escaping.printable(str(error))}; restore it, or choose another "
        "folder") from error
  trials = study.get_trials(deepcopy=False)
  for trial in trials:
    trial_folder = _folder(folder, trial.number)
    if trial.state.is_finished() and (trial_folder / folder_locks.NAME).exists():
      # By a process that was killed between the end of its trial and the release.
      with contextlib.suppress(errors.RunDirectoryError), folder_locks.hold(trial_folder):
        pass
  base = space.parameters_of(config)
  if base and not trials:
    study.enqueue_trial(base, skip_if_exists=True)
  return study


@contextlib.contextmanager
def _next(folder: pathlib.Path, study: optuna.Study, space: space_lib.Space, settings: Settings
          ) -> Iterator[optuna.Trial | None]:
  """A trial for this process, whose folder is locked in the block; None: there is nothing to do."""
  with contextlib.ExitStack() as stack:
    # One process at a time, because a trial that another one begins is not locked at once.
    with folder_locks.hold(folder / "trials", wait=True):
      trial = _choose(folder, study, space, settings, stack)
    yield trial


def _choose(folder: pathlib.Path, study: optuna.Study, space: space_lib.Space, settings: Settings,
            stack: contextlib.ExitStack) -> optuna.Trial | None:
  """A trial of a process that was killed, or a new one; its lock belongs to the stack."""
  def lock(number: int) -> bool:
    try:
      stack.enter_context(folder_locks.hold(_folder(folder, number)))
    except errors.RunDirectoryError:
      return False
    return True

  for frozen in study.get_trials(states=[_State.RUNNING]):
    if lock(frozen.number):
      # Whoever held the lock until now may have finished the trial.
      if study.get_trials(deepcopy=False)[frozen.number].state == _State.RUNNING:
        _logger.info("resuming trial %d", frozen.number)
        _seed(study, settings, frozen.number)
        # Optuna has no public function to continue a trial.
        trial = optuna.trial.Trial(study, frozen._trial_id)
        for name, distribution in space.distributions.items():
          trial._suggest(name, distribution)  # The killed process may not have come to all.
        return trial
      stack.close()
  while True:
    begun = [one for one in study.get_trials(deepcopy=False) if one.state != _State.WAITING]
    if len(begun) >= settings.trials:
      return None
    _seed(study, settings, len(begun))
    trial = study.ask(space.distributions)
    if lock(trial.number):
      return trial


def _seed(study: optuna.Study, settings: Settings, number: int) -> None:
  """Gives each trial a seed of its own: a resumed sweep draws what an uninterrupted one would."""
  seed = np.random.SeedSequence([settings.seed, number]).generate_state(1)[0]
  study.sampler = optuna.samplers.TPESampler(seed=int(seed))


def _folder(folder: pathlib.Path, number: int) -> pathlib.Path:
  return folder / "trials" / f"{number:04d}"


def _run_trial(folder: pathlib.Path, study: optuna.Study, trial: optuna.Trial,
               config: run_config.RunConfig, space: space_lib.Space, settings: Settings,
               train: Train) -> None:
  """Trains a trial and reports its result."""
  place = _folder(folder, trial.number)
  reported = study.get_trials(deepcopy=False)[trial.number].intermediate_values
  best: float | None = None
  is_better = max if study.direction == optuna.study.StudyDirection.MAXIMIZE else min
  try:
    chosen = space.applied(config, trial.params)
    _logger.info("trial %d: %s", trial.number, ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in space.values(trial.params).items()))
    for epoch, value, is_done in train(chosen, place / "run"):
      if not np.isfinite(value):
        continue
      best = value if best is None else is_better(best, value)
      if epoch not in reported:
        trial.report(value, epoch)
      if settings.prune and not is_done and trial.should_prune():
        study.tell(trial, state=_State.PRUNED)
        return
    if best is None:
      raise errors.TrainingError(
          f"{config.training.validation_metric} is undefined on the validation split")
  except (errors.ConfigError, errors.TrainingError) as error:
    # Settings that do not fit together, or a training that diverges, are a bad trial.
    trial.set_user_attr(report.REASON, str(error))
    study.tell(trial, state=_State.FAIL)
    _logger.warning("trial %d failed: %s", trial.number, error)
    return
  study.tell(trial, best)


def _train(config: run_config.RunConfig, run_dir: pathlib.Path
           ) -> Iterator[tuple[int, float, bool]]:
  """Trains a run; see `Train`."""
  training = trainer.Trainer(config)
  # Each call begins with reading a checkpoint, so that there are at most about 20 of them.
  every = config.training.validate_every
  every *= -(-config.training.epochs // (20 * every))
  key = f"valid_{config.training.validation_metric}"
  seen = 0
  try:
    while True:
      result = training.train(run_dir, stop_after=every)
      is_done = result.state in run_directory.DONE
      history = run_files.read_history(run_dir)
      for epoch, value in zip(history["epoch"][seen:], history[key][seen:]):
        yield int(epoch), float(value), is_done
      seen = len(history)
      if is_done:
        return
  finally:
    del training
    tf.keras.backend.clear_session()  # Or the graphs of all trials stay in memory.
