"""One measuring pass: compiles, checks and times every kernel of a plan, one record for each.

`collect` runs this in a separate process, with `protocol.ENVIRONMENT` set. The plan is
`<output>/plan.json`. A kernel that has a record is not measured again.
"""

import argparse
import base64
from collections.abc import Callable, Sequence
import datetime
import functools
import logging
import os
import pathlib
import time
from typing import Any

import numpy as np

from tpugraphs_rank import files
from tpugraphs_rank import json_shapes
from tpugraphs_rank.collect.common import jax_process
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.common import processes
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.tile import blocks
from tpugraphs_rank.collect.tile import configurations as configurations_lib
from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile import planned
from tpugraphs_rank.collect.tile import raw


def measure_kernel(kernel: planned.Kernel, tiles: list[geometry.Tile], seed: int,
                   pass_number: int, settings: protocol.Protocol) -> dict[str, Any]:
  """Compiles and times one kernel.

  Returns:
    JSON: `module` (HLO of the untiled kernel before optimisation, base64) and `configurations`:
    for each tile its sides, `status` (`ok`, `mismatch`, `no_loop`, `slow`), the digest of its
    optimised HLO, and `runtime_ns` if the status is `ok`.

  Raises:
    DataError: the result of a synthetic program is not finite, or the same number everywhere.
  """
  import jax  # pylint: disable=import-outside-toplevel

  from tpugraphs_rank.collect.tile import builders  # pylint: disable=import-outside-toplevel
  start = time.monotonic()
  program = builders.build(kernel)
  # The operands are the same in all passes; only the order of the measurements differs.
  operands = [jax.device_put(array)
              for array in program.inputs(configurations_lib.kernel_rng(kernel, seed, "operands"))]
  lowered = jax.jit(program.reference).lower(*operands)
  module = lowered.compiler_ir("hlo").as_serialized_hlo_module_proto()
  expected = np.asarray(lowered.compile()(*operands))
  if isinstance(kernel, blocks.SyntheticKernel):
    protocol.check_result(expected)
  configurations: list[dict[str, Any]] = []
  calls: list[Callable[[], None]] = []
  timed: list[dict[str, Any]] = []
  for tile in tiles:
    compiled = jax.jit(program.tiled(tile)).lower(*operands).compile()
    text = compiled.as_text()
    status = "ok"
    if not protocol.keeps_loop(text):
      status = "no_loop"
    elif _is_slow(kernel, functools.partial(_run, compiled, operands)):
      status = "slow"
    elif not protocol.agrees(np.asarray(compiled(*operands)), expected, kernel.dtype):
      status = "mismatch"
    entry: dict[str, Any] = {
        "output": list(tile.output), "reduction": list(tile.reduction), "status": status,
        "optimised_hlo": protocol.digest(protocol.normalised_hlo(text))}
    configurations.append(entry)
    if status == "ok":
      timed.append(entry)
      calls.append(functools.partial(_run, compiled, operands))
  compiled_s = time.monotonic() - start
  rng = configurations_lib.kernel_rng(kernel, seed, f"order of pass {pass_number}")
  for entry, runtime in zip(timed, protocol.time_interleaved(calls, settings, rng)):
    entry["runtime_ns"] = round(runtime)
  jax.clear_caches()
  return {"stem": kernel.stem, "pass": pass_number, "seed": seed,
          "compile_s": round(compiled_s, 3), "total_s": round(time.monotonic() - start, 3),
          "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
          "module": base64.b64encode(module).decode("ascii"), "configurations": configurations}


def _run(compiled: Callable[..., Any], operands: list[Any]) -> None:
  compiled(*operands).block_until_ready()


def _is_slow(kernel: planned.Kernel, call: Callable[[], None]) -> bool:
  """Whether a synthetic program recomputes so much in each block that timing it would take long."""
  if not isinstance(kernel, blocks.SyntheticKernel):
    return False
  start = time.process_time_ns()
  call()
  return time.process_time_ns() - start > protocol.SLOWEST_SYNTHETIC_NS


def run_pass(output: pathlib.Path, pass_number: int, time_budget_s: float = float("inf"),
             stems: Sequence[str] = ()) -> None:
  """Measures every kernel of the plan that has no record of this pass, as long as there is time.

  Args:
    output: the collector's folder, with `plan.json`.
    pass_number: number of the pass.
    time_budget_s: seconds after which no further kernel is started.
    stems: only these kernels; none: all.
  """
  import tqdm  # pylint: disable=import-outside-toplevel
  plan = plans.read(output, "kernels", {"seed": int, "kernels": [
      {"stem": json_shapes.NAME, "tiles": [raw.TILE], "program?": dict}]})
  settings = plans.protocol_of(plan, output / plans.PLAN)
  end = time.monotonic() + time_budget_s
  kernels = [entry for entry in plan["kernels"] if not stems or entry["stem"] in set(stems)]
  for entry in tqdm.tqdm(kernels, disable=None, desc=f"pass {pass_number}", unit="kernel"):
    path = plans.record_path(output, entry["stem"], pass_number)
    if path.exists():
      continue
    if time.monotonic() > end:
      logging.info("pass %d stops: its time is used up; the same command resumes", pass_number)
      return
    kernel = planned.kernel_of(entry)
    tiles = [geometry.Tile(tuple(tile["output"]), tuple(tile["reduction"]))
             for tile in entry["tiles"]]
    try:
      record = measure_kernel(kernel, tiles, plan["seed"], pass_number, settings)
    except Exception as error:  # A kernel that XLA rejects must not end the collection.
      logging.exception("%s failed", kernel.stem)
      record = {"stem": kernel.stem, "pass": pass_number, "failed": f"{type(error).__name__}: "
                f"{str(error).splitlines()[0] if str(error) else ''}"}
    else:
      times = [c["runtime_ns"] for c in record["configurations"] if "runtime_ns" in c]
      logging.info("pass %d %s: %d of %d configurations, %.3f to %.3f ms, %.1f s", pass_number,
                   kernel.stem, len(times), len(tiles), min(times, default=0) / 1e6,
                   max(times, default=0) / 1e6, record["total_s"])
    files.write_json(path, record)


def main(argv: list[str] | None = None) -> None:
  """Runs one pass with command-line arguments."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--output", required=True, type=pathlib.Path)
  parser.add_argument("--pass_number", required=True, type=int)
  parser.add_argument("--core", type=int, default=-1, help="processor core to use; -1: any")
  parser.add_argument("--time_budget", type=float, default=float("inf"),
                      help="seconds after which no further kernel is started")
  parser.add_argument("--stems", default="", help="only these kernels, separated by commas")
  arguments = parser.parse_args(argv)
  logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
  if arguments.core >= 0 and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {arguments.core})
  jax = jax_process.import_jax()
  logging.info("pass %d uses JAX %s", arguments.pass_number, jax.__version__)
  run_pass(arguments.output, arguments.pass_number, arguments.time_budget,
           [stem for stem in arguments.stems.split(",") if stem])


if __name__ == "__main__":
  processes.exit_quietly(main)
