"""Candidate configurations of one program, wherever they come from."""

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
    profile: position -> the configuration as raw data, without a measurement.
    about: where they come from, and how many there were before equal ones became one; for JSON.
    default: position of the compiler's default, if that is known.
    indices: for each its position in the file that it comes from, if it does.
  """

  kind: str
  arrays: dict[str, np.ndarray]
  profile: Callable[[int], Profile]
  about: dict[str, object]
  default: int | None = None
  indices: np.ndarray | None = None

  @property
  def count(self) -> int:
    """c, how many there are."""
    return len(self.arrays["config_feat" if self.kind == "tile" else "node_config_feat"])

  def index(self, position: int) -> int:
    """Where a candidate stands in the file that it comes from; otherwise its position."""
    return int(position if self.indices is None else self.indices[position])
