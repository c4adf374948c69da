"""Trains a ranker: epochs, validation, early stopping, checkpoints, resume.

Where training starts from, the first that applies:
  1. the latest checkpoint in the run directory (its configuration must be the one asked for);
  2. the best weights of `training.initial_checkpoint`, with that run's normalizer;
  3. fresh weights from the seed.
"""

from collections.abc import Iterator
import dataclasses
import itertools
import logging
import time
from typing import Any

import numpy as np
import tensorflow as tf
import tqdm

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import mixing
from tpugraphs_rank.data import normalize
from tpugraphs_rank.data import pipeline
from tpugraphs_rank.data import published
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.models import build_model
from tpugraphs_rank.training import checkpoints
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import runtime
from tpugraphs_rank.training import scoring
from tpugraphs_rank.training import steps as steps_lib
from tpugraphs_rank.training import validation

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Result:
  """How a run ended.

  Attributes:
    run_dir: the run directory.
    state: "finished" (all epochs) or "stopped_early".
    epochs: epochs trained, in all.
    best_epoch: the epoch of the best checkpoint, from 1.
    metrics: validation metrics of the best checkpoint.
  """

  run_dir: run_directory.RunDirectory
  state: str
  epochs: int
  best_epoch: int
  metrics: dict[str, float]


@dataclasses.dataclass
class Progress:
  """What a checkpoint holds beside the variables."""

  epoch: int = 0
  step: int = 0
  best_epoch: int = 0
  best_value: float | None = None
  best_metrics: dict[str, float] = dataclasses.field(default_factory=dict)
  history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


