"""Structural twins: programs with the same graph, up to the order of the nodes.

A program with a twin in training is not unseen, so twins stay on the same side of a split.
"""

from collections.abc import Sequence
import hashlib

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.data import hashing

_mixed = hashing.splitmix64
_SELF, _OPERAND, _USER, _FEATURES = (
    np.array([number], np.uint64) for number in (
        0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5))

_BLOCK_ROWS = 256


def graph_hash(node_opcode: np.ndarray, edge_index: np.ndarray,
               node_feat: np.ndarray | None = None, rounds: int = 32) -> str:
  """A hash of a graph that does not depend on the order of its nodes or edges.

  This is a Weisfeiler-Lehman hash. The label of a node starts as its opcode. Each round combines
  it with the labels of the node's operands and users, until a round distinguishes no more nodes.

  Args:
    node_opcode: (n,) ids.
    edge_index: (m, 2), row [u, v]: u consumes the output of v.
    node_feat: (n, f) features that are hashed as well; None: only opcodes and edges count, so that
      a kernel with two shapes is a pair of twins.
    rounds: maximum number of rounds. Later rounds distinguish nodes by more distant neighbours.

  Returns:
    32 hex digits, the same on every machine.
  """
  labels = _mixed(np.asarray(node_opcode, np.uint64) + _SELF)
  if node_feat is not None:
    columns = np.arange(1, node_feat.shape[1] + 1, dtype=np.uint64)
    weights = _mixed(columns * _FEATURES) | np.uint64(1)
    # In blocks that fit into a cache: several times faster, with less memory.
    for start in range(0, len(labels), _BLOCK_ROWS):
      block = np.asarray(node_feat[start:start + _BLOCK_ROWS], np.float64) + 0.0
      rows = np.ascontiguousarray(block).view(np.uint64)
      labels[start:start + _BLOCK_ROWS] += (_mixed(rows) * weights).sum(axis=1, dtype=np.uint64)
    labels = _mixed(labels)
  users, operands = np.asarray(edge_index, np.int64).reshape(-1, 2).T
  known = len(np.unique(labels))
  for _ in range(rounds):
    # Sums do not depend on the order of neighbours. Hashing first makes sums of different sets
    # differ.
    gathered = _mixed(labels + _SELF)
    np.add.at(gathered, users, _mixed(labels[operands] + _OPERAND))
    np.add.at(gathered, operands, _mixed(labels[users] + _USER))
    labels = _mixed(gathered)
    before, known = known, len(np.unique(labels))
    if known == before:
      break
  digest = hashlib.sha256(np.array([len(labels), len(users)], "<u8").tobytes())
  digest.update(np.sort(labels).astype("<u8").tobytes())
  return digest.hexdigest()[:32]


def divide(hashes: Sequence[str], fractions: dict[str, float], seed: int) -> list[str]:
  """Assigns programs to splits at random, twins to the same split.

  Args:
    hashes: one hash per program; equal for programs that must stay together.
    fractions: the share of the programs for each split except "train". No split gets more than its
      rounded share, unless its first set of twins is already larger.
    seed: random seed.

  Returns:
    The name of the split of each program.

  Raises:
    DataError: there are fewer sets of twins than splits.
  """
  members: dict[str, list[int]] = {}
  for index, value in enumerate(hashes):
    members.setdefault(value, []).append(index)
  sets = list(members.values())
  if len(sets) <= len(fractions):
    raise errors.DataError(
        f"{len(hashes)} programs with {len(sets)} different structures cannot be divided into "
        f"train, {', '.join(fractions)}: twins must stay together; collect more programs; or "
        "leave the collection undivided (no fractions), and hold back configurations: train with "
        "--split_by=configuration")
  order = [sets[place] for place in np.random.default_rng(seed).permutation(len(sets))]
  result = ["train"] * len(hashes)
  for number, (split, fraction) in enumerate(fractions.items()):
    room = max(round(fraction * len(hashes)), 1)
    reserved = len(fractions) - number  # Sets that training and the later splits need.
    taken: list[list[int]] = []
    for twins in order:
      if len(twins) <= room and len(order) - len(taken) > reserved:
        taken.append(twins)
        room -= len(twins)
    if not taken:
      taken.append(min(order, key=len))
    order = [twins for twins in order if not any(twins is other for other in taken)]
    for twins in taken:
      for index in twins:
        result[index] = split
  return result
