"""Downloads to the data root: transfers, verifies, unpacks and records files.

The folder `downloads/` under the data root holds for each file `<name>`, as needed:

- `<name>.json`: its record, with the size and SHA-256 from the first download, and later the size
  and SHA-256 of every unpacked file. It reveals any damaged or changed file.
- `<name>`: the complete archive. A file that you put there by hand is used as well.
- `<name>.partial`, `.partial.json`: the part received so far (`tpugraphs_rank.data.transfer`).
- `<name>.unpacking/`: staging folder (`tpugraphs_rank.data.extract`).
- `<name>.rejected`, `.rejected2`, ...: files with a wrong checksum or invalid archives. Nothing
  reads them, and the next successful download removes them.
- `<name>.lock`: locked while a process works on the file.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
import concurrent.futures
import contextlib
import dataclasses
import datetime
import fcntl
import functools
import glob
import logging
import os
import pathlib
import shutil
import threading
from typing import Any
import urllib.parse

import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import archives
from tpugraphs_rank.data import download_records as records_lib
from tpugraphs_rank.data import extract
from tpugraphs_rank.data import transfer

# Seconds between attempts to get a lock that another process holds.
_LOCK_WAIT = 0.2

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Downloaded:
  """A remote that is in its place and verified.

  Attributes:
    remote: the remote.
    was_complete: whether it was already in its place.
    size: size of the remote file, in bytes.
    sha256: SHA-256 of the remote file, in hexadecimal.
    files: number of files in their places.
  """

  remote: archives.Remote
  was_complete: bool
  size: int
  sha256: str
  files: int


def remote_sizes(remotes: Sequence[archives.Remote], parallel: int = 4,
                 stop: threading.Event | None = None
                 ) -> tuple[list[int | None], list[errors.MissingDataError]]:
  """Asks the servers once for the sizes of remotes.

  A host whose name cannot be resolved is not asked again.

  Returns:
    The size of each in bytes, None if unknown; and the errors that occurred.
  """
  failures: list[errors.MissingDataError] = []
  unresolved: set[str | None] = set()

  def size_of(remote: archives.Remote) -> int | None:
    host = urllib.parse.urlsplit(remote.address).hostname
    if host in unresolved:
      return None
    try:
      return transfer.remote_size(remote.address, stop, attempts=1)
    except errors.MissingDataError as error:
      if isinstance(error, transfer.HostError):
        unresolved.add(host)
      failures.append(error)
      return None

  sizes = _run_in_parallel([functools.partial(size_of, remote) for remote in remotes], parallel,
                           stop or threading.Event())
  return sizes, failures


def download(remotes: Sequence[archives.Remote], data_root: files.PathLike, parallel: int = 3,
             keep_archives: bool = False) -> list[Downloaded]:
  """Downloads files and archives to the data root. Verifies existing files byte by byte.

  You can kill it at any time, and the next call resumes. Several processes can run it at once and
  share the work. If one download fails, the others continue; the error lists all failures. Only if
  the name of a host cannot be resolved, nothing else is tried.

  Args:
    remotes: the files to download.
    data_root: the data root; created if it does not exist.
    parallel: number of parallel downloads.
    keep_archives: whether archives stay in `downloads/` after unpacking.

  Returns:
    The remotes with their verified state, in the order of `remotes`.

  Raises:
    HostError: the name of a server cannot be resolved.
    MissingDataError: a server cannot be reached or has no such file.
    DataError: a checksum differs from the recorded or published one; an archive is damaged, has
      forbidden members or a wrong number of graphs; or an unpacked file was changed.
    OutputError: there is not enough space, or something cannot be written.
  """
  root = pathlib.Path(data_root)
  folder = root / records_lib.FOLDER
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.OutputError(
        f"cannot create the folder {folder}: {error.strerror}; choose another --data_root"
    ) from error
  stop = threading.Event()
  waiting = _waiting(remotes, root)
  sizes, failures = remote_sizes(
      [state.remote for state in waiting if state.status != "downloaded"], parallel, stop)
  for failure in failures:
    if isinstance(failure, transfer.HostError):
      raise failure
  known = iter(sizes)
  check_space(root, waiting, [
      state.received if state.status == "downloaded" else next(known) for state in waiting],
      parallel, keep_archives)
  return _run_in_parallel(
      [functools.partial(_download_one, remote, root, keep_archives, stop) for remote in remotes],
      parallel, stop)


def _waiting(remotes: Sequence[archives.Remote], root: pathlib.Path) -> list[records_lib.State]:
  """The remotes that are not complete. Damaged records are skipped here and reported later."""
  states = []
  for remote in remotes:
    with contextlib.suppress(errors.DataError):
      states.append(records_lib.look(remote, root))
  return [state for state in states if state.status != "complete"]


def check_space(root: pathlib.Path, states: Sequence[records_lib.State],
                sizes: Sequence[int | None], parallel: int, keep_archives: bool) -> None:
  """Raises OutputError if the missing files would not fit.

  An archive and its unpacked files, which are no larger, exist at the same time. At most `parallel`
  archives exist at the same time, unless they are kept.

  Args:
    root: an existing folder on the file system to check.
    states: the remotes to download.
    sizes: the size of each in bytes; None counts as 0.
    parallel: number of parallel downloads.
    keep_archives: whether archives stay after unpacking.
  """
  unknown = sum(size is None for size in sizes)
  if unknown:
    _log.info("the servers do not report the size of %d of %d files", unknown, len(sizes))
  rest = [max(0, (size or 0) - state.received) for state, size in zip(states, sizes)]
  unpacked = sum(size or 0 for state, size in zip(states, sizes) if state.remote.is_archive)
  at_once = rest if keep_archives else sorted(rest)[-parallel:]
  _require(root, sum(at_once) + unpacked,
           f"{_amount(sum(rest))} to download and {_amount(unpacked)} unpacked")


def _require(root: pathlib.Path, needed: int, what: str) -> None:
  free = shutil.disk_usage(root).free
  if needed > free:
    raise errors.OutputError(
        f"{root} has {_amount(free)} of free space, but {_amount(needed)} are needed ({what}): "
        "free some space, or choose another --data_root, or fewer --collections or --splits")


def _amount(size: int) -> str:
  return tqdm.tqdm.format_sizeof(size, "B")


def _run_in_parallel(actions: Sequence[Callable[[], Any]], parallel: int, stop: threading.Event
                     ) -> list[Any]:
  """The results of all actions. Raises one error for all failures, after the others are done.

  If the name of a host cannot be resolved, the others stop.
  """
  def guarded(action: Callable[[], Any]) -> Any:
    try:
      return action()
    except transfer.HostError:
      stop.set()
      raise

  with concurrent.futures.ThreadPoolExecutor(max(1, parallel)) as pool:
    try:
      futures = [pool.submit(guarded, action) for action in actions]
      concurrent.futures.wait(futures)
    except BaseException:  # Ctrl-C, even while threads start: they stop at their next chunk.
      stop.set()
      pool.shutdown(cancel_futures=True)
      raise
  failures = [error for error in (future.exception() for future in futures) if error is not None]
  if any(isinstance(error, transfer.HostError) for error in failures):
    failures = [error for error in failures if not isinstance(error, transfer.Stopped)]
  for error in failures:
    if len(failures) == 1 or not isinstance(error, errors.TpuGraphsRankError):
      raise error
  if failures:
    raise type(failures[0])(f"{len(failures)} of {len(futures)} failed:\n" +
                            "\n".join(f"  {error}" for error in failures))
  return [future.result() for future in futures]


def _download_one(remote: archives.Remote, root: pathlib.Path, keep_archives: bool,
                  stop: threading.Event) -> Downloaded:
  transfer.check_stop(stop)
  with _locked(records_lib.path_of(root, remote, ".lock"), stop):
    result = (_download_archive(remote, root, keep_archives, stop) if remote.is_archive
              else _download_file(remote, root, stop))
    _clean_up(records_lib.path_of(root, remote), result.was_complete)
  _log.info("%s: %s, %d files in %s, SHA-256 %s", remote.name,
            "verified" if result.was_complete else "downloaded", result.files, remote.place,
            result.sha256)
  return result


def _clean_up(path: pathlib.Path, was_complete: bool) -> None:
  """Removes what earlier attempts to download a file have left.

  Args:
    path: the file in `downloads/`.
    was_complete: whether the file was only verified. In that case rejected files stay: nothing has
      replaced them, and a user may have put them there.
  """
  partial = transfer.partial_path(path)
  with transfer.writing(path):
    # The last pattern matches temporary files of `files.write_json`.
    for leftover in (partial, partial.with_name(f"{partial.name}.json"),
                     *path.parent.glob(f".{glob.escape(path.name)}.*.partial")):
      leftover.unlink(missing_ok=True)
    for rejected in transfer.rejected_paths(path):
      if was_complete:
        _log.info("%s was rejected earlier; nothing reads it", rejected)
      else:
        rejected.unlink()
        _log.info("removed %s, which was rejected earlier", rejected)


def _download_file(remote: archives.Remote, root: pathlib.Path, stop: threading.Event
                   ) -> Downloaded:
  target = root / remote.place
  extract.check_folders(root, str(remote.place))
  if not os.path.lexists(target):
    record = _fetch_and_verify(remote, root, stop)
    with transfer.writing(target):
      target.parent.mkdir(parents=True, exist_ok=True)
      os.replace(records_lib.path_of(root, remote), target)
    return Downloaded(remote, False, record.size, record.sha256, 1)
  known = records_lib.read(root, remote)
  expected = remote.sha256 or (known.sha256 if known else None)
  actual = _digest(target, "verify", stop)
  if expected is not None and actual != expected:
    raise errors.DataError(
        f"{target} has SHA-256 {actual}; expected {expected}: it was changed or is damaged; move "
        "it away and run the same command again")
  return Downloaded(remote, True, target.stat().st_size, actual, 1)


def _download_archive(remote: archives.Remote, root: pathlib.Path, keep_archives: bool,
                      stop: threading.Event) -> Downloaded:
  record = records_lib.read(root, remote)
  path = records_lib.path_of(root, remote)
  if record is not None and record.members is not None:
    try:
      _check_count(remote, path, record.members)
    except extract.ArchiveError as error:  # An earlier version has recorded it.
      _log.warning("%s; removing its record, so that another archive can be downloaded", error)
      records_lib.path_of(root, remote, ".json").unlink()
      record = None
  if record is not None and record.members is not None and not _count_missing(
      remote, root, record.members, stop):
    was_complete, members = True, record.members
    if path.exists():  # Verify it before it is removed: a user may have put another file there.
      _check_digest(remote, record, _digest(path, "verify", stop), root)
  else:
    record = _fetch_and_verify(remote, root, stop)
    was_complete, members = False, dict(_unpack(remote, root, stop))
    record = dataclasses.replace(record, members=members)
    records_lib.write(root, remote, record)
  if not keep_archives:
    with transfer.writing(path):
      path.unlink(missing_ok=True)
  return Downloaded(remote, was_complete, record.size, record.sha256, len(members))


def _unpack(remote: archives.Remote, root: pathlib.Path, stop: threading.Event
            ) -> Mapping[str, extract.Member]:
  path = records_lib.path_of(root, remote)
  try:
    with _bar(f"unpack {remote.name}") as progress:
      return extract.extract(
          path, root, records_lib.path_of(root, remote, ".unpacking"), remote.place,
          lambda paths: _check_count(remote, path, paths),
          lambda size: _require(root, size, f"to unpack {remote.name}"), progress, stop)
  except extract.ArchiveError as error:
    # Later downloads must not be compared with the checksum of this archive.
    records_lib.path_of(root, remote, ".json").unlink(missing_ok=True)
    raise errors.DataError(
        f"{error}; the archive was renamed to {transfer.set_aside(path, path)}: run the same "
        f"command again, and check {remote.address}") from error


def _fetch_and_verify(remote: archives.Remote, root: pathlib.Path, stop: threading.Event
                      ) -> records_lib.Record:
  """Ensures that the file in `downloads/` is complete and has the expected checksum."""
  path = records_lib.path_of(root, remote)
  record = records_lib.read(root, remote)
  if not path.exists():
    with _bar(remote.name) as progress:
      transfer.fetch(remote.address, path, progress, stop)
  actual = _digest(path, "verify", stop)
  new = records_lib.Record(
      remote.address, path.stat().st_size, actual,
      datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"))
  _check_digest(remote, record or new, actual, root)
  if record is None:
    records_lib.write(root, remote, new)
  return record or new


def _check_digest(remote: archives.Remote, record: records_lib.Record, actual: str,
                  root: pathlib.Path) -> None:
  """Renames a file in `downloads/` and raises DataError if its checksum is wrong."""
  problem = f"{remote.name} from {remote.address} has SHA-256 {actual}; expected "
  path = records_lib.path_of(root, remote)
  if remote.sha256 is not None and actual != remote.sha256:
    raise errors.DataError(
        f"{problem}{remote.sha256} (published with the data); renamed to "
        f"{transfer.set_aside(path, path)}: run the same command again, and check --base_url")
  if actual != record.sha256:
    raise errors.DataError(
        f"{problem}{record.sha256} (recorded at the first download, {record.recorded}); renamed to "
        f"{transfer.set_aside(path, path)}: run the same command again, which downloads the file "
        "again and then removes the renamed one; if the renamed file is right (because its "
        f"publisher has replaced it), first remove {records_lib.path_of(root, remote, '.json')} "
        f"and {root / remote.place}, and rename it back to {path}")


def _count_missing(remote: archives.Remote, root: pathlib.Path,
                   members: Mapping[str, extract.Member], stop: threading.Event) -> int:
  """The number of missing unpacked files. Raises an error if an existing one was changed."""
  missing, position = 0, 0
  total = sum(member.size for member in members.values())
  with _bar(f"verify {remote.name}") as progress:
    for path, member in members.items():
      target = root / path
      extract.check_folders(root, path)
      if not os.path.lexists(target):
        missing += 1
        continue
      actual = transfer.digest(target, None, stop)
      if actual != member.sha256:
        raise errors.DataError(
            f"{target} has SHA-256 {actual} and {target.stat().st_size} bytes; expected "
            f"{member.sha256} and {member.size} bytes, as unpacked from {remote.name}: it was "
            "changed or is damaged; move it away and run the same command again")
      position += member.size
      progress(position, total)
  if missing:
    _log.warning("%s: %d of its %d files are missing under %s; unpacking it again",
                 remote.name, missing, len(members), root)
  return missing


def _check_count(remote: archives.Remote, archive: pathlib.Path, paths: Collection[str]) -> None:
  """Raises ArchiveError if an archive has a wrong number of graphs."""
  if remote.is_raw:
    if len(paths) != remote.graphs:
      _log.warning("%s has %d files, but its split has %s graphs", remote.name, len(paths),
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
  """A progress bar in bytes; hidden if the output is not a terminal."""
  with tqdm.tqdm(desc=description, unit="B", unit_scale=True, leave=False, disable=None) as bar:
    def progress(position: int, size: int | None) -> None:
      bar.total = size
      bar.update(position - bar.n)

    yield progress


@contextlib.contextmanager
def _locked(path: pathlib.Path, stop: threading.Event) -> Iterator[None]:
  """Waits for a lock and holds it. The system releases it when the process ends."""
  with transfer.writing(path):
    file = files.open_to_append(path)
  with file:
    logged = False
    while True:
      try:
        with transfer.writing(path):
          fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
      except errors.OutputError as error:
        if not isinstance(error.__cause__, BlockingIOError):
          raise
      if not logged:
        _log.info("waiting for another process that works on %s", path.name.removesuffix(".lock"))
        logged = True
      stop.wait(_LOCK_WAIT)
      transfer.check_stop(stop)
    yield

