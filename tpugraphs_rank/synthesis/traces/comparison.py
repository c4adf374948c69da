"""Measures how near synthetic traces are to real ones, and what they reveal about them.

Shapes: G graphs, N nodes in total. Depth and width follow the execution: the level of a node is the
longest path to it from a node without dependencies.
"""

from collections.abc import Mapping
import math
from typing import Any

import numpy as np
import scipy.stats
from sklearn import metrics as sklearn_metrics

from tpugraphs_rank.data import hashing
from tpugraphs_rank.data import segments
from tpugraphs_rank.synthesis.dags import dags as dags_lib

# The quantities whose distance to real graphs has to be small.
HEADLINE = ("types", "depth", "degree")
_ROUNDS = 2  # The neighborhood of a node that the distance between graphs sees.
_BOOTSTRAPS = 200
_LOGARITHMIC = ("duration", "critical_path", "work")


def quantities(graphs: dags_lib.Dags, durations: np.ndarray | None = None
               ) -> dict[str, np.ndarray]:
  """The quantities whose distributions are compared.

  Args:
    graphs: the graphs.
    durations: (N,) microseconds of each node; None: without the last three quantities.

  Returns:
    `nodes` and `depth` (levels), one value per graph; `width` (nodes of a level), one per level;
    `operands` (dependencies) and `users`, one per node; `duration` per node, `critical_path` (the
    largest sum of durations along a path) and `work` (the sum of all durations) per graph, in
    microseconds.
  """
  flat = np.stack([graphs.flat_src, graphs.flat_dst], axis=1)
  level = segments.levels(flat, len(graphs.x))
  graph = graphs.graph_of_node
  deepest = int(level.max(initial=0)) + 1
  widths = np.bincount(graph * deepest + level)
  depth = np.zeros(len(graphs), np.int64)
  np.maximum.at(depth, graph, level + 1)
  result = {"nodes": graphs.sizes, "depth": depth, "width": widths[widths > 0],
            "operands": graphs.num_operands, "users": graphs.num_users}
  if durations is not None:
    result["duration"] = np.asarray(durations, np.float64)
    result["critical_path"] = critical_paths(graphs, result["duration"])
    result["work"] = np.bincount(graph, weights=result["duration"], minlength=len(graphs))
  return result


def critical_paths(graphs: dags_lib.Dags, durations: np.ndarray) -> np.ndarray:
  """(G,) the largest sum of durations (N,) along a path of each graph."""
  ends = np.asarray(durations, np.float64).copy()
  # Nodes are stored in level order, consumers before producers: walk from the producers.
  operands: list[list[int]] = [[] for _ in range(len(graphs.x))]
  for user, operand in zip(graphs.flat_src.tolist(), graphs.flat_dst.tolist()):
    operands[user].append(operand)
  values = ends.tolist()
  for node in range(len(values) - 1, -1, -1):
    if operands[node]:
      values[node] += max(values[operand] for operand in operands[node])
  result = np.zeros(len(graphs))
  np.maximum.at(result, graphs.graph_of_node, np.array(values))
  return result


