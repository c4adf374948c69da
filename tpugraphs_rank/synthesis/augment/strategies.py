"""Ways to turn synthetic programs into training signal, behind one interface. Imports TensorFlow.

A strategy takes the settings of a training on real programs, and gives those of one with synthetic
programs, after whatever it has to do first. All take as many gradient steps in the last training as
was asked for, or in all of theirs together.
"""

import dataclasses
import pathlib
from typing import Callable, Mapping, Protocol

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import run_config
from tpugraphs_rank.synthesis.augment import distillation
from tpugraphs_rank.training import run as run_lib
from tpugraphs_rank.training import trainer

_SOURCE = "strategy"


class Strategy(Protocol):
  """What the strategies have in common."""

  def prepare(self, config: run_config.RunConfig, folder: pathlib.Path) -> run_config.RunConfig:
    """The settings of the training that is judged.

    Args:
      config: with `augment.synthetic`, a collection of synthetic programs.
      folder: for what is trained or written before; it must live until training has ended.
    """


class Measured:
  """Synthetic programs train beside the real ones, with their measured runtimes."""

  def prepare(self, config: run_config.RunConfig, folder: pathlib.Path) -> run_config.RunConfig:
    del folder
    return config


@dataclasses.dataclass(frozen=True)
class Distilled:
  """Synthetic programs train beside the real ones, with what an ensemble of rankers is sure of.

  Attributes:
    teachers: rankers, trained on the real programs alone, as long as the ranker itself.
    margin: see `distillation.confident`.
  """

  teachers: int = 3
  margin: float = 1.0

  def prepare(self, config: run_config.RunConfig, folder: pathlib.Path) -> run_config.RunConfig:
    runs = []
    for number in range(self.teachers):
      # The draw of the programs stays: it follows from data.max_graphs and the seed.
      alone = config_lib.override(config, {
          "augment.synthetic": None, "augment.synthetic_graphs": None,
          "model.members": 1}, source=_SOURCE)
      directory = folder / f"teacher{number}"
      trainer.Trainer(alone, first_weights=config.training.seed + 7919 * (number + 1)).train(
          directory)
      runs.append(run_lib.load_run(directory).score)
    distillation.teach(config.augment.synthetic, runs, folder / "taught", self.margin)
    return config_lib.override(config, {
        "augment.synthetic": str(folder / "taught" / "collection.json"),
        "augment.synthetic_graphs": None}, source=_SOURCE)


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """Training begins on the synthetic programs alone, and ends on the real ones alone.

  Attributes:
    share: of the steps that the first part takes.
  """

  share: float = 0.5

  def prepare(self, config: run_config.RunConfig, folder: pathlib.Path) -> run_config.RunConfig:
    epochs = config.training.epochs
    before = min(max(round(self.share * epochs), 1), epochs - 1)
    first = config_lib.override(config, {
        "augment.synthetic_share": 1.0, "training.epochs": before,
        "training.patience": before}, source=_SOURCE)
    trainer.Trainer(first).train(folder / "before")
    return config_lib.override(config, {
        "augment.synthetic": None, "augment.synthetic_graphs": None,
        "training.epochs": epochs - before, "training.patience": epochs - before,
        "training.initial_checkpoint": str(folder / "before")}, source=_SOURCE)


STRATEGIES: Mapping[str, Callable[[], Strategy]] = {
    "measured": Measured, "distilled": Distilled, "pretrained": Pretrained}
