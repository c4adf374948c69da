"""The featurize command, from the command line to the files."""

import gzip
import pathlib

import numpy as np
import pytest

from tests import testdata
from tests.helpers import commands
from tpugraphs_rank import errors
from tpugraphs_rank.cli import featurize
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import tuning_pb2


def _module(name="k"):
  return hlo_pb2.HloModuleProto(name=name, computations=[hlo_pb2.HloComputationProto(
      name="main", id=1, root_id=1,
      instructions=[hlo_pb2.HloInstructionProto(id=1, opcode="parameter")])])


def _kernels(path, names, times=(50, 60)):
  tuning = tuning_pb2.TuningData()
  for name in names:
    module = tuning.modules.add(module=_module(name))
    for k, time in enumerate(times):
      run = module.runs.add(is_default=k == 0)
      run.op_config.tile_size_config.output_bounds.append(k + 1)
      run.profile.compute_time_ns = time
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(tuning.SerializeToString())
  return str(path)


def _run(*arguments):
  return commands.run("featurize", *arguments)


def _stems(folder):
  return sorted(path.name for path in pathlib.Path(folder).iterdir())


@testdata.required
def test_real_files(tmp_path):
  done = _run("--input", str(testdata.path("tpu_raw")), "--output", str(tmp_path))
  assert done.returncode == 0, done.stderr
  assert "15 graphs (15 written, 0 already there), 294 nodes, 752 of 754 runs used" in done.stderr
  assert "3163 nodes, 112 of 122 runs used (10 excluded)" in done.stderr
  assert len(_stems(tmp_path)) == 16
  with np.load(tmp_path / "module_tuning_data_layout.npz", allow_pickle=False) as graph:
    assert graph["node_config_feat"].shape == (112, 62, 18)
    assert graph["feature_padding"] == 0
  with np.load(tmp_path / "fusion.191.npz", allow_pickle=False) as graph:
    assert graph["config_feat"].shape[1] == 24


def test_command_line(tmp_path):
  path = _kernels(tmp_path / "a.pb", ["k"])
  done = _run("--input", path, "--output", str(tmp_path / "out"), "--padding", "-1")
  assert done.returncode == 0, done.stderr
  assert "error:" not in done.stderr and "%|" not in done.stderr  # No bar without a terminal.
  with np.load(tmp_path / "out" / "k.npz", allow_pickle=False) as graph:
    assert graph["feature_padding"] == -1
  # One message and a status, no traceback.
  done = _run("--input", path, "--output", str(tmp_path / "out"))
  assert done.returncode == 1
  assert done.stderr.count("k.npz exists and has other content") == 1
  assert "Traceback" not in done.stderr
  assert _run("--input", path, "--output", str(tmp_path / "out"), "--overwrite").returncode == 0
  assert _run("--input", path).returncode == 2
  assert _run(path, "--input", path, "--output", str(tmp_path / "out")).returncode == 2


def test_long_names_of_modules_are_cut(tmp_path):
  path = tmp_path / "x.pb"
  _kernels(path, ["a" * 251, "a" * 300])
  written = featurize.featurize([str(path)], str(tmp_path / "out")).written
  assert len(written) == 2 and all(path.exists() and len(path.name) < 255 for path in written)


def test_names_are_unique_across_inputs(tmp_path):
  first = _kernels(tmp_path / "a.pb", ["k", "k", "m/../n"])
  second = _kernels(tmp_path / "b.pb", ["k"])
  written = featurize.featurize([first, second], str(tmp_path / "out")).written
  assert [path.name for path in written] == ["k.npz", "k_2.npz", "m_.._n.npz", "k_3.npz"]
  assert _stems(tmp_path / "out") == sorted(path.name for path in written)


def test_running_again_leaves_equal_files_alone(tmp_path):
  path = _kernels(tmp_path / "a.pb", ["k"])
  [graph] = featurize.featurize([path], str(tmp_path / "out")).written
  before = graph.stat().st_mtime_ns
  assert featurize.featurize([path], str(tmp_path / "out")).written == [graph]
  assert graph.stat().st_mtime_ns == before


