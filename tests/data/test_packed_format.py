"""Files of mapped arrays: round trips, and typed errors for any damage."""

import io
import json
import os
import pathlib
import pickle
import re
import struct
import zlib

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import numpy as np
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import packed_format

DTYPES = st.sampled_from([np.int8, np.uint16, np.uint32, np.int64, np.float32, np.uint64])
ARRAYS = {"a": np.arange(40, dtype=np.int64), "b": np.arange(12, dtype=np.uint16).reshape(4, 3),
          "none": np.zeros([0, 5], np.float32)}
REMEDY = "remove it, and run `tpugraphs-rank pack` again"


def _write(path, arrays=None, meta=None):
  with open(path, "wb") as file:
    writer = packed_format.Writer(file)
    for name, array in (ARRAYS if arrays is None else arrays).items():
      writer.add(name, array)
    writer.finish(meta or {})
  return pathlib.Path(path)


@given(data=st.data())
def test_round_trip(tmp_path_factory, data):
  arrays = data.draw(st.dictionaries(st.text(min_size=1), DTYPES.flatmap(
      lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, min_side=0, max_side=5)))))
  meta = data.draw(st.dictionaries(st.text(), st.none() | st.integers() | st.text()))
  reader = packed_format.Reader(_write(tmp_path_factory.getbasetemp() / "r.pack", arrays, meta))
  assert reader.meta == meta and list(reader.arrays) == list(arrays)
  reader.verify()
  for name, array in arrays.items():
    for actual in (reader.read(name), reader.mapped(name)):
      assert actual.dtype == array.dtype and not actual.flags.writeable
      np.testing.assert_array_equal(actual, array)
    assert reader.arrays[name].offset % 64 == 0 and reader.arrays[name].nbytes == array.nbytes


@given(count=st.integers(1, 60), width=st.integers(0, 3000), dtype=DTYPES, data=st.data())
def test_rows_in_any_order(tmp_path_factory, count, width, dtype, data):
  array = np.arange(count * width).reshape(count, width).astype(dtype)
  path = _write(tmp_path_factory.getbasetemp() / "w.pack", {"before": np.arange(99), "x": array})
  rows = np.array(data.draw(st.lists(st.integers(-count, count - 1), max_size=20)), np.int64)
  reader = packed_format.Reader(path)
  actual = reader.rows("x", rows)
  assert actual.dtype == dtype
  np.testing.assert_array_equal(actual, array[rows])
  for row in (count, -count - 1) if width else ():
    with pytest.raises(IndexError):
      reader.rows("x", np.array([0, row]))


@given(cuts=st.lists(st.integers(0, 20), max_size=4))
def test_blocks_of_rows_make_up_the_array(cuts):
  rows = np.arange(60, dtype=np.int64).reshape(20, 3)
  contents = []
  for blocks in ([rows], np.split(rows, sorted(cuts))):
    file = io.BytesIO()
    writer = packed_format.Writer(file)
    writer.add_blocks("rows", np.uint16, (3,), blocks)
    writer.finish({})
    contents.append(file.getvalue())
  assert contents[0] == contents[1]


def test_blocks_that_end_in_an_error_leave_the_file_as_it_was(tmp_path):
  def broken():
    yield np.arange(1000)
    raise KeyError("x")

  with open(tmp_path / "r.pack", "wb") as file:
    writer = packed_format.Writer(file)
    writer.add("a", ARRAYS["a"])
    with pytest.raises(KeyError):
      writer.add_blocks("b", np.int64, (), broken())
    writer.add("b", ARRAYS["b"])
    writer.finish({})
  assert (tmp_path / "r.pack").read_bytes() == _write(
      tmp_path / "s.pack", {name: ARRAYS[name] for name in "ab"}).read_bytes()


def test_a_missing_file(tmp_path):
  for path in (tmp_path / "gone.pack", tmp_path):
    with pytest.raises(errors.MissingDataError, match=f"no file {path}"):
      packed_format.Reader(path)


def test_opening_a_truncated_file_fails(tmp_path):
  path = _write(tmp_path / "r.pack")
  content = path.read_bytes()
  for length in range(len(content)):
    path.write_bytes(content[:length])
    with pytest.raises(errors.DataError, match=REMEDY) as caught:
      packed_format.Reader(path)
    assert str(path) in str(caught.value)
  path.write_bytes(content + b"x")
  with pytest.raises(errors.DataError, match=f"has {len(content) + 1} bytes; expected"):
    packed_format.Reader(path)


def test_a_file_that_was_never_completed(tmp_path):
  path = tmp_path / "r.pack"
  with open(path, "wb") as file:
    packed_format.Writer(file).add("a", ARRAYS["a"])
  with pytest.raises(errors.DataError, match="or was never completed; remove it"):
    packed_format.Reader(path)


