"""Topological order and segments against the definition, cycles included."""

import time

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import synthetic
from tests.data import drawn
from tpugraphs_rank.data import segments


def longest_path(edges, node):
  """Edges on the longest path from `node` down to a node without operands."""
  return max((1 + longest_path(edges, v) for u, v in edges if u == node), default=0)


def on_or_behind_a_cycle(edges, count):
  """Nodes that can never be computed, because their operands cannot all precede them."""
  done = set()
  while True:
    ready = {node for node in range(count) if node not in done
             and all(v in done for u, v in edges if u == node)}
    if not ready:
      return set(range(count)) - done
    done |= ready


@given(drawn.dags())
def test_levels_are_longest_paths(graph):
  edges, count = graph
  np.testing.assert_array_equal(
      segments.levels(edges, count), [longest_path(edges.tolist(), v) for v in range(count)])


@given(drawn.dags())
def test_every_operand_before_its_users(graph):
  edges, count = graph
  order = segments.topological_order(edges, count)
  assert sorted(order.tolist()) == list(range(count))
  position = np.argsort(order)
  assert all(position[v] < position[u] for u, v in edges)


@given(drawn.digraphs())
def test_cycles_do_not_hang_and_come_last(graph):
  edges, count = graph
  stuck = on_or_behind_a_cycle(edges.tolist(), count)
  order = segments.topological_order(edges, count).tolist()
  assert sorted(order) == list(range(count))
  assert set(order[count - len(stuck):]) == stuck
  position = {node: place for place, node in enumerate(order)}
  assert all(position[v] < position[u] for u, v in edges.tolist() if u not in stuck)


@given(drawn.digraphs(), st.integers(1, 12))
def test_segments_are_contiguous_even_and_cover_every_node_once(graph, max_nodes):
  edges, count = graph
  cut = segments.cut_segments(edges, count, max_nodes)
  sizes = [len(segment) for segment in cut]
  assert max(sizes) <= max_nodes and min(sizes) >= 1 and max(sizes) - min(sizes) <= 1
  assert len(cut) == -(-count // max_nodes)  # The minimum.
  assert sorted(np.concatenate(cut).tolist()) == list(range(count))
  order = segments.topological_order(edges, count).tolist()
  start = 0
  for segment in cut:
    assert segment.tolist() == sorted(order[start:start + len(segment)])
    start += len(segment)


@given(drawn.digraphs(), st.data())
def test_induced_edges_are_those_with_both_ends_inside(graph, data):
  edges, count = graph
  nodes = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1)))), np.int64)
  source, target = segments.induced_edges(edges[:, 1], edges[:, 0], nodes, count)
  inside = [(v, u) for u, v in edges.tolist() if u in nodes and v in nodes]
  assert list(zip(nodes[source].tolist(), nodes[target].tolist())) == inside


def test_the_whole_graph_is_one_segment_where_it_fits():
  edges = synthetic.edges(np.random.default_rng(0), 20)
  (whole,) = segments.cut_segments(edges, 20, 20)
  np.testing.assert_array_equal(whole, np.arange(20))


def test_no_edges():
  none = np.zeros([0, 2], np.int64)
  np.testing.assert_array_equal(segments.levels(none, 3), [0, 0, 0])
  assert [segment.tolist() for segment in segments.cut_segments(none, 3, 2)] == [[0, 1], [2]]


@pytest.mark.parametrize("shape", ["chain", "star", "wide"])
def test_large_graphs(shape):
  count = 40_000
  nodes = np.arange(1, count)
  edges = np.stack([nodes, {"chain": nodes - 1, "star": np.zeros_like(nodes),
                            "wide": nodes // 50}[shape]], axis=1)
  times = []
  for _ in range(3):  # The fastest of three: other processes share the machine.
    start = time.perf_counter()
    cut = segments.cut_segments(edges, count, 1_000)
    times.append(time.perf_counter() - start)
  assert len(cut) == 40 and min(times) < 2.0
  if shape == "chain":
    np.testing.assert_array_equal(np.concatenate(cut), np.arange(count))


@given(drawn.digraphs(), st.integers(1, 12), st.integers(0, 99))
def test_edges_are_drawn_until_their_nodes_are_too_many(graph, max_nodes, seed):
  edges, count = graph
  source, target = edges[:, 1], edges[:, 0]
  nodes = segments.sample_by_edges(source, target, count, max_nodes, np.random.default_rng(seed))
  assert nodes.tolist() == sorted(set(nodes.tolist())) and 1 <= len(nodes) <= max_nodes
  # The same draws, edge by edge.
  expected: set[int] = set()
  for edge in np.random.default_rng(seed).permutation(len(edges)):
    more = expected | {int(source[edge]), int(target[edge])}
    if len(more) > max_nodes:
      break
    expected = more
  if count <= max_nodes:
    assert nodes.tolist() == list(range(count))
  elif expected:
    assert set(nodes.tolist()) == expected
  else:
    assert len(nodes) == 1 and 0 <= nodes[0] < count


def test_every_edge_is_as_likely_to_be_drawn():
  source, target = np.arange(6), np.arange(6) + 6  # Six edges without common nodes.
  rng = np.random.default_rng(0)
  counts = np.zeros(12)
  for _ in range(900):
    counts[segments.sample_by_edges(source, target, 12, 4, rng)] += 1
  # Two of six edges each time: 300 expected, with a standard deviation of 14.
  assert np.abs(counts - 300).max() < 5 * 14
