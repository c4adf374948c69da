"""Trains the three modules of a LayerDAG side by side, on all layers of all graphs at once.

Teacher-forced: each layer is learned given the true ones before it. Each module keeps the weights,
averaged over the latest steps, with which it found the validation graphs most likely, and stops for
itself.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import logging
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

_logger = logging.getLogger(__name__)
# Times each validation step draws its noise: the same noise every time.
_VALIDATION_DRAWS = 4


@dataclasses.dataclass
class Progress:
  """How far training is; a checkpoint holds it beside the variables.

  Attributes:
    epoch, step: done so far.
    best: for each module the least validation bound, in nats a graph.
    best_epoch: for each module the epoch of that.
    history: one row for each validation.
  """

  epoch: int = 0
  step: int = 0
  best: dict[str, float] = dataclasses.field(default_factory=dict)
  best_epoch: dict[str, int] = dataclasses.field(default_factory=dict)
  history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


class Fitter:
  """Everything that training needs; `epoch` runs one."""

  def __init__(self, generator: generator_lib.Generator, train: dags_lib.Dags,
               valid: dags_lib.Dags):
    """Lays out the steps of all graphs, and makes the optimizers.

    Raises:
      ConfigError: settings that do not fit together.
      DataError: there are no validation graphs, or they have other attributes.
    """
    self.generator = generator
    fit = generator.config.fit
    if not len(valid):
      raise errors.DataError("there are no validation graphs; expected one at least")
    if fit.patience < fit.validate_every:
      raise errors.ConfigError(
          f"fit.patience is {fit.patience}, fit.validate_every {fit.validate_every}: modules would "
          "stop before they are judged again; expected patience to be no less")
    self._train = [generator.unroll(graph) for graph in generator.grown(train)]
    self._asked = generator.conditions_of(train)
    self._steps = -(-len(self._train) // fit.batch_graphs)
    self._valid = [generator.unroll(graph) for graph in generator.grown(valid)]
    self._valid_asked = generator.conditions_of(valid)
    self.progress = Progress()
    self._optimizers = {name: tf.keras.optimizers.Adam(
        _WarmCosine(fit.learning_rate, fit.warmup_steps, fit.epochs * self._steps),
        global_clipnorm=fit.clip_norm) for name in generator.modules}
    for name, optimizer in self._optimizers.items():
      optimizer.build(generator.variables[name])
    copies = lambda: {name: [tf.Variable(variable, trainable=False) for variable in variables]
                      for name, variables in generator.variables.items()}
    self._averages, self.best = copies(), copies()
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
    """Everything that changes in training, for a checkpoint."""
    groups = {}
    for name, variables in self.generator.variables.items():
      groups[name] = variables
      groups[f"{name}_average"] = self._averages[name]
      groups[f"{name}_best"] = self.best[name]
      groups[f"{name}_optimizer"] = self._optimizers[name].variables
    return groups

  @property
  def learning(self) -> list[str]:
    """The modules that have not stopped."""
    patience = self.generator.config.fit.patience
    return [name for name in self.generator.modules if name not in self.progress.best or
            self.progress.epoch - self.progress.best_epoch[name] < patience]

  @property
  def finished(self) -> bool:
    """Whether all epochs are done, or all modules have stopped."""
    return self.progress.epoch >= self.generator.config.fit.epochs or not self.learning

  def epoch(self) -> dict[str, Any]:
    """One epoch, and its validation where one is due.

    Returns:
      The row of history: mean losses and validation bounds in nats a graph, by module.

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
    row: dict[str, Any] = {"epoch": progress.epoch, "step": progress.step, **{
        f"{name}_loss": sums[name] / self._steps if name in sums else None
        for name in self.generator.modules}}
    if progress.epoch % fit.validate_every == 0 or progress.epoch >= fit.epochs:
      row.update(self._validate(learning))
    row["seconds"] = time.monotonic() - started
    progress.history.append(row)
    return row

  def keep_best(self) -> None:
    """Gives each module the weights of its best validation."""
    for name, variables in self.generator.variables.items():
      _assign(variables, self.best[name])

  def bounds(self, name: str, unrolled, asked: np.ndarray, draws: int) -> float:
    """The mean bound of -log p of graphs, in nats a graph, by a module."""
    fit, total = self.generator.config.fit, 0.0
    for draw in range(draws):
      for start in range(0, len(unrolled), fit.batch_graphs):
        rows = slice(start, start + fit.batch_graphs)
        arrays = self.generator.batch(unrolled[rows], asked[rows])
        total += float(self._bound[name](arrays, _seed(draw, start)))
    return total / draws / len(unrolled)

  def _validate(self, learning: list[str]) -> dict[str, float]:
    progress, found = self.progress, {}
    for name in learning:
      # What is not drawn at random needs one draw.
      draws = 1 if name == "sizes" else _VALIDATION_DRAWS
      variables, averages = self.generator.variables[name], self._averages[name]
      learned = [variable.numpy() for variable in variables]
      _assign(variables, averages)
      value = self.bounds(name, self._valid, self._valid_asked, draws)
      _assign(variables, learned)
      if not math.isfinite(value):
        raise errors.TrainingError(
            f"epoch {progress.epoch}: the validation bound of {name} is {value}; lower "
            "--learning_rate")
      found[f"valid_{name}"] = value
      if value < progress.best.get(name, math.inf):
        progress.best[name], progress.best_epoch[name] = value, progress.epoch
        _assign(self.best[name], averages)
    return found

  def _batches(self, epoch: int) -> Iterator[dict[str, np.ndarray]]:
    """Each graph once, some of them without their conditions, others not quite with their own."""
    config = self.generator.config
    scalars = self.generator.facts.conditions.scalars
    rng = np.random.default_rng([config.fit.seed, epoch])
    order = rng.permutation(len(self._train))
    for start in range(0, len(order), config.fit.batch_graphs):
      rows = order[start:start + config.fit.batch_graphs]
      asked = self._asked[rows].copy()
      asked[rng.random(len(rows)) < config.network.condition_dropout] = np.nan
      arrays = self.generator.batch([self._train[row] for row in rows], asked)
      if config.network.condition_noise:
        noise = config.network.condition_noise * rng.normal(size=[len(rows), len(scalars)])
        # What is open stays as it is.
        arrays["scalar"] += (noise[arrays["graph"]] * arrays["told"][:, scalars]).astype(np.float32)
      yield arrays

  def _step(self, name: str) -> Callable[..., tf.Tensor]:
    module, optimizer = self.generator.modules[name], self._optimizers[name]
    averages, kept = self._averages[name], self.generator.config.fit.average

    def step(arrays, seed):
      with tf.GradientTape() as tape:
        losses, _ = module.losses(arrays, modules_lib.Noise(seed), True)
        graphs = tf.cast(arrays["graph"][-1] + 1, losses.dtype)
        loss = tf.reduce_sum(losses) / graphs
      variables = module.trainable_variables
      optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
      # What was learned first is soon forgotten.
      share = tf.maximum(1.0 - kept, 9.0 / (10.0 + tf.cast(optimizer.iterations, tf.float32)))
      for average, variable in zip(averages, self.generator.variables[name]):
        average.assign_add(share * (variable - average))
      return loss

    return step


