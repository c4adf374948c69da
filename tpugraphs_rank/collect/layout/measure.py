"""One measuring pass over one program: compiles, checks and times its configurations.

Run by `tpugraphs_rank.collect.layout.collect`, a process for each program and pass, with `ENVIRONMENT` set. The
first pass also draws the configurations; later ones take them from its record.
"""

import argparse
import base64
from collections.abc import Callable
import datetime
import logging
import pathlib
import sys
import time
from typing import Any, Union

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.collect.common import gates
from tpugraphs_rank.collect.common import jax_process
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.layout import catalogue
from tpugraphs_rank.collect.layout import configurations as configurations_lib
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.synthesis.programs import programs

# With the newer fusion emitters compiling, which is most of the work, takes more than twice as long;
# programs run about a tenth faster.
ENVIRONMENT: dict[str, str] = {
    **protocol.ENVIRONMENT,
    "XLA_FLAGS": f"{protocol.ENVIRONMENT['XLA_FLAGS']} --xla_cpu_use_fusion_emitters=false"}
PROTOCOL = protocol.Protocol(budget_ns=60_000_000, max_rounds=40)
TOLERANCE = 1e-4  # largest difference to the default's numbers, relative to its largest magnitude
Program = Union[catalogue.ModelProgram, programs.RunnableProgram]
SMALL_PROGRAM = 150  # instructions; programs of no more are measured under more configurations
# Made programs of fewer leave no two dozen configurations to tell apart.
FEWEST_SITES = 3
_QUICK_CALLS = 4


def record_path(output: pathlib.Path, stem: str, pass_number: int) -> pathlib.Path:
  """Where one program's measurements of one pass are kept."""
  return output / "measured" / f"{stem}.pass{pass_number}.json"


def cache_path(output: pathlib.Path, stem: str) -> pathlib.Path:
  """Where one program's compiled configurations are kept between its passes."""
  return output / "compiled" / stem


def program_of(plan: dict[str, Any], stem: str) -> Program:
  """A planned program: one of the catalogue's families, or a made one, which the plan holds."""
  for entry in plan["programs"]:
    if entry["stem"] == stem and "program" in entry:
      return programs.RunnableProgram.from_json(entry["program"])
  return catalogue.parse_stem(stem)


def agrees(results: list[np.ndarray], expected: list[np.ndarray]) -> bool:
  """Whether every result is the default's, within `TOLERANCE` of its largest magnitude."""
  for result, wanted in zip(results, expected, strict=True):
    if result.shape != wanted.shape or result.dtype != wanted.dtype:
      return False
    if not (np.isfinite(result).all() and np.isfinite(wanted).all()):
      return False
    result, wanted = result.astype(np.float64), wanted.astype(np.float64)
    if np.abs(result - wanted).max(initial=0) > TOLERANCE * np.abs(wanted).max(initial=0):
      return False
  return True


class Bench:
  """A program on this machine: compiles configurations, and times those that count.

  Attributes:
    module: its HLO before optimisation, an `HloModuleProto`.
    sites: where its layouts can be requested.
    entries: for each configuration that was compiled its record.
  """

  def __init__(self, program: Program, seed: int) -> None:
    import jax  # pylint: disable=import-outside-toplevel

    from tpugraphs_rank.collect.layout import builders  # pylint: disable=import-outside-toplevel
    from tpugraphs_rank.collect.layout import sites  # pylint: disable=import-outside-toplevel
    from tpugraphs_rank.collect.tile.builders import synthetic  # pylint: disable=import-outside-toplevel
    # The arguments are the same in both passes; only the order of measuring differs.
    rng = configurations_lib.program_rng(program.stem, seed, "arguments")
    self._made = isinstance(program, programs.RunnableProgram)
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
    self.entries: list[dict[str, Any]] = []
    self._calls: list[tuple[dict[str, Any], Callable[[], Any]]] = []
    self._expected: list[np.ndarray] | None = None
    self._seen: set[str] = set()

  def compile(self, configuration: configurations_lib.Configuration) -> tuple[bool, float]:
    """Compiles and checks a configuration; the first is the default, which sets the numbers.

    Returns:
      Whether it counts (its optimised HLO is new, its numbers are the default's), and the
      fastest of a few calls, in nanoseconds (infinite where it does not count).
    """
    requests = {number: layouts for number, layouts in zip(self._numbers, configuration)
                if any(layouts)}
    compiled = self._traced.lower(requests).compile()
    digest = protocol.digest(protocol.normalised_hlo(compiled.as_text()))
    entry = {"layouts": configurations_lib.to_text(configuration), "optimised_hlo": digest, "status": "ok"}
    self.entries.append(entry)
    if digest in self._seen:
      entry["status"] = "same_program"
      return False, float("inf")
    self._seen.add(digest)
    results = [np.asarray(result) for result in compiled(*self._arguments)]
    if self._expected is None:
      self._expected = results
      if self._made:
        protocol.check_result(results[0])
    if not agrees(results, self._expected):
      entry["status"] = "mismatch"
      return False, float("inf")
    call = lambda: self._block(compiled(*self._arguments))
    self._calls.append((entry, call))
    return True, min(self._timed(call) for _ in range(_QUICK_CALLS))

  @staticmethod
  def _timed(call: Callable[[], Any]) -> float:
    start = time.process_time_ns()
    call()
    return time.process_time_ns() - start

  def time(self, settings: protocol.Protocol, rng: np.random.Generator) -> None:
    """Times all configurations that count, and enters their `runtime_ns`."""
    times = protocol.time_interleaved([call for _, call in self._calls], settings, rng)
    for (entry, _), runtime in zip(self._calls, times):
      entry["runtime_ns"] = round(runtime)


