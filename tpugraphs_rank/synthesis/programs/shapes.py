"""Array shapes with sizes that are common in practice, near a requested number of elements."""

from collections.abc import Iterator, Sequence
import itertools
import math

import numpy as np

Shape = tuple[int, ...]

# Sizes with many divisors, so that there are many tile sizes.
NICE = tuple(sorted({base * 2 ** power for base in (1, 3, 5, 9, 15) for power in range(12)
                     if base * 2 ** power <= 4096} - {1, 3, 5, 9, 15}))
_NICE_LOGS = np.log2(NICE)
# Shorter axes leave nothing to tile.
_SHORTEST = 8


def nice(size: float, rng: np.random.Generator, least: int = _SHORTEST) -> int:
  """A size from `NICE` near `size`: one of the three nearest, with nearer ones more likely."""
  distance = np.abs(_NICE_LOGS - math.log2(max(size, least)))
  near = [place for place in np.argsort(distance)[:3] if NICE[place] >= least]
  weights = np.exp(-6 * distance[near])
  return int(NICE[near[int(rng.choice(len(near), p=weights / weights.sum()))]])


def of_bucket(bucket: int, rank: int, rng: np.random.Generator,
              logs: Sequence[float] | None = None) -> Shape:
  """A shape of nice sizes with 2^bucket to 2^(bucket + 1) elements, if one is found.

  Args:
    bucket: floor(log2(elements)).
    rank: number of axes.
    rng: source of the random choices.
    logs: (rank,) relative lengths of the axes, as logarithms to base 2; None: random lengths, with
      no axis more than 16 times as long as another where possible.
  """
  if bucket <= 0:
    return ()
  rank = max(1, min(rank, bucket // 3 or 1))
  best: tuple[float, Shape] = (math.inf, ())
  for _ in range(12):
    # Split log2(elements) evenly between the axes, then apply their relative lengths.
    relative = rng.uniform(-2, 2, rank) if logs is None else np.asarray(logs, float)[:rank]
    total = bucket + rng.uniform(0.2, 0.8)
    sizes = total / rank + relative - relative.mean()
    shape = tuple(nice(2 ** size, rng, min(_SHORTEST, 2 ** bucket)) for size in sizes)
    error = abs(math.log2(math.prod(shape)) - total)
    if error < best[0]:
      best = error, shape
    if math.prod(shape).bit_length() - 1 == bucket:
      return shape
  return best[1]


def subsequence(part: Sequence[int], whole: Sequence[int]) -> tuple[int, ...] | None:
  """The axes of `whole` that have the sizes of `part`, in order; None if there are none."""
  axes, start = [], 0
  for size in part:
    axis = next((axis for axis in range(start, len(whole)) if whole[axis] == size), None)
    if axis is None:
      return None
    axes.append(axis)
    start = axis + 1
  return tuple(axes)


def permutations(rank: int) -> Iterator[tuple[int, ...]]:
  """All permutations of the axes except the identity."""
  return (order for order in itertools.permutations(range(rank)) if order != tuple(range(rank)))


def subsets(rank: int, fewest: int = 0) -> list[tuple[int, ...]]:
  """All proper subsets of the axes, as ascending tuples."""
  return [axes for count in range(fewest, rank)
          for axes in itertools.combinations(range(rank), count)]
