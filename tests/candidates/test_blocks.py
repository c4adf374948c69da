"""Blocks of operands, compared with the elements that a tile of the result depends on."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from tests.candidates import small_programs
from tpugraphs_rank.candidates import blocks
from tpugraphs_rank.candidates import value_graph
from tpugraphs_rank.hlo import hlo_pb2


def _needed(function, shapes, position, starts, tile):
  """Sides of the bounding box of the operand's elements that affect a tile of the result."""
  rng = np.random.default_rng(0)
  operands = [rng.normal(size=shape) for shape in shapes]
  cut = tuple(slice(start, start + side) for start, side in zip(starts, tile))
  before = function(*operands)[cut].copy()
  touched = []
  for index in np.ndindex(*shapes[position]):
    kept = operands[position][index]
    operands[position][index] += 1
    if not np.array_equal(function(*operands)[cut], before):
      touched.append(index)
    operands[position][index] = kept
  return tuple(int(side) for side in np.ptp(np.array(touched), axis=0) + 1)


def _block(opcode, shape, operand_shapes, tile, position=0, **fields):
  """`operand_block` of a program with one instruction."""
  module, main = small_programs.program()
  ids = [small_programs.add(main, "parameter", operand, parameter_number=number)
         for number, operand in enumerate(operand_shapes)]
  small_programs.add(main, opcode, shape, ids, **fields)
  program = value_graph.Expanded(module)
  sides = tuple(blocks.Side(extent, axis) for axis, extent in enumerate(shape))
  actual = blocks.operand_block(program, program.root, position, sides)
  return actual and tuple(int(side.of(np.array([tile]))[0]) for side in actual)


def test_broadcast():
  function = lambda x: np.broadcast_to(x[:, None, :], (4, 3, 6))
  want = _needed(function, [(4, 6)], 0, (1, 0, 2), (2, 3, 4))
  assert _block("broadcast", [4, 3, 6], [(4, 6)], (2, 3, 4), dimensions=[0, 2]) == want == (2, 4)


@given(st.permutations(range(4)))
def test_transpose(axes):
  shape, tile = (2, 3, 4, 5), (2, 1, 2, 2)
  result = tuple(shape[axis] for axis in axes)
  want = _needed(lambda x: x.transpose(axes), [shape], 0, (0, 0, 0, 0), tile)
  assert _block("transpose", result, [shape], tile, dimensions=axes) == want


@pytest.mark.parametrize("opcode", ["tanh", "reverse", "convert"])
def test_elementwise(opcode):
  assert _block(opcode, [4, 6], [(4, 6)], (2, 3)) == (2, 3)


def test_summed_axes_are_needed_in_full():
  want = _needed(lambda x: x.sum(axis=1), [(4, 3, 5)], 0, (1, 0), (2, 3))
  assert _block("reduce", [4, 5], [(4, 3, 5)], (2, 3), dimensions=[1]) == want == (2, 3, 3)


@pytest.mark.parametrize("position", [0, 1])
def test_dot(position):
  numbers = hlo_pb2.DotDimensionNumbers(
      lhs_batch_dimensions=[0], rhs_batch_dimensions=[2], lhs_contracting_dimensions=[1],
      rhs_contracting_dimensions=[0])
  shapes = [(3, 5, 4), (5, 6, 3)]
  function = lambda x, y: np.einsum("bkm,knb->bmn", x, y)
  want = _needed(function, shapes, position, (1, 0, 2), (2, 2, 3))
  assert _block("dot", [3, 4, 6], shapes, (2, 2, 3), position,
                dot_dimension_numbers=numbers) == want


@pytest.mark.parametrize("equation, left, right", [
    ("mk,kn->mn", (4, 5), (5, 6)),
    ("mk,nk->mn", (4, 5), (6, 5)),
    ("bmk,bkn->bmn", (2, 4, 5), (2, 5, 6)),
    ("bmk,bnk->bmn", (2, 4, 5), (2, 6, 5)),
    ("abcdk,kn->abcdn", (2, 3, 4, 5, 6), (6, 7)),
    ("mkl,kln->mn", (2, 3, 4), (3, 4, 5)),
    ("k,kn->n", (3,), (3, 4)),
    ("mk,kn->mn", (4, 4), (4, 4)),  # Several contractions fit; the usual one is chosen.
])
def test_dots_without_contraction_dimensions(equation, left, right):
  inputs, output = equation.split("->")
  names = inputs.split(",")
  lengths = dict(zip("".join(names), (*left, *right)))
  module, main = small_programs.program()
  ids = [small_programs.add(main, "parameter", shape) for shape in (left, right)]
  small_programs.add(main, "dot", [lengths[name] for name in output], ids)
  program = value_graph.Expanded(module)
  actual = blocks.dot_axes(program.values[program.root], [left, right])
  batch = [name for name in names[0] if name in names[1] and name in output]
  summed = [name for name in names[0] if name in names[1] and name not in output]
  assert actual.batch == tuple(tuple(operand.index(name) for name in batch) for operand in names)
  assert actual.contracting == tuple(
      tuple(operand.index(name) for name in summed) for operand in names)


