"""Critics: of several graphs generated for the same label, keep the one that fits best.

A critic is an ensemble of surrogates that predict a graph's label, trained on training graphs only.
Its surrogates are networks, without forests. From each group of graphs generated under the same
conditions it keeps the one whose predicted label is nearest to the requested one, measured in ranks
among the training labels. The kept graphs are no longer a plain sample of the generator: they
follow the labels more closely, as far as surrogates of the training graphs can predict. Imports
TensorFlow.
"""

import dataclasses

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.judging import surrogate as surrogate_lib

# The surrogates that evaluate generated graphs use small seeds, so a critic never shares theirs.
FIRST_SEED = 100_000
# No forest, so that forests can judge what a critic chose.
DEFAULT_OPTIONS = dataclasses.replace(surrogate_lib.DEFAULT_OPTIONS, forest=False)


@dataclasses.dataclass(frozen=True)
class Critic:
  """An ensemble of surrogates whose predictions are averaged.

  Attributes:
    surrogates: surrogates of one label.
    label: name of the label.
    training_labels: (G,) labels of the training graphs, ascending.
    tries: number of graphs generated for each one that is kept.
  """

  surrogates: list[surrogate_lib.Surrogate]
  label: str
  training_labels: np.ndarray
  tries: int = 2

  @classmethod
  def fit(cls, graphs: dags_lib.Dags, label: str, members: int = 4, tries: int = 2, seed: int = 0,
          options: surrogate_lib.Options = DEFAULT_OPTIONS) -> "Critic":
    """Trains a critic; the same seed gives the same critic.

    Each member uses its own random quarter of the graphs for early stopping, with structurally
    equal graphs on the same side. No other graphs are used.

    Args:
      graphs: the training graphs.
      label: name of the label.
      members: number of surrogates.
      tries: number of graphs generated for each one that is kept.
      seed: seed of the splits and the surrogates.
      options: options of the surrogates.

    Raises:
      ConfigError: members or tries is below one.
      DataError: the graphs do not have the label, or there are too few of them.
    """
    if members < 1 or tries < 1:
      raise errors.ConfigError(
          f"a critic of {members} surrogates that chooses among {tries} graphs; expected at least "
          "one of each")
    surrogates = []
    for member in range(members):
      member_seed = FIRST_SEED + seed * 1000 + member
      split = dags_lib.split_by_wl(graphs, {"valid": 0.25}, member_seed)
      surrogates.append(surrogate_lib.train(
          graphs.take(split["train"]), graphs.take(split["valid"]), member_seed, label, options))
    return cls(surrogates, label, np.sort(graphs.label(label)), tries)

  def label_errors(self, graphs: dags_lib.Dags) -> np.ndarray:
    """(G,) float64 distance between predicted and requested label, as a rank difference in 0..1."""
    predicted = np.mean([one.predict(graphs) for one in self.surrogates], axis=0)
    return np.abs(self._rank(predicted) - self._rank(graphs.label(self.label)))

  def select(self, graphs: dags_lib.Dags) -> np.ndarray:
    """(G / tries,) indices of the kept graphs: the best of each group of `tries`.

    Raises:
      DataError: the number of graphs is not a multiple of `tries`.
    """
    if len(graphs) % self.tries:
      raise errors.DataError(
          f"{len(graphs)} graphs; expected groups of {self.tries}, generated under the "
          "same conditions")
    best = self.label_errors(graphs).reshape(-1, self.tries).argmin(axis=1)
    return np.arange(len(best)) * self.tries + best

  def _rank(self, labels: np.ndarray) -> np.ndarray:
    # Predictions fall between training labels, so ranks are interpolated.
    values, counts = np.unique(self.training_labels, return_counts=True)
    middle = (np.cumsum(counts) - 0.5 * counts) / len(self.training_labels)
    return np.interp(labels, values, middle)
