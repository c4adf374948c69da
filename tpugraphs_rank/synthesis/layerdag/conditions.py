"""What a generator can be asked for, as numbers that a network takes.

Scalars (labels, sizes) have long tails, so the network sees the normal quantile of their rank among
the training graphs: the median becomes 0, what a sixth of them exceed about 1. Beyond the range
that was seen they stay at its ends. A category is its number.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np
from scipy import stats

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib

SIZE, ROOT = "size", "root"
# A category that no graph has: told to the network where a condition is left open.
OPEN = -1
MOST_CATEGORIES = 1023
_NEAREST = 10


@dataclasses.dataclass(frozen=True)
class Conditions:
  """The conditions of a model, with what training showed of them.

  Attributes:
    names: of the conditions: labels, "size", "root".
    table: (G, T) float64: the conditions of the training graphs, from which unasked ones are drawn.
    categories: how many values "root" may take.
  """

  names: tuple[str, ...]
  table: np.ndarray
  categories: int

  @classmethod
  def of(cls, dags: dags_lib.Dags, names: Sequence[str]) -> "Conditions":
    """The conditions of training graphs.

    Raises:
      ConfigError: the graphs have no label of that name.
    """
    names = tuple(name for name in names if name)
    if len(set(names)) < len(names):
      raise errors.ConfigError(f"data.conditions is {', '.join(names)}; expected each name once")
    if ROOT in names and len(dags.vocabularies[0]) > MOST_CATEGORIES:
      raise errors.ConfigError(
          f"data.conditions names {ROOT}, and {dags.x_names[0]} has {len(dags.vocabularies[0])} "
          f"values; at most {MOST_CATEGORIES} can be told apart: leave it out")
    return cls(names, values(dags, names), len(dags.vocabularies[0]))

  @property
  def scalars(self) -> list[int]:
    """The columns that are numbers, not categories."""
    return [place for place, name in enumerate(self.names) if name != ROOT]

  def encoded(self, asked: np.ndarray) -> dict[str, np.ndarray]:
    """Conditions (B, T) as the networks take them; NaN stands for one that is left open.

    Returns:
      scalar (B, number of scalars) float32, 0 where open; told (B, T) float32, 1 where not open;
      category (B,) int32; target (B,) float32 the number of nodes asked for, 0 where open.
    """
    asked = np.asarray(asked, np.float64)
    told = np.isfinite(asked)
    scalar = np.zeros([len(asked), len(self.scalars)], np.float32)
    for place, column in enumerate(self.scalars):
      known = np.sort(self.table[:, column])
      rank = 0.5 * (np.searchsorted(known, asked[:, column], "left")
                    + np.searchsorted(known, asked[:, column], "right"))
      scalar[:, place] = stats.norm.ppf((rank + 0.5) / (len(known) + 1))
    scalar[~told[:, self.scalars]] = 0.0
    column = lambda name, open_: (
        np.where(told[:, self.names.index(name)], asked[:, self.names.index(name)], open_)
        if name in self.names else np.full(len(asked), open_))
    return {"scalar": scalar, "told": told.astype(np.float32),
            "category": column(ROOT, OPEN).astype(np.int32),
            "target": column(SIZE, 0).astype(np.float32)}

  def drawn(self, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, T): conditions of training graphs, drawn together: they belong together."""
    return self.table[rng.integers(len(self.table), size=count)]


def values(dags: dags_lib.Dags, names: Sequence[str]) -> np.ndarray:
  """(G, T) float64: the conditions of graphs.

  Raises:
    ConfigError: the graphs have no label of that name.
  """
  columns = []
  for name in names:
    if name == SIZE:
      columns.append(dags.sizes.astype(np.float64))
    elif name == ROOT:
      columns.append(dags.x[dags.node_off[:-1], 0].astype(np.float64))
    elif name in dags.y_names:
      columns.append(dags.y[:, dags.y_names.index(name)])
    else:
      known = (*dags.y_names, SIZE, ROOT)
      raise errors.ConfigError(
          f"data.conditions names {name!r}, which the graphs do not have"
          f"{config_lib.nearest(name, known)}; expected some of: {', '.join(known)}")
  return np.stack(columns, axis=1) if columns else np.zeros([len(dags), 0])


def asked_for(conditions: Conditions, count: int, labels: dict[str, np.ndarray] | None,
              rng: np.random.Generator) -> np.ndarray:
  """(count, T): conditions drawn from training, those that are given replaced.

  Given some, the others are drawn from the training graphs nearest in what is given, so that they
  fit: a kernel of 5 nodes with the slowest label need not exist.

  Args:
    conditions: the model's.
    count: of graphs.
    labels: for some of the conditions (count,) values or one value.
    rng: of the draw.

  Raises:
    ConfigError: a name is no condition of the model, or the number of values is wrong.
  """
  drawn = conditions.drawn(count, rng)
  if not labels:
    return drawn
  given = {}
  for name, value in labels.items():
    if name not in conditions.names:
      raise errors.ConfigError(
          f"labels name {name!r}{config_lib.nearest(name, conditions.names)}; this model was "
          f"trained on the conditions: {', '.join(conditions.names) or 'none'}")
    try:
      value = np.asarray(value, np.float64)
    except (TypeError, ValueError):
      raise errors.ConfigError(f"labels[{name!r}] is {value!r}; expected numbers") from None
    if value.shape not in ((), (count,)) or not np.isfinite(value).all():
      raise errors.ConfigError(
          f"labels[{name!r}] has shape {value.shape}; expected one number, or {count} of them, one "
          "a graph, all finite")
    _check(name, value, conditions)
    given[conditions.names.index(name)] = np.broadcast_to(value, [count])
  asked = np.full_like(drawn, np.nan)
  asked[:, list(given)] = np.stack(list(given.values()), axis=1)
  fitting = _fitting(conditions, asked, list(given), rng)
  return np.where(np.isnan(asked), conditions.table[fitting], asked)


def _check(name: str, value: np.ndarray, conditions: Conditions) -> None:
  """Raises ConfigError for numbers that no graph can have."""
  if name == SIZE and value.size and value.min() < 1:
    raise errors.ConfigError(f"labels[{name!r}] holds {value.min():g}; expected numbers of nodes")
  if name == ROOT and ((value != np.floor(value)) | (value < 0)
                       | (value >= conditions.categories)).any():
    raise errors.ConfigError(
        f"labels[{name!r}] holds {np.ravel(value)[0]:g}; expected places in the vocabulary of the "
        f"first attribute, 0 to {conditions.categories - 1}")


def _fitting(conditions: Conditions, asked: np.ndarray, given: list[int],
             rng: np.random.Generator) -> np.ndarray:
  """For each row a training graph drawn from those nearest in the given conditions."""
  table = conditions.table
  rows, which = np.unique(asked[:, given], axis=0, return_inverse=True)
  drawn = np.zeros(len(asked), np.int64)
  for number, row in enumerate(rows):
    distance = np.zeros(len(table))
    for column, value in zip(given, row):
      known = np.sort(table[:, column])
      rank = lambda values: np.searchsorted(known, values) / len(known)
      distance += (np.abs(rank(value) - rank(table[:, column])) if column in conditions.scalars
                   else value != table[:, column])
    # All that are as near as the tenth: which come first in the file says nothing.
    near = np.flatnonzero(distance <= np.sort(distance)[min(_NEAREST, len(table)) - 1])
    mine = np.flatnonzero(which.reshape(-1) == number)
    drawn[mine] = near[rng.integers(len(near), size=len(mine))]
  return drawn
