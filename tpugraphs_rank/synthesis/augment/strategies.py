"""Ways to turn synthetic programs into training signal, behind one interface. Imports TensorFlow.

A strategy takes the settings of a training on real programs, and gives those of one with synthetic
programs, after whatever it has to do first. All take as many gradient steps in the last training as
was asked for (what auxiliary tasks take comes on top), or in all of theirs together.
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
# Folders of what comes before, in that of the strategy.
_BEFORE, _ON_GRAPHS = "before", "on_graphs"


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
    trainer.Trainer(first).train(folder / _BEFORE)
    return config_lib.override(config, {
        "augment.synthetic": None, "augment.synthetic_graphs": None,
        "training.epochs": epochs - before, "training.patience": epochs - before,
        "training.initial_checkpoint": str(folder / _BEFORE)}, source=_SOURCE)


@dataclasses.dataclass(frozen=True)
class OnGraphs:
  """The ranker's layers first learn about graphs alone, then ranking.

  With `augment.synthetic` the graphs are real and synthetic ones; without, real ones. The steps of
  ranking are those that were asked for; `done_before` tells what came before.

  Attributes:
    settings: what is learned first, and how long.
    measured: whether the synthetic programs then train beside the real ones, with their runtimes;
      otherwise the real ones alone train.
  """

  settings: pretraining.Settings = pretraining.Settings()
  measured: bool = False

  def prepare(self, config: run_config.RunConfig, folder: pathlib.Path) -> run_config.RunConfig:
    pretraining.pretrain(config, self.settings, folder / _ON_GRAPHS)
    alone = {} if self.measured else {"augment.synthetic": None, "augment.synthetic_graphs": None}
    return config_lib.override(config, {
        **alone, "training.initial_checkpoint": str(folder / _ON_GRAPHS)}, source=_SOURCE)


def auxiliary() -> OnGraphs:
  """Graph-level auxiliary task: the label that LayerDAG is conditioned on, by a second head.

  Of the real graphs only those with runtimes that the ranker trains on take part.
  """
  return OnGraphs(pretraining.Settings(objectives=("label",)))


STRATEGIES: Mapping[str, Callable[[], Strategy]] = {
    "measured": Measured, "distilled": Distilled, "pretrained": Pretrained,
    "auxiliary": auxiliary, "selfsupervised": OnGraphs,
    "selfsupervised_measured": lambda: OnGraphs(measured=True)}


def done_before(folder: pathlib.Path) -> dict[str, Any]:
  """What a strategy that used `folder` did before the training that is judged.

  Returns:
    `steps_before`: gradient steps of the same network; teachers' do not count. And `pretraining`,
    where there was one on graphs: what `pretraining.pretrain` says of it.
  """
  report, status = folder / _ON_GRAPHS / pretraining.REPORT, folder / _BEFORE / "status.json"
  if report.exists():
    found = files.read_json(report)
    return {"steps_before": found["steps"], "pretraining": found}
  return {"steps_before": files.read_json(status)["step"] if status.exists() else 0}
