"""Transfers one file over HTTP. Resumes partial transfers, and never mixes two versions."""

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
import socket
import threading
from typing import Any
import urllib.parse

import requests

from tpugraphs_rank import errors
from tpugraphs_rank import files

# Maximum seconds to connect, and between two chunks of a response.
_TIMEOUT = (20, 60)
_ATTEMPTS = 6
# Seconds before the second attempt. The wait doubles with each attempt, up to the longest.
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 60.0
_CHUNK = 1 << 16
# Temporary errors among the status codes 4xx.
_TEMPORARY = (requests.codes.request_timeout, requests.codes.too_many_requests)
# With compression, the parts received by two attempts would not be parts of one file.
_UNCOMPRESSED = {"Accept-Encoding": "identity"}

# Called with the position and the size, in bytes; the size is None while it is unknown.
Progress = Callable[[int, int | None], None]

_log = logging.getLogger(__name__)


class Stopped(Exception):
  """The caller's event requested a stop; the data received so far is kept."""


class HostError(errors.MissingDataError):
  """The name of a host cannot be resolved, so that no file can be fetched from it."""


class _TemporaryError(Exception):
  """An attempt failed, but the next one may succeed.

  Attributes:
    wait: seconds that the server asks to wait; None: not stated.
    unresolved: the host whose name could not be resolved; "" if another problem occurred.
  """

  def __init__(self, problem: str, wait: float | None = None, unresolved: str = ""):
    super().__init__(problem)
    self.wait = wait
    self.unresolved = unresolved


