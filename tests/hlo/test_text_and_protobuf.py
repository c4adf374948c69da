"""HLO text and protobuf of the same program give the same features, operands and attributes."""

import os
import pathlib
import subprocess

import numpy as np
import pytest

from tests import testdata
from tpugraphs_rank.collect import environment
from tpugraphs_rank.hlo import folders
from tpugraphs_rank.hlo import graph
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import reading
from tpugraphs_rank.hlo import text as hlo_text

from . import printing

FIXTURES = pathlib.Path(__file__).parent / "data"


@pytest.mark.parametrize("style", printing.STYLES, ids=str)
@pytest.mark.parametrize("name", ["jax_row_sums.pb", "jax_row_sums.cpu_after_optimizations.hlo.pb"])
def test_text_and_protobuf_have_the_same_features(name, style):
  [module] = reading.read_raw(FIXTURES / name).modules
  _check_same(module.module, hlo_text.parse(printing.module_text(module.module, style), "x"),
              UNPRINTED)


@pytest.mark.parametrize("name", [
    "jax_branches.before_optimizations", "jax_branches.cpu_after_optimizations",
    "jax_convnet.before_optimizations", "jax_quantised.before_optimizations"])
def test_text_and_protobuf_that_xla_dumps_have_the_same_features(name):
  _check_same(_only(FIXTURES / f"{name}.hlo.pb"), _only(FIXTURES / f"{name}.txt"))


@testdata.required
@pytest.mark.parametrize("name", [
    "tpu_raw/op_tuning_data.pb", "field_cases/tuple_root_sort.pb",
    "field_cases/tuple_root_topk_custom_call.pb", "hlo/programl_a.hlo.pb",
    "hlo/maxtext.module_0012.jit_raw_generate_synthetic_data.before_optimizations.hlo.pb.gz"])
def test_text_and_protobuf_of_real_programs_have_the_same_features(name):
  for module in reading.read_raw(testdata.path(name)).modules:
    for style in printing.STYLES:
      _check_same(module.module, hlo_text.parse(printing.module_text(module.module, style), "x"),
                  UNPRINTED)


needs_jax = pytest.mark.skipif(
    not environment.is_ready(), reason="the collector's environment does not exist")


def _run_jax(*arguments, flags=""):
  subprocess.run(
      [str(environment.python()), str(pathlib.Path(__file__).with_name("jax_programs.py")),
       *map(str, arguments)],
      env={"PATH": os.environ["PATH"], "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}, check=True)


@needs_jax
@pytest.mark.slow
def test_all_that_xla_dumps_of_many_programs(tmp_path):
  _run_jax(flags=f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_proto --xla_dump_hlo_as_text")
  texts = sorted(tmp_path.glob("*optimizations.txt"))
  assert len(texts) == 22 and len({path.name.split(".")[1] for path in texts}) == 11
  for path in texts:
    _check_same(_only(path.with_suffix(".hlo.pb")), _only(path))
  # XLA's own parser reads the same; it numbers computations in another way.
  _run_jax(*texts)
  for path in texts:
    parsed = _only(path.with_name(path.name + ".parsed.pb"))
    assert sorted(map(str, _by_name(parsed, UNPRINTED))) == sorted(
        map(str, _by_name(_only(path), UNPRINTED)))
    path.with_name(path.name + ".parsed.pb").unlink()
  # Each program once, and none of the reports.
  assert folders.programs(tmp_path) == [path.with_suffix(".hlo.pb") for path in texts]


@needs_jax
@testdata.required
@pytest.mark.slow
@pytest.mark.parametrize("name", [
    f"hlo/maxtext.{module}.{stage}.hlo.pb.gz"
    for module in ("module_0003.jit__unnamed_wrapped_function_",
                   "module_0012.jit_raw_generate_synthetic_data", "module_0016.jit_train_step")
    for stage in ("before_optimizations", "sm_9.0_gpu_after_optimizations")])
def test_a_real_training_step(name, tmp_path):
  module = _only(testdata.path(name))
  (tmp_path / "module.pb").write_bytes(module.SerializeToString())
  _run_jax(tmp_path / "module.pb", tmp_path / "text")
  for style in ("now", "older"):
    read = _only(tmp_path / f"text.{style}.txt")
    theirs = graph.graph_arrays(read, -1)
    for key, array in graph.graph_arrays(module, -1).items():
      np.testing.assert_array_equal(array, theirs[key], err_msg=key)
    # XLA does not print the computations of asynchronous operations.
    unnamed = [c.name.startswith("async_wrapped") for c in read.computations]
    assert sum(unnamed) == sum(c.name.startswith("async_computation") for c in module.computations)
    for ours, other, is_unnamed in zip(module.computations, read.computations, unnamed):
      assert is_unnamed or [i.name for i in ours.instructions] == [
          i.name for i in other.instructions]


def _only(path):
  [module] = reading.read_raw(path).modules
  return module.module


# What `printing` leaves out, or replaces by something else.
UNPRINTED = ("literal", "channel_id", "custom_call_target", "backend_config", "replica_groups",
             "comparison_direction", "frontend_attributes", "control_predecessor_ids")


def _check_same(ours, read, ignored=()):
  """The same features and the same messages, but for ids and for fields that we do not declare."""
  theirs = graph.graph_arrays(read, -1)
  for key, array in graph.graph_arrays(ours, -1).items():
    np.testing.assert_array_equal(array, theirs[key], err_msg=key)
  assert _by_name(ours, ignored) == _by_name(read, ignored)
  assert ours.name == read.name
  assert ours.entry_computation_name in ("", read.entry_computation_name)


def _by_name(module, ignored=()):
  """The computations, with names instead of ids."""
  module = hlo_pb2.HloModuleProto.FromString(module.SerializeToString())
  module.DiscardUnknownFields()
  computations = {computation.id: computation.name for computation in module.computations}
  result = []
  for computation in module.computations:
    names = {i.id: i.name for i in computation.instructions}
    for i in computation.instructions:
      operands = [names[number] for number in i.operand_ids]
      called = sorted(computations[number] for number in i.called_computation_ids)
      i.ClearField("operand_ids")
      i.ClearField("called_computation_ids")
      i.ClearField("id")
      # Text is read for the numbers of scalars, and for what sends and receives state.
      if i.shape.dimensions or not i.literal.ByteSize():
        i.ClearField("literal")
      if i.opcode not in ("send", "recv"):
        i.ClearField("frontend_attributes")
      predecessors = sorted(names[number] for number in i.control_predecessor_ids)
      for name in ("control_predecessor_ids", *ignored):
        i.ClearField(name)
      operands += [] if "control_predecessor_ids" in ignored else predecessors
      result.append((computation.name, names[computation.root_id], operands, called, i))
  return result
