"""The measuring protocol: its constants, the interleaved timing loop, the machine's description.

This module needs no JAX: the loop times any callables.
"""

from collections.abc import Callable, Sequence
import dataclasses
import gc
import hashlib
import os
import platform
import re
import time

import numpy as np

from tpugraphs_rank import errors

# Variables that must be set before JAX is imported. One compute thread; large buffers stay in the
# allocator, so that no configuration pays for the page faults of fresh memory.
ENVIRONMENT: dict[str, str] = {
    "NPROC": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
}

# For layouts XLA's newer fusion emitters are off: with them compilation, which is most of the work,
# takes more than twice as long, and programs run about a tenth faster.
LAYOUT_ENVIRONMENT: dict[str, str] = {
    **ENVIRONMENT,
    "XLA_FLAGS": f"{ENVIRONMENT['XLA_FLAGS']} --xla_cpu_use_fusion_emitters=false"}

def environment_with(xla_flags: str) -> dict[str, str]:
  """The variables of a measuring process: those of the protocol, with these flags of XLA."""
  return {**ENVIRONMENT, "XLA_FLAGS": xla_flags}


# Largest difference from the untiled kernel, relative to its largest magnitude (at least 1).
TOLERANCE: dict[str, float] = {"f32": 1e-4, "bf16": 2e-2, "s32": 0.0, "pred": 0.0}
# Configurations of synthetic programs that take longer are left out.
SLOWEST_SYNTHETIC_NS = 100_000_000


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How long and how often a configuration is timed. All times are CPU time of the process.

  Attributes:
    sample_ns: approximate duration of a sample, which repeats the call.
    budget_ns: measuring time of one configuration in one pass, once `min_rounds` are done.
    min_rounds: number of rounds in which every configuration is sampled, however slow it is.
    max_rounds: maximum number of samples of a configuration.
  """

  sample_ns: int = 1_500_000
  budget_ns: int = 30_000_000
  min_rounds: int = 5
  max_rounds: int = 20


TILE = Protocol()
LAYOUT = Protocol(budget_ns=60_000_000, max_rounds=40)


def check_result(result: np.ndarray) -> None:
  """Rejects synthetic programs whose result carries no information.

  Raises:
    DataError: the result holds infinities or NaNs, or the same number everywhere.
  """
  numbers = result.astype(np.float64)
  if not np.isfinite(numbers).all():
    raise errors.DataError("not finite: the result holds infinities or NaNs")
  if np.ptp(numbers) == 0:
    raise errors.DataError(f"constant: the result is {numbers.flat[0]} everywhere")


def time_interleaved(calls: Sequence[Callable[[], object]], protocol: Protocol,
                     rng: np.random.Generator,
                     clock: Callable[[], int] = time.process_time_ns) -> list[float]:
  """Minimum time of each call, in nanoseconds.

  In each round every configuration with remaining budget is sampled once, in a new random order, so
  that a slow phase of the machine affects all configurations equally.

  Args:
    calls: one callable for each configuration; it runs the configuration once, to completion.
    protocol: the constants.
    rng: draws the orders.
    clock: nanoseconds of CPU time; tests replace it.
  """
  repeats = []
  for call in calls:
    call()  # The first run loads code and buffers.
    start = clock()
    call()
    once = max(clock() - start, 1)
    repeats.append(max(1, -(-protocol.sample_ns // once)))
  best = [float("inf")] * len(calls)
  spent = [0] * len(calls)
  collecting = gc.isenabled()
  gc.disable()
  try:
    for number in range(protocol.max_rounds):
      for index in rng.permutation(len(calls)):
        if number >= protocol.min_rounds and spent[index] >= protocol.budget_ns:
          continue
        call, count = calls[index], repeats[index]
        start = clock()
        for _ in range(count):
          call()
        elapsed = clock() - start
        spent[index] += elapsed
        best[index] = min(best[index], elapsed / count)
  finally:
    if collecting:
      gc.enable()
  return best


def normalised_hlo(text: str) -> str:
  """Optimised HLO without metadata, and with names numbered in order of appearance.

  Two configurations with the same normalised text are the same program.
  """
  # Tables of source positions come between the header and the first computation.
  text = re.sub(r"\nFileNames\n.*?(?=\n(?:%|ENTRY ))", "", text, count=1, flags=re.DOTALL)
  text = re.sub(r",? *(metadata|backend_config)=\{(?:[^{}]|\{[^{}]*\})*\}", "", text)
  text = re.sub(r"^HloModule [^,\n]*", "HloModule", text)
  names: dict[str, str] = {}
  return re.sub(r"%[\w.\-]+", lambda match: names.setdefault(match[0], f"%{len(names)}"), text)


def digest(text: str) -> str:
  """A short hash of a text."""
  return hashlib.sha256(text.encode()).hexdigest()[:24]


def keeps_loop(optimised: str) -> bool:
  """Whether the optimised HLO contains a `while`; without one, XLA has removed the tiling."""
  return re.search(r"[)\]}] while\(", optimised) is not None


def agrees(result: np.ndarray, expected: np.ndarray, dtype: str) -> bool:
  """Whether a configuration computed the same numbers as the untiled kernel, within `TOLERANCE`."""
  if result.shape != expected.shape or result.dtype != expected.dtype:
    return False
  if not TOLERANCE[dtype]:
    return bool(np.array_equal(result, expected))
  result, expected = result.astype(np.float64), expected.astype(np.float64)
  if not (np.isfinite(result).all() and np.isfinite(expected).all()):
    return False
  scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
  return bool(np.abs(result - expected).max(initial=0.0) <= TOLERANCE[dtype] * scale)


def cpu_model() -> str:
  """Model name of the processor as the system reports it, with family and model numbers."""
  fields: dict[str, str] = {}
  try:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
      for line in file:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
  except OSError:
    return platform.processor() or platform.machine()
  name = fields.get("model name", platform.machine())
  return f"{name} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"


def machine() -> dict[str, object]:
  """Describes the machine for a reader of the data, without host names and paths."""
  return {"cpu": cpu_model(), "cores": os.cpu_count(), "architecture": platform.machine(),
          "system": platform.system(), "python": platform.python_version()}
