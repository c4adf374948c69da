"""Headers of `.npz` files agree with the arrays; damage is a typed error naming file and key."""

import zipfile

import hypothesis
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
import numpy as np
import pytest

from tests import synthetic
from tpugraphs_rank import errors
from tpugraphs_rank.data import headers
from tpugraphs_rank.data import npz


@hypothesis.given(st.dictionaries(
    st.text("abc_", min_size=1, max_size=4),
    npst.arrays(st.sampled_from(["f4", "i8", "u1", "U3", "?"]),
                npst.array_shapes(min_dims=0, min_side=0, max_side=3)), max_size=3),
    st.booleans())
def test_headers_match_the_arrays(tmp_path_factory, arrays, compressed):
  path = tmp_path_factory.mktemp("arrays") / "a.npz"
  (np.savez_compressed if compressed else np.savez)(path, **arrays)
  assert headers.read_headers(path) == {
      key: (array.shape, array.dtype) for key, array in arrays.items()}


def test_both_versions_of_the_header(tmp_path):
  with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
    for version in ((1, 0), (2, 0)):
      with archive.open(f"a{version[0]}.npy", "w") as member:
        np.lib.format.write_array(member, np.zeros([4, 2], np.float32), version)
  expected = ((4, 2), np.dtype(np.float32))
  assert headers.read_headers(tmp_path / "a.npz") == {"a1": expected, "a2": expected}


def test_fortran_order_and_members_that_are_not_arrays(tmp_path):
  np.savez(tmp_path / "a.npz", a=np.asfortranarray(np.zeros([2, 3])))
  with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
    archive.writestr("notes.txt", "hello")
  assert headers.read_headers(tmp_path / "a.npz") == {"a": ((2, 3), np.dtype("f8"))}


def test_damage(tmp_path):
  path = tmp_path / "a.npz"
  npz.save_graph(path, synthetic.tile_graph(0))
  data = path.read_bytes()
  with pytest.raises(errors.MissingDataError, match="no file"):
    headers.read_headers(tmp_path / "gone.npz")
  for bad in (b"", b"text", data[:len(data) // 2], data[200:]):
    path.write_bytes(bad)
    with pytest.raises(errors.DataError, match=r"a\.npz.* cannot be read .*truncated, damaged"):
      headers.read_headers(path)


def test_a_member_that_is_not_an_array_is_named(tmp_path):
  for content in (b"", b"\x93NUMPY\x09\x00", b"\x93NUMPY\x01\x00\x04\x00oops", b"hello world"):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
      archive.writestr("config_runtime.npy", content)
    with pytest.raises(errors.DataError, match="a.npz: key 'config_runtime' cannot be read"):
      headers.read_headers(tmp_path / "a.npz")


@hypothesis.given(st.binary(max_size=60), st.integers(0, 400))
def test_any_bytes_are_headers_or_a_typed_error(tmp_path_factory, new, at):
  path = tmp_path_factory.mktemp("bytes") / "a.npz"
  np.savez(path, config_runtime=np.zeros(3), config_feat=np.zeros([3, 2]))
  data = path.read_bytes()
  path.write_bytes(data[:at] + new + data[at + len(new):])
  try:
    headers.read_headers(path)
  except errors.DataError as error:
    assert "a.npz" in str(error)


def test_arrays_of_some_keys(tmp_path):
  path = tmp_path / "a.npz"
  np.savez(path, a=np.zeros(1), b=np.ones(2), c=np.ones(3))
  assert sorted(npz.read_arrays(path)) == ["a", "b", "c"]
  actual = npz.read_arrays(path, ("b", "z"))
  assert list(actual) == ["b"] and actual["b"].tolist() == [1, 1]
  data = bytearray(path.read_bytes())
  data[data.rindex(np.ones(3).tobytes())] ^= 255  # Damage in an array that is not read.
  path.write_bytes(data)
  assert list(npz.read_arrays(path, ("a",))) == ["a"]
  with pytest.raises(errors.DataError, match="key 'c' cannot be read"):
    npz.read_arrays(path)
