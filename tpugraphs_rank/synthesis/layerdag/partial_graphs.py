"""The graphs of a batch while they grow: plain arrays, no networks."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from tpugraphs_rank.synthesis.layerdag import generator as generator_lib
from tpugraphs_rank.synthesis.layerdag import growth


@dataclasses.dataclass(frozen=True)
class Drawn:
  """One graph.

  Attributes:
    edges: (m, 2) [consumer, producer].
    x: (n, F) attributes, as in the training graphs.
    cut: nodes that the root does not need, which were left out.
  """

  edges: np.ndarray
  x: np.ndarray
  cut: int = 0


class Growing:
  """All nodes so far are rows, layer by layer, of all graphs in turn.

  Attributes:
    active: (S,) the graphs that still grow, by their places in the batch.
    finished: for each place its graph; None while it grows, and for good where it was given up.
    layer: the number of the next layer.
    slots: (R,) see `growth.candidates`.
    states: for each module the states [R, h] of the rows, after all rounds of its encoder.
    rounds: for each module those before each round.
  """

  def __init__(self, asked: np.ndarray, generator: generator_lib.Generator):
    """Empty graphs; `asked` (B, T) are their conditions."""
    self._kinds = generator.facts.kinds
    self._counts_operands = generator.config.network.operand_counts
    self._direction = generator.config.data.direction
    encode = generator.facts.conditions.encoded
    self._asked, self._open = encode(asked), encode(np.full_like(asked, np.nan))
    self.active = np.arange(len(asked))
    self.finished: list[Drawn | None] = [None] * len(asked)
    self.layer = 0
    self._x = np.zeros([0, len(generator.facts.marginals)], np.int32)
    self._graph = np.zeros([0], np.int64)
    self._level = np.zeros([0], np.int64)
    self._done = np.zeros([0], np.int64)  # Edges to later nodes.
    self._edges = np.zeros([0, 2], np.int64)  # [earlier row, later row].
    nothing = tf.zeros([0, generator.config.network.width])
    self.states = {name: nothing for name in generator.modules}
    self.rounds = {name: [nothing] * generator.config.network.encoder_layers
                   for name in generator.modules}
    self._look()

  def _look(self) -> None:
    """What the rows lack, now, and which of the active graphs each belongs to."""
    self.slots, self._is_candidate, self._room = growth.candidates(
        self._kinds.operands[self._x[:, 0]], self._done, self._direction)
    self._step = np.searchsorted(self.active, self._graph)

  def _sum(self, values: np.ndarray) -> np.ndarray:
    return np.bincount(self._step, weights=values, minlength=len(self.active)).astype(np.int64)

  def node_counts(self) -> np.ndarray:
    """(S,) nodes of each active graph."""
    return self._sum(np.ones(len(self._step)))

  def room(self) -> tuple[np.ndarray, np.ndarray]:
    """(S,) room in the last layer, and in all."""
    return self._sum(self._room * (self._level == self.layer - 1)), self._sum(self._room)

  def widest(self) -> np.ndarray:
    """(S,) the most that any one node lacks."""
    most = np.zeros(len(self.active), np.int64)
    np.maximum.at(most, self._step, self._room)
    return most

  def arrays(self, with_open: bool) -> dict[str, np.ndarray]:
    """The next step of each active graph, as in `growth.batch`, and which step each row is of.

    `with_open`: also the conditions left open, their names starting with `open_`.
    """
    rows = np.flatnonzero(self._is_candidate)
    rows = rows[np.argsort(self._step[rows], kind="stable")]
    front, room = self.room()
    found = {
        "counts": np.stack([self.node_counts(), front, room,
                            np.full(len(self.active), self.layer)], axis=1),
        "row_step": self._step, "candidate_row": rows, "candidate_step": self._step[rows],
        "candidate_slots": np.minimum(self.slots[rows], growth.MOST_SLOTS),
        "candidate_gap": np.minimum(self.layer - self._level[rows], growth.MOST_GAP)}
    if self._counts_operands:
      place = np.full(len(self._x), -1)
      place[rows] = np.arange(len(rows))
      held = self._edges[place[self._edges[:, 0]] >= 0]
      if self._direction != "users_first":
        held = held[:0]
      found.update({"candidate_kind": self._x[rows, 0], "held_candidate": place[held[:, 0]],
                    "held_x": self._x[held[:, 1]]})
    found = {key: value.astype(np.int32) for key, value in found.items()}
    found.update({key: value[self.active] for key, value in self._asked.items()})
    if with_open:
      found.update({f"open_{key}": value[self.active] for key, value in self._open.items()})
    return found

  def rows(self) -> dict[str, np.ndarray]:
    """All rows as one graph, for an encoder that sees whole prefixes."""
    return {"x": self._x, "level": self._level.astype(np.int32),
            "edges": self._edges.astype(np.int32)}

  def close(self, size: np.ndarray) -> None:
    """Ends graphs: those whose next layer has 0 nodes are complete, with -1 they are given up."""
    for step in np.flatnonzero(size == 0):
      self.finished[self.active[step]] = self._graph_of(self.active[step])
    self._keep(size > 0)

  def new_rows(self, step: np.ndarray, x: np.ndarray, joined: list[np.ndarray | None]
               ) -> dict[str, np.ndarray]:
    """A layer that is to be added, for the encoders: see `add`."""
    return {"x": x, "level": np.full(len(x), self.layer, np.int32), "layer": step,
            "edges": _edges_of(joined).astype(np.int32),
            "steps": np.arange(len(joined), dtype=np.int32)}

  def add(self, step: np.ndarray, x: np.ndarray, joined: list[np.ndarray | None],
          encoded: Mapping[str, Any] | None) -> None:
    """Adds a layer.

    Args:
      step: (M,) which of the active graphs each new node belongs to.
      x: (M, F) their kinds and other attributes.
      joined: for each active graph its new edges (m, 2) [row, new node]; None: it is given up.
      encoded: for each module the states of the new nodes before and after each round.
    """
    edges = _edges_of(joined)
    edges[:, 1] += len(self._x)
    self._done += np.bincount(edges[:, 0], minlength=len(self._x))
    self._edges = np.concatenate([self._edges, edges])
    self._x = np.concatenate([self._x, x])
    self._graph = np.concatenate([self._graph, self.active[step]])
    self._level = np.concatenate([self._level, np.full(len(x), self.layer)])
    self._done = np.concatenate([self._done, np.zeros(len(x), np.int64)])
    for name, states in (encoded or {}).items():
      self.states[name] = tf.concat([self.states[name], states[-1]], axis=0)
      self.rounds[name] = [tf.concat([known, more], axis=0)
                           for known, more in zip(self.rounds[name], states)]
    self.layer += 1
    self._keep(np.array([found is not None for found in joined]))

  def _keep(self, kept: np.ndarray) -> None:
    """Drops the other graphs with all their rows."""
    self.active = self.active[kept]
    if not kept.all():
      stays = np.isin(self._graph, self.active)
      rows = np.flatnonzero(stays)
      number = np.cumsum(stays) - 1
      self._edges = number[self._edges[stays[self._edges[:, 1]]]]
      self._x, self._graph, self._level, self._done = (
          values[rows] for values in (self._x, self._graph, self._level, self._done))
      take = lambda values: tf.gather(values, rows) if len(values) else values
      self.states = {name: take(values) for name, values in self.states.items()}
      self.rounds = {name: list(map(take, values)) for name, values in self.rounds.items()}
    self._look()

  def _graph_of(self, place: int) -> Drawn:
    mine = self._graph == place
    number = np.cumsum(mine) - 1
    edges = number[self._edges[mine[self._edges[:, 1]]]]
    rows = self._x[mine]
    x = np.concatenate([self._kinds.attribute[rows[:, :1]], rows[:, 1:]], axis=1)
    if self._direction == "users_first":
      return Drawn(edges, x)
    return _needed(edges[:, ::-1], x)


def _edges_of(joined: list[np.ndarray | None]) -> np.ndarray:
  """(m, 2) all new edges."""
  return np.concatenate([np.zeros([0, 2], np.int64),
                         *(found for found in joined if found is not None)])


def _needed(edges: np.ndarray, x: np.ndarray) -> Drawn:
  """The last node and what it is computed from; edges [consumer, producer], producers first."""
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
  return Drawn(number[edges[stays[edges[:, 0]]]], x[stays], int((~stays).sum()))


def new_layer(size: np.ndarray, inners: np.ndarray) -> dict[str, np.ndarray]:
  """The new nodes of each step, as in `growth`; their attributes are not known yet.

  Args:
    size: (S,) nodes of each step's layer.
    inners: (S,) how many of them have operands: nodes have no order, so these are the first ones.
  """
  step = np.repeat(np.arange(len(size)), size)
  within = np.arange(len(step)) - (np.cumsum(size) - size)[step]
  return {"size": size.astype(np.int32), "step": step.astype(np.int32),
          "inner": (within < inners[step]).astype(np.int32), "mates": all_pairs(size, size)}


def all_pairs(left: np.ndarray, right: np.ndarray) -> np.ndarray:
  """(p, 2) int32: within each step each of `left` (S,) things with each of `right` (S,)."""
  step = np.repeat(np.arange(len(left)), left)
  first = np.repeat(np.arange(len(step)), right[step])
  start = np.cumsum(right[step]) - right[step]
  second = np.arange(len(first)) - start[first] + (np.cumsum(right) - right)[step[first]]
  return np.stack([first, second], axis=1).astype(np.int32)
