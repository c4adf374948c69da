"""Packed collections: when they are written, when they are used, and when not."""

import contextlib
import fcntl
import json
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest

from tests import synthetic
import tpugraphs_rank
from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import packed
from tpugraphs_rank.data import packed_format
from tpugraphs_rank.data import packed_graphs
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(params=["tile", "layout"])
def descriptor(request, tmp_path):
  return synthetic.write_collection(tmp_path / "data", request.param, counts=(3, 2, 1))


def _folder(descriptor, split="train", root=None):
  return packed.folder_of(registry.get_collection(str(descriptor)), split, None, root)


def _pack(descriptor, split="train", root=None):
  collection = registry.get_collection(str(descriptor))
  sources = collections.load_collection(collection, split).paths
  return packed.pack(collection, split, sources, _folder(descriptor, split, root))


def _load(descriptor, how, split="train", root=None):
  return collections.load_collection(str(descriptor), split, None, how, root)


def _change(descriptor, split="train", index=1):
  """Another graph in a file of the split; returns its path."""
  path = collections.load_collection(str(descriptor), split).paths[index]
  make = synthetic.tile_graph if "tile" in descriptor.read_text() else synthetic.layout_graph
  npz.save_graph(path, make(77, name=path.stem))
  return path


def _is_packed(split):
  kinds = {isinstance(graph, packed_graphs._PackedGraph) for graph in split}
  assert kinds == {split.packs is not None}
  return kinds == {True}


# ---- used ----------------------------------------------------------------------------------------


def test_a_packed_split_holds_the_same_graphs_in_the_same_order(descriptor, caplog):
  caplog.set_level(logging.INFO)
  plain = _load(descriptor, "never")
  done = _pack(descriptor)
  assert (done.graphs, done.written) == (3, 3)
  assert done.nbytes == sum(path.stat().st_size for path in done.folder.glob("*.pack"))
  actual = _load(descriptor, "auto")
  assert _is_packed(actual) and not _is_packed(plain)
  assert [graph.name for graph in actual] == [graph.name for graph in plain]
  for one, other in zip(actual, plain):
    for key, array in other.arrays().items():
      np.testing.assert_array_equal(one.arrays()[key], array)
  assert actual.paths == plain.paths and _is_packed(actual[1:])
  assert actual[1:][0].name == actual[1].name
  assert f"{plain.collection.name} train: read from packed files in {done.folder}" in caplog.text


@pytest.mark.parametrize("how", ["auto", "never"])
def test_nothing_is_packed_or_logged_without_a_request(descriptor, caplog, how):
  caplog.set_level(logging.INFO)
  assert not _is_packed(_load(descriptor, how))
  assert not _folder(descriptor).exists() and caplog.text == ""


def test_never_is_never(descriptor):
  _pack(descriptor)
  assert not _is_packed(_load(descriptor, "never"))
  assert not _is_packed(tpugraphs_rank.load_collection(str(descriptor), "train"))


def test_always_packs_first(descriptor):
  assert _is_packed(_load(descriptor, "always"))
  (_folder(descriptor) / "index.json").unlink()  # Nothing is packed again.
  assert _is_packed(_load(descriptor, "always"))
  assert not (_folder(descriptor) / "index.json").exists()
  _change(descriptor)
  assert _is_packed(_load(descriptor, "always"))


def test_another_folder(descriptor, tmp_path):
  folder = _pack(descriptor, root=tmp_path / "elsewhere").folder
  assert folder.parents[1] == tmp_path / "elsewhere"
  assert not _is_packed(_load(descriptor, "auto"))
  assert _is_packed(_load(descriptor, "auto", root=tmp_path / "elsewhere"))


@pytest.mark.parametrize("name, folder", [
    ("layout:nlp:random", "layout_nlp_random"), ("tile:xla", "tile_xla")])
def test_public_collections_are_packed_below_the_data_root(tmp_path, monkeypatch, name, folder):
  collection = registry.get_collection(name)
  assert packed.folder_of(collection, "test", tmp_path) == tmp_path / "packed" / folder / "test"
  monkeypatch.setenv("TPUGRAPHS_RANK_DATA", str(tmp_path / "b"))
  assert packed.folder_of(collection, "valid") == tmp_path / "b" / "packed" / folder / "valid"


