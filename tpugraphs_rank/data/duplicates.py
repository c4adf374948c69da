"""Equal configurations of one graph: how many there are, how far apart, and one for all of them.

Public graphs repeat configurations (the default up to 40 times), each measured anew, so that their
runtimes differ a little.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Repeats:
  """How often the configurations of a graph are repeated.

  Attributes:
    distinct: distinct configurations.
    rows: configurations that have stood before in the graph.
    largest: how often the most frequent configuration stands in the graph.
    squares: sum over all repeated configurations of ((runtime - mean) / mean)^2, the mean being
      that of the configuration's own runtimes; 0 without runtimes.
    freedom: degrees of freedom of `squares`: the sum over the repeated configurations of their
      number less one; 0 without runtimes.
  """

  distinct: int
  rows: int
  largest: int
  squares: float
  freedom: int


def count(keys: np.ndarray, runtimes: np.ndarray) -> Repeats:
  """Counts repeats, and measures how far apart the runtimes of equal configurations are.

  Args:
    keys: (c,) equal where the configurations are equal.
    runtimes: (c,) float64 in any unit; zeros where they were not measured.
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
  """Makes one configuration of all equal ones.

  Args:
    keys: (c,) equal where the configurations are equal.
    runtimes: (c,) float64.
    choice: (c',) the configurations that take part; the others have no say in the runtimes.
    how: "mean" (arithmetic), "minimum" or "first" (in the order of `choice`): the runtime that
      stands for those of equal configurations.

  Returns:
    (d,) the first of each distinct configuration, in the order of `choice`; and (c,) float64
    runtimes, those of the (d,) configurations merged, the others as they were.
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
    raise ValueError(f"no way {how!r} to merge runtimes; expected mean, minimum or first")
  result = runtimes.copy()
  result[choice[first]] = merged
  return choice[np.sort(first)], result
