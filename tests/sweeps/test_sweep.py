"""Sweeps: what is tried, what is kept, and what another process takes over."""

import math
import os
import threading

import pandas as pd
import pytest

from tests.helpers import commands
from tests.training import small_runs
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import run_config

pytest.importorskip("optuna", reason="needs the extra `sweep`")

from tpugraphs_rank.models import search_spaces
from tpugraphs_rank.sweeps import space as space_lib
from tpugraphs_rank.sweeps import sweep

BASE = run_config.RunConfig()
RANGES = {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
          "hidden_width": {"choices": [32, 64]}}
SPACE = space_lib.Space(RANGES, BASE, "test")


def _quality(config):
  """Best at a learning rate of 0.01 and the width 32."""
  return 1.0 - abs(math.log10(config.optimizer.learning_rate) + 2) - (
      config.model.hidden_width - 32) / 320


class Training:
  """Trains nothing: the metric grows over ten epochs to `_quality`; remembers what it did."""

  def __init__(self, stop_at=None):
    self.begun, self._stop_at, self.epochs = [], stop_at, 0

  def __call__(self, config, run_dir):
    run_dir.mkdir(exist_ok=True)
    done = run_dir / "epochs"
    self.begun.append(run_dir.parent.name)
    for epoch in range(1, 11):
      if epoch > int(done.read_text() if done.exists() else 0):
        self.epochs += 1
        if self.epochs == self._stop_at:
          raise KeyboardInterrupt
        done.write_text(str(epoch))
      yield epoch, _quality(config) - (10 - epoch) * 0.01, epoch == 10


def _run(folder, training, trials=12, **settings):
  return sweep.run(folder, BASE, SPACE, sweep.Settings(trials, **settings), training)


def test_a_sweep_finds_good_settings(tmp_path):
  training = Training()
  outcome = _run(tmp_path, training, 40)
  assert len(outcome.trials) == len(training.begun) == 40
  first = next(one for one in outcome.trials if one.number == 0)
  assert first.settings == {"learning_rate": BASE.optimizer.learning_rate,
                            "hidden_width": BASE.model.hidden_width}
  best = outcome.best
  assert best.value == max(one.value for one in outcome.trials) > 0.9
  assert best.settings["hidden_width"] == 32
  # Trials that are worse than the median end early, and the learning rate matters most.
  states = [one.state for one in outcome.trials]
  assert states.count("ended early") > 5 and states.count("finished") > 5
  assert training.epochs < 350
  assert list(outcome.importance)[0] == "learning_rate"
  table = pd.read_csv(tmp_path / "sweep.csv", keep_default_na=False)
  assert list(table["trial"]) == [one.number for one in outcome.trials]
  assert list(table.columns) == ["trial", "state", "valid_kendall_tau", "epoch", "learning_rate",
                                 "hidden_width", "reason"]
  config = config_lib.from_dict(run_config.RunConfig, files.read_json(tmp_path / "best.json"))
  assert _quality(config) == pytest.approx(best.value)
  assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("stop_at", [pytest.param(1, marks=pytest.mark.slow), 37])
def test_a_resumed_sweep_equals_an_uninterrupted_one(tmp_path, stop_at):
  whole = _run(tmp_path / "whole", Training())
  with pytest.raises(KeyboardInterrupt):
    _run(tmp_path / "parts", Training(stop_at))
  training = Training()
  assert _run(tmp_path / "parts", training) == whole
  assert training.begun[0] == f"{(stop_at - 1) // 10:04d}"  # The trial that was interrupted.
  again = Training()
  assert _run(tmp_path / "parts", again) == whole and not again.begun


def test_locks_that_a_killed_process_left_are_removed(tmp_path, monkeypatch):
  monkeypatch.setattr(sweep, "_REMOVED_SECONDS", 0.01)
  _run(tmp_path, Training(), 1)
  left = tmp_path / "journal.log.lock54aa79d3.rename"
  left.symlink_to(tmp_path / "journal.log")
  others = {path.name for path in tmp_path.iterdir()} - {left.name}
  (tmp_path / "trials" / "0000" / ".lock").touch()
  _run(tmp_path, Training(), 2)
  assert not list(tmp_path.rglob(".lock"))
  assert others <= {path.name for path in tmp_path.iterdir()} and not left.is_symlink()


def test_two_processes_share_the_trials(tmp_path):
  barrier = threading.Barrier(2, timeout=60)

  class Meeting(Training):
    """The first trial of one process runs at the same time as that of the other."""

    def __call__(self, config, run_dir):
      if not self.begun:
        barrier.wait()
      yield from super().__call__(config, run_dir)

  one, other = Meeting(), Meeting()
  thread = threading.Thread(target=lambda: _run(tmp_path, other, prune=False))
  thread.start()
  _run(tmp_path, one, prune=False)
  thread.join()
  assert not set(one.begun) & set(other.begun)
  assert sorted({*one.begun, *other.begun})[:12] == [f"{number:04d}" for number in range(12)]
  assert len(_run(tmp_path, Training(), prune=False).trials) <= 13  # Both may take the last one.


