"""How unlike the training programs a program is: from which operations feed which.

The profile of a program counts its pairs of operations, such as (add, multiply): an add that has a
multiply among its operands. The novelty of a program is 1 - the largest cosine between
log2(1 + counts) of its profile and of a training program's. It is 0 for a program with the graph of
a training program, whatever its shapes, and 1 for a program without any known pair.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.data import graphs
from tpugraphs_rank.hlo import opcodes

Profile = Mapping[tuple[str, str], int]

# More distinct profiles are thinned, so that the novelty of a program stays cheap.
_MOST_PROFILES = 2000


def profile(graph: graphs.Graph) -> dict[tuple[str, str], int]:
  """The number of edges of each pair (opcode of the user, opcode of the operand)."""
  pairs = graph.node_opcode[graph.edge_index].astype(np.int64).reshape(-1, 2)
  distinct, counts = np.unique(pairs, axis=0, return_counts=True)
  return {(opcodes.opcode_name(user), opcodes.opcode_name(operand)): count
          for (user, operand), count in zip(distinct.tolist(), counts.tolist())}


class Novelty:
  """The distance to a set of programs."""

  def __init__(self, profiles: Iterable[Profile]):
    """Takes the profiles of the programs; equal ones count once.

    Raises:
      DataError: there is none, or a count is not positive.
    """
    distinct = list({tuple(sorted(one.items())): dict(one) for one in profiles}.values())
    if len(distinct) > _MOST_PROFILES:
      distinct = [distinct[place] for place in np.linspace(
          0, len(distinct) - 1, _MOST_PROFILES).astype(int)]
    if not distinct:
      raise errors.DataError("no profiles; expected those of the training programs")
    self.profiles: list[dict[tuple[str, str], int]] = distinct
    self._columns = {pair: place for place, pair in enumerate(
        sorted({pair for one in distinct for pair in one}))}
    self._rows = np.stack([self._row(one) for one in distinct])

  def _row(self, one: Profile) -> np.ndarray:
    """(p,) unit vector, or 0 without known pairs; unknown pairs add to its length only."""
    values = np.zeros(len(self._columns))
    squares = 0.0
    for pair, count in one.items():
      if count <= 0:
        raise errors.DataError(f"the profile counts {pair} {count} times; expected once or more")
      value = np.log2(1.0 + count)
      squares += value ** 2
      if pair in self._columns:
        values[self._columns[pair]] = value
    return values / np.sqrt(squares) if squares else values

  def of(self, graph: graphs.Graph) -> float:
    """The novelty of a program, from 0 to 1."""
    return self.of_profile(profile(graph))

  def of_profile(self, one: Profile) -> float:
    """The novelty of a program with this profile."""
    if not one:  # A program of one instruction has no pairs.
      return 0.0 if {} in self.profiles else 1.0
    return float(np.clip(1.0 - (self._rows @ self._row(one)).max(), 0.0, 1.0))

  def to_json(self) -> list[list[list[str | int]]]:
    """The profiles for JSON: lists of [user, operand, count]."""
    return [[[*pair, count] for pair, count in sorted(one.items())] for one in self.profiles]

  @classmethod
  def from_json(cls, values: Sequence[Sequence[Sequence[str | int]]]) -> "Novelty":
    """Inverse of `to_json`.

    Raises:
      DataError: the values are none of `to_json`.
    """
    try:
      profiles = [{(str(user), str(operand)): int(count) for user, operand, count in one}
                  for one in values]
    except (TypeError, ValueError) as error:
      raise errors.DataError("profiles are not lists of [user, operand, count]") from error
    return cls(profiles)
