"""Training runs of LayerDAG: a run directory as the rankers have, resumed where it was left.

Beside the files of `training.run_directory` it holds `model.npz`, which is all that sampling needs.
"""

import dataclasses
import hashlib
import logging
from typing import Any

import tensorflow as tf
import tqdm

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.layerdag import fitting
from tpugraphs_rank.synthesis.layerdag import generator as generator_lib
from tpugraphs_rank.synthesis.layerdag import model
from tpugraphs_rank.synthesis.layerdag import settings
from tpugraphs_rank.training import checkpoints
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import runtime

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Result:
  """How a run ended.

  Attributes:
    state: "finished" (all epochs), "stopped_early" or "interrupted".
    epochs: trained, in all.
    metrics: for each module its best validation bound, in nats a graph, and the epoch of that.
  """

  state: str
  epochs: int
  metrics: dict[str, float]


class Trainer:
  """Everything that a run needs, built; `train` then runs the epochs."""

  def __init__(self, config: settings.LayerDagConfig):
    """Reads the graphs and makes the networks.

    Raises:
      TpuGraphsRankError: bad graphs or configuration.
    """
    if not config.data.graphs:
      raise errors.ConfigError(
          "data.graphs is not set; give --graphs FILE.npz, which `python -m "
          "tpugraphs_rank.cli.layerdag_graphs --collection NAME --output FILE.npz` writes")
    runtime.configure(config.fit.seed, config.fit.threads)
    self.config = config
    given = dags_lib.load(config.data.graphs)
    valid = dags_lib.load(config.data.valid_graphs) if config.data.valid_graphs else None
    self.train_graphs, self.valid_graphs = fitting.divide(given, config, valid)
    self.generator = generator_lib.Generator(
        config, generator_lib.Facts.of(self.train_graphs, config))
    self._fitter: fitting.Fitter | None = None

  @property
  def fitter(self) -> fitting.Fitter:
    """Made when it is needed: laying out the steps takes a while."""
    if self._fitter is None:
      self._fitter = fitting.Fitter(self.generator, self.train_graphs, self.valid_graphs)
    return self._fitter

  def about(self) -> dict[str, Any]:
    """What the run is about: which graphs, by the digest of their structures and labels."""
    digests = {}
    for split, graphs in (("train", self.train_graphs), ("valid", self.valid_graphs)):
      digest = hashlib.sha256(graphs.wl.tobytes() + graphs.y.tobytes() + graphs.x.tobytes())
      digests[split] = digest.hexdigest()[:16]
    return {"kind": "layerdag", "digests": digests}

  def plan(self) -> dict[str, Any]:
    """What training will do, in numbers."""
    facts = self.generator.facts
    return {
        "train_graphs": len(self.train_graphs), "valid_graphs": len(self.valid_graphs),
        "train_nodes": len(self.train_graphs.x), "kinds": len(facts.kinds),
        "most_nodes": facts.most_nodes, "most_layers": facts.most_layers, "widest": facts.widest,
        "conditions": list(facts.conditions.names),
        "parameters": {name: sum(int(tf.size(variable)) for variable in variables)
                       for name, variables in self.generator.variables.items()},
        "epochs_at_most": self.config.fit.epochs,
        "config_hash": config_lib.stable_hash(self.config)}

  def train(self, run_dir: files.PathLike, stop_after: int | None = None) -> Result:
    """Trains until the last epoch, or until no module gets better.

    Args:
      run_dir: an empty or new folder, or that of this run, which is resumed.
      stop_after: leave off after this many epochs in this call, to be resumed later.

    Raises:
      RunDirectoryError: the directory holds another run or other graphs, or is damaged.
      TrainingError: a loss is not finite; the latest checkpoint stays as it was.
    """
    directory = run_directory.RunDirectory(run_dir, settings.LayerDagConfig, "layerdag_train")
    resumed = directory.open(self.config, self.about())
    if resumed and directory.read_about() != self.about():
      raise errors.RunDirectoryError(
          f"{directory.path} was trained on other graphs than those in {self.config.data.graphs}; "
          "bring back those that it began with, or choose another --run_dir")
    with directory.logging():
      latest = directory / "checkpoints" / "latest.npz"
      fitter = self.fitter
      if resumed and latest.exists():
        stored = checkpoints.restore(latest, fitter.variables())
        fitter.progress = fitting.Progress(**stored)
        _logger.info("resumed %s after epoch %d", directory.path, fitter.progress.epoch)
      else:
        _logger.info("plan: %s", self.plan())
      return self._epochs(directory, stop_after)

  def _epochs(self, directory: run_directory.RunDirectory, stop_after: int | None) -> Result:
    fit, fitter = self.config.fit, self.fitter
    progress = fitter.progress
    end = fit.epochs if stop_after is None else progress.epoch + stop_after
    writer = tf.summary.create_file_writer(
        str(directory / "tensorboard")) if fit.tensorboard else None
    with tqdm.tqdm(total=fit.epochs, initial=progress.epoch, unit="epoch", disable=None,
                   desc=directory.path.name) as bar:
      while not fitter.finished and progress.epoch < end:
        row = fitter.epoch()
        bar.update()
        if writer is not None:
          with writer.as_default(step=progress.epoch):
            for key, value in row.items():
              if isinstance(value, float):
                tf.summary.scalar(key, value)
        # A checkpoint takes about as long as an epoch of few graphs.
        if any(key.startswith("valid_") for key in row):
          self._save(directory, "training")
    if writer is not None:
      writer.close()
    state = "interrupted" if not fitter.finished else (
        "finished" if progress.epoch >= fit.epochs else "stopped_early")
    self._save(directory, state)
    metrics: dict[str, float] = {}
    for name, value in progress.best.items():
      metrics.update({f"valid_{name}": value, f"best_epoch_{name}": progress.best_epoch[name]})
    if state != "interrupted":
      files.write_json(directory / "metrics.json", {"split": "valid", "metrics": metrics})
      fitter.keep_best()
      model.LayerDAG(self.config, self.generator).save(directory / "model.npz")
      _logger.info("%s after epoch %d: %s", state, progress.epoch, metrics)
    return Result(state, progress.epoch, metrics)

  def _save(self, directory: run_directory.RunDirectory, state: str) -> None:
    progress = self.fitter.progress
    checkpoints.save(directory / "checkpoints" / "latest.npz", self.fitter.variables(),
                     dataclasses.asdict(progress))
    keys = dict.fromkeys(key for row in progress.history for key in row)
    directory.write_history([{key: row.get(key) for key in keys} for row in progress.history])
    directory.write_status(state=state, epoch=progress.epoch, step=progress.step,
                           best=progress.best, best_epoch=progress.best_epoch)
