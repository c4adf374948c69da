"""The simulated layout assignment: programs worked out by hand, and a simulation without arrays."""

import pathlib

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tests.costs import layout_programs
from tests.costs import layout_reference
import tpugraphs_rank
from tpugraphs_rank.costs import layout_assignment
from tpugraphs_rank.costs import targets
from tpugraphs_rank.data import npz

_BUNDLED = pathlib.Path(tpugraphs_rank.__file__).parent / "bundled" / "layout_xla_cpu_mixed" / "npz"
_TARGETS = pytest.mark.parametrize("facts", [targets.CPU, targets.TPU], ids=["cpu", "tpu"])


def _named(graph, facts=targets.CPU):
  """For each configuration {(site, tensor): {effect: value}} of the effects other than 0."""
  effects = layout_assignment.Assignment(graph, facts).effects(
      graph.layouts(np.arange(graph.num_configs)))
  names = list(layout_assignment.EFFECTS)
  results = []
  for values in effects:
    found: dict = {}
    for site, tensor, effect in np.argwhere(values):
      found.setdefault((site, tensor), {})[names[effect]] = float(values[site, tensor, effect])
    results.append(found)
  return results


def _elementwise_before_a_product():
  """exp(a) * 2 + a, then a product: the case of `test_an_operand`."""
  program = layout_programs.Program()
  a = program.add("parameter", [256, 32])
  two = program.add("constant", [])
  exp = program.add("exponential", [256, 32], [a])
  twos = program.add("broadcast", [256, 32], [two])
  product = program.add("multiply", [256, 32], [exp, twos])
  total = program.add("add", [256, 32], [product, a])
  b = program.add("parameter", [32, 48])
  dot = program.add("dot", [256, 48], [total, b])
  return program, dot


def test_an_operand():
  """XLA copies `a` for each of two users, runs all operations along the other axis, and copies the
  result back for the product."""
  program, dot = _elementwise_before_a_product()
  default, requested = _named(program.graph([{}, {(dot, 1): [0, 1]}]))
  n = 256 * 32
  assert default == {}
  assert requested == {(0, 1): {
      "copy_near": 3 * n, "copy_runs": 2 * n / 256 + n / 32,
      "loop_changed": 3 * n, "loop_runs": 3 * (n / 256 - n / 32),  # Broadcast, product and sum.
      "math_changed": n, "math_runs": n / 256 - n / 32, "barrier": n}}


def test_an_output():
  """XLA copies the result of a product, and copies it back before the users."""
  program = layout_programs.Program()
  dot = program.add("dot", [256, 48], [program.add("parameter", [256, 32]),
                                       program.add("parameter", [32, 48])])
  program.add("tanh", [256, 48], [dot])
  program.add("negate", [256, 48], [dot])
  _, other, same = _named(program.graph([{}, {(dot, 0): [0, 1]}, {(dot, 0): [1, 0]}]))
  n = 256 * 48
  assert other == {(0, 0): {"copy_near": 2 * n, "copy_runs": n / 256 + n / 48}}
  assert same == {(0, 0): {"row_major": n}}


def test_a_transpose_that_needs_no_copy():
  """The copy that the default makes comes before or after the request; no other is needed."""
  program = layout_programs.Program()
  a = program.add("parameter", [256, 32])
  transposed = program.add("transpose", [32, 256], [a], [1, 0])
  dot = program.add("dot", [32, 48], [transposed, program.add("parameter", [256, 48])])
  _, natural, row_major = _named(program.graph([{}, {(dot, 1): [0, 1]}, {(dot, 1): [1, 0]}]))
  assert natural == {(0, 1): {"barrier": 256 * 32}}
  assert row_major == {(0, 1): {"barrier": 256 * 32, "row_major": 256 * 32}}


def test_a_broadcast_passes_the_order_of_the_axes_it_has():
  program = layout_programs.Program()
  a = program.add("dot", [64, 48], [program.add("parameter", [64, 32]),
                                    program.add("parameter", [32, 48])])
  wide = program.add("broadcast", [64, 48, 16], [a], [0, 1])
  dot = program.add("dot", [64, 48, 8], [wide, program.add("parameter", [16, 8])])
  _, moved, kept = _named(program.graph([{}, {(dot, 1): [0, 1, 2]}, {(dot, 1): [1, 0, 2]}]))
  n, big = 64 * 48, 64 * 48 * 16
  assert moved[1, 1]["copy_near"] == n  # Of the product, for the broadcast.
  # Back to row-major order: between two uses of a line, 16 x 48 others are read.
  assert moved[1, 1]["copy_middle"] == moved[1, 1]["loop_changed"] == big
  # The broadcast runs in another order, but its operand stays row-major.
  assert kept[1, 1]["copy_near"] == big and kept[1, 1]["loop_changed"] == big


