"""Questions that graphs answer about themselves: masked nodes and hidden edges, drawn with NumPy.

Nothing here reads a runtime, so graphs that nobody measured serve as well as measured ones.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import normalize
from tpugraphs_rank.hlo import features

# Stands for the opcode of a masked node. Ids run to 120.
MASKED_OPCODE = graphs.NUM_OPCODES - 1
_TYPE_PREFIX = "shape_element_type_is_"
_TYPE_COLUMNS = [column for column, name in enumerate(features.NODE_FEATURE_NAMES)
                 if name.startswith(_TYPE_PREFIX)]
# Element types that a node may have; the last stands for none of the listed ones.
NUM_TYPES = len(_TYPE_COLUMNS) + 1
_TRIES = 8


@dataclasses.dataclass(frozen=True)
class Example:
  """What is asked of one graph.

  Attributes:
    nodes: (n, F) float32 scaled features.
    opcode: (n,) int32.
    element_type: (n,) int32, below NUM_TYPES.
    source, target: (m,) int32; data flows from source (operand) to target (user).
    label: of the whole graph; NaN where it has none, or none that may be used.
  """

  nodes: np.ndarray
  opcode: np.ndarray
  element_type: np.ndarray
  source: np.ndarray
  target: np.ndarray
  label: float = float("nan")


def example(graph: graphs.Graph, normalizer: normalize.Normalizer, label: float | None = None
            ) -> Example:
  """Scales a graph's features; its configurations and runtimes are not looked at."""
  return Example(
      normalizer.nodes(normalize.node_rows(graph)), graph.node_opcode.astype(np.int32),
      element_types(graph.node_feat), graph.edge_index[:, 1].astype(np.int32),
      graph.edge_index[:, 0].astype(np.int32), float("nan") if label is None else float(label))


def element_types(node_feat: np.ndarray) -> np.ndarray:
  """(n,) int32 of features (n, 140): the place of the element type among the listed ones."""
  given = node_feat[:, _TYPE_COLUMNS] > 0
  return np.where(given.any(axis=1), given.argmax(axis=1), NUM_TYPES - 1).astype(np.int32)


def masked_nodes(count: int, share: float, rng: np.random.Generator) -> np.ndarray:
  """(k,) int64 nodes of a graph of `count`: each with probability `share`, one at least."""
  drawn = np.flatnonzero(rng.random(count) < share)
  return drawn if drawn.size else rng.integers(count, size=1)


def hidden_edges(one: Example, share: float, rng: np.random.Generator
                 ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Edges that are hidden from the network, and random pairs that are none.

  Args:
    one: the graph.
    share: each pair of an operand and its user is hidden with this probability, one at least; all
      edges between the two are, since another would tell.
    rng: draws everything.

  Returns:
    Which edges stay (m,) bool; the hidden pairs (k, 2), rows [source, target]; and (k', 2) pairs of
    two nodes of the graph without an edge in that direction, k' <= k: small graphs have few.
  """
  count = len(one.nodes)
  key = one.source.astype(np.int64) * count + one.target
  different, place = np.unique(key, return_inverse=True)
  if not different.size:
    return np.ones(0, bool), np.zeros([0, 2], np.int64), np.zeros([0, 2], np.int64)
  hide = rng.random(len(different)) < share
  if not hide.any():
    hide[rng.integers(len(different))] = True
  real = different[hide]
  random = np.zeros(0, np.int64)
  for _ in range(_TRIES):
    drawn = rng.integers(count * count, size=len(real) - len(random))
    fits = (drawn // count != drawn % count) & ~np.isin(drawn, different)
    random = np.concatenate([random, drawn[fits]])
  pairs = lambda keys: np.stack([keys // count, keys % count], axis=1)
  return ~hide[place.reshape(-1)], pairs(real), pairs(random)


def batch(members: Sequence[Example], mask_share: float, edge_share: float,
          rng: np.random.Generator) -> dict[str, np.ndarray]:
  """The arrays of one step over several graphs, one after the other.

  Args:
    members: the graphs.
    mask_share: of the nodes whose features and opcode are hidden; 0: none.
    edge_share: of the pairs whose edges are hidden; 0: none.
    rng: draws everything.

  Returns:
    `nodes` (N, F), `opcode` (N,), `source`, `target` (M,), `num_nodes`, `num_edges` (B,): what the
    network sees. `masked` (k,) int32: places of the masked nodes, `masked_opcode` and `masked_type`
    (k,) int32 what they were. `pairs` (p, 2) int32 and `pair_is_edge` (p,) float32. `label` (B,)
    float32, NaN where there is none.
  """
  columns: dict[str, list[np.ndarray]] = {name: [] for name in (
      "nodes", "opcode", "source", "target", "num_nodes", "num_edges", "masked", "masked_opcode",
      "masked_type", "pairs", "pair_is_edge")}
  offset = 0
  for one in members:
    count = len(one.nodes)
    masked = masked_nodes(count, mask_share, rng) if mask_share else np.zeros(0, np.int64)
    nodes, opcode = one.nodes.copy(), one.opcode.copy()
    nodes[masked], opcode[masked] = 0.0, MASKED_OPCODE  # 0: the mean of training.
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
