"""Kernels and programs: which is which, and kernels cut out of programs."""

import collections
import gzip
import random

import numpy as np
import pytest

from tests import testdata
from tests.candidates import small_programs
from tests.helpers import timing
from tpugraphs_rank import errors
from tpugraphs_rank.candidates import kernels
from tpugraphs_rank.candidates import tile_spaces
from tpugraphs_rank.hlo import examples
from tpugraphs_rank.hlo import graph
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import limits
from tpugraphs_rank.hlo import reading
from tpugraphs_rank.hlo import stages


def _fused(module, number, opcode):
  """Adds a computation of one elementwise instruction."""
  computation = module.computations.add(id=number, name=f"fused.{number}")
  p = small_programs.add(computation, "parameter", [16, 32])
  small_programs.add(computation, opcode, [16, 32], [p])


def _optimised(copies=2):
  """An entry with some equal fusions one after another, and a fusion of another computation."""
  module = hlo_pb2.HloModuleProto(name="step", entry_computation_id=1)
  for number, opcode in ((2, "negate"), (3, "negate"), (4, "sine")):
    _fused(module, number, opcode)
  main = module.computations.add(id=1, name="main")
  last = small_programs.add(main, "parameter", [16, 32])
  for number in range(copies):
    last = small_programs.add(main, "fusion", [16, 32], [last],
                              called_computation_ids=[2 + number % 2])
  small_programs.add(main, "fusion", [16, 32], [last], called_computation_ids=[4])
  return module


def test_the_measured_kernels_are_kernels():
  for data in reading.read_raw(small_programs.KERNELS).modules:
    assert kernels.why_not_one(data.module) == "", data.module.name


@testdata.required
def test_the_public_kernels_are_kernels():
  for data in reading.read_raw(testdata.path("tpu_raw") / "op_tuning_data.pb").modules:
    assert kernels.why_not_one(data.module) == "", data.module.name


def _looping():
  module, main = small_programs.program()
  p = small_programs.add(main, "parameter", [8])
  small_programs.add(main, "while", [8], [p])
  return module


def _many_results():
  module, main = small_programs.program()
  p = small_programs.add(main, "parameter", [8])
  root = small_programs.add(main, "tuple", [], [p] * 5)
  shape = next(one for one in main.instructions if one.id == root).shape
  shape.element_type = hlo_pb2.TUPLE
  for _ in range(5):
    shape.tuple_shapes.add(element_type=hlo_pb2.F32, dimensions=[8])
  return module


def _called_twice():
  """A dot in a function that is called twice."""
  module, main = small_programs.program()
  called = hlo_pb2.HloComputationProto(id=7, name="f")
  a = small_programs.add(called, "parameter", [8, 8])
  small_programs.add(called, "dot", [8, 8], [a, a])
  del module.computations[:]
  module.computations.append(called)
  main = module.computations.add(id=1, name="main")
  last = small_programs.add(main, "parameter", [8, 8])
  for _ in range(2):
    last = small_programs.add(main, "call", [8, 8], [last], called_computation_ids=[7])
  return module


def _reductions(count):
  module, main = small_programs.program()
  last = small_programs.add(main, "parameter", [8] * (count + 1))
  for rank in range(count, 0, -1):
    last = small_programs.add(main, "reduce", [8] * rank, [last], dimensions=[0])
  return module


@pytest.mark.parametrize("module, reason", [
    (small_programs.perceptron(), "has 2 dots, convolutions and library calls"),
    (_looping(), "has the instruction while.101 (while)"),
    (_many_results(), "returns 5 arrays"),
    (_called_twice(), "has 2 dots, convolutions and library calls"),
    (_optimised(), "has 3 fusions"),
    (_reductions(4), "has 4 reductions"),
    (_reductions(3), ""),
    (small_programs.matmul(8, 8, 8), ""),
], ids=range(8))
def test_what_makes_a_program(module, reason):
  assert kernels.why_not_one(module) == reason


def test_one_fusion_is_a_kernel_whatever_it_computes():
  module = hlo_pb2.HloModuleProto(name="k", entry_computation_id=1, entry_computation_name="main")
  inner = module.computations.add(id=2, name="fused")
  p = small_programs.add(inner, "parameter", [8, 8])
  d = small_programs.add(inner, "dot", [8, 8], [p, p])
  small_programs.add(inner, "dot", [8, 8], [d, p])
  main = module.computations.add(id=1, name="main")
  p = small_programs.add(main, "parameter", [8, 8])
  f = small_programs.add(main, "fusion", [8, 8], [p], called_computation_ids=[2])
  assert kernels.why_not_one(module) == ""
  small_programs.add(main, "sine", [8, 8], [f])
  assert kernels.why_not_one(module) == "has a fusion and 1 other instruction that compute"


