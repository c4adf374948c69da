"""Rows of a submission, from scores to the bytes of the file.

    ID,TopConfigs
    tile:xla:<file stem>,<index>;<index>;...
    layout:<source>:<search>:<file stem>,<index>;...

UTF-8, one newline after each line, no quotes. The indices of configurations are ordered from the
fastest to the slowest.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import metrics
from tpugraphs_rank.metrics import competition

HEADER = "ID,TopConfigs"
# Characters that separate or enclose fields, here or in other readers of CSV.
_RESERVED = frozenset(",;\"'")


class Row(NamedTuple):
  """The ranking of one graph.

  Attributes:
    id: `<collection>:<file stem>`.
    indices: configurations, fastest first.
  """

  id: str
  indices: Sequence[int] | np.ndarray


def graph_id(collection: str, stem: str) -> str:
  """The ID of the graph in `<stem>.npz` of a collection.

  Raises:
    DataError: the name is not valid in a row of a CSV file.
  """
  name = f"{collection}:{stem}"
  wrong = next((c for c in name if c in _RESERVED or c.isspace() or not c.isprintable()), None)
  if wrong is not None or not stem:
    problem = f"contains {wrong!r}" if stem else "names no graph"
    raise errors.DataError(
        f"{name!r} {problem}, so it cannot be the ID of a row; rename the graph's file, without "
        "commas, semicolons, quotes, spaces and control characters")
  return name


def row_length(kind: str, num_configs: int) -> int:
  """The number of indices in a row: the best 5 (or fewer) of a tile graph, all of a layout graph.

  Args:
    kind: "tile" or "layout".
    num_configs: the number of configurations of the graph.
  """
  return min(competition.TILE_K, num_configs) if kind == "tile" else num_configs


def row_from_scores(collection: str, kind: str, stem: str, scores: ArrayLike) -> Row:
  """The row of a graph: its configurations in the order of `metrics.ranking`, ties by index.

  Args:
    collection: name of the graph's collection.
    kind: "tile" or "layout".
    stem: stem of the graph's file.
    scores: (c,), c >= 1, higher = predicted faster.

  Raises:
    DataError: a score is not finite, or the name is not valid in a row.
  """
  order = metrics.ranking(scores)
  return Row(graph_id(collection, stem), order[:row_length(kind, order.size)])


def render(rows: Iterable[Row]) -> bytes:
  """The bytes of a submission with these rows, in this order."""
  lines = [HEADER]
  for row in rows:
    lines.append(f"{row.id},{';'.join(map(str, np.asarray(row.indices).tolist()))}")
  return ("\n".join(lines) + "\n").encode("utf-8")


def write(path: files.PathLike, rows: Iterable[Row]) -> None:
  """Writes a submission, or a part of one, atomically.

  Raises:
    OutputError: it cannot be written.
  """
  with files.atomic_write(path) as file:
    file.write(render(rows))
