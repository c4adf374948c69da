"""Cases of a benchmark, each in a process of its own, whose peak of memory is the case's alone.

An app of cases takes `--case`, and its last line of output is what it found, as JSON.
"""

import json
import pathlib
import re
import subprocess
import sys
from typing import Any

from tpugraphs_rank import errors


def run(app: str, *case: Any) -> dict[str, Any]:
  """What an app finds in a case.

  Args:
    app: its module.
    case: given to it joined with commas.

  Raises:
    TpuGraphsRankError: the process failed; with the end of what it said.
  """
  done = subprocess.run([sys.executable, "-m", app, "--case", ",".join(map(str, case))],
                        capture_output=True, text=True, check=False)
  if done.returncode:
    raise errors.TpuGraphsRankError(
        f"the case {' '.join(map(str, case))} of {app} failed:\n{done.stderr[-2000:]}")
  return json.loads(done.stdout.splitlines()[-1])


def peak_gb() -> float:
  """The most memory that this process has had resident, mapped files included, on Linux.

  Not `getrusage`, which keeps the peak of the process that started this one.
  """
  status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
  return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024 / 1e9
