"""Packed collections: one memory-mapped file per graph, written once and used by all readers.

  <collection's folder or data root>/packed/<kind>_<source>[_<search>]/<split>/
      <graph>.pack   see `data.packed_graphs`
      index.json     the graphs of the split, written once all of them are packed
      .lock          locks of the graphs that some process is packing

A graph is packed again if its source or the version of the format has changed. The sources may be
removed once a split is packed.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import fcntl
import functools
import logging
import pathlib
import re
from typing import NamedTuple
import zlib

import tqdm

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import work
from tpugraphs_rank.data import packed_format
from tpugraphs_rank.data import packed_graphs
from tpugraphs_rank.data import registry

_logger = logging.getLogger(__name__)

_INDEX = "index.json"
_NOT_PACKED = "is not packed yet"


class Packed(NamedTuple):
  """The result of `pack`.

  Attributes:
    folder: the folder of the split's packed graphs.
    graphs: number of packed graphs.
    written: number of graphs packed by this call.
    nbytes: total size of the packed graphs, in bytes.
    failed: the graphs that could not be packed. The split cannot be used then.
  """

  folder: pathlib.Path
  graphs: int
  written: int
  nbytes: int
  failed: tuple[work.Failure, ...] = ()


def folder_of(collection: registry.Collection, split: str,
              data_root: files.PathLike | None = None,
              packed_root: files.PathLike | None = None) -> pathlib.Path:
  """The folder of the packed graphs of a split.

  Args:
    collection: the collection.
    split: one of its splits.
    data_root: as in `load_collection`.
    packed_root: the folder of packed collections. Default: `packed` next to the graphs.
  """
  base = packed_root or (collection.folder or registry.resolve_data_root(data_root)) / "packed"
  name = re.sub(r"[^\w.-]", "_", collection.name)
  return files.expanded(base) / name / split


def is_there(folder: pathlib.Path) -> bool:
  """Whether the folder of a split's packed graphs exists, complete or not."""
  return folder.is_dir()


def open_split(folder: pathlib.Path, sources: Sequence[pathlib.Path]
               ) -> list[packed_format.Reader]:
  """Opens the packed graphs of a split. Reads their tables and compares them with the sources.

  Args:
    folder: as `folder_of` returns it.
    sources: the `.npz` files of the split; empty: they were removed, and the packed graphs replace
      them.

  Returns:
    One reader per source, in the same order; without sources in the order of the names.

  Raises:
    MissingDataError: the split is not completely packed.
    DataError: a file is damaged, or its source has changed. The message gives the number of files.
  """
  if not sources:
    return _open_without_sources(folder)
  readers: list[packed_format.Reader] = []
  wrong = []
  for source in sources:
    reader = _open_current(source, _target(folder, source))
    if isinstance(reader, str):
      wrong.append((source, reader))
    else:
      readers.append(reader)
  if wrong:
    source, problem = wrong[0]
    missing = all(problem == _NOT_PACKED for _, problem in wrong)
    raise (errors.MissingDataError if missing else errors.DataError)(
        f"{len(wrong)} of {len(sources)} packed graphs in {folder} cannot be used: "
        f"{source.name} {problem}{', ...' if len(wrong) > 1 else ''}")
  return readers


def _open_without_sources(folder: pathlib.Path) -> list[packed_format.Reader]:
  keys = _read_index(folder)
  readers = [packed_format.Reader(folder / f"{name}{packed_graphs.SUFFIX}") for name in keys]
  for reader, key in zip(readers, keys.values()):
    if reader.meta["source"] != key:
      raise errors.DataError(
          f"{reader.path} has another source than {folder / _INDEX} states: packing was "
          f"interrupted; restore the graphs' .npz files, and run {commands.command('pack')} again")
  return readers


def _read_index(folder: pathlib.Path) -> dict[str, str]:
  """The key of the source of each graph of a split."""
  path = folder / _INDEX
  index = files.read_json(path)
  keys = index.get("graphs") if isinstance(index, dict) else None
  if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys.values()):
    raise errors.DataError(f"{path} is damaged; remove it, and run {commands.command('pack')} "
                           "again for its collection")
  return dict(sorted(keys.items()))


def _target(folder: pathlib.Path, source: pathlib.Path) -> pathlib.Path:
  return folder / f"{source.stem}{packed_graphs.SUFFIX}"


