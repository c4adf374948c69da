"""The distinct states of nodes under many configurations of one graph.

After k convolutions, the state of a node depends on the layouts of the configurable nodes within k
hops (its support) and on nothing else of a configuration. A search repeats layouts, so a node often
has the same state under many of the c configurations. This module lists each distinct state once
for each level, with the messages that compute it, and with the sums that lead from states to the
pooled vector of each configuration. Nodes with equal support have the same states. They form a
group, and states are deduplicated once for each group.

States are compared by sums of 64-bit hashes of (node, layouts). The probability that any two of s
distinct states collide is s^2 / 2^65, or 3e-8 for a million states at a time. A collision between
two groups is detected, and other hashes are then used.
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
  """The nodes that depend on the configuration at one level, in groups of equal support.

  Attributes:
    group: (rows,) int64, the group of each node.
    support: (groups, configurable nodes) 0/1, uint64.
  """

  group: np.ndarray
  support: sparse.csr_matrix


@dataclasses.dataclass(frozen=True)
class LevelStates:
  """The distinct states of one level for some configurations.

  States are numbered group by group, and within a group in the order of their first configuration.

  Attributes:
    state: (groups, T) int64, the state of a group under a configuration.
    first: (groups + 1,) int64, the first state of each group; the last entry is their number.
    example: (states,) int64, a configuration with this state.
    offset: (rows + 1,) int64, the position of each node's first state when the states of all nodes
      are listed node by node; the last entry is their number.
  """

  state: np.ndarray
  first: np.ndarray
  example: np.ndarray
  offset: np.ndarray


class StateIndex:
  """Lists the distinct states of one arranged graph."""

  def __init__(self, arranged: batches.Batch, depth: int):
    """Computes the supports.

    Args:
      arranged: `data.partition.arrange` of a batch with this one layout graph.
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
    adjacency = sparse.csr_matrix(
        (np.ones(len(self._edges), np.uint64), (self._edges[:, 0], self._edges[:, 1])),
        shape=(count, count))
    support = sparse.csr_matrix(
        (np.ones(starts, np.uint64), (np.arange(starts), np.arange(starts))),
        shape=(count, starts))
    self._levels: list[_Level] = []
    for level in range(depth + 1):
      self._levels.append(_group(support[:self._rows[level]], self._salts))
      support = adjacency @ support
      support.data[:] = 1

  @property
  def groups(self) -> tuple[int, ...]:
    """The number of groups of nodes at each level."""
    return tuple(level.support.shape[0] for level in self._levels)

  def deduplicate(self, layouts: np.ndarray) -> list[LevelStates]:
    """The distinct states at each level under some configurations.

    Args:
      layouts: (configurable nodes in the arranged order, T, 18) int8.
    """
    hashes = _hash(layouts, self._salts)
    return [_deduplicate(level, hashes) for level in self._levels]

  def messages(self, levels: Sequence[LevelStates]) -> int:
    """The largest number of messages between the states of two neighbouring levels."""
    return max((int(np.diff(after.offset)[self._edges[:inner, 0]].sum())
                for after, inner in zip(levels[1:], self._inner)), default=0)

  def arrays(self, levels: Sequence[LevelStates], layouts: np.ndarray, pooled: Sequence[int]
             ) -> batches.Batch:
    """The arrays that `models.distinct_states` needs to compute the states.

    Args:
      levels: the result of `deduplicate`.
      layouts: its argument.
      pooled: the levels whose states are summed for each configuration.

    Returns:
      `node` (states at level 0,) int32: the node of each state, and `layouts` (states, 1, 18) int8.
      For each convolution k
        `edges_<k>` (m, 2) int32: rows [state after, state before + kernel * states before];
        `weights_<k>` (m,) float64;
        `node_<k>` (states after,) int32: the node of a state;
        `lift_<k>` (states after,) int32: the position of the same node's state before the
          convolution, among the states before and then the rows that come from
          `ConfigIndependentStates`.
      For each pooled level k `to_group_<k>` (states, 2) and `to_config_<k>` (groups * T, 2) int32:
      the entries of the two sums that pool states, and `group_states_<k>`, the number of rows
      between the two sums.
    """
    node = np.repeat(np.arange(len(layouts), dtype=np.int32), np.diff(levels[0].offset))
    arrays = {"node": node, "layouts": layouts[node, levels[0].example][:, None, :]}
    for level, (before, after) in enumerate(zip(levels, levels[1:])):
      arrays.update({f"{key}_{level}": value for key, value in self._step(
          level, before, after).items()})
    for level in pooled:
      arrays.update({f"{key}_{level}": value for key, value in _pooling(
          self._levels[level], levels[level]).items()})
    return arrays

  def _step(self, level: int, before: LevelStates, after: LevelStates) -> batches.Batch:
    """The messages from states of one level to those of the next."""
    rows, more = self._rows[level], self._rows[level + 1]
    source, target = self._levels[level].group, self._levels[level + 1].group
    # The states of each node after the convolution, and a configuration with each of them.
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
    own_group = source[node[inside]]
    lift = before.offset[-1] + node - rows  # Configuration-independent rows follow the states.
    lift[inside] = before.offset[node[inside]] + (
        before.state[own_group, example[inside]] - before.first[own_group])
    return {"edges": np.stack([state, place + kernel * before.offset[-1]], 1).astype(np.int32),
            "weights": np.repeat(self._weights[:inner], reach),
            "node": node.astype(np.int32), "lift": lift.astype(np.int32)}


