"""Scores of a split and their ranking, graph by graph."""

import dataclasses
import json
import logging

import numpy as np
import pytest

from tests import synthetic
from tests.training import small_runs
from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank import submission
from tpugraphs_rank import work
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import npz
from tpugraphs_rank.training import prediction
from tpugraphs_rank.training import run as run_lib


@pytest.fixture(scope="module", params=["tile", "layout"])
def trained(request, tmp_path_factory):
  """The descriptor of a collection whose test split has no runtimes, and a run on it."""
  folder = tmp_path_factory.mktemp(request.param)
  descriptor = small_runs.collection(folder / "data", kind=request.param, splits={
      "train": 4, "valid": 2, "test": None})
  make = synthetic.tile_graph if request.param == "tile" else synthetic.layout_graph
  # Sorted by file name, "k.npz" comes after "k.b.npz". One graph has a single configuration, and
  # one has the name of an argument of np.savez.
  for seed, (name, configs) in enumerate([("k.b", 9), ("k", 1), ("file", 4)]):
    graph = make(seed + 40, num_configs=configs, name=name)
    npz.save_graph(folder / "data" / "test" / f"{name}.npz", graph)
  for path in (folder / "data" / "test").iterdir():
    graph = npz.load_graph(path)
    zeros = {"config_runtime": np.zeros_like(graph.config_runtime)}
    npz.save_graph(path, dataclasses.replace(graph, **zeros))
  small_runs.untrained_run(small_runs.settings(descriptor), folder / "run")
  return descriptor, folder / "run"


def _predict(trained, split="test", output=None, strict=False):
  descriptor, run_dir = trained
  return prediction.predict(
      run_lib.load_run(run_dir, strict), collections.load_collection(str(descriptor), split),
      output)


def test_a_split_without_runtimes_is_scored_and_ranked(trained):
  descriptor, run_dir = trained
  done = _predict(trained)
  assert done.scores == run_dir / "predictions" / "test.npz"
  assert done.part == run_dir / "submission_part.csv"
  split = collections.load_collection(str(descriptor), "test")
  kind = split.collection.kind
  assert not any(graph.has_runtimes for graph in split)
  stored = npz.read_arrays(done.scores)
  assert sorted(stored) == sorted(path.stem for path in split.paths) and len(stored) == 5
  run = run_lib.load_run(run_dir)
  for graph in split:
    assert stored[graph.name].dtype == np.float32
    np.testing.assert_allclose(stored[graph.name], run.score(graph), rtol=1e-5, atol=1e-6)

  rows = submission.read(done.part)
  assert [row.id for row in rows] == [f"{kind}:tiny:{stem}" for stem in sorted(stored)]
  assert sorted(stored).index("k") + 1 == sorted(stored).index("k.b")
  for row in rows:
    ranked = metrics.ranking(stored[row.id.rpartition(":")[2]])
    assert row.indices == tuple(ranked[:5] if kind == "tile" else ranked)
  assert next(row for row in rows if row.id.endswith(":k")).indices == (0,)
  expected = submission.from_data([str(descriptor)], "test")
  assert submission.validate(done.part.read_bytes(), expected) == []


def test_where_the_files_go(trained, tmp_path):
  _, run_dir = trained
  done = _predict(trained, "valid")
  assert done.part == run_dir / "predictions" / "valid.csv" and done.part.exists()
  assert done.scores == run_dir / "predictions" / "valid.npz" and len(done.rows) == 2
  other = _predict(trained, "valid", tmp_path / "new" / "part.csv")
  assert (tmp_path / "new" / "part.csv").read_bytes() == done.part.read_bytes()
  assert other.part == tmp_path / "new" / "part.csv" and other.scores == done.scores


@pytest.mark.parametrize("group_bytes, group_graphs", [(1, 64), (2**40, 64), (2**40, 2)])
def test_few_graphs_are_in_memory_and_scores_do_not_depend_on_it(
    trained, monkeypatch, group_bytes, group_graphs):
  monkeypatch.setattr(run_lib, "_GROUP_BYTES", group_bytes)
  monkeypatch.setattr(run_lib, "_GROUP_GRAPHS", group_graphs)
  descriptor, run_dir = trained
  split = collections.load_collection(str(descriptor), "test")
  read, ahead = [], []

  def reading():
    for graph in split:
      read.append(graph.name)
      yield graph

  run = run_lib.load_run(run_dir)
  scored = 0
  for graph, scores in run.score_each(reading()):
    scored += 1
    ahead.append(len(read) - scored + 1)
    np.testing.assert_allclose(scores, run.score(graph), rtol=1e-5, atol=1e-6)
  assert scored == len(split)
  assert max(ahead) == (1 if group_bytes == 1 else min(group_graphs, len(split)))


