"""Graphs in files: round trips, and typed errors that name file and key for any damage."""

import io
import os
import pickle
import struct
import tracemalloc
import zipfile

import hypothesis
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import numpy as np
import pytest

from tests import synthetic
from tpugraphs_rank import errors
from tpugraphs_rank import memory
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import headers
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import packed_graphs

GRAPHS = {
    "tile": synthetic.tile_graph(0, num_nodes=3, num_configs=3),
    "layout": synthetic.layout_graph(1, num_nodes=4, num_configs=3, num_config_nodes=2),
    "padded": synthetic.tile_graph(2, num_nodes=3, num_configs=2, feature_padding=np.int64(-1)),
    "passes": synthetic.tile_graph(
        3, num_nodes=3, num_configs=2, config_runtime_passes=np.array([[3, 4], [5, 6]])),
    "bare": graphs.graph_from_arrays("bare", {
        key: synthetic.tile_graph(4).arrays()[key]
        for key in ("node_feat", "node_opcode", "edge_index")}),
}


def _bytes(graph, save=np.savez_compressed):
  file = io.BytesIO()
  save(file, **graph.arrays())
  return file.getvalue()


@pytest.mark.parametrize("which", GRAPHS)
def test_round_trip(tmp_path, which):
  graph = GRAPHS[which]
  path = tmp_path / "folder" / "k.1_2.npz"
  npz.save_graph(path, graph)
  again = npz.load_graph(str(path))
  assert type(again) is type(graph) and again.name == "k.1_2"
  stored, expected = again.arrays(), graph.arrays()
  assert stored.keys() == expected.keys()
  for key in stored:
    assert np.asarray(stored[key]).dtype == np.asarray(expected[key]).dtype
    np.testing.assert_array_equal(stored[key], expected[key])


def test_the_stored_arrays_match_the_release(tmp_path):
  npz.save_graph(tmp_path / "t.npz", GRAPHS["tile"])
  npz.save_graph(tmp_path / "l.npz", GRAPHS["layout"])
  kinds = {}
  for name in ("t", "l"):
    with np.load(tmp_path / f"{name}.npz") as stored:
      kinds[name] = {key: (stored[key].dtype.name, stored[key].ndim) for key in stored.files}
  shared = {"node_feat": ("float32", 2), "node_opcode": ("uint8", 1), "edge_index": ("int64", 2),
            "config_runtime": ("int64", 1), "feature_padding": ("int64", 0)}
  assert kinds["t"] == {
      **shared, "config_feat": ("float32", 2), "config_runtime_normalizers": ("int64", 1)}
  assert kinds["l"] == {
      **shared, "node_config_ids": ("int64", 1), "node_config_feat": ("float32", 3),
      "node_splits": ("int64", 2)}


def test_a_graph_that_was_read_is_immutable_without_a_copy(tmp_path):
  npz.save_graph(tmp_path / "t.npz", GRAPHS["tile"])
  arrays = npz.read_arrays(tmp_path / "t.npz")
  graph = graphs.graph_from_arrays("t", arrays)
  assert graph.node_feat is arrays["node_feat"] and not graph.node_feat.flags.writeable


def test_missing_files_and_folders(tmp_path):
  for path in (tmp_path / "gone.npz", tmp_path):
    with pytest.raises(errors.MissingDataError, match="no file .*tpugraphs-rank featurize"):
      npz.load_graph(path)


@pytest.mark.parametrize("key, change, message", [
    ("node_feat", lambda a: a[:, :7], r"has shape \(3, 7\)"),
    ("edge_index", lambda a: a + 99, r"row 0 is"),
    ("config_runtime", lambda a: np.array([1, 0, 2]), r"entry 1 is 0 while others"),
    ("config_feat", lambda a: a * np.nan, r"entry \[0, 0\] is nan"),
    ("node_opcode", lambda a: np.array(["a", "b", "c"]), r"has dtype <U1"),
])
def test_format_errors_name_file_and_key(tmp_path, key, change, message):
  arrays = GRAPHS["tile"].arrays()
  arrays[key] = change(arrays[key])
  path = tmp_path / "t.npz"
  np.savez(path, **arrays)
  with pytest.raises(errors.DataError, match=message) as caught:
    npz.load_graph(path)
  assert str(caught.value).startswith(f"{path}: ") and key in str(caught.value)


