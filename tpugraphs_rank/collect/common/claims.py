"""Which machine measures which program, in a folder that several machines share, as over NFS.

A claim is a file `<program>.<number>.json` that only one machine can create. While it measures, the
machine renews the file's time of change. A claim that has not been renewed for a while belonged to
a machine that died: another one creates the claim with the next number. Claims are never removed,
so that two machines cannot replace the same claim. If a machine that seemed dead comes back, both
have measured the program, each in its own folder, and nothing is lost.
"""

from collections.abc import Iterable, Iterator, Sequence
import contextlib
import errno
import json
import os
import pathlib
import re
import secrets
import threading
from typing import NamedTuple

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import partials

_NAME = re.compile(r"(?P<stem>.+)\.(?P<number>\d{1,9})\.json")
# Errors of file systems without hard links.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
_RENEWALS = 5  # In the time after which a claim is stale.

WORKING, DONE, RELEASED = "working", "done", "released"


class _Claim(NamedTuple):
  """The latest claim of a program."""

  number: int
  path: pathlib.Path


class Claims:
  """The claims of one machine. Use it in a `with` statement, which renews them.

  Claims that are not finished at the end of the block are released.
  """

  def __init__(self, folder: pathlib.Path, machine: str, stale_s: float = 600.0):
    """Stores the settings.

    Args:
      folder: with the claims of all machines.
      machine: the name of this one. No other process may use it at the same time.
      stale_s: seconds without renewal after which a claim counts as that of a dead machine.
    """
    self._folder = folder
    self._machine = machine
    self._stale = stale_s
    self._held: dict[str, pathlib.Path] = {}
    self._done: set[str] = set()
    self._lock = threading.Lock()
    self._ended = threading.Event()
    self._thread: threading.Thread | None = None

  def __enter__(self) -> "Claims":
    with self._access():
      self._folder.mkdir(parents=True, exist_ok=True)
      partials.remove_leftovers(self._folder)
    self._thread = threading.Thread(target=self._renew, daemon=True)
    self._thread.start()
    return self

  def __exit__(self, *reason: object) -> None:
    self._ended.set()
    if self._thread is not None:
      self._thread.join()
    for stem in list(self._held):
      self.release(stem)
    with contextlib.suppress(OSError):
      self._clock.unlink()

  def take(self, stems: Iterable[str], most: int = 1, machines: int = 1) -> list[str]:
    """Claims the first programs that nobody measures or has measured.

    Args:
      stems: all programs.
      most: the maximum number of programs.
      machines: the number of machines; at most half of the share of each is claimed at a time, so
        that none has work left when the others have none.

    Raises:
      OutputError: the folder cannot be written.
    """
    with self._access():
      latest = self._latest()
      taken: list[str] = []
      free = self._free(stems, latest)
      most = max(min(most, len(free) // (2 * machines)), 1)
      for stem in free:
        if len(taken) == most:
          break
        if self._create(stem, 1 + (latest[stem].number if stem in latest else 0)):
          taken.append(stem)
      return taken

  def finish(self, stem: str) -> None:
    """Notes that this machine has measured a program that it had claimed."""
    self._end(stem, DONE)

  def release(self, stem: str) -> None:
    """Gives a program back that this machine has not measured."""
    self._end(stem, RELEASED)

  def free(self, stems: Iterable[str]) -> list[str]:
    """The programs that nobody measures or has measured.

    Raises:
      OutputError: the folder cannot be read or written.
    """
    with self._access():
      return self._free(stems, self._latest())

  def measured_elsewhere(self, stems: Iterable[str]) -> list[str]:
    """The programs that other machines measure right now.

    Raises:
      OutputError: the folder cannot be read or written.
    """
    with self._access():
      free = set(self._free(stems, self._latest()))
      return [stem for stem in stems
              if stem not in free and stem not in self._held and stem not in self._done]

  @contextlib.contextmanager
  def _access(self) -> Iterator[None]:
    """Holds the lock of this process; an error of the shared folder becomes a typed one."""
    try:
      with self._lock:
        yield
    except OSError as error:
      if isinstance(error, errors.TpuGraphsRankError):
        raise
      raise files.output_error(self._folder, error) from error

  def _free(self, stems: Iterable[str], latest: dict[str, _Claim]) -> list[str]:
    """The programs that can be claimed."""
    now = self._now()
    return [stem for stem in stems if stem not in latest
            or self._is_free(stem, latest[stem], now)]

  def _end(self, stem: str, state: str) -> None:
    with self._lock:
      files.write_json(self._held.pop(stem), {"machine": self._machine, "state": state})

  def _latest(self) -> dict[str, _Claim]:
    latest: dict[str, _Claim] = {}
    with os.scandir(self._folder) as entries:
      for entry in entries:
        match = _NAME.fullmatch(entry.name)
        if match is None or entry.name.startswith("."):
          continue
        number = int(match["number"])
        if match["stem"] not in latest or number > latest[match["stem"]].number:
          latest[match["stem"]] = _Claim(number, pathlib.Path(entry.path))
    return latest

  def _state(self, path: pathlib.Path) -> dict[str, object]:
    """The contents of a claim; empty while another machine writes it, or if it is damaged."""
    try:
      stored = files.read_json(path)
    except (errors.DataError, errors.MissingDataError):
      return {}
    return stored if isinstance(stored, dict) else {}

  def _is_free(self, stem: str, claim: _Claim, now: float) -> bool:
    if stem in self._held or stem in self._done:
      return False
    stored = self._state(claim.path)
    if stored.get("state") == DONE:
      self._done.add(stem)  # It stays so; its file need not be read again.
      return False
    if stored.get("state") == RELEASED or stored.get("machine") == self._machine:
      return True  # Its own: left behind by a process of this machine that was killed.
    with contextlib.suppress(FileNotFoundError):
      return claim.path.stat().st_mtime < now - self._stale
    return True

  def _create(self, stem: str, number: int) -> bool:
    """Creates a claim; False if another machine was faster."""
    path = self._folder / f"{stem}.{number}.json"
    content = json.dumps({"machine": self._machine, "state": WORKING}).encode()
    try:
      # A claim is complete as soon as it exists: a process that is killed leaves no empty one.
      with partials.create(path) as file:
        try:
          file.write(content)
          file.flush()
          os.link(file.name, path)
        finally:
          os.unlink(file.name)
    except FileExistsError:
      return False
    except OSError as error:
      if error.errno not in _NO_LINKS:
        raise
      try:
        with open(path, "xb") as file:
          file.write(content)
      except FileExistsError:
        return False
    self._held[stem] = path
    return True

  @property
  def _clock(self) -> pathlib.Path:
    return self._folder / f".{self._machine}.clock"

  def _now(self) -> float:
    """The time of the file server, which dates the claims: clocks of machines differ."""
    self._clock.write_text(secrets.token_hex(4), encoding="utf-8")
    return self._clock.stat().st_mtime

  def _renew(self) -> None:
    while not self._ended.wait(self._stale / _RENEWALS):
      with self._lock, contextlib.suppress(OSError):
        for path in self._held.values():
          os.utime(path)  # Without times: the file server's time.


def check_machine(name: str) -> None:
  """Raises ConfigError unless a machine's name can be the name of a folder."""
  if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
    raise errors.ConfigError(
        f"--machine={name!r}: expected 1 to 64 letters, digits, dots, hyphens and underscores")


def common(stems: Sequence[str], count: int) -> list[str]:
  """The programs that every machine measures: `count` of them, evenly spread over the plan."""
  count = min(count, len(stems))
  return [stems[(2 * place + 1) * len(stems) // (2 * count)] for place in range(count)]
