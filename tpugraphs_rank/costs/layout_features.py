"""Features of configurations from the simulated layout assignment, for trees and networks.

Effects count elements. They are related to the elements of the program's nodes, because only the
order of one program's configurations matters.
"""

from collections.abc import Iterator

import numpy as np

from tpugraphs_rank.costs import layout_assignment
from tpugraphs_rank.costs import targets
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import tile_features

# Nanoseconds of an element or of an inner loop on one core, rounded from a linear fit to the
# training and validation programs of `layout:xla_cpu:mixed:v1`.
NANOSECONDS: dict[str, float] = {
    "copy_near": 0.13, "copy_middle": 0.3, "copy_far": 0.9, "copy_outer": 0.12, "copy_runs": 0.3,
    "math_changed": -0.2, "math_runs": 0.4, "sum_changed": 0.02, "math_wide": 1.5,
    "math_split": -0.8, "barrier": 0.05, "row_major": -0.05}
NUM_TOTALS = 2 * len(layout_assignment.EFFECTS) + 1
NUM_REQUEST_FEATURES = len(layout_assignment.EFFECTS)
# Steps of the stored roots in 1: effects are up to 112 times the mean size of a node, and one of
# that size has an error of at most 8 %.
STEPS = 12
# Typical shares are a few hundredths.
_SHARE, _ROOT, _TIME = 10.0, 4.0, 30.0
_BLOCK = 1 << 23  # Effects that are in memory at a time.
_KEPT = 1 << 22  # Features that are kept for each program.


class LayoutFeatures:
  """Features of one program's configurations; computed when they are asked for."""

  def __init__(self, graph: graphs.LayoutGraph, facts: targets.TargetFacts):
    """Prepares the program.

    Args:
      graph: the program.
      facts: the hardware.
    """
    self._graph = graph
    self._simulated = layout_assignment.Assignment(graph, facts)
    elements = np.maximum(graph.node_feat[:, tile_features.VOLUME], 0).astype(np.float64)
    self._mean = max(elements.mean(), 1.0)
    self._sum = self._mean * len(elements)
    self._kept: tuple[np.ndarray, np.ndarray] | None = None
    # Rows and features of the last call: a batch asks for both parts, one after the other.
    self._last: tuple[np.ndarray, tuple[np.ndarray, np.ndarray]] | None = None

  def __call__(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The features of the configurations `rows` (r,).

    Returns:
      (r, NUM_TOTALS) float32: for each effect its sum over all requests as a share of the elements
        of all nodes, then the signed roots of these shares, then the sum weighted with
        `NANOSECONDS`, all scaled to about 1.
      (r, nc, 3, NUM_REQUEST_FEATURES) int8: the effects of each request on the
        mean size of a node: signed roots in steps of 1 / `STEPS`.
    """
    configs = self._graph.num_configs
    wide = 3 * len(self._graph.node_config_ids) * NUM_REQUEST_FEATURES
    if configs * wide > _KEPT:
      last = self._last
      if last is None or not np.array_equal(last[0], rows):
        self._last = last = rows, self._computed(rows)
      return last[1]
    if self._kept is None:
      self._kept = self._computed(np.arange(configs))
    totals, requests = self._kept
    return totals[rows], requests[rows]

  def _computed(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    totals = np.empty([len(rows), NUM_TOTALS], np.float32)
    requests = np.empty(
        [len(rows), len(self._graph.node_config_ids), 3, NUM_REQUEST_FEATURES], np.int8)
    start = 0
    for effects in self._blocks(rows):
      end = start + len(effects)
      shares = effects.sum(axis=(1, 2), dtype=np.float64) * (self._mean / self._sum)
      weights = np.array([NANOSECONDS.get(name, 0.0) for name in layout_assignment.EFFECTS])
      totals[start:end] = np.concatenate(
          [_SHARE * shares, _ROOT * _root(shares), _TIME * (shares @ weights)[:, None]], axis=1)
      requests[start:end] = np.clip(np.rint(STEPS * _root(effects)), -127, 127)
      start = end
    return totals, requests

  def _blocks(self, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Relative effects (b, nc, 3, e), block by block."""
    wide = 3 * max(len(self._graph.node_config_ids), 1) * NUM_REQUEST_FEATURES
    size = max(_BLOCK // wide, 1)
    for start in range(0, len(rows), size):
      yield self._simulated.effects(
          self._graph.layouts(rows[start:start + size])) / np.float32(self._mean)


def _root(values: np.ndarray) -> np.ndarray:
  return np.sign(values) * np.sqrt(np.abs(values))
