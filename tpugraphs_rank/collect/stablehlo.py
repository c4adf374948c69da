"""Converts StableHLO to HLO, with JAX's compiler in the collector's environment."""

import logging
import pathlib
import re
import subprocess
import tempfile

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank.collect import environment

_CONVERTER = "tpugraphs_rank.collect.common.stablehlo_to_hlo"
# The conversion of a program with 10,000 operations takes a few seconds.
_SECONDS = 300.0
_SHOWN = 400
_MLIR_ERROR = re.compile(r"(?:^|\s)(\S+):(\d+):(\d+): error: (.*)")
# A type with an unknown size, such as `tensor<?x64xf32>`.
_UNKNOWN_SIZE = re.compile(r"tensor<(?:\d+x)*\?[^<>]*>")

_log = logging.getLogger("tpugraphs_rank.collect")


def to_hlo(content: bytes, source: str) -> bytes:
  """Converts a program; its functions become computations, and `main` the entry.

  Args:
    content: StableHLO as text or bytecode, or a portable artifact (as `jax.export` and PyTorch
      write it).
    source: its name in messages.

  Returns:
    A serialised `HloModuleProto`.

  Raises:
    DataError: it is not valid StableHLO; the message has the compiler's.
    OutputError: the collector's environment cannot be made.
  """
  _log.info("%s is StableHLO; converting it to HLO with JAX in %s", source, environment.folder())
  with tempfile.TemporaryDirectory(prefix="tpugraphs_rank-") as folder:
    program, result = pathlib.Path(folder) / "program", pathlib.Path(folder) / "result"
    program.write_bytes(content)
    try:
      done = environment.output_of(_CONVERTER, str(program), str(result), seconds=_SECONDS)
    except errors.OutputError as error:
      raise errors.OutputError(
          f"{source} is StableHLO, and converting it needs JAX: {error}. HLO text and protobufs "
          "are read without JAX: export the program as one of these") from error
    except subprocess.TimeoutExpired:
      raise errors.LimitError(
          f"{source}: converting its StableHLO took more than {_SECONDS:.0f} s, the limit; export "
          "the program as HLO instead") from None
    if done.returncode == 0 and result.exists():
      return result.read_bytes()
  problem = _problem(done.stderr) or f"its compiler ended with status {done.returncode}"
  unknown = _UNKNOWN_SIZE.search(done.stderr)
  remedy = (
      f"expected the size of every dimension, not {escaping.shown(unknown[0], _SHOWN)}; export the "
      "program for arguments of fixed shapes" if unknown else
      "expected StableHLO with a function `main`; export the program again, or export it as HLO")
  raise errors.DataError(
      f"{source} is MLIR, but JAX cannot convert it to HLO: {problem}; {remedy}")


def _problem(messages: str) -> str:
  """The first error of MLIR with its place, or else the first lines.

  The place is in the program, or in the source that the program names as its own.
  """
  found = _MLIR_ERROR.search(messages)
  if found:
    file, line, column, error = found.groups()
    place = f"line {line}, column {column}"
    messages = f"{place}: {error}" if file == "-" else f"{error} (from {file}, {place})"
  return escaping.shown(" ".join(messages.split())[:_SHOWN], _SHOWN)
