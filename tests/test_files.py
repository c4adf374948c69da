"""Files are complete or absent, and failures to read or write raise one typed error."""

import concurrent.futures
import errno
import itertools
import json
import os
import stat
import threading
import time

from hypothesis import given
from hypothesis import strategies
import pytest

from tests import testdata
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import recipes


def _names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_missing_folders_are_created(tmp_path):
  path = tmp_path / "a" / "b" / "file.bin"
  with files.atomic_write(path) as file:
    file.write(b"\x00\r\n\xff")
  assert path.read_bytes() == b"\x00\r\n\xff"
  assert _names(path.parent) == ["file.bin"]


def test_the_old_content_remains_until_the_block_ends(tmp_path):
  path = tmp_path / "file"
  path.write_bytes(b"old")
  with files.atomic_write(path) as file:
    file.write(b"new")
    file.flush()
    assert path.read_bytes() == b"old"
  assert path.read_bytes() == b"new"


@pytest.mark.parametrize("raised", [
    ValueError("no"), KeyboardInterrupt(), errors.DataError("no"), errors.OutputError("inner")])
@pytest.mark.parametrize("existed", [False, True])
def test_an_error_in_the_block_leaves_nothing_new(tmp_path, raised, existed):
  path = tmp_path / "file"
  if existed:
    path.write_bytes(b"old")
  with pytest.raises(type(raised)) as caught:
    with files.atomic_write(path) as file:
      file.write(b"half")
      raise raised
  assert caught.value is raised
  assert _names(tmp_path) == (["file"] if existed else [])
  assert not existed or path.read_bytes() == b"old"


def test_a_full_disk_keeps_the_old_content(tmp_path, monkeypatch):
  path = tmp_path / "file"
  path.write_bytes(b"old")

  def full(_):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(errors.OutputError, match="No space left on device"):
    files.write_text(path, "new")
  assert path.read_bytes() == b"old" and _names(tmp_path) == ["file"]


def test_the_mode_is_that_of_an_ordinary_file(tmp_path):
  (tmp_path / "ordinary").touch()
  files.write_text(tmp_path / "ours", "x")
  mode = lambda name: stat.S_IMODE((tmp_path / name).stat().st_mode)
  assert mode("ours") == mode("ordinary")


def test_writing_in_threads_changes_no_other_files_mode(tmp_path, monkeypatch):
  umask = os.umask

  def slowly(mask):  # The umask is the process's: other threads come in between.
    old = umask(mask)
    time.sleep(0.002)
    return old

  monkeypatch.setattr(os, "umask", slowly)
  before = os.umask(0o027)
  done = threading.Event()
  modes = set()

  def watch():
    for number in itertools.count():
      if done.is_set():
        return
      path = tmp_path / f"ordinary{number}"
      path.touch()
      modes.add(stat.S_IMODE(path.stat().st_mode))

  watcher = threading.Thread(target=watch)
  try:
    watcher.start()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
      list(pool.map(lambda number: files.write_text(tmp_path / f"ours{number}", "x"), range(40)))
  finally:
    done.set()
    watcher.join()
    after = os.umask(before)
  assert after == 0o027 and modes == {0o640}
  assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("ours*")} == {0o640}


def test_concurrent_writers_of_one_file(tmp_path):
  path = tmp_path / "file"
  with files.atomic_write(path) as first, files.atomic_write(path) as second:
    first.write(b"first")
    second.write(b"second")
  assert path.read_bytes() == b"first" and _names(tmp_path) == ["file"]  # The last that ended.


# The owner of the tests may be root, whom permissions do not stop; a file in the way stops anyone.
@pytest.mark.parametrize("write", [
    lambda path: files.write_text(path, "x"), lambda path: files.write_json(path, {})])
def test_unwritable_paths_raise_an_output_error(tmp_path, write):
  (tmp_path / "file").write_text("in the way")
  path = tmp_path / "file" / "below" / "x.json"
  with pytest.raises(errors.OutputError) as caught:
    write(path)
  assert str(caught.value).startswith(f"cannot write {path}: ")
  assert isinstance(caught.value, OSError)


