"""Features of layouts, compared with loops over their numbers."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
import numpy as np
import pytest
import tensorflow as tf

from tests import synthetic
from tests.models import small_batches
from tpugraphs_rank.data import normalize
from tpugraphs_rank.models import layers

CONFIGS = arrays.arrays(np.int8, st.tuples(st.integers(0, 3), st.integers(1, 3), st.just(18)),
                        elements=st.integers(-1, 5))


@given(CONFIGS)
def test_features_are_those_of_loops(configs):
  both = layers.layout_features(configs, "both", tf.float32).numpy()
  minor = layers.layout_features(configs, "minor", tf.float32).numpy()
  assert both.shape == (*configs.shape[:2], 18 * 7 + 6)
  for row in range(configs.shape[0]):
    for config in range(configs.shape[1]):
      numbers = configs[row, config].tolist()
      entries = [float(number == value) for number in numbers for value in range(-1, 6)]
      tensors = [numbers[start:start + 6] for start in (0, 6, 12)]
      lengths = [sum(number >= 0 for number in tensor) for tensor in tensors]
      constrained = [float(length > 0) for length in lengths]
      other = [float(any(number >= 0 and number != length - 1 - place
                         for place, number in enumerate(tensor)))
               for tensor, length in zip(tensors, lengths)]
      assert both[row, config].tolist() == entries + constrained + other
      assert minor[row, config].tolist() == [
          float(length > 0 and tensor[0] >= 0 and tensor[0] != length - 1)
          for tensor, length in zip(tensors, lengths)]
  split = [layers.layout_features(configs, which, tf.float32).numpy()
           for which in ("entries", "order")]
  np.testing.assert_array_equal(np.concatenate(split, axis=-1), both)


@given(CONFIGS, st.integers(1, 3))
def test_distinct_layouts_restore_the_original(configs, repeats):
  configs = np.tile(configs, [1, repeats, 1])
  distinct, place = (value.numpy() for value in layers.distinct_layouts(configs))
  assert len(distinct) == len(np.unique(configs.reshape(-1, 18), axis=0))
  np.testing.assert_array_equal(distinct[:, 0][place].reshape(configs.shape), configs)


@pytest.mark.parametrize("place", range(18))
def test_layouts_that_differ_in_one_number_are_different(place):
  configs = np.full([1, 7, 18], 5, np.int8)
  configs[0, :, place] = range(-1, 6)
  assert layers.distinct_layouts(configs)[0].shape[0] == 7


def test_row_major_does_not_count_as_another_order():
  configs = np.array([[[2, 1, 0, -1, -1, -1] + [0, 1] + [-1] * 4 + [-1] * 6]], np.int8)
  order = layers.layout_features(configs, "order", tf.float32).numpy()
  assert order.tolist() == [[[1, 1, 0, 0, 1, 0]]]


def test_another_order_of_the_outer_dimensions_moves_no_minor_one():
  configs = np.array([[[2, 0, 1, -1, -1, -1] + [0, 1] + [-1] * 4 + [-1] * 6]], np.int8)
  assert layers.layout_features(configs, "minor", tf.float32).numpy().tolist() == [[[0, 1, 0]]]


def test_extents_are_the_lengths_of_the_axes_that_become_minor():
  # The output is 8 x 4 x 16, its only operand 2 x 32.
  features = np.zeros([2, 140], np.float32)
  features[:, 21:27] = [[8, 4, 16, 0, 0, 0], [2, 32, 0, 0, 0, 0]]
  features[:, 28] = [512, 64]
  graph = synthetic.layout_graph(
      0, num_nodes=2, num_config_nodes=1, node_feat=features, node_config_ids=np.array([0]),
      edge_index=np.array([[0, 1]]))
  sizes = np.concatenate(
      [normalize.tensor_sizes(graph), normalize.axis_lengths(graph)], axis=1).astype(np.float32)
  none = [-1] * 6
  configs = np.array([[[1, 0, 2, -1, -1, -1] + [0] + [-1] * 5 + none, none * 3]], np.int8)
  actual = layers.layout_extents(configs, sizes, tf.float32).numpy()
  root = np.sqrt(np.array([512, 64]) / 288)
  of_output = np.array([1, 2 / 8, 3 / 8, (2 - 4) / 8, (3 - 2) / 8])
  of_input = np.array([1, 1 / 8, 0, (1 - 5) / 8, (0 - 1) / 8])
  np.testing.assert_allclose(actual[0, 0], [
      *of_output, *(root[0] * of_output), *of_input, *(root[1] * of_input), *[0] * 10], rtol=1e-6)
  assert not actual[0, 1].any()


@pytest.mark.parametrize("which", ["order", "both", "minor"])
def test_models_score_with_them(which):
  case = small_batches.Case("layout", model_layout_features=which)
  width = {"order": 6, "both": 132, "minor": 3}[which]
  assert case.model._config_projection.kernel.shape[0] == width
  assert len({float(score) for score in case.scores(case.prepared())[0]}) > 1
