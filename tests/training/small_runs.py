"""Tiny collections and runs."""

import json
import pathlib
from typing import Any

import numpy as np

from tests import synthetic
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import run_config
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import registry
from tpugraphs_rank.training import checkpoints
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import trainer
from tpugraphs_rank.training import training_data

# Different sizes, and some lists shorter than max_configs, so that there is padding.
SIZES = {"train": [(5, 12), (9, 6), (3, 9), (12, 4)], "valid": [(4, 8), (7, 11)],
         "test": [(6, 5), (3, 7)]}
TINY = {
    "model.opcode_width": 2, "model.hidden_width": 4, "model.num_convolutions": 1,
    "model.head_widths": [3], "model.attention_width": 2, "model.attention_reference": 3,
    "batch.batch_size": 3, "batch.max_configs": 6, "batch.lists_per_graph": 2,
    "batch.eval_batch_configs": 5, "optimizer.warmup_steps": 3, "training.epochs": 4,
    "training.tensorboard": False}


def collection(folder: pathlib.Path, kind: str = "tile", **changes: Any) -> pathlib.Path:
  """Writes a divided collection of graphs of `SIZES`; returns its descriptor's path."""
  make = synthetic.tile_graph if kind == "tile" else synthetic.layout_graph
  seed = 0
  for split, sizes in SIZES.items():
    for nodes, configs in sizes:
      graph = make(seed, num_nodes=nodes, num_configs=configs)
      npz.save_graph(folder / split / f"{graph.name}.npz", graph)
      seed += 1
  path = folder / "collection.json"
  path.write_text(json.dumps({
      "name": f"{kind}:tiny", "kind": kind, "target": "chip",
      "splits": {split: len(sizes) for split, sizes in SIZES.items()}, **changes}))
  return path


def settings(path: pathlib.Path, **changes: Any) -> run_config.RunConfig:
  """A run's configuration of tiny sizes; `training_seed` is the setting training.seed."""
  return config_lib.override(run_config.RunConfig(), {
      **TINY, "data.collection": str(path),
      **{name.replace("_", ".", 1): value for name, value in changes.items()}})


def data_of(config: run_config.RunConfig) -> training_data.TrainingData:
  """What a trainer would read, without building a model."""
  return training_data.load(config, registry.get_collection(config.data.collection))


def untrained_run(config: run_config.RunConfig, path: pathlib.Path) -> None:
  """A run directory whose best weights are the initial ones: enough for scoring, and fast."""
  training = trainer.Trainer(config)
  directory = run_directory.RunDirectory(path)
  directory.open(config, training.about())
  training.normalizer.save(directory / "normalizer.npz")
  checkpoints.save(directory / "checkpoints" / "best.npz", training.stepper.best_variables(),
                   {"epoch": 0, "metrics": {}})


_TRAINERS: dict[str, trainer.Trainer] = {}


def reused_trainer(config: run_config.RunConfig) -> trainer.Trainer:
  """A trainer for a `Stub`. Runs that differ in their length or metric only share one.

  Its weights are zero, so that a test sees which weights were restored.
  """
  key = json.dumps(config_lib.to_dict(config_lib.override(config, {
      "training.epochs": 1, "training.patience": 1, "training.validate_every": 1,
      "training.validation_metric": "opa"})))
  if key not in _TRAINERS:
    _TRAINERS[key] = trainer.Trainer(config)
  training = _TRAINERS[key]
  training.config = config
  for variable in training.stepper.model.trainable_variables:
    variable.assign(np.zeros(variable.shape, np.float32))
  return training


def checkpoint(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The variables in a checkpoint."""
  with np.load(path) as stored:
    return {key: stored[key] for key in stored.files if key != "state"}


def history(path: pathlib.Path) -> list[dict[str, Any]]:
  """The rows that a run's latest checkpoint keeps, without how long epochs took."""
  with np.load(path / "checkpoints" / "latest.npz") as stored:
    rows = json.loads(str(stored["state"]))["history"]
  return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def assert_same_run(one: pathlib.Path, other: pathlib.Path) -> None:
  """Equal history and weights, bit by bit."""
  assert history(one) == history(other)
  for name in ("best", "latest"):
    ours, theirs = (checkpoint(path / "checkpoints" / f"{name}.npz") for path in (one, other))
    assert ours.keys() == theirs.keys()
    for key in ours:
      np.testing.assert_array_equal(ours[key], theirs[key], err_msg=f"{name} {key}")


class Stub:
  """Replaces what a trainer computes, so that its bookkeeping is tested without tracing.

  Each epoch sets the weights to the epoch's number, and validation returns the next value.
  """

  def __init__(self, training: trainer.Trainer, monkeypatch, values: list[float],
               fail_at: int = 0):
    """`fail_at` is the step whose loss is not finite; 0: none."""
    self._training = training
    self._values = values
    self._fail_at = fail_at
    self.steps = 0
    training.stepper.train = self._train
    training.stepper.validate = lambda _: np.float32(0.5)
    training.scorer = lambda prepared: [np.zeros(len(member.choice)) for member in prepared]
    monkeypatch.setattr(trainer.validation, "ranking_metrics", self._metrics)

  def _train(self, _) -> dict[str, Any]:
    self.steps += 1
    for variable in self._training.stepper.model.trainable_variables:
      variable.assign(np.full(variable.shape, self.epoch, np.float32))
    finite = self.steps != self._fail_at
    return {"loss": 1.0 if finite else float("nan"), "gradient_norm": 2.0, "learning_rate": 0.5,
            "finite": finite, "correct": 3.0, "pairs": 4.0}

  @property
  def epoch(self) -> int:
    return -(-self.steps // self._training.steps_per_epoch)

  def _metrics(self, prepared, scores, selected) -> dict[str, float]:
    del prepared, scores
    value = self._values[self.epoch - 1]
    return dict.fromkeys(trainer.validation.metric_names(selected), value)
