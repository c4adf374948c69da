"""The three networks of LayerDAG: the size of the next layer, its nodes, and their edges.

Each network has a separate encoder, so that each can stop training at its best epoch. Shapes are
those of `encoders`; M new nodes, p pairs of a candidate and a new node.
"""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tpugraphs_rank.synthesis.layerdag import diffusion
from tpugraphs_rank.synthesis.layerdag import encoders
from tpugraphs_rank.synthesis.layerdag import settings

Arrays = Mapping[str, tf.Tensor]
Noise = encoders.Noise
Dense = tf.keras.layers.Dense


class Module(tf.keras.Model):
  """The common part of the three networks: an encoder and the context of each step."""

  def __init__(self, network: settings.NetworkSettings, sizes: list[int], features: int,
               name: str):
    """Creates the encoder and the context.

    Args:
      network: sizes of the network.
      sizes: number of values of each attribute.
      features: version of the features of a step, see `growth.FEATURES`.
      name: name of the network.
    """
    super().__init__(name=name)
    self.network = network
    self.encoder = encoders.Encoder(network, sizes, f"{name}_encoder")
    self.context = encoders.Context(network, sizes, features, f"{name}_context")

  def encode(self, arrays: Arrays, noise: Noise | None = None) -> tuple[tf.Tensor, tf.Tensor]:
    """Candidate states [c, h] and contexts [S, h] of all steps of complete graphs."""
    x = arrays["x"]
    if noise:
      x = noise.hidden(x, self.network.attribute_dropout)
    if self.network.encoder == "causal":
      states = self.encoder.causal(
          x, arrays["level"], arrays["step"], arrays["edges"], None,
          tf.shape(arrays["counts"])[0], noise)[-1]
      prefix = encoders.prefix_sums(states, arrays)
    else:
      states, prefix = self.encode_prefixes({**arrays, "x": x}, noise)
    return self.step_contexts(states, prefix, arrays)

  def encode_prefixes(self, arrays: Arrays, noise: Noise | None = None
                      ) -> tuple[tf.Tensor, tf.Tensor]:
    """States [r, h] of the nodes of all prefixes, and their sum [S, h] over each prefix."""
    node = arrays["prefix_node"]
    level = tf.gather(arrays["level"], node)
    states = self.encoder.bidirectional(
        tf.gather(arrays["x"], node), level, arrays["prefix_edges"], noise)
    return states, encoders.segment_sum(
        states, arrays["prefix_step"], tf.shape(arrays["counts"])[0])

  def step_contexts(self, states: tf.Tensor, prefix: tf.Tensor, arrays: Arrays
                    ) -> tuple[tf.Tensor, tf.Tensor]:
    """The result of `encode`, from the states and state sums of the nodes before each step."""
    candidates = self.context.candidates(states, arrays)
    return candidates, self.context(candidates, prefix, arrays)


class Sizes(Module):
  """The number of nodes of the next layer, 0 to end the graph, and how many have operands.

  The second number determines whether a graph that grows from its root continues. One classifier
  decides it, so that it does not depend on independent noise in the kinds of single nodes.
  """

  def __init__(self, network: settings.NetworkSettings, sizes: list[int], features: int,
               max_width: int):
    """Creates the layers; `max_width` is the largest number of nodes of a layer."""
    super().__init__(network, sizes, features, "sizes")
    self._max_width = max_width
    self._out = Dense(max_width + 1, name="out")
    self._size = tf.keras.layers.Embedding(max_width + 1, network.width, name="size")
    self._hidden = Dense(network.width, name="hidden")
    self._inners = Dense(max_width + 1, name="inners")

  def logits(self, context: tf.Tensor) -> tf.Tensor:
    """[S, max_width + 1] logits of the number of nodes."""
    return self._out(tf.nn.gelu(context))

  def inner_logits(self, context: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """[S, max_width + 1] logits of the number of nodes with operands, at most `size` [S]."""
    logits = self._inners(tf.nn.gelu(self._hidden(tf.nn.gelu(context)) + self._size(size)))
    return tf.where(tf.range(self._max_width + 1)[None] <= size[:, None], logits, logits.dtype.min)

  def losses(self, arrays: Arrays, noise: Noise, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """[S]: the loss, and -log p in nats, which are the same here."""
    hidden = noise if training else None
    _, context = self.encode(arrays, hidden)
    if hidden:
      context = hidden.dropped(context, self.network.dropout)
    logits = self.logits(context)
    # A validation layer larger than any training layer counts as the largest training layer.
    size = tf.minimum(arrays["size"], self._max_width)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=size, logits=logits)
    loss += tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.minimum(arrays["inners"], size), logits=self.inner_logits(context, size))
    return loss, loss


