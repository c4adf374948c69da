"""Temporary files: those of killed processes disappear, and those of living ones stay."""

import os

import pytest

from tests.helpers import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import partials

_WRITES = """
import os, signal, sys
from tpugraphs_rank import files
with files.atomic_write(sys.argv[1]) as file:
  file.write(b"half")
  file.flush()
  print("ready", flush=True)
  sys.stdin.read()
"""


def _names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_the_file_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(tmp_path):
  with (commands.started(_WRITES, tmp_path / "killed") as killed,
        commands.started(_WRITES, tmp_path / "living") as living):
    killed.kill()
    killed.wait()
    assert len(_names(tmp_path)) == 2
    partials.look_again()
    files.write_text(tmp_path / "new", "x")
    left = _names(tmp_path)
    assert len(left) == 2 and left[0].startswith(".living.") and left[1] == "new"
    living.communicate("")  # It ends its block.
  assert _names(tmp_path) == ["living", "new"]
  assert (tmp_path / "living").read_bytes() == b"half"


def test_other_files_stay(tmp_path):
  kept = [".mine.partial", "x.0123456789abcdef.partial", ".x.0123456789ABCDEF.partial"]
  for name in kept:
    (tmp_path / name).touch()
  (tmp_path / ".folder.0123456789abcdef.partial").mkdir()
  (tmp_path / ".link.0123456789abcdef.partial").symlink_to("nowhere")
  (tmp_path / ".old.0123456789abcdef.partial").touch()
  partials.look_again()
  partials.remove_leftovers(tmp_path)
  assert _names(tmp_path) == sorted([
      *kept, ".folder.0123456789abcdef.partial", ".link.0123456789abcdef.partial"])


def test_a_folder_is_looked_through_once_a_minute(tmp_path):
  partials.look_again()
  partials.remove_leftovers(tmp_path)
  left = tmp_path / ".old.0123456789abcdef.partial"
  left.touch()
  partials.remove_leftovers(tmp_path)
  assert left.exists()
  partials.look_again()
  partials.remove_leftovers(tmp_path)
  assert not left.exists()


def test_a_file_that_was_removed_before_it_was_locked_is_created_again(tmp_path, monkeypatch):
  lock = partials.fcntl.flock
  removed = []

  def first_removed(handle, how):
    if not removed:
      os.unlink(handle.name)
      removed.append(handle.name)
    lock(handle, how)

  monkeypatch.setattr(partials.fcntl, "flock", first_removed)
  files.write_text(tmp_path / "x", "content")
  assert removed and (tmp_path / "x").read_text() == "content" and _names(tmp_path) == ["x"]


def test_devices_and_pipes_are_not_replaced(tmp_path):
  os.mkfifo(tmp_path / "pipe")
  with pytest.raises(errors.OutputError, match="pipe: it is a pipe; expected the name of an ord"):
    files.write_text(tmp_path / "pipe", "x")
  with pytest.raises(errors.OutputError, match="/dev/null: it is a device; expected the name"):
    files.write_text("/dev/null", "x")
  assert _names(tmp_path) == ["pipe"]
