"""Descriptions of collections, against loops over the arrays that were written."""

import json
import shutil
import tracemalloc
import weakref

import numpy as np
import pytest

from tests import public_tree
from tests import synthetic
from tests.data import changed
from tpugraphs_rank import errors
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import describe
from tpugraphs_rank.data import describe_tables
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import registry
from tpugraphs_rank.hlo import opcodes

MAKERS = {"tile": synthetic.tile_graph, "layout": synthetic.layout_graph}


def _write(folder, kind, graphs_by_split, **stated):
  """Graphs by split and name; returns the descriptor's path."""
  for split, members in graphs_by_split.items():
    for graph in members:
      npz.save_graph(folder / split / f"{graph.name}.npz", graph)
  path = folder / "c.json"
  path.write_text(json.dumps({
      "name": f"{kind}:made", "kind": kind, "target": "chip",
      "splits": {split: len(members) for split, members in graphs_by_split.items()}, **stated}))
  return path


def _problems(description):
  return [problem.text for problem in description.problems]


def _summary(path, **options):
  description = describe.describe(str(path), **options)
  summary = description.summary()
  assert json.loads(json.dumps(summary, allow_nan=False)) == summary  # JSON holds all of it.
  assert summary["problems"] == _problems(description)
  return summary


def _range(values):
  return {"least": min(values), "median": float(np.median(values)), "greatest": max(values),
          "total": sum(values)}


def _groups(graph):
  """The runtimes of each distinct configuration, found by comparing rows."""
  rows = graph.config_rows().reshape(graph.num_configs, -1).tolist()
  groups = {}
  for row, runtime in zip(rows, graph.relative_runtime):
    groups.setdefault(tuple(row), []).append(runtime)
  return list(groups.values())


@pytest.mark.parametrize("kind", MAKERS)
def test_every_number_of_a_split(tmp_path, kind):
  make = MAKERS[kind]
  members = [make(seed, num_nodes=5 + seed, num_configs=(3, 12, 40, 31)[seed], name=f"g{seed}")
             for seed in range(4)]
  # Nodes 0 and 1 of the third have no edges; the fourth has one configuration, 31 times.
  members[2] = graphs.graph_from_arrays("g2", {
      **members[2].arrays(), "edge_index": np.array([[3, 2], [4, 3], [5, 4], [6, 5]])})
  members[3] = changed.with_configs(members[3], [0] * 31)
  description = _summary(_write(tmp_path, kind, {"train": members}, has_runtimes={"train": True}))
  split = description["splits"]["train"]
  groups = [_groups(graph) for graph in members]
  assert description["kind"] == kind and description["target"] == "chip"
  assert description["problems"] == []
  assert (split["graphs"], split["files"], split["expected"]) == (4, 4, 4)
  assert split["damaged"] == {} and split["missing"] == []
  assert split["nodes"] == _range([5, 6, 7, 8])
  assert split["edges"] == _range([len(graph.edge_index) for graph in members])
  assert split["configurations"] == _range([3, 12, 40, 31]) and split["samples"] == 86
  assert split["distinct_configurations"] == _range([len(each) for each in groups])
  assert split["configurable_nodes"] == (_range([3, 3, 3, 3]) if kind == "layout" else None)
  assert split["isolated_nodes"] == {"nodes": 2, "graphs": 1}
  assert split["one_distinct_configuration"] == ["g3"]
  assert split["equal_runtimes"] == [
      graph.name for graph, each in zip(members, groups)
      if len(each) > 1 and len({value for values in each for value in values}) == 1]
  assert split["fewer_than_5_configurations"] == ["g0"]
  assert split["fewer_configurations_than_a_list"] == {
      "list_size": 32, "graphs": ["g0", "g1", "g3"]}

  runtimes = split["runtimes"]
  everything = np.concatenate([graph.config_runtime for graph in members])
  assert (runtimes["graphs"], runtimes["expected"]) == (4, True)
  assert (runtimes["least_ns"], runtimes["greatest_ns"]) == (everything.min(), everything.max())
  assert runtimes["spread"] == pytest.approx(_range([
      max(map(max, each)) / min(map(min, each)) for each in groups]))
  if kind == "tile":
    normalizers = np.concatenate([graph.config_runtime_normalizers for graph in members])
    assert runtimes["normalizers"] == {
        "least_ns": normalizers.min(), "greatest_ns": normalizers.max(), "graphs_with_several": 0}
  else:
    assert runtimes["normalizers"] is None

  sizes = [[len(values) for values in each] for each in groups]
  assert split["duplicates"] == {
      "graphs": sum(max(each) > 1 for each in sizes),
      "rows": sum(number - 1 for each in sizes for number in each),
      "largest": 31, "largest_in": "g3",
      "relative_sd": pytest.approx(np.sqrt(
          sum((value / np.mean(values) - 1) ** 2
              for each in groups for values in each for value in values)
          / sum(len(values) - 1 for each in groups for values in each)), abs=1e-9)}

  stored = [dict(np.load(tmp_path / "train" / f"{graph.name}.npz")) for graph in members]
  unpacked = [sum(array.nbytes for array in arrays.values()) for arrays in stored]
  assert split["bytes"] == {
      "stored": sum(path.stat().st_size for path in (tmp_path / "train").iterdir()),
      "unpacked": sum(unpacked), "largest_unpacked": max(unpacked),
      "largest": f"g{int(np.argmax(unpacked))}"}
  assert split["stored_dtypes"] == {key: {array.dtype.name: 4} for key, array in stored[0].items()}


