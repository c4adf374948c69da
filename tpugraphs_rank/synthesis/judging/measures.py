"""Similarity of synthetic graphs to real ones: distances, validity, copies, diversity.

All measures except `arity_valid` and the copies compare a sample with a reference, and are 0 for
the reference itself. Between two samples of real graphs they are above 0; that value is the floor
to compare with.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.stats

from tpugraphs_rank.synthesis.dags import dags as dags_lib

# Small graphs coincide by chance, so copies are also counted among larger graphs only.
COPY_NODES = 10
_DRAWS = 20


class Valid(NamedTuple):
  """(N,) bool valid nodes, and (G,) bool graphs in which all nodes are valid."""

  nodes: np.ndarray
  graphs: np.ndarray


def quantities(graphs: dags_lib.Dags) -> dict[str, np.ndarray]:
  """The quantities whose distributions are compared, by name.

  `layers` and `nodes` have one value per graph, `layer_size` one per level of a graph, `operands`
  (in-degree from the operands) and `users` one per node.
  """
  width = int(graphs.level.max(initial=0)) + 1
  layers = np.bincount(graphs.graph_of_node * width + graphs.level)
  return {"layers": graphs.depths, "layer_size": layers[layers > 0], "nodes": graphs.sizes,
          "operands": graphs.num_operands, "users": graphs.num_users}


def distances(graphs: dags_lib.Dags, reference: dags_lib.Dags) -> dict[str, float]:
  """Wasserstein-1 and total variation distances between a sample and a reference.

  Returns:
    `wasserstein_<quantity>` for each of `quantities`, in its unit. For each attribute `tv_<name>`,
    1/2 sum |p - q| over its values, and `tv_<name>_pairs`, the same over pairs of the values of a
    node and of its operand.

  Raises:
    DataError: the graphs have different attributes.
  """
  graphs, reference = dags_lib.in_common_vocabularies([graphs, reference])
  ours, theirs = quantities(graphs), quantities(reference)
  result = {f"wasserstein_{name}": float(scipy.stats.wasserstein_distance(ours[name], theirs[name]))
            for name in ours}
  for column, (name, words) in enumerate(zip(graphs.x_names, graphs.vocabularies)):
    kinds, reference_kinds = graphs.x[:, column], reference.x[:, column]
    result[f"tv_{name}"] = _total_variation(kinds, reference_kinds, len(words))
    pairs, reference_pairs = (
        kind[dags.flat_src].astype(np.int64) * len(words) + kind[dags.flat_dst]
        for dags, kind in ((graphs, kinds), (reference, reference_kinds)))
    result[f"tv_{name}_pairs"] = _total_variation(pairs, reference_pairs, len(words)**2)
  return result


def arity_valid(graphs: dags_lib.Dags, training: dags_lib.Dags, column: int = 0) -> Valid:
  """Nodes whose pair (attribute, number of distinct operands) occurs in training.

  Args:
    graphs: the graphs to evaluate.
    training: the training graphs.
    column: index of the attribute; the first attribute is the opcode.

  Raises:
    DataError: the graphs have different attributes.
  """
  graphs, training = dags_lib.in_common_vocabularies([graphs, training])
  width = int(max(graphs.num_operands.max(initial=0), training.num_operands.max(initial=0))) + 1
  pairs = lambda dags: dags.x[:, column].astype(np.int64) * width + dags.num_operands
  nodes = np.isin(pairs(graphs), pairs(training))
  wrong = np.bincount(graphs.graph_of_node, weights=~nodes, minlength=len(graphs))
  return Valid(nodes, wrong == 0)


def copies(graphs: dags_lib.Dags, training: dags_lib.Dags) -> dict[str, float]:
  """Shares of graphs that are exact copies of training graphs, and of distinct graphs.

  Returns:
    `copies_of_training` and `distinct` (distinct graphs / graphs) among the graphs with 10 nodes or
    more; `copies_of_training_all` and `distinct_all` among all graphs. NaN where there are none.
  """
  ours, known = graphs.hashes(), training.hashes()
  large = graphs.sizes >= COPY_NODES
  copied = np.isin(ours, known)
  result = {}
  for suffix, rows in (("", large), ("_all", np.ones_like(large))):
    result[f"copies_of_training{suffix}"] = _mean(copied[rows])
    result[f"distinct{suffix}"] = (
        len(np.unique(ours[rows])) / int(rows.sum()) if rows.any() else np.nan)
  return result


def copies_by_chance(real: dags_lib.Dags, training_size: int, seed: int) -> dict[str, float]:
  """The expected `copies` in random splits of real graphs, which do not keep twins together.

  Args:
    real: all real graphs.
    training_size: number of training graphs in each split; the rest is evaluated.
    seed: seed of the 20 splits; the mean over them is returned.
  """
  rng = np.random.default_rng(seed)
  known, large = real.hashes(), real.sizes >= COPY_NODES
  shares = []
  for _ in range(_DRAWS):
    order = rng.permutation(len(real))
    training, rest = order[:training_size], order[training_size:]
    copied = np.isin(known[rest], known[training])
    shares.append((_mean(copied[large[rest]]), _mean(copied)))
  first, second = np.mean(shares, axis=0)
  return {"copies_of_training": float(first), "copies_of_training_all": float(second)}


def zero_if_nan(correlation: float) -> float:
  """Counts the undefined correlation of constant predictions as 0, the chance level."""
  return 0.0 if math.isnan(correlation) else correlation


def _mean(values: np.ndarray) -> float:
  return float(values.mean()) if values.size else float("nan")


def _total_variation(ours: np.ndarray, theirs: np.ndarray, count: int) -> float:
  """Total variation distance; 0 if both samples are empty, as for pairs of graphs without edges."""
  if not ours.size or not theirs.size:
    return float(ours.size != theirs.size)
  share = lambda values: np.bincount(values, minlength=count) / len(values)
  return float(np.abs(share(ours) - share(theirs)).sum() / 2)
