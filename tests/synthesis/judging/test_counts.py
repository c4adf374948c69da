"""Counts of attribute values and of pairs, compared with counting one graph at a time."""

import collections
import dataclasses

import numpy as np
import pytest

from tests.synthesis import small_dags
from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.judging import counts as counts_lib


def _counted(graphs, column):
  """For each graph how often each value, and each pair (value of user, of operand), occurs."""
  result = []
  for graph in range(len(graphs)):
    kinds = graphs.vocabularies[column][graphs.x[graphs.nodes(graph), column]].tolist()
    edges = graphs.edges(graph).tolist()
    result.append(collections.Counter(
        [*kinds, *((kinds[user], kinds[operand]) for user, operand in edges)]))
  return result


def _expected(training, graphs, column):
  """(G, f) counts of what occurs in training: values in order, then pairs in order."""
  known = set().union(*_counted(training, column))
  order = (sorted(key for key in known if not isinstance(key, tuple))
           + sorted(key for key in known if isinstance(key, tuple)))
  return np.array([[counter[key] for key in order] for counter in _counted(graphs, column)])


def test_they_equal_counting_each_graph():
  training, graphs = small_dags.graphs(6, 0, opcodes=5, max_nodes=6), small_dags.graphs(30, 1)
  # Another vocabulary: other indices, values that training lacks, and values that do not occur.
  graphs = graphs.in_vocabularies([np.array([9, 3, 2, 1, 0])])
  odd = dataclasses.replace(graphs, vocabularies=(np.array([9, 3, 77, 1, 0]),))
  counts = counts_lib.Counts(training)
  for of in (training, graphs, odd):
    np.testing.assert_array_equal(counts.of(of), _expected(training, of, 0))
    assert counts.of(of).shape == (len(of), counts.width)


def test_attributes_follow_each_other():
  graphs = small_dags.graphs(12, 3)
  x = np.stack([graphs.x[:, 0], graphs.level % 3], axis=1).astype(np.int32)
  two = dataclasses.replace(graphs, x=x, x_names=("opcode", "type"), vocabularies=(
      np.arange(4), np.array(["a", "b", "c"])))
  expected = np.concatenate([_expected(two, two, column) for column in (0, 1)], axis=1)
  np.testing.assert_array_equal(counts_lib.Counts(two).of(two), expected)
  with pytest.raises(errors.DataError, match="x_names are .'opcode',.; the counts are of"):
    counts_lib.Counts(two).of(graphs)


def test_graphs_without_edges_have_no_pairs():
  single = dags_lib.canonical([(np.zeros([0, 2]), np.array([kind])) for kind in (1, 2)],
                              vocabularies=[np.arange(4)])
  np.testing.assert_array_equal(counts_lib.Counts(single).of(single), [[1, 0], [0, 1]])
  graphs = small_dags.graphs(3, 0)
  np.testing.assert_array_equal(
      counts_lib.Counts(single).of(graphs), _expected(single, graphs, 0))
