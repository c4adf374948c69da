"""The programs and configurations of train, valid and test."""

import logging

import numpy as np
import pytest

from tests import synthetic
from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import splits


def _data(path, **settings):
  return run_config.DataConfig(collection=str(path), **settings)


def _names(programs):
  return [program.graph.name for program in programs]


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
  return synthetic.write_collection(tmp_path_factory.mktemp("divided"), counts=(4, 2, 1))


@pytest.fixture
def whole(tmp_path):
  """A collection that is not divided, with repeated configurations."""
  for seed in range(3):
    graph = synthetic.tile_graph(seed, num_configs=30)
    npz.save_graph(tmp_path / f"k{seed}.npz", graph)
  path = tmp_path / "c.json"
  path.write_text('{"name": "tile:whole", "kind": "tile", "target": "t", "splits": {"all": 3}}')
  return path


def test_by_program(divided):
  for split, count in (("train", 4), ("valid", 2), ("test", 1)):
    programs = splits.load_programs(_data(divided), split)
    assert len(programs) == count and all(program.choice is None for program in programs)


def test_by_configuration_each_distinct_configuration_is_on_one_side(whole):
  sides = {split: splits.load_programs(_data(whole, split_by="configuration"), split, seed=3)
           for split in ("train", "valid", "test")}
  for members in zip(*sides.values()):
    assert len({member.graph.name for member in members}) == 1
    keys = members[0].graph.config_keys()
    assert len(np.unique(keys)) < len(keys)  # There are repeats to be kept together.
    held = [set(keys[member.choice].tolist()) for member in members]
    assert not held[0] & held[1] and not held[0] & held[2] and not held[1] & held[2]
    assert sorted(np.concatenate([member.choice for member in members])) == list(range(len(keys)))
    assert len(held[0]) == round(0.6 * len(np.unique(keys)))


def test_by_configuration_of_a_divided_collection_uses_its_training_programs(divided):
  programs = splits.load_programs(_data(divided, split_by="configuration"), "test")
  assert _names(programs) == _names(splits.load_programs(_data(divided), "train"))


def test_the_split_depends_on_the_seed(whole):
  choose = lambda seed: [program.choice.tolist() for program in splits.load_programs(
      _data(whole, split_by="configuration"), "train", seed)]
  assert choose(1) == choose(1) and choose(1) != choose(2)


def test_an_undivided_collection_states_how_to_train(whole):
  with pytest.raises(errors.ConfigError, match=(
      "tile:whole is not divided by program; train with --split_by=configuration, or divide it "
      "with `tpugraphs-rank make-collection`")):
    splits.load_programs(_data(whole), "train")


@pytest.mark.parametrize("split_by", ["program", "configuration"])
def test_an_unknown_split(divided, split_by):
  with pytest.raises(errors.UnknownNameError, match="train, valid, test"):
    splits.load_programs(_data(divided, split_by=split_by), "dev")


def test_small_programs_are_left_out_and_counted(divided, caplog):
  counts = {program.graph.name: len(np.unique(program.graph.config_keys()))
            for program in splits.load_programs(_data(divided), "train")}
  limit = sorted(counts.values())[-2]
  with caplog.at_level(logging.INFO, "tpugraphs_rank"):
    kept = splits.load_programs(_data(divided, min_configs=limit), "train")
  assert _names(kept) == [name for name, count in counts.items() if count >= limit]
  assert f"left out {len(counts) - len(kept)} of 4 programs" in caplog.text
  most = max(counts.values())
  with pytest.raises(errors.DataError, match=f"at most {most}; lower --min_configs to {most}$"):
    splits.load_programs(_data(divided, min_configs=99), "train")
  assert splits.load_programs(_data(divided, min_configs=most), "train")  # The remedy works.


@pytest.mark.parametrize("split_by, count, message", [
    ("program", 1, "have at most 1; a ranking needs 2, so measure more configurations"),
    ("configuration", 2, "have at most 2; dividing its configurations needs 3, so measure more"),
])
def test_too_few_configurations_to_rank(tmp_path, split_by, count, message):
  npz.save_graph(tmp_path / "train" / "a.npz", synthetic.tile_graph(0, num_configs=count))
  path = tmp_path / "c.json"
  path.write_text('{"name": "tile:few", "kind": "tile", "target": "t", "splits": {"train": 1}}')
  with pytest.raises(errors.DataError, match=message):
    splits.load(_data(path, split_by=split_by), "train")


