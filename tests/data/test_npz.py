"""Graphs in files: round trips, and typed errors that name file and key for any damage."""

import io
import os
import pickle
import zipfile

import hypothesis
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import numpy as np
import pytest

from tests import synthetic
from tpugraphs_rank import errors
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import npz

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


@pytest.mark.parametrize("key", ["node_feat", "not_ours"])
def test_pickled_objects_are_never_loaded(tmp_path, key):
  arrays = GRAPHS["tile"].arrays()
  arrays[key] = np.array([_Malicious(tmp_path / "ran")], object)
  np.savez(tmp_path / "t.npz", **arrays)
  with pytest.raises(errors.DataError, match=f"t.npz: key '{key}' holds pickled objects .*never"):
    npz.load_graph(tmp_path / "t.npz")
  assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("write", [
    lambda file, value: pickle.dump(value, file),
    lambda file, value: np.save(file, np.array([value], object)),
])
def test_a_bare_pickle_is_never_loaded(tmp_path, write):
  with open(tmp_path / "t.npz", "wb") as file:
    write(file, _Malicious(tmp_path / "ran"))
  with pytest.raises(errors.DataError, match="t.npz holds pickled objects or is not an .npz file"):
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
  with pytest.raises(errors.DataError, match="t.npz holds a single array"):
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
    (lambda raw: raw[:-8], "the array ends before its last row"),
    (lambda raw: raw + b"1234", "the array continues after its last row"),
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
