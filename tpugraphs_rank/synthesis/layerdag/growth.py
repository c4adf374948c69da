"""The steps in which a DAG grows layer by layer, as arrays that LayerDAG learns from.

A graph of L layers has L + 1 steps: step t generates layer t from the nodes of the layers before
it, and step L generates an empty layer, which ends the graph. There are two orders of growth:

  users_first     from the roots, which have no users: layer = longest path from a root. A new node
                  is connected to users among the earlier nodes, which still need operands.
  operands_first  from the nodes without operands: layer = longest path from one of them. A new node
                  is connected to its operands.

In both orders the number of operands of a node is part of its kind (see `Kinds`) and is known when
the node is generated. In the first order the candidates for an edge are therefore the earlier nodes
that still need operands; in the second they are all earlier nodes, and a new node takes exactly its
number of operands.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from tpugraphs_rank.data import segments
from tpugraphs_rank.synthesis.dags import dags as dags_lib

Arrays = dict[str, np.ndarray]

# Larger counts are clamped before the networks embed them.
MAX_SLOTS = 31
MAX_GAP = 15
MAX_COUNT = 127
MANY = 2 ** 30
# Version of the features of a step. 1: counts up to `MAX_COUNT`. 2: also counts of any size, and
# the ratio of the nodes that are left to the open slots. 3: also what is left of each requested
# count, see `conditions.COUNTS`.
FEATURES = 3
# Share of the training edges that the window of `candidates` covers.
_WINDOW_SHARE = 0.999


@dataclasses.dataclass(frozen=True)
class Kinds:
  """The pairs of first attribute and number of operands that occur in training.

  A node is generated as a kind and its other attributes, so only pairs that occur in training are
  generated.

  Attributes:
    attribute: (K,) values of the first attribute.
    operands: (K,) numbers of distinct operands.
    most_users: (K,) the most users of a node of this kind in training; MANY if unknown.
  """

  attribute: np.ndarray
  operands: np.ndarray
  most_users: np.ndarray

  @classmethod
  def of(cls, dags: dags_lib.Dags) -> "Kinds":
    """The sorted kinds that occur in graphs."""
    pairs, kind = np.unique(
        np.stack([dags.x[:, 0], dags.num_operands], axis=1), axis=0, return_inverse=True)
    most = np.zeros(len(pairs), np.int32)
    np.maximum.at(most, kind.reshape(-1), dags.num_users.astype(np.int32))
    return cls(pairs[:, 0].astype(np.int32), pairs[:, 1].astype(np.int32), most)

  def __len__(self) -> int:
    return len(self.attribute)

  def index(self, attribute: np.ndarray, operands: np.ndarray) -> np.ndarray:
    """The kinds of nodes; -1 for a pair that is not a kind."""
    base = int(max(self.operands.max(initial=0), np.max(operands, initial=0))) + 1
    known = self.attribute.astype(np.int64) * base + self.operands
    wanted = np.asarray(attribute, np.int64) * base + operands
    index = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[index] == wanted, index, -1).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class OrderedGraph:
  """One graph with its nodes in the order of growth.

  Attributes:
    x: (n, F) int32: the node's kind, then its other attributes; -1 for a kind not in training.
    operands: (n,) numbers of distinct operands.
    layer: (n,) int32, ascending.
    old: (m,) int32 earlier end of each edge.
    new: (m,) int32 later end of each edge.
    order: (n,) indices of these nodes in the original graph.
  """

  x: np.ndarray
  operands: np.ndarray
  layer: np.ndarray
  old: np.ndarray
  new: np.ndarray
  order: np.ndarray


def order_graphs(dags: dags_lib.Dags, kinds: Kinds, direction: str) -> list[OrderedGraph]:
  """Puts the nodes of each graph into the order of growth."""
  operands = dags.num_operands
  kind = kinds.index(dags.x[:, 0], operands)
  ordered = []
  for graph in range(len(dags)):
    nodes, edges = dags.nodes(graph), dags.edges(graph)
    count = nodes.stop - nodes.start
    if direction == "users_first":
      old, new, layer = edges[:, 0], edges[:, 1], dags.level[nodes]
    else:
      old, new, layer = edges[:, 1], edges[:, 0], segments.levels(edges, count)
    order = np.argsort(layer, kind="stable")
    position = np.empty(count, np.int32)
    position[order] = np.arange(count)
    x = np.concatenate([kind[nodes, None], dags.x[nodes, 1:]], axis=1)
    ordered.append(OrderedGraph(x[order], operands[nodes][order], layer[order], position[old],
                                position[new], order))
  return ordered


def window_of(ordered: Sequence[OrderedGraph]) -> int:
  """The number of layers that all but one in a thousand edges reach back; at least 1."""
  gaps = np.concatenate([graph.layer[graph.new] - graph.layer[graph.old] for graph in ordered])
  return int(np.quantile(gaps, _WINDOW_SHARE, method="higher")) if gaps.size else 1


def unroll(graph: OrderedGraph, direction: str, whole_prefixes: bool = False,
           operand_counts: bool = False, window: int = 0) -> Arrays:
  """The steps of a graph, as arrays of indices within the graph.

  Args:
    graph: the graph.
    direction: its order of growth.
    whole_prefixes: also return each prefix as a separate graph.
    operand_counts: also return the operands that the candidates already have.
    window: see `candidates`.

  Returns:
    With n nodes, m edges, S = L + 1 steps, c candidates (over all steps), p pairs:
      x (n, F); step (n,) the step that generates a node; edges (m, 2) [earlier, later].
      level (n,) its layer; inner (n,) 1 for nodes with operands. size (S,) nodes that a step
        generates, 0 at the last step; inners (S,) those of them with operands; counts (S, 4) before
        the step: nodes, open slots in the last layer, open slots in all layers, layers.
        progress (S, 5) before the step: nodes, layers, operands of all these nodes, nodes without
        operands, nodes without users so far; as in `conditions.COUNTS`.
      candidate_step, candidate_node, candidate_slots, candidate_gap (c,): the earlier nodes that
        may get an edge; see `candidates`.
      pairs (p, 2) [candidate, new node]; linked (p,) 1 where there is an edge.
      layer_pairs (q, 2): the pairs [i, j] of nodes of the same layer, including [i, i].
      With `whole_prefixes`: prefix_node, prefix_step (r,); prefix_edges (s, 2) rows of those;
        candidate_row (c,) the row of each candidate.
      With `operand_counts`: candidate_kind (c,); held_candidate (h,), held_x (h, F): the operands
        that candidates already have, with the candidate of each; empty for operands_first, where
        a node has all operands from the start.
  """
  count, steps = len(graph.x), int(graph.layer.max()) + 2
  size = np.bincount(graph.layer, minlength=steps)
  first = np.concatenate([[0], np.cumsum(size)])
  # For each node the number of its edges to each later layer.
  edges_to = np.zeros([count, steps], np.int32)
  np.add.at(edges_to, (graph.old, graph.layer[graph.new]), 1)
  edges_up_to = np.cumsum(edges_to, axis=1)
  steps_of, nodes_of, slots_of = [], [], []
  numbers = np.zeros([steps, 4], np.int32)
  reached = np.zeros([steps, 5], np.int32)
  for step in range(1, steps):
    before = slice(first[step])
    slots, is_candidate, room = candidates(
        graph.operands[before], edges_up_to[before, step - 1], direction,
        step - graph.layer[before], window)
    node = np.flatnonzero(is_candidate)
    steps_of.append(np.full(len(node), step))
    nodes_of.append(node)
    slots_of.append(slots[node])
    numbers[step] = first[step], room[first[step - 1]:].sum(), room.sum(), step
    operands = graph.operands[before]
    # Nodes without users so far: those of the first layer, or those with an open slot.
    roots = size[0] if direction == "users_first" else room.sum()
    reached[step] = first[step], step, operands.sum(), (operands == 0).sum(), roots
  candidate_step, candidate_node = _joined(steps_of), _joined(nodes_of)
  pair_candidate = np.repeat(np.arange(len(candidate_step)), size[candidate_step])
  # Index within the nodes of a candidate's step.
  within = np.arange(len(pair_candidate)) - np.repeat(
      np.cumsum(size[candidate_step]) - size[candidate_step], size[candidate_step])
  pair_new = first[candidate_step[pair_candidate]] + within
  key = lambda old, new: old.astype(np.int64) * count + new
  linked = np.isin(key(candidate_node[pair_candidate], pair_new), key(graph.old, graph.new))
  layers = [np.arange(first[step], first[step + 1]) for step in range(steps - 1)]
  layer_pairs = [np.stack(np.meshgrid(layer, layer, indexing="ij"), axis=-1).reshape(-1, 2)
                 for layer in layers]
  arrays = {
      "x": graph.x, "step": graph.layer, "level": graph.layer,
      "inner": graph.operands > 0,
      "inners": np.bincount(graph.layer, weights=graph.operands > 0, minlength=steps),
      "edges": np.stack([graph.old, graph.new], axis=1),
      "size": size, "counts": numbers, "progress": reached,
      "candidate_step": candidate_step, "candidate_node": candidate_node,
      "candidate_slots": np.minimum(_joined(slots_of), MAX_SLOTS),
      "candidate_gap": np.minimum(candidate_step - graph.layer[candidate_node], MAX_GAP),
      "pairs": np.stack([pair_candidate, pair_new], axis=1), "linked": linked,
      "layer_pairs": np.concatenate(layer_pairs)}
  if whole_prefixes:
    arrays.update(_prefixes(graph, first, arrays))
  if operand_counts:
    arrays.update(_held(graph, direction, arrays))
  return {key: np.asarray(value, np.int32) for key, value in arrays.items()}


def candidates(operands: np.ndarray, done: np.ndarray, direction: str, gap: np.ndarray,
               window: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Which of the nodes before a step may still be connected to later nodes.

  Args:
    operands: (n,) numbers of operands.
    done: (n,) number of edges to later nodes that each node already has.
    direction: the order of growth.
    gap: (n,) number of layers from the node to the step.
    window: for operands_first, the largest gap of a candidate; 0: no limit. Long chains of nodes
      would otherwise have quadratically many candidates.

  Returns:
    (n,) slots: the number of operands that a node still needs; for operands_first, the number of
    users that it has. (n,) bool: whether the node is a candidate. (n,) open slots that must still
    be filled: the operands that a node needs; for operands_first, 1 for a node without users.
  """
  if direction == "users_first":
    slots = np.maximum(operands - done, 0)
    return slots, slots > 0, slots
  near = gap <= window if window else np.ones(len(done), bool)
  return done, near, (done == 0).astype(np.int64)


