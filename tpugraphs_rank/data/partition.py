"""Batches arranged by the reach of configurations: exact scoring at a fraction of the work.

After k convolutions, the state of a node depends on the configuration only if a configurable node
is within k hops. Nodes are therefore ordered by their distance to the nearest configurable node:
the first `rows[k]` are those that depend on the configuration after k convolutions. Messages are
ordered by the distance of their senders: the first `inner[k]` are those that depend on the
configuration in convolution k. Everything else is computed once for all configurations. The
arrangement changes only the order of sums.
"""

from collections.abc import Mapping

import numpy as np

from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import graphs

# The sender and receiver of each direction among the two ends of an edge.
ENDS: Mapping[str, tuple[str, str]] = {
    "operands": ("source", "target"), "users": ("target", "source")}


def directions_of(config: run_config.ModelConfig) -> tuple[str, ...]:
  """The directions in which messages are sent."""
  return tuple(ENDS) if config.directions == "both" else (config.directions,)


def layout_width(config: run_config.ModelConfig) -> int | None:
  """The number of layout features of a node that a model reads; None: all of them."""
  return (None if config.layout_costs in ("requests", "both")
          else graphs.NUM_LAYOUT_FEATURES)


def hops(num_nodes: int, starts: np.ndarray, edges: list[tuple[np.ndarray, np.ndarray]],
         depth: int) -> np.ndarray:
  """(num_nodes,) int64: the number of hops from the nearest start to each node, at most depth + 1.

  Args:
    num_nodes: number of nodes.
    starts: node ids.
    edges: for each direction the senders and the receivers of its messages.
    depth: larger distances are all reported as depth + 1.
  """
  distances = np.full(num_nodes, depth + 1, np.int64)
  distances[starts] = 0
  for distance in range(1, depth + 1):
    for sender, receiver in edges:
      reached = receiver[distances[sender] == distance - 1]
      distances[reached] = np.minimum(distances[reached], distance)
  return distances


def edge_weights(sender: np.ndarray, receiver: np.ndarray, num_nodes: int, aggregation: str
                 ) -> np.ndarray:
  """(m,) float64: the weight of each message for a value of `ModelConfig.aggregation`."""
  if aggregation in ("sum", "max"):
    return np.ones(len(sender))
  received = np.bincount(receiver, minlength=num_nodes)[receiver]
  if aggregation == "mean":
    return 1.0 / received
  sent = np.bincount(sender, minlength=num_nodes)[sender]
  return 1.0 / np.sqrt(sent * received)


def arrange(batch: batches.Batch, config: run_config.ModelConfig) -> batches.Batch:
  """Arranges a batch of `data.batches` and its segments, if it has any.

  Returns:
    `nodes` (N, F), `opcode`, `component` (N,): node arrays in the new order. `component` is the
      graph of each node.
    `order` (N,): for each position, the node of the batch.
    `num_nodes` (B,), `config_mask`, `reference_mask`, `label_*`: unchanged.
    For layouts `configs` (rows[0], T, w) and `config_sizes` (rows[0], 27): the layouts of the
      configurable nodes in the new order, and the sizes of their tensors and axes. w = 18, or as in
      `batches.PreparedGraph.layouts` if the model uses the effects of requests.
    `config_costs` (B, T, K), if the batch has it: unchanged.
    For tiles `graph_configs` (B, T, K): unchanged.
    `rows` (K + 1,) int32: number of nodes that depend on the configuration after 0, ..., K
      convolutions.
    `edges` (m, 2) int32, rows [receiver, sender]: the messages of a convolution, including that of
      each node to itself.
    `kernel` (m,) int32: the kernel of each message: 0 for a node's own state, then those of
      `directions_of`.
    `weights` (m,) float64: the weight of each message.
    `inner` (K,) int32: the number of messages that depend on the configuration.
    `inner_<k>` (inner[k], 2) and `outer_<k>` (m - inner[k], 2) int32: the messages of convolution k
      that depend on the configuration, and the others, as rows [receiver, sender] of the tables of
      `models.states.project`.
    For segments the same with the prefix "segment_", and `segment_node_ids`: the positions of their
      nodes in the new order of the whole graphs.
  """
  arranged = _arranged(batch, "", config)
  if "segment_nodes" in batch:
    segment = _arranged(batch, "segment_", config)
    place = np.empty(len(arranged["order"]), np.int32)
    place[arranged["order"]] = np.arange(len(place))
    arranged["segment_node_ids"] = place[batch["segment_node_ids"][segment["segment_order"]]]
    arranged.update(segment)
  for key, value in batch.items():
    if key.startswith("label_") or key in ("config_mask", "reference_mask", "config_costs"):
      arranged[key] = value
  return arranged


def _arranged(batch: batches.Batch, prefix: str, config: run_config.ModelConfig) -> batches.Batch:
  get = lambda key: batch[prefix + key]
  count, depth = len(get("nodes")), config.num_convolutions
  layout = prefix + "config_nodes" in batch
  ends = [(get(ENDS[direction][0]), get(ENDS[direction][1]))
          for direction in directions_of(config)]
  # A tile configuration reaches every node at once.
  distance = (hops(count, get("config_nodes"), ends, depth) if layout
              else np.zeros(count, np.int64))
  order = np.argsort(distance, kind="stable").astype(np.int32)
  place = np.empty(count, np.int32)
  place[order] = np.arange(count)
  rows = np.searchsorted(distance[order], np.arange(depth + 1), side="right")
  arranged = {
      "nodes": get("nodes")[order], "opcode": get("opcode")[order], "order": order,
      "component": np.repeat(np.arange(len(get("num_nodes")), dtype=np.int32),
                             get("num_nodes"))[order],
      "num_nodes": get("num_nodes"), "rows": rows.astype(np.int32)}
  if layout:
    turn = np.argsort(place[get("config_nodes")])
    arranged["configs"] = get("configs")[turn, :, :layout_width(config)]
    arranged["config_sizes"] = get("config_sizes")[turn]
  else:
    arranged["graph_configs"] = get("configs")
  arranged.update(_messages(ends, place, distance, config))
  for level, (inner, first) in enumerate(zip(arranged["inner"], arranged["rows"])):
    for name, part, start, senders in (
        ("inner", slice(None, inner), 0, first),
        ("outer", slice(inner, None), first, count - first)):
      edges = arranged["edges"][part].copy()
      edges[:, 1] += arranged["kernel"][part] * np.int32(senders) - np.int32(start)
      arranged[f"{name}_{level}"] = edges
  return {prefix + key: value for key, value in arranged.items()}


def _messages(ends: list[tuple[np.ndarray, np.ndarray]], place: np.ndarray, distance: np.ndarray,
              config: run_config.ModelConfig) -> batches.Batch:
  """`edges`, `kernel`, `weights` and `inner` of `arrange`."""
  own = np.arange(len(place))
  parts = [(own, own, np.ones(len(own)))] + [
      (sender, receiver, edge_weights(sender, receiver, len(place), config.aggregation))
      for sender, receiver in ends]
  kernel = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part[0]) for part in parts])
  sender, receiver, weights = (np.concatenate(column) for column in zip(*parts))
  # Ordered by receiver within one distance of the senders, so that sums access memory in order.
  turn = np.lexsort([place[receiver], distance[sender]])
  return {
      "edges": np.stack([place[receiver], place[sender]], axis=1)[turn],
      "kernel": kernel[turn], "weights": weights[turn],
      "inner": np.searchsorted(distance[sender[turn]], np.arange(config.num_convolutions),
                               side="right").astype(np.int32)}
