"""Chosen configurations are measured; the passes, which need JAX, are replaced here."""

import base64
import pathlib

import numpy as np
import pytest

from tests.candidates import small_programs
from tests.collect.layout import small_layouts
from tests.hlo import modules
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.candidates import layouts
from tpugraphs_rank.candidates import measured
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.candidates import ranking
from tpugraphs_rank.candidates import tiles
from tpugraphs_rank.collect import remeasure
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.layout import configurations as layout_sampling
from tpugraphs_rank.collect.tile import collect
from tpugraphs_rank.collect.tile import configurations as configurations_lib
from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import reading
from tpugraphs_rank.hlo import tuning_pb2

STEM = "matmul.64x64x32.f32"
PROGRAM = "mixer.8x6x4x1.forward"


def _kernel(*sides: list[int], name: str = STEM) -> tuning_pb2.ModuleTuningData:
  """A product with runs for tiles (rows, columns, depth)."""
  runs = [modules.tile_run(None, output=(rows, columns), kernel=(depth,), inputs=(rows, depth))
          for rows, columns, depth in sides]
  return small_programs.data_of(small_programs.matmul(64, 64, 32, name), runs)


def _write(path: pathlib.Path, *kernels: tuning_pb2.ModuleTuningData) -> pathlib.Path:
  path.write_bytes(tuning_pb2.TuningData(modules=kernels).SerializeToString())
  return path


def test_tiles_of_the_runs_after_the_default() -> None:
  default = configurations_lib.default_tile(geometry.parse_stem(STEM))
  sides = [default.output + default.reduction, (16, 64, 32), (64, 8, 8), (16, 64, 32)]
  assert remeasure.tiles_of(_kernel(*sides)) == [
      default, geometry.Tile((16, 64), (32,)), geometry.Tile((64, 8), (8,))]


@pytest.mark.parametrize("run", [
    modules.tile_run(None, output=(16, 48), kernel=(32,)),
    modules.tile_run(None, output=(16, 0), kernel=(32,)),
    modules.tile_run(None, output=(16,), kernel=(64, 32)),
    modules.tile_run(None, output=(16, 16)),
])
def test_bounds_that_do_not_fit_the_kernel(run: tuning_pb2.ConfigProfile) -> None:
  data = _kernel((16, 64, 32))
  data.runs.append(run)
  with pytest.raises(errors.DataError, match=rf"{STEM}: run 1 has output_bounds .*; expected "
                     r"divisors of \[64, 64\] and \[32\]: rank candidates with --tiling=xla_cpu"):
    remeasure.tiles_of(data)


def test_sampled_tiles_can_be_measured() -> None:
  data = _kernel()
  actual = tiles.enumerate_tiles(data.module, "xla_cpu", 1000, 0)
  data.runs.extend(actual.profile(position) for position in range(actual.count))
  chosen = remeasure.tiles_of(data)
  assert set(chosen) == set(configurations_lib.admissible(geometry.parse_stem(STEM)))


def test_names() -> None:
  remeasure.check_known([STEM], of_layouts=False)
  remeasure.check_known([PROGRAM], of_layouts=True)
  for name, of_layouts in (
      ("main", False), ("main", True), (STEM, True), (PROGRAM, False), ("matmul.1x1.f32", False),
      ("other.8x8.f32", False)):
    with pytest.raises(errors.CompatibilityError, match=rf"'{name}' cannot be measured here: the "
                       "collector rebuilds only the programs of its catalogues"):
      remeasure.check_known([STEM if not of_layouts else PROGRAM, name], of_layouts)


def test_kinds_of_runs() -> None:
  layout = small_programs.data_of(small_programs.perceptron(), [modules.layout_run([[]])], [2])
  assert remeasure.is_layout([layout]) and not remeasure.is_layout([_kernel((8, 8, 8))])
  for mixed in ([layout, _kernel((8, 8, 8))], [_kernel()], [_kernel((8, 8, 8)), _kernel()]):
    with pytest.raises(errors.DataError, match="no runs, or runs of several kinds"):
      remeasure.is_layout(mixed)