def test_the_spread_of_repeats(tmp_path):
  graph = changed.with_configs(synthetic.layout_graph(0), [0, 0, 0, 1, 1])
  graph = graphs.graph_from_arrays("g", {
      **graph.arrays(), "config_runtime": np.array([90, 100, 110, 300, 100])})
  split = _summary(_write(tmp_path, "layout", {"train": [graph]}))["splits"]["train"]
  # Deviations of -0.1, 0, 0.1 about 100, and 0.5, -0.5 about 200; 2 + 1 degrees of freedom.
  assert split["duplicates"]["relative_sd"] == pytest.approx(
      np.sqrt((2 * 0.1 ** 2 + 2 * 0.5 ** 2) / (2 + 1)))
  assert split["duplicates"]["largest"] == 3 and split["duplicates"]["rows"] == 3


def test_a_split_without_runtimes(tmp_path):
  members = [synthetic.tile_graph(seed, name=f"k{seed}", config_runtime=np.zeros(12),
                                  config_runtime_normalizers=np.zeros(12)) for seed in range(2)]
  measured = synthetic.tile_graph(2, name="k2")
  path = _write(tmp_path, "tile", {"test": members}, has_runtimes={"test": False})
  runtimes = _summary(path)["splits"]["test"]["runtimes"]
  assert runtimes == {"graphs": 0, "expected": False, "without": [], "least_ns": None,
                      "greatest_ns": None, "spread": None, "normalizers": None}
  path = _write(tmp_path / "more", "tile", {"test": [*members, measured]})
  description = _summary(path)["splits"]["test"]
  assert description["runtimes"]["graphs"] == 1 and description["runtimes"]["expected"] is None
  assert description["runtimes"]["least_ns"] == measured.config_runtime.min()
  # Without runtimes, repeats have no spread.
  repeated = changed.with_configs(members[0], [0, 0, 1])
  only = _summary(_write(tmp_path / "only", "tile", {"test": [repeated]}))["splits"]["test"]
  assert only["duplicates"]["rows"] == 1 and only["duplicates"]["relative_sd"] is None


def test_dtypes_of_the_files_and_declared_and_observed_padding(tmp_path):
  graph = synthetic.tile_graph(0, name="a")
  path = _write(tmp_path, "tile", {"train": [graph]}, splits={"train": 3})
  released = {key: array for key, array in graph.arrays().items() if key != "feature_padding"}
  readme = dict(released, node_opcode=graph.node_opcode.astype(np.int32))
  node_feat = np.array(graph.node_feat)
  node_feat[:, 134:140] = -1
  np.savez(tmp_path / "train" / "b.npz", **readme)
  np.savez(tmp_path / "train" / "c.npz", **dict(released, node_feat=node_feat))
  split = _summary(path)["splits"]["train"]
  assert split["stored_dtypes"]["node_opcode"] == {"uint8": 2, "int32": 1}
  assert split["stored_dtypes"]["feature_padding"] == {"int64": 1}
  assert split["stored_dtypes"]["edge_index"] == {"int64": 3}
  assert split["feature_padding"] == {
      "declared": {"0": 1, "None": 2}, "observed": {"0": 2, "-1": 1}}


