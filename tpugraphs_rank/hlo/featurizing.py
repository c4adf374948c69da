"""Featurizes many files: each is converted on its own; then its graphs are named and written.

Names depend on the files before, so this process gives them, in the order of the files. Where files
are converted by other processes, these write the graphs to a staging folder first.
"""

from collections.abc import Sequence
import dataclasses
import errno
import os
import pathlib
import shutil
from typing import NamedTuple

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import work
from tpugraphs_rank.data import npz
from tpugraphs_rank.hlo import convert
from tpugraphs_rank.hlo import output as hlo_output


class Source(NamedTuple):
  """A file to featurize.

  Attributes:
    path: the file.
    repeats: further measurements of its programs.
  """

  path: pathlib.Path
  repeats: tuple[pathlib.Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class File:
  """A featurized file.

  Attributes:
    converted: its graphs. They have no arrays if these are staged.
    nodes: number of nodes of all graphs.
    staged: the files with their arrays; None: the graphs have their arrays.
  """

  converted: convert.Converted
  nodes: int
  staged: tuple[pathlib.Path, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Featurize(work.Task[tuple[int, Source], File]):
  """Featurizes the file of a number.

  Attributes:
    padding, strict: see `convert.convert_file`.
    staging: a folder for the arrays; None: they stay in memory.
  """

  padding: int
  strict: bool
  staging: pathlib.Path | None
  # An OutputError means that StableHLO cannot be converted.
  expected = (errors.DataError, errors.MissingDataError, errors.OutputError)

  def __call__(self, item: tuple[int, Source]) -> File:
    number, source = item
    converted = convert.convert_file(source.path, self.padding, source.repeats, self.strict)
    nodes = sum(len(graph.arrays["node_opcode"]) for graph in converted.graphs)
    if self.staging is None:
      return File(converted, nodes)
    staged = []
    for index, graph in enumerate(converted.graphs):
      staged.append(self.staging / f"{number}_{index}.npz")
      hlo_output.write_graph(staged[-1], graph.arrays)
    light = [dataclasses.replace(graph, arrays={}) for graph in converted.graphs]
    return File(dataclasses.replace(converted, graphs=light), nodes, tuple(staged))


def write(file: File, targets: Sequence[pathlib.Path], overwrite: bool) -> int:
  """Writes the graphs of a file; those that exist with the same content stay as they are.

  Args:
    file: the file.
    targets: one `.npz` file for each of its graphs.
    overwrite: whether files with other content may be replaced.

  Returns:
    The number of files written.

  Raises:
    OutputError: a file exists with other content, or cannot be written. Unless writing itself
      fails, no graph is written then.
  """
  indices = range(len(targets))
  pending = [index for index in indices if overwrite or not os.path.lexists(targets[index])
             or hlo_output.check_free(targets[index], _arrays(file, index))]
  for index in pending:
    if file.staged is None:
      hlo_output.write_graph(targets[index], _arrays(file, index))
    else:
      _move(file.staged[index], targets[index])
  return len(pending)


def _arrays(file: File, index: int) -> dict[str, np.ndarray]:
  if file.staged is None:
    return file.converted.graphs[index].arrays
  return npz.read_arrays(file.staged[index], limit=npz.MAX_BYTES + npz.MAX_LAYOUT_BYTES)


def _move(source: pathlib.Path, target: pathlib.Path) -> None:
  """Moves a complete file, also to another file system."""
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)
  except OSError as error:
    if error.errno != errno.EXDEV:
      raise files.output_error(target, error) from error
    with files.atomic_write(target) as file, open(source, "rb") as content:
      shutil.copyfileobj(content, file)
