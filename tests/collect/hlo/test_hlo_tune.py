"""The tuning loop with a measuring process of the test's own. Needs no JAX."""

import math
import pathlib
from typing import Any

import pytest

from tests.candidates import small_programs
from tests.helpers import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.collect.hlo import prepare
from tpugraphs_rank.collect.hlo import session
from tpugraphs_rank.collect.hlo import tune
from tpugraphs_rank.collect.hlo import wire
from tpugraphs_rank.data import collections
from tpugraphs_rank.hlo import reading


class _Session:
  """Every request for an output costs 10 %; one for the first input saves 20 %."""

  asked: list[str] = []
  fails: int = -1
  interrupts: int = -1
  stores: bool = True
  gain: float = 0.8
  helpers = 1

  def __init__(self, folder: pathlib.Path, source: str, seed: int = 0, known: Any = None):
    self.folder = folder

  def __enter__(self) -> "_Session":
    return self

  def __exit__(self, *reason: Any) -> None:
    pass

  def store(self, layouts: str) -> dict[str, Any]:
    if _Session.stores:
      for name in ("tuned.hlo.pb", "tuned.mlir"):
        (self.folder / name).write_text(layouts)
    else:  # Interrupted between the two files.
      (self.folder / "tuned.hlo.pb").write_text(layouts)
      raise KeyboardInterrupt
    return {"status": "ok"}

  def ask(self, do: str, layouts: str, ahead: Any = ()) -> dict[str, Any]:
    number = len(_Session.asked)
    _Session.asked.append(layouts)
    if number == _Session.interrupts:
      raise KeyboardInterrupt
    if number == _Session.fails:
      return {"status": "mismatch", "reason": "other numbers"}
    words = [word.split("/") for word in layouts.split(" ")]
    ratio = 1.1 ** sum(bool(word[0]) for word in words) * (
        _Session.gain if words[0][1] else 1.0)
    drift = 1 + number % 3
    return {"status": "ok", "optimised_hlo": layouts, "seconds": drift * ratio,
            "default_seconds": float(drift)}


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(session, "Session", _Session)
  for name, value in (("asked", []), ("fails", -1), ("interrupts", -1), ("stores", True),
                      ("gain", 0.8)):
    monkeypatch.setattr(_Session, name, value)


@pytest.fixture(name="path")
def fixture_path(tmp_path: pathlib.Path) -> pathlib.Path:
  return small_programs.write(tmp_path / "f.pb", small_programs.perceptron())


def _lines(folder: pathlib.Path) -> list[str]:
  return (folder / tune.JOURNAL).read_text().splitlines()


def test_the_command_finds_and_confirms_a_gain(tmp_path, path) -> None:
  _Session.fails = 3
  done = commands.run("tune", "--hlo", path, "--measurements=25", "--output", tmp_path / "out")
  assert done.returncode == 0, done.stderr
  result = files.read_json(tmp_path / "out" / "tuned.json")
  # Four fresh processes confirm it; all agree exactly here.
  assert result["confirmed"]["speedup"] == pytest.approx(1.25)
  assert result["is_faster"] and result["failed"] == 1 and result["finished"]
  assert "1.250 times as fast as the default" in done.stdout
  requested = {(one["tensor"], tuple(one["minor_to_major"])) for one in result["best"]["requests"]}
  assert any(tensor == "input" for tensor, _ in requested)
  assert (tmp_path / "out" / "tuned.hlo.pb").read_text() == result["best"]["layouts"]
  measured = reading.read_raw(tmp_path / "out" / "measured.pb").modules[0]
  assert [run.is_default for run in measured.runs].count(True) == 1
  times = [run.profile.compute_time_ns for run in measured.runs]
  assert times[0] == 10**9 and min(times) == pytest.approx(0.8e9)


def test_no_gain_is_an_answer(tmp_path, path) -> None:
  _Session.gain = 1.0
  done = commands.run("tune", "--hlo", path, "--measurements=6", "--output", tmp_path / "out")
  assert done.returncode == 0 and "No gain over the default" in done.stdout
  default = (tmp_path / "out" / "tuned.hlo.pb").read_text()
  assert not default.replace("/", "").strip()


def test_an_interrupted_search_keeps_and_reports_what_it_measured(tmp_path, path) -> None:
  _Session.interrupts = 5
  words = ("tune", "--hlo", path, "--measurements=9", "--noearly", "--output", tmp_path / "out")
  done = commands.run(*words)
  assert done.returncode == 130 and "resumes" in done.stderr
  assert "the best so far was measured as" in done.stderr
  result = files.read_json(tmp_path / "out" / "tuned.json")
  assert not result["finished"] and result["measurements"] == len(_lines(tmp_path / "out")) == 5
  before = list(_Session.asked)
  assert commands.run(*words).returncode == 0
  assert len(_lines(tmp_path / "out")) == 9
  # The configuration that was interrupted is asked for again, and no other.
  assert _Session.asked[6] == before[5]
  assert len(set(_Session.asked[:10])) == 9


