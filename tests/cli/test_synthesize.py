"""tpugraphs_rank.cli.synthesize: from a collection to programs, and controls like them."""

import json
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("tensorflow")

from tpugraphs_rank import files
from tpugraphs_rank.synthesis.programs import sources

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _run(*arguments):
  return subprocess.run(
      [sys.executable, "-m", "tpugraphs_rank.cli.synthesize", *map(str, arguments)], cwd=ROOT,
      capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


_SMALL = {"width": 16, "encoder_layers": 1, "node_layers": 1, "heads": 2, "edge_width": 8,
          "node_steps": 4, "edge_steps": 4}


def test_programs_like_the_bundled_kernels_then_controls_like_those(tmp_path):
  (tmp_path / "small.json").write_text(json.dumps({
      "data": {"conditions": ["root", "size"]},
      "network": _SMALL,
      "fit": {"epochs": 60, "batch_graphs": 16, "learning_rate": 0.01, "tensorboard": False}}))
  output = tmp_path / "made"
  arguments = ["--config", tmp_path / "small.json", "--count", 6, "--output", output]
  done = _run(*arguments)
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith("162 dataflow graphs of tile:xla_cpu (0 programs left out)")
  assert "6 programs of " in done.stdout and "written: " in done.stdout
  value = files.read_json(output / "programs.json")
  made = sources.from_json(value, "made")
  assert len(made) == 6 and value["realisation"]["graphs"] >= 6 and value["model"]
  # The generator is there now; the same seed makes the same programs.
  assert _run(*arguments).returncode == 0
  assert sources.from_json(files.read_json(output / "programs.json"), "again") == made
  controls = tmp_path / "random"
  done = _run("--source", "random", "--like", output / "programs.json", "--output", controls)
  assert done.returncode == 0, done.stderr
  like = sources.from_json(files.read_json(controls / "programs.json"), "random")
  assert [target.kind for target in sources.targets(like)] == [
      target.kind for target in sources.targets(made)]


def test_programs_of_an_unknown_kind_are_refused(tmp_path):
  like = tmp_path / "like.json"
  like.write_text(json.dumps({"kind": "foo", "programs": []}))
  done = _run("--source", "random", "--like", like, "--output", tmp_path / "made")
  assert done.returncode == 1 and done.stderr == (
      f"error: {like}: kind is 'foo'; expected one of tile, layout\n")


def test_programs_like_parts_of_layout_programs_then_controls_like_those(tmp_path):
  (tmp_path / "small.json").write_text(json.dumps({
      "data": {"conditions": ["root", "size"]}, "network": _SMALL,
      "fit": {"epochs": 20, "batch_graphs": 16, "learning_rate": 0.01, "tensorboard": False}}))
  done = _run("--collection=layout:xla_cpu:mixed", "--config", tmp_path / "small.json",
              "--parts=1", "--max_nodes=18", "--count=2", "--output", tmp_path / "made")
  assert done.returncode == 0, done.stderr
  value = files.read_json(tmp_path / "made" / "programs.json")
  assert value["kind"] == "layout"
  made = sources.targets(sources.from_json(value, "made"), sources.LIMITS["layout"])
  assert len(made) == 2 and all(target.sites >= 3 for target in made)
  done = _run("--source=template", "--like", tmp_path / "made" / "programs.json", "--output",
              tmp_path / "like")
  assert done.returncode == 0, done.stderr
  value = files.read_json(tmp_path / "like" / "programs.json")
  like = sources.targets(sources.from_json(value, "like"), sources.LIMITS["layout"])
  assert value["kind"] == "layout" and len(like) == 2
  assert {target.kind for target in like} <= {target.kind for target in made}


@pytest.mark.parametrize("arguments, message", [
    (["--source=template"], "--source=template needs --like FILE"),
    (["--source=random", "--like=none.json"], "none.json"),
    (["--collection=tile:nothing"], "tile:nothing"),
    (["--collection=layout:xla_cpu:mixed", "--fewest_nodes=70"], "70 to 50 nodes"),
    (["--model=nowhere"], "nowhere")])
def test_mistakes_are_told(tmp_path, arguments, message):
  done = _run("--output", tmp_path, *arguments)
  assert done.returncode == 1 and message in done.stderr, done.stderr
  assert "Traceback" not in done.stderr and not (tmp_path / "programs.json").exists()
