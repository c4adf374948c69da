"""Classifier two-sample test: can a classifier distinguish synthetic graphs from real ones?

A random forest on simple features of each graph, cross-validated (Lopez-Paz and Oquab,
arXiv 1610.06545). An AUC of 0.5 means that it cannot; the AUC between two real samples is the value
that a generator can achieve.
"""
import numpy as np
from sklearn import ensemble
from sklearn import metrics as sklearn_metrics
from sklearn import model_selection

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib

_FOLDS = 5
_TREES = 100


def two_sample(first: dags_lib.Dags, second: dags_lib.Dags, seed: int) -> dict[str, float]:
  """Accuracy and area under the ROC curve of a classifier between two samples of graphs.

  The larger sample is reduced at random to the size of the smaller, so that guessing is right half
  of the time. Structurally equal graphs are in the same fold: recognizing them would prove nothing.

  Args:
    first: one sample.
    second: the other sample.
    seed: seed of the reduction, the folds and the forest.

  Returns:
    `accuracy`, `auc`, and `n`, the number of graphs of each sample.

  Raises:
    DataError: attributes differ, or there are too few distinct graphs for five folds.
  """
  rng = np.random.default_rng(seed)
  count = min(len(first), len(second))
  samples = dags_lib.in_common_vocabularies([
      dags.take(np.sort(rng.permutation(len(dags))[:count])) for dags in (first, second)])
  rows = np.concatenate([features(dags) for dags in samples])
  _, groups = np.unique(np.concatenate([dags.hashes() for dags in samples]), return_inverse=True)
  if groups.max(initial=-1) + 1 < 2 * _FOLDS:
    raise errors.DataError(
        f"{groups.max(initial=-1) + 1} different graphs; expected at least {2 * _FOLDS} in the two "
        "samples together: use more graphs")
  labels = np.repeat([0, 1], count)
  folds = model_selection.StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
  scores = np.zeros(len(rows))
  for train, test in folds.split(rows, labels, groups):
    trees = ensemble.RandomForestClassifier(_TREES, min_samples_leaf=2, random_state=seed)
    trees.fit(rows[train], labels[train])
    # A fold may contain one class only; the classifier then predicts it with certainty.
    chances = trees.predict_proba(rows[test])
    scores[test] = chances[:, list(trees.classes_).index(1)] if 1 in trees.classes_ else 0
  return {"accuracy": float(((scores > 0.5) == labels).mean()),
          "auc": float(sklearn_metrics.roc_auc_score(labels, scores)), "n": count}


def features(graphs: dags_lib.Dags) -> np.ndarray:
  """(G, f) features of each graph: sizes, degrees, shape, frequency of every attribute value."""
  count, at = len(graphs), graphs.graph_of_node
  sizes, depths = graphs.sizes, graphs.depths
  mean = lambda values: np.bincount(at, weights=values, minlength=count) / sizes
  largest = lambda values: np.maximum.reduceat(values, graphs.node_off[:-1])
  operands, users = graphs.num_operands, graphs.num_users
  width = int(graphs.level.max()) + 1
  layers = np.bincount(at * width + graphs.level, minlength=count * width).reshape(count, width)
  spans = graphs.level[graphs.flat_dst] - graphs.level[graphs.flat_src]
  edges = np.maximum(np.diff(graphs.edge_off), 1)
  columns = [
      sizes, depths, np.diff(graphs.edge_off) / sizes, sizes / depths, layers.max(axis=1),
      layers.argmax(axis=1) / depths, mean(operands == 0), mean(operands**2), largest(operands),
      mean(users > 1), mean(users**2), largest(users), mean(graphs.level) / depths,
      np.bincount(graphs.graph_of_edge, weights=spans, minlength=count) / edges]
  for column, words in zip(graphs.x.T, graphs.vocabularies):
    kinds = np.bincount(at * len(words) + column, minlength=count * len(words))
    columns += list((kinds.reshape(count, -1) / sizes[:, None]).T)
  return np.stack(columns, axis=1)
