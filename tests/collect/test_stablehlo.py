"""StableHLO is converted in the collector's environment; its errors reach the user."""

import subprocess
import sys

import pytest

from tests import testdata
from tpugraphs_rank import errors
from tpugraphs_rank.collect import environment
from tpugraphs_rank.collect import stablehlo
from tpugraphs_rank.hlo import graph
from tpugraphs_rank.hlo import reading

needs_jax = pytest.mark.skipif(
    not environment.is_ready(), reason="the collector's environment does not exist")


@pytest.fixture(name="converter")
def fixture_converter(monkeypatch):
  """Replaces the converting process: a function of its arguments that returns its result."""
  def replace(function):
    def output_of(module, program, result, seconds):
      assert module == "tpugraphs_rank.collect.common.stablehlo_to_hlo"
      return function(program, result)
    monkeypatch.setattr(environment, "output_of", output_of)
  return replace


def _write(path, content):
  with open(path, "wb") as file:
    file.write(content)


def test_the_result_of_the_process_is_returned(converter):
  def convert(program, result):
    with open(program, "rb") as file:
      _write(result, b"hlo of " + file.read())
    return subprocess.CompletedProcess([], 0, "", "")
  converter(convert)
  assert stablehlo.to_hlo(b"module {}", "x.mlir") == b"hlo of module {}"


def test_errors_of_the_compiler_are_quoted(converter):
  lines = "\n\n".join(f"error {i}" for i in range(9))
  converter(lambda program, result: subprocess.CompletedProcess([], 1, "", lines))
  with pytest.raises(errors.DataError, match=r"x.mlir is MLIR, but JAX cannot convert it to HLO: "
                                             r"error 0 \| error 1 \| error 2 \| error 3; expected"):
    stablehlo.to_hlo(b"module {}", "x.mlir")
  converter(lambda program, result: subprocess.CompletedProcess([], -11, "", ""))
  with pytest.raises(errors.DataError, match="cannot convert it to HLO: status -11"):
    stablehlo.to_hlo(b"module {}", "x.mlir")


def test_a_conversion_that_does_not_end(converter):
  def convert(program, result):
    raise subprocess.TimeoutExpired("converter", 300)
  converter(convert)
  with pytest.raises(errors.LimitError, match="x.mlir: converting its StableHLO took more than"):
    stablehlo.to_hlo(b"module {}", "x.mlir")


def test_output_of_a_process(monkeypatch):
  monkeypatch.setattr(environment, "python", lambda: sys.executable)
  done = environment.output_of("platform", "--version", seconds=30)
  assert (done.returncode, done.stderr) == (0, "") and done.stdout
  with pytest.raises(subprocess.TimeoutExpired):
    environment.output_of("http.server", "0", seconds=0.5)
