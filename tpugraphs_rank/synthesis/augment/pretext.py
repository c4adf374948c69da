"""Self-supervised tasks on graphs: masked nodes and hidden edges, sampled with NumPy.

No task reads runtimes, so unmeasured graphs are as useful as measured ones.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import normalize
from tpugraphs_rank.synthesis.dags import node_types

# Opcode of masked nodes. Real opcodes end at 120.
MASKED_OPCODE = graphs.NUM_OPCODES - 1
NUM_TYPES = len(node_types.NAMES)
_TRIES = 8


@dataclasses.dataclass(frozen=True)
class Example:
  """One graph as input of the tasks.

  Attributes:
    nodes: (n, F) float32 scaled features.
    opcode: (n,) int32 opcodes.
    element_type: (n,) int32 indices below NUM_TYPES.
    source: (m,) int32 operand of each edge; data flows from source to target.
    target: (m,) int32 user of each edge.
    label: label of the whole graph; NaN where it has none, or none that may be used.
  """

  nodes: np.ndarray
  opcode: np.ndarray
  element_type: np.ndarray
  source: np.ndarray
  target: np.ndarray
  label: float = float("nan")


def example(graph: graphs.Graph, normalizer: normalize.Normalizer, label: float | None = None
            ) -> Example:
  """Scales a graph's features; its configurations and runtimes are not used."""
  return Example(
      normalizer.nodes(normalize.node_rows(graph)), graph.node_opcode.astype(np.int32),
      node_types.indices(graph.node_feat).astype(np.int32), graph.edge_index[:, 1].astype(np.int32),
      graph.edge_index[:, 0].astype(np.int32), float("nan") if label is None else float(label))


def masked_nodes(count: int, share: float, rng: np.random.Generator) -> np.ndarray:
  """(k,) int64 nodes to mask: each of `count` with probability `share`, but at least one."""
  masked = np.flatnonzero(rng.random(count) < share)
  return masked if masked.size else rng.integers(count, size=1)


def hidden_edges(one: Example, share: float, rng: np.random.Generator
                 ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Edges to hide from the network, and random pairs without an edge.

  Args:
    one: the graph.
    share: probability that a pair of an operand and its user is hidden; at least one pair is. All
      edges of a hidden pair are removed, because any of them would reveal it.
    rng: source of the random choices.

  Returns:
    (m,) bool mask of the remaining edges; (k, 2) hidden pairs [source, target]; and (k', 2) pairs
    of nodes without an edge in that direction, k' <= k because small graphs have few such pairs.
  """
  count = len(one.nodes)
  key = one.source.astype(np.int64) * count + one.target
  distinct, index = np.unique(key, return_inverse=True)
  if not distinct.size:
    return np.ones(0, bool), np.zeros([0, 2], np.int64), np.zeros([0, 2], np.int64)
  hide = rng.random(len(distinct)) < share
  if not hide.any():
    hide[rng.integers(len(distinct))] = True
  real = distinct[hide]
  random = np.zeros(0, np.int64)
  for _ in range(_TRIES):
    candidates = rng.integers(count * count, size=len(real) - len(random))
    valid = (candidates // count != candidates % count) & ~np.isin(candidates, distinct)
    random = np.concatenate([random, candidates[valid]])
  pairs = lambda keys: np.stack([keys // count, keys % count], axis=1)
  return ~hide[index.reshape(-1)], pairs(real), pairs(random)


def batch(members: Sequence[Example], mask_share: float, edge_share: float,
          rng: np.random.Generator) -> dict[str, np.ndarray]:
  """The arrays of one step over several graphs, concatenated.

  Args:
    members: the graphs.
    mask_share: share of nodes whose features and opcode are hidden; 0: none.
    edge_share: share of operand-user pairs whose edges are hidden; 0: none.
    rng: source of the random choices.

  Returns:
    The network's input: `nodes` (N, F), `opcode` (N,), `source`, `target` (M,), `num_nodes` and
    `num_edges` (B,). `masked` (k,) int32 indices of the masked nodes; `masked_opcode` and
    `masked_type` (k,) int32 their true values. `pairs` (p, 2) int32 and `pair_is_edge` (p,)
    float32. `label` (B,) float32, NaN where there is none.
  """
  columns: dict[str, list[np.ndarray]] = {name: [] for name in (
      "nodes", "opcode", "source", "target", "num_nodes", "num_edges", "masked", "masked_opcode",
      "masked_type", "pairs", "pair_is_edge")}
  offset = 0
  for one in members:
    count = len(one.nodes)
    masked = masked_nodes(count, mask_share, rng) if mask_share else np.zeros(0, np.int64)
    nodes, opcode = one.nodes.copy(), one.opcode.copy()
    nodes[masked], opcode[masked] = 0.0, MASKED_OPCODE  # 0 is the training mean.
    kept = np.ones(len(one.source), bool)
    real = random = np.zeros([0, 2], np.int64)
    if edge_share:
      kept, real, random = hidden_edges(one, edge_share, rng)
    for name, value in (
        ("nodes", nodes), ("opcode", opcode), ("source", one.source[kept] + offset),
        ("target", one.target[kept] + offset), ("num_nodes", [count]),
        ("num_edges", [int(kept.sum())]), ("masked", masked + offset),
        ("masked_opcode", one.opcode[masked]), ("masked_type", one.element_type[masked]),
        ("pairs", np.concatenate([real, random]) + offset),
        ("pair_is_edge", np.repeat([1.0, 0.0], [len(real), len(random)]))):
      columns[name].append(np.asarray(value))
    offset += count
  joined = {name: np.concatenate(values) for name, values in columns.items()}
  floats = ("nodes", "pair_is_edge")
  return {**{name: value.astype(np.float32 if name in floats else np.int32)
             for name, value in joined.items()},
          "label": np.array([one.label for one in members], np.float32)}