def _ranked(data: tuning_pb2.ModuleTuningData, kind: str, top_k: int) -> ranking.Ranked:
  program = programs.HloProgram(data.module.name, "f.pb", data)
  actual = programs.find(program, kind, "", "xla_cpu", 20, 0)
  return ranking.rank(program, actual, -np.arange(actual.count, dtype=float), top_k)


def _fake_tile_passes(monkeypatch: pytest.MonkeyPatch, module: hlo_pb2.HloModuleProto) -> list[int]:
  """Replaces the passes: a tile takes as many microseconds as it has columns. Counts the calls."""
  calls: list[int] = []

  def run_passes(output: pathlib.Path, passes: int, cores: list[int]) -> None:
    del cores
    calls.append(passes)
    for number in range(1, passes + 1):
      for entry in files.read_json(output / "plan.json")["kernels"]:
        configurations = [
            {**chosen, "status": "ok", "optimised_hlo": str(chosen),
             "runtime_ns": 1000 * chosen["output"][1] + number} for chosen in entry["tiles"]]
        files.write_json(plans.record_path(output, entry["stem"], number), {
            "stem": entry["stem"], "date": "2026", "total_s": 1.0,
            "module": base64.b64encode(module.SerializeToString()).decode(),
            "configurations": configurations})

  monkeypatch.setattr(collect, "run_passes", run_passes)
  return calls


