"""CPU and wall time of several variants of a task."""

from collections.abc import Callable, Mapping
import time
from typing import Any

import numpy as np

Times = dict[str, dict[str, float]]


def interleaved(ways: Mapping[str, Callable[[], Any]], repeats: int) -> Times:
  """For each way the medians of CPU and wall seconds, the ways taken in turn."""
  cpu: dict[str, list[float]] = {name: [] for name in ways}
  wall: dict[str, list[float]] = {name: [] for name in ways}
  for turn in range(repeats + 1):
    for name, way in ways.items():
      before = time.process_time(), time.perf_counter()
      way()
      if turn:  # The first traces.
        cpu[name].append(time.process_time() - before[0])
        wall[name].append(time.perf_counter() - before[1])
  return {name: {"cpu_s": float(np.median(cpu[name])), "wall_s": float(np.median(wall[name]))}
          for name in ways}
