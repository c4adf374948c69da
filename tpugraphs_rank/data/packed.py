"""Packed collections: one mapped file a graph, made once, used wherever the graphs are read.

  <collection's folder or data root>/packed/<kind>_<source>[_<search>]/<split>/
      <graph>.pack   see `data.packed_graphs`
      index.json     the graphs of the split, written once all of them are packed
      .lock          which graphs some process packs at the moment

A graph is packed anew where its source, or the version of the format, is another one than that of
its file. The sources may be removed once a split is packed.
"""

from collections.abc import Iterator, Sequence
import contextlib
import fcntl
import logging
import pathlib
import re
from typing import NamedTuple
import zlib

import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import packed_format
from tpugraphs_rank.data import packed_graphs
from tpugraphs_rank.data import registry

_logger = logging.getLogger(__name__)

_INDEX = "index.json"
_MISSING = "is not packed yet"


class Packed(NamedTuple):
  """What `pack` did.

  Attributes:
    folder: where the packed graphs of the split lie.
    graphs: how many there are.
    written: how many of them were packed in this call.
    nbytes: bytes of all of them.
  """

  folder: pathlib.Path
  graphs: int
  written: int
  nbytes: int


def folder_of(collection: registry.Collection, split: str,
              data_root: files.PathLike | None = None,
              packed_root: files.PathLike | None = None) -> pathlib.Path:
  """Where the packed graphs of a split lie.

  Args:
    collection: the collection.
    split: one of its splits.
    data_root: as of `load_collection`.
    packed_root: the folder of packed collections, instead of `packed` beside the graphs.
  """
  base = packed_root or (collection.folder or registry.resolve_data_root(data_root)) / "packed"
  name = re.sub(r"[^\w.-]", "_", collection.name)
  return pathlib.Path(base).expanduser() / name / split


def is_there(folder: pathlib.Path) -> bool:
  """Whether a split was packed there, as a whole or in part, now or once."""
  return folder.is_dir()


def open_split(folder: pathlib.Path, sources: Sequence[pathlib.Path]
               ) -> list[packed_format.Reader]:
  """Opens the packed graphs of a split; their tables are read, and compared with the sources.

  Args:
    folder: of `folder_of`.
    sources: the `.npz` files of the split; none: they were removed, and what was packed stands
      for them.

  Returns:
    One for each source, in their order; without sources in the order of the names.

  Raises:
    MissingDataError: the split is not packed as a whole.
    DataError: a file is damaged, or not of its source as that is now. The message says how many.
  """
  if not sources:
    return _open_alone(folder)
  found, wrong = [], []
  for source in sources:
    reader, problem = _look(source, _target(folder, source))
    if problem is not None:
      wrong.append((source, problem))
    else:
      found.append(reader)
  if wrong:
    source, problem = wrong[0]
    missing = all(problem == _MISSING for _, problem in wrong)
    raise (errors.MissingDataError if missing else errors.DataError)(
        f"{len(wrong)} of {len(sources)} packed graphs in {folder} cannot be used: "
        f"{source.name} {problem}{', ...' if len(wrong) > 1 else ''}")
  return found


def _open_alone(folder: pathlib.Path) -> list[packed_format.Reader]:
  keys = _read_index(folder)
  found = [packed_format.Reader(folder / f"{name}{packed_graphs.SUFFIX}") for name in keys]
  for reader, key in zip(found, keys.values()):
    if reader.meta["source"] != key:
      raise errors.DataError(
          f"{reader.path} is of another source than {folder / _INDEX} says: packing was "
          "interrupted; bring back the graphs' .npz files, and run `python -m tpugraphs_rank.cli.pack` "
          "again")
  return found


def _read_index(folder: pathlib.Path) -> dict[str, str]:
  """For each graph of a split the key of its source."""
  path = folder / _INDEX
  found = files.read_json(path)
  keys = found.get("graphs") if isinstance(found, dict) else None
  if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys.values()):
    raise errors.DataError(f"{path} is damaged; remove it, and run `python -m tpugraphs_rank.cli.pack` "
                           "again for its collection")
  return dict(sorted(keys.items()))


def _target(folder: pathlib.Path, source: pathlib.Path) -> pathlib.Path:
  return folder / f"{source.stem}{packed_graphs.SUFFIX}"


