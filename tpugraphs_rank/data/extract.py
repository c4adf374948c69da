"""Unpacking an archive under a folder, so that nothing outside it is touched and nothing is lost.

The members are first unpacked to a staging folder, all of them; only then each is moved to its
place, under a name that is either absent or already holds the same content. Whatever ends this on
the way, doing it again ends in the same tree.
"""

from collections.abc import Callable, Collection, Iterator
import contextlib
import dataclasses
import hashlib
import lzma
import os
import pathlib
import shutil
import tarfile
import threading
from typing import BinaryIO
import zlib

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import transfer

_CHUNK = 1 << 20
_BLOCK = 512  # Of the tar format.


class ArchiveError(errors.DataError):
  """The archive itself is damaged, or holds what it must not."""


@dataclasses.dataclass(frozen=True)
class Member:
  """A file that was unpacked: its size in bytes and its SHA-256 in hexadecimal."""

  size: int
  sha256: str


def extract(archive: files.PathLike, root: files.PathLike, staging: files.PathLike,
            place: files.PathLike = ".",
            check_files: Callable[[Collection[str]], None] = lambda paths: None,
            check_space: Callable[[int], None] = lambda size: None,
            progress: transfer.Progress | None = None,
            stop: threading.Event | None = None) -> dict[str, Member]:
  """Unpacks a tar archive under `root`.

  Owners, modes and times of the members are not taken over. Nothing that is there is replaced.

  Args:
    archive: a tar archive, compressed or not, whose digest the caller has verified.
    root: an existing folder, which no member leaves.
    staging: a folder on the same file system, for this archive alone, which members must not name;
      what an interrupted call left in it goes first, and it is gone afterwards.
    place: the folder relative to `root` that every file of the archive must belong to.
    check_files: told the paths of all files before the first is written; raises ArchiveError.
    check_space: told the bytes that will be unpacked before the first is written; raises.
    progress: told how much has been unpacked.
    stop: set by another thread to end this soon.

  Returns:
    The files, by their path relative to `root`, in the order of the archive.

  Raises:
    ArchiveError: the archive is damaged or empty, or holds what it must not: a path that leaves the
      folder or the place, or that a terminal cannot show, a link, a device, one path twice.
    DataError: a file of other content is in the way of a member.
    OutputError: a member cannot be written, or a folder on its way is a link.
    Stopped: `stop` was set.
  """
  archive, root, staging = map(pathlib.Path, (archive, root, staging))
  with transfer.writing(staging):
    if staging.exists():
      shutil.rmtree(staging)
    staging.mkdir(parents=True)
  try:
    with _open(archive) as tar:
      members = _checked_members(tar, archive, root, staging, pathlib.PurePosixPath(place))
      check_files(members)
      check_space(sum(member.size for member in members.values()))
      unpacked = _unpack(tar, members, archive, staging, progress, stop)
    # The names are to outlive a power cut no earlier than the contents do.
    os.sync()
    _publish(unpacked, archive, root, staging)
  finally:
    with contextlib.suppress(OSError):
      shutil.rmtree(staging)
  return unpacked


@contextlib.contextmanager
def _open(archive: pathlib.Path) -> Iterator[tarfile.TarFile]:
  try:
    with tarfile.open(archive, "r:*") as tar:
      yield tar
  # Damage raises any of these, by compression. What was raised for other reasons is typed already.
  except (tarfile.TarError, EOFError, OSError, ValueError, lzma.LZMAError, zlib.error) as error:
    if isinstance(error, errors.TpuGraphsRankError):
      raise
    # Of several lines, one for each kind of compression, where it is of no kind.
    why = str(error).partition("\n")[0].rstrip(":")
    raise ArchiveError(f"{archive} is damaged or no tar archive: {why}") from error


def _checked_members(tar: tarfile.TarFile, archive: pathlib.Path, root: pathlib.Path,
                     staging: pathlib.Path, place: pathlib.PurePosixPath
                     ) -> dict[str, tarfile.TarInfo]:
  """The files of the archive by their clean path, once every member is known to be harmless."""
  own = os.path.relpath(staging.parent, root).split(os.sep)[0]
  found: dict[str, tarfile.TarInfo] = {}
  end = 0
  for member in tar:
    end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
    parts = pathlib.PurePosixPath(member.name).parts
    if member.name.startswith("/") or ".." in parts:
      raise _refused(archive, member, "is a path that leaves the folder")
    if not member.name.isprintable():  # Line ends and escapes forge log lines.
      raise _refused(archive, member, "has a name with characters that cannot be shown")
    if not (member.isdir() or member.isreg()) or member.issparse():
      raise _refused(archive, member, f"is {_kind(member)}, not a plain file or folder")
    if member.isdir():
      continue
    if not parts:
      raise _refused(archive, member, "has no name")
    # There are file systems to which capital and small letters are the same.
    if parts[0].casefold() == own.casefold():
      raise _refused(archive, member, f"is in {own}/, which is not for data")
    path = "/".join(parts)
    if not pathlib.PurePosixPath(path).is_relative_to(place):
      raise _refused(archive, member, f"is not in {place}/, where this archive's files belong")
    if path in found:
      raise _refused(archive, member, "is there twice")
    found[path] = member
  # The reader takes damage between two members for the end; a whole archive ends with zeros.
  tar.fileobj.seek(end)
  if tar.fileobj.read(_BLOCK) != bytes(_BLOCK):
    raise ArchiveError(f"{archive} has no end mark after {len(found)} files: it is cut short or "
                       "damaged")
  if not found:
    raise ArchiveError(f"{archive} holds no files")
  return found


