"""Trains the three modules of a LayerDAG in parallel, on all layers of all graphs at once.

Training is teacher-forced: each layer is learned from the true layers before it. Each module keeps
the moving average of its weights that gave the validation graphs the highest likelihood, and stops
independently of the others.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import math
import time
from typing import Any

import numpy as np
import tensorflow as tf

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.layerdag import generator as generator_lib
from tpugraphs_rank.synthesis.layerdag import networks as modules_lib
from tpugraphs_rank.synthesis.layerdag import settings
from tpugraphs_rank.training import averaging
from tpugraphs_rank.training import epochs
from tpugraphs_rank.training import schedules

# Noise samples per validation graph. They are the same in every validation.
_VALIDATION_DRAWS = 4


@dataclasses.dataclass
class Progress(epochs.Progress):
  """How far training is, and what the best validations reached.

  Attributes:
    best: for each module the lowest validation bound, in nats per graph.
    best_epoch: for each module the epoch of that bound.
  """

  best: dict[str, float] = dataclasses.field(default_factory=dict)
  best_epoch: dict[str, int] = dataclasses.field(default_factory=dict)


class Fitter:
  """Everything that training needs; `epoch` runs one epoch."""

  def __init__(self, generator: generator_lib.Generator, train: dags_lib.Dags,
               valid: dags_lib.Dags):
    """Prepares the steps of all graphs, and creates the optimizers.

    Raises:
      ConfigError: settings that do not fit together.
      DataError: there are no validation graphs, or they have other attributes.
    """
    self.generator = generator
    fit = generator.config.fit
    if not len(valid):
      raise errors.DataError("there are no validation graphs; expected at least one")
    if fit.patience < fit.validate_every:
      raise errors.ConfigError(
          f"fit.patience is {fit.patience}, fit.validate_every {fit.validate_every}: modules would "
          "stop before the next validation; expected a patience of at least validate_every")
    self._train = [generator.unroll(graph) for graph in generator.ordered(train)]
    self._conditions = generator.conditions_of(train)
    self.steps_per_epoch = -(-len(self._train) // fit.batch_graphs)
    self._valid = [generator.unroll(graph) for graph in generator.ordered(valid)]
    self._valid_conditions = generator.conditions_of(valid)
    self.progress = Progress()
    self._optimizers = {name: tf.keras.optimizers.Adam(
        schedules.WarmupSchedule(fit.learning_rate, max(fit.warmup_steps, 1),
                                 fit.epochs * self.steps_per_epoch),
        global_clipnorm=fit.clip_norm) for name in generator.modules}
    for name, optimizer in self._optimizers.items():
      optimizer.build(generator.variables[name])
    self._averages = {name: averaging.WeightAverage(variables)
                      for name, variables in generator.variables.items()}
    self.best = {name: [tf.Variable(variable, trainable=False) for variable in variables]
                 for name, variables in generator.variables.items()}
    spec = generator_lib.signature(next(self._batches(1)))
    seed = tf.TensorSpec([2], tf.int32)
    self._train_step = {name: tf.function(
        self._step(name), input_signature=[spec, seed], autograph=False)
                        for name in generator.modules}
    self._bound = {name: tf.function(
        lambda arrays, seed, module=module: tf.reduce_sum(
            module.losses(arrays, modules_lib.Noise(seed), False)[1]),
        input_signature=[spec, seed], autograph=False)
                   for name, module in generator.modules.items()}

  def variables(self) -> dict[str, list[tf.Variable]]:
    """Everything that changes during training, for a checkpoint."""
    groups = {}
    for name, variables in self.generator.variables.items():
      groups[name] = variables
      groups[f"{name}_average"] = self._averages[name].variables
      groups[f"{name}_best"] = self.best[name]
      groups[f"{name}_optimizer"] = self._optimizers[name].variables
    return groups

  @property
  def learning(self) -> list[str]:
    """The modules that have not stopped."""
    patience = self.generator.config.fit.patience
    progress = self.progress
    return [name for name in self.generator.modules if not epochs.is_out_of_patience(
        progress.epoch, progress.best_epoch.get(name), patience)]

  @property
  def finished(self) -> bool:
    """Whether all epochs are completed, or all modules have stopped."""
    return self.progress.epoch >= self.generator.config.fit.epochs or not self.learning

  def epoch(self, on_step: Callable[[], Any] = lambda: None) -> dict[str, Any]:
    """Runs one epoch, and validates if a validation is due.

    Args:
      on_step: called after each step.

    Returns:
      The row of history: mean losses and validation bounds in nats per graph, by module.

    Raises:
      TrainingError: a loss is not finite.
    """
    started = time.monotonic()
    fit, progress = self.generator.config.fit, self.progress
    learning = self.learning
    sums = dict.fromkeys(learning, 0.0)
    progress.epoch += 1
    for arrays in self._batches(progress.epoch):
      progress.step += 1
      tensors = {key: tf.convert_to_tensor(value) for key, value in arrays.items()}
      for name in learning:
        loss = float(self._train_step[name](tensors, _seed(fit.seed, progress.step)))
        if not math.isfinite(loss):
          raise errors.TrainingError(
              f"step {progress.step} (epoch {progress.epoch}): the loss of {name} is {loss}; lower "
              "--learning_rate")
        sums[name] += loss
      on_step()
    row: dict[str, Any] = {"epoch": progress.epoch, "step": progress.step, **{
        f"{name}_loss": sums[name] / self.steps_per_epoch if name in sums else None
        for name in self.generator.modules}}
    if progress.epoch % fit.validate_every == 0 or progress.epoch >= fit.epochs:
      row.update(self._validate(learning))
    row["seconds"] = time.monotonic() - started
    progress.history.append(row)
    return row

  def keep_best(self) -> None:
    """Gives each module the weights of its best validation."""
    for name, variables in self.generator.variables.items():
      averaging.assign(variables, self.best[name])

  def bounds(self, name: str, unrolled: Sequence[generator_lib.Arrays], conditions: np.ndarray,
             draws: int) -> float:
    """A module's mean bound of -log p, in nats per graph.

    Args:
      name: the module.
      unrolled: the graphs.
      conditions: the requested conditions of each.
      draws: noise samples per graph.
    """
    fit, total = self.generator.config.fit, 0.0
    for draw in range(draws):
      for start in range(0, len(unrolled), fit.batch_graphs):
        rows = slice(start, start + fit.batch_graphs)
        arrays = self.generator.batch(unrolled[rows], conditions[rows])
        total += float(self._bound[name](arrays, _seed(draw, start)))
    return total / draws / len(unrolled)

  def _validate(self, learning: list[str]) -> dict[str, float]:
    """The validation bounds of modules, with their averaged weights; keeps the best weights."""
    progress, values = self.progress, {}
    for name in learning:
      # The sizes module samples no noise.
      draws = 1 if name == "sizes" else _VALIDATION_DRAWS
      average = self._averages[name]
      with average.applied():
        value = self.bounds(name, self._valid, self._valid_conditions, draws)
      if not math.isfinite(value):
        raise errors.TrainingError(
            f"epoch {progress.epoch}: the validation bound of {name} is {value}; lower "
            "--learning_rate")
      values[f"valid_{name}"] = value
      if value < progress.best.get(name, math.inf):
        progress.best[name], progress.best_epoch[name] = value, progress.epoch
        averaging.assign(self.best[name], average.variables)
    return values

  def _batches(self, epoch: int) -> Iterator[dict[str, np.ndarray]]:
    """Batches of all graphs, each graph once.

    With `condition_dropout`, some graphs come without their conditions; with `condition_noise`,
    noise is added to them.
    """
    config = self.generator.config
    scalars = self.generator.facts.conditions.scalars
    rng = np.random.default_rng([config.fit.seed, epoch])
    order = rng.permutation(len(self._train))
    for start in range(0, len(order), config.fit.batch_graphs):
      rows = order[start:start + config.fit.batch_graphs]
      conditions = self._conditions[rows].copy()
      conditions[rng.random(len(rows)) < config.network.condition_dropout] = np.nan
      arrays = self.generator.batch([self._train[row] for row in rows], conditions)
      if config.network.condition_noise:
        noise = config.network.condition_noise * rng.normal(size=[len(rows), len(scalars)])
        # Unspecified conditions stay 0.
        noise = noise[arrays["graph"]] * arrays["specified"][:, scalars]
        arrays["scalar"] += noise.astype(np.float32)
      yield arrays

  def _step(self, name: str) -> Callable[..., tf.Tensor]:
    module, optimizer = self.generator.modules[name], self._optimizers[name]
    average, kept = self._averages[name], self.generator.config.fit.average

    def step(arrays, seed):
      with tf.GradientTape() as tape:
        losses, _ = module.losses(arrays, modules_lib.Noise(seed), True)
        graphs = tf.cast(arrays["graph"][-1] + 1, losses.dtype)
        loss = tf.reduce_sum(losses) / graphs
      variables = module.trainable_variables
      optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
      average.update(
          tf.maximum(1.0 - kept, 9.0 / (10.0 + tf.cast(optimizer.iterations, tf.float32))))
      return loss

    return step


def _seed(first: int, second: int) -> tf.Tensor:
  return tf.constant([first, second], tf.int32)


def divide(dags: dags_lib.Dags, config: settings.LayerDagConfig,
           valid: dags_lib.Dags | None = None) -> tuple[dags_lib.Dags, dags_lib.Dags]:
  """Training and validation graphs.

  Args:
    dags: the graphs.
    config: the configuration.
    valid: the validation graphs. Default: a share of `dags`, with structural twins on one side.
  """
  if valid is not None:
    return dags, valid
  parts = dags_lib.split_by_wl(dags, {"valid": config.fit.valid_fraction}, config.fit.seed)
  return dags.take(parts["train"]), dags.take(parts["valid"])