def _assign(variables: Sequence[tf.Variable], values: Sequence[Any]) -> None:
  for variable, value in zip(variables, values):
    variable.assign(value)


def _seed(first: int, second: int) -> tf.Tensor:
  return tf.constant([first, second], tf.int32)


class _WarmCosine(tf.keras.optimizers.schedules.LearningRateSchedule):
  """A linear rise to the peak, then half a cosine down to a hundredth of it."""

  def __init__(self, peak: float, warmup: int, steps: int):
    self._peak, self._warmup, self._steps = peak, max(warmup, 1), steps

  def __call__(self, step):
    step = tf.cast(step, tf.float32)
    rise = tf.minimum((step + 1.0) / self._warmup, 1.0)
    share = tf.clip_by_value((step - self._warmup) / max(self._steps - self._warmup, 1), 0.0, 1.0)
    return self._peak * rise * (0.01 + 0.99 * 0.5 * (1.0 + tf.cos(math.pi * share)))


def divide(dags: dags_lib.Dags, config: settings.LayerDagConfig,
           valid: dags_lib.Dags | None = None):
  """Training and validation graphs; without the latter a share of the former, twins together."""
  if valid is not None:
    return dags, valid
  parts = dags_lib.split_by_wl(dags, {"valid": config.fit.valid_fraction}, config.fit.seed)
  return dags.take(parts["train"]), dags.take(parts["valid"])
