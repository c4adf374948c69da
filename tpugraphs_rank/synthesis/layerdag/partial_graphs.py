"""Batches of graphs while they are generated: plain arrays, no networks."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from tpugraphs_rank.synthesis.layerdag import generator as generator_lib
from tpugraphs_rank.synthesis.layerdag import growth


@dataclasses.dataclass(frozen=True)
class GeneratedGraph:
  """One generated graph.

  Attributes:
    edges: (m, 2) [consumer, producer].
    x: (n, F) attributes, as in the training graphs.
    cut: number of removed nodes, which the root did not depend on.
  """

  edges: np.ndarray
  x: np.ndarray
  cut: int = 0


class PartialGraphs:
  """The nodes generated so far, as rows: layer by layer, and graph by graph within a layer.

  Attributes:
    active: (S,) indices in the batch of the graphs that are not complete.
    finished: for each index its graph; None while it is active, or after it was abandoned.
    layer: number of the next layer.
    slots: (R,) see `growth.candidates`.
    candidates: (c,) the rows that may still get edges, graph by graph.
    states: for each causal network the states [c, h] of the rows in `candidates`, but in the order
      of the rows, after all rounds of its encoder. Other rows are never read again.
    rounds: for each causal network the states of the same rows before each round.
    prefix: for each causal network the sums [S, h] of the states of all nodes of a graph.
  """

  def __init__(self, requested: np.ndarray, generator: generator_lib.Generator):
    """Starts empty graphs with the conditions `requested` (B, T)."""
    self._kinds = generator.facts.kinds
    self._counts_operands = generator.config.network.operand_counts
    self._direction = generator.config.data.direction
    self._window = generator.facts.window
    self._single_root = generator.facts.single_root
    encode = generator.facts.conditions.encode
    self._conditions = encode(requested)
    self._unspecified = encode(np.full_like(requested, np.nan))
    self.active = np.arange(len(requested))
    self.finished: list[GeneratedGraph | None] = [None] * len(requested)
    self.layer = 0
    self._x = np.zeros([0, len(generator.facts.marginals)], np.int32)
    self._graph = np.zeros([0], np.int64)
    self._level = np.zeros([0], np.int64)
    self._done = np.zeros([0], np.int64)  # Edges to later nodes.
    self._edges = np.zeros([0, 2], np.int64)  # [earlier row, later row].
    self._is_causal = generator.config.network.encoder == "causal"
    width = generator.config.network.width
    nothing = np.zeros([0, width], np.float32)
    self.states = {name: nothing for name in generator.modules}
    self.rounds = {name: [nothing] * generator.config.network.encoder_layers
                   for name in generator.modules}
    self.prefix = {name: np.zeros([len(requested), width], np.float32)
                   for name in generator.modules}
    self._update()

  def _update(self) -> None:
    """Updates the open slots of the rows, and the active graph that each row belongs to."""
    self.slots, is_candidate, self._room = growth.candidates(
        self._kinds.operands[self._x[:, 0]], self._done, self._direction,
        self.layer - self._level, self._window)
    self._step = np.searchsorted(self.active, self._graph)
    rows = np.flatnonzero(is_candidate)
    self.candidates = rows[np.argsort(self._step[rows], kind="stable")]
    # Where the encoders find a row: among the candidates, or among all rows.
    self._place = np.cumsum(is_candidate) - 1 if self._is_causal else np.arange(len(self._x))

  def _sum(self, values: np.ndarray) -> np.ndarray:
    return np.bincount(self._step, weights=values, minlength=len(self.active)).astype(np.int64)

  @property
  def targets(self) -> np.ndarray:
    """(B,) requested numbers of nodes of all graphs of the batch, 0 where none is requested."""
    return self._conditions["target"]

  def node_counts(self) -> np.ndarray:
    """(S,) number of nodes of each active graph."""
    return self._sum(np.ones(len(self._step)))

  def open_slots(self) -> tuple[np.ndarray, np.ndarray]:
    """(S,) open slots in the last layer, and in all layers."""
    return self._sum(self._room * (self._level == self.layer - 1)), self._sum(self._room)

  def most_open_slots(self) -> np.ndarray:
    """(S,) the largest number of open slots of a single node."""
    most = np.zeros(len(self.active), np.int64)
    np.maximum.at(most, self._step, self._room)
    return most

  def most_users(self) -> np.ndarray:
    """(S,) users that the nodes of the last layer may have in total."""
    return self._sum(self._kinds.most_users[self._x[:, 0]] * (self._level == self.layer - 1))

  def kinds_of(self, rows: np.ndarray) -> np.ndarray:
    """The kinds of rows."""
    return self._x[rows, 0]

  def spare_users(self, rows: np.ndarray) -> np.ndarray:
    """The most users that rows may still get."""
    return np.maximum(self._kinds.most_users[self._x[rows, 0]] - self._done[rows], 0)

  def arrays(self, with_unspecified: bool) -> dict[str, np.ndarray]:
    """The next step of each active graph, as in `growth.batch`.

    `candidate_row` refers to `states`, or without a causal encoder to all rows. With
    `with_unspecified`, also the encoding of unspecified conditions, with the prefix `open_`.
    """
    rows = self.candidates
    front, room = self.open_slots()
    operands = self._kinds.operands[self._x[:, 0]]
    forward = self._direction == "users_first"
    roots = self._sum(self._level == 0) if forward else room
    arrays = {
        "counts": np.stack([self.node_counts(), front, room,
                            np.full(len(self.active), self.layer)], axis=1),
        "progress": np.stack([
            self.node_counts(), np.full(len(self.active), self.layer), self._sum(operands),
            self._sum(operands == 0), roots], axis=1),
        "candidate_row": self._place[rows], "candidate_step": self._step[rows],
        "candidate_slots": np.minimum(self.slots[rows], growth.MAX_SLOTS),
        "candidate_gap": np.minimum(self.layer - self._level[rows], growth.MAX_GAP)}
    if self._counts_operands:
      candidate = np.full(len(self._x), -1)
      candidate[rows] = np.arange(len(rows))
      held = self._edges[candidate[self._edges[:, 0]] >= 0]
      if self._direction != "users_first":
        held = held[:0]
      arrays.update({"candidate_kind": self._x[rows, 0], "held_candidate": candidate[held[:, 0]],
                     "held_x": self._x[held[:, 1]]})
    arrays = {key: value.astype(np.int32) for key, value in arrays.items()}
    arrays.update({key: value[self.active] for key, value in self._conditions.items()})
    if with_unspecified:
      arrays.update(
          {f"open_{key}": value[self.active] for key, value in self._unspecified.items()})
    return arrays

  def rows(self) -> dict[str, np.ndarray]:
    """All rows as one graph, for an encoder that processes whole prefixes."""
    return {"x": self._x, "level": self._level.astype(np.int32),
            "edges": self._edges.astype(np.int32), "row_step": self._step.astype(np.int32),
            "steps": np.arange(len(self.active), dtype=np.int32)}

  def close(self, size: np.ndarray) -> None:
    """Ends graphs by the size of their next layer: 0 means complete, -1 means abandoned."""
    for step in np.flatnonzero(size == 0):
      self.finished[self.active[step]] = self._graph_of(self.active[step])
    self._keep(size > 0, np.sort(self.candidates))

  def new_rows(self, step: np.ndarray, x: np.ndarray, joined: list[np.ndarray | None]
               ) -> dict[str, np.ndarray]:
    """A layer that is to be added, as input of the encoders; see `add`."""
    edges = _edges_of(joined)
    edges[:, 0] = self._place[edges[:, 0]]
    return {"x": x, "level": np.full(len(x), self.layer, np.int32), "layer": step,
            "edges": edges.astype(np.int32),
            "steps": np.arange(len(joined), dtype=np.int32)}

  def add(self, step: np.ndarray, x: np.ndarray, joined: list[np.ndarray | None],
          encoded: Mapping[str, Any] | None) -> None:
    """Adds a layer.

    Args:
      step: (M,) active graph of each new node.
      x: (M, F) kinds and other attributes of the new nodes.
      joined: for each active graph its new edges (m, 2) [row, new node]; None: abandon the graph.
      encoded: for each causal network the states of the new nodes before and after each round, and
        their sum [S, h] over each graph; None for others.
    """
    edges = _edges_of(joined)
    edges[:, 1] += len(self._x)
    self._done += np.bincount(edges[:, 0], minlength=len(self._x))
    self._edges = np.concatenate([self._edges, edges])
    self._x = np.concatenate([self._x, x])
    self._graph = np.concatenate([self._graph, self.active[step]])
    self._level = np.concatenate([self._level, np.full(len(x), self.layer)])
    self._done = np.concatenate([self._done, np.zeros(len(x), np.int64)])
    known = np.sort(self.candidates)
    for name, (states, total) in (encoded or {}).items():
      new = [np.asarray(values) for values in states]
      self.states[name] = np.concatenate([self.states[name], new[-1]])
      self.rounds[name] = [np.concatenate(pair) for pair in zip(self.rounds[name], new)]
      self.prefix[name] += np.asarray(total)
    self.layer += 1
    self._keep(np.array([edges is not None for edges in joined]),
               np.concatenate([known, np.arange(len(self._x) - len(x), len(self._x))]))

  def _keep(self, kept: np.ndarray, known: np.ndarray) -> None:
    """Drops the other graphs and all their rows, and the states that are never read again.

    `known` are the rows of the states, ascending.
    """
    self.active = self.active[kept]
    if not kept.all():
      stays = np.isin(self._graph, self.active)
      rows = np.flatnonzero(stays)
      self._edges = (np.cumsum(stays) - 1)[self._edges[stays[self._edges[:, 1]]]]
      self._x, self._graph = self._x[rows], self._graph[rows]
      self._level, self._done = self._level[rows], self._done[rows]
      self.prefix = {name: values[kept] for name, values in self.prefix.items()}
    else:
      rows = np.arange(len(self._x))
    self._update()
    if self._is_causal:
      places = np.searchsorted(known, rows[np.sort(self.candidates)])
      self.states = {name: values[places] for name, values in self.states.items()}
      self.rounds = {name: [values[places] for values in of_rounds]
                     for name, of_rounds in self.rounds.items()}

  def _graph_of(self, index: int) -> GeneratedGraph:
    mine = self._graph == index
    number = np.cumsum(mine) - 1
    edges = number[self._edges[mine[self._edges[:, 1]]]]
    rows = self._x[mine]
    x = np.concatenate([self._kinds.attribute[rows[:, :1]], rows[:, 1:]], axis=1)
    if self._direction == "users_first":
      return GeneratedGraph(edges, x)
    return _needed(edges[:, ::-1], x) if self._single_root else GeneratedGraph(edges[:, ::-1], x)


def _edges_of(joined: list[np.ndarray | None]) -> np.ndarray:
  """(m, 2) all new edges as one array."""
  return np.concatenate([np.zeros([0, 2], np.int64),
                         *(edges for edges in joined if edges is not None)])


def _needed(edges: np.ndarray, x: np.ndarray) -> GeneratedGraph:
  """The last node and all nodes that it depends on; edges [consumer, producer]."""
  operands: dict[int, list[int]] = {}
  for consumer, producer in edges.tolist():
    operands.setdefault(consumer, []).append(producer)
  kept, waiting = set(), [len(x) - 1]
  while waiting:
    node = waiting.pop()
    if node not in kept:
      kept.add(node)
      waiting.extend(operands.get(node, ()))
  stays = np.isin(np.arange(len(x)), list(kept))
  number = np.cumsum(stays) - 1
  return GeneratedGraph(number[edges[stays[edges[:, 0]]]], x[stays], int((~stays).sum()))


def new_layer(size: np.ndarray, inners: np.ndarray) -> dict[str, np.ndarray]:
  """Arrays of the new nodes of each step, as in `growth`, before their attributes are generated.

  Args:
    size: (S,) nodes of each step's layer.
    inners: (S,) nodes with operands; the nodes have no order, so the first ones get operands.
  """
  step = np.repeat(np.arange(len(size)), size)
  within = np.arange(len(step)) - (np.cumsum(size) - size)[step]
  return {"size": size.astype(np.int32), "step": step.astype(np.int32),
          "inner": (within < inners[step]).astype(np.int32), "layer_pairs": all_pairs(size, size)}


def all_pairs(left: np.ndarray, right: np.ndarray) -> np.ndarray:
  """(p, 2) int32 all pairs, within each step, of `left` (S,) and `right` (S,) items."""
  step = np.repeat(np.arange(len(left)), left)
  first = np.repeat(np.arange(len(step)), right[step])
  start = np.cumsum(right[step]) - right[step]
  second = np.arange(len(first)) - start[first] + (np.cumsum(right) - right)[step[first]]
  return np.stack([first, second], axis=1).astype(np.int32)
