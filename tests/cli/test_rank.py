"""The rank command, from the command line to the files."""

import functools
import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from tests.candidates import small_programs
from tests.helpers import commands
from tests.hlo import modules
from tpugraphs_rank import collect
from tpugraphs_rank import errors
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.candidates import ranking
from tpugraphs_rank.cli import rank
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import reading
from tpugraphs_rank.hlo import tuning_pb2
from tpugraphs_rank.training import run as run_lib

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The target that runs of `small_runs` are trained on.
TARGET = "chip"


def _rank(*arguments):
  return commands.run("rank", *arguments)


def _results(*arguments, **named):
  return rank.rank(*arguments, **named).results


@pytest.fixture(scope="module")
def runs(tiny_tile_run, tiny_layout_run, tmp_path_factory):
  """Run directories, by kind."""
  folder = tmp_path_factory.mktemp("runs")
  return {kind: shutil.copytree(run.path, folder / kind)
          for kind, run in (("tile", tiny_tile_run), ("layout", tiny_layout_run))}


@pytest.fixture(scope="module", autouse=True)
def loaded():
  """Keeps loaded runs: loading one again would trace its model again, which takes seconds."""
  load = functools.cache(run_lib.load_run)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
        run_lib, "load_run", lambda path, strict=False, prior="analytic", trust_plugins=False: load(
            str(path), strict, prior, trust_plugins))
    yield


@pytest.fixture(scope="module")
def hlo(tmp_path_factory):
  """Raw files: `tile.pb` and `layout.pb`, one program each, and `two.pb`."""
  folder = tmp_path_factory.mktemp("hlo")
  small_programs.write(folder / "tile.pb", small_programs.matmul(8, 8, 8, "a"))
  small_programs.write(folder / "layout.pb", small_programs.perceptron())
  small_programs.write(folder / "two.pb", small_programs.matmul(8, 8, 8, "a"),
                       small_programs.matmul(16, 8, 4, "b"))
  return folder


@pytest.mark.parametrize("kind, fields", [("tile", "kernel_bounds"), ("layout", "layouts")])
def test_from_a_dump_to_the_best(runs, hlo, tmp_path, kind, fields):
  done = _rank("--run_dir", runs[kind], "--hlo", hlo / f"{kind}.pb", "--candidates=auto",
               "--top_k=4", "--max_candidates=30", "--output", tmp_path / "out")
  assert done.returncode == 0, done.stderr
  assert "best 4 of 30 candidates" in done.stdout and "%|" not in done.stderr
  assert done.stdout.startswith("Predicted, not measured: measure the best before you use one.\n")
  as_json, as_raw = (tmp_path / "out" / f"{kind}.ranked.{suffix}" for suffix in ("json", "pb"))
  assert done.stdout.splitlines()[-2:] == [f"ranking: {as_json}", f"to measure: {as_raw}"]
  [program] = json.loads(as_json.read_text())["programs"]
  assert [entry["rank"] for entry in program["configurations"]] == [1, 2, 3, 4]
  scores = [entry["score"] for entry in program["configurations"]]
  assert scores == sorted(scores, reverse=True) and fields in program["configurations"][0]
  # Ranking the raw file itself gives the same scores in the same order.
  again = _rank("--run_dir", runs[kind], "--hlo", as_raw, "--top_k=4", "--output", tmp_path / "2")
  assert again.returncode == 0, again.stderr
  [program] = json.loads((tmp_path / "2" / f"{kind}.ranked.ranked.json").read_text())["programs"]
  assert program["candidates"]["source"] == "runs"
  np.testing.assert_allclose(
      [entry["score"] for entry in program["configurations"]], scores, rtol=1e-5, atol=1e-6)


def test_results_go_to_the_run_directory(runs, hlo):
  done = _rank("--run_dir", runs["tile"], "--hlo", hlo / "two.pb", "--top_k=2")
  assert done.returncode == 0, done.stderr
  assert f"the hardware of the run's measurements, {TARGET}" in done.stderr
  folder = runs["tile"] / "predictions"
  stored = json.loads((folder / "two.ranked.json").read_text())
  assert [program["program"] for program in stored["programs"]] == ["a", "b"]
  raw = reading.read_raw(folder / "two.ranked.pb")
  assert [(data.module.name, len(data.runs)) for data in raw.modules] == [("a", 2), ("b", 2)]