class Trainer:
  """Everything that a run needs, built; `train` then runs the epochs."""

  def __init__(self, config: run_config.RunConfig, first_weights: int | None = None):
    """Reads the data, fits the normalizer, builds the model and its step.

    Args:
      config: everything that decides what is computed.
      first_weights: seed of the first weights alone, for ensembles that see the same programs;
        None: `training.seed`, as for everything else.

    Raises:
      TpuGraphsRankError: bad data or configuration.
    """
    check(config)
    runtime.configure(
        config.training.seed if first_weights is None else first_weights, config.training.threads)
    self.config = config
    self.collection = registry.get_collection(config.data.collection)
    _check_published(config, self.collection)
    seed = config.training.seed
    loaded = {split: splits.load(config.data, split, seed, config.batch.max_configs)
              for split in ("train", "valid")}
    programs = {split: found.programs for split, found in loaded.items()}
    if config.training.validation_configs == "published":
      programs["valid"] = published.restrict(
          programs["valid"], self.collection, config.data.data_root)
    if config.augment.synthetic is not None:
      loaded["synthetic"] = mixing.load_synthetic(config, self.collection, programs["valid"])
      programs["synthetic"] = loaded["synthetic"].programs
    self.counts = {split: found.counts for split, found in loaded.items()}
    initial = config.training.initial_checkpoint
    if initial is None:
      training = mixing.trained_on(config, programs["train"], programs.get("synthetic", ()))
      self.normalizer = normalize.Normalizer.fit(
          [program.graph for program in training], [program.choice for program in training])
    else:
      self.normalizer = normalize.Normalizer.load(
          run_directory.RunDirectory(initial) / "normalizer.npz")
    max_nodes = config.batch.max_nodes if config.batch.segment_mode != "full" else None
    self.train_graphs = [
        batches.prepare(program, self.normalizer, max_nodes)
        for program in programs["train"]]
    self.synthetic_graphs = [
        batches.prepare(program, self.normalizer, max_nodes)
        for program in programs.get("synthetic", ())]
    # Validation lists go through the training step's signature, which may ask for segments.
    self.valid_graphs = [
        batches.prepare(program, self.normalizer, max_nodes)
        for program in programs["valid"]]
    # The real programs alone say how many, so that runs with and without synthetic ones compare.
    self.steps_per_epoch = config.training.steps_per_epoch or -(
        -len(self.train_graphs) * config.batch.lists_per_graph // config.batch.batch_size)
    model = self._model = build_model(self.collection.kind, config)
    first = pipeline.dataset(lambda: self._lists(0))
    model(pipeline.to_step(next(iter(first)))["graph"])  # Creates the variables.
    self.stepper = steps_lib.Stepper(
        model, config, config.training.epochs * self.steps_per_epoch, first.element_spec)
    self.scorer = scoring.Scorer(model, config)
    # The same lists in every validation, so that the loss curve shows the model, not the draw.
    plain = dataclasses.replace(
        config.batch, feature_noise=0.0, edge_drop_rate=0.0, config_skew=0.0,
        # Segments that gradients go through leave the forward pass on the whole graph as it is.
        segment_mode="full" if config.batch.segment_mode == "drop" else config.batch.segment_mode)
    valid_lists = lambda: batches.training_batches(self.valid_graphs, plain, seed, 0)
    self._valid_lists = list(pipeline.dataset(lambda: map(model.arrange, (
        mixing.weighted(batch, config.augment, 0) if self.synthetic_graphs else batch
        for batch in valid_lists()))))
    if initial is not None:
      checkpoints.restore(run_directory.RunDirectory(initial) / "checkpoints" / "best.npz",
                          {"model": model.trainable_variables})
      for average, variable in zip(self.stepper.averaged, model.trainable_variables):
        average.assign(variable)

  def _lists(self, epoch: int) -> Iterator[batches.Batch]:
    return map(self._model.arrange, mixing.epoch_batches(
        self.train_graphs, self.synthetic_graphs, self.config, epoch))

  def about(self) -> dict[str, Any]:
    """What the run is about, for its directory."""
    collection = self.collection
    return {"collection": collection.name, "kind": collection.kind, "target": collection.target,
            "hlo_stage": collection.hlo_stage}

  def plan(self) -> dict[str, Any]:
    """What training will do, in numbers."""
    synthetic = {} if not self.synthetic_graphs else {
        "synthetic_programs": len(self.synthetic_graphs),
        "synthetic_lists_a_step": mixing.synthetic_lists(self.config)}
    return {
        **self.about(),
        "train_programs": len(self.train_graphs),
        **synthetic,
        "valid_programs": len(self.valid_graphs),
        "train_configurations": sum(len(member.choice) for member in self.train_graphs),
        "valid_configurations": sum(len(member.choice) for member in self.valid_graphs),
        "parameters": sum(int(np.prod(v.shape)) for v in self.stepper.model.trainable_variables),
        "steps_per_epoch": self.steps_per_epoch,
        "epochs_at_most": self.config.training.epochs,
        "config_hash": config_lib.stable_hash(self.config),
    }

  def one_step(self) -> dict[str, float]:
    """Runs the first training step, and returns its loss and gradient norm."""
    outcome = self.stepper.train(
        next(iter(pipeline.dataset(lambda: self._lists(1)))))
    return {key: float(outcome[key]) for key in ("loss", "gradient_norm")}

  def train(self, run_dir: files.PathLike, stop_after: int | None = None) -> Result:
    """Trains until the last epoch, or until validation stops getting better.

    Args:
      run_dir: an empty or new folder, or that of this run, which is resumed.
      stop_after: leave off after this many epochs in this call, to be resumed later.

    Raises:
      RunDirectoryError: the directory holds another run, or is damaged.
      TrainingError: a loss or gradient is not finite; the latest checkpoint stays as it was.
    """
    directory = run_directory.RunDirectory(run_dir)
    resumed = directory.open(self.config, self.about())
    with directory.logging():
      for counts in self.counts.values():
        _logger.info("%s", counts)
      latest = directory / "checkpoints" / "latest.npz"
      progress = Progress()
      if resumed and latest.exists():
        self._check_normalizer(directory)
        progress = Progress(**checkpoints.restore(latest, self.stepper.variables()))
        _logger.info("resumed %s after epoch %d", directory.path, progress.epoch)
      else:
        self.normalizer.save(directory / "normalizer.npz")
        _logger.info("plan: %s", self.plan())
      return self._epochs(directory, progress, stop_after)

  def _check_normalizer(self, directory: run_directory.RunDirectory) -> None:
    """Raises RunDirectoryError where the weights stored there saw other features."""
    path = directory / "normalizer.npz"
    if not normalize.Normalizer.load(path).is_same(self.normalizer):
      raise errors.RunDirectoryError(
          f"{path} is not the feature scaling that training would go on with: the collection's "
          "training programs have changed, or --initial_checkpoint has; bring back what the run "
          "began with, or choose another --run_dir")

  def _finished(self, progress: Progress) -> str | None:
    training = self.config.training
    if progress.best_epoch and progress.epoch - progress.best_epoch >= training.patience:
      return "stopped_early"
    return "finished" if progress.epoch >= training.epochs else None

  def _epochs(self, directory, progress: Progress, stop_after: int | None) -> Result:
    last = self.config.training.epochs
    end = last if stop_after is None else min(last, progress.epoch + stop_after)
    writer = tf.summary.create_file_writer(
        str(directory / "tensorboard")) if self.config.training.tensorboard else None
    start = progress.epoch + 1
    # One data set over all epochs to come: starting one costs as much as several steps.
    lists = iter(()) if start > end else iter(pipeline.dataset(
        lambda: itertools.chain.from_iterable(
            self._lists(epoch) for epoch in range(start, end + 1))))
    with tqdm.tqdm(total=last, initial=progress.epoch, unit="epoch", disable=None,
                   desc=directory.path.name) as bar:
      while not self._finished(progress) and progress.epoch < end:
        row = self._epoch(directory, progress, lists)
        bar.update()
        bar.set_postfix({key: f"{row[key]:.4f}" for key in (
            "loss", f"valid_{self.config.training.validation_metric}") if row.get(key) is not None})
        if writer is not None:
          with writer.as_default(step=progress.epoch):
            for key, value in row.items():
              if isinstance(value, float):
                tf.summary.scalar(key, value)
    if writer is not None:
      writer.close()
    state = self._finished(progress) or "interrupted"
    self._write_status(directory, progress, state)
    if state != "interrupted":
      files.write_json(directory / "metrics.json", {
          "split": "valid", "epoch": progress.best_epoch, "metrics": progress.best_metrics})
      _logger.info("%s after epoch %d; best epoch %d: %s", state, progress.epoch,
                   progress.best_epoch, progress.best_metrics)
    return Result(directory, state, progress.epoch, progress.best_epoch, progress.best_metrics)

  def _write_status(self, directory, progress: Progress, state: str) -> None:
    directory.write_status(
        state=state, epoch=progress.epoch, step=progress.step, best_epoch=progress.best_epoch,
        validation_metric=self.config.training.validation_metric, best_value=progress.best_value)

  def _epoch(self, directory, progress: Progress, lists: Iterator[Any]) -> dict[str, Any]:
    """One epoch, its validation, its row of history and its checkpoints.

    `lists` goes on with the batches of this epoch.
    """
    started = time.monotonic()
    epoch = progress.epoch + 1
    # TensorFlow's own random operations (the shuffling of ties among padding, in TensorFlow Ranking)
    # change no result, so they need not start anew where a run is resumed. Seeding them in every
    # epoch would have TensorFlow optimise its functions anew, which takes longer than many an epoch.
    sums = {"loss": 0.0, "gradient_norm": 0.0, "correct": 0.0, "pairs": 0.0}
    for count, arrays in enumerate(itertools.islice(lists, self.steps_per_epoch), start=1):
      outcome = self.stepper.train(arrays)
      if not outcome["finite"]:
        self._write_status(directory, progress, "failed")
        raise errors.TrainingError(
            f"step {progress.step + count} (epoch {epoch}): loss {float(outcome['loss'])}, gradient "
            f"norm {float(outcome['gradient_norm'])}; the checkpoint after epoch {progress.epoch} is "
            "kept. Lower --learning_rate, or look for extreme features in the collection")
      for key in sums:
        sums[key] += float(outcome[key])
    progress.epoch = epoch
    progress.step += count
    row: dict[str, Any] = {
        "epoch": epoch, "step": progress.step, "loss": sums["loss"] / count,
        "train_opa": sums["correct"] / max(sums["pairs"], 1.0),
        "gradient_norm": sums["gradient_norm"] / count,
        "learning_rate": float(outcome["learning_rate"]), "valid_loss": None,
        **{f"valid_{name}": None for name in validation.HIGHER_IS_BETTER}}
    if epoch % self.config.training.validate_every == 0 or epoch == self.config.training.epochs:
      self._validate(directory, progress, row)
    row["seconds"] = time.monotonic() - started
    _logger.info("epoch %d: %s", epoch, ", ".join(
        f"{key} {row[key]:.4f}" for key in (
            "loss", "valid_loss", f"valid_{self.config.training.validation_metric}")
        if row[key] is not None))
    progress.history.append(row)
    checkpoints.save(directory / "checkpoints" / "latest.npz", self.stepper.variables(),
                     dataclasses.asdict(progress))
    directory.write_history(progress.history)
    self._write_status(directory, progress, "training")
    return row

  def _validate(self, directory, progress: Progress, row: dict[str, Any]) -> None:
    """Scores the validation split with the averaged weights, and keeps them if they are best."""
    variables = self.stepper.model.trainable_variables
    kept = [variable.numpy() for variable in variables]
    for variable, average in zip(variables, self.stepper.averaged):
      variable.assign(average)
    try:
      valid_losses = [float(self.stepper.validate(arrays)) for arrays in self._valid_lists]
      found = validation.ranking_metrics(self.valid_graphs, self.scorer(self.valid_graphs))
    finally:
      for variable, value in zip(variables, kept):
        variable.assign(value)
    row["valid_loss"] = float(np.mean(valid_losses))
    row.update({f"valid_{name}": value for name, value in found.items()})
    name = self.config.training.validation_metric
    value = found[name]
    sign = 1.0 if validation.HIGHER_IS_BETTER[name] else -1.0
    if progress.best_value is None or sign * value > sign * progress.best_value:
      progress.best_epoch, progress.best_value, progress.best_metrics = progress.epoch, value, found
      checkpoints.save(directory / "checkpoints" / "best.npz", self.stepper.best_variables(),
                       {"epoch": progress.epoch, "metrics": found})


def _check_published(config: run_config.RunConfig, collection: registry.Collection) -> None:
  """Raises ConfigError where published configurations are asked for and there are none."""
  if config.training.validation_configs != "published" or (
      config.data.split_by == "program" and published.is_published(collection, "valid")):
    return
  raise errors.ConfigError(
      f"training.validation_configs is 'published': nothing is published for {collection.name} "
      f"with split_by={config.data.split_by}, only for {', '.join(published.COLLECTIONS)}, divided "
      "by program; use --validation_configs=all")


def check(config: run_config.RunConfig) -> None:
  """Raises ConfigError where settings do not fit together."""
  if len(config.loss.losses) != len(config.loss.loss_weights):
    raise errors.ConfigError(
        f"loss.losses names {len(config.loss.losses)} losses, loss.loss_weights gives "
        f"{len(config.loss.loss_weights)} weights; expected one weight for each loss")
  if not config.loss.losses:
    raise errors.ConfigError("loss.losses is empty; expected at least one loss")
  if not config.model.pooling:
    raise errors.ConfigError("model.pooling is empty; expected at least one pooling")
  mixing.check(config)
  if config.data.train_fraction + config.data.valid_fraction >= 1.0:
    raise errors.ConfigError(
        "data.train_fraction + data.valid_fraction leave no configurations to test; expected a sum "
        "below 1")
