"""Equal configurations of one graph: counts, spread of their runtimes, and merging.

Public graphs repeat configurations (the default up to 40 times). Each repeat was measured
separately, so its runtime differs slightly.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Repeats:
  """How often the configurations of a graph are repeated.

  Attributes:
    distinct: distinct configurations.
    rows: configurations that are equal to an earlier one.
    largest: occurrences of the most frequent configuration.
    squares: sum over all repeated configurations of ((runtime - mean) / mean)^2, where the mean is
      over the runtimes of that configuration; 0 without runtimes.
    freedom: degrees of freedom of `squares`: the sum over the repeated configurations of
      occurrences minus one; 0 without runtimes.
  """

  distinct: int
  rows: int
  largest: int
  squares: float
  freedom: int


def count(keys: np.ndarray, runtimes: np.ndarray) -> Repeats:
  """Counts repeats, and measures the spread of the runtimes of equal configurations.

  Args:
    keys: (c,) equal for equal configurations.
    runtimes: (c,) float64 in any unit; zeros if not measured.
  """
  _, groups, sizes = np.unique(keys, return_inverse=True, return_counts=True)
  rows = len(keys) - len(sizes)
  squares, freedom = 0.0, 0
  if rows and (runtimes > 0).all():
    means = np.bincount(groups, runtimes) / sizes
    squares = float((((runtimes - means[groups]) / means[groups]) ** 2)[sizes[groups] > 1].sum())
    freedom = rows
  return Repeats(len(sizes), rows, int(sizes.max(initial=0)), squares, freedom)


def merge(keys: np.ndarray, runtimes: np.ndarray, choice: np.ndarray, how: str
          ) -> tuple[np.ndarray, np.ndarray]:
  """Merges equal configurations into one.

  Args:
    keys: (c,) equal for equal configurations.
    runtimes: (c,) float64.
    choice: (c',) the configurations to merge; the others do not affect the runtimes.
    how: the merged runtime: "mean" (arithmetic), "minimum" or "first" (in the order of `choice`).

  Returns:
    (d,) the first occurrence of each distinct configuration, in the order of `choice`; and (c,)
    float64 runtimes, merged for those (d,) configurations and unchanged for the others.
  """
  _, first, groups = np.unique(keys[choice], return_index=True, return_inverse=True)
  values = runtimes[choice]
  if how == "mean":
    merged = np.bincount(groups, values) / np.bincount(groups)
  elif how == "minimum":
    merged = np.full(len(first), np.inf)
    np.minimum.at(merged, groups, values)
  elif how == "first":
    merged = values[first]
  else:
    raise ValueError(f"cannot merge runtimes by {how!r}; expected mean, minimum or first")
  result = runtimes.copy()
  result[choice[first]] = merged
  return choice[np.sort(first)], result
