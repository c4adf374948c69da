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
from tpugraphs_rank.data import tile_features
from tpugraphs_rank.hlo import opcodes

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


def test_a_damaged_transpose_with_an_axis_too_many_is_read_like_a_reshape():
  graph = kernels.graph(kernels.TRANSPOSE, [kernels.tile((1,))])
  arrays = dict(graph.arrays())
  features = arrays["node_feat"].copy()
  (root,) = np.flatnonzero(graph.node_opcode == opcodes.opcode_id("transpose"))
  features[root, tile_features.DIMENSIONS] = [48, 3, 80, 0, 0, 0]
  features[root, [tile_geometry._COLUMN[f"dimensions_{axis}"] for axis in (0, 1)]] = [0, 2]
  damaged = tile_geometry.kernel(graphs.graph_from_arrays(
      "damaged", {**arrays, "node_feat": features}))
  assert damaged.rest[0] == (Axis(48, 0), Axis(80, 2))


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


_SCATTER = """add {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT sum = f32[] add(a, b)
}

ENTRY e {
  zero = f32[] constant(0)
  into = f32[INTO] broadcast(zero), dimensions={}
  indices = s32[720,1] parameter(0)
  updates = f32[UPDATES] parameter(1)
  ROOT s = f32[INTO] scatter(into, indices, updates), to_apply=add
}"""


@pytest.mark.parametrize("into, updates, expected", [
    ("160,144", "160,720", (Axis(160, 0), Axis(720, 2))),
    ("160,144", "720,144", (Axis(720, 2), Axis(144, 1))),
    ("160,720", "720,720", (Axis(720, 2), Axis(720, 1)))])
def test_a_scatter_sums_over_its_updates(into, updates, expected):
  kernel, _ = _kernel(_SCATTER.replace("INTO", into).replace("UPDATES", updates))
  rows, columns = map(int, into.split(","))
  assert kernel.loops.tolist() == [rows, columns, 720] and kernel.summing == (0, 1, 2)
  indices, of_updates = (kernel.sums[node] for node in kernel.operands[kernel.root][-2:])
  assert indices == (Axis(720, 2), Axis(1)) and of_updates == expected


def test_a_reduction_with_two_results_in_a_called_computation():
  kernel, _ = _kernel("""most {
    a = f32[] parameter(0)
    b = f32[] parameter(2)
    i = s32[] parameter(1)
    j = s32[] parameter(3)
    first = pred[] compare(a, b), direction=GE
    most = f32[] select(first, a, b)
    place = s32[] select(first, i, j)
    ROOT both = (f32[], s32[]) tuple(most, place)
  }

  argmax {
    x = f32[32,240,96] parameter(0)
    place = s32[240] iota(), iota_dimension=0
    places = s32[32,240,96] broadcast(place), dimensions={1}
    lowest = f32[] constant(-inf)
    zero = s32[] constant(0)
    both = (f32[32,96], s32[32,96]) reduce(x, places, lowest, zero), dimensions={1}, to_apply=most
    ROOT where = s32[32,96] get-tuple-element(both), index=1
  }

  ENTRY e {
    x = f32[32,240,96] parameter(0)
    ROOT where = s32[32,96] call(x), to_apply=argmax
  }""")
  assert kernel.loops.tolist() == [32, 96, 240] and kernel.summing == (0, 1, 2)
  read = [axes for node, axes in enumerate(kernel.sums) if axes and not kernel.called[node]]
  assert read == [(Axis(32, 0), Axis(240, 2), Axis(96, 1))]


def test_the_largest_elements_of_a_sorted_array():
  kernel, _ = _kernel("""less {
    a = f32[] parameter(0)
    b = f32[] parameter(1)
    ROOT is_less = pred[] compare(a, b), direction=LT
  }

  ENTRY e {
    x = f32[144,960] parameter(0)
    sorted = f32[144,960] sort(x), dimensions={1}, to_apply=less
    falling = f32[144,960] reverse(sorted), dimensions={1}
    ROOT top = f32[144,12] slice(falling), slice={[0:144], [0:12]}
  }""")
  assert kernel.loops.tolist() == [144, 12, 960] and kernel.summing == (0, 1, 2)
  assert kernel.sums[kernel.operands[kernel.root][0]] == (Axis(144, 0), Axis(960, 2))