# ---- opcodes and twins ---------------------------------------------------------------------------


def _with_opcodes(name, numbers):
  return synthetic.tile_graph(0, name=name, num_nodes=len(numbers),
                              node_opcode=np.array(numbers, np.uint8))


def test_opcodes_and_those_not_in_training(tmp_path):
  path = _write(tmp_path, "tile", {
      "train": [_with_opcodes("a", [2, 2, 34]), _with_opcodes("b", [2, 2])],
      "valid": [_with_opcodes("c", [34, 63])], "test": [_with_opcodes("d", [63, 24, 24, 2])]})
  description = _summary(path)
  name = opcodes.opcode_name
  assert description["opcodes"] == [
      {"id": 2, "name": name(2), "nodes": 5, "share": 5 / 11,
       "splits": {"train": 4, "valid": 0, "test": 1}},
      {"id": 24, "name": name(24), "nodes": 2, "share": 2 / 11,
       "splits": {"train": 0, "valid": 0, "test": 2}},
      {"id": 34, "name": name(34), "nodes": 2, "share": 2 / 11,
       "splits": {"train": 1, "valid": 1, "test": 0}},
      {"id": 63, "name": name(63), "nodes": 2, "share": 2 / 11,
       "splits": {"train": 0, "valid": 1, "test": 1}}]
  assert description["opcodes_not_in_train"] == {
      "valid": {name(63): 1}, "test": {name(24): 2, name(63): 1}}
  # Unknown without the training split.
  assert _summary(path, splits=["valid", "test"])["opcodes_not_in_train"] is None


def test_twins_of_earlier_splits(tmp_path):
  train = [synthetic.layout_graph(seed, num_nodes=7, name=f"t{seed}") for seed in range(3)]
  same = changed.relabelled(train[1], [3, 0, 1, 6, 2, 5, 4])
  larger = graphs.graph_from_arrays("v1", dict(train[2].arrays(), node_feat=2 * train[2].node_feat))
  rename = lambda graph, name: graphs.graph_from_arrays(name, graph.arrays())
  path = _write(tmp_path, "layout", {
      "train": train, "valid": [rename(same, "v0"), larger, synthetic.layout_graph(9, name="v2")],
      "test": [rename(same, "x0")]})
  description = _summary(path)
  assert description["twins"] == [
      {"of": "valid", "in": "train", "graphs": 2, "with_equal_features": 1,
       "examples": [["v0", "t1"], ["v1", "t2"]]},
      {"of": "test", "in": "train", "graphs": 1, "with_equal_features": 1,
       "examples": [["x0", "t1"]]},
      {"of": "test", "in": "valid", "graphs": 1, "with_equal_features": 1,
       "examples": [["x0", "v0"]]}]
  assert [description["splits"][split]["structures"]
          for split in ("train", "valid", "test")] == [3, 3, 1]


# ---- what is wrong -------------------------------------------------------------------------------


def _damaged_file(path, how):
  if how == "cut":
    path.write_bytes(path.read_bytes()[:-40])
  elif how == "empty":
    path.write_bytes(b"")
  elif how == "flipped":  # In the middle of the packed features.
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF
    path.write_bytes(bytes(content))
  elif how == "key":
    arrays = npz.load_graph(path).arrays()
    del arrays["node_opcode"]
    np.savez(path, **arrays)
  elif how == "kind":
    npz.save_graph(path, synthetic.layout_graph(0))
  elif how == "pickle":
    np.savez(path, node_feat=np.array([{}], object))


