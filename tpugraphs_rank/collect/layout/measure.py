"""One measuring pass over one program: compiles, checks and times its configurations.

`collect` runs this in a separate process for each program and pass, with
`protocol.LAYOUT_ENVIRONMENT` set. The first pass also samples the configurations; later passes take
them from its record.
"""

import argparse
import base64
import datetime
import logging
import pathlib
import time
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import json_shapes
from tpugraphs_rank.collect.common import bench as bench_lib
from tpugraphs_rank.collect.common import flags
from tpugraphs_rank.collect.common import gates
from tpugraphs_rank.collect.common import jax_process
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.common import processes
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.hlo import agreement
from tpugraphs_rank.collect.layout import configurations as configurations_lib
from tpugraphs_rank.collect.layout import planned
from tpugraphs_rank.collect.layout import raw
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.synthesis.programs import programs

# Synthetic programs with fewer sites do not have two dozen distinct configurations.
FEWEST_SITES = 3


def cache_path(output: pathlib.Path, stem: str) -> pathlib.Path:
  """The folder that keeps a program's compiled configurations between its passes."""
  return output / "compiled" / stem


def agrees(results: list[np.ndarray], expected: list[np.ndarray]) -> bool:
  """Whether all results equal those of the default, and are finite."""
  return agreement.agree(results, expected, finite=True)


class Bench(bench_lib.Bench):
  """A program on this machine: compiles configurations, and times those that are usable.

  Attributes:
    module: the program's HLO before optimisation, an `HloModuleProto`.
    sites: the instructions whose layouts can be requested.
    entries: the records of all configurations that were compiled.
  """

  def __init__(self, program: planned.Program, seed: int) -> None:
    super().__init__(agrees)
    import jax  # pylint: disable=import-outside-toplevel

    from tpugraphs_rank.collect.layout import builders  # pylint: disable=import-outside-toplevel
    from tpugraphs_rank.collect.layout import sites  # pylint: disable=import-outside-toplevel
    from tpugraphs_rank.collect.tile.builders import synthetic  # pylint: disable=import-outside-toplevel
    # The arguments are the same in all passes; only the order of the measurements differs.
    rng = configurations_lib.program_rng(program.stem, seed, "arguments")
    self._synthetic = isinstance(program, programs.RunnableProgram)
    if isinstance(program, programs.RunnableProgram):
      function, arguments = synthetic.whole(program), synthetic.inputs(
          program, rng, averaging=True)
    else:
      function, arguments = builders.build(program, rng)
    self._traced = sites.Traced(function, arguments)
    self._arguments = [jax.device_put(array) for array in arguments]
    self._block = jax.block_until_ready
    self.module = sites.module_bytes(self._traced.lower({}))
    self.sites, self._numbers = sites.configurable(self._traced, self.module)

  def compile(self, configuration: configurations_lib.Configuration) -> tuple[bool, float]:
    """Compiles and checks a configuration. The first must be the default.

    Returns:
      Whether the configuration is usable (its optimised HLO is new, and it computes the same
      numbers as the default), and the fastest of a few calls, in nanoseconds (infinite if the
      configuration is not usable).
    """
    requests = {number: layouts for number, layouts in zip(self._numbers, configuration)
                if any(layouts)}
    compiled = self._traced.lower(requests).compile()
    is_default = self.expected is None
    outcome = self.add(
        configurations_lib.to_text(configuration), bench_lib.Compiled(
            protocol.digest(protocol.normalised_hlo(compiled.as_text())),
            lambda: self._block(compiled(*self._arguments))))
    if is_default and self._synthetic and self.expected is not None:
      protocol.check_result(self.expected[0])
    return outcome


