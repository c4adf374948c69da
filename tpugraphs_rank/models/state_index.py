"""The distinct states of nodes: what many configurations of one graph need computed.

After k convolutions the state of a node depends on the layouts of the configurable nodes within k
hops, its support, and on nothing else of a configuration. A search repeats layouts, so most of the
c configurations share a node's state with another one. Here each distinct state is listed once for
each level, with the messages that make it, and with the sums that lead from states to the pooled
vector of each configuration. Nodes of equal support have the same states: they form a group, and
configurations are told apart once a group.

States are told apart by sums of 64-bit hashes of (node, layouts). That any two of s distinct states
fall together has a probability of s^2 / 2^65, 3e-8 for a million states at a time; where states of
two groups do, it is noticed, and other hashes are taken.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np
import pandas as pd
from scipy import sparse

from tpugraphs_rank.data import batches
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import hashing
from tpugraphs_rank.data import packed_layouts


@dataclasses.dataclass(frozen=True)
class _Level:
  """The nodes that depend on the configuration at one level.

  Attributes:
    group: (rows,) int64, the group of each node.
    support: (groups, configurable nodes) 0/1, uint64.
  """

  group: np.ndarray
  support: sparse.csr_matrix


@dataclasses.dataclass(frozen=True)
class Told:
  """The states of one level for some configurations.

  Attributes:
    state: (groups, T) int64, which state of all groups' a configuration gives a group.
    first: (groups + 1,) int64, where each group's states begin; the last is their number.
    example: (states,) int64, a configuration that gives the state.
    offset: (rows + 1,) int64, where each node's states begin; the last is their number.
  """

  state: np.ndarray
  first: np.ndarray
  example: np.ndarray
  offset: np.ndarray


class StateIndex:
  """Lists the distinct states of one arranged graph."""

  def __init__(self, arranged: batches.Batch, depth: int):
    """Finds the supports.

    Args:
      arranged: `data.partition.arrange` of a batch of this one layout graph.
      depth: number of convolutions.
    """
    self._rows = arranged["rows"].astype(np.int64)
    self._edges = arranged["edges"].astype(np.int64)
    self._kernel = arranged["kernel"].astype(np.int64)
    self._weights = arranged["weights"]
    self._inner = arranged["inner"]
    count = len(arranged["nodes"])
    starts = int(self._rows[0])
    self._salts = np.random.default_rng(0).integers(2 ** 64, size=starts, dtype=np.uint64)
    heard = sparse.csr_matrix(
        (np.ones(len(self._edges), np.uint64), (self._edges[:, 0], self._edges[:, 1])),
        shape=(count, count))
    support = sparse.csr_matrix(
        (np.ones(starts, np.uint64), (np.arange(starts), np.arange(starts))),
        shape=(count, starts))
    self._levels: list[_Level] = []
    for level in range(depth + 1):
      self._levels.append(_group(support[:self._rows[level]], self._salts))
      support = heard @ support
      support.data[:] = 1

  @property
  def groups(self) -> tuple[int, ...]:
    """Groups of nodes at each level."""
    return tuple(level.support.shape[0] for level in self._levels)

  def tell(self, layouts: np.ndarray) -> list[Told]:
    """Tells the states of some configurations apart, at each level.

    Args:
      layouts: (configurable nodes in the arranged order, T, 18) int8.
    """
    hashes = _hash(layouts, self._salts)
    return [_tell(level, hashes) for level in self._levels]

  def messages(self, told: Sequence[Told]) -> int:
    """The greatest number of messages between the states of two levels."""
    return max((int(np.diff(after.offset)[self._edges[:inner, 0]].sum())
                for after, inner in zip(told[1:], self._inner)), default=0)

  def listed(self, told: Sequence[Told], layouts: np.ndarray, pooled: Sequence[int]
             ) -> batches.Batch:
    """What leads to the states that were told apart, for `models.distinct`.

    Args:
      told: of `tell`.
      layouts: the same.
      pooled: the levels whose states are summed up for each configuration.

    Returns:
      `node` (states at level 0,) int32 and their `layouts` (states, 1, 18) int8. For each
      convolution `edges_<k>` (m, 2) int32, rows [state after, state before + kernel * states
      before], `weights_<k>` (m,) float64, `node_<k>` and `lift_<k>` (states after,) int32: the node
      of a state; where its node's state before stands among the states before and, after them, the
      rows that `Shared` hands over. For each pooled level `to_group_<k>` (states, 2) and
      `to_config_<k>` (groups * T, 2) int32, the entries of the two sums that pool states, and
      `group_states_<k>`, the rows between them.
    """
    node = np.repeat(np.arange(len(layouts), dtype=np.int32), np.diff(told[0].offset))
    arrays = {"node": node, "layouts": layouts[node, told[0].example][:, None, :]}
    for level, (before, after) in enumerate(zip(told, told[1:])):
      arrays.update({f"{key}_{level}": value for key, value in self._step(
          level, before, after).items()})
    for level in pooled:
      arrays.update({f"{key}_{level}": value for key, value in _pooling(
          self._levels[level], told[level]).items()})
    return arrays

  def _step(self, level: int, before: Told, after: Told) -> batches.Batch:
    """The messages from states of one level to those of the next."""
    rows, more = self._rows[level], self._rows[level + 1]
    source, target = self._levels[level].group, self._levels[level + 1].group
    # A state of each node after, and a configuration that gives it.
    count = np.diff(after.offset)
    node = np.repeat(np.arange(more), count)
    example = after.example[_spread(after.first[target], count)]
    inner = self._inner[level]
    receiver, sender = self._edges[:inner].T
    reach = count[receiver]
    state = _spread(after.offset[receiver], reach)
    sender = np.repeat(sender, reach)
    group = source[sender]
    place = before.offset[sender] + (
        before.state[group, example[state]] - before.first[group])
    kernel = np.repeat(self._kernel[:inner], reach)
    inside = node < rows
    held = source[node[inside]]
    lift = before.offset[-1] + node - rows  # Rows of what `Shared` hands over follow the states.
    lift[inside] = before.offset[node[inside]] + (
        before.state[held, example[inside]] - before.first[held])
    return {"edges": np.stack([state, place + kernel * before.offset[-1]], 1).astype(np.int32),
            "weights": np.repeat(self._weights[:inner], reach),
            "node": node.astype(np.int32), "lift": lift.astype(np.int32)}


def _spread(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """For each start that many consecutive numbers from it."""
  ends = np.cumsum(counts)
  return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)


def _group(support: sparse.csr_matrix, salts: np.ndarray) -> _Level:
  """Groups of rows with equal support."""
  group = pd.factorize(support @ hashing.splitmix64(salts))[0].astype(np.int64)
  _, first = np.unique(group, return_index=True)
  return _Level(group, support[first].tocsr())


def _hash(layouts: np.ndarray, salts: np.ndarray) -> np.ndarray:
  """(nodes, T) uint64 of (nodes, T, 18) layouts: equal at a node for equal layouts, else not."""
  number = packed_layouts.numbers(layouts, graphs.NUM_LAYOUT_FEATURES).reshape(layouts.shape[:2])
  return hashing.splitmix64(number.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + salts[:, None])


def _tell(level: _Level, hashes: np.ndarray) -> Told:
  groups, count = level.support.shape[0], hashes.shape[1]
  while True:
    # Groups differ in their support, so their keys differ; states are numbered group by group.
    state = pd.factorize((level.support @ hashes).reshape(-1))[0].reshape(groups, count)
    if (state[:-1].max(axis=1, initial=-1) < state[1:].min(axis=1, initial=groups * count)).all():
      break
    # Each node's anew, in its own way, so that what fell together falls apart.
    salts = hashing.splitmix64(np.arange(1, len(hashes) + 1, dtype=np.uint64))
    hashes = hashing.splitmix64(hashes + salts[:, None])
  number = int(state.max(initial=-1)) + 1
  example = np.empty(number, np.int64)
  example[state.reshape(-1)[::-1]] = (np.arange(groups * count) % max(count, 1))[::-1]
  first = np.concatenate([state[:, 0] if count else np.zeros(groups, np.int64), [number]])
  return Told(state, first, example, np.concatenate(
      [[0], np.cumsum(np.diff(first)[level.group])]).astype(np.int64))


def _pooling(level: _Level, told: Told) -> batches.Batch:
  count = np.diff(told.offset)
  to_group = np.stack([_spread(told.first[level.group], count), np.arange(told.offset[-1])], axis=1)
  config = np.broadcast_to(np.arange(told.state.shape[1]), told.state.shape)
  to_config = np.stack([config.T.reshape(-1), told.state.T.reshape(-1)], axis=1)
  return {"to_group": to_group.astype(np.int32), "to_config": to_config.astype(np.int32),
          "group_states": np.array(told.first[-1], np.int32)}
