"""Candidates from files: conversion, and an error for every kind of mistake."""

import numpy as np
import pytest

from tests import testdata
from tests.candidates import small_programs
from tests.hlo import modules
from tpugraphs_rank import errors
from tpugraphs_rank.candidates import layouts
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.candidates import supplied
from tpugraphs_rank.candidates import tiles
from tpugraphs_rank.data import npz
from tpugraphs_rank.hlo import convert
from tpugraphs_rank.hlo import graph
from tpugraphs_rank.hlo import tuning

PRODUCT = small_programs.data_of(small_programs.matmul(64, 32, 16))
PERCEPTRON = small_programs.data_of(small_programs.perceptron())


def _row(kernel=(), output=(), inputs=()):
  return np.concatenate([
      [*bounds, *[0] * (6 - len(bounds)), sum(bounds), np.prod(bounds, dtype=int) if bounds else 0]
      for bounds in (kernel, output, inputs)]).astype(np.float32)


ROWS = np.stack([_row((16,), (8, 4), (8, 16)), _row((4,), (8, 8)), _row((16,), (8, 4), (8, 16)),
                 _row()])


def _layouts(*configurations):
  """(c, 3, 18) layouts of the perceptron's nodes 2, 3 and 5 under each configuration."""
  feat = np.full([len(configurations), 3, 3, 6], -1, np.float32)
  for c, nodes in enumerate(configurations):
    for k, tensors in enumerate(nodes):
      for t, dims in enumerate(tensors):
        feat[c, k, t, :len(dims)] = dims
  return feat.reshape(-1, 3, 18)


IDS = np.array([2, 3, 5])
LAYOUTS = _layouts([[(0, 1)], [(), (1, 0)]], [], [[(0, 1)], [(), (1, 0)]], [[], [], [(), (), (1,)]])


def _save(folder, **arrays):
  np.savez(folder / "f.npz", **arrays)
  return folder / "f.npz"


def test_tiles_of_a_file(tmp_path):
  path = _save(tmp_path, config_feat=ROWS)
  actual = supplied.from_npz(path, PRODUCT, "tile")
  np.testing.assert_array_equal(actual.arrays["config_feat"], ROWS[[0, 1, 3]])
  assert actual.about == {"source": str(path), "given": 4, "equal": 1}
  assert [actual.index(position) for position in range(actual.count)] == [0, 1, 3]
  np.testing.assert_array_equal(
      tuning.tile_features([actual.profile(position) for position in range(3)]), ROWS[[0, 1, 3]])
  assert tuning.has_tile_size_config(actual.profile(2))  # Even though its bounds are empty.
  assert actual.default is None


def test_layouts_of_a_file(tmp_path):
  path = _save(tmp_path, node_config_ids=IDS, node_config_feat=LAYOUTS, config_runtime=np.zeros(4))
  actual = supplied.from_npz(path, PERCEPTRON, "layout")
  np.testing.assert_array_equal(actual.arrays["node_config_feat"], LAYOUTS[[0, 1, 3]])
  assert actual.arrays["node_config_ids"].tolist() == [2, 3, 5] and actual.default == 1
  assert actual.about == {"source": str(path), "given": 4, "equal": 1}
  back = small_programs.data_of(
      PERCEPTRON.module, [actual.profile(p) for p in range(3)], IDS.tolist())
  np.testing.assert_array_equal(tuning.layout_features(back, range(3)), LAYOUTS[[0, 1, 3]])


def test_written_candidates_can_be_read_again(tmp_path):
  one = tiles.enumerate_tiles(PRODUCT.module, "elements", 100, 0)
  again = supplied.from_npz(_save(tmp_path, **one.arrays), PRODUCT, "tile")
  assert [again.profile(p) for p in range(100)] == [one.profile(p) for p in range(100)]
  one = layouts.draw_layouts(PERCEPTRON, "elements", 100, 0)
  again = supplied.from_npz(_save(tmp_path, **one.arrays), PERCEPTRON, "layout")
  assert [again.profile(p) for p in range(100)] == [one.profile(p) for p in range(100)]


def test_opcodes_of_a_wrong_type_are_refused():
  stored = {"config_feat": np.zeros([1, 24], np.float32),
            "node_opcode": np.zeros(3, dtype=[("a", "i4"), ("b", "f4")])}
  with pytest.raises(errors.DataError, match="f.npz: node_opcode has dtype .*; expected whole"):
    supplied.from_arrays(stored, small_programs.data_of(small_programs.matmul(4, 5, 6)), "tile",
                         "f.npz")


def test_a_whole_graph_must_be_of_the_same_program(tmp_path):
  arrays = graph.graph_arrays(PRODUCT.module)
  supplied.from_npz(_save(tmp_path, config_feat=ROWS, **arrays), PRODUCT, "tile")
  arrays = graph.graph_arrays(PERCEPTRON.module)
  with pytest.raises(errors.DataError, match=r"f.npz: node_opcode belongs to another program "
                     r"\(6 nodes; 'product' has 3\)"):
    supplied.from_npz(_save(tmp_path, config_feat=ROWS, **arrays), PRODUCT, "tile")


