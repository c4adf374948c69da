"""Selects the configurations of a list, and splits the configurations of a program."""

from collections.abc import Sequence

import numpy as np


def sample_configs(runtimes: np.ndarray, size: int, rng: np.random.Generator, skew: float = 0.0,
                   order: np.ndarray | None = None) -> np.ndarray:
  """Samples configurations without replacement.

  Args:
    runtimes: (c,); only their order matters.
    size: number of configurations; all of them if there are fewer.
    rng: random number generator.
    skew: the fastest configuration is exp(skew) times as likely as the slowest, and the others
      lie between them by rank; 0: uniform.
    order: (c,) the stable argsort of `runtimes`, if known.

  Returns:
    (min(size, c),) int64 indices, in the order of the draws.
  """
  count = len(runtimes)
  if skew == 0.0 or size >= count:
    return rng.permutation(count)[:size]
  if order is None:
    order = np.argsort(runtimes, kind="stable")
  rank = np.empty(count)
  rank[order] = np.linspace(0.0, 1.0, count)
  # Gumbel top-k: equivalent to successive draws with weights exp(-skew * rank).
  keys = skew * rank - rng.gumbel(size=count)
  first = np.argpartition(keys, size)[:size]  # Sorting all keys takes ten times as long.
  return first[np.argsort(keys[first], kind="stable")]


def reference_configs(digests: np.ndarray, size: int) -> np.ndarray:
  """Selects the configurations of a reference list by their content alone.

  It selects the distinct configurations with the smallest hashes. The choice looks random, but
  does not depend on the order of the configurations or on repeats.

  Args:
    digests: (c,) uint64, of `graph.config_digests()`.
    size: maximum number of configurations.

  Returns:
    (min(size, distinct digests),) int64 indices into `digests`.
  """
  _, first = np.unique(digests, return_index=True)
  return first[:size]


def split_configs(keys: np.ndarray, train_fraction: float, valid_fraction: float,
                  seed: int | Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Splits the distinct configurations of one program into three sides.

  Args:
    keys: (c,) equal for equal configurations.
    train_fraction: share of the distinct configurations for training.
    valid_fraction: share of the distinct configurations for validation.
    seed: random seed. It should differ between programs; otherwise the same positions of all lists
      of one length end up on the same side.

  Returns:
    The indices for training, validation and test, each ascending. Repeats of a configuration are on
    the same side. Each side has at least one configuration if there are at least three.
  """
  distinct, inverse = np.unique(keys, return_inverse=True)
  count = len(distinct)
  train = int(np.clip(round(train_fraction * count), 1, max(count - 2, 1)))
  valid = int(np.clip(round(valid_fraction * count), 1, max(count - train - 1, 1)))
  side = np.full(count, 2)
  order = np.random.default_rng([*np.atleast_1d(seed), count]).permutation(count)
  side[order[:train]] = 0
  side[order[train:train + valid]] = 1
  sides = side[inverse.reshape(-1)]
  return np.flatnonzero(sides == 0), np.flatnonzero(sides == 1), np.flatnonzero(sides == 2)