def _check_agreement(output: pathlib.Path) -> dict[str, Any]:
  """Checks that the result and the tuned programs agree, and returns the result."""
  result = files.read_json(output / "tuned.json")
  assert result["finished"] == (output / "tuned.hlo.pb").exists() == (
      output / "tuned.mlir").exists()
  if result["finished"]:
    assert result["is_faster"]
    assert (output / "tuned.hlo.pb").read_text() == result["best"]["layouts"]
  return result


def test_an_interrupted_search_that_was_finished_keeps_its_result(tmp_path, path) -> None:
  output = tmp_path / "out"
  words = ("tune", "--hlo", path, "--noearly", "--output", output)
  assert commands.run(*words, "--measurements=5").returncode == 0
  first = _check_agreement(output)
  # In the search, and in the confirmation of what it finds.
  for interrupts in (2, 15 - 5 + 1):
    _Session.interrupts = len(_Session.asked) + interrupts
    done = commands.run(*words, "--measurements=15")
    assert done.returncode == 130 and "those of the earlier search" in done.stderr
    assert _check_agreement(output) == first
  _Session.interrupts = -1
  _Session.stores = False
  assert commands.run(*words, "--measurements=15").returncode == 130
  assert not _check_agreement(output)["finished"]
  _Session.stores = True
  assert commands.run(*words, "--measurements=15").returncode == 0
  assert _check_agreement(output)["measurements"] == 15
  done = commands.run(*words, "--measurements=2")
  assert "15 measurements are done, more than --measurements=2" in done.stdout


def test_a_killed_search_has_reported_its_best(tmp_path, path, monkeypatch) -> None:
  output, reported = tmp_path / "out", []

  def ask(self: _Session, do: str, layouts: str, ahead: Any = ()) -> dict[str, Any]:
    if (output / tune.RESULT).exists():
      reported.append(files.read_json(output / tune.RESULT)["best"])
    return asked(self, do, layouts, ahead)

  asked = _Session.ask
  monkeypatch.setattr(_Session, "ask", ask)
  assert commands.run("tune", "--hlo", path, "--measurements=8", "--output", output
                      ).returncode == 0
  ratios = [best["seconds"] / best["default_seconds"] for best in reported]
  assert len(ratios) >= 7 and ratios == sorted(ratios, reverse=True)


def test_a_program_that_cannot_be_measured_leaves_no_folder(tmp_path, path) -> None:
  output = tmp_path / "out"
  for exists in (False, True):
    if exists:
      output.mkdir()
    _Session.fails = len(_Session.asked)
    done = commands.run("tune", "--hlo", path, "--output", output)
    assert done.returncode == 1 and "default configuration cannot be measured" in done.stderr
    assert output.exists() == exists and not list(tmp_path.glob("out/*"))


def test_a_folder_belongs_to_one_program(tmp_path, path) -> None:
  program, text = prepare.read(path)
  tune.tune(tmp_path / "out", program, text, tune.Settings(measurements=2))
  other, text = prepare.read(small_programs.write(
      tmp_path / "g.pb", small_programs.perceptron(batch=8)))
  with pytest.raises(errors.RunDirectoryError, match="another program, .*f.pb.* is .*g.pb"):
    tune.tune(tmp_path / "out", other, text, tune.Settings(measurements=2))
  small_programs.write(path, small_programs.perceptron(batch=8))
  changed, text = prepare.read(path)
  with pytest.raises(errors.RunDirectoryError, match="an earlier version of .*f.pb"):
    tune.tune(tmp_path / "out", changed, text, tune.Settings(measurements=2))


@pytest.mark.parametrize("name", ["notes.txt", tune.JOURNAL, "plan.json"])
def test_a_folder_of_something_else_is_left_alone(tmp_path, path, name) -> None:
  output = tmp_path / "out"
  output.mkdir()
  content = '{"kernels": []}' if name == "plan.json" else "x"
  (output / name).write_text(content)
  for words in (("tune",), ("collect hlo", "--random=2")):
    done = commands.run(*words, "--hlo", path, "--output", output)
    assert done.returncode == 1 and "choose another --output" in done.stderr
    assert [entry.name for entry in output.iterdir()] == [name]
    assert (output / name).read_text() == content


