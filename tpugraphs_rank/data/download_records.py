"""What is known of downloads: their records, and how much of them is here."""

import contextlib
import dataclasses
import os
import pathlib

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import archives
from tpugraphs_rank.data import extract
from tpugraphs_rank.data import transfer

# Under the data root; what lies there is said in `tpugraphs_rank.data.download`.
FOLDER = "downloads"


@dataclasses.dataclass(frozen=True)
class Record:
  """What is known of a file that was downloaded.

  Attributes:
    address: where it came from.
    size: in bytes.
    sha256: in hexadecimal.
    recorded: when this was first known, in UTC.
    members: the files that were unpacked, by path relative to the data root; None: not yet.
  """

  address: str
  size: int
  sha256: str
  recorded: str
  members: dict[str, extract.Member] | None = None


@dataclasses.dataclass(frozen=True)
class State:
  """How much of a remote is here, judged by sizes.

  Attributes:
    remote: the remote.
    status: "complete", "incomplete" (files that were unpacked are missing or of another size),
      "downloaded" (not yet unpacked), "partial" or "absent".
    arrived: bytes of the file itself that are here.
    files: number of files that are in their places.
  """

  remote: archives.Remote
  status: str
  arrived: int = 0
  files: int = 0


def look(remote: archives.Remote, data_root: files.PathLike) -> State:
  """What is here of a remote, without reading more than its record.

  Raises:
    DataError: the record is damaged.
  """
  root = pathlib.Path(data_root)
  if not remote.is_archive and os.path.lexists(root / remote.place):
    return State(remote, "complete", files=1)
  record = read(root, remote)
  if record is not None and record.members is not None:
    here = sum(_has_size(root / path, member.size) for path, member in record.members.items())
    if here == len(record.members):
      return State(remote, "complete", files=here)
    return State(remote, "incomplete", _arrived(root, remote), here)
  path = path_of(root, remote)
  if path.exists():
    return State(remote, "downloaded", path.stat().st_size)
  arrived = _arrived(root, remote)
  return State(remote, "partial" if arrived else "absent", arrived)


def path_of(root: pathlib.Path, remote: archives.Remote, suffix: str = "") -> pathlib.Path:
  """Where the file itself is kept, or what goes with it under its name and a suffix."""
  return root / FOLDER / f"{remote.name}{suffix}"


def read(root: pathlib.Path, remote: archives.Remote) -> Record | None:
  """The record of a remote; None where there is none.

  Raises:
    DataError: the record is damaged.
  """
  path = path_of(root, remote, ".json")
  if not path.exists():
    return None
  try:
    values = files.read_json(path)
    members = values.pop("members")
    record = Record(**values, members=None if members is None else {
        name: extract.Member(int(size), str(sha256)) for name, (size, sha256) in members.items()})
    if not (isinstance(record.size, int) and isinstance(record.sha256, str)):
      raise ValueError("size or sha256 is of a wrong type")
    return record
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise errors.DataError(
        f"{path} is damaged ({error}); remove it and run the same command again, which brings and "
        f"records {remote.name} anew") from error


def write(root: pathlib.Path, remote: archives.Remote, record: Record) -> None:
  """Writes the record of a remote.

  Raises:
    OutputError: it cannot be written.
  """
  values = dataclasses.asdict(record)
  if record.members is not None:
    values["members"] = {name: (member.size, member.sha256)
                         for name, member in record.members.items()}
  files.write_json(path_of(root, remote, ".json"), values)


def _arrived(root: pathlib.Path, remote: archives.Remote) -> int:
  for path in (path_of(root, remote), transfer.partial_path(path_of(root, remote))):
    with contextlib.suppress(FileNotFoundError):
      return path.stat().st_size
  return 0


def _has_size(path: pathlib.Path, size: int) -> bool:
  try:
    return path.stat().st_size == size
  except OSError:
    return False
