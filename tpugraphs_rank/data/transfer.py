"""One file over HTTP: goes on where it broke off, and never mixes two versions of the file."""

import base64
from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import filecmp
import glob
import hashlib
import itertools
import logging
import os
import pathlib
import threading
from typing import Any

import requests

from tpugraphs_rank import errors
from tpugraphs_rank import files

# Seconds to connect, and between two pieces of an answer.
_TIMEOUT = (20, 60)
_ATTEMPTS = 6
# Seconds before the second attempt; each later one waits twice as long, up to the longest.
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 60.0
_CHUNK = 1 << 16
# Answers of the 4xx kind that a later attempt may not get.
_PASSING = (requests.codes.request_timeout, requests.codes.too_many_requests)
# Compressed on the way, the parts of two attempts would not be parts of one file.
_AS_IT_IS = {"Accept-Encoding": "identity"}

# Told the position reached and the size, in bytes; the size is None while it is not known.
Progress = Callable[[int, int | None], None]

_log = logging.getLogger(__name__)


class Stopped(Exception):
  """The caller's event asked to stop; what has arrived is kept."""


class _Broken(Exception):
  """An attempt that failed, where the next one may not."""

  def __init__(self, problem: str, wait: float | None = None):
    super().__init__(problem)
    self.wait = wait


@dataclasses.dataclass(frozen=True)
class _Version:
  """What is known of the version of a file that a partial file is the beginning of.

  Attributes:
    address: where it comes from.
    validator: strong ETag or modification time, which names the version; None: it has no name.
    size: in bytes, or None.
    md5: in base64, where the server states it, or None.
  """

  address: str
  validator: str | None = None
  size: int | None = None
  md5: str | None = None


def check_stop(stop: threading.Event | None) -> None:
  """Raises Stopped once the event is set."""
  if stop is not None and stop.is_set():
    raise Stopped()


@contextlib.contextmanager
def writing(path: files.PathLike) -> Iterator[None]:
  """Turns what the file system refuses into an OutputError about `path`."""
  try:
    yield
  except errors.TpuGraphsRankError:  # An OutputError is an OSError, too.
    raise
  except OSError as error:
    raise errors.OutputError(
        f"cannot write {path}: {error.strerror or error}; see to space and permissions there, or "
        "choose another --data_root, and run the same command again") from error


def digest(path: files.PathLike, progress: Progress | None = None,
           stop: threading.Event | None = None, algorithm: str = "sha256") -> str:
  """The digest of a file's content, in hexadecimal.

  Raises:
    MissingDataError: the file cannot be read.
    Stopped: `stop` was set.
  """
  # Against mistakes of the way, not against an adversary.
  hasher = hashlib.new(algorithm, usedforsecurity=False)
  position = 0
  try:
    size = os.stat(path).st_size
    with open(path, "rb") as file:
      while chunk := file.read(1 << 20):
        check_stop(stop)
        hasher.update(chunk)
        position += len(chunk)
        if progress is not None:
          progress(position, size)
  except OSError as error:
    raise errors.MissingDataError(f"cannot read {path}: {error.strerror}") from error
  return hasher.hexdigest()


def partial_path(path: files.PathLike) -> pathlib.Path:
  """Where `fetch` keeps what has arrived of the file that is to be at `path`."""
  path = pathlib.Path(path)
  return path.with_name(f"{path.name}.partial")


def remote_size(address: str, stop: threading.Event | None = None, attempts: int = _ATTEMPTS
                ) -> int | None:
  """The size of a remote file in bytes; None where the server does not tell.

  Args:
    address: http:// or https://.
    stop: set by another thread to end this soon.
    attempts: how many failures that may pass are too many.

  Raises:
    MissingDataError: there is no such file, or the server cannot be reached.
    Stopped: `stop` was set.
  """
  def ask(session: requests.Session) -> int | None:
    response = _request(session, "HEAD", address, _AS_IT_IS)
    with response:
      # Not every server answers HEAD; GET will tell.
      return None if response.status_code in (
          requests.codes.not_allowed, requests.codes.not_implemented) else (
              _length(_checked(response, address)))

  return _attempted(ask, address, stop, lambda: 0, "", attempts)


