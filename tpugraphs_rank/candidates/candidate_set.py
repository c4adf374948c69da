"""Candidate configurations of one program, from any source."""

from collections.abc import Callable
import dataclasses

import numpy as np

from tpugraphs_rank.hlo import tuning_pb2

Profile = tuning_pb2.ConfigProfile


@dataclasses.dataclass(frozen=True)
class Candidates:
  """Distinct configurations of one program.

  Attributes:
    kind: `tile` or `layout`.
    arrays: their features by the keys of a graph file: `config_feat` (c, 24), or `node_config_ids`
      (nc,) and `node_config_feat` (c, nc, 18) int8.
    profile: maps a position to the configuration as raw data, without a measurement.
    about: for JSON: where they come from, and how many there were before equal ones were merged.
    default: position of the compiler's default, if it is known.
    indices: for candidates from a file, the position of each in that file.
  """

  kind: str
  arrays: dict[str, np.ndarray]
  profile: Callable[[int], Profile]
  about: dict[str, object]
  default: int | None = None
  indices: np.ndarray | None = None

  @property
  def count(self) -> int:
    """c, the number of candidates."""
    return len(self.arrays["config_feat" if self.kind == "tile" else "node_config_feat"])

  def index(self, position: int) -> int:
    """The position of a candidate in its file; if it is not from a file, its position here."""
    return int(position if self.indices is None else self.indices[position])
