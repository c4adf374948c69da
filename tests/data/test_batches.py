"""Batches: their arrays, compared with the graphs list by list."""

import collections
import dataclasses

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import synthetic
from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import labels
from tpugraphs_rank.data import normalize
from tpugraphs_rank.data import splits

MAKERS = {"tile": synthetic.tile_graph, "layout": synthetic.layout_graph}
SIZES = [(6, 7), (3, 4), (8, 9), (1, 2)]  # Nodes and configurations.


def _distinct(graph):
  """The same graph with distinct runtimes for its configurations."""
  arrays = dict(graph.arrays(), config_runtime=np.arange(graph.num_configs) * 7 + 1000)
  return batches.graphs.graph_from_arrays(graph.name, arrays)


def _prepared(kind, choices=None, max_nodes=None):
  graphs = []
  for seed, (nodes, configs) in enumerate(SIZES):
    more = {"num_config_nodes": min(nodes, 3)} if kind == "layout" else {}
    graphs.append(_distinct(MAKERS[kind](seed, num_nodes=nodes, num_configs=configs, **more)))
  normalizer = normalize.Normalizer.fit(graphs)
  return [batches.prepare(splits.ProgramView(graph, choice), normalizer, max_nodes)
          for graph, choice in zip(graphs, choices or [None] * len(graphs))]


PREPARED = {kind: _prepared(kind) for kind in MAKERS}


def _config(**changes):
  return dataclasses.replace(run_config.BatchConfig(), **changes)


def _picked(batch, row, member):
  """The order labels of a list, and for each position the configurations that it may hold."""
  count = int(batch["config_mask"][row].sum())
  order = batch["label_order"][row, :count]
  # The features identify the configurations; some configurations have equal features.
  actual = [[c for c in range(member.graph.num_configs)
            if np.array_equal(member.configs([c])[0], features)]
           for features in _configs(batch, row, member)[:count]]
  return order, actual


def _configs(batch, row, member):
  """(C, ...) the configurations of a list, as stored in the batch."""
  if member.graph.kind == "tile":
    return batch["configs"][row]
  start = int(batch["num_config_nodes"][:row].sum())
  return batch["configs"][start:start + batch["num_config_nodes"][row]].swapaxes(0, 1)


# ---- preparing -----------------------------------------------------------------------------------


def test_prepared_graphs():
  graph = synthetic.layout_graph(0, num_nodes=8)
  member = batches.prepare(
      splits.ProgramView(graph), normalize.Normalizer.fit([graph]), max_nodes=3)
  np.testing.assert_array_equal(member.source, graph.edge_index[:, 1])  # Data flows from operands
  np.testing.assert_array_equal(member.target, graph.edge_index[:, 0])  # to users.
  rows = [5, 0, 5, 11]
  np.testing.assert_array_equal(member.configs(rows), graph.node_config_feat[rows])
  np.testing.assert_array_equal(member.layouts(rows), graph.node_config_feat[rows])
  assert member.configs(rows).dtype == np.int8 and member.name == graph.name
  np.testing.assert_array_equal(member.choice, np.arange(graph.num_configs))
  assert [len(segment) for segment in member.segments] == [3, 3, 2]
  tile = synthetic.tile_graph(0)
  normalizer = normalize.Normalizer.fit([tile])
  member = batches.prepare(splits.ProgramView(tile, np.array([2, 0])), normalizer)
  np.testing.assert_array_equal(
      member.configs([3, 1]), normalizer.configs(normalize.tile_rows(tile))[[3, 1]])
  np.testing.assert_array_equal(member.runtimes, tile.relative_runtime)
  np.testing.assert_array_equal(member.choice, [2, 0])
  assert member.segments == () and member.config_nodes.shape == (0,)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_order_by_runtime_covers_usable_configurations_only(kind):
  graph = MAKERS[kind](0, num_configs=9)
  normalizer = normalize.Normalizer.fit([graph])
  merged = np.arange(9.0)[::-1]
  for choice, changed in ((None, None), (np.array([6, 1, 8]), None), (None, merged),
                          (np.array([6, 1, 8]), merged)):
    member = batches.prepare(splits.ProgramView(graph, choice, changed), normalizer)
    expected = np.argsort(member.runtimes[member.choice], kind="stable")
    np.testing.assert_array_equal(member.order(), expected)


# ---- one training batch --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=30)
@given(members=st.lists(st.integers(0, 3), min_size=1, max_size=5), seed=st.integers(0, 99),
       max_configs=st.integers(2, 12))