def test_a_reduction_writes_in_order_and_reads_row_major():
  program = layout_programs.Program()
  a = program.add("parameter", [8, 32, 16])
  total = program.add("reduce", [8, 16], [a, program.add("constant", [])], [1])
  dot = program.add("dot", [8, 4], [total, program.add("parameter", [16, 4])])
  _, requested = _named(program.graph([{}, {(dot, 1): [0, 1]}]))
  assert requested == {(0, 1): {
      "copy_near": 8 * 16, "copy_runs": 8, "sum_changed": 8 * 32 * 16, "barrier": 8 * 16}}


def test_padding_to_register_tiles():
  """On hardware with register tiles of 8 x 128, a product of 200 x 8 rows pads 8 to 128 columns."""
  program = layout_programs.Program()
  dot = program.add("dot", [200, 8], [program.add("parameter", [200, 64]),
                                      program.add("parameter", [64, 8])])
  _, output, operand = _named(program.graph(
      [{}, {(dot, 0): [0, 1]}, {(dot, 1): [0, 1]}]), targets.TPU)
  assert output[0, 0]["padding"] == 256 * 8 - 200 * 128
  assert operand[0, 1]["padding"] == 256 * 64 - 200 * 128
  assert output[0, 0]["copy_near"] == 200 * 8  # Back to row-major order, for the caller.


def _gated(bias):
  """A gated sum: four arrays and, if `bias`, a vector along the minor-most axis."""
  program = layout_programs.Program()
  arrays = [program.add("parameter", [64, 32]) for _ in range(3)]
  if bias:
    arrays.append(program.add(
        "broadcast", [64, 32], [program.add("parameter", [32])], [1]))
  value = program.add("exponential", [64, 32], [arrays[0]])
  for array in arrays[1:]:
    value = program.add("add", [64, 32], [value, array])
  dot = program.add("dot", [64, 8], [value, program.add("parameter", [32, 8])])
  return program.graph([{}, {(dot, 1): [0, 1]}])


def test_a_wide_loop_over_costly_functions():
  """Along rows the loop walks along four arrays, along columns the bias is a number."""
  assert _named(_gated(True))[1][0, 1]["math_wide"] == -64 * 32
  assert "math_wide" not in _named(_gated(False))[1][0, 1]


@_TARGETS
@settings(max_examples=40)
@given(st.integers(0, 10 ** 6), st.integers(4, 25))
def test_random_programs(facts, seed, size):
  graph = layout_programs.random_program(np.random.default_rng(seed), size)
  layouts = graph.layouts(np.arange(graph.num_configs))
  actual = layout_assignment.Assignment(graph, facts).effects(layouts)
  np.testing.assert_allclose(
      actual, layout_reference.effects(graph, facts, layouts), rtol=1e-5, atol=1e-3)
  assert not actual[0].any()  # The default.


@_TARGETS
@pytest.mark.parametrize("stem", [
    "conv_autoencoder.2x48x16x2.forward", "block_diagonal.320x4x32x2.training"])
def test_bundled_programs(facts, stem):
  graph = npz.load_graph(_BUNDLED / "train" / f"{stem}.npz")
  layouts = graph.layouts(np.arange(0, graph.num_configs, 9))
  simulated = layout_assignment.Assignment(graph, facts)
  actual = simulated.effects(layouts)
  np.testing.assert_allclose(
      actual, layout_reference.effects(graph, facts, layouts), rtol=1e-5, atol=1e-2)
  np.testing.assert_array_equal(simulated.effects(layouts[::-1]), actual[::-1])


def test_features_that_contradict_one_another():
  """Axes of a transpose that are no permutation, and shapes that do not multiply to the volume."""
  program = layout_programs.Program()
  a = program.add("parameter", [4, 8])
  program.rows[a][28] = 1e30
  bad = program.add("transpose", [8, 4], [program.add("parameter", [4, 8])], [1, 1])
  dot = program.add("dot", [8, 4], [bad, a])
  graph = program.graph([{}, {(dot, 1): [0, 1], (dot, 2): [5, 5, 0]}])
  _, effects = _named(graph)
  # The parameter of unknown shape is the larger one, so it is the input; nothing reorders it.
  assert effects == {(0, 2): {"copy_near": 64, "copy_runs": 32 / 8 + 32 / 4}}
