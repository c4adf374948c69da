"""Shapes determine the input of a product, for any order of the nodes."""

import functools
import pathlib

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import synthetic
from tests.data import changed
import tpugraphs_rank
from tpugraphs_rank.data import normalize
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import operand_roles
from tpugraphs_rank.hlo import features
from tpugraphs_rank.hlo import opcodes

_COLUMN = features.NODE_FEATURE_NAMES.index
_BUNDLED = pathlib.Path(tpugraphs_rank.__file__).parent / "bundled" / "layout_xla_cpu_mixed" / "npz"


def _product(opcode, shapes, swapped, extra=()):
  """A product of nodes 0 and 1, the input first unless `swapped`; `extra` sets its columns."""
  order = [1, 0, 2] if swapped else [0, 1, 2]
  node_feat = np.zeros([3, len(features.NODE_FEATURE_NAMES)], np.float32)
  for node, shape in zip(order, shapes):
    node_feat[node, 21:21 + len(shape)] = shape
    node_feat[node, 28] = np.prod(shape)
  for name, value in extra:
    node_feat[2, _COLUMN(name)] = value
  graph = synthetic.layout_graph(
      0, num_nodes=3, num_config_nodes=1, node_feat=node_feat, node_config_ids=np.array([2]),
      node_opcode=np.array([63, 63, opcodes.opcode_id(opcode)], np.uint8),
      edge_index=np.array([[2, 0], [2, 1]]))
  return operand_roles.inputs_and_kernels(graph)[0].tolist(), order[:2]


_AXES = st.tuples(st.integers(0, 2), st.integers(1, 2), st.integers(1, 2), st.integers(0, 2))


@given(_AXES, st.permutations(range(2, 10)), st.booleans(), st.randoms(use_true_random=False))
def test_operands_of_a_dot(counts, lengths, swapped, random):
  """Batch axes, then the input's own, then the kernel's; summed axes are anywhere."""
  ends = np.cumsum(counts)
  batch, own, others, summed = (
      lengths[end - count:end] for end, count in zip(ends, counts))
  left, right = [*batch, *own, *summed], [*batch, *others, *summed]
  random.shuffle(left)
  random.shuffle(right)
  actual, expected = _product("dot", [left, right, [*batch, *own, *others]], swapped)
  assert actual == expected


_NHWC = {"kernel_input_feature_dim": 2, "kernel_output_feature_dim": 3, "kernel_spatial_dims_1": 1,
         "input_feature_dim": 3, "input_spatial_dims_0": 1, "input_spatial_dims_1": 2,
         "output_feature_dim": 3}


def _convolution(shapes, swapped, window=(), groups=(), **numbers):
  return _product("convolution", shapes, swapped, [
      *((f"window_size_{axis}", length) for axis, length in enumerate(window)), *groups,
      *((f"convolution_dim_numbers_{name}", value) for name, value in numbers.items())])


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("image", [2, 4, 32])
def test_operands_of_a_convolution(image, swapped):
  """Whether the kernel is the larger one or the smaller."""
  actual, expected = _convolution(
      [[1, image, image, 16], [3, 3, 16, 24], [1, image, image, 24]], swapped, (3, 3), **_NHWC)
  assert actual == expected


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("shapes, window, groups", [
    ([[1, 1, 1, 16], [1, 1, 16, 16], [1, 1, 1, 16]], (1, 1), ()),  # Decided by features.
    ([[3, 3, 8, 8], [3, 5, 8, 8], [3, 3, 8, 8]], (3, 5), ()),  # Only the window.
    ([[5, 4, 6, 8], [5, 4, 8, 6], [5, 4, 6, 6]], (5, 4), ()),  # Only the output's features.
    ([[1, 2, 2, 32], [3, 3, 1, 32], [1, 2, 2, 32]], (3, 3), [("feature_group_count", 32)])])
def test_how_a_kernel_is_recognised(shapes, window, groups, swapped):
  actual, expected = _convolution(shapes, swapped, window, groups, **_NHWC)
  assert actual == expected


@pytest.mark.parametrize("swapped", [False, True])
def test_a_product_as_a_convolution(swapped):
  """As TPUs compute them: without a window, only the features decide."""
  actual, expected = _convolution(
      [[4, 16], [16, 16], [4, 16]], swapped, input_feature_dim=1, kernel_output_feature_dim=1,
      output_feature_dim=1)
  assert actual == expected


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("opcode, shapes", [
    ("dot", [[8, 4, 2], [8, 2], [8, 4]]),  # The kernel might have no axis of its own, or the input.
    ("dot", [[5, 7], [3], [2, 2]]),  # Nonsense.
    ("convolution", [[5, 7], [3], [2, 2]]), ("gather", [[5, 7], [3], [2, 2]])])
def test_the_larger_is_the_input_if_shapes_are_ambiguous(opcode, shapes, swapped):
  actual, expected = _product(opcode, shapes, swapped)
  assert actual == expected


def test_fewer_operands():
  graph = synthetic.layout_graph(
      0, num_nodes=3, num_config_nodes=2, node_config_ids=np.array([1, 2]),
      edge_index=np.array([[2, 0]]))
  np.testing.assert_array_equal(operand_roles.inputs_and_kernels(graph), [[1, 1], [0, 0]])


@functools.cache
def _bundled(split):
  return [npz.load_graph(path) for path in sorted((_BUNDLED / split).glob("*.npz"))]


def test_shapes_decide_in_real_programs():
  """Every product fits in at least one order, most in only one, which is then used."""
  fits = {opcodes.opcode_id("dot"): operand_roles._fits_dot,
          opcodes.opcode_id("convolution"): operand_roles._fits_convolution}
  determined, either = 0, 0
  for graph in _bundled("valid"):
    for node, roles in zip(graph.node_config_ids, operand_roles.inputs_and_kernels(graph)):
      fit = fits.get(int(graph.node_opcode[node]))
      if fit is not None and roles[0] != roles[1]:
        numbers = graph.node_feat[[node, *roles]][:, operand_roles._RELEVANT].astype(int)
        assert fit(*numbers), (graph.name, node)
        turned = fit(*numbers[[0, 2, 1]])
        determined, either = determined + (not turned), either + turned
  assert determined > 2 * either


@given(st.integers(0, 2), st.integers(0, 2 ** 32 - 1))
def test_sizes_do_not_depend_on_the_order_of_nodes(which, seed):
  graph = _bundled("valid")[which]
  order = np.random.default_rng(seed).permutation(graph.num_nodes)
  moved = changed.relabelled(graph, order)
  place = {int(node): row for row, node in enumerate(moved.node_config_ids)}
  rows = [place[int(order[node])] for node in graph.node_config_ids]
  np.testing.assert_allclose(
      normalize.tensor_sizes(moved)[rows], normalize.tensor_sizes(graph), rtol=1e-6)
