"""Measures programs under many requested layouts on this machine's CPU.

Writes `<output>/pass1/<program>.pb` and `<output>/pass2/<program>.pb` (`ModuleTuningData`, the
public raw format: the same program and runs, each with the runtimes of its pass) and
`<output>/report.json`. After an interruption, the same command resumes.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
import concurrent.futures
import dataclasses
import itertools
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import tqdm

from tpugraphs_rank import files
from tpugraphs_rank import json_shapes
from tpugraphs_rank.collect.common import flags
from tpugraphs_rank.collect.common import machines
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.common import processes as processes_lib
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.hlo import agreement
from tpugraphs_rank.collect.layout import catalogue
from tpugraphs_rank.collect.layout import configurations
from tpugraphs_rank.collect.layout import measure
from tpugraphs_rank.collect.layout import raw

# If the passes agree less, each is repeated in one more process, and the faster times count.
REPEAT_TAU = 0.8
_FIXED = ("seed", "configurations", "configurations_of_small_programs", "passes", "protocol")


def run_pass(output: pathlib.Path, stem: str, number: int, core: int, limit_s: float,
             processes: processes_lib.Processes) -> bool:
  """Measures one program in a separate process, unless its record exists.

  Args:
    output: the collector's folder, with `plan.json`.
    stem: the program.
    number: number of the pass.
    core: processor core to use; -1: any.
    limit_s: a process that takes longer is killed, and the program recorded as failed.
    processes: the list that contains the process while it runs.

  Returns:
    Whether the pass has a record of a measurement.

  Raises:
    InterruptedError: all processes were ended; the pass has no record.
  """
  path = plans.record_path(output, stem, number)
  if not path.exists():
    process = processes.start(
        [sys.executable, "-m", "tpugraphs_rank.collect.layout.measure", "--output", str(output),
         "--program", stem, "--pass_number", str(number)], protocol.LAYOUT_ENVIRONMENT)
    try:
      if core >= 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process.pid, {core})
      status = process.wait(limit_s)
      why = f"the measuring process ended with status {status} (see its messages)"
    except subprocess.TimeoutExpired:
      why = f"took longer than {limit_s:.0f} s"
    finally:
      processes.end(process)
    if processes.ended:
      raise InterruptedError("the collection was stopped")
    if not path.exists():
      # One program that XLA rejects, or crashes on, must not end the collection.
      logging.error("%s failed in pass %d: %s; delete %s to try again", stem, number, why, path)
      files.write_json(path, {"stem": stem, "pass": number, "failed": why})
  return "failed" not in json_shapes.read(path, dict, f"delete {path.name} to measure it again")


def measure_program(output: pathlib.Path, stem: str, passes: int, core: int, limit_s: float,
                    processes: processes_lib.Processes) -> None:
  """Measures a program in all passes, and each pass twice if they agree less than `REPEAT_TAU`.

  See `run_pass` for the arguments.
  """
  for number in range(1, passes + 1):
    if not run_pass(output, stem, number, core, limit_s, processes):
      return
  if raw.agreement(output, stem, passes) < REPEAT_TAU:
    for number in range(1, passes + 1):
      if not run_pass(output, stem, raw.repeat_of(number, passes), core, limit_s, processes):
        return


def run(output: pathlib.Path, stems: Iterable[str], passes: int, cores: Sequence[int],
        time_budget_s: float, program_limit_s: float,
        finish: Callable[[str], None] = lambda stem: None) -> None:
  """Measures one program after another, each in all passes, until all are done or time is up.

  A program is started only if the remaining time is at least the longest time of any program so
  far.

  Args:
    output: the collector's folder, with `plan.json`.
    stems: the programs; the next one is taken when a core is free.
    passes: number of passes over each program.
    cores: one program at a time runs on each of these processor cores; empty: one on any core.
    time_budget_s: seconds after which no further program is started.
    program_limit_s: see `run_pass`.
    finish: called with each program that is measured.
  """
  start = time.monotonic()
  longest = 0.0
  waiting, lock, processes = iter(stems), threading.Lock(), processes_lib.Processes()

  def work(core: int) -> None:
    nonlocal longest
    while True:
      begun = time.monotonic()
      if begun - start + longest > time_budget_s:
        logging.info("the time budget of %.0f s is used up; the same command resumes",
                     time_budget_s)
        return
      with lock:
        stem = next(waiting, None)
      if stem is None:
        return
      measure_program(output, stem, passes, core, program_limit_s, processes)
      shutil.rmtree(measure.cache_path(output, stem), ignore_errors=True)
      finish(stem)
      with lock:
        longest = max(longest, time.monotonic() - begun)
        bar.update()

  total = len(stems) if isinstance(stems, Sequence) else None
  with tqdm.tqdm(total=total, disable=None, desc="measure", unit="program") as bar:
    with concurrent.futures.ThreadPoolExecutor(max(len(cores), 1)) as pool:
      try:
        workers = [pool.submit(work, core) for core in cores or (-1,)]
        for worker in concurrent.futures.as_completed(workers):
          worker.result()
      except BaseException:  # Also SIGTERM: measuring processes must not outlive the collection.
        processes.end_all()
        raise


def _measure_together(arguments: argparse.Namespace, plan: dict[str, Any]) -> None:
  """Measures this machine's part of the programs; see `machines`."""
  sharing = machines.sharing(arguments)
  end = time.monotonic() + arguments.time_budget
  with machines.member(arguments.output, plan, _FIXED, "programs", sharing) as folder:

    def measured(stems: Iterable[str], finish: Callable[[str], None] = lambda stem: None) -> bool:
      run(folder, stems, arguments.passes, arguments.cores or (), end - time.monotonic(),
          arguments.program_limit, finish)
      return time.monotonic() < end

    def work(take: Callable[[int], list[str]], finish: Callable[[str], None]) -> bool:
      return measured(itertools.chain.from_iterable(iter(lambda: take(1), [])), finish)

    machines.measure(arguments.output, [entry["stem"] for entry in plan["programs"]], sharing, work,
                     measured)


