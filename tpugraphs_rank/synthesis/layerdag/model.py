"""LayerDAG: learns to synthesise directed acyclic graphs, layer by layer (arXiv 2411.02322).

A graph is a sequence of layers. Each step predicts how many nodes come next, denoises their
attributes, then denoises the edges that join them to the nodes before, given what is asked for.
"""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf
import tqdm

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import npz
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.layerdag import conditions as conditions_lib
from tpugraphs_rank.synthesis.layerdag import critic as critic_lib
from tpugraphs_rank.synthesis.layerdag import fitting
from tpugraphs_rank.synthesis.layerdag import generator as generator_lib
from tpugraphs_rank.synthesis.layerdag import networks as modules_lib
from tpugraphs_rank.synthesis.layerdag import sampler
from tpugraphs_rank.synthesis.layerdag import settings

_BUNDLED = (pathlib.Path(__file__).resolve().parent.parent / "bundled" / "layerdag_tile_xla_cpu"
            / "model.npz")


class LayerDAG:
  """A generator of graphs: `fit`, then `sample`; or `load` one that was saved."""

  def __init__(self, config: settings.LayerDagConfig = settings.LayerDagConfig(),
               generator: generator_lib.Generator | None = None):
    """An untrained model, or one around trained networks."""
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
      raise errors.TrainingError("this LayerDAG is not trained; call fit(graphs), or load(path)")
    return self._generator

  def fit(self, graphs: dags_lib.Dags, valid: dags_lib.Dags | None = None) -> "LayerDAG":
    """Trains on graphs; `tpugraphs_rank.cli.layerdag_train` does the same with checkpoints.

    Args:
      graphs: training graphs.
      valid: validation graphs; otherwise a share of `graphs`, structural twins together.

    Raises:
      ConfigError: a condition that the graphs do not have.
      TrainingError: a loss is not finite.
    """
    # The first weights come from Keras's own generator.
    tf.keras.utils.set_random_seed(self.config.fit.seed)
    self._samplers = {}
    train, valid = fitting.divide(graphs, self.config, valid)
    self._generator = generator_lib.Generator(
        self.config, generator_lib.Facts.of(train, self.config))
    fitter = fitting.Fitter(self._generator, train, valid)
    with tqdm.tqdm(total=self.config.fit.epochs, unit="epoch", desc="LayerDAG",
                   disable=None) as bar:
      while not fitter.finished:
        fitter.epoch()
        bar.update()
    fitter.keep_best()
    return self

  def sample(self, n: int, labels: dict[str, np.ndarray] | None = None, seed: int = 0,
             options: sampler.Options = sampler.Options(),
             critic: critic_lib.Critic | None = None) -> dags_lib.Dags:
    """Draws graphs; the same seed, options and critic give the same ones.

    Args:
      n: how many.
      labels: for some of the model's conditions one value, or (n,) values; the others are drawn
        from the training graphs nearest in those.
      seed: of everything random.
      options: constraints, temperature, guidance, caps.
      critic: chooses among `critic.tries` graphs that are drawn for each; its label must be one of
        the model's conditions.

    Returns:
      The graphs; y holds what was asked for, in the order of the model's conditions.

    Raises:
      ConfigError: a label that is no condition of the model.
      TrainingError: the model is not trained, or so badly that hardly a graph can be completed.
    """
    generator = self.generator
    if n < 1 or seed < 0:
      raise errors.ConfigError(f"{n} graphs with seed {seed}; expected at least one, and a seed of "
                               "0 or above")
    asked = conditions_lib.asked_for(
        generator.facts.conditions, n, labels, np.random.default_rng([seed, n]))
    if options not in self._samplers:
      self._samplers[options] = sampler.Sampler(generator, options)
    tries = critic.tries if critic else 1
    if critic and critic.label not in generator.facts.conditions.names:
      raise errors.ConfigError(
          f"the critic predicts {critic.label!r}; this model was trained on the conditions: "
          f"{', '.join(generator.facts.conditions.names) or 'none'}")
    asked = np.repeat(asked, tries, axis=0)
    drawn, lost = self._samplers[options](asked, seed)
    made = dags_lib.canonical(
        [(graph.edges, graph.x) for graph in drawn], generator.facts.x_names,
        generator.facts.vocabularies, asked, generator.facts.conditions.names,
        provenance={
            "made_by": "tpugraphs_rank LayerDAG", "model": self.hash(), "seed": seed,
            "options": dataclasses.asdict(options), "given_up": lost,
            "tries": tries, "cut_nodes": sum(graph.cut for graph in drawn)})
    return made.take(critic.chosen(made)) if critic else made

  def elbo(self, graphs: dags_lib.Dags, draws: int = 8, seed: int = 0) -> np.ndarray:
    """(G,) float64: estimates of the bound of log p(graph | conditions), in nats.

    The likelihood of the layers' sizes is exact, the bounds of nodes and edges are averages over
    random times and noises; a kind never seen in training counts nothing (it would be -infinity).

    Args:
      graphs: with the model's attributes and conditions.
      draws: how many times and noises.
      seed: of those.
    """
    generator = self.generator
    asked = generator.conditions_of(graphs)
    result = np.zeros([len(graphs)])
    functions: dict[str, Any] = {}
    size = self.config.fit.batch_graphs
    unrolled = [generator.unroll(graph) for graph in generator.grown(graphs)]
    for start in range(0, len(graphs), size):
      arrays = generator.batch(unrolled[start:start + size], asked[start:start + size])
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
              arrays["graph"], weights=nats, minlength=len(asked[start:start + size])) / times
    return result

  def hash(self) -> str:
    """16 hex digits of the configuration, the facts and the weights."""
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
    return arrays

  def save(self, path: files.PathLike) -> None:
    """Writes the trained model into one `.npz` file, compressed, without pickle."""
    # Where its graphs lay says nothing on another machine.
    config = config_lib.override(self.config, {"data.graphs": "", "data.valid_graphs": None})
    with files.atomic_write(path) as file:
      np.savez_compressed(
          file, config=np.array(json.dumps(config_lib.to_dict(config))), **self._arrays())

  @classmethod
  def load(cls, path: files.PathLike) -> "LayerDAG":
    """Reads a model that `save` or a training run wrote.

    Raises:
      MissingDataError: there is no such file.
      DataError: it is damaged, or no LayerDAG.
    """
    arrays = npz.read_arrays(path)
    try:
      config = config_lib.from_dict(
          settings.LayerDagConfig, json.loads(str(arrays["config"])), source=str(path))
      model = cls(config, generator_lib.Generator(
          config, generator_lib.Facts.from_arrays(arrays)))
      for name, variables in model.generator.variables.items():
        for place, variable in enumerate(variables):
          variable.assign(arrays[f"{name}/{place:04d}"])
    except (KeyError, ValueError) as error:
      raise errors.DataError(
          f"{path} is no LayerDAG of this version, or damaged ({error}); train one with "
          "`python -m tpugraphs_rank.cli.layerdag_train`") from error
    return model


def bundled() -> LayerDAG:
  """The small model that comes with the package: of the training kernels of `tile:xla_cpu`.

  Its conditions are `runtime`, the mean normalised runtime of a kernel, and `size`.
  """
  return LayerDAG.load(_BUNDLED)
