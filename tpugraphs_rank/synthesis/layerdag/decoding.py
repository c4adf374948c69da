"""Edges of a new layer that keep a graph valid, from what the diffusion says of each pair.

A pair's priority is the log odds of an edge plus logistic noise: it is above 0 as often as the edge
is likely. Free of constraints those pairs are joined. Constrained, they are taken in the order of
priority, as many as the numbers of operands leave room for.
"""

from typing import NamedTuple

import numpy as np


class Layer(NamedTuple):
  """The pairs of one graph's new layer: c candidates and s new nodes, each with each.

  Attributes:
    priority: (c, s).
    front: (c,) bool: whether the candidate is of the layer before.
    slots: (c,) how many operands a candidate lacks.
    operands: (s,) numbers of operands of the new nodes.
  """

  priority: np.ndarray
  front: np.ndarray
  slots: np.ndarray
  operands: np.ndarray


def free(layer: Layer) -> np.ndarray:
  """(c, s) bool: what is likely; each new node gets its likeliest edge at least."""
  joined = layer.priority > 0
  alone = np.flatnonzero(~joined.any(axis=0))
  joined[layer.priority[:, alone].argmax(axis=0), alone] = True
  return joined


def to_users(layer: Layer) -> np.ndarray | None:
  """(c, s) bool: each new node has a user in the layer before; no candidate more than its slots.

  What a candidate still lacks afterwards must fit below: into the next layer, which has at most as
  many nodes as this one has operands.

  Returns:
    None where that cannot be.
  """
  count, new = layer.priority.shape
  joined = np.zeros([count, new], bool)
  left = layer.slots.copy()
  below = int(layer.operands.sum())
  if left[layer.front].sum() < new or (left - new > below).any():
    return None
  order = np.argsort(-layer.priority, axis=None, kind="stable")
  alone = np.ones(new, bool)
  # Every pair with the layer before exists and its slots are enough, so every node finds a user.
  for place in order:
    candidate, node = divmod(int(place), new)
    if alone[node] and layer.front[candidate] and left[candidate]:
      joined[candidate, node], alone[node] = True, False
      left[candidate] -= 1
  for place in order:
    candidate, node = divmod(int(place), new)
    wanted = layer.priority[candidate, node] > 0 or left[candidate] > below
    if wanted and left[candidate] and not joined[candidate, node]:
      joined[candidate, node] = True
      left[candidate] -= 1
  # Pairs passed over while there was still room below, of candidates whose priorities came first.
  for candidate in np.flatnonzero(left > below):
    spare = np.flatnonzero(~joined[candidate])
    best = spare[np.argsort(-layer.priority[candidate, spare], kind="stable")]
    joined[candidate, best[:left[candidate] - below]] = True
  return joined


def to_operands(layer: Layer) -> np.ndarray | None:
  """(c, s) bool: each new node has its number of operands, one of them in the layer before.

  Returns:
    None where there are too few candidates.
  """
  count, new = layer.priority.shape
  if not layer.front.any() or (layer.operands > count).any() or (layer.operands < 1).any():
    return None
  joined = np.zeros([count, new], bool)
  nodes = np.arange(new)
  joined[np.where(layer.front[:, None], layer.priority, -np.inf).argmax(axis=0), nodes] = True
  rest = np.where(joined, -np.inf, layer.priority)
  rank = np.argsort(np.argsort(-rest, axis=0, kind="stable"), axis=0)
  return joined | (rank < layer.operands - 1)
