"""Tunes a program: proposes configurations, measures them, adapts, and confirms the best.

Everything that is measured is in `measurements.jsonl` at once. A process that is killed at any
moment loses nothing, and the same call resumes.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import logging
import math
import pathlib
import time
from typing import Any

import numpy as np
from scipy import stats
import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import json_shapes
from tpugraphs_rank.candidates import candidate_set
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.candidates import requests as requests_lib
from tpugraphs_rank.candidates import supplied
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.hlo import folder as folder_lib
from tpugraphs_rank.collect.hlo import prepare
from tpugraphs_rank.collect.hlo import session as session_lib
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import tuning_pb2
from tpugraphs_rank.tuning import journal
from tpugraphs_rank.tuning import spaces
from tpugraphs_rank.tuning import tuner as tuner_lib

JOURNAL, CONFIRMED, RESULT = "measurements.jsonl", "confirmed.jsonl", "tuned.json"
MEASURED = "measured.pb"
# Fresh processes that measure the best and the default in turn.
PROCESSES = 4
_LEVEL = 0.95
_MOST_SPEEDUP = 10**6
_TUNED_PROGRAMS = (folder_lib.TUNED_HLO, folder_lib.TUNED_STABLEHLO)
_PROGRAM = "optimised_hlo"  # What identifies it, in answers and notes.

_log = logging.getLogger("tpugraphs_rank.tune")


@dataclasses.dataclass(frozen=True)
class Settings:
  """How long to search.

  Attributes:
    measurements: maximum number, those of earlier calls included.
    minutes: maximum time of this call until the final measurement; None: no limit.
    seed: of all random choices.
    early: whether to end when more measurements are not expected to help.
    xla_flags: flags of XLA, as in the variable XLA_FLAGS; by default XLA's own, on one core.
  """

  measurements: int = 40
  minutes: float | None = None
  seed: int = 0
  early: bool = True
  xla_flags: str = protocol.ENVIRONMENT["XLA_FLAGS"]

  def __post_init__(self) -> None:
    if self.measurements < 2 or self.seed < 0 or (
        self.minutes is not None and not self.minutes > 0):
      raise errors.ConfigError(
          f"--measurements={self.measurements} --minutes={self.minutes} --seed={self.seed}: "
          "expected at least 2 measurements, positive minutes, and a seed of 0 or more")


def prior_of(run: Any, program: programs.HloProgram, data: tuning_pb2.ModuleTuningData,
             space: spaces.LayoutSpace) -> tuner_lib.Prior:
  """The scores of a trained run for the configurations of a space."""
  default = space.node_features([space.default])
  nodes = np.array(data.config_index_to_node, np.int64)
  about = candidate_set.Candidates(
      "layout", {"node_config_ids": nodes, "node_config_feat": default},
      lambda _: candidate_set.Profile(), {}, 0)
  graph = programs.to_graph(program, about, run.normalizer.feature_padding)

  def scores(listed: Any) -> np.ndarray:
    from tpugraphs_rank.data import graphs
    return np.asarray(run.score(graphs.with_configs(graph, space.node_features(listed))))

  return scores


def tune(output: pathlib.Path, program: programs.HloProgram, text: str, settings: Settings,
         run: Any = None) -> dict[str, Any]:
  """Tunes a program, or resumes.

  Args:
    output: folder of everything.
    program: the program.
    text: its text, if it came as HLO text.
    settings: how long to search.
    run: a trained run on layouts, whose scores are the prior; None: no prior.

  Returns:
    The contents of `tuned.json`.

  Raises:
    DataError: the program cannot be measured.
    RunDirectoryError: the folder belongs to another program, or was started with other settings.
    OutputError: the collector's environment cannot be made.
  """
  data = prepare.with_sites(program)
  space = spaces.space_of(program.data.module, list(data.config_index_to_node), program.source)
  prior = None if run is None else prior_of(run, program, data, space)
  existed, is_new = output.exists(), not prepare.files_in(output)
  try:
    prepare.prepare_data(output, data, text, program.source, prepare.Settings(
        seed=settings.seed, xla_flags=settings.xla_flags))
    return _tune(output, program, data, space, prior, settings)
  except errors.TpuGraphsRankError:
    if is_new and not (output / JOURNAL).exists():  # The program cannot be measured.
      with contextlib.suppress(OSError):
        for name in (folder_lib.PLAN, folder_lib.PROGRAM, folder_lib.TEXT):
          (output / name).unlink(missing_ok=True)
        if not existed:
          output.rmdir()
    raise


def _tune(output: pathlib.Path, program: programs.HloProgram, data: tuning_pb2.ModuleTuningData,
          space: spaces.LayoutSpace, prior: tuner_lib.Prior | None, settings: Settings
          ) -> dict[str, Any]:
  """Tunes in a prepared folder; see `tune`.

  At any moment, `tuned.json` and the tuned programs agree: the result of an earlier search stays
  until a new one is confirmed. `tuned.json` of an unfinished search has no programs.
  """
  tuner = tuner_lib.Tuner(space, prior, seed=settings.seed, journal=output / JOURNAL)
  if tuner.history:
    _log.info("%d measurements are in %s", len(tuner.history), output / JOURNAL)
  kept = _has_result(output)

  def write(outcome: dict[str, Any]) -> dict[str, Any]:
    result = _result(program, data.module, space, tuner, outcome)
    files.write_json(output / RESULT, result)
    return result

  def write_unfinished() -> None:
    if not kept:
      for name in _TUNED_PROGRAMS:
        (output / name).unlink(missing_ok=True)
      write({"finished": False, "why": "interrupted"})

  try:
    why = _search(output, program.source, tuner, settings, write_unfinished)
    best = tuner.best
    assert best is not None
    confirmed = None
    if best.configuration != space.default:
      confirmed = confirm(output, program.source, str(best.configuration))
    kept = False
    write_unfinished()
    _store(output, program.source, space, best, confirmed)
    result = write({"finished": True, "why": why, "confirmed": confirmed})
    kept = True
  finally:
    if tuner.best is not None:
      write_unfinished()
      _store_measured(output, data, space, tuner)
  return result


def _has_result(output: pathlib.Path) -> bool:
  """Whether the folder has the result of a finished search, with its programs."""
  if not all((output / name).exists() for name in (RESULT, *_TUNED_PROGRAMS)):
    return False
  try:
    return bool(json_shapes.read(output / RESULT, folder_lib.TUNED, "")["finished"])
  except errors.DataError:
    return False  # It is written again.


def _search(output: pathlib.Path, source: str, tuner: tuner_lib.Tuner, settings: Settings,
            found: Callable[[], Any]) -> str:
  """Measures until it is enough; returns why it ended. Calls `found` at each new best."""
  end = math.inf if settings.minutes is None else time.monotonic() + 60 * settings.minutes
  with (session_lib.Session(output, source, settings.seed, known_times(tuner)) as session,
        tqdm.tqdm(total=settings.measurements, initial=len(tuner.history), desc="tune",
                  unit="measurement", disable=None) as bar):
    while len(tuner.history) < settings.measurements:
      if time.monotonic() > end:
        return f"the {settings.minutes:g} minutes are over"
      try:
        configuration = tuner.ask()
      except errors.ConfigError:
        return "everything that was proposed is measured"
      if settings.early and tuner.finished:
        return "more measurements are not expected to help"
      before = tuner.best
      answer = session.ask("measure", str(configuration), tuner.ahead(session.helpers))
      if "seconds" in answer:
        tuner.tell(configuration, answer["seconds"], answer["default_seconds"],
                   {_PROGRAM: answer[_PROGRAM]})
      else:
        if not tuner.history:
          raise errors.DataError(
              f"{source}: the default configuration cannot be measured: {answer['reason']}")
        _log.info("a configuration failed: %s", answer["reason"])
        tuner.tell(configuration, math.inf, notes=answer)
      bar.update()
      best = tuner.best
      if best is not before:
        found()  # A process that is killed has reported it.
      if best is not None and best.default_seconds is not None:
        bar.set_postfix_str(f"best {best.default_seconds / best.seconds:.3f} x the default's speed")
  done = f"{len(tuner.history)} measurements are done"
  more = len(tuner.history) > settings.measurements
  return f"{done}, more than --measurements={settings.measurements}" if more else done


def known_times(tuner: tuner_lib.Tuner) -> dict[str, tuple[float, float]]:
  """The times of the programs that were measured, by what identifies them; and the default's.

  Configurations that are the same program have the same time.
  """
  return {one.notes[_PROGRAM]: (one.seconds, one.default_seconds) for one in tuner.history
          if one.notes is not None and isinstance(one.notes.get(_PROGRAM), str)
          and one.default_seconds is not None}


def confirmed_speedups(path: pathlib.Path, configuration: str) -> list[float]:
  """The speedups of a configuration in the file of earlier confirmations.

  Raises:
    DataError: a line is damaged.
  """
  speedups = []
  for place, line in journal.lines(path):
    json_shapes.check(line, {"configuration": str, "speedup": float}, place, "remove this line")
    if not 1 / _MOST_SPEEDUP < line["speedup"] < _MOST_SPEEDUP:
      raise errors.DataError(f"{place} has the speedup {line['speedup']}; expected a positive one "
                             f"below {_MOST_SPEEDUP:,}; remove this line")
    if line["configuration"] == configuration:
      speedups.append(float(line["speedup"]))
  return speedups[:PROCESSES]


def confirm(output: pathlib.Path, source: str, configuration: str) -> dict[str, Any]:
  """Measures a configuration and the default in turn, in fresh processes.

  Each process adds a line to `confirmed.jsonl`; those of earlier calls count.

  Returns:
    `speedups`: the default's time divided by its own, in each process; `speedup`: their geometric
    mean; `interval`: where a further process is expected in 95 of 100 cases, by Student's t
    distribution on the logarithms; `is_faster`: whether the interval is above 1.

  Raises:
    DataError: the configuration cannot be measured any more.
  """
  speedups = confirmed_speedups(output / CONFIRMED, configuration)
  for number in range(len(speedups), PROCESSES):
    with session_lib.Session(output, source, seed=1000 + number) as session:
      answer = session.ask("measure", configuration, [configuration])
    if "seconds" not in answer:
      raise errors.DataError(f"{source}: the best configuration fails when it is measured again: "
                             f"{answer['reason']}")
    speedups.append(answer["default_seconds"] / answer["seconds"])
    journal.append(output / CONFIRMED, {
        "configuration": configuration, "speedup": speedups[-1], "seconds": answer["seconds"],
        "default_seconds": answer["default_seconds"]})
  return of_speedups(speedups)


def of_speedups(speedups: list[float]) -> dict[str, Any]:
  """The summary of a configuration's speed in several processes; see `confirm`."""
  logarithms = np.log(speedups)
  count = len(logarithms)
  half = (float(stats.t.ppf((1 + _LEVEL) / 2, count - 1)) * float(logarithms.std(ddof=1))
          * math.sqrt(1 + 1 / count))
  mean = float(logarithms.mean())
  interval = [math.exp(mean - half), math.exp(mean + half)]
  return {"speedups": list(map(float, speedups)), "speedup": math.exp(mean), "interval": interval,
          "is_faster": interval[0] > 1}


