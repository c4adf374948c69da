"""Pre-trains a ranker on graphs alone: their nodes, their edges, and a graph-level label.

The ranker's own layers are trained without any configuration (`Ranker.node_states`), with temporary
heads that are discarded. The result is a folder that training can start from
(`training.initial_checkpoint`). Imports TensorFlow.

  opcode         opcode of masked nodes, predicted from the nodes around them
  element_type   element type of masked nodes
  edges          pairs of an operand and its user whose edge is hidden, against random pairs
  label          logarithm of the mean normalized runtime of a graph, from its pooled state

The first three follow masked-attribute and edge prediction (Hu et al., "Strategies for pre-training
graph neural networks", ICLR 2020). The last is the label that LayerDAG is conditioned on
(arXiv 2411.02322), used as an auxiliary task.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import logging
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import metrics
from tpugraphs_rank import run_config
from tpugraphs_rank.config import setting
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import mixing
from tpugraphs_rank.data import normalize
from tpugraphs_rank.data import pipeline
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.models import build_model
from tpugraphs_rank.models import ranker as ranker_lib
from tpugraphs_rank.synthesis.augment import pretext
from tpugraphs_rank.training import checkpoints
from tpugraphs_rank.training import epochs
from tpugraphs_rank.training import runtime
from tpugraphs_rank.training import schedules

_logger = logging.getLogger(__name__)

REPORT = "pretraining.json"
OBJECTIVES = ("opcode", "element_type", "edges", "label")
# Seed components that keep the random choices of pre-training independent of those of training.
_REAL, _SYNTHETIC, _TASKS, _HELD_OUT, _EVALUATION = 11, 12, 13, 14, 15
_EVALUATION_DRAWS = 4


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is learned before ranking, and for how long."""

  objectives: tuple[str, ...] = setting(
      ("opcode", "element_type", "edges"), "Prediction targets; their losses are summed.",
      choices=OBJECTIVES)
  steps: int = setting(400, "Gradient steps, in addition to those of ranking.", minimum=1)
  batch_size: int = setting(16, "Graphs per step; augment.synthetic_share of them are synthetic.",
                            minimum=2)
  learning_rate: float = setting(3e-3, "Peak learning rate of Adam, with cosine decay.", above=0.0)
  mask_share: float = setting(0.15, "Share of masked nodes.", above=0.0, maximum=0.9)
  edge_share: float = setting(0.15, "Share of hidden edges.", above=0.0, maximum=0.9)
  held_out: float = setting(
      0.1, "Random share of the graphs that is used for evaluation only.",
      minimum=0.0, maximum=0.5)


class Graphs(NamedTuple):
  """The graphs of a pre-training, and the scaling of their features."""

  real: list[pretext.Example]
  synthetic: list[pretext.Example]
  normalizer: normalize.Normalizer
  programs: list[splits.ProgramView]


def graphs_of(config: run_config.RunConfig, labelled: bool) -> Graphs:
  """Reads the graphs that pre-training may use.

  Args:
    config: settings of the ranker's training. Synthetic programs with twins in validation or test
      are left out, as there.
    labelled: whether labels are learned. Then only the real graphs that the ranker trains on are
      used (`data.max_graphs`), because no other runtimes may be known. Otherwise all training
      graphs are used, without their runtimes.

  Raises:
    TpuGraphsRankError: see `splits.load` and `mixing.load_synthetic`.
  """
  collection = registry.get_collection(config.data.collection)
  seed, size = config.training.seed, config.batch.max_configs
  data = config.data if labelled else dataclasses.replace(config.data, max_graphs=None)
  real = splits.load(data, "train", seed, size).programs
  synthetic: list[splits.ProgramView] = []
  if config.augment.synthetic is not None:
    valid = splits.load(config.data, "valid", seed, size).programs
    synthetic = mixing.load_synthetic(config, collection, valid).programs
  programs = [*real, *synthetic]
  normalizer = normalize.Normalizer.fit(
      [program.graph for program in programs], [program.choice for program in programs],
      costs=config.model.tile_features == "costs",
      facts=collection.facts if config.model.layout_costs != "none" else None)
  examples = [pretext.example(program.graph, normalizer, label_of(program) if labelled else None)
              for program in programs]
  return Graphs(examples[:len(real)], examples[len(real):], normalizer, programs)