def distances(graphs: dags_lib.Dags, reference: dags_lib.Dags,
              durations: tuple[np.ndarray, np.ndarray] | None = None) -> dict[str, float]:
  """Distances between the distributions of two samples; 0 where they are equal.

  Args:
    graphs: one sample.
    reference: the other sample.
    durations: of the nodes of both, in microseconds.

  Returns:
    For each quantity its Wasserstein-1 distance, of log(1 + x) for durations and their sums. For
    each attribute `tv_<name>`, the total variation distance between the shares of its values.
    `types` is that of the pairs of the first two attributes (type and operator), `type_pairs` the
    same for a node and its dependency together, `degree` the larger of `operands` and `users`.

  Raises:
    DataError: the graphs have different attributes.
  """
  graphs, reference = dags_lib.in_common_vocabularies([graphs, reference])
  ours = quantities(graphs, durations[0] if durations else None)
  theirs = quantities(reference, durations[1] if durations else None)
  scaled = lambda name, values: np.log1p(values) if name in _LOGARITHMIC else values
  result = {name: float(scipy.stats.wasserstein_distance(
      scaled(name, ours[name]), scaled(name, theirs[name]))) for name in ours}
  result["degree"] = max(result["operands"], result["users"])
  for column, (name, words) in enumerate(zip(graphs.x_names, graphs.vocabularies)):
    result[f"tv_{name}"] = _total_variation(
        graphs.x[:, column], reference.x[:, column], len(words))
  first, second = _pair(graphs), _pair(reference)
  width = int(max(first.max(initial=0), second.max(initial=0))) + 1
  result["types"] = _total_variation(first, second, width)
  ours_edges, their_edges = (
      pair[dags.flat_src] * width + pair[dags.flat_dst]
      for pair, dags in ((first, graphs), (second, reference)))
  result["type_pairs"] = _total_variation(ours_edges, their_edges, width**2)
  return result


def _pair(dags: dags_lib.Dags) -> np.ndarray:
  """(N,) one number for each pair of the values of the first two attributes."""
  second = dags.x[:, 1] if dags.x.shape[1] > 1 else np.zeros(len(dags.x), np.int32)
  width = len(dags.vocabularies[1]) if dags.x.shape[1] > 1 else 1
  return dags.x[:, 0].astype(np.int64) * width + second


def random_graphs(like: dags_lib.Dags, training: dags_lib.Dags, seed: int) -> dags_lib.Dags:
  """Controls of the same numbers of nodes and edges: random types and random dependencies.

  Each attribute of a node is drawn on its own from the values of the training nodes. Each
  dependency joins a random node to a random earlier one.

  Args:
    like: graphs whose numbers of nodes and edges the controls have.
    training: the training graphs.
    seed: seed of the random choices.
  """
  like, training = dags_lib.in_common_vocabularies([like, training])
  rng = np.random.default_rng([seed, 17])
  graphs = []
  for graph, size in enumerate(like.sizes.tolist()):
    x = np.stack([column[rng.integers(len(column), size=size)] for column in training.x.T], axis=1)
    count = int(like.edge_off[graph + 1] - like.edge_off[graph])
    user = rng.integers(1, max(size, 2), size=count if size > 1 else 0)
    operand = (rng.random(len(user)) * user).astype(np.int64)
    graphs.append((np.stack([user, operand], axis=1), x))
  return dags_lib.canonical(graphs, training.x_names, training.vocabularies,
                            provenance={"made_by": "random control"})


def random_typed(graphs: dags_lib.Dags, training: dags_lib.Dags, seed: int) -> dags_lib.Dags:
  """The same dependencies with random types: each attribute drawn from the training nodes."""
  graphs, training = dags_lib.in_common_vocabularies([graphs, training])
  rng = np.random.default_rng([seed, 18])
  x = np.stack([column[rng.integers(len(column), size=len(graphs.x))]
                for column in training.x.T], axis=1)
  return dags_lib.canonical(
      [(graphs.edges(graph), x[graphs.nodes(graph)]) for graph in range(len(graphs))],
      training.x_names, training.vocabularies, provenance={"made_by": "random-typed control"})


def neighborhoods(samples: Mapping[str, dags_lib.Dags]) -> dict[str, np.ndarray]:
  """For each sample (G, L) the number of nodes of a graph with each neighborhood.

  A neighborhood is the first two attributes of a node and of all nodes at most two edges away, with
  the directions of the edges. Attributes that only measure, such as durations, do not count: with
  them almost every neighborhood would be unique.
  """
  common = dict(zip(samples, dags_lib.in_common_vocabularies(list(samples.values()))))
  labels = {name: _labels(dags) for name, dags in common.items()}
  known = np.unique(np.concatenate(list(labels.values())))
  result = {}
  for name, dags in common.items():
    column = np.searchsorted(known, labels[name])
    flat = np.bincount(dags.graph_of_node * len(known) + column,
                       minlength=len(dags) * len(known))
    result[name] = flat.reshape(len(dags), len(known)).astype(np.float32)
  return result


