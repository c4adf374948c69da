"""Which configurations stand in a list, and which held-out ones a split of configurations has."""

from collections.abc import Sequence

import numpy as np


def sample_configs(runtimes: np.ndarray, size: int, rng: np.random.Generator, skew: float = 0.0,
                   order: np.ndarray | None = None) -> np.ndarray:
  """Draws configurations without replacement.

  Args:
    runtimes: (c,); only their order matters.
    size: how many; all of them where there are fewer.
    rng: the randomness.
    skew: the fastest is drawn exp(skew) times as readily as the slowest, those between by rank;
      0 is uniform.
    order: (c,) what a stable sort of `runtimes` gives, where it is known.

  Returns:
    (min(size, c),) int64 indices, in the order they were drawn.
  """
  count = len(runtimes)
  if skew == 0.0 or size >= count:
    return rng.permutation(count)[:size]
  if order is None:
    order = np.argsort(runtimes, kind="stable")
  rank = np.empty(count)
  rank[order] = np.linspace(0.0, 1.0, count)
  # Gumbel top-k: the same as drawing one after the other with weights exp(-skew * rank).
  keys = skew * rank - rng.gumbel(size=count)
  first = np.argpartition(keys, size)[:size]  # Sorting all takes ten times as long.
  return first[np.argsort(keys[first], kind="stable")]


def reference_configs(digests: np.ndarray, size: int) -> np.ndarray:
  """Picks the configurations of a reference list by their content alone.

  The choice looks random, yet depends neither on the order of the configurations nor on repeats:
  the distinct ones with the smallest digests.

  Args:
    digests: (c,) uint64, of `graph.config_digests()`.
    size: how many at most.

  Returns:
    (min(size, distinct digests),) int64 indices into `digests`.
  """
  _, first = np.unique(digests, return_index=True)
  return first[:size]


def split_configs(keys: np.ndarray, train_fraction: float, valid_fraction: float,
                  seed: int | Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Splits the configurations of a known program by distinct configuration.

  Args:
    keys: (c,) equal where the configurations are equal.
    train_fraction: share of the distinct configurations that train.
    valid_fraction: share of the distinct configurations that validate.
    seed: of the division; it should differ from program to program, or the same places of all
      lists of one length end up on the same side.

  Returns:
    The indices that train, validate and test, each ascending; repeats of a configuration stand
    on one side, and each side has at least one where there are three or more.
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
  return tuple(np.flatnonzero(sides == number) for number in range(3))