def test_kernels_from_a_ranking_to_the_comparison(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  data = _kernel((16, 64, 32), (16, 32, 32), (64, 8, 8))
  prediction = _ranked(data, "tile", 3)
  (tmp_path / "f.pb").write_bytes(ranking.raw_bytes([prediction]))
  calls = _fake_tile_passes(monkeypatch, data.module)
  remeasure.remeasure(tmp_path / "f.pb", tmp_path / "out")
  passes = [reading.read_raw(tmp_path / "out" / f"pass{number}.pb").modules[0]
            for number in (1, 2)]
  default = configurations_lib.default_tile(geometry.parse_stem(STEM))
  assert [[run.profile.compute_time_ns for run in one.runs] for one in passes] == [
      [1000 * columns + number for columns in (default.output[1], 64, 32, 8)]
      for number in (1, 2)]
  result = measured.compare(prediction, passes)
  assert result.runtimes.tolist() == [64001.5, 32001.5, 8001.5] and result.tau == -1
  assert result.default == 1000 * default.output[1] + 1.5 and calls == [2]


def test_a_folder_belongs_to_one_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  _fake_tile_passes(monkeypatch, _kernel().module)
  first = _write(tmp_path / "1.pb", _kernel((16, 64, 32)))
  remeasure.remeasure(first, tmp_path / "out")
  remeasure.remeasure(first, tmp_path / "out")
  with pytest.raises(errors.RunDirectoryError, match="file: stored"):
    remeasure.remeasure(_write(tmp_path / "2.pb", _kernel((8, 64, 32))), tmp_path / "out")
  with pytest.raises(errors.RunDirectoryError, match="protocol: stored"):
    remeasure.remeasure(first, tmp_path / "out", budget_ms=7)


def test_another_program_of_the_same_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  _fake_tile_passes(monkeypatch, small_programs.matmul(64, 64, 16, STEM))
  with pytest.raises(errors.DataError, match=f"{STEM}: the program in the file differs "
                     r"from the collector's program of this name \(node_feat differs\)"):
    remeasure.remeasure(_write(tmp_path / "f.pb", _kernel((16, 64, 32))), tmp_path / "out")
  with pytest.raises(errors.DataError, match="node_opcode differs"):
    remeasure.check_same_graph(small_programs.matmul(64, 64, 16), small_programs.perceptron())


def test_a_kernel_that_fails(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  def run_passes(output: pathlib.Path, passes: int, cores: list[int]) -> None:
    for number in range(1, passes + 1):
      files.write_json(plans.record_path(output, STEM, number), {"failed": "no memory"})

  monkeypatch.setattr(collect, "run_passes", run_passes)
  with pytest.raises(errors.OutputError, match=f"{STEM} could not be measured: no memory"):
    remeasure.remeasure(_write(tmp_path / "f.pb", _kernel((16, 64, 32))), tmp_path / "out")


def _layout_data() -> tuning_pb2.ModuleTuningData:
  """Four configurations of the program of `small_layouts`."""
  data = small_programs.data_of(hlo_pb2.HloModuleProto.FromString(small_layouts.module(PROGRAM)),
                      nodes=[site.node for site in small_layouts.SITES])
  for chosen in small_layouts.configurations(5)[1:]:
    data.runs.append(modules.layout_run(chosen, None))
  return data


def test_layouts_of_the_runs_after_the_default() -> None:
  first = remeasure.first_record(_layout_data())
  assert first["sites"] == [
      {"node": site.node, "opcode": site.opcode, "shapes": [list(shape) for shape in site.shapes]}
      for site in small_layouts.SITES]
  assert [layout_sampling.from_text(entry["layouts"]) for entry in first["configurations"]] == (
      small_layouts.configurations(5))
  data = _layout_data()
  data.runs.append(data.runs[0])  # Duplicates and the default are measured once.
  data.runs.append(modules.layout_run(small_layouts.configurations(1)[0], None, is_default=True))
  assert remeasure.first_record(data) == first


def test_layouts_from_a_ranking_to_the_comparison(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  prediction = _ranked(_layout_data(), "layout", 4)
  (tmp_path / "f.pb").write_bytes(ranking.raw_bytes([prediction]))
  commands: list[list[str]] = []

  class Done:
    returncode = 0

  def run(command: list[str], **_: object) -> Done:
    commands.append(command)
    number = int(command[-1])
    files.write_json(plans.record_path(tmp_path / "out", PROGRAM, number),
                     small_layouts.record(PROGRAM, number, count=5))
    return Done()

  monkeypatch.setattr(remeasure.subprocess, "run", run)
  remeasure.remeasure(tmp_path / "f.pb", tmp_path / "out")
  assert [command[2:] for command in commands] == [
      ["tpugraphs_rank.collect.remeasure", "--input", str(tmp_path / "f.pb"), "--output",
       str(tmp_path / "out"), "--pass_number", str(number)] for number in (1, 2)]
  passes = [reading.read_raw(tmp_path / "out" / f"pass{number}.pb").modules[0]
            for number in (1, 2)]
  assert passes[0].config_index_to_node == prediction.program.data.config_index_to_node
  result = measured.compare(prediction, passes)
  assert len(result.runtimes) == 4 and result.tau == 1.0  # Later configurations take longer.
  # Existing records are not measured again.
  remeasure.remeasure(tmp_path / "f.pb", tmp_path / "out")
  assert len(commands) == 2
  Done.returncode = 3
  plans.record_path(tmp_path / "out", PROGRAM, 2).unlink()
  with pytest.raises(errors.OutputError, match=f"pass 2 over {PROGRAM} ended with status 3"):
    remeasure.remeasure(tmp_path / "f.pb", tmp_path / "out")


def test_sampled_layouts_can_be_measured() -> None:
  data = _layout_data()
  actual = layouts.draw_layouts(data, "xla_cpu", 30, 0)
  drawn = small_programs.data_of(data.module, [actual.profile(position) for position in range(30)],
                       list(data.config_index_to_node))
  assert len(remeasure.first_record(drawn)["configurations"]) == 30


def test_a_mistake_is_one_line(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
  assert remeasure.main(
      ["--input", str(tmp_path / "gone.pb"), "--output", str(tmp_path / "out")]) == 1
  assert capsys.readouterr().err.startswith("error: no file ")
  path = _write(tmp_path / "f.pb", _kernel((8, 8, 8), name="mine"))
  assert remeasure.main(["--input", str(path), "--output", str(tmp_path / "out")]) == 1
  assert "'mine' cannot be measured here" in capsys.readouterr().err
  assert not (tmp_path / "out").exists()
