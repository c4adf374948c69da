"""The measuring protocol: its numbers, the interleaved timing loop, and the machine's description.

No JAX here: the loop times any callables.
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

# Set before JAX is imported. One compute thread; large buffers stay in the allocator, so that
# page faults of fresh memory are not billed to whichever configuration comes next.
ENVIRONMENT: dict[str, str] = {
    "NPROC": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
}

# Largest difference to the untiled kernel, relative to its largest magnitude (or to 1).
TOLERANCE: dict[str, float] = {"f32": 1e-4, "bf16": 2e-2, "s32": 0.0, "pred": 0.0}
# Configurations of made programs that take longer are left out.
SLOWEST_MADE_NS = 100_000_000


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How long and how often a configuration is timed (all times are process CPU time).

  Attributes:
    sample_ns: a timed sample repeats the call until it lasts about this long.
    budget_ns: measuring time of one configuration in one pass, once `min_rounds` are done.
    min_rounds: rounds that every configuration takes part in, however slow.
    max_rounds: no configuration is sampled more often.
  """

  sample_ns: int = 1_500_000
  budget_ns: int = 30_000_000
  min_rounds: int = 5
  max_rounds: int = 20


def check_result(result: np.ndarray) -> None:
  """Refuses made programs from whose result nothing can be learned.

  Raises:
    DataError: it holds infinities or no numbers, or one number throughout.
  """
  numbers = result.astype(np.float64)
  if not np.isfinite(numbers).all():
    raise errors.DataError("not finite: the result holds infinities or no numbers")
  if np.ptp(numbers) == 0:
    raise errors.DataError(f"constant: the result is {numbers.flat[0]} throughout")


def time_interleaved(calls: Sequence[Callable[[], None]], protocol: Protocol,
                     rng: np.random.Generator,
                     clock: Callable[[], int] = time.process_time_ns) -> list[float]:
  """Minimum time of each call, in nanoseconds.

  In each round every configuration that still has budget is sampled once, in a fresh random
  order, so that a slow spell of the machine meets all of them alike.

  Args:
    calls: one callable a configuration; each runs it once, to the end.
    protocol: see there.
    rng: draws the orders.
    clock: nanoseconds of CPU time; replaced in tests.
  """
  repeats = []
  for call in calls:
    call()  # first run: page in code and buffers
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
  """Optimised HLO without metadata, and with names numbered by first appearance.

  Two configurations with the same normalised text are one and the same program.
  """
  # Between the header and the first computation stand tables of source positions.
  text = re.sub(r"\nFileNames\n.*?(?=\n(?:%|ENTRY ))", "", text, count=1, flags=re.DOTALL)
  text = re.sub(r",? *(metadata|backend_config)=\{(?:[^{}]|\{[^{}]*\})*\}", "", text)
  text = re.sub(r"^HloModule [^,\n]*", "HloModule", text)
  names: dict[str, str] = {}
  return re.sub(r"%[\w.\-]+", lambda match: names.setdefault(match[0], f"%{len(names)}"), text)


def digest(text: str) -> str:
  """A short hash of a text."""
  return hashlib.sha256(text.encode()).hexdigest()[:24]


def keeps_loop(optimised: str) -> bool:
  """Whether a `while` is left in the optimised HLO: otherwise the tile was compiled away."""
  return re.search(r"[)\]}] while\(", optimised) is not None


def agrees(result: np.ndarray, expected: np.ndarray, dtype: str) -> bool:
  """Whether a configuration computed the untiled kernel's numbers, within `TOLERANCE`."""
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
  """Model name of the processor, as the system gives it, with family and model numbers."""
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
  """What identifies the machine for a reader of the data; no host names, no paths."""
  return {"cpu": cpu_model(), "cores": os.cpu_count(), "architecture": platform.machine(),
          "system": platform.system(), "python": platform.python_version()}
