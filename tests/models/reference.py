"""A second forward pass: plain loops over nodes, edges and configurations, in float64.

Slow and simple, for comparison with the real one. It uses only the weights of a `Ranker`.
"""

from collections.abc import Sequence
import math

import numpy as np

from tpugraphs_rank.costs import layout_features

ACTIVATIONS = {
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x]),
    "tanh": np.tanh,
}


def _dense(layer, x: np.ndarray) -> np.ndarray:
  out = x @ layer.kernel.numpy().astype(np.float64)
  return out if layer.bias is None else out + layer.bias.numpy()


def _mlp(layers, activation, x: np.ndarray) -> np.ndarray:
  for layer in layers.layers:
    x = activation(_dense(layer, x))
  return x


def _operands(graph, node: int) -> list[int]:
  """The tensors of a configurable node: itself, the larger operand, the smaller one."""
  volumes = graph.node_feat[:, 28].astype(np.float64)
  # The larger one is the input: the shapes of random products do not determine it.
  operands = sorted((int(v) for u, v in graph.edge_index if u == node),
                    key=lambda operand: (-volumes[operand], operand)) or [node]
  return [node, operands[0], operands[min(1, len(operands) - 1)]]


def _extents(prepared, node: int, row: int, k: int) -> np.ndarray:
  """The lengths of the minor-most axes of a node's tensors in the layouts of a configuration."""
  graph = prepared.graph
  volumes = graph.node_feat[:, 28].astype(np.float64)
  features = []
  for number, tensor in enumerate(_operands(graph, int(node))):
    lengths = [max(float(length), 0.0) for length in graph.node_feat[tensor, 21:27]]
    rank = sum(length > 0 for length in lengths)
    layout = prepared.layouts([row])[0, k, 6 * number:6 * number + 2].astype(int)
    log = lambda axis, of=lengths: math.log2(max(of[axis], 1.0)) if axis >= 0 else 0.0
    chosen = [log(axis) for axis in layout]
    default = [log(rank - 1), log(rank - 2)]
    own = np.array([1.0, *(np.array(chosen) / 8), *((np.array(chosen) - default) / 8)])
    own *= layout[0] >= 0
    size = math.sqrt(volumes[tensor] / (volumes.sum() / len(volumes)))
    features += [*own, *(size * own)]
  return np.array(features)


