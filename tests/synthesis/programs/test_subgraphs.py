"""Sub-graphs of large programs: closed, distinct, and almost always realizable."""

import dataclasses

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.data import collections
from tpugraphs_rank.synthesis.programs import dataflow
from tpugraphs_rank.synthesis.programs import nodes as nodes_lib
from tpugraphs_rank.synthesis.programs import operations as ops
from tpugraphs_rank.synthesis.programs import sources
from tpugraphs_rank.synthesis.programs import subgraphs

Node = nodes_lib.Node


@st.composite
def _programs(draw):
  """Nodes with random operations; the bucket of each is its index, which identifies it."""
  nodes = []
  for place in range(draw(st.integers(1, 25))):
    operands = draw(st.sets(st.integers(0, place - 1), max_size=3)) if place else set()
    name = draw(st.sampled_from(["dot", "add", "tanh", "scatter"])) if operands else "parameter"
    nodes.append(Node(name, "f32", place, tuple(sorted(operands))))
  return nodes


@hypothesis.given(_programs(), st.integers(1, 30), st.data())
def test_a_cone_contains_what_computes_its_root(nodes, max_nodes, data):
  root = data.draw(st.integers(0, len(nodes) - 1))
  subgraph = subgraphs.cone(nodes, root, max_nodes)
  assert len(subgraph) <= max_nodes and subgraph[-1].bucket == root
  used = {operand for node in subgraph for operand in node.operands}
  assert used == set(range(len(subgraph) - 1))
  for node in subgraph:
    whole = nodes[node.bucket]
    if node.operands:
      assert node.operation == whole.operation in ops.ALL
      assert [subgraph[operand].bucket for operand in node.operands] == list(whole.operands)
    else:
      assert node.operation == "parameter"
  if max_nodes >= len(nodes) and all(node.operation != "scatter" for node in nodes):
    reached, waiting = {root}, [root]
    while waiting:
      waiting += [one for one in nodes[waiting.pop()].operands if one not in reached]
      reached.update(waiting)
    assert [node.bucket for node in subgraph] == sorted(reached)


def test_nearer_nodes_are_preferred():
  chain = [Node("parameter", "f32", 5, ())] + [
      Node("tanh", "f32", 5, (place,)) for place in range(9)]
  assert subgraphs.cone(chain, 9, 4) == chain[:4]
  assert subgraphs.cone(chain, 2, 9) == chain[:3]


def test_sub_graphs_are_distinct_and_within_the_limits():
  rng = np.random.default_rng(0)
  nodes = [Node("parameter", "f32", place, ()) for place in range(3)]
  for place in range(3, 60):
    nodes.append(Node("dot" if place % 4 == 0 else "add", "f32", place, tuple(
        sorted(rng.choice(place, 2, replace=False).tolist()))))
  sampling = subgraphs.Sampling(5, min_nodes=6, max_nodes=12, sites=2)
  sampled = subgraphs.sample(nodes, sampling, rng)
  assert len(sampled) == 5 and all(6 <= len(subgraph) <= 12 for subgraph in sampled)
  assert all(sum(node.operation == "dot" for node in subgraph) >= 2 for subgraph in sampled)
  assert all(one != other for place, one in enumerate(sampled) for other in sampled[:place])
  assert subgraphs.sample(nodes[:5], sampling, rng) == []


@pytest.mark.parametrize("values", [
    {"count": 0}, {"count": 1, "min_nodes": 1}, {"count": 1, "min_nodes": 9, "max_nodes": 8}])
def test_invalid_settings(values):
  with pytest.raises(errors.ConfigError, match="at least 2 nodes"):
    subgraphs.Sampling(**values)


def test_sub_graphs_of_the_bundled_layout_programs_are_realizable():
  sampling = subgraphs.Sampling(1, 15, 40, sites=3)
  sampled = dataflow.extract("layout:xla_cpu:mixed:v1", sampling=sampling)
  assert sampled.provenance["graphs"] == "sub-graphs of dataflow"
  assert sampled.provenance["sampling"] == {
      "count": 1, "min_nodes": 15, "max_nodes": 40, "sites": 3, "seed": 0}
  programs = len(list(collections.load_collection("layout:xla_cpu:mixed:v1", "train")))
  # One sub-graph of each program; a sub-graph that two programs share counts once.
  assert sampled.provenance["left_out"] < 0.1 * programs
  assert 0.8 * programs < len(sampled) <= programs
  other = dataflow.extract(
      "layout:xla_cpu:mixed:v1", sampling=dataclasses.replace(sampling, seed=1))
  assert set(sampled.hashes()) != set(other.hashes())
  realized = sources.realize_graphs(
      iter(dataflow.from_dags(sampled)), len(sampled), "real", 0, sources.LIMITS["layout"])
  assert realized.realized_share >= 0.95 and realized.repaired < 0.04


def test_the_same_seed_gives_the_same_sub_graphs():
  one, again = (dataflow.extract(
      "layout:xla_cpu:mixed:v1", ("valid",), sampling=subgraphs.Sampling(2, 10, 20))
                for _ in range(2))
  np.testing.assert_array_equal(one.hashes(), again.hashes())


def test_no_suitable_sub_graph():
  with pytest.raises(errors.DataError, match="no sub-graph of 40 nodes or more with 90 sites"):
    dataflow.extract("layout:xla_cpu:mixed:v1", ("valid",),
                     sampling=subgraphs.Sampling(1, 40, 50, sites=90))
