"""Segment dropout: which nodes affect the scores, and which the gradient."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests import synthetic
from tests.models import reference
from tests.models import small_batches
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import pipeline

CASES = [("residual_gnn", "tile"), ("residual_gnn", "layout"), ("attention_gnn", "layout")]
SETTINGS = {"batch_max_configs": 4, "batch_max_nodes": 3}


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request):
  model, kind = request.param
  return small_batches.Case(kind, sizes=(7, 5), configs=(4, 4), model_model=model,
                   model_aggregation="symmetric", **SETTINGS)


def _batch(case, mode, seed=0, **changes):
  """A training batch of both graphs, and the configurations (in order) and segment of each."""
  config = dataclasses.replace(case.config.batch, segment_mode=mode, **changes)
  prepared = case.prepared(max_nodes=config.max_nodes)
  batch = batches.training_batch(prepared, config, np.random.default_rng(seed))
  return prepared, batch


def _segments(prepared, node_ids):
  """The segment of each graph, from the joined numbers of its nodes."""
  starts = np.cumsum([0] + [member.graph.num_nodes for member in prepared])
  return [[int(node) - start for node in node_ids if start <= node < end]
          for start, end in zip(starts, starts[1:])]


def _order(prepared, batch):
  """The configurations of each list, derived from the labels: runtimes are distinct (see below)."""
  actual = []
  for row, member in enumerate(prepared):
    by_speed = np.argsort(-batch["label_order"][row])
    order = np.empty(len(by_speed), np.int64)
    order[by_speed] = np.argsort(member.runtimes)
    actual.append(order.tolist())
  return actual


@pytest.fixture(scope="module", autouse=True)
def _distinct_runtimes(case):
  case.graphs = [graphs.graph_from_arrays(graph.name, {
      **graph.arrays(), "config_runtime": np.arange(graph.num_configs) + 1000})
                 for graph in case.graphs]


@pytest.mark.parametrize("seed", [0, 1])
def test_backprop_scores_with_the_segments_states_from_a_separate_pass(case, seed):
  prepared, batch = _batch(case, "backprop", seed)
  slow = reference.Reference(case.model, case.config.model)
  cut = _segments(prepared, batch["segment_node_ids"])
  for actual, member, part, order in zip(
      case.forward(batch), prepared, cut, _order(prepared, batch)):
    assert 0 < len(part) <= 3 and any(np.array_equal(part, cut) for cut in member.segments)
    small_batches.close(actual, slow.scores(member, order, segment=part))


@pytest.mark.parametrize("seed", [0, 1])
def test_drop_scores_the_segment_alone(case, seed):
  prepared, batch = _batch(case, "drop", seed)
  scores = case.forward(batch)
  slow = reference.Reference(case.model, case.config.model)
  cut = _segments(prepared, batch["node_ids"])
  for actual, member, part, order in zip(scores, prepared, cut, _order(prepared, batch)):
    small_batches.close(actual, slow.scores(_cut(member, part), order))


def _cut(member, part):
  """The graph of one segment alone, built in a slow and obvious way."""
  position = {node: place for place, node in enumerate(part)}
  feeds = zip(member.source.tolist(), member.target.tolist())
  edges = [(position[v], position[u]) for v, u in feeds if v in position and u in position]
  arrays = member.graph.arrays()
  for key in ("node_feat", "node_opcode"):
    arrays[key] = arrays[key][part]
  arrays.pop("node_splits", None)
  arrays["edge_index"] = np.array([(u, v) for v, u in edges]).reshape(-1, 2)
  config_nodes = member.config_nodes
  if "node_config_ids" in arrays:
    inside = [k for k, node in enumerate(member.config_nodes) if node in position]
    arrays["node_config_ids"] = [position[member.config_nodes[k]] for k in inside]
    arrays["node_config_feat"] = arrays["node_config_feat"][:, inside]
    config_nodes = np.array(arrays["node_config_ids"], np.int32)
  return dataclasses.replace(
      member, graph=graphs.graph_from_arrays("cut", arrays), nodes=member.nodes[part],
      source=np.array([v for v, _ in edges], np.int32),
      target=np.array([u for _, u in edges], np.int32), config_nodes=config_nodes)


def test_backprop_gives_gradients_to_the_segments_nodes_alone(case):
  _, batch = _batch(case, "backprop")
  model, variables = case.model, case.model.trainable_variables
  step = pipeline.to_step(batch)
  rng = np.random.default_rng(0)
  weights = tf.constant(rng.normal(size=batch["config_mask"].shape), tf.float32)
  with tf.GradientTape() as tape:
    scores = model(step)
    total = tf.reduce_sum(scores * weights)
  actual = tape.gradient(total, variables)

  # By hand: the states of all nodes outside the segments are constants.
  embed = lambda graph: model._view(graph).embed(
      lambda states: model._embed(states, None, split=False))[0]
  states = embed(step["graph"]).numpy()
  place = {int(node): row for row, node in enumerate(batch["segment_node_ids"])}
  with tf.GradientTape() as tape:
    segment = embed(step["segment"])
    hidden = tf.stack([segment[place[node]] if node in place else tf.constant(states[node])
                       for node in range(len(states))])
    view = model._view(step["graph"])
    pooled = view.pool([hidden], case.config.model.pooling)
    total = tf.reduce_sum(model._read_out(view, pooled, None) * weights)
  expected = tape.gradient(total, variables)

  with tf.GradientTape() as tape:
    whole = tape.gradient(tf.reduce_sum(model({"graph": step["graph"]}) * weights), variables)
  different = 0
  for variable, ours, theirs, all_nodes in zip(variables, actual, expected, whole):
    assert (ours is None) == (theirs is None), variable.name
    if ours is not None:
      small_batches.close(tf.convert_to_tensor(ours).numpy(), tf.convert_to_tensor(theirs).numpy())
      different += not np.allclose(
          tf.convert_to_tensor(ours), tf.convert_to_tensor(all_nodes), rtol=1e-3)
  assert different  # A segment is not the whole graph.


@pytest.mark.parametrize("mode", ["backprop", "drop"])
def test_a_segment_that_is_the_whole_graph_changes_nothing(case, mode):
  prepared, batch = _batch(case, mode, max_nodes=100)
  slow = reference.Reference(case.model, case.config.model)
  for actual, member, order in zip(case.forward(batch), prepared, _order(prepared, batch)):
    small_batches.close(actual, slow.scores(member, order))


def test_a_segment_without_edges_to_the_rest_has_the_full_pass_scores():
  # Two chains side by side; the topological order goes level by level, so the segments are cut by
  # hand: one chain each.
  arrays = synthetic.tile_graph(0, num_nodes=6, num_configs=4).arrays()
  arrays["edge_index"] = np.array([[1, 0], [2, 1], [4, 3], [5, 4]])
  case = small_batches.Case("tile", members=[graphs.graph_from_arrays("g", arrays)], **SETTINGS)
  config = dataclasses.replace(case.config.batch, segment_mode="backprop")
  member = dataclasses.replace(case.prepared()[0], segments=(np.arange(3), np.arange(3, 6)))
  draw = lambda config: batches.training_batch([member], config, np.random.default_rng(3))
  batch = draw(config)
  # Choosing a segment takes a random number: the lists are compared by their features.
  whole = {key: value for key, value in batch.items() if not key.startswith("segment_")}
  small_batches.close(case.forward(batch), case.forward(whole))


def test_every_segment_is_drawn_and_by_the_seed(case):
  drawn = {}
  for seed in range(30):
    prepared, batch = _batch(case, "drop", seed)
    again = _batch(case, "drop", seed)[1]
    np.testing.assert_array_equal(batch["node_ids"], again["node_ids"])
    for index, part in enumerate(_segments(prepared, batch["node_ids"])):
      drawn.setdefault(index, set()).add(tuple(part))
  for index, member in enumerate(prepared):
    assert drawn[index] == {tuple(part.tolist()) for part in member.segments}
    assert len(drawn[index]) > 1


def test_segments_without_configurable_nodes_train_too():
  graph = synthetic.layout_graph(0, num_nodes=6, num_configs=3, num_config_nodes=1)
  case = small_batches.Case("layout", members=[graph], batch_max_nodes=1)
  for mode in ("drop", "backprop"):
    for seed in range(4):
      batch = _batch(case, mode, seed)[1]
      assert np.isfinite(case.forward(batch)).all()


# ---- random edges --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["full", "drop", "backprop"])
def test_dropped_edges_have_no_effect(case, mode):
  counts = {"source": [], "segment_source": []}
  for seed in range(12):
    batch = _batch(case, mode, seed, edge_drop_rate=0.5)[1]
    everything = _batch(case, mode, seed)[1]
    for key in counts:
      if key in batch:
        counts[key].append(len(batch[key]))
        other = key.replace("source", "target")
        pairs = set(zip(batch[key].tolist(), batch[other].tolist()))
        if key == "source" and mode != "drop":
          assert pairs <= set(zip(everything[key].tolist(), everything[other].tolist()))
    if mode == "backprop":
      # One draw for both passes: no edge of the segment that the whole graph lacks.
      ids = batch["segment_node_ids"]
      inside = {(int(ids[v]), int(ids[u])) for v, u in zip(
          batch["segment_source"], batch["segment_target"])}
      assert inside <= set(zip(batch["source"].tolist(), batch["target"].tolist()))
  total = sum(len(member.source) for member in case.prepared())
  if mode != "drop":
    assert 0.3 * total < np.mean(counts["source"]) < 0.7 * total
