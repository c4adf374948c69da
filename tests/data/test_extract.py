"""Unpacking stays inside the folder, replaces nothing, and can be interrupted and repeated."""

import hashlib
import io
import os
import pathlib
import shutil
import tarfile
import tempfile
import threading

import hypothesis
from hypothesis import strategies as st
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.data import extract
from tpugraphs_rank.data import transfer

CONTENTS = {"npz/tile/xla/train/a.npz": b"a" * 700, "npz/tile/xla/train/b.npz": b"",
            "npz/tile/xla/valid/c.npz": bytes(range(256)) * 4}


def _member(name, content=b"x", **fields):
  member = tarfile.TarInfo(name)
  member.size = len(content)
  for key, value in fields.items():
    setattr(member, key, value)
  return member, content


def _tar(path, members, mode="w"):
  path.parent.mkdir(parents=True, exist_ok=True)
  with tarfile.open(path, mode) as tar:
    for member, content in members:
      tar.addfile(member, io.BytesIO(content) if member.isreg() else None)
  return path


def _good(path, mode="w", contents=None):
  return _tar(path, [_member(*item) for item in (contents or CONTENTS).items()], mode)


def _extract(archive, root, **arguments):
  root.mkdir(exist_ok=True)
  return extract.extract(archive, root, root / "downloads" / "x.unpacking", **arguments)


