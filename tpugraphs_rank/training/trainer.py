"""Trains a ranker: epochs, validation, early stopping, checkpoints, resume.

Training starts from the first of these that applies:
  1. the latest checkpoint in the run directory (the settings must be the same);
  2. the best weights of `training.initial_checkpoint`, with the normalizer of that run;
  3. initial weights from the seed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses
import itertools
import logging
import numbers
import time
from typing import Any

import numpy as np
import tensorflow as tf

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import plugins
from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import element_types
from tpugraphs_rank.data import mixing
from tpugraphs_rank.data import normalize
from tpugraphs_rank.data import pipeline
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import shares
from tpugraphs_rank.models import build_model
from tpugraphs_rank.training import checkpoints
from tpugraphs_rank.training import distribution as distribution_lib
from tpugraphs_rank.training import epochs as epochs_lib
from tpugraphs_rank.training import evidence_files
from tpugraphs_rank.training import extras
from tpugraphs_rank.training import kind_settings
from tpugraphs_rank.training import kinds
from tpugraphs_rank.training import kinds_file
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import runtime
from tpugraphs_rank.training import scoring
from tpugraphs_rank.training import shared_steps
from tpugraphs_rank.training import steps as steps_lib
from tpugraphs_rank.training import tile_prior
from tpugraphs_rank.training import training_data
from tpugraphs_rank.training import validation

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Result:
  """How a run ended.

  Attributes:
    run_dir: the run directory.
    state: "finished" (all epochs), "stopped_early" or "interrupted".
    epochs: total epochs trained.
    best_epoch: the epoch of the best checkpoint, from 1.
    metrics: validation metrics of the best checkpoint; None if not defined.
    of_all_kinds: those of the mean over all kinds of networks; empty if there is only one kind.
  """

  run_dir: run_directory.RunDirectory
  state: str
  epochs: int
  best_epoch: int
  metrics: dict[str, float | None]
  of_all_kinds: Mapping[str, float | None] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Progress(epochs_lib.Progress):
  """How far training is, and what the best checkpoint reached."""

  best_epoch: int = 0
  best_value: float | None = None
  best_metrics: dict[str, float | None] = dataclasses.field(default_factory=dict)


def _of_kind(number: int, count: int, directory: run_directory.RunDirectory, error: Exception
             ) -> errors.RunDirectoryError:
  """The error of a further kind, with what helps if its directory is damaged."""
  return errors.RunDirectoryError(
      f"kind {number} of {count}: {error}; if {directory.path} is damaged, delete it and run the "
      "same command again, which trains this kind again")


class Trainer:
  """Builds everything that a run needs; `train` then runs the epochs.

  Attributes:
    config: the configuration.
    collection: the collection of the real graphs.
    counts: for each split what was read and what was left out.
    normalizer: feature scaling.
    train_graphs, valid_graphs, synthetic_graphs: the prepared graphs.
    steps_per_epoch: training steps of an epoch.
    stepper: the training and validation step.
    scorer: scores validation graphs.
  """

  def __init__(self, config: run_config.RunConfig, first_weights: int | None = None,
               devices: distribution_lib.Choice | distribution_lib.Distribution | None = None):
    """Reads the data, fits the normalizer, builds the model and its step.

    Args:
      config: all settings.
      first_weights: seed of the initial weights only, for ensembles that train on the same
        programs. Default: `training.seed`, which also seeds everything else.
      devices: those that train together, chosen or already started; None: one. The result is the
        same up to rounding.

    Raises:
      TpuGraphsRankError: bad data or settings.
    """
    training_data.check(config)
    plugins.load_all(config.training.plugin)  # Known from now on, so that the run can be read.
    runtime.configure(
        config.training.seed if first_weights is None else first_weights, config.training.threads)
    self.distribution = (devices if isinstance(devices, distribution_lib.Distribution) else
                         distribution_lib.start(devices or distribution_lib.Choice()))
    self.config = config
    self._is_kind = first_weights is not None  # Or of another ensemble on the same programs.
    self.collection = registry.get_collection(config.data.collection)
    with self.distribution.together():
      self._set_up()

  def _set_up(self) -> None:
    config = self.config
    data = training_data.load(config, self.collection)
    self.counts, self.normalizer = data.counts, data.normalizer
    self.train_graphs, self.valid_graphs = data.train, data.valid
    self.synthetic_graphs = data.synthetic
    self._element_types = element_types.of_all(
        member.graph for member in (*data.train, *data.synthetic))
    self.steps_per_epoch = data.steps_per_epoch(config)
    with self.distribution.scope():
      self._model = build_model(self.collection.kind, config)
      self.stepper = self._build_stepper()
    self.scorer = scoring.Scorer(self._model, config)
    self._valid_lists = list(self._validation_lists())
    self._load_initial_weights()

  def _build_stepper(self) -> steps_lib.Stepper:
    """Creates the model's variables, the optimizer and the functions of a step."""
    first = pipeline.dataset(lambda: self._lists(0))
    self._model.create_variables(next(iter(first)))
    settings = (self._model, self.config, self.config.training.epochs * self.steps_per_epoch,
                first.element_spec)
    if self.distribution.count == 1:
      return steps_lib.Stepper(*settings)
    return shared_steps.SharedStepper(
        *settings, self._dataset(range(1)).element_spec, self.distribution)

  def _validation_lists(self) -> Iterator[Any]:
    """The batches of the validation loss: the same lists each time, so that the loss curve shows
    the model and not the sampling."""
    batch = self.config.batch
    plain = dataclasses.replace(
        batch, feature_noise=0.0, edge_drop_rate=0.0, config_skew=0.0,
        # In the mode "backprop" the forward pass uses the whole graph anyway.
        segment_mode="full" if batch.segment_mode in batches.SEGMENTS_ONLY
        else batch.segment_mode)

    def lists() -> Iterator[batches.Batch]:
      for one in batches.training_batches(
          self.valid_graphs, plain, self.config.training.seed, 0):
        if self.synthetic_graphs:
          one = mixing.weighted(one, self.config.augment, 0)
        yield self._model.arrange(one)

    return iter(pipeline.dataset(lists))

  def _load_initial_weights(self) -> None:
    initial = self.config.training.initial_checkpoint
    if initial is not None:
      checkpoints.restore(run_directory.RunDirectory(initial) / "checkpoints" / "best.npz",
                          {"model": self._model.trainable_variables})
      self.stepper.average.reset()

  def _lists(self, epoch: int) -> Iterator[batches.Batch]:
    """The training batches of an epoch."""
    return map(self._model.arrange, mixing.epoch_batches(
        self.train_graphs, self.synthetic_graphs, self.config, epoch))

  def _dataset(self, numbers: Iterable[int]) -> tf.data.Dataset:
    """What the training step takes in these epochs: batches, or this process's shares of them."""
    if self.distribution.count == 1:
      return pipeline.dataset(lambda: itertools.chain.from_iterable(map(self._lists, numbers)))
    return pipeline.dataset_of_shares(lambda: (
        [shares.arranged(share, self._model.arrange) for share in batch]
        for epoch in numbers for batch in shares.epoch_shares(
            self.train_graphs, self.synthetic_graphs, self.config, epoch, self.distribution.count,
            self.distribution.local)))

  def about(self) -> dict[str, Any]:
    """What the run is about, for its directory."""
    collection = self.collection
    return {"collection": collection.name, "kind": collection.kind, "target": collection.target,
            "hlo_stage": collection.hlo_stage, "element_types": self._element_types}

  def plan(self) -> dict[str, Any]:
    """What training will do, in numbers."""
    synthetic = {} if not self.synthetic_graphs else {
        "synthetic_programs": len(self.synthetic_graphs),
        "synthetic_lists_a_step": mixing.synthetic_lists(self.config)}
    about = {key: value for key, value in self.about().items() if key != "element_types"}
    together = {"trains_on": self.distribution.text} if self.distribution.text else {}
    return {
        **about, **together,
        "train_programs": len(self.train_graphs),
        **synthetic,
        **({"further_kinds": len(self.config.model.kinds)} if self.config.model.kinds else {}),
        "valid_programs": len(self.valid_graphs),
        "train_configurations": sum(len(member.choice) for member in self.train_graphs),
        "valid_configurations": sum(len(member.choice) for member in self.valid_graphs),
        "parameters": sum(int(np.prod(v.shape)) for v in self.stepper.model.trainable_variables),
        "steps_per_epoch": self.steps_per_epoch,
        "epochs_at_most": self.config.training.epochs,
        "config_hash": config_lib.stable_hash(self.config),
        **({"plain_execution": self._model.why_plain} if self._model.why_plain else {}),
    }

  def of_kind(self, number: int) -> "Trainer":
    """The trainer of a further kind of the ensemble, from 1, on the same devices."""
    return Trainer(kind_settings.of(self.config)[number - 1],
                   kind_settings.weights_seed(self.config, number), self.distribution)

  def one_step(self) -> dict[str, float]:
    """Runs the first training step, and returns its loss and gradient norm."""
    with self.distribution.together():
      outcome = self.stepper.train(next(iter(self._dataset(range(1, 2)))))
      self.distribution.wait()  # A process that ends early would disturb the others.
    return {key: float(outcome[key]) for key in ("loss", "gradient_norm")}

  def train(self, run_dir: files.PathLike, stop_after: int | None = None, wait: bool = False
            ) -> Result:
    """Trains until the last epoch, or until validation stops improving.

    Args:
      run_dir: an empty or new folder, or the directory of this run, which is resumed.
      stop_after: stop after this many epochs in this call, to resume later.
      wait: whether to wait for another process that trains in the directory.

    Raises:
      ConfigError: `stop_after` is not a positive whole number.
      RunDirectoryError: the directory holds another run, is damaged, or is in use.
      TrainingError: a loss or gradient is not finite, or another process of the training has
        ended; the latest checkpoint is kept.
    """
    if stop_after is not None and (not isinstance(stop_after, numbers.Integral) or stop_after < 1):
      raise errors.ConfigError(f"stop_after is {stop_after!r}; expected a whole number from 1, or "
                               "None")
    directory = run_directory.RunDirectory(run_dir)
    if not self._is_kind and directory.ensemble is not None:
      raise errors.RunDirectoryError(
          f"{directory.path} is a kind of the ensemble {directory.ensemble.path}, whose command "
          f"trains it: {directory.resume_command}")
    with self.distribution.together():
      if not self.distribution.is_chief:
        return self._follow(directory)
      with directory.locked(wait):
        return self._train_in(directory, stop_after)

  def _train_in(self, directory: run_directory.RunDirectory, stop_after: int | None) -> Result:
    is_resumed = directory.open(self.config, self.about())
    loop = epochs_lib.EpochLoop(
        directory, self.stepper.variables(), Progress(), self.config.training.epochs,
        self.steps_per_epoch, self.config.training.tensorboard)
    with directory.logging():
      for counts in self.counts.values():
        _logger.info("%s", counts)
      if is_resumed and loop.has_checkpoint:
        self._check_normalizer(directory)
        loop.resume()
      else:
        self.normalizer.save(directory / "normalizer.npz")
        _logger.info("plan: %s", ", ".join(
            f"{name} {value}" for name, value in self.plan().items()))
      return self._run_epochs(directory, loop, stop_after)

  def _check_normalizer(self, directory: run_directory.RunDirectory) -> None:
    """Raises RunDirectoryError if the stored weights were trained with other feature scaling."""
    path = directory / "normalizer.npz"
    if not normalize.Normalizer.load(path).is_same(self.normalizer):
      raise errors.RunDirectoryError(
          f"{path} is not the feature scaling with which training would continue: the collection's "
          "training programs have changed, or --initial_checkpoint has; restore what the run began "
          "with, or choose another --run_dir")

  def _run_epochs(self, directory: run_directory.RunDirectory,
                  loop: epochs_lib.EpochLoop[Progress], stop_after: int | None) -> Result:
    progress, metric = loop.progress, self.config.training.validation_metric
    self._check_equal()
    last = self._meet(progress, loop.last_epoch(stop_after))
    first = progress.epoch + 1
    # One data set for all epochs: creating one takes as long as several steps.
    lists = iter(()) if first > last else iter(self._dataset(range(first, last + 1)))
    state = loop.run(
        lambda on_step: self._run_epoch(directory, loop, lists, on_step),
        lambda: self._final_state(progress), stop_after, ("loss", f"valid_{metric}"))
    of_all_kinds: Mapping[str, float | None] = {}
    if state != run_directory.INTERRUPTED:
      files.write_json(directory / "metrics.json", {
          "split": "valid", "epoch": progress.best_epoch, "metrics": progress.best_metrics})
      _logger.info("%s after epoch %d; best epoch %d: %s", state, progress.epoch,
                   progress.best_epoch, ", ".join(
                       f"{name} {_shown(value)}" for name, value in progress.best_metrics.items()))
      left = None if stop_after is None else stop_after - (progress.epoch + 1 - first)
      try:
        with loop.noting_interrupts():
          if self._train_kinds(directory, left, lambda: loop.write_status(
              run_directory.TRAINING, **self._figures(progress))):
            of_all_kinds = extras.fit(directory, self.config, self.collection, self.train_graphs,
                                      self.valid_graphs)
          else:
            state = run_directory.INTERRUPTED
      except errors.TrainingError:
        loop.write_status(run_directory.FAILED, **self._figures(progress))
        raise
    # Last, because a finished run is complete.
    loop.write_status(state, **self._figures(progress))
    self.distribution.wait()  # A process that ends early would disturb the others.
    return Result(directory, state, progress.epoch, progress.best_epoch, progress.best_metrics,
                  of_all_kinds)

  def _train_kinds(self, directory: run_directory.RunDirectory, stop_after: int | None,
                   begin: Callable[[], None] = lambda: None) -> bool:
    """Trains the further kinds of the ensemble, one after the other, each in a run directory.

    Args:
      directory: of this run, whose own networks are trained.
      stop_after: stop after this many epochs; None: do not stop.
      begin: called by the chief before a kind is trained, to note that the run is not finished.

    Returns:
      Whether all kinds are trained.
    """
    count = len(self.config.model.kinds)
    for number, kind in enumerate(self.config.model.kinds, start=1):
      of_kind = kinds.of_number(directory, number)
      try:
        status = of_kind.read_status() if self.distribution.is_chief else {}
      except errors.RunDirectoryError as error:
        raise _of_kind(number, count, of_kind, error) from error
      done = status.get("state") in run_directory.DONE
      # The chief alone knows how far the run is.
      done, stopped = map(bool, self.distribution.from_chief(
          np.array([done, stop_after == 0], np.int64)))
      if done:
        continue
      if stopped:
        return False
      if self.distribution.is_chief:
        begin()
        # They rest on all kinds, and are fitted again after the last one.
        for name in (kinds_file.FILE, tile_prior.FILE):
          (directory / name).unlink(missing_ok=True)
      _logger.info("kind %d of %d: %s", number, count, kind_settings.text(kind))
      try:
        result = self.of_kind(number).train(of_kind.path, stop_after)
      except (errors.ConfigError, errors.TrainingError) as error:
        raise type(error)(f"kind {number} of {count}: {error}") from error
      except errors.RunDirectoryError as error:
        raise _of_kind(number, count, of_kind, error) from error
      if result.state not in run_directory.DONE:
        return False
      if stop_after is not None:
        stop_after -= min(result.epochs - (status.get("epoch") or 0), stop_after)
    if count:
      _logger.info("all %d further kinds are trained", count)
    return True

  def _final_state(self, progress: Progress) -> str | None:
    training = self.config.training
    if epochs_lib.is_out_of_patience(progress.epoch, progress.best_epoch, training.patience):
      return run_directory.STOPPED_EARLY
    return run_directory.FINISHED if progress.epoch >= training.epochs else None

  def _figures(self, progress: Progress) -> dict[str, Any]:
    """What status.json holds in addition to the state."""
    return {"best_epoch": progress.best_epoch,
            "validation_metric": self.config.training.validation_metric,
            "best_value": progress.best_value}

  def _run_epoch(self, directory: run_directory.RunDirectory,
                 loop: epochs_lib.EpochLoop[Progress], lists: Iterator[Any],
                 on_step: Callable[[], Any]) -> dict[str, Any]:
    """Runs one epoch with its validation, and writes its row of history and checkpoints.

    `lists` yields the batches of this epoch next.
    """
    started = time.monotonic()
    progress = loop.progress
    row = self._train_epoch(progress, lists, on_step, lambda: loop.write_status(
        run_directory.FAILED, **self._figures(progress)))
    training = self.config.training
    if progress.epoch % training.validate_every == 0 or progress.epoch == training.epochs:
      self._validate(directory, progress, row)
    row["seconds"] = time.monotonic() - started
    _logger.info("epoch %d: %s", progress.epoch, ", ".join(
        f"{key} {row[key]:.4f}" for key in (
            "loss", "valid_loss", f"valid_{training.validation_metric}")
        if row[key] is not None))
    progress.history.append(row)
    loop.save(run_directory.TRAINING, **self._figures(progress))
    self._meet(progress, 0)
    return row

  def _follow(self, directory: run_directory.RunDirectory) -> Result:
    """Trains together with the chief, which alone validates and writes the run directory."""
    progress = Progress()
    self._check_equal()
    last = self._meet(progress, 0)
    lists = iter(self._dataset(range(progress.epoch + 1, last + 1))) if (
        progress.epoch < last) else iter(())
    while progress.epoch < last and not self._final_state(progress):
      self._train_epoch(progress, lists, lambda: None, lambda: None)
      self._meet(progress, 0)
    state = self._final_state(progress) or run_directory.INTERRUPTED
    if state in run_directory.DONE and not self._train_kinds(directory, None):
      state = run_directory.INTERRUPTED
    self.distribution.wait()
    return Result(directory, state, progress.epoch, progress.best_epoch, {})

  def _check_equal(self) -> None:
    """Raises ConfigError, in all processes, unless all of them train the same run."""
    self.distribution.check_equal("settings or training programs", [
        config_lib.stable_hash(self.config), [
            [member.name, member.graph.num_nodes, len(member.choice)]
            for member in (*self.train_graphs, *self.synthetic_graphs)]])

  def _meet(self, progress: Progress, last: int) -> int:
    """Gives all processes the chief's weights and progress; returns the chief's `last`.

    All have the same weights up to rounding, which may differ between processors. Equal bits make
    a resumed run equal to an uninterrupted one.
    """
    self.distribution.copy_from_chief(
        [variable for group in self.stepper.variables().values() for variable in group])
    progress.epoch, progress.step, progress.best_epoch, last = map(
        int, self.distribution.from_chief(np.array(
            [progress.epoch, progress.step, progress.best_epoch, last], np.int64)))
    return last

  def _train_epoch(self, progress: Progress, lists: Iterator[Any], on_step: Callable[[], Any],
                   on_failure: Callable[[], Any]) -> dict[str, Any]:
    """Takes the steps of an epoch; returns its row of history without validation."""
    # TensorFlow's own random operations (TensorFlow Ranking shuffles ties among padding) change no
    # result, so a resumed run need not seed them again. Seeding them in every epoch would make
    # TensorFlow optimise its functions again, which can take longer than an epoch.
    epoch, count = progress.epoch + 1, 0
    sums = {"loss": 0.0, "gradient_norm": 0.0, "correct": 0.0, "pairs": 0.0}
    outcome: Mapping[str, Any] = {}
    for count, arrays in enumerate(itertools.islice(lists, self.steps_per_epoch), start=1):
      outcome = self.stepper.train(arrays)
      if not outcome["finite"]:
        on_failure()
        raise errors.TrainingError(
            f"step {progress.step + count} (epoch {epoch}): loss {float(outcome['loss'])}, "
            f"gradient norm {float(outcome['gradient_norm'])}; the checkpoint after epoch "
            f"{progress.epoch} is kept. Lower --learning_rate, or look for extreme features in the "
            "collection")
      for key in sums:
        sums[key] += float(outcome[key])
      on_step()
    progress.epoch = epoch
    progress.step += count
    return {
        "epoch": epoch, "step": progress.step, "loss": sums["loss"] / count,
        "train_opa": sums["correct"] / max(sums["pairs"], 1.0),
        "gradient_norm": sums["gradient_norm"] / count,
        "learning_rate": float(outcome["learning_rate"]), "valid_loss": None,
        **{f"valid_{name}": None for name in validation.metric_names(
            self.config.training.validation_metric)}}

  def _validate(self, directory: run_directory.RunDirectory, progress: Progress,
                row: dict[str, Any]) -> None:
    """Scores the validation split with the averaged weights, and keeps them if they are best."""
    name = self.config.training.validation_metric
    with self.stepper.average.applied():
      valid_losses = [float(self.stepper.validate(arrays)) for arrays in self._valid_lists]
      scores = self.scorer(self.valid_graphs)
    metrics = validation.ranking_metrics(self.valid_graphs, scores, name)
    row["valid_loss"] = float(np.mean(valid_losses))
    row.update({f"valid_{name}": value for name, value in metrics.items()})
    sign = 1.0 if validation.higher_is_better(name) else -1.0
    value, best = metrics[name], progress.best_value
    # Without a metric, the latest checkpoint is kept.
    if best is None or value is not None and sign * value > sign * best:
      progress.best_epoch, progress.best_value = progress.epoch, value
      progress.best_metrics = metrics
      checkpoints.save(directory / "checkpoints" / "best.npz", self.stepper.best_variables(),
                       {"epoch": progress.epoch, "metrics": metrics})
      evidence_files.write(directory, evidence_files.of_prepared(self.valid_graphs, scores))


def _shown(value: float | None) -> str:
  return "undefined" if value is None else f"{value:.4f}"
