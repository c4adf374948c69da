"""What is public about the 894 test graphs of TpuGraphs, for checks without the data.

The table `public_test_graphs.csv` names its sources. The competition's own sample submission fixes
the IDs only: it lists `0;1;2;3;4` for every kernel and 1,000 configurations for every program.
"""

from collections.abc import Mapping
import functools
import pathlib

from tpugraphs_rank.data import registry

SPLIT = "test"
# The kernels of tile:xla with fewer than five configurations: how many have each number of them.
# Which kernels these are is not public.
SMALL_KERNELS: Mapping[str, Mapping[int, int]] = {"tile:xla": {2: 2, 3: 8, 4: 6}}
_TABLE = pathlib.Path(__file__).with_name("public_test_graphs.csv")


@functools.cache
def configurations() -> Mapping[str, int | None]:
  """The number of configurations of each test graph by ID; None where it is not public."""
  lines = _TABLE.read_text(encoding="utf-8").splitlines()
  rows = (line.split(",") for line in lines if not line.startswith("#"))
  next(rows)  # The header.
  return {name: int(count) if count else None for name, count in rows}


def ids(collection: registry.Collection, split: str) -> list[str]:
  """The IDs of a public test split, sorted; empty for any other split or collection."""
  if split != SPLIT or not collection.is_public:
    return []
  return sorted(name for name in configurations()
                if name.rpartition(":")[0] == collection.name)
