"""One measuring process over one HLO program: compiles a share of its configurations, or times all.

`collect` runs this in separate processes with the variables of `folder.environment`.
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
from tpugraphs_rank import memory
from tpugraphs_rank.collect.common import bench as bench_lib
from tpugraphs_rank.collect.common import jax_process
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.common import processes
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.hlo import agreement
from tpugraphs_rank.collect.hlo import flat_parameters
from tpugraphs_rank.collect.hlo import folder as folder_lib
from tpugraphs_rank.collect.hlo import parameters
from tpugraphs_rank.collect.hlo import requests
from tpugraphs_rank.collect.layout import configurations
from tpugraphs_rank.hlo import hlo_pb2

_LEAST_FINITE = 0.5
_RESULTS = 3  # Copies of the results: on the device, as arrays, and the default's.


class Program:
  """A program in its folder, ready to compile and to run.

  Attributes:
    module: the program for one device, with all fields.
    sites: the configured instructions.
    configurations: the configurations, the default first.
    source: its name in messages.
  """

  def __init__(self, folder: pathlib.Path) -> None:
    """Reads the program.

    Raises:
      DataError: it cannot be measured; the message says why.
    """
    from tpugraphs_rank.collect.hlo import programs  # pylint: disable=import-outside-toplevel
    self._programs = programs
    self._folder = folder
    plan = folder_lib.plan_of(folder)
    self.source, self._seed = plan["source"], plan["seed"]
    data = folder_lib.read_program(folder)
    self.module = folder_lib.full_module(folder, data, self.source)
    self.sites = folder_lib.sites_of(data, self.source)
    self.configurations = folder_lib.configurations_of(data, self.sites, self.source)
    self._nodes = [site.node for site in self.sites]
    self._compiler = programs.Compiler()
    self._arguments: list[Any] = []
    self.reals: tuple[float, float] | None = None

  def requested(self, configuration: configurations.Configuration) -> hlo_pb2.HloModuleProto:
    """The program with the requests of a configuration, and with arrays as its parameters."""
    return flat_parameters.flatten(requests.with_requests(
        self.module, self._nodes, configuration, self.source))

  def compile(self, configuration: configurations.Configuration) -> tuple[str, Any]:
    """The digest of the optimised HLO, and the executable.

    Raises:
      DataError: XLA refuses it.
    """
    executable = self._compiler.compile(self.requested(configuration), self.source)
    return self.digest(executable), executable

  def digest(self, executable: Any) -> str:
    """Identifies the optimised HLO of an executable."""
    return protocol.digest(protocol.normalised_hlo(self._programs.optimised_text(executable)))

  def store(self, executable: Any) -> bytes:
    """The machine code of an executable."""
    return self._compiler.store(executable)

  def load(self, code: bytes) -> Any:
    """The executable of some machine code."""
    return self._compiler.load(code)

  def choose_arguments(self, default: Any) -> None:
    """Draws arguments on which the default's results are finite, or as finite as possible.

    Raises:
      DataError: a parameter cannot be fed, or most results are infinite or NaN on all arguments.
      LimitError: there is not enough memory.
    """
    stats = default.get_compiled_memory_stats()
    needed = (stats.argument_size_in_bytes + stats.temp_size_in_bytes
              + _RESULTS * stats.output_size_in_bytes)
    free = memory.available()
    if free is not None and needed > free:
      raise errors.LimitError(
          f"{self.source}: running it needs {needed:,} bytes of memory, and {free:,} are free; end "
          "other programs, or export it with a smaller batch")
    best, module = -1.0, flat_parameters.flatten(self.module)
    for reals in parameters.REAL_RANGES:
      rng = configurations.program_rng(self.module.name, self._seed, "arguments")
      arguments = self._compiler.arguments(module, rng, reals, self.source)
      results = [np.asarray(result)
                 for result in self._programs.caller(default, arguments)()]
      share = agreement.finite_share(results)
      if share > best:
        best, self._arguments, self.reals = share, arguments, reals
      if share == 1:
        return
    if best < _LEAST_FINITE:
      raise errors.DataError(
          f"{self.source}: {100 * (1 - best):.0f} % of its results are infinite or NaN, whatever "
          "the range of its arguments, so that numbers cannot be compared; check the program")

  def compiled(self, digest: str, executable: Any) -> bench_lib.Compiled:
    """An executable with the arguments."""
    return bench_lib.Compiled(digest, self._programs.caller(executable, self._arguments))


def compile_share(folder: pathlib.Path, share: int, shares: int) -> None:
  """Compiles every configuration that has no outcome yet and whose number has this remainder."""
  program = Program(folder)
  for index, configuration in enumerate(program.configurations):
    path = folder_lib.outcome_path(folder, index)
    if index % shares != share or path.exists():
      continue
    # If XLA ends this process, the parent process finds out at which configuration.
    files.write_json(folder / "compiled" / f"current.{share}.json", {"index": index})
    try:
      digest, executable = program.compile(configuration)
    except errors.DataError as error:
      files.write_json(path, {"status": "not_compiled", "reason": str(error)})
      continue
    with files.atomic_write(folder_lib.code_path(folder, index)) as file:
      file.write(program.store(executable))
    files.write_json(path, {"status": "ok", "optimised_hlo": digest})


def measure(folder: pathlib.Path, number: int, settings: protocol.Protocol) -> dict[str, Any]:
  """One pass: loads, checks and times the compiled configurations.

  Args:
    folder: see `folder`.
    number: of the pass; it decides the order of the measurements.
    settings: constants of the timing.

  Returns:
    JSON as in `layout.measure.measure`. Statuses are those of `common.bench`, `not_compiled` and
    `crashed`.

  Raises:
    DataError: the program cannot be measured.
  """
  start = time.monotonic()
  program = Program(folder)
  bench = bench_lib.Bench(agreement.agree)
  outcomes = folder_lib.outcomes(folder, len(program.configurations))
  for index, (configuration, outcome) in enumerate(zip(program.configurations, outcomes)):
    text = configurations.to_text(configuration)
    if outcome is None or outcome["status"] != "ok":
      reason = "it was not compiled" if outcome is None else outcome["reason"]
      if not index:
        raise errors.DataError(f"{program.source}: the default configuration fails: {reason}")
      bench.refuse(text, "not_compiled" if outcome is None else outcome["status"], reason)
      continue
    executable = program.load(folder_lib.code_path(folder, index).read_bytes())
    if not index:
      program.choose_arguments(executable)
    bench.add(text, program.compiled(outcome["optimised_hlo"], executable))
  bench.time(settings, configurations.program_rng(
      program.module.name, number, f"order of pass {number}"))
  return {
      "stem": folder_lib.STEM, "pass": number, "arguments": program.reals,
      "module": base64.b64encode(program.module.SerializeToString()).decode("ascii"),
      "sites": [{"node": site.node, "opcode": site.opcode,
                 "shapes": [list(shape) for shape in site.shapes]} for site in program.sites],
      "configurations": bench.entries, "total_s": round(time.monotonic() - start, 3),
      "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}


def main(argv: list[str] | None = None) -> None:
  """Runs one process with command-line arguments."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--folder", required=True, type=pathlib.Path)
  parser.add_argument("--share", type=int)
  parser.add_argument("--shares", type=int, default=1)
  parser.add_argument("--pass_number", type=int)
  arguments = parser.parse_args(argv)
  logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
  folder = arguments.folder
  jax_process.import_jax(folder_lib.environment(folder))
  try:
    if arguments.pass_number is None:
      compile_share(folder, arguments.share, arguments.shares)
      return
    settings = plans.protocol_of(folder_lib.plan_of(folder), folder / folder_lib.PLAN)
    record = measure(folder, arguments.pass_number, settings)
  except errors.TpuGraphsRankError as error:
    # Keeps the reason: without a record there would only be an exit status.
    name = f"failed.{arguments.pass_number or 0}.json"
    files.write_json(folder / "measured" / name, {"failed": str(error)})
    raise SystemExit(1) from None
  files.write_json(
      plans.record_path(folder, folder_lib.STEM, arguments.pass_number), record)


if __name__ == "__main__":
  processes.exit_quietly(main)
