"""Counts of attribute values, and of pairs of the values of an operand and of its user.

They describe the composition of a graph and nothing of its shape beyond single edges.
"""

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib


class Counts:
  """Counts the values and pairs that occur in the training graphs; others are ignored.

  Attributes:
    width: number of features: for each attribute its values in the training graphs, then its pairs.
  """

  def __init__(self, training: dags_lib.Dags):
    self._x_names = training.x_names
    self._words = [
        {word: place for place, word in enumerate(np.unique(words[column]).tolist())}
        for column, words in zip(training.x.T, training.vocabularies)]
    self._pairs = [np.unique(pairs[pairs >= 0]) for _, pairs in self._occurrences(training)]
    self.width = sum(len(words) for words in self._words) + sum(
        len(pairs) for pairs in self._pairs)

  def of(self, graphs: dags_lib.Dags) -> np.ndarray:
    """(G, width) float64 counts of each graph.

    Raises:
      DataError: the graphs have other attributes than the training graphs.
    """
    if graphs.x_names != self._x_names:
      raise errors.DataError(
          f"x_names are {graphs.x_names}; the counts are of {self._x_names}: pass graphs with the "
          "same attributes")
    columns = []
    for (kinds, pairs), words, known in zip(
        self._occurrences(graphs), self._words, self._pairs):
      node, edge = kinds >= 0, np.isin(pairs, known)
      columns += [
          _table(graphs.graph_of_node[node], kinds[node], len(graphs), len(words)),
          _table(graphs.graph_of_edge[edge], np.searchsorted(known, pairs[edge]), len(graphs),
                 len(known))]
    return np.concatenate(columns, axis=1)

  def _occurrences(self, graphs: dags_lib.Dags) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each attribute the value of each node and the pair of each edge; -1: not in training."""
    result = []
    for column, vocabulary, words in zip(graphs.x.T, graphs.vocabularies, self._words):
      kinds = np.array([words.get(word, -1) for word in vocabulary.tolist()], np.int64)[column]
      ends = kinds[graphs.flat_src], kinds[graphs.flat_dst]
      pairs = np.where(np.minimum(*ends) < 0, -1, ends[0] * len(words) + ends[1])
      result.append((kinds, pairs))
    return result


def _table(graph: np.ndarray, place: np.ndarray, count: int, width: int) -> np.ndarray:
  """(count, width) how often each place occurs in each graph."""
  return np.bincount(graph * width + place, minlength=count * width).reshape(count, width).astype(
      np.float64)