def test_a_conflict_writes_nothing_of_that_input(tmp_path):
  first = _kernels(tmp_path / "a.pb", ["m"])
  featurize.featurize([first], str(tmp_path / "out"))
  second = _kernels(tmp_path / "b.pb", ["k", "m"], times=(50, 61))
  with pytest.raises(errors.OutputError, match="m.npz exists"):
    featurize.featurize([second], str(tmp_path / "out"))
  assert _stems(tmp_path / "out") == ["m.npz"]
  featurize.featurize([second], str(tmp_path / "out"), overwrite=True)
  assert _stems(tmp_path / "out") == ["k.npz", "m.npz"]


def test_folders_and_repeats(tmp_path):
  for name, times in (("1", (50, 60)), ("2", (52, 70)), ("3", (54, 80))):
    _kernels(tmp_path / name / "a.pb", ["a"], times)
    _kernels(tmp_path / name / "b.pb", ["b"], times)
  (tmp_path / "1" / "module_0001.f-memory-usage-report.pb").write_bytes(b"no program")
  (tmp_path / "1" / "notes.txt").write_bytes(b"no program")
  written = featurize.featurize(
      [str(tmp_path / "1")], str(tmp_path / "out"),
      repeats=[str(tmp_path / "2"), str(tmp_path / "3")]).written
  assert [path.name for path in written] == ["a.npz", "b.npz"]
  with np.load(written[0], allow_pickle=False) as graph:
    assert graph["config_runtime"].tolist() == [52, 70]
    assert graph["config_runtime_normalizers"].tolist() == [52, 52]
    assert graph["config_runtime_passes"].tolist() == [[50, 60], [52, 70], [54, 80]]
  with pytest.raises(errors.ConfigError, match="has 1 files and --input has 2; expected equal"):
    featurize.featurize(
        [str(tmp_path / "1")], str(tmp_path / "out"), repeats=[str(tmp_path / "2" / "a.pb")])


def test_bare_program(tmp_path):
  (tmp_path / "jit_f.pb").write_bytes(_module().SerializeToString())
  [path] = featurize.featurize([str(tmp_path / "jit_f.pb")], str(tmp_path / "out")).written
  with np.load(path, allow_pickle=False) as graph:
    assert path.name == "jit_f.npz" and "node_splits" in graph.files
    assert not any(key.startswith("config") for key in graph.files)


def test_bad_inputs(tmp_path):
  (tmp_path / "empty").mkdir()
  with pytest.raises(errors.MissingDataError, match="--input: .*empty contains no program"):
    featurize.featurize([str(tmp_path / "empty")], str(tmp_path / "out"))
  with pytest.raises(errors.MissingDataError, match="no file"):
    featurize.featurize([str(tmp_path / "none.pb")], str(tmp_path / "out"))
  with pytest.raises(errors.ConfigError, match="--input names no file"):
    featurize.featurize([], str(tmp_path / "out"))
  path = _kernels(tmp_path / "a.pb", ["k"])
  (tmp_path / "file").write_bytes(b"")
  with pytest.raises(errors.OutputError, match="cannot write"):
    featurize.featurize([path], str(tmp_path / "file"))
  data = pathlib.Path(path).read_bytes()
  pathlib.Path(path).write_bytes(data[:-3])
  with pytest.raises(errors.DataError, match="a.pb is cut off"):
    featurize.featurize([path], str(tmp_path / "out"))
  assert not (tmp_path / "out").exists()


def _without_default(path, name="bad"):
  """A file of kernels; the last one, `name`, has no default configuration."""
  _kernels(path, ["good", name])
  tuning = tuning_pb2.TuningData.FromString(path.read_bytes())
  for run in tuning.modules[1].runs:
    run.is_default = False
  path.write_bytes(tuning.SerializeToString())
  return str(path)


def test_a_damaged_program_is_skipped(tmp_path):
  path = _without_default(tmp_path / "a.pb")
  done = _run("--input", path, "--output", str(tmp_path / "out"))
  assert done.returncode == 3
  assert "warning: skipped: " in done.stderr and "module 'bad'" in done.stderr
  assert "is marked is_default" in done.stderr and "skipped files and programs: 1" in done.stderr
  assert _stems(tmp_path / "out") == ["good.npz"]
  strict = _run("--input", path, "--output", str(tmp_path / "strict"), "--strict")
  assert strict.returncode == 1 and strict.stderr.startswith("error: ")
  assert not (tmp_path / "strict").exists()


