"""Chooses what to measure next: ask for a configuration, tell its time, repeat."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import json
import math
import numbers
import pathlib
from typing import Any

import numpy as np
from scipy import special

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank.tuning import gaussian_process
from tpugraphs_rank.tuning import journal as journal_lib
from tpugraphs_rank.tuning import spaces

Configuration = Any  # Hashable, and JSON can store it.
Prior = Callable[[Sequence[Configuration]], np.ndarray]

# Configurations that are measured before the surrogate decides, the default included.
STARTS = 3
# Candidates of a step: drawn, and neighbours of the fastest.
_DRAWN, _NEAR = 128, 128
# The search has finished if the expected gain was below this share of the best time in this number
# of consecutive steps.
_LEAST_GAIN, _STEPS_WITHOUT_GAIN = 0.001, 3


@dataclasses.dataclass(frozen=True)
class Measurement:
  """A configuration and its time.

  Attributes:
    configuration: as the space writes it; text or a number.
    seconds: infinite if it failed.
    default_seconds: the default's time at the same moment, if it was measured too; then only the
      ratio counts, so that slow phases of a machine do no harm.
    notes: what else was kept with it, as JSON.
  """

  configuration: Configuration
  seconds: float
  default_seconds: float | None = None
  notes: dict[str, Any] | None = None


class Tuner:
  """Searches the fastest configuration of one program.

  The first is the space's default. The next few differ from one another as much as possible: in
  folds over measured programs, starting with the prior's best was worse. After that, a surrogate is
  fitted to the measurements, and the configuration with the largest expected improvement is next,
  among newly drawn ones and neighbours of the fastest. The same seed and times give the same
  questions.

  Attributes:
    history: all measurements, in the order of `tell`.
    finished: whether the expected gain is below what matters, or nothing is left to measure.
    expected_gain: of the last question, as a share of the best time; infinite at first.
  """

  def __init__(self, space: spaces.Space, prior: Prior | None = None,
               surrogate: gaussian_process.GaussianProcess | None = None, seed: int = 0,
               journal: files.PathLike | None = None) -> None:
    """Starts a search, or resumes the one in a journal.

    Args:
      space: the configurations.
      prior: maps configurations to scores, higher = faster; for example those of a ranker.
      surrogate: predicts times; by default a Gaussian process.
      seed: of all random choices.
      journal: file to which every measurement is added at once, a JSON object per line. If it
        exists, its measurements are known from the start.

    Raises:
      ConfigError: the seed is negative.
      DataError: the journal is damaged, or belongs to another space.
      OutputError: it cannot be written.
    """
    if seed < 0:
      raise errors.ConfigError(f"seed {seed}; expected at least 0")
    self._space, self._prior, self._seed = space, prior, seed
    self._surrogate = surrogate or gaussian_process.GaussianProcess()
    self._journal = None if journal is None else pathlib.Path(journal)
    self.history: list[Measurement] = []
    self._known: dict[Configuration, float] = {}
    self._scores: dict[Configuration, float] = {}
    # Expected gains of the questions, by the number of measurements that were known.
    self._gains: dict[int, float] = {}
    if self._journal is not None:
      for place, line in journal_lib.lines(self._journal):
        measurement, gain = _of_line(line, place, space)
        if gain is not None:
          self._gains[len(self.history)] = gain
        self.history.append(measurement)
      self._update_known()

  @property
  def best(self) -> Measurement | None:
    """The fastest measurement relative to the default; None before the first."""
    reference = self._reference()
    usable = [one for one in self.history if math.isfinite(one.seconds)]
    return min(usable, key=lambda one: _relative(one, reference), default=None)

  @property
  def expected_gain(self) -> float:
    """The expected gain of the last question, as a share of the best time."""
    return next(reversed(self._gains.values()), math.inf)

  @property
  def finished(self) -> bool:
    """Whether measuring more is not expected to help."""
    last = list(self._gains.values())[-_STEPS_WITHOUT_GAIN:]
    if len(last) == _STEPS_WITHOUT_GAIN and max(last) < _LEAST_GAIN:
      return True
    return self._space.default in self._known and not self._unmeasured(
        self._known, len(self.history))

  def ask(self) -> Configuration:
    """The configuration to measure next. Asking again without `tell` gives the same.

    Raises:
      ConfigError: everything in the space is measured.
    """
    default = self._space.default
    if default not in self._known:
      return default
    candidates, gains, _ = self._ranked(self._known, len(self.history))
    if not candidates:
      raise errors.ConfigError(
          f"all {len(self._known)} configurations that were proposed are measured; the best is "
          "known")
    if gains is not None:
      self._gains[len(self.history)] = float(gains[0])
    return candidates[0]

  def ahead(self, count: int) -> list[Configuration]:
    """What `ask` will probably return after the next `tell`, the most probable first.

    A caller can prepare these, such as compile them. What `ask` returns does not depend on it.

    Args:
      count: the maximum number, at least 0.

    Raises:
      ConfigError: the number is negative.
    """
    if count < 0:
      raise errors.ConfigError(f"{count} configurations; expected at least 0")
    if not self._known:
      return self._ranked({self._space.default: 1.0}, 1)[0][:count]
    candidates, _, means = self._ranked(self._known, len(self.history))
    if not candidates:
      return []
    believed = {**self._known, candidates[0]: 1.0 if means is None else math.exp(-means[0])}
    return self._ranked(believed, len(self.history) + 1)[0][:count]

  def _ranked(self, known: Mapping[Configuration, float], number: int
              ) -> tuple[list[Configuration], np.ndarray | None, np.ndarray | None]:
    """Candidates of a step, the best first, with their expected gains and predicted values.

    Args:
      known: relative times.
      number: of measurements before the step; it chooses the random candidates.

    Returns:
      The candidates; gains and values are None while the surrogate knows too little.
    """
    candidates = self._unmeasured(known, number)
    if not candidates:
      return [], None, None
    measured = [one for one in known if math.isfinite(known[one])]
    scores, points = self._inputs(measured, candidates)
    count = len(measured)
    if number < STARTS or count < 2:
      order = self._diverse(scores[count:], points[:count], points[count:])
      return [candidates[place] for place in order], None, None
    values = np.array([-math.log(known[one]) for one in measured])
    model = self._surrogate.fit(points[:count], scores[:count], values)
    mean, deviation = model.predict(points[count:], scores[count:])
    gains = expected_improvement(mean, deviation, float(values.max()))
    order = np.argsort(-gains, kind="stable")
    return [candidates[place] for place in order], gains[order], mean[order]

  def _unmeasured(self, known: Mapping[Configuration, float], number: int) -> list[Configuration]:
    """Candidates of a step that are not measured: random ones, and neighbours of the fastest."""
    rng = np.random.default_rng([self._seed, number])
    measured = [one for one in known if math.isfinite(known[one])]
    near: list[Configuration] = []
    for place, configuration in enumerate(sorted(measured, key=lambda one: known[one])[:3]):
      near += self._space.neighbours(configuration, _NEAR >> place + 1, rng)
    drawn = dict.fromkeys([*self._space.draw(_DRAWN, rng), *near])
    return [one for one in drawn if one not in known]

  def tell(self, configuration: Configuration, seconds: float,
           default_seconds: float | None = None, notes: Mapping[str, Any] | None = None) -> None:
    """Adds a measurement, and writes it to the journal.

    Args:
      configuration: any configuration of the space, also one that was not asked for.
      seconds: its time; infinite or NaN if it failed.
      default_seconds: the default's time at the same moment.
      notes: anything to keep with the measurement, as a JSON object; such as why it failed.

    Raises:
      ConfigError: a time is not positive, the space has no such configuration, or JSON cannot store
        the notes.
      OutputError: the journal cannot be written.
    """
    if not all(isinstance(value, numbers.Real) for value in (
        seconds, 1.0 if default_seconds is None else default_seconds)):
      raise errors.ConfigError(f"times of {escaping.value(seconds)} and "
                               f"{escaping.value(default_seconds)}; expected numbers of seconds")
    seconds = math.inf if math.isnan(seconds) else float(seconds)
    if seconds <= 0 or not (default_seconds is None or 0 < default_seconds < math.inf):
      raise errors.ConfigError(
          f"{seconds} s and {default_seconds} s for the default; expected positive times")
    if isinstance(configuration, np.generic):
      configuration = configuration.item()
    self._space.check(configuration)
    _check_notes(notes)
    measurement = Measurement(configuration, seconds, default_seconds,
                              None if notes is None else dict(notes))
    if self._journal is not None:
      journal_lib.append(self._journal, _line(measurement, self._gains.get(len(self.history))))
    self.history.append(measurement)
    self._update_known()

  def _update_known(self) -> None:
    """Computes all relative times again: what they are relative to may have changed."""
    reference = self._reference()
    times: dict[Configuration, list[float]] = {}
    for one in self.history:
      relative = _relative(one, reference)
      times.setdefault(one.configuration, []).extend(
          [relative] if math.isfinite(relative) else [])
    self._known = {one: float(np.mean(each)) if each else math.inf for one, each in times.items()}

  def _reference(self) -> float:
    """The time of the default; while it is not known, the shortest one."""
    finite = [one for one in self.history if math.isfinite(one.seconds)]
    default = [one.seconds for one in finite if one.configuration == self._space.default]
    return default[0] if default else min((one.seconds for one in finite), default=1.0)

  def _inputs(self, measured: Sequence[Configuration], candidates: Sequence[Configuration]
              ) -> tuple[np.ndarray, np.ndarray]:
    """Scores and features of measured ones and candidates, each of a scale of 1."""
    listed = [*measured, *candidates]
    scores = np.zeros(len(listed))
    if self._prior is not None:
      unknown = [one for one in listed if one not in self._scores]
      if unknown:
        new = np.asarray(self._prior(unknown), float)
        if new.shape != (len(unknown),) or not np.isfinite(new).all():
          raise errors.ConfigError(
              f"the prior returns scores of shape {new.shape} for {len(unknown)} configurations; "
              "expected one finite score for each")
        self._scores.update(zip(unknown, new.tolist()))
      scores = np.array([self._scores[one] for one in listed])
      scores = (scores - scores.mean()) / max(float(scores.std()), 1e-9)
    features = self._space.features(listed)
    if not all(np.isfinite(block).all() for block in features):
      raise errors.ConfigError("the space's features hold values that are no finite numbers")
    return scores, spaces.scaled(features)

  @staticmethod
  def _diverse(scores: np.ndarray, measured: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The candidates by distance from what is measured; better scores first between equals."""
    squares = ((points ** 2).sum(axis=1)[:, None] + (measured ** 2).sum(axis=1)
               - 2 * points @ measured.T).min(axis=1, initial=np.inf)
    distance = np.maximum(squares, 0).round(9)
    return np.lexsort((-scores, -distance))


def expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
  """The expected excess over the best value, for normal distributions.

  (m - b) F(z) + s f(z) with z = (m - b) / s, of the standard normal distribution. See D. R. Jones,
  M. Schonlau and W. J. Welch, Efficient global optimization of expensive black-box functions,
  Journal of Global Optimization 13 (1998).
  """
  z = (mean - best) / deviation
  density = np.exp(-z ** 2 / 2) / math.sqrt(2 * math.pi)
  return (mean - best) * special.ndtr(z) + deviation * density


def _relative(measurement: Measurement, reference: float) -> float:
  """A time relative to the default's; the reference counts if that was not measured with it."""
  return measurement.seconds / (measurement.default_seconds or reference)


def _check_notes(notes: Any) -> None:
  if notes is None:
    return
  try:
    if isinstance(notes, Mapping):
      json.dumps(dict(notes), allow_nan=False)
      return
    problem = f"{type(notes).__name__}"
  except (TypeError, ValueError) as error:
    problem = str(error)
  raise errors.ConfigError(f"notes that JSON cannot store as an object ({problem})")


def _hashable(value: Any) -> Any:
  """A configuration as it was before JSON made lists of its tuples."""
  return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _line(measurement: Measurement, gain: float | None) -> dict[str, Any]:
  """A measurement and what was expected of it, as a line of a journal."""
  line = {"configuration": measurement.configuration,
          "seconds": measurement.seconds if math.isfinite(measurement.seconds) else None}
  for key, value in (("default_seconds", measurement.default_seconds), ("expected_gain", gain),
                     ("notes", measurement.notes)):
    if value is not None:
      line[key] = value
  return line


def _of_line(line: dict[str, Any], place: str, space: spaces.Space
             ) -> tuple[Measurement, float | None]:
  """The inverse of `_line`.

  Raises:
    DataError: it is no measurement, or of a configuration that the space does not have.
  """
  try:
    times = [line["seconds"], line.get("default_seconds"), line.get("expected_gain")]
    seconds, default, gain = (None if value is None else float(value) for value in times)
    if not all(value is None or value > 0 for value in (seconds, default)):
      raise errors.DataError(f"times of {seconds} and {default} s; expected positive ones")
    notes = line.get("notes")
    if not isinstance(notes, dict | None):
      raise errors.DataError(f"notes of {escaping.value(notes)}; expected an object")
    measurement = Measurement(_hashable(line["configuration"]),
                              math.inf if seconds is None else seconds, default, notes)
    space.check(measurement.configuration)
  except (ValueError, KeyError, TypeError, errors.TpuGraphsRankError) as error:
    raise errors.DataError(f"{place}: {error}; expected measurements of this program; use another "
                           "folder") from None
  return measurement, gain
