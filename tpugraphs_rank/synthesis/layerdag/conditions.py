"""The conditions of a generator, encoded as numbers for the networks.

Scalars (labels, sizes) have long tails, so the networks see the normal quantile of a scalar's rank
among the training graphs: the median becomes 0, and the 84th percentile about 1. Values outside the
training range are clamped to its ends. A category is represented by its index.
"""

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np
from scipy import stats

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib

SIZE, ROOT = "size", "root"
# Counts of a graph. While it grows, the networks see how much of each requested count is left.
COUNTS = (SIZE, "depth", "edges", "leaves", "roots")
# Category that marks an unspecified condition; no graph has it.
UNSPECIFIED = -1
MAX_CATEGORIES = 1023
_NEAREST = 10


@dataclasses.dataclass(frozen=True)
class Conditions:
  """The conditions of a model, with their values in the training graphs.

  Attributes:
    names: names of the conditions: labels, some of COUNTS, or "root".
    table: (G, T) float64 conditions of the training graphs; unspecified ones are sampled from it.
    categories: number of values that "root" may take.
  """

  names: tuple[str, ...]
  table: np.ndarray
  categories: int

  @classmethod
  def of(cls, dags: dags_lib.Dags, names: Sequence[str]) -> "Conditions":
    """The conditions of the training graphs.

    Raises:
      ConfigError: the graphs do not have a condition of that name.
    """
    names = tuple(name for name in names if name)
    if len(set(names)) < len(names):
      raise errors.ConfigError(f"data.conditions is {', '.join(names)}; expected distinct names")
    if ROOT in names and len(dags.vocabularies[0]) > MAX_CATEGORIES:
      raise errors.ConfigError(
          f"data.conditions names {ROOT}, and {dags.x_names[0]} has {len(dags.vocabularies[0])} "
          f"values; at most {MAX_CATEGORIES} are supported: remove the condition")
    return cls(names, values(dags, names), len(dags.vocabularies[0]))

  @property
  def scalars(self) -> list[int]:
    """The columns with numbers, as opposed to categories."""
    return [index for index, name in enumerate(self.names) if name != ROOT]

  def encode(self, requested: np.ndarray) -> dict[str, np.ndarray]:
    """Encodes conditions (B, T) for the networks; NaN marks an unspecified one.

    Returns:
      scalar: (B, number of scalars) float32, 0 where unspecified.
      specified: (B, T) float32, 1 where specified, else 0.
      category: (B,) int32.
      target: (B,) float32 requested number of nodes, 0 where unspecified.
      targets: (B, 5) float32 requested values of COUNTS, -1 where unspecified.
    """
    requested = np.asarray(requested, np.float64)
    specified = np.isfinite(requested)
    scalar = np.zeros([len(requested), len(self.scalars)], np.float32)
    for index, column in enumerate(self.scalars):
      known = np.sort(self.table[:, column])
      rank = 0.5 * (np.searchsorted(known, requested[:, column], "left")
                    + np.searchsorted(known, requested[:, column], "right"))
      scalar[:, index] = stats.norm.ppf((rank + 0.5) / (len(known) + 1))
    scalar[~specified[:, self.scalars]] = 0.0

    def column_or(name: str, default: float) -> np.ndarray:
      if name not in self.names:
        return np.full(len(requested), default)
      column = self.names.index(name)
      return np.where(specified[:, column], requested[:, column], default)

    return {"scalar": scalar, "specified": specified.astype(np.float32),
            "category": column_or(ROOT, UNSPECIFIED).astype(np.int32),
            "target": column_or(SIZE, 0).astype(np.float32),
            "targets": np.stack([column_or(name, -1) for name in COUNTS], axis=1).astype(
                np.float32)}

  def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, T) conditions of randomly chosen training graphs; each row is one graph's."""
    return self.table[rng.integers(len(self.table), size=count)]


def values(dags: dags_lib.Dags, names: Sequence[str]) -> np.ndarray:
  """(G, T) float64 conditions of graphs.

  Raises:
    ConfigError: the graphs do not have a condition of that name.
  """
  columns = []
  for name in names:
    if name in COUNTS:
      columns.append(_count(dags, name).astype(np.float64))
    elif name == ROOT:
      columns.append(dags.x[dags.node_off[:-1], 0].astype(np.float64))
    elif name in dags.y_names:
      columns.append(dags.y[:, dags.y_names.index(name)])
    else:
      known = (*dags.y_names, *COUNTS, ROOT)
      raise errors.ConfigError(
          f"data.conditions names {name!r}, which the graphs do not have"
          f"{config_lib.nearest(name, known)}; expected some of: {', '.join(known)}")
  return np.stack(columns, axis=1) if columns else np.zeros([len(dags), 0])


