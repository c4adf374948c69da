"""Training runs of LayerDAG, in run directories like those of the rankers.

In addition to the files of `training.run_directory`, the directory holds `model.npz`, which is all
that sampling needs.
"""

from collections.abc import Callable
import dataclasses
import hashlib
import logging
from typing import Any

import tensorflow as tf

from tpugraphs_rank import commands
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.layerdag import calibration
from tpugraphs_rank.synthesis.layerdag import fitting
from tpugraphs_rank.synthesis.layerdag import generator as generator_lib
from tpugraphs_rank.synthesis.layerdag import model
from tpugraphs_rank.synthesis.layerdag import settings
from tpugraphs_rank.training import epochs as epochs_lib
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import runtime

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Result:
  """How a run ended.

  Attributes:
    state: "finished" (all epochs), "stopped_early" or "interrupted".
    epochs: total epochs trained.
    metrics: for each module its best validation bound, in nats per graph, and the epoch of it.
  """

  state: str
  epochs: int
  metrics: dict[str, float]


class Trainer:
  """Builds everything that a run needs; `train` then runs the epochs."""

  def __init__(self, config: settings.LayerDagConfig):
    """Reads the graphs and creates the networks.

    Raises:
      TpuGraphsRankError: bad graphs or configuration.
    """
    if not config.data.graphs:
      write = commands.command("layerdag", "graphs", "--collection NAME", "--output FILE.npz")
      raise errors.ConfigError(
          f"data.graphs is not set; give --graphs FILE.npz, which {write} writes")
    runtime.configure(config.fit.seed, config.fit.threads)
    self.config = config
    graphs = dags_lib.load(config.data.graphs)
    valid = dags_lib.load(config.data.valid_graphs) if config.data.valid_graphs else None
    self.train_graphs, self.valid_graphs = fitting.divide(graphs, config, valid)
    self.generator = generator_lib.Generator(
        config, generator_lib.Facts.of(self.train_graphs, config))
    self._fitter: fitting.Fitter | None = None

  @property
  def fitter(self) -> fitting.Fitter:
    """The training steps. They are prepared on first use, because that takes a while."""
    if self._fitter is None:
      self._fitter = fitting.Fitter(self.generator, self.train_graphs, self.valid_graphs)
    return self._fitter

  def about(self) -> dict[str, Any]:
    """What the run is about: digests of the graphs, and the version of the networks' features."""
    digests = {}
    for split, graphs in (("train", self.train_graphs), ("valid", self.valid_graphs)):
      digest = hashlib.sha256(graphs.wl.tobytes() + graphs.y.tobytes() + graphs.x.tobytes())
      digests[split] = digest.hexdigest()[:16]
    return {"kind": "layerdag", "digests": digests,
            "features": self.generator.facts.features}

  def plan(self) -> dict[str, Any]:
    """Figures about the training: numbers of graphs, parameters and epochs."""
    facts = self.generator.facts
    return {
        "train_graphs": len(self.train_graphs), "valid_graphs": len(self.valid_graphs),
        "train_nodes": len(self.train_graphs.x), "kinds": len(facts.kinds),
        "max_nodes": facts.max_nodes, "max_layers": facts.max_layers, "max_width": facts.max_width,
        "conditions": list(facts.conditions.names),
        "parameters": {name: sum(int(tf.size(variable)) for variable in variables)
                       for name, variables in self.generator.variables.items()},
        "epochs_at_most": self.config.fit.epochs,
        "config_hash": config_lib.stable_hash(self.config)}

  def train(self, run_dir: files.PathLike, stop_after: int | None = None, wait: bool = False
            ) -> Result:
    """Trains until the last epoch, or until no module improves any more.

    Args:
      run_dir: an empty or new folder, or the directory of this run, which is resumed.
      stop_after: stop after this many epochs in this call, to resume later.
      wait: whether to wait for another process that trains in the directory.

    Raises:
      RunDirectoryError: the directory holds another run or other graphs, is damaged, or is in use.
      TrainingError: a loss is not finite; the latest checkpoint is kept.
    """
    directory = run_directory.RunDirectory(
        run_dir, settings.LayerDagConfig, ("layerdag", "train"))
    with directory.locked(wait):
      return self._train_in(directory, stop_after)

  def _train_in(self, directory: run_directory.RunDirectory, stop_after: int | None) -> Result:
    is_resumed = directory.open(self.config, self.about())
    stored = directory.read_about() if is_resumed else self.about()
    if stored.get("features", 1) != self.about()["features"]:
      raise errors.RunDirectoryError(
          f"{directory.path} was begun by an earlier version, whose networks differ; choose "
          "another --run_dir to train again; model.npz in it, if any, can still be sampled")
    if stored != self.about():
      raise errors.RunDirectoryError(
          f"{directory.path} was trained on other graphs than those in {self.config.data.graphs}; "
          "restore the original graphs, or choose another --run_dir")
    with directory.logging():
      fitter = self.fitter
      loop = epochs_lib.EpochLoop(
          directory, fitter.variables(), fitter.progress, self.config.fit.epochs,
          fitter.steps_per_epoch, self.config.fit.tensorboard)
      if is_resumed and loop.has_checkpoint:
        loop.resume()
      else:
        _logger.info("plan: %s", ", ".join(
            f"{name} {value}" for name, value in self.plan().items()))
      return self._run_epochs(directory, loop, stop_after)

  def _run_epochs(self, directory: run_directory.RunDirectory,
                  loop: epochs_lib.EpochLoop[fitting.Progress], stop_after: int | None) -> Result:
    fitter, progress = self.fitter, loop.progress
    figures = lambda: {"best": progress.best, "best_epoch": progress.best_epoch}

    def epoch(on_step: Callable[[], Any]) -> dict[str, Any]:
      row = fitter.epoch(on_step)
      # With few graphs, a checkpoint takes about as long as an epoch.
      if any(key.startswith("valid_") for key in row):
        loop.save(run_directory.TRAINING, **figures())
      return row

    state = loop.run(epoch, self._final_state, stop_after, tuple(
        f"valid_{name}" for name in self.generator.modules))
    loop.save(run_directory.TRAINING, **figures())
    metrics: dict[str, float] = {}
    for name, value in progress.best.items():
      metrics.update({f"valid_{name}": value, f"best_epoch_{name}": progress.best_epoch[name]})
    if state != run_directory.INTERRUPTED:
      files.write_json(directory / "metrics.json", {"split": "valid", "metrics": metrics})
      with loop.noting_interrupts():
        fitter.keep_best()
        calibration.calibrate_as_configured(self.generator, self.train_graphs)
        model.LayerDAG(self.config, self.generator).save(directory / "model.npz")
      _logger.info("%s after epoch %d: %s", state, progress.epoch, ", ".join(
          f"{name} {value:.4g}" for name, value in metrics.items()))
    # Last, because a finished run is complete.
    loop.write_status(state, **figures())
    return Result(state, progress.epoch, metrics)

  def _final_state(self) -> str | None:
    if not self.fitter.finished:
      return None
    is_last = self.fitter.progress.epoch >= self.config.fit.epochs
    return run_directory.FINISHED if is_last else run_directory.STOPPED_EARLY
