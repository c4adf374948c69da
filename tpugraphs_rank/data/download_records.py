"""Records of downloads, and how much of each download is complete."""

import contextlib
import dataclasses
import os
import pathlib

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank.data import archives
from tpugraphs_rank.data import extract
from tpugraphs_rank.data import transfer

# Folder under the data root. `tpugraphs_rank.data.download` lists its files.
FOLDER = "downloads"


@dataclasses.dataclass(frozen=True)
class Record:
  """The record of a downloaded file.

  Attributes:
    address: address of the file.
    size: size in bytes.
    sha256: SHA-256 in hexadecimal.
    recorded: time of the first download, in UTC.
    members: the unpacked files, by path relative to the data root; None: not yet unpacked.
  """

  address: str
  size: int
  sha256: str
  recorded: str
  members: dict[str, extract.Member] | None = None


@dataclasses.dataclass(frozen=True)
class State:
  """How much of a remote has been downloaded, according to the sizes of files.

  Attributes:
    remote: the remote.
    status: "complete", "incomplete" (unpacked files are missing or have another size),
      "downloaded" (not yet unpacked), "partial" or "absent".
    received: bytes of the file itself received so far.
    files: number of files in their places.
  """

  remote: archives.Remote
  status: str
  received: int = 0
  files: int = 0


def look(remote: archives.Remote, data_root: files.PathLike) -> State:
  """The state of a remote. Reads only its record and file sizes.

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
    return State(remote, "incomplete", _received(root, remote), here)
  path = path_of(root, remote)
  if path.exists():
    return State(remote, "downloaded", path.stat().st_size)
  received = _received(root, remote)
  return State(remote, "partial" if received else "absent", received)


def path_of(root: pathlib.Path, remote: archives.Remote, suffix: str = "") -> pathlib.Path:
  """The path of the file in `downloads/`, or of a related file with a suffix."""
  return root / FOLDER / f"{remote.name}{suffix}"


def read(root: pathlib.Path, remote: archives.Remote) -> Record | None:
  """The record of a remote; None if it has none.

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
      raise ValueError("size or sha256 has a wrong type")
    return record
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise errors.DataError(
        f"{path} is damaged ({escaping.printable(str(error))}); remove it and run the same command "
        f"again, which downloads and records {remote.name} again") from error


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


def _received(root: pathlib.Path, remote: archives.Remote) -> int:
  for path in (path_of(root, remote), transfer.partial_path(path_of(root, remote))):
    with contextlib.suppress(FileNotFoundError):
      return path.stat().st_size
  return 0


def _has_size(path: pathlib.Path, size: int) -> bool:
  try:
    return path.stat().st_size == size
  except (OSError, ValueError):  # A ValueError: the name holds a null character.
    return False
