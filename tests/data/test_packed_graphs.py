"""Packed graphs are equal to the graphs in the .npz files."""

import dataclasses
import pickle
import shutil
import tracemalloc

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import synthetic
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import packed_format
from tpugraphs_rank.data import packed_graphs

MAKERS = {"tile": synthetic.tile_graph, "layout": synthetic.layout_graph}
PASSES = np.array([[3, 4, 4], [5, 6, 4]])
CASES = {
    "tile": ("tile", {}),
    "layout": ("layout", {}),
    "no runtimes": ("layout", {"config_runtime": np.zeros(3, np.int64)}),
    "padded": ("layout", {"feature_padding": np.int64(-1)}),
    "tile passes": ("tile", {"config_runtime_passes": PASSES}),
    "layout passes": ("layout", {"config_runtime_passes": PASSES}),
    "no splits": ("layout", {"node_splits": None}),
    "no configurations": ("layout", {
        "config_runtime": np.zeros(0), "node_config_feat": np.zeros([0, 3, 18])}),
    "nothing configurable": ("layout", {
        "node_config_ids": np.zeros(0), "node_config_feat": np.zeros([3, 0, 18])}),
}


def _packed(folder, graph, name="g.1"):
  """The graph, packed from a file, and as read from that file."""
  source, target = folder / f"{name}.npz", folder / f"{name}.pack"
  npz.save_graph(source, graph)
  packed_graphs.pack_graph(source, target)
  return packed_graphs.open_graph(packed_format.Reader(target)), npz.load_graph(source)


def _assert_same(packed, plain):
  for field in dataclasses.fields(plain):
    actual, expected = getattr(packed, field.name), getattr(plain, field.name)
    if isinstance(expected, np.ndarray):
      assert actual.dtype == expected.dtype and not actual.flags.writeable, field.name
      np.testing.assert_array_equal(actual, expected, err_msg=field.name)
    else:
      assert actual == expected, field.name
  for name in ("kind", "num_nodes", "num_configs", "has_runtimes"):
    assert getattr(packed, name) == getattr(plain, name), name
  assert packed.arrays().keys() == plain.arrays().keys()
  np.testing.assert_array_equal(packed.relative_runtime, plain.relative_runtime)
  for name in ("config_keys", "config_digests", "config_rows", "runtime_order"):
    actual, expected = getattr(packed, name)(), getattr(plain, name)()
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_every_field_and_every_method(tmp_path, case):
  kind, changes = CASES[case]
  packed, plain = _packed(tmp_path, MAKERS[kind](0, **{"num_configs": 3, **changes}))
  assert isinstance(packed, type(plain)) and packed.name == "g.1"
  _assert_same(packed, plain)
  _assert_same(pickle.loads(pickle.dumps(packed)), plain)


@settings(max_examples=25)
@given(seed=st.integers(0, 10 ** 6), kind=st.sampled_from(sorted(MAKERS)),
       configs=st.integers(1, 60), data=st.data())
def test_any_graph_and_any_rows(tmp_path_factory, seed, kind, configs, data):
  folder = tmp_path_factory.getbasetemp()
  packed, plain = _packed(folder, MAKERS[kind](seed, num_configs=configs))
  _assert_same(packed, plain)
  if kind == "layout":
    rows = data.draw(st.lists(st.integers(0, configs - 1), max_size=20))
    actual = packed.layouts(np.array(rows, np.int64))
    assert actual.dtype == np.int8
    np.testing.assert_array_equal(actual, plain.layouts(np.array(rows, np.int64)))


def test_arrays_are_not_kept_in_memory(tmp_path):
  packed, plain = _packed(tmp_path, synthetic.layout_graph(0))
  assert packed.node_feat is not packed.node_feat and plain.node_feat is plain.node_feat
  assert packed.node_opcode is packed.node_opcode  # Except for one byte per node.
  assert packed.nbytes == sum(getattr(plain, name).nbytes for name in (
      "node_feat", "node_opcode", "edge_index", "config_runtime"))


# ---- packing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.int64])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_layouts_with_any_dtype_and_order(tmp_path, monkeypatch, dtype, order, save):
  graph = synthetic.layout_graph(0, num_configs=25)
  monkeypatch.setattr(packed_graphs, "_BLOCK_BYTES", 1000)
  arrays = graph.arrays()
  arrays["node_config_feat"] = np.asarray(arrays["node_config_feat"].astype(dtype), order=order)
  save(tmp_path / "g.npz", **arrays)
  packed_graphs.pack_graph(tmp_path / "g.npz", tmp_path / "g.pack")
  packed = packed_graphs.open_graph(packed_format.Reader(tmp_path / "g.pack"))
  _assert_same(packed, dataclasses.replace(graph, name="g"))