def test_a_bundled_run_writes_into_the_current_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  bundled = commands.ROOT / "tpugraphs_rank" / "bundled" / "models" / "tile_xla_cpu"
  before = {path: path.stat().st_mtime_ns for path in bundled.rglob("*")}
  done = _rank("--run", "bundled:tile_xla_cpu", "--hlo", commands.ROOT / "examples/matmul.hlo.pb",
               "--top_k=2", "--max_candidates=20")
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-2:] == [
      "ranking: predictions/matmul.hlo.ranked.json", "to measure: predictions/matmul.hlo.ranked.pb"]
  [program] = json.loads((tmp_path / "predictions/matmul.hlo.ranked.json").read_text())["programs"]
  assert program["candidates"]["count"] == 20 and program["candidates"]["tiling"] == "xla_cpu"
  assert before == {path: path.stat().st_mtime_ns for path in bundled.rglob("*")}
  unknown = _rank("--run=bundled:tile_xla", "--hlo", commands.ROOT / "examples/matmul.hlo.pb")
  assert unknown.returncode == 1 and "bundled:tile_xla_cpu" in unknown.stderr


def test_the_lines_for_a_transformer_block_of_jax(tmp_path):
  done = _rank("--run=bundled:layout_xla_cpu_mixed", "--hlo=bundled:transformer_block",
               "--max_candidates=40", "--top_k=40", "--output", tmp_path)
  assert done.returncode == 0, done.stderr
  assert "warning" not in done.stderr
  lines = done.stdout.splitlines()
  assert lines[:3] == [
      "Predicted, not measured: measure the best before you use one.",
      "bundled:layout_xla_cpu_mixed was trained on layout:xla_cpu:mixed:v1: HLO before "
      "optimisation, measured on xla_cpu:Intel(R) Xeon(R) Processor (family 6, model 207)",
      "Its validation: 26 programs, Kendall's tau 0.37; the first choice was 20.1 % slower than "
      "the fastest, the best of five 15.3 %"]
  assert re.fullmatch(r"jit_transformer_block: best 40 of 40 candidates; the default has rank \d+",
                      lines[4])
  assert re.fullmatch(r"  \d+ instructions, main operation dot, HLO before optimisation", lines[5])
  assert lines[6].startswith("  validation of such programs: 23 with dot, Kendall's tau 0.33; ")
  assert lines[7].split() == ["rank", "faster", "speed", "members", "changes"]
  rows = lines[8:48]
  share = r"(unclear|(under |over )?\d+ in 10 +\d\.\d\dx \(\d\.\d\d to \d\.\d\d\))"
  request = (r"(output|input f32\[[\d,]+\]|kernel f32\[[\d,]+\]) ?\{[\d,]+\}")
  change = rf"[\w.]+( reshape)? f32\[[\d,]+\]: {request}(, {request})*"
  candidate = re.compile(
      rf" +\d+=? +{share} +\d+(-\d+)?, [0-3] of 3 faster +{change}(; {change})*"
      r"(; and \d+ more instructions?)?")
  default = re.compile(r" +\d+=? +default +1\.00x +\d+(-\d+)? +none: the default")
  assert sum(bool(default.fullmatch(row)) for row in rows) == 1
  assert sum(bool(candidate.fullmatch(row)) for row in rows) == 39, rows
  # The instructions are those of the program, with their shapes.
  [data] = reading.read_raw(commands.ROOT / "examples/transformer_block.hlo.pb").modules
  named = {f"{one.name} f32[{','.join(map(str, one.shape.dimensions))}]"
           for computation in data.module.computations for one in computation.instructions}
  shown = {match[1] for row in rows for match in re.finditer(
      r"([\w.]+ (?:reshape )?f32\[[\d,]+\]):", row)}
  assert shown and {name.replace(" reshape", "") for name in shown} <= named
  stored = json.loads((tmp_path / "transformer_block.ranked.json").read_text())
  assert stored["what"] == "predictions, not measurements"
  assert stored["validation"]["programs"] == 26
  [program] = stored["programs"]
  assert program["validation_of_this_operation"]["operation"] == "dot"
  for entry in program["configurations"]:
    assert len(entry["ranks_by_member"]) == 3
    assert entry["is_default"] or entry["faster_than_default"]["programs"] >= 5


