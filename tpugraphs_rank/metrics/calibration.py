"""What a lead in score over the default has meant: how often faster, and by how much.

Scores only order configurations: their scale is that of a loss, not of time. On programs with
measurements the lead of a configuration, its score minus that of the default, can be compared with
its runtime divided by the default's. `fit` sorts such configurations by their lead and divides them
into bins. A new configuration is then described by the measured ones of its bin: "of 214 such
configurations of 31 programs, 83 % were faster than the default; the median was 1.4 times as fast".

Configurations of one program are not independent, so all intervals are over programs.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from tpugraphs_rank import errors

# Fewer programs with a known default say too little about new ones.
LEAST_PROGRAMS = 5
_BINS = 12
_LEAST_CANDIDATES = 20  # In a bin.
_MOST_CANDIDATES = 1000  # Of a program, so that a large one does not outweigh all others.
_RESAMPLES = 400
_LEVEL = 0.9
_NORMAL = 1.6449  # The quantile of the normal distribution for an interval of 90 %.


class Program(NamedTuple):
  """The measured configurations of one program, without the default.

  Attributes:
    leads: (c,) score minus that of the default; higher = predicted faster.
    speedups: (c,) runtime of the default divided by that of the configuration.
  """

  leads: np.ndarray
  speedups: np.ndarray


@dataclasses.dataclass(frozen=True)
class Bin:
  """The measured configurations whose lead is in one range.

  Attributes:
    least_lead: the range begins here; it ends where the next bin begins. The first bin has no
      beginning: -inf.
    candidates: number of configurations.
    programs: number of programs that they belong to.
    faster: share of them that were faster than the default, 0 to 1.
    faster_interval: of that share, 90 % over programs.
    speedup: median of the default's runtime divided by theirs.
    speedup_interval: of that median, 90 % over programs.
    speedup_half: quartiles: half of the configurations were within this range.
  """

  least_lead: float
  candidates: int
  programs: int
  faster: float
  faster_interval: tuple[float, float]
  speedup: float
  speedup_interval: tuple[float, float]
  speedup_half: tuple[float, float]

  @property
  def is_clear(self) -> bool:
    """Whether the interval says on which side of the default these configurations are."""
    return self.faster_interval[0] > 0.5 or self.faster_interval[1] < 0.5


@dataclasses.dataclass(frozen=True)
class Calibration:
  """The bins, by ascending lead: neither share nor median ever falls.

  Attributes:
    bins: at least one.
    programs: number of programs with a known default.
    candidates: number of configurations.
  """

  bins: tuple[Bin, ...]
  programs: int
  candidates: int

  def of(self, leads: np.ndarray) -> list[Bin]:
    """The bin of each lead of (c,). Leads beyond all measured ones have the last bin."""
    edges = np.array([one.least_lead for one in self.bins[1:]])
    return [self.bins[index] for index in np.searchsorted(edges, leads, side="right")]

  def to_json(self) -> dict[str, Any]:
    """For a JSON file, which has no infinity: the first bin begins at null."""
    return {"programs": self.programs, "candidates": self.candidates, "bins": [
        {**dataclasses.asdict(one), "least_lead": _finite(one.least_lead)} for one in self.bins]}

  @classmethod
  def from_json(cls, stored: Mapping[str, Any]) -> "Calibration":
    """Reads what `to_json` returned.

    Raises:
      DataError: it has another form.
    """
    try:
      bins = tuple(Bin(
          -math.inf if one["least_lead"] is None else float(one["least_lead"]),
          int(one["candidates"]), int(one["programs"]), float(one["faster"]),
          _pair(one["faster_interval"]), float(one["speedup"]), _pair(one["speedup_interval"]),
          _pair(one["speedup_half"])) for one in stored["bins"])
      if not bins or any(one.least_lead >= other.least_lead
                         for one, other in zip(bins, bins[1:])):
        raise ValueError("its bins do not ascend")
      return cls(bins, int(stored["programs"]), int(stored["candidates"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
      raise errors.DataError(f"a calibration is damaged ({error!r})") from error


class Outcome(NamedTuple):
  """What happened to the configurations that a calibration puts into one bin.

  Attributes:
    candidates, programs: their numbers.
    faster: share of them that were faster than the default; None without any.
    speedup: median of the default's runtime divided by theirs; None without any.
    within_half: share of them within the bin's quartiles, 0.5 if these are right; None without any.
  """

  candidates: int
  programs: int
  faster: float | None
  speedup: float | None
  within_half: float | None


def outcomes(calibration: Calibration, programs: Sequence[Program]) -> list[Outcome]:
  """Checks a calibration on other programs, bin by bin.

  Args:
    calibration: the calibration.
    programs: measured configurations of programs that it was not fitted on.
  """
  places = np.concatenate([np.zeros([0], np.int64), *(
      np.searchsorted([one.least_lead for one in calibration.bins[1:]], program.leads, "right")
      for program in programs)])
  speedups = np.concatenate([np.zeros([0]), *(program.speedups for program in programs)])
  owners = np.repeat(np.arange(len(programs)), [len(program.leads) for program in programs])
  results = []
  for place, one in enumerate(calibration.bins):
    values = speedups[places == place]
    if not len(values):
      results.append(Outcome(0, 0, None, None, None))
      continue
    inside = (values >= one.speedup_half[0]) & (values <= one.speedup_half[1])
    results.append(Outcome(
        len(values), len(np.unique(owners[places == place])), float((values > 1).mean()),
        float(np.median(values)), float(inside.mean())))
  return results


def brier_score(calibration: Calibration, programs: Sequence[Program]) -> float:
  """Mean square of the difference between the predicted share and whether it was faster (0 or 1).

  0.25 is the score of always predicting one half. Brier (1950).
  """
  squares = []
  for program in programs:
    predicted = np.array([one.faster for one in calibration.of(program.leads)])
    squares.append((predicted - (program.speedups > 1)) ** 2)
  return float(np.concatenate(squares).mean())


def _finite(value: float) -> float | None:
  return float(value) if math.isfinite(value) else None


def _pair(values: Sequence[Any]) -> tuple[float, float]:
  low, high = values
  return float(low), float(high)


def fit(programs: Sequence[Program], seed: int = 0) -> Calibration | None:
  """Fits the bins; None if fewer than `LEAST_PROGRAMS` programs have configurations.

  Equally large bins are joined with a neighbour until each has enough programs, and until neither
  the share nor the median falls from one to the next (pooling adjacent violators, as isotonic
  regression does).

  Args:
    programs: their measured configurations. At most 1,000 of each are used, evenly spread over
      the leads.
    seed: of the resampled programs.
  """
  rng = np.random.default_rng([seed, 1])
  used = [_thinned(program, rng) for program in programs if len(program.leads)]
  if len(used) < LEAST_PROGRAMS:
    return None
  leads = np.concatenate([program.leads for program in used]).astype(np.float64)
  speedups = np.concatenate([program.speedups for program in used]).astype(np.float64)
  owners = np.repeat(np.arange(len(used)), [len(program.leads) for program in used])
  order = np.argsort(leads, kind="stable")
  leads, speedups, owners = leads[order], speedups[order], owners[order]
  weights = _resamples(len(used), seed)
  bins = tuple(
      _bin(-math.inf if start == 0 else float(leads[start]), speedups[start:end],
           owners[start:end], weights)
      for start, end in _ranges(leads, speedups, owners))
  return Calibration(bins, len(used), len(leads))


def _thinned(program: Program, rng: np.random.Generator) -> Program:
  count = len(program.leads)
  if count <= _MOST_CANDIDATES:
    return program
  # Equal leads in random order: those with the lowest indices may be faster than the others.
  order = np.lexsort((rng.random(count), program.leads))
  kept = order[np.linspace(0, count - 1, _MOST_CANDIDATES).astype(int)]
  return Program(program.leads[kept], program.speedups[kept])


def _ranges(leads: np.ndarray, speedups: np.ndarray, owners: np.ndarray
            ) -> list[tuple[int, int]]:
  """Begin and end of each bin among configurations that are sorted by their lead."""
  count = max(1, min(_BINS, len(leads) // _LEAST_CANDIDATES))
  # Equal leads belong to one bin.
  edges = sorted({0, len(leads), *(
      int(np.searchsorted(leads, leads[len(leads) * number // count]))
      for number in range(1, count))})
  ranges = list(zip(edges[:-1], edges[1:]))

  def figures(one: tuple[int, int]) -> tuple[float, float]:
    values = speedups[slice(*one)]
    return float((values > 1).mean()), float(np.median(values))

  def join(place: int) -> None:
    ranges[place:place + 2] = [(ranges[place][0], ranges[place + 1][1])]

  for place in range(len(ranges) - 1, -1, -1):  # From the end, where joining keeps the places.
    if len(ranges) > 1 and len(np.unique(owners[slice(*ranges[place])])) < LEAST_PROGRAMS:
      join(min(place, len(ranges) - 2))
  place = 0
  while place < len(ranges) - 1:
    ours, theirs = figures(ranges[place]), figures(ranges[place + 1])
    if theirs[0] < ours[0] or theirs[1] < ours[1]:
      join(place)
      place = max(place - 1, 0)
    else:
      place += 1
  return ranges


def _resamples(programs: int, seed: int) -> np.ndarray:
  """(r, programs) how often each program is in each resample."""
  rng = np.random.default_rng(seed)
  return rng.multinomial(programs, np.full(programs, 1 / programs), size=_RESAMPLES)


def _bin(least_lead: float, speedups: np.ndarray, owners: np.ndarray, weights: np.ndarray) -> Bin:
  faster = speedups > 1
  share, members = float(faster.mean()), len(np.unique(owners))
  order = np.argsort(speedups, kind="stable")
  drawn = weights[:, owners[order]]
  drawn = drawn[drawn.any(axis=1)]
  shares = (drawn * faster[order]).sum(axis=1) / drawn.sum(axis=1)
  reached = drawn.cumsum(axis=1) * 2 >= drawn.sum(axis=1, keepdims=True)
  medians = speedups[order][reached.argmax(axis=1)]
  low, high = _interval(shares)
  # Where all configurations of a bin agree, resampling sees no doubt. Wilson's interval does, with
  # each program as one observation.
  score_low, score_high = _wilson(share, members)
  return Bin(
      least_lead, len(speedups), members, share, (min(low, score_low), max(high, score_high)),
      float(np.median(speedups)), _interval(medians),
      (float(np.quantile(speedups, 0.25)), float(np.quantile(speedups, 0.75))))


def _interval(values: np.ndarray) -> tuple[float, float]:
  low, high = np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
  return float(low), float(high)


def _wilson(share: float, count: int) -> tuple[float, float]:
  """The interval of Wilson (1927) of a share among `count` independent observations."""
  square = _NORMAL ** 2
  middle = (share + square / (2 * count)) / (1 + square / count)
  half = _NORMAL / (1 + square / count) * math.sqrt(
      share * (1 - share) / count + square / (4 * count ** 2))
  return max(middle - half, 0.0), min(middle + half, 1.0)