def _store(output: pathlib.Path, source: str, space: spaces.LayoutSpace,
           best: tuner_lib.Measurement, confirmed: dict[str, Any] | None) -> None:
  """Writes the tuned program; without a gain over the default, the program as it is."""
  gains = confirmed is not None and confirmed["is_faster"]
  with session_lib.Session(output, source) as session:
    answer = session.store(str(best.configuration) if gains else space.default)
  if answer["status"] != "ok":
    raise errors.OutputError(f"{source}: the tuned program cannot be stored: {answer['reason']}")


def _result(program: programs.HloProgram, module: hlo_pb2.HloModuleProto,
            space: spaces.LayoutSpace, tuner: tuner_lib.Tuner, outcome: dict[str, Any]
            ) -> dict[str, Any]:
  best = tuner.best
  assert best is not None
  confirmed = outcome.get("confirmed")
  gains = bool(confirmed and confirmed["is_faster"])
  features = space.node_features([space.default, str(best.configuration)])
  named = requests_lib.LayoutRequests(module, candidate_set.Candidates(
      "layout", {"node_config_ids": np.array([site.node for site in space.requests.sites]),
                 "node_config_feat": features}, lambda _: candidate_set.Profile(), {}, 0))
  return {
      "program": program.name, "source": program.source, **outcome, "is_faster": gains,
      "measurements": len(tuner.history),
      "failed": sum(not math.isfinite(one.seconds) for one in tuner.history),
      "best": {"layouts": best.configuration, "seconds": best.seconds,
               "default_seconds": best.default_seconds,
               "requests": [request.to_json() for request in named.of(1)]},
      "nodes": [site.node for site in space.requests.sites], "machine": protocol.machine()}


def _store_measured(output: pathlib.Path, data: tuning_pb2.ModuleTuningData,
                    space: spaces.LayoutSpace, tuner: tuner_lib.Tuner) -> None:
  """Writes what was measured as raw data, for `featurize`: times relative to the first default."""
  first = next(one for one in tuner.history if math.isfinite(one.seconds))
  result = tuning_pb2.ModuleTuningData(
      module=data.module, config_index_to_node=data.config_index_to_node)
  listed: dict[Any, list[float]] = {}
  for one in tuner.history:
    if math.isfinite(one.seconds):
      listed.setdefault(one.configuration, []).append(
          one.seconds / (one.default_seconds or first.seconds))
  features = space.node_features([str(one) for one in listed])
  configurable = space.requests.sites
  from tpugraphs_rank.candidates import layouts
  for row, (configuration, ratios) in enumerate(listed.items()):
    run = result.runs.add()
    run.CopyFrom(layouts.profile_of(features[row], configurable))
    run.is_default = configuration == space.default
    run.profile.compute_time_ns = max(1, round(1e9 * first.seconds * float(np.mean(ratios))))
  supplied.from_runs(result, "layout")
  with files.atomic_write(output / MEASURED) as file:
    file.write(result.SerializeToString(deterministic=True))


