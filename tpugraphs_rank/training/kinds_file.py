"""The file of a run that says how the kinds of its ensemble are averaged; see `kinds`."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import json_shapes
from tpugraphs_rank.evaluation import score_deviations

FILE = "kinds.json"
_SHAPE = {"deviations": [float], "metrics": {str: (float, None)}}
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


def factors(deviations: Sequence[float]) -> np.ndarray:
  """(k,) float32: for each further kind, the factor that gives its scores the run's own unit.

  It is 0 for constant scores, whose rounding errors it would enlarge.
  """
  first, *others = deviations
  return np.asarray([0.0 if score_deviations.is_constant(other) else first / other
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
  if len(deviations) != count or not all(map(score_deviations.is_valid, deviations)):
    raise errors.RunDirectoryError(
        f"{path} is damaged: deviations is {escaping.value(list(deviations))}; expected {count} "
        f"numbers {score_deviations.RANGE}; {_AGAIN}")
  return Averaging(deviations, stored["metrics"])


def write(path: pathlib.Path, averaging: Averaging) -> None:
  """Writes the file, which exists only if all kinds are trained.

  Raises:
    OutputError: it cannot be written.
  """
  files.write_json(path, {
      "deviations": list(averaging.deviations), "metrics": dict(averaging.metrics)})