def _spread(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """For each start, `count` consecutive numbers beginning with it, all in one array."""
  ends = np.cumsum(counts)
  return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)


def _group(support: sparse.csr_matrix, salts: np.ndarray) -> _Level:
  """Groups the rows with equal support."""
  group = pd.factorize(support @ hashing.splitmix64(salts))[0].astype(np.int64)
  _, first = np.unique(group, return_index=True)
  return _Level(group, support[first].tocsr())


def _hash(layouts: np.ndarray, salts: np.ndarray) -> np.ndarray:
  """(nodes, T) uint64 of (nodes, T, w) layouts: at one node, equal only for equal layouts.

  If w > 18, the effects of requests follow the layouts; they are hashed, and may collide.
  """
  count = graphs.NUM_LAYOUT_FEATURES
  number = packed_layouts.numbers(
      np.ascontiguousarray(layouts[..., :count]), count).reshape(layouts.shape[:2])
  if layouts.shape[-1] > count:
    weights = hashing.splitmix64(np.arange(1, layouts.shape[-1] - count + 1, dtype=np.uint64))
    effects = layouts[..., count:].astype(np.int64).view(np.uint64) @ weights
    number = number ^ hashing.splitmix64(effects).view(np.int64)
  return hashing.splitmix64(number.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + salts[:, None])


def _deduplicate(level: _Level, hashes: np.ndarray) -> LevelStates:
  groups, count = level.support.shape[0], hashes.shape[1]
  while True:
    # Groups differ in their support, so their keys differ. States are numbered group by group.
    state = pd.factorize((level.support @ hashes).reshape(-1))[0].reshape(groups, count)
    if (state[:-1].max(axis=1, initial=-1) < state[1:].min(axis=1, initial=groups * count)).all():
      break
    # Two groups collide. New hashes, different for each node, separate them.
    salts = hashing.splitmix64(np.arange(1, len(hashes) + 1, dtype=np.uint64))
    hashes = hashing.splitmix64(hashes + salts[:, None])
  number = int(state.max(initial=-1)) + 1
  example = np.empty(number, np.int64)
  example[state.reshape(-1)[::-1]] = (np.arange(groups * count) % max(count, 1))[::-1]
  first = np.concatenate([state[:, 0] if count else np.zeros(groups, np.int64), [number]])
  return LevelStates(state, first, example, np.concatenate(
      [[0], np.cumsum(np.diff(first)[level.group])]).astype(np.int64))


def _pooling(level: _Level, states: LevelStates) -> batches.Batch:
  count = np.diff(states.offset)
  to_group = np.stack(
      [_spread(states.first[level.group], count), np.arange(states.offset[-1])], axis=1)
  config = np.broadcast_to(np.arange(states.state.shape[1]), states.state.shape)
  to_config = np.stack([config.T.reshape(-1), states.state.T.reshape(-1)], axis=1)
  return {"to_group": to_group.astype(np.int32), "to_config": to_config.astype(np.int32),
          "group_states": np.array(states.first[-1], np.int32)}
