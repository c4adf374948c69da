"""Scores of any number of configurations of one program, in bounded memory.

What no configuration changes is computed once for the program. For the rest there are two ways.
Where configurations share many node states, thousands of configurations are deduplicated at a time
and each distinct state is computed once. Where deduplication does not pay off, or where
configurations attend to one another, some tens of configurations are computed at a time. The
reference list that attention uses is computed again with each chunk of configurations.
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

# Maximum configurations deduplicated per chunk. Larger chunks share more states.
_MAX_DEDUPLICATED = 8192
# Configurations that are deduplicated to estimate whether it pays off.
_PILOT = 512
# Above this many states at a time, more of them only overflow the processor's caches.
_CACHED_STATES = 100_000
# Cost of deduplicating one configuration at one group of nodes, and of one distinct state, in
# states of `config_dependent_part`. Measured once on 10,000 nodes.
_COST_OF_DEDUPLICATION = 0.25
_COST_OF_DISTINCT = 1.5
# Bytes of the indices of a state.
_INDEX_BYTES = 96
# Bytes of a message between distinct states while its indices are computed.
_MESSAGE_BYTES = 100


class Streamer:
  """Scores one layout program at a time; traced once for all of them."""

  def __init__(self, model: models.Partitioned, budget: int, distinct: bool | None = None):
    """Stores the model, whose variables may change between calls.

    Args:
      model: the model.
      budget: approximate number of bytes for the states of configurations.
      distinct: whether states are deduplicated. None: where an estimate says that it pays off.
        Ignored where the model does not support it.
    """
    self._model = model
    self._bytes = 4 * model.numbers_per_state
    self._budget = budget
    self._distinct = distinct if model.supports_distinct_states else False
    self._functions: dict[str, Callable[..., Any]] = {}

  def __call__(self, prepared: batches.PreparedGraph) -> np.ndarray:
    """(c',) float32: the scores of the usable configurations of a layout program, in order."""
    program = _ArrangedProgram(prepared, self._model)
    independent = self.call("config_independent_part", program.arrays)
    scores = np.empty(len(prepared.choice), np.float32)
    with tqdm.tqdm(total=len(scores), desc=prepared.name, unit="config", disable=None,
                   leave=False, delay=2) as bar:
      for start, chunk in self._chunks(program, independent):
        scores[start:start + len(chunk)] = chunk
        bar.update(len(chunk))
    return scores

  def _chunks(self, program: "_ArrangedProgram", independent: Mapping[str, tf.Tensor]
              ) -> Iterator[tuple[int, np.ndarray]]:
    """The start of each chunk of configurations, and the chunk's scores."""
    index: state_index.StateIndex | None = None
    start, count = 0, len(program.prepared.choice)
    if self._distinct is not False:
      index = state_index.StateIndex(program.arrays, len(program.arrays["rows"]) - 1)
      if self._distinct is None and not self._pays_off(index, program):
        _logger.debug("%s: deduplicating states does not pay off", program.prepared.name)
        index = None
    size = self._dependent_chunk(program) if index is None else self._distinct_chunk(index)
    while start < count:
      size = min(size, count - start)
      if index is None:
        scores = self.call(
            "config_dependent_part",
            {**program.masked(start, size), "configs": program.layouts(start, size)}, independent)
      else:
        levels, layouts = self._deduplicate(index, program, start, size)
        size = layouts.shape[1]
        distinct = index.arrays(levels, layouts, self._pooled_levels)
        scores = self.call(
            "distinct_states_part", program.masked(start, size), independent, distinct)
      yield start, scores[0]
      start += size

  @property
  def _pooled_levels(self) -> tuple[int, ...]:
    assert isinstance(self._model, models.DistinctStates)
    return self._model.pooled_levels

  def _distinct_chunk(self, index: state_index.StateIndex) -> int:
    """How many configurations to deduplicate at a time."""
    of_one = _INDEX_BYTES * max(sum(index.groups), 1)
    return int(np.clip(self._budget // of_one, 1, _MAX_DEDUPLICATED))

  def _deduplicate(self, index: state_index.StateIndex, program: "_ArrangedProgram", start: int,
                   size: int) -> tuple[list[state_index.LevelStates], np.ndarray]:
    """The distinct states of the first `size` configurations, or of as many as fit the budget.

    If fewer than `size` fit, the following chunks are as small: trying more each time would
    deduplicate the same configurations twice.

    Returns:
      The states at each level, and the configurations' layouts.
    """
    layouts = program.layouts(start, size)
    while True:
      levels = index.deduplicate(layouts)
      needed = (max(level.offset[-1] for level in levels) * (self._bytes + _INDEX_BYTES)
                + index.messages(levels) * _MESSAGE_BYTES)
      if needed <= self._budget or size == 1:
        return levels, layouts
      size = max(1, min(size // 2, int(size * self._budget / needed)))
      layouts = layouts[:, :size]

  def _pays_off(self, index: state_index.StateIndex, program: "_ArrangedProgram") -> bool:
    """Whether deduplication is estimated to be cheaper for the program's first configurations.

    The first configurations represent all of them. If later configurations share more or fewer
    states, the slower way is used, with the same scores.
    """
    size = min(_PILOT, self._distinct_chunk(index), len(program.prepared.choice))
    levels, layouts = self._deduplicate(index, program, 0, size)
    size = layouts.shape[1]
    # Convolutions are computed on all levels but the last, their sums on all but the first.
    dependent = size * _twice_inside(program.arrays["rows"])
    distinct = _COST_OF_DISTINCT * _twice_inside([level.offset[-1] for level in levels])
    return distinct + _COST_OF_DEDUPLICATION * size * sum(index.groups) < dependent

  def _dependent_chunk(self, program: "_ArrangedProgram") -> int:
    """How many configurations to compute at a time without deduplication."""
    rows = max(int(program.arrays["rows"][-1]), 1)
    # Each chunk computes the reference list again, so a chunk is at least twice as long.
    size = max(_CACHED_STATES // rows, 8, 2 * program.references)
    return int(max(min(size, self._budget // (rows * self._bytes) - program.references), 1))

  def call(self, name: str, *arguments: Mapping[str, Any]) -> Any:
    """Calls a method of the model, traced once for all shapes."""
    if name not in self._functions:
      self._functions[name] = tf.function(
          getattr(self._model, name), autograph=False,
          input_signature=[{key: _spec(key, value) for key, value in argument.items()}
                           for argument in arguments])
    result = self._functions[name](*({key: tf.convert_to_tensor(value)
                                      for key, value in argument.items()}
                                     for argument in arguments))
    return result.numpy() if isinstance(result, tf.Tensor) else result


class _ArrangedProgram:
  """An arranged program, and its configurations in that arrangement.

  Attributes:
    prepared: the program.
    arrays: its arrays by `data.partition.arrange`, without configurations.
    references: number of reference configurations that precede each list.
  """

  def __init__(self, prepared: batches.PreparedGraph, model: models.Partitioned):
    self.prepared = prepared
    self._reference = (batches.reference_list(prepared, model.reference_size)
                       if model.reference_size else np.zeros([0], np.int64))
    self.references = len(self._reference)
    one = dataclasses.replace(prepared, choice=prepared.choice[:1])
    ((batch, _),) = batches.scoring_batches([one], 1, 0)
    self.arrays = model.arrange(batch)
    self._width = self.arrays["configs"].shape[-1]
    self.arrays.pop("config_costs", None)
    del self.arrays["configs"], self.arrays["config_mask"], self.arrays["reference_mask"]
    # Converted once for all chunks: the node features are the largest of them.
    self._tensors = {key: tf.convert_to_tensor(value) for key, value in self.arrays.items()}
    # The first nodes of the arrangement are the configurable ones, in another order.
    by_node = np.argsort(prepared.config_nodes)
    first = self.arrays["order"][:len(by_node)]
    self._order = by_node[np.searchsorted(prepared.config_nodes[by_node], first)]

  def masked(self, start: int, size: int) -> dict[str, Any]:
    """The arrays with the masks of a list of `size` configurations, and their costs, if any."""
    masked = {**self._tensors, "config_mask": np.ones([1, size], bool),
              "reference_mask": np.ones([1, self.references], bool)}
    if self.prepared.costs is not None:
      masked["config_costs"] = self.prepared.costs(self._rows(start, size))[0][None]
    return masked

  def layouts(self, start: int, size: int) -> np.ndarray:
    """(configurable nodes, references + size, w) int8: the reference list, then a chunk."""
    layouts = self.prepared.layouts(self._rows(start, size))[..., :self._width]
    return np.swapaxes(layouts, 0, 1)[self._order]

  def _rows(self, start: int, size: int) -> np.ndarray:
    """(references + size,) the configurations of the reference list, then those of a chunk."""
    return np.concatenate([self._reference, self.prepared.choice[start:start + size]])


def _twice_inside(sizes: Sequence[int] | np.ndarray) -> int:
  """The sum of the sizes of neighbouring levels."""
  return int(sum(sizes[:-1]) + sum(sizes[1:]))


def _spec(key: str, value: Any) -> tf.TensorSpec:
  """A specification with any number of rows and fixed widths."""
  shape: list[int | None] = [None] * len(value.shape)
  if len(shape) > 1 and not key.endswith("_mask"):
    shape[-1] = int(value.shape[-1])
  return tf.TensorSpec(shape, tf.as_dtype(value.dtype))
