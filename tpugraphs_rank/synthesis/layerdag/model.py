"""LayerDAG: a model that generates directed acyclic graphs layer by layer (arXiv 2411.02322).

A graph is a sequence of layers. Each step predicts the number of new nodes, denoises their
attributes, then denoises the edges that connect them to earlier nodes, given the conditions.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from tpugraphs_rank import array_files
from tpugraphs_rank import commands
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank.data import npz
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.layerdag import calibration
from tpugraphs_rank.synthesis.layerdag import conditions as conditions_lib
from tpugraphs_rank.synthesis.layerdag import critic as critic_lib
from tpugraphs_rank.synthesis.layerdag import fitting
from tpugraphs_rank.synthesis.layerdag import generator as generator_lib
from tpugraphs_rank.synthesis.layerdag import networks as modules_lib
from tpugraphs_rank.synthesis.layerdag import sampler
from tpugraphs_rank.synthesis.layerdag import settings
from tpugraphs_rank.training import epochs
from tpugraphs_rank.training import stored_weights

_BUNDLED = (pathlib.Path(__file__).resolve().parents[2] / "bundled" / "layerdag_tile_xla_cpu"
            / "model.npz")


class LayerDAG:
  """A generator of graphs: call `fit`, then `sample`; or `load` a saved model."""

  def __init__(self, config: settings.LayerDagConfig = settings.DEFAULT_CONFIG,
               generator: generator_lib.Generator | None = None):
    """Creates an untrained model, or wraps trained networks."""
    self.config = config
    self._generator = generator
    self._samplers: dict[sampler.Options, sampler.Sampler] = {}

  @property
  def generator(self) -> generator_lib.Generator:
    """The networks.

    Raises:
      TrainingError: the model is not trained.
    """
    if self._generator is None:
      raise errors.TrainingError("this LayerDAG is not trained; call fit(graphs), or "
                                 "layerdag.load(path)")
    return self._generator

  def fit(self, graphs: dags_lib.Dags, valid: dags_lib.Dags | None = None) -> "LayerDAG":
    """Trains on graphs; `tpugraphs-rank layerdag train` does the same with checkpoints.

    Args:
      graphs: training graphs.
      valid: validation graphs; None: a share of `graphs`, with structural twins together.

    Raises:
      ConfigError: the graphs do not have a condition of the configuration.
      TrainingError: a loss is not finite.
    """
    # Keras's global generator initializes the weights.
    tf.keras.utils.set_random_seed(self.config.fit.seed)
    self._samplers = {}
    train, valid = fitting.divide(graphs, self.config, valid)
    self._generator = generator_lib.Generator(
        self.config, generator_lib.Facts.of(train, self.config))
    fitter = fitting.Fitter(self._generator, train, valid)
    with epochs.step_bar(self.config.fit.epochs * fitter.steps_per_epoch, label="LayerDAG") as bar:
      while not fitter.finished:
        fitter.epoch(bar.update)
    fitter.keep_best()
    calibration.calibrate_as_configured(self._generator, train)
    return self

  def sample(self, n: int, labels: dict[str, np.ndarray] | None = None, seed: int = 0,
             options: sampler.Options = sampler.DEFAULT_OPTIONS,
             critic: critic_lib.Critic | None = None) -> dags_lib.Dags:
    """Generates graphs; the same seed, options and critic give the same graphs.

    Args:
      n: number of graphs.
      labels: for some of the model's conditions one value, or (n,) values; the others are sampled
        from the training graphs that are nearest in the specified ones.
      seed: seed of all random choices.
      options: constraints, temperature, guidance, limits.
      critic: selects one of `critic.tries` generated graphs for each result; its label must be one
        of the model's conditions.

    Returns:
      The graphs; y holds the requested conditions, in the order of the model's conditions.

    Raises:
      ConfigError: a label is not a condition of the model.
      TrainingError: the model is not trained, or almost no graph can be completed.
    """
    generator = self.generator
    if n < 1 or seed < 0:
      raise errors.ConfigError(f"{n} graphs with seed {seed}; expected at least one graph "
                               "and a seed of at least 0")
    requested = conditions_lib.sample_conditions(
        generator.facts.conditions, n, labels, np.random.default_rng([seed, n]))
    if options not in self._samplers:
      self._samplers[options] = sampler.Sampler(generator, options)
    tries = critic.tries if critic else 1
    if critic and critic.label not in generator.facts.conditions.names:
      raise errors.ConfigError(
          f"the critic predicts {critic.label!r}; this model was trained on the conditions: "
          f"{', '.join(generator.facts.conditions.names) or 'none'}")
    requested = np.repeat(requested, tries, axis=0)
    generated, restarts = self._samplers[options](requested, seed)
    graphs = dags_lib.canonical(
        [(graph.edges, graph.x) for graph in generated], generator.facts.x_names,
        generator.facts.vocabularies, requested, generator.facts.conditions.names,
        provenance={
            **({"collection": generator.facts.collection} if generator.facts.collection else {}),
            "made_by": "tpugraphs_rank LayerDAG", "model": self.hash(), "seed": seed,
            "options": dataclasses.asdict(options), "given_up": restarts,
            "tries": tries, "cut_nodes": sum(graph.cut for graph in generated)})
    return graphs.take(critic.select(graphs)) if critic else graphs

  def elbo(self, graphs: dags_lib.Dags, draws: int = 8, seed: int = 0) -> np.ndarray:
    """(G,) float64 estimates of the lower bound of log p(graph | conditions), in nats.

    The likelihood of the layers' sizes is exact; the bounds of nodes and edges are averages over
    random times and noise. Kinds that do not occur in training are ignored (their log-likelihood
    would be -infinity).

    Args:
      graphs: graphs with the model's attributes and conditions.
      draws: number of random times and noises to average over.
      seed: seed of the times and noises.
    """
    generator = self.generator
    requested = generator.conditions_of(graphs)
    result = np.zeros([len(graphs)])
    functions: dict[str, Any] = {}
    size = self.config.fit.batch_graphs
    unrolled = [generator.unroll(graph) for graph in generator.ordered(graphs)]
    for start in range(0, len(graphs), size):
      arrays = generator.batch(unrolled[start:start + size], requested[start:start + size])
      for name, module in generator.modules.items():
        if name not in functions:
          functions[name] = tf.function(
              lambda arrays, seed, module=module: module.losses(
                  arrays, modules_lib.Noise(seed), False)[1],
              input_signature=[generator_lib.signature(arrays), tf.TensorSpec([2], tf.int32)],
              autograph=False)
        times = 1 if name == "sizes" else draws
        for draw in range(times):
          nats = functions[name](arrays, np.array([seed + draw, start], np.int32)).numpy()
          result[start:start + size] -= np.bincount(
              arrays["graph"], weights=nats, minlength=len(requested[start:start + size])) / times
    return result

  def hash(self) -> str:
    """16 hexadecimal digits that identify the configuration, the facts and the weights."""
    digest = hashlib.sha256(config_lib.stable_hash(self.config).encode())
    for name, array in sorted(self._arrays().items()):
      digest.update(name.encode())
      digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]

  def _arrays(self) -> dict[str, np.ndarray]:
    arrays = self.generator.facts.arrays()
    for name, variables in self.generator.variables.items():
      for place, variable in enumerate(variables):
        arrays[f"{name}/{place:04d}"] = variable.numpy()
    kinds, users = self.generator.kind_shift.numpy(), self.generator.user_shift
    if kinds.any() or users.any():
      # Not for models of earlier versions, whose hash stays the same.
      arrays.update(kind_shift=kinds, user_shift=users)
    return arrays

  def save(self, path: files.PathLike) -> None:
    """Writes the trained model to one compressed `.npz` file, without pickle."""
    # Paths of graph files are meaningless on another machine.
    config = config_lib.override(self.config, {"data.graphs": "", "data.valid_graphs": None})
    array_files.save(
        path, {"config": json.dumps(config_lib.to_dict(config)), **self._arrays()})

  @classmethod
  def load(cls, path: files.PathLike) -> "LayerDAG":
    """Reads a model that `save` or a training run wrote.

    Raises:
      MissingDataError: the file does not exist.
      DataError: the file is damaged, or is not a LayerDAG model.
    """
    arrays = npz.read_arrays(path)
    try:
      config = config_lib.from_dict(
          settings.LayerDagConfig, files.parse_json(str(arrays["config"]), f"{path}: config"),
          source=str(path))
      facts = generator_lib.Facts.from_arrays(arrays)
      # Before the networks are built, which takes longer than the rest.
      for name, value in arrays.items():
        if "/" in name and (value.dtype.kind != "f" or not np.isfinite(value).all()):
          raise errors.DataError(
              f"{escaping.shown(name)} holds values that are no finite numbers")
      with stored_weights.no_more_than(
          [value.shape for name, value in arrays.items() if "/" in name], "it"):
        model = cls(config, generator_lib.Generator(config, facts))
      for name, variables in model.generator.variables.items():
        for place, variable in enumerate(variables):
          variable.assign(arrays[f"{name}/{place:04d}"])
      if "kind_shift" in arrays:
        model.generator.shift(*_checked_shifts(arrays, len(model.generator.facts.kinds)))
    except (KeyError, ValueError, TypeError, tf.errors.OpError) as error:
      raise errors.DataError(
          f"{path} is no LayerDAG model of this version, or damaged ({error}); train one with "
          f"{commands.command('layerdag', 'train')}") from error
    return model


def _checked_shifts(arrays: Mapping[str, np.ndarray], kinds: int) -> list[np.ndarray]:
  """The arrays that `generator.Generator.shift` takes, if they fit a model with these kinds."""
  shifts = [arrays["kind_shift"], arrays["user_shift"]]
  if (any(shift.dtype.kind != "f" or not np.isfinite(shift).all() for shift in shifts)
      or shifts[0].shape != (kinds,) or shifts[1].ndim != 2 or len(shifts[1]) != kinds
      or not 0 < shifts[1].shape[1] <= calibration.COUNTS):
    raise errors.DataError(
        f"kind_shift and user_shift are no finite numbers for {kinds} kinds of nodes")
  return shifts


def load(path: files.PathLike) -> LayerDAG:
  """Reads a model; see `LayerDAG.load`."""
  return LayerDAG.load(path)


def bundled() -> LayerDAG:
  """The small model that ships with the package, trained on the kernels of `tile:xla_cpu:v1`.

  Its conditions are `runtime`, the mean normalized runtime of a kernel, and `size`.
  """
  model = LayerDAG.load(_BUNDLED)
  # The file was written before files of models named their collection.
  model.generator.facts = dataclasses.replace(model.generator.facts, collection="tile:xla_cpu:v1")
  return model