def test_a_name_stays_within_its_folder(tmp_path):
  collection = registry.Collection(
      name="tile:../../x/y", kind="tile", target="t", splits={"all": None}, folder=tmp_path)
  assert packed.folder_of(collection, "all").parents[1] == tmp_path / "packed"


def test_the_programs_of_a_split(descriptor):
  _pack(descriptor)
  for settings in ({}, {"split_by": "configuration"}, {"duplicates": "mean"}, {"max_graphs": 2}):
    both = [splits.load(run_config.DataConfig(
        collection=str(descriptor), packed=how, **settings), "train", 3) for how in (
            "auto", "never")]
    message = ", read from packed files"
    assert message in str(both[0].counts) and message not in str(both[1].counts)
    assert str(both[0].counts).replace(message, "") == str(both[1].counts)
    for one, other in zip(*(actual.programs for actual in both), strict=True):
      assert one.graph.name == other.graph.name
      np.testing.assert_array_equal(one.indices, other.indices)
      np.testing.assert_array_equal(one.runtimes, other.runtimes)


# ---- changed, interrupted, damaged ---------------------------------------------------------------


def test_a_changed_source_is_packed_again_and_logged(descriptor, caplog):
  _pack(descriptor)
  path = _change(descriptor)
  assert not _is_packed(_load(descriptor, "auto"))
  assert (f"train: read from .npz files: 1 of 3 packed graphs in {_folder(descriptor)} cannot be "
          f"used: {path.name} has changed since it was packed; `tpugraphs-rank pack "
          f"--collection {descriptor} --splits train` packs them") in caplog.text
  caplog.clear()
  caplog.set_level(logging.INFO)
  done = _pack(descriptor)
  assert (done.graphs, done.written) == (3, 1)
  assert [record.getMessage() for record in caplog.records] == [
      f"{path} has changed since it was packed; packing it again"]
  actual = _load(descriptor, "auto")
  assert _is_packed(actual)
  np.testing.assert_array_equal(actual[1].config_runtime, npz.load_graph(path).config_runtime)


def test_a_copy_of_the_same_content_is_no_change(descriptor):
  _pack(descriptor)
  for path in collections.load_collection(str(descriptor), "train").paths:
    path.write_bytes(path.read_bytes())
    os.utime(path, (1, 1))
  assert _is_packed(_load(descriptor, "auto")) and _pack(descriptor).written == 0


def test_another_version_of_the_format_is_packed_again(descriptor, monkeypatch, caplog):
  caplog.set_level(logging.INFO)
  _pack(descriptor)
  monkeypatch.setattr(packed_format, "VERSION", 2)
  assert not _is_packed(_load(descriptor, "auto"))
  assert "has version 1 of the format; expected version 2" in caplog.text
  assert _pack(descriptor).written == 3 and _is_packed(_load(descriptor, "auto"))


def test_a_split_that_is_packed_in_part_is_not_used(descriptor, caplog):
  _pack(descriptor)
  target = _folder(descriptor) / f"{_load(descriptor, 'auto').paths[2].stem}.pack"
  target.unlink()
  assert not _is_packed(_load(descriptor, "auto"))
  assert f"1 of 3 packed graphs in {_folder(descriptor)} cannot be used: " in caplog.text
  assert f"{target.stem}.npz is not packed yet; `tpugraphs-rank pack" in caplog.text
  assert _pack(descriptor).written == 1 and _is_packed(_load(descriptor, "auto"))


def test_a_truncated_file_is_packed_again(descriptor, caplog):
  _pack(descriptor)
  target = next(_folder(descriptor).glob("*.pack"))
  content = target.read_bytes()
  target.write_bytes(content[:-1])
  assert not _is_packed(_load(descriptor, "auto"))
  assert "it is truncated" in caplog.text
  assert _pack(descriptor).written == 1
  assert target.read_bytes() == content and _is_packed(_load(descriptor, "auto"))


