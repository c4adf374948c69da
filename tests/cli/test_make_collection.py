"""The command that describes a folder of graphs as a collection."""

import json

import numpy as np
import pytest

from tests import synthetic
from tests import testdata
from tests.helpers import commands
from tpugraphs_rank import errors
from tpugraphs_rank.cli import make_collection
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import twins


def _folder(folder, count=8, twin_of=None, make=synthetic.tile_graph, **changes):
  """`count` kernels; each name in `twin_of` becomes a twin of another, its nodes reversed."""
  for seed in range(count):
    graph = make(seed, name=f"fam{seed % 2}_{seed}", **changes)
    npz.save_graph(folder / f"{graph.name}.npz", graph)
  for name, other in (twin_of or {}).items():
    source = npz.load_graph(folder / f"{other}.npz")
    last = source.num_nodes - 1
    npz.save_graph(folder / f"{name}.npz", synthetic.tile_graph(
        99, num_nodes=source.num_nodes, node_opcode=source.node_opcode[::-1],
        edge_index=last - source.edge_index))
  return folder


def _make(folder, **settings):
  return make_collection.make_collection(
      folder, **{"name": "tile:mine", "kind": "tile", "target": "my_chip", **settings})


def _stems(written, split):
  return [path.stem for path in collections.load_collection(str(written.path), split).paths]


def test_undivided(tmp_path):
  written = _make(_folder(tmp_path / "graphs", 3))
  assert written.path == tmp_path / "graphs" / "collection.json"
  assert _stems(written, "all") == ["fam0_0", "fam0_2", "fam1_1"]
  read = registry.read_descriptor(written.path)
  assert read.name == "tile:mine" and read.target == "my_chip" and read.splits == {"all": 3}
  assert read.has_runtimes == {"all": True} and read.padding == 0
  assert written.command == (
      f"`tpugraphs-rank train --collection {written.path} --run_dir runs/tile_mine "
      "--split_by=configuration`")


def test_divided_with_every_program_once(tmp_path):
  written = _make(_folder(tmp_path, 20), valid_fraction=0.15, test_fraction=0.25, seed=1)
  held = {split: _stems(written, split) for split in ("train", "valid", "test")}
  assert {split: len(stems) for split, stems in held.items()} == {
      "train": 12, "valid": 3, "test": 5}
  assert len(set(sum(held.values(), []))) == 20
  assert written.command == (
      f"`tpugraphs-rank train --collection {written.path} --run_dir runs/tile_mine`")
  again = _make(tmp_path, valid_fraction=0.15, test_fraction=0.25, seed=1, overwrite=True)
  assert again.collection == written.collection
  other = _make(tmp_path, valid_fraction=0.15, test_fraction=0.25, seed=2, overwrite=True)
  assert other.collection != written.collection


def test_without_a_test_fraction(tmp_path):
  written = _make(_folder(tmp_path, 10), valid_fraction=0.2)
  assert written.collection.splits == {"train": 8, "valid": 2}


def test_twins_are_in_one_split(tmp_path):
  pairs = {f"twin_{seed}": f"fam{seed % 2}_{seed}" for seed in range(6)}
  folder = _folder(tmp_path, 6, twin_of=pairs)
  for seed in range(5):
    written = _make(folder, valid_fraction=0.2, test_fraction=0.2, seed=seed, overwrite=True)
    side = {stem: split for split in written.collection.splits for stem in _stems(written, split)}
    assert len(side) == 12 and set(side.values()) == {"train", "valid", "test"}
    assert all(side[name] == side[other] for name, other in pairs.items())
  graphs = [npz.load_graph(path) for path in folder.glob("*.npz")]
  # They are twins, and no other programs are.
  assert len({twins.graph_hash(graph.node_opcode, graph.edge_index) for graph in graphs}) == 6


def test_a_descriptor_elsewhere_finds_the_graphs_and_subfolders_count(tmp_path):
  npz.save_graph(tmp_path / "graphs" / "a" / "one.npz", synthetic.tile_graph(1))
  npz.save_graph(tmp_path / "graphs" / "b" / "two.npz", synthetic.tile_graph(2))
  written = _make(tmp_path / "graphs", output=tmp_path / "descriptors" / "mine.json")
  assert _stems(written, "all") == ["one", "two"]
  assert json.loads(written.path.read_text())["path"] == "../graphs"


def test_the_descriptor_holds_all_flags(tmp_path):
  written = _make(_folder(tmp_path, 2, feature_padding=np.int64(-1)),
               hlo_stage="before_optimization", family_regex=r"^(?P<family>[a-z]+\d)_",
               description="D.")
  read = registry.read_descriptor(written.path)
  assert (read.hlo_stage, read.description, read.padding) == ("before_optimization", "D.", -1)
  assert read.family("fam1_3") == "fam1"


def test_layouts(tmp_path):
  _folder(tmp_path, 3, make=synthetic.layout_graph)
  written = _make(tmp_path, name="layout:mine:random", kind="layout")
  assert written.collection.kind == "layout" and written.collection.splits == {"all": 3}