@pytest.mark.parametrize("kind", ["tile", "layout"])
def test_the_ranking_equals_that_of_the_run(runs, hlo, kind):
  [result] = _results(runs[kind], hlo / f"{kind}.pb", max_candidates=25, seed=3, target=TARGET)
  graph = programs.to_graph(result.program, result.candidates, 0)
  run = run_lib.load_run(runs[kind])
  np.testing.assert_allclose(result.scores, run.score(graph), rtol=1e-5, atol=1e-6)
  assert run.rank(graph, 5).tolist() == result.order[:5].tolist()
  assert run.rank(graph).tolist() == result.order[:10].tolist()
  assert run.rank(graph, 1000).tolist() == result.order.tolist()
  with pytest.raises(errors.ConfigError, match="k is 0; expected a whole number from 1"):
    run.rank(graph, 0)
  [again] = _results(runs[kind], hlo / f"{kind}.pb", max_candidates=25, seed=3, target=TARGET)
  np.testing.assert_array_equal(again.scores, result.scores)


def test_candidates_from_a_file(runs, hlo, tmp_path):
  [generated] = _results(runs["tile"], hlo / "tile.pb", "auto", max_candidates=12)
  np.savez(tmp_path / "mine.npz", **generated.candidates.arrays)
  [supplied] = _results(runs["tile"], hlo / "two.pb", str(tmp_path / "mine.npz"), module="a")
  np.testing.assert_allclose(supplied.scores, generated.scores, rtol=1e-5, atol=1e-6)
  with pytest.raises(errors.ConfigError, match="two.pb has 2 programs; expected one, because "
                     ".*mine.npz holds the candidates of one: choose it with --module NAME"):
    rank.rank(runs["tile"], hlo / "two.pb", str(tmp_path / "mine.npz"))
  with pytest.raises(errors.CompatibilityError, match="holds tile configurations, but the run "):
    rank.rank(runs["layout"], hlo / "layout.pb", str(tmp_path / "mine.npz"))


def test_a_raw_file_holds_the_layouts_of_one_program(runs, hlo):
  with pytest.raises(errors.ConfigError, match="two.pb has 2 programs; expected one, because a raw "
                     "file holds the layouts of one: choose it with --module NAME"):
    rank.rank(runs["layout"], hlo / "two.pb")
  [result] = _results(runs["layout"], hlo / "two.pb", module="b", max_candidates=9)
  assert result.program.name == "b" and result.candidates.count == 9


def test_another_target_and_unseen_opcodes(runs, hlo, tmp_path, caplog):
  module, main = small_programs.program()
  p = small_programs.add(main, "parameter", [8, 8])
  small_programs.add(main, "cosine", [8, 8], [p])
  strange = small_programs.write(tmp_path / "strange.pb", module)
  [result] = _results(runs["tile"], strange, target="other_chip")
  assert result.misfit.startswith("it is for another target") and result.unseen_opcodes == (
      "cosine",)
  assert "target 'other_chip'" in caplog.text and f"trained on '{TARGET}'" in caplog.text
  assert "made has opcodes that training never saw: cosine;" in caplog.text
  caplog.clear()
  rank.rank(runs["tile"], hlo / "tile.pb", target=TARGET, strict=True)
  assert caplog.text == ""
  with pytest.raises(errors.CompatibilityError, match="the program is for the target 'other_chip'"):
    rank.rank(runs["tile"], hlo / "tile.pb", target="other_chip", strict=True)
  with pytest.raises(errors.CompatibilityError, match="opcodes that training never saw: cosine"):
    rank.rank(runs["tile"], strange, target=TARGET, strict=True)