@pytest.mark.parametrize("how", ["cut", "empty", "flipped", "key", "kind", "pickle"])
def test_a_damaged_file_is_reported_and_reading_continues(tmp_path, how):
  path = synthetic.write_collection(tmp_path, counts=(3, 2, 1))
  victim = sorted((tmp_path / "npz" / "train").glob("*.npz"))[1]
  _damaged_file(victim, how)
  with pytest.raises(errors.DataError) as caught:
    list(collections.load_collection(str(path), "train"))
  description = _summary(path)
  train = description["splits"]["train"]
  assert train["damaged"] == {str(victim): str(caught.value)} and victim.name in str(caught.value)
  assert (train["graphs"], train["files"], train["expected"]) == (2, 3, 3)
  assert train["nodes"]["total"] == 12 and description["splits"]["valid"]["graphs"] == 2
  assert description["problems"] == ["train has 1 damaged file"]


def test_too_few_and_too_many_files(tmp_path):
  path = synthetic.write_collection(tmp_path, counts=(3, 2, 1))
  next((tmp_path / "npz" / "train").glob("*.npz")).unlink()
  npz.save_graph(tmp_path / "npz" / "valid" / "stray.npz", synthetic.tile_graph(0))
  shutil.rmtree(tmp_path / "npz" / "test")
  description = _summary(path)
  assert description["problems"] == [
      "train has 2 of 3 graphs", "valid has 3 graphs instead of 2", "test has 0 of 1 graph"]
  assert description["splits"]["test"]["missing"] == [str(tmp_path / "npz" / "test")]
  assert description["splits"]["test"]["nodes"] is None
  assert _summary(path, splits=["train"])["problems"] == ["train has 2 of 3 graphs"]


def test_listed_files_that_do_not_exist(tmp_path):
  npz.save_graph(tmp_path / "a.npz", synthetic.tile_graph(0))
  collection = registry.Collection(
      name="tile:listed", kind="tile", target="t", splits={"train": None, "test": None},
      folder=tmp_path, files={"train": ("a.npz", "gone.npz"), "test": ("x.npz", "y.npz", "z.npz")})
  description = describe.describe(collection)
  assert _problems(description) == [f"train lacks {tmp_path / 'gone.npz'}",
                              f"test lacks {tmp_path / 'x.npz'} and 2 more"]
  assert description.summary()["splits"]["train"]["missing"] == [str(tmp_path / "gone.npz")]


def _zeros(path):
  graph = npz.load_graph(path)
  npz.save_graph(path, graphs.graph_from_arrays(graph.name, dict(
      graph.arrays(), config_runtime=np.zeros_like(graph.config_runtime))))
  return graph.name


def test_graphs_that_lack_runtimes(tmp_path):
  path = synthetic.write_collection(tmp_path, counts=(4, 2, 1))
  stated = json.loads(path.read_text())
  names = [_zeros(file) for file in sorted((tmp_path / "npz" / "train").glob("*.npz"))[1:]]
  _zeros(next((tmp_path / "npz" / "test").glob("*.npz")))
  for has_runtimes, problems in (
      ({"train": True, "valid": True, "test": False}, [
          f"train has 3 graphs without runtimes: {names[0]} and 2 more"]),
      ({"test": True}, [f"test has 1 graph without runtimes: {_only(tmp_path / 'npz' / 'test')}"]),
      ({}, [])):  # Not stated, so unknown.
    path.write_text(json.dumps({**stated, "has_runtimes": has_runtimes}))
    description = _summary(path)
    assert description["problems"] == problems
    assert description["splits"]["train"]["runtimes"]["without"] == (
        names if has_runtimes.get("train") else [])


def _only(folder):
  file, = folder.iterdir()
  return file.stem


# What is wrong with a split, by kind of problem.
WRONG = {
    "too few": lambda folder: next(folder.glob("*.npz")).unlink(),
    "too many": lambda folder: npz.save_graph(folder / "stray.npz", synthetic.tile_graph(0)),
    "damaged": lambda folder: sorted(folder.glob("*.npz"))[0].write_bytes(b""),
    "no runtimes": lambda folder: _zeros(sorted(folder.glob("*.npz"))[-1]),
}