def test_a_dot_whose_shapes_fit_nothing():
  assert _block("dot", [4, 9], [(4, 5), (5, 6)], (2, 3)) is None


def _convolve(x, kernel, stride, dilation):
  _, height, width, _ = x.shape
  size = (kernel.shape[0] - 1) * dilation + 1
  rows, columns = (height - size) // stride + 1, (width - size) // stride + 1
  out = np.zeros([x.shape[0], rows, columns, kernel.shape[3]])
  for r, c, i, j in itertools.product(
      range(rows), range(columns), range(kernel.shape[0]), range(kernel.shape[1])):
    out[:, r, c] += x[:, r * stride + i * dilation, c * stride + j * dilation] @ kernel[i, j]
  return out


@pytest.mark.parametrize("stride, dilation", [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1)])
def test_convolution(stride, dilation):
  x, kernel = (2, 9, 9, 2), (3, 3, 2, 4)
  out = _convolve(np.zeros(x), np.zeros(kernel), stride, dilation).shape
  window = hlo_pb2.Window(dimensions=[hlo_pb2.WindowDimension(
      size=3, stride=stride, window_dilation=dilation, base_dilation=1)] * 2)
  function = lambda *operands: _convolve(*operands, stride, dilation)
  want = _needed(function, [x, kernel], 0, (0, 1, 0, 1), (1, 2, 3, 2))
  assert _block("convolution", out, [x, kernel], (1, 2, 3, 2), window=window,
                convolution_dimension_numbers=small_programs.convolution_numbers()) == want


def test_depthwise_convolution():
  window = hlo_pb2.Window(dimensions=[hlo_pb2.WindowDimension(
      size=3, stride=1, window_dilation=1, base_dilation=1)] * 2)
  assert _block("convolution", (2, 6, 6, 8), [(2, 8, 8, 8), (3, 3, 1, 8)], (1, 2, 3, 4),
                window=window, feature_group_count=8,
                convolution_dimension_numbers=small_programs.convolution_numbers()) == (1, 4, 5, 4)


def test_padding_counts_as_elements_and_dilated_inputs_are_needed_in_full():
  window = hlo_pb2.Window(dimensions=[
      hlo_pb2.WindowDimension(size=3, stride=1, window_dilation=1, base_dilation=1, padding_low=1,
                              padding_high=1),
      hlo_pb2.WindowDimension(size=3, stride=1, window_dilation=1, base_dilation=2, padding_low=1,
                              padding_high=2)])
  assert _block("convolution", (2, 6, 12, 8), [(2, 6, 6, 8), (3, 3, 8, 8)], (1, 6, 3, 4),
                window=window, convolution_dimension_numbers=small_programs.convolution_numbers()
                ) == (1, 6 + 2, 6, 8)


@given(st.lists(st.tuples(st.integers(1, 2**32 - 1) | st.integers(1, 9),
                          st.integers(1, 2**32 - 1) | st.integers(1, 3)), max_size=40),
       st.lists(st.integers(1, 2**32 - 1) | st.integers(1, 50), min_size=1, max_size=5),
       st.integers(1, 3 * 2**32))
def test_windows_after_windows_are_exact(windows, sides, extent):
  side = blocks.Side(2**32 - 1, 0)
  for size, stride in windows:
    side = side.through_window(extent, size, stride)
  expected = []
  for number in sides:
    for size, stride in windows:
      number = (number - 1) * stride + size  # Python's numbers have any length.
    expected.append(min(number, side.extent))
  assert side.of(np.array(sides)[:, None]).tolist() == expected