def _report(arguments: argparse.Namespace, settings: protocol.Protocol) -> dict[str, Any]:
  """The part of the report that describes how the programs were measured."""
  return {
      "machine": protocol.machine(), "versions": plans.package_versions(), "seed": arguments.seed,
      "protocol": {
          **dataclasses.asdict(settings), "clock": "CPU time of the process",
          "statistic": "minimum over rounds of the mean over a sample's calls",
          "order": "configurations of a program interleaved, freshly shuffled in each round",
          "passes": arguments.passes, "repeated_below_tau": REPEAT_TAU,
          "compilation": "in the first pass; later ones load it in a process of their own",
          "environment": protocol.LAYOUT_ENVIRONMENT, "asynchronous_dispatch": False,
          "tolerance_to_default": agreement.tolerance(np.dtype(np.float32)),
          "sampling": {"shares": configurations.SHARES,
                       "random_share": configurations.RANDOM_SHARE},
          "configurations_per_program": arguments.configurations,
          "configurations_per_small_program": arguments.configurations_of_small_programs,
          "instructions_of_a_small_program": flags.SMALL_PROGRAM}}


def collect(arguments: argparse.Namespace) -> None:
  """Plans, measures and writes the raw files; see `flags.FLAGS` for the arguments.

  Raises:
    TpuGraphsRankError: the message says what is wrong.
    InterruptedError: the measuring processes were ended.
  """
  settings = dataclasses.replace(protocol.LAYOUT, budget_ns=arguments.budget_ms * 1_000_000)
  entries: list[dict[str, Any]]
  if arguments.synthetic:
    entries = [{"stem": program.stem, "program": program.to_json()} for program in
               plans.read_synthetic(pathlib.Path(arguments.synthetic))[:arguments.limit]]
  else:
    entries = [{"stem": program.stem} for program in plans.without(
        catalogue.programs(arguments.families, seed=arguments.seed), arguments.exclude,
        arguments.limit)]
  plan = {"seed": arguments.seed, "configurations": arguments.configurations,
          "configurations_of_small_programs": arguments.configurations_of_small_programs,
          "passes": arguments.passes, "protocol": dataclasses.asdict(settings),
          "programs": entries}
  if machines.prepare(arguments.output, arguments.machine, arguments.assemble_only,
                      arguments.passes):
    _measure_together(arguments, plan)
    return
  plans.store(arguments.output, plan, _FIXED, "programs")
  if not arguments.assemble_only:
    run(arguments.output, [entry["stem"] for entry in entries], arguments.passes,
        arguments.cores or (), arguments.time_budget, arguments.program_limit)
  planned = [entry["stem"] for entry in plans.read(arguments.output, "programs")["programs"]]
  report = raw.write(arguments.output, planned, arguments.passes)
  report |= _report(arguments, settings)
  report |= machines.of_report(arguments.output)
  files.write_json(arguments.output / "report.json", report)
  logging.info("%d programs in %s", len(report["programs"]), arguments.output)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the collector with command-line arguments and returns the exit status."""
  return processes_lib.main(collect, flags.parse("layout", __doc__, argv))
