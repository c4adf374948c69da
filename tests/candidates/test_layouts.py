"""Layout candidates of a program."""

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import testdata
from tests.candidates import small_programs
from tpugraphs_rank import errors
from tpugraphs_rank.candidates import layouts
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.collect.layout import configurations as configurations_lib
from tpugraphs_rank.hlo import tuning
from tpugraphs_rank.hlo import tuning_pb2


def _convolution():
  """A convolution of [2, 8, 8, 3] with [3, 3, 3, 4]."""
  module, main = small_programs.program("convolution")
  x = small_programs.add(main, "parameter", [2, 8, 8, 3])
  w = small_programs.add(main, "parameter", [3, 3, 3, 4], parameter_number=1)
  small_programs.add(main, "convolution", [2, 6, 6, 4], [x, w],
           convolution_dimension_numbers=small_programs.convolution_numbers())
  return module


def _rows(candidates):
  return candidates.arrays["node_config_feat"].astype(int).reshape(candidates.count, -1, 3, 6)


def test_sites_are_dots_convolutions_and_reshapes():
  actual = layouts.sites(small_programs.perceptron(4, 6))
  assert [(site.node, site.opcode, site.shapes) for site in actual] == [
      (2, "dot", ((4, 12), (4, 6), (6, 12))), (3, "reshape", ((8, 6), (4, 12))),
      (5, "dot", ((8, 3), (8, 6), (6, 3)))]


def test_nodes_are_counted_across_computations():
  module, main = small_programs.program()
  inner = module.computations.add(id=2, name="inner")
  for computation in (main, inner):
    p = small_programs.add(computation, "parameter", [4, 6])
    small_programs.add(computation, "reshape", [24], [p])
  assert [site.node for site in layouts.sites(module)] == [1, 3]


def test_tensors_with_one_layout_offer_no_choice():
  module, main = small_programs.program()
  vector = small_programs.add(main, "parameter", [24])
  small_programs.add(main, "reshape", [1, 24], [vector])  # No tensor has a choice: no site.
  small_programs.add(main, "reshape", [4, 6], [vector])
  [site] = layouts.sites(module)
  assert site.node == 2 and site.layouts(0, "elements") == ((0, 1), (1, 0))
  assert site.layouts(1, "elements") == ()
  seven = layouts.Site(0, "reshape", ((2,) * 7, (2,) * 6))
  assert seven.layouts(0, "elements") == () and len(seven.layouts(1, "elements")) == 720


def test_layouts_of_a_convolution():
  [site] = layouts.sites(_convolution())
  every = tuple(itertools.permutations(range(4)))
  assert [site.layouts(tensor, "xla_cpu") for tensor in range(3)] == [every] * 3
  # Batch and feature of output and input, input and output feature of the kernel.
  assert [site.layouts(tensor, "tpu") for tensor in range(3)] == [
      ((0, 3), (3, 0)), ((0, 3), (3, 0)), ((2, 3), (3, 2))]


def test_small_spaces_are_enumerated():
  module, main = small_programs.program()
  p = small_programs.add(main, "parameter", [4, 6])
  small_programs.add(main, "reshape", [2, 2, 6], [p])
  actual = layouts.draw_layouts(small_programs.data_of(module), "elements", 100, seed=0)
  expected = {(one, two) for one in [(), *itertools.permutations(range(3))]
              for two in [(), *itertools.permutations(range(2))]}
  rows = [tuple(tuple(axis for axis in tensor if axis >= 0) for tensor in row[0])
          for row in _rows(actual).tolist()]
  assert len(rows) == len(expected) == 7 * 3
  assert {row[:2] for row in rows} == expected and {row[2] for row in rows} == {()}
  assert rows[0] == ((), (), ()) and actual.default == 0
  assert actual.about == {"source": "auto", "tiling": "elements", "legal": 21, "seed": 0}


@given(st.integers(1, 60), st.integers(0, 5), st.sampled_from(["tpu", "elements"]))
def test_draws_are_distinct_and_begin_with_the_default(most, seed, tiling):
  actual = layouts.draw_layouts(small_programs.data_of(_convolution()), tiling, most, seed)
  rows = _rows(actual)
  assert actual.count == min(most, math.prod(
      len(layouts.sites(_convolution())[0].layouts(tensor, tiling)) + 1 for tensor in range(3)))
  assert (rows[0] == -1).all() and actual.default == 0
  assert len(np.unique(actual.arrays["node_config_feat"], axis=0)) == actual.count
  for row in rows.reshape(-1, 3, 6).tolist():
    for tensor, dims in enumerate(row):
      named = tuple(axis for axis in dims if axis >= 0)
      assert dims == [*named, *[-1] * (6 - len(named))]
      assert not named or named in layouts.sites(_convolution())[0].layouts(tensor, tiling)


