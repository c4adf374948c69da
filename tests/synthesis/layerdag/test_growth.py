"""The steps of growth, compared with the properties of the graph."""

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.layerdag import growth
from tpugraphs_rank.synthesis.layerdag import settings


def make(seed, count=6, most=14):
  """Random DAGs of one root each."""
  rng = np.random.default_rng(seed)
  graphs = []
  for _ in range(count):
    nodes = int(rng.integers(2, most))
    edges = [(int(rng.integers(node)), node) for node in range(1, nodes)]
    edges += [tuple(sorted(rng.choice(nodes, 2, replace=False).tolist()))
              for _ in range(nodes // 2)]
    graphs.append((np.array(edges), rng.integers(0, 4, [nodes, 2])))
  return dags_lib.canonical(graphs, ("opcode", "shape"), [np.arange(4), np.arange(4)],
                            rng.random(count), ("runtime",))


directions = pytest.mark.parametrize("direction", settings.DIRECTIONS)


@directions
@hypothesis_settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10 ** 6))
def test_growth_keeps_the_graph(direction, seed):
  dags = make(seed)
  kinds = growth.Kinds.of(dags)
  operands = dags.num_operands
  for place, graph in enumerate(growth.order_graphs(dags, kinds, direction)):
    nodes = dags.nodes(place)
    np.testing.assert_array_equal(kinds.attribute[graph.x[:, 0]], dags.x[nodes][graph.order, 0])
    np.testing.assert_array_equal(kinds.operands[graph.x[:, 0]], operands[nodes][graph.order])
    np.testing.assert_array_equal(graph.x[:, 1], dags.x[nodes][graph.order, 1])
    old, new = graph.order[graph.old], graph.order[graph.new]
    pairs = (old, new) if direction == "users_first" else (new, old)
    assert set(zip(*pairs)) == set(map(tuple, dags.edges(place).tolist()))
    assert (np.diff(graph.layer) >= 0).all() and graph.layer[0] == 0
    # The longest path: one more than the latest of the nodes before.
    for node in range(len(graph.x)):
      before = graph.layer[graph.old[graph.new == node]]
      assert graph.layer[node] == (before.max() + 1 if len(before) else 0)


@directions
@hypothesis_settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10 ** 6))
def test_steps_contain_the_open_slots_of_each_prefix(direction, seed):
  dags = make(seed)
  kinds = growth.Kinds.of(dags)
  for graph in growth.order_graphs(dags, kinds, direction):
    steps = growth.unroll(graph, direction)
    assert steps["size"][-1] == 0 and steps["size"].sum() == len(graph.x)
    for step in range(len(steps["size"])):
      before = graph.layer < step
      done = np.bincount(graph.old[graph.layer[graph.new] < step], minlength=len(graph.x))
      mine = steps["candidate_step"] == step
      nodes = steps["candidate_node"][mine]
      if direction == "users_first":
        lacks = np.where(before, graph.operands - done, 0)
        np.testing.assert_array_equal(nodes, np.flatnonzero(lacks))
        np.testing.assert_array_equal(steps["candidate_slots"][mine], lacks[nodes])
      else:
        lacks = (before & (done == 0)).astype(int)
        np.testing.assert_array_equal(nodes, np.flatnonzero(before))
        np.testing.assert_array_equal(steps["candidate_slots"][mine], done[nodes])
      np.testing.assert_array_equal(steps["counts"][step], [
          before.sum(), lacks[graph.layer == step - 1].sum(), lacks.sum(), step])
      unused = before & (done == 0) if direction == "operands_first" else before & (
          graph.layer == 0)
      np.testing.assert_array_equal(steps["progress"][step], [
          before.sum(), step, graph.operands[before].sum(),
          (graph.operands[before] == 0).sum(), unused.sum()])
      np.testing.assert_array_equal(steps["candidate_gap"][mine], step - graph.layer[nodes])
      pairs = {(int(steps["candidate_node"][candidate]), int(new)) for candidate, new in
               steps["pairs"] if mine[candidate]}
      layer = np.flatnonzero(graph.layer == step)
      assert pairs == {(node, new) for node in nodes for new in layer}
      assert steps["inners"][step] == (graph.operands[layer] > 0).sum()
    # Every edge is a pair: the candidates leave none out.
    linked = steps["pairs"][steps["linked"] == 1]
    assert {(int(steps["candidate_node"][c]), int(n)) for c, n in linked} == set(
        zip(graph.old.tolist(), graph.new.tolist()))
    assert {tuple(pair) for pair in steps["layer_pairs"].tolist()} == {
        (i, j) for i in range(len(graph.x)) for j in range(len(graph.x))
        if graph.layer[i] == graph.layer[j]}


