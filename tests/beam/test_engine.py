"""Beam pipelines as an engine: the same outcomes as in one process, and what fails alone."""

import os
import pickle
import subprocess
import sys
import time

import pytest

from tests.helpers import beam_tasks
from tpugraphs_rank import errors
from tpugraphs_rank import work

beam = pytest.importorskip("apache_beam")

from tpugraphs_rank.beam import engine as engine_lib  # noqa: E402
from tpugraphs_rank.beam import scratch  # noqa: E402

PROCESSES = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")


def _engine(tmp_path, *arguments):
  return engine_lib.BeamEngine("DirectRunner", arguments, tmp_path / "work")


def test_tasks_are_pickled_without_what_they_have_loaded():
  task = beam_tasks.Square()
  assert task(3) == 9 and "_exponent" in task.__dict__
  copy = pickle.loads(pickle.dumps(task))
  assert "_exponent" not in copy.__dict__ and copy == task and copy(3) == 9


def test_this_process_raises_what_a_task_does_not_expect(tmp_path):
  task = beam_tasks.Square(tmp_path / "closed")
  outcomes = work.HERE.map(task, [2, 13, 14])
  assert next(outcomes) == work.Outcome(4)
  with pytest.raises(errors.ConfigError, match="^13: "):
    next(outcomes).get()
  with pytest.raises(ZeroDivisionError):
    next(outcomes)
  assert (tmp_path / "closed").exists()
  assert list(work.HERE.map(beam_tasks.Square(), [])) == []


def test_outcomes_are_in_order_and_failures_lose_nothing(tmp_path, caplog):
  items = [5, 13, 1, 14, 3]
  task = beam_tasks.Square(tmp_path / "closed")
  with caplog.at_level("INFO", "tpugraphs_rank"):
    outcomes = list(_engine(tmp_path).map(task, items, cost=float))
  # Logged in the order of the items, although the largest are processed first.
  assert [record.getMessage() for record in caplog.records
          if record.name == "tpugraphs_rank.tests"] == [f"squares {item}" for item in items]
  assert [outcome.value for outcome in outcomes] == [25, None, 1, None, 9]
  refused, failed = outcomes[1].error, outcomes[3].error
  assert type(refused) is errors.ConfigError and str(refused) == "13: expected another number"
  assert type(failed) is errors.PipelineError
  assert str(failed).startswith("a worker failed unexpectedly: Traceback")
  assert str(failed).endswith("ZeroDivisionError: 14 is a fault")
  assert (tmp_path / "closed").exists()
  assert os.listdir(tmp_path / "work") == []
  assert list(_engine(tmp_path).map(task, [])) == []


def test_memory_that_runs_out_is_no_fault_of_the_input(tmp_path):
  outcomes = list(_engine(tmp_path).map(beam_tasks.Square(), [31, 2]))
  assert type(outcomes[0].error) is errors.OutOfMemoryError and outcomes[1].value == 4
  assert str(outcomes[0].error) == "memory ran out in the worker that processed 31"
  task = beam_tasks.Square()
  object.__setattr__(task, "expected", (errors.TpuGraphsRankError,))
  with pytest.raises(MemoryError):
    next(work.HERE.map(task, [31]))


@pytest.mark.parametrize("runner, arguments, message", [
    ("Other", (), r"no runner 'Other'; expected one of DirectRunner, FlinkRunner, "),
    ("Directrunner", (), r"no runner 'Directrunner' \(did you mean 'DirectRunner'\?\)"),
    ("no.such.Runner", (), r"the runner no.such.Runner cannot be used: No module named 'no'"),
    ("DirectRunner", ("--direct_num_worker=2",),
     r"has no option '--direct_num_worker=2' \(did you mean '--direct_num_workers'\?\)"),
    ("DirectRunner", ("--direct_num_workers=x",), "invalid int value: 'x'"),
    ("DirectRunner", ("--direct_num_workers=2",), "expected 1, or 0 .*=multi_processing"),
    ("DirectRunner", ("--direct_num_workers=-1",), "expected 1, or 0 .*=multi_processing"),
    ("DirectRunner", ("--runner=FlinkRunner",), "--runner is a flag of this command"),
])
def test_mistakes_in_options(runner, arguments, message):
  with pytest.raises(errors.ConfigError, match=message):
    engine_lib.BeamEngine(runner, arguments)


def test_a_pipeline_that_fails_as_a_whole(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(errors.OutputError, match="choose another --work_folder"):
    list(engine_lib.BeamEngine("DirectRunner", (), tmp_path / "file").map(beam_tasks.Square(), [1]))
  # Results that do not arrive are not forgotten.
  engine = _engine(tmp_path)
  engine._run = lambda folder: []
  with pytest.raises(errors.PipelineError, match="left 2 of 2 inputs without a result"):
    list(engine.map(beam_tasks.Square(), [1, 2]))


def test_leftovers_of_killed_processes_are_removed(tmp_path):
  code = ("import sys, time\nfrom tpugraphs_rank.beam import scratch\n"
          "with scratch.folder(sys.argv[1]) as folder:\n  print(folder, flush=True)\n"
          "  time.sleep(60)\n")
  process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE,
                             text=True)
  folder = tmp_path / process.stdout.readline().strip()
  with scratch.folder(tmp_path):
    assert folder.exists()  # Its process lives.
  process.kill()
  process.communicate()
  fresh, old = tmp_path / "tpugraphs_rank_beam_fresh", tmp_path / "tpugraphs_rank_beam_old"
  fresh.mkdir()
  old.mkdir()
  os.utime(old, (time.time() - 3600,) * 2)
  with scratch.folder(tmp_path) as other:
    assert {path.name for path in tmp_path.iterdir()} == {other.name, fresh.name}
    assert other.stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
def test_a_worker_that_dies_loses_one_input(tmp_path, caplog):
  items = list(range(10, 30))
  outcomes = list(_engine(tmp_path, *PROCESSES).map(beam_tasks.Square(), items))
  expected = [None if item in (13, 14, 15) else item ** 2 for item in items]
  assert [outcome.value for outcome in outcomes] == expected
  assert isinstance(outcomes[5].error, errors.PipelineError)
  assert str(outcomes[5].error).startswith("the worker that processed 15 was killed; ")
  assert "1 worker(s) died" in caplog.text