def test_unseen_opcodes_are_warned_about_once_or_refused(trained, tmp_path, caplog, monkeypatch):
  monkeypatch.setattr(run_lib, "_GROUP_GRAPHS", 1)
  descriptor, run_dir = trained
  split = collections.load_collection(str(descriptor), "test")
  strange = [
      dataclasses.replace(graph, node_opcode=np.full(graph.num_nodes, 7, np.uint8))
      if graph.name in ("k", "file") else graph for graph in split]
  with caplog.at_level(logging.WARNING):
    assert len(list(run_lib.load_run(run_dir).score_each(strange))) == 5
  warnings = [record.getMessage() for record in caplog.records]
  assert len(warnings) == 1 and warnings[0].startswith("2 of 5 graphs (")
  with pytest.raises(errors.CompatibilityError, match="opcodes that training never saw"):
    list(run_lib.load_run(run_dir, strict=True).score_each(strange))


def test_a_failed_prediction_leaves_nothing(trained, tmp_path):
  descriptor, run_dir = trained
  folder = tmp_path / "data"
  split = collections.load_collection(str(descriptor), "test")
  for path in split.paths:
    target = folder / "test" / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes())
  (folder / "collection.json").write_text(descriptor.read_text())
  damaged = folder / "test" / "k.npz"
  damaged.write_bytes(damaged.read_bytes()[:100])
  before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
  changed = collections.load_collection(str(folder / "collection.json"), "test")
  with pytest.raises(errors.DataError, match=r"k\.npz"):
    prediction.predict(run_lib.load_run(run_dir), changed, tmp_path / "part.csv")
  assert not (tmp_path / "part.csv").exists()
  assert {path for path in run_dir.rglob("*")} - {run_dir / "predictions"} == (
      set(before) - {run_dir / "predictions"})


def test_invalid_names_are_refused_before_scoring(trained, tmp_path):
  descriptor, run_dir = trained
  values = json.loads(descriptor.read_text())
  graph = npz.load_graph(next((descriptor.parent / "test").iterdir()))
  run = run_lib.load_run(run_dir)
  run.score_each = None  # Not called.
  for names, message in ((["a,b"], "cannot be the ID of a row"),
                         (["x/a", "y/a"], "two files of .* test are named a.npz")):
    for name in names:
      npz.save_graph(tmp_path / f"{name}.npz", graph)
    values["files"] = {split: [f"{name}.npz" for name in names] for split in values["splits"]}
    values["splits"] = dict.fromkeys(values["splits"], len(names))
    (tmp_path / "collection.json").write_text(json.dumps(values))
    split = collections.load_collection(str(tmp_path / "collection.json"), "test")
    with pytest.raises(errors.DataError, match=message):
      prediction.predict(run, split)


def test_a_collection_of_another_target_is_warned_about_or_refused(trained, caplog):
  descriptor, run_dir = trained
  split = collections.load_collection(str(descriptor), "valid")
  other = collections.Split(dataclasses.replace(split.collection, target="other"), "valid",
                            split.paths)
  with caplog.at_level(logging.WARNING):
    prediction.predict(run_lib.load_run(run_dir), other)
  assert "has target 'other'" in caplog.text
  with pytest.raises(errors.CompatibilityError, match="has target 'other'"):
    prediction.predict(run_lib.load_run(run_dir, strict=True), other)


class _Elsewhere:
  """An engine whose workers die of some graphs, and as often as requested of any."""

  in_process = False

  def __init__(self, guilty: str, deaths: int = 0):
    self._guilty, self._deaths = guilty, deaths

  def map(self, task, items, cost=None):
    for item in items:
      self._deaths -= 1
      if self._deaths >= 0 or self._guilty in [path.stem for path in item.paths]:
        yield work.Outcome(error=errors.PipelineError("the worker was killed"))
      else:
        yield work.Outcome(task(item))


@pytest.mark.parametrize("guilty, deaths", [("k", 0), ("", 1)])
def test_a_worker_that_dies_loses_only_the_graph_that_killed_it(
    trained, monkeypatch, tmp_path, guilty, deaths):
  descriptor, run_dir = trained
  monkeypatch.setattr(prediction, "_GROUP_GRAPHS", 3)
  run, split = run_lib.load_run(run_dir), collections.load_collection(str(descriptor), "test")
  score = lambda folder, graphs, engine: prediction.predict(
      run, graphs, folder=tmp_path / folder, skip=True, engine=engine)
  done = score("elsewhere", split, _Elsewhere(guilty, deaths))
  assert [failure.source for failure in done.failed] == [
      str(path) for path in split.paths if path.stem == guilty]
  # As if the guilty graph had been damaged.
  if guilty:
    path = next(path for path in split.paths if path.stem == guilty)
    content = path.read_bytes()
    path.write_bytes(content[:100])
  try:
    here = score("here", split, work.HERE)
  finally:
    if guilty:
      path.write_bytes(content)
  assert len(here.rows) == len(done.rows) == len(split) - bool(guilty)
  assert here.part.read_bytes() == done.part.read_bytes()
  assert here.scores.read_bytes() == done.scores.read_bytes()
