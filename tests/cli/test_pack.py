"""The command that packs a collection."""

import shutil

import pytest

from tests import synthetic
from tests.helpers import commands
from tpugraphs_rank import errors
from tpugraphs_rank.cli import pack
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import packed
from tpugraphs_rank.data import registry


def _run(*arguments):
  return commands.run("pack", *arguments)


@pytest.fixture
def descriptor(tmp_path):
  return synthetic.write_collection(tmp_path / "data", "layout", counts=(3, 2, 1))


def _folder(descriptor, split):
  return packed.folder_of(registry.get_collection(str(descriptor)), split)


def _sizes(folder):
  return sum(path.stat().st_size for path in folder.glob("*.pack"))


def test_a_whole_collection_and_again_after_a_change(descriptor):
  done = _run("--collection", descriptor)
  assert done.returncode == 0 and done.stderr == ""  # No progress bar without a terminal.
  lines = lambda *written: "".join(
      f"{_folder(descriptor, split)}: {count} graphs, {new} of them packed now, "
      f"{_sizes(_folder(descriptor, split)) / 1e6:,.1f} MB\n"
      for (split, count), new in zip((("train", 3), ("valid", 2), ("test", 1)), written))
  assert done.stdout == lines(3, 2, 1)
  path = collections.load_collection(str(descriptor), "valid").paths[0]
  npz.save_graph(path, synthetic.layout_graph(50))
  done = _run("--collection", descriptor)
  assert done.returncode == 0 and done.stdout == lines(0, 1, 0)
  assert done.stderr == f"{path} has changed since it was packed; packing it again\n"


def test_some_splits_elsewhere(descriptor, tmp_path):
  done = _run("--collection", descriptor, "--splits", "valid", "--output", tmp_path / "fast")
  assert done.returncode == 0
  assert sorted(path.name for path in (tmp_path / "fast" / "layout_synthetic").iterdir()) == [
      "valid"]
  assert not (descriptor.parent / "packed").exists()


def test_the_graphs_that_exist(descriptor):
  next((descriptor.parent / "npz" / "train").iterdir()).unlink()
  done = _run("--collection", descriptor)
  assert done.returncode == 1
  assert done.stderr.endswith("; or work with the 2 graphs that exist: --partial (partial=True in "
                              "Python)\n")
  done = _run("--collection", descriptor, "--partial")
  assert done.returncode == 0 and done.stdout.splitlines()[0].startswith(
      f"{_folder(descriptor, 'train')}: 2 graphs, 2 of them packed now, ")
  assert done.stderr.startswith("warning: layout:synthetic train is partial: 1 of its 3 graphs ")
  split = collections.load_collection(str(descriptor), "train", packed="auto", partial=True)
  assert split.packs is not None and len(split) == 2 and split.missing == 1


def test_a_check(descriptor):
  pack.pack(str(descriptor))
  assert pack.check(str(descriptor)) == []
  done = _run("--collection", descriptor, "--check")
  assert done.returncode == 0 and done.stdout == "all checksums match\n" and done.stderr == ""
  target = next(_folder(descriptor, "train").glob("*.pack"))
  content = bytearray(target.read_bytes())
  content[400] ^= 0xFF  # In the node features.
  target.write_bytes(content)
  done = _run("--collection", descriptor, "--check")
  assert done.returncode == 1
  assert done.stdout.startswith(f"wrong: {target} is damaged: the checksum of "
                                f"its array 'node_feat' is wrong")
  assert done.stdout.count("\n") == 1
  assert done.stderr == (
      f"error: 1 packed files of {descriptor} cannot be used; remove the damaged ones and run the "
      "same command without --check\n")
  assert _run("--collection", descriptor, "--check", "--splits", "valid").returncode == 0
  target.unlink()
  assert _run("--collection", descriptor).returncode == 0
  assert pack.check(str(descriptor)) == []


def test_missing_splits_are_skipped_unless_they_are_named(descriptor):
  shutil.rmtree(descriptor.parent / "npz" / "test")
  assert [done.graphs for done in pack.pack(str(descriptor))] == [3, 2]
  with pytest.raises(errors.MissingDataError, match="no data of layout:synthetic test at "):
    pack.pack(str(descriptor), ["test"])
  with pytest.raises(errors.MissingDataError, match="no file .*test/index.json"):
    pack.check(str(descriptor), ["test"])
  # Packed files replace the removed ones.
  shutil.rmtree(descriptor.parent / "npz")
  assert pack.check(str(descriptor)) == []
  with pytest.raises(errors.MissingDataError, match="no data of layout:synthetic train at "):
    pack.pack(str(descriptor))


def test_a_check_of_nothing(descriptor):
  with pytest.raises(errors.MissingDataError, match=(
      "nothing of layout:synthetic is packed in .*/packed/layout_synthetic; `tpugraphs-rank pack "
      f"--collection {descriptor}` packs it")):
    pack.check(str(descriptor))


@pytest.mark.parametrize("arguments, status, message", [
    (["--collection", "tile:xls"], 1, "error: no collection 'tile:xls' (did you mean 'tile:xla'?)"),
    (["--collection", "tile:xla", "--splits", "vaild"], 1,
     "error: collection tile:xla has no split 'vaild' (did you mean 'valid'?)"),
    (["--collection", "tile:xla", "--data_root", "/nowhere"], 1,
     "error: no data of tile:xla train at /nowhere/npz/tile/xla/train; download it with `tpu"),
    ([], 2, "error: --collection is required (`tpugraphs-rank "),
])
def test_a_mistake_is_one_line(arguments, status, message):
  done = _run(*arguments)
  assert done.returncode == status and done.stdout == ""
  assert done.stderr.startswith(message) and done.stderr.count("\n") == 1


def test_a_damaged_graph_is_skipped(descriptor):
  first, second, _ = collections.load_collection(str(descriptor), "train").paths
  content = first.read_bytes()
  first.write_bytes(content[:100])
  (first.parent / f"._{first.name}").write_bytes(b"\x00\x05\x16\x07")
  done = _run("--collection", descriptor)
  assert done.returncode == 3
  assert "warning: skipped: " in done.stderr and str(first) in done.stderr
  assert f"{_folder(descriptor, 'train')}: 2 graphs, 2 of them packed now" in done.stdout
  # The split cannot be used yet; the others can.
  with pytest.raises(errors.DataError, match=f"{first.name} cannot be read"):
    packed.open_split(_folder(descriptor, "train"),
                      collections.load_collection(str(descriptor), "train").paths)
  assert not (_folder(descriptor, "train") / "index.json").exists()
  assert _run("--collection", descriptor, "--strict").returncode == 1
  first.write_bytes(content)
  assert _run("--collection", descriptor).returncode == 0
  assert collections.load_collection(str(descriptor), "train", packed="always").packs is not None
  # A split without a sound graph is an error.
  first.write_bytes(b"")
  for path in collections.load_collection(str(descriptor), "test").paths:
    path.write_bytes(b"")
  assert _run("--collection", descriptor, "--splits=test").returncode == 1
