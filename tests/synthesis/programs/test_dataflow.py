"""Dataflow graphs of real kernels."""

import numpy as np
import pytest

from tests.synthesis.programs import small_programs
from tpugraphs_rank import errors
from tpugraphs_rank.data import collections
from tpugraphs_rank.synthesis.dags import dags
from tpugraphs_rank.synthesis.programs import dataflow
from tpugraphs_rank.synthesis.programs import nodes as nodes_lib


def _words(nodes):
  return [f"{node.operation}/{node.type}" + (str(list(node.operands)) if node.operands else "")
          for node in nodes]


@pytest.fixture(scope="module", name="kernels")
def _kernels():
  return {graph.name.partition(".")[0]: graph for split in ("train", "test")
          for graph in collections.load_collection("tile:xla_cpu", split)}


@pytest.mark.parametrize("family, expected", [
    ("matmul_bias_relu", [
        "parameter/f32", "parameter/f32", "dot/f32[0, 1]", "parameter/f32", "broadcast/f32[3]",
        "add/f32[2, 4]", "constant/f32", "maximum/f32[5, 6]"]),
    # The name contains the combiner of the reduction; the initial value is removed.
    ("reduce_norm_major", [
        "parameter/f32", "multiply/f32[0]", "reduce-add/f32[1]", "sqrt/f32[2]"]),
    # Called computations (here jnp.where) are inlined.
    ("elementwise_select", [
        "parameter/s32", "parameter/s32", "compare/pred[0, 1]", "subtract/s32[0, 1]",
        "add/s32[0, 1]", "select/s32[2, 3, 4]"]),
    ("rms_norm", [
        "parameter/f32", "multiply/f32[0]", "reduce-add/f32[1]", "constant/f32",
        "divide/f32[2, 3]", "constant/f32", "add/f32[4, 5]", "rsqrt/f32[6]", "broadcast/f32[7]",
        "multiply/f32[0, 8]", "parameter/f32", "broadcast/f32[10]", "multiply/f32[9, 11]"])])
def test_details_of_notation_are_removed(kernels, family, expected):
  actual = dataflow.of_graph(kernels[family])
  types = {node.type for node in actual} - {"pred"}
  # The catalogue has each family in several types; one of them has no conversions.
  if types == {expected[0].partition("/")[2].partition("[")[0]}:
    assert _words(actual) == expected
  else:
    operations = [word.partition("/")[0] for word in expected]
    assert [node.operation for node in actual if node.operation != "convert"] == operations


@pytest.mark.parametrize("family, kind", [
    ("matmul_bias_gelu", "dot"), ("conv_3x3", "convolution"), ("pairwise_l2", "reduce"),
    ("gather_position", "gather"), ("elementwise_chain", "elementwise"), ("softmax", "reduce"),
    ("transpose_021", "transpose"), ("gather_bag", "reduce")])
def test_kinds(kernels, family, kind):
  assert nodes_lib.kind(dataflow.of_graph(kernels[family])) == kind


def test_every_bundled_kernel_has_a_dataflow_graph():
  actual = dataflow.extract("tile:xla_cpu:v1", ("train", "valid"))
  assert len(actual) == 195 and actual.provenance["left_out"] == 0
  assert actual.x_names == dataflow.ATTRIBUTES


def test_dags_are_converted_back():
  given = [program.dataflow() for program in small_programs.ALL]
  there = dataflow.as_dags(given)
  back = dataflow.from_dags(there)
  again = dataflow.as_dags(back)
  np.testing.assert_array_equal(there.hashes(), again.hashes())
  for one, other in zip(given, back):
    assert sorted(node[:3] for node in one) == sorted(node[:3] for node in other)
    assert all(operand < place for place, node in enumerate(other) for operand in node.operands)


def test_other_attributes_are_refused():
  other = dags.canonical([(np.array([[0, 1]]), np.array([0, 1]))])
  with pytest.raises(errors.DataError, match="dataflow graphs have operation, element_type"):
    dataflow.from_dags(other)


def test_larger_graphs_are_skipped_and_counted():
  assert dataflow.extract("tile:xla_cpu", max_nodes=4).provenance["left_out"] > 0
  with pytest.raises(errors.DataError, match="raise max_nodes"):
    dataflow.extract("tile:xla_cpu", max_nodes=1)