@pytest.mark.parametrize("name", ["a" * 255, "a" * 251 + ".npz", "\u00e4" * 127, "a" * 200])
def test_a_long_name_leaves_room_for_a_temporary_one(tmp_path, name):
  files.write_text(tmp_path / name, "x")
  assert _names(tmp_path) == [name]


def test_the_error_says_what_to_change(tmp_path):
  (tmp_path / "file").touch()
  for path, message in (
      (tmp_path / ("a" * 256), "aaa... has 256 bytes; choose a name of at most 255"),
      (tmp_path / "file" / "x", "a file is where a folder is expected; choose another output"),
      (tmp_path, "choose another name for the file")):
    with pytest.raises(errors.OutputError, match=message):
      files.write_text(path, "x")


def test_an_output_is_checked_without_creating_anything(tmp_path):
  (tmp_path / "file").touch()
  for path, message in (
      (tmp_path / "file" / "below" / "x", "a file is where a folder is expected"),
      (tmp_path, "choose another name for the file")):
    with pytest.raises(errors.OutputError, match=message):
      files.check_output(path)
  files.check_output(tmp_path / "new" / "folder" / "x")
  files.check_output(tmp_path / "file")
  assert _names(tmp_path) == ["file"]


def test_a_folder_at_the_files_path(tmp_path):
  (tmp_path / "taken").mkdir()
  with pytest.raises(errors.OutputError, match="cannot write .*taken"):
    files.write_text(tmp_path / "taken", "x")
  assert _names(tmp_path) == ["taken"]


def test_text_is_utf8_with_plain_line_ends(tmp_path):
  files.write_text(tmp_path / "t", "ä\nb\n")
  assert (tmp_path / "t").read_bytes() == b"\xc3\xa4\nb\n"


def test_json_round_trip_is_readable(tmp_path):
  value = {"a": [1, 2.5, None], "b": "ä"}
  files.write_json(tmp_path / "v.json", value)
  assert files.read_json(tmp_path / "v.json") == value
  assert (tmp_path / "v.json").read_text() == json.dumps(value, indent=2) + "\n"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_json_values_are_not_written(tmp_path, value):
  path = tmp_path / "v.json"
  files.write_json(path, 1)
  with pytest.raises(ValueError):
    files.write_json(path, {"a": value})
  assert files.read_json(path) == 1


@pytest.mark.parametrize("content, message", [
    (b'{"a": 1,\n "b" 2}', "line 2 column 6"),
    (b"", "line 1 column 1"),
    (b'"\xff"', "utf-8"),
])
def test_json_errors_name_the_file_and_the_position(tmp_path, content, message):
  path = tmp_path / "v.json"
  path.write_bytes(content)
  with pytest.raises(errors.DataError) as caught:
    files.read_json(path)
  assert str(path) in str(caught.value) and message in str(caught.value)


@pytest.mark.parametrize("content, value", [
    (b'\xef\xbb\xbf{"data": {"seed": 1}}', {"data": {"seed": 1}}),
    (b"[" * 64 + b"]" * 64, None),
    (b'"\\ud83d\\ude00"', "\U0001f600"),
    (b"9" * 100, int("9" * 100)),
    (b"[1e308, -0.0, 1E-400]", [1e308, -0.0, 0.0]),
])
def test_unusual_json_that_is_valid(tmp_path, content, value):
  path = tmp_path / "v.json"
  path.write_bytes(content)
  read = files.read_json(path)
  assert value is None or read == value


@pytest.mark.parametrize("content, message", [
    (b'{"a": 1, "b": {"c": 1, "d": 2, "c": 3}}', "the key 'c' occurs twice in one object"),
    (b'{"a": NaN}', "NaN is not a JSON number"),
    (b"[-Infinity]", "-Infinity is not a JSON number"),
    (b"[1e999]", "the number 1e999 is too large"),
    (b"[-" + b"9" * 5000 + b"]", "the number -9+\\.\\.\\. has 5000 digits; expected at most 100"),
    (b"[" * 65 + b"]" * 65, "nested more than 64 deep"),
    (b'{"a":' * 65 + b"1" + b"}" * 65, "nested more than 64 deep"),
    (b"[" * 100_000, "nested more than 64 deep"),
    (b'["\\ud800"]', "half a Unicode character"),
    ('{"a": 1}'.encode("utf-16"), "UTF-16; save it as UTF-8"),
], ids=lambda value: str(value)[:20])
def test_json_that_is_refused(tmp_path, content, message):
  path = tmp_path / "v.json"
  path.write_bytes(content)
  with pytest.raises(errors.DataError, match=f"v.json is not valid JSON: .*{message}"):
    files.read_json(path)


