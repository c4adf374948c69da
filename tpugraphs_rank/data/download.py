"""Downloads under the data root: fetched, verified, unpacked, and known again afterwards.

For each file `<name>`, `downloads/` under the data root holds, as far as they are needed:

- `<name>.json`, its record: size and SHA-256 from its first download, later the size and SHA-256 of
  every file that was unpacked. A damaged or changed file does not get past it.
- `<name>`: the archive, complete; a file put there by hand is taken as well.
- `<name>.partial`, `.partial.json`: what has arrived (`tpugraphs_rank.data.transfer`).
- `<name>.unpacking/`: staging (`tpugraphs_rank.data.extract`).
- `<name>.rejected`, `.rejected2`, ...: what had the wrong digest or was no such archive; nothing
  reads it, and it goes when the file is brought the next time.
- `<name>.lock`: locked by the process that works on it, for as long as it lives.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
import concurrent.futures
import contextlib
import dataclasses
import datetime
import fcntl
import glob
import logging
import os
import pathlib
import shutil
import threading
from typing import Any

import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import archives
from tpugraphs_rank.data import download_records as records_lib
from tpugraphs_rank.data import extract
from tpugraphs_rank.data import transfer

# Seconds between two looks at a lock that another process holds.
_LOCK_WAIT = 0.2

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Brought:
  """A remote that is in its place, verified.

  Attributes:
    remote: the remote.
    was_there: whether nothing had to be done.
    size: of the remote file, in bytes.
    sha256: of the remote file, in hexadecimal.
    files: number of files that are in their places.
  """

  remote: archives.Remote
  was_there: bool
  size: int
  sha256: str
  files: int


def remote_sizes(remotes: Sequence[archives.Remote], parallel: int = 4,
                 stop: threading.Event | None = None
                 ) -> tuple[list[int | None], list[errors.MissingDataError]]:
  """Sizes of remotes, asked from the servers, once each.

  Returns:
    The size of each in bytes, None where its server does not tell; and why some do not.
  """
  failures: list[errors.MissingDataError] = []

  def size_of(remote: archives.Remote) -> int | None:
    try:
      return transfer.remote_size(remote.address, stop, attempts=1)
    except errors.MissingDataError as error:
      failures.append(error)
      return None

  sizes = _side_by_side([lambda remote=remote: size_of(remote) for remote in remotes], parallel,
                        stop or threading.Event())
  return sizes, failures


def download(remotes: Sequence[archives.Remote], data_root: files.PathLike, parallel: int = 3,
             keep_archives: bool = False) -> list[Brought]:
  """Brings files and archives to the data root; what is there already is verified byte by byte.

  Safe to kill at any time, and to run several times at once: the next call goes on, and several
  share the work. A failure does not keep the others from being brought or verified; the error names
  all that failed.

  Args:
    remotes: what to bring.
    data_root: made if need be.
    parallel: how many at a time.
    keep_archives: whether archives stay in `downloads/` once they are unpacked.

  Returns:
    What is in its place now, in the order of `remotes`.

  Raises:
    MissingDataError: a server cannot be reached or has no such file.
    DataError: a digest is not the one that was recorded or published, an archive is damaged, holds
      what it must not or another number of graphs, or a file in its place has been changed.
    OutputError: there is not enough space, or something cannot be written.
  """
  root = pathlib.Path(data_root)
  folder = root / records_lib.FOLDER
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.OutputError(
        f"cannot make the folder {folder}: {error.strerror}; choose another --data_root") from error
  stop = threading.Event()
  waiting = _waiting(remotes, root)
  sizes, _ = remote_sizes(
      [state.remote for state in waiting if state.status != "downloaded"], parallel, stop)
  known = iter(sizes)
  check_space(root, waiting, [
      state.arrived if state.status == "downloaded" else next(known) for state in waiting],
      parallel, keep_archives)
  return _side_by_side(
      [lambda remote=remote: _bring(remote, root, keep_archives, stop) for remote in remotes],
      parallel, stop)


def _waiting(remotes: Sequence[archives.Remote], root: pathlib.Path) -> list[records_lib.State]:
  """What is to be brought, as far as that is known: damaged records are told in their turn."""
  states = []
  for remote in remotes:
    with contextlib.suppress(errors.DataError):
      states.append(records_lib.look(remote, root))
  return [state for state in states if state.status != "complete"]


def check_space(root: pathlib.Path, states: Sequence[records_lib.State],
                sizes: Sequence[int | None], parallel: int, keep_archives: bool) -> None:
  """Raises OutputError where what is missing would not fit.

  An archive and what it unpacks to, which is no larger, are there at the same time; at most
  `parallel` archives are, unless they are kept.

  Args:
    root: an existing folder of the file system in question.
    states: what is missing.
    sizes: the size of each in bytes; None counts as 0.
    parallel: how many are brought at a time.
    keep_archives: whether archives stay once they are unpacked.
  """
  unknown = sum(size is None for size in sizes)
  if unknown:
    _log.info("the servers do not tell the size of %d of %d files", unknown, len(sizes))
  rest = [max(0, (size or 0) - state.arrived) for state, size in zip(states, sizes)]
  unpacked = sum(size or 0 for state, size in zip(states, sizes) if state.remote.is_archive)
  at_once = rest if keep_archives else sorted(rest)[-parallel:]
  _require(root, sum(at_once) + unpacked,
           f"{_amount(sum(rest))} to download and {_amount(unpacked)} unpacked")


def _require(root: pathlib.Path, needed: int, what: str) -> None:
  free = shutil.disk_usage(root).free
  if needed > free:
    raise errors.OutputError(
        f"{root} has {_amount(free)} of free space; {_amount(needed)} are needed ({what}): free "
        "some, choose another --data_root, or fewer --collections or --splits")


def _amount(size: int) -> str:
  return tqdm.tqdm.format_sizeof(size, "B")


def _side_by_side(actions: Sequence[Callable[[], Any]], parallel: int, stop: threading.Event
                  ) -> list[Any]:
  """Results of all; where some fail, one error for them all once the others are done."""
  with concurrent.futures.ThreadPoolExecutor(max(1, parallel)) as pool:
    try:
      futures = [pool.submit(action) for action in actions]
      concurrent.futures.wait(futures)
    except BaseException:  # Ctrl-C, also while threads start: they end at their next piece.
      stop.set()
      pool.shutdown(cancel_futures=True)
      raise
  failures = [error for error in (future.exception() for future in futures) if error is not None]
  for error in failures:
    if len(failures) == 1 or not isinstance(error, errors.TpuGraphsRankError):
      raise error
  if failures:
    raise type(failures[0])(f"{len(failures)} of {len(futures)} failed:\n" +
                            "\n".join(f"  {error}" for error in failures))
  return [future.result() for future in futures]


def _bring(remote: archives.Remote, root: pathlib.Path, keep_archives: bool,
           stop: threading.Event) -> Brought:
  transfer.check_stop(stop)
  with _locked(records_lib.path_of(root, remote, ".lock"), stop):
    brought = (_bring_archive(remote, root, keep_archives, stop) if remote.is_archive
               else _bring_file(remote, root, stop))
    _clear(records_lib.path_of(root, remote), brought.was_there)
  _log.info("%s: %s, %d files in %s, SHA-256 %s", remote.name,
            "verified" if brought.was_there else "brought", brought.files, remote.place,
            brought.sha256)
  return brought


def _clear(path: pathlib.Path, was_there: bool) -> None:
  """Removes what is left of earlier attempts at the file at `path` and nothing needs any more.

  Args:
    path: in `downloads/`.
    was_there: whether the file was only verified. Then what was set aside stays: nothing has come
      in its stead, and somebody may have put it there.
  """
  partial = transfer.partial_path(path)
  with transfer.writing(path):
    # The last are what `files.write_json` had not yet renamed.
    for left in (partial, partial.with_name(f"{partial.name}.json"),
                 *path.parent.glob(f".{glob.escape(path.name)}.*.partial")):
      left.unlink(missing_ok=True)
    for rejected in transfer.rejected_paths(path):
      if was_there:
        _log.info("%s was set aside earlier; nothing reads it", rejected)
      else:
        rejected.unlink()
        _log.info("removed %s, which was set aside earlier", rejected)


def _bring_file(remote: archives.Remote, root: pathlib.Path, stop: threading.Event) -> Brought:
  target = root / remote.place
  extract.check_folders(root, str(remote.place))
  was_there = os.path.lexists(target)
  if not was_there:
    record = _fetched(remote, root, stop)
    with transfer.writing(target):
      target.parent.mkdir(parents=True, exist_ok=True)
      os.replace(records_lib.path_of(root, remote), target)
    return Brought(remote, False, record.size, record.sha256, 1)
  known = records_lib.read(root, remote)
  expected = remote.sha256 or (known and known.sha256)
  found = _digest(target, "verify", stop)
  if expected is not None and found != expected:
    raise errors.DataError(
        f"{target} has SHA-256 {found}; expected {expected}: it was changed or is damaged; move it "
        "away and run the same command again")
  return Brought(remote, True, target.stat().st_size, found, 1)


def _bring_archive(remote: archives.Remote, root: pathlib.Path, keep_archives: bool,
                   stop: threading.Event) -> Brought:
  record = records_lib.read(root, remote)
  path = records_lib.path_of(root, remote)
  if record is not None and record.members is not None:
    try:
      _check_count(remote, path, record.members)
    except extract.ArchiveError as error:  # Recorded before that was refused.
      _log.warning("%s; forgetting its record, so that another can be brought", error)
      records_lib.path_of(root, remote, ".json").unlink()
      record = None
  was_there = record is not None and record.members is not None and not _missing(
      remote, root, record, stop)
  if not was_there:
    record = _fetched(remote, root, stop)
    record = dataclasses.replace(record, members=_unpacked(remote, root, stop))
    records_lib.write(root, remote, record)
  elif path.exists():  # Kept, or put there by somebody: nobody else's file is removed.
    _check_digest(remote, record, _digest(path, "verify", stop), root)
  if not keep_archives:
    with transfer.writing(path):
      path.unlink(missing_ok=True)
  return Brought(remote, was_there, record.size, record.sha256, len(record.members))


def _unpacked(remote: archives.Remote, root: pathlib.Path, stop: threading.Event
              ) -> Mapping[str, extract.Member]:
  path = records_lib.path_of(root, remote)
  try:
    with _bar(f"unpack {remote.name}") as progress:
      return extract.extract(
          path, root, records_lib.path_of(root, remote, ".unpacking"), remote.place,
          lambda paths: _check_count(remote, path, paths),
          lambda size: _require(root, size, f"to unpack {remote.name}"), progress, stop)
  except extract.ArchiveError as error:
    # Nor is its digest what later downloads are to be held to.
    records_lib.path_of(root, remote, ".json").unlink(missing_ok=True)
    raise errors.DataError(
        f"{error}; set aside as {transfer.set_aside(path, path)}: run the same command again, and "
        f"check {remote.address}") from error


def _fetched(remote: archives.Remote, root: pathlib.Path, stop: threading.Event
             ) -> records_lib.Record:
  """Sees to it that the file is complete in `downloads/` and has the digest that it must have."""
  path = records_lib.path_of(root, remote)
  record = records_lib.read(root, remote)
  if not path.exists():
    with _bar(remote.name) as progress:
      transfer.fetch(remote.address, path, progress, stop)
  found = _digest(path, "verify", stop)
  new = records_lib.Record(
      remote.address, path.stat().st_size, found,
      datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"))
  _check_digest(remote, record or new, found, root)
  if record is None:
    records_lib.write(root, remote, new)
  return record or new


def _check_digest(remote: archives.Remote, record: records_lib.Record, found: str,
                  root: pathlib.Path) -> None:
  """Sets a file in `downloads/` aside and raises DataError where it has not its digest."""
  said = f"{remote.name} from {remote.address} has SHA-256 {found}; expected "
  path = records_lib.path_of(root, remote)
  if remote.sha256 is not None and found != remote.sha256:
    raise errors.DataError(
        f"{said}{remote.sha256} (published with the data); set aside as "
        f"{transfer.set_aside(path, path)}: run the same command again, and check --base_url")
  if found != record.sha256:
    raise errors.DataError(
        f"{said}{record.sha256} (recorded at the first download, {record.recorded}); set aside as "
        f"{transfer.set_aside(path, path)}: run the same command again, which removes that where "
        "it brings the file anew; if this is the right one after all (replaced by its publisher), "
        f"first remove {records_lib.path_of(root, remote, '.json')} and {root / remote.place}, "
        f"and name it {path} again")


def _missing(remote: archives.Remote, root: pathlib.Path, record: records_lib.Record,
             stop: threading.Event) -> int:
  """How many unpacked files are not there; those that are must be as they were unpacked."""
  missing, position = 0, 0
  total = sum(member.size for member in record.members.values())
  with _bar(f"verify {remote.name}") as progress:
    for path, member in record.members.items():
      target = root / path
      extract.check_folders(root, path)
      if not os.path.lexists(target):
        missing += 1
        continue
      found = transfer.digest(target, None, stop)
      if found != member.sha256:
        raise errors.DataError(
            f"{target} has SHA-256 {found} and {target.stat().st_size} bytes; expected "
            f"{member.sha256} and {member.size} bytes, as unpacked from {remote.name}: it was "
            "changed or is damaged; move it away and run the same command again")
      position += member.size
      progress(position, total)
  if missing:
    _log.warning("%s: %d of its %d files are missing under %s; unpacking it again",
                 remote.name, missing, len(record.members), root)
  return missing


def _check_count(remote: archives.Remote, archive: pathlib.Path, paths: Collection[str]) -> None:
  """Raises ArchiveError where an archive has not the graphs that it must have."""
  if remote.is_raw:
    if len(paths) != remote.graphs:
      _log.warning("%s has %d files; its split has %s graphs", remote.name, len(paths),
                   remote.graphs)
    return
  inside = sum(path.parent == remote.place and path.suffix == ".npz"
               for path in map(pathlib.PurePosixPath, paths))
  if remote.graphs is not None and inside != remote.graphs:
    raise extract.ArchiveError(
        f"{archive} holds {inside} graphs in {remote.place}; expected {remote.graphs}")


def _digest(path: pathlib.Path, doing: str, stop: threading.Event) -> str:
  with _bar(f"{doing} {path.name}") as progress:
    return transfer.digest(path, progress, stop)


@contextlib.contextmanager
def _bar(description: str) -> Iterator[transfer.Progress]:
  """A progress bar over bytes, silent where nobody watches."""
  with tqdm.tqdm(desc=description, unit="B", unit_scale=True, leave=False, disable=None) as bar:
    def progress(position: int, size: int | None) -> None:
      bar.total = size
      bar.update(position - bar.n)

    yield progress


@contextlib.contextmanager
def _locked(path: pathlib.Path, stop: threading.Event) -> Iterator[None]:
  """Holds a lock that ends with the process, however that ends; waits for others that hold it."""
  with transfer.writing(path):
    file = open(path, "ab")
  with file:
    told = False
    while True:
      try:
        with transfer.writing(path):
          fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
      except errors.OutputError as error:
        if not isinstance(error.__cause__, BlockingIOError):
          raise
      if not told:
        _log.info("another process is at %s; waiting for it", path.name.removesuffix(".lock"))
        told = True
      stop.wait(_LOCK_WAIT)
      transfer.check_stop(stop)
    yield

