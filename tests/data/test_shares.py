"""Batches divided among devices: nothing is lost, counted twice, or drawn differently."""

import dataclasses
import itertools

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import synthetic
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import mixing
from tpugraphs_rank.data import normalize
from tpugraphs_rank.data import shares
from tpugraphs_rank.data import splits

MODES = ("full", "drop", "edges", "backprop")


def _prepared(kind: str, mode: str) -> list[batches.PreparedGraph]:
  make = synthetic.tile_graph if kind == "tile" else synthetic.layout_graph
  graphs = [make(seed, num_nodes=nodes, num_configs=configs)
            for seed, (nodes, configs) in enumerate([(5, 12), (9, 6), (30, 9), (12, 4)])]
  normalizer = normalize.Normalizer.fit(graphs, [np.arange(4)] * len(graphs))
  return [batches.prepare(splits.ProgramView(graph), normalizer, None if mode == "full" else 6)
          for graph in graphs]


def _settings(mode: str) -> run_config.BatchConfig:
  return dataclasses.replace(
      run_config.BatchConfig(), batch_size=3, max_configs=6, lists_per_graph=2, segment_mode=mode,
      max_nodes=6, edge_drop_rate=0.2, config_skew=1.0, feature_noise=0.1)


@given(costs=st.lists(st.integers(1, 50), min_size=1, max_size=6), count=st.integers(1, 3))
def test_divisions_are_balanced(costs, count):
  divided = shares.divide(costs, count)
  assert sorted(itertools.chain.from_iterable(divided)) == list(range(len(costs)))
  assert all(places == sorted(places) for places in divided) and len(divided) == count
  load = lambda division: max(sum(costs[place] for place in places) for places in division)
  best = min(load([[place for place, owner in enumerate(owners) if owner == share]
                   for share in range(count)])
             for owners in itertools.product(range(count), repeat=len(costs)))
  assert load(divided) <= max(4 / 3 * best, max(costs))
  assert divided == shares.divide(costs, count)


def test_costs_of_lists():
  (member, *_) = _prepared("tile", "drop")
  entry = batches.DrawnList(member, np.arange(4), np.zeros([0], np.int64), np.arange(3))
  assert [shares.cost(entry, mode) for mode in MODES] == [5 * 4, 3 * 4, 3 * 4, (5 + 3) * 4]


@pytest.mark.parametrize("kind", ["tile", "layout"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_shares_together_are_the_batch(kind, mode, count):
  prepared, config = _prepared(kind, mode), _settings(mode)
  lists = batches.draw(prepared[:3], config, np.random.default_rng(0))
  whole = batches.assemble(lists, config)
  weights = np.array([1.0, 1.0, 0.5], np.float32)
  divided = shares.of_batch(lists, weights, count, range(count), config)
  real = [share for share in divided if share[batches.WEIGHT].any()]
  is_real = lambda share: any(share is one for one in real)
  assert len(divided) == count and len(real) == min(count, 3)
  assert sum(share[batches.WEIGHT].sum() for share in divided) == pytest.approx(1.0)
  assert sorted(np.concatenate([share["list_places"] for share in real])) == [0, 1, 2]
  prefixes = ("", "segment_") if mode == "backprop" else ("",)
  for prefix in prefixes:
    places = np.concatenate([share[f"{prefix}node_places"] for share in real])
    assert sorted(places) == list(range(len(whole[f"{prefix}nodes"])))
  for share in divided:
    rows = share["list_places"]
    assert share["batch_lists"] == 3
    np.testing.assert_allclose(share[batches.WEIGHT], weights[rows] / 2.5 * is_real(share))
    width = share["config_mask"].shape[1]
    for key in ("config_mask", *(f"label_{name}" for name in batches.LABELS)):
      np.testing.assert_array_equal(share[key], whole[key][rows, :width])
      assert not whole[key][rows, width:].any()
    for prefix in prefixes:
      places = share[f"{prefix}node_places"]
      assert share[f"{prefix}batch_nodes"] == len(whole[f"{prefix}nodes"])
      np.testing.assert_array_equal(share[f"{prefix}nodes"], whole[f"{prefix}nodes"][places])
      edges = {(source, target) for source, target in zip(
          whole[f"{prefix}source"], whole[f"{prefix}target"]) if source in places}
      assert edges == set(zip(places[share[f"{prefix}source"]], places[share[f"{prefix}target"]]))


@pytest.mark.parametrize("steps", [None, 3])
def test_an_epoch_does_not_depend_on_the_number_of_shares(steps):
  prepared = _prepared("tile", "full")
  config = config_lib.override(run_config.RunConfig(), {
      "batch.batch_size": 3, "batch.max_configs": 6, "batch.lists_per_graph": 2,
      "augment.synthetic_weight": 0.5, "augment.synthetic": "any",
      "training.steps_per_epoch": steps})
  whole = list(mixing.epoch_batches(prepared, prepared[:2], config, 1))
  for count in (1, 2):
    divided = list(shares.epoch_shares(prepared, prepared[:2], config, 1, count, range(count)))
    assert len(divided) == len(whole)
    for batch, parts in zip(whole, divided):
      total = batch[batches.WEIGHT].sum()
      for share in parts:
        rows, width = share["list_places"], share["config_mask"].shape[1]
        np.testing.assert_array_equal(share["label_order"], batch["label_order"][rows, :width])
        np.testing.assert_allclose(share[batches.WEIGHT], batch[batches.WEIGHT][rows] / total)
  second = [parts[0] for parts in shares.epoch_shares(prepared, prepared[:2], config, 1, 2, [1])]
  for share, parts in zip(second, divided):
    assert share.keys() == parts[1].keys()
    for key in share:
      np.testing.assert_array_equal(share[key], parts[1][key])


def test_arranged_shares_number_their_nodes_as_the_whole_batch():
  prepared, config = _prepared("tile", "backprop"), _settings("backprop")
  lists = batches.draw(prepared[:3], config, np.random.default_rng(0))
  _, share = shares.of_batch(lists, np.ones(3, np.float32), 2, range(2), config)

  def arrange(batch):
    turned = {f"{prefix}order": np.arange(len(batch[f"{prefix}nodes"]))[::-1]
              for prefix in ("", "segment_")}
    return {"nodes": batch["nodes"], **turned}

  arranged = shares.arranged(share, arrange)
  for prefix in ("", "segment_"):
    np.testing.assert_array_equal(arranged[f"{prefix}order"], share[f"{prefix}node_places"][::-1])
    assert arranged[f"{prefix}batch_nodes"] == share[f"{prefix}batch_nodes"]
  assert arranged["share"] == 1 and batches.WEIGHT in arranged