def test_a_check_finds_damage_that_opening_does_not(descriptor):
  folder = _pack(descriptor).folder
  sources = collections.load_collection(str(descriptor), "train").paths
  assert packed.check(folder, sources) == [] == packed.check(folder, ())
  target = folder / f"{sources[1].stem}.pack"
  content = bytearray(target.read_bytes())
  content[packed_format.Reader(target).arrays["digests"].offset] ^= 1
  target.write_bytes(content)
  assert _is_packed(_load(descriptor, "auto"))
  for actual in (packed.check(folder, sources), packed.check(folder, ())):
    (problem,) = actual
    assert problem.startswith(f"{target} is damaged: the checksum of its array 'digests' is ")
  path = _change(descriptor, index=0)
  (folder / f"{sources[2].stem}.pack").unlink()
  changed, damaged, missing = packed.check(folder, sources)
  assert changed == f"{path} has changed since it was packed" and damaged == problem
  assert missing.startswith("no file ") and sources[2].stem in missing


def test_a_damaged_source_is_reported(descriptor):
  _pack(descriptor)
  path = collections.load_collection(str(descriptor), "train").paths[0]
  path.write_bytes(path.read_bytes()[:-30])
  for how in ("auto", "always"):
    with pytest.raises(errors.DataError, match=f"{path.name}.* cannot be read .BadZipFile"):
      list(_load(descriptor, how))


def test_a_graph_of_another_kind(descriptor):
  path = collections.load_collection(str(descriptor), "train").paths[0]
  other = synthetic.layout_graph if "tile" in descriptor.read_text() else synthetic.tile_graph
  npz.save_graph(path, other(0))
  with pytest.raises(errors.DataError, match="is a graph of kind .* holds kind .*: move the file"):
    _load(descriptor, "always")
  assert not list(_folder(descriptor).glob("*.pack"))


def test_two_files_of_the_same_name(tmp_path):
  for name in ("a/g", "b/g"):
    npz.save_graph(tmp_path / f"{name}.npz", synthetic.tile_graph(0))
  collection = registry.Collection(
      name="tile:two", kind="tile", target="t", splits={"all": 2}, folder=tmp_path,
      files={"all": ("a/g.npz", "b/g.npz")})
  with pytest.raises(errors.DataError, match="two files of tile:two all are named g.npz"):
    collections.load_collection(collection, "all", packed="always")


def test_a_folder_that_cannot_be_written(descriptor, tmp_path):
  (tmp_path / "file").write_text("x")
  with pytest.raises(errors.OutputError, match="cannot write .*; choose a folder .* with --output"):
    _load(descriptor, "always", root=tmp_path / "file")


# ---- without the sources -------------------------------------------------------------------------


def test_packed_files_replace_removed_sources(descriptor):
  expected = _load(descriptor, "never")
  names = [graph.name for graph in expected]
  _pack(descriptor)
  shutil.rmtree(expected.paths[0].parent)
  for how in ("auto", "always"):
    actual = _load(descriptor, how)
    assert _is_packed(actual) and [graph.name for graph in actual] == names
    assert [path.stem for path in actual.paths] == names
  with pytest.raises(errors.MissingDataError, match="no data of .* train at "):
    _load(descriptor, "never")
  with pytest.raises(errors.MissingDataError, match="no data of .* valid at "):
    shutil.rmtree(expected.paths[0].parent.with_name("valid"))
    _load(descriptor, "auto", "valid")