def _look(source: pathlib.Path, target: pathlib.Path
          ) -> tuple[packed_format.Reader | None, str | None]:
  """The packed graph of a source, or why it cannot be used."""
  key = packed_graphs.source_key(source)
  try:
    reader = packed_format.Reader(target)
  except errors.MissingDataError:
    return None, _MISSING
  except errors.DataError as error:
    return None, f"is to be packed anew: {error}"
  if reader.meta.get("source") != key:
    return None, "has changed since it was packed"
  return reader, None


def pack(collection: registry.Collection, split: str, sources: Sequence[pathlib.Path],
         folder: pathlib.Path) -> Packed:
  """Packs what is not packed yet, or has changed; may be interrupted, and run by several processes.

  Args:
    collection: the collection.
    split: the split.
    sources: its `.npz` files.
    folder: of `folder_of`.

  Raises:
    DataError: a source is damaged or of another kind, or two have the same name.
    OutputError: the folder cannot be written.
  """
  by_name = {source.stem: source for source in sources}
  if len(by_name) != len(sources):
    twice = next(source for source in sources if by_name[source.stem] != source)
    raise errors.DataError(
        f"two files of {collection.name} {split} are named {twice.name}, so one packed file would "
        "stand for both; rename one")
  keys: dict[str, str] = {}
  written, nbytes = 0, 0
  with _Locks(folder) as locks, tqdm.tqdm(
      total=len(sources), desc=f"packing {collection.name} {split}", unit="graph", disable=None,
      leave=False) as bar:
    waiting = list(sources)
    # First those that no other process is at; then the rest, once that process is done.
    for wait in (False, True):
      busy = []
      for source in waiting:
        with locks.hold(source.stem, wait) as held:
          if not held:
            busy.append(source)
            continue
          reader, new = _packed(collection, source, _target(folder, source))
        keys[source.stem] = reader.meta["source"]
        written += new
        nbytes += reader.path.stat().st_size
        bar.update()
      waiting = busy
    files.write_json(folder / _INDEX, {
        "collection": collection.name, "split": split, "graphs": dict(sorted(keys.items()))})
  return Packed(folder, len(sources), written, nbytes)


def _packed(collection: registry.Collection, source: pathlib.Path, target: pathlib.Path
            ) -> tuple[packed_format.Reader, bool]:
  """The packed graph of a source, packed now if need be; whether it was."""
  reader, problem = _look(source, target)
  if problem is None:
    return reader, False
  if problem != _MISSING:
    _logger.info("%s %s; it is packed anew", source, problem)
  packed_graphs.pack_graph(source, target)
  reader = packed_format.Reader(target)
  if reader.meta["kind"] != collection.kind:
    target.unlink()
    raise errors.DataError(
        f"{source} is a graph of kind {reader.meta['kind']}; collection {collection.name} holds "
        f"kind {collection.kind}: move the file elsewhere")
  return reader, True


class _Locks:
  """Locks by name among processes; the system takes them from a process that ends.

  They belong to the process: two of its threads do not keep each other out.
  """

  def __init__(self, folder: pathlib.Path):
    self._path = folder / ".lock"

  def __enter__(self) -> "_Locks":
    try:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      self._file = open(self._path, "ab")
    except OSError as error:
      raise errors.OutputError(
          f"cannot write {self._path}: {error.strerror or error}; choose a folder that you can "
          "write to with --output") from error
    return self

  def __exit__(self, *_) -> None:
    self._file.close()

  @contextlib.contextmanager
  def hold(self, name: str, wait: bool) -> Iterator[bool]:
    """Holds a lock; yields False where another process does and this one is not to wait."""
    # Each name is a byte of the file, which need not have it.
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
  """Reads all packed graphs of a split, and compares all checksums.

  Args:
    folder: of `folder_of`.
    sources: as of `open_split`.

  Returns:
    What is wrong with the graphs, one sentence each; empty where all is well.

  Raises:
    MissingDataError: there are no sources, and the split is not packed as a whole.
  """
  targets = {_target(folder, source): source for source in sources} or {
      folder / f"{name}{packed_graphs.SUFFIX}": None for name in _read_index(folder)}
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
