"""Valid runs, their normalizer, configurations and repeated measurements."""

import numpy as np
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.hlo import tuning
from tpugraphs_rank.hlo import tuning_pb2

from . import modules


def test_valid_tile_runs():
  runs = [
      modules.tile_run(time_ns=None),
      modules.tile_run(time_ns=500, is_default=True, error=True),
      modules.tile_run(time_ns=1),
      modules.tile_run(time_ns=2, output=[4]),
      modules.tile_run(time_ns=70, is_default=True),
      modules.tile_run(time_ns=90, is_default=True),
      modules.tile_run(time_ns=0, is_default=True),
  ]
  actual = tuning.tile_arrays([modules.measured(runs)])
  assert (actual.total, actual.valid) == (7, 3)
  assert actual.arrays["config_runtime"].tolist() == [2, 70, 90]
  # The first valid default run's.
  assert actual.arrays["config_runtime_normalizers"].tolist() == [70, 70, 70]
  assert actual.arrays.keys() == {"config_feat", "config_runtime", "config_runtime_normalizers"}
  assert actual.arrays["config_feat"].dtype == np.float32
  assert actual.arrays["config_runtime"].dtype == np.int64
  assert actual.arrays["config_runtime_normalizers"].dtype == np.int64


def test_tile_bounds():
  run = modules.tile_run(
      is_default=True, kernel=[2, 3, 4, 5, 6, 7, 8], output=[], inputs=[9, 2])
  run.op_config.tile_size_config.iteration_bounds.extend([11, 12])  # not a feature
  actual = tuning.tile_arrays([modules.measured([run])])
  np.testing.assert_array_equal(actual.arrays["config_feat"], [[
      2, 3, 4, 5, 6, 7, 2 + 3 + 4 + 5 + 6 + 7 + 8, 2 * 3 * 4 * 5 * 6 * 7 * 8,
      0, 0, 0, 0, 0, 0, 0, 0,  # empty: the product is 0 too
      9, 2, 0, 0, 0, 0, 9 + 2, 9 * 2]])


def test_negative_bounds_are_refused():
  runs = [modules.tile_run(is_default=True), modules.tile_run(output=[8, -8])]
  with pytest.raises(errors.DataError, match=r"k.pb: run 1 has output_bounds \[8, -8\]; expected"):
    tuning.tile_arrays([modules.measured(runs)], "k.pb")
  runs[1].error = True  # A failed run is not used.
  assert tuning.tile_arrays([modules.measured(runs)]).valid == 1
  runs = [modules.layout_run([[[0, -1]]], is_default=True)]
  with pytest.raises(errors.DataError, match=r"run 0, node 0 has layout \[0, -1\]; expected axes"):
    tuning.layout_arrays([modules.measured(runs, nodes=[0])], node_count=1)


def test_two_default_configurations_are_refused():
  runs = [modules.tile_run(is_default=True, output=[8]), modules.tile_run(output=[16]),
          modules.tile_run(is_default=True, output=[8])]
  assert tuning.tile_arrays([modules.measured(runs)]).valid == 3  # One of them, measured twice.
  runs[1].is_default = True
  with pytest.raises(errors.DataError, match="k.pb: runs 0 and 1 are both marked is_default"):
    tuning.tile_arrays([modules.measured(runs)], "k.pb")


def test_tiles_larger_than_any_array_are_refused():
  run = modules.tile_run(is_default=True, kernel=[2**62, 2])
  with pytest.raises(errors.LimitError, match="k.pb: the product of the kernel_bounds of run 0 is"):
    tuning.tile_arrays([modules.measured([run])], "k.pb")
  failed = modules.tile_run(is_default=False, kernel=[2**62, 2], error=True)
  run = modules.tile_run(is_default=True, kernel=[2**24, 2**23])
  actual = tuning.tile_arrays([modules.measured([run, failed])])
  assert actual.arrays["config_feat"][0, 7] == 2.0**47


def test_layout_runs_and_rows():
  runs = [
      modules.layout_run([[[1, 0]], []], time_ns=30),
      modules.layout_run([[[1, 0], [0], [3, 2, 1]], [[], [5, 4, 3, 2, 1, 0, 6]]], time_ns=20,
                         is_default=True),
      modules.layout_run([[], []], time_ns=None, is_default=True),
      modules.layout_run([[], []], error=True),
      tuning_pb2.ConfigProfile(),
  ]
  actual = tuning.layout_arrays([modules.measured(runs, nodes=[1, 0])], node_count=2)
  assert (actual.total, actual.valid) == (5, 2)
  pad = [-1] * 6
  np.testing.assert_array_equal(actual.arrays["node_config_feat"], [
      [[1, 0, -1, -1, -1, -1] + pad + pad, pad * 3],
      [[1, 0, -1, -1, -1, -1] + [0, -1, -1, -1, -1, -1] + [3, 2, 1, -1, -1, -1],
       pad + [5, 4, 3, 2, 1, 0] + pad]])
  assert actual.arrays["node_config_feat"].dtype == np.float32
  assert actual.arrays["node_config_ids"].tolist() == [1, 0]
  assert actual.arrays["node_config_ids"].dtype == np.int64
  assert actual.arrays["config_runtime"].tolist() == [30, 20]
  assert actual.arrays["config_runtime_normalizers"].tolist() == [20, 20]