def test_a_missing_key_is_reported_with_the_file(tmp_path):
  arrays = GRAPHS["layout"].arrays()
  del arrays["edge_index"]
  np.savez(tmp_path / "l.npz", **arrays)
  with pytest.raises(errors.DataError, match=r"l\.npz: .*key 'edge_index' is missing"):
    npz.load_graph(tmp_path / "l.npz")


# ---- pickles -------------------------------------------------------------------------------------


class _Malicious:
  """Makes a folder when it is unpickled."""

  def __init__(self, path):
    self._path = str(path)

  def __reduce__(self):
    return os.mkdir, (self._path,)


def test_this_pickle_would_run(tmp_path):
  pickle.loads(pickle.dumps(_Malicious(tmp_path / "ran")))
  assert (tmp_path / "ran").exists()


def test_pickled_objects_are_never_loaded(tmp_path):
  arrays = GRAPHS["tile"].arrays()
  arrays["node_feat"] = np.array([_Malicious(tmp_path / "ran")], object)
  np.savez(tmp_path / "t.npz", **arrays)
  with pytest.raises(errors.DataError, match="t.npz: key 'node_feat' holds pickled .*never"):
    npz.load_graph(tmp_path / "t.npz")
  assert not (tmp_path / "ran").exists()


def test_pickled_objects_of_unknown_keys_are_not_read(tmp_path):
  arrays = GRAPHS["tile"].arrays()
  np.savez(tmp_path / "t.npz", not_ours=np.array([_Malicious(tmp_path / "ran")], object), **arrays)
  assert npz.load_graph(tmp_path / "t.npz").num_nodes == 3
  with pytest.raises(errors.DataError, match="t.npz: key 'not_ours' holds pickled .*never"):
    npz.read_arrays(tmp_path / "t.npz")
  assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("write, message", [
    (lambda file, value: pickle.dump(value, file), "holds pickled objects, which are never loaded"),
    (lambda file, value: np.save(file, np.array([value], object)), "holds a single array"),
])
def test_a_bare_pickle_is_never_loaded(tmp_path, write, message):
  with open(tmp_path / "t.npz", "wb") as file:
    write(file, _Malicious(tmp_path / "ran"))
  with pytest.raises(errors.DataError, match=f"t.npz {message}"):
    npz.load_graph(tmp_path / "t.npz")
  assert not (tmp_path / "ran").exists()


# ---- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [
    b"", b"PK", b"PK\x03\x04", b"hello, world\n" * 9, b"\x93NUMPY", b"\x00" * 64])
def test_not_an_npz_file_at_all(tmp_path, content):
  (tmp_path / "t.npz").write_bytes(content)
  with pytest.raises(errors.DataError, match="t.npz"):
    npz.load_graph(tmp_path / "t.npz")


def test_a_single_array(tmp_path):
  with open(tmp_path / "t.npz", "wb") as file:
    np.save(file, np.zeros(3))
  with pytest.raises(errors.DataError, match="t.npz holds a single array; expected named"):
    npz.load_graph(tmp_path / "t.npz")


