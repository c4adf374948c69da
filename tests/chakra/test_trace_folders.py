"""Folders of traces: complete or empty, without what killed processes left behind."""

import os

import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.chakra import trace_folders


def test_files_appear_together_or_not_at_all(tmp_path):
  with pytest.raises(errors.DataError):
    with trace_folders.staged(tmp_path / "a") as staging:
      (staging / "one.0.et").write_text("1")
      raise errors.DataError("wrong")
  assert not (tmp_path / "a").exists()
  with trace_folders.staged(tmp_path / "a") as staging:
    (staging / "one.0.et").write_text("1")
    assert staging.parent == tmp_path / "a"
  assert os.listdir(tmp_path / "a") == ["one.0.et"]


def test_groups_of_an_earlier_run_are_refused(tmp_path):
  (tmp_path / "job.comm_groups").write_text('{"1": [0, 1]}')
  with pytest.raises(errors.OutputError, match="has groups of ranks already, such as job.comm_gr"):
    with trace_folders.staged(tmp_path):
      pass
  (tmp_path / "job.0.et").write_text("1")
  with pytest.raises(errors.OutputError, match="has traces already, such as job.0.et"):
    with trace_folders.staged(tmp_path):
      pass
  assert sorted(os.listdir(tmp_path)) == ["job.0.et", "job.comm_groups"]


def test_leftovers_of_dead_processes_disappear(tmp_path):
  for name in (".traces-1.partial", ".traces-99999-0123456789abcdef.partial"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "half.et").write_text("1")
  mine = (".traces-old.partial", ".traces-2-0123456789abcdee.partial")
  (tmp_path / mine[0]).mkdir()
  (tmp_path / mine[1]).write_text("a file of the user")
  with trace_folders.staging(tmp_path) as running:
    # Another export in the same folder leaves the one that still runs alone.
    with trace_folders.staging(tmp_path) as other:
      assert sorted(os.listdir(tmp_path)) == sorted([*mine, running.name, other.name])
  assert sorted(os.listdir(tmp_path)) == sorted(mine)
