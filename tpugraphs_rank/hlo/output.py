"""Writes graphs as `.npz` files, and never replaces a file with other content."""

import os

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import npz


def check_free(path: files.PathLike, arrays: dict[str, np.ndarray]) -> bool:
  """Whether a graph must be written: True without a file, False if the file holds the same graph.

  Raises:
    OutputError: the file has other content.
  """
  if not os.path.lexists(path):
    return True
  if not _same(_load(path), arrays):
    raise errors.OutputError(
        f"{path} exists and has other content; expected no such file or the same arrays; choose "
        "another --output, or pass --overwrite to replace it")
  return False


def write_graph(path: files.PathLike, arrays: dict[str, np.ndarray]) -> None:
  """Writes a graph atomically, and replaces an existing file.

  Raises:
    OutputError: the file cannot be written.
  """
  npz.save_arrays(path, arrays)


def _load(path: files.PathLike) -> dict[str, np.ndarray] | None:
  try:
    return npz.read_arrays(path, limit=npz.MAX_BYTES + npz.MAX_LAYOUT_BYTES)
  except (errors.DataError, errors.MissingDataError):
    return None


def _same(stored: dict[str, np.ndarray] | None, arrays: dict[str, np.ndarray]) -> bool:
  return stored is not None and stored.keys() == arrays.keys() and all(
      stored[key].dtype == array.dtype and np.array_equal(stored[key], array)
      for key, array in arrays.items())