def test_a_program_that_was_exported_again_is_the_same(tmp_path, path) -> None:
  program, text = prepare.read(path)
  tune.tune(tmp_path / "out", program, text, tune.Settings(measurements=2))
  moved, text = prepare.read(path)
  module = moved.data.module
  module.id = 7
  module.MergeFromString(wire.encoded(17, b"frames"))
  for computation in module.computations:
    for instruction in computation.instructions:
      instruction.MergeFromString(wire.encoded(7, b"line 12"))
  result = tune.tune(tmp_path / "out", moved, text, tune.Settings(measurements=3))
  assert result["measurements"] == 3


def test_an_interval_is_that_of_a_further_process() -> None:
  speedups = [1.1, 1.2, 1.15, 1.12]
  summary = tune.of_speedups(speedups)
  logarithms = [math.log(one) for one in speedups]
  mean = sum(logarithms) / 4
  deviation = math.sqrt(sum((one - mean) ** 2 for one in logarithms) / 3)
  half = 3.182446 * deviation * math.sqrt(1 + 1 / 4)  # Student's t, 3 degrees of freedom, 97.5 %.
  assert summary["interval"] == pytest.approx([math.exp(mean - half), math.exp(mean + half)])
  assert summary["is_faster"] == (mean > half)


@pytest.mark.parametrize(("words", "message"), [
    (("tune", "--measurements=1"), "at least 2 measurements"),
    (("tune", "--run", "bundled:tile_xla_cpu"), "expected a run on layouts"),
    (("collect", "hlo", "--random=1"), "expected 2 or more"),
    (("collect", "hlo", "--configurations", "gone.pb"), "no file gone.pb"),
])
def test_mistakes_are_named(tmp_path, path, words, message) -> None:
  done = commands.run(*words, "--hlo", path, "--output", tmp_path / "out")
  assert done.returncode == 1 and message in done.stderr
  assert not (tmp_path / "out").exists()


def test_configurations_of_another_program_are_refused(tmp_path, path) -> None:
  other = small_programs.write(tmp_path / "g.pb", small_programs.matmul(4, 8, 2))
  done = commands.run("collect", "hlo", "--hlo", path, "--configurations", other, "--output",
                      tmp_path / "out")
  assert done.returncode == 1 and "another program" in done.stderr


def test_a_collection_grows_with_each_program(tmp_path, path) -> None:
  other = small_programs.write(tmp_path / "g.pb", small_programs.perceptron(batch=8))
  mine = tmp_path / "mine"
  for number, hlo in enumerate((path, other, path)):  # The last one replaces the first.
    done = commands.run("tune", "--hlo", hlo, "--measurements", 4 + number, "--output",
                        tmp_path / f"out{number}", "--add_to", mine)
    assert done.returncode == 0, done.stderr
  described = files.read_json(mine / "collection.json")
  assert described["splits"] == {"all": 2} and len(list(mine.glob("*.npz"))) == 2
  assert described["hlo_stage"] == "before_optimization"
  counts = {graph.num_configs for graph in collections.load_collection(mine, "all")}
  assert counts == {5, 6}
  (mine / "collection.json").write_text(
      (mine / "collection.json").read_text().replace('"all"', '"test"'))
  done = commands.run("tune", "--hlo", path, "--output", tmp_path / "new", "--add_to", mine)
  assert done.returncode == 1 and "is not divided" in done.stderr
  assert not (tmp_path / "new").exists()


def test_what_was_confirmed_before_a_kill_is_not_measured_again(tmp_path, path) -> None:
  output = tmp_path / "out"
  words = ("tune", "--hlo", path, "--measurements=12", "--output", output)
  assert commands.run(*words).returncode == 0
  first = files.read_json(output / "tuned.json")
  assert first["is_faster"]
  lines = (output / tune.CONFIRMED).read_text().splitlines(keepends=True)
  assert len(lines) == tune.PROCESSES
  (output / tune.CONFIRMED).write_text("".join(lines[:2]) + lines[2][:20])
  before = len(_Session.asked)
  assert commands.run(*words).returncode == 0
  assert len(_Session.asked) - before == tune.PROCESSES - 2
  again = files.read_json(output / "tuned.json")["confirmed"]
  assert again["speedups"] == pytest.approx(first["confirmed"]["speedups"])


def test_the_flags_of_the_compiler_belong_to_the_folder(tmp_path, path) -> None:
  words = ("tune", "--hlo", path, "--measurements=2", "--output", tmp_path / "out")
  assert commands.run(*words).returncode == 0
  plan = files.read_json(tmp_path / "out" / "plan.json")
  assert "emitters" not in plan["xla_flags"]  # The program runs with XLA's own flags.
  done = commands.run(*words, "--xla_flags=--xla_cpu_use_fusion_emitters=false")
  assert done.returncode == 1 and "xla_flags" in done.stderr