def test_programs_with_equal_runtimes_are_counted(tmp_path, caplog):
  for seed in range(3):
    npz.save_graph(tmp_path / "train" / f"{seed}.npz", synthetic.tile_graph(
        seed, config_runtime=np.full(12, 7), config_runtime_normalizers=np.full(12, 7)))
  path = tmp_path / "c.json"
  path.write_text('{"name": "tile:equal", "kind": "tile", "target": "t", "splits": {"train": 3}}')
  counts = splits.load(_data(path), "train").counts
  assert counts.equal_runtimes == 3
  assert "3 programs have nothing to rank, because the runtimes of all" in str(counts)
  assert "tile:equal train: there is nothing to rank: in each of the 3 programs" in caplog.text
  caplog.clear()
  npz.save_graph(tmp_path / "train" / "0.npz", synthetic.tile_graph(0))
  assert splits.load(_data(path), "train").counts.equal_runtimes == 2
  assert not caplog.text


def test_every_side_of_every_program_has_a_configuration(tmp_path):
  # Two distinct configurations cannot train, validate and test.
  for seed, count in enumerate((2, 3, 4)):
    graph = synthetic.tile_graph(seed, num_configs=count,
                                 config_feat=np.diag(np.arange(1, 25))[:count])
    npz.save_graph(tmp_path / f"k{count}.npz", graph)
  path = tmp_path / "c.json"
  path.write_text('{"name": "tile:c", "kind": "tile", "target": "t", "splits": {"all": null}}')
  for split in ("train", "valid", "test"):
    programs = splits.load_programs(_data(path, split_by="configuration"), split)
    assert _names(programs) == ["k3", "k4"]
    assert all(len(program.choice) for program in programs)


def test_zero_runtimes_do_not_train(tmp_path):
  path = synthetic.write_collection(tmp_path, counts=(2, 1, 1))
  folder = tmp_path / "npz" / "train"
  name = sorted(folder.glob("*.npz"))[0].stem
  npz.save_graph(folder / f"{name}.npz", synthetic.tile_graph(
      0, config_runtime=np.zeros(12), config_runtime_normalizers=np.zeros(12)))
  with pytest.raises(errors.DataError, match=f"{name}.npz: config_runtime is all zero.*no meas"):
    splits.load_programs(_data(path), "train")


def test_max_graphs_samples_training_programs_by_the_seed(divided):
  draw = lambda seed, split="train": _names(
      splits.load_programs(_data(divided, max_graphs=2), split, seed))
  everything = _names(splits.load_programs(_data(divided), "train"))
  drawn = {tuple(draw(seed)) for seed in range(8)}
  assert draw(1) == draw(1) and len(drawn) > 1
  for names in drawn:
    assert len(names) == 2 and list(names) == [name for name in everything if name in names]
  assert len(draw(0, "valid")) == 2  # Of 2: only training programs are drawn.


# ---- equal configurations ------------------------------------------------------------------------


def _repeating(seed, name, **changes):
  """12 configurations of which 0, 4, 8 are equal, and 2, 3; each with a runtime of its own."""
  graph = synthetic.tile_graph(seed, name=name, config_feat=np.diag(np.arange(1, 25))[
      [0, 1, 2, 2, 0, 5, 6, 7, 0, 9, 10, 11]], **{
          "config_runtime": np.array([40, 9, 7, 5, 10, 3, 2, 8, 70, 6, 11, 12]) * 100,
          "config_runtime_normalizers": np.full(12, 100), **changes})
  return graph


@pytest.fixture(scope="module")
def repeating(tmp_path_factory):
  folder = tmp_path_factory.mktemp("repeating")
  for index, split in enumerate(("train", "valid", "test")):
    npz.save_graph(folder / split / "k.npz", _repeating(index, "k"))
  path = folder / "c.json"
  path.write_text('{"name": "tile:r", "kind": "tile", "target": "t", '
                  '"splits": {"train": 1, "valid": 1, "test": 1}}')
  return path


@pytest.mark.parametrize("how, first, second", [
    ("mean", (40 + 10 + 70) / 3, (7 + 5) / 2), ("minimum", 10, 5), ("first", 40, 7)])
def test_training_merges_equal_configurations(repeating, caplog, how, first, second):
  with caplog.at_level(logging.INFO, "tpugraphs_rank"):
    (program,) = splits.load_programs(_data(repeating, duplicates=how), "train")
  assert program.choice.tolist() == program.indices.tolist() == [0, 1, 2, 5, 6, 7, 9, 10, 11]
  assert program.runtimes[program.choice].tolist() == pytest.approx(
      [first, 9, second, 3, 2, 8, 6, 11, 12])
  assert f"3 repeated configurations in 1 programs (merged: {how} runtime)" in caplog.text
  assert "1 programs with 9 configurations" in caplog.text


