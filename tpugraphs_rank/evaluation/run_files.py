"""Reads and checks the files of run directories and evaluations."""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np
import pandas as pd

from tpugraphs_rank import errors
from tpugraphs_rank import files

HISTORY_COLUMNS = ("epoch", "loss", "train_opa", "valid_loss", "valid_opa")
PER_GRAPH_COLUMNS = ("ranker", "seed", "graph", "family", "opa", "kendall_tau")


def check_object(value: Any, path: pathlib.Path) -> dict[str, Any]:
  """Returns the value if it is a JSON object.

  Raises:
    RunDirectoryError: it is not; the message names the file.
  """
  if not isinstance(value, dict):
    raise errors.RunDirectoryError(
        f"{path} holds {type(value).__name__}; expected an object: the run directory is damaged")
  return value


def is_number(value: Any) -> bool:
  """Whether a JSON value is a number."""
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def read_history(path: pathlib.Path) -> pd.DataFrame:
  """The history of a run directory; without rows if training has not begun.

  Raises:
    DataError: it is damaged.
  """
  path = path / "history.csv"
  if not path.exists() or not path.stat().st_size:
    return pd.DataFrame(columns=HISTORY_COLUMNS)
  history = read_csv(path, HISTORY_COLUMNS)
  wrong = [name for name in history if not pd.api.types.is_numeric_dtype(history[name])]
  if wrong:
    raise errors.DataError(
        f"{path}: column {wrong[0]} has values that are no numbers; train the run again")
  epochs = history["epoch"].to_numpy()
  if not np.isfinite(epochs).all() or (np.diff(epochs) <= 0).any():
    raise errors.DataError(
        f"{path}: the epochs do not increase from row to row; train the run again")
  return history


def read_csv(path: pathlib.Path, columns: Sequence[str]) -> pd.DataFrame:
  """Reads a CSV file that must have these columns.

  Raises:
    DataError: it is damaged, or a column is missing.
  """
  try:
    frame = pd.read_csv(path)
  except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors.
    raise errors.DataError(f"{path} cannot be read as CSV: {str(error).strip()}") from error
  for name in columns:
    if name not in frame:
      raise errors.DataError(f"{path} has no column {name}; expected {', '.join(columns)}")
  return frame


def read_per_graph(path: pathlib.Path) -> pd.DataFrame:
  """Reads the per_graph.csv of an evaluation.

  Raises:
    DataError: it is damaged.
  """
  frame = read_csv(path, PER_GRAPH_COLUMNS)
  for name in ("seed", "opa", "kendall_tau"):
    if not pd.api.types.is_numeric_dtype(frame[name]):
      raise errors.DataError(
          f"{path}: column {name} has values that are no numbers; evaluate the run again")
  return frame


def split_of(folder: pathlib.Path) -> str | None:
  """The split of an evaluation, from the results in its folder or next to the folder."""
  for path in (folder / "metrics.json", folder.parent / "results.json"):
    try:
      results = files.read_json(path)
    except errors.TpuGraphsRankError:
      continue
    if isinstance(results, dict) and isinstance(results.get("split"), str):
      return results["split"]
  return None
