"""Conversion of raw files to graphs: names, kinds, skipped programs, repeats."""

import numpy as np
import pytest

from tests import testdata
from tpugraphs_rank import errors
from tpugraphs_rank.hlo import convert
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import output
from tpugraphs_rank.hlo import tuning_pb2

from . import modules


def _write(path, message):
  path.write_bytes(message.SerializeToString())
  return path


def _kernel(name="k", times=(50, 60)):
  return modules.measured(
      [modules.tile_run(time_ns=t, is_default=k == 0, output=[k]) for k, t in enumerate(times)],
      modules.tiny(name))


def test_kernels(tmp_path):
  no_config = _kernel("no_config")
  no_config.runs.add(error=True)
  no_program = _kernel()
  no_program.ClearField("module")
  path = _write(tmp_path / "x.pb", tuning_pb2.TuningData(
      modules=[_kernel("a"), no_config, _kernel("b"), no_program, modules.measured([])]))
  converted = convert.convert_file(path)
  assert [(g.name, g.kind, g.runs, g.valid_runs) for g in converted.graphs] == [
      ("a", "tile", 2, 2), ("b", "tile", 2, 2)]
  assert converted.skipped == [
      ("no_config", "1 of its 3 runs lack a tile_size_config"),
      ("module 3", "it has no HLO program"), ("tiny", "it has no runs")]
  assert converted.graphs[0].arrays.keys() == {
      "node_feat", "node_opcode", "edge_index", "feature_padding", "config_feat",
      "config_runtime", "config_runtime_normalizers"}


def test_a_kernel_in_a_file_of_its_own(tmp_path):
  converted = convert.convert_file(_write(tmp_path / "x.pb", _kernel("a")))
  assert [(g.name, g.kind) for g in converted.graphs] == [("a", "tile")]


def test_layout_and_bare_programs_are_named_after_the_file(tmp_path):
  program = modules.measured([modules.layout_run([[]], is_default=True)], nodes=[1])
  [graph] = convert.convert_file(_write(tmp_path / "unet.4x4.pb", program), -1).graphs
  assert (graph.name, graph.kind) == ("unet.4x4", "layout")
  assert graph.arrays["feature_padding"] == -1
  assert set(graph.arrays) > {"node_splits", "node_config_ids", "node_config_feat"}
  for bare in (modules.tiny(), hlo_pb2.HloProto(hlo_module=modules.tiny())):
    [graph] = convert.convert_file(_write(tmp_path / "bare.pb", bare)).graphs
    assert (graph.name, graph.kind, graph.runs) == ("bare", "bare", 0)
    assert graph.arrays.keys() == {
        "node_feat", "node_opcode", "edge_index", "node_splits", "feature_padding"}


def test_errors_name_file_and_program(tmp_path):
  kernel = _kernel("bad")
  kernel.runs[0].is_default = False
  path = _write(tmp_path / "x.pb", tuning_pb2.TuningData(modules=[_kernel("good"), kernel]))
  with pytest.raises(errors.DataError, match=r"x.pb: module 'bad' \(number 1\): none of its 2"):
    convert.convert_file(path)


def test_damaged_programs_are_reported_and_the_others_converted(tmp_path):
  bad, worse = _kernel("bad"), _kernel("worse")
  bad.runs[0].is_default = False
  worse.runs[0].op_config.tile_size_config.output_bounds.append(-8)
  path = _write(tmp_path / "x.pb", tuning_pb2.TuningData(modules=[bad, _kernel("good"), worse]))
  converted = convert.convert_file(path, strict=False)
  assert [graph.name for graph in converted.graphs] == ["good"]
  assert [name for name, _ in converted.failed] == ["bad", "worse"]
  assert "module 'worse' (number 2): run 0 has output_bounds" in str(converted.failed[1][1])
  # A file in which every program is damaged is an error.
  path = _write(tmp_path / "y.pb", tuning_pb2.TuningData(modules=[bad, worse]))
  with pytest.raises(errors.DataError, match="module 'bad'"):
    convert.convert_file(path, strict=False)


@testdata.required
@pytest.mark.parametrize("name, message", [
    ("one_kernel_without_default", r"module 'bad' \(number 1\): none of its 4 valid runs"),
    ("td_negative_bounds", r"module 'k': run 2 has output_bounds \[-8, 8\]"),
    ("unbounded_dynamic_dim", r"'Arg_0.1' has shape f32\[\?,64\], whose dimension 0 has no known"),
    ("hostile/negative_dimension", r"'i1' has shape f32\[\?,8\], whose dimension 0 has no known")])
def test_damaged_files_from_the_field(name, message):
  path = testdata.path("field_cases") / f"{name}.pb"
  with pytest.raises(errors.DataError, match=message):
    convert.convert_file(path)


@testdata.required
def test_one_kernel_without_a_default_loses_no_other():
  path = testdata.path("field_cases") / "one_kernel_without_default.pb"
  converted = convert.convert_file(path, strict=False)
  assert [graph.name for graph in converted.graphs] == ["good"]
  assert [name for name, _ in converted.failed] == ["bad"]


