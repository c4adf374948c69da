"""Measures one HLO program under requested layouts: compiles in parallel, times in two passes.

Runs in the collector's environment on a folder that `folder.store_program` and `plan.json`
describe. Writes `pass1.pb` and `pass2.pb` (raw data: the program and its runs with the runtimes of
the pass) and `report.json`. After an interruption, the same command resumes.
"""

import argparse
from collections.abc import Sequence
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import time
from typing import Any

import numpy as np
import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import json_shapes
from tpugraphs_rank.collect.common import flags
from tpugraphs_rank.collect.common import gates
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.common import processes as processes_lib
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.hlo import folder as folder_lib
from tpugraphs_rank.collect.layout import raw
from tpugraphs_rank.hlo import tuning_pb2

PASSES = 2
_MODULE = "tpugraphs_rank.collect.hlo.measure"
_POLL_S = 0.1
_MOST_PROCESSES = 8


def compile_all(folder: pathlib.Path, count: int, source: str, limit_s: float) -> None:
  """Compiles all configurations in parallel processes.

  A configuration on which XLA ends its process is recorded as `crashed`, and the others go on.

  Raises:
    DataError: the program cannot be measured at all.
    OutputError: compiling took longer than the limit.
  """
  shares = max(1, min(len(flags.usable_cores()) or 1, _MOST_PROCESSES, count))
  processes = processes_lib.Processes()
  end = time.monotonic() + limit_s
  with tqdm.tqdm(total=count, desc="compile", unit="configuration", disable=None) as bar:
    try:
      running = {share: _start(folder, share, shares, processes) for share in range(shares)
                 if _missing(folder, count, share, shares)}
      while running:
        time.sleep(_POLL_S)
        bar.update(sum(outcome is not None
                       for outcome in folder_lib.outcomes(folder, count)) - bar.n)
        for share, process in list(running.items()):
          status = process.poll()
          if status is None:
            continue
          processes.end(process)
          del running[share]
          missing = _missing(folder, count, share, shares)
          if missing:
            _record_crash(folder, share, missing[0], status, source)
            if len(missing) > 1:
              running[share] = _start(folder, share, shares, processes)
        if time.monotonic() > end:
          raise errors.OutputError(
              f"{source}: compiling {count} configurations took more than {limit_s:.0f} s; raise "
              "--program_limit, or measure fewer; what is compiled is kept, and the same command "
              "resumes")
    finally:
      processes.end_all()


def _start(folder: pathlib.Path, share: int, shares: int, processes: processes_lib.Processes
           ) -> subprocess.Popen:
  return processes.start(
      [sys.executable, "-m", _MODULE, "--folder", str(folder), "--share", str(share), "--shares",
       str(shares)], folder_lib.environment(folder))


def _missing(folder: pathlib.Path, count: int, share: int, shares: int) -> list[int]:
  return [index for index in range(share, count, shares)
          if not folder_lib.outcome_path(folder, index).exists()]


def _record_crash(folder: pathlib.Path, share: int, index: int, status: int, source: str) -> None:
  """Records that compiling ended a process.

  Raises:
    DataError: the process could not start with any configuration; the message has its reason.
  """
  _raise_failure(folder, 0)
  current = folder / "compiled" / f"current.{share}.json"
  if not current.exists() or json_shapes.read(
      current, {"index": int}, "delete it")["index"] != index:
    raise errors.OutputError(
        f"{source}: a compiling process ended with status {status} (see its messages above)")
  logging.warning("XLA ended with status %d at configuration %d", status, index)
  files.write_json(folder_lib.outcome_path(folder, index), {
      "status": "crashed", "reason": f"XLA ended its process with status {status}"})


def _raise_failure(folder: pathlib.Path, number: int) -> None:
  path = folder / "measured" / f"failed.{number}.json"
  if path.exists():
    reason = json_shapes.read(path, {"failed": str}, "delete it")["failed"]
    path.unlink()
    raise errors.DataError(reason)


