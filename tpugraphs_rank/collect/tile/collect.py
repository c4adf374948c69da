"""Measures kernels under many tile sizes on this machine's CPU.

Writes `<output>/pass1.pb` and `<output>/pass2.pb` (`TuningData`, the public raw format: the same
modules and runs in the same order, each with the runtimes of its pass) and `<output>/report.json`.
After an interruption, the same command resumes.
"""

import argparse
from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import logging
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.collect.common import flags
from tpugraphs_rank.collect.common import machines
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.common import processes
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.tile import blocks
from tpugraphs_rank.collect.tile import catalogue
from tpugraphs_rank.collect.tile import configurations as configurations_lib
from tpugraphs_rank.collect.tile import planned
from tpugraphs_rank.collect.tile import raw

# Synthetic programs with fewer admissible tiles have nothing to rank.
FEWEST_TILES = 12
_FIXED = ("seed", "configurations", "protocol")
# Kernels that a machine claims together when several share the work: each claim starts processes.
_AT_A_TIME = 8


def make_plan(kernels: Sequence[planned.Kernel], configurations: int, seed: int,
              settings: protocol.Protocol) -> dict[str, Any]:
  """The plan: kernels, their tiles (the default first), seed and protocol."""
  entries = []
  for kernel in kernels:
    synthetic = isinstance(kernel, blocks.SyntheticKernel)
    if synthetic and len(configurations_lib.admissible(kernel)) < FEWEST_TILES:
      logging.info("%s has fewer than %d tiles", kernel.stem, FEWEST_TILES)
      continue
    tiles = configurations_lib.sample(kernel, configurations, seed)
    entry: dict[str, Any] = {"stem": kernel.stem, "tiles": [
        {"output": list(tile.output), "reduction": list(tile.reduction)} for tile in tiles]}
    if isinstance(kernel, blocks.SyntheticKernel):
      entry["program"] = kernel.program.to_json()
    entries.append(entry)
  return {"seed": seed, "configurations": configurations,
          "protocol": dataclasses.asdict(settings), "kernels": entries}


def choose_cores(cores: Sequence[int] | None, passes: int) -> list[int]:
  """One core for each pass if the passes run at the same time; one core or none otherwise.

  Args:
    cores: the cores that the user chose; None: those that this process may use.
    passes: number of passes.
  """
  if cores:
    return list(cores[:passes]) if len(cores) >= passes else list(cores[:1])
  usable = flags.usable_cores()
  return usable[:passes] if len(usable) >= passes else []


def run_passes(output: pathlib.Path, passes: int, cores: Sequence[int],
               time_budget_s: float = float("inf"), stems: Sequence[str] = ()) -> None:
  """Runs the passes, each in a separate process: at the same time if each has a core.

  Args:
    output: the collector's folder, with `plan.json`.
    passes: number of passes.
    cores: as `choose_cores` returns them.
    time_budget_s: seconds after which no pass starts another kernel.
    stems: only these kernels; none: all of the plan.

  Raises:
    OutputError: a pass ended with an error.
  """
  environment = {**os.environ, **protocol.ENVIRONMENT}
  concurrent = len(cores) >= passes
  end = time.monotonic() + time_budget_s
  running: list[subprocess.Popen] = []
  failed = []
  with contextlib.ExitStack() as stack:
    for number in range(1, passes + 1):
      core = cores[(number - 1) % len(cores)] if cores else -1
      # Passes that follow one another share the remaining time.
      remaining = (end - time.monotonic()) / (1 if concurrent else passes + 1 - number)
      running.append(stack.enter_context(processes.started(
          [sys.executable, "-m", "tpugraphs_rank.collect.tile.measure", "--output", str(output),
           "--pass_number", str(number), "--core", str(core), "--time_budget", str(remaining),
           "--stems", ",".join(stems)],
          env=environment)))
      if not concurrent and running[-1].wait():
        failed.append(number)
    failed += [number for number, process in enumerate(running, 1)
               if process.wait() and number not in failed]
  if failed:
    raise errors.OutputError(
        f"pass {', '.join(map(str, failed))} ended with an error (see its messages above); its "
        "measurements are kept, and the same command resumes")


