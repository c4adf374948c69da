"""Scores of all configurations of many graphs, list by list."""

import collections
from typing import Deque, Iterator, List, Sequence, Tuple

import numpy as np
import tensorflow as tf

from tpugraphs_rank import models
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import pipeline


class Scorer:
  """Scores graphs with a model; traced once per kind of batch."""

  def __init__(self, model: models.Model, max_configs: int):
    """Keeps the model, whose variables may change between calls.

    Args:
      model: the model.
      max_configs: configurations scored at a time for one graph.
    """
    self._model = model
    self._max_configs = max_configs
    self._forward = None

  def __call__(self, prepared: Sequence[batches.PreparedGraph]) -> List[np.ndarray]:
    """For each graph the scores (c',) float32 of its usable configurations, in their order."""
    if not any(len(member.choice) for member in prepared):
      return [np.zeros([0], np.float32) for _ in prepared]
    owners: Deque[List[Tuple[int, np.ndarray]]] = collections.deque()

    def make() -> Iterator[batches.Batch]:
      owners.clear()  # The data set has looked at a first batch before its pass.
      for batch, rows in batches.scoring_batches(
          prepared, self._max_configs, self._model.reference_size):
        owners.append(rows)
        yield batch

    steps = pipeline.dataset(make)
    if self._forward is None:
      self._forward = tf.function(
          lambda arrays: self._model(pipeline.to_step(arrays)["graph"]),
          input_signature=[steps.element_spec], autograph=False)
    pieces: List[List[np.ndarray]] = [[] for _ in prepared]
    for arrays in steps:
      scores = self._forward(arrays).numpy()
      for row, (index, picked) in zip(scores, owners.popleft()):
        pieces[index].append(row[:len(picked)])
    return [np.concatenate(parts) if parts else np.zeros([0], np.float32) for parts in pieces]
