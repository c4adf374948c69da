"""The configurations on which the published layout figures are computed.

For each validation graph of the four public layout collections the TpuGraphs authors list 1,000
configuration indices (`tpu_graphs/baselines/layout/eval_indices` of their repository). Repeated
indices are kept: they are part of what is averaged.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits

# The public layout collections; the indices are of their validation splits.
COLLECTIONS = ("layout:xla:default", "layout:xla:random", "layout:nlp:default", "layout:nlp:random")
SPLIT = "valid"


def is_published(collection: registry.Collection, split: str) -> bool:
  """Whether there are published indices for this split of this collection."""
  return collection.name in COLLECTIONS and split == SPLIT


def indices_path(collection: registry.Collection, data_root: files.PathLike | None = None
                 ) -> pathlib.Path:
  """`<data_root>/eval_indices/<source>_<search>.json`."""
  _, source, search = collection.name.split(":")
  return registry.resolve_data_root(data_root) / "eval_indices" / f"{source}_{search}.json"


def read_indices(path: files.PathLike) -> dict[str, np.ndarray]:
  """Reads a file of evaluation indices: an object from graph names to lists of indices.

  Returns:
    For each graph (1000,) int64 (or as many as the file lists), in the order of the file.

  Raises:
    MissingDataError: there is no such file.
    DataError: it is no such object.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise errors.MissingDataError(
        f"no file {path}, which holds the published evaluation indices; bring it with `python -m "
        "tpugraphs_rank.cli.download --extras`, or judge on all configurations with --configurations=all")
  return {name: _checked(path, name, value)
          for name, value in _checked_object(path, files.read_json(path)).items()}


def _checked_object(path: pathlib.Path, values: Any) -> dict[str, Any]:
  if not isinstance(values, dict) or not values:
    raise errors.DataError(
        f"{path}: expected an object from graph names to lists of configuration indices; bring it "
        "anew with `python -m tpugraphs_rank.cli.download --extras`")
  return values


def _checked(path: pathlib.Path, name: str, value: Any) -> np.ndarray:
  if (not isinstance(value, list) or not value
      or not all(type(index) is int and 0 <= index < 2 ** 62 for index in value)):
    raise errors.DataError(
        f"{path}: key {name!r}: expected a list of configuration indices from 0; bring the file "
        "anew with `python -m tpugraphs_rank.cli.download --extras`")
  return np.array(value, np.int64)


def restrict(programs: Sequence[splits.ProgramView], collection: registry.Collection,
             data_root: files.PathLike | None = None) -> list[splits.ProgramView]:
  """The same programs with their published configurations only, repeats kept.

  Args:
    programs: of the validation split, each with all its configurations.
    collection: one of COLLECTIONS.
    data_root: as of `load_collection`.

  Raises:
    MissingDataError: the file of indices is not there.
    DataError: it lacks a graph, or lists a configuration that the graph has not.
  """
  path = indices_path(collection, data_root)
  listed = read_indices(path)
  restricted = []
  for program in programs:
    graph = program.graph
    if graph.name not in listed:
      raise errors.DataError(
          f"{path}: no indices for graph {graph.name} of {collection.name} {SPLIT}; the file is of "
          "another collection or version: bring it anew with `python -m tpugraphs_rank.cli.download "
          "--extras`, or judge on all configurations with --configurations=all")
    chosen = listed[graph.name]
    if chosen.max() >= graph.num_configs:
      raise errors.DataError(
          f"{path}: key {graph.name!r} lists configuration {chosen.max()}; the graph has "
          f"{graph.num_configs}: file and data are of different versions")
    restricted.append(dataclasses.replace(program, choice=chosen))
  return restricted