def measure(program: Program, configurations: int, more: int, seed: int,
            pass_number: int, settings: protocol.Protocol,
            first: dict[str, Any] | None = None) -> dict[str, Any]:
  """Measures one program.

  Args:
    program: of the catalogue, or a made one.
    configurations: how many that count are wanted, the default among them.
    more: the same for small programs, see `SMALL_PROGRAM`.
    seed: of arguments and configurations.
    pass_number: 1 draws configurations, later ones repeat those of `first`.
    settings: of the timing.
    first: the first pass's record.

  Returns:
    JSON: `module` (HLO before optimisation, base64), `sites`, and `configurations`: for each its
    `layouts`, `status` (`ok`, `same_program`, `mismatch`), digest of its optimised HLO, and, where
    it counts, its `kind` and `runtime_ns`.

  Raises:
    DataError: the program is not the one of the first pass; or a made one has fewer than
      `FEWEST_SITES` sites, fewer distinct configurations than the gates ask for, or a result that
      is not finite, or one number throughout.
  """
  start = time.monotonic()
  bench = Bench(program, seed)
  record = {"stem": program.stem, "pass": pass_number, "seed": seed,
            "module": base64.b64encode(bench.module).decode("ascii"),
            "sites": [{"node": site.node, "opcode": site.opcode,
                       "shapes": [list(shape) for shape in site.shapes]}
                      for site in bench.sites]}
  if isinstance(program, programs.RunnableProgram) and len(bench.sites) < FEWEST_SITES:
    raise errors.DataError(f"few sites: of {len(bench.sites)} instructions layouts can be "
                           f"requested; expected {FEWEST_SITES} or more")
  if first is None:
    size = sum(len(computation.instructions) for computation in
               hlo_pb2.HloModuleProto.FromString(bench.module).computations)
    search = configurations_lib.Search(
        bench.sites, more if size <= SMALL_PROGRAM else configurations,
        configurations_lib.program_rng(program.stem, seed, "configurations"), bench.compile)
    search.run()
    kinds = iter(search.kinds)
    for entry in bench.entries:
      if entry["status"] == "ok":
        entry["kind"] = next(kinds)
    if isinstance(program, programs.RunnableProgram) and (
        len(search.kinds) < gates.MADE_LAYOUT.configurations):
      raise errors.DataError(
          f"few configurations: {len(search.kinds)} of {len(bench.entries)} are programs of their "
          f"own; expected {gates.MADE_LAYOUT.configurations} or more")
  else:
    if first["sites"] != record["sites"]:
      raise errors.DataError(
          f"{program.stem} has other sites than in the first pass; delete its records and measure "
          "it again with one version of JAX and of the collector")
    for entry in first["configurations"]:
      if entry["status"] == "ok":
        bench.compile(configurations_lib.from_text(entry["layouts"]))
  compiled_s = time.monotonic() - start
  bench.time(settings, configurations_lib.program_rng(program.stem, seed, f"order of pass {pass_number}"))
  return {**record, "configurations": bench.entries, "compile_s": round(compiled_s, 3),
          "total_s": round(time.monotonic() - start, 3),
          "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}


def main(argv: list[str]) -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--output", required=True, type=pathlib.Path)
  parser.add_argument("--program", required=True)
  parser.add_argument("--pass_number", required=True, type=int)
  arguments = parser.parse_args(argv)
  logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
  # Compiling takes most of the time: later passes load what the first one compiled, in processes
  # and memory of their own.
  jax_process.import_jax(ENVIRONMENT, cache_path(arguments.output, arguments.program))
  plan = files.read_json(arguments.output / "plan.json")
  program, number = program_of(plan, arguments.program), arguments.pass_number
  path = record_path(arguments.output, program.stem, number)
  first = files.read_json(record_path(arguments.output, program.stem, 1)) if number > 1 else None
  try:
    record = measure(program, plan["configurations"], plan["configurations_of_small_programs"],
                     plan["seed"], number, protocol.Protocol(**plan["protocol"]), first)
  except errors.DataError as error:
    # The reason stays with the program; without a record there is only an exit status.
    files.write_json(path, {"stem": program.stem, "pass": number, "failed": str(error)})
    raise
  files.write_json(path, record)
  times = [entry["runtime_ns"] for entry in record["configurations"] if "runtime_ns" in entry]
  logging.info("pass %d %s: %d of %d configurations, %.3f to %.3f ms, compiled in %.1f s, %.1f s",
               number, program.stem, len(times), len(record["configurations"]),
               min(times, default=0) / 1e6, max(times, default=0) / 1e6, record["compile_s"],
               record["total_s"])


if __name__ == "__main__":
  main(sys.argv[1:])