def fetch(address: str, path: files.PathLike, progress: Progress | None = None,
          stop: threading.Event | None = None) -> None:
  """Brings a file, going on where an earlier call, attempt or process broke off.

  What has arrived lies beside, in `<path>.partial`, with the version it belongs to in
  `<path>.partial.json`. It is used again only if the server names the version (by a strong ETag or
  a modification time) and still has it, which it judges itself (`If-Range`). The caller sees to it
  that nobody else fetches to the same path at the same time.

  Args:
    address: http:// or https://.
    path: where the file is to be, once it is complete; its folder exists.
    progress: told of each piece that arrives.
    stop: set by another thread to end this soon.

  Raises:
    MissingDataError: the server refuses, or several attempts in a row brought nothing more.
    DataError: what arrived has not the MD5 that the server states; it is set aside.
    OutputError: the file cannot be written.
    Stopped: `stop` was set.
  """
  path = pathlib.Path(path)
  partial = partial_path(path)

  def receive(session: requests.Session) -> _Version:
    return _receive(session, address, partial, progress or (lambda position, size: None), stop)

  version = _attempted(receive, address, stop, lambda: _size(partial),
                       f"what has arrived is kept in {partial}; ")
  if version.md5 is not None:
    found = base64.b64encode(bytes.fromhex(digest(partial, None, stop, "md5"))).decode()
    if found != version.md5:
      raise errors.DataError(
          f"{address} arrived with MD5 {found} (base64); the server states {version.md5}; "
          f"set aside as {set_aside(partial, path)}: run the same command again")
  with writing(path):
    with open(partial, "rb+") as file:
      os.fsync(file.fileno())
    os.replace(partial, path)
    _version_path(partial).unlink(missing_ok=True)