def _prefixes(graph: OrderedGraph, first: np.ndarray, arrays: Arrays) -> Arrays:
  """Each step's prefix as a separate graph."""
  steps = len(first) - 1
  rows = [np.arange(first[step]) for step in range(steps)]
  start = np.concatenate([[0], np.cumsum([len(prefix) for prefix in rows])])
  edges = []
  for step in range(steps):
    inside = graph.layer[graph.new] < step
    edges.append(np.stack([graph.old[inside], graph.new[inside]], axis=1) + start[step])
  return {"prefix_node": np.concatenate(rows),
          "prefix_step": np.repeat(np.arange(steps), [len(prefix) for prefix in rows]),
          "prefix_edges": np.concatenate(edges).reshape(-1, 2),
          "candidate_row": start[arrays["candidate_step"]] + arrays["candidate_node"]}


def _held(graph: OrderedGraph, direction: str, arrays: Arrays) -> Arrays:
  """The operands that candidates already have; see `unroll`."""
  node, step = arrays["candidate_node"], arrays["candidate_step"]
  order = np.argsort(graph.old, kind="stable")
  if direction != "users_first":
    order = order[:0]
  old, operand = graph.old[order], graph.new[order]
  start, stop = np.searchsorted(old, node), np.searchsorted(old, node, "right")
  candidate = np.repeat(np.arange(len(node)), stop - start)
  within = np.arange(len(candidate)) - np.repeat(np.cumsum(stop - start) - (stop - start),
                                                 stop - start)
  held = operand[start[candidate] + within]
  earlier = graph.layer[held] < step[candidate]
  return {"candidate_kind": graph.x[node, 0], "held_candidate": candidate[earlier],
          "held_x": graph.x[held[earlier]]}


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
  return np.concatenate(arrays).astype(np.int64) if arrays else np.zeros([0], np.int64)


