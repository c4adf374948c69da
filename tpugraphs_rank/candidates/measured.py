"""Predicted against measured: how fast the best candidates were when they were run."""

from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import metrics
from tpugraphs_rank import tables
from tpugraphs_rank.candidates import candidate_set
from tpugraphs_rank.candidates import ranking as ranked_lib
from tpugraphs_rank.hlo import tuning_pb2


@dataclasses.dataclass(frozen=True)
class Measured:
  """Runtimes of a program's best candidates.

  Attributes:
    ranked: the prediction.
    positions: (m,) positions of the best candidates that could be measured, the best first.
    passes: (p, m) ns, their runtimes in each pass.
    default: ns, the runtime of the compiler's default, averaged over the passes.
  """

  ranked: ranked_lib.Ranked
  positions: np.ndarray
  passes: np.ndarray
  default: float

  @property
  def runtimes(self) -> np.ndarray:
    """(m,) ns, averaged over the passes."""
    return self.passes.mean(axis=0)

  @property
  def tau(self) -> float | None:
    """Kendall's tau of predicted and measured among the best; None if all are equal."""
    return _known(metrics.kendall_tau(self.runtimes, self.ranked.scores[self.positions]))

  @property
  def tau_of_passes(self) -> float | None:
    """Kendall's tau of the first two passes, the limit set by noise; None if all are equal."""
    return _known(metrics.kendall_tau(self.passes[0], -self.passes[1].astype(np.float64)))

  @property
  def speedup(self) -> float:
    """Runtime of the default divided by that of the fastest of the best."""
    return self.default / float(self.runtimes.min())


def _known(value: float) -> float | None:
  return None if math.isnan(value) else float(value)


def _key(profile: candidate_set.Profile) -> tuple[Any, ...]:
  """The part of a configuration that identifies it. Collectors compute input bounds themselves."""
  if profile.HasField("op_config"):
    tile = profile.op_config.tile_size_config
    return tuple(tile.output_bounds), tuple(tile.kernel_bounds)
  return tuple(tuple(tuple(tensor.dims) for tensor in node.tensors)
               for node in profile.module_config.layout_config.nodes)


def compare(ranked: ranked_lib.Ranked, passes: Sequence[tuning_pb2.ModuleTuningData]) -> Measured:
  """Finds the best candidates among measured runs.

  Args:
    ranked: the prediction.
    passes: two or more measurements of the same runs of this program.

  Raises:
    DataError: the default was not measured, or fewer than two of the best were.
  """
  times = np.array([[run.profile.compute_time_ns for run in data.runs] for data in passes])
  index = {_key(run): number for number, run in enumerate(passes[0].runs)}
  defaults = [number for number, run in enumerate(passes[0].runs) if run.is_default]
  wanted = [(position, index.get(_key(ranked.candidates.profile(position))))
            for position in ranked.best]
  matched = [(position, number) for position, number in wanted if number is not None]
  if not defaults or len(matched) < min(2, len(ranked.best)):
    raise errors.DataError(
        f"{ranked.program.source}: {len(matched)} of the best {len(ranked.best)} configurations "
        f"and {len(defaults)} defaults were measured; expected two or more and the default (the "
        "collector drops configurations that compile to the same program): raise --top_k")
  positions, numbers = (np.array(column) for column in zip(*matched))
  return Measured(ranked, positions, times[:, numbers], float(times[:, defaults[0]].mean()))


def to_json(result: Measured) -> dict[str, Any]:
  """The comparison of one program."""
  places = _measured_places(result)
  return {
      "tau": result.tau, "tau_of_passes": result.tau_of_passes, "default_ns": result.default,
      "speedup_over_default": result.speedup,
      "configurations": [
          {"candidate": result.ranked.candidates.index(position), "measured_rank": place,
           "runtime_ns": float(runtime)}
          for position, place, runtime in zip(result.positions, places, result.runtimes)]}


def _measured_places(result: Measured) -> list[int]:
  """The rank of each configuration by its runtime, from 1."""
  places = np.empty(len(result.positions), int)
  places[np.argsort(result.runtimes, kind="stable")] = np.arange(1, len(places) + 1)
  return places.tolist()


def table(result: Measured) -> str:
  """The comparison of one program as text."""
  header = ["predicted", "measured", "runtime", "default / runtime"]
  rows = []
  order = {int(position): place for place, position in enumerate(result.ranked.best, 1)}
  for position, place, runtime in zip(
      result.positions, _measured_places(result), result.runtimes):
    rows.append([str(order[int(position)]), str(place), f"{runtime / 1e6:.4f} ms",
                 f"{result.default / runtime:.3f}"])
  lines = [tables.text(header, rows, tables.RIGHT * len(header), rule=False).rstrip()]
  dropped = len(result.ranked.best) - len(result.positions)
  lines.append(
      f"tau of predicted and measured: {_shown(result.tau)} (two passes: "
      f"{_shown(result.tau_of_passes)}); the fastest is {result.speedup:.3f} times as fast as the "
      "default" + (f"; {dropped} compile to the same programs as others" if dropped else ""))
  return "\n".join([f"{escaping.shown(result.ranked.program.name)}: measured", *lines])


def _shown(tau: float | None) -> str:
  return "undefined" if tau is None else f"{tau:.3f}"