def test_failed_trials(tmp_path):
  def diverges(config, run_dir):
    if config.optimizer.learning_rate > 0.003:
      raise errors.TrainingError("the loss is not finite")
    yield 10, _quality(config), True

  outcome = _run(tmp_path / "some", diverges)
  failed = [one for one in outcome.trials if one.state == "failed"]
  assert failed and {one.reason for one in failed} == {"the loss is not finite"}
  assert outcome.best.settings["learning_rate"] <= 0.003

  def undefined(config, run_dir):
    yield 10, math.nan, True

  with pytest.raises(errors.TrainingError, match="first 3 trials failed.*undefined.*sweep.csv"):
    _run(tmp_path / "all", undefined)
  assert not (tmp_path / "all" / "best.json").exists()


def test_other_settings_and_damage_are_refused(tmp_path):
  _run(tmp_path, Training(), 2)
  with pytest.raises(errors.RunDirectoryError, match="other settings"):
    _run(tmp_path, Training(), 2, seed=1)
  assert len(_run(tmp_path, Training(), 4).trials) == 4  # More trials are no other sweep.
  (tmp_path / "journal.log").write_text("{}\n")
  with pytest.raises(errors.RunDirectoryError, match="journal.log is damaged"):
    _run(tmp_path, Training(), 5)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"op_code": 6, "trial_id": 0}', "[1]",
                                  '{"op_code": 4, "worker_id": "a", "trial_id": 77, '
                                  '"step": 1, "intermediate_value": NaN}'],
                         ids=["deep", "incomplete", "list", "unknown trial"])
def test_a_damaged_journal_is_refused(tmp_path, line):
  _run(tmp_path, Training(), 2)
  with (tmp_path / "journal.log").open("a", encoding="utf-8") as file:
    file.write(line + "\n")
  with pytest.raises(errors.RunDirectoryError, match="journal.log is damaged"):
    _run(tmp_path, Training(), 5)


def test_an_incomplete_last_line_of_the_journal_is_removed(tmp_path, caplog):
  _run(tmp_path / "whole", Training(), 6)
  _run(tmp_path / "cut", Training(), 3)
  path = tmp_path / "cut" / "journal.log"
  with path.open("ab") as file:
    file.write(b'{"op_code": 4, "worker_id": "a-')
  done = _run(tmp_path / "cut", Training(), 6)
  assert "removed its last line" in caplog.text
  assert [one.value for one in done.trials] == [
      one.value for one in _run(tmp_path / "whole", Training(), 6).trials]


def test_a_journal_that_is_a_link_or_a_pipe_is_refused(tmp_path):
  _run(tmp_path / "one", Training(), 2)
  journal = tmp_path / "one" / "journal.log"
  journal.rename(tmp_path / "elsewhere")
  journal.symlink_to(tmp_path / "elsewhere")
  before = (tmp_path / "elsewhere").read_bytes()
  with pytest.raises(errors.OutputError, match="journal.log: it is a symbolic link"):
    _run(tmp_path / "one", Training(), 3)
  journal.unlink()
  os.mkfifo(journal)
  with pytest.raises(errors.OutputError, match="journal.log: it is not a regular file"):
    _run(tmp_path / "one", Training(), 3)
  assert (tmp_path / "elsewhere").read_bytes() == before


def test_no_trial_begins_after_the_time(tmp_path):
  assert not _run(tmp_path, Training(), minutes=0.0).trials


@pytest.mark.parametrize("model", ["residual_gnn", "attention_gnn"])
def test_the_space_of_a_model_is_valid(model):
  config = config_lib.override(BASE, {"model.model": model})
  space = space_lib.Space(search_spaces.of(model), config, model)
  assert ("attention_width" in space.ranges) == (model == "attention_gnn")
  assert set(space.parameters_of(config)) == set(space.ranges)  # The defaults are inside.


def test_a_model_may_have_a_space_of_its_own(monkeypatch):
  model = type("Model", (), {"search_space": {"dropout": {"low": 0.0, "high": 0.5}}})
  monkeypatch.setattr(search_spaces.registries.MODELS, "get", lambda name: model)
  assert search_spaces.of("mine") == {"dropout": {"low": 0.0, "high": 0.5}}


def test_the_command(tmp_path):
  collection = small_runs.collection(tmp_path / "data")
  (tmp_path / "space.json").write_text('{"hidden_width": {"choices": [3, 4]}}')
  arguments = ["--output", tmp_path / "sweep", "--collection", collection, "--space",
               tmp_path / "space.json", "--epochs", 2, "--num_convolutions", 1, "--opcode_width", 2,
               "--head_widths", 3, "--max_configs", 6, "--notensorboard"]
  done = commands.run("sweep", *arguments, "--trials", 2)
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert lines[0].split() == ["trial", "kendall_tau", "epochs", "state", "hidden_width"]
  assert {line.split()[0] for line in lines[2:4]} == {"0", "1"}
  assert f"train --config {tmp_path / 'sweep' / 'best.json'}" in lines[-1]
  (tmp_path / "space.json").unlink()
  done = commands.run("sweep", *arguments, "--trials", 2)
  assert done.returncode == 1 and "--space: no file" in done.stderr
