"""Processes in the collector's environment that compile and measure configurations one by one."""

from collections.abc import Mapping, Sequence
import pathlib
import shutil
from typing import Any

from tpugraphs_rank import errors
from tpugraphs_rank.collect import environment
from tpugraphs_rank.collect.common import flags
from tpugraphs_rank.collect.hlo import folder as folder_lib
from tpugraphs_rank.collect.hlo import worker as worker_lib

# Helpers that compile at the same time; more gain little, and each needs the memory of a compiler.
_MOST_HELPERS = 3
_MOST_FAILURES = 3


class Session:
  """Measures configurations of the program in a folder. Use it in a `with` statement.

  One process measures. Where there are several cores, helpers compile what may be asked for next
  while the measuring process compiles; nothing compiles while it measures. A configuration on which
  a process ends, or that takes too long, is reported as such, and the next one gets a new process.
  """

  def __init__(self, folder: pathlib.Path, source: str, seed: int = 0,
               known: Mapping[str, Sequence[float]] | None = None, limit_s: float = 300.0) -> None:
    """Starts nothing yet.

    Args:
      folder: the prepared folder, see `prepare`.
      source: the program's name in messages.
      seed: of the order of measurements.
      known: by the digest of its optimised HLO, the time of a program and the default's, in
        seconds; these are not measured again.
      limit_s: seconds after which compiling and timing one configuration is abandoned.
    """
    self._folder, self._source, self._seed, self._limit = folder, source, seed, limit_s
    self.helpers = max(0, min(len(flags.usable_cores()) or 1, _MOST_HELPERS + 1) - 1)
    self._measuring: worker_lib.Worker | None = None
    self._compiling: list[worker_lib.Worker | None] = [None] * self.helpers
    self._failures = 0
    self._compiled: dict[str, dict[str, Any]] = {}
    self._times: dict[str, Sequence[float]] = dict(known or {})
    self._variables = environment.process_variables()

  def __enter__(self) -> "Session":
    self._environment = self._variables.__enter__()
    return self

  def __exit__(self, *reason: Any) -> None:
    try:
      for worker in (self._measuring, *self._compiling):
        if worker is not None:
          worker.end()
    finally:
      self._measuring, self._compiling = None, [None] * self.helpers
      shutil.rmtree(self._folder / folder_lib.AHEAD, ignore_errors=True)
      self._variables.__exit__(*reason)

  def ask(self, do: str, layouts: str, ahead: Sequence[str] = ()) -> dict[str, Any]:
    """Sends a request, see `serve`, and returns the answer.

    Its `status` may also be `crashed` or `slow`.

    Args:
      do: the request.
      layouts: the configuration.
      ahead: configurations that helpers compile at the same time, as they may be asked for next.

    Raises:
      DataError: the default cannot be measured.
      OutputError: the environment cannot be made.
    """
    helped = [] if layouts in self._compiled else self._help(ahead)
    if self._measuring is None:
      self._measuring = self._start()
    if helped:
      answer = {"status": "ok"}
      if layouts not in helped:
        answer = self._answer({"do": "compile", "layouts": layouts})
      self._collect(helped)
      if answer["status"] != "ok":
        return answer
    compiled = self._compiled.pop(layouts, {"status": "ok"})
    if compiled["status"] != "ok":
      return compiled
    request = {"do": do, "layouts": layouts}
    return self._answer({**request, "compiled": compiled} if "file" in compiled else request)

  def store(self, layouts: str) -> dict[str, Any]:
    """Writes the program with the requests of a configuration, and returns the answer.

    Raises:
      OutputError: the environment cannot be made.
    """
    worker = worker_lib.Worker(self._folder, self._environment, "--helper")
    try:
      answer = worker.answer(self._limit)
      if answer["status"] == "ready":
        worker.send({"do": "store", "layouts": layouts})
        answer = worker.answer(self._limit)
      return answer
    finally:
      worker.end()

  def _start(self) -> worker_lib.Worker:
    worker = worker_lib.Worker(self._folder, self._environment, "--seed", str(self._seed))
    try:
      ready = worker.answer(self._limit)
    except BaseException:
      worker.end()
      raise
    if ready["status"] == "ready":
      return worker
    worker.end()
    raise errors.DataError(
        ready["reason"] if ready["status"] == "failed" else
        f"{self._source}: the default configuration cannot be measured: {ready['reason']}")

  def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
    """The measuring process's answer."""
    assert self._measuring is not None
    self._measuring.send({**request, "known": self._times})
    answer = self._measuring.answer(self._limit)
    if answer["status"] in ("crashed", "slow"):
      self._measuring.end()
      self._measuring = None
    elif "seconds" in answer:
      self._times[answer["optimised_hlo"]] = [answer["seconds"], answer["default_seconds"]]
    return answer

  def _help(self, ahead: Sequence[str]) -> list[str]:
    """Lets helpers compile; returns what each of them compiles."""
    if self._failures >= _MOST_FAILURES:
      return []
    wanted = [layouts for layouts in ahead if layouts not in self._compiled][:self.helpers]
    for number, layouts in enumerate(wanted):
      worker = self._compiling[number]
      if worker is None:
        worker = self._compiling[number] = worker_lib.Worker(
            self._folder, self._environment, "--helper")
      worker.send({"do": "compile", "layouts": layouts})
    return wanted

  def _collect(self, helped: Sequence[str]) -> None:
    """Waits until the helpers have compiled. What fails is compiled by the measuring process."""
    for number, layouts in enumerate(helped):
      worker = self._compiling[number]
      assert worker is not None
      answer = worker.answer(self._limit)
      if answer["status"] == "ready":
        answer = worker.answer(self._limit)
      if answer["status"] in ("crashed", "slow", "failed"):
        self._failures += 1
        self._compiling[number] = None
        worker.end()
      else:
        self._compiled[layouts] = answer