def _count(dags: dags_lib.Dags, name: str) -> np.ndarray:
  """(G,) one of COUNTS of each graph."""
  if name == SIZE:
    return dags.sizes
  if name == "depth":
    return dags.depths
  if name == "edges":
    return np.diff(dags.edge_off)
  of_node = dags.num_operands if name == "leaves" else dags.num_users
  return np.bincount(dags.graph_of_node, weights=of_node == 0, minlength=len(dags))


def sample_conditions(conditions: Conditions, count: int, labels: dict[str, np.ndarray] | None,
                      rng: np.random.Generator) -> np.ndarray:
  """(count, T) conditions: the specified labels, and sampled values for the other conditions.

  Where some conditions are specified, the others are sampled from the training graphs that are
  nearest in the specified ones, so that they fit together: for example, no kernel of 5 nodes may
  have the slowest label. With a requested size, the other counts of such a graph are scaled to it.

  Args:
    conditions: the model's conditions.
    count: number of graphs.
    labels: for some of the conditions (count,) values or one value.
    rng: source of the random choices.

  Raises:
    ConfigError: a name is not a condition of the model, or the number of values is wrong.
  """
  sampled = conditions.sample(count, rng)
  if not labels:
    return sampled
  specified = {}
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
          f"labels[{name!r}] has shape {value.shape}; expected one number, or {count} numbers, one "
          "per graph, all finite")
    _check(name, value, conditions)
    specified[conditions.names.index(name)] = np.broadcast_to(value, [count])
  requested = np.full_like(sampled, np.nan)
  requested[:, list(specified)] = np.stack(list(specified.values()), axis=1)
  nearest = _sample_nearest(conditions, requested, list(specified), rng)
  others = conditions.table[nearest]
  if SIZE in labels:
    place = conditions.names.index(SIZE)
    scale = requested[:, place] / np.maximum(others[:, place], 1.0)
    for column, name in enumerate(conditions.names):
      if name in COUNTS:
        others[:, column] = np.maximum(np.round(others[:, column] * scale), 1.0)
  return np.where(np.isnan(requested), others, requested)


def unfamiliar(conditions: Conditions, labels: Mapping[str, np.ndarray | float]) -> list[str]:
  """One sentence for each label that requests numbers beyond those of the training graphs.

  Args:
    conditions: the model's conditions.
    labels: requested values, as for `sample_conditions`; other names are ignored.
  """
  result = []
  for name, value in labels.items():
    if name == ROOT or name not in conditions.names or not len(conditions.table):
      continue
    known = conditions.table[:, conditions.names.index(name)]
    asked = np.ravel(np.asarray(value, np.float64))
    asked = asked[np.isfinite(asked)]
    if asked.size and (asked.min() < known.min() or asked.max() > known.max()):
      wanted = f"{asked.min():g}"
      if asked.min() < asked.max():
        wanted += f" to {asked.max():g}"
      result.append(f"requested {name}: {wanted}; in the training graphs: {known.min():g} to "
                    f"{known.max():g}; the generator has not seen other values, so such graphs may "
                    "be unlike the training graphs")
  return result


def _check(name: str, value: np.ndarray, conditions: Conditions) -> None:
  """Raises ConfigError for values that no graph can have."""
  least = 0 if name == "edges" else 1
  if name in COUNTS and value.size and value.min() < least:
    raise errors.ConfigError(f"labels[{name!r}] holds {value.min():g}; expected at least {least}: "
                             f"the {'number of nodes' if name == SIZE else name} of a graph")
  if name == ROOT and ((value != np.floor(value)) | (value < 0)
                       | (value >= conditions.categories)).any():
    raise errors.ConfigError(
        f"labels[{name!r}] holds {np.ravel(value)[0]:g}; expected indices into the vocabulary of "
        f"the first attribute, 0 to {conditions.categories - 1}")


def _sample_nearest(conditions: Conditions, requested: np.ndarray, specified: list[int],
                    rng: np.random.Generator) -> np.ndarray:
  """For each row a random training graph among the nearest in the specified columns."""
  table = conditions.table
  rows, group = np.unique(requested[:, specified], axis=0, return_inverse=True)
  sampled = np.zeros(len(requested), np.int64)
  for number, row in enumerate(rows):
    distance = np.zeros(len(table))
    for column, value in zip(specified, row):
      known = np.sort(table[:, column])
      if column in conditions.scalars:
        ranks = np.searchsorted(known, np.append(table[:, column], value)) / len(known)
        distance += np.abs(ranks[-1] - ranks[:-1])
      else:
        distance += value != table[:, column]
    # Include all ties with the tenth nearest: the order in the file is meaningless.
    near = np.flatnonzero(distance <= np.sort(distance)[min(_NEAREST, len(table)) - 1])
    members = np.flatnonzero(group.reshape(-1) == number)
    sampled[members] = near[rng.integers(len(near), size=len(members))]
  return sampled