def _open_current(source: pathlib.Path, target: pathlib.Path) -> packed_format.Reader | str:
  """The packed graph of a source, or the reason why it cannot be used."""
  key = packed_graphs.source_key(source)
  try:
    reader = packed_format.Reader(target)
  except errors.MissingDataError:
    return _NOT_PACKED
  except errors.DataError as error:
    return f"must be packed again: {error}"
  if reader.meta.get("source") != key:
    return "has changed since it was packed"
  return reader


class Part(NamedTuple):
  """A split to pack.

  Attributes:
    split: its name.
    sources: its `.npz` files.
    folder: as `folder_of` returns it.
  """

  split: str
  sources: Sequence[pathlib.Path]
  folder: pathlib.Path


def pack(collection: registry.Collection, split: str, sources: Sequence[pathlib.Path],
         folder: pathlib.Path, strict: bool = True) -> Packed:
  """Packs one split; see `pack_splits`."""
  return pack_splits(collection, [Part(split, sources, folder)], strict)[0]


def pack_splits(collection: registry.Collection, parts: Sequence[Part], strict: bool = True,
                engine: work.Engine = work.HERE) -> list[Packed]:
  """Packs the graphs that are not packed yet or have changed.

  It may be interrupted, and several processes may call it at the same time.

  Args:
    collection: the collection.
    parts: the splits.
    strict: whether a damaged source raises. Otherwise the others are packed, and only a split
      without a sound source raises.
    engine: where the graphs are packed.

  Returns:
    One result for each split.

  Raises:
    DataError: a source is damaged or of another kind, or two sources have the same name.
    OutputError: a folder cannot be written.
  """
  for part in parts:
    _check_names(collection, part)
  # In this process, one split after the other is completed. Elsewhere, all of them are one job.
  jobs = [[part] for part in parts] if engine.in_process else [list(parts)]
  results = [result for job in jobs for result in _pack_job(collection, job, strict, engine)]
  for result in results:
    if result.failed and not result.graphs:
      raise work.nothing_left([failure for one in results for failure in one.failed])
  return results


def _pack_job(collection: registry.Collection, parts: Sequence[Part], strict: bool,
              engine: work.Engine) -> list[Packed]:
  waiting = [(source, part.folder) for part in parts for source in part.sources]
  done: dict[tuple[pathlib.Path, pathlib.Path], work.Outcome[_Done | None]] = {}
  splits = " ".join(part.split for part in parts)
  with tqdm.tqdm(total=len(waiting), desc=f"packing {collection.name} {splits}", unit="graph",
                 disable=None, leave=False) as bar:
    # First pack the graphs that no other process is packing; then wait for the others.
    for wait in (False, True):
      busy = []
      task = _Pack(collection.name, collection.kind, wait)
      outcomes = engine.map(task, waiting, lambda item: work.file_size(item[0])) if waiting else ()
      for item, outcome in zip(waiting, outcomes):
        if strict:
          outcome.get()
        if outcome.value is None and outcome.error is None:
          busy.append(item)
        else:
          done[item] = outcome
          bar.update()
      waiting = busy
  return [_finish(collection, part, [done[source, part.folder] for source in part.sources])
          for part in parts]


def _check_names(collection: registry.Collection, part: Part) -> None:
  by_name = {source.stem: source for source in part.sources}
  if len(by_name) != len(part.sources):
    twice = next(source for source in part.sources if by_name[source.stem] != source)
    raise errors.DataError(
        f"two files of {collection.name} {part.split} are named {twice.name}, so they would have "
        "the same packed file; rename one of them")


def _finish(collection: registry.Collection, part: Part,
            outcomes: "Sequence[work.Outcome[_Done | None]]") -> Packed:
  """Writes the index of a split if all of its graphs are packed."""
  failed = tuple(work.Failure(str(source), outcome.error)
                 for source, outcome in zip(part.sources, outcomes) if outcome.error is not None)
  done = {source.stem: outcome.value for source, outcome in zip(part.sources, outcomes)
          if outcome.value is not None}
  if not failed:  # The index states that the split is complete.
    files.write_json(part.folder / _INDEX, {
        "collection": collection.name, "split": part.split,
        "graphs": {name: done[name].key for name in sorted(done)}})
  return Packed(part.folder, len(done), sum(one.is_new for one in done.values()),
                sum(one.nbytes for one in done.values()), failed)


