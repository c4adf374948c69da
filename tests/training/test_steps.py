"""The learning rate, the pairs that training counts, and one step by hand."""

import math

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
import tensorflow as tf

from tests.training import small_runs
from tpugraphs_rank.training import schedules
from tpugraphs_rank.training import steps
from tpugraphs_rank.training import trainer


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("warmup, total", [(0, 10), (4, 10), (20, 10)])
def test_the_learning_rate(schedule, warmup, total):
  warmup = min(warmup, total)
  rate = schedules.WarmupSchedule(0.2, warmup, total, schedule == "cosine")
  for step in range(total + 3):
    expected = 0.2 * min((step + 1) / max(warmup, 1), 1)
    if schedule == "cosine":
      done = min(max((step - warmup) / max(total - warmup, 1), 0), 1)
      expected *= 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2
    assert float(rate(step)) == pytest.approx(expected, rel=1e-5)


@given(lists=st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 2), st.booleans()),
                               min_size=4, max_size=4), min_size=1, max_size=3))
def test_ordered_pairs(lists):
  relevance, scores, mask = (np.array([[entry[k] for entry in row] for row in lists])
                             for k in range(3))
  correct, pairs = steps.ordered_pairs(
      {"relevance": tf.constant(relevance), "mask": tf.constant(mask)},
      tf.constant(scores, tf.float32))
  expected = [
      s_i > s_j for row in lists for r_i, s_i, real_i in row for r_j, s_j, real_j in row
      if real_i and real_j and r_i > r_j]
  assert float(pairs) == len(expected) and float(correct) == sum(expected)


def _adam(values, gradient, rate, step, moments):
  """One step of Adam, as Kingma and Ba write it (epsilon as Keras places it)."""
  m, v = moments
  m += 0.1 * (gradient - m)
  v += 0.001 * (gradient ** 2 - v)
  scale = math.sqrt(1 - 0.999 ** step) / (1 - 0.9 ** step)
  return values - rate * scale * m / (np.sqrt(v) + 1e-7)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_clipping_adam_and_averaging(tmp_path, decay):
  """Steps on given gradients, compared with the formulas."""
  config = small_runs.settings(small_runs.collection(tmp_path), optimizer_ema_decay=decay,
                         optimizer_clip_norm=0.5, optimizer_schedule="constant",
                         optimizer_warmup_steps=2, optimizer_learning_rate=0.1)
  stepper = trainer.Trainer(config).stepper
  variables = stepper.model.trainable_variables
  rng = np.random.default_rng(0)
  values = [variable.numpy().astype(np.float64) for variable in variables]
  averages = [value.copy() for value in values]
  moments = [(np.zeros(value.shape), np.zeros(value.shape)) for value in values]
  for step in (1, 2, 3):
    gradients = [rng.normal(size=value.shape) for value in values]
    norm = math.sqrt(sum((gradient ** 2).sum() for gradient in gradients))
    clipped, actual_norm = tf.clip_by_global_norm(
        [tf.constant(gradient, tf.float32) for gradient in gradients], 0.5)
    assert float(actual_norm) == pytest.approx(norm, rel=1e-5)
    stepper._update(clipped)
    rate = 0.1 * min(step / 2, 1)
    average_decay = min(decay, (1 + step) / (10 + step))
    for place, gradient in enumerate(gradients):
      values[place] = _adam(
          values[place], gradient * 0.5 / norm, rate, step, moments[place])
      averages[place] += (1 - average_decay) * (values[place] - averages[place])
      np.testing.assert_allclose(variables[place].numpy(), values[place], rtol=1e-3, atol=1e-5)
      expected = averages[place] if decay else values[place]
      np.testing.assert_allclose(
          stepper.average.variables[place].numpy(), expected, rtol=1e-3, atol=1e-5)