@dataclasses.dataclass(frozen=True)
class _Version:
  """The version of the remote file that a partial file belongs to.

  Attributes:
    address: the address of the file.
    validator: strong ETag or modification time, which identifies the version; None: unknown.
    size: size in bytes; None: unknown.
    md5: MD5 in base64; None if the server does not state it.
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
  """Converts file system errors to an OutputError about `path`."""
  try:
    yield
  except errors.TpuGraphsRankError:  # An OutputError is an OSError as well.
    raise
  except OSError as error:
    raise errors.OutputError(
        f"cannot write {path}: {error.strerror or error}; check space and permissions there, or "
        "choose another --data_root, and run the same command again") from error


def digest(path: files.PathLike, progress: Progress | None = None,
           stop: threading.Event | None = None, algorithm: str = "sha256") -> str:
  """The checksum of a file's content, in hexadecimal.

  Raises:
    MissingDataError: the file cannot be read.
    Stopped: `stop` was set.
  """
  # It protects against transfer errors, not against an adversary.
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
  """The file in which `fetch` keeps the part of `path` received so far."""
  path = pathlib.Path(path)
  return path.with_name(f"{path.name}.partial")


def remote_size(address: str, stop: threading.Event | None = None, attempts: int = _ATTEMPTS
                ) -> int | None:
  """The size of a remote file in bytes; None if the server does not report it.

  Args:
    address: http:// or https://.
    stop: another thread can set it to stop the transfer.
    attempts: maximum number of attempts.

  Raises:
    HostError: the name of the server cannot be resolved.
    MissingDataError: there is no such file, or the server cannot be reached.
    Stopped: `stop` was set.
  """
  def ask(session: requests.Session) -> int | None:
    response = _request(session, "HEAD", address, _UNCOMPRESSED)
    with response:
      # Not every server supports HEAD; GET will return the size.
      return None if response.status_code in (
          requests.codes.not_allowed, requests.codes.not_implemented) else (
              _length(_checked(response, address)))

  return _with_retries(ask, address, stop, lambda: 0, "", attempts)


def fetch(address: str, path: files.PathLike, progress: Progress | None = None,
          stop: threading.Event | None = None) -> None:
  """Downloads a file. Resumes where an earlier call, attempt or process stopped.

  The part received so far is in `<path>.partial`, and its version in `<path>.partial.json`. A
  partial file is continued only if the server identifies the version (by a strong ETag or a
  modification time) and confirms that it still has it (`If-Range`). The caller ensures that nobody
  else fetches to the same path at the same time.

  Args:
    address: http:// or https://.
    path: the target file. It appears once it is complete; its folder exists.
    progress: called for each chunk.
    stop: another thread can set it to stop the transfer.

  Raises:
    HostError: the name of the server cannot be resolved, in several attempts in a row.
    MissingDataError: the server rejects the request, or several attempts in a row made no progress.
    DataError: the file does not have the MD5 that the server states; it is renamed.
    OutputError: the file cannot be written.
    Stopped: `stop` was set.
  """
  path = pathlib.Path(path)
  partial = partial_path(path)

  def receive(session: requests.Session) -> _Version:
    return _receive(session, address, partial, progress or (lambda position, size: None), stop)

  version = _with_retries(receive, address, stop, lambda: _size(partial),
                          f"the part received so far is in {partial}; ")
  if version.md5 is not None:
    actual = base64.b64encode(bytes.fromhex(digest(partial, None, stop, "md5"))).decode()
    if actual != version.md5:
      raise errors.DataError(
          f"{address} was received with MD5 {actual} (base64), but the server states "
          f"{version.md5}; renamed to {set_aside(partial, path)}: run the same command again")
  with writing(path):
    with open(partial, "rb+") as file:
      os.fsync(file.fileno())
    os.replace(partial, path)
    _version_path(partial).unlink(missing_ok=True)


def set_aside(source: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
  """Renames an untrusted file to `<path>.rejected`, which nothing reads.

  If a file with other content has that name, a number is appended: it may be the user's only copy.
  """
  with writing(source):
    for number in itertools.count(1):
      rejected = path.with_name(f"{path.name}.rejected{number if number > 1 else ''}")
      if not rejected.exists() or filecmp.cmp(source, rejected, shallow=False):
        os.replace(source, rejected)
        return rejected
  raise AssertionError("unreachable")


def rejected_paths(path: pathlib.Path) -> list[pathlib.Path]:
  """The files that `set_aside` has created for `path`."""
  return sorted(path.parent.glob(f"{glob.escape(path.name)}.rejected*"))


def _with_retries(action: Callable[[requests.Session], Any], address: str,
                  stop: threading.Event | None, received: Callable[[], int], kept: str,
                  attempts: int = _ATTEMPTS) -> Any:
  """The result of the action. Retries temporary failures; progress resets the attempts."""
  failures, furthest = 0, received()
  waiting = stop or threading.Event()
  with requests.Session() as session:
    while True:
      check_stop(stop)
      try:
        return action(session)
      except _TemporaryError as error:
        if received() > furthest:
          failures, furthest = 0, received()
        failures += 1
        if failures == attempts and error.unresolved:
          raise HostError(
              f"cannot fetch {address}: {error}; {kept}the name {error.unresolved} cannot be "
              "resolved: check the network, its name server and the variables HTTP_PROXY and "
              "HTTPS_PROXY, or give another --base_url; archives that you put into "
              "downloads/ under the data root yourself are used, too") from error
        if failures == attempts:
          raise errors.MissingDataError(
              f"cannot fetch {address}: {error} (attempts in a row: {failures}); {kept}check the "
              "connection and run the same command again, which resumes from there") from error
        seconds = _FIRST_WAIT * 2 ** (failures - 1) if error.wait is None else error.wait
        seconds = min(seconds, _LONGEST_WAIT)
        _log.info("%s: %s; next attempt in %.0f s", address, error, seconds)
        waiting.wait(seconds)


def _receive(session: requests.Session, address: str, partial: pathlib.Path, progress: Progress,
             stop: threading.Event | None) -> _Version:
  """Makes one attempt to receive the rest of a file into its partial file."""
  version = _read_version(partial)
  have = _size(partial)
  if version is None or version.address != address or version.validator is None or (
      version.size is not None and have > version.size):
    have = 0
  elif have == version.size:
    return version
  headers = dict(_UNCOMPRESSED)
  if have and version is not None and version.validator is not None:
    headers.update({"Range": f"bytes={have}-", "If-Range": version.validator})
  response = _request(session, "GET", address, headers)
  with response:
    if response.status_code == requests.codes.requested_range_not_satisfiable and have:
      _discard(partial)
      raise _TemporaryError("the server has no such part of the file; starting again")
    _checked(response, address)
    if response.status_code == requests.codes.partial_content:
      if not have or version is None or not _continues(response, version, have):
        _discard(partial)
        raise _TemporaryError("the server sent another part than requested; starting again")
      total = version.size if version.size is not None else _content_range(response)[1]
      version = dataclasses.replace(version, size=total)
    else:
      if have:
        _log.info("%s: the server sends the whole file again", address)
      have, version = 0, _version_of(response, address)
      # Remove the data of another version before recording the new version.
      _discard(partial)
      files.write_json(_version_path(partial), dataclasses.asdict(version))
    _append(response, partial, have, version, progress, stop)
  if version.size is not None and _size(partial) != version.size:
    received = _size(partial)
    if received > version.size:
      _discard(partial)
    raise _TemporaryError(f"the connection ended after {received} of {version.size} bytes")
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
      except requests.RequestException as error:  # Also an OSError, but not one of the file.
        raise _TemporaryError(f"the connection broke: {_why(error)}") from error
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
    raise _TemporaryError(
        f"no connection: {_why(error)}", unresolved=_unresolved(error, address)) from error


def _unresolved(error: requests.RequestException, address: str) -> str:
  """The host whose name could not be resolved; "" if the error has another cause."""
  if not any(isinstance(cause, socket.gaierror) for cause in _causes(error)):
    return ""
  if isinstance(error, requests.exceptions.ProxyError):
    return "of the proxy"
  return urllib.parse.urlsplit(address).hostname or address


def _causes(error: BaseException) -> Iterator[BaseException]:
  """An error and all errors that it wraps."""
  waiting: list[Any] = [error]
  seen: set[int] = set()
  while waiting:
    cause = waiting.pop()
    if isinstance(cause, BaseException) and id(cause) not in seen:
      seen.add(id(cause))
      yield cause
      waiting += [getattr(cause, "reason", None), cause.__cause__, cause.__context__, *cause.args]


def _why(error: BaseException) -> str:
  """The message of the innermost error; the messages of outer errors only repeat it."""
  while True:
    inner = next((cause for cause in (getattr(error, "reason", None), *error.args, error.__cause__)
                  if isinstance(cause, BaseException)), None)
    if inner is None:
      return getattr(error, "strerror", None) or str(error) or type(error).__name__
    error = inner


def _checked(response: requests.Response, address: str) -> requests.Response:
  """Returns the response if it contains (part of) the uncompressed file; raises otherwise."""
  status = response.status_code
  if status in (requests.codes.ok, requests.codes.partial_content):
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
      raise errors.MissingDataError(
          f"cannot fetch {address}: the server sends it in the encoding {encoding!r}, which was "
          "not requested; try another --base_url")
    return response
  problem = f"the server answers {status} {response.reason}"
  if 400 <= status < 500 and status not in _TEMPORARY:
    raise errors.MissingDataError(
        f"cannot fetch {address}: {problem}; check --collections, --splits and --base_url")
  wait = response.headers.get("Retry-After", "")
  raise _TemporaryError(problem, float(wait) if wait.isdecimal() else None)


def _continues(response: requests.Response, version: _Version, have: int) -> bool:
  """Whether the response continues that version after its first `have` bytes."""
  start, total = _content_range(response)
  tag = response.headers.get("ETag")
  return (start == have and (version.size is None or total == version.size) and
          (tag is None or not (version.validator or "").startswith('"')
           or tag == version.validator))


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
  """First byte and total size from `Content-Range: bytes first-last/size`."""
  unit, _, place = response.headers.get("Content-Range", "").partition(" ")
  first, _, rest = place.partition("-")
  total = rest.rpartition("/")[2]
  if unit != "bytes" or not first.isdecimal():
    return None, None
  return int(first), int(total) if total.isdecimal() else None


def _version_of(response: requests.Response, address: str) -> _Version:
  tag = response.headers.get("ETag", "")
  # A weak tag (W/"...") promises equal meaning, not equal bytes.
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
    return None  # The version of the partial file is unknown, so the file is not used.


def _discard(partial: pathlib.Path) -> None:
  with writing(partial):
    partial.unlink(missing_ok=True)


def _size(path: pathlib.Path) -> int:
  try:
    return path.stat().st_size
  except FileNotFoundError:
    return 0