def _tree(root):
  return {path.relative_to(root).as_posix(): path.read_bytes()
          for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_the_tree_and_its_record(tmp_path, mode):
  seen = []
  checked = []
  members = _extract(_good(tmp_path / "x.tar", mode), tmp_path / "root", check_space=checked.append,
                     progress=lambda *at: seen.append(at))
  assert _tree(tmp_path / "root") == CONTENTS
  assert members == {path: extract.Member(len(content), hashlib.sha256(content).hexdigest())
                     for path, content in CONTENTS.items()}
  assert list(members) == list(CONTENTS)
  assert checked == [700 + 1024] and seen == [(700, 1724), (1724, 1724)]
  assert not (tmp_path / "root" / "downloads" / "x.unpacking").exists()


def test_names_are_cleaned_and_modes_owners_and_times_ignored(tmp_path):
  folder = tarfile.TarInfo("./npz/")
  folder.type, folder.mode = tarfile.DIRTYPE, 0o000
  members = _extract(_tar(tmp_path / "x.tar", [
      (tarfile.TarInfo("."), b""), (folder, b""),
      _member("./npz//a", b"1", mode=0o4777, mtime=12, uid=12345)][1:]), tmp_path / "root")
  assert list(members) == ["npz/a"]
  (tmp_path / "ordinary").write_bytes(b"")
  extracted, ordinary = (tmp_path / "root/npz/a").stat(), (tmp_path / "ordinary").stat()
  assert (extracted.st_mode, extracted.st_uid) == (ordinary.st_mode, ordinary.st_uid)
  assert extracted.st_mtime > 1_000_000


LINK = {"type": tarfile.SYMTYPE, "linkname": "../outside"}


@pytest.mark.parametrize("members, message", [
    ([_member("../evil")], "'../evil' has a path outside the folder"),
    ([_member("npz/../../evil")], "has a path outside the folder"),
    ([_member("npz/a/../b")], "has a path outside the folder"),
    ([_member("/evil")], "'/evil' has a path outside the folder"),
    ([_member("//evil")], "has a path outside the folder"),
    ([_member("npz/..")], "has a path outside the folder"),
    ([_member("npz", b"", **LINK), _member("npz/evil")], "'npz' is a symbolic link"),
    ([_member("npz/a", b"", **{**LINK, "linkname": "b"})], "is a symbolic link"),
    ([_member("npz/a"), _member("npz/b", b"", type=tarfile.LNKTYPE, linkname="npz/a")],
     "'npz/b' is a hard link"),
    ([_member("npz/b", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd")], "is a hard link"),
    ([_member("npz/d", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3)], "is a device or pipe"),
    ([_member("npz/d", b"", type=tarfile.BLKTYPE)], "is a device or pipe"),
    ([_member("npz/d", b"", type=tarfile.FIFOTYPE)], "is a device or pipe"),
    ([_member("npz/a", b"1"), _member("./npz/a", b"2")], "'./npz/a' occurs twice"),
    ([_member(".", b"1")], "'.' has no name"),
    ([_member("downloads/x.tar.json", b"{}")], "is in downloads/, which is not for data"),
    # On some file systems these are one folder.
    ([_member("Downloads/x.tar.json", b"{}")], "is in downloads/, which is not for data"),
    ([_member("DOWNLOADS/x")], "'DOWNLOADS/x' is in downloads/"),
    ([_member("npz/a\nb")], r"'npz/a\nb' has a name with unprintable characters"),
    ([_member("npz/\x1b[2J")], r"'npz/\x1b[2J' has a name with unprintable characters"),
    ([_member("npz/\x7f")], "unprintable characters"),
    ([_member("npz/\u202eb")], "unprintable characters"),
    ([_member("./downloads/x.unpacking/npz/a", b"{}")], "is in downloads/"),
])
def test_forbidden_members(tmp_path, members, message):
  (tmp_path / "outside").mkdir()
  good = _member("npz/good")
  for index, placed in enumerate(([good, *members], [*members, good])):
    root = tmp_path / f"root{index}"
    with pytest.raises(extract.ArchiveError) as caught:
      _extract(_tar(tmp_path / "x.tar", placed), root)
    assert message in str(caught.value) and str(tmp_path / "x.tar") in str(caught.value)
    assert not _tree(root)  # Not even the good ones.
  assert {path.name for path in tmp_path.iterdir()} == {"outside", "x.tar", "root0", "root1"}
  assert not list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize("name", [
    "npz/tile/xlb/a", "npz/tile/xla2/a", "npz/tile/XLA/a", "npz/layout/xla/a", "npz/tile/a", "a"])
def test_files_outside_the_place_are_rejected(tmp_path, name):
  archive = _tar(tmp_path / "x.tar", [_member("npz/tile/xla/a/b"), _member(name)])
  with pytest.raises(extract.ArchiveError) as caught:
    _extract(archive, tmp_path / "root", place="npz/tile/xla")
  assert f"member '{name}' is not in npz/tile/xla/, where this archive's" in str(caught.value)
  assert not _tree(tmp_path / "root")
  assert len(_extract(archive, tmp_path / "root")) == 2  # Only the location is wrong.


def test_files_can_be_refused_before_the_first_is_written(tmp_path):
  def check(paths):
    assert list(paths) == list(CONTENTS) and not _tree(tmp_path / "root")
    raise extract.ArchiveError("too few")

  with pytest.raises(extract.ArchiveError, match="too few"):
    _extract(_good(tmp_path / "x.tar"), tmp_path / "root", check_files=check)
  assert not _tree(tmp_path / "root")


def test_a_sparse_file_is_refused(tmp_path):
  # Python cannot write one. This is the header of GNU tar: a map of one segment, the true size.
  member = tarfile.TarInfo("npz/huge")
  member.size = 512
  header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
  header[156:157] = tarfile.GNUTYPE_SPARSE
  header[386:398], header[398:410] = b"%011o\0" % 0, b"%011o\0" % 512
  header[483:495] = b"%011o\0" % (1 << 30)
  header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 8 * 32)
  (tmp_path / "x.tar").write_bytes(bytes(header) + bytes(512 + 1024))
  with pytest.raises(errors.DataError, match="'npz/huge' is a sparse file"):
    _extract(tmp_path / "x.tar", tmp_path / "root")


@pytest.mark.parametrize("names", [("npz/a", "npz/a/b"), ("npz/a/b", "npz/a")])
def test_a_file_and_a_folder_of_the_same_name(tmp_path, names):
  with pytest.raises(extract.ArchiveError, match="x.tar: a file and a folder have the same name"):
    _extract(_tar(tmp_path / "x.tar", [_member(name) for name in names]), tmp_path / "root")
  assert not _tree(tmp_path / "root")


def test_a_file_with_the_name_of_a_folder(tmp_path):
  (tmp_path / "root").mkdir()
  (tmp_path / "root" / "npz").write_bytes(b"mine")
  with pytest.raises(errors.DataError, match="npz/tile.*: a file has the name of one of its "):
    _extract(_good(tmp_path / "x.tar"), tmp_path / "root")
  assert _tree(tmp_path / "root") == {"npz": b"mine"}


@pytest.mark.parametrize("depth", ["npz", "npz/tile/xla"])
def test_existing_links_are_not_followed(tmp_path, depth):
  link = tmp_path / "root" / depth
  link.parent.mkdir(parents=True)
  (tmp_path / "outside").mkdir()
  link.symlink_to(tmp_path / "outside")
  with pytest.raises(errors.OutputError, match=f"{link} is a link; .*--data_root"):
    _extract(_good(tmp_path / "x.tar"), tmp_path / "root")
  assert not list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize("make", [
    lambda path: path.write_bytes(b"b" * 700), lambda path: path.write_bytes(b"mine"),
    lambda path: path.mkdir(), lambda path: path.symlink_to(path.parents[5] / "outside"),
    lambda path: path.symlink_to("nowhere")])
def test_nothing_is_replaced(tmp_path, make):
  # The link leads to the same content as in the archive, but it is still a link.
  (tmp_path / "outside").write_bytes(CONTENTS["npz/tile/xla/train/a.npz"])
  path = tmp_path / "root" / "npz/tile/xla/train/a.npz"
  path.parent.mkdir(parents=True)
  make(path)
  before = _tree(tmp_path / "root")
  with pytest.raises(errors.DataError, match=f"{path} exists, and .* differs .* move it away"):
    _extract(_good(tmp_path / "x.tar"), tmp_path / "root")
  assert _tree(tmp_path / "root") == before


def test_existing_equal_files_are_not_touched(tmp_path):
  path = tmp_path / "root" / "npz/tile/xla/train/a.npz"
  path.parent.mkdir(parents=True)
  path.write_bytes(CONTENTS["npz/tile/xla/train/a.npz"])
  (path.parent / "other.npz").write_bytes(b"mine")
  inode = path.stat().st_ino
  _extract(_good(tmp_path / "x.tar"), tmp_path / "root")
  assert _tree(tmp_path / "root") == {**CONTENTS, "npz/tile/xla/train/other.npz": b"mine"}
  assert path.stat().st_ino == inode


@hypothesis.given(st.integers(0, 6 * 512 + 1024 - 1), st.sampled_from(["cut", "flip"]),
                  st.sampled_from(["w", "w:gz", "w:xz"]))
@hypothesis.settings(max_examples=50)
def test_a_damaged_archive_is_refused_or_harmless(place, damage, mode):
  folder = pathlib.Path(tempfile.mkdtemp())
  try:
    archive = _good(folder / "x.tar", mode)
    content = archive.read_bytes()
    place %= len(content)
    if damage == "cut":
      archive.write_bytes(content[:place])
    else:
      archive.write_bytes(content[:place] + bytes([content[place] ^ 0xff]) + content[place + 1:])
    try:
      _extract(archive, folder / "root")
    except extract.ArchiveError:
      assert not _tree(folder / "root")
    else:
      # Truncated padding, or changed content that only a digest can detect.
      actual = _tree(folder / "root")
      if damage == "cut":
        assert actual == CONTENTS
        assert mode != "w" or place >= 3 * 512 + 1024 + 1024 + 512
      else:
        assert {path: len(content) for path, content in actual.items()} == {
            path: len(content) for path, content in CONTENTS.items()}
    assert {path.name for path in folder.iterdir()} == {"x.tar", "root"}
  finally:
    shutil.rmtree(folder)


@pytest.mark.parametrize("content", [b"", b"no archive" * 100])
def test_no_archive(tmp_path, content):
  (tmp_path / "x.tar").write_bytes(content)
  with pytest.raises(extract.ArchiveError, match="x.tar is damaged or not a tar archive: [^\n]*$"):
    _extract(tmp_path / "x.tar", tmp_path / "root")


@pytest.mark.parametrize("members", [[], [(tarfile.TarInfo("npz"), b"")]])
def test_an_archive_of_nothing(tmp_path, members):
  for member, _ in members:
    member.type = tarfile.DIRTYPE
  with pytest.raises(extract.ArchiveError, match="x.tar holds no files"):
    _extract(_tar(tmp_path / "x.tar", members), tmp_path / "root")


def test_without_space_nothing_is_written(tmp_path):
  def check(size):
    raise errors.OutputError(f"{size} do not fit")

  with pytest.raises(errors.OutputError, match="1724 do not fit"):
    _extract(_good(tmp_path / "x.tar"), tmp_path / "root", check_space=check)
  assert not _tree(tmp_path / "root")


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
  class Full(io.BytesIO):
    def write(self, _):
      raise OSError(28, "No space left on device")

  monkeypatch.setattr(extract, "open", lambda *_: Full(), raising=False)
  with pytest.raises(errors.OutputError, match="cannot write .*a.npz: No space left on device"):
    _extract(_good(tmp_path / "x.tar"), tmp_path / "root")
  assert not _tree(tmp_path / "root")


def test_a_stopped_call_leaves_nothing_and_the_next_one_completes(tmp_path):
  stop = threading.Event()
  stop.set()
  with pytest.raises(transfer.Stopped):
    _extract(_good(tmp_path / "x.tar"), tmp_path / "root", stop=stop)
  assert not _tree(tmp_path / "root")
  _extract(_good(tmp_path / "x.tar"), tmp_path / "root")
  assert _tree(tmp_path / "root") == CONTENTS


def test_contents_reach_the_disk_before_names(tmp_path, monkeypatch):
  seen = []
  monkeypatch.setattr(os, "sync", lambda: seen.append(_tree(tmp_path / "root")))
  _extract(_good(tmp_path / "x.tar"), tmp_path / "root")
  assert seen == [{f"downloads/x.unpacking/{path}": content for path, content in CONTENTS.items()}]
