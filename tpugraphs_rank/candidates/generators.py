"""Generators of candidates, by name: functions of a `Request` that return `Candidates`.

A generator of your own usually computes features and passes them to `supplied.from_arrays`, which
checks them and removes repeated configurations.
"""

import dataclasses

from tpugraphs_rank.candidates import candidate_set
from tpugraphs_rank.candidates import layouts
from tpugraphs_rank.candidates import supplied
from tpugraphs_rank.candidates import tiles
from tpugraphs_rank.hlo import tuning_pb2


@dataclasses.dataclass(frozen=True)
class Request:
  """What a generator knows.

  Attributes:
    data: the program's module, and its runs if its file has any.
    kind: `tile` or `layout`, the kind that the run ranks.
    tiling: what tile bounds mean, and which layouts exist; see `tile_spaces`.
    limit: maximum number of candidates.
    seed: of random choices.
    source: the program's name in error messages.
  """

  data: tuning_pb2.ModuleTuningData
  kind: str
  tiling: str
  limit: int
  seed: int
  source: str


def auto(request: Request) -> candidate_set.Candidates:
  """Tiles or layouts that the program admits: all of them, or a random sample."""
  if request.kind == "tile":
    return tiles.enumerate_tiles(
        request.data.module, request.tiling, request.limit, request.seed, request.source)
  return layouts.draw_layouts(
      request.data, request.tiling, request.limit, request.seed, request.source)


def runs(request: Request) -> candidate_set.Candidates:
  """The configurations of the runs in the program's file, measured or not."""
  return supplied.from_runs(request.data, request.kind, request.source)
