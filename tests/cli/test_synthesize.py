"""The synthesize command: programs like those of a collection, controls, and the measurement."""

import json
import pathlib
import sys

import pytest

pytest.importorskip("tensorflow")

from tests.helpers import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.cli import collect
from tpugraphs_rank.synthesis.programs import sources

SMALL = {"data": {"conditions": ["root", "size"]},
         "network": {"width": 16, "encoder_layers": 1, "node_layers": 1, "heads": 2,
                     "edge_width": 8, "node_steps": 4, "edge_steps": 4},
         "fit": {"epochs": 12, "batch_graphs": 16, "learning_rate": 0.01, "tensorboard": False}}


def _run(*arguments):
  return commands.run("synthesize", "--generate_only", *arguments)


@pytest.fixture(name="kernels", scope="module")
def _kernels(tmp_path_factory):
  """The folder of six programs like the bundled kernels, the arguments, and the output."""
  folder = tmp_path_factory.mktemp("kernels")
  (folder / "small.json").write_text(json.dumps(SMALL))
  arguments = ["--config", folder / "small.json", "--count", 6, "--max_nodes", 20]
  done = _run(*arguments, "--output", folder / "programs")
  assert done.returncode == 0, done.stderr
  return folder / "programs", arguments, done.stdout


@pytest.mark.slow
def test_programs_like_the_bundled_kernels(kernels):
  folder, arguments, output = kernels
  assert " dataflow graphs of tile:xla_cpu:v1 (" in output.splitlines()[0]
  assert "6 programs of " in output and f"written: {folder / 'programs.json'}" in output
  value = files.read_json(folder / "programs.json")
  programs = sources.from_json(value, "programs")
  assert len(programs) == 6 and value["realisation"]["graphs"] >= 6 and value["model"]
  # The generator exists now; the same seed generates the same programs.
  assert _run(*arguments, "--output", folder).returncode == 0
  assert sources.from_json(files.read_json(folder / "programs.json"), "again") == programs


@pytest.mark.slow
def test_controls_like_the_programs(kernels, tmp_path):
  folder, _, _ = kernels
  done = _run("--source", "random", "--like", folder / "programs.json", "--output", tmp_path)
  assert done.returncode == 0, done.stderr
  programs = sources.from_json(files.read_json(folder / "programs.json"), "programs")
  like = sources.from_json(files.read_json(tmp_path / "programs.json"), "random")
  assert [target.kind for target in sources.targets(like)] == [
      target.kind for target in sources.targets(programs)]


def test_programs_of_an_unknown_kind_are_rejected(tmp_path):
  like = tmp_path / "like.json"
  like.write_text(json.dumps({"kind": "foo", "programs": []}))
  done = _run("--source", "random", "--like", like, "--output", tmp_path / "programs")
  assert done.returncode == 1 and done.stderr == (
      f"error: {like}: kind is 'foo'; expected one of tile, layout\n")


@pytest.mark.slow
def test_programs_like_subgraphs_of_layout_programs_then_controls_like_those(tmp_path):
  (tmp_path / "small.json").write_text(json.dumps(SMALL))
  done = _run("--collection=layout:xla_cpu:mixed:v1", "--config", tmp_path / "small.json",
              "--subgraphs=1", "--max_nodes=18", "--count=2", "--output", tmp_path / "programs")
  assert done.returncode == 0, done.stderr
  value = files.read_json(tmp_path / "programs" / "programs.json")
  assert value["kind"] == "layout"
  programs = sources.targets(sources.from_json(value, "programs"), sources.LIMITS["layout"])
  assert len(programs) == 2 and all(target.sites >= 3 for target in programs)
  done = _run("--source=template", "--like", tmp_path / "programs" / "programs.json", "--output",
              tmp_path / "like")
  assert done.returncode == 0, done.stderr
  value = files.read_json(tmp_path / "like" / "programs.json")
  like = sources.targets(sources.from_json(value, "like"), sources.LIMITS["layout"])
  assert value["kind"] == "layout" and len(like) == 2
  assert {target.kind for target in like} <= {target.kind for target in programs}


@pytest.mark.parametrize("arguments, message", [
    (["--source=template"], "--source=template needs --like FILE"),
    (["--source=random", "--like=none.json"], "none.json"),
    (["--collection=tile:nothing"], "tile:nothing"),
    (["--collection=layout:xla_cpu:mixed:v1", "--min_nodes=70"], "70 to 50 nodes"),
    (["--model=nowhere"], "nowhere")])
def test_mistakes_are_reported(tmp_path, arguments, message):
  done = _run("--output", tmp_path, *arguments)
  assert done.returncode == 1 and message in done.stderr, done.stderr
  assert "Traceback" not in done.stderr and not (tmp_path / "programs.json").exists()


@pytest.mark.slow
def test_the_programs_are_measured(kernels, tmp_path, monkeypatch):
  """The collector itself needs JAX; here only its arguments are checked."""
  started = []

  def run(module, *arguments):
    started.append((module, *arguments))
    raise errors.OutputError("no JAX in this test")

  monkeypatch.setattr(collect.environment, "run", run)
  folder, _, _ = kernels
  arguments = ["synthesize", "--source=template", "--like", folder / "programs.json", "--output",
               tmp_path, "--cores=0", "--passes=3"]
  done = commands.run(*arguments)
  assert done.returncode == 1 and done.stderr == "error: no JAX in this test\n"
  assert started == [(
      "tpugraphs_rank.collect.tile", "--output", str(tmp_path / "measured"),
      f"--synthetic={tmp_path / 'programs.json'}", "--configurations=20", "--passes=3",
      "--cores=0")]


def test_help_needs_no_tensorflow_and_no_jax():
  done = commands.run_process("synthesize", "--help")
  assert done.returncode == 0 and "--generate_only" in done.stdout
  assert pathlib.Path(sys.executable).exists() and "tensorflow" not in done.stderr.lower()
