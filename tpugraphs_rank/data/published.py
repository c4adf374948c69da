"""The configurations that the published layout figures are computed on.

For each validation graph of the four public layout collections, the TpuGraphs authors list 1,000
configuration indices (`tpu_graphs/baselines/layout/eval_indices` of their repository). Repeated
indices are kept, because the published averages include them.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
import shlex
from typing import Any

import numpy as np

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits

# The public layout collections; the indices are of their validation splits.
COLLECTIONS = ("layout:xla:default", "layout:xla:random", "layout:nlp:default", "layout:nlp:random")
SPLIT = "valid"


def is_published(collection: registry.Collection, split: str) -> bool:
  """Whether the authors have published indices for this split of this collection."""
  return collection.name in COLLECTIONS and split == SPLIT


def indices_path(collection: registry.Collection, data_root: files.PathLike | None = None
                 ) -> pathlib.Path:
  """`<data_root>/eval_indices/<source>_<search>.json`."""
  _, source, search = collection.name.split(":")
  return registry.resolve_data_root(data_root) / "eval_indices" / f"{source}_{search}.json"


def read_indices(path: files.PathLike) -> dict[str, np.ndarray]:
  """Reads a file of evaluation indices: an object from graph names to lists of indices.

  Returns:
    The indices of each graph, (1000,) int64 (or as many as the file lists), in file order.

  Raises:
    MissingDataError: there is no such file.
    DataError: the file holds something else.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise errors.MissingDataError(
        f"no file {path}, which holds the published evaluation indices; download it with "
        f"{_download(path)}, or evaluate on all configurations with --configurations=all")
  return {name: _checked(path, name, value)
          for name, value in _checked_object(path, files.read_json(path)).items()}


def _download(path: pathlib.Path) -> str:
  """The command that writes the file, of all public files only the small ones."""
  return commands.command("download", "--collections=", "--extras", "--data_root",
                          shlex.quote(str(path.parent.parent)))


def _checked_object(path: pathlib.Path, values: Any) -> dict[str, Any]:
  if not isinstance(values, dict) or not values:
    raise errors.DataError(
        f"{path}: expected an object from graph names to lists of configuration indices; download "
        f"it again with {_download(path)}")
  return values


def _checked(path: pathlib.Path, name: str, value: Any) -> np.ndarray:
  if (not isinstance(value, list) or not value
      or not all(type(index) is int and 0 <= index < 2 ** 62 for index in value)):
    raise errors.DataError(
        f"{path}: key {name!r}: expected a list of configuration indices from 0; download the file "
        f"again with {_download(path)}")
  return np.array(value, np.int64)


def restrict(programs: Sequence[splits.ProgramView], collection: registry.Collection,
             data_root: files.PathLike | None = None) -> list[splits.ProgramView]:
  """Restricts programs to their published configurations; repeats are kept.

  Args:
    programs: programs of the validation split, each with all its configurations.
    collection: one of COLLECTIONS.
    data_root: as in `load_collection`.

  Raises:
    MissingDataError: the file of indices does not exist.
    DataError: it lacks a graph, or lists a configuration that the graph does not have.
  """
  path = indices_path(collection, data_root)
  listed = read_indices(path)
  restricted = []
  for program in programs:
    graph = program.graph
    if graph.name not in listed:
      raise errors.DataError(
          f"{path}: no indices for graph {graph.name} of {collection.name} {SPLIT}; the file "
          f"belongs to another collection or version: download it again with {_download(path)}, or "
          "evaluate on all configurations with --configurations=all")
    chosen = listed[graph.name]
    if chosen.max() >= graph.num_configs:
      raise errors.DataError(
          f"{path}: key {graph.name!r} lists configuration {chosen.max()}, but the graph has "
          f"{graph.num_configs}: the versions of file and data differ")
    restricted.append(dataclasses.replace(program, choice=chosen))
  return restricted