def test_the_report_counts(tmp_path):
  feat = np.zeros([4, 24], np.float32)
  feat[:, 8] = [1, 2, 2, 3]
  for seed, name in enumerate(("a", "b")):
    npz.save_graph(tmp_path / f"{name}.npz", synthetic.tile_graph(
        0, num_configs=4 - seed, config_feat=feat[:4 - seed]))
  assert _make(tmp_path).report == (
      "all: 2 programs of 1 structures, 7 configurations (5 distinct), 2 to 3 distinct ones "
      "per program",)


def test_programs_with_few_configurations_are_left_out_by_the_command(tmp_path):
  for name, count in (("few", 4), ("many", 40)):
    npz.save_graph(tmp_path / f"{name}.npz", synthetic.tile_graph(
        0, num_configs=count, config_feat=np.arange(count * 24).reshape(count, 24)))
  assert _make(tmp_path).command.endswith(" --split_by=configuration --min_configs=16`")


def test_without_runtimes_a_collection_can_be_scored_but_not_divided(tmp_path):
  _folder(tmp_path, 4, config_runtime=np.zeros(12), config_runtime_normalizers=np.zeros(12))
  with pytest.raises(errors.DataError, match="no graph has runtimes"):
    _make(tmp_path, valid_fraction=0.25)
  assert _make(tmp_path).collection.has_runtimes == {"all": False}


@pytest.mark.parametrize("settings, splits, left_out", [
    ({"valid_fraction": 0.25}, {"train": 6, "valid": 2, "test": 3}, ""),
    ({"valid_fraction": 0.25, "test_fraction": 0.25}, {"train": 4, "valid": 2, "test": 2},
     "3 (a0, k1, z2); without --test_fraction, they are the test split"),
    ({}, {"all": 8}, "3 (a0, k1, z2); with --valid_fraction, they are the test split"),
])
def test_graphs_without_runtimes_are_for_ranking_only(tmp_path, settings, splits, left_out):
  _folder(tmp_path)
  for seed, name in enumerate(("a0", "k1", "z2")):
    npz.save_graph(tmp_path / f"{name}.npz", synthetic.tile_graph(
        20 + seed, name=name, config_runtime=np.zeros(12), config_runtime_normalizers=np.zeros(12)))
  written = _make(tmp_path, **settings)
  assert written.collection.splits == splits
  unmeasured = not left_out
  assert written.collection.has_runtimes == {
      split: not (unmeasured and split == "test") for split in splits}
  for split in splits:
    graphs = collections.load_collection(str(written.path), split)
    assert {graph.has_runtimes for graph in graphs} == {written.collection.has_runtimes[split]}
  if unmeasured:
    assert _stems(written, "test") == ["a0", "k1", "z2"] and len(written.report) == 3
  else:
    assert written.report[-1] == f"left out, because they have no runtimes: {left_out}"


@pytest.mark.parametrize("damage, error, message", [
    (lambda path: path.write_bytes(b"PK"), errors.DataError, "x.npz cannot be read"),
    (lambda path: npz.save_graph(path, synthetic.layout_graph(0)), errors.DataError,
     "x.npz is a layout graph with 12 configurations; expected --kind tile"),
    (lambda path: npz.save_graph(path, synthetic.tile_graph(0, feature_padding=np.int64(-1))),
     errors.DataError, "feature_padding 0, .*x.npz has -1"),
    (lambda path: npz.save_graph(path.parent / "sub" / "fam0_0.npz", synthetic.tile_graph(0)),
     errors.DataError, "fam0_0.npz and .*fam0_0.npz have the same name"),
])
def test_graphs_that_do_not_fit(tmp_path, damage, error, message):
  _folder(tmp_path, 2)
  damage(tmp_path / "x.npz")
  with pytest.raises(error, match=message):
    _make(tmp_path)
  assert not (tmp_path / "collection.json").exists()


@pytest.mark.parametrize("settings, error, message", [
    ({"test_fraction": 0.2}, errors.ConfigError, "--test_fraction without --valid_fraction"),
    ({"valid_fraction": 0.0}, errors.ConfigError, "expected shares above 0"),
    ({"valid_fraction": 0.6, "test_fraction": 0.4}, errors.ConfigError, "leave programs"),
    ({"valid_fraction": 0.2, "test_fraction": -0.2}, errors.ConfigError, "expected shares above 0"),
    ({"name": "tile:xla"}, errors.ConfigError, "--name tile:xla is a registered collection"),
    ({"name": "mine"}, errors.DataError, "name is 'mine'; expected tile:<source>"),
    ({"family_regex": "x"}, errors.DataError, "family_regex lacks the group"),
    ({"valid_fraction": 0.2, "test_fraction": 0.2}, errors.DataError,
     "2 programs with 2 different structures cannot be divided"),
])
def test_settings_that_do_not_fit(tmp_path, settings, error, message):
  with pytest.raises(error, match=message):
    _make(_folder(tmp_path, 2), **settings)
  assert not (tmp_path / "collection.json").exists()