def measure(program: planned.Program, configurations: int, more: int, seed: int,
            pass_number: int, settings: protocol.Protocol,
            first: dict[str, Any] | None = None) -> dict[str, Any]:
  """Measures one program.

  Args:
    program: a program of the catalogue, or a synthetic one.
    configurations: number of usable configurations to find, including the default.
    more: the same for small programs, see `flags.SMALL_PROGRAM`.
    seed: seed of arguments and configurations.
    pass_number: pass 1 samples configurations, later ones repeat those of `first`.
    settings: constants of the timing.
    first: the record of the first pass.

  Returns:
    JSON: `module` (HLO before optimisation, base64), `sites`, and `configurations`: for each its
    `layouts`, `status` (`ok`, `same_program`, `mismatch`), the digest of its optimised HLO, and, if
    it is usable, its `kind` and `runtime_ns`.

  Raises:
    DataError: the program differs from that of the first pass; or a synthetic program has fewer
      than `FEWEST_SITES` sites, fewer distinct configurations than the gates require, or a result
      that is not finite or the same number everywhere.
  """
  start = time.monotonic()
  bench = Bench(program, seed)
  record = {"stem": program.stem, "pass": pass_number, "seed": seed,
            "module": base64.b64encode(bench.module).decode("ascii"),
            "sites": [{"node": site.node, "opcode": site.opcode,
                       "shapes": [list(shape) for shape in site.shapes]}
                      for site in bench.sites]}
  if isinstance(program, programs.RunnableProgram) and len(bench.sites) < FEWEST_SITES:
    raise errors.DataError(f"few sites: layouts can be requested for {len(bench.sites)} "
                           f"instructions; expected {FEWEST_SITES} or more")
  if first is None:
    size = sum(len(computation.instructions) for computation in
               hlo_pb2.HloModuleProto.FromString(bench.module).computations)
    search = configurations_lib.Search(
        bench.sites, more if size <= flags.SMALL_PROGRAM else configurations,
        configurations_lib.program_rng(program.stem, seed, "configurations"), bench.compile)
    search.run()
    kinds = iter(search.kinds)
    for entry in bench.entries:
      if entry["status"] == "ok":
        entry["kind"] = next(kinds)
    if isinstance(program, programs.RunnableProgram) and (
        len(search.kinds) < gates.SYNTHETIC_LAYOUT.configurations):
      raise errors.DataError(
          f"few configurations: {len(search.kinds)} of {len(bench.entries)} compile to distinct "
          f"programs; expected {gates.SYNTHETIC_LAYOUT.configurations} or more")
  else:
    if first["sites"] != record["sites"]:
      raise errors.DataError(
          f"{program.stem} has other sites than in the first pass; delete its records and measure "
          "it again with one version of JAX and of the collector")
    for entry in first["configurations"]:
      if entry["status"] == "ok":
        bench.compile(configurations_lib.from_text(entry["layouts"]))
  compiled_s = time.monotonic() - start
  bench.time(settings, configurations_lib.program_rng(
      program.stem, seed, f"order of pass {pass_number}"))
  return {**record, "configurations": bench.entries, "compile_s": round(compiled_s, 3),
          "total_s": round(time.monotonic() - start, 3),
          "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}


def main(argv: list[str] | None = None) -> None:
  """Runs one pass over one program with command-line arguments."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--output", required=True, type=pathlib.Path)
  parser.add_argument("--program", required=True)
  parser.add_argument("--pass_number", required=True, type=int)
  arguments = parser.parse_args(argv)
  logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
  # Compilation takes most of the time: later passes load what the first one compiled, in separate
  # processes with memory of their own.
  jax_process.import_jax(protocol.LAYOUT_ENVIRONMENT,
                         cache_path(arguments.output, arguments.program))
  plan = plans.read(arguments.output, "programs", {
      "configurations": int, "configurations_of_small_programs": int, "seed": int,
      "programs": [{"stem": json_shapes.NAME, "program?": dict}]})
  program, number = planned.program_of(plan, arguments.program), arguments.pass_number
  path = plans.record_path(arguments.output, program.stem, number)
  first = (plans.read_record(plans.record_path(arguments.output, program.stem, 1), raw.LAYOUTS)
           if number > 1 else None)
  try:
    record = measure(program, plan["configurations"], plan["configurations_of_small_programs"],
                     plan["seed"], number,
                     plans.protocol_of(plan, arguments.output / plans.PLAN), first)
  except errors.DataError as error:
    # Keeps the reason: without a record there would only be an exit status.
    files.write_json(path, {"stem": program.stem, "pass": number, "failed": str(error)})
    raise
  files.write_json(path, record)
  times = [entry["runtime_ns"] for entry in record["configurations"] if "runtime_ns" in entry]
  logging.info("pass %d %s: %d of %d configurations, %.3f to %.3f ms, compiled in %.1f s, %.1f s",
               number, program.stem, len(times), len(record["configurations"]),
               min(times, default=0) / 1e6, max(times, default=0) / 1e6, record["compile_s"],
               record["total_s"])


if __name__ == "__main__":
  processes.exit_quietly(main)