def test_packed_parts_that_are_cut_together():
  text = """ENTRY e {
    x = f32[160,144] parameter(0)
    w = f32[72,240] parameter(1)
    two = f32[] constant(2)
    twos = f32[72,240] broadcast(two), dimensions={}
    high = f32[72,240] multiply(w, twos)
    both = f32[144,240] concatenate(w, high), dimensions={0}
    ROOT d = f32[160,240] dot(x, both), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  }"""
  packed, plain = kernels.tile((32, 80), (36,)), kernels.tile((32, 80), (36,))
  packed[16:18], plain[16:18] = (32, 72), (32, 36)
  kernel, graph = _kernel(text, packed, plain)
  assert kernel.trips(graph.config_feat)[:, 2].tolist() == [2, 4]


def _filter(taps):
  lines = []
  for tap in range(taps):
    lines.append(f"""x{tap} = f32[192,960] slice(x), slice={{[{tap}:{tap + 192}], [0:960]}}
    w{tap} = f32[1] slice(w), slice={{[{tap}:{tap + 1}]}}
    v{tap} = f32[] reshape(w{tap})
    b{tap} = f32[192,960] broadcast(v{tap}), dimensions={{}}
    p{tap} = f32[192,960] multiply(x{tap}, b{tap})""")
    if tap:
      before = "p0" if tap == 1 else f"s{tap - 1}"
      lines.append(f"s{tap} = f32[192,960] add({before}, p{tap})")
  lines[-1] = f"ROOT {lines[-1]}"
  return "ENTRY e {{\n x = f32[{},960] parameter(0)\n w = f32[{}] parameter(1)\n {}\n}}".format(
      191 + taps, taps, "\n    ".join(lines))


def test_the_products_of_a_filter_have_a_loop():
  kernel, graph = _kernel(_filter(6), kernels.tile((32, 96), (2,)))
  assert kernel.loops.tolist() == [192, 960, 6] and kernel.main == kernel.root
  assert kernel.trips(graph.config_feat).tolist() == [[6, 10, 3]]
  # A sum with another term is no filter.
  plain, _ = _kernel(_filter(6).replace("p5)", "x5)"))
  assert plain.loops.tolist() == [192, 960] and plain.main == -1


def test_calls_in_a_chain_take_linear_time():
  """And a computation that two calls share stays as it is."""
  chain = "\n".join(f"""level{depth} {{
    x = f32[8,16] parameter(0)
    ROOT y = f32[8,16] call(x), to_apply=level{depth - 1}
  }}""" for depth in range(1, 40))
  kernel, _ = _kernel(f"""level0 {{
    x = f32[8,16] parameter(0)
    ROOT y = f32[8,16] negate(x)
  }}
  {chain}
  ENTRY e {{
    x = f32[8,16] parameter(0)
    ROOT y = f32[8,16] call(x), to_apply=level39
  }}""")
  read = [axes for node, axes in enumerate(kernel.rest) if axes and not kernel.called[node]]
  assert read == [(Axis(8, 0), Axis(16, 1))] * 2
  shared, _ = _kernel("""half {
    x = f32[8,16] parameter(0)
    ROOT y = f32[8,16] negate(x)
  }
  ENTRY e {
    x = f32[8,16] parameter(0)
    one = f32[8,16] call(x), to_apply=half
    ROOT two = f32[8,16] call(one), to_apply=half
  }""")
  assert shared.rest[shared.root] == (Axis(8, 0), Axis(16, 1))


def test_steps_are_those_of_the_collector():
  split = collections.load_collection("tile:xla_cpu", "valid")
  families = {path.name.partition(".")[0]: place for place, path in enumerate(split.paths)}
  assert len(families) > 70
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
    if number % 3 == 0:  # Operations whose operands are looked at closely, in cycles.
      numbers[rng.integers(graph.num_nodes, size=4)] = [
          opcodes.opcode_id(name) for name in ("add", "slice", "scatter", "call")]
      edges[rng.integers(len(edges))] = rng.integers(graph.num_nodes)
    for node in rng.integers(graph.num_nodes, size=3):
      features[node, rng.integers(140)] = rng.choice([0, -1, 1, 2, 7, 1e9, 1e30])
      features[node, 21:27] = rng.choice([0, 1, 3, 48], 6)
      numbers[node] = rng.integers(1, 120)
      edges[rng.integers(len(edges)), rng.integers(2)] = node
    changed = graphs.graph_from_arrays("changed", {
        **arrays, "node_feat": features, "node_opcode": numbers, "edge_index": edges})
    costs = tile_cost.terms(changed)
    assert np.isfinite(costs).all() and (costs >= 0).all()