def test_the_tiling_comes_from_the_target_or_a_flag(runs, hlo):
  [elements] = _results(runs["tile"], hlo / "tile.pb")
  assert elements.candidates.about["tiling"] == "elements"
  [tpu] = _results(runs["tile"], hlo / "tile.pb", tiling="tpu")
  assert tpu.candidates.about["tiling"] == "tpu" and tpu.candidates.count == 1


def test_candidates_of_the_file_itself(runs, tmp_path):
  data = small_programs.data_of(small_programs.matmul(8, 8, 8), [
      modules.tile_run(None, output=(4, 4), kernel=(8,)), modules.tile_run(None, output=(2, 2))])
  (tmp_path / "one.pb").write_bytes(data.SerializeToString())
  [result] = _results(runs["tile"], tmp_path / "one.pb")
  assert result.candidates.count == 2 and result.candidates.about["source"] == "runs"


def _collector(source, folder):
  """Replaces the collector: a tile takes as many ns as it has rows, and the default 32."""
  data = tuning_pb2.TuningData.FromString(source.read_bytes())
  for module in data.modules:
    for run in module.runs:
      run.profile.compute_time_ns = (
          32 if run.is_default else run.op_config.tile_size_config.output_bounds[0])
  folder.mkdir()
  paths = [folder / f"pass{number}.pb" for number in (1, 2)]
  for path in paths:
    path.write_bytes(data.SerializeToString())
  return paths


def test_predicted_against_measured(runs, tmp_path, monkeypatch):
  monkeypatch.setattr(collect, "measure_ranked", _collector)
  hlo = small_programs.write(
      tmp_path / "k.pb", small_programs.matmul(16, 16, 16, "matmul.16x16x16.f32"))
  results = _results(runs["tile"], hlo, top_k=5, tiling="xla_cpu")
  raw = tmp_path / "k.ranked.pb"
  raw.write_bytes(ranking.raw_bytes(results))
  [comparison] = rank.measure(raw, results)
  candidates = results[0].candidates
  assert candidates.default is not None
  rows = [32 if position == candidates.default else
          candidates.profile(position).op_config.tile_size_config.output_bounds[0]
          for position in results[0].best]
  assert comparison.runtimes.tolist() == rows and comparison.default == 32
  assert comparison.speedup == 32 / min(rows)
  # Each file has a folder of measurements, which depends on its content.
  [folder] = tmp_path.glob("k.ranked.*.measured")
  assert sorted(path.name for path in folder.iterdir()) == ["pass1.pb", "pass2.pb"]


def test_a_program_that_the_collector_does_not_know(runs, hlo, tmp_path):
  done = _rank("--run_dir", runs["tile"], "--hlo", hlo / "tile.pb", "--output", tmp_path / "out",
               "--measure")
  # It says so before it ranks.
  assert done.returncode == 1 and done.stdout == "" and not (tmp_path / "out").exists()
  assert "error: --measure: 'a' cannot be measured here" in done.stderr
  assert "without --measure the program is ranked" in done.stderr


def test_a_program_that_the_collector_knows_is_announced(runs, tmp_path, caplog):
  caplog.set_level("INFO")
  hlo = small_programs.write(
      tmp_path / "k.pb", small_programs.matmul(16, 16, 16, "matmul.16x16x16.f32"))
  _results(runs["tile"], hlo, tiling="xla_cpu", measurable=True)
  assert "the collector knows matmul.16x16x16.f32 and will measure the best" in caplog.text


def test_a_whole_program_is_no_kernel(runs, hlo, tmp_path):
  done = _rank("--run_dir", runs["tile"], "--hlo", hlo / "layout.pb", "--output", tmp_path / "out")
  assert done.returncode == 1 and done.stdout == "" and not (tmp_path / "out").exists()
  assert ("layout.pb: module 'perceptron' is a whole program, not one kernel: it has 2 dots, "
          "convolutions and library calls") in done.stderr
  done = _rank("--run_dir", runs["tile"], "--hlo", hlo / "layout.pb", "--output", tmp_path / "auto",
               "--kernels=auto", "--top_k=2")
  assert done.returncode == 0, done.stderr
  heads = [line for line in done.stdout.splitlines() if ": best 2 of " in line]
  assert [head.partition(":")[0] for head in heads] == ["dot.102 f32[4,12]", "dot.105 f32[8,3]"]
  stored = json.loads((tmp_path / "auto" / "layout.ranked.json").read_text())
  assert [program["kernel_of"]["instruction"] for program in stored["programs"]] == [
      "dot.102", "dot.105"]
  raw = reading.read_raw(tmp_path / "auto" / "layout.ranked.pb")
  assert [len(data.runs) for data in raw.modules] == [2, 2]
  [whole] = _results(runs["tile"], hlo / "layout.pb", kernels="whole")
  assert whole.kernel is None and whole.program.name == "perceptron"


