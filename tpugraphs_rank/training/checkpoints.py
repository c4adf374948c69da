"""Checkpoints: variables and state in one `.npz` file, which NumPy can read without TensorFlow."""

from collections.abc import Callable, Mapping, Sequence
import json
import math
from typing import Any

import numpy as np
import tensorflow as tf

from tpugraphs_rank import array_files
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import headers
from tpugraphs_rank.data import npz

_MOST_BYTES = 1 << 34  # Weights and two moments of a model with a thousand million parameters.


def save(path: files.PathLike, variables: Mapping[str, Sequence[tf.Variable]],
         state: Mapping[str, Any]) -> None:
  """Writes groups of variables, in order, and a JSON state, atomically.

  Numbers of the state that are not finite become null.

  Raises:
    OutputError: the file cannot be written.
  """
  arrays = {f"{group}/{index:04d}": variable.numpy()
            for group, members in variables.items() for index, variable in enumerate(members)}
  array_files.save(path, {
      "state": json.dumps(_finite(dict(state)), allow_nan=False), **arrays}, compressed=False)


def _finite(value: Any) -> Any:
  """A JSON value with null instead of numbers that JSON lacks, such as an undefined loss."""
  if isinstance(value, dict):
    return {key: _finite(each) for key, each in value.items()}
  if isinstance(value, (list, tuple)):
    return [_finite(each) for each in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def stored_shapes(path: files.PathLike, group: str) -> list[tuple[int, ...]]:
  """The shapes of a group's stored values, in order; no value is read.

  Raises:
    RunDirectoryError: the file is missing or damaged.
  """
  try:
    return [header.shape for key, header in sorted(headers.read_headers(path).items())
            if key.startswith(f"{group}/")]
  except (errors.DataError, errors.MissingDataError) as error:
    raise _unreadable(path, error) from error


def _unreadable(path: files.PathLike, error: Exception) -> errors.RunDirectoryError:
  return errors.RunDirectoryError(
      f"{path} cannot be read ({error}); the checkpoint is missing or damaged: train again into "
      "an empty --run_dir")


def restore(path: files.PathLike, variables: Mapping[str, Sequence[tf.Variable]],
            check: Callable[[Mapping[str, Any]], None] | None = None) -> dict[str, Any]:
  """Assigns the stored values to variables of the same groups and shapes.

  Either all values are assigned or, after an error, none.

  Args:
    path: the file.
    variables: the variables of each group.
    check: raises an error if the state is not valid.

  Returns:
    The stored state.

  Raises:
    RunDirectoryError: the file is missing, damaged, or of another model.
  """
  try:
    stored = npz.read_arrays(
        path, lambda key: key == "state" or key.partition("/")[0] in variables, _MOST_BYTES)
    if stored["state"].dtype.kind != "U" or stored["state"].size != 1:
      raise errors.DataError(f"{path}: state is not a single text")
    state = files.parse_json(stored["state"].item(), f"{path}: state")
    if not isinstance(state, dict):
      raise errors.DataError(f"{path}: state is not a JSON object")
    values = {}
    for group, members in variables.items():
      count = sum(key.startswith(f"{group}/") for key in stored)
      if count != len(members):
        raise errors.RunDirectoryError(
            f"{path} holds {count} variables of the {group}; this model has {len(members)}: it is "
            "the checkpoint of another model")
      values[group] = [stored[f"{group}/{index:04d}"] for index in range(count)]
  except (errors.DataError, errors.MissingDataError, KeyError) as error:
    raise _unreadable(path, error) from error
  for group, members in variables.items():
    for index, (variable, value) in enumerate(zip(members, values[group])):
      _check_value(f"{path}: {group}/{index:04d}", variable, value)
  if check is not None:
    check(state)
  for group, members in variables.items():
    for variable, value in zip(members, values[group]):
      variable.assign(value)
  return state


def _check_value(source: str, variable: tf.Variable, value: np.ndarray) -> None:
  """Raises RunDirectoryError unless a stored value is one that the variable can have."""
  if tuple(variable.shape) != value.shape:
    raise errors.RunDirectoryError(
        f"{source}: {variable.name} is stored with shape {value.shape}, expected "
        f"{tuple(variable.shape)}: it is the checkpoint of another model")
  dtype = variable.dtype.as_numpy_dtype
  if value.dtype != dtype:
    raise errors.RunDirectoryError(
        f"{source}: {variable.name} is stored as {value.dtype}, expected {np.dtype(dtype)}: the "
        "checkpoint is damaged")
  if value.dtype.kind == "f" and not np.isfinite(value).all():
    raise errors.RunDirectoryError(
        f"{source}: {variable.name} holds numbers that are not finite: the checkpoint is damaged; "
        "train again into an empty --run_dir")
