"""A surrogate that predicts a graph's label, to evaluate how useful synthetic graphs are.

Bidirectional message-passing networks as in LayerDAG's evaluation (arXiv 2411.02322, section 5.2):
smooth L1 loss, Adam, early stopping by Pearson's correlation on validation graphs. Unlike there, a
surrogate is the mean of four networks of 2 layers of width 32, which also see counts of opcodes and
of pairs of opcodes, and of a random forest on these counts. Imports TensorFlow.
"""

from collections.abc import Iterator
import dataclasses
import itertools
import logging
import math
from typing import Any

import numpy as np
import tensorflow as tf

from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.judging import counts as counts_lib
from tpugraphs_rank.synthesis.judging import forest as forest_lib

_logger = logging.getLogger(__name__)

# Approximate number of nodes per batch of predictions.
_NODES = 20_000
# Added to the variance of each count, so that rare values do not dominate.
_VARIANCE = 0.05


@dataclasses.dataclass(frozen=True)
class Options:
  """Settings of a surrogate.

  The defaults were compared with one network of 4 layers of width 128 without counts, and with
  random forests on counts, on parts of the training and validation graphs of real kernels.

  Attributes:
    members: number of networks whose predictions are averaged. They start from different weights,
      and are trained and stopped together.
    layers: number of message-passing layers.
    width: width of the hidden states of one network.
    counts: also show the networks the counts of `counts.Counts`.
    forest: average the networks' prediction with that of `forest.train`. On parts of the training
      and validation graphs of real kernels, the mean was better than either.
    learning_rate: learning rate of Adam.
    batch_size: graphs per step.
    max_epochs: maximum number of epochs.
    steps_per_epoch: steps between validations, independent of passes over the graphs; None: one
      pass over the graphs.
    patience: epochs without an improved validation after which training stops.
    log_labels: learn log(label) instead of the label; predictions are labels in both cases. On the
      training and validation graphs of real kernels neither was better than the other.
  """

  members: int = 4
  layers: int = 2
  width: int = 32
  counts: bool = True
  forest: bool = True
  learning_rate: float = 3e-3
  batch_size: int = 256
  max_epochs: int = 150
  steps_per_epoch: int | None = None
  patience: int = 20
  log_labels: bool = False


DEFAULT_OPTIONS = Options()
# One network as in LayerDAG's evaluation.
SINGLE_NETWORK = Options(members=1, layers=4, width=128, counts=False, forest=False,
                         learning_rate=1e-3, patience=30)


class Surrogate:
  """A trained surrogate.

  Attributes:
    valid_pearson: validation correlation of the networks at the selected epoch.
    epoch: the selected epoch, from 1.
    epochs: number of epochs trained.
  """

  def __init__(self, network: "_Network", scale: "_Scale", encoder: "_Encoder",
               forest: forest_lib.Forest | None = None):
    self._network, self._scale, self._encoder, self._forest = network, scale, encoder, forest
    self.valid_pearson, self.epoch, self.epochs = -math.inf, 0, 0

  @property
  def details(self) -> dict[str, Any]:
    """`valid_pearson` and `epoch`, for a report."""
    return {"valid_pearson": self.valid_pearson, "epoch": self.epoch}

  def predict(self, graphs: dags_lib.Dags) -> np.ndarray:
    """(G,) float64 predicted labels.

    Attribute values that do not occur in training are ignored.

    Raises:
      DataError: the graphs have other attributes than the training graphs.
    """
    targets = self._targets(self._encoder.inputs(graphs))
    if self._forest:
      targets = (targets + self._forest.predict(graphs)) / 2
    return self._scale.labels(targets)

  def predict_encoded(self, inputs: "_Inputs") -> np.ndarray:
    """(G,) float64 labels that the networks alone predict for graphs that are already encoded."""
    return self._scale.labels(self._targets(inputs))

  def _targets(self, inputs: "_Inputs") -> np.ndarray:
    """(G,) float64 standardized labels that the networks predict."""
    predictions = np.zeros([inputs.count])
    for rows in inputs.chunks(_NODES):
      predictions[rows] = self._network.forward(*inputs.batch(rows)).numpy()
    return predictions[inputs.index]