def test_a_program_without_a_kernel(runs, tmp_path):
  module, main = small_programs.program()
  last = small_programs.add(main, "parameter", [8, 8])
  for _ in range(2):
    last = small_programs.add(main, "custom-call", [8, 8], [last])
  path = small_programs.write(tmp_path / "library.pb", module)
  with pytest.raises(errors.CompatibilityError, match=r"has no kernel to rank: .*2 library calls"):
    rank.rank(runs["tile"], path, kernels="auto")


def test_kernels_that_cannot_be_tiled_are_listed(runs, tmp_path):
  module, main = small_programs.program()
  p = small_programs.add(main, "parameter", [8, 8])
  small_programs.add(main, "reduce", [], [p])  # It names no axes.
  d = small_programs.add(main, "dot", [8, 8], [p, p])
  small_programs.add(main, "dot", [8, 8], [d, p])
  path = small_programs.write(tmp_path / "p.pb", module)
  ranked = rank.rank(runs["tile"], path, kernels="auto", tiling="xla_cpu")
  assert [result.kernel.copies for result in ranked.results] == [("dot.102",), ("dot.103",)]
  [skipped] = ranked.skipped
  assert skipped.name == "reduce.101" and skipped.reason


def test_a_program_without_candidates_among_others_is_skipped(runs, tmp_path):
  scalar, main = small_programs.program("scalar")
  small_programs.add(main, "parameter", [])
  path = small_programs.write(tmp_path / "some.pb", small_programs.matmul(8, 8, 8, "a"), scalar)
  done = _rank("--run_dir", runs["tile"], "--hlo", path, "--output", tmp_path / "out", "--top_k=1")
  assert done.returncode == 3 and "a: best 1 of " in done.stdout
  assert "warning: skipped: " in done.stderr and "module 'scalar'" in done.stderr
  stored = json.loads((tmp_path / "out" / "some.ranked.json").read_text())
  assert [one["program"] for one in stored["programs"]] == ["a"]
  assert [one["name"] for one in stored["skipped"]] == ["scalar"]
  done = _rank("--run_dir", runs["tile"], "--hlo", path, "--output", tmp_path / "strict",
               "--strict")
  assert done.returncode == 1 and not (tmp_path / "strict").exists()
  done = _rank("--run_dir", runs["tile"], "--hlo", path, "--module=scalar", "--output", tmp_path)
  assert done.returncode == 1 and "module 'scalar'" in done.stderr


def test_a_program_of_another_stage(runs, tmp_path, caplog):
  """The tiny runs were trained after optimisation."""
  module, main = small_programs.program("source")
  last = small_programs.add(main, "parameter", [8, 8])
  for opcode in ("add", "multiply", "add", "multiply"):
    last = small_programs.add(main, opcode, [8, 8], [last, last])
  path = small_programs.write(tmp_path / "source.pb", module)
  ranked = rank.rank(runs["tile"], path)
  message = ("module 'source' is a program before optimisation: it has 4 elementwise instructions "
             "and no fusion")
  assert message in caplog.text
  [warning] = ranked.run.warnings
  assert message in warning and "was trained on programs after optimisation" in warning
  assert ranked.results[0].misfit.startswith("it is of another HLO stage")
  with pytest.raises(errors.CompatibilityError, match="a program before optimisation"):
    rank.rank(runs["tile"], path, strict=True)
  # Programs under layouts have no fusions yet, whatever their collection calls their stage.
  small_programs.add(main, "dot", [8, 8], [last, last])
  assert rank.rank(runs["layout"], small_programs.write(path, module)).run.warnings == ()


