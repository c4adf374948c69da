"""Parts of large programs: closed, distinct, and nearly always programs of their own."""

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
  """Nodes of any operations, one bucket each, so that they can be told apart."""
  nodes = []
  for place in range(draw(st.integers(1, 25))):
    operands = draw(st.sets(st.integers(0, place - 1), max_size=3)) if place else set()
    name = draw(st.sampled_from(["dot", "add", "tanh", "scatter"])) if operands else "parameter"
    nodes.append(Node(name, "f32", place, tuple(sorted(operands))))
  return nodes


@hypothesis.given(_programs(), st.integers(1, 30), st.data())
def test_a_cone_is_what_its_root_is_computed_from(nodes, most, data):
  root = data.draw(st.integers(0, len(nodes) - 1))
  part = subgraphs.cone(nodes, root, most)
  assert len(part) <= most and part[-1].bucket == root
  used = {operand for node in part for operand in node.operands}
  assert used == set(range(len(part) - 1))
  for node in part:
    whole = nodes[node.bucket]
    if node.operands:
      assert node.operation == whole.operation in ops.ALL
      assert [part[operand].bucket for operand in node.operands] == list(whole.operands)
    else:
      assert node.operation == "parameter"
  if most >= len(nodes) and all(node.operation != "scatter" for node in nodes):
    reached, waiting = {root}, [root]
    while waiting:
      waiting += [one for one in nodes[waiting.pop()].operands if one not in reached]
      reached.update(waiting)
    assert [node.bucket for node in part] == sorted(reached)


def test_nearer_nodes_come_first():
  chain = [Node("parameter", "f32", 5, ())] + [
      Node("tanh", "f32", 5, (place,)) for place in range(9)]
  assert subgraphs.cone(chain, 9, 4) == chain[:4]
  assert subgraphs.cone(chain, 2, 9) == chain[:3]


def test_parts_have_the_nodes_and_sites_asked_for_and_are_distinct():
  rng = np.random.default_rng(0)
  nodes = [Node("parameter", "f32", place, ()) for place in range(3)]
  for place in range(3, 60):
    nodes.append(Node("dot" if place % 4 == 0 else "add", "f32", place, tuple(
        sorted(rng.choice(place, 2, replace=False).tolist()))))
  cut = subgraphs.Sampling(5, min_nodes=6, max_nodes=12, sites=2)
  found = subgraphs.sample(nodes, cut, rng)
  assert len(found) == 5 and all(6 <= len(part) <= 12 for part in found)
  assert all(sum(node.operation == "dot" for node in part) >= 2 for part in found)
  assert all(one != other for place, one in enumerate(found) for other in found[:place])
  assert subgraphs.sample(nodes[:5], cut, rng) == []


@pytest.mark.parametrize("values", [
    {"count": 0}, {"count": 1, "min_nodes": 1}, {"count": 1, "min_nodes": 9, "max_nodes": 8}])
def test_cuts_that_make_no_sense(values):
  with pytest.raises(errors.ConfigError, match="at least 2 nodes"):
    subgraphs.Sampling(**values)


def test_parts_of_the_bundled_layout_programs_are_programs():
  found = dataflow.extract("layout:xla_cpu:mixed", sampling=subgraphs.Sampling(1, 15, 40, sites=3))
  assert found.provenance["graphs"] == "sub-graphs of dataflow"
  assert found.provenance["sampling"] == {
      "count": 1, "min_nodes": 15, "max_nodes": 40, "sites": 3, "seed": 0}
  programs = len(list(collections.load_collection("layout:xla_cpu:mixed", "train")))
  # One part of each; a part that another program has, too, counts once.
  assert found.provenance["left_out"] < 0.1 * programs
  assert 0.8 * programs < len(found) <= programs
  other = dataflow.extract("layout:xla_cpu:mixed", sampling=subgraphs.Sampling(1, 15, 40, sites=3, seed=1))
  assert set(found.hashes()) != set(other.hashes())
  made = sources.realize_graphs(iter(dataflow.from_dags(found)), len(found), "real", 0,
                           sources.LIMITS["layout"])
  assert made.realized_share >= 0.95 and made.repaired < 0.04


def test_the_same_seed_cuts_the_same_parts():
  one, again = (dataflow.extract("layout:xla_cpu:mixed", ("valid",), sampling=subgraphs.Sampling(2, 10, 20))
                for _ in range(2))
  np.testing.assert_array_equal(one.hashes(), again.hashes())


def test_nothing_to_cut():
  with pytest.raises(errors.DataError, match="no sub-graph of 40 nodes or more with 90 sites"):
    dataflow.extract("layout:xla_cpu:mixed", ("valid",), sampling=subgraphs.Sampling(1, 40, 50, sites=90))
