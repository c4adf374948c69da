"""The weighted sum of losses by name."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import registrations
from tpugraphs_rank import errors
from tpugraphs_rank import losses

_SCORES = tf.constant([[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]])


def _combined(function):
  with registrations.undone():
    losses.register("mine", function)
    return losses.combined_loss(["mine"], [0.5])({}, _SCORES)


def test_a_registered_loss_is_weighted():
  np.testing.assert_allclose(
      _combined(lambda step, scores: tf.reduce_sum(scores, axis=1)), [3.0, 0.0])


@pytest.mark.parametrize(("function", "message"), [
    (lambda step, scores: scores, r"returns float32 of shape \(2, 3\); expected .* \[B\]"),
    (lambda step, scores: tf.reduce_sum(scores), r"returns float32 of shape \(\); expected"),
    (lambda step, scores: tf.cast(scores[:, 0], tf.int32), "returns int32 of shape"),
    (lambda step, scores: None, "returns NoneType; expected"),
    (lambda step, scores: step["labels"], r"fails: KeyError: labels \(.*test_combined.py:\d+\)$"),
    (lambda scores: scores, "cannot be called: .* takes 1 positional argument"),
])
def test_a_wrong_loss_is_named(function, message):
  with pytest.raises(errors.ConfigError, match="the loss 'mine' " + message):
    _combined(function)
