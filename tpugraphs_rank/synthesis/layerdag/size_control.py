"""Keeps generated graphs near their requested sizes: which layers can still end a graph in time.

A graph that grows from its roots is complete exactly when no operand is missing, so whether it ends
at the requested size is decided long before its end. The networks learn when to widen and when to
end, but over hundreds of layers small errors add up: a graph may run out of open slots early, or
open more than the remaining nodes can fill. The rules below exclude only those choices after which
the graph could no longer end within its bounds:

  - No layer ends the graph below the lower bound.
  - A node never has more operands than nodes may still follow.
  - No node needs more operands than nodes may still follow; `decoding.to_users` joins enough edges.
  - The open slots never exceed what the nodes that may still follow can fill, at the mean number of
    users per node of the training graphs.

Shapes: S graphs that are not complete.
"""

from collections.abc import Sequence
import dataclasses
import math

import numpy as np

from tpugraphs_rank.synthesis.layerdag import growth

# Sampling may go this much beyond a requested size and the deepest training graph.
_SLACK = 1.5
# Graphs of fewer nodes end near the requested size without limits, which would distort them: one
# node is a large part of such a graph.
_SMALLEST = 30
# Of products such as 1.1 * 50, which should be whole numbers.
_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class State:
  """Where graphs are before their next layer; all arrays have shape (S,).

  Attributes:
    count: nodes so far.
    front: open slots of the nodes in the last layer.
    room: open slots of all nodes.
    most_open: the largest number of open slots of a single node.
    lower: the smallest number of nodes with which the graph may end.
    upper: the largest number of nodes.
    users: users that the nodes of the last layer may have in total; see `growth.Kinds`.
  """

  count: np.ndarray
  front: np.ndarray
  room: np.ndarray
  most_open: np.ndarray
  lower: np.ndarray
  upper: np.ndarray
  users: np.ndarray

  @property
  def budget(self) -> np.ndarray:
    """(S,) nodes that may still follow."""
    return self.upper - self.count


@dataclasses.dataclass(frozen=True)
class Limits:
  """The limits of graphs.

  Attributes:
    lower: (B,) the smallest number of nodes with which a graph may end.
    upper: (B,) the largest number of nodes.
    max_layers: the largest number of layers.
  """

  lower: np.ndarray
  upper: np.ndarray
  max_layers: int

  @classmethod
  def of(cls, target: np.ndarray, tolerance: float | None, max_nodes: int | None,
         max_layers: int | None, largest: int, deepest: int) -> "Limits":
    """The limits for requested sizes.

    Args:
      target: (B,) requested numbers of nodes, 0 where none is requested.
      tolerance: the largest relative difference from a request of 30 nodes or more; None: no such
        limit.
      max_nodes: a limit for all graphs; None: half more than requested, or else `largest`.
      max_layers: the largest number of layers; None: half more than `deepest`, and more where more
        nodes are requested than in training.
      largest: nodes of the largest training graph.
      deepest: layers of the deepest training graph.
    """
    lower = np.zeros(len(target), np.int64)
    upper = np.full(len(target), max_nodes or largest, np.int64)
    if max_nodes is None:
      upper = np.maximum(upper, np.ceil(_SLACK * target).astype(np.int64))
    if tolerance is not None:
      requested = target >= _SMALLEST
      # Rounded inwards, so that the difference never exceeds the tolerance.
      lower[requested] = np.ceil((1.0 - tolerance) * target[requested] - _ROUNDING)
      # Graphs cannot always end exactly, so two more nodes are always allowed.
      highest = np.maximum(np.floor((1.0 + tolerance) * target + _ROUNDING), target + 2).astype(
          np.int64)
      upper[requested] = np.minimum(upper, highest)[requested]
    if max_layers is None:
      larger = max(1.0, float(target.max(initial=0)) / max(largest, 1))
      max_layers = math.ceil(_SLACK * deepest * larger)
    return cls(np.minimum(lower, upper), upper, max_layers)

  def take(self, rows: Sequence[int]) -> "Limits":
    """The limits of some of the graphs."""
    return dataclasses.replace(self, lower=self.lower[rows], upper=self.upper[rows])


def allowed_sizes(state: State, number: np.ndarray, first: bool) -> np.ndarray:
  """(S, W) bool: the numbers of nodes that the next layer may have, for growth from the roots.

  Args:
    state: the graphs.
    number: (W,) numbers of nodes.
    first: whether it is the first layer.
  """
  size = number[None]
  budget = state.budget[:, None]
  open_slots = state.room[:, None]
  fits = (size > 0) & (size <= budget)
  if first:
    return fits
  fits &= size <= state.front[:, None]
  may_end = (size >= state.most_open[:, None]) & (
      state.count[:, None] + size >= state.lower[:, None])
  may_continue = size < budget
  return np.where(open_slots > 0, fits & (may_end | may_continue), size == 0)


def allowed_sizes_of_any_end(state: State, number: np.ndarray, first: bool) -> np.ndarray:
  """The same for graphs that may end at any layer: other orders of growth, or no constraints."""
  size = number[None]
  grows = (size > 0) & (size <= state.budget[:, None])
  if first:
    return grows
  # Each new node uses a node of the last layer.
  grows &= size <= np.maximum(state.users, 1)[:, None]
  may_end = state.count >= np.minimum(state.lower, state.upper)
  return np.where(size == 0, (may_end | (state.room == 0))[:, None],
                  grows & (state.room[:, None] > 0))


def allowed_inners(state: State, size: np.ndarray, number: np.ndarray, degree: float,
                   operands: float) -> np.ndarray:
  """(S, W) bool: how many of the new nodes may have operands.

  Args:
    state: the graphs, before the layer.
    size: (S,) nodes of the layer.
    number: (W,) numbers of nodes with operands.
    degree: mean number of users of a node in training.
    operands: mean number of operands, among training nodes with operands.
  """
  inners = number[None]
  may_end = (size >= state.most_open) & (state.count + size >= state.lower)
  may_continue = size < state.budget
  # The nodes that may follow fill `degree` slots each, so that many slots may be open in total.
  most = np.maximum((state.budget * degree - state.room) / operands, 1.0)
  return (inners <= size[:, None]) & np.where(
      inners == 0, may_end[:, None], may_continue[:, None] & (inners <= most[:, None]))


def mean_operands(kinds: growth.Kinds, frequency: np.ndarray) -> float:
  """Mean number of operands among the nodes that have any; at least 1.

  Args:
    kinds: the kinds of nodes.
    frequency: (K,) relative frequency of each kind.
  """
  weight = frequency * (kinds.operands > 0)
  return float(max((weight * kinds.operands).sum() / max(weight.sum(), 1e-12), 1.0))
