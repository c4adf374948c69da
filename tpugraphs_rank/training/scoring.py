"""Scores of all configurations of many graphs: in batches, or one by one where they are large."""

import collections
from collections.abc import Callable, Iterator, Sequence
import dataclasses
from typing import cast

import numpy as np
import tensorflow as tf

from tpugraphs_rank import models
from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import pipeline
from tpugraphs_rank.training import streaming

# A layout program with at least this many nodes times configurations is scored by itself.
_LARGE = 50_000
# Nodes times configurations of a batch at most.
_MAX_STATES = 1_000_000


class Scorer:
  """Scores graphs with a model; traced once for each kind of batch."""

  def __init__(self, model: models.RankingModel, config: run_config.RunConfig):
    """Stores the model, whose variables may change between calls.

    Args:
      model: the model.
      config: the configuration of its run, which sets the size of lists and the memory for large
        programs.
    """
    self._model = model
    self._max_configs = config.batch.eval_batch_configs
    self._forward: Callable[..., tf.Tensor] | None = None
    self._streamer: streaming.Streamer | None = None
    budget = config.batch.scoring_megabytes * 2 ** 20
    self._max_states = _MAX_STATES
    if model.why_plain:  # It counts its states, but nothing is shared between configurations.
      of_state = 4 * cast(models.Partitioned, model).numbers_per_state
      self._max_states = max(min(budget // of_state, _MAX_STATES), 1)
    if model.kind == "layout" and model.supports_partition:
      self._streamer = streaming.Streamer(cast(models.Partitioned, model), budget)

  def __call__(self, prepared: Sequence[batches.PreparedGraph]) -> list[np.ndarray]:
    """For each graph the scores (c',) float32 of its usable configurations, in their order.

    Each distinct configuration is scored once, so that equal ones have equal scores.
    """
    places = []
    for member in prepared:
      _, first, place = np.unique(
          member.graph.config_digests()[member.choice], return_index=True, return_inverse=True)
      order = np.argsort(first)  # The distinct ones in the order of `choice`.
      places.append((first[order], np.argsort(order)[place]))
    scores = self._distinct([
        member if len(first) == len(member.choice)
        else dataclasses.replace(member, choice=member.choice[first], plain=False)
        for member, (first, _) in zip(prepared, places)])
    return [values[place] for values, (_, place) in zip(scores, places)]

  def _distinct(self, prepared: Sequence[batches.PreparedGraph]) -> list[np.ndarray]:
    streamer = self._streamer
    large = [streamer is not None
             and member.graph.num_nodes * len(member.choice) >= _LARGE for member in prepared]
    batched = iter(self._batched(
        [member for member, alone in zip(prepared, large) if not alone]))
    return [streamer(member) if streamer is not None and alone else next(batched)
            for member, alone in zip(prepared, large)]

  def _batched(self, prepared: Sequence[batches.PreparedGraph]) -> list[np.ndarray]:
    if not any(len(member.choice) for member in prepared):
      return [np.zeros([0], np.float32) for _ in prepared]
    owners: collections.deque[list[tuple[int, np.ndarray]]] = collections.deque()

    def make() -> Iterator[batches.Batch]:
      owners.clear()  # The data set makes a first batch to learn the types, before its pass.
      for batch, rows in batches.scoring_batches(
          prepared, self._max_configs, self._model.reference_size,
          max_states=self._max_states):
        owners.append(rows)
        yield self._model.arrange(batch)

    steps = pipeline.dataset(make)
    if self._forward is None:
      self._forward = tf.function(
          lambda arrays: self._model(self._model.select_inputs(arrays)),
          input_signature=[steps.element_spec], autograph=False)
    forward = self._forward
    parts: list[list[np.ndarray]] = [[] for _ in prepared]
    for arrays in steps:
      scores = forward(arrays).numpy()
      for row, (index, picked) in zip(scores, owners.popleft()):
        parts[index].append(row[:len(picked)])
    return [np.concatenate(rows) if rows else np.zeros([0], np.float32) for rows in parts]