def _own(tmp_path, wrong):
  path = synthetic.write_collection(tmp_path, counts=(3, 3, 2))
  path.write_text(json.dumps({
      **json.loads(path.read_text()), "has_runtimes": {"train": True, "valid": True}}))
  for split, kinds in wrong.items():
    for kind in kinds:
      WRONG[kind](tmp_path / "npz" / split)
  description = describe.describe(str(path))
  assert {(problem.split, problem.kind) for problem in description.problems} == {
      (split, kind) for split, kinds in wrong.items() for kind in kinds}
  return description


HINT = "the descriptor of collection "
ZEROS = ("move away the graphs without runtimes of {}, or set has_runtimes to false in the "
         "descriptor")


@pytest.mark.parametrize("wrong, steps", [
    ({}, []),
    ({"train": ["too few"]}, [HINT]),
    ({"valid": ["too many"]}, ["move the files that do not belong to valid elsewhere"]),
    ({"train": ["too many"], "valid": ["too many"]}, [
        "move the files that do not belong to train,valid elsewhere"]),
    ({"train": ["damaged"], "test": ["damaged"]}, [
        "move away the damaged files of train,test", HINT]),
    ({"train": ["no runtimes"], "valid": ["no runtimes"]}, [ZEROS.format("train,valid"), HINT]),
    ({"train": ["too few", "damaged", "no runtimes"], "test": ["too many"]}, [
        "move the files that do not belong to test elsewhere",
        "move away the damaged files of train",
        ZEROS.format("train"), HINT]),
])
def test_remedies_depend_on_the_problems(tmp_path, wrong, steps):
  description = _own(tmp_path, wrong).remedies()
  assert len(description) == len(steps)
  assert all(HINT in step if expected == HINT else step == expected
             for step, expected in zip(description, steps))


def test_the_remedies_for_a_public_collection_list_all_faulty_splits(tmp_path):
  public_tree.write_tree(tmp_path, collections=["layout:xla:default"])
  folder = tmp_path / "npz/layout/xla/default"
  WRONG["damaged"](folder / "train")
  WRONG["too few"](folder / "test")
  WRONG["no runtimes"](folder / "valid")
  description = describe.describe("layout:xla:default", data_root=tmp_path)
  damaged, zeros, download = description.remedies(tmp_path)
  assert damaged == "move away the damaged files of train"
  assert zeros == "move away the graphs without runtimes of valid"
  assert download.startswith(
      "download it with `tpugraphs-rank download --collections layout:xla:default "
      f"--splits train,valid,test --data_root {tmp_path}`")
  assert "--data_root" not in description.remedies()[2].partition("`, ")[0]


def test_no_splits(tmp_path):
  with pytest.raises(errors.ConfigError, match="no splits of tile:xla_cpu were requested; expected "
                     "some of: train, valid, test"):
    describe.describe("tile:xla_cpu", [])


def test_nothing_at_all_is_missing_data(tmp_path):
  with pytest.raises(errors.MissingDataError,
                     match="no data of tile:xla valid at .*download it with"):
    describe.describe("tile:xla", ["valid", "test"], tmp_path)
  with pytest.raises(errors.UnknownNameError, match="no split 'vaild'"):
    describe.describe("tile:xla_cpu", ["train", "vaild"])


def test_a_collection_that_has_no_graphs_by_design(tmp_path):
  empty = registry.Collection(
      name="tile:none", kind="tile", target="t", splits={"train": 0}, folder=tmp_path)
  description = describe.describe(empty)
  assert description.problems == [] and description.summary()["splits"]["train"]["graphs"] == 0


# ---- memory --------------------------------------------------------------------------------------


def test_only_one_graph_is_in_memory(tmp_path, monkeypatch):
  path = synthetic.write_collection(tmp_path, counts=(4, 2, 1))
  alive, most = weakref.WeakSet(), []
  load_graph = npz.load_graph

  def load(file):
    most.append(len(alive))
    graph = load_graph(file)
    alive.add(graph)
    return graph

  monkeypatch.setattr(npz, "load_graph", load)
  assert describe.describe(str(path)).problems == []
  assert most == [0] * 7 and len(alive) == 0


