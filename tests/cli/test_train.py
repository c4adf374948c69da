"""The train command: what it prints, writes and returns."""

import json

import pytest

from tests.helpers import commands
from tests.training import small_runs
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import run_config

# As flags: what tests/training/small_runs.py calls TINY.
TINY = [f"--{name.rpartition('.')[2]}={','.join(map(str, v)) if isinstance(v, list) else v}"
        for name, v in small_runs.TINY.items() if not isinstance(v, bool)] + ["--notensorboard"]


def _train(*arguments):
  return commands.run("train", *arguments)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
  return small_runs.collection(tmp_path_factory.mktemp("tiny"))


def test_training_then_another_run_into_the_same_folder(tiny, tmp_path):
  run_dir = tmp_path / "run"
  done = _train("--run_dir", run_dir, "--collection", tiny, *TINY, "--epochs=1")
  assert done.returncode == 0, done.stderr
  first, *table, last = done.stdout.splitlines()
  assert first == "finished after epoch 1; best epoch 1"
  assert [line.split()[0] for line in table if line.startswith(("kendall", "opa", "top1"))] == [
      "kendall_tau", "opa", "top1_slowdown", "top10_slowdown"]
  assert last == f"next: `tpugraphs-rank evaluate --run_dir {run_dir}`"
  assert "plan: " in done.stderr  # The log.
  assert json.loads((run_dir / "environment.json").read_text())["command"].startswith(
      "tpugraphs-rank train --run_dir")
  before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}

  refused = _train("--run_dir", run_dir, "--collection", tiny, *TINY, "--epochs=1", "--seed=4")
  assert refused.returncode == 1 and refused.stdout == ""
  assert refused.stderr.splitlines()[0] == (
      f"error: {run_dir} was written with other settings:")
  assert "    training.seed: stored 0, requested 4" in refused.stderr.splitlines()
  assert before == {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


def test_a_dry_run_takes_one_step_prints_the_plan_and_writes_nothing(tiny, tmp_path):
  done = _train("--run_dir", tmp_path / "run", "--collection", tiny, *TINY, "--dry_run")
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert [line.partition(" programs with ")[0] for line in lines[:2]] == [
      "tile:tiny train: 4", "tile:tiny valid: 2"]
  rows = dict(line.split(maxsplit=1) for line in lines if len(line.split()) >= 2)
  assert rows["train_programs"] == "4" and rows["steps_per_epoch"] == "3"
  assert float(rows["loss"]) > 0 and float(rows["gradient_norm"]) > 0
  # The table of changed settings is complete.
  changed = {name: json.loads(value) for name, value in rows.items()
             if "." in name and name.partition(".")[0] in ("batch", "data", "model", "training",
                                                           "optimizer")}
  assert config_lib.override(run_config.RunConfig(), changed) == small_runs.settings(tiny)
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments, status, message", [
    (["--learning_rate=0"], 1, "error: flags: optimizer.learning_rate = 0.0; expected greater"),
    (["--config=/nowhere.json"], 1, "error: no settings file /nowhere.json; expected"),
    (["stray"], 2, "error: unexpected argument 'stray'; all options are flags"),
    (["--hiden_width=3"], 2, "error: Unknown command line flag 'hiden_width'. Did you mean: hid"),
    (["--batch_size=many"], 2, "error: flag --batch_size=many: "),
])
def test_a_mistake_is_one_line(tmp_path, arguments, status, message):
  done = _train("--run_dir", tmp_path / "run", *arguments)
  assert done.returncode == status and done.stdout == ""
  assert done.stderr.startswith(message) and done.stderr.count("\n") == 1
  assert not (tmp_path / "run").exists()


def test_without_a_run_directory():
  done = _train()
  assert done.returncode == 2
  assert done.stderr == ("error: --run_dir is required (`tpugraphs-rank train --help` lists the "
                         "flags)\n")


def test_help_lists_the_settings_with_their_defaults():
  done = _train("--help")
  default = run_config.ModelConfig().hidden_width
  assert f"--hidden_width=N Width of the hidden states. Default: {default}." in (
      " ".join(done.stdout.split()))


def test_missing_data_is_one_line(tmp_path):
  done = _train("--run_dir", tmp_path / "run", "--collection", "tile:xla", "--data_root", tmp_path)
  assert done.returncode == 1
  assert done.stderr.startswith("error: no data of tile:xla train at ")
  assert "tpugraphs-rank download" in done.stderr and done.stderr.count("\n") == 1
