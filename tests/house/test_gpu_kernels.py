"""The helper that finds operations without GPU kernels finds them."""

import pytest

tf = pytest.importorskip("tensorflow")

from tests.helpers import gpu_kernels  # pylint: disable=wrong-import-position


def _missing(function, *specs):
  return gpu_kernels.ops_without_gpu_kernels(
      tf.function(function).get_concrete_function(*specs))


@pytest.fixture(autouse=True)
def _built_with_gpu_kernels():
  if not gpu_kernels.has_gpu_kernels():
    pytest.skip("this TensorFlow was built without GPU kernels")


def test_operations_with_kernels_pass():
  floats, ids = tf.TensorSpec([None, 4], tf.float32), tf.TensorSpec([None], tf.int32)
  assert _missing(
      lambda x, i: tf.math.unsorted_segment_sum(tf.nn.leaky_relu(x @ tf.ones([4, 4])), i, 3),
      floats, ids) == set()


def test_an_operation_without_a_kernel_is_named():
  ragged = tf.RaggedTensorSpec([None, None], tf.float32)
  assert "RaggedGather" in _missing(
      lambda x: tf.gather(x, [0, 1]).flat_values, ragged)


def test_a_type_without_a_kernel_is_named():
  integers = tf.TensorSpec([3, 3], tf.int32)
  assert _missing(lambda x: tf.linalg.matmul(x, x), integers) == {"MatMul(T=int32)"}


def test_called_functions_loops_and_branches_are_searched():
  @tf.function
  def inner(x):
    upper = lambda: tf.strings.length(tf.strings.upper(tf.strings.as_string(x)))
    return tf.while_loop(
        lambda step: step < 3, lambda step: (tf.cond(x > 0, upper, lambda: step + 1),), (0,))[0]

  assert "StringUpper" in _missing(lambda x: inner(x) + 1, tf.TensorSpec([], tf.float32))
