"""How a DAG grows, layer by layer: the steps that LayerDAG learns, as arrays.

A graph of L layers has L + 1 steps: step t makes layer t of the nodes of the layers before it, and
step L says that there is none. Two orders of growth:

  users_first     from the roots, which nobody consumes: layer = longest path from a root. A new
                  node is joined to users; an earlier one has room for more operands.
  operands_first  from the nodes without operands: layer = longest path from one. A new node is
                  joined to its operands.

Either way the number of operands of a node is known when it is made: it is part of its kind, see
`Kinds`. So in the first order the candidates for an edge are the earlier nodes that lack operands,
in the second all earlier nodes, and a new node takes exactly so many.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from tpugraphs_rank.data import segments
from tpugraphs_rank.synthesis.dags import dags as dags_lib

Arrays = dict[str, np.ndarray]

# Counts beyond these look the same to the networks.
MOST_SLOTS = 31
MOST_GAP = 15
MOST_COUNT = 127


@dataclasses.dataclass(frozen=True)
class Kinds:
  """The pairs of a node's first attribute and its number of operands that training has seen.

  A node is generated as a kind and its other attributes: only pairs that were seen can come out.

  Attributes:
    attribute: (K,) values of the first attribute.
    operands: (K,) numbers of distinct operands.
  """

  attribute: np.ndarray
  operands: np.ndarray

  @classmethod
  def of(cls, dags: dags_lib.Dags) -> "Kinds":
    """The kinds that occur in graphs, sorted."""
    pairs = np.unique(np.stack([dags.x[:, 0], dags.num_operands], axis=1), axis=0)
    return cls(pairs[:, 0].astype(np.int32), pairs[:, 1].astype(np.int32))

  def __len__(self) -> int:
    return len(self.attribute)

  def index(self, attribute: np.ndarray, operands: np.ndarray) -> np.ndarray:
    """The kinds of nodes; -1 for a pair that is none."""
    base = int(max(self.operands.max(initial=0), np.max(operands, initial=0))) + 1
    known = self.attribute.astype(np.int64) * base + self.operands
    asked = np.asarray(attribute, np.int64) * base + operands
    place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return np.where(known[place] == asked, place, -1).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Grown:
  """One graph in the order of its growth.

  Attributes:
    x: (n, F) int32: the node's kind, then its other attributes; -1 for a kind never seen.
    operands: (n,) numbers of distinct operands.
    layer: (n,) int32, rising.
    old, new: (m,) int32: edges from earlier to later nodes.
    order: (n,) the places of these nodes in the graph that they were taken from.
  """

  x: np.ndarray
  operands: np.ndarray
  layer: np.ndarray
  old: np.ndarray
  new: np.ndarray
  order: np.ndarray


def grow(dags: dags_lib.Dags, kinds: Kinds, direction: str) -> list[Grown]:
  """Each graph in the order of its growth."""
  operands = dags.num_operands
  kind = kinds.index(dags.x[:, 0], operands)
  grown = []
  for graph in range(len(dags)):
    nodes, edges = dags.nodes(graph), dags.edges(graph)
    count = nodes.stop - nodes.start
    if direction == "users_first":
      old, new, layer = edges[:, 0], edges[:, 1], dags.level[nodes]
    else:
      old, new, layer = edges[:, 1], edges[:, 0], segments.levels(edges, count)
    order = np.argsort(layer, kind="stable")
    place = np.empty(count, np.int32)
    place[order] = np.arange(count)
    x = np.concatenate([kind[nodes, None], dags.x[nodes, 1:]], axis=1)
    grown.append(Grown(x[order], operands[nodes][order], layer[order], place[old], place[new],
                       order))
  return grown


def unroll(graph: Grown, direction: str, whole_prefixes: bool = False,
           operand_counts: bool = False) -> Arrays:
  """The steps of a graph, as arrays of local numbers.

  Args:
    graph: the graph.
    direction: of its growth.
    whole_prefixes: also lay out each prefix as a graph of its own.
    operand_counts: also say which operands the candidates have already.

  Returns:
    With n nodes, m edges, S = L + 1 steps, c candidates (of all steps), p pairs:
      x (n, F); step (n,) the step that makes a node; edges (m, 2) [earlier, later].
      level (n,) its layer; inner (n,) whether it has operands. size (S,) nodes that a step makes, 0
      at the last one; inners (S,) how many of them have operands; counts (S, 4) before it: nodes,
      room in the last layer, room in all, layers.
      candidate_step, candidate_node, candidate_slots, candidate_gap (c,): the earlier nodes that
        may get an edge, see `candidates`.
      pairs (p, 2) [candidate, new node]; linked (p,) whether there is an edge.
      mates (q, 2): the pairs [i, j] of nodes of one layer, each with itself, too.
      With `whole_prefixes`: prefix_node, prefix_step (r,); prefix_edges (s, 2) rows of those;
        candidate_row (c,), which of the rows a candidate is.
      With `operand_counts`: candidate_kind (c,); held_candidate (h,), held_x (h, F): the operands
        that candidates have, by candidate; none where graphs grow from their operands, since there
        a node has all of them from the start.
  """
  count, steps = len(graph.x), int(graph.layer.max()) + 2
  size = np.bincount(graph.layer, minlength=steps)
  first = np.concatenate([[0], np.cumsum(size)])
  # For each node how many of its edges each layer brings.
  brought = np.zeros([count, steps], np.int32)
  np.add.at(brought, (graph.old, graph.layer[graph.new]), 1)
  made = np.cumsum(brought, axis=1)
  candidate_step, candidate_node, candidate_slots = [], [], []
  numbers = np.zeros([steps, 4], np.int32)
  for step in range(1, steps):
    before = slice(first[step])
    slots, is_candidate, room = candidates(
        graph.operands[before], made[before, step - 1], direction)
    node = np.flatnonzero(is_candidate)
    candidate_step.append(np.full(len(node), step))
    candidate_node.append(node)
    candidate_slots.append(slots[node])
    numbers[step] = first[step], room[first[step - 1]:].sum(), room.sum(), step
  candidate_step = _joined(candidate_step)
  candidate_node = _joined(candidate_node)
  pair_candidate = np.repeat(np.arange(len(candidate_step)), size[candidate_step])
  # The nodes of a candidate's step, one after the other.
  within = np.arange(len(pair_candidate)) - np.repeat(
      np.cumsum(size[candidate_step]) - size[candidate_step], size[candidate_step])
  pair_new = first[candidate_step[pair_candidate]] + within
  key = lambda old, new: old.astype(np.int64) * count + new
  linked = np.isin(key(candidate_node[pair_candidate], pair_new), key(graph.old, graph.new))
  layers = [np.arange(first[step], first[step + 1]) for step in range(steps - 1)]
  mates = [np.stack(np.meshgrid(layer, layer, indexing="ij"), axis=-1).reshape(-1, 2)
           for layer in layers]
  found = {
      "x": graph.x, "step": graph.layer, "level": graph.layer,
      "inner": graph.operands > 0,
      "inners": np.bincount(graph.layer, weights=graph.operands > 0, minlength=steps),
      "edges": np.stack([graph.old, graph.new], axis=1),
      "size": size, "counts": numbers,
      "candidate_step": candidate_step, "candidate_node": candidate_node,
      "candidate_slots": np.minimum(_joined(candidate_slots), MOST_SLOTS),
      "candidate_gap": np.minimum(candidate_step - graph.layer[candidate_node], MOST_GAP),
      "pairs": np.stack([pair_candidate, pair_new], axis=1), "linked": linked,
      "mates": np.concatenate(mates)}
  if whole_prefixes:
    found.update(_prefixes(graph, first, found))
  if operand_counts:
    found.update(_held(graph, direction, found))
  return {key: np.asarray(value, np.int32) for key, value in found.items()}


def candidates(operands: np.ndarray, done: np.ndarray, direction: str
               ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """What the nodes before a step may still be joined to.

  Args:
    operands: (n,) numbers of operands.
    done: (n,) edges to later nodes that each has already.
    direction: of growth.

  Returns:
    (n,) slots: how many operands a node lacks, or, growing from operands, how many users it has;
    (n,) bool: whether it is a candidate; (n,) room: what must still be filled, which is the
    operands it lacks, or 1 for a node without a user.
  """
  if direction == "users_first":
    slots = np.maximum(operands - done, 0)
    return slots, slots > 0, slots
  return done, np.ones(len(done), bool), (done == 0).astype(np.int64)


def _prefixes(graph: Grown, first: np.ndarray, found: Arrays) -> Arrays:
  """Each step's prefix as rows of its own."""
  steps = len(first) - 1
  rows = [np.arange(first[step]) for step in range(steps)]
  start = np.concatenate([[0], np.cumsum([len(part) for part in rows])])
  edges = []
  for step in range(steps):
    inside = graph.layer[graph.new] < step
    edges.append(np.stack([graph.old[inside], graph.new[inside]], axis=1) + start[step])
  return {"prefix_node": np.concatenate(rows),
          "prefix_step": np.repeat(np.arange(steps), [len(part) for part in rows]),
          "prefix_edges": np.concatenate(edges).reshape(-1, 2),
          "candidate_row": start[found["candidate_step"]] + found["candidate_node"]}