def test_packing_and_reading_never_hold_the_layouts(tmp_path, monkeypatch):
  count, nodes = 4000, 40
  graph = synthetic.layout_graph(
      0, num_nodes=60, num_configs=count, num_config_nodes=nodes)
  npz.save_graph(tmp_path / "g.npz", graph)
  unpacked = graph.node_config_feat.nbytes
  assert unpacked == count * nodes * 72
  monkeypatch.setattr(packed_graphs, "_BLOCK_BYTES", unpacked // 100)
  tracemalloc.start()
  try:
    packed_graphs.pack_graph(tmp_path / "g.npz", tmp_path / "g.pack")
    packing = tracemalloc.get_traced_memory()[1]
    packed = packed_graphs.open_graph(packed_format.Reader(tmp_path / "g.pack"))
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    actual = packed.layouts(np.arange(0, count, 100))
    reading = tracemalloc.get_traced_memory()[1] - before
  finally:
    tracemalloc.stop()
  # A few blocks, digests of rows, and what it takes to read a zip file.
  assert packing < 0.25 * unpacked
  # 40 of 4,000 configurations: one byte per number, their codes and indices.
  assert reading < 4 * actual.nbytes
  assert (tmp_path / "g.pack").stat().st_size < 2 * count * nodes + 30 * count + 60_000


WRONG = {
    "a number too large": ("node_config_feat", lambda a: a + 5),
    "a fraction": ("node_config_feat", lambda a: a + 0.5),
    "nodes that do not fit": ("node_config_feat", lambda a: a[:, :-1]),
    "configurations that do not fit": ("node_config_feat", lambda a: a[:-1]),
    "seventeen numbers": ("node_config_feat", lambda a: a[..., :17]),
    "text": ("node_config_feat", lambda a: a.astype("S2")),
    "a runtime of 0": ("config_runtime", lambda a: np.concatenate([a[:-1], [0]])),
    "a node that is not there": ("node_config_ids", lambda a: a + 10),
}


@pytest.mark.parametrize("case", WRONG)
def test_format_errors_are_the_same_as_for_npz_files(tmp_path, case):
  key, change = WRONG[case]
  arrays = synthetic.layout_graph(0).arrays()
  arrays[key] = change(arrays[key])
  np.savez(tmp_path / "g.npz", **arrays)
  with pytest.raises(errors.DataError) as expected:
    npz.load_graph(tmp_path / "g.npz")
  with pytest.raises(errors.DataError) as actual:
    packed_graphs.pack_graph(tmp_path / "g.npz", tmp_path / "g.pack")
  assert str(actual.value) == str(expected.value)
  assert [path.name for path in tmp_path.iterdir()] == ["g.npz"]


def test_an_invalid_value(tmp_path):
  arrays = synthetic.layout_graph(0).arrays()
  arrays["node_config_feat"] = np.full_like(arrays["node_config_feat"], np.nan)
  np.savez(tmp_path / "g.npz", **arrays)
  with pytest.raises(errors.DataError, match=(
      r"g.npz: g: node_config_feat entry \[0, 0, 0\] is nan; expected integers from -1 to 5")):
    packed_graphs.pack_graph(tmp_path / "g.npz", tmp_path / "g.pack")


def test_a_graph_without_configurations(tmp_path):
  bare = graphs.Graph("g", **{key: synthetic.tile_graph(0).arrays()[key] for key in (
      "node_feat", "node_opcode", "edge_index")})
  npz.save_graph(tmp_path / "g.npz", bare)
  with pytest.raises(errors.DataError, match="g.npz: g has no configurations; only tile"):
    packed_graphs.pack_graph(tmp_path / "g.npz", tmp_path / "g.pack")


def test_sources_that_are_missing_or_damaged(tmp_path):
  source, target = tmp_path / "g.npz", tmp_path / "g.pack"
  with pytest.raises(errors.MissingDataError, match="no file .*g.npz"):
    packed_graphs.pack_graph(source, target)
  npz.save_graph(source, synthetic.layout_graph(0, num_configs=400))
  content = bytearray(source.read_bytes())
  source.write_bytes(content[:-40])
  with pytest.raises(errors.DataError, match="g.npz cannot be read .BadZipFile"):
    packed_graphs.pack_graph(source, target)
  # Inside the compressed layouts, which the file's directory does not show.
  start = content.index(b"node_config_feat.npy")
  content[start + 400] ^= 0xFF
  source.write_bytes(content)
  with pytest.raises(errors.DataError, match="g.npz: key 'node_config_feat' cannot be read"):
    packed_graphs.pack_graph(source, target)
  assert not target.exists()


def test_a_source_that_changes_meanwhile(tmp_path, monkeypatch):
  source, target = tmp_path / "g.npz", tmp_path / "g.pack"
  npz.save_graph(source, synthetic.layout_graph(0))
  read = npz.read_rows

  def changed(*arguments):
    yield from read(*arguments)
    npz.save_graph(source, synthetic.layout_graph(1))

  monkeypatch.setattr(packed_graphs.npz, "read_rows", changed)
  with pytest.raises(errors.DataError, match="g.npz: changed while it was packed; run the same"):
    packed_graphs.pack_graph(source, target)
  assert not target.exists()


def test_the_key_of_a_source_is_that_of_its_content(tmp_path):
  graph = synthetic.layout_graph(0)
  npz.save_graph(tmp_path / "a.npz", graph)
  key = packed_graphs.source_key(tmp_path / "a.npz")
  shutil.copyfile(tmp_path / "a.npz", tmp_path / "b.npz")
  np.savez(tmp_path / "c.npz", **graph.arrays())  # The same arrays, not compressed.
  assert key == packed_graphs.source_key(tmp_path / "b.npz") == packed_graphs.source_key(
      tmp_path / "c.npz")
  changed = graph.node_config_feat.copy()
  changed[3, 1, 4] = 2 - changed[3, 1, 4]
  npz.save_graph(tmp_path / "d.npz", dataclasses.replace(graph, node_config_feat=changed))
  assert key != packed_graphs.source_key(tmp_path / "d.npz")


def test_a_packed_file_of_something_else(tmp_path):
  with open(tmp_path / "g.pack", "wb") as file:
    packed_format.Writer(file).finish({"kind": "bare"})
  with pytest.raises(errors.DataError, match="g.pack holds a graph of kind 'bare'; expected"):
    packed_graphs.open_graph(packed_format.Reader(tmp_path / "g.pack"))


# ---- forged files: all checksums are right -------------------------------------------------------


def _forged(folder, kind, change):
  """A packed graph whose arrays and meta values `change` alters in place."""
  packed, _ = _packed(folder, MAKERS[kind](0))
  reader = packed.reader
  arrays, meta = {name: np.array(reader.read(name)) for name in reader.arrays}, dict(reader.meta)
  change(arrays, meta)
  with files.atomic_write(folder / "forged.pack") as file:
    writer = packed_format.Writer(file)
    for name, array in arrays.items():
      writer.add(name, array)
    writer.finish(meta)
  return packed_graphs.open_graph(packed_format.Reader(folder / "forged.pack"))


def _replace(name, new):
  def change(arrays, meta):
    arrays[name] = new(arrays[name])
  return change


@pytest.mark.parametrize("kind, change, message", [
    ("tile", lambda arrays, meta: meta.pop("source"), "its table lacks source"),
    ("tile", lambda arrays, meta: meta.update(feature_padding=True), "lacks .* feature_padding"),
    ("tile", lambda arrays, meta: meta.update(kind=["tile"]), r"of kind \['tile'\]; expected"),
    ("tile", lambda arrays, meta: arrays.pop("order"), "its array order is missing"),
    ("tile", _replace("node_feat", lambda a: a[:, :7]), "its array node_feat is missing, or has"),
    ("tile", _replace("config_feat", lambda a: a.astype(np.float64)), "its array config_feat is"),
    ("tile", _replace("keys", lambda a: a[1:]), "its array keys is missing, or has another shape"),
    ("layout", lambda arrays, meta: arrays.pop("codes"), "its codes and its dictionary"),
    ("layout", _replace("codes", lambda a: a[:, 1:]), "its codes and its dictionary"),
    ("layout", _replace("dictionary", lambda a: a[:, :5]), "its codes and its dictionary"),
])
def test_forged_tables_are_refused(tmp_path, kind, change, message):
  with pytest.raises(errors.DataError, match=f"forged.pack .*{message}"):
    _forged(tmp_path, kind, change)


@pytest.mark.parametrize("kind, change, message", [
    ("tile", _replace("edge_index", lambda a: a + 999), "edge_index holds numbers other than 0"),
    ("tile", _replace("node_opcode", lambda a: a + 200), "node_opcode holds numbers other than 0"),
    ("tile", _replace("order", lambda a: a + 1), "order holds numbers other than 0"),
    ("layout", _replace("node_config_ids", lambda a: -a - 1), "node_config_ids holds numbers"),
    ("layout", _replace("dictionary", lambda a: a[:1]), "a layout has a code without a word"),
])
def test_forged_values_are_refused_when_they_are_read(tmp_path, kind, change, message):
  graph = _forged(tmp_path, kind, change)
  with pytest.raises(errors.DataError, match=f"forged.pack is damaged: .*{message}"):
    graph.arrays()
    graph.runtime_order()