def _measure_together(arguments: argparse.Namespace, plan: dict[str, Any], cores: Sequence[int]
                      ) -> None:
  """Measures this machine's part of the kernels; see `machines`."""
  sharing = machines.sharing(arguments)
  end = time.monotonic() + arguments.time_budget
  with machines.member(arguments.output, {**plan, "passes": arguments.passes},
                       (*_FIXED, "passes"), "kernels", sharing) as folder:

    def run(stems: Sequence[str]) -> None:
      if stems:
        run_passes(folder, arguments.passes, cores, end - time.monotonic(), stems)

    def work(take: Callable[[int], list[str]], finish: Callable[[str], None]) -> bool:
      while time.monotonic() < end and (stems := take(_AT_A_TIME)):
        run(stems)
        for stem in stems:
          if all(plans.record_path(folder, stem, number).exists()
                 for number in range(1, arguments.passes + 1)):
            finish(stem)
      return time.monotonic() < end

    machines.measure(arguments.output, [entry["stem"] for entry in plan["kernels"]], sharing, work,
                     run)


def _report(arguments: argparse.Namespace, settings: protocol.Protocol, concurrent: bool
            ) -> dict[str, Any]:
  """The part of the report that describes how the kernels were measured."""
  return {
      "machine": protocol.machine(), "versions": plans.package_versions(), "seed": arguments.seed,
      "protocol": {
          **dataclasses.asdict(settings), "clock": "CPU time of the process",
          "statistic": "minimum over rounds of the mean over a sample's calls",
          "order": "configurations of a kernel interleaved, freshly shuffled in each round",
          "passes": arguments.passes, "passes_concurrent_on_separate_cores": concurrent,
          "compilation": "fresh in each pass, no persistent cache",
          "environment": protocol.ENVIRONMENT, "asynchronous_dispatch": False,
          "tolerance_to_untiled_kernel": protocol.TOLERANCE,
          "default_tile": configurations_lib.DEFAULT_RULE,
          "configurations_per_kernel": arguments.configurations}}


def collect(arguments: argparse.Namespace) -> None:
  """Plans, measures and writes the raw files; see `flags.FLAGS` for the arguments.

  Raises:
    TpuGraphsRankError: the message says what is wrong.
  """
  settings = dataclasses.replace(protocol.TILE, budget_ns=arguments.budget_ms * 1_000_000)
  kernels: Sequence[planned.Kernel]
  if arguments.synthetic:
    kernels = planned.read_kernels(pathlib.Path(arguments.synthetic))[:arguments.limit]
  else:
    kernels = plans.without(catalogue.kernels(arguments.families, seed=arguments.seed),
                            arguments.exclude, arguments.limit)
  shown = list(tqdm.tqdm(kernels, disable=None, desc="plan", unit="kernel"))
  plan = make_plan(shown, arguments.configurations, arguments.seed, settings)
  cores = choose_cores(arguments.cores, arguments.passes)
  if machines.prepare(arguments.output, arguments.machine, arguments.assemble_only,
                      arguments.passes):
    _measure_together(arguments, plan, cores)
    return
  plans.store(arguments.output, plan, _FIXED, "kernels")
  if not arguments.assemble_only:
    run_passes(arguments.output, arguments.passes, cores, arguments.time_budget)
  entries = plan["kernels"]
  if arguments.synthetic:
    # Programs of earlier files count as well, so that a collection can grow.
    entries = plans.read(arguments.output, "kernels")["kernels"]
  report = raw.write(arguments.output, [planned.kernel_of(entry) for entry in entries],
                     arguments.passes)
  report |= _report(arguments, settings, len(cores) >= arguments.passes)
  report |= machines.of_report(arguments.output)
  files.write_json(arguments.output / "report.json", report)
  logging.info("%d kernels in %s", len(report["kernels"]), arguments.output)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the collector with command-line arguments and returns the exit status."""
  return processes.main(collect, flags.parse("tile", __doc__, argv))