def test_every_list_holds_its_graph_and_its_labels(kind, members, seed, max_configs):
  chosen = [PREPARED[kind][index] for index in members]
  batch = batches.training_batch(
      chosen, _config(max_configs=max_configs), np.random.default_rng(seed))
  node, edge = 0, 0
  assert batch["config_mask"].shape == (
      len(chosen), max(min(max_configs, member.graph.num_configs) for member in chosen))
  assert batch["reference_mask"].shape == (len(chosen), 0)
  for row, member in enumerate(chosen):
    nodes, edges = member.graph.num_nodes, len(member.source)
    assert (batch["num_nodes"][row], batch["num_edges"][row]) == (nodes, edges)
    np.testing.assert_array_equal(batch["nodes"][node:node + nodes], member.nodes)
    np.testing.assert_array_equal(batch["opcode"][node:node + nodes], member.graph.node_opcode)
    np.testing.assert_array_equal(batch["source"][edge:edge + edges] - node, member.source)
    np.testing.assert_array_equal(batch["target"][edge:edge + edges] - node, member.target)
    if kind == "layout":
      start = batch["num_config_nodes"][:row].sum()
      held = batch["config_nodes"][start:start + batch["num_config_nodes"][row]]
      np.testing.assert_array_equal(held - node, member.config_nodes)
      sizes = batch["config_sizes"][start:start + batch["num_config_nodes"][row]]
      np.testing.assert_array_equal(sizes, np.float32(np.concatenate(
          [normalize.tensor_sizes(member.graph), normalize.axis_lengths(member.graph)], axis=1)))
    size = min(max_configs, member.graph.num_configs)
    mask = batch["config_mask"][row]
    assert mask[:size].all() and not mask[size:].any()
    # The labels have the same order as the runtimes of the list's configurations.
    order, matches = _picked(batch, row, member)
    assert len(set(order)) == size and order.min() >= 0
    rank = np.argsort(np.argsort(order))
    assert any(_agrees(rank, picked, member.runtimes) for picked in _choices(matches))
    for key in batches.LABELS:
      assert (batch["label_" + key][row, size:] == 0).all()
    node, edge = node + nodes, edge + edges


def _choices(matches):
  """Possible assignments of configurations to a list; some have equal features."""
  picked = [[]]
  for options in matches:
    picked = [[*start, option] for start in picked for option in options if option not in start]
    assert picked
  return picked


def _agrees(rank, picked, runtimes):
  return np.array_equal(rank, np.argsort(np.argsort(-runtimes[picked])))


def test_labels_are_those_of_make_labels():
  member = PREPARED["tile"][2]
  batch = batches.training_batch([member], _config(max_configs=9), np.random.default_rng(0))
  expected = labels.make_labels(member.runtimes)
  for key in ("relevance", "target"):
    np.testing.assert_allclose(
        np.sort(batch["label_" + key][0]), np.sort(getattr(expected, key)), rtol=1e-6)


def test_only_usable_configurations_are_drawn():
  member = _prepared("tile", [None, None, np.array([1, 4, 6]), None])[2]
  seen = set()
  for seed in range(20):
    batch = batches.training_batch([member], _config(max_configs=2), np.random.default_rng(seed))
    assert batch["config_mask"].sum() == 2
    seen |= {tuple(row) for row in batch["configs"][0]}
  assert seen == {tuple(row) for row in member.configs([1, 4, 6])}


def test_skew_prefers_fast_configurations():
  member = PREPARED["tile"][2]
  fast = set(map(tuple, member.configs(np.argsort(member.runtimes)[:3])))
  share = {}
  for skew in (0.0, 5.0):
    drawn = [tuple(row) for seed in range(200) for row in batches.training_batch(
        [member], _config(max_configs=2, config_skew=skew),
        np.random.default_rng(seed))["configs"][0]]
    share[skew] = np.mean([row in fast for row in drawn])
  assert share[5.0] > share[0.0] + 0.25


