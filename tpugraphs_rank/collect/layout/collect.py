"""Measures real programs under many requested layouts on this machine's CPU.

Writes `<output>/pass1/<program>.pb` and `<output>/pass2/<program>.pb` (`ModuleTuningData`, the
public raw format: the same program and runs, each with its pass's runtimes) and
`<output>/report.json`. Run it again with the same flags to go on after an interruption.
"""

import argparse
from collections.abc import Sequence
import concurrent.futures
import dataclasses
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import tqdm

from tpugraphs_rank import files
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.layout import catalogue
from tpugraphs_rank.collect.layout import configurations
from tpugraphs_rank.collect.layout import measure
from tpugraphs_rank.collect.layout import raw

# Where the passes agree less, each is repeated in one more process, and the faster times count.
REPEAT_TAU = 0.8
# A repeat's number follows from the number of passes, see `raw.repeat_of`.
_FIXED = ("seed", "configurations", "configurations_of_small_programs", "passes", "protocol")


class Processes:
  """The measuring processes that run at present, so that all can be ended at once."""

  def __init__(self) -> None:
    self._running: set[subprocess.Popen] = set()
    self._lock = threading.Lock()
    self.ended = False

  def start(self, command: list[str]) -> subprocess.Popen:
    """Starts one, unless all were ended."""
    with self._lock:
      if self.ended:
        raise InterruptedError("the collection was stopped")
      process = subprocess.Popen(command, env={**os.environ, **measure.ENVIRONMENT})
      self._running.add(process)
      return process

  def end(self, process: subprocess.Popen) -> None:
    """Ends one that still runs, and forgets it."""
    if process.poll() is None:
      process.kill()
      process.wait()
    with self._lock:
      self._running.discard(process)

  def end_all(self) -> None:
    """Ends those that run; no other one starts."""
    with self._lock:
      self.ended = True
      for process in self._running:
        process.kill()


def run_pass(output: pathlib.Path, stem: str, number: int, core: int, limit_s: float,
             processes: Processes) -> bool:
  """Measures one program in a process of its own, unless its record is there.

  Args:
    output: the collector's folder, with `plan.json`.
    stem: the program.
    number: of the pass.
    core: processor core to stay on; -1: any.
    limit_s: a process that takes longer is ended, and the program recorded as failed.
    processes: where the process is listed while it runs.

  Returns:
    Whether the pass has a record of a measurement.

  Raises:
    InterruptedError: all processes were ended; no record is left.
  """
  path = measure.record_path(output, stem, number)
  if not path.exists():
    command = [sys.executable, "-m", "tpugraphs_rank.collect.layout.measure", "--output", str(output),
               "--program", stem, "--pass_number", str(number)]
    process = processes.start(command)
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
      # One program that XLA refuses, or crashes on, must not end the collection.
      logging.error("%s failed in pass %d: %s; delete %s to try again", stem, number, why, path)
      files.write_json(path, {"stem": stem, "pass": number, "failed": why})
  return "failed" not in files.read_json(path)


def measure_program(output: pathlib.Path, stem: str, passes: int, core: int, limit_s: float,
                    processes: Processes) -> None:
  """Measures one program in all passes; every pass twice where they agree less than `REPEAT_TAU`.

  See `run_pass` for the arguments.
  """
  for number in range(1, passes + 1):
    if not run_pass(output, stem, number, core, limit_s, processes):
      return
  if raw.agreement(output, stem, passes) < REPEAT_TAU:
    for number in range(1, passes + 1):
      if not run_pass(output, stem, raw.repeat_of(number, passes), core, limit_s, processes):
        return


def run(output: pathlib.Path, stems: list[str], passes: int, cores: Sequence[int],
        time_budget_s: float, program_limit_s: float) -> None:
  """Measures program after program, each in all passes, until all are done or time is up.

  A program is begun only if as much time is left as the programs so far took at most.

  Args:
    output: the collector's folder, with `plan.json`.
    stems: the programs.
    passes: of each program.
    cores: on each of these processor cores a program at a time; empty: one program, on any core.
    time_budget_s: seconds after which no further program is begun.
    program_limit_s: see `run_pass`.
  """
  start = time.monotonic()
  longest = 0.0
  waiting, lock, processes = iter(stems), threading.Lock(), Processes()

  def work(core: int) -> None:
    nonlocal longest
    while True:
      begun = time.monotonic()
      with lock:
        stem = next(waiting, None)
      if stem is None:
        return
      if begun - start + longest > time_budget_s:
        logging.info("the time budget of %.0f s is used up; run the same command to go on",
                     time_budget_s)
        return
      measure_program(output, stem, passes, core, program_limit_s, processes)
      shutil.rmtree(measure.cache_path(output, stem), ignore_errors=True)
      with lock:
        longest = max(longest, time.monotonic() - begun)
        bar.update()

  with tqdm.tqdm(total=len(stems), disable=None, desc="measure", unit="program") as bar:
    with concurrent.futures.ThreadPoolExecutor(max(len(cores), 1)) as pool:
      try:
        working = [pool.submit(work, core) for core in cores or (-1,)]
        for done in concurrent.futures.as_completed(working):
          done.result()
      except BaseException:  # A kill too: measuring processes must not outlive the collection.
        processes.end_all()
        raise