def run_pass(folder: pathlib.Path, number: int, source: str, limit_s: float) -> None:
  """One pass in a process of its own, unless its record exists.

  Raises:
    DataError: the program cannot be measured.
    OutputError: the process crashed, or took longer than the limit.
  """
  path = plans.record_path(folder, folder_lib.STEM, number)
  if path.exists():
    return
  processes = processes_lib.Processes()
  process = processes.start(
      [sys.executable, "-m", _MODULE, "--folder", str(folder), "--pass_number", str(number)],
      folder_lib.environment(folder))
  try:
    cores = flags.usable_cores()
    if cores and hasattr(os, "sched_setaffinity"):
      os.sched_setaffinity(process.pid, {cores[-1]})
    status = process.wait(limit_s)
  except subprocess.TimeoutExpired:
    raise errors.OutputError(
        f"{source}: pass {number} took more than {limit_s:.0f} s; raise --program_limit, or "
        "measure fewer configurations") from None
  finally:
    processes.end_all()
    processes.end(process)
  _raise_failure(folder, number)
  if not path.exists():
    raise errors.OutputError(
        f"{source}: pass {number} ended with status {status} (see its messages above); the "
        "program crashes on random arguments, or needs more memory than there is")


def measured_module(record: dict[str, Any], entries: Sequence[dict[str, Any]],
                    data: tuning_pb2.ModuleTuningData) -> tuning_pb2.ModuleTuningData:
  """The runs of a pass as raw data, with the program as it came, undeclared fields included."""
  result = raw.tuning_module(record, entries)
  result.module.CopyFrom(data.module)
  return result


def write(folder: pathlib.Path, source: str) -> dict[str, Any]:
  """Writes the raw files and the report of a measured program.

  Returns:
    The report: `configurations`, `measured`, `dropped` (reason -> number), `tau` of the passes,
    `passes_gate`, `default_ns`, `best_ns` and `ranking` (configurations, fastest first).

  Raises:
    DataError: there is no usable default.
  """
  records = raw.read_passes(folder, folder_lib.STEM, PASSES)
  choice = raw.usable(records)
  entries = choice["entries"]
  if not entries or entries[0][0] is not records[0]["configurations"][0]:
    raise errors.DataError(f"{source}: the default configuration is not usable "
                           f"({choice['dropped']}); its results change from run to run")
  data = folder_lib.read_program(folder)
  for number, record in enumerate(records):
    module = measured_module(record, [by_pass[number] for by_pass in entries], data)
    with files.atomic_write(folder / f"pass{number + 1}.pb") as file:
      file.write(module.SerializeToString(deterministic=True))
  times = np.array([[entry["runtime_ns"] for entry in by_pass] for by_pass in entries], float)
  means = times.mean(axis=1)
  quality = gates.assess(times.T, gates.LAYOUT)
  index = {entry["layouts"]: number
           for number, entry in enumerate(records[0]["configurations"])}
  report = {
      "source": source, "configurations": len(records[0]["configurations"]),
      "measured": len(entries), "dropped": choice["dropped"],
      "reasons": sorted({entry["reason"] for entry in records[0]["configurations"]
                         if "reason" in entry})[:5],
      "arguments": records[0]["arguments"], "tau": quality.tau,
      "fails_gate": "" if len(entries) < 2 or quality.tau >= gates.LAYOUT.tau else "tau",
      "default_ns": float(means[0]), "best_ns": float(means.min()),
      "ranking": [
          {"configuration": index[entries[place][0]["layouts"]], "runtime_ns": float(means[place]),
           "passes_ns": times[place].tolist(), "layouts": entries[place][0]["layouts"]}
          for place in np.argsort(means, kind="stable")],
      "versions": plans.package_versions(), "machine": protocol.machine(),
      "date": max(record["date"] for record in records)}
  files.write_json(folder / "report.json", report)
  return report


def collect(folder: pathlib.Path) -> None:
  """Measures the program of a folder; see the module's docstring."""
  plan = folder_lib.plan_of(folder)
  source, limit = plan["source"], float(plan["program_limit"])
  data = folder_lib.read_program(folder)
  count = len(folder_lib.configurations_of(
      data, folder_lib.sites_of(data, source), source))
  if not all(plans.record_path(folder, folder_lib.STEM, number).exists()
             for number in range(1, PASSES + 1)):
    (folder / "compiled").mkdir(exist_ok=True)
    compile_all(folder, count, source, limit)
    for number in tqdm.tqdm(range(1, PASSES + 1), disable=None, desc="measure", unit="pass"):
      run_pass(folder, number, source, limit)
  write(folder, source)
  shutil.rmtree(folder / "compiled", ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the measurement with command-line arguments and returns the exit status."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--folder", required=True, type=pathlib.Path, help="The prepared folder.")
  return processes_lib.main(lambda arguments: collect(arguments.folder), parser.parse_args(argv))
