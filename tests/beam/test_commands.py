"""The commands with --runner write the same bytes as without it, and damaged inputs fail alone."""

import filecmp
import functools
import importlib.util
import json
import pathlib
import shutil

import pytest

from tests import synthetic
from tests.candidates import small_programs
from tests.helpers import commands
from tpugraphs_rank import memory
from tpugraphs_rank.cli import app
from tpugraphs_rank.data import npz

pytest.importorskip("apache_beam")

DIRECT = ("--runner=DirectRunner",)
PROCESSES = (*DIRECT, "--beam_args=--direct_num_workers=2 --direct_running_mode=multi_processing")


def _files(folder: pathlib.Path) -> dict[str, bytes]:
  return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
          if path.is_file() and path.name not in ("failures.json", ".lock")}


def _both(folder: pathlib.Path, name: str, *words, runner=DIRECT, status=0):
  """Runs a command without and with a runner, into the folders `here` and `beam`; compares them."""
  done = [commands.run(name, *words, "--output", folder / to, *flags)
          for to, flags in (("here", ()), ("beam", runner))]
  assert [one.returncode for one in done] == [status, status], done[1].stderr
  here, beam = ((one.stdout + one.stderr).replace(str(folder / to), "OUTPUT")
                for one, to in zip(done, ("here", "beam")))
  assert here == beam
  return done


def _assert_same(folder: pathlib.Path) -> dict[str, bytes]:
  here = _files(folder / "here")
  assert here and here == _files(folder / "beam")
  assert not list(folder.rglob("*.partial"))
  return here


def _failures(folder: pathlib.Path) -> list[dict[str, str]]:
  return json.loads((folder / "failures.json").read_text())


def test_pack(tmp_path):
  descriptor = synthetic.write_collection(tmp_path / "data", "layout", counts=(3, 2, 1))
  _both(tmp_path, "pack", "--collection", descriptor)
  assert len(_assert_same(tmp_path)) == 6 + 3
  # What is packed stays. A damaged graph is the only one that is not packed again.
  for path in (descriptor.parent / "npz" / "train").iterdir():
    npz.save_graph(path, synthetic.layout_graph(len(path.stem) + 30, name=path.stem))
  damaged = sorted((descriptor.parent / "npz" / "train").iterdir())[1]
  damaged.write_bytes(damaged.read_bytes()[:200])
  done = _both(tmp_path, "pack", "--collection", descriptor, status=app.SOME_SKIPPED)
  assert "2 graphs, 2 of them packed now" in done[1].stdout
  _assert_same(tmp_path)
  [failure] = _failures(tmp_path / "beam" / "layout_synthetic")
  assert failure["input"] == str(damaged) and failure["error"] == "DataError"
  assert f"warning: skipped: {failure['message']}\n" in done[1].stderr
  assert not (tmp_path / "here" / "layout_synthetic" / "failures.json").exists()


def test_featurize(tmp_path):
  for folder, size in (("a", 4), ("b", 6)):
    (tmp_path / folder).mkdir()
    for name in ("one", "two"):
      small_programs.write(
          tmp_path / folder / f"{name}.pb", small_programs.matmul(size, 4, 8, name))
  (tmp_path / "a" / "three.pb").write_bytes(b"\xff" * 50)
  words = ("featurize", "--input", tmp_path / "a", "--input", tmp_path / "b")
  done = _both(tmp_path, *words, status=app.SOME_SKIPPED)
  assert sorted(_assert_same(tmp_path)) == ["one.npz", "one_2.npz", "two.npz", "two_2.npz"]
  [failure] = _failures(tmp_path / "beam")
  assert failure["input"].endswith("a/three.pb") and failure["error"] == "DataError"
  # Again, when one file has other content. The others are not lost.
  for folder in ("here", "beam"):
    shutil.copy(tmp_path / folder / "one_2.npz", tmp_path / folder / "two.npz")
  done = commands.run(*words, "--output", tmp_path / "beam", *DIRECT,
                      "--failures", tmp_path / "f.json")
  assert done.returncode == app.SOME_SKIPPED
  assert [failure["error"] for failure in json.loads((tmp_path / "f.json").read_text())] == [
      "DataError", "OutputError"]
  assert sorted(_assert_same(tmp_path)) == ["one.npz", "one_2.npz", "two.npz", "two_2.npz"]


def test_describe(tmp_path):
  descriptor = synthetic.write_collection(tmp_path / "data", "tile", counts=(3, 2, 1))
  done = _both(tmp_path, "describe", "--collection", descriptor)
  assert filecmp.cmp(tmp_path / "here", tmp_path / "beam", shallow=False)
  assert "tile:synthetic" in done[1].stdout
  valid = next((descriptor.parent / "npz" / "valid").iterdir())
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(memory, "_SMALL", 0)
    patch.setattr(memory, "available", lambda: 10)
    words = ("describe", "--collection", descriptor, "--splits=valid")
    here, there = commands.run(*words), commands.run(*words, *DIRECT)
    assert here.returncode == there.returncode == 1
    assert here.stderr.startswith("error: memory ran out: ") and here.stderr.count("\n") == 1
    assert "bytes of memory are free; end other programs, or use a machine" in here.stderr
    assert "not read: memory ran out: " in there.stdout and "damaged" not in there.stdout
    assert "valid has 2 files that could not be read: " in there.stderr
    assert "; describe it again with fewer workers (--direct_num_workers in " in there.stderr
    done = commands.run("pack", "--collection", descriptor, "--output", tmp_path / "packed",
                        "--failures", tmp_path / "f.json", *DIRECT)
    assert done.returncode == 1 and "memory ran out: " in done.stderr
    assert "use fewer workers (--direct_num_workers in --beam_args), or none (omit" in done.stderr
    failures = json.loads((tmp_path / "f.json").read_text())
    assert {failure["error"] for failure in failures} == {"OutOfMemoryError"}
    assert len(failures) == 6
  valid.write_bytes(b"PK")
  _both(tmp_path, "describe", "--collection", descriptor, status=1)


