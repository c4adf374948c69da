"""Distances between samples of traces, and what synthetic graphs reveal, by hand-computed cases."""

import itertools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.traces import comparison


def _dags(*graphs, vocabulary=8):
  return dags_lib.canonical(
      [(np.array(edges).reshape(-1, 2), np.array(types)) for edges, types in graphs],
      ("type",), (np.arange(vocabulary),))


# 1 and 2 depend on 0, and 3 depends on both.
_DIAMOND = ([(1, 0), (2, 0), (3, 1), (3, 2)], [0, 1, 2, 3])
_PAIR = ([(1, 0)], [4, 5])


def _random(seed, count=6, most=12):
  rng = np.random.default_rng(seed)
  graphs = []
  for _ in range(count):
    size = int(rng.integers(2, most))
    edges = [(user, int(rng.integers(user))) for user in range(1, size) for _ in range(2)]
    graphs.append((edges, rng.integers(0, 4, size)))
  return _dags(*graphs)


def test_quantities_of_two_graphs():
  dags = _dags(_DIAMOND, _PAIR)
  durations = np.array([10.0, 1.0, 2.0, 5.0, 7.0, 3.0])[_types(dags)]
  result = comparison.quantities(dags, durations)
  assert result["nodes"].tolist() == [4, 2]
  assert result["depth"].tolist() == [3, 2]
  assert sorted(result["width"].tolist()) == [1, 1, 1, 1, 2]
  assert sorted(result["operands"].tolist()) == [0, 0, 1, 1, 1, 2]
  assert result["critical_path"].tolist() == [17.0, 10.0]  # 10 + 2 + 5; 7 + 3.
  assert result["work"].tolist() == [18.0, 10.0]


def _types(dags):
  return dags.vocabularies[0][dags.x[:, 0]]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_critical_paths_equal_the_longest_of_all_paths(seed):
  dags = _random(seed, count=2, most=6)
  durations = np.random.default_rng(seed).integers(0, 9, len(dags.x)).astype(float)
  for graph, expected in enumerate(comparison.critical_paths(dags, durations)):
    rows = dags.nodes(graph)
    edges = set(map(tuple, dags.edges(graph).tolist()))
    mine, longest = durations[rows], 0.0
    for length in range(1, len(mine) + 1):
      for path in itertools.permutations(range(len(mine)), length):
        if all(step in edges for step in zip(path, path[1:])):
          longest = max(longest, sum(mine[list(path)]))
    assert expected == longest


def test_a_sample_has_no_distance_to_itself():
  dags = _random(3)
  durations = np.ones(len(dags.x))
  for name, value in comparison.distances(dags, dags, (durations, durations)).items():
    assert value == pytest.approx(0.0, abs=1e-12), name


def test_distances_of_known_samples():
  result = comparison.distances(_dags(_PAIR), _dags(_DIAMOND))
  assert result["depth"] == 1.0 and result["nodes"] == 2.0
  assert result["types"] == result["type_pairs"] == result["tv_type"] == 1.0
  # Operands 0, 1 and 0, 1, 1, 2: the mean differs by 1/2, and so do the quantiles.
  assert result["operands"] == pytest.approx(0.5)
  assert result["degree"] == max(result["operands"], result["users"])


def test_controls_have_the_sizes_of_the_graphs_and_the_types_of_training():
  training = _dags(_DIAMOND)
  like = _random(5)
  control = comparison.random_graphs(like, training, 0)
  assert control.sizes.tolist() == like.sizes.tolist()
  assert set(_types(control).tolist()) <= {0, 1, 2, 3}
  typed = comparison.random_typed(like, training, 0)
  np.testing.assert_array_equal(typed.src, like.src)
  np.testing.assert_array_equal(
      comparison.random_graphs(like, training, 0).x, control.x)


def test_the_distance_to_the_nearest_graph():
  counts = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
  others = np.array([[2.0, 1.0, 0.0], [1.0, 0.0, 2.0]])
  # The second shares 2 nodes with one of 3 nodes: 1 - 2 / 4.
  np.testing.assert_allclose(comparison.nearest(counts, others), [0.0, 0.5])
  assert comparison.nearest(counts, others[:0]).tolist() == [1.0, 1.0]


def test_copies_of_the_training_graphs_are_revealed_and_other_graphs_are_not():
  training, held_out = _random(1, 30), _random(2, 30)
  copied = comparison.revealed(training, held_out, training, 0)
  assert copied["equal_to_training"] == 1.0 and copied["nearest_training"]["maximum"] == 0.0
  assert copied["membership"]["auc"] > 0.95
  fresh = comparison.revealed(training, held_out, _random(3, 30), 0)
  assert fresh["membership"]["low"] <= 0.5 <= fresh["membership"]["high"]
  assert fresh["nearest_training"]["median"] > 0.0


def test_neighborhoods_do_not_depend_on_the_order_of_nodes():
  edges, types = _DIAMOND
  moved = [(3, 2, 1, 0)[node] for node in range(4)]
  other = ([(moved[user], moved[operand]) for user, operand in edges],
           [types[moved.index(node)] for node in range(4)])
  counts = comparison.neighborhoods({"one": _dags(_DIAMOND), "other": _dags(other)})
  np.testing.assert_array_equal(counts["one"], counts["other"])


def test_ratios():
  assert comparison.ratio(3.0, 2.0) == 1.5
  assert comparison.ratio(0.0, 0.0) == 1.0
  assert comparison.ratio(1.0, 0.0) == np.inf
