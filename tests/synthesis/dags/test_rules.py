"""The rule-based family: its graphs obey the rule, and violations are detected."""

import dataclasses
import itertools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tests.data import drawn
from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.dags import rules


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(2, 5), st.integers(1, 7), st.integers(0, 9))
def test_every_graph_obeys_and_has_one_root(max_nodes, kinds, max_operands, seed):
  graphs = rules.balanced(4, max_nodes, seed, kinds=kinds, max_operands=max_operands)
  assert rules.obeys(graphs).graphs.all()
  assert graphs.sizes.min() >= max(max_nodes // 2, 1) and graphs.sizes.max() <= max_nodes
  assert graphs.num_operands.max() <= max_operands
  np.testing.assert_array_equal(np.bincount(graphs.graph_of_node[graphs.level == 0]), np.ones(4))
  again = rules.balanced(4, max_nodes, seed, kinds=kinds, max_operands=max_operands)
  assert again.wl.tolist() == graphs.wl.tolist()
  np.testing.assert_array_equal(again.y, graphs.y)


def test_large_graphs_differ_and_the_rule_is_hard():
  graphs = rules.balanced(6, 400, seed=1, min_nodes=400)
  assert (graphs.sizes == 400).all() and len(set(graphs.wl.tolist())) == 6
  obeyed = rules.obeys(graphs)
  # With operands of random kinds about a third of such nodes obey, and no graph.
  assert obeyed.tested.mean() > 0.25
  shuffled = rules.by_chance(graphs)
  np.testing.assert_array_equal(shuffled.tested, obeyed.tested)
  # Shuffled within each graph, the kinds obey as often as in any random order.
  mixed = np.random.default_rng(0).permutation(graphs.x)
  assert shuffled.nodes[shuffled.tested].mean() == pytest.approx(
      rules.obeys(dataclasses.replace(graphs, x=mixed)).nodes[obeyed.tested].mean(), abs=0.05)
  by_chance = shuffled.summary()
  assert by_chance["nodes_of_two_or_more_operands"] < 0.5 and by_chance["graphs"] == 0
  assert graphs.depths.min() > 15


@given(drawn.dags(), st.integers(2, 3), st.data())
def test_the_rule_and_the_label_by_definition(graph, kinds, data):
  edges, count = graph
  kind = np.array(data.draw(st.lists(st.integers(0, kinds - 1), min_size=count, max_size=count)))
  graphs = dags_lib.canonical([graph[:1] + (kind,), graph[:1] + (kind,)], ("kind",),
                            [np.arange(kinds)])
  obeyed = rules.obeys(graphs)
  rows, column = graphs.edges(0).tolist(), graphs.x[graphs.nodes(0), 0]
  operands = [[v for u, v in rows if u == node] for node in range(count)]
  expected = [
      all(abs(sum(column[v] == one for v in of) - sum(column[v] == other for v in of)) <= 1
          for one, other in itertools.combinations(range(kinds), 2)) for of in operands]
  assert obeyed.nodes.tolist() == expected * 2
  assert obeyed.graphs.tolist() == [all(expected)] * 2
  assert obeyed.tested.tolist() == [len(of) >= 2 for of in operands] * 2
  shares = obeyed.summary()
  assert shares["nodes"] == pytest.approx(np.mean(expected))
  assert shares["graphs"] == all(expected)
  tested = [good for good, of in zip(expected, operands) if len(of) >= 2]
  assert shares["nodes_of_two_or_more_operands"] == pytest.approx(
      np.mean(tested) if tested else 1.0)

  longest = lambda node: column[node] + 1 + max(map(longest, operands[node]), default=0)
  np.testing.assert_array_equal(
      rules.critical_paths(graphs), [max(map(longest, range(count)))] * 2)


def test_other_graphs_are_refused():
  other = dags_lib.canonical([(np.array([[0, 1]]), np.array([3, 4]))])
  with pytest.raises(errors.DataError, match="x_names are opcode; expected 'kind'"):
    rules.obeys(other)
  other = dataclasses.replace(other, x_names=("kind",))
  assert rules.obeys(other).graphs.tolist() == [True]
  with pytest.raises(errors.DataError, match=r"vocab_kind holds \[3, 4\]; expected kinds 0..2"):
    rules.obeys(other, kinds=3)


@pytest.mark.parametrize("wrong", [
    {"count": 0}, {"max_nodes": 0}, {"min_nodes": 9}, {"kinds": 1}, {"max_operands": 0}])
def test_numbers_out_of_range(wrong):
  with pytest.raises(errors.ConfigError, match="expected count >= 1, 1 <= min_nodes <= max_nodes"):
    rules.balanced(**{"count": 2, "max_nodes": 8, "seed": 0, **wrong})