# Index array -> the array that it indexes, so that `batch` can offset the indices of each graph.
_INDEXES = {"step": "size", "edges": "x", "candidate_step": "size", "candidate_node": "x",
            "layer_pairs": "x", "prefix_node": "x", "prefix_step": "size",
            "prefix_edges": "prefix_node", "candidate_row": "prefix_node",
            "held_candidate": "candidate_step"}


def batch(unrolled: Sequence[Arrays]) -> Arrays:
  """The steps of several graphs as one batch; indices are offset so that they stay valid.

  Adds graph (S,), the graph of each step, first_step (S,), the first step of that graph, and
  candidate_row where there are no prefixes.
  """
  offset = lambda key: np.concatenate(
      [[0], np.cumsum([len(member[key]) for member in unrolled])[:-1]])
  joined = {}
  for key in unrolled[0]:
    values = [member[key] for member in unrolled]
    if key == "pairs":
      starts = np.stack([offset("candidate_step"), offset("x")], axis=1)
      values = [value + start for value, start in zip(values, starts)]
    elif key in _INDEXES:
      values = [value + start for value, start in zip(values, offset(_INDEXES[key]))]
    joined[key] = np.concatenate(values).astype(np.int32)
  lengths = [len(member["size"]) for member in unrolled]
  joined["graph"] = np.repeat(np.arange(len(unrolled)), lengths).astype(np.int32)
  joined["first_step"] = np.repeat(offset("size"), lengths).astype(np.int32)
  if "candidate_row" not in joined:
    joined["candidate_row"] = joined["candidate_node"]
  return joined