def test_reduce_window():
  window = hlo_pb2.Window(dimensions=[
      hlo_pb2.WindowDimension(size=size, stride=stride) for size, stride in ((1, 1), (3, 2))])
  function = lambda x: np.lib.stride_tricks.sliding_window_view(x, 3, axis=1)[:, ::2].sum(axis=-1)
  want = _needed(function, [(4, 11)], 0, (1, 1), (2, 3))
  assert _block("reduce-window", [4, 5], [(4, 11)], (2, 3), window=window) == want


@pytest.mark.parametrize("result, operand, tile, block", [
    ((4, 6), (4, 1, 6), (2, 3), (2, 1, 3)),
    ((1, 4, 6), (4, 6), (1, 2, 3), (2, 3)),
    ((4, 6), (4, 2, 3), (2, 3), (2, 2, 3)),  # A split axis: both parts in full.
    ((4, 2, 3), (4, 6), (2, 1, 3), (2, 6)),
    ((2, 3, 4, 5), (6, 20), (1, 1, 1, 1), (6, 20)),
    ((4, 6), (24,), (2, 3), (24,)),
    ((6, 4), (4, 6), (2, 3), (4, 6)),
    ((1, 1), (1,), (1, 1), (1,)),
])
def test_reshape(result, operand, tile, block):
  assert _block("reshape", result, [operand], tile) == block


@given(st.data())
def test_a_reshape_needs_no_more_than_its_block(data):
  """The block covers what a tile needs; sides of axes that neither split nor join are exact."""
  shape = data.draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=3))
  volume = int(np.prod(shape))
  cuts = data.draw(st.sampled_from([
      other for length in range(1, 4)
      for other in itertools.product([1, 2, 3, 4, 6, 12], repeat=length)
      if int(np.prod(other)) == volume] or [(volume,)]))
  tile = tuple(data.draw(st.integers(1, side)) for side in cuts)
  want = _needed(lambda x: x.reshape(cuts), [tuple(shape)], 0, (0,) * len(cuts), tile)
  actual = _block("reshape", cuts, [tuple(shape)], tile)
  assert all(ours >= theirs for ours, theirs in zip(actual, want))


def test_a_bitcast_keeps_the_physical_order():
  # [2, 3, 4] stored as 3, 2, 4 (major first) is [3, 2, 4] stored in order.
  assert _block("bitcast", [3, 2, 4], [(2, 3, 4)], (1, 2, 3)) == (2, 3, 3)
  module, main = small_programs.program()
  x = small_programs.add(main, "parameter", [2, 3, 4], layout=[2, 0, 1])
  small_programs.add(main, "bitcast", [3, 2, 4], [x])
  program = value_graph.Expanded(module)
  sides = tuple(blocks.Side(extent, axis) for axis, extent in enumerate((3, 2, 4)))
  actual = blocks.operand_block(program, program.root, 0, sides)
  assert [(side.extent, side.axis) for side in actual] == [(2, 1), (3, 0), (4, 2)]


@pytest.mark.parametrize("opcode, shape, operand, block", [
    ("slice", (4, 6), (8, 6), (2, 3)), ("pad", (8, 6), (4, 6), (2, 3)),
    ("dynamic-slice", (4, 6), (8, 8), (2, 3)), ("concatenate", (4, 6), (4, 2), (2, 2)),
    ("gather", (4, 6), (4, 6), None), ("sort", (4, 6), (4, 6), None), ("iota", (4, 6), (3,), None)])
def test_other_opcodes(opcode, shape, operand, block):
  fields = {"dimensions": [1]} if opcode == "concatenate" else {}
  assert _block(opcode, shape, [operand], (2, 3), **fields) == block


@pytest.mark.parametrize("opcode, shapes, work, axes", [
    ("dot", [(4, 5), (5, 6)], 4 * 6 * 5, (1,)),
    ("reduce", [(4, 6, 5)], 4 * 6 * 5, (2,)),
    ("tanh", [(4, 6)], None, None)])
def test_contractions(opcode, shapes, work, axes):
  module, main = small_programs.program()
  ids = [small_programs.add(main, "parameter", shape) for shape in shapes]
  small_programs.add(main, opcode, [4, 6], ids, dimensions=[2] if opcode == "reduce" else [])
  program = value_graph.Expanded(module)
  actual = blocks.contraction(program, program.root)
  assert (actual and (actual.work, actual.axes)) == (work and (work, axes))