def test_half_are_near_the_default_and_half_are_uniform():
  chain, main = small_programs.program("chain")
  x = small_programs.add(main, "parameter", [4, 6])
  for _ in range(40):  # 80 slots
    x = small_programs.add(main, "reshape", [6, 4] if len(main.instructions) % 2 else [4, 6], [x])
  actual = layouts.draw_layouts(small_programs.data_of(chain), "elements", 401, seed=3)
  assert {key: actual.about[key] for key in ("default", "near", "uniform")} == {
      "default": 1, "near": 200, "uniform": 200}
  requests = (_rows(actual)[..., 0] >= 0).sum(axis=(1, 2))
  assert requests[0] == 0 and 1 <= requests[1:201].min() and requests[1:201].max() <= 80 // 8
  # The share of the 80 slots is uniform: mean 40, deviation 80 / sqrt(12), of the mean of 200 1.6.
  assert abs(requests[201:].mean() - 40) < 5 * 1.7
  assert requests[201:].min() < 10 and requests[201:].max() > 70


def test_draws_are_seeded_and_counted():
  data = small_programs.data_of(_convolution())
  first, again, other = (layouts.draw_layouts(data, "elements", 300, seed) for seed in (1, 1, 2))
  np.testing.assert_array_equal(*(actual.arrays["node_config_feat"] for actual in (first, again)))
  assert first.about == again.about
  assert not np.array_equal(*(actual.arrays["node_config_feat"] for actual in (first, other)))
  assert first.about["near"] + first.about["uniform"] + 1 == first.count == 300


def test_a_space_that_is_almost_used_up():
  # 27 configurations, of which 26 are wanted: most draws are equal to an earlier one.
  actual = layouts.draw_layouts(small_programs.data_of(_convolution()), "tpu", 26, seed=0)
  assert actual.count == 26 and actual.about["equal_draws"] > 0


def test_the_nodes_that_the_file_names_are_configured():
  data = small_programs.data_of(small_programs.perceptron(), nodes=[5, 2])
  actual = layouts.draw_layouts(data, "elements", 50, 0)
  assert actual.arrays["node_config_ids"].tolist() == [5, 2]
  data = small_programs.data_of(small_programs.perceptron())
  assert layouts.draw_layouts(data, "elements", 50, 0).arrays[
      "node_config_ids"].tolist() == [2, 3, 5]


@pytest.mark.parametrize("tiling", ["tpu", "elements"])
def test_raw_data_read_back_as_the_same_features(tiling):
  for module in (small_programs.perceptron(), _convolution()):
    actual = layouts.draw_layouts(small_programs.data_of(module), tiling, 40, seed=0)
    data = tuning_pb2.ModuleTuningData(
        module=module, config_index_to_node=actual.arrays["node_config_ids"].tolist(),
        runs=[actual.profile(position) for position in range(actual.count)])
    np.testing.assert_array_equal(
        tuning.layout_features(data, range(actual.count)), actual.arrays["node_config_feat"])
    # As many tensors as the instruction has, and no more.
    lengths = [len(node.tensors) for node in data.runs[0].module_config.layout_config.nodes]
    assert lengths == [len(site.shapes) for site in layouts.sites(module)]


def test_the_collector_reads_drawn_layouts():
  actual = layouts.draw_layouts(small_programs.data_of(_convolution()), "xla_cpu", 40, seed=0)
  nodes = [actual.profile(position).module_config.layout_config.nodes for position in range(40)]
  configurations = [tuple(tuple(tuple(tensor.dims) for tensor in node.tensors) for node in listed)
                    for listed in nodes]
  assert [configurations_lib.from_text(configurations_lib.to_text(one))
          for one in configurations] == configurations


@testdata.required
def test_layouts_measured_on_a_tpu_are_among_the_choices():
  [program] = programs.read(testdata.path("tpu_raw") / "module_tuning_data_layout.pb")
  nodes = [int(node) for node in program.data.config_index_to_node]
  actual = layouts.sites(program.data.module, nodes)
  assert [site.opcode for site in actual].count("convolution") == 53
  checked = 0
  for run in program.data.runs:
    for site, node in zip(actual, run.module_config.layout_config.nodes):
      for tensor, config in enumerate(node.tensors):
        if site.opcode == "convolution":
          assert tuple(config.dims) in site.layouts(tensor, "tpu")
          checked += 1
  assert checked == 3 * 53 * sum(run.HasField("module_config") for run in program.data.runs)
  # The same nodes would be chosen, except for reshapes of scalars, which offer no choice.
  assert {site.node for site in actual if any(len(shape) > 1 for shape in site.shapes)} == {
      site.node for site in layouts.sites(program.data.module)}


def test_programs_without_a_choice():
  module, main = small_programs.program()
  p = small_programs.add(main, "parameter", [4, 6])
  small_programs.add(main, "tanh", [4, 6], [p])
  with pytest.raises(errors.DataError, match="mine has no dot, convolution or reshape with more"):
    layouts.draw_layouts(small_programs.data_of(module), "elements", 10, 0, "mine")
  with pytest.raises(errors.ConfigError, match="the maximum number of candidates is -1"):
    layouts.draw_layouts(small_programs.data_of(small_programs.perceptron()), "elements", -1, 0)
