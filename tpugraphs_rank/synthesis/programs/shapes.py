"""Sizes of arrays: nice ones, near what a graph asks for, and how one operation's fit another's."""

from collections.abc import Iterator, Sequence
import itertools
import math

import numpy as np

Shape = tuple[int, ...]

# Rich in divisors, so that there are many tiles.
NICE = tuple(sorted({base * 2 ** power for base in (1, 3, 5, 9, 15) for power in range(12)
                     if base * 2 ** power <= 4096} - {1, 3, 5, 9, 15}))
_NICE_LOGS = np.log2(NICE)
# Short axes leave nothing to cut.
_SHORTEST = 8


def nice(size: float, rng: np.random.Generator, least: int = _SHORTEST) -> int:
  """A nice size near the one given: one of the three nearest, nearer ones more often."""
  distance = np.abs(_NICE_LOGS - math.log2(max(size, least)))
  near = [place for place in np.argsort(distance)[:3] if NICE[place] >= least]
  weights = np.exp(-6 * distance[near])
  return int(NICE[near[int(rng.choice(len(near), p=weights / weights.sum()))]])


def of_bucket(bucket: int, rank: int, rng: np.random.Generator,
              logs: Sequence[float] | None = None) -> Shape:
  """A shape of nice sizes that holds 2^bucket to 2^(bucket + 1) elements, if there is one.

  Args:
    bucket: floor(log2(elements)).
    rank: number of axes.
    rng: draws it.
    logs: (rank,) how long the axes are against each other, as logarithms to base 2; None: at
      random, no axis more than 16 times as long as another where that is possible.
  """
  if bucket <= 0:
    return ()
  rank = max(1, min(rank, bucket // 3 or 1))
  best: tuple[float, Shape] = (math.inf, ())
  for _ in range(12):
    # The axes' logarithms: what the elements leave to each, and what sets them apart.
    apart = rng.uniform(-2, 2, rank) if logs is None else np.asarray(logs, float)[:rank]
    total = bucket + rng.uniform(0.2, 0.8)
    sizes = total / rank + apart - apart.mean()
    shape = tuple(nice(2 ** size, rng, min(_SHORTEST, 2 ** bucket)) for size in sizes)
    wrong = abs(math.log2(math.prod(shape)) - total)
    if wrong < best[0]:
      best = wrong, shape
    if math.prod(shape).bit_length() - 1 == bucket:
      return shape
  return best[1]


def subsequence(part: Sequence[int], whole: Sequence[int]) -> tuple[int, ...] | None:
  """Places in `whole` of the sizes of `part`, in order; None where they are not there."""
  places, start = [], 0
  for size in part:
    found = next((place for place in range(start, len(whole)) if whole[place] == size), None)
    if found is None:
      return None
    places.append(found)
    start = found + 1
  return tuple(places)


def permutations(rank: int) -> Iterator[tuple[int, ...]]:
  """All orders of axes but the given one."""
  return (order for order in itertools.permutations(range(rank)) if order != tuple(range(rank)))


def subsets(rank: int, fewest: int = 0) -> list[tuple[int, ...]]:
  """All proper subsets of the axes, in order."""
  return [axes for count in range(fewest, rank)
          for axes in itertools.combinations(range(rank), count)]
