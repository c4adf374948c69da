"""Deduplicated states: the same scores, and no state is computed twice."""

import itertools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
import tensorflow as tf

from tests import synthetic
from tests.models import small_batches
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import pipeline
from tpugraphs_rank.models import layers
from tpugraphs_rank.models import state_index


def _arranged(case, graph):
  """The arranged batch of all configurations of a graph."""
  ((batch, _),) = batches.scoring_batches([case.prepare(graph)], 10 ** 6, 0)
  return case.model.arrange(batch)


def _parts(case, arranged):
  """Scores without and with deduplicated states, the index and its states."""
  graph = pipeline.to_step(arranged)["graph"]
  kept = case.model.config_independent_part(graph)
  index = state_index.StateIndex(arranged, case.config.model.num_convolutions)
  levels = index.deduplicate(arranged["configs"])
  arrays = index.arrays(levels, arranged["configs"], case.model.pooled_levels)
  return (case.model.config_dependent_part(graph, kept).numpy(),
          case.model.distinct_states_part(graph, kept, arrays).numpy(), index, levels)


def _graph(seed, num_nodes, num_config_nodes, num_configs, repeats):
  """A graph whose configurations repeat layouts and one another."""
  graph = synthetic.layout_graph(seed, num_nodes=num_nodes, num_configs=num_configs,
                                 num_config_nodes=num_config_nodes)
  rng = np.random.default_rng(seed)
  feat = graph.node_config_feat[rng.integers(num_configs, size=num_configs * repeats)]
  return synthetic.layout_graph(
      seed, num_nodes=num_nodes, num_config_nodes=num_config_nodes, node_config_feat=feat,
      config_runtime=np.arange(len(feat)) + 1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2 ** 20), st.integers(1, 30), st.integers(0, 5), st.integers(1, 12),
       st.integers(1, 3), st.integers(0, 3), st.sampled_from(["mean", "symmetric", "sum", "max"]),
       st.sampled_from(["both", "operands", "users"]),
       st.sampled_from(["add", "concat", "none"]),
       st.lists(st.sampled_from(["mean", "sum", "max"]), min_size=1, unique=True),
       st.sampled_from([1, 2]), st.sampled_from(["add", "sized"]),
       st.sampled_from(["none", "totals", "requests", "both"]),
       st.sampled_from([[], ["squeeze_excitation"]]), st.sampled_from(["entries", "digits"]))
def test_scores_equal_those_without_deduplication(
    seed, nodes, config_nodes, configs, repeats, depth, aggregation, directions, residual, pooling,
    members, join, costs, node_layers, features):
  tf.keras.backend.set_floatx("float64")
  try:
    case = small_batches.Case(
        "layout", seed=seed % 50, model_num_convolutions=depth, model_aggregation=aggregation,
        model_directions=directions, model_residual=residual, model_pooling=pooling,
        model_members=members, model_layout_join=join, model_layout_costs=costs,
        model_layout_extents=join == "sized", model_node_layers=node_layers,
        model_layout_features=features)
    graph = _graph(seed, nodes, min(config_nodes, nodes), configs, repeats)
    ((batch, _),) = batches.scoring_batches([case.prepare(graph)], 10 ** 6, 0)
    plain = case.model(pipeline.to_step(batch)).numpy()
    own, distinct, _, _ = _parts(case, case.model.arrange(batch))
  finally:
    tf.keras.backend.set_floatx("float32")
  for scores in (own, distinct):
    np.testing.assert_allclose(scores, plain, rtol=0, atol=1e-9 * np.abs(plain).max())