def _changed(array, index, value):
  array = array.copy()
  array[index] = value
  return array


@pytest.mark.parametrize("rows, message", [
    (ROWS[:, :23], r"config_feat has shape \(4, 23\); expected \(c, 24\)"),
    (ROWS[:0], r"config_feat has shape \(0, 24\); expected"),
    (ROWS[0], r"config_feat has shape \(24,\)"),
    (_changed(ROWS, (2, 1), 0.5), r"config_feat entry \[2, 1\] is 0.5; expected whole numbers"),
    (_changed(ROWS, (3, 0), np.nan), r"config_feat entry \[3, 0\] is nan; expected whole numbers"),
    (ROWS.astype(str), "config_feat has dtype <U32; expected whole numbers"),
    (_changed(ROWS, (1, 1), -1), r"row 1 has kernel_bounds \[4, -1, 0, 0, 0, 0\]; expected sides"),
    (_changed(ROWS, (1, 8), 0), r"row 1 has output_bounds \[0, 8, 0, 0, 0, 0\]; expected sides"),
    (_changed(ROWS, (1, 6), 5), r"row 1 has kernel_bounds \[4\] with sum and product "
     r"\[5.0, 4.0\]; expected \[4, 4\]"),
    (_changed(ROWS, (3, 7), 1), r"row 3 has kernel_bounds \[\] with sum and product \[0.0, 1.0\]; "
     r"expected \[0, 0\]"),
])
def test_tiles_that_are_refused(tmp_path, rows, message):
  with pytest.raises(errors.DataError, match=f"f.npz: .*{message}"):
    supplied.from_npz(_save(tmp_path, config_feat=rows), PRODUCT, "tile")


@pytest.mark.parametrize("ids, rows, message", [
    (IDS[None], LAYOUTS, r"node_config_ids has shape \(1, 3\); expected \(nc,\)"),
    (IDS[:2], LAYOUTS, r"node_config_feat has shape \(4, 3, 18\); expected \(c, 2, 18\), as "
     "node_config_ids names 2 nodes"),
    (IDS, LAYOUTS[..., :17], r"has shape \(4, 3, 17\); expected \(c, 3, 18\)"),
    (IDS, LAYOUTS[:0], r"has shape \(0, 3, 18\); expected .* at least one configuration"),
    (IDS + 0.5, LAYOUTS, r"node_config_ids entry \[0\] is 2.5; expected whole numbers"),
    (np.array([2, 3, 6]), LAYOUTS, "6 is configured, but 'perceptron' has nodes 0 to 5"),
    (np.array([2, -3, 5]), LAYOUTS, "-3 is configured, but"),
    (np.array([2, 3, 3]), LAYOUTS, "a node is configured twice"),
    (IDS, _changed(LAYOUTS, (1, 2, 7), 0.5), r"node_config_feat entry \[1, 2, 7\] is 0.5"),
    # Padded with 0; configurations must be padded with -1.
    (IDS, _layouts([], [[], [(1, 0, 0, 0, 0, 0)]]), r"configuration 1, node 3 \(reshape\): layout "
     r"\[1, 0, 0, 0, 0, 0\] of its output; expected distinct axes from 0 to 1, minor to major, "
     "then -1"),
    (IDS, _layouts([], [[], [], [(), (1, 1)]]), r"configuration 1, node 5 \(dot\): layout "
     r"\[1, 1, -1, -1, -1, -1\] of its input"),
    (IDS, _layouts([[(), (), (0, 2)]]), r"configuration 0, node 2 \(dot\): layout \[0, 2, .* of "
     "its kernel; expected distinct axes from 0 to 1"),
    (IDS, _layouts([[(-1, 1)]]), r"layout \[-1, 1, -1, -1, -1, -1\] of its output"),
    (IDS, _layouts([[(0, -2)]]), r"layout \[0, -2, -1, -1, -1, -1\] of its output"),
    (IDS, _layouts([[], [(), (), (0,)]]), r"node 3 \(reshape\): layout \[0, -1, .* of its kernel; "
     "expected only -1, as there is no such tensor"),
])
def test_layouts_that_are_refused(tmp_path, ids, rows, message):
  path = _save(tmp_path, node_config_ids=ids, node_config_feat=rows)
  with pytest.raises(errors.DataError, match=f"f.npz: .*{message}"):
    supplied.from_npz(path, PERCEPTRON, "layout")


def test_mistakes_are_reported_with_their_row(tmp_path):
  rows = np.repeat(LAYOUTS[:1], 2500, axis=0)
  rows[2300, 1, 0] = 7
  with pytest.raises(errors.DataError, match=r"configuration 2300, node 3 \(reshape\): .* \[7,"):
    supplied.from_npz(_save(tmp_path, node_config_ids=IDS, node_config_feat=rows), PERCEPTRON,
                   "layout")
  rows[2300, 1, 0] = 0.5
  with pytest.raises(errors.DataError, match=r"entry \[2300, 1, 0\] is 0.5"):
    supplied.from_npz(_save(tmp_path, node_config_ids=IDS, node_config_feat=rows), PERCEPTRON,
                   "layout")