def train(training: dags_lib.Dags, valid: dags_lib.Dags, seed: int, label: str | None = None,
          options: Options = DEFAULT_OPTIONS) -> Surrogate:
  """Trains a surrogate on one label; the same seed gives the same surrogate.

  Structurally equal graphs are computed once per step, for all their labels.

  Args:
    training: graphs to learn from; their labels determine the scale.
    valid: graphs that determine when to stop and which epoch is selected.
    seed: seed of the weights and the order of the graphs.
    label: name of the label; None: the first.
    options: settings.

  Raises:
    DataError: the label does not exist, attributes differ, there are too few graphs, all labels of
      a split are equal, or labels are not positive although log_labels is set.
    TrainingError: predictions are not finite.
  """
  y, valid_y = training.label(label), valid.label(label)
  for name, values in (("training", y), ("validation", valid_y)):
    if len(values) < 2 or np.ptp(values) == 0:
      raise errors.DataError(
          f"the {name} graphs of the surrogate have the labels {np.unique(values).tolist()[:3]}; "
          "expected at least two distinct labels: use more graphs")
  scale = _Scale.of(y, options.log_labels)
  encoder = _Encoder(training, options.counts)
  network = _Network([len(words) for words in encoder.vocabularies], encoder.counts_width,
                     float(training.sizes.mean()), options, seed)
  forest = forest_lib.train(
      training.with_labels(scale.targets(y), ["target"]), valid, seed) if options.forest else None
  surrogate = Surrogate(network, scale, encoder, forest)
  targets = scale.targets(y).astype(np.float32)
  inputs, valid_inputs = encoder.inputs(training), encoder.inputs(valid)
  batches = _rounds(len(training), options.batch_size, seed)
  steps = options.steps_per_epoch or -(-len(training) // options.batch_size)
  best: list[np.ndarray] = []
  for epoch in range(1, options.max_epochs + 1):
    for batch in itertools.islice(batches, steps):
      rows, index = np.unique(inputs.index[batch], return_inverse=True)
      network.step(*inputs.batch(rows), index.reshape(-1), targets[batch])
    predicted = surrogate.predict_encoded(valid_inputs)
    if not np.isfinite(predicted).all():
      raise errors.TrainingError(
          f"the surrogate predicts {predicted[~np.isfinite(predicted)][0]} after epoch {epoch}; "
          "check the labels, or lower learning_rate")
    agreement = metrics.pearson(valid_y, predicted)
    surrogate.epochs = epoch
    # Constant predictions have no correlation; they rank below any other predictions.
    agreement = -1.0 if math.isnan(agreement) else agreement
    if agreement > surrogate.valid_pearson:
      surrogate.valid_pearson, surrogate.epoch = agreement, epoch
      best = [variable.numpy() for variable in network.variables]
    if epoch - surrogate.epoch >= options.patience:
      break
  for variable, value in zip(network.variables, best):
    variable.assign(value)
  _logger.info("surrogate, seed %d: epoch %d of %d, validation Pearson %.3f", seed,
               surrogate.epoch, surrogate.epochs, surrogate.valid_pearson)
  return surrogate


def _rounds(count: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
  """Endless batches: random permutations of `count` graphs; the last batch of each may be short."""
  rng = np.random.default_rng(seed)
  while True:
    order = rng.permutation(count)
    for start in range(0, count, batch_size):
      yield order[start:start + batch_size]


@dataclasses.dataclass(frozen=True)
class _Scale:
  """Standardizes labels by the training mean and deviation, optionally after a logarithm."""

  mean: float
  deviation: float
  log: bool

  @classmethod
  def of(cls, y: np.ndarray, log: bool) -> "_Scale":
    if log and y.min() <= 0:
      raise errors.DataError(f"a training label is {y.min()}; expected labels above zero for their "
                             "logarithm: set log_labels=False")
    y = np.log(y) if log else y
    return cls(float(y.mean()), float(y.std()), log)

  def targets(self, y: np.ndarray) -> np.ndarray:
    return ((np.log(y) if self.log else y) - self.mean) / self.deviation

  def labels(self, targets: np.ndarray) -> np.ndarray:
    y = targets * self.deviation + self.mean
    # Clip extreme predictions, which would overflow.
    return np.exp(np.clip(y, self.mean - 20, self.mean + 20)) if self.log else y


class _Encoder:
  """Encodes attributes of graphs with the vocabularies of the training graphs.

  Attributes:
    counts_width: number of counts of a graph; 0 without counts.
  """

  def __init__(self, training: dags_lib.Dags, with_counts: bool):
    self.x_names, self.vocabularies = training.x_names, training.vocabularies
    self._counts = counts_lib.Counts(training) if with_counts else None
    self.counts_width = self._counts.width if self._counts else 0
    known = self._log_counts(training)
    self._center = known.mean(axis=0)
    self._deviation = np.sqrt(known.var(axis=0) + _VARIANCE)

  def _log_counts(self, graphs: dags_lib.Dags) -> np.ndarray:
    """(G, counts_width) float64 log(1 + count)."""
    return np.log1p(self._counts.of(graphs)) if self._counts else np.zeros([len(graphs), 0])

  def inputs(self, graphs: dags_lib.Dags) -> "_Inputs":
    if graphs.x_names != self.x_names:
      raise errors.DataError(
          f"x_names are {graphs.x_names}; the surrogate was trained on {self.x_names}: pass graphs "
          "with the same attributes")
    columns = []
    for column, vocabulary, words in zip(graphs.x.T, graphs.vocabularies, self.vocabularies):
      known = {word: index for index, word in enumerate(words.tolist(), start=1)}
      # 0 means: does not occur in training.
      columns.append(
          np.array([known.get(word, 0) for word in vocabulary.tolist()], np.int32)[column])
    _, first, index = np.unique(graphs.hashes(), return_index=True, return_inverse=True)
    counts = (self._log_counts(graphs.take(first)) - self._center) / self._deviation
    return _Inputs(graphs, np.stack(columns, axis=1), counts.astype(np.float32), first,
                   index.reshape(-1))


class _Inputs:
  """The structurally distinct graphs among some graphs.

  Attributes:
    index: (G,) index of each graph's structure.
    count: number of distinct structures.
  """

  def __init__(self, graphs: dags_lib.Dags, x: np.ndarray, counts: np.ndarray, first: np.ndarray,
               index: np.ndarray):
    self.index, self.count, self._counts = index, len(first), counts
    # Store the encoded attributes in the graphs, so that `take` selects them, too.
    self._graphs = dataclasses.replace(
        graphs, x=x, vocabularies=tuple(
            np.arange(x[:, column].max(initial=0) + 1) for column in range(x.shape[1]))).take(first)
    self._sizes = self._graphs.sizes

  def chunks(self, nodes: int) -> list[np.ndarray]:
    """Consecutive groups of graphs with about this number of nodes each."""
    last = np.cumsum(self._sizes) // nodes
    return np.split(np.arange(self.count), np.flatnonzero(np.diff(last)) + 1)

  def batch(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
    """x (n, F), log(1 + degrees) (n, 2), edges (m, 2), 1 / degrees (n, 2), graph (n,), counts.

    The counts are (rows, counts_width), and standardized.
    """
    graphs = self._graphs.take(rows)
    degrees = np.stack([graphs.num_operands, graphs.num_users], axis=1).astype(np.float32)
    edges = np.stack([graphs.flat_src, graphs.flat_dst], axis=1)
    return (graphs.x, np.log1p(degrees), edges, 1 / np.maximum(degrees, 1),
            graphs.graph_of_node.astype(np.int32), self._counts[rows])


_BATCH = (tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, 2], tf.float32),
          tf.TensorSpec([None, 2], tf.int64), tf.TensorSpec([None, 2], tf.float32),
          tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.float32))


