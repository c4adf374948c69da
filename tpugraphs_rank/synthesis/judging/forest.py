"""A judge that is unrelated to the critic: a random forest on counts.

The critic that chooses among generated graphs consists of networks, and networks that judge its
choice might share its errors. A forest learns in another way, with trees, and sees only how often
each opcode and each pair of opcodes occurs.
"""

from typing import Any

import numpy as np
from sklearn import ensemble

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.judging import counts as counts_lib

_TREES = 300


class Forest:
  """A trained forest."""

  def __init__(self, counts: counts_lib.Counts, trees: ensemble.RandomForestRegressor):
    self._counts, self._trees = counts, trees

  @property
  def details(self) -> dict[str, Any]:
    """What a report adds to the figures of this forest: nothing."""
    return {}

  def predict(self, graphs: dags_lib.Dags) -> np.ndarray:
    """(G,) float64 predicted labels.

    Raises:
      DataError: the graphs have other attributes than the training graphs.
    """
    return self._trees.predict(self._counts.of(graphs))


def train(training: dags_lib.Dags, valid: dags_lib.Dags, seed: int, label: str | None = None
          ) -> Forest:
  """Trains a forest on one label; the same seed gives the same forest.

  Args:
    training: graphs to learn from.
    valid: ignored. A forest does not stop early, and should not learn from more graphs than a
      surrogate does.
    seed: seed of the forest.
    label: name of the label; None: the first.

  Raises:
    DataError: the label does not exist, or there are no graphs.
  """
  del valid
  y = training.label(label)
  if not len(y):
    raise errors.DataError("a forest has no training graphs; expected at least one")
  counts = counts_lib.Counts(training)
  trees = ensemble.RandomForestRegressor(_TREES, max_features="sqrt", random_state=seed)
  return Forest(counts, trees.fit(counts.of(training), y))