def _held(graph: Grown, direction: str, found: Arrays) -> Arrays:
  """What `unroll` says of the operands that candidates have."""
  node, step = found["candidate_node"], found["candidate_step"]
  order = np.argsort(graph.old, kind="stable")
  if direction != "users_first":
    order = order[:0]
  old, operand = graph.old[order], graph.new[order]
  start, stop = np.searchsorted(old, node), np.searchsorted(old, node, "right")
  candidate = np.repeat(np.arange(len(node)), stop - start)
  within = np.arange(len(candidate)) - np.repeat(np.cumsum(stop - start) - (stop - start),
                                                 stop - start)
  mine = operand[start[candidate] + within]
  known = graph.layer[mine] < step[candidate]
  return {"candidate_kind": graph.x[node, 0], "held_candidate": candidate[known],
          "held_x": graph.x[mine[known]]}


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
  return np.concatenate(parts).astype(np.int64) if parts else np.zeros([0], np.int64)


# What the numbers in each array count, so that graphs can stand one after the other in a batch.
_COUNTED_IN = {"step": "size", "edges": "x", "candidate_step": "size", "candidate_node": "x",
               "mates": "x", "prefix_node": "x", "prefix_step": "size",
               "prefix_edges": "prefix_node", "candidate_row": "prefix_node",
               "held_candidate": "candidate_step"}


def batch(unrolled: Sequence[Arrays]) -> Arrays:
  """The steps of several graphs as one batch: numbers of nodes, steps, ... count through.

  Adds graph (S,), the graph of each step, first_step (S,), the first step of that graph, and
  candidate_row where prefixes are not laid out.
  """
  offset = lambda key: np.concatenate(
      [[0], np.cumsum([len(member[key]) for member in unrolled])[:-1]])
  joined = {}
  for key in unrolled[0]:
    parts = [member[key] for member in unrolled]
    if key == "pairs":
      starts = np.stack([offset("candidate_step"), offset("x")], axis=1)
      parts = [part + start for part, start in zip(parts, starts)]
    elif key in _COUNTED_IN:
      parts = [part + start for part, start in zip(parts, offset(_COUNTED_IN[key]))]
    joined[key] = np.concatenate(parts).astype(np.int32)
  lengths = [len(member["size"]) for member in unrolled]
  joined["graph"] = np.repeat(np.arange(len(unrolled)), lengths).astype(np.int32)
  joined["first_step"] = np.repeat(offset("size"), lengths).astype(np.int32)
  if "candidate_row" not in joined:
    joined["candidate_row"] = joined["candidate_node"]
  return joined
