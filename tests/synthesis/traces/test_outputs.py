"""What `chakra synthesize` writes: settings, hidden names, and traces in place of its own."""

import json
import os

import numpy as np
import pytest

from tests.synthesis.traces import test_compare_command
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.chakra import costs as costs_lib
from tpugraphs_rank.chakra import graphs as graphs_lib
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.traces import outputs


@pytest.fixture(name="graphs")
def _graphs():
  return test_compare_command.trace_dags(8, 9, 10)


def _contents(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_a_folder_keeps_its_settings(tmp_path, graphs):
  outputs.check_settings(tmp_path, {"--seed": 0, "--min_nodes": None}, graphs)
  before = _contents(tmp_path)
  outputs.check_settings(tmp_path, {"--seed": 0, "--min_nodes": None}, graphs)
  with pytest.raises(errors.RunDirectoryError, match="--seed: stored 0, requested 1\nChoose ano"):
    outputs.check_settings(tmp_path, {"--seed": 1, "--min_nodes": None}, graphs)
  with pytest.raises(errors.RunDirectoryError, match="traces of --input: stored"):
    outputs.check_settings(tmp_path, {"--seed": 0, "--min_nodes": None}, graphs.take([0, 1]))
  assert _contents(tmp_path) == before
  (tmp_path / outputs.SETTINGS).unlink()
  dags_lib.save(tmp_path / "training.npz", graphs)
  with pytest.raises(errors.RunDirectoryError, match="no settings.json"):
    outputs.check_settings(tmp_path, {"--seed": 0}, graphs)


def test_files_of_the_user_stay_and_own_traces_are_replaced(tmp_path, graphs):
  outputs.write(tmp_path, graphs, 2)
  folder = tmp_path / "traces"
  assert len(_contents(folder)) == 6
  (folder / "notes.txt").write_text("mine")
  (folder / "inner").mkdir()
  (folder / "inner" / "mine.et").write_text("mine")
  outputs.write(tmp_path, graphs.take([0]), 1)
  left = sorted(path.name for path in folder.iterdir())
  assert left[1:] == ["inner", "notes.txt"] and len(left) == 3
  assert (folder / "inner" / "mine.et").read_text() == "mine"
  assert files.read_json(tmp_path / outputs.RECORD) == {"files": left[:1]}
  (folder / "mine.et").write_text("mine")
  before = _contents(folder)
  with pytest.raises(errors.OutputError, match="mine.et was not written by this command"):
    outputs.write(tmp_path, graphs, 1)
  assert _contents(folder) == before
  (folder / "mine.et").rename(folder / "graph_0000.comm_groups")
  with pytest.raises(errors.OutputError, match="comm_groups was not written by this command"):
    outputs.write(tmp_path, graphs, 1)


@pytest.mark.parametrize("record", [None, "", '{"files": ["graph', '["graph_0000.0.et"]'])
def test_traces_without_a_record_are_adopted_if_equal(tmp_path, graphs, record):
  outputs.write(tmp_path, graphs, 1)
  before = _contents(tmp_path / "traces")
  path = tmp_path / outputs.RECORD
  path.unlink() if record is None else path.write_text(record)
  with pytest.raises(errors.OutputError, match="no longer lists it"):
    outputs.write(tmp_path, graphs.take([2, 1]), 1)
  assert _contents(tmp_path / "traces") == before
  outputs.write(tmp_path, graphs, 1)
  assert _contents(tmp_path / "traces") == before
  assert files.read_json(path) == {"files": sorted(before)}


@pytest.mark.parametrize("moved", range(4))
def test_writing_resumes_after_an_interruption(tmp_path, graphs, moved, monkeypatch):
  outputs.write(tmp_path, graphs.take([0, 1]), 1)
  calls = []
  replace = os.replace

  def interrupted(source, target):
    if os.path.dirname(target) == str(tmp_path / "traces"):
      calls.append(target)
      if len(calls) > moved:
        raise KeyboardInterrupt
    replace(source, target)

  monkeypatch.setattr(os, "replace", interrupted)
  try:
    outputs.write(tmp_path, graphs, 1)
    assert moved >= 3
  except KeyboardInterrupt:
    assert moved < 3
  monkeypatch.undo()
  outputs.write(tmp_path, graphs.take([2]), 1)
  assert len(_contents(tmp_path / "traces")) == 1


def test_hidden_names_are_secret_and_stay(tmp_path, graphs):
  names = outputs.private_names(tmp_path, graphs)
  assert sorted(names.operators) == ["add", "mul", "relu"]
  assert sorted(names.operators.values()) == ["op_1", "op_2", "op_3"]
  assert outputs.private_names(tmp_path, graphs) == names
  path = tmp_path / outputs.PRIVATE
  assert path.stat().st_mode & 0o077 == 0
  drawn = [outputs.private_names(tmp_path / str(number), graphs) for number in range(30)]
  assert len({tuple(sorted(one.operators.items())) for one in drawn}) > 1
  assert len({one.key for one in drawn}) == 30
  stored = json.loads(path.read_text())
  del stored["operators"]["mul"]
  path.write_text(json.dumps(stored))
  assert outputs.private_names(tmp_path, graphs).operators == names.operators
  for text in ("{}", "[]", '{"operators": {"a": "b"}, "key": "0"}'):
    path.write_text(text)
    with pytest.raises(errors.DataError, match="private_names.json is damaged"):
      outputs.private_names(tmp_path, graphs)


def test_costs_of_hidden_operators(tmp_path, graphs):
  names = outputs.private_names(tmp_path, graphs)
  costs = costs_lib.parse({"attribute": "operator", "costs": {"mul": {"duration_micros": 77}}}, "")
  outputs.write(tmp_path, graphs, 1, costs, names)
  for graph, path in enumerate(sorted((tmp_path / "traces").iterdir())):
    read = graphs_lib.read(path)
    count = (graphs.x[graphs.nodes(graph), 1] == 1).sum()
    assert (read.duration == 77).sum() == count
    assert set(np.array(read.operators)[read.duration == 77]) == {names.operators["mul"]}


def test_only_the_files_of_a_comparison_are_removed(tmp_path):
  folder = tmp_path / "comparison"
  assert not outputs.remove_comparison(folder)
  folder.mkdir()
  for name in (*outputs.COMPARISON, "my_notes.txt"):
    (folder / name).write_text("text")
  (folder / "own").mkdir()
  assert outputs.remove_comparison(folder)
  assert sorted(path.name for path in folder.iterdir()) == ["my_notes.txt", "own"]
  assert not outputs.remove_comparison(folder) and folder.exists()
  (folder / "my_notes.txt").unlink()
  (folder / "own").rmdir()
  (folder / "report.md").write_text("text")
  assert outputs.remove_comparison(folder) and not folder.exists()