@directions
def test_a_batch_concatenates_its_graphs(direction):
  dags = make(3)
  grown = growth.order_graphs(dags, growth.Kinds.of(dags), direction)
  single = [growth.unroll(graph, direction, whole_prefixes=True) for graph in grown]
  joined = growth.batch(single)
  start = {key: 0 for key in single[0]}
  for number, steps in enumerate(single):
    for key, offset in {"edges": "x", "step": "size", "candidate_node": "x", "layer_pairs": "x",
                        "candidate_step": "size", "prefix_node": "x", "prefix_step": "size",
                        "prefix_edges": "prefix_node", "candidate_row": "prefix_node"}.items():
      part = joined[key][start[key]:start[key] + len(steps[key])]
      np.testing.assert_array_equal(part, steps[key] + start[offset], err_msg=key)
    pairs = joined["pairs"][start["pairs"]:start["pairs"] + len(steps["pairs"])]
    np.testing.assert_array_equal(pairs, steps["pairs"] + [start["candidate_step"], start["x"]])
    mine = joined["graph"] == number
    assert mine.sum() == len(steps["size"])
    assert (joined["first_step"][mine] == start["size"]).all()
    start = {key: start[key] + len(value) for key, value in steps.items()}
  # Each step's prefix holds the nodes and edges of the layers before it.
  for step, graph in zip(range(len(joined["size"])), joined["graph"]):
    rows = np.flatnonzero(joined["prefix_step"] == step)
    nodes = joined["prefix_node"][rows]
    assert (joined["level"][nodes] < step - joined["first_step"][step]).all()
    assert len(nodes) == joined["counts"][step, 0]
    inside = np.isin(joined["prefix_edges"][:, 1], rows)
    edges = joined["prefix_node"][joined["prefix_edges"][inside]]
    own = joined["edges"][np.isin(joined["edges"][:, 1], nodes)]
    assert set(map(tuple, edges.tolist())) == set(map(tuple, own.tolist()))


def test_kinds_are_the_pairs_that_occur_in_training():
  kinds = growth.Kinds(np.array([0, 0, 2]), np.array([1, 3, 0]), np.array([1, 1, 1]))
  actual = kinds.index(np.array([0, 0, 2, 2, 1, 0]), np.array([3, 1, 0, 1, 0, 7]))
  np.testing.assert_array_equal(actual, [1, 0, 2, -1, -1, -1])


def test_kinds_know_the_most_users_of_their_nodes():
  # Node 0 uses 1 and 2, node 1 uses 2; node 3 stands alone.
  dags = dags_lib.canonical([(np.array([[0, 1], [0, 2], [1, 2]]), np.array([0, 1, 1, 1]))])
  kinds = growth.Kinds.of(dags)
  assert list(zip(kinds.attribute, kinds.operands, kinds.most_users)) == [
      (0, 2, 0), (1, 0, 2), (1, 1, 1)]


def test_the_window_covers_the_usual_edges_and_limits_the_candidates():
  # A chain of 30 nodes; the last one also depends on the first.
  edges = [(node, node - 1) for node in range(1, 30)] + [(29, 0)]
  dags = dags_lib.canonical([(np.array(edges), np.zeros(30, int))])
  ordered = growth.order_graphs(dags, growth.Kinds.of(dags), "operands_first")
  assert growth.window_of(ordered) == 29
  # With 2,000 chains next to it, that edge is one in more than a thousand.
  chain = dags_lib.canonical([(np.array(edges[:-1]), np.zeros(30, int))])
  several = growth.order_graphs(chain, growth.Kinds.of(chain), "operands_first") * 2000
  assert growth.window_of([*several, *ordered]) == 1
  steps = growth.unroll(ordered[0], "operands_first", window=2)
  assert steps["candidate_gap"].max() == 2
  assert len(steps["candidate_gap"]) == 1 + 2 * 29
  # The edge beyond the window is no pair; all others are.
  assert steps["linked"].sum() == 29
  whole = growth.unroll(ordered[0], "operands_first")
  np.testing.assert_array_equal(steps["counts"], whole["counts"])


def test_graphs_without_edges_have_a_window():
  dags = dags_lib.canonical([(np.zeros([0, 2], int), np.array([0]))])
  assert growth.window_of(growth.order_graphs(
      dags, growth.Kinds.of(dags), "operands_first")) == 1
