"""Strategies that use synthetic programs in training, with one interface. Imports TensorFlow.

A strategy takes the settings of a training with synthetic programs, does its preparatory training,
and returns the settings of the final training. All strategies take the configured number of
gradient steps, either in the final training (auxiliary tasks then add steps) or in all their
trainings together.
"""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib
from typing import Any, Protocol

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import files
from tpugraphs_rank import run_config
from tpugraphs_rank.synthesis.augment import distillation
from tpugraphs_rank.synthesis.augment import pretraining
from tpugraphs_rank.training import run as run_lib
from tpugraphs_rank.training import trainer

_SOURCE = "strategy"
# Sub-folders of the preparatory trainings.
_BEFORE, _ON_GRAPHS = "before", "on_graphs"


class Strategy(Protocol):
  """The interface of the strategies."""

  def prepare(self, config: run_config.RunConfig, folder: pathlib.Path) -> run_config.RunConfig:
    """Prepares, and returns the settings of the final training, which is evaluated.

    Args:
      config: settings with `augment.synthetic`, a collection of synthetic programs.
      folder: folder for preparatory trainings and data; it must exist until training has ended.
    """


class Measured:
  """Trains on synthetic and real programs together, with measured runtimes."""

  def prepare(self, config: run_config.RunConfig, folder: pathlib.Path) -> run_config.RunConfig:
    del folder
    return config


@dataclasses.dataclass(frozen=True)
class Distilled:
  """Trains on real programs, and on synthetic ones that an ensemble of rankers has labeled.

  Attributes:
    teachers: number of rankers, each trained on the real programs alone for as long as the ranker.
    margin: see `distillation.confident`.
  """

  teachers: int = 3
  margin: float = 1.0

  def prepare(self, config: run_config.RunConfig, folder: pathlib.Path) -> run_config.RunConfig:
    runs = []
    for number in range(self.teachers):
      # The sampled programs stay the same: they depend on data.max_graphs and the seed.
      alone = config_lib.override(config, {
          "augment.synthetic": None, "augment.synthetic_graphs": None,
          "model.members": 1}, source=_SOURCE)
      directory = folder / f"teacher{number}"
      trainer.Trainer(alone, first_weights=config.training.seed + 7919 * (number + 1)).train(
          directory)
      runs.append(run_lib.load_run(directory).score)
    assert config.augment.synthetic is not None  # Strategies are for trainings that have it.
    distillation.teach(config.augment.synthetic, runs, folder / "taught", self.margin)
    return config_lib.override(config, {
        "augment.synthetic": str(folder / "taught" / "collection.json"),
        "augment.synthetic_graphs": None}, source=_SOURCE)


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """Trains on synthetic programs alone first, then on real ones alone.

  Attributes:
    share: share of the steps for the synthetic programs.
  """

  share: float = 0.5

  def prepare(self, config: run_config.RunConfig, folder: pathlib.Path) -> run_config.RunConfig:
    epochs = config.training.epochs
    before = min(max(round(self.share * epochs), 1), epochs - 1)
    first = config_lib.override(config, {
        "augment.synthetic_share": 1.0, "training.epochs": before,
        "training.patience": before}, source=_SOURCE)
    trainer.Trainer(first).train(folder / _BEFORE)
    return config_lib.override(config, {
        "augment.synthetic": None, "augment.synthetic_graphs": None,
        "training.epochs": epochs - before, "training.patience": epochs - before,
        "training.initial_checkpoint": str(folder / _BEFORE)}, source=_SOURCE)


@dataclasses.dataclass(frozen=True)
class OnGraphs:
  """Trains the ranker's layers on graphs alone first, then on ranking.

  With `augment.synthetic` the graphs are real and synthetic, otherwise real. Ranking takes the
  configured number of steps; `done_before` reports the steps before.

  Attributes:
    settings: what is learned first, and for how long.
    measured: whether the synthetic programs are also used for ranking, with their runtimes;
      otherwise only the real programs are.
  """

  settings: pretraining.Settings = pretraining.Settings()
  measured: bool = False

  def prepare(self, config: run_config.RunConfig, folder: pathlib.Path) -> run_config.RunConfig:
    pretraining.pretrain(config, self.settings, folder / _ON_GRAPHS)
    alone = {} if self.measured else {"augment.synthetic": None, "augment.synthetic_graphs": None}
    return config_lib.override(config, {
        **alone, "training.initial_checkpoint": str(folder / _ON_GRAPHS)}, source=_SOURCE)


def auxiliary() -> OnGraphs:
  """An auxiliary graph-level task: a second head learns the label that LayerDAG is conditioned on.

  Only the real graphs with runtimes that the ranker trains on are used.
  """
  return OnGraphs(pretraining.Settings(objectives=("label",)))


STRATEGIES: Mapping[str, Callable[[], Strategy]] = {
    "measured": Measured, "distilled": Distilled, "pretrained": Pretrained,
    "auxiliary": auxiliary, "selfsupervised": OnGraphs,
    "selfsupervised_measured": lambda: OnGraphs(measured=True)}


def done_before(folder: pathlib.Path) -> dict[str, Any]:
  """What the strategy that used `folder` did before the final training.

  Returns:
    `steps_before`: gradient steps of the same network (without teachers); and, if there was one,
    `pretraining`: the report of `pretraining.pretrain`.
  """
  report, status = folder / _ON_GRAPHS / pretraining.REPORT, folder / _BEFORE / "status.json"
  if report.exists():
    stored = files.read_json(report)
    return {"steps_before": stored["steps"], "pretraining": stored}
  return {"steps_before": files.read_json(status)["step"] if status.exists() else 0}
