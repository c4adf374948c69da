"""What the process that measures answers and shows, with a process of the test's own."""

import os
import pathlib

import pytest

from tpugraphs_rank import files
from tpugraphs_rank.collect import environment
from tpugraphs_rank.collect.hlo import worker

_PLAN = {"source": "f.pb", "seed": 0, "program_limit": 1.0, "xla_flags": "--nope=1"}


@pytest.fixture(name="start")
def fixture_start(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
  """Starts a shell script in place of the collector's Python."""
  python = tmp_path / "python"
  monkeypatch.setattr(environment, "python", lambda: python)
  files.write_json(tmp_path / "plan.json", _PLAN)

  def start(script: str) -> worker.Worker:
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return worker.Worker(tmp_path, dict(os.environ))

  return start


def test_a_process_that_ends_is_reported_with_its_last_message(start, capsys) -> None:
  one = start('echo "a warning" >&2; echo "Unknown flag: --nope" >&2; echo >&2; exit 3')
  assert one.answer(10.0) == {"status": "crashed", "reason": (
      "its process ended with status 3; its last message is: Unknown flag: --nope")}
  one.end()
  assert capsys.readouterr().err == "a warning\nUnknown flag: --nope\n\n"


def test_a_process_may_end_without_a_message(start) -> None:
  one = start("exit 4")
  assert one.answer(10.0)["reason"] == "its process ended with status 4"
  one.end()


def test_many_messages_do_not_stop_a_process(start, capsys) -> None:
  one = start('i=0; while [ $i -lt 3000 ]; do echo "message $i, of about 30 bytes" >&2; '
              'i=$((i+1)); done; echo \'{"status": "ready"}\'; read line')
  assert one.answer(20.0) == {"status": "ready"}
  one.end()
  assert capsys.readouterr().err.count("\n") == 3000