def test_a_large_layout_takes_about_twice_its_size(tmp_path):
  count, nodes = 20_000, 40  # 58 MB; the public data's largest has 30 times as many.
  rng = np.random.default_rng(0)
  feat = np.broadcast_to(rng.integers(-1, 6, [nodes, 18]).astype(np.float32),
                         [count, nodes, 18]).copy()
  feat[1000:, 0, :3] = rng.integers(-1, 6, [count - 1000, 3])
  arrays = {**synthetic.node_arrays(rng, 500), "node_config_ids": np.arange(nodes),
            "node_config_feat": feat, "config_runtime": np.arange(1, count + 1)}
  (tmp_path / "train").mkdir()
  np.savez(tmp_path / "train" / "large.npz", **arrays)
  distinct = len(np.unique(feat[:, 0, :3], axis=0))
  size = feat.nbytes
  del feat, arrays
  collection = registry.Collection(
      name="layout:large:x", kind="layout", target="t", splits={"train": 1}, folder=tmp_path)
  tracemalloc.start()
  try:
    description = describe.describe(collection).summary()["splits"]["train"]
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert description["distinct_configurations"]["total"] == distinct
  assert description["duplicates"]["rows"] == count - distinct
  assert peak < 2.2 * size


# ---- real measurements ---------------------------------------------------------------------------


def test_the_bundled_collection_is_complete():
  description = describe.describe("tile:xla_cpu").summary()
  assert description["problems"] == []
  for split, there in description["splits"].items():
    assert there["graphs"] == there["expected"] == len(
        collections.load_collection("tile:xla_cpu", split))
    assert there["feature_padding"] == {
        key: {"0": there["graphs"]} for key in ("declared", "observed")}
    assert there["one_distinct_configuration"] == [] and there["runtimes"]["expected"] is True
  # Held-back families may share their structure with training's; no program occurs twice.
  assert [(entry["of"], entry["in"], entry["with_equal_features"])
          for entry in description["twins"]] == [
      ("valid", "train", 0), ("test", "train", 0), ("test", "valid", 0)]


def test_the_quirks_of_the_release(tmp_path):
  public_tree.write_tree(tmp_path, collections=["layout:xla:random"])
  description = _summary("layout:xla:random", data_root=tmp_path)
  splits = description["splits"]
  assert description["problems"] == []
  assert [splits[split]["graphs"] for split in registry.SPLITS] == [69, 7, 8]
  # Training program 0 holds 19 equal configurations, and 54 others hold the default 40 times.
  repeats = [splits[split]["duplicates"] for split in ("train", "valid")]
  assert sum(entry["graphs"] for entry in repeats) == 1 + 54
  assert repeats[0]["rows"] == 18 + 39 * len(public_tree.REPEATING_TRAIN)
  for entry in repeats:
    assert entry["largest"] == public_tree.DEFAULT_REPEATS
    assert entry["relative_sd"] == pytest.approx(public_tree.NOISE, rel=0.1)
  assert splits["train"]["stored_dtypes"] == {
      key: {dtype: 69} for key, dtype in {
          "node_feat": "float32", "node_opcode": "uint8", "edge_index": "int64",
          "node_config_ids": "int64", "node_config_feat": "float32", "config_runtime": "int64",
          "node_splits": "int64"}.items()}
  assert splits["train"]["feature_padding"]["declared"] == {"None": 69}
  assert [splits[split]["runtimes"]["graphs"] for split in registry.SPLITS] == [69, 7, 0]
  assert splits["train"]["isolated_nodes"]["graphs"] == len(range(0, 69, 5))
  assert splits["valid"]["configurations"]["least"] == 481


def test_equal_runtimes_are_counted(tmp_path):
  members = [synthetic.tile_graph(seed, name=f"g{seed}") for seed in range(2)]
  members[1] = graphs.graph_from_arrays("g1", {
      **members[1].arrays(), "config_runtime": np.full(12, 7),
      "config_runtime_normalizers": np.full(12, 9)})
  description = describe.describe(str(_write(tmp_path, "tile", {"train": members})))
  assert description.summary()["splits"]["train"]["equal_runtimes"] == ["g1"]
  (line,) = [line for line in describe_tables.text(description).splitlines()
             if line.startswith("equal runtimes, nothing to rank")]
  assert line.split()[-2:] == ["1", "graph"]