@pytest.fixture(name="run", scope="module")
def fixture_run(tiny_tile_run, tmp_path_factory):
  """A descriptor and a run on it. The run is loaded once, because its model is traced each time."""
  from tpugraphs_rank.training import run as run_lib
  folder = tmp_path_factory.mktemp("run")
  data = shutil.copytree(tiny_tile_run.descriptor.parent, folder / "data")
  run_dir = shutil.copytree(tiny_tile_run.path, folder / "run")
  descriptor = data / tiny_tile_run.descriptor.name
  config = run_dir / "config.json"
  config.write_text(config.read_text().replace(str(tiny_tile_run.descriptor), str(descriptor)))
  load = functools.cache(run_lib.load_run)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(run_lib, "load_run", lambda path, strict=False, prior="analytic", *_, **__: load(
        str(path), strict, prior))
    yield descriptor, run_dir


def test_predict(run, tmp_path):
  _, run_dir = run
  scores = []
  for to, flags in (("here", ()), ("beam", DIRECT)):
    part = tmp_path / to / "p.csv"
    done = commands.run("predict", "--run_dir", run_dir, "--output", part, *flags)
    assert done.returncode == 0, done.stderr
    shutil.move(run_dir / "predictions" / "test.npz", tmp_path / to / "test.npz")
    scores.append(npz.read_arrays(tmp_path / to / "test.npz"))
  _assert_same(tmp_path)
  assert len(scores[0]) == 2


def test_predicting_a_damaged_graph(run, tmp_path):
  descriptor, run_dir = run
  damaged = sorted((descriptor.parent / "test").iterdir())[0]
  content = damaged.read_bytes()
  words = ("predict", "--run_dir", run_dir, "--output", tmp_path / "p.csv",
           "--failures", tmp_path / "f.json")
  try:
    damaged.write_bytes(content[:100])
    done = commands.run(*words)
    assert done.returncode == app.SOME_SKIPPED and "(1 rows)" in done.stdout, done.stderr
    assert f"warning: skipped: {damaged}" in done.stderr
    [failure] = json.loads((tmp_path / "f.json").read_text())
    assert failure["input"] == str(damaged) and failure["error"] == "DataError"
    (tmp_path / "p.csv").unlink()
    done = commands.run(*words, "--strict")
    assert done.returncode == 1 and str(damaged) in done.stderr
    assert not (tmp_path / "p.csv").exists()
  finally:
    damaged.write_bytes(content)


def test_ranking_several_files(run, tmp_path):
  _, run_dir = run
  for folder, size in (("a", 8), ("b", 16)):
    (tmp_path / folder).mkdir()
    small_programs.write(tmp_path / folder / "x.pb", small_programs.matmul(size, 8, 8, "x"))
  (tmp_path / "b" / "y.pb").write_bytes(b"\xff" * 50)
  words = ("rank", "--run_dir", run_dir, "--hlo", tmp_path / "a", "--hlo", tmp_path / "b")
  done = _both(tmp_path, *words, status=app.SOME_SKIPPED)
  names = ["x.2.ranked.json", "x.2.ranked.pb", "x.ranked.json", "x.ranked.pb"]
  assert sorted(_assert_same(tmp_path)) == names
  assert _failures(tmp_path / "beam")[0]["input"].endswith("b/y.pb")
  assert done[1].stdout.startswith(f"{tmp_path}/a/x.pb\nPredicted, not measured")
  ranked = json.loads((tmp_path / "beam" / "x.2.ranked.json").read_text())
  assert ranked["hlo"] == str(tmp_path / "b" / "x.pb")
  for flag in ("--measure", "--module=x"):
    done = commands.run(*words, flag)
    assert done.returncode == 1 and "is for one program in this process" in done.stderr
  done = commands.run("rank", "--run_dir", run_dir, "--hlo", tmp_path / "b" / "y.pb")
  assert done.returncode == 1 and "y.pb is text, but neither" in done.stderr


@pytest.mark.parametrize("flags, message", [
    (("--beam_args=--x",), "--beam_args needs --runner"),
    (("--work_folder=w",), "--work_folder needs --runner"),
    (("--runner=Spark",), "no runner 'Spark' (did you mean 'SparkRunner'?)"),
    (("--runner=DirectRunner", "--beam_args=\"a"), "--beam_args: No closing quotation"),
])
def test_mistakes_are_one_line(flags, message, tmp_path):
  done = commands.run("pack", "--collection=tile:xla_cpu", "--output", tmp_path / "p", *flags)
  assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1
  assert not (tmp_path / "p").exists()


def test_without_beam(monkeypatch, tmp_path):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  done = commands.run("pack", "--collection=tile:xla_cpu", "--output", tmp_path, *DIRECT)
  assert done.returncode == 1
  assert "--runner needs Apache Beam" in done.stderr and "`pip install" in done.stderr


@pytest.mark.slow
def test_several_processes_write_the_same_bytes(run, tmp_path):
  descriptor, run_dir = run
  _both(tmp_path, "pack", "--collection", descriptor, runner=PROCESSES)
  _assert_same(tmp_path)
  for to, flags in (("here", ()), ("beam", PROCESSES)):
    part = tmp_path / "scores" / to / "p.csv"
    assert commands.run("predict", "--run_dir", run_dir, "--output", part, *flags).returncode == 0
    shutil.move(run_dir / "predictions" / "test.npz", part.parent / "test.npz")
  _assert_same(tmp_path / "scores")
