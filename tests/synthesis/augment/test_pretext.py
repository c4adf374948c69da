"""Masked nodes, hidden edges and random pairs."""

import hypothesis
from hypothesis import strategies as st
import numpy as np

from tests import synthetic
from tpugraphs_rank.data import normalize
from tpugraphs_rank.hlo import features
from tpugraphs_rank.synthesis.augment import pretext
from tpugraphs_rank.synthesis.dags import node_types


def _examples(seeds, sizes):
  graphs = [synthetic.tile_graph(seed, num_nodes=size) for seed, size in zip(seeds, sizes)]
  scale = normalize.Normalizer.fit(graphs)
  return graphs, [pretext.example(graph, scale, label=float(place))
                  for place, graph in enumerate(graphs)]


def test_the_element_type_is_the_one_hot_column():
  rows = np.zeros([3, len(features.NODE_FEATURE_NAMES)])
  names = [name for name in features.NODE_FEATURE_NAMES
           if name.startswith("shape_element_type_is_")]
  rows[0, features.NODE_FEATURE_NAMES.index(names[0])] = 1
  rows[2, features.NODE_FEATURE_NAMES.index(names[7])] = 1
  assert node_types.indices(rows).tolist() == [0, len(names), 7]
  assert pretext.NUM_TYPES == len(names) + 1


@hypothesis.given(st.integers(0, 50), st.integers(2, 9), st.floats(0.01, 0.9))
def test_hidden_pairs_are_edges_and_random_pairs_are_not(seed, size, share):
  _, (one,) = _examples([seed], [size])
  # All copies of a duplicate edge are hidden.
  one = pretext.Example(one.nodes, one.opcode, one.element_type, np.append(one.source, one.source),
                        np.append(one.target, one.target))
  kept, real, random = pretext.hidden_edges(one, share, np.random.default_rng(seed))
  pairs = lambda source, target: set(zip(source.tolist(), target.tolist()))
  edges, left = pairs(one.source, one.target), pairs(one.source[kept], one.target[kept])
  hidden, drawn = pairs(*real.T), pairs(*random.T)
  assert hidden == edges - left and len(real) == len(hidden) >= 1
  assert not drawn & edges and len(random) <= len(real)
  assert all(source != target and 0 <= min(source, target) <= max(source, target) < size
             for source, target in drawn)


def test_a_graph_without_edges():
  one = pretext.Example(np.zeros([2, 3], np.float32), np.ones(2, np.int32), np.zeros(2, np.int32),
                        np.zeros(0, np.int32), np.zeros(0, np.int32))
  kept, real, random = pretext.hidden_edges(one, 0.5, np.random.default_rng(0))
  assert not kept.size and not real.size and not random.size


@hypothesis.given(st.integers(0, 30), st.floats(0.01, 0.9))
def test_a_batch_hides_exactly_its_targets(seed, share):
  graphs, members = _examples([seed, seed + 1], [4, 7])
  arrays = pretext.batch(members, share, 0.3, np.random.default_rng(seed))
  opcode = np.concatenate([graph.node_opcode for graph in graphs])
  nodes = np.concatenate([one.nodes for one in members])
  masked = arrays["masked"]
  assert (masked < 4).any() and (masked >= 4).any() and len(set(masked.tolist())) == len(masked)
  np.testing.assert_array_equal(arrays["masked_opcode"], opcode[masked])
  assert (arrays["opcode"][masked] == pretext.MASKED_OPCODE).all()
  assert not arrays["nodes"][masked].any()
  others = np.setdiff1d(np.arange(11), masked)
  np.testing.assert_array_equal(arrays["opcode"][others], opcode[others])
  np.testing.assert_array_equal(arrays["nodes"][others], nodes[others])
  assert arrays["num_nodes"].tolist() == [4, 7] and arrays["label"].tolist() == [0.0, 1.0]
  assert arrays["num_edges"].sum() == len(arrays["source"]) == len(arrays["target"])
  # Every edge is either visible or a target.
  targets = arrays["pairs"][arrays["pair_is_edge"] == 1]
  seen = np.stack([arrays["source"], arrays["target"]], axis=1)
  expected = np.concatenate([graph.edge_index[:, ::-1] + start
                             for graph, start in zip(graphs, (0, 4))])
  assert sorted(map(tuple, np.concatenate([targets, seen]).tolist())) == sorted(
      map(tuple, expected.tolist()))


def test_shares_of_zero_leave_the_graphs_unchanged():
  _, members = _examples([3], [6])
  arrays = pretext.batch(members, 0.0, 0.0, np.random.default_rng(0))
  np.testing.assert_array_equal(arrays["nodes"], members[0].nodes)
  assert not arrays["masked"].size and not arrays["pairs"].size
  assert len(arrays["source"]) == len(members[0].source)
