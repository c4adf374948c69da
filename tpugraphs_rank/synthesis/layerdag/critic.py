"""Critics of made graphs: of several that were asked for the same label, the one that fits is kept.

A critic is a few surrogates that predict the label of a graph, trained on training graphs alone. Of
each group of graphs drawn under the same conditions the one is kept whose predicted label comes
nearest to the asked one, both taken as ranks among the labels of training. What is kept is then no
longer a plain sample of the generator: labels are followed more closely, as far as surrogates of
the training graphs can tell. Imports TensorFlow.
"""

import dataclasses

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.judging import surrogate as surrogate_lib

# Surrogates that judge made graphs take small seeds: a critic's are never among them.
FIRST_SEED = 100_000


@dataclasses.dataclass(frozen=True)
class Critic:
  """Surrogates whose predictions are averaged.

  Attributes:
    surrogates: of one label.
    label: its name.
    known: (G,) the labels of training, rising.
    tries: graphs drawn for each that is kept.
  """

  surrogates: list[surrogate_lib.Surrogate]
  label: str
  known: np.ndarray
  tries: int = 2

  @classmethod
  def fit(cls, graphs: dags_lib.Dags, label: str, members: int = 4, tries: int = 2, seed: int = 0,
          options: surrogate_lib.Options = surrogate_lib.Options()) -> "Critic":
    """Trains a critic; the same seed gives the same one.

    Each member stops by a quarter of the graphs that is drawn anew for it, equal graphs together:
    nothing but the training graphs is needed, or seen.

    Args:
      graphs: the training graphs.
      label: the name of their label.
      members: surrogates.
      tries: graphs drawn for each that is kept.
      seed: of divisions and surrogates.
      options: of the surrogates.

    Raises:
      ConfigError: members or tries below one.
      DataError: the graphs lack the label, or there are too few of them.
    """
    if members < 1 or tries < 1:
      raise errors.ConfigError(
          f"a critic of {members} surrogates that chooses among {tries} graphs; expected one at "
          "least of either")
    surrogates = []
    for member in range(members):
      own = FIRST_SEED + seed * 1000 + member
      parts = dags_lib.split_by_wl(graphs, {"valid": 0.25}, own)
      surrogates.append(surrogate_lib.train(
          graphs.take(parts["train"]), graphs.take(parts["valid"]), own, label, options))
    return cls(surrogates, label, np.sort(graphs.label(label)), tries)

  def misses(self, graphs: dags_lib.Dags) -> np.ndarray:
    """(G,) float64: how far the predicted label is from that of each graph, 0 to 1, in ranks."""
    predicted = np.mean([one.predict(graphs) for one in self.surrogates], axis=0)
    return np.abs(self._rank(predicted) - self._rank(graphs.label(self.label)))

  def chosen(self, graphs: dags_lib.Dags) -> np.ndarray:
    """(G / tries,) the rows that are kept: of each `tries` graphs in turn the best.

    Raises:
      DataError: the graphs are no whole number of groups.
    """
    if len(graphs) % self.tries:
      raise errors.DataError(
          f"{len(graphs)} graphs; expected groups of {self.tries}, drawn under the same conditions")
    best = self.misses(graphs).reshape(-1, self.tries).argmin(axis=1)
    return np.arange(len(best)) * self.tries + best

  def _rank(self, labels: np.ndarray) -> np.ndarray:
    # Between the labels of training ranks are interpolated: a prediction hits none of them.
    values, counts = np.unique(self.known, return_counts=True)
    middle = (np.cumsum(counts) - 0.5 * counts) / len(self.known)
    return np.interp(labels, values, middle)
