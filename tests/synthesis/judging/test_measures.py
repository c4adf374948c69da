"""Distances, validity and copies, compared with their definitions."""

import collections
import math

import numpy as np
import pytest

from tests.synthesis import small_dags
from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.judging import measures

DIAMOND = np.array([[0, 1], [0, 2], [1, 3], [2, 3]])


def _wasserstein(first, second):
  """Area between the two distribution functions, over whole numbers."""
  first, second = np.array(first), np.array(second)
  return sum(abs((first <= at).mean() - (second <= at).mean())
             for at in range(min(first.min(), second.min()), max(first.max(), second.max())))


def _total_variation(first, second):
  one, other = collections.Counter(first), collections.Counter(second)
  return 0.5 * sum(abs(one[key] / len(first) - other[key] / len(second))
                   for key in set(one) | set(other))


def _quantities(dags):
  """The same quantities, graph by graph, in plain Python."""
  actual = collections.defaultdict(list)
  for graph in range(len(dags)):
    level = dags.level[dags.nodes(graph)].tolist()
    kind = dags.vocabularies[0][dags.x[dags.nodes(graph), 0]].tolist()
    edges = dags.edges(graph).tolist()
    actual["layers"].append(max(level) + 1)
    actual["nodes"].append(len(level))
    actual["layer_size"] += list(collections.Counter(level).values())
    actual["operands"] += [sum(u == node for u, _ in edges) for node in range(len(level))]
    actual["users"] += [sum(v == node for _, v in edges) for node in range(len(level))]
    actual["opcode"] += kind
    actual["pairs"] += [(kind[u], kind[v]) for u, v in edges]
  return actual


def test_distances_by_definition():
  one = small_dags.graphs(20, 0)
  other = small_dags.graphs(15, 1, opcodes=6, max_nodes=20, chance=0.1)
  ours, theirs = _quantities(one), _quantities(other)
  expected = {f"wasserstein_{name}": _wasserstein(ours[name], theirs[name])
              for name in ("layers", "layer_size", "nodes", "operands", "users")}
  expected["tv_opcode"] = _total_variation(ours["opcode"], theirs["opcode"])
  expected["tv_opcode_pairs"] = _total_variation(ours["pairs"], theirs["pairs"])
  assert measures.distances(one, other) == pytest.approx(expected)
  assert measures.distances(one, one) == pytest.approx(dict.fromkeys(expected, 0.0))


def test_known_distances():
  chain = lambda length: (np.stack([np.arange(length - 1), np.arange(1, length)], 1),
                          np.zeros(length, int))
  actual = measures.distances(dags_lib.canonical([chain(3)] * 4), dags_lib.canonical([chain(5)]))
  assert actual["wasserstein_layers"] == actual["wasserstein_nodes"] == 2
  assert actual["wasserstein_layer_size"] == actual["tv_opcode"] == actual["tv_opcode_pairs"] == 0
  alone = dags_lib.canonical([(np.zeros([0, 2]), np.array([1]))])
  actual = measures.distances(alone, dags_lib.canonical([chain(2)]))
  assert actual["tv_opcode"] == actual["tv_opcode_pairs"] == 1
  assert measures.distances(alone, alone)["tv_opcode_pairs"] == 0


def test_each_attribute_has_its_own_distances():
  x = np.array([[1, 5], [1, 6], [2, 5], [1, 5]])
  one = dags_lib.canonical([(DIAMOND, x)], ("opcode", "type"))
  other = dags_lib.canonical([(DIAMOND, x[:, [0, 0]])], ("opcode", "type"))
  actual = measures.distances(one, other)
  assert actual["tv_opcode"] == 0 and actual["tv_type"] == 1 and actual["tv_type_pairs"] == 1


def test_valid_numbers_of_operands():
  training = dags_lib.canonical([(DIAMOND, np.array([7, 8, 8, 9]))])
  x = [np.array([7, 8, 8, 9]), np.array([7, 8, 9, 9]), np.array([5, 8, 8, 9])]
  actual = measures.arity_valid(dags_lib.canonical([(DIAMOND, row) for row in x]), training)
  # In training 9 occurs without operands only, and 5 does not occur.
  expected = [[True] * 4, [True, True, False, True], [False, True, True, True]]
  assert actual.nodes.tolist() == sum(expected, [])
  assert actual.graphs.tolist() == [True, False, False]
  one, other = small_dags.graphs(9, 0), small_dags.graphs(9, 1)
  pairs = lambda dags: list(zip(dags.x[:, 0].tolist(), dags.num_operands.tolist()))
  actual = measures.arity_valid(one, other)
  assert actual.nodes.tolist() == [pair in set(pairs(other)) for pair in pairs(one)]


def test_copies_are_found_in_any_order_of_nodes_and_vocabulary():
  rng = np.random.default_rng(0)
  training = small_dags.graphs(12, 3, max_nodes=16)
  parts = []
  for graph in range(6):
    size = int(training.sizes[graph])
    order = rng.permutation(size)
    x = np.empty(size, int)
    x[order] = training.x[training.nodes(graph), 0]
    parts.append((order[training.edges(graph)], x))
  again = dags_lib.canonical(parts)  # With other vocabularies, where a kind is missing.
  new = small_dags.graphs(12, 4, max_nodes=16)
  both = dags_lib.concat([again.with_labels(np.zeros(6), ["runtime"]), new])
  large = both.sizes >= 10
  actual = measures.copies(both, training)
  assert actual["copies_of_training_all"] == 6 / 18
  assert actual["copies_of_training"] == large[:6].sum() / large.sum()
  assert actual["distinct"] == actual["distinct_all"] == 1
  twice = measures.copies(dags_lib.concat([new, new]), training)
  assert twice["distinct_all"] == twice["distinct"] == 0.5
  tiny = dags_lib.canonical([(np.zeros([0, 2]), np.array([1]))])
  assert math.isnan(measures.copies(tiny, training)["copies_of_training"])


def test_copies_in_random_splits_of_pairs_of_twins():
  once = small_dags.graphs(60, 5, max_nodes=30)
  real = dags_lib.concat([once, once])
  actual = measures.copies_by_chance(real, training_size=100, seed=0)
  # The twin of a held-out graph is one of 119 others, 100 of which are for training.
  assert actual["copies_of_training_all"] == pytest.approx(100 / 119, abs=0.06)
  assert measures.copies_by_chance(real, 100, 0) == actual
  assert measures.copies_by_chance(real, 100, 1) != actual
  assert measures.copies_by_chance(once, 40, 0)["copies_of_training_all"] == 0


def test_graphs_with_other_attributes_are_refused():
  one = small_dags.graphs(3)
  other = dags_lib.canonical([(DIAMOND, np.zeros([4, 2], int))], ("opcode", "type"))
  for call in (measures.distances, measures.arity_valid):
    with pytest.raises(errors.DataError, match="x_names differ"):
      call(one, other)
