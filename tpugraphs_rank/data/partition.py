"""Batches arranged by how far a configuration reaches: exact scoring at a fraction of the work.

After k convolutions the state of a node depends on the configuration only if a configurable node
lies within k hops. Nodes are put in the order of their distance to the nearest configurable one, so
that those that depend on the configuration after k convolutions are the first `rows[k]`, and
messages in that of their senders' distance, so that those that depend on the configuration in
convolution k are the first `inner[k - 1]`. Everything else is computed once for all configurations.
The arrangement changes the order of sums and nothing else.
"""

from collections.abc import Mapping

import numpy as np

from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches

# A direction's sender and receiver among the two ends of an edge.
ENDS: Mapping[str, tuple[str, str]] = {
    "operands": ("source", "target"), "users": ("target", "source")}


def directions_of(config: run_config.ModelConfig) -> tuple[str, ...]:
  """The directions in which messages run."""
  return tuple(ENDS) if config.directions == "both" else (config.directions,)


def hops(num_nodes: int, starts: np.ndarray, edges: list[tuple[np.ndarray, np.ndarray]],
         depth: int) -> np.ndarray:
  """(num_nodes,) int64: messages that a node is away from the nearest start, at most depth + 1.

  Args:
    num_nodes: nodes in all.
    starts: node ids.
    edges: for each direction the senders and the receivers of its messages.
    depth: distances beyond it are not told apart.
  """
  found = np.full(num_nodes, depth + 1, np.int64)
  found[starts] = 0
  for distance in range(1, depth + 1):
    for sender, receiver in edges:
      reached = receiver[found[sender] == distance - 1]
      found[reached] = np.minimum(found[reached], distance)
  return found


def edge_weights(sender: np.ndarray, receiver: np.ndarray, num_nodes: int, aggregation: str
                 ) -> np.ndarray:
  """(m,) float64: the weight of each message, as `ModelConfig.aggregation` says."""
  if aggregation == "sum":
    return np.ones(len(sender))
  received = np.bincount(receiver, minlength=num_nodes)[receiver]
  if aggregation == "mean":
    return 1.0 / received
  sent = np.bincount(sender, minlength=num_nodes)[sender]
  return 1.0 / np.sqrt(sent * received)


def arrange(batch: batches.Batch, config: run_config.ModelConfig) -> batches.Batch:
  """Arranges a batch of `data.batches`, with its segments where it has some.

  Returns:
    `nodes` (N, F), `opcode`, `component` (N,): node arrays in the new order; `order` (N,): which
      node of the batch stands where.
    `num_nodes` (B,), `config_mask`, `reference_mask`, `label_*`: as they were.
    `configs` (rows[0], T, 18) and `config_sizes` (rows[0], 3): layouts, of the configurable nodes
      in the new order, and the sizes of their tensors; or, as they were, `graph_configs` (B, T,
      K): tiles.
    `rows` (K + 1,) int32: nodes that depend on the configuration after 0, ..., K convolutions.
    `edges` (m, 2) int32, rows [receiver, sender]: the messages of a convolution, what a node keeps
      of itself among them; `kernel` (m,) int32: which of the convolution's kernels each goes
      through, 0 for a node's own, then those of `directions_of`; `weights` (m,) float64; `inner`
      (K,) int32. `inner_<k>` (inner[k], 2) and `outer_<k>` (m - inner[k], 2) int32: the messages of
      convolution k that depend on the configuration and the others, rows [receiver, sender] in the
      tables of `models.states.project`.
    For segments the same with the prefix "segment_", and `segment_node_ids`: where in the new
      order of the whole graphs its nodes stand.
  """
  arranged = _arranged(batch, "", config)
  if "segment_nodes" in batch:
    segment = _arranged(batch, "segment_", config)
    place = np.empty(len(arranged["order"]), np.int32)
    place[arranged["order"]] = np.arange(len(place))
    arranged["segment_node_ids"] = place[batch["segment_node_ids"][segment["segment_order"]]]
    arranged.update(segment)
  for key, value in batch.items():
    if key.startswith("label_") or key in ("config_mask", "reference_mask"):
      arranged[key] = value
  return arranged


def _arranged(batch: batches.Batch, prefix: str, config: run_config.ModelConfig) -> batches.Batch:
  get = lambda key: batch[prefix + key]
  count, depth = len(get("nodes")), config.num_convolutions
  layout = prefix + "config_nodes" in batch
  ends = [tuple(get(end) for end in ENDS[direction]) for direction in directions_of(config)]
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
    arranged["configs"], arranged["config_sizes"] = get("configs")[turn], get("config_sizes")[turn]
  else:
    arranged["graph_configs"] = get("configs")
  arranged.update(_messages(ends, place, distance, config))
  for level, (inner, first) in enumerate(zip(arranged["inner"], arranged["rows"])):
    for name, part, start, senders in (
        ("inner", slice(None, inner), 0, first), ("outer", slice(inner, None), first, count - first)):
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
  # By receiver among senders of one distance: sums then run through memory once.
  turn = np.lexsort([place[receiver], distance[sender]])
  return {
      "edges": np.stack([place[receiver], place[sender]], axis=1)[turn],
      "kernel": kernel[turn], "weights": weights[turn],
      "inner": np.searchsorted(distance[sender[turn]], np.arange(config.num_convolutions),
                               side="right").astype(np.int32)}
