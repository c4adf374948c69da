"""Converts runtimes to labels. This is the only place that maps low runtimes to high labels."""

import dataclasses

import numpy as np

from tpugraphs_rank import errors


@dataclasses.dataclass(frozen=True)
class Labels:
  """Labels of one list of configurations, each (c,) float32, higher = faster.

  Attributes:
    relevance: dense rank among the distinct runtimes, scaled to 0 (slowest) .. 1 (fastest). Equal
      runtimes have equal relevance. It is never negative, because TensorFlow Ranking treats
      negative labels as padding and gives them no gradient.
    order: rank among all configurations, with random tie-breaking, scaled to 0 .. 1. It is never
      negative either. Losses over whole permutations (ListMLE) need a total order.
    target: standardised -log(runtime), for regression; may be negative.
  """

  relevance: np.ndarray
  order: np.ndarray
  target: np.ndarray


def make_labels(runtimes: np.ndarray, rng: np.random.Generator | None = None) -> Labels:
  """Converts runtimes to labels.

  Args:
    runtimes: (c,) positive, in any unit.
    rng: breaks ties at random; None: ties are broken by position.

  Raises:
    DataError: a runtime is zero or negative (the released test splits have none).
  """
  runtimes = np.asarray(runtimes, np.float64)
  if (runtimes <= 0).any():
    raise errors.DataError(
        "labels need positive runtimes, but some are zero or negative (the released test splits "
        "hold no measurements: train and evaluate on train or valid)")
  distinct, rank = np.unique(-runtimes, return_inverse=True)
  relevance = rank.reshape(-1) / max(len(distinct) - 1, 1)
  noise = rng.permutation(len(runtimes)) if rng is not None else np.arange(len(runtimes))[::-1]
  order = np.empty(len(runtimes))
  order[np.lexsort((noise, rank.reshape(-1)))] = np.linspace(0.0, 1.0, len(runtimes))
  logs = -np.log(runtimes)
  target = (logs - logs.mean()) / max(logs.std(), 1e-9)
  return Labels(relevance.astype(np.float32), order.astype(np.float32), target.astype(np.float32))
