"""A measured collection that a new measurement extends: its graphs, splits and description.

The new collection holds the graphs of both. Those of the earlier one keep their splits, and
`measurement.json` says for each graph which measurement it comes from.
"""

from collections.abc import Iterable, Sequence
import dataclasses
from typing import Any

import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import json_shapes
from tpugraphs_rank.collect.common import gates
from tpugraphs_rank.collect.common import graph_files
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import registry

# What `measurement.json` says about how the graphs of one measurement were measured.
_DESCRIPTION = ("machine", "machines", "agreement", "versions", "dates", "seed", "protocol",
                "gates", "drawn")
MEASURED, EXTENDS = "measured", "extends"
_REMEDY = "restore it, or measure again"


@dataclasses.dataclass(frozen=True)
class Earlier:
  """An earlier collection.

  Attributes:
    graphs: stem -> arrays.
    splits: stem -> split.
    measurements: the descriptions of its measurements, the latest first, each with the stems of
      its graphs.
  """

  graphs: dict[str, graph_files.Arrays] = dataclasses.field(default_factory=dict)
  splits: dict[str, str] = dataclasses.field(default_factory=dict)
  measurements: tuple[dict[str, Any], ...] = ()

  def check_new(self, stems: Iterable[str]) -> None:
    """Raises DataError if the new measurement has a graph that the earlier collection has."""
    both = sorted(set(stems) & set(self.graphs))
    if both:
      raise errors.DataError(
          f"{both[0]} is in the collection that is extended and was measured again "
          f"({len(both)} such); choose other --families, or leave out --extend")

  def add_to(self, graphs: dict[str, graph_files.Arrays], qualities: dict[str, gates.Quality],
             limits: gates.Limits) -> None:
    """Adds the graphs, and their qualities, to those of the new measurement.

    Args:
      graphs: stem -> arrays.
      qualities: stem -> quality.
      limits: the gates.
    """
    graphs.update(self.graphs)
    qualities.update({stem: gates.assess(arrays["config_runtime_passes"], limits)
                      for stem, arrays in self.graphs.items()})

  def processors(self, latest: str) -> str:
    """The processors of all measurements, for the descriptor's target."""
    names = [latest, *(part["machine"]["cpu"] for part in self.measurements)]
    return " and ".join(dict.fromkeys(names))

  def description(self, stems: Sequence[str]) -> dict[str, Any]:
    """What the new `measurement.json` says about the origin of its graphs.

    Args:
      stems: the graphs of the new measurement that are kept.
    """
    if not self.measurements:
      return {}
    return {MEASURED: sorted(stems), EXTENDS: list(self.measurements)}


# For a collection that extends no other.
NONE = Earlier()


def read(name: str, kind: str, keys: Sequence[str]) -> Earlier:
  """Reads a measured collection.

  Args:
    name: a registered collection, or the path of a descriptor.
    kind: "tile" or "layout".
    keys: the arrays that each graph must hold.

  Raises:
    UnknownNameError: there is no such collection.
    DataError: it is of another kind, is not a measured one, or is damaged.
  """
  collection = registry.get_collection(name)
  if collection.kind != kind:
    raise errors.DataError(
        f"--extend {name} is a collection of kind {collection.kind}; expected one of kind {kind}")
  path = (collection.folder or collection.location()) / "measurement.json"
  if not path.is_file():
    raise errors.DataError(
        f"--extend {name}: there is no {path}; expected a collection that `tpugraphs-rank collect` "
        "has measured")
  measurement = json_shapes.read(path, {
      "machine": {"cpu": str}, "versions": dict, "dates": [str], "protocol": dict,
      f"{MEASURED}?": [json_shapes.NAME], f"{EXTENDS}?": [
          {"machine": {"cpu": str}, MEASURED: [json_shapes.NAME]}]}, _REMEDY)
  graphs: dict[str, graph_files.Arrays] = {}
  splits: dict[str, str] = {}
  paths = [(split, file) for split in collection.splits
           for file in collections.load_collection(collection, split).paths]
  for split, file in tqdm.tqdm(paths, disable=None, desc="read earlier", unit="file"):
    graphs[file.stem] = graph_files.read(file, keys)
    splits[file.stem] = split
  older = measurement.get(EXTENDS, [])
  elsewhere = {stem for part in older for stem in part[MEASURED]}
  latest = {key: measurement[key] for key in _DESCRIPTION if key in measurement}
  latest[MEASURED] = measurement.get(MEASURED, sorted(set(graphs) - elsewhere))
  return Earlier(graphs, splits, (latest, *older))
