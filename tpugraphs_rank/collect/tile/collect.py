"""Measures real kernels under many tile sizes on this machine's CPU.

Writes `<output>/pass1.pb` and `<output>/pass2.pb` (`TuningData`, the public raw format: the same
modules and runs in the same order, each with its pass's runtimes) and `<output>/report.json`.
Run it again with the same flags to go on after an interruption.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import logging
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.tile import blocks
from tpugraphs_rank.collect.tile import catalogue
from tpugraphs_rank.collect.tile import configurations as configurations_lib
from tpugraphs_rank.collect.tile import raw

# Made programs of fewer admissible tiles leave nothing to rank.
FEWEST_TILES = 12
_FIXED = ("seed", "configurations", "protocol")


def make_plan(kernels: Sequence[plans.Kernel], configurations: int, seed: int,
              settings: protocol.Protocol) -> dict[str, Any]:
  """What is to be measured: kernels, their tiles (the default first), seed and protocol."""
  entries = []
  for kernel in kernels:
    made = isinstance(kernel, blocks.SyntheticKernel)
    if made and len(configurations_lib.admissible(kernel)) < FEWEST_TILES:
      logging.info("%s has fewer than %d tiles", kernel.stem, FEWEST_TILES)
      continue
    tiles = configurations_lib.sample(kernel, configurations, seed)
    entry: dict[str, Any] = {"stem": kernel.stem, "tiles": [
        {"output": list(tile.output), "reduction": list(tile.reduction)} for tile in tiles]}
    if made:
      entry["program"] = kernel.program.to_json()
    entries.append(entry)
  return {"seed": seed, "configurations": configurations,
          "protocol": dataclasses.asdict(settings), "kernels": entries}


def run_passes(output: pathlib.Path, passes: int, concurrent: bool) -> None:
  """Runs the passes, each in a process of its own; at the same time only on separate cores.

  Raises:
    OutputError: a pass ended with an error.
  """
  environment = {**os.environ, **protocol.ENVIRONMENT}
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
  running: list[subprocess.Popen] = []
  failed = []
  try:
    for number in range(1, passes + 1):
      core = cores[(number - 1) % len(cores)] if cores and concurrent else -1
      running.append(subprocess.Popen(
          [sys.executable, "-m", "tpugraphs_rank.collect.tile.measure", "--output", str(output),
           "--pass_number", str(number), "--core", str(core)], env=environment))
      if not concurrent and running[-1].wait():
        failed.append(number)
    failed += [number for number, process in enumerate(running, 1)
               if process.wait() and number not in failed]
  finally:
    for process in running:
      if process.poll() is None:
        process.terminate()
        process.wait()
  if failed:
    raise errors.OutputError(
        f"pass {', '.join(map(str, failed))} ended with an error (see its messages above); "
        "what it measured is kept, run the same command to go on")


def main(argv: list[str] | None = None) -> None:
  defaults = protocol.Protocol()
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--output", required=True, type=pathlib.Path, help="folder of the results")
  parser.add_argument("--programs", type=pathlib.Path, help="file of made programs (see "
                      "tpugraphs_rank.cli.synthesize) to be measured in place of the catalogue")
  parser.add_argument("--families", nargs="*", help="only these families")
  parser.add_argument("--kernels", type=int, help="at most this many kernels")
  parser.add_argument("--configurations", type=int, default=28, help="tiles per kernel, at most")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--passes", type=int, default=2, help="independent measurements of all")
  parser.add_argument("--concurrent", action=argparse.BooleanOptionalAction,
                      default=(os.cpu_count() or 1) >= 2,
                      help="run the passes at the same time, each on a core of its own")
  parser.add_argument("--budget_ms", type=int, default=defaults.budget_ns // 1_000_000,
                      help="measuring time of a configuration in one pass")
  parser.add_argument("--assemble_only", action="store_true",
                      help="measure nothing, write the .pb files of what both passes hold")
  arguments = parser.parse_args(argv)
  if arguments.passes < 2:
    parser.error("--passes must be at least 2: the gates compare independent passes")
  logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
  # A polite kill ends the passes too: they are stopped where `run_passes` cleans up.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  settings = dataclasses.replace(defaults, budget_ns=arguments.budget_ms * 1_000_000)
  kernels: Sequence[plans.Kernel]
  if arguments.programs:
    kernels = plans.read_kernels(arguments.programs)[:arguments.kernels]
  else:
    kernels = catalogue.kernels(arguments.families, arguments.kernels, arguments.seed)
  tqdm_kernels = tqdm.tqdm(kernels, disable=None, desc="plan", unit="kernel")
  plan = make_plan(list(tqdm_kernels), arguments.configurations, arguments.seed, settings)
  plans.store(arguments.output, plan, _FIXED, "kernels")
  concurrent = arguments.concurrent and (os.cpu_count() or 1) >= arguments.passes
  if not arguments.assemble_only:
    run_passes(arguments.output, arguments.passes, concurrent)
  entries = plan["kernels"]
  if arguments.programs:
    # Programs of earlier files count, too: so a collection grows.
    entries = files.read_json(arguments.output / "plan.json")["kernels"]
  report = raw.write(arguments.output, [plans.kernel_of(entry) for entry in entries],
                     arguments.passes)
  report["machine"] = protocol.machine()
  report["versions"] = plans.package_versions()
  report["seed"] = arguments.seed
  report["protocol"] = {
      **dataclasses.asdict(settings), "clock": "CPU time of the process",
      "statistic": "minimum over rounds of the mean over a sample's calls",
      "order": "configurations of a kernel interleaved, freshly shuffled in each round",
      "passes": arguments.passes, "passes_concurrent_on_separate_cores": concurrent,
      "compilation": "fresh in each pass, no persistent cache",
      "environment": protocol.ENVIRONMENT, "asynchronous_dispatch": False,
      "tolerance_to_untiled_kernel": protocol.TOLERANCE,
      "default_tile": configurations_lib.DEFAULT_RULE,
      "configurations_per_kernel": arguments.configurations}
  files.write_json(arguments.output / "report.json", report)
  logging.info("%d kernels in %s", len(report["kernels"]), arguments.output)


if __name__ == "__main__":
  main()