def test_every_changed_byte_is_detected(tmp_path):
  path = _write(tmp_path / "r.pack")
  content = path.read_bytes()
  covered = set()
  for name, entry in packed_format.Reader(path).arrays.items():
    covered |= {(place, name) for place in range(entry.offset, entry.offset + entry.nbytes)}
  inside = dict(covered)
  start = struct.unpack("<8sIIQQ", content[:32])[3]
  for place in range(len(content)):
    changed = bytearray(content)
    changed[place] ^= 0x55
    path.write_bytes(changed)
    if place in inside:
      reader = packed_format.Reader(path)
      for use in (lambda: reader.read(inside[place]), reader.verify):
        with pytest.raises(errors.DataError, match=(
            f"is damaged: the checksum of its array '{inside[place]}' is wrong; {REMEDY}")):
          use()
    elif place < 32 or place >= start:
      with pytest.raises(errors.DataError, match=REMEDY):
        packed_format.Reader(path)


def test_another_version_of_the_format(tmp_path, monkeypatch):
  path = _write(tmp_path / "r.pack")
  monkeypatch.setattr(packed_format, "VERSION", packed_format.VERSION + 1)
  with pytest.raises(errors.DataError, match="has version 1 of the format; expected version 2"):
    packed_format.Reader(path)


def test_a_replaced_file_is_not_read_with_the_old_table(tmp_path):
  path = _write(tmp_path / "r.pack")
  reader = packed_format.Reader(path)
  os.replace(_write(tmp_path / "other.pack", {"a": np.zeros(40, np.int64)}), path)
  with pytest.raises(errors.DataError, match="was packed again while it was in use"):
    reader.read("a")
  path.unlink()
  with pytest.raises(errors.MissingDataError, match="cannot read .*r.pack"):
    reader.read("a")


def test_a_reader_holds_no_file_and_may_be_sent_to_another_process(tmp_path):
  path = _write(tmp_path / "r.pack")
  before = len(os.listdir("/proc/self/fd"))
  readers = [packed_format.Reader(path) for _ in range(5)]
  for reader in readers:
    reader.read("a")
    reader.rows("b", np.array([3, 1]))
  assert len(os.listdir("/proc/self/fd")) == before
  assert str(path) not in pathlib.Path("/proc/self/maps").read_text()
  again = pickle.loads(pickle.dumps(readers[0]))
  np.testing.assert_array_equal(again.read("a"), ARRAYS["a"])


def test_the_checksum_is_that_of_the_bytes(tmp_path):
  reader = packed_format.Reader(_write(tmp_path / "r.pack"))
  assert reader.arrays["b"].crc32 == zlib.crc32(ARRAYS["b"].tobytes())


# ---- forged tables: their checksum is right ------------------------------------------------------


def _forged(path, change):
  """A file whose table was changed and has a valid checksum."""
  with files.atomic_write(path) as file:
    writer = packed_format.Writer(file)
    writer.add("x", np.arange(6, dtype=np.int32).reshape(2, 3))
    writer.finish({"kind": "tile"})
  content = path.read_bytes()
  magic, version, _, start, length = packed_format._PREFIX.unpack_from(content)
  table = change(json.loads(content[start:start + length]))
  text = table if isinstance(table, bytes) else json.dumps(table).encode()
  path.write_bytes(packed_format._PREFIX.pack(magic, version, zlib.crc32(text), start, len(text))
                   + content[packed_format._PREFIX.size:start] + text)


def _entry(**values):
  def change(table):
    table["arrays"]["x"].update(values)
    return table
  return change


@pytest.mark.parametrize("change, message", [
    (lambda table: [], "its table lacks meta or arrays"),
    (lambda table: {"meta": 1, "arrays": {}}, "its table lacks meta or arrays"),
    (lambda table: {**table, "arrays": {"x": 3}}, "entry of its array 'x' is incomplete"),
    (lambda table: b"[" * 500, "is not valid JSON"),
    (_entry(dtype="|O"), "its array 'x' has the dtype '|O'"),
    (_entry(dtype=[["a", "<i4"]]), "its array 'x' has the dtype"),
    (_entry(shape=[-2, 3]), "its array 'x' has no valid shape"),
    (_entry(shape=[2, True]), "its array 'x' has no valid shape"),
    (_entry(shape=6), "its array 'x' has no valid shape"),
    (_entry(shape=[1] * 9), "its array 'x' has no valid shape"),
    (_entry(offset=0), "its array 'x' has no valid shape, offset"),
    (_entry(offset=1.5), "its array 'x' has no valid shape, offset"),
    (_entry(crc32=None), "its array 'x' has no valid shape, offset or checksum"),
    (_entry(shape=[2**40, 2**40]), "its array 'x' is longer than the file"),
    (_entry(shape=[0, 2**60]), "its array 'x' is longer than the file"),
])
def test_forged_tables_are_refused(tmp_path, change, message):
  _forged(tmp_path / "g.pack", change)
  with pytest.raises(errors.DataError, match=re.escape(message)):
    packed_format.Reader(tmp_path / "g.pack")
