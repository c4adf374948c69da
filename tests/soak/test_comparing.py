"""What the soak compares after kills, and where it kills."""

import json
import os
import signal

import numpy as np

from tests.soak import comparing
from tests.soak import kills
from tests.soak import long_commands
from tests.soak import warm


def _write(folder, seconds, value):
  folder.mkdir()
  (folder / "a.json").write_text(json.dumps({"seconds": seconds, "rows": [{"x": value}]}))
  (folder / "b.csv").write_text(f"epoch,seconds,loss\n1,{seconds},{value}\n")
  np.savez(folder / "c.npz", array=np.full(3, value), state=np.array(json.dumps(
      {"time": seconds, "step": value})))
  (folder / "d.bin").write_bytes(bytes([value]))
  (folder / "train.log").write_text(str(seconds))
  return comparing.contents(folder, ["train.log"])


def test_everything_but_times_is_compared(tmp_path):
  first, same, other = (_write(tmp_path / name, seconds, value) for name, seconds, value in (
      ("first", 1, 5), ("same", 2, 5), ("other", 1, 6)))
  assert comparing.differing(first, same) == []
  assert comparing.differing(first, other) == ["a.json", "b.csv", "c.npz", "d.bin"]
  del same["d.bin"]
  assert comparing.differing(same, first) == ["d.bin"]


def test_lines_of_a_journal_may_only_be_added():
  assert kills._contains(["a", "b"], ["a"]) and kills._contains(b"x", b"x")
  assert not kills._contains(["b", "a"], ["a"]) and not kills._contains(None, ["a"])
  assert not kills._contains(b"xy", b"x") and not kills._contains(None, b"x")


def test_operations_on_files_of_a_folder_are_counted(tmp_path, monkeypatch):
  killed = []
  monkeypatch.setattr(os, "killpg", lambda group, number: killed.append(number))
  operations = warm._Operations(tmp_path, 3)
  inside = str(tmp_path / "a")
  for event, arguments in (
      ("open", (inside, "r", os.O_RDONLY)), ("open", ("/elsewhere", "w", os.O_WRONLY)),
      ("os.listdir", (inside,)), ("open", (3, "w", os.O_WRONLY))):
    operations(event, arguments)
  assert operations.count == 0
  operations("open", (inside, "w", os.O_WRONLY | os.O_CREAT))
  operations("os.rename", (os.fsencode(inside), inside, -1, -1))
  assert not killed
  operations("os.remove", (tmp_path / "a", -1))
  assert operations.count == 3 and killed == [signal.SIGKILL]


def test_results_of_trials_add_up():
  entry = {"kills": 12, "trials": 6, "lost": 0, "different": 0, "leftovers": 0}
  kills.total(entry, kills.Result(kills=3, at_operations=2, trials=1, faults=["x"]))
  assert entry == {"kills": 15, "at_operations": 2, "new_processes": 0, "trials": 7, "lost": 0,
                   "different": 0, "leftovers": 0, "faults": ["x"]}


def test_a_view_of_measurements_has_no_times(tmp_path):
  record = {"stem": "p", "module": "m", "configurations": [
      {"layouts": "10", "status": "ok", "runtime_ns": 5}], "date": "x"}
  (tmp_path / "measured").mkdir()
  for number in (1, 3):
    (tmp_path / "measured" / f"p.pass{number}.json").write_text(json.dumps(record))
  assert long_commands._measured_programs(tmp_path) == {"measured/p.pass1.json": {
      "stem": "p", "module": "m", "configurations": [{"layouts": "10", "status": "ok"}]}}
  (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"a"')
  assert long_commands._journals(tmp_path) == {"x.jsonl": ['{"a": 1}']}
