"""The HLO stage of a program, from its instructions."""

import gzip

import pytest

from tests import testdata
from tests.candidates import small_programs
from tpugraphs_rank.hlo import opcodes
from tpugraphs_rank.hlo import operations
from tpugraphs_rank.hlo import reading
from tpugraphs_rank.hlo import stages


def _program(*names, shape=(8, 8)):
  module, main = small_programs.program()
  last = small_programs.add(main, "parameter", shape)
  for name in names:
    last = small_programs.add(main, name, shape, [last])
  return module


@pytest.mark.parametrize("names, stage, why", [
    (["fusion"], stages.AFTER, "has 1 fusion instruction"),
    (["add", "fusion", "fusion"], stages.AFTER, "has 2 fusion instructions"),
    (["bitcast"], stages.AFTER, "has 1 bitcast instruction"),
    (["all-reduce-start", "all-reduce-done"], stages.AFTER, "has 1 all-reduce-done instruction"),
    (["add", "multiply", "add", "tanh"], stages.BEFORE,
     "has 4 elementwise instructions and no fusion"),
    (["add", "multiply", "add"], "", ""), (["dot"], "", ""), (["bitcast-convert"], "", "")])
def test_what_shows_the_stage(names, stage, why):
  assert stages.of(_program(*names)) == (stage, why)


def test_scalars_show_nothing():
  assert stages.of(_program(*["add"] * 20, shape=())) == ("", "")


@testdata.required
@pytest.mark.parametrize("suffix, stage", [
    ("before_optimizations", stages.BEFORE), ("sm_9.0_gpu_after_optimizations", stages.AFTER)])
def test_real_programs(suffix, stage):
  for path in testdata.path("hlo").glob(f"*{suffix}.hlo.pb.gz"):
    [data] = reading.parse_raw(gzip.decompress(path.read_bytes())).modules
    count = sum(len(computation.instructions) for computation in data.module.computations)
    if count > 20:  # The others are too small to show it.
      assert stages.of(data.module).name == stage, path.name


@pytest.mark.parametrize("names, kind", [
    ([], "elementwise"), (["add", "tanh"], "elementwise"), (["transpose", "reduce"], "reduce"),
    (["reduce", "dot", "gather"], "dot"), (["dot", "convolution"], "convolution")])
def test_main_operations(names, kind):
  assert operations.main_operation(map(opcodes.opcode_id, names)) == kind
  assert kind in operations.KINDS