@pytest.mark.parametrize("mode", ["full", "drop", "edges", "backprop"])
def test_noise_affects_node_features_only(mode):
  members = _prepared("tile", max_nodes=3)[:3]
  draw = lambda noise: batches.training_batch(
      members, _config(segment_mode=mode, max_nodes=3, feature_noise=noise),
      np.random.default_rng(0))
  clean, noisy = draw(0.0), draw(0.5)
  for key in clean:
    if key.endswith("nodes") and clean[key].ndim == 2:
      difference = noisy[key] - clean[key]
      assert 0.2 < difference.std() < 1.0 and noisy[key].dtype == np.float32
    elif not key.startswith("label_order"):
      np.testing.assert_array_equal(noisy[key], clean[key], err_msg=key)
  if mode == "backprop":
    np.testing.assert_array_equal(
        noisy["segment_nodes"], noisy["nodes"][noisy["segment_node_ids"]])


# ---- epochs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size, lists", [(3, 2), (8, 1), (1, 3), (16, 4)])
def test_an_epoch_has_each_graph_the_requested_number_of_times(size, lists):
  config = _config(batch_size=size, lists_per_graph=lists)
  epoch = list(batches.training_batches(PREPARED["tile"], config, seed=0, epoch=1))
  sizes = [len(batch["num_nodes"]) for batch in epoch]
  total = len(SIZES) * lists
  assert sizes == [size] * (total // size) + ([total % size] if total % size else [])
  counts = collections.Counter(int(n) for batch in epoch for n in batch["num_nodes"])
  assert counts == {nodes: lists for nodes, _ in SIZES}


def test_an_epoch_depends_on_seed_and_number_only():
  config = _config(batch_size=3, edge_drop_rate=0.3, config_skew=1.0, feature_noise=0.1)
  make = lambda seed, epoch: list(
      batches.training_batches(PREPARED["layout"], config, seed, epoch))
  expected = make(3, 5)
  for ours, again in zip(expected, make(3, 5)):
    assert ours.keys() == again.keys()
    for key in ours:
      np.testing.assert_array_equal(ours[key], again[key])
  for other in (make(3, 6), make(4, 5)):
    assert any(ours[key].shape != theirs[key].shape or (ours[key] != theirs[key]).any()
               for ours, theirs in zip(expected, other) for key in ours)


# ---- scoring -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=30)
@given(max_configs=st.integers(1, 10), reference=st.integers(0, 4), max_lists=st.integers(1, 5))
def test_scoring_covers_every_configuration_once(kind, max_configs, reference, max_lists):
  prepared = PREPARED[kind]
  seen = collections.Counter()
  for batch, owners in batches.scoring_batches(prepared, max_configs, reference, max_lists):
    assert len(owners) == len(batch["num_nodes"]) <= max_lists
    width = batch["reference_mask"].shape[1]
    for row, (index, picked) in enumerate(owners):
      member = prepared[index]
      seen.update((index, int(c)) for c in picked)
      assert batch["config_mask"][row].sum() == len(picked) <= max_configs
      configs = _configs(batch, row, member)
      first = batches.reference_list(member, reference) if reference else []
      assert batch["reference_mask"][row].sum() == len(first) <= reference
      np.testing.assert_array_equal(configs[:len(first)], member.configs(first))
      np.testing.assert_array_equal(
          configs[width:width + len(picked)], member.configs(picked))
  assert seen == {(index, c): 1 for index, member in enumerate(prepared)
                  for c in range(member.graph.num_configs)}


def test_scoring_uses_usable_configurations_only():
  members = _prepared("layout", [np.array([5, 1]), np.zeros([0], np.int64), None, None])[:2]
  ((batch, owners),) = batches.scoring_batches(members, 10, 3)
  assert [(index, picked.tolist()) for index, picked in owners] == [(0, [5, 1])]
  assert len(batch["num_nodes"]) == 1
  whole = batches.reference_list(_prepared("layout", [None] * 4)[0], 3)
  np.testing.assert_array_equal(batches.reference_list(members[0], 3), whole)


@pytest.mark.parametrize("kind", ["tile", "layout"])
@pytest.mark.parametrize("max_states", [1, 40, 100, 1000])
def test_scoring_stays_within_its_states_and_still_covers_everything(kind, max_states):
  prepared = PREPARED[kind]
  seen = collections.Counter()
  for batch, owners in batches.scoring_batches(prepared, 10, 3, 8, max_states):
    seen.update((index, int(c)) for index, picked in owners for c in picked)
    width = batch["config_mask"].shape[1] + batch["reference_mask"].shape[1]
    one_alone = len(owners) == 1 and batch["config_mask"].shape[1] == 1
    assert one_alone or width * int(batch["num_nodes"].sum()) <= max_states
  assert seen == {(index, c): 1 for index, member in enumerate(prepared)
                  for c in range(member.graph.num_configs)}
