"""The loops of a kernel and the ranges that its steps touch, against hand-made ones."""

import numpy as np
import pytest

from tests import synthetic
from tests.costs import kernels
from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.costs import tile_cost
from tpugraphs_rank.costs import tile_geometry
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import graphs

Axis = tile_geometry.Axis


def _kernel(text, *tiles):
  graph = kernels.graph(text, tiles or [kernels.tile((1,))])
  return tile_geometry.kernel(graph), graph


def test_a_matrix_product():
  kernel, graph = _kernel(
      kernels.MATMUL, kernels.tile((32, 8), (16,)), kernels.tile((96, 5), ()))
  assert kernel.loops.tolist() == [96, 32, 64] and kernel.outputs == 2
  assert kernel.main == kernel.root == 2 and kernel.summing == (0, 1, 2)
  assert kernel.sums[:2] == ((Axis(96, 0), Axis(64, 2)), (Axis(64, 2), Axis(32, 1)))
  assert kernel.rest == (None, None, (Axis(96, 0), Axis(32, 1)))
  # A missing bound leaves its loop whole; a last block may be smaller.
  assert kernel.sides(graph.config_feat).tolist() == [[32, 8, 16], [96, 5, 64]]
  assert kernel.trips(graph.config_feat).tolist() == [[3, 4, 4], [1, 7, 1]]


def test_statistics_are_not_repeated_along_the_axis_that_they_sum_up():
  kernel, _ = _kernel(kernels.SOFTMAX)
  assert kernel.loops.tolist() == [128, 512, 512] and kernel.outputs == 2
  assert kernel.summing == (0, 2)
  x = next(node for node, axes in enumerate(kernel.sums)
           if axes == (Axis(128, 0), Axis(512, 2)) and not kernel.operands[node])
  assert kernel.rest[x] == (Axis(128, 0), Axis(512, 1))
  # Nothing of the reducers is an array.
  assert all(kernel.called[node] for node, axes in enumerate(kernel.rest[:6]) if axes is None)


def test_a_strided_convolution_has_a_halo():
  kernel, graph = _kernel(kernels.CONVOLUTION, kernels.tile((1, 4, 8, 16), (2,)))
  assert kernel.loops.tolist() == [2, 8, 8, 16, 8]
  image, weights = kernel.sums[:2]
  assert image == (Axis(2, 0), Axis(17, 1, 2, 1), Axis(17, 2, 2, 1), Axis(8, 4))
  assert weights == (Axis(3), Axis(3), Axis(8, 4), Axis(16, 3))
  sides = kernel.sides(graph.config_feat)
  assert [axis.range(sides).tolist() for axis in image] == [[1], [9], [17], [2]]


def test_a_transpose():
  kernel, _ = _kernel(kernels.TRANSPOSE)
  assert kernel.rest == ((Axis(48, 1), Axis(80, 0)), (Axis(80, 0), Axis(48, 1)))
  assert kernel.main == -1 and kernel.summing == ()


@pytest.mark.parametrize("left, right, dims, sums", [
    ("5,7", "9,7", "lhs_contracting_dims={1}, rhs_contracting_dims={1}",
     ((Axis(5, 0), Axis(7, 2)), (Axis(9, 1), Axis(7, 2)))),
    ("7,5", "7,9", "lhs_contracting_dims={0}, rhs_contracting_dims={0}",
     ((Axis(7, 2), Axis(5, 0)), (Axis(7, 2), Axis(9, 1)))),
])
def test_operands_of_a_dot_in_any_order(left, right, dims, sums):
  kernel, _ = _kernel(f"""ENTRY e {{
    a = f32[{left}] parameter(0)
    b = f32[{right}] parameter(1)
    ROOT d = f32[5,9] dot(a, b), {dims}
  }}""")
  assert kernel.sums[:2] == sums


# The graph shows no reduction with the loop that the collector cuts: scatters, sorts, sums of
# slices, a reduction with two results, and packed integers. Only the blocks of the result count.
_HIDDEN_LOOPS = {"scatter_columns", "scatter_max", "scatter_rows", "segment_sum",
                 "segment_sum_sorted", "sort_argmax", "sort_top", "stencil_filter", "int4_matmul"}


def test_steps_are_those_of_the_collector():
  split = collections.load_collection("tile:xla_cpu", "valid")
  families = {path.name.partition(".")[0]: place for place, path in enumerate(split.paths)}
  families = {name: place for name, place in families.items() if name not in _HIDDEN_LOOPS}
  assert len(families) > 60
  for place in families.values():
    graph = split[place]
    known = geometry.parse_stem(graph.name)
    outputs, summed = len(known.output_axes), len(known.reduction_axes)
    expected = [known.iterations(geometry.Tile(
        tuple(map(int, row[8:8 + outputs])), tuple(map(int, row[:summed]))))
                for row in graph.config_feat]
    trips = tile_geometry.kernel(graph).trips(graph.config_feat)
    assert trips.prod(axis=1).tolist() == expected, graph.name


def test_any_graph_has_costs():
  rng = np.random.default_rng(0)
  split = collections.load_collection("tile:xla_cpu", "valid")
  bases = [*(split[place] for place in range(0, len(split), 6)), synthetic.tile_graph(0, 20)]
  for number in range(60):
    graph = bases[number % len(bases)]
    arrays = dict(graph.arrays())
    features, numbers = arrays["node_feat"].copy(), arrays["node_opcode"].copy()
    edges = arrays["edge_index"].copy()
    for node in rng.integers(graph.num_nodes, size=3):
      features[node, rng.integers(140)] = rng.choice([0, -1, 1, 2, 7, 1e9, 1e30])
      features[node, 21:27] = rng.choice([0, 1, 3, 48], 6)
      numbers[node] = rng.integers(1, 120)
      edges[rng.integers(len(edges)), rng.integers(2)] = node
    changed = graphs.graph_from_arrays("changed", {
        **arrays, "node_feat": features, "node_opcode": numbers, "edge_index": edges})
    costs = tile_cost.terms(changed)
    assert np.isfinite(costs).all() and (costs >= 0).all()