def test_another_program_of_the_same_file_name_stays(runs, hlo, tmp_path, monkeypatch):
  (tmp_path / "other").mkdir()
  other = small_programs.write(tmp_path / "other" / "tile.pb", small_programs.matmul(4, 4, 4, "b"))
  rank_into = lambda kind, path: _rank(
      "--run_dir", runs[kind], "--hlo", path, "--output", tmp_path / "out", "--top_k=1")
  for kind, path, expected in (
      ("tile", hlo / "tile.pb", "tile"), ("tile", other, "tile.2"),
      ("layout", hlo / "tile.pb", "tile.3"),  # Another model.
      ("tile", hlo / "tile.pb", "tile"), ("tile", other, "tile.2")):
    done = rank_into(kind, path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [
        f"ranking: {tmp_path / 'out' / expected}.ranked.json",
        f"to measure: {tmp_path / 'out' / expected}.ranked.pb"]
  assert len(list((tmp_path / "out").iterdir())) == 6
  names = [json.loads((tmp_path / "out" / f"{name}.ranked.json").read_text())["programs"][0][
      "program"] for name in ("tile", "tile.2", "tile.3")]
  assert names == ["a", "b", "a"]
  # The same file by a relative path.
  monkeypatch.chdir(tmp_path)
  done = rank_into("tile", pathlib.Path("other/tile.pb"))
  assert f"{tmp_path / 'out' / 'tile.2'}.ranked.json" in done.stdout


def test_element_types_that_training_never_saw(runs, tmp_path, caplog):
  module = small_programs.matmul(8, 8, 8, "narrow")
  for instruction in module.computations[0].instructions:
    instruction.shape.element_type = hlo_pb2.F8E4M3FN
  path = small_programs.write(tmp_path / "narrow.pb", module)
  load = run_lib.load_run(str(runs["tile"]))
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(load.about, "element_types", ["f32"])
    [result] = _results(runs["tile"], path, target=TARGET)
    assert result.unseen_types == ("f8e4m3fn",)
  assert "narrow has element types that training never saw: others (no feature column); " in (
      caplog.text)


@pytest.mark.parametrize("arguments, status, message", [
    (["--run_dir", "{run}"], 2, "error: --hlo is required"),
    (["--run_dir", "{run}", "--hlo", "/gone.pb"], 1, "error: no file /gone.pb"),
    (["--run_dir", "/gone", "--hlo", "{hlo}/tile.pb"], 1, "error: /gone is not a run directory"),
    (["--run_dir", "{run}", "--hlo", "{hlo}/tile.pb", "--top_k=0"], 1, "error: --top_k=0 "),
    (["--run_dir", "{run}", "--hlo", "{hlo}/tile.pb", "--max_candidates=0"], 1,
     "error: --top_k=10 --max_candidates=0: expected 1 or more"),
    (["--run_dir", "{run}", "--hlo", "{hlo}/tile.pb", "--tiling=gpu"], 2, "error: flag --tiling"),
    (["--run_dir", "{run}", "--hlo", "{hlo}/two.pb", "--module=c"], 1,
     "error: {hlo}/two.pb has no module 'c'; its modules: a, b"),
    (["--run_dir", "{run}", "--hlo", "{hlo}/tile.pb", "auto"], 2, "error: unexpected argument"),
])
def test_a_mistake_is_one_line(runs, hlo, arguments, status, message):
  fill = lambda text: text.format(run=runs["tile"], hlo=hlo)
  done = _rank(*map(fill, arguments))
  assert done.returncode == status and done.stdout == ""
  assert done.stderr.startswith(fill(message)) and done.stderr.count("\n") == 1


def test_an_output_that_cannot_be_written(runs, hlo, tmp_path):
  (tmp_path / "file").write_text("")
  done = _rank("--run_dir", runs["tile"], "--hlo", hlo / "tile.pb", "--output", tmp_path / "file")
  assert done.returncode == 1 and "error: cannot write" in done.stderr