def test_repeats(tmp_path):
  first = _write(tmp_path / "1.pb", tuning_pb2.TuningData(modules=[_kernel("a", (50, 60))]))
  other = _kernel("a", (52, 70))
  other.module.id = 77  # Another process numbers the module differently.
  second = _write(tmp_path / "2.pb", tuning_pb2.TuningData(modules=[other]))
  [graph] = convert.convert_file(first, repeats=[second]).graphs
  assert graph.arrays["config_runtime"].tolist() == [51, 65]
  assert graph.arrays["config_runtime_normalizers"].tolist() == [51, 51]
  np.testing.assert_array_equal(graph.arrays["config_runtime_passes"], [[50, 60], [52, 70]])


def _other_opcode():
  kernel = _kernel("a")
  kernel.module.computations[0].instructions[1].opcode = "abs"
  return tuning_pb2.TuningData(modules=[kernel])


@pytest.mark.parametrize("other,message", [
    (tuning_pb2.TuningData(modules=[_kernel("b")]), "program 0 is 'b', not 'a'"),
    (tuning_pb2.TuningData(modules=[_kernel("a"), _kernel("b")]), "it has 2 programs, not 1"),
    (tuning_pb2.TuningData(modules=[_kernel("a", (1, 2, 3))]), "its number of runs is 3 instead"),
    (_kernel("a"), "it holds a ModuleTuningData, not a TuningData"),
    (_other_opcode(), "their node_opcode differ"),
])
def test_repeats_of_something_else(tmp_path, other, message):
  first = _write(tmp_path / "1.pb", tuning_pb2.TuningData(modules=[_kernel("a")]))
  second = _write(tmp_path / "2.pb", other)
  with pytest.raises(errors.DataError, match="2.pb.* is not a repeat of .*1.pb.*: " + message):
    convert.convert_file(first, repeats=[second])


def test_a_bare_program_cannot_be_repeated(tmp_path):
  path = _write(tmp_path / "1.pb", modules.tiny())
  with pytest.raises(errors.DataError, match="HloModuleProto without measurements"):
    convert.convert_file(path, repeats=[path])


def test_unique_names():
  assert convert.unique_names(["fusion.1", "fusion.1", "fusion.1_2", "Fusion.1"]) == [
      "fusion.1", "fusion.1_2", "fusion.1_2_2", "Fusion.1_3"]
  assert convert.unique_names(["../etc/x", "a\\b:c", "", ".hidden", "..", "ü\n"]) == [
      "___etc_x", "a_b_c", "module", "_hidden", "__", "___2"]
  taken = {"a"}
  assert convert.unique_names(["a", "b"], taken) == ["a_2", "b"]
  assert taken == {"a", "a_2", "b"}


def test_long_names_are_cut_and_stay_distinct(tmp_path):
  long = ["a" * 251, "a" * 250 + "b", "a" * 5000]
  stems = convert.unique_names([*long, long[0]])
  assert len(set(stems)) == 4 and stems[3] == f"{stems[0]}_2"
  for stem in stems:
    assert stem.startswith("a" * 190) and len(stem) <= 210
    output.write_graph(tmp_path / f"{stem}.npz", {"x": np.arange(3)})
  assert convert.unique_names(["a" * 200]) == ["a" * 200]


def test_names_are_escaped_in_messages(tmp_path):
  kernel = _kernel("\x1b[31mk\nERROR forged\u202e")
  kernel.runs[0].is_default = False
  with pytest.raises(errors.DataError) as caught:
    convert.convert_file(_write(tmp_path / "x.pb", tuning_pb2.TuningData(modules=[kernel])))
  assert str(caught.value).isprintable()
  assert r"module '\x1b[31mk\nERROR forged\u202e'" in str(caught.value)


def test_written_graphs(tmp_path):
  arrays = {"x": np.arange(3), "feature_padding": np.array(-1)}
  path = tmp_path / "new" / "g.npz"
  assert output.check_free(path, arrays)
  output.write_graph(path, arrays)
  with np.load(path, allow_pickle=False) as stored:
    assert stored["x"].tolist() == [0, 1, 2] and stored["feature_padding"].shape == ()
  assert not output.check_free(path, arrays)
  for other in ({"x": np.arange(3)}, {**arrays, "x": np.arange(3, dtype=np.int32)},
                {**arrays, "x": np.arange(4)}):
    with pytest.raises(errors.OutputError, match="g.npz exists and has other content.*--over"):
      output.check_free(path, other)
  path.write_bytes(b"no archive")
  with pytest.raises(errors.OutputError, match="has other content"):
    output.check_free(path, arrays)
  (tmp_path / "file").write_bytes(b"")
  with pytest.raises(errors.OutputError, match="cannot write"):
    output.write_graph(tmp_path / "file" / "g.npz", arrays)
  assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "g.npz", "new"]