def test_what_training_cannot_use_is_a_warning(tmp_path):
  run = lambda: commands.run("make-collection", "--npz", tmp_path, "--name=tile:mine",
                             "--kind=tile", "--target=t", "--overwrite")
  for seed in range(2):
    npz.save_graph(tmp_path / f"{seed}.npz", synthetic.tile_graph(
        seed, config_runtime=np.full(12, 7), config_runtime_normalizers=np.full(12, 7)))
  done = run()
  assert done.returncode == 0 and "2 of 2 programs have nothing to rank" in done.stderr
  npz.save_graph(tmp_path / "1.npz", synthetic.tile_graph(1, num_configs=1))
  done = run()
  assert "1 of 2 programs have nothing to rank" in done.stderr
  assert "training will leave out 1 of 2 programs, which have fewer than 3 distinct" in done.stderr


def test_a_wrong_folder(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(errors.MissingDataError, match="file is a file; expected a folder"):
    _make(tmp_path / "file")
  with pytest.raises(errors.MissingDataError, match="none does not exist; expected a folder"):
    _make(tmp_path / "none")


@testdata.required
def test_field_cases(tmp_path):
  for name, warning in (("equal_runtimes", "10 of 10 programs have nothing to rank"),
                        ("single_config", "will leave out 4 of 4 programs")):
    done = commands.run(
        "make-collection", "--npz", testdata.path("field_cases") / name, "--name=tile:mine",
        "--kind=tile", "--target=t", "--output", tmp_path / f"{name}.json")
    assert done.returncode == 0 and warning in done.stderr


def test_the_error_for_an_empty_folder_explains_how_to_make_graphs(tmp_path):
  with pytest.raises(errors.MissingDataError, match=(
      "contains no .npz file; `tpugraphs-rank featurize --input X --output .*` converts")):
    _make(tmp_path)


def test_an_existing_descriptor_stays(tmp_path):
  written = _make(_folder(tmp_path, 2))
  before = written.path.read_bytes()
  with pytest.raises(errors.OutputError, match="collection.json exists; .*--overwrite"):
    _make(tmp_path, target="other")
  assert written.path.read_bytes() == before


def test_the_command_line(tmp_path):
  _folder(tmp_path, 4)
  run = lambda *arguments: commands.run(
      "make-collection", "--npz", tmp_path, "--name=tile:mine", "--kind=tile", "--target=t",
      *arguments)
  done = run("--valid_fraction=0.25", "--test_fraction=0.25", "--hlo_stage=before_optimization")
  assert (done.returncode, done.stderr) == (0, "")
  first, *splits, last = done.stdout.splitlines()
  assert first == f"{tmp_path / 'collection.json'}: tile:mine"
  assert [line.split()[:2] for line in splits] == [
      ["train:", "2"], ["valid:", "1"], ["test:", "1"]]
  assert last == (f"next: `tpugraphs-rank train --collection {tmp_path / 'collection.json'} "
                  "--run_dir runs/tile_mine`")
  failed = run()
  assert failed.returncode == 1 and failed.stdout == ""
  assert failed.stderr.startswith("error: ") and failed.stderr.count("\n") == 1


def test_graphs_that_do_not_fit_are_left_out(tmp_path):
  _folder(tmp_path, 3)
  (tmp_path / "damaged.npz").write_bytes(b"PK")
  npz.save_graph(tmp_path / "layout.npz", synthetic.layout_graph(0))
  (tmp_path / "._fam0_0.npz").write_bytes(b"\x00\x05\x16\x07")
  arguments = ["make-collection", "--npz", tmp_path, "--name=tile:mine", "--kind=tile",
               "--target=t"]
  done = commands.run(*arguments)
  assert done.returncode == 3
  assert "passed over 1 file of the operating system (._fam0_0.npz)" in done.stderr
  assert "warning: skipped: " in done.stderr and done.stderr.count("damaged.npz") == 1
  assert "layout.npz is a layout graph with 12 configurations; expected --kind tile" in done.stderr
  assert registry.read_descriptor(tmp_path / "collection.json").splits == {"all": 3}
  assert commands.run(*arguments, "--overwrite", "--strict").returncode == 1
  # Nothing is left.
  for path in tmp_path.glob("fam*.npz"):
    path.unlink()
  assert commands.run(*arguments, "--overwrite").returncode == 1


def test_a_file_with_a_name_that_cannot_be_printed_is_left_out(tmp_path):
  _folder(tmp_path, 3)
  (tmp_path / "fam0_2.npz").rename(tmp_path / "fam0\x1b[31m\nerror: 2.npz")
  written = _make(tmp_path, strict=False)
  assert written.collection.splits == {"all": 2}
  message, = map(str, written.skipped)
  assert message == (
      "the name 'fam0\\x1b[31m\\nerror: 2.npz' is longer than 255 characters, or has some that "
      "cannot be printed; rename the file")
  with pytest.raises(errors.DataError, match="rename the file"):
    _make(tmp_path, strict=True, overwrite=True)