def test_layout_of_a_program_without_configurable_nodes():
  actual = tuning.layout_arrays([modules.measured([modules.layout_run([], is_default=True)])], 2)
  assert actual.arrays["node_config_feat"].shape == (1, 0, 18)
  assert actual.arrays["node_config_ids"].shape == (0,)


@pytest.mark.parametrize("runs", [
    [], [modules.tile_run()], [modules.tile_run(is_default=True, error=True), modules.tile_run()]])
def test_no_default_run(runs):
  with pytest.raises(errors.DataError, match="k.pb: none of its .* valid runs .* is_default"):
    tuning.tile_arrays([modules.measured(runs)], "k.pb")


@pytest.mark.parametrize("runs,nodes,message", [
    ([modules.layout_run([[]], is_default=True)], [2], "config_index_to_node holds 2.* 0 to 1"),
    ([modules.layout_run([[]], is_default=True)], [2**64 - 1], "config_index_to_node holds 1844"),
    ([modules.layout_run([[]], is_default=True)], [0, 1], "run 0 configures 1 nodes; expected 2"),
    ([modules.layout_run([[[0]] * 4], is_default=True)], [0],
     "run 0, node 0 configures 4 tensors; expected at most 3"),
    ([modules.layout_run([[]], is_default=True), modules.layout_run([[]], time_ns=0)], [0],
     "run 1 of measurement 1 has compute_time_ns 0"),
])
def test_configurations_that_do_not_fit(runs, nodes, message):
  with pytest.raises(errors.DataError, match="p.pb.*" + message):
    tuning.layout_arrays([modules.measured(runs, nodes=nodes)], 2, "p.pb")


def test_hidden_runtimes_stay_zero():
  runs = [modules.layout_run([], time_ns=0, is_default=True), modules.layout_run([], time_ns=0)]
  actual = tuning.layout_arrays([modules.measured(runs)], 2)
  assert actual.arrays["config_runtime"].tolist() == [0, 0]


def _passes(*times):
  """Measurements of the same runs; each list of times begins with the default's."""
  return [modules.measured([modules.tile_run(time_ns=t, is_default=k == 0, output=[k])
                            for k, t in enumerate(of_pass)]) for of_pass in times]


def test_repeated_measurements_are_averaged():
  actual = tuning.tile_arrays(_passes([10, 100, 7], [12, 103, 8]))
  assert actual.arrays["config_runtime"].tolist() == [11, 102, 8]  # 101.5 and 7.5: to even
  assert actual.arrays["config_runtime_normalizers"].tolist() == [11, 11, 11]
  np.testing.assert_array_equal(
      actual.arrays["config_runtime_passes"], [[10, 100, 7], [12, 103, 8]])
  assert actual.arrays["config_runtime_passes"].dtype == np.int64


def test_a_run_must_be_valid_in_every_measurement():
  passes = _passes([10, 100, 7, 5], [12, 1, 8, 6], [14, 90, 9, 7])
  passes[2].runs[2].error = True
  actual = tuning.tile_arrays(passes)
  assert actual.valid == 2
  assert actual.arrays["config_runtime"].tolist() == [12, 6]
  assert actual.arrays["config_feat"][:, 8].tolist() == [0, 3]
  passes[1].runs[0].error = True
  with pytest.raises(errors.DataError, match="is_default"):
    tuning.tile_arrays(passes)


@pytest.mark.parametrize("change,message", [
    (lambda m: m.runs.pop(), "its number of runs is 1 instead of 2"),
    (lambda m: m.runs[1].op_config.tile_size_config.output_bounds.append(3),
     "run 1 has another configuration"),
    (lambda m: m.runs[1].ClearField("op_config"), "run 1 has another configuration"),
    (lambda m: setattr(m.runs[0], "is_default", False), "run 0 has is_default False"),
    (lambda m: m.config_index_to_node.append(1), "config_index_to_node holds other nodes"),
])
def test_repeats_of_other_runs(change, message):
  first, other = _passes([10, 100], [12, 103])
  tuning.check_same_runs(first, other, "a.pb", "b.pb")
  change(other)
  with pytest.raises(errors.DataError, match="b.pb is not a repeat of a.pb: " + message):
    tuning.check_same_runs(first, other, "a.pb", "b.pb")
