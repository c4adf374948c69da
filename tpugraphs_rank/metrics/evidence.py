"""How good a run's predictions were on programs with measurements: figures and a calibration.

Training computes this on the validation split each time it keeps a checkpoint, and stores it in the
run directory as `calibration.json`, for those who rank programs of their own.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.metrics import calibration as calibration_lib
from tpugraphs_rank.metrics import pairs
from tpugraphs_rank.metrics import slowdown

FILE = "calibration.json"
ALL = "all"


class Scored(NamedTuple):
  """A program with measurements and scores.

  Attributes:
    operation: its main operation, see `hlo.operations`.
    runtimes: (c,) positive.
    scores: (c,) higher = predicted faster.
    default: position of the default configuration; None if it is not known.
  """

  operation: str
  runtimes: np.ndarray
  scores: np.ndarray
  default: int | None


@dataclasses.dataclass(frozen=True)
class Figures:
  """Means over programs. A mean over no program is None.

  Attributes:
    operation: the main operation of these programs, or "all".
    programs: their number.
    kendall_tau: of predicted and measured order.
    top1_slowdown, top5_slowdown: how much slower than the fastest configuration the best-ranked one
      is, and the fastest of the best-ranked five: 0.1 is 10 % slower.
  """

  operation: str
  programs: int
  kendall_tau: float | None
  top1_slowdown: float | None
  top5_slowdown: float | None


@dataclasses.dataclass(frozen=True)
class Evidence:
  """What is known about a run's predictions.

  Attributes:
    split: the split that it was computed on.
    calibration: what leads over the default have meant; None if there is too little data.
    reason: why there is no calibration; "" if there is one.
    figures: of all programs, then of those with each main operation.
  """

  split: str
  calibration: calibration_lib.Calibration | None
  reason: str
  figures: tuple[Figures, ...]

  def of(self, operation: str) -> Figures | None:
    """The figures of programs with a main operation; None if there was no such program."""
    return next((one for one in self.figures if one.operation == operation), None)

  def to_json(self) -> dict[str, Any]:
    """For `calibration.json`."""
    return {"split": self.split, "reason": self.reason,
            "calibration": None if self.calibration is None else self.calibration.to_json(),
            "figures": [dataclasses.asdict(one) for one in self.figures]}

  @classmethod
  def from_json(cls, stored: Mapping[str, Any]) -> "Evidence":
    """Reads what `to_json` returned.

    Raises:
      DataError: it has another form.
    """
    try:
      calibration = stored["calibration"]
      return cls(
          str(stored["split"]),
          None if calibration is None else calibration_lib.Calibration.from_json(calibration),
          str(stored["reason"]),
          tuple(Figures(str(one["operation"]), int(one["programs"]), *(
              None if one[key] is None else float(one[key])
              for key in ("kendall_tau", "top1_slowdown", "top5_slowdown")))
                for one in stored["figures"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
      raise errors.DataError(f"expected figures and a calibration, not {error!r}") from error


def gather(programs: Iterable[Scored], split: str, seed: int = 0) -> Evidence:
  """Computes the figures and the calibration from programs of one split."""
  programs = list(programs)
  known = [program for program in programs if program.default is not None]
  calibration = calibration_lib.fit([against_default(program) for program in known], seed)
  reason = "" if calibration is not None else (
      f"{len(known)} of {len(programs)} programs of the {split} split have a known default among "
      f"their configurations; a calibration needs {calibration_lib.LEAST_PROGRAMS}")
  by_operation: dict[str, list[Scored]] = {ALL: programs}
  for program in programs:
    by_operation.setdefault(program.operation, []).append(program)
  return Evidence(split, calibration, reason, tuple(
      _figures(name, members) for name, members in sorted(
          by_operation.items(), key=lambda entry: (entry[0] != ALL, -len(entry[1]), entry[0]))))


def against_default(program: Scored) -> calibration_lib.Program:
  """Leads and speedups of all configurations but the default, which must be known."""
  assert program.default is not None
  others = np.arange(len(program.runtimes)) != program.default
  runtimes = np.asarray(program.runtimes, np.float64)
  scores = np.asarray(program.scores, np.float64)
  return calibration_lib.Program(
      scores[others] - scores[program.default], runtimes[program.default] / runtimes[others])


def _figures(operation: str, programs: Sequence[Scored]) -> Figures:
  return Figures(
      operation, len(programs),
      _mean(pairs.kendall_tau(program.runtimes, program.scores) for program in programs),
      *(_mean(slowdown.topk_slowdown(program.runtimes, program.scores, k) for program in programs)
        for k in (1, 5)))


def _mean(values: Iterable[float]) -> float | None:
  defined = [value for value in values if math.isfinite(value)]
  return float(np.mean(defined)) if defined else None