def test_equal_fusions_are_one_kernel():
  divided = kernels.split(_optimised(3), stages.BEFORE)
  assert [(kernel.name, kernel.opcode, kernel.shape, kernel.copies)
          for kernel in divided.kernels] == [
              ("fusion.101", "fusion", "f32[16,32]", ("fusion.101", "fusion.102", "fusion.103")),
              ("fusion.104", "fusion", "f32[16,32]", ("fusion.104",))]
  assert divided.opaque == divided.fused_later == 0


def test_a_fusion_as_training_graphs_have_it():
  module = _optimised()
  [before, _] = kernels.split(module, stages.BEFORE).kernels
  # What the fusion computes, without the fusion.
  assert before.module.computations[-1] == module.computations[0]
  assert [one.opcode for one in before.module.computations[-1].instructions] == [
      "parameter", "negate"]
  [after, _] = kernels.split(module, stages.AFTER).kernels
  # As in the public data: parameters and one fusion.
  assert [[one.opcode for one in computation.instructions]
          for computation in after.module.computations] == [
              ["parameter", "negate"], ["parameter", "fusion"]]
  for kernel in (before, after):
    assert kernels.why_not_one(kernel.module) == ""
    arrays = graph.graph_arrays(kernel.module)
    assert arrays["node_feat"].shape[0] == sum(
        len(computation.instructions) for computation in kernel.module.computations)
    assert tile_spaces.tile_space(kernel.module, "xla_cpu").axes == (16, 32)


def test_instructions_outside_of_fusions():
  module, main = small_programs.program("source")
  p = small_programs.add(main, "parameter", [8, 16])
  w = small_programs.add(main, "parameter", [16, 24], parameter_number=1)
  d = small_programs.add(main, "dot", [8, 24], [p, w])
  zero = small_programs.add(main, "constant", [])
  s = small_programs.add(main, "sine", [8, 24], [d])
  small_programs.add(main, "custom-call", [8], [s])
  small_programs.add(main, "reduce", [8], [s, zero], dimensions=[1])
  divided = kernels.split(module, stages.BEFORE)
  assert [kernel.name for kernel in divided.kernels] == ["dot.102", "reduce.106"]
  assert (divided.opaque, divided.fused_later) == (1, 1)
  dot, reduce = (kernel.module.computations[-1].instructions for kernel in divided.kernels)
  assert [(one.opcode, one.parameter_number) for one in dot] == [
      ("parameter", 0), ("parameter", 1), ("dot", 0)]
  assert [one.opcode for one in reduce] == ["parameter", "constant", "reduce"]
  space = tile_spaces.tile_space(divided.kernels[0].module, "elements")
  assert space.axes == (8, 24, 16)


def test_an_operand_that_is_used_twice():
  module, main = small_programs.program()
  p = small_programs.add(main, "parameter", [8, 8])
  small_programs.add(main, "dot", [8, 8], [p, p])
  [kernel] = kernels.split(module, stages.BEFORE).kernels
  root = kernel.module.computations[-1].instructions[-1]
  assert list(root.operand_ids) == [1, 1]


def test_kernels_in_loops_and_branches_are_found_once():
  module, main = small_programs.program()
  body = module.computations.add(id=9, name="body")
  q = small_programs.add(body, "parameter", [8, 8])
  small_programs.add(body, "transpose", [8, 8], [q], dimensions=[1, 0])
  p = small_programs.add(main, "parameter", [8, 8])
  w = small_programs.add(main, "while", [8, 8], [p], called_computation_ids=[9])
  small_programs.add(main, "while", [8, 8], [w], called_computation_ids=[9])
  [kernel] = kernels.split(module, stages.BEFORE).kernels
  assert kernel.copies == (kernel.name,) and kernel.opcode == "transpose"


def _real(name):
  path = testdata.path("hlo") / f"maxtext.module_0016.{name}.hlo.pb.gz"
  [data] = reading.parse_raw(gzip.decompress(path.read_bytes())).modules
  return data.module


_CHANGES = (
    lambda rng, module, computation, one: setattr(one, "opcode", rng.choice(
        ["fusion", "while", "dot", "reduce", "call", "tuple", "conditional"])),
    lambda rng, module, computation, one: one.operand_ids.append(rng.choice([0, 10**9, one.id])),
    lambda rng, module, computation, one: one.called_computation_ids.append(
        rng.choice([other.id for other in module.computations] + [999])),
    lambda rng, module, computation, one: setattr(computation, "root_id", rng.choice([0, one.id])),
    lambda rng, module, computation, one: setattr(one, "id", computation.instructions[0].id),
    lambda rng, module, computation, one: computation.ClearField("instructions"),
    lambda rng, module, computation, one: setattr(module, "entry_computation_id", computation.id),
    lambda rng, module, computation, one: one.shape.tuple_shapes.add(),
    lambda rng, module, computation, one: one.shape.dimensions.append(rng.choice([-1, 0, 2**62])))


