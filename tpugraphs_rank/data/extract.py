"""Unpacks an archive into a folder. It changes nothing outside the folder, and replaces no file.

All members are first unpacked to a staging folder. Then each is moved to its place, which is either
free or already holds the same content. An interrupted call can be repeated with the same result.
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
from typing import IO
import zlib

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import transfer

_CHUNK = 1 << 20
_BLOCK = 512  # Of the tar format.


class ArchiveError(errors.DataError):
  """The archive is damaged or has forbidden members."""


@dataclasses.dataclass(frozen=True)
class Member:
  """An unpacked file: its size in bytes and its SHA-256 in hexadecimal."""

  size: int
  sha256: str


def extract(archive: files.PathLike, root: files.PathLike, staging: files.PathLike,
            place: files.PathLike = ".",
            check_files: Callable[[Collection[str]], None] = lambda paths: None,
            check_space: Callable[[int], None] = lambda size: None,
            progress: transfer.Progress | None = None,
            stop: threading.Event | None = None) -> dict[str, Member]:
  """Unpacks a tar archive into `root`.

  It ignores owners, modes and times of the members, and replaces no existing file.

  Args:
    archive: a tar archive, compressed or not. The caller has verified its checksum.
    root: an existing folder. All members are unpacked inside it.
    staging: a folder on the same file system, for this archive only. Members must not be in it. It
      is emptied first, and removed afterwards.
    place: the folder, relative to `root`, that every file of the archive must be in.
    check_files: called with the paths of all files before any is written; may raise ArchiveError.
    check_space: called with the total size in bytes before any file is written; may raise.
    progress: called with the number of bytes unpacked.
    stop: another thread can set it to stop.

  Returns:
    The files by their path relative to `root`, in the order of the archive.

  Raises:
    ArchiveError: the archive is damaged or empty, or has a forbidden member: a path outside the
      folder or the place, a name with unprintable characters, a link, a device, a repeated path.
    DataError: a file with other content has the path of a member.
    OutputError: a member cannot be written, or a folder on its path is a link.
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
    # After a power failure, no final name may refer to unwritten content.
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
  # Damage raises any of these, depending on the compression. Other errors are typed already.
  except (tarfile.TarError, EOFError, OSError, ValueError, lzma.LZMAError, zlib.error) as error:
    if isinstance(error, errors.TpuGraphsRankError):
      raise
    # The message has one line for each compression that was tried.
    why = str(error).partition("\n")[0].rstrip(":")
    raise ArchiveError(f"{archive} is damaged or not a tar archive: {why}") from error


def _checked_members(tar: tarfile.TarFile, archive: pathlib.Path, root: pathlib.Path,
                     staging: pathlib.Path, place: pathlib.PurePosixPath
                     ) -> dict[str, tarfile.TarInfo]:
  """Checks that every member is harmless, and returns the files by their clean path."""
  reserved = os.path.relpath(staging.parent, root).split(os.sep)[0]
  members: dict[str, tarfile.TarInfo] = {}
  end = 0
  for member in tar:
    end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
    parts = pathlib.PurePosixPath(member.name).parts
    if member.name.startswith("/") or ".." in parts:
      raise _rejection(archive, member, "has a path outside the folder")
    if not member.name.isprintable():  # Line ends and escape sequences could forge log lines.
      raise _rejection(archive, member, "has a name with unprintable characters")
    if not (member.isdir() or member.isreg()) or member.issparse():
      raise _rejection(archive, member, f"is {_kind(member)}, not a plain file or folder")
    if member.isdir():
      continue
    if not parts:
      raise _rejection(archive, member, "has no name")
    # Some file systems ignore case.
    if parts[0].casefold() == reserved.casefold():
      raise _rejection(archive, member, f"is in {reserved}/, which is not for data")
    path = "/".join(parts)
    if not pathlib.PurePosixPath(path).is_relative_to(place):
      raise _rejection(archive, member, f"is not in {place}/, where this archive's files belong")
    if path in members:
      raise _rejection(archive, member, "occurs twice")
    members[path] = member
  # tarfile treats damage between two members as the end, but a complete archive ends with zeros.
  assert tar.fileobj is not None
  tar.fileobj.seek(end)
  if tar.fileobj.read(_BLOCK) != bytes(_BLOCK):
    raise ArchiveError(f"{archive} has no end mark after {len(members)} files: it is truncated or "
                       "damaged")
  if not members:
    raise ArchiveError(f"{archive} holds no files")
  return members


def _kind(member: tarfile.TarInfo) -> str:
  kinds = ((member.issym, "a symbolic link"), (member.islnk, "a hard link"),
           (member.isdev, "a device or pipe"), (member.issparse, "a sparse file"))
  return next((kind for holds, kind in kinds if holds()), "of an unknown type")


def _rejection(archive: pathlib.Path, member: tarfile.TarInfo, why: str) -> ArchiveError:
  return ArchiveError(
      f"{archive}: member {member.name!r} {why}; nothing of the archive was unpacked")


def _unpack(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], archive: pathlib.Path,
            staging: pathlib.Path, progress: transfer.Progress | None,
            stop: threading.Event | None) -> dict[str, Member]:
  total = sum(member.size for member in members.values())
  position = 0
  unpacked: dict[str, Member] = {}
  for path, member in members.items():
    source = tar.extractfile(member)
    assert source is not None  # Every member here is a plain file.
    target = staging / path
    hasher = hashlib.sha256()
    with _writing(target, ArchiveError(
        f"{archive}: a file and a folder have the same name at {path!r}")):
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


def _chunks(source: IO[bytes], size: int) -> Iterator[bytes]:
  while size:
    chunk = source.read(min(size, _CHUNK))
    if not chunk:
      raise tarfile.ReadError("a member is truncated")
    size -= len(chunk)
    yield chunk


def _publish(unpacked: dict[str, Member], archive: pathlib.Path, root: pathlib.Path,
             staging: pathlib.Path) -> None:
  """Checks that no other file is in the way, and moves every file to its place."""
  present = _already_present(unpacked, archive, root)
  for path in unpacked:
    if path in present:
      continue
    with _writing(root / path, errors.DataError(
        f"{root / path} cannot be written: a file has the name of one of its folders; move it "
        "away and run the same command again")):
      (root / path).parent.mkdir(parents=True, exist_ok=True)
      os.replace(staging / path, root / path)


def _already_present(unpacked: dict[str, Member], archive: pathlib.Path, root: pathlib.Path
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
          f"{target} exists, and its content differs from the file of that name in {archive.name} "
          f"(SHA-256 {member.sha256}); nothing was replaced: move it away and run the same command "
          "again")
    present.add(path)
  return present


def check_folders(root: pathlib.Path, path: str) -> None:
  """Raises OutputError if a folder on the path from `root` to `path` is a link."""
  for folder in list(pathlib.PurePosixPath(path).parents)[:-1]:
    if (root / folder).is_symlink():
      raise errors.OutputError(
          f"{root / folder} is a link; nothing is written through links: replace it with a folder, "
          "or pass the folder that it points to as --data_root")


@contextlib.contextmanager
def _writing(path: pathlib.Path, conflict: errors.DataError) -> Iterator[None]:
  """Like `transfer.writing`, but raises `conflict` if a file has a folder's path or vice versa."""
  try:
    with transfer.writing(path):
      yield
  except errors.OutputError as error:
    if isinstance(error.__cause__, (FileExistsError, NotADirectoryError, IsADirectoryError)):
      raise conflict from error.__cause__
    raise
