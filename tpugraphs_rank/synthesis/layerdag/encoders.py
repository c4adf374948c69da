"""Encodes the nodes of partial graphs, and the context in which the next layer is generated.

Shapes: N nodes, S steps and c candidates in total (see `growth`), h the width of hidden states.
"""

from collections.abc import Mapping

import tensorflow as tf

from tpugraphs_rank.synthesis.layerdag import conditions as conditions_lib
from tpugraphs_rank.synthesis.layerdag import growth
from tpugraphs_rank.synthesis.layerdag import settings

Arrays = Mapping[str, tf.Tensor]


class Noise:
  """A sequence of distinct random seeds that is determined by its first seed."""

  def __init__(self, seed: tf.Tensor):
    """Stores the (2,) int32 seed."""
    self._seed = seed
    self._used = 0

  def seed(self) -> tf.Tensor:
    """The next (2,) int32 seed."""
    self._used += 1
    return self._seed + tf.constant([0, 7919], tf.int32) * self._used

  def dropped(self, values: tf.Tensor, rate: float) -> tf.Tensor:
    """Applies dropout: sets this share of the values to zero and scales up the others."""
    if not rate:
      return values
    return tf.nn.experimental.stateless_dropout(values, rate, seed=self.seed())

  def hidden(self, x: tf.Tensor, rate: float) -> tf.Tensor:
    """Attributes [N, F] with this share of them replaced by -1, which means unknown."""
    if not rate:
      return x
    shown = tf.random.stateless_uniform(tf.shape(x), self.seed()) >= rate
    return tf.where(shown, x, -1)