def test_a_zip_archive_of_other_things(tmp_path):
  with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
    archive.writestr("node_feat.npy", b"not an array")
  with pytest.raises(errors.DataError, match="t.npz: key 'node_feat' cannot be read"):
    npz.load_graph(tmp_path / "t.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncated_anywhere(tmp_path, save):
  content = _bytes(GRAPHS["tile"], save)
  path = tmp_path / "t.npz"
  for size in sorted({*range(0, len(content), 41), *range(len(content) - 40, len(content))}):
    path.write_bytes(content[:size])
    with pytest.raises(errors.DataError) as caught:
      npz.load_graph(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value), size


@pytest.mark.parametrize("which", ["tile", "layout"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@hypothesis.settings(
    max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_corrupted_bytes_give_a_valid_graph_or_a_typed_error(tmp_path, which, save, data):
  content = bytearray(_bytes(GRAPHS[which], save))
  for _ in range(data.draw(st.integers(1, 3))):
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
  _check(tmp_path / "t.npz", bytes(content))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_byte_of_the_headers_corrupted(tmp_path, save):
  # Random positions seldom hit the bytes with the structure of the archive and of its arrays.
  content = _bytes(GRAPHS["tile"], save)
  directory = content.index(b"PK\x01\x02")
  structure = [*range(0, 160), *range(directory, directory + 60), *range(len(content) - 22,
                                                                         len(content))]
  for position in structure:
    for value in (0x00, 0xff, content[position] ^ 1, content[position] ^ 0x20):
      damaged = bytearray(content)
      damaged[position] = value
      _check(tmp_path / "t.npz", bytes(damaged))


def _check(path, content):
  """Reading returns a consistent graph, or raises a DataError with the file's name."""
  path.write_bytes(content)
  try:
    graph = npz.load_graph(path)
  except errors.DataError as error:
    assert str(path) in str(error)
  else:
    assert graph.num_nodes and np.isfinite(graph.node_feat).all()
    assert graph.edge_index.size == 0 or graph.edge_index.max() < graph.num_nodes


# ---- in blocks of rows ---------------------------------------------------------------------------


def _rows(path, key="x", block_bytes=1):
  return [np.array(block) for block in npz.read_rows(path, key, block_bytes)]


@given(shape=hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6),
       dtype=st.sampled_from([np.float32, np.int8, np.float64]), block=st.integers(1, 200),
       order=st.sampled_from("CF"), save=st.sampled_from([np.savez, np.savez_compressed]))
def test_blocks_of_rows_are_the_array(tmp_path_factory, shape, dtype, block, order, save):
  path = tmp_path_factory.getbasetemp() / "rows.npz"
  array = np.asarray(np.arange(np.prod(shape)).reshape(shape).astype(dtype), order=order)
  save(path, x=array, y=np.zeros(3))
  blocks = _rows(path, block_bytes=block)
  np.testing.assert_array_equal(np.concatenate([array[:0], *blocks]), array)
  assert all(actual.dtype == dtype for actual in blocks)
  if array.flags.c_contiguous:
    row = array[:1].nbytes
    assert [len(actual) for actual in blocks] == [
        min(max(block // max(row, 1), 1), shape[0] - start)
        for start in range(0, shape[0], max(block // max(row, 1), 1))]


def test_blocks_of_a_damaged_array(tmp_path):
  path = tmp_path / "a.npz"
  np.savez_compressed(path, x=np.random.default_rng(0).random(5000))
  content = path.read_bytes()
  for where in (len(content) // 2, -200):
    path.write_bytes(content[:where] + bytes([content[where] ^ 0xFF]) + content[where:][1:])
    with pytest.raises(errors.DataError, match="a.npz: key 'x' cannot be read .*damaged"):
      _rows(path, block_bytes=1000)
  path.write_bytes(content)
  with pytest.raises(errors.DataError, match="a.npz: key 'y' cannot be read .KeyError"):
    _rows(path, "y")


@pytest.mark.parametrize("change, message", [
    (lambda raw: raw[:-8], "its header requires 240 bytes of values, and 232 are"),
    (lambda raw: raw + b"1234", "its header requires 240 bytes of values, and 244 are"),
    (lambda raw: raw[:6] + b"\x09" + raw[7:], "header of version .9, 0.; expected 1.0 or 2.0"),
])
def test_blocks_of_an_array_that_contradicts_its_header(tmp_path, change, message):
  file = io.BytesIO()
  np.lib.format.write_array(file, np.arange(30))
  with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
    archive.writestr("x.npy", change(file.getvalue()))
  with pytest.raises(
      errors.DataError, match=f"a.npz: key 'x' cannot be read .ValueError: {message}"):
    _rows(tmp_path / "a.npz")


def test_blocks_of_pickles_are_refused(tmp_path):
  np.savez(tmp_path / "a.npz", x=np.array([{}]))
  with pytest.raises(errors.DataError, match="pickled objects, which are never loaded"):
    _rows(tmp_path / "a.npz")


# ---- sizes ---------------------------------------------------------------------------------------


def _member(header, values=b"", length=None):
  """An array file with any header."""
  text = header.encode() + b"\n"
  return (b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text) if length is None else length) + text
          + values)


def _header(shape, dtype="<f4"):
  return f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}"


def test_an_unknown_member_costs_nothing(tmp_path):
  path = tmp_path / "t.npz"
  npz.save_graph(path, GRAPHS["tile"])
  with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
    with archive.open("notes.npy", "w") as member:
      member.write(_member(_header((1 << 24,))))
      for _ in range(64):
        member.write(bytes(1 << 20))
  tracemalloc.start()
  try:
    assert npz.load_graph(path).num_nodes == 3
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize("content, message", [
    (_member(_header((1 << 40,))), "its header requires 4,398,046,511,104 bytes of values, and 0 "),
    (_member(_header((-1, 4))), r"its shape is \(-1, 4\); expected"),
    (_member(_header((True, 4)), bytes(16)), r"its shape is \(True, 4\); expected"),
    (_member(_header((1,) * 33), bytes(4)), "its shape is .*; expected at most 32 sides"),
    (_member(_header((0, 1 << 60))), r"without elements; expected sides of at most 16,777,216"),
    (_member(_header((2,), [("a", "<i4")]), bytes(8)), "its dtype is .*; expected numbers"),
    (_member(_header((2,), "<m8[s]"), bytes(16)), "its dtype is timedelta64.*; expected numbers"),
    (_member(_header((2,), "<c8"), bytes(16)), "its dtype is complex64; expected numbers"),
    (_member(_header((2,), "<U0")), "its dtype is <U0; expected numbers"),
    (_member(_header((2,)), bytes(8), 1 << 31), "its header has 2,147,483,648 bytes; expected at"),
    (_member("(" * 3000), "cannot be read"),
    (_member("-" * 9000 + "1"), "cannot be read"),
])
def test_headers_are_checked_before_memory_is_allocated(tmp_path, content, message):
  with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
    archive.writestr("x.npy", content)
  tracemalloc.start()
  try:
    for read in (npz.read_arrays, headers.read_headers):
      with pytest.raises(errors.DataError, match=f"t.npz: key 'x' .*{message}"):
        read(tmp_path / "t.npz")
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
  finally:
    tracemalloc.stop()


def test_the_directory_of_an_archive_is_compared_with_its_size(tmp_path):
  path = tmp_path / "t.npz"
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("x.npy", _member(_header((1 << 20,), "|u1"), bytes(1 << 20)))
  content = bytearray(path.read_bytes())
  directory = content.index(b"PK\x01\x02")
  struct.pack_into("<I", content, directory + 24, 3 << 30)
  path.write_bytes(content)
  with pytest.raises(errors.DataError, match="bytes cannot unpack to 3,221,225,472"):
    npz.read_arrays(path)
  struct.pack_into("<I", content, directory + 20, 3 << 30)
  path.write_bytes(content)
  with pytest.raises(errors.DataError, match="its members are longer than the file"):
    npz.read_arrays(path)


@pytest.mark.parametrize("number", [0x110000, 0xFFFFFFFF, 0xD800, 0xDFFF])
def test_text_consists_of_characters(tmp_path, number):
  np.savez(tmp_path / "t.npz", x=np.array([0x41, number], np.uint32).view("<U1"))
  with pytest.raises(errors.DataError, match=f"key 'x' .*holds {number:#x}, which is no character"):
    npz.read_arrays(tmp_path / "t.npz")


def test_a_key_occurs_once_and_only_deflate_is_unpacked(tmp_path):
  with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive, pytest.warns(UserWarning):
    for _ in range(2):
      archive.writestr("x.npy", _member(_header((1,)), bytes(4)))
  with pytest.raises(errors.DataError, match="the key 'x' occurs twice"):
    npz.read_arrays(tmp_path / "t.npz")
  with zipfile.ZipFile(tmp_path / "t.npz", "w", zipfile.ZIP_LZMA) as archive:
    archive.writestr("x.npy", _member(_header((1,)), bytes(4)))
  with pytest.raises(errors.DataError, match="another method than deflate; write it with np.savez"):
    npz.read_arrays(tmp_path / "t.npz")


def test_large_arrays_are_compared_with_limits_and_with_the_free_memory(tmp_path, monkeypatch):
  path = tmp_path / "t.npz"
  npz.save_graph(path, GRAPHS["layout"])
  with pytest.raises(errors.LimitError, match="t.npz unpacks to .* bytes; the limit is 10; "):
    npz.read_arrays(path, limit=10)
  monkeypatch.setattr(npz, "MAX_LAYOUT_BYTES", 10)
  with pytest.raises(errors.LimitError, match="t.npz: key 'node_config_feat' unpacks to .*is 10; "):
    npz.load_graph(path)
  monkeypatch.undo()
  monkeypatch.setattr(memory, "_SMALL", 0)
  monkeypatch.setattr(memory, "available", lambda: 20)
  with pytest.raises(errors.OutOfMemoryError, match="^memory ran out: .* 20 bytes of memory are "):
    npz.load_graph(path)


def test_the_size_counts_after_arrays_are_widened(tmp_path, monkeypatch):
  path = tmp_path / "t.npz"
  arrays = dict(GRAPHS["tile"].arrays())
  stored = np.ones(arrays["node_feat"].shape, np.int8)
  np.savez(path, **{**arrays, "node_feat": stored})
  loaded = npz.read_arrays(path, ["node_feat"], limit=stored.size)
  assert loaded["node_feat"].dtype == np.int8
  with pytest.raises(errors.LimitError, match=f"unpacks to {4 * stored.size:,} bytes"):
    npz.read_arrays(path, ["node_feat"], limit=stored.size, types=npz.GRAPH_TYPES)
  rest = sum(array.nbytes for key, array in GRAPHS["tile"].arrays().items()
             if key != "node_feat")
  monkeypatch.setattr(npz, "MAX_BYTES", rest + 2 * stored.size)
  with pytest.raises(errors.LimitError, match="t.npz unpacks to"):
    npz.load_graph(path)


@pytest.mark.parametrize("key, limit, message", [
    ("node_feat", "nodes", "key 'node_feat' has 3 rows; the limit is 2 nodes of a program; expec"),
    ("config_feat", "configurations", "key 'config_feat' has 3 rows; the limit is 2 configurat"),
])
def test_graphs_have_a_limited_number_of_rows(tmp_path, monkeypatch, key, limit, message):
  path = tmp_path / "t.npz"
  npz.save_graph(path, GRAPHS["tile"])
  monkeypatch.setattr(npz, "_ROWS", {key: (2, limit)})
  with pytest.raises(errors.LimitError, match=message):
    npz.load_graph(path)
  with pytest.raises(errors.LimitError, match=message):
    packed_graphs.pack_graph(path, tmp_path / "t.pack")


def test_numbers_of_another_byte_order_become_native(tmp_path):
  np.savez(tmp_path / "t.npz", x=np.arange(3, dtype=">i4"), y=np.array(["ab", "c"], ">U2"))
  arrays = npz.read_arrays(tmp_path / "t.npz")
  assert arrays["x"].dtype == np.int32 and arrays["x"].tolist() == [0, 1, 2]
  assert arrays["y"].dtype.isnative and arrays["y"].tolist() == ["ab", "c"]


def test_layouts_that_unpack_to_much_more_than_their_file(tmp_path, monkeypatch):
  graph = GRAPHS["layout"]
  path = tmp_path / "t.npz"
  count, nodes = 3000, len(graph.node_config_ids)
  arrays = graph.arrays() | {"node_config_feat": np.full([count, nodes, 18], -1, np.int8),
                             "config_runtime": np.arange(1, count + 1)}
  np.savez_compressed(path, **arrays)
  size = 4 * count * nodes * 18  # Graphs hold float32.
  assert npz.load_graph(path).num_configs == count
  monkeypatch.setattr(npz, "MAX_LAYOUT_BYTES_OF_ANY_FILE", size - 1)
  assert npz.load_graph(path).num_configs == count
  monkeypatch.setattr(npz, "MAX_LAYOUT_RATIO", size // path.stat().st_size - 1)
  for read in (npz.load_graph, lambda path: packed_graphs.pack_graph(path, tmp_path / "t.pack")):
    with pytest.raises(errors.LimitError, match=(
        f"t.npz: key 'node_config_feat' needs {size:,} bytes, .* times the size of the file; the "
        "limit is .* times; if the layouts are real, store the arrays uncompressed")):
      read(path)
  assert not (tmp_path / "t.pack").exists()
  np.savez(path, **arrays)  # The remedy.
  graph = npz.load_graph(path)
  assert graph.num_configs == count
  npz.save_graph(tmp_path / "own.npz", graph)  # Written so that it can be read.
  assert npz.load_graph(tmp_path / "own.npz").num_configs == count
