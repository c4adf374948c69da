"""A seeded family of DAGs that obey a hard rule, of any size, to test what a model has learned.

The rule, "balanced": among the operands of every node, the numbers of operands of each kind
0..k-1 differ by at most one. So up to k operands are all of different kinds, and 2k operands are
two of each kind. A node may have any kind and any number of operands up to a limit; nodes with 0 or
1 operands always obey. LayerDAG was evaluated on a similar rule (arXiv 2411.02322, section 5.1).
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags

ATTRIBUTE = "kind"
LABEL = "critical_path"
_MAX_EXPANDED = 8  # Nodes of one level that get operands: keeps graphs as deep as programs are.


class Obedience(NamedTuple):
  """Which nodes and graphs obey the rule.

  Attributes:
    nodes: (N,) bool; the node obeys the rule.
    graphs: (G,) bool; all nodes of the graph obey it.
    tested: (N,) bool; the node could break the rule, because it has two operands or more.
  """

  nodes: np.ndarray
  graphs: np.ndarray
  tested: np.ndarray

  def summary(self) -> dict[str, float]:
    """The shares of nodes, of nodes with two operands or more, and of graphs."""
    tested = self.nodes[self.tested]
    return {"nodes": float(self.nodes.mean()),
            "nodes_of_two_or_more_operands": float(tested.mean()) if tested.size else 1.0,
            "graphs": float(self.graphs.mean())}


def balanced(count: int, max_nodes: int, seed: int, min_nodes: int | None = None,
             kinds: int = 4, max_operands: int = 6) -> dags.Dags:
  """Generates graphs that obey the rule, each with one root.

  Users come first: some nodes of a level get a balanced set of wanted operands. The next level
  supplies them, and its nodes are shared at random among their users. Then nodes get further
  operands from deeper levels, each of the kind that the node has fewest of. No draw is rejected.

  Args:
    count: G, number of graphs.
    max_nodes: the largest number of nodes; sizes are uniform from `min_nodes` to `max_nodes`.
    seed: seed of all random choices; the same seed gives the same graphs.
    min_nodes: half of `max_nodes` by default.
    kinds: k, at least 2.
    max_operands: the largest number of operands of a node, at least 1.

  Returns:
    Graphs with the attribute `kind` and the label `critical_path` (see `critical_paths`).

  Raises:
    ConfigError: a number is out of range.
  """
  min_nodes = max(max_nodes // 2, 1) if min_nodes is None else min_nodes
  if not (count >= 1 and 1 <= min_nodes <= max_nodes and kinds >= 2 and max_operands >= 1):
    raise errors.ConfigError(
        f"count={count}, min_nodes={min_nodes}, max_nodes={max_nodes}, kinds={kinds}, max_operands="
        f"{max_operands}; expected count >= 1, 1 <= min_nodes <= max_nodes, kinds >= 2 and "
        "max_operands >= 1")
  rng = np.random.default_rng(seed)
  sizes = rng.integers(min_nodes, max_nodes + 1, count)
  graphs = dags.canonical(
      [_graph(rng, int(size), kinds, max_operands) for size in sizes], (ATTRIBUTE,),
      [np.arange(kinds)],
      provenance={"rule": "balanced", "count": count, "min_nodes": min_nodes,
                  "max_nodes": max_nodes, "kinds": kinds, "max_operands": max_operands,
                  "seed": seed, "label": "most costly path from the root; kind c costs c + 1"})
  return graphs.with_labels(critical_paths(graphs), [LABEL])


def obeys(graphs: dags.Dags, kinds: int | None = None) -> Obedience:
  """Tests which nodes and graphs obey the rule.

  Args:
    graphs: graphs with the attribute `kind`, whose values are 0..k-1.
    kinds: k; by default one more than the largest value in the vocabulary.

  Raises:
    DataError: the attribute does not exist, or a value is not a kind.
  """
  kind, k = _kinds(graphs, kinds)
  source, target = graphs.flat_src, graphs.flat_dst
  counts = np.bincount(source * k + kind[target], minlength=len(kind) * k).reshape(-1, k)
  nodes = counts.max(axis=1) - counts.min(axis=1) <= 1
  broken = np.bincount(graphs.graph_of_node, weights=~nodes, minlength=len(graphs))
  return Obedience(nodes, broken == 0, counts.sum(axis=1) >= 2)


def by_chance(graphs: dags.Dags, seed: int = 0, kinds: int | None = None) -> Obedience:
  """`obeys` after shuffling the kinds within each graph: the chance level of the rule.

  Args:
    graphs: see `obeys`.
    seed: seed of the shuffle.
    kinds: see `obeys`.

  Raises:
    DataError: see `obeys`.
  """
  # Sorted by graph, in random order within each graph.
  graph = graphs.graph_of_node
  order = np.lexsort((np.random.default_rng(seed).random(len(graph)), graph))
  return obeys(dataclasses.replace(graphs, x=graphs.x[order]), kinds)


def critical_paths(graphs: dags.Dags) -> np.ndarray:
  """(G,) float64: the largest sum of costs on a path from a root, where kind c costs c + 1."""
  kind, _ = _kinds(graphs, None)
  cost = (kind + 1).astype(np.float64)
  source, target = graphs.flat_src, graphs.flat_dst
  # Deepest users first: an operand's level is always deeper than its user's.
  depth = graphs.level[source]
  order = np.argsort(depth, kind="stable")
  ends = np.searchsorted(depth[order], np.arange(depth.max(initial=-1) + 2))
  below = np.zeros_like(cost)
  for start, end in zip(ends[-2::-1], ends[:0:-1]):
    rows = order[start:end]
    np.maximum.at(below, source[rows], below[target[rows]] + cost[target[rows]])
  return np.maximum.reduceat(below + cost, graphs.node_off[:-1]) if len(graphs) else np.zeros([0])


def _kinds(graphs: dags.Dags, kinds: int | None) -> tuple[np.ndarray, int]:
  """(N,) the kind of each node, and k."""
  if ATTRIBUTE not in graphs.x_names:
    raise errors.DataError(
        f"x_names are {', '.join(graphs.x_names)}; expected {ATTRIBUTE!r}, the attribute of the "
        "rule: pass graphs of the rule-based family "
        f"({commands.command('layerdag graphs', '--rule')})")
  column = graphs.x_names.index(ATTRIBUTE)
  words = graphs.vocabularies[column]
  k = int(words.max()) + 1 if kinds is None and words.dtype.kind != "U" else kinds or 0
  if words.dtype.kind == "U" or words.min() < 0 or words.max() >= k:
    raise errors.DataError(f"vocab_{ATTRIBUTE} holds {words.tolist()}; expected kinds 0..{k - 1}")
  return words[graphs.x[:, column]], k


def _graph(rng: np.random.Generator, size: int, kinds: int, max_operands: int
           ) -> tuple[np.ndarray, np.ndarray]:
  """Edges and kinds of one graph, with the nodes in level order."""
  kind = [int(rng.integers(kinds))]
  operands: list[set[int]] = [set()]
  level, level_of = [0], [0]
  while len(kind) < size:
    room = size - len(kind)
    chosen = rng.permutation(level)[:rng.integers(1, min(len(level), _MAX_EXPANDED) + 1)].tolist()
    wanted = [_balanced_counts(rng, int(rng.integers(1, max_operands + 1)), kinds)
              for _ in chosen]
    if np.max(wanted, axis=0).sum() > room:  # A single node's demand always fits.
      chosen = chosen[:1]
      wanted = [_balanced_counts(rng, min(room, max_operands), kinds)]
    # Of each kind: at least the largest single demand, at most the sum of all demands.
    fewest, most = np.max(wanted, axis=0), np.sum(wanted, axis=0)
    number = fewest + rng.binomial(most - fewest, rng.random())
    while number.sum() > room:
      spare = np.flatnonzero(number > fewest)
      number[spare[rng.integers(len(spare))]] -= 1
    first, level = len(kind), []
    for of_kind, many in enumerate(number.tolist()):
      new = list(range(len(kind), len(kind) + many))
      kind += [of_kind] * many
      operands += [set() for _ in new]
      level += new
      turn = 0  # Round robin: every node is used, and one user's operands are distinct.
      for user, counts in zip(chosen, wanted):
        for _ in range(counts[of_kind]):
          operands[user].add(new[turn % many])
          turn += 1
    level_of += [level_of[-1] + 1] * (len(kind) - first)
  _add_deeper_operands(rng, kind, operands, level_of, kinds, max_operands)
  edges = [(user, operand) for user, of in enumerate(operands) for operand in sorted(of)]
  return np.array(edges, np.int64).reshape(-1, 2), np.array(kind)


def _balanced_counts(rng: np.random.Generator, total: int, kinds: int) -> np.ndarray:
  """(k,) operands of each kind: equal numbers, and the remainder of distinct random kinds."""
  counts = np.full(kinds, total // kinds)
  counts[rng.permutation(kinds)[:total % kinds]] += 1
  return counts


def _add_deeper_operands(rng: np.random.Generator, kind: list[int], operands: list[set[int]],
                         level_of: list[int], kinds: int, max_operands: int) -> None:
  """Gives some nodes one operand from a deeper level; that changes no node's level."""
  kind_of, depth = np.array(kind), np.array(level_of)
  for user, of in enumerate(operands):
    if not of or len(of) >= max_operands or rng.random() < 0.5:
      continue
    counts = np.bincount(kind_of[list(of)], minlength=kinds)
    # Nodes are stored in level order.
    start = int(np.searchsorted(depth, depth[user] + 1))
    fits = start + np.flatnonzero(counts[kind_of[start:]] == counts.min())
    fits = fits[~np.isin(fits, list(of))]
    if fits.size:
      of.add(int(fits[rng.integers(len(fits))]))