def test_removed_sources_and_missing_packed_files(descriptor):
  folder = _pack(descriptor).folder
  shutil.rmtree(_load(descriptor, "never").paths[0].parent)
  keys = json.loads((folder / "index.json").read_text())
  name = next(iter(keys["graphs"]))
  changed = {**keys, "graphs": {**keys["graphs"], name: "other"}}
  (folder / "index.json").write_text(json.dumps(changed))
  with pytest.raises(errors.DataError, match=f"{name}.pack has another source than .*index.json"):
    _load(descriptor, "auto")
  for content in ("[]", '{"graphs": 3}', '{"graphs": {"a": 1}}'):
    (folder / "index.json").write_text(content)
    with pytest.raises(errors.DataError, match="index.json is damaged; remove it, and run"):
      _load(descriptor, "auto")
  (folder / "index.json").write_text(json.dumps(keys))
  (folder / f"{name}.pack").unlink()
  with pytest.raises(errors.MissingDataError, match=f"no file .*{name}.pack"):
    _load(descriptor, "auto")
  keys["graphs"].pop(name)
  (folder / "index.json").write_text(json.dumps(keys))
  with pytest.raises(errors.DataError, match="holds 2 of the 3 graphs of"):
    _load(descriptor, "auto")
  (folder / "index.json").unlink()
  with pytest.raises(errors.MissingDataError, match="no file .*index.json"):
    _load(descriptor, "auto")


# ---- several processes ---------------------------------------------------------------------------


_PACK = """
import sys
from tpugraphs_rank.data import collections, packed, packed_graphs, registry
collection = registry.get_collection(sys.argv[1])
sources = collections.load_collection(collection, "train").paths
write = packed_graphs.pack_graph
def slow(source, target):
  import time
  print("packs", source.stem, flush=True)
  write(source, target)
  time.sleep(float(sys.argv[2]))
packed_graphs.pack_graph = slow
print(packed.pack(collection, "train", sources, packed.folder_of(collection, "train")).written)
"""


def _start(descriptor, seconds):
  return subprocess.Popen(
      [sys.executable, "-c", _PACK, str(descriptor), str(seconds)], cwd=ROOT,
      stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_several_processes_share_the_work(tmp_path):
  descriptor = synthetic.write_collection(tmp_path, "layout", counts=(8, 1, 1))
  processes = [_start(descriptor, 0.3) for _ in range(3)]
  lines = [process.communicate()[0].split("\n") for process in processes]
  assert all(process.returncode == 0 for process in processes)
  # Each graph by one of them.
  packed_ones = [line for own in lines for line in own if line.startswith("packs")]
  assert len(packed_ones) == len(set(packed_ones)) == 8
  assert sum(int(own[-2]) for own in lines) == 8
  assert _is_packed(_load(descriptor, "auto"))
  assert {path.suffix for path in _folder(descriptor).iterdir()} == {".pack", ".json", ""}


def test_a_process_that_is_killed_leaves_nothing_half_done(tmp_path):
  descriptor = synthetic.write_collection(tmp_path, "layout", counts=(4, 1, 1))
  process = _start(descriptor, 60)
  assert process.stdout.readline().startswith("packs")
  deadline = time.monotonic() + 30
  while not list(_folder(descriptor).glob("*.pack")):
    assert time.monotonic() < deadline
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert not _is_packed(_load(descriptor, "auto"))
  assert _pack(descriptor).written == 3 and _is_packed(_load(descriptor, "auto"))


def test_it_waits_for_a_graph_that_another_process_packs(descriptor):
  names = [path.stem for path in collections.load_collection(str(descriptor), "train").paths]
  folder = _folder(descriptor)
  folder.mkdir(parents=True)
  held = subprocess.Popen(
      [sys.executable, "-c",
       "import fcntl, sys\n"
       "file = open(sys.argv[1], 'ab')\n"
       "fcntl.lockf(file, fcntl.LOCK_EX, 1, int(sys.argv[2]))\n"
       "print('held', flush=True)\n"
       "sys.stdin.read()\n", str(folder / ".lock"), str(zlib.crc32(names[0].encode()))],
      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  assert held.stdout.readline() == "held\n"
  packing = _start(descriptor, 0)
  for name in names[1:]:  # The others come first.
    assert packing.stdout.readline() == f"packs {name}\n"
  held.communicate("")
  assert packing.communicate()[0] == f"packs {names[0]}\n3\n"
  assert _is_packed(_load(descriptor, "auto"))


def test_each_graph_has_its_own_lock(tmp_path):
  locks = packed._Locks(tmp_path)
  with contextlib.closing(locks), locks.hold("a", False) as one, locks.hold("b", False) as b:
    assert one and b
  with open(tmp_path / ".lock", "ab") as file:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # All of it is free again.
