"""The file of a run that says how the kinds of its ensemble are averaged; see `kinds`."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import json_shapes

FILE = "kinds.json"
_SHAPE = {"deviations": [float], "metrics": {str: (float, None)}}
_LEAST_DEVIATION = 1e-6  # What `trees.mean_deviation` returns for constant scores.
_AGAIN = "delete it and run the training command again, which writes it again"


@dataclasses.dataclass(frozen=True)
class Averaging:
  """How the scores of several kinds are averaged.

  Attributes:
    deviations: mean standard deviation of the scores over the configurations of a training program:
      of the run's own kind, then of each further one.
    metrics: of the mean on the validation split; None if not defined.
  """

  deviations: tuple[float, ...]
  metrics: Mapping[str, float | None] = dataclasses.field(default_factory=dict)


def is_constant(deviation: float) -> bool:
  """Whether scores of this deviation are the same for all configurations of a program."""
  return deviation <= _LEAST_DEVIATION


def factors(deviations: Sequence[float]) -> np.ndarray:
  """(k,) float32: for each further kind, the factor that gives its scores the run's own unit.

  It is 0 for constant scores, whose rounding errors it would enlarge.
  """
  first, *others = deviations
  with np.errstate(over="ignore", under="ignore"):
    return np.asarray([0.0 if is_constant(other) else first / np.float64(other)
                       for other in others], np.float32)


def read(path: pathlib.Path, count: int) -> Averaging:
  """Reads the file.

  Args:
    path: the file.
    count: number of kinds, with the run's own.

  Raises:
    RunDirectoryError: it is missing, damaged, or of another number of kinds.
  """
  try:
    stored = json_shapes.read(path, _SHAPE, _AGAIN)
  except (errors.DataError, errors.MissingDataError) as error:
    raise errors.RunDirectoryError(str(error)) from error
  deviations = tuple(map(float, stored["deviations"]))
  if len(deviations) != count or min(deviations, default=1.0) <= 0:
    raise errors.RunDirectoryError(
        f"{path} is damaged: deviations is {list(deviations)}; expected {count} positive "
        f"numbers; {_AGAIN}")
  scale = factors(deviations)
  if not np.isfinite(scale).all() or any(
      factor == 0 and not is_constant(other) for factor, other in zip(scale, deviations[1:])):
    raise errors.RunDirectoryError(
        f"{path} is damaged: deviations is {list(deviations)}, whose quotients are too large or "
        f"too small; {_AGAIN}")
  return Averaging(deviations, stored["metrics"])


def write(path: pathlib.Path, averaging: Averaging) -> None:
  """Writes the file, which exists only if all kinds are trained.

  Raises:
    OutputError: it cannot be written.
  """
  files.write_json(path, {
      "deviations": list(averaging.deviations), "metrics": dict(averaging.metrics)})