def test_equal_configurations_are_kept_by_default(repeating, caplog):
  assert run_config.DataConfig().duplicates == "keep"
  with caplog.at_level(logging.INFO, "tpugraphs_rank"):
    (program,) = splits.load_programs(_data(repeating), "train")
  assert program.choice is None and program.merged is None
  np.testing.assert_array_equal(program.runtimes, program.graph.relative_runtime)
  assert "3 repeated configurations in 1 programs (kept)" in caplog.text


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("how", run_config.DUPLICATES)
def test_evaluated_configurations_are_never_merged(repeating, split, how):
  (program,) = splits.load_programs(_data(repeating, duplicates=how), split)
  assert program.choice is None and program.merged is None
  # By configuration, too, repeats are on one side, and only those in training are merged.
  data = _data(repeating, duplicates=how, split_by="configuration")
  sides = {name: splits.load_programs(data, name)[0] for name in ("train", "valid", "test")}
  keys = program.graph.config_keys()
  assert sides[split].merged is None
  trained = keys[sides["train"].choice]
  assert len(np.unique(trained)) == len(trained) or how == "keep"
  for name in ("valid", "test"):
    held = np.unique(keys[sides[name].choice])
    assert sorted(sides[name].choice) == np.flatnonzero(np.isin(keys, held)).tolist()
    assert not set(held) & set(trained)


def test_a_graph_without_repeats_is_the_same_however_they_are_treated(divided):
  distinct = splits.load_programs(_data(divided), "train")
  for program in distinct:
    kept = len(np.unique(program.graph.config_keys()))
    assert kept < program.graph.num_configs  # So the test below is of another graph.
  graph = synthetic.tile_graph(0, config_feat=np.diag(np.arange(1, 25))[:12])
  counts = splits.Counts("c train", 1, 2, "mean")
  program = splits.ProgramView(graph)
  assert splits._counted(program, graph.config_keys(), counts) is program
  assert counts.repeats == 0


# ---- what is counted -----------------------------------------------------------------------------


def test_one_line_counts_irregularities(tmp_path):
  edges = np.array([[3, 2], [2, 1]])  # Nodes 0, 4 and 5 of six have no edges.
  graphs = [
      _repeating(0, "a", edge_index=edges),
      synthetic.tile_graph(1, num_configs=7, name="b", config_feat=np.diag(np.arange(1, 25))[:7]),
      synthetic.tile_graph(2, num_configs=20, name="c", config_feat=np.ones([20, 24]))]
  for graph in graphs:
    npz.save_graph(tmp_path / "train" / f"{graph.name}.npz", graph)
  path = tmp_path / "c.json"
  path.write_text('{"name": "tile:odd", "kind": "tile", "target": "t", "splits": {"train": 3}}')
  loaded = splits.load(_data(path), "train", list_size=8)
  assert str(loaded.counts) == (
      "tile:odd train: 2 programs with 19 configurations; 3 repeated configurations in 1 programs "
      "(kept); 1 programs have fewer configurations than a list of 8; 3 nodes without an edge in 1 "
      "programs; left out 1 of 3 programs with fewer than 2 distinct configurations: c")
  assert str(splits.load(_data(path, duplicates="mean"), "train", list_size=10).counts) == (
      "tile:odd train: 2 programs with 16 configurations; 3 repeated configurations in 1 programs "
      "(merged: mean runtime); 2 programs have fewer configurations than a list of 10; 3 nodes "
      "without an edge in 1 programs; left out 1 of 3 programs with fewer than 2 distinct "
      "configurations: c")


def test_a_regular_split_is_a_short_line(tmp_path):
  npz.save_graph(tmp_path / "train" / "a.npz", synthetic.tile_graph(
      0, config_feat=np.diag(np.arange(1, 25))[:12]))
  path = tmp_path / "c.json"
  path.write_text('{"name": "tile:even", "kind": "tile", "target": "t", "splits": {"train": 1}}')
  assert str(splits.load(_data(path), "train").counts) == (
      "tile:even train: 1 programs with 12 configurations")


def test_programs_left_out_are_counted_and_some_are_listed():
  counts = splits.Counts("tile:c train", 30, 2, "keep", programs=7, configurations=70,
                         left_out=[f"k{index:02}" for index in range(23)])
  assert str(counts).endswith(
      "left out 23 of 30 programs with fewer than 2 distinct configurations: "
      + ", ".join(f"k{index:02}" for index in range(20)) + " and 3 more")


# ---- paddings and dtypes -------------------------------------------------------------------------


def _two(folder, *graphs):
  for index, graph in enumerate(graphs):
    npz.save_graph(folder / "train" / f"k{index}.npz", graph)
  path = folder / "c.json"
  path.write_text('{"name": "tile:p", "kind": "tile", "target": "t", "splits": {"train": null}}')
  return path


def _padded(seed, padding, stated=True):
  graph = synthetic.tile_graph(seed)
  node_feat = np.array(graph.node_feat)
  node_feat[:, 31:37] = node_feat[:, 134:140] = padding
  return synthetic.tile_graph(seed, node_feat=node_feat,
                              feature_padding=np.int64(padding if stated else 0))


