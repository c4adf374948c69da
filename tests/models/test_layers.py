"""Layers that compute less than the plain layers that they replace."""

import numpy as np
import tensorflow as tf

from tpugraphs_rank.models import layers


def test_a_dense_layer_with_a_table_equals_one_of_the_concatenation():
  rng = np.random.default_rng(0)
  features, table = rng.normal(size=[6, 3]), rng.normal(size=[4, 2])
  row = np.array([3, 0, 0, 2, 1, 3])
  layer = layers.dense(5, 0.1, layers.DenseWithTable, dtype="float64")
  layer([features, table, row])
  layer.bias.assign(rng.normal(size=5))
  actual = layer([features, table, row])
  joined = np.concatenate([features, table[row]], axis=1)
  np.testing.assert_allclose(actual, joined @ layer.kernel + layer.bias, rtol=1e-12)
  # One kernel, as of the plain layer: the same checkpoints, and the same penalty.
  assert [tuple(variable.shape) for variable in layer.trainable_variables] == [(5, 5), (5,)]
  np.testing.assert_allclose(layer.losses[0], 0.1 * tf.reduce_sum(layer.kernel ** 2))