def label_of(program: splits.ProgramView) -> float:
  """log of the mean runtime (normalized, for kernels) over the configurations that may be used.

  Raises:
    DataError: the program has no measured runtimes.
  """
  mean = float(program.runtimes[program.indices].mean())
  if not mean > 0:
    raise errors.DataError(
        f"{program.graph.name} has no runtimes; a graph's label is the logarithm of their mean: "
        "remove the objective 'label', or use measured programs")
  return math.log(mean)


def pretrain(config: run_config.RunConfig, settings: Settings, folder: files.PathLike
             ) -> dict[str, Any]:
  """Trains a ranker's layers on graphs alone, and writes a checkpoint that training can start from.

  Args:
    config: settings of the ranker's training; its seed, model, data and `augment` are used.
    settings: what is learned, and for how long.
    folder: gets normalizer.npz, checkpoints/best.npz and pretraining.json, for
      `training.initial_checkpoint`.

  Returns:
    JSON values: the settings, numbers of graphs, the loss of the last tenth of the steps, and the
    accuracy of each task on held-out graphs (see `Pretrainer.evaluate`).

  Raises:
    ConfigError: there are no objectives.
    TrainingError: the loss is not finite.
    TpuGraphsRankError: see `graphs_of`.
  """
  if not settings.objectives:
    raise errors.ConfigError(
        f"pre-training has no objectives; expected some of: {', '.join(OBJECTIVES)}")
  runtime.configure(config.training.seed, config.training.threads)
  graphs = graphs_of(config, "label" in settings.objectives)
  pretrainer = Pretrainer(config, settings, graphs)
  report = pretrainer.train()
  directory = pathlib.Path(folder)
  graphs.normalizer.save(directory / "normalizer.npz")
  checkpoints.save(directory / "checkpoints" / "best.npz",
                   {"model": pretrainer.model.trainable_variables}, {"epoch": 0, "metrics": {}})
  files.write_json(directory / REPORT, report)
  return report


