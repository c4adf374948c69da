"""Batches as tf.data and TF-GNN: the same numbers, in one specification for all shapes."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from tests.data import test_batches as small
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import pipeline


def _batch(kind, mode="full", seed=0):
  members = small._prepared(kind, max_nodes=3)
  return batches.training_batch(
      members, small._config(segment_mode=mode), np.random.default_rng(seed))


@pytest.mark.parametrize("kind", small.MAKERS)
def test_the_graph_tensor_holds_the_batch(kind):
  batch = _batch(kind)
  step = pipeline.to_step(batch)
  graph = step["graph"]
  assert set(graph.node_sets) == ({"op"} if kind == "tile" else {"op", "config"})
  assert set(graph.edge_sets) == ({"feed"} if kind == "tile" else {"feed", "at"})
  np.testing.assert_array_equal(graph.node_sets["op"].sizes, batch["num_nodes"])
  np.testing.assert_array_equal(graph.node_sets["op"]["nodes"], batch["nodes"])
  np.testing.assert_array_equal(graph.node_sets["op"]["opcode"], batch["opcode"])
  feed = graph.edge_sets["feed"]
  np.testing.assert_array_equal(feed.sizes, batch["num_edges"])
  np.testing.assert_array_equal(feed.adjacency.source, batch["source"])
  np.testing.assert_array_equal(feed.adjacency.target, batch["target"])
  if kind == "layout":
    at = graph.edge_sets["at"]
    np.testing.assert_array_equal(at.adjacency.target, batch["config_nodes"])
    np.testing.assert_array_equal(at.adjacency.source, np.arange(len(batch["config_nodes"])))
    for key in ("configs", "config_sizes"):
      np.testing.assert_array_equal(graph.node_sets["config"][key], batch[key])
  else:
    np.testing.assert_array_equal(graph.context["configs"], batch["configs"])
  np.testing.assert_array_equal(step["mask"], batch["config_mask"])
  for key in batches.LABELS:
    np.testing.assert_array_equal(step[key], batch["label_" + key])
  assert "segment" not in step


def test_segments_are_a_graph_of_their_own_with_the_batchs_lists():
  batch = _batch("layout", "backprop")
  step = pipeline.to_step(batch)
  segment = step["segment"]
  np.testing.assert_array_equal(segment.node_sets["op"]["nodes"], batch["segment_nodes"])
  np.testing.assert_array_equal(step["segment_node_ids"], batch["segment_node_ids"])
  np.testing.assert_array_equal(segment.context["config_mask"], batch["config_mask"])


def test_scoring_batches_have_no_labels():
  batch, _ = next(batches.scoring_batches(small.PREPARED["tile"], 4, 2))
  assert not set(pipeline.to_step(batch)) & set(batches.LABELS)


@pytest.mark.parametrize("mode", ["full", "drop", "backprop"])
@pytest.mark.parametrize("kind", small.MAKERS)
def test_one_specification_that_fixes_the_feature_widths_alone(kind, mode):
  everything = [_batch(kind, mode, seed) for seed in range(3)]
  dataset = pipeline.dataset(lambda: iter(everything))
  for expected, actual in zip(everything, dataset):
    # The kept nodes of a dropped graph are for tests and debugging; no step reads them.
    assert expected.keys() - {"node_ids"} == actual.keys()
    for key in actual:
      np.testing.assert_array_equal(actual[key], expected[key])
      assert actual[key].dtype == expected[key].dtype
  for key, spec in dataset.element_spec.items():
    wide = key.endswith(("nodes", "configs")) and everything[0][key].ndim > 1
    fixed = [None] * (everything[0][key].ndim - 1) + [everything[0][key].shape[-1]]
    assert spec.shape.as_list() == (fixed if wide else [None] * everything[0][key].ndim), key


def test_each_pass_starts_again():
  passes = []

  def make():
    passes.append(len(passes))
    return iter([_batch("tile")])

  dataset = pipeline.dataset(make)
  for _ in range(2):
    assert len(list(dataset)) == 1
  assert len(passes) == 3  # One for the widths.


def test_an_error_during_batching_is_not_swallowed():
  def make():
    yield _batch("tile")
    raise ValueError("made badly")

  with pytest.raises(tf.errors.OpError, match="made badly"):
    list(pipeline.dataset(make))
