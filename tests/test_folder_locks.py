"""One process at a time in a folder: the second is refused, or waits."""

import os
import socket
import threading
import time

import pytest

from tests.helpers import commands
from tpugraphs_rank import errors
from tpugraphs_rank import folder_locks

_HOLDS = """
import sys
from tpugraphs_rank import folder_locks
with folder_locks.hold(sys.argv[1]):
  print("ready", flush=True)
  sys.stdin.read()
"""


def test_a_second_process_is_refused_with_the_first_and_a_killed_one_blocks_nobody(tmp_path):
  folder = tmp_path / "run"
  with commands.started(_HOLDS, folder) as process:
    expected = f"run is in use by process {process.pid} on {socket.gethostname()}; wait for it with"
    with pytest.raises(errors.RunDirectoryError, match=expected):
      with folder_locks.hold(folder):
        pass
    process.kill()
    process.wait()
  assert (folder / ".lock").exists()
  with folder_locks.hold(folder):
    assert str(os.getpid()) in (folder / ".lock").read_text()
  assert list(folder.iterdir()) == []


def test_waiting(tmp_path, monkeypatch, caplog):
  monkeypatch.setattr(folder_locks, "_POLL_SECONDS", 0.01)
  caplog.set_level("INFO", "tpugraphs_rank")
  order = []

  def second():
    with folder_locks.hold(tmp_path, wait=True):
      order.append("second")

  thread = threading.Thread(target=second)
  with folder_locks.hold(tmp_path):
    thread.start()
    deadline = time.monotonic() + 30
    while not caplog.messages and time.monotonic() < deadline:
      time.sleep(0.01)
    order.append("first")
  thread.join(30)
  assert order == ["first", "second"]
  assert caplog.messages == [
      f"{tmp_path} is in use by process {os.getpid()} on {socket.gethostname()}; waiting for it"]


def test_nobody_gets_a_removed_lock(tmp_path, monkeypatch):
  monkeypatch.setattr(folder_locks, "_POLL_SECONDS", 0.001)
  inside, most = [0], [0]

  def work():
    for _ in range(20):
      with folder_locks.hold(tmp_path, wait=True):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.0005)
        inside[0] -= 1

  threads = [threading.Thread(target=work) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(60)
  assert most == [1] and list(tmp_path.iterdir()) == []


def test_a_new_folder_in_which_nothing_was_written_is_removed(tmp_path):
  with pytest.raises(ZeroDivisionError), folder_locks.hold(tmp_path / "new"):
    raise ZeroDivisionError
  with folder_locks.hold(tmp_path / "kept"):
    (tmp_path / "kept" / "file").touch()
  assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_damaged_lock_file(tmp_path):
  with folder_locks.hold(tmp_path):
    (tmp_path / ".lock").write_bytes(b"\xff{")
    with pytest.raises(errors.RunDirectoryError, match="is in use by another process; wait"):
      with folder_locks.hold(tmp_path):
        pass


def test_a_lock_is_neither_a_link_nor_a_pipe(tmp_path):
  (tmp_path / "mine").write_text("precious")
  lock = tmp_path / "folder" / folder_locks.NAME
  lock.parent.mkdir()
  for make in (lambda: lock.symlink_to(tmp_path / "mine"), lambda: lock.symlink_to("nothing"),
               lambda: os.mkfifo(lock)):
    make()
    with pytest.raises(errors.OutputError, match=r"\.lock: it is (a symbolic link|not a regular)"):
      with folder_locks.hold(lock.parent):
        pass
    lock.unlink()
  assert (tmp_path / "mine").read_text() == "precious" and not list(lock.parent.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(errors.OutputError, match="cannot write .*file.*a file is where a folder"):
    with folder_locks.hold(tmp_path / "file"):
      pass