def main(argv: list[str] | None = None) -> None:
  defaults = measure.PROTOCOL
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--output", required=True, type=pathlib.Path, help="folder of the results")
  parser.add_argument("--made", type=pathlib.Path, help="file of made programs (see "
                      "tpugraphs_rank.cli.synthesize) to be measured in place of the catalogue")
  parser.add_argument("--families", nargs="*", help="only these model families")
  parser.add_argument("--programs", type=int, help="at most this many programs")
  parser.add_argument("--configurations", type=int, default=46,
                      help="configurations of a program, the default among them")
  parser.add_argument("--configurations_of_small_programs", type=int, default=66,
                      help=f"the same for programs of at most {measure.SMALL_PROGRAM} instructions")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--passes", type=int, default=2, help="independent measurements of all")
  parser.add_argument("--cores", type=int, nargs="*", default=[],
                      help="processor cores: on each one program at a time; none: one, on any core")
  parser.add_argument("--budget_ms", type=int, default=defaults.budget_ns // 1_000_000,
                      help="measuring time of a configuration in one pass")
  parser.add_argument("--time_budget", type=float, default=float("inf"),
                      help="seconds after which no further program is begun")
  parser.add_argument("--program_limit", type=float, default=300.0,
                      help="seconds after which a pass over one program is given up")
  parser.add_argument("--assemble_only", action="store_true",
                      help="measure nothing, write the .pb files of what all passes hold")
  arguments = parser.parse_args(argv)
  if arguments.passes < 2:
    parser.error("--passes must be at least 2: the gates compare independent passes")
  usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(arguments.cores)
  if len(set(arguments.cores)) < len(arguments.cores) or not set(arguments.cores) <= usable:
    parser.error(f"--cores {' '.join(map(str, arguments.cores))}: expected different ones of "
                 f"{' '.join(map(str, sorted(usable)))}")
  logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
  # A polite kill ends the measuring process too: it is stopped where `run_pass` cleans up.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  settings = dataclasses.replace(defaults, budget_ns=arguments.budget_ms * 1_000_000)
  if arguments.made:
    entries = [{"stem": program.stem, "program": program.to_json()} for program in
               plans.read_programs(arguments.made)[:arguments.programs]]
  else:
    entries = [{"stem": program.stem} for program in
               catalogue.programs(arguments.families, arguments.programs, arguments.seed)]
  plan = {"seed": arguments.seed, "configurations": arguments.configurations,
          "configurations_of_small_programs": arguments.configurations_of_small_programs,
          "passes": arguments.passes, "protocol": dataclasses.asdict(settings),
          "programs": entries}
  plans.store(arguments.output, plan, _FIXED, "programs")
  if not arguments.assemble_only:
    run(arguments.output, [entry["stem"] for entry in entries], arguments.passes,
        arguments.cores, arguments.time_budget, arguments.program_limit)
  planned = [entry["stem"] for entry in files.read_json(arguments.output / "plan.json")["programs"]]
  report = raw.write(arguments.output, planned, arguments.passes)
  report["machine"] = protocol.machine()
  report["versions"] = plans.package_versions()
  report["seed"] = arguments.seed
  report["protocol"] = {
      **dataclasses.asdict(settings), "clock": "CPU time of the process",
      "statistic": "minimum over rounds of the mean over a sample's calls",
      "order": "configurations of a program interleaved, freshly shuffled in each round",
      "passes": arguments.passes, "repeated_below_tau": REPEAT_TAU,
      "compilation": "in the first pass; later ones load it in a process of their own",
      "environment": measure.ENVIRONMENT, "asynchronous_dispatch": False,
      "tolerance_to_default": measure.TOLERANCE,
      "sampling": {"shares": configurations.SHARES, "random_share": configurations.RANDOM_SHARE},
      "configurations_per_program": arguments.configurations,
      "configurations_per_small_program": arguments.configurations_of_small_programs,
      "instructions_of_a_small_program": measure.SMALL_PROGRAM}
  files.write_json(arguments.output / "report.json", report)
  logging.info("%d programs in %s", len(report["programs"]), arguments.output)


if __name__ == "__main__":
  main()
