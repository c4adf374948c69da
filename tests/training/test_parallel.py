"""Runs in child processes: SIGTERM to the parent ends them all."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank.training import parallel

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Trainings that only write their process's number and wait.
_PARENT = """
import pathlib, sys
from tpugraphs_rank import run_config
from tpugraphs_rank.training import parallel
real = parallel.Processes.run
wait = ("import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid()));"
        "time.sleep(600)")
parallel.Processes.run = lambda self, command: real(
    self, [sys.executable, "-c", wait, command[command.index("--run_dir") + 1] + ".pid"])
parallel.train_all(dict.fromkeys("abc", run_config.RunConfig()), pathlib.Path(sys.argv[1]), jobs=2)
"""


def _is_running(number: int) -> bool:
  try:
    os.kill(number, 0)
  except ProcessLookupError:
    return False
  return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_children(tmp_path, number):
  parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(tmp_path)], cwd=ROOT,
                            stderr=subprocess.PIPE, text=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT,
                                                             signal.default_int_handler))
  deadline = time.monotonic() + 60
  numbers = []
  while len(numbers) < 2 and time.monotonic() < deadline and parent.poll() is None:
    numbers = [int(path.read_text()) for path in tmp_path.glob("*.pid") if path.read_text()]
    time.sleep(0.05)
  parent.send_signal(number)
  _, messages = parent.communicate(timeout=60)
  assert len(numbers) == 2, messages
  assert parent.returncode != 0 and not any(map(_is_running, numbers))
  assert not list(tmp_path.glob(".*.settings.json"))  # The third was not started.
  assert len(list(tmp_path.glob("*.pid"))) == 2


def test_a_failed_run_ends_the_others_and_shows_its_last_lines(tmp_path, monkeypatch):
  real = parallel.Processes.run

  def run(self, command):
    path = command[command.index("--run_dir") + 1]
    code = ("import sys; print('line'); sys.exit('broken')" if path.endswith("bad")
            else "import time; time.sleep(600)")
    return real(self, [sys.executable, "-c", code])

  monkeypatch.setattr(parallel.Processes, "run", run)
  started = time.monotonic()
  with pytest.raises(errors.TrainingError, match=r"bad failed \(exit status 1\):\nbroken"):
    parallel.train_all({"good": run_config.RunConfig(), "bad": run_config.RunConfig()},
                       tmp_path, jobs=2)
  assert time.monotonic() - started < 60


def test_a_grid_has_a_run_for_each_model_and_seed():
  runs = parallel.grid(run_config.RunConfig(), ["residual_gnn", "attention_gnn"], [0, 3])
  assert sorted(runs) == ["attention_gnn-seed0", "attention_gnn-seed3", "residual_gnn-seed0",
                          "residual_gnn-seed3"]
  assert runs["attention_gnn-seed3"].model.model == "attention_gnn"
  assert runs["attention_gnn-seed3"].training.seed == 3