def test_files_of_the_other_kind_or_of_none(tmp_path):
  with pytest.raises(errors.CompatibilityError, match="holds tile configurations, but the run "
                     "ranks layouts; supply node_config_ids and node_config_feat"):
    supplied.from_npz(_save(tmp_path, config_feat=ROWS), PERCEPTRON, "layout")
  with pytest.raises(errors.CompatibilityError, match="holds layout configurations, but the run"):
    supplied.from_npz(_save(tmp_path, node_config_feat=LAYOUTS), PRODUCT, "tile")
  with pytest.raises(errors.DataError, match=r"lacks node_config_ids \(it has: node_config_feat\)"):
    supplied.from_npz(_save(tmp_path, node_config_feat=LAYOUTS), PERCEPTRON, "layout")
  with pytest.raises(errors.DataError, match=r"lacks config_feat \(it has: no known key\)"):
    supplied.from_npz(_save(tmp_path, other=ROWS), PRODUCT, "tile")
  with pytest.raises(errors.MissingDataError, match="no file .*none.npz"):
    supplied.from_npz(tmp_path / "none.npz", PRODUCT, "tile")
  (tmp_path / "text.npz").write_text("no")
  with pytest.raises(errors.DataError, match="text.npz"):
    supplied.from_npz(tmp_path / "text.npz", PRODUCT, "tile")


def test_runs_of_kernels_measured_or_not():
  runs = [modules.tile_run(None, output=(8, 4)), modules.tile_run(50, output=(4, 4)),
          modules.tile_run(60, output=(8, 4), is_default=True),
          modules.tile_run(None, output=(2, 2), error=True), modules.layout_run([])]
  data = small_programs.data_of(PRODUCT.module, runs)
  assert supplied.has_runs(data, "tile") and supplied.has_runs(data, "layout")
  actual = supplied.from_runs(data, "tile")
  np.testing.assert_array_equal(
      actual.arrays["config_feat"], np.stack([_row(output=(8, 4)), _row(output=(4, 4))]))
  # The default equals the first run, which represents both.
  assert actual.default == 0 and actual.about == {"source": "runs", "given": 5, "equal": 1}
  assert [actual.index(position) for position in range(2)] == [0, 1]
  assert actual.profile(1).op_config == runs[1].op_config
  assert not actual.profile(1).HasField("profile")


def test_runs_of_programs():
  runs = [modules.layout_run([[(0, 1)], [], []]), modules.layout_run([[], [], []], is_default=True),
          modules.layout_run([[(0, 1)], [()], []])]
  data = small_programs.data_of(PERCEPTRON.module, runs, IDS.tolist())
  actual = supplied.from_runs(data, "layout")
  np.testing.assert_array_equal(actual.arrays["node_config_feat"], _layouts([[(0, 1)]], []))
  assert actual.default == 1 and actual.count == 2
  assert actual.profile(0).module_config == runs[0].module_config


def test_runs_that_are_refused():
  data = small_programs.data_of(PRODUCT.module, [modules.layout_run([])])
  assert not supplied.has_runs(data, "tile")
  with pytest.raises(errors.DataError, match="mine has no tile configurations in its file; "
                     "expected runs with a tile_size_config; .* --candidates auto"):
    supplied.from_runs(data, "tile", "mine")
  data = small_programs.data_of(PERCEPTRON.module, [modules.layout_run([[(0, 0)]])], [2])
  with pytest.raises(errors.DataError, match="mine: configuration 0, node 2"):
    supplied.from_runs(data, "layout", "mine")
  data = small_programs.data_of(PERCEPTRON.module, [modules.layout_run([[(0, 1)]])], [9])
  with pytest.raises(errors.DataError, match="mine: 9 is configured"):
    supplied.from_runs(data, "layout", "mine")


@testdata.required
@pytest.mark.parametrize("name, kind", [
    ("op_tuning_data.pb", "tile"), ("module_tuning_data_layout.pb", "layout")])
def test_real_runs(name, kind, tmp_path):
  path = testdata.path("tpu_raw") / name
  featurised = {graph.name: graph.arrays for graph in convert.convert_file(path).graphs}
  for program in programs.read(path):
    actual = supplied.from_runs(program.data, kind)
    arrays = featurised[program.name if kind == "tile" else path.stem]
    key = "config_feat" if kind == "tile" else "node_config_feat"
    measured = {row.tobytes() for row in arrays[key] + np.float32(0)}
    assert measured <= {row.tobytes() for row in actual.arrays[key] + np.float32(0)}
    # The measured graph can be supplied as the candidates of its own program.
    again = supplied.from_npz(_save(tmp_path, **arrays), program.data, kind)
    assert again.count == len(measured)
    assert npz.read_arrays(tmp_path / "f.npz", [key])[key].shape[0] == again.about["given"]