class Pretrainer:
  """A ranker with heads for self-supervised tasks.

  Attributes:
    model: the ranker, or an ensemble whose members learn independently.
  """

  def __init__(self, config: run_config.RunConfig, settings: Settings, graphs: Graphs):
    """Builds the model, its heads and the training step.

    Args:
      config: see `pretrain`.
      settings: see `pretrain`.
      graphs: the graphs to learn from.
    """
    self._config, self._settings = config, settings
    seed = config.training.seed
    rng = np.random.default_rng([seed, _HELD_OUT])
    sides = [_divided(side, settings.held_out, rng) for side in (graphs.real, graphs.synthetic)]
    (self._real, held_real), (self._synthetic, held_synthetic) = sides
    self._held_out = held_real + held_synthetic
    labels = np.array([one.label for one in self._real + self._synthetic])
    known = labels[np.isfinite(labels)]
    # Without labels, or with equal labels, nothing is scaled.
    self._mean = float(known.mean()) if known.size else 0.0
    self._deviation = (float(known.std()) if known.size else 0.0) or 1.0
    self.model = build_model(registry.get_collection(config.data.collection).kind, config)
    _create_variables(self.model, config, graphs)
    self._heads = [_Heads(member, config.model.hidden_width, settings.objectives)
                   for member in self.model.members]
    first = self._scaled(next(self._lists()))
    signature = {name: tf.TensorSpec([None, *array.shape[1:]], array.dtype, name=name)
                 for name, array in first.items()}
    for heads in self._heads:
      heads(first)  # Creates their variables.
    reached = [variable for heads in self._heads for variable in heads.trainable_variables]
    self._variables = [*self.model.trainable_variables, *reached]
    schedule = schedules.WarmupSchedule(
        settings.learning_rate, min(30, settings.steps), settings.steps)
    self._optimizer = tf.keras.optimizers.Adam(schedule)
    self._optimizer.build(self._variables)
    options = {"input_signature": [signature], "autograph": False}
    self._step = tf.function(self._train, **options)
    self._answer = tf.function(lambda arrays: self._heads[0](arrays), **options)

  def train(self) -> dict[str, Any]:
    """Runs all steps; returns the report of `pretrain`."""
    losses = []
    with epochs.step_bar(self._settings.steps, label="pre-training") as bar:
      for arrays in self._lists():
        losses.append(float(self._step(self._scaled(arrays))))
        bar.update()
        if not math.isfinite(losses[-1]):
          raise errors.TrainingError(
              f"pre-training, step {len(losses)}: the loss is {losses[-1]}; lower learning_rate, "
              "or look for extreme features in the collections")
    last = losses[-max(len(losses) // 10, 1):]
    held_out = self.evaluate(self._held_out)
    _logger.info("pre-training: loss %.3f; on %d held-out graphs: %s", np.mean(last),
                 len(self._held_out), held_out)
    return {"settings": dataclasses.asdict(self._settings), "steps": len(losses),
            "real_graphs": len(self._real), "synthetic_graphs": len(self._synthetic),
            "held_out_graphs": len(self._held_out), "loss": float(np.mean(last)),
            "first_loss": losses[0], "held_out": held_out}

  def evaluate(self, members: Sequence[pretext.Example]) -> dict[str, dict[str, float | None]]:
    """Evaluates the first network on graphs, with the same random choices each time.

    Graphs are held out at random, so structural twins of some may have been trained on.

    Returns:
      For "opcode" and "element_type" the accuracy on masked nodes, and that of the most frequent
      answer; for "edges" the accuracy on pairs, about half of which are edges; for "label"
      Pearson's correlation. Only the learned tasks; empty without graphs.
    """
    if not members:
      return {}
    rng = np.random.default_rng([self._config.training.seed, _EVALUATION])
    predictions: dict[str, list[np.ndarray]] = {}
    for _ in range(_EVALUATION_DRAWS):
      arrays = self._scaled(self._batch(members, rng))
      answers = {name: value.numpy() for name, value in self._answer(arrays).items()}
      for name in ("opcode", "element_type"):
        if name in answers:
          truth = arrays["masked_opcode" if name == "opcode" else "masked_type"]
          predictions.setdefault(name, []).append(np.stack([truth, answers[name].argmax(axis=1)]))
      if "edges" in answers:
        predictions.setdefault("edges", []).append(np.stack(
            [arrays["pair_is_edge"] > 0.5, answers["edges"] > 0]).astype(int))
      if "label" in answers:
        predictions.setdefault("label", []).append(np.stack([arrays["label"], answers["label"]]))
    result = {}
    for name, values in predictions.items():
      truth, answer = np.concatenate(values, axis=1)
      if name == "label":
        known = np.isfinite(truth)
        value = metrics.pearson(truth[known], answer[known]) if known.sum() > 1 else math.nan
        result[name] = {"pearson": None if math.isnan(value) else value}
      elif truth.size:
        result[name] = {"accuracy": float((truth == answer).mean()),
                        "most_frequent": float(np.bincount(truth).max() / truth.size)}
    return result

  def _train(self, arrays: Mapping[str, tf.Tensor]) -> tf.Tensor:
    with tf.GradientTape() as tape:
      loss = tf.add_n([heads.loss(arrays) for heads in self._heads]) / len(self._heads)
    gradients = [gradient if gradient is not None else tf.zeros_like(variable)
                 for gradient, variable in zip(tape.gradient(loss, self._variables),
                                               self._variables)]
    gradients, _ = tf.clip_by_global_norm(gradients, self._config.optimizer.clip_norm)
    self._optimizer.apply_gradients(zip(gradients, self._variables))
    return loss

  def _lists(self) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of all steps: a fixed number of real and of synthetic graphs each, in rounds."""
    settings, seed = self._settings, self._config.training.seed
    synthetic = 0
    if self._synthetic:
      share = self._config.augment.synthetic_share
      synthetic = min(max(round(share * settings.batch_size), 1), settings.batch_size)
    sides = [(side, count, mixing.repeated_permutations(
        len(side), 0, settings.steps * count, [seed, place]))
             for side, count, place in ((self._real, settings.batch_size - synthetic, _REAL),
                                        (self._synthetic, synthetic, _SYNTHETIC)) if side and count]
    rng = np.random.default_rng([seed, _TASKS])
    for step in range(settings.steps):
      yield self._batch([side[place] for side, count, order in sides
                         for place in order[step * count:(step + 1) * count]], rng)

  def _batch(self, members: Sequence[pretext.Example], rng: np.random.Generator
             ) -> dict[str, np.ndarray]:
    objectives, settings = self._settings.objectives, self._settings
    masks = "opcode" in objectives or "element_type" in objectives
    return pretext.batch(members, settings.mask_share if masks else 0.0,
                         settings.edge_share if "edges" in objectives else 0.0, rng)

  def _scaled(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**arrays, "label": (arrays["label"] - np.float32(self._mean))
                               / np.float32(self._deviation)}


class _Heads(tf.Module):
  """The task heads of one ranker; their outputs are logits, or the scaled label."""

  def __init__(self, ranker: ranker_lib.Ranker, width: int, objectives: Sequence[str]):
    super().__init__()
    dense = tf.keras.layers.Dense
    self._ranker = [ranker]  # The list hides its variables from this module; the model owns them.
    self._layers: dict[str, tf.keras.Sequential] = {}
    for name, outputs in (("opcode", pretext.MASKED_OPCODE), ("element_type", pretext.NUM_TYPES),
                          ("edges", 1), ("label", 1)):
      if name in objectives:
        self._layers[name] = tf.keras.Sequential(
            [dense(width, activation=tf.nn.leaky_relu), dense(outputs)], name=name)

  @property
  def trainable_variables(self) -> list[tf.Variable]:
    return [variable for head in self._layers.values() for variable in head.trainable_variables]

  def __call__(self, arrays: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    (ranker,) = self._ranker
    graphs = tf.shape(arrays["num_nodes"])[0]
    graph = pipeline.graph_tensor({**arrays, **_no_configurations(graphs)})
    hidden = ranker.node_states(graph)
    outputs = {}
    for name, head in self._layers.items():
      if name == "label":
        outputs[name] = head(ranker.graph_states(graph, hidden))[:, 0]
      elif name == "edges":
        operand, user = (tf.gather(hidden, arrays["pairs"][:, end]) for end in (0, 1))
        outputs[name] = head(tf.concat([operand, user, operand * user], axis=1))[:, 0]
      else:
        outputs[name] = head(tf.gather(hidden, arrays["masked"]))
    return outputs

  def loss(self, arrays: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """The sum of the mean losses: cross entropies in nats, squared error of the scaled label."""
    terms = []
    for name, answer in self(arrays).items():
      if name == "label":
        known = tf.math.is_finite(arrays["label"])
        error = tf.where(known, answer - tf.where(known, arrays["label"], 0.0), 0.0)
        terms.append(_mean(tf.square(error), tf.reduce_sum(tf.cast(known, tf.float32))))
        continue
      if name == "edges":
        each = tf.nn.sigmoid_cross_entropy_with_logits(arrays["pair_is_edge"], answer)
      else:
        truth = arrays["masked_opcode" if name == "opcode" else "masked_type"]
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(truth, answer)
      terms.append(_mean(each, tf.cast(tf.shape(each)[0], tf.float32)))
    return tf.add_n(terms)


def _mean(values: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
  """The mean of `count` values with this sum, 0 for none."""
  return tf.reduce_sum(values) / tf.maximum(count, 1.0)


def _no_configurations(graphs: tf.Tensor) -> dict[str, tf.Tensor]:
  """The arrays with which a batch describes configurations, for graphs without configurations."""
  return {"config_mask": tf.zeros(tf.stack([graphs, 0]), tf.bool),
          "reference_mask": tf.zeros(tf.stack([graphs, 0]), tf.bool),
          "configs": tf.zeros(tf.stack([graphs, 0, 1]))}


def _divided(side: Sequence[pretext.Example], share: float, rng: np.random.Generator
             ) -> tuple[list[pretext.Example], list[pretext.Example]]:
  """The graphs to learn from, and the held-out ones: round(share * n), none of a single graph."""
  order = rng.permutation(len(side))
  count = min(round(share * len(side)), max(len(side) - 1, 0))
  return [side[place] for place in order[count:]], [side[place] for place in order[:count]]


def _create_variables(model: Any, config: run_config.RunConfig, graphs: Graphs) -> None:
  """Calls the model once, as training does, so that its heads for configurations exist, too."""
  plain = dataclasses.replace(config.batch, segment_mode="full", max_configs=2)
  batch = batches.training_batch([batches.prepare(graphs.programs[0], graphs.normalizer)], plain,
                                 np.random.default_rng(0))
  model.create_variables(model.arrange(batch))