def test_large_and_special_files_are_not_read(tmp_path, monkeypatch):
  (tmp_path / "v.json").write_bytes(b"[1]")
  monkeypatch.setattr(files, "MAX_JSON_BYTES", 2)
  with pytest.raises(errors.LimitError, match="has 3 bytes; the limit is 2; expected a JSON file"):
    files.read_json(tmp_path / "v.json")
  os.mkfifo(tmp_path / "pipe")
  with pytest.raises(errors.DataError, match="is a pipe, which may never end; expected a JSON"):
    files.read_json(tmp_path / "pipe")


def test_files_to_append_to_are_regular_files(tmp_path):
  path = tmp_path / "log"
  for text in (b"one", b"two"):
    with files.open_to_append(path) as file:
      file.write(text)
  assert path.read_bytes() == b"onetwo"
  for name, message in (("link", "symbolic link; remove it"), ("pipe", "not a regular file"),
                        ("folder", "Is a directory"), ("no/log", "No such file")):
    other = tmp_path / name
    if name == "link":
      other.symlink_to(path)
    elif name == "pipe":
      os.mkfifo(other)
    elif name == "folder":
      other.mkdir()
    with pytest.raises(errors.OutputError, match=message):
      files.open_to_append(other)
  assert path.read_bytes() == b"onetwo"


@given(strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text()
    | strategies.floats(allow_nan=False, allow_infinity=False),
    lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text(), inner)))
def test_whatever_json_can_hold_is_read_back(value):
  assert files.parse_json(json.dumps(value), "v") == value


@given(strategies.binary(max_size=30))
def test_any_bytes_are_read_or_refused(data):
  try:
    expected = json.loads(data.decode("utf-8").removeprefix("\ufeff"))
  except ValueError:
    expected = errors.DataError
  try:
    assert files.parse_json(data, "v") == expected
  except errors.DataError as error:
    assert str(error).startswith("v is not valid JSON: ")


@testdata.required
def test_field_cases():
  folder = testdata.path("field_cases")
  assert recipes.read(folder / "config_with_bom.json") == {"data": {"collection": "tile:xla_cpu"}}
  with pytest.raises(errors.DataError, match="the number 1000.* digits; expected at most 100"):
    recipes.read(folder / "hostile" / "config_huge_lr.json")


def test_a_missing_json_file(tmp_path):
  with pytest.raises(errors.MissingDataError, match="no file .*v.json"):
    files.read_json(tmp_path / "v.json")
  with pytest.raises(errors.MissingDataError, match="it is a folder; expected a JSON"):
    files.read_json(tmp_path)  # A folder.


def test_the_home_folder_of_nobody_is_a_typed_error(monkeypatch):
  monkeypatch.setenv("HOME", "/somewhere")
  assert str(files.expanded("~/data")) == "/somewhere/data"
  with pytest.raises(errors.ConfigError, match="~no-such-user/x is in the home folder of a user"):
    files.expanded("~no-such-user/x")


def test_values_that_follow_one_another():
  text = ' {"a": 1}\n[2]3 "x"'
  assert list(files.parse_json_values(text, "f")) == [(1, {"a": 1}), (10, [2]), (13, 3), (15, "x")]
  assert not list(files.parse_json_values(" \n", "f"))


@pytest.mark.parametrize("text, message", [
    ("{} x", "line 1 column 4"), ('{}{"a": 1, "a": 2}', "character 2: the key 'a' occurs twice"),
    ("1 NaN", "character 2: NaN"), ("[" * 100_000, "character 0: lists or objects are nested"),
    ("1 " + "[" * 80 + "]" * 80, "character 2: lists or objects are nested"),
    ("1 " + "9" * 200, "character 2: the number"), ('1 "\\ud800"', "half a Unicode")])
def test_faulty_values_that_follow_one_another(text, message):
  with pytest.raises(errors.DataError, match=f"^f is not valid JSON.*{message}"):
    list(files.parse_json_values(text, "f"))