@pytest.mark.parametrize("padding", [0, -1])
def test_both_paddings_load(tmp_path, padding, caplog):
  path = _two(tmp_path, _padded(0, padding), _padded(1, padding))
  with caplog.at_level(logging.WARNING, "tpugraphs_rank"):
    programs = splits.load_programs(_data(path), "train")
  assert [program.graph.feature_padding for program in programs] == [padding] * 2
  assert not caplog.records


def test_files_that_declare_different_paddings_are_rejected(tmp_path):
  path = _two(tmp_path, _padded(0, 0), _padded(1, -1))
  with pytest.raises(errors.DataError, match=(
      r"tile:p train: graphs differ in feature_padding: 0 in .*k0.npz, -1 in .*k1.npz; .*featurize "
      "all with one --padding")):
    splits.load_programs(_data(path), "train")


def test_files_that_look_differently_padded_cause_a_warning(tmp_path, caplog):
  # Public files do not state their padding.
  path = _two(tmp_path, _padded(0, 0), _padded(1, -1, stated=False))
  with caplog.at_level(logging.WARNING, "tpugraphs_rank"):
    assert len(splits.load_programs(_data(path), "train")) == 2
  (record,) = caplog.records
  assert "look padded with 0 in" in record.getMessage() and "-1 in" in record.getMessage()
  assert "tpugraphs-rank describe" in record.getMessage()


def test_dtypes_of_the_release_and_of_its_readme_give_equal_graphs(tmp_path):
  released, readme = tmp_path / "released", tmp_path / "readme"
  graph = synthetic.tile_graph(0)
  path = _two(released, graph)
  arrays = dict(graph.arrays(), node_opcode=graph.node_opcode.astype(np.int32),
                edge_index=graph.edge_index.astype(np.int32))
  _two(readme, graph)
  np.savez_compressed(readme / "train" / "k0.npz", **arrays)
  (one,), (other,) = (splits.load_programs(_data(folder / path.name), "train")
                      for folder in (released, readme))
  for key, array in one.graph.arrays().items():
    theirs = np.asarray(other.graph.arrays()[key])
    np.testing.assert_array_equal(array, theirs)
    assert np.asarray(array).dtype == theirs.dtype


# ---- as many files as are needed -----------------------------------------------------------------


@pytest.fixture
def many(tmp_path):
  """Twelve programs of which every third has one distinct configuration."""
  for index in range(12):
    same = {"config_feat": np.ones([12, 24])} if index % 3 == 0 else {}
    npz.save_graph(tmp_path / "train" / f"k{index:02}.npz", synthetic.tile_graph(index, **same))
  path = tmp_path / "c.json"
  path.write_text('{"name": "tile:many", "kind": "tile", "target": "t", '
                  '"splits": {"train": null}}')
  return path


def _reads(monkeypatch):
  read = []
  load_graph = npz.load_graph
  monkeypatch.setattr(npz, "load_graph", lambda path: read.append(path.stem) or load_graph(path))
  return read


def test_max_graphs_reads_no_more_files_than_it_needs(many, monkeypatch):
  read = _reads(monkeypatch)
  for seed in range(6):
    read.clear()
    loaded = splits.load(_data(many, max_graphs=3), "train", seed)
    # The last file read is the last that is used, and all others are used or left out.
    assert sorted(read) == sorted(_names(loaded.programs) + loaded.counts.left_out)
    assert read[-1] in _names(loaded.programs) and len(loaded.programs) == 3
    assert _names(loaded.programs) == sorted(_names(loaded.programs))
    assert f"3 programs with 36 configurations, sampled with seed {seed} from 12 files" in str(
        loaded.counts)
    assert _names(loaded.programs) == _names(
        splits.load_programs(_data(many, max_graphs=3), "train", seed))


@pytest.mark.parametrize("limit", [8, 9, 12, 99])
def test_max_graphs_above_the_number_of_programs_uses_all(many, limit):
  assert _names(splits.load_programs(_data(many, max_graphs=limit), "train", 5)) == _names(
      splits.load_programs(_data(many), "train"))


def test_by_configuration_all_splits_have_the_same_programs(many):
  # Other programs would have no configurations in training.
  sides = [_names(splits.load_programs(
      _data(many, max_graphs=3, split_by="configuration"), split, 2))
           for split in ("train", "valid", "test")]
  assert len(sides[0]) == 3 and sides == [sides[0]] * 3


@pytest.mark.parametrize("listed", ["", ', "files": {"train": [], "test": []}'])
def test_an_empty_split_is_an_error(tmp_path, listed):
  path = tmp_path / "c.json"
  path.write_text('{"name": "tile:e", "kind": "tile", "target": "t", '
                  '"splits": {"train": 0, "test": 0}' + listed + "}")
  with pytest.raises(errors.DataError, match="tile:e train: the collection has no graphs in this"):
    splits.load_programs(_data(path), "train")