def test_each_distinct_neighbourhood_is_one_state():
  case = small_batches.Case("layout", model_num_convolutions=2)
  graph = _graph(3, 14, 4, 9, 2)
  arranged = _arranged(case, graph)
  _, _, index, levels = _parts(case, arranged)
  layouts = arranged["configs"]
  # By hand: what a node sees after k convolutions is the layouts within k hops.
  senders = {v: {v} for v in range(graph.num_nodes)}
  for receiver, sender in arranged["edges"]:
    senders[int(receiver)].add(int(sender))
  for level in range(3):
    reach = {v: {v} for v in senders}
    for _ in range(level):
      reach = {v: set().union(*(reach[u] for u in senders[v])) for v in senders}
    rows = int(arranged["rows"][level])
    assert all((v < rows) == any(u < len(layouts) for u in reach[v]) for v in reach)
    supports = {v: tuple(sorted(u for u in reach[v] if u < len(layouts))) for v in range(rows)}
    assert index.groups[level] == len(set(supports.values()))
    seen = [len({layouts[list(support), config].tobytes() for config in range(layouts.shape[1])})
            for support in dict.fromkeys(supports.values())]
    assert len(levels[level].example) == sum(seen)
    assert levels[level].offset[-1] == sum(
        seen[list(dict.fromkeys(supports.values())).index(supports[v])] for v in range(rows))


def test_layouts_that_differ_anywhere_have_different_hashes():
  values = np.array(list(itertools.product([-1, 0, 5], repeat=5)), np.int8)
  layouts = np.full([2, len(values) * 18, 18], -1, np.int8)
  for place in range(18):
    block = layouts[:, place * len(values):(place + 1) * len(values)]
    for offset in range(5):
      block[:, :, (place + offset) % 18] = values[:, offset]
  salts = np.array([1, 2], np.uint64)
  hashes = state_index._hash(layouts, salts)
  for node in range(2):
    assert len(np.unique(hashes[node])) == len(np.unique(layouts[node], axis=0))
  assert not set(hashes[0].tolist()) & set(hashes[1].tolist())


def test_effects_that_differ_anywhere_have_different_hashes():
  effects = np.array(list(itertools.product([-127, 0, 1, 127], repeat=4)), np.int8)
  layouts = np.full([1, len(effects) * 10, 18 + 45], -1, np.int8)
  for place in range(10):
    block = layouts[:, place * len(effects):(place + 1) * len(effects)]
    for offset in range(4):
      block[:, :, 18 + (7 * place + 11 * offset) % 45] = effects[:, offset]
  hashes = state_index._hash(layouts, np.array([1], np.uint64))
  assert len(np.unique(hashes)) == len(np.unique(layouts[0], axis=0))
  distinct, place = layers.distinct_layouts(layouts)
  assert len(distinct) == len(np.unique(hashes))
  np.testing.assert_array_equal(distinct.numpy()[place.numpy()[0], 0], layouts[0])


@pytest.mark.parametrize("configs", [1, 3])
def test_a_graph_without_configurable_nodes(configs):
  case = small_batches.Case("layout")
  graph = synthetic.layout_graph(0, num_nodes=5, num_config_nodes=0, num_configs=configs)
  own, distinct, _, levels = _parts(case, _arranged(case, graph))
  assert [level.offset[-1] for level in levels] == [0, 0, 0]
  np.testing.assert_array_equal(own, distinct)



def test_colliding_states_of_two_groups_are_separated():
  graph = _graph(1, 12, 3, 6, 2)
  index = state_index.StateIndex(_arranged(small_batches.Case("layout"), graph), 2)
  level = index._levels[0]
  hashes = state_index._hash(np.swapaxes(graph.layouts(np.arange(12)), 0, 1), index._salts)
  expected = state_index._deduplicate(level, hashes)
  collided = hashes.copy()
  collided[1, 5] = hashes[0, 0]  # A state of the second node with the key of one of the first's.
  separated = state_index._deduplicate(level, collided)
  assert (np.diff(separated.first) > 0).all()
  assert (separated.state[:-1].max(axis=1) < separated.state[1:].min(axis=1)).all()
  # Within a group, equality is as before, except for the changed state.
  same = lambda actual, row: actual.state[row][:, None] == actual.state[row][None, :]
  for row in (0, 2):
    np.testing.assert_array_equal(same(separated, row), same(expected, row))
