"""Generates batches of graphs layer by layer with a trained `generator.Generator`."""

from collections.abc import Callable, Mapping
import dataclasses
import logging
import math
from typing import Any

import numpy as np
import tensorflow as tf
import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.layerdag import decoding
from tpugraphs_rank.synthesis.layerdag import diffusion
from tpugraphs_rank.synthesis.layerdag import encoders
from tpugraphs_rank.synthesis.layerdag import generator as generator_lib
from tpugraphs_rank.synthesis.layerdag import growth
from tpugraphs_rank.synthesis.layerdag import networks as modules_lib
from tpugraphs_rank.synthesis.layerdag import partial_graphs
from tpugraphs_rank.synthesis.layerdag import size_control

_logger = logging.getLogger(__name__)
# Sampling fails when more graphs than this are abandoned per completed graph.
_MAX_FAILURES_PER_GRAPH = 10
# For each network the states of nodes, and their sum over each graph.
States = Mapping[str, tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Options:
  """How graphs are generated.

  Attributes:
    constrained: generate only valid numbers of operands; see `decoding`.
    temperature: divisor of the logits; below 1, graphs are more likely and less diverse.
    guidance: 1 follows the conditions as in training; larger values amplify their effect.
    node_spans: number of diffusion spans for nodes; None: as in training.
    edge_spans: number of diffusion spans for edges; None: as in training.
    max_nodes: abandon larger graphs; None: half more than the requested size, or else the largest
      size in training.
    max_layers: abandon deeper graphs; None: half more than the largest depth in training.
    batch: graphs generated at a time; memory grows with it.
    size_tolerance: the largest relative difference between the requested and the generated number
      of nodes, for requests of 30 nodes or more; see `size_control`. None: no such limit.
  """

  constrained: bool = True
  temperature: float = 1.0
  guidance: float = 1.0
  node_spans: int | None = None
  edge_spans: int | None = None
  max_nodes: int | None = None
  max_layers: int | None = None
  batch: int = 256
  size_tolerance: float | None = 0.25


DEFAULT_OPTIONS = Options()


class Sampler:
  """Samples from one generator; its functions are traced once."""

  def __init__(self, generator: generator_lib.Generator, options: Options = DEFAULT_OPTIONS):
    """Stores the generator and validates the options.

    Raises:
      ConfigError: an option is out of range.
    """
    for name in ("temperature", "batch", "node_spans", "edge_spans", "max_nodes", "max_layers"):
      value = getattr(options, name)
      if value is not None and not 0 < value < math.inf:
        raise errors.ConfigError(f"{name} is {value}; expected a number above 0")
    if not 0 <= options.guidance < math.inf:
      raise errors.ConfigError(f"guidance is {options.guidance}; expected a number of at least 0")
    if options.guidance != 1.0 and not generator.config.network.condition_dropout:
      raise errors.ConfigError(
          f"guidance is {options.guidance}, but this model was trained without unspecified "
          "conditions (network.condition_dropout is 0); expected guidance 1")
    if options.size_tolerance is not None and not 0 <= options.size_tolerance < 1:
      raise errors.ConfigError(f"size_tolerance is {options.size_tolerance}; expected a number of "
                               "at least 0 and below 1, or None")
    self.generator = generator
    self.options = options
    facts, network = generator.facts, generator.config.network
    self._forward = generator.config.data.direction == "users_first"
    self._causal = network.encoder == "causal"
    self._operands = size_control.mean_operands(facts.kinds, facts.marginals[0])
    self._least_operands = int(facts.kinds.operands[facts.kinds.operands > 0].min(initial=1))
    spans = lambda steps, requested: diffusion.times(steps, min(requested or steps, steps))
    self._node_times = spans(network.node_steps, options.node_spans)
    self._edge_times = spans(network.edge_steps, options.edge_spans)
    self._functions: dict[str, Callable[..., Any]] = {}

  def __call__(self, requested: np.ndarray, seed: int
               ) -> tuple[list[partial_graphs.GeneratedGraph], int]:
    """Generates one graph for each row of conditions (n, T).

    Returns:
      The graphs in the order of the rows, and the number of abandoned graphs.

    Raises:
      TrainingError: almost no graph could be completed.
    """
    done: dict[int, partial_graphs.GeneratedGraph] = {}
    limits = self._limits(requested)
    waiting, tries, abandoned = list(range(len(requested))), 0, 0
    with tqdm.tqdm(total=len(requested), unit="graph", desc="sampling", disable=None) as bar:
      while waiting:
        rows = waiting[:self.options.batch]
        graphs = self._generate(
            requested[rows], limits.take(rows), np.random.default_rng([seed, tries]))
        tries += 1
        done.update({row: graph for row, graph in zip(rows, graphs) if graph is not None})
        failed = [row for row, graph in zip(rows, graphs) if graph is None]
        waiting = failed + waiting[self.options.batch:]
        abandoned += len(failed)
        bar.update(len(rows) - len(failed))
        if abandoned > _MAX_FAILURES_PER_GRAPH * (
            len(done) + max(min(self.options.batch, len(requested)), 20)):
          raise errors.TrainingError(
              f"{abandoned} graphs could not be completed within {limits.upper.max()} nodes and "
              f"{limits.max_layers} layers, {len(done)} could; train longer, or raise "
              "--max_nodes and --max_layers")
    if abandoned:
      _logger.info("%d graphs were abandoned and generated again", abandoned)
    return [done[row] for row in range(len(requested))], abandoned

  def _limits(self, requested: np.ndarray) -> size_control.Limits:
    """The limits of graphs with the conditions (n, T)."""
    facts, options = self.generator.facts, self.options
    return size_control.Limits.of(
        facts.conditions.encode(requested)["target"], options.size_tolerance, options.max_nodes,
        options.max_layers, facts.max_nodes, facts.max_layers)

  def _generate(self, requested: np.ndarray, limits: size_control.Limits,
                rng: np.random.Generator) -> list[partial_graphs.GeneratedGraph | None]:
    state = partial_graphs.PartialGraphs(requested, self.generator)
    while len(state.active):
      self._layer(state, limits, rng)
    return state.finished

  def _layer(self, state: partial_graphs.PartialGraphs, limits: size_control.Limits,
             rng: np.random.Generator) -> None:
    """Adds one layer to each graph that is not complete."""
    arrays, states = self._step_inputs(state)
    size, inners = self._sizes(state, limits, states, arrays, rng)
    if state.layer >= limits.max_layers:
      size[size > 0] = -1
      if not (self._forward and self.options.constrained):
        # A graph that is large enough may end at any layer.
        size[state.node_counts() >= np.maximum(limits.lower[state.active], 1)] = 0
    size[state.node_counts() + size > limits.upper[state.active]] = -1
    if (size <= 0).any():
      state.close(size)
      if not len(state.active):
        return
      arrays, states = self._step_inputs(state)
      size, inners = size[size > 0], inners[size > 0]
    arrays.update(partial_graphs.new_layer(size, inners))
    remaining = limits.upper[state.active] - state.node_counts() - size
    arrays["most_operands"] = self._most_operands(arrays, remaining)
    x, likely = (values.numpy() for values in self._call(
        "_nodes", *states["nodes"], arrays, _seed(rng)))
    if not self._forward and self.options.constrained:
      # A layer whose kinds never have users would end the graph.
      is_short = state.node_counts() + size < arrays["target"]
      x = decoding.with_users(
          x, likely, arrays["step"], is_short, self.generator.facts.kinds.most_users, rng)
    joined = self._joined(state, states, {**arrays, "new_x": x}, remaining, rng)
    encoded = None
    if self._causal:
      encoded = self._call("_encoded", state.new_rows(arrays["step"], x, joined), state.rounds)
    state.add(arrays["step"], x, joined, encoded)

  def _step_inputs(self, state: partial_graphs.PartialGraphs
                   ) -> tuple[dict[str, np.ndarray], States]:
    """The arrays of the next step of each graph, and the states of its nodes."""
    arrays = state.arrays(self.options.guidance != 1.0)
    if not self._causal:
      return arrays, self._call("_prefix_states", state.rows())
    return arrays, {name: (state.states[name], state.prefix[name]) for name in state.states}

  def _most_operands(self, arrays: dict[str, np.ndarray], remaining: np.ndarray) -> np.ndarray:
    """(S,) int32 the largest number of operands that a new node can get."""
    if not self.options.constrained:
      most = np.full(len(remaining), np.iinfo(np.int32).max)
    elif self._forward:
      most = remaining
    else:
      most = np.bincount(arrays["candidate_step"], minlength=len(remaining))
    return np.maximum(most, self._least_operands).astype(np.int32)

  def _sizes(self, state: partial_graphs.PartialGraphs, limits: size_control.Limits,
             states: States, arrays: dict[str, np.ndarray], rng: np.random.Generator
             ) -> tuple[np.ndarray, np.ndarray]:
    """(S,) nodes of the next layer, and (S,) how many of them have operands.

    0 nodes: the graph is complete; -1: it cannot be completed.
    """
    contexts = self._call("_size_contexts", *states["sizes"], arrays)
    logits = self._call("_size_logits", contexts)
    now = size_control.State(
        state.node_counts(), *state.open_slots(), state.most_open_slots(),
        limits.lower[state.active], limits.upper[state.active],
        # Without constraints, edges are not limited, so neither are sizes.
        state.most_users() if self.options.constrained else np.full(
            len(state.active), growth.MANY))
    number = np.arange(logits.shape[1])
    limited = self._forward and self.options.constrained
    if limited:
      allowed = size_control.allowed_sizes(now, number, state.layer == 0)
    else:
      allowed = size_control.allowed_sizes_of_any_end(now, number, state.layer == 0)
    size = self._draw_number(logits, allowed, rng)
    new_nodes = np.maximum(size, 0).astype(np.int32)
    logits = self._call("_inner_logits", contexts, new_nodes)
    allowed = number <= new_nodes[:, None]
    if not self._forward:
      # Layer 0 consists of the nodes without operands; all other layers have none.
      allowed &= number == (0 if state.layer == 0 else new_nodes[:, None])
    elif limited:
      allowed = size_control.allowed_inners(
          now, new_nodes, number, self.generator.facts.degree, self._operands)
    return size, self._draw_number(logits, allowed, rng)

  def _draw_number(self, logits: tf.Tensor, allowed: np.ndarray, rng: np.random.Generator
                   ) -> np.ndarray:
    """(S,) one allowed number per row; -1 where none is allowed."""
    logits = logits.numpy().astype(np.float64) / self.options.temperature
    noisy = np.where(allowed, logits + rng.gumbel(size=logits.shape), -np.inf)
    return np.where(allowed.any(axis=1), noisy.argmax(axis=1), -1)

  def _joined(self, state: partial_graphs.PartialGraphs, states: States,
              arrays: dict[str, np.ndarray], remaining: np.ndarray, rng: np.random.Generator
              ) -> list[np.ndarray | None]:
    """For each graph its new edges (m, 2) [row, new node]; None: no valid edges exist.

    `remaining` (S,) is the number of nodes that may follow the new layer.
    """
    steps = len(state.active)
    new = np.bincount(arrays["step"], minlength=steps)
    candidates = np.bincount(arrays["candidate_step"], minlength=steps)
    if state.layer == 0:
      return [np.zeros([0, 2], np.int64)] * steps
    arrays["pairs"] = partial_graphs.all_pairs(candidates, new)
    logits = self._call("_edges", *states["edges"], arrays, _seed(rng)).numpy().astype(np.float64)
    if not self._forward:
      # An operand's kind decides; the number of its users is not limited by a layer.
      operand = state.kinds_of(state.candidates)[arrays["pairs"][:, 0]]
      logits += self.generator.user_shift[operand, 0]
    priority = logits / self.options.temperature + rng.logistic(size=len(logits))
    front = arrays["candidate_gap"] == 1
    slots = state.slots[state.candidates]
    kinds, kind = self.generator.facts.kinds, arrays["new_x"][:, 0]
    operands, spare = kinds.operands[kind], state.spare_users(state.candidates)
    starts = [np.cumsum(counts) - counts for counts in (candidates, new, candidates * new)]
    joined: list[np.ndarray | None] = []
    for step, (first, first_new, first_pair) in enumerate(zip(*starts)):
      old = slice(first, first + candidates[step])
      square = priority[first_pair:first_pair + candidates[step] * new[step]]
      edges = self._decoded(decoding.Layer(
          square.reshape(candidates[step], new[step]), front[old], slots[old],
          operands[first_new:first_new + new[step]],
          kinds.most_users[kind[first_new:first_new + new[step]]] if self._forward else spare[old],
          self.generator.user_shift[kind[first_new:first_new + new[step]]]),
                            int(remaining[step])) if candidates[step] else None
      if edges is not None:
        candidate, node = np.nonzero(edges)
        edges = np.stack([state.candidates[old][candidate], node + first_new], axis=1)
      joined.append(edges)
    return joined

  def _decoded(self, layer: decoding.Layer, remaining: int) -> np.ndarray | None:
    if not self.options.constrained:
      return decoding.free(layer)
    return decoding.to_users(layer, remaining) if self._forward else decoding.to_operands(layer)

  # ---- TensorFlow functions, each traced once --------------------------------------------------

  def _call(self, name: str, *arguments: Any) -> Any:
    if name not in self._functions:
      self._functions[name] = tf.function(
          getattr(self, name), autograph=False, reduce_retracing=True,
          input_signature=[_spec(argument) for argument in arguments])
    return self._functions[name](*arguments)

  def _contexts(self, name: str, states: tf.Tensor, prefix: tf.Tensor,
                arrays: Mapping[str, tf.Tensor]) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Candidates and contexts under the conditions and, for guidance, without conditions."""
    module = self.generator.modules[name]
    contexts = [module.step_contexts(states, prefix, arrays)]
    if self.options.guidance != 1.0:
      unspecified = {
          **arrays, **{key[5:]: arrays[key] for key in arrays if key.startswith("open_")}}
      contexts.append(module.step_contexts(states, prefix, unspecified))
    return contexts

  def _guided(self, logits: list[tf.Tensor]) -> tf.Tensor:
    if len(logits) == 1:
      return logits[0]
    conditional, unconditional = logits
    return unconditional + self.options.guidance * (conditional - unconditional)

  def _size_contexts(self, states, prefix, arrays):
    return [context for _, context in self._contexts("sizes", states, prefix, arrays)]

  def _size_logits(self, contexts):
    module: Any = self.generator.modules["sizes"]
    return self._guided([module.logits(context) for context in contexts])

  def _inner_logits(self, contexts, size):
    module: Any = self.generator.modules["sizes"]
    return self._guided([module.inner_logits(context, size) for context in contexts])

  def _nodes(self, states, prefix, arrays, seed):
    """[M, F] kinds and other attributes, and [M, K] the final probabilities of the kinds."""
    module: Any = self.generator.modules["nodes"]
    contexts = [context for _, context in self._contexts("nodes", states, prefix, arrays)]
    steps = tf.shape(arrays["counts"])[0]
    first = modules_lib.Noise(seed)
    marginals = module.marginals(arrays["inner"])
    x = tf.stack([diffusion.draw(marginal, first.seed()) for marginal in marginals], axis=1)
    times = tf.constant(self._node_times)
    operands = tf.constant(self.generator.facts.kinds.operands, tf.int32)
    possible = operands[None] <= tf.gather(arrays["most_operands"], arrays["step"])[:, None]

    def span(place, noisy, _):
      noise = modules_lib.Noise(seed + tf.stack([place + 1, 0]))
      time = tf.fill([steps], times[place])
      logits = [module.clean(noisy, time, context, arrays) for context in contexts]
      kept, before = tf.gather(module.kept, times[place]), tf.gather(module.kept, times[place + 1])
      columns, likely = [], marginals[0]
      for attribute, marginal in enumerate(marginals):
        guided = self._guided([of_context[attribute] for of_context in logits])
        if attribute == 0:
          guided = tf.where(possible, guided + self.generator.kind_shift, -1e9)
        clean = tf.nn.softmax(guided / self.options.temperature)
        likely = clean if attribute == 0 else likely
        columns.append(diffusion.draw(
            diffusion.reverse(clean, noisy[:, attribute], before, kept, marginal), noise.seed()))
      return place + 1, tf.stack(columns, axis=1), likely

    return tf.while_loop(lambda place, *_: place < len(self._node_times) - 1, span,
                         (tf.constant(0), x, marginals[0]))[1:]

  def _edges(self, states, prefix, arrays, seed):
    """[p] log odds of an edge, after all diffusion steps except the final draw."""
    module: Any = self.generator.modules["edges"]
    ends = [module.ends(candidates, arrays["new_x"], context, arrays)
            for candidates, context in self._contexts("edges", states, prefix, arrays)]
    steps = tf.shape(arrays["counts"])[0]
    marginal = module.marginal(arrays)
    noisy = diffusion.draw(marginal, modules_lib.Noise(seed).seed())
    times = tf.constant(self._edge_times)

    def log_odds(place, noisy):
      time = tf.fill([steps], times[place])
      return self._guided([module.clean(noisy, time, end, arrays) for end in ends])

    def span(place, noisy):
      joined = tf.sigmoid(log_odds(place, noisy) / self.options.temperature)
      kept, before = tf.gather(module.kept, times[place]), tf.gather(module.kept, times[place + 1])
      probabilities = diffusion.reverse(
          tf.stack([1.0 - joined, joined], axis=1), noisy, before, kept, marginal)
      return place + 1, diffusion.draw(
          probabilities, modules_lib.Noise(seed + tf.stack([place + 1, 0])).seed())

    last = len(self._edge_times) - 2
    _, noisy = tf.while_loop(lambda place, _: place < last, span, (tf.constant(0), noisy))
    return log_odds(last, noisy)

  def _encoded(self, arrays, rounds):
    """For each network the states of new nodes before and after each round, and their sums."""
    result = {}
    for name, module in self.generator.modules.items():
      states = module.encoder.causal(
          arrays["x"], arrays["level"], arrays["layer"], arrays["edges"], rounds[name],
          tf.size(arrays["steps"]))
      result[name] = states, encoders.segment_sum(
          states[-1], arrays["layer"], tf.size(arrays["steps"]))
    return result

  def _prefix_states(self, arrays):
    """For each network the states of all rows, and their sums over each graph."""
    result = {}
    for name, module in self.generator.modules.items():
      states = module.encoder.bidirectional(arrays["x"], arrays["level"], arrays["edges"])
      result[name] = states, encoders.segment_sum(
          states, arrays["row_step"], tf.size(arrays["steps"]))
    return result


def _seed(rng: np.random.Generator) -> np.ndarray:
  return rng.integers(2 ** 31 - 1, size=2).astype(np.int32)


def _spec(argument: Any) -> Any:
  """Specifications of the arguments with any number of rows."""
  if isinstance(argument, Mapping):
    return {key: _spec(value) for key, value in argument.items()}
  if isinstance(argument, list):
    return [_spec(value) for value in argument]
  return tf.TensorSpec([None, *argument.shape[1:]], tf.as_dtype(argument.dtype))
