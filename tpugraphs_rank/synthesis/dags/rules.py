"""A seeded family of DAGs that obey a hard rule, of any size: the test of what a model has learned.

The rule, "balanced": among the operands of every node, the numbers of operands of each kind
0..k-1 differ by at most one. So up to k operands are all of different kinds, and 2k operands are
two of each. A node may have any kind and any number of operands up to a limit; 0 and 1 operands
always obey. LayerDAG is judged on a rule of this sort, too (arXiv 2411.02322, section 5.1).
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags

ATTRIBUTE = "kind"
LABEL = "critical_path"
_MAX_EXPANDED = 8  # Nodes of one level that get operands: graphs stay deep, as programs are.


class Obeyed(NamedTuple):
  """Where the rule is obeyed.

  Attributes:
    nodes: (N,) bool.
    graphs: (G,) bool, by all nodes of the graph.
    tested: (N,) bool, the nodes that could break it: with two operands or more.
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
  """Makes graphs that obey the rule, each with one root.

  Users come first: some nodes of a level get a balanced set of wanted operands, and the next level
  is made to fit, nodes of the wanted kinds shared at random among them. Then nodes get further
  operands from deeper levels, each of a kind that the node has least of. Nothing is thrown away.

  Args:
    count: G.
    max_nodes: of a graph; sizes are drawn evenly from `min_nodes` to this.
    seed: of everything; the same seed gives the same graphs.
    min_nodes: half of `max_nodes` by default.
    kinds: k, at least 2.
    max_operands: of a node, at least 1.

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
  made = dags.canonical(
      [_graph(rng, int(size), kinds, max_operands) for size in sizes], (ATTRIBUTE,),
      [np.arange(kinds)],
      provenance={"rule": "balanced", "count": count, "min_nodes": min_nodes,
                  "max_nodes": max_nodes, "kinds": kinds, "max_operands": max_operands,
                  "seed": seed, "label": "most costly path from the root; kind c costs c + 1"})
  return made.with_labels(critical_paths(made), [LABEL])


def obeys(graphs: dags.Dags, kinds: int | None = None) -> Obeyed:
  """Which nodes and graphs obey the rule.

  Args:
    graphs: with the attribute `kind`, whose values are 0..k-1.
    kinds: k; by default one more than the largest number in the vocabulary.

  Raises:
    DataError: there is no such attribute, or a value is not a kind.
  """
  kind, k = _kinds(graphs, kinds)
  source, target = graphs.flat_src, graphs.flat_dst
  counts = np.bincount(source * k + kind[target], minlength=len(kind) * k).reshape(-1, k)
  nodes = counts.max(axis=1) - counts.min(axis=1) <= 1
  broken = np.bincount(graphs.graph_of_node, weights=~nodes, minlength=len(graphs))
  return Obeyed(nodes, broken == 0, counts.sum(axis=1) >= 2)


def by_chance(graphs: dags.Dags, seed: int = 0, kinds: int | None = None) -> Obeyed:
  """`obeys` for the same graphs, their kinds dealt anew at random within each.

  Args:
    graphs: as for `obeys`.
    seed: of the deal.
    kinds: as for `obeys`.

  Raises:
    DataError: as `obeys`.
  """
  # Sorted by graph, at random within each.
  graph = graphs.graph_of_node
  order = np.lexsort((np.random.default_rng(seed).random(len(graph)), graph))
  return obeys(dataclasses.replace(graphs, x=graphs.x[order]), kinds)


def critical_paths(graphs: dags.Dags) -> np.ndarray:
  """(G,) float64: the largest sum of costs on a path from a root, where kind c costs c + 1."""
  kind, _ = _kinds(graphs, None)
  cost = (kind + 1).astype(np.float64)
  source, target = graphs.flat_src, graphs.flat_dst
  # From the deepest users on: an operand is always of a deeper level than its user.
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
        f"x_names are {', '.join(graphs.x_names)}; expected {ATTRIBUTE!r}, on which the rule is: "
        "give graphs of the rule-based family (`python -m tpugraphs_rank.cli.layerdag_graphs --rule`)")
  column = graphs.x_names.index(ATTRIBUTE)
  words = graphs.vocabularies[column]
  k = int(words.max()) + 1 if kinds is None and words.dtype.kind != "U" else kinds or 0
  if words.dtype.kind == "U" or words.min() < 0 or words.max() >= k:
    raise errors.DataError(f"vocab_{ATTRIBUTE} holds {words.tolist()}; expected kinds 0..{k - 1}")
  return words[graphs.x[:, column]], k


def _graph(rng: np.random.Generator, size: int, kinds: int, max_operands: int
           ) -> tuple[np.ndarray, np.ndarray]:
  """Edges and kinds of one graph; nodes in level order."""
  kind = [int(rng.integers(kinds))]
  operands: list[set[int]] = [set()]
  level, level_of = [0], [0]
  while len(kind) < size:
    room = size - len(kind)
    chosen = rng.permutation(level)[:rng.integers(1, min(len(level), _MAX_EXPANDED) + 1)].tolist()
    wanted = [_balanced_counts(rng, int(rng.integers(1, max_operands + 1)), kinds)
              for _ in chosen]
    if np.max(wanted, axis=0).sum() > room:  # One node alone wants as many as it has operands.
      chosen = chosen[:1]
      wanted = [_balanced_counts(rng, min(room, max_operands), kinds)]
    # Of each kind no fewer than the node that wants the most of it, no more than all want.
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
      turn = 0  # Round and round: all are used, and one user's are all different.
      for user, counts in zip(chosen, wanted):
        for _ in range(counts[of_kind]):
          operands[user].add(new[turn % many])
          turn += 1
    level_of += [level_of[-1] + 1] * (len(kind) - first)
  _add_deeper_operands(rng, kind, operands, level_of, kinds, max_operands)
  edges = [(user, operand) for user, of in enumerate(operands) for operand in sorted(of)]
  return np.array(edges, np.int64).reshape(-1, 2), np.array(kind)


def _balanced_counts(rng: np.random.Generator, many: int, kinds: int) -> np.ndarray:
  """(k,) how many operands of each kind: equally many, and the rest of different random kinds."""
  counts = np.full(kinds, many // kinds)
  counts[rng.permutation(kinds)[:many % kinds]] += 1
  return counts


def _add_deeper_operands(rng: np.random.Generator, kind: list[int], operands: list[set[int]],
                         level_of: list[int], kinds: int, max_operands: int) -> None:
  """Gives some nodes an operand from any deeper level, which no level of a node depends on."""
  kind_of, depth = np.array(kind), np.array(level_of)
  for user, of in enumerate(operands):
    if not of or len(of) >= max_operands or rng.random() < 0.5:
      continue
    counts = np.bincount(kind_of[list(of)], minlength=kinds)
    # The nodes stand in level order.
    start = int(np.searchsorted(depth, depth[user] + 1))
    fits = start + np.flatnonzero(counts[kind_of[start:]] == counts.min())
    fits = fits[~np.isin(fits, list(of))]
    if fits.size:
      of.add(int(fits[rng.integers(len(fits))]))
