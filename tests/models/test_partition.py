"""Partitioned execution against the plain formulation: scores and gradients are the same."""

import dataclasses

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
import tensorflow as tf

from tests.models import small_batches
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import partition
from tpugraphs_rank.data import pipeline

# Enough nodes that some are out of reach of the few configurable ones.
SIZES = {"sizes": (25, 4, 40), "configs": (6, 5, 7)}


def _both(model, batch, dropout_seed=None):
  """Scores and gradients of the batch, plain and partitioned."""
  actual = []
  for arrays in (batch, model.arrange(batch)):
    step = pipeline.to_step(arrays)
    weights = np.linspace(-1, 1, step["mask"].shape[1])
    with tf.GradientTape() as tape:
      if dropout_seed is not None:
        step["dropout_seed"] = dropout_seed
      scores = model(step)
      total = tf.reduce_sum(scores * tf.cast(weights, scores.dtype))
    gradients = tape.gradient(total, model.trainable_variables)
    actual.append((scores.numpy(), [
        None if gradient is None else tf.convert_to_tensor(gradient).numpy()
        for gradient in gradients]))
  return actual


def _check(plain, exact, tolerance):
  np.testing.assert_allclose(exact[0], plain[0], rtol=0, atol=tolerance * np.abs(plain[0]).max())
  largest = max(np.abs(gradient).max() for gradient in plain[1] if gradient is not None)
  for ours, expected in zip(exact[1], plain[1]):
    assert (ours is None) == (expected is None)
    if ours is not None:
      np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * largest)


@st.composite
def _models(draw):
  kind = draw(st.sampled_from(["layout", "layout", "tile"]))
  model = draw(st.sampled_from(["residual_gnn", "attention_gnn"]))
  joins = ["early", "both"] + (["late"] if model == "residual_gnn" else [])
  return kind, {
      "model_model": model,
      "model_num_convolutions": draw(st.integers(0, 3)),
      "model_aggregation": draw(st.sampled_from(["mean", "symmetric", "sum", "max"])),
      "model_directions": draw(st.sampled_from(["both", "operands", "users"])),
      "model_residual": draw(st.sampled_from(["add", "concat", "none"])),
      "model_pooling": draw(st.lists(
          st.sampled_from(["mean", "sum", "max"]), min_size=1, max_size=3, unique=True)),
      "model_layer_norm": draw(st.booleans()),
      "model_mlp_layers": draw(st.integers(1, 2)),
      "model_join": draw(st.sampled_from(joins)),
      "model_layout_join": draw(st.sampled_from(["add", "sized"])),
      "model_layout_features": draw(st.sampled_from(["entries", "minor", "digits"])),
      "model_node_layers": draw(st.sampled_from([[], ["squeeze_excitation"]])),
      "model_attention_kind": draw(st.sampled_from(["softmax", "linear", "channels"])),
      "model_attention_temperature": draw(st.booleans()),
      "model_layout_extents": draw(st.booleans()),
      "model_layout_scale": draw(st.sampled_from([1.0, 3.0])),
      "model_layout_costs": draw(st.sampled_from(["none", "totals", "requests", "both"])),
      "model_members": draw(st.sampled_from([1, 2])),
      "model_dropout": draw(st.sampled_from([0.0, 0.4]))}


def _compare(kind, changes, mode, edge_drop_rate, seed, floatx, tolerance):
  tf.keras.backend.set_floatx(floatx)
  try:
    case = small_batches.Case(kind, seed=seed % 100, **SIZES, **changes)
    for variable in case.model.trainable_variables:
      variable.assign(variable / 2)  # Float32 overflows where attention meets large sums.
    config = dataclasses.replace(
        case.config.batch, segment_mode=mode, max_nodes=9, max_configs=4,
        edge_drop_rate=edge_drop_rate)
    batch = batches.training_batch(
        case.prepared(max_nodes=9), config, np.random.default_rng(seed))
    plain, exact = _both(case.model, batch, tf.constant([1, 2]))
    _check(plain, exact, tolerance)
  finally:
    tf.keras.backend.set_floatx("float32")


MODES = st.sampled_from(["full", "drop", "backprop"])
RATES = st.sampled_from([0.0, 0.4])


@settings(max_examples=20, deadline=None)
@given(_models(), MODES, RATES, st.integers(0, 2 ** 20))
def test_scores_and_gradients_are_those_of_the_plain_formulation(
    model, mode, edge_drop_rate, seed):
  _compare(*model, mode, edge_drop_rate, seed, "float64", 1e-9)


@pytest.mark.parametrize("mode", ["full", "drop", "backprop"])
@pytest.mark.parametrize("model", ["residual_gnn", "attention_gnn"])
@pytest.mark.parametrize("kind", ["tile", "layout"])
def test_in_single_precision_they_differ_by_rounding(kind, model, mode):
  changes = {"model_model": model, "model_pooling": ["mean", "sum", "max"]}
  _compare(kind, changes, mode, 0.2, 3, "float32", 1e-5)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2 ** 20), st.integers(1, 12), st.integers(0, 4), st.integers(0, 3),
       st.sampled_from(["both", "operands", "users"]))
def test_nodes_are_ordered_by_their_distance_to_a_configurable_one(
    seed, nodes, starts, depth, directions):
  rng = np.random.default_rng(seed)
  starts = rng.choice(nodes, min(starts, nodes), replace=False)
  ends = rng.integers(nodes, size=[2, 3 * nodes])
  messages = [pair for name, pair in (("operands", (ends[0], ends[1])),
                                      ("users", (ends[1], ends[0])))
              if directions in ("both", name)]
  actual = partition.hops(nodes, starts, messages, depth)
  reached = set(starts.tolist())
  for distance in range(depth + 1):
    assert set(np.flatnonzero(actual <= distance).tolist()) == reached
    reached |= {int(b) for sender, receiver in messages
                for a, b in zip(sender, receiver) if int(a) in reached}
  assert actual.max(initial=0) <= depth + 1


def test_messages_refer_to_rows_of_the_tables_of_each_part():
  case = small_batches.Case("layout", model_num_convolutions=2, **SIZES)
  ((batch, _),) = batches.scoring_batches(case.prepared(), 20, 0)
  arranged = case.model.arrange(batch)
  count = len(arranged["nodes"])
  for level, (inner, rows) in enumerate(zip(arranged["inner"], arranged["rows"])):
    parts = ((f"inner_{level}", slice(None, inner), range(rows)),
             (f"outer_{level}", slice(inner, None), range(rows, count)))
    for name, part, senders in parts:
      # A table has the senders' rows once for each kernel.
      table = [(kernel, sender) for kernel in range(3) for sender in senders]
      expected = zip(arranged["edges"][part], arranged["kernel"][part])
      assert [(receiver, *table[row]) for receiver, row in arranged[name].tolist()] == [
          (receiver, kernel, sender) for (receiver, sender), kernel in expected]
