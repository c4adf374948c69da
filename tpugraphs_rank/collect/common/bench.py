"""Configurations of one program on this machine: compiled, checked against the default, timed.

This module needs no JAX: a caller supplies compiled configurations as functions.
"""

from collections.abc import Callable, Sequence
import time
from typing import Any, NamedTuple

import numpy as np

from tpugraphs_rank.collect.common import protocol

_QUICK_CALLS = 4


class Compiled(NamedTuple):
  """A compiled configuration.

  Attributes:
    digest: identifies its optimised HLO; equal for equal programs.
    call: runs it to its end and returns its results.
  """

  digest: str
  call: Callable[[], Sequence[Any]]


class Bench:
  """Checks and times the configurations of a program. The first must be the default.

  Attributes:
    entries: the records of all configurations in their order: `layouts`, `optimised_hlo`,
      `status` (`ok`, `same_program`, `mismatch`), and after `time` the `runtime_ns` of those that
      are usable.
    expected: the default's results.
  """

  def __init__(self, agrees: Callable[[list[np.ndarray], list[np.ndarray]], bool]) -> None:
    """Starts with no configuration.

    Args:
      agrees: whether results equal the default's.
    """
    self._agrees = agrees
    self.entries: list[dict[str, Any]] = []
    self.expected: list[np.ndarray] | None = None
    self._calls: list[tuple[dict[str, Any], Callable[[], Any]]] = []
    self._seen: set[str] = set()

  def add(self, text: str, compiled: Compiled) -> tuple[bool, float]:
    """Checks a compiled configuration.

    Args:
      text: the configuration as its record names it.
      compiled: its code.

    Returns:
      Whether it is usable (its optimised HLO is new, and it computes the default's numbers), and
      the fastest of a few calls in nanoseconds (infinite if it is not usable).
    """
    entry = {"layouts": text, "optimised_hlo": compiled.digest, "status": "ok"}
    self.entries.append(entry)
    if compiled.digest in self._seen:
      entry["status"] = "same_program"
      return False, float("inf")
    self._seen.add(compiled.digest)
    results = [np.asarray(result) for result in compiled.call()]
    if self.expected is None:
      self.expected = results
    if not self._agrees(results, self.expected):
      entry["status"] = "mismatch"
      return False, float("inf")
    self._calls.append((entry, compiled.call))
    return True, min(_timed(compiled.call) for _ in range(_QUICK_CALLS))

  def refuse(self, text: str, status: str, reason: str) -> None:
    """Records a configuration that cannot be used."""
    self.entries.append({"layouts": text, "optimised_hlo": "", "status": status,
                         "reason": reason})

  def time(self, settings: protocol.Protocol, rng: np.random.Generator) -> None:
    """Times all usable configurations, and sets their `runtime_ns`."""
    times = protocol.time_interleaved([call for _, call in self._calls], settings, rng)
    for (entry, _), runtime in zip(self._calls, times):
      entry["runtime_ns"] = round(runtime)


def _timed(call: Callable[[], Any]) -> float:
  start = time.process_time_ns()
  call()
  return time.process_time_ns() - start
