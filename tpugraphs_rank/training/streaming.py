"""Scores of any number of configurations of one program, in bounded memory.

What no configuration can change is computed once for the program. Of the rest, each distinct state
of a node is computed once for thousands of configurations where they repeat one another, and where
that does not pay, or configurations look at one another, some tens of them are computed at a time.
The reference list that attention looks at is computed again with each of these pieces.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import logging
from typing import Any

import numpy as np
import tensorflow as tf
import tqdm

from tpugraphs_rank import models
from tpugraphs_rank.data import batches
from tpugraphs_rank.models import state_index

_logger = logging.getLogger(__name__)

# Configurations whose states are told apart at a time, at most: more share more.
_MAX_TOLD = 8192
# As many are told apart to see whether it pays.
_PILOT = 512
# Beyond this many states at a time more of them only leave the processor's caches.
_CACHED_STATES = 100_000
# What telling apart one configuration at one group of nodes costs, and what one of its distinct
# states does, in states of `own_part`, as measured once on 10,000 nodes.
_COST_OF_TELLING = 0.25
_COST_OF_DISTINCT = 1.5
# What the indices of a state take.
_INDEX_BYTES = 96
# What a message between distinct states takes while its indices are made.
_MESSAGE_BYTES = 100


class Streamer:
  """Scores one layout program at a time; traced once for all of them."""

  def __init__(self, model: models.Model, budget: int, distinct: bool | None = None):
    """Keeps the model, whose variables may change between calls.

    Args:
      model: the model.
      budget: bytes that the states of configurations may take, about.
      distinct: whether states are told apart; None: where that is estimated to pay. Never where
        configurations look at one another.
    """
    self._model = model
    self._bytes = 4 * model.state_numbers
    self._budget = budget
    self._distinct = distinct if model.tells_states_apart else False
    self._functions: dict[str, Callable[..., Any]] = {}

  def __call__(self, prepared: batches.PreparedGraph) -> np.ndarray:
    """(c',) float32: the scores of the usable configurations of a layout program, in order."""
    program = _Program(prepared, self._model)
    kept = self.call("shared_part", program.arrays)
    scores = np.empty(len(prepared.choice), np.float32)
    with tqdm.tqdm(total=len(scores), desc=prepared.name, unit="config", disable=None,
                   leave=False, delay=2) as bar:
      for start, found in self._pieces(program, kept):
        scores[start:start + len(found)] = found
        bar.update(len(found))
    return scores

  def _pieces(self, program: "_Program", kept: Mapping[str, tf.Tensor]
              ) -> Iterator[tuple[int, np.ndarray]]:
    """Scores of some configurations after the other, and where they start."""
    index: state_index.StateIndex | None = None
    start, count = 0, len(program.prepared.choice)
    if self._distinct is not False:
      index = state_index.StateIndex(program.arrays, len(program.arrays["rows"]) - 1)
      if self._distinct is None and not self._pays(index, program):
        _logger.debug("%s: distinct states do not pay", program.prepared.name)
        index = None
    size = self._own_at_once(program) if index is None else self._told_at_once(index)
    while start < count:
      size = min(size, count - start)
      if index is None:
        found = self.call(
            "own_part", {**program.masked(size), "configs": program.layouts(start, size)}, kept)
      else:
        told, layouts = self._tell(index, program, start, size)
        size = layouts.shape[1]
        listed = index.listed(told, layouts, self._model.pooled_levels)
        found = self.call("distinct_part", program.masked(size), kept, listed)
      yield start, found[0]
      start += size

  def _told_at_once(self, index: state_index.StateIndex) -> int:
    of_one = _INDEX_BYTES * max(sum(index.groups), 1)
    return int(np.clip(self._budget // of_one, 1, _MAX_TOLD))

  def _tell(self, index: state_index.StateIndex, program: "_Program", start: int, size: int
            ) -> tuple[list[state_index.Told], np.ndarray]:
    """The states of as many of `size` configurations as fit into the budget, and their layouts.

    Fewer than `size` are as many as the next pieces are given, too: to try more each time would
    tell states apart twice.
    """
    layouts = program.layouts(start, size)
    while True:
      told = index.tell(layouts)
      needed = (max(level.offset[-1] for level in told) * (self._bytes + _INDEX_BYTES)
                + index.messages(told) * _MESSAGE_BYTES)
      if needed <= self._budget or size == 1:
        return told, layouts
      size = max(1, min(size // 2, int(size * self._budget / needed)))
      layouts = layouts[:, :size]

  def _pays(self, index: state_index.StateIndex, program: "_Program") -> bool:
    """Whether the program's first configurations cost less by their distinct states.

    They stand for all: a program whose later configurations repeat one another more, or less, is
    scored in the slower way, to the same scores.
    """
    size = min(_PILOT, self._told_at_once(index), len(program.prepared.choice))
    told, layouts = self._tell(index, program, 0, size)
    size = layouts.shape[1]
    # Convolutions are computed on all levels but the last, their sums on all but the first.
    own = size * _twice_inside(program.arrays["rows"])
    distinct = _COST_OF_DISTINCT * _twice_inside([level.offset[-1] for level in told])
    return distinct + _COST_OF_TELLING * size * sum(index.groups) < own

  def _own_at_once(self, program: "_Program") -> int:
    rows = max(int(program.arrays["rows"][-1]), 1)
    # The states of a reference list are computed with each piece: not for a few others only.
    size = max(_CACHED_STATES // rows, 8, 2 * program.references)
    return int(max(min(size, self._budget // (rows * self._bytes) - program.references), 1))

  def call(self, name: str, *arguments: Mapping[str, Any]) -> Any:
    """Calls a method of the model, traced once for all shapes."""
    if name not in self._functions:
      self._functions[name] = tf.function(
          getattr(self._model, name), autograph=False,
          input_signature=[{key: _spec(key, value) for key, value in argument.items()}
                           for argument in arguments])
    found = self._functions[name](*({key: tf.convert_to_tensor(value)
                                     for key, value in argument.items()}
                                    for argument in arguments))
    return found.numpy() if isinstance(found, tf.Tensor) else found


class _Program:
  """An arranged program, and its configurations in that arrangement.

  Attributes:
    prepared: the program.
    arrays: what `data.partition.arrange` makes of it, without configurations.
    references: configurations of the reference list that stand before each list.
  """

  def __init__(self, prepared: batches.PreparedGraph, model: models.Model):
    self.prepared = prepared
    self._reference = (batches.reference_list(prepared, model.reference_size)
                       if model.reference_size else np.zeros([0], np.int64))
    self.references = len(self._reference)
    one = dataclasses.replace(prepared, choice=prepared.choice[:1])
    ((batch, _),) = batches.scoring_batches([one], 1, 0)
    self.arrays = model.arrange(batch)
    del self.arrays["configs"], self.arrays["config_mask"], self.arrays["reference_mask"]
    # Once for all pieces: the node features are the largest of them.
    self._tensors = {key: tf.convert_to_tensor(value) for key, value in self.arrays.items()}
    # The first nodes of the arrangement are the configurable ones, in another order.
    by_node = np.argsort(prepared.config_nodes)
    first = self.arrays["order"][:len(by_node)]
    self._order = by_node[np.searchsorted(prepared.config_nodes[by_node], first)]

  def masked(self, size: int) -> dict[str, Any]:
    """The arrays with the masks of a list of `size` configurations."""
    return {**self._tensors, "config_mask": np.ones([1, size], bool),
            "reference_mask": np.ones([1, self.references], bool)}

  def layouts(self, start: int, size: int) -> np.ndarray:
    """(configurable nodes, references + size, 18) int8, after the reference list `size` of them."""
    rows = np.concatenate([self._reference, self.prepared.choice[start:start + size]])
    return np.swapaxes(self.prepared.layouts(rows), 0, 1)[self._order]


def _twice_inside(sizes: Sequence[int]) -> int:
  """The sum of the sizes of neighbouring levels."""
  return int(sum(sizes[:-1]) + sum(sizes[1:]))


def _spec(key: str, value: Any) -> tf.TensorSpec:
  """Any number of rows; widths are fixed."""
  shape: list[int | None] = [None] * len(value.shape)
  if len(shape) > 1 and not key.endswith("_mask"):
    shape[-1] = int(value.shape[-1])
  return tf.TensorSpec(shape, tf.as_dtype(value.dtype))