class _Done(NamedTuple):
  """A packed graph.

  Attributes:
    key: of its source.
    is_new: whether it had to be packed.
    nbytes: size of its file.
  """

  key: str
  is_new: bool
  nbytes: int


@dataclasses.dataclass(frozen=True)
class _Pack(work.Task[tuple[pathlib.Path, pathlib.Path], _Done | None]):
  """Packs a source into a folder. Returns None if another process is packing it.

  Attributes:
    collection, kind: name and kind of the collection.
    wait: whether to wait for another process instead.
  """

  collection: str
  kind: str
  wait: bool

  @functools.cached_property
  def _locks(self) -> "dict[pathlib.Path, _Locks]":
    return {}

  def __call__(self, item: tuple[pathlib.Path, pathlib.Path]) -> _Done | None:
    source, folder = item
    if folder not in self._locks:
      self._locks[folder] = _Locks(folder)
    with self._locks[folder].hold(source.stem, self.wait) as held:
      if not held:
        return None
      reader, is_new = self._packed(source, _target(folder, source))
    return _Done(reader.meta["source"], is_new, reader.path.stat().st_size)

  def _packed(self, source: pathlib.Path, target: pathlib.Path
              ) -> tuple[packed_format.Reader, bool]:
    """The packed graph of a source, and whether this call had to pack it."""
    current = _open_current(source, target)
    if isinstance(current, packed_format.Reader):
      return current, False
    if current != _NOT_PACKED:
      _logger.info("%s %s; packing it again", source, current)
    packed_graphs.pack_graph(source, target)
    reader = packed_format.Reader(target)
    if reader.meta["kind"] != self.kind:
      target.unlink()
      raise errors.DataError(
          f"{source} is a graph of kind {reader.meta['kind']}, but collection {self.collection} "
          f"holds kind {self.kind}: move the file elsewhere")
    return reader, True

  def close(self) -> None:
    while self._locks:
      self._locks.popitem()[1].close()


class _Locks:
  """Named locks between processes. The system releases the locks of a process that ends.

  Locks belong to the process: they do not exclude another thread of the same process.
  """

  def __init__(self, folder: pathlib.Path):
    """Opens the file of the locks.

    Raises:
      OutputError: the folder cannot be written.
    """
    path = folder / ".lock"
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise errors.OutputError(
          f"cannot write {path}: {error.strerror or error}; choose a folder that you can "
          "write to with --output") from error
    self._file = files.open_to_append(path)

  def close(self) -> None:
    """Releases all locks."""
    self._file.close()

  @contextlib.contextmanager
  def hold(self, name: str, wait: bool) -> Iterator[bool]:
    """Holds a lock. Without `wait`, yields False if another process holds it."""
    # Each name locks one byte of the file. The byte need not exist.
    place = zlib.crc32(name.encode())
    try:
      fcntl.lockf(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, place)
    except (BlockingIOError, PermissionError):
      yield False
      return
    try:
      yield True
    finally:
      fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)


def check(folder: pathlib.Path, sources: Sequence[pathlib.Path]) -> list[str]:
  """Reads all packed graphs of a split, and verifies all checksums.

  Args:
    folder: as `folder_of` returns it.
    sources: as in `open_split`.

  Returns:
    The problems, one sentence each; empty if there are none.

  Raises:
    MissingDataError: there are no sources, and the split is not completely packed.
  """
  targets: dict[pathlib.Path, pathlib.Path | None] = {
      _target(folder, source): source for source in sources}
  if not sources:
    targets = {folder / f"{name}{packed_graphs.SUFFIX}": None for name in _read_index(folder)}
  problems = []
  for target, source in tqdm.tqdm(targets.items(), desc=f"checking {folder.name}", unit="graph",
                                  disable=None, leave=False):
    try:
      reader = packed_format.Reader(target)
      reader.verify()
      if source is not None and reader.meta.get("source") != packed_graphs.source_key(source):
        problems.append(f"{source} has changed since it was packed")
    except (errors.DataError, errors.MissingDataError) as error:
      problems.append(str(error))
  return problems