class SetTransformer(tf.keras.layers.Layer):
  """Transformer layers over the nodes of each layer, which have no order.

  Layers are small and vary in size, so attention is computed for existing pairs of nodes instead of
  for a padded square.
  """

  def __init__(self, network: settings.NetworkSettings):
    super().__init__()
    self._network = network
    self._head = max(network.width // network.heads, 1)
    inner = self._head * network.heads
    self._blocks = [[tf.keras.layers.LayerNormalization(), Dense(3 * inner),
                     Dense(network.width), tf.keras.layers.LayerNormalization(),
                     Dense(2 * network.width, activation=tf.nn.gelu), Dense(network.width)]
                    for _ in range(network.node_layers)]

  def call(self, hidden: tf.Tensor, layer_pairs: tf.Tensor, noise: Noise | None = None
           ) -> tf.Tensor:
    """[M, h] to [M, h]; `layer_pairs` [q, 2] are the pairs of nodes of the same layer."""
    count = tf.shape(hidden)[0]
    drop = lambda values: noise.dropped(values, self._network.dropout) if noise else values
    for norm, project, out, norm_again, widen, narrow in self._blocks:
      table = tf.reshape(project(norm(hidden)), [count, 3, self._network.heads, self._head])
      query = tf.gather(table[:, 0], layer_pairs[:, 0])
      key_value = tf.gather(table[:, 1:], layer_pairs[:, 1])
      score = tf.reduce_sum(query * key_value[:, 0], axis=-1) * self._head ** -0.5
      # Scores are small after normalization; the shift by the maximum only guards against overflow.
      largest = tf.stop_gradient(tf.math.unsorted_segment_max(score, layer_pairs[:, 0], count))
      weight = tf.exp(score - tf.gather(largest, layer_pairs[:, 0]))
      total = tf.math.unsorted_segment_sum(weight, layer_pairs[:, 0], count)
      mixed = tf.math.unsorted_segment_sum(
          weight[:, :, None] * key_value[:, 1], layer_pairs[:, 0], count) / total[:, :, None]
      hidden += drop(out(tf.reshape(mixed, [count, self._head * self._network.heads])))
      hidden += drop(narrow(widen(norm_again(hidden))))
    return hidden


class Nodes(Module):
  """Discrete diffusion of the kind and the other attributes of a layer's nodes."""

  def __init__(self, network: settings.NetworkSettings, sizes: list[int], features: int,
               max_width: int, marginals: list[np.ndarray], has_operands: np.ndarray):
    """Creates the layers.

    Args:
      network: sizes of the network.
      sizes: number of values of each attribute.
      features: version of the features of a step, see `growth.FEATURES`.
      max_width: number of nodes of the largest layer.
      marginals: for each attribute the relative frequency of each value in training.
      has_operands: (K,) bool for each kind.
    """
    super().__init__(network, sizes, features, "nodes")
    width = network.width
    self._marginals = [tf.constant(values, tf.float32) for values in marginals]
    # Whether a node has operands is known, so only matching kinds are generated or used as noise.
    both = np.stack([~has_operands, has_operands]) * marginals[0]
    self._kinds = tf.constant(both / np.maximum(both.sum(axis=1, keepdims=True), 1e-30), tf.float32)
    self._possible = tf.constant(np.stack([~has_operands, has_operands]))
    self._inner = tf.keras.layers.Embedding(2, width, name="inner")
    self.kept = tf.constant(diffusion.cosine_schedule(network.node_steps), tf.float32)
    self._max_width = max_width
    self._attributes = encoders.Attributes(sizes, width)
    self._time = tf.keras.layers.Embedding(network.node_steps + 1, width, name="time")
    self._count = tf.keras.layers.Embedding(max_width + 1, width, name="count")
    self._join = Dense(width, name="join")
    self._transformer = SetTransformer(network)
    self._norm = tf.keras.layers.LayerNormalization()
    self._outs = [Dense(size, name=f"out_{place}") for place, size in enumerate(sizes)]

  def marginals(self, inner: tf.Tensor) -> list[tf.Tensor]:
    """For each attribute the noise distribution [M, K]; `inner` [M] marks nodes with operands."""
    rows = tf.shape(inner)[0]
    return [tf.gather(self._kinds, inner)] + [
        tf.broadcast_to(marginal, tf.stack([rows, marginal.shape[0]]))
        for marginal in self._marginals[1:]]

  def clean(self, noisy: tf.Tensor, time: tf.Tensor, context: tf.Tensor, arrays: Arrays,
            noise: Noise | None = None) -> list[tf.Tensor]:
    """For each attribute the logits [M, K] of its value at time 0.

    Args:
      noisy: [M, F] attributes at time t.
      time: [S] t of each step.
      context: [S, h].
      arrays: size (S,) nodes of each step's layer; for the nodes step (M,), inner (M,) and
        layer_pairs (q, 2).
      noise: source of dropout.
    """
    of_step = (self._join(tf.nn.gelu(context)) + self._time(time)
               + self._count(tf.minimum(arrays["size"], self._max_width)))
    hidden = (self._attributes(noisy) + self._inner(arrays["inner"])
              + tf.gather(of_step, arrays["step"]))
    hidden = self._norm(self._transformer(hidden, arrays["layer_pairs"], noise))
    logits = [out(hidden) for out in self._outs]
    possible = tf.gather(self._possible, arrays["inner"])
    return [tf.where(possible, logits[0], -1e9), *logits[1:]]

  def losses(self, arrays: Arrays, noise: Noise, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """[S]: the loss, and an unbiased estimate of the bound of -log p in nats.

    The loss is the cross-entropy of the clean attributes at one random time per step. The bound is
    the span's contribution at that time, times the number of spans. Both ignore kinds that do not
    occur in training.
    """
    _, context = self.encode(arrays, noise if training else None)
    x, step = arrays["x"], arrays["step"]
    steps = tf.shape(arrays["size"])[0]
    time = tf.random.stateless_uniform([steps], noise.seed(), 1, self.network.node_steps + 1,
                                       tf.int32)
    of_node = tf.gather(time, step)
    kept, before = tf.gather(self.kept, of_node), tf.gather(self.kept, of_node - 1)
    marginals = self.marginals(arrays["inner"])
    known = x >= 0
    drawn = [diffusion.draw(diffusion.noised(x[:, place], kept, marginal), noise.seed())
             for place, marginal in enumerate(marginals)]
    noisy = tf.where(known, tf.stack(drawn, axis=1), -1)
    logits = self.clean(noisy, time, context, arrays, noise if training else None)
    loss, bound = [], []
    for place, marginal in enumerate(marginals):
      value, noisy_value = tf.maximum(x[:, place], 0), tf.maximum(noisy[:, place], 0)
      counts = tf.cast(known[:, place], tf.float32)
      loss.append(tf.where(known[:, place], tf.nn.sparse_softmax_cross_entropy_with_logits(
          labels=value, logits=logits[place]), 0.0))
      bound.append(counts * diffusion.bound(
          value, noisy_value, tf.nn.softmax(logits[place]), before, kept, marginal))
    summed = lambda values: tf.math.unsorted_segment_sum(tf.add_n(values), step, steps)
    return summed(loss), self.network.node_steps * summed(bound)


class Edges(Module):
  """Discrete diffusion of the edges between candidates and new nodes.

  A small head operates on pairs: the prefix is encoded once per layer, not once per diffusion step.
  One round of message passing over the noisy pairs lets edges depend on one another.
  """

  def __init__(self, network: settings.NetworkSettings, sizes: list[int], features: int,
               degree: float, attribute: np.ndarray, direction: str):
    """Creates the layers.

    Args:
      network: sizes of the network.
      sizes: number of values of each attribute.
      features: version of the features of a step, see `growth.FEATURES`.
      degree: mean number of edges of a new node.
      attribute: (K,) first attribute of each kind.
      direction: the order of growth.
    """
    super().__init__(network, sizes, features, "edges")
    self._same_kind = SameKindOperands(network.edge_width, attribute, direction) if (
        network.operand_counts) else None
    narrow = network.edge_width
    self.kept = tf.constant(diffusion.cosine_schedule(network.edge_steps), tf.float32)
    self._degree = float(degree)
    self._attributes = encoders.Attributes(sizes, network.width)
    self._join = Dense(network.width, name="join")
    self._time = tf.keras.layers.Embedding(network.edge_steps + 1, narrow, name="time")
    self._value = tf.keras.layers.Embedding(2, narrow, name="value")
    self._candidate = Dense(narrow, name="candidate")
    self._new = Dense(narrow, name="new")
    self._pair = Dense(narrow, activation=tf.nn.gelu, name="pair")
    self._to_candidate = Dense(narrow, name="to_candidate")
    self._to_new = Dense(narrow, name="to_new")
    self._last = Dense(narrow, activation=tf.nn.gelu, name="last")
    self._out = Dense(1, name="out")

  def marginal(self, arrays: Arrays) -> tf.Tensor:
    """[p, 2] probabilities [no edge, edge]: edge = min(mean degree, candidates) / candidates."""
    steps = tf.shape(arrays["counts"])[0]
    step = arrays["candidate_step"]
    number = tf.math.unsorted_segment_sum(tf.ones_like(step), step, steps)
    number = tf.cast(tf.gather(tf.gather(number, step), arrays["pairs"][:, 0]), tf.float32)
    joined = tf.minimum(self._degree, number) / number
    # Keep some randomness: deterministic noise would carry no information.
    joined = tf.clip_by_value(joined, 0.02, 0.98)
    return tf.stack([1.0 - joined, joined], axis=1)

  def ends(self, candidates: tf.Tensor, x: tf.Tensor, context: tf.Tensor, arrays: Arrays
           ) -> tuple[tf.Tensor, tf.Tensor]:
    """Terms that all diffusion steps share: of candidates [c, e] and of new nodes [M, e]."""
    of_step = tf.gather(context, arrays["step"])
    new = tf.nn.gelu(self._join(tf.concat([self._attributes(x), of_step], axis=-1)))
    return self._candidate(candidates), self._new(new)

  def clean(self, noisy: tf.Tensor, time: tf.Tensor, ends: tuple[tf.Tensor, tf.Tensor],
            arrays: Arrays, noise: Noise | None = None) -> tf.Tensor:
    """[p] logits of an edge at time 0.

    Args:
      noisy: [p] 1 where there is an edge at time t.
      time: [S] t of each step.
      ends: the result of `ends`.
      arrays: arrays of the steps.
      noise: source of dropout.
    """
    old, new = arrays["pairs"][:, 0], arrays["pairs"][:, 1]
    of_candidate, of_new = ends
    # A candidate's term, including the time, is the same for all of its pairs.
    of_candidate += tf.gather(self._time(time), arrays["candidate_step"])
    start = tf.gather(of_candidate, old) + tf.gather(of_new, new) + self._value(noisy)
    if self._same_kind is not None:
      start += self._same_kind(noisy, arrays)
    state = self._pair(tf.nn.gelu(start))
    joined = state * tf.cast(noisy, state.dtype)[:, None]
    both = tf.concat([joined, state], axis=-1)
    to_new = self._to_new(segment_pool(both, new, tf.shape(of_new)[0]))
    to_candidate = self._to_candidate(segment_pool(both, old, tf.shape(of_candidate)[0]))
    last = self._last(tf.nn.gelu(
        state + tf.gather(to_new, new) + tf.gather(to_candidate, old)))
    if noise:
      last = noise.dropped(last, self.network.dropout)
    return self._out(last)[:, 0]

  def losses(self, arrays: Arrays, noise: Noise, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """[S]: the loss, and an unbiased estimate of the bound of -log p in nats."""
    hidden = noise if training else None
    candidates, context = self.encode(arrays, hidden)
    steps = tf.shape(arrays["size"])[0]
    time = tf.random.stateless_uniform([steps], noise.seed(), 1, self.network.edge_steps + 1,
                                       tf.int32)
    step = tf.gather(arrays["candidate_step"], arrays["pairs"][:, 0])
    of_pair = tf.gather(time, step)
    kept, before = tf.gather(self.kept, of_pair), tf.gather(self.kept, of_pair - 1)
    marginal = self.marginal(arrays)
    linked = arrays["linked"]
    noisy = diffusion.draw(diffusion.noised(linked, kept, marginal), noise.seed())
    logits = self.clean(
        noisy, time, self.ends(candidates, arrays["x"], context, arrays), arrays, hidden)
    loss = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(linked, tf.float32), logits)
    joined = tf.sigmoid(logits)
    bound = diffusion.bound(
        linked, noisy, tf.stack([1.0 - joined, joined], axis=1), before, kept, marginal)
    summed = lambda values: tf.math.unsorted_segment_sum(values, step, steps)
    return summed(loss), self.network.edge_steps * summed(bound)


class SameKindOperands(tf.keras.layers.Layer):
  """For each pair, how many operands of the user share this operand's first attribute.

  There are three counts: the operands in earlier layers, the operands that other noisy edges add,
  and all operands that other noisy edges add, whatever their attribute.
  """

  _MAX_COUNT = 15

  def __init__(self, width: int, attribute: np.ndarray, direction: str):
    super().__init__()
    # One more value for a kind that is not known.
    self._attribute = tf.constant(np.append(attribute, attribute.max() + 1), tf.int32)
    self._values = int(attribute.max()) + 2
    self._from_users = direction == "users_first"
    self._tables = [tf.keras.layers.Embedding(self._MAX_COUNT + 1, width, name=name)
                    for name in ("before", "now", "all")]

  def call(self, noisy: tf.Tensor, arrays: Arrays) -> tf.Tensor:
    """[p, e] embeddings of the counts.

    Args:
      noisy: [p] 1 where there is an edge.
      arrays: arrays of the steps; the kinds of new nodes are `new_x` in sampling, `x` in training.
    """
    old, new = arrays["pairs"][:, 0], arrays["pairs"][:, 1]
    x = arrays["new_x"] if "new_x" in arrays else arrays["x"]
    user, users = (old, tf.size(arrays["candidate_kind"])) if self._from_users else (
        new, tf.shape(x)[0])
    operand = tf.gather(x[:, 0], new) if self._from_users else (
        tf.gather(arrays["candidate_kind"], old))
    key = user * self._values + self._of(operand)
    cells = users * self._values
    counts = [tf.zeros_like(noisy),
              tf.gather(tf.math.unsorted_segment_sum(noisy, key, cells), key) - noisy,
              tf.gather(tf.math.unsorted_segment_sum(noisy, user, users), user) - noisy]
    if self._from_users:
      held = arrays["held_candidate"] * self._values + self._of(arrays["held_x"][:, 0])
      counts[0] = tf.gather(
          tf.math.unsorted_segment_sum(tf.ones_like(held), held, cells), key)
    return tf.add_n([table(tf.minimum(count, self._MAX_COUNT))
                     for table, count in zip(self._tables, counts)])

  def _of(self, kind: tf.Tensor) -> tf.Tensor:
    return tf.gather(self._attribute, tf.where(kind < 0, self._attribute.shape[0] - 1, kind))


def segment_pool(values: tf.Tensor, segments: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
  """[count, h] sums of rows divided by sqrt(rows), so that they stay small for many rows."""
  number = tf.math.unsorted_segment_sum(tf.ones_like(values[:, :1]), segments, count)
  return encoders.segment_sum(values, segments, count) / tf.sqrt(tf.maximum(number, 1.0))
