"""Edges, splits and what makes a program's graph invalid."""

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.hlo import graph
from tpugraphs_rank.hlo import hlo_pb2

from . import modules


def _module(*computations):
  """Computations as (name, id, root id, [(id, operands, called)])."""
  return hlo_pb2.HloModuleProto(computations=[
      hlo_pb2.HloComputationProto(name=name, id=number, root_id=root, instructions=[
          hlo_pb2.HloInstructionProto(
              id=i, name=f"i{i}", opcode="add", operand_ids=operands,
              called_computation_ids=called)
          for i, operands, called in instructions])
      for name, number, root, instructions in computations])


def test_edges_are_distinct_and_sorted():
  module = _module(
      ("body", 7, 31, [(31, [], []), (30, [31], [])]),
      ("main", 8, 22, [(20, [], []), (21, [20, 20], []), (22, [21, 20, 21], [7, 7])]))
  np.testing.assert_array_equal(
      graph.edge_index(module), [[1, 0], [3, 2], [4, 0], [4, 2], [4, 3]])


def test_no_edges():
  edges = graph.edge_index(_module(("main", 1, 1, [(1, [], [])])))
  assert edges.shape == (0, 2) and edges.dtype == np.int64


def test_ids_may_restart_in_each_computation():
  module = _module(
      ("first", 1, 2, [(1, [], []), (2, [1], [])]),
      ("second", 2, 2, [(1, [], []), (2, [1], [1])]))
  np.testing.assert_array_equal(graph.edge_index(module), [[1, 0], [3, 1], [3, 2]])


@pytest.mark.parametrize("names,expected", [
    (["main"], [0, 3]),
    (["fused_computation", "main"], [0, 6]),
    (["while_body", "main"], [0, 3, 6]),
    (["main", "region_cond.7"], [0, 6]),
    (["cluster_0", "fused", "cond", "sum", "main"], [0, 3, 9, 15]),
])
def test_node_splits(names, expected):
  module = _module(*((name, k, 3 * k, [(3 * k + i, [], []) for i in range(3)])
                     for k, name in enumerate(names)))
  splits = graph.node_splits(module)
  np.testing.assert_array_equal(splits, [expected])
  assert splits.dtype == np.int64


def test_dtypes_and_keys():
  arrays = graph.graph_arrays(modules.tiny(), padding=-1)
  assert {key: (array.dtype.name, array.shape) for key, array in arrays.items()} == {
      "node_feat": ("float32", (2, 140)), "node_opcode": ("uint8", (2,)),
      "edge_index": ("int64", (1, 2)), "node_splits": ("int64", (1, 2)),
      "feature_padding": ("int64", ())}
  assert arrays["feature_padding"] == -1
  assert arrays["node_opcode"].tolist() == [63, 96]


def test_unknown_opcodes_are_counted():
  module = modules.tiny()
  module.computations[0].instructions[1].opcode = "ragged-dot"
  assert graph.graph_arrays(module)["node_opcode"].tolist() == [63, 0]
  assert graph.unknown_opcodes(module) == {"ragged-dot": 1}


@pytest.mark.parametrize("module,message", [
    (_module(), "has no instructions"),
    (_module(("main", 1, 1, [])), "has no instructions"),
    (_module(("main", 1, 2, [(1, [], []), (2, [3], [])])), "'i2' has operand id 3"),
    (_module(("main", 1, 1, [(1, [], [9])])), "'i1' has called computation id 9"),
    (_module(("f", 9, 5, [(4, [], [])]), ("main", 1, 1, [(1, [], [9])])),
     "has called computation id 9"),
    (_module(("main", 1, 1, [(1, [], []), (1, [], [])])), "'main' has two instructions with id 1"),
    (_module(("main", 1, 2, [(1, [], []), (2, [2], [])])), "'i2' of computation 'main' consumes"),
    (_module(("main", 1, 2, [(1, [2], []), (2, [3], []), (3, [1], [])])), "consumes its own"),
    (_module(("main", 1, 1, [(1, [], [1])])), "computation 'main' calls itself"),
    (_module(("f", 9, 5, [(5, [], [1])]), ("main", 1, 1, [(1, [], [9])])), "calls itself"),
    (_module(("f", 9, 5, [(5, [], [])]), ("g", 9, 6, [(6, [], [])]),
             ("main", 1, 1, [(1, [], [9])])),
     "'i1' calls computation id 9, which several computations have"),
])
def test_invalid_programs(module, message):
  with pytest.raises(errors.DataError, match="x.pb.*" + message):
    graph.graph_arrays(module, source="x.pb")


@settings(max_examples=20, deadline=None)
@given(module=modules.programs(), seed=st.integers(0, 2**32 - 1))
def test_renumbering_changes_nothing(module, seed):
  before = graph.graph_arrays(module)
  rng = np.random.default_rng(seed)
  ids = [i.id for c in module.computations for i in c.instructions]
  new_id = dict(zip(ids, rng.choice(2**62, len(ids), replace=False).tolist()))
  new_computation = {
      c.id: int(k) for c, k in zip(module.computations, rng.permutation(len(module.computations)))}
  for computation in module.computations:
    computation.id = new_computation[computation.id]
    computation.root_id = new_id[computation.root_id]
    for instruction in computation.instructions:
      instruction.id = new_id[instruction.id]
      instruction.operand_ids[:] = [
          new_id[i] for i in rng.permutation(instruction.operand_ids).tolist()]
      instruction.called_computation_ids[:] = [
          new_computation[i] for i in instruction.called_computation_ids]
  after = graph.graph_arrays(module)
  for key, array in before.items():
    np.testing.assert_array_equal(after[key], array, key)


@settings(max_examples=20, deadline=None)
@given(module=modules.programs())
def test_graphs_are_valid(module):
  arrays = graph.graph_arrays(module)
  n, edges = len(arrays["node_opcode"]), arrays["edge_index"]
  assert np.all(np.isfinite(arrays["node_feat"]))
  assert np.all((edges >= 0) & (edges < n))
  assert np.all(np.diff(edges[:, 0] * n + edges[:, 1]) > 0)
  splits = arrays["node_splits"][0]
  assert splits[0] == 0 and splits[-1] == n and np.all(np.diff(splits) > 0)
