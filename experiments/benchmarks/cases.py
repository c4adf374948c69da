"""Runs cases of a benchmark in separate processes, so that each peak of memory is the case's own.

A benchmark takes `--case` and prints its result as JSON on the last line of its output.
"""

import json
import pathlib
import re
import subprocess
import sys
from typing import Any

from tpugraphs_rank import errors


def run(app: str, *case: Any) -> dict[str, Any]:
  """The result of a case.

  Args:
    app: module of the benchmark.
    case: arguments of the case, passed joined with commas.

  Raises:
    TpuGraphsRankError: the process failed; the message ends with its output.
  """
  done = subprocess.run([sys.executable, "-m", app, "--case", ",".join(map(str, case))],
                        capture_output=True, text=True, check=False)
  if done.returncode:
    raise errors.TpuGraphsRankError(
        f"the case {' '.join(map(str, case))} of {app} failed:\n{done.stderr[-2000:]}")
  return json.loads(done.stdout.splitlines()[-1])


def peak_gb() -> float:
  """The peak resident memory of this process on Linux, including mapped files.

  `getrusage` is unsuitable: it includes the peak of the parent process.
  """
  status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
  peak = re.search(r"VmHWM:\s+(\d+) kB", status)
  if peak is None:
    raise errors.CompatibilityError("/proc/self/status has no VmHWM; this benchmark needs Linux")
  return int(peak.group(1)) * 1024 / 1e9