def test_a_damaged_file_of_a_folder_is_skipped(tmp_path):
  _kernels(tmp_path / "in" / "a.pb", ["k"])
  (tmp_path / "in" / "b.pb").write_bytes(b"no protobuf")
  _kernels(tmp_path / "in" / "c.pb", ["m"])
  arguments = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
  done = _run(*arguments)
  assert done.returncode == 3 and done.stderr.count("b.pb") == 1
  assert _stems(tmp_path / "out") == ["k.npz", "m.npz"]
  # --strict stops at the damaged file, after the one before it.
  assert _run(*arguments[:-1], str(tmp_path / "strict"), "--strict").returncode == 1
  assert _stems(tmp_path / "strict") == ["k.npz"]


def test_nothing_but_damaged_inputs_is_an_error(tmp_path):
  for name in ("a.pb", "b.pb"):
    (tmp_path / name).write_bytes(b"no protobuf")
  done = _run("--input", str(tmp_path), "--output", str(tmp_path / "out"))
  assert done.returncode == 1 and "error: " in done.stderr
  # A kernel without runs gives no graph.
  tuning = tuning_pb2.TuningData()
  tuning.modules.add(module=_module("k"))
  (tmp_path / "k.pb").write_bytes(tuning.SerializeToString())
  done = _run("--input", str(tmp_path / "k.pb"), "--output", str(tmp_path / "out"))
  assert done.returncode == 1
  assert "error: no graph was written, because all programs were skipped" in done.stderr
  assert "module 'k': it has no runs" in done.stderr
  assert not (tmp_path / "out").exists()


def test_a_folder_that_xla_has_dumped(tmp_path):
  folder = tmp_path / "dump"
  folder.mkdir()
  program = _module().SerializeToString()
  (folder / "module_0000.f.before_optimizations.hlo.pb").write_bytes(program)
  (folder / "module_0000.f.before_optimizations.txt").write_text("HloModule f\n")
  (folder / "module_0001.g.hlo.pb.gz").write_bytes(gzip.compress(program))
  (folder / "module_0000.f-memory-usage-report.pb").write_bytes(b"no program")
  (folder / "module_0000.f-buffer-assignment.txt").write_text("BufferAssignment:\n")
  (folder / "module_0000.f.debug_options").write_text("xla_dump_to: x\n")
  for name in ("first", "second", ".git", "__MACOSX"):
    (folder / name).mkdir()
  (folder / "module_0002.h.txt").write_text(
      "HloModule h\n\nENTRY main {\n  ROOT p = f32[8]{0} parameter(0)\n}\n")
  done = _run("--input", str(folder), "--output", str(tmp_path / "out"))
  assert done.returncode == 0, done.stderr
  assert _stems(tmp_path / "out") == [
      "module_0000.f.before_optimizations.hlo.npz", "module_0001.g.hlo.npz",
      "module_0002.h.npz"]
  assert "passed over 1 file (module_0000.f.before_optimizations.txt), which is also there" in (
      done.stderr)
  assert "passed over 2 folders (first, second), whose files are not read" in done.stderr
  assert "passed over 3 files (module_0000.f-buffer-assignment.txt, " in done.stderr


# The first bytes of the file in which macOS keeps the attributes of another.
_APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "


def test_companion_files_are_passed_over_and_counted(tmp_path):
  _kernels(tmp_path / "k.pb", ["k"])
  for name in ("._k.pb", ".DS_Store", "Thumbs.db"):
    (tmp_path / name).write_bytes(_APPLE_DOUBLE)
  done = _run("--input", str(tmp_path), "--output", str(tmp_path / "out"))
  assert done.returncode == 0, done.stderr
  assert "passed over 3 files of the operating system (.DS_Store, ._k.pb, Thumbs.db)" in (
      done.stderr)
  assert _stems(tmp_path / "out") == ["k.npz"]
  done = _run("--input", str(tmp_path / "._k.pb"), "--output", str(tmp_path / "out"))
  assert done.returncode == 1 and "expected a program, such as k.pb" in done.stderr


@testdata.required
@pytest.mark.parametrize("name, status, message", [
    ("macos_folder", 0, "passed over 1 file of the operating system (._k.pb)"),
    ("one_kernel_without_default.pb", 3, "module 'bad' (number 1): none of its 4 valid runs"),
])
def test_field_cases(tmp_path, name, status, message):
  done = _run("--input", str(testdata.path("field_cases") / name),
              "--output", str(tmp_path / "out"))
  assert done.returncode == status and message in done.stderr
  assert len(_stems(tmp_path / "out")) == 1
