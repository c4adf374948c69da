"""Arrays in `.npz` files, compared with NumPy's own writers."""

import errno
import gc
import io
import os

import numpy as np
import pytest

from tpugraphs_rank import array_files
from tpugraphs_rank import errors

ARRAYS = {"a": np.arange(6, dtype=np.int32).reshape(2, 3), "b/0001": np.asfortranarray(np.eye(3)),
          "text": "café", "number": 2.5, "empty": np.zeros([0, 4], np.float32)}


@pytest.mark.parametrize("save, compressed", [
    (np.savez_compressed, True), (np.savez, False)])
def test_the_bytes_are_those_of_numpy(tmp_path, save, compressed):
  array_files.save(tmp_path / "t.npz", ARRAYS, compressed)
  expected = io.BytesIO()
  save(expected, **ARRAYS)
  assert (tmp_path / "t.npz").read_bytes() == expected.getvalue()


def test_objects_are_refused_and_nothing_is_left(tmp_path):
  with pytest.raises(ValueError, match="Object arrays cannot be saved"):
    array_files.save(tmp_path / "t.npz", {"a": np.array([{}], object)})
  assert not list(tmp_path.iterdir())


class _FullDisk(io.BytesIO):
  """Takes a number of bytes."""

  def __init__(self, most):
    super().__init__()
    self._most = most

  def write(self, content):
    if self.tell() + len(content) > self._most:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return super().write(content)


@pytest.mark.parametrize("most", [0, 10, 100, 300, 1500])
def test_a_full_disk_is_one_error(most):
  """A second one, while Python cleans up, would be a warning, and fail the test."""
  file = _FullDisk(most)
  with pytest.raises(OSError, match="No space left"), array_files.writing(file, False) as add:
    for name in "abcdef":
      add(name, np.zeros(50))
  file.close()
  gc.collect()


def test_a_file_that_cannot_be_written_is_a_typed_error(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.OutputError, match="file"):
    array_files.save(tmp_path / "file" / "t.npz", ARRAYS)