def set_aside(found: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
  """Renames what is not to be trusted to `<path>.rejected`, which nothing reads.

  Where other content has been set aside already, a number follows: it may be somebody's only copy.
  """
  with writing(found):
    for number in itertools.count(1):
      rejected = path.with_name(f"{path.name}.rejected{number if number > 1 else ''}")
      if not rejected.exists() or filecmp.cmp(found, rejected, shallow=False):
        os.replace(found, rejected)
        return rejected


def rejected_paths(path: pathlib.Path) -> list[pathlib.Path]:
  """What `set_aside` has made of the files that were not to be at `path`."""
  return sorted(path.parent.glob(f"{glob.escape(path.name)}.rejected*"))


def _attempted(action: Callable[[requests.Session], Any], address: str,
               stop: threading.Event | None, arrived: Callable[[], int], kept: str,
               attempts: int = _ATTEMPTS) -> Any:
  """The action's result; after failures it is tried again, as long as it comes further at times."""
  failures, furthest = 0, arrived()
  waiting = stop or threading.Event()
  with requests.Session() as session:
    while True:
      check_stop(stop)
      try:
        return action(session)
      except _Broken as broken:
        if arrived() > furthest:
          failures, furthest = 0, arrived()
        failures += 1
        if failures == attempts:
          raise errors.MissingDataError(
              f"cannot fetch {address}: {broken} (attempts in a row: {failures}); {kept}check the "
              "connection and run the same command again, which goes on from there") from broken
        seconds = _FIRST_WAIT * 2 ** (failures - 1) if broken.wait is None else broken.wait
        seconds = min(seconds, _LONGEST_WAIT)
        _log.info("%s: %s; next attempt in %.0f s", address, broken, seconds)
        waiting.wait(seconds)


def _receive(session: requests.Session, address: str, partial: pathlib.Path, progress: Progress,
             stop: threading.Event | None) -> _Version:
  """One attempt to bring the rest of a file to its partial file."""
  version = _read_version(partial)
  have = _size(partial)
  if version is None or version.address != address or version.validator is None or (
      version.size is not None and have > version.size):
    have = 0
  elif have == version.size:
    return version
  headers = dict(_AS_IT_IS)
  if have:
    headers.update({"Range": f"bytes={have}-", "If-Range": version.validator})
  response = _request(session, "GET", address, headers)
  with response:
    if response.status_code == requests.codes.requested_range_not_satisfiable and have:
      _discard(partial)
      raise _Broken("the server has no such part of the file; starting from its beginning")
    _checked(response, address)
    if response.status_code == requests.codes.partial_content:
      if not have or not _continues(response, version, have):
        _discard(partial)
        raise _Broken("the server sent another part than was asked for; starting from the "
                      "beginning")
      total = version.size if version.size is not None else _content_range(response)[1]
      version = dataclasses.replace(version, size=total)
    else:
      if have:
        _log.info("%s: the server sends the whole file again", address)
      have, version = 0, _version_of(response, address)
      # First nothing is left of another version, then the partial file is said to be of this one.
      _discard(partial)
      files.write_json(_version_path(partial), dataclasses.asdict(version))
    _append(response, partial, have, version, progress, stop)
  if version.size is not None and _size(partial) != version.size:
    arrived = _size(partial)
    if arrived > version.size:
      _discard(partial)
    raise _Broken(f"the connection ended after {arrived} of {version.size} bytes")
  return version


def _append(response: requests.Response, partial: pathlib.Path, have: int, version: _Version,
            progress: Progress, stop: threading.Event | None) -> None:
  chunks = response.iter_content(_CHUNK)
  with writing(partial), open(partial, "ab" if have else "wb") as file:
    progress(have, version.size)
    while True:
      check_stop(stop)
      try:
        chunk = next(chunks, None)
      except requests.RequestException as error:  # An OSError, too; but not one of the file's.
        raise _Broken(f"the connection broke: {_why(error)}") from error
      if chunk is None:
        return
      file.write(chunk)
      have += len(chunk)
      progress(have, version.size)


def _request(session: requests.Session, method: str, address: str, headers: Any
             ) -> requests.Response:
  try:
    return session.request(method, address, headers=headers, stream=True, timeout=_TIMEOUT,
                           allow_redirects=True)
  except requests.RequestException as error:
    raise _Broken(f"no connection: {_why(error)}") from error


def _why(error: BaseException) -> str:
  """What the innermost error says: those around it repeat it, each with more around it."""
  while True:
    inner = next((cause for cause in (getattr(error, "reason", None), *error.args, error.__cause__)
                  if isinstance(cause, BaseException)), None)
    if inner is None:
      return getattr(error, "strerror", None) or str(error) or type(error).__name__
    error = inner


def _checked(response: requests.Response, address: str) -> requests.Response:
  """The answer, where it brings (a part of) the file as it is."""
  status = response.status_code
  if status in (requests.codes.ok, requests.codes.partial_content):
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
      raise errors.MissingDataError(
          f"cannot fetch {address}: the server sends it in the encoding {encoding!r}, which was "
          "not asked for; try another --base_url")
    return response
  problem = f"the server answers {status} {response.reason}"
  if 400 <= status < 500 and status not in _PASSING:
    raise errors.MissingDataError(
        f"cannot fetch {address}: {problem}; check --collections, --splits and --base_url")
  wait = response.headers.get("Retry-After", "")
  raise _Broken(problem, float(wait) if wait.isdecimal() else None)


def _continues(response: requests.Response, version: _Version, have: int) -> bool:
  """Whether the part that was sent is what follows the first `have` bytes of that version."""
  start, total = _content_range(response)
  tag = response.headers.get("ETag")
  return (start == have and (version.size is None or total == version.size) and
          (tag is None or not version.validator.startswith('"') or tag == version.validator))


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
  """First byte and whole size from `Content-Range: bytes first-last/size`."""
  unit, _, place = response.headers.get("Content-Range", "").partition(" ")
  first, _, rest = place.partition("-")
  total = rest.rpartition("/")[2]
  if unit != "bytes" or not first.isdecimal():
    return None, None
  return int(first), int(total) if total.isdecimal() else None


def _version_of(response: requests.Response, address: str) -> _Version:
  tag = response.headers.get("ETag", "")
  # A weak tag (W/"...") stands for equal meaning, not for equal bytes.
  validator = tag if tag.startswith('"') else response.headers.get("Last-Modified")
  # Google Cloud Storage, which holds the public archives, states x-goog-hash: crc32c=...,md5=...
  hashes = dict(entry.strip().partition("=")[::2]
                for entry in response.headers.get("x-goog-hash", "").split(","))
  return _Version(address, validator, _length(response), hashes.get("md5"))


def _length(response: requests.Response) -> int | None:
  value = response.headers.get("Content-Length", "")
  return int(value) if value.isdecimal() else None


def _version_path(partial: pathlib.Path) -> pathlib.Path:
  return partial.with_name(f"{partial.name}.json")


def _read_version(partial: pathlib.Path) -> _Version | None:
  try:
    return _Version(**files.read_json(_version_path(partial)))
  except (errors.DataError, errors.MissingDataError, TypeError):
    return None  # Then nothing is known of what the partial file holds, and it is not used.


def _discard(partial: pathlib.Path) -> None:
  with writing(partial):
    partial.unlink(missing_ok=True)


def _size(path: pathlib.Path) -> int:
  try:
    return path.stat().st_size
  except FileNotFoundError:
    return 0
