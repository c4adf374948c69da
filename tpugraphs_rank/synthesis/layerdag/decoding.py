"""Chooses the edges of a new layer from the diffusion's scores, so that the graph stays valid.

A pair's priority is the log odds of an edge plus logistic noise: it is above 0 with the probability
of the edge. Without constraints all pairs with positive priority are joined. With constraints,
pairs are joined in order of priority, as far as the numbers of operands allow. No node gets more
users than nodes of its kind have in training, unless the numbers of operands require it.
"""

from typing import NamedTuple

import numpy as np


class Layer(NamedTuple):
  """All pairs of a candidate and a new node of one graph's new layer: c candidates, s new nodes.

  Attributes:
    priority: (c, s) priority of each pair.
    front: (c,) bool; the candidate belongs to the previous layer.
    slots: (c,) number of operands that a candidate still needs.
    operands: (s,) numbers of operands of the new nodes.
    most_users: the most users that may still be joined to a node: for `to_users` (s,) to new nodes,
      for `to_operands` (c,) to candidates.
    again: (s, U) for `to_users`, added to the priority of another user of a new node that has 1, 2,
      ... users; the last value also applies to more. See `calibration`.
  """

  priority: np.ndarray
  front: np.ndarray
  slots: np.ndarray
  operands: np.ndarray
  most_users: np.ndarray
  again: np.ndarray


def free(layer: Layer) -> np.ndarray:
  """(c, s) bool edges without constraints; each new node gets at least its likeliest edge."""
  joined = layer.priority > 0
  unjoined = np.flatnonzero(~joined.any(axis=0))
  joined[layer.priority[:, unjoined].argmax(axis=0), unjoined] = True
  return joined


def to_users(layer: Layer, remaining: int) -> np.ndarray | None:
  """(c, s) bool edges where each new node has a user in the previous layer, within the slots.

  No candidate keeps more slots than nodes may still follow, so that later layers can fill them.

  Args:
    layer: the pairs.
    remaining: the number of nodes that may follow this layer. If no new node has operands, the
      layer is the last one, and none follows.

  Returns:
    The edges, or None where no choice is valid.
  """
  count, new = layer.priority.shape
  joined = np.zeros([count, new], bool)
  left = layer.slots.copy()
  below = remaining if layer.operands.any() else 0
  if left[layer.front].sum() < new or (left - new > below).any():
    return None
  order = np.argsort(-layer.priority, axis=None, kind="stable")
  unjoined = np.ones(new, bool)
  # All pairs with the previous layer exist and its slots suffice, so every new node gets a user.
  for place in order:
    candidate, node = divmod(int(place), new)
    if unjoined[node] and layer.front[candidate] and left[candidate]:
      joined[candidate, node], unjoined[node] = True, False
      left[candidate] -= 1
  spare_users = layer.most_users - 1
  users, most_again = np.zeros(new, np.int64), layer.again.shape[1] - 1
  for place in order:
    candidate, node = divmod(int(place), new)
    priority = layer.priority[candidate, node] + layer.again[node, min(users[node], most_again)]
    likely = priority > 0 and spare_users[node] > 0
    if (likely or left[candidate] > below) and left[candidate] and not joined[candidate, node]:
      joined[candidate, node] = True
      left[candidate] -= 1
      spare_users[node] -= 1
      users[node] += 1
  # Candidates visited early may have skipped pairs that later layers cannot supply after all.
  for candidate in np.flatnonzero(left > below):
    spare = np.flatnonzero(~joined[candidate])
    best = spare[np.argsort(-layer.priority[candidate, spare], kind="stable")]
    joined[candidate, best[:left[candidate] - below]] = True
  return joined


def to_operands(layer: Layer) -> np.ndarray | None:
  """(c, s) bool edges where each new node has all its operands, one in the previous layer.

  Returns:
    The edges, or None where there are too few candidates.
  """
  count, new = layer.priority.shape
  if not layer.front.any() or (layer.operands > count).any() or (layer.operands < 1).any():
    return None
  joined = np.zeros([count, new], bool)
  nodes = np.arange(new)
  joined[np.where(layer.front[:, None], layer.priority, -np.inf).argmax(axis=0), nodes] = True
  rest = np.where(joined, -np.inf, layer.priority)
  rank = np.argsort(np.argsort(-rest, axis=0, kind="stable"), axis=0)
  joined |= rank < layer.operands - 1
  return joined if (joined.sum(axis=1) <= layer.most_users).all() else _limited(layer)


def _limited(layer: Layer) -> np.ndarray:
  """`to_operands` where some candidates would get too many users."""
  count, new = layer.priority.shape
  joined = np.zeros([count, new], bool)
  spare, lacks = layer.most_users.copy(), layer.operands.copy()
  in_order = [divmod(int(place), new) for place in np.argsort(
      -layer.priority, axis=None, kind="stable")]
  # First one operand in the previous layer for each new node, then the others. Last, nodes that
  # lack an operand because all users are taken get one all the same.
  for only_front, is_limited in ((True, True), (True, False), (False, True), (False, False)):
    for candidate, node in in_order:
      if only_front and (joined[:, node].any() or not layer.front[candidate]):
        continue
      if lacks[node] and not joined[candidate, node] and (spare[candidate] > 0 or not is_limited):
        joined[candidate, node] = True
        spare[candidate] -= 1
        lacks[node] -= 1
  return joined


def with_users(x: np.ndarray, likely: np.ndarray, step: np.ndarray, continues: np.ndarray,
               most_users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """The new nodes, with at least one that may have users in each layer of a graph that continues.

  In a layer without any, the likeliest node to be of such a kind gets one, by its probabilities.

  Args:
    x: (M, F) kinds and other attributes of the new nodes.
    likely: (M, K) probabilities of their kinds.
    step: (M,) graph of each node, ascending.
    continues: (S,) bool for each graph.
    most_users: (K,) see `growth.Kinds`.
    rng: source of the random choices.
  """
  has_users = most_users > 0
  ends = np.bincount(step, weights=has_users[x[:, 0]], minlength=len(continues)) == 0
  x = x.copy()
  for graph in np.flatnonzero(ends & continues):
    rows = np.flatnonzero(step == graph)
    weights = likely[rows].astype(np.float64) * has_users
    node = int(weights.sum(axis=1).argmax()) if len(rows) else 0
    if len(rows) and weights[node].sum() > 0:
      x[rows[node], 0] = rng.choice(len(has_users), p=weights[node] / weights[node].sum())
  return x