def test_damaged_programs_give_kernels_or_a_typed_error():
  """A kernel that is cut out of a damaged program can be tiled, or says why not."""
  rng = random.Random(0)
  [data] = reading.read_raw(examples.path_of("bundled:transformer_block")).modules
  outcomes = collections.Counter()
  for stage in (stages.BEFORE, stages.AFTER) * 60:
    module = hlo_pb2.HloModuleProto()
    module.CopyFrom(rng.choice([data.module, _optimised(3)]))
    for _ in range(rng.randint(1, 3)):
      computation = rng.choice(module.computations)
      if computation.instructions:
        rng.choice(_CHANGES)(rng, module, computation, rng.choice(computation.instructions))
    try:
      kernels.why_not_one(module)
      divided = kernels.split(module, stage)
    except errors.TpuGraphsRankError as error:
      outcomes[type(error).__name__] += 1
      continue
    for kernel in divided.kernels:
      try:
        tile_spaces.tile_space(kernel.module, "elements")
        outcomes["tiled"] += 1
      except errors.DataError:
        outcomes["no tiles"] += 1
  assert outcomes["tiled"] > 100 and outcomes["no tiles"] > 10, outcomes


@testdata.required
def test_a_real_training_step():
  module = _real("jit_train_step.sm_9.0_gpu_after_optimizations")
  fusions = {one.name for computation in module.computations for one in computation.instructions
             if one.opcode == "fusion"}
  assert kernels.why_not_one(module) == f"has {len(fusions)} fusions"
  divided = kernels.split(module, stages.AFTER)
  named = [name for kernel in divided.kernels for name in kernel.copies]
  # Each fusion of the program belongs to exactly one kernel.
  assert fusions <= set(named) and len(named) == len(set(named))
  assert divided.opaque == 147
  for kernel in divided.kernels[:40]:
    assert kernels.why_not_one(kernel.module) == ""
    arrays = graph.graph_arrays(kernel.module)
    assert np.isfinite(arrays["node_feat"]).all()
  before = _real("jit_train_step.before_optimizations")
  assert kernels.why_not_one(before).startswith("has the instruction while")
  opcodes = {kernel.opcode for kernel in kernels.split(before, stages.BEFORE).kernels}
  assert opcodes == {"dot", "reduce", "transpose", "gather", "scatter"}




def test_computations_may_be_listed_after_their_callers():
  module, main = small_programs.program()
  x = small_programs.add(main, "parameter", [8, 8])
  for _ in range(2):
    x = small_programs.add(main, "call", [8, 8], [x], called_computation_ids=[2])
  called = module.computations.add(id=2, name="called")
  y = small_programs.add(called, "parameter", [8, 8])
  small_programs.add(called, "dot", [8, 8], [y, y])
  assert kernels.why_not_one(module) == "has 2 dots, convolutions and library calls"
  small_programs.add(called, "call", [8, 8], [y], called_computation_ids=[1])
  with pytest.raises(errors.DataError, match="k.pb: computation 'main' calls itself"):
    kernels.why_not_one(module, "k.pb")


def test_kernels_of_many_calls_are_limited(monkeypatch):
  monkeypatch.setattr(limits, "KERNEL_INSTRUCTIONS", 3000)
  module, main = small_programs.program()
  inner = module.computations.add(id=2, name="c2")
  x = small_programs.add(inner, "parameter", [8])
  for _ in range(60):
    x = small_programs.add(inner, "negate", [8], [x])
  x = small_programs.add(main, "parameter", [8])
  for _ in range(60):
    x = small_programs.add(main, "fusion", [8], [x], called_computation_ids=[2])
  with pytest.raises(errors.LimitError, match="k.pb: the number of instructions of its kernels"):
    kernels.split(module, stages.AFTER, "k.pb")


def test_many_kernels_and_computations_take_little_time():
  module, main = small_programs.program()
  for number in range(2, 10_002):
    module.computations.add(id=number, name=f"c{number}")
    small_programs.add(main, "reduce", [8], called_computation_ids=[number])
  with timing.takes_at_most(4):
    (kernel,) = kernels.split(module, stages.AFTER).kernels
  assert len(kernel.copies) == 10_000


def test_computations_without_instructions_count(monkeypatch):
  monkeypatch.setattr(limits, "KERNEL_INSTRUCTIONS", 3000)
  module, main = small_programs.program()
  inner = module.computations.add(id=2, name="c2")
  small_programs.add(inner, "call", [8], called_computation_ids=range(3, 1503))
  for number in range(3, 1503):
    module.computations.add(id=number, name=f"c{number}")
  for _ in range(3):
    small_programs.add(main, "reduce", [8], called_computation_ids=[2])
  with pytest.raises(errors.LimitError, match="the number of instructions of its kernels"):
    kernels.split(module, stages.AFTER)