class _Network(tf.Module):
  """Message-passing networks: mean messages from operands and users, mean and sum pooling.

  The networks share nothing but their graphs. Computing them together is faster than one by one.
  Nodes start from embedded attributes and degrees. Mean messages and both poolings were chosen on
  training and validation graphs of real kernels. Input sizes are unspecified, so that each function
  is traced once.
  """

  def __init__(self, values: list[int], counts_width: int, typical_size: float, options: Options,
               seed: int):
    super().__init__()
    rng = np.random.default_rng([seed, 1])
    self._members, self._width, width = options.members, options.width, options.width

    def dense(rows: int, inputs: int = 1) -> tf.Variable:
      """(members, inputs * rows, width) weights of several inputs with the same number of rows."""
      scale = math.sqrt(6 / max(rows + width, 1))
      return tf.Variable(
          (rng.uniform(-1, 1, [self._members, inputs * rows, width]) * scale).astype(np.float32))

    zeros = lambda size: tf.Variable(np.zeros([self._members, 1, size], np.float32))
    # The row of values that do not occur in training is fixed at 0.
    self._embeddings = [tf.Variable(
        (rng.normal(0, 0.1, [count, self._members * width])).astype(np.float32))
                        for count in values]
    self._degrees = dense(2)
    self._layers = [(dense(width, inputs=3), zeros(width)) for _ in range(options.layers)]
    self._hidden, self._hidden_bias = dense(2 * width), zeros(width)
    self._counts = dense(counts_width)
    self._typical_size = typical_size
    self._output = tf.Variable(
        rng.normal(0, 1 / math.sqrt(width), [self._members, width, 1]).astype(np.float32))
    self._output_bias = zeros(1)
    self._optimizer = tf.keras.optimizers.Adam(options.learning_rate)
    self._optimizer.build(self.trainable_variables)
    signature: dict[str, Any] = {"autograph": False}
    self.forward = tf.function(self._forward, input_signature=_BATCH, **signature)
    self.step = tf.function(self._step, **signature, input_signature=(
        *_BATCH, tf.TensorSpec([None], tf.int64), tf.TensorSpec([None], tf.float32)))

  def _split(self, *parts: tf.Tensor) -> tf.Tensor:
    """Several (n, members * width) as one (members, n, parts * width)."""
    stacked = [tf.reshape(part, [-1, self._members, self._width]) for part in parts]
    return tf.transpose(tf.concat(stacked, axis=2), [1, 0, 2])

  def _join(self, hidden: tf.Tensor) -> tf.Tensor:
    """(members, n, width) as (n, members * width)."""
    return tf.reshape(tf.transpose(hidden, [1, 0, 2]), [-1, self._members * self._width])

  def _predictions(self, x, degrees, edges, shares, graph, counts):
    """(members, graphs) standardized labels."""
    rows = 0.0
    for column, table in enumerate(self._embeddings):
      unknown = tf.zeros([1, table.shape[1]])
      rows += tf.gather(tf.concat([unknown, table], axis=0), x[:, column])
    rows += self._join(tf.matmul(degrees, self._degrees))
    count = tf.shape(x, tf.int64)[0]
    adjacency = tf.SparseTensor(
        edges, tf.ones(tf.shape(edges)[:1]), tf.stack([count, count]))
    for weights, bias in self._layers:
      operands = tf.sparse.sparse_dense_matmul(adjacency, rows) * shares[:, :1]
      users = tf.sparse.sparse_dense_matmul(adjacency, rows, adjoint_a=True) * shares[:, 1:]
      rows = self._join(tf.nn.silu(
          tf.matmul(self._split(operands, users, rows), weights) + bias))
    # The mean describes the composition of a graph, the sum also its size.
    pooled = self._split(tf.math.segment_mean(rows, graph),
                         tf.math.segment_sum(rows, graph) / self._typical_size)
    hidden = tf.nn.silu(tf.matmul(pooled, self._hidden) + tf.matmul(counts, self._counts)
                        + self._hidden_bias)
    return (tf.matmul(hidden, self._output) + self._output_bias)[:, :, 0]

  def _forward(self, *batch):
    return tf.reduce_mean(self._predictions(*batch), axis=0)

  def _step(self, *inputs):
    *batch, index, targets = inputs
    with tf.GradientTape() as tape:
      error = tf.abs(tf.gather(self._predictions(*batch), index, axis=1) - targets)
      # A sum over the networks, so that each learns as if it were alone.
      loss = tf.reduce_sum(
          tf.reduce_mean(tf.where(error < 1, 0.5 * error**2, error - 0.5), axis=1))
    variables = self.trainable_variables
    self._optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
