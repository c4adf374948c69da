"""The training app from the command line: what it prints, writes and answers."""

import json
import pathlib
import subprocess
import sys

import pytest

from tests.training import small_runs
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import run_config

ROOT = pathlib.Path(__file__).resolve().parents[2]
# As flags: what tests/training/small_runs.py calls TINY.
TINY = [f"--{name.rpartition('.')[2]}={','.join(map(str, v)) if isinstance(v, list) else v}"
        for name, v in small_runs.TINY.items() if not isinstance(v, bool)] + ["--notensorboard"]


def _train(*arguments) -> subprocess.CompletedProcess:
  return subprocess.run(
      [sys.executable, "-m", "tpugraphs_rank.cli.train", *map(str, arguments)], cwd=ROOT,
      capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
  return small_runs.collection(tmp_path_factory.mktemp("tiny"))


def test_training_then_another_run_into_the_same_folder(tiny, tmp_path):
  run_dir = tmp_path / "run"
  done = _train("--run_dir", run_dir, "--collection", tiny, *TINY, "--epochs=1")
  assert done.returncode == 0, done.stderr
  first, second = done.stdout.splitlines()
  assert first.startswith("finished after epoch 1; best epoch 1: valid kendall_tau ")
  assert second == f"next: python -m tpugraphs_rank.cli.evaluate --run_dir {run_dir}"
  assert "I plan: " in done.stderr  # The log.
  assert json.loads((run_dir / "environment.json").read_text())["command"].startswith(
      "python -m tpugraphs_rank.cli.train --run_dir")
  before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}

  refused = _train("--run_dir", run_dir, "--collection", tiny, *TINY, "--epochs=1", "--seed=4")
  assert refused.returncode == 1 and refused.stdout == ""
  assert refused.stderr.splitlines()[0] == (
      f"error: {run_dir} was written with other settings:")
  assert "  training.seed: stored 0, requested 4" in refused.stderr.splitlines()
  assert before == {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


def test_a_dry_run_takes_one_step_prints_the_plan_and_writes_nothing(tiny, tmp_path):
  done = _train("--run_dir", tmp_path / "run", "--collection", tiny, *TINY, "--dry_run")
  assert done.returncode == 0, done.stderr
  printed = json.loads(done.stdout)
  assert list(printed) == ["data", "plan", "first_step", "config"]
  assert [line.partition(" programs with ")[0] for line in printed["data"]] == [
      "tile:tiny train: 4", "tile:tiny valid: 2"]
  assert printed["plan"]["train_programs"] == 4 and printed["plan"]["steps_per_epoch"] == 3
  assert printed["first_step"]["loss"] > 0 and printed["first_step"]["gradient_norm"] > 0
  asked = config_lib.from_dict(run_config.RunConfig, printed["config"])
  assert asked == small_runs.settings(tiny)
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments, status, said", [
    (["--learning_rate=0"], 1, "error: flags: optimizer.learning_rate = 0.0; expected greater"),
    (["--config=/nowhere.json"], 1, "error: no file /nowhere.json"),
    (["stray"], 2, "error: unexpected argument 'stray'; all options are flags"),
    (["--hiden_width=3"], 2, "error: Unknown command line flag 'hiden_width'. Did you mean: hidden"),
    (["--batch_size=many"], 2, "error: flag --batch_size=many: "),
])
def test_a_mistake_is_told_at_once_and_shortly(tmp_path, arguments, status, said):
  done = _train("--run_dir", tmp_path / "run", *arguments)
  assert done.returncode == status and done.stdout == ""
  assert done.stderr.startswith(said) and done.stderr.count("\n") == 1
  assert not (tmp_path / "run").exists()


def test_without_a_run_directory():
  done = _train()
  assert done.returncode == 2 and "--run_dir" in done.stderr and done.stderr.count("\n") == 1


def test_help_lists_the_settings_with_their_defaults():
  done = _train("--help")
  default = run_config.ModelConfig().hidden_width
  assert f"--hidden_width: Width of the hidden states. [model.hidden_width; default {default}]" in (
      " ".join(done.stdout.split()))


def test_missing_data_is_one_line(tmp_path):
  done = _train("--run_dir", tmp_path / "run", "--collection", "tile:xla", "--data_root", tmp_path)
  assert done.returncode == 1
  assert done.stderr.startswith("error: no data of tile:xla train at ")
  assert "tpugraphs_rank.cli.download" in done.stderr and done.stderr.count("\n") == 1
