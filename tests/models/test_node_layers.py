"""Layers over node states against loops in NumPy, and whether the fast paths hold as they claim."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import registrations
from tests.models import small_batches
from tpugraphs_rank import errors
from tpugraphs_rank import models
from tpugraphs_rank import registries
from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import pipeline
from tpugraphs_rank.models import node_layers
from tpugraphs_rank.training import scoring
from tpugraphs_rank.training import streaming

NAMES = sorted(registries.NODE_LAYERS.names())
SIZES = {"sizes": (25, 4, 40), "configs": (6, 5, 7)}


def _layer(name, width, **changes):
  """A layer with random weights."""
  settings = dataclasses.replace(run_config.ModelConfig(), node_layers=(name,), **changes)
  (layer,) = node_layers.build(settings, width, 0.0)
  states = tf.zeros([3, 2, width])
  layer(states, tf.constant([0, 0, 1]), tf.constant(2)) if layer.mixes_nodes else layer(states)
  rng = np.random.default_rng(1)
  for variable in layer.trainable_variables:
    variable.assign(rng.normal(0, 0.7, variable.shape))
  return layer


def _squeeze_excitation(layer, states, graph):
  del graph
  w_1, b_1, w_2, b_2 = (variable.numpy() for variable in layer.trainable_variables)
  expected = np.empty_like(states)
  for place in np.ndindex(states.shape[:2]):
    squeezed = np.maximum(states[place] @ w_1 + b_1, 0)
    expected[place] = states[place] / (1 + np.exp(-(squeezed @ w_2 + b_2)))
  return expected


def _instance_norm(layer, states, graph):
  gamma, beta = (variable.numpy() for variable in layer.trainable_variables)
  expected = np.empty_like(states)
  for node, config, channel in np.ndindex(states.shape):
    values = states[graph == graph[node], config, channel]
    expected[node, config, channel] = (states[node, config, channel] - values.mean()) / np.sqrt(
        values.var() + 1e-5) * gamma[channel] + beta[channel]
  return expected


def _node_attention(layer, states, graph):
  project, value = (variable.numpy() for variable in layer.trainable_variables)
  expected = np.empty_like(states)
  for node, config in np.ndindex(states.shape[:2]):
    others = states[graph == graph[node], config]
    logits = others @ project @ (states[node, config] @ project) / np.sqrt(project.shape[1])
    weights = np.exp(logits - logits.max())
    expected[node, config] = states[node, config] + weights / weights.sum() @ others @ value
  return expected


FORMULAS = {"squeeze_excitation": _squeeze_excitation, "instance_norm": _instance_norm,
            "node_attention": _node_attention}


@pytest.mark.parametrize("name", NAMES)
def test_each_layer_is_its_formula(name, monkeypatch):
  layer = _layer(name, 17, attention_width=3)
  states = np.random.default_rng(0).normal(0, 2, [9, 3, 17])
  graph = np.array([0, 1, 1, 1, 1, 1, 3, 3, 3])  # Graph 2 has no node here.
  expected = FORMULAS[name](layer, states, graph)
  # Self-attention computes its logits in one block, and in blocks of two nodes.
  for logits in (2 ** 24, 4 * 5 * 2):
    monkeypatch.setattr(node_layers, "_LOGITS", logits)
    inputs = [tf.constant(states, tf.float32)]
    if layer.mixes_nodes:
      inputs += [tf.constant(graph, tf.int32), tf.constant(4)]
    np.testing.assert_allclose(layer(*inputs), expected, rtol=1e-4, atol=1e-4)


def test_the_gradient_of_self_attention_does_not_depend_on_the_blocks(monkeypatch):
  layer = _layer("node_attention", 6, attention_width=3)
  states = tf.random.stateless_normal([8, 2, 6], [1, 2])
  graph = tf.constant([0, 0, 0, 0, 0, 1, 1, 1])

  def gradients(attend):
    with tf.GradientTape() as tape:
      tape.watch(states)
      loss = tf.reduce_sum(attend() ** 2)
    return tape.gradient(loss, [states, *layer.trainable_variables])

  def plain():
    same = (graph[:, None] == graph[None, :])[None]
    values = tf.transpose(states, [1, 0, 2])
    projected = tf.matmul(values, layer.trainable_variables[0][None])
    logits = tf.matmul(projected, projected, transpose_b=True) / 3 ** 0.5
    weights = tf.nn.softmax(tf.where(same, logits, -1e30))
    added = tf.matmul(weights, tf.matmul(values, layer.trainable_variables[1][None]))
    return tf.transpose(values + added, [1, 0, 2])

  expected = gradients(plain)
  for logits in (2 ** 24, 20):
    monkeypatch.setattr(node_layers, "_LOGITS", logits)
    for ours, wanted in zip(gradients(lambda: layer(states, graph, tf.constant(2))), expected):
      np.testing.assert_allclose(ours, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("name", NAMES)
def test_layers_keep_what_they_claim_about_nodes(name):
  layer = _layer(name, 8)
  states = tf.random.stateless_normal([6, 2, 8], [3, 4])
  if not layer.mixes_nodes:
    # Any rows, in any order and number, give the same states as together.
    rows = [4, 0, 4]
    np.testing.assert_allclose(
        layer(tf.gather(states, rows)), tf.gather(layer(states), rows), rtol=1e-5, atol=1e-6)
    return
  graph, graphs = tf.constant([0, 0, 0, 1, 1, 1]), tf.constant(2)
  expected = layer(states, graph, graphs).numpy()
  changed = tf.concat([states[:5], states[5:] + 1.0], axis=0)
  actual = layer(changed, graph, graphs).numpy()
  assert np.abs(actual[3] - expected[3]).max() > 1e-4  # Another node of the graph changed.
  np.testing.assert_allclose(actual[:3], expected[:3], atol=1e-5)  # The other graph did not.
  # Neither configurations nor the numbering of nodes matter.
  alone = layer(states[:, :1], graph, graphs).numpy()
  np.testing.assert_allclose(alone, expected[:, :1], atol=1e-5)
  order = [2, 0, 1, 4, 5, 3]
  moved = layer(tf.gather(states, order), graph, graphs).numpy()
  np.testing.assert_allclose(moved, expected[order], atol=1e-5)


@pytest.mark.parametrize("kind, name, model", [
    ("layout", "node_attention", "residual_gnn"),
    pytest.param("layout", "squeeze_excitation", "residual_gnn", marks=pytest.mark.slow),
    pytest.param("layout", "instance_norm", "attention_gnn", marks=pytest.mark.slow),
    pytest.param("tile", "squeeze_excitation", "attention_gnn", marks=pytest.mark.slow),
    pytest.param("tile", "instance_norm", "residual_gnn", marks=pytest.mark.slow),
    pytest.param("tile", "node_attention", "residual_gnn", marks=pytest.mark.slow)])
def test_every_way_of_scoring_equals_the_plain_path(kind, name, model):
  case = small_batches.Case(kind, **SIZES, model_model=model, model_node_layers=[name],
                            model_pooling=["mean", "max"], batch_eval_batch_configs=3,
                            batch_scoring_megabytes=1)
  mixes = registries.NODE_LAYERS.get(name).mixes_nodes
  prepared = case.prepared()
  ((batch, rows),) = batches.scoring_batches(prepared, 100, case.model.reference_size)
  expected = case.model(pipeline.to_step(batch)).numpy()
  arranged = case.model.arrange(batch)
  assert (arranged is batch) == mixes == bool(case.model.why_plain)
  assert case.model.supports_partition != mixes
  assert case.model.supports_distinct_states == (
      not mixes and kind == "layout" and model == "residual_gnn")
  small_batches.close(case.model(pipeline.to_step(arranged)).numpy(), expected)
  scorer = scoring.Scorer(case.model, case.config)
  # The plain path has less in memory at a time, too.
  assert (scorer._max_states * 4 * case.model.numbers_per_state <= 2 ** 20) == mixes
  scores = scorer(prepared)  # In short lists.
  for row, (index, picked) in zip(expected, rows):
    small_batches.close(scores[index], row[:len(picked)])
  if case.model.supports_distinct_states:
    for distinct in (False, True):
      for row, member in zip(expected, prepared):
        small_batches.close(streaming.Streamer(case.model, 2 ** 20, distinct)(member),
                            row[:len(member.choice)])


def test_without_node_layers_nothing_changes():
  case = small_batches.Case("layout")
  assert case.model.why_plain == "" and case.model.supports_distinct_states
  assert len(case.model.trainable_variables) == len(
      small_batches.Case("layout", model_attention_temperature=True).model.trainable_variables)


def test_a_plugin_registers_a_layer_and_a_wrong_one_is_refused():
  with registrations.undone():
    @node_layers.register("halved")
    class Halved(node_layers.NodeLayer):
      mixes_nodes = False

      def call(self, states, graph=None, graphs=None):
        return states / 2

    case = small_batches.Case("tile", model_node_layers=["halved", "squeeze_excitation"])
    assert not case.model.why_plain
    assert isinstance(case.model._convolutions[0]._node_layers[0], Halved)
    node_layers.register("number", 3)
    with pytest.raises(errors.ConfigError, match="the node layer 'number' is 3; expected a class"):
      models.build_model("tile", small_batches.settings(model_node_layers=["number"]))
  with pytest.raises(errors.ConfigError, match="node_layers = 'norm'.*instance_norm"):
    small_batches.settings(model_node_layers=["norm"])
