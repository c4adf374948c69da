"""Measures one configuration after another for the process that started it.

Reads a JSON object per line from the standard input and answers each with one on the standard
output. It ends when its input does. Runs in the collector's environment with the variables of
`folder.environment`.

  {"do": "compile", "layouts": "10//01 ..."}   compiles a configuration
  {"do": "measure", "layouts": "..."}          measures one, interleaved with the default
  {"do": "store", "layouts": "..."}            writes the program with these requests

A helper only compiles and stores: it writes the machine code to a file for the process that
measures.
"""

import argparse
import json
import os
import pathlib
import sys
from typing import Any, TextIO

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.collect.common import jax_process
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.common import processes
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.hlo import agreement
from tpugraphs_rank.collect.hlo import folder as folder_lib
from tpugraphs_rank.collect.hlo import measure
from tpugraphs_rank.collect.layout import configurations


class Helper:
  """A program whose configurations are compiled for another process, or stored."""

  def __init__(self, folder: pathlib.Path) -> None:
    """Reads the program.

    Raises:
      DataError: the program cannot be measured.
    """
    self._folder = folder
    self._program = measure.Program(folder)
    self._count = 0

  def answer(self, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request to compile, with the name of the file, or to store."""
    if request["do"] == "store":
      return self._store(configurations.from_text(request["layouts"]))
    try:
      digest, executable = self._program.compile(configurations.from_text(request["layouts"]))
    except errors.DataError as error:
      return {"status": "not_compiled", "reason": str(error)}
    self._count += 1
    name = f"{os.getpid()}.{self._count}.bin"
    with files.atomic_write(self._folder / folder_lib.AHEAD / name) as file:
      file.write(self._program.store(executable))
    return {"status": "ok", "optimised_hlo": digest, "file": name}

  def _store(self, configuration: configurations.Configuration) -> dict[str, Any]:
    from tpugraphs_rank.collect.hlo import programs  # pylint: disable=import-outside-toplevel
    module = self._program.requested(configuration)
    with files.atomic_write(self._folder / folder_lib.TUNED_HLO) as file:
      file.write(module.SerializeToString(deterministic=True))
    with files.atomic_write(self._folder / folder_lib.TUNED_STABLEHLO) as file:
      file.write(programs.stablehlo(module, self._program.source).encode())
    return {"status": "ok"}


class Server:
  """A program whose default is compiled, and which answers requests."""

  def __init__(self, folder: pathlib.Path, settings: protocol.Protocol, seed: int) -> None:
    """Compiles the default and chooses arguments.

    Raises:
      DataError: the program cannot be measured.
    """
    self._folder, self._settings = folder, settings
    self._program = measure.Program(folder)
    self._rng = np.random.default_rng(seed)
    digest, executable = self._program.compile(configurations.default(self._program.sites))
    self._program.choose_arguments(executable)
    self._default = self._program.compiled(digest, executable)
    self._expected = [np.asarray(result) for result in self._default.call()]
    self._compiled: tuple[str, str, Any] | None = None

  def answer(self, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request."""
    try:
      digest, executable = self._executable(request)
    except errors.DataError as error:
      return {"status": "not_compiled", "reason": str(error)}
    if request["do"] == "compile":
      self._compiled = request["layouts"], digest, executable
      return {"status": "ok", "optimised_hlo": digest}
    known = request["known"].get(digest)  # Another configuration is the same program.
    if known is None:
      compiled = self._default
      if digest != self._default.digest:
        compiled = self._program.compiled(digest, executable)
        results = [np.asarray(result) for result in compiled.call()]
        if not agreement.agree(results, self._expected):
          return {"status": "mismatch", "reason": "it computes other numbers than the default"}
      default, own = protocol.time_interleaved(
          [self._default.call, compiled.call], self._settings, self._rng)
      if compiled is self._default:  # Its two times are of the same program.
        default = own = min(default, own)
      known = [own / 1e9, default / 1e9]
    return {"status": "ok", "optimised_hlo": digest, "seconds": known[0],
            "default_seconds": known[1]}

  def _executable(self, request: dict[str, Any]) -> tuple[str, Any]:
    """The digest and the executable of a configuration, compiled now or before.

    The default's executable is None: it is in `_default`.

    Raises:
      DataError: XLA refuses it.
    """
    (layouts, digest, executable), self._compiled = self._compiled or ("", "", None), None
    if executable is not None and layouts == request["layouts"]:
      return digest, executable
    configuration = configurations.from_text(request["layouts"])
    if configuration == configurations.default(self._program.sites):
      return self._default.digest, None
    if "compiled" in request:
      path = self._folder / folder_lib.AHEAD / request["compiled"]["file"]
      return request["compiled"]["optimised_hlo"], self._program.load(path.read_bytes())
    return self._program.compile(configuration)


def serve(folder: pathlib.Path, seed: int, helps: bool, requests: TextIO, answers: TextIO) -> None:
  """Answers requests until there are no more."""

  def answer(content: dict[str, Any]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()

  try:
    server = Helper(folder) if helps else Server(
        folder, plans.protocol_of(folder_lib.plan_of(folder), folder / folder_lib.PLAN), seed)
  except errors.TpuGraphsRankError as error:
    answer({"status": "failed", "reason": str(error)})
    return
  answer({"status": "ready"})
  for line in requests:
    try:
      answer(server.answer(files.parse_json(line, "a request")))
    except errors.TpuGraphsRankError as error:
      answer({"status": "failed", "reason": str(error)})


def main(argv: list[str] | None = None) -> None:
  """Serves with command-line arguments."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--folder", required=True, type=pathlib.Path)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--helper", action="store_true", help="Compile and store only.")
  arguments = parser.parse_args(argv)
  # XLA and Python may print to the standard output, which belongs to the answers.
  answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
  os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
  jax_process.import_jax(folder_lib.environment(arguments.folder))
  serve(arguments.folder, arguments.seed, arguments.helper, sys.stdin, answers)


if __name__ == "__main__":
  processes.exit_quietly(main)