def segment_sum(values: tf.Tensor, segments: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
  """[count, h] sums of the rows of each segment."""
  return tf.math.unsorted_segment_sum(values, segments, count)


def segment_mean(values: tf.Tensor, segments: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
  """[count, h] means of the rows of each segment; 0 for an empty segment."""
  number = tf.math.unsorted_segment_sum(tf.ones_like(values[:, :1]), segments, count)
  return segment_sum(values, segments, count) / tf.maximum(number, 1.0)


class Attributes(tf.keras.layers.Layer):
  """The sum of the embeddings of a node's attributes; -1 is an additional value of each."""

  def __init__(self, sizes: list[int], width: int):
    super().__init__()
    self._sizes = sizes
    self._tables = [tf.keras.layers.Embedding(size + 1, width, name=f"attribute_{place}")
                    for place, size in enumerate(sizes)]

  def call(self, x: tf.Tensor) -> tf.Tensor:
    """[N, F] to [N, h]."""
    return tf.add_n([table(tf.where(x[:, place] < 0, size, x[:, place]))
                     for place, (table, size) in enumerate(zip(self._tables, self._sizes))])


class Encoder(tf.keras.layers.Layer):
  """Message passing along the edges of a prefix.

  h' = h + drop(act(norm(h) W_self + (sum over earlier neighbors of h) W_messages + u W_other))

  "causal": u is the mean state of the node's layer. A node's state then depends only on the layers
  up to its own, so one pass over a graph encodes all of its prefixes, and sampling encodes each
  layer once. "bidirectional": u is the sum over later neighbors in the prefix, and each prefix is
  encoded separately.
  """

  def __init__(self, network: settings.NetworkSettings, sizes: list[int], name: str):
    super().__init__(name=name)
    self._network = network
    width = network.width
    self._attributes = Attributes(sizes, width)
    self._level = tf.keras.layers.Embedding(growth.MAX_COUNT + 1, width, name="level")
    self._rounds = []
    for _ in range(network.encoder_layers):
      self._rounds.append([tf.keras.layers.LayerNormalization(),
                           tf.keras.layers.Dense(width),
                           tf.keras.layers.Dense(width, use_bias=False),
                           tf.keras.layers.Dense(width, use_bias=False)])

  def start(self, x: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Initial states: [N, F] attributes and [N] layers to [N, h]."""
    return self._attributes(x) + self._level(tf.minimum(level, growth.MAX_COUNT))

  def advance(self, number: int, hidden: tf.Tensor, messages: tf.Tensor, other: tf.Tensor,
              noise: Noise | None) -> tf.Tensor:
    """One round of message passing, [N, h] to [N, h]."""
    norm, self_dense, message_dense, other_dense = self._rounds[number]
    scaled = norm(hidden)
    change = tf.nn.gelu(self_dense(scaled) + message_dense(messages) + other_dense(other))
    return hidden + (noise.dropped(change, self._network.dropout) if noise else change)

  def causal(self, x: tf.Tensor, level: tf.Tensor, layer: tf.Tensor, edges: tf.Tensor,
             earlier: list[tf.Tensor] | None, layers: tf.Tensor, noise: Noise | None = None
             ) -> list[tf.Tensor]:
    """States [N, h] before and after each round, for nodes whose earlier neighbors are known.

    Args:
      x: [N, F] attributes.
      level: [N] depth of the node.
      layer: [N] index of the node's layer within the batch.
      edges: [m, 2]: a row of `earlier`, and the node that receives its message.
      earlier: for each round the states before it of all nodes so far; None: of these nodes.
      layers: number of layers.
      noise: source of dropout.
    """
    states = [self.start(x, level)]
    count = tf.shape(x)[0]
    for number in range(len(self._rounds)):
      hidden = states[-1]
      source = hidden if earlier is None else earlier[number]
      messages = segment_sum(tf.gather(source, edges[:, 0]), edges[:, 1], count)
      layer_mean = tf.gather(segment_mean(hidden, layer, layers), layer)
      states.append(self.advance(number, hidden, messages, layer_mean, noise))
    return states

  def bidirectional(self, x: tf.Tensor, level: tf.Tensor, edges: tf.Tensor,
                    noise: Noise | None = None) -> tf.Tensor:
    """[r, h] states of the nodes of all prefixes, each prefix a separate graph."""
    hidden = self.start(x, level)
    count = tf.shape(x)[0]
    for number in range(len(self._rounds)):
      before = segment_sum(tf.gather(hidden, edges[:, 0]), edges[:, 1], count)
      after = segment_sum(tf.gather(hidden, edges[:, 1]), edges[:, 0], count)
      hidden = self.advance(number, hidden, before, after, noise)
    return hidden


class Context(tf.keras.layers.Layer):
  """The context of a step: its prefix, the candidates for edges, counts, and the conditions.

  The candidates are pooled separately because the next layer connects to them.
  """

  def __init__(self, network: settings.NetworkSettings, sizes: list[int], features: int,
               name: str):
    super().__init__(name=name)
    width = network.width
    self._features = features
    self._held = Attributes(sizes, width) if network.operand_counts else None
    dense = tf.keras.layers.Dense
    table = lambda size, name: tf.keras.layers.Embedding(size + 1, width, name=name)
    self._candidate = dense(width, name="candidate")
    self._slots = table(growth.MAX_SLOTS, "slots")
    self._gap = table(growth.MAX_GAP, "gap")
    self._counts = [table(growth.MAX_COUNT, f"count_{place}") for place in range(4)]
    self._scalars = dense(width, name="scalars")
    self._join = dense(width, name="join")
    self._mix = dense(width, activation=tf.nn.gelu, name="mix")
    self._out = dense(width, name="out")
    self._categories = tf.keras.layers.Embedding(
        conditions_lib.MAX_CATEGORIES + 1, width, name="category")
    self._left = table(growth.MAX_COUNT, "left") if features > 1 else None

  def candidates(self, states: tf.Tensor, arrays: Arrays) -> tf.Tensor:
    """[c, h] states of the candidates, including the number of edges that each can still get."""
    hidden = tf.gather(self._candidate(states), arrays["candidate_row"])
    hidden += self._slots(arrays["candidate_slots"]) + self._gap(arrays["candidate_gap"])
    if self._held is not None:
      hidden += segment_sum(self._held(arrays["held_x"]), arrays["held_candidate"],
                            tf.size(arrays["candidate_row"]))
    return tf.nn.gelu(hidden)

  def call(self, candidates: tf.Tensor, prefix: tf.Tensor, arrays: Arrays) -> tf.Tensor:
    """[S, h] context of each step.

    Args:
      candidates: [c, h] result of `candidates`.
      prefix: [S, h] sum of the states of the nodes before each step.
      arrays: arrays of the steps, with scalar, specified, category and target of each step's graph.
    """
    counts = arrays["counts"]
    steps = tf.shape(counts)[0]
    number = tf.cast(counts[:, :1], prefix.dtype)
    pooled = segment_sum(candidates, arrays["candidate_step"], steps)
    mean = segment_mean(candidates, arrays["candidate_step"], steps)
    embedded_counts = tf.add_n([table(tf.minimum(counts[:, place], growth.MAX_COUNT))
                                for place, table in enumerate(self._counts)])
    conditions = self._conditions(arrays, tf.cast(counts, prefix.dtype))
    joined = tf.concat([prefix / tf.maximum(number, 1.0), mean, 0.2 * pooled], axis=-1)
    return self._out(self._mix(tf.nn.gelu(self._join(joined) + embedded_counts + conditions)))

  def _conditions(self, arrays: Arrays, counts: tf.Tensor) -> tf.Tensor:
    """[S, h] embedding of the conditions, and of how much of the requested size is left.

    `counts` [S, 4] are the counts of `growth.unroll`.
    """
    scalar, target, number = arrays["scalar"], arrays["target"], counts[:, 0]
    known = tf.cast(target > 0, scalar.dtype)
    left = tf.maximum(target - number, 0.0)
    size = tf.stack([known, known * left / tf.maximum(target, 1.0), known * tf.math.log1p(left),
                     known * tf.cast(left <= 0, scalar.dtype)], axis=1)
    waves = [function(scale * scalar) for scale in (1.0, 2.0, 4.0) for function in (tf.sin, tf.cos)]
    parts = [scalar, *waves, arrays["specified"], size]
    if self._left is not None:
      parts.append(_budget(counts, known, left))
    if self._features > 2:
      parts.append(_left_of_counts(arrays["targets"], tf.cast(arrays["progress"], scalar.dtype)))
    category = arrays["category"]
    result = self._scalars(tf.concat(parts, axis=-1)) + self._categories(
        tf.where(category == conditions_lib.UNSPECIFIED, conditions_lib.MAX_CATEGORIES, category))
    if self._left is not None:
      # 0 where no size is requested.
      row = known * (1.0 + tf.minimum(left, float(growth.MAX_COUNT - 1)))
      result += self._left(tf.cast(row, tf.int32))
    return result


def _budget(counts: tf.Tensor, known: tf.Tensor, left: tf.Tensor) -> tf.Tensor:
  """[S, 9] counts of any size, and the nodes that are left compared with the open slots.

  Embedded counts stop at `growth.MAX_COUNT`. Whether a graph ends at the requested size depends on
  the ratio of what is left to what is open, at any size.
  """
  logs = tf.math.log1p(counts)
  log_left = tf.math.log1p(left)
  front, room = counts[:, 1], counts[:, 2]
  layers_left = left * counts[:, 3] / tf.maximum(counts[:, 0], 1.0)
  near = lambda values: tf.clip_by_value(values / 8.0, -2.0, 2.0)
  ratios = tf.stack([
      0.5 * (log_left - logs[:, 2]), 0.5 * (log_left - logs[:, 1]),
      0.25 * tf.math.log1p(layers_left), near(left - room), near(left - front)], axis=1)
  return tf.concat([0.25 * logs, known[:, None] * ratios], axis=-1)


def _left_of_counts(targets: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
  """[S, 29] what is left of the requested counts (`conditions.COUNTS`), and its proportions.

  Most of a graph's shape follows from proportions: nodes left per layer left is the mean width of
  the layers to come, edges left per node left the mean number of operands.
  """
  known = tf.cast(targets >= 0, targets.dtype)
  left = known * tf.maximum(targets - progress, 0.0)
  logs = tf.math.log1p(left)
  # Per node that is left, for all counts but the number of nodes itself.
  ratios = known[:, 1:] * known[:, :1] * tf.clip_by_value(logs[:, 1:] - logs[:, :1], -4.0, 4.0)
  return tf.concat([
      known, left / tf.maximum(targets, 1.0), 0.25 * logs,
      known * tf.clip_by_value((targets - progress) / 8.0, -2.0, 2.0),
      known * tf.cast(targets <= progress, targets.dtype), ratios], axis=1)


def prefix_sums(states: tf.Tensor, arrays: Arrays) -> tf.Tensor:
  """[S, h] sum, for each step, of the states of its graph's nodes before the step."""
  steps = tf.shape(arrays["counts"])[0]
  per_step = segment_sum(states, arrays["step"], steps)
  before = tf.cumsum(per_step, axis=0, exclusive=True)
  return before - tf.gather(before, arrays["first_step"])