def _labels(dags: dags_lib.Dags) -> np.ndarray:
  """(N,) uint64 hash of the neighborhood of each node."""
  mixed = hashing.splitmix64
  labels = mixed(_pair(dags).astype(np.uint64) + np.uint64(1))
  for _ in range(_ROUNDS):
    gathered = mixed(labels)
    np.add.at(gathered, dags.flat_src, mixed(labels[dags.flat_dst] + np.uint64(3)))
    np.add.at(gathered, dags.flat_dst, mixed(labels[dags.flat_src] + np.uint64(7)))
    labels = mixed(gathered)
  return labels


def nearest(counts: np.ndarray, others: np.ndarray) -> np.ndarray:
  """(G,) distance of each graph to the nearest of others, 0 for the same neighborhoods.

  The distance is 1 - sum of minima / sum of maxima of the two graphs' counts (`neighborhoods`), so
  it is 1 for graphs that have no neighborhood in common.
  """
  sums, other_sums = counts.sum(axis=1), others.sum(axis=1)
  result = np.ones(len(counts))
  for graph, row in enumerate(counts):
    shared = np.minimum(row, others).sum(axis=1)
    result[graph] = (1.0 - shared / np.maximum(sums[graph] + other_sums - shared, 1.0)).min(
        initial=1.0)
  return result


def revealed(training: dags_lib.Dags, held_out: dags_lib.Dags, synthetic: dags_lib.Dags, seed: int
             ) -> dict[str, Any]:
  """What synthetic graphs reveal about the training graphs.

  Returns:
    `nearest_training`: quantiles of the distance of each synthetic graph to its nearest training
    graph, and `held_out_nearest_training`, the same for real graphs that were not in training.
    `equal_to_training`: the share of synthetic graphs whose distance is 0. `membership`: the area
    under the ROC curve of the test "a real graph was in training if it is near the synthetic
    graphs", with an interval of 95 % over random samples of the real graphs; 0.5 is chance.
  """
  counts = neighborhoods(
      {"training": training, "held_out": held_out, "synthetic": synthetic})
  to_training = nearest(counts["synthetic"], counts["training"])
  near = {name: -nearest(counts[name], counts["synthetic"]) for name in ("training", "held_out")}
  return {
      "nearest_training": _quantiles(to_training),
      "held_out_nearest_training": _quantiles(nearest(counts["held_out"], counts["training"])),
      "equal_to_training": float((to_training == 0).mean()),
      "membership": _membership(near["training"], near["held_out"], seed)}


def _membership(training: np.ndarray, held_out: np.ndarray, seed: int) -> dict[str, float]:
  rng = np.random.default_rng([seed, 19])

  def area(first: np.ndarray, second: np.ndarray) -> float:
    truth = np.repeat([1, 0], [len(first), len(second)])
    return float(sklearn_metrics.roc_auc_score(truth, np.concatenate([first, second])))

  areas = [area(rng.choice(training, len(training)), rng.choice(held_out, len(held_out)))
           for _ in range(_BOOTSTRAPS)]
  low, high = np.quantile(areas, [0.025, 0.975])
  return {"auc": area(training, held_out), "low": float(low), "high": float(high)}


def _quantiles(values: np.ndarray) -> dict[str, float]:
  names = ("minimum", "lower_quartile", "median", "upper_quartile", "maximum")
  return dict(zip(names, np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()))


def _total_variation(ours: np.ndarray, theirs: np.ndarray, count: int) -> float:
  share = lambda values: np.bincount(values, minlength=count) / max(len(values), 1)
  return float(np.abs(share(ours) - share(theirs)).sum() / 2)


def ratio(value: float, floor: float) -> float:
  """A distance compared with that between two real samples; 1 where both are 0."""
  if floor > 0:
    return value / floor
  return 1.0 if value == 0 else math.inf