class Reference:
  """Scores one graph's configurations as a `Ranker` should."""

  def __init__(self, model, config):
    """Keeps the model (for its weights) and its `ModelConfig`."""
    self._model = model
    self._config = config
    self._act = ACTIVATIONS[config.activation]

  def scores(self, prepared, picked: Sequence[int], reference: Sequence[int] = (),
             segment: Sequence[int] | None = None) -> list[float]:
    """Scores the configurations `picked`.

    Args:
      prepared: a `PreparedGraph`.
      picked: configurations of the list.
      reference: configurations that precede it.
      segment: nodes whose states come from a pass over them and the edges among them alone.
    """
    rows = [*reference, *picked]
    edges = list(zip(prepared.source.tolist(), prepared.target.tolist()))
    everything = range(prepared.graph.num_nodes)
    keys = len(reference) or len(rows)
    hidden = self.embed(prepared, everything, edges, rows, keys)
    if segment is not None:
      inside = [(v, u) for v, u in edges if v in segment and u in segment]
      hidden.update(self.embed(prepared, segment, inside, rows, keys))
    return [self.read_out(prepared, hidden, rows, t) for t in range(len(reference), len(rows))]

  def embed(self, prepared, nodes: Sequence[int], edges: Sequence[tuple[int, int]],
            rows: Sequence[int], keys: int) -> dict[tuple[int, int], np.ndarray]:
    """State of each node and configuration, (node, place in `rows`) -> (h,)."""
    model = self._model
    hidden = {}
    for v in nodes:
      opcode = int(prepared.graph.node_opcode[v])
      features = np.concatenate([prepared.nodes[v], model._opcodes.embeddings.numpy()[opcode]])
      state = _dense(model._node_projection, features.astype(np.float64))
      for t, row in enumerate(rows):
        hidden[v, t] = self._act(state + self._joined(prepared, v, row))
    for attention, convolution in zip(model._attentions, model._convolutions):
      if attention is not None:
        hidden = {key: value for v in nodes
                  for key, value in self._attend(attention, hidden, v, len(rows), keys).items()}
      hidden = {key: value for t in range(len(rows))
                for key, value in self._convolve(convolution, hidden, nodes, edges, t).items()}
    return hidden

  def _joined(self, prepared, v: int, row: int) -> np.ndarray:
    """What configuration `row` adds at node v."""
    model = self._model
    width = self._config.hidden_width
    if prepared.graph.kind == "tile":
      if self._config.join == "late":
        return np.zeros(width)
      return _dense(model._config_projection, prepared.configs([row])[0].astype(np.float64))
    for k, node in enumerate(prepared.config_nodes):
      if node == v:
        one_hot = np.zeros([18, 7])
        for position, value in enumerate(prepared.layouts([row])[0, k, :18]):
          one_hot[position, int(value) + 1] = 1
        if self._config.layout_features == "digits":
          one_hot = one_hot @ model._digits.embeddings.numpy()
        one_hot *= self._config.layout_scale
        joined = _dense(model._config_projection, one_hot.reshape(-1))
        if self._config.layout_extents:
          joined = joined + _dense(model._extent_projection, _extents(prepared, node, row, k))
        if self._config.layout_costs in ("requests", "both"):
          roots = prepared.layouts([row])[0, k, 18:] / layout_features.STEPS
          joined = joined + _dense(model._request_projection, np.array(
              [*roots, *(root * abs(root) for root in roots)]))
        if self._config.layout_join == "sized":
          volumes = prepared.graph.node_feat[:, 28].astype(np.float64)
          for number, tensor in enumerate(_operands(prepared.graph, int(node))):
            size = math.sqrt(volumes[tensor] / (volumes.sum() / len(volumes)))
            of_tensor = one_hot.copy()
            of_tensor[np.arange(18) // 6 != number] = 0
            joined = joined + size * _dense(model._sized_projection, of_tensor.reshape(-1))
        return joined
    return np.zeros(width)

  def _attend(self, attention, hidden, v: int, count: int, keys: int):
    projected = [_dense(attention._project, hidden[v, t]) for t in range(count)]
    result = {}
    for t in range(count):
      logits = [projected[t] @ projected[k] / math.sqrt(self._config.attention_width)
                for k in range(keys)]
      weights = np.exp(np.array(logits) - max(logits))
      weights /= weights.sum()
      result[v, t] = hidden[v, t] + sum(
          weights[k] * _dense(attention._value, hidden[v, k]) for k in range(keys))
    return result

  def _convolve(self, convolution, hidden, nodes, edges, t: int):
    config = self._config
    z = {}
    for v in nodes:
      x = hidden[v, t]
      if config.layer_norm:
        norm = convolution._norm
        x = (x - x.mean()) / math.sqrt(x.var() + 1e-3) * norm.gamma.numpy() + norm.beta.numpy()
      z[v] = _mlp(convolution._mlp, self._act, x)
    degree_out = {v: max(sum(s == v for s, _ in edges), 1) for v in nodes}  # Users.
    degree_in = {v: max(sum(u == v for _, u in edges), 1) for v in nodes}  # Operands.
    kernels = dict(zip(
        ("operands", "users") if config.directions == "both" else (config.directions,),
        convolution._directions.values()))
    result = {}
    for v in nodes:
      out = _dense(convolution._self, z[v])
      if config.aggregation == "max":
        out = out + sum(np.max(messages, axis=0) for messages in (
            [_dense(kernels[name], z[pair[sender]]) for pair in edges if pair[1 - sender] == v]
            for sender, name in enumerate(("operands", "users")) if name in kernels) if messages)
      for s, u in edges if config.aggregation != "max" else ():
        if "operands" in kernels and u == v:
          out = out + self._weight(degree_out[s], degree_in[v]) * _dense(kernels["operands"], z[s])
        if "users" in kernels and s == v:
          out = out + self._weight(degree_in[u], degree_out[v]) * _dense(kernels["users"], z[u])
      out = self._act(out)
      if config.residual == "concat":
        out = np.concatenate([hidden[v, t], out])
      elif config.residual == "add" and len(out) == len(hidden[v, t]):
        out = out + hidden[v, t]
      result[v, t] = out
    return result

  def _weight(self, sender: int, receiver: int) -> float:
    return {"sum": 1.0, "mean": 1.0 / receiver, "symmetric": 1.0 / math.sqrt(sender * receiver)}[
        self._config.aggregation]

  def read_out(self, prepared, hidden, rows: Sequence[int], t: int) -> float:
    """The score of the configuration at place t."""
    states = np.array([hidden[v, t] for v in range(prepared.graph.num_nodes)])
    parts = []
    for pooling in self._config.pooling:
      value = {"mean": states.mean, "sum": states.sum, "max": states.max}[pooling](axis=0)
      if pooling == "sum" and self._config.pool_l2:
        value = value / math.sqrt(max((value ** 2).sum(), 1e-12))
      parts.append(value)
    if self._model._late_projection is not None:
      parts.append(self._act(_dense(
          self._model._late_projection, prepared.configs(rows[t:t + 1])[0].astype(np.float64))))
    if self._config.layout_costs in ("totals", "both") and prepared.graph.kind == "layout":
      costs = prepared.costs(np.array(rows[t:t + 1]))[0][0].astype(np.float64)
      parts += [self._act(_dense(self._model._cost_projection, costs)), costs]
    head = _mlp(self._model._head, self._act, np.concatenate(parts))
    return float(_dense(self._model._score, head)[0])
