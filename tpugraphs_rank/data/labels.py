"""Runtimes to labels: the one place where "fast" becomes "high"."""

import dataclasses

import numpy as np

from tpugraphs_rank import errors


@dataclasses.dataclass(frozen=True)
class Labels:
  """Labels of one list of configurations, each (c,) float32, higher = faster.

  Attributes:
    relevance: dense rank among the distinct runtimes, scaled to 0 (slowest) .. 1 (fastest);
      never negative, since TensorFlow Ranking takes negative labels for padding and gives them no
      gradient. Equal runtimes have equal relevance.
    order: rank among all configurations, ties broken at random, scaled to 0 .. 1; also never
      negative. Losses over whole permutations (ListMLE) need a total order.
    target: standardised -log(runtime), for regression; may be negative.
  """

  relevance: np.ndarray
  order: np.ndarray
  target: np.ndarray


def make_labels(runtimes: np.ndarray, rng: np.random.Generator | None = None) -> Labels:
  """Turns runtimes into labels.

  Args:
    runtimes: (c,) in any one unit, above zero.
    rng: breaks ties; without it they are broken by position.

  Raises:
    DataError: a runtime is zero or negative (the released test splits have none).
  """
  runtimes = np.asarray(runtimes, np.float64)
  if (runtimes <= 0).any():
    raise errors.DataError(
        "labels need runtimes above zero; found zero (the released test splits hold no "
        "measurements: train and evaluate on train or valid)")
  distinct, rank = np.unique(-runtimes, return_inverse=True)
  relevance = rank.reshape(-1) / max(len(distinct) - 1, 1)
  noise = rng.permutation(len(runtimes)) if rng is not None else np.arange(len(runtimes))[::-1]
  order = np.empty(len(runtimes))
  order[np.lexsort((noise, rank.reshape(-1)))] = np.linspace(0.0, 1.0, len(runtimes))
  logs = -np.log(runtimes)
  target = (logs - logs.mean()) / max(logs.std(), 1e-9)
  return Labels(relevance.astype(np.float32), order.astype(np.float32), target.astype(np.float32))
