"""experiments.synthesize_benchmarks: from a collection to programs, and controls like them."""

import json
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("tensorflow")

from tpugraphs_rank import files
from tpugraphs_rank.synthesis.augment import sources

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _run(*arguments):
  return subprocess.run(
      [sys.executable, "-m", "experiments.synthesize_benchmarks", *map(str, arguments)], cwd=ROOT,
      capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


def test_programs_like_the_bundled_kernels_then_controls_like_those(tmp_path):
  (tmp_path / "small.json").write_text(json.dumps({
      "data": {"conditions": ["root", "size"]},
      "network": {"width": 16, "encoder_layers": 1, "node_layers": 1, "heads": 2,
                  "edge_width": 8, "node_steps": 4, "edge_steps": 4},
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
  assert [kind for kind, _ in sources.targets(like)] == [
      kind for kind, _ in sources.targets(made)]


@pytest.mark.parametrize("arguments, message", [
    (["--source=template"], "--source=template needs --like FILE"),
    (["--source=random", "--like=none.json"], "none.json"),
    (["--collection=tile:nothing"], "tile:nothing"),
    (["--model=nowhere"], "nowhere")])
def test_mistakes_are_told(tmp_path, arguments, message):
  done = _run("--output", tmp_path, *arguments)
  assert done.returncode == 1 and message in done.stderr, done.stderr
  assert "Traceback" not in done.stderr and not (tmp_path / "programs.json").exists()
