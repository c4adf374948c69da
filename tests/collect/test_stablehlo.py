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
  def fail(stderr, status=1):
    converter(lambda program, result: subprocess.CompletedProcess([], status, "", stderr))
  fail("UNKNOWN: -:3:19: error: unregistered dialect\n<unknown>:0: error: failed\n")
  message = "x.mlir is MLIR, but JAX cannot convert it to HLO: line 3, column 19: unregistered"
  with pytest.raises(errors.DataError, match=message):
    stablehlo.to_hlo(b"module {}", "x.mlir")
  fail("some other\n\nproblem " + "x" * 999)
  with pytest.raises(errors.DataError, match="to HLO: some other problem x{381};"):
    stablehlo.to_hlo(b"module {}", "x.mlir")
  fail("UNKNOWN: a/f.py:3:19: error: no such op\nx = f(y)\n ^\na/f.py:9:1: note: called from\n")
  with pytest.raises(errors.DataError, match=r"no such op \(from a/f.py, line 3, column 19\); exp"):
    stablehlo.to_hlo(b"module {}", "x.mlir")
  fail("", -11)
  with pytest.raises(errors.DataError, match="to HLO: its compiler ended with status -11"):
    stablehlo.to_hlo(b"module {}", "x.mlir")


def test_unknown_sizes_are_named(converter):
  converter(lambda program, result: subprocess.CompletedProcess([], 1, "", (
      "UNKNOWN: f.py:3:19: error: 'stablehlo.dynamic_iota' op can't be translated to XLA HLO\n"
      "f.py:3:19: note: see current operation: (tensor<f32>, tensor<2xi32>) -> tensor<8x?xf32>\n")))
  with pytest.raises(errors.DataError, match=(
      r"column 19\); expected the size of every dimension, not tensor<8x\?xf32>; export the "
      "program for arguments of fixed shapes$")):
    stablehlo.to_hlo(b"module {}", "x.mlir")


def test_a_conversion_that_does_not_end(converter):
  def convert(program, result):
    raise subprocess.TimeoutExpired("converter", 300)
  converter(convert)
  with pytest.raises(errors.LimitError, match="x.mlir: converting its StableHLO took more than"):
    stablehlo.to_hlo(b"module {}", "x.mlir")


def test_without_an_environment(monkeypatch):
  def python():
    raise errors.OutputError("no Python was found")
  monkeypatch.setattr(environment, "python", python)
  with pytest.raises(errors.OutputError, match="x.mlir is StableHLO, and converting it needs JAX: "
                                               "no Python was found. HLO text and protobufs are"):
    stablehlo.to_hlo(b"module {}", "x.mlir")


def test_output_of_a_process(monkeypatch):
  monkeypatch.setattr(environment, "python", lambda: sys.executable)
  done = environment.output_of("platform", "--version", seconds=30)
  assert (done.returncode, done.stderr) == (0, "") and done.stdout
  with pytest.raises(subprocess.TimeoutExpired):
    environment.output_of("http.server", "0", seconds=0.5)


PROGRAM = """
module @jit_f {
  func.func public @main(%arg0: tensor<8x4xf32>, %arg1: tensor<4x8xf32>) -> tensor<8x8xf32> {
    %0 = call @inner(%arg0, %arg1) : (tensor<8x4xf32>, tensor<4x8xf32>) -> tensor<8x8xf32>
    return %0 : tensor<8x8xf32>
  }
  func.func private @inner(%a: tensor<8x4xf32>, %b: tensor<4x8xf32>) -> tensor<8x8xf32> {
    %0 = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0]
      : (tensor<8x4xf32>, tensor<4x8xf32>) -> tensor<8x8xf32>
    return %0 : tensor<8x8xf32>
  }
}
"""


@needs_jax
@pytest.mark.slow
def test_a_program_is_converted_by_jax():
  for text in (PROGRAM, "#loc = loc(unknown)\n" + PROGRAM, "\ufeff// A comment.\n" + PROGRAM):
    raw = reading.parse_raw(text.encode(), "x.mlir")
    assert (raw.kind, raw.modules[0].module.name) == ("StableHLO", "jit_f")
    arrays = graph.graph_arrays(raw.modules[0].module)
    opcodes = [i.opcode for c in raw.modules[0].module.computations for i in c.instructions]
    assert opcodes == ["parameter", "parameter", "dot", "parameter", "parameter", "call"]
    assert arrays["edge_index"].tolist() == [[2, 0], [2, 1], [5, 2], [5, 3], [5, 4]]


@needs_jax
@pytest.mark.slow
@pytest.mark.parametrize("text,message", [
    (PROGRAM.replace("@main", "@other"), "requires module with `main` function"),
    (PROGRAM[:400], "line \\d+, column \\d+: expected"),
    (PROGRAM.replace("call @inner", 'call @missing'), "does not reference a valid function"),
    ("module {\n  %0 = \"tf.Const\"() : () -> tensor<2xf32>\n}", "unregistered dialect"),
])
def test_what_jax_cannot_convert(text, message):
  with pytest.raises(errors.DataError, match=f"x.mlir is MLIR, but JAX cannot .*{message}"):
    reading.parse_raw(text.encode(), "x.mlir")


@needs_jax
@pytest.mark.slow
@testdata.required
def test_a_real_file_with_source_locations():
  raw = reading.read_raw(testdata.path("field_cases") / "stablehlo_debug_info.pb")
  assert raw.kind == "StableHLO"
  assert [i.opcode for i in raw.modules[0].module.computations[0].instructions] == [
      "parameter", "dot"]
