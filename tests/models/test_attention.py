"""Kinds of attention over configurations against loops in NumPy."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.models import small_batches
from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import pipeline
from tpugraphs_rank.models import attention as attention_lib
from tpugraphs_rank.training import streaming

KINDS = sorted(attention_lib.KINDS)


def _softmax(state, keys, project, value, temperature):
  logits = keys @ project @ (state @ project) / np.sqrt(project.shape[1]) / temperature
  weights = np.exp(logits - logits.max())
  return state + weights / weights.sum() @ keys @ value


def _linear(state, keys, project, value, temperature):
  feature = lambda x: np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))
  query, of_keys = (feature(x @ project / temperature) for x in (state, keys))
  weights = of_keys @ query
  return state + weights / weights.sum() @ keys @ value


def _channels(state, keys, project, value, temperature):
  del project
  own, of_keys = np.exp(state / temperature), np.exp(keys / temperature)
  weights = (len(keys) + 1) * own / (own + of_keys.sum(axis=0))
  return state + weights * (state @ value)


FORMULAS = {"softmax": _softmax, "linear": _linear, "channels": _channels}


def _layer(kind, learned, width=5):
  settings = dataclasses.replace(run_config.ModelConfig(), attention_width=3,
                                 attention_temperature=learned)
  layer = attention_lib.KINDS[kind](settings, width, 0.0, "attention")
  layer(tf.zeros([1, 2, width]), tf.ones([1, 2], tf.bool))
  rng = np.random.default_rng(0)
  for variable in layer.trainable_variables:
    variable.assign(rng.normal(0, 0.5, variable.shape))
  return layer


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_its_formula(kind, learned):
  layer = _layer(kind, learned)
  hidden = np.random.default_rng(1).normal(0, 1.5, [4, 6, 5])
  mask = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1]], bool)  # Three keys at most.
  named = {variable.name.split("/")[-2 if "kernel" in variable.name else -1]: variable.numpy()
           for variable in layer.trainable_variables}
  assert ("log_temperature:0" in named) == learned
  temperature = np.exp(named.get("log_temperature:0", 0.0))
  actual = layer(tf.constant(hidden, tf.float32), tf.constant(mask)).numpy()
  for node, config in np.ndindex(4, 6):
    expected = FORMULAS[kind](hidden[node, config], hidden[node, :3][mask[node]],
                              named.get("queries_and_keys"), named["values"], temperature)
    np.testing.assert_allclose(actual[node, config], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_configurations_attend_as_one(kind):
  """What nodes out of reach of the configuration get, whatever the number of keys."""
  layer = _layer(kind, True)
  one = tf.random.stateless_normal([3, 1, 5], [1, 2])
  for count in (1, 4):
    together = layer(tf.tile(one, [1, 7, 1]), tf.ones([3, count], tf.bool)).numpy()
    np.testing.assert_allclose(together, np.repeat(layer.attend_to_self(one), 7, 1), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_huge_states_give_finite_weights(kind):
  layer = _layer(kind, False)
  hidden = tf.constant(np.random.default_rng(2).normal(0, 3e3, [2, 4, 5]), tf.float32)
  assert np.isfinite(layer(hidden, tf.ones([2, 2], tf.bool))).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "channels"])
def test_every_way_of_scoring_equals_the_plain_path(kind):
  case = small_batches.Case(
      "layout", sizes=(25, 4), configs=(6, 5), model_model="attention_gnn",
      model_attention_kind=kind, model_attention_temperature=True)
  assert case.model.supports_partition and not case.model.supports_distinct_states
  assert case.model.numbers_per_state > 0
  prepared = case.prepared()
  ((batch, rows),) = batches.scoring_batches(prepared, 100, case.model.reference_size)
  expected = case.model(pipeline.to_step(batch)).numpy()
  small_batches.close(case.forward(batch), expected)
  for row, (index, picked) in zip(expected, rows):
    small_batches.close(streaming.Streamer(case.model, 2 ** 20)(prepared[index]), row[:len(picked)])