def _kind(member: tarfile.TarInfo) -> str:
  kinds = ((member.issym, "a symbolic link"), (member.islnk, "a hard link"),
           (member.isdev, "a device or pipe"), (member.issparse, "a sparse file"))
  return next((kind for holds, kind in kinds if holds()), "of an unknown type")


def _refused(archive: pathlib.Path, member: tarfile.TarInfo, why: str) -> ArchiveError:
  return ArchiveError(
      f"{archive}: member {member.name!r} {why}; nothing of the archive was taken over")


def _unpack(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], archive: pathlib.Path,
            staging: pathlib.Path, progress: transfer.Progress | None,
            stop: threading.Event | None) -> dict[str, Member]:
  total = sum(member.size for member in members.values())
  position = 0
  unpacked: dict[str, Member] = {}
  for path, member in members.items():
    source = tar.extractfile(member)
    target = staging / path
    hasher = hashlib.sha256()
    with _writing(target, ArchiveError(
        f"{archive}: a file and a folder have one name at {path!r}")):
      target.parent.mkdir(parents=True, exist_ok=True)
      file = open(target, "xb")
    with file:
      for chunk in _chunks(source, member.size):
        transfer.check_stop(stop)
        with transfer.writing(target):
          file.write(chunk)
        hasher.update(chunk)
        position += len(chunk)
        if progress is not None:
          progress(position, total)
      with transfer.writing(target):
        file.flush()
    unpacked[path] = Member(member.size, hasher.hexdigest())
  return unpacked


def _chunks(source: BinaryIO, size: int) -> Iterator[bytes]:
  while size:
    chunk = source.read(min(size, _CHUNK))
    if not chunk:
      raise tarfile.ReadError("a member ends early")
    size -= len(chunk)
    yield chunk


def _publish(unpacked: dict[str, Member], archive: pathlib.Path, root: pathlib.Path,
             staging: pathlib.Path) -> None:
  """Moves every file to its place, once it is known that nothing is in the way of any."""
  present = _already_there(unpacked, archive, root)
  for path in unpacked:
    if path in present:
      continue
    with _writing(root / path, errors.DataError(
        f"{root / path} cannot be written: a file is in the way of one of its folders; move it "
        "away and run the same command again")):
      (root / path).parent.mkdir(parents=True, exist_ok=True)
      os.replace(staging / path, root / path)


def _already_there(unpacked: dict[str, Member], archive: pathlib.Path, root: pathlib.Path
                   ) -> set[str]:
  present = set()
  for path, member in unpacked.items():
    check_folders(root, path)
    target = root / path
    if not os.path.lexists(target):
      continue
    if target.is_symlink() or not target.is_file() or (
        target.stat().st_size != member.size or transfer.digest(target) != member.sha256):
      raise errors.DataError(
          f"{target} is in the way of the file of that name in {archive.name}, whose content is "
          f"another (SHA-256 {member.sha256}); nothing was replaced: move it away and run the "
          "same command again")
    present.add(path)
  return present


def check_folders(root: pathlib.Path, path: str) -> None:
  """Raises OutputError where a folder on the way from `root` to `path` is a link."""
  for folder in list(pathlib.PurePosixPath(path).parents)[:-1]:
    if (root / folder).is_symlink():
      raise errors.OutputError(
          f"{root / folder} is a link; nothing is written through links: replace it by a folder, "
          "or give the folder that it stands for as --data_root")


@contextlib.contextmanager
def _writing(path: pathlib.Path, conflict: errors.DataError) -> Iterator[None]:
  """As `transfer.writing`, but raises `conflict` where a file stands for a folder or vice versa."""
  try:
    with transfer.writing(path):
      yield
  except errors.OutputError as error:
    if isinstance(error.__cause__, (FileExistsError, NotADirectoryError, IsADirectoryError)):
      raise conflict from error.__cause__
    raise
