"""A split of a collection as a lazy sequence of graphs."""

from collections.abc import Iterator, Sequence
import logging
import pathlib
import shlex
from typing import overload

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import packed as packed_lib
from tpugraphs_rank.data import packed_format
from tpugraphs_rank.data import packed_graphs
from tpugraphs_rank.data import registry

_logger = logging.getLogger(__name__)


class Split(Sequence[graphs.ConfiguredGraph]):
  """The graphs of one split, ordered by name. Each graph is read on access.

  Attributes:
    collection: the collection.
    split: "train", "valid", "test", or "all" for a collection that is not divided by program.
    paths: the files.
    packs: the packed graphs that are read instead of `paths`, in the same order; or None.
    missing: number of graphs that the split should also have; not 0 only if it was loaded with
      `partial`.
  """

  def __init__(self, collection: registry.Collection, split: str, paths: Sequence[pathlib.Path],
               packs: Sequence[packed_format.Reader] | None = None, missing: int = 0):
    self.collection = collection
    self.split = split
    self.paths: tuple[pathlib.Path, ...] = tuple(paths)
    self.packs = None if packs is None else tuple(packs)
    self.missing = missing

  def __repr__(self) -> str:
    return f"<Split {self.collection.name} {self.split}: {len(self)} graphs>"

  def __len__(self) -> int:
    return len(self.paths)

  @overload
  def __getitem__(self, index: int) -> graphs.ConfiguredGraph: ...

  @overload
  def __getitem__(self, index: slice) -> "Split": ...

  def __getitem__(self, index: int | slice) -> "graphs.ConfiguredGraph | Split":
    if isinstance(index, slice):
      return Split(self.collection, self.split, self.paths[index],
                   None if self.packs is None else self.packs[index])
    graph = (npz.load_graph(self.paths[index]) if self.packs is None
             else packed_graphs.open_graph(self.packs[index]))
    if not isinstance(graph, graphs.ConfiguredGraph) or graph.kind != self.collection.kind:
      raise errors.DataError(
          f"{self.paths[index]} is a graph of kind {graph.kind}, but collection "
          f"{self.collection.name} holds kind {self.collection.kind}: move the file elsewhere")
    return graph

  def __iter__(self) -> Iterator[graphs.ConfiguredGraph]:
    return (self[index] for index in range(len(self)))


def find_files(collection: registry.Collection, split: str,
               data_root: files.PathLike | None = None
               ) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
  """Lists the files of a split that exist, and what is missing.

  Args:
    collection: the collection.
    split: one of its splits.
    data_root: as in `load_collection`.

  Returns:
    The existing files, and the missing paths. Those are the files that the collection lists and
    that do not exist, or the folder if it should hold graphs and holds none. The function does not
    compare the number of files with the one that the collection states.

  Raises:
    UnknownNameError: no such split.
  """
  collection.check_split(split)
  folder = _folder(collection, split, data_root)
  if collection.files is not None:
    listed = [folder / file for file in collection.files.get(split, ())]
    return ([path for path in listed if path.is_file()],
            [path for path in listed if not path.is_file()])
  existing = files.without_companions(sorted(folder.glob("*.npz")), _logger, folder)
  return existing, [] if existing or collection.splits[split] == 0 else [folder]


def _folder(collection: registry.Collection, split: str, data_root: files.PathLike | None
            ) -> pathlib.Path:
  """The folder that the file paths of a split are relative to."""
  folder = collection.location(data_root)
  return folder if split == registry.WHOLE or collection.files is not None else folder / split


def missing_error(collection: registry.Collection, split: str, missing: pathlib.Path,
                  data_root: files.PathLike | None = None, others: int = 0
                  ) -> errors.MissingDataError:
  """The error to raise if a split, or one of its files, does not exist.

  Args:
    collection: the collection.
    split: its split.
    missing: the file or folder.
    data_root: as in `load_collection`.
    others: number of graphs of the split that exist.
  """
  return errors.MissingDataError(
      f"no data of {collection.name} {split} at {missing}; "
      f"{collection.fetch_hint(split, data_root)}{_partial_hint(others)}")


def _partial_hint(count: int) -> str:
  """How to work with the existing graphs of an incomplete split; "" if there are none."""
  return "" if not count else (
      "; or work with the " + (f"{count} graphs that exist" if count > 1 else "one that exists") +
      ": --partial (partial=True in Python)")


def load_collection(name: files.PathLike | registry.Collection, split: str,
                    data_root: files.PathLike | None = None, packed: str = "never",
                    packed_root: files.PathLike | None = None, partial: bool = False) -> Split:
  """Finds the graphs of a split. They are read one at a time, on access.

  Args:
    name: a registered collection, the path of a JSON descriptor, or a `Collection`.
    split: "train", "valid", "test", or "all" for a collection that is not divided by program.
    data_root: folder that holds the public `npz/`. Default: the environment variable
      TPUGRAPHS_RANK_DATA, or else the user's data folder. Bundled collections do not use it.
    packed: whether to read graphs from packed files (see `data.packed`): "never"; "auto", if the
      whole split is packed in its current state; or "always", which packs what is missing first.
      Packed graphs load only the data that is accessed, and are otherwise the same.
    packed_root: folder of the packed collections. Default: `packed` next to the graphs.
    partial: whether to take the graphs that exist if others are missing. The log and `missing` of
      the result state their number.

  Raises:
    UnknownNameError: no such collection or split.
    MissingDataError: the files do not exist; the message says which command downloads them. With
      `partial`, only if none exists.
    DataError: the number of files differs from the one that the collection states.
  """
  collection = registry.get_collection(name)
  paths, missing = find_files(collection, split, data_root)
  folder = packed_lib.folder_of(collection, split, data_root, packed_root)
  packs = None
  if missing and not paths and packed != "never" and packed_lib.is_there(folder):
    packs = packed_lib.open_split(folder, ())
    paths = [reader.path for reader in packs]
  elif missing and not (partial and paths):
    raise missing_error(collection, split, missing[0], data_root, len(paths))
  expected = collection.splits[split]
  absent = max(len(missing) if paths else 0, (expected or 0) - len(paths))
  if absent and partial:
    _logger.warning("%s %s is partial: %d of its %d graphs are missing in %s", collection.name,
                    split, absent, len(paths) + absent, _folder(collection, split, data_root))
  elif expected is not None and len(paths) != expected:
    holds, remedy = (
        (f"{len(paths)} of the",
         collection.fetch_hint(split, data_root) + _partial_hint(len(paths)))
        if len(paths) < expected else
        (f"{len(paths)} graphs, not the", "move the files that do not belong there elsewhere"))
    raise errors.DataError(
        f"{_folder(collection, split, data_root)} holds {holds} {expected} graphs of "
        f"{collection.name} {split} ({commands.command('describe')} lists missing and damaged "
        f"files); {remedy}")
  if packs is None and (packed == "always" or packed == "auto" and packed_lib.is_there(folder)):
    try:
      packs = packed_lib.open_split(folder, paths)
    except (errors.DataError, errors.MissingDataError) as error:
      if packed == "always":
        packed_lib.pack(collection, split, paths, folder)
        packs = packed_lib.open_split(folder, paths)
      else:
        words = ["pack", "--collection", name if isinstance(name, str) else collection.name,
                 "--splits", split]
        words += ["--partial"] * bool(absent)
        for flag, value in (("--data_root", data_root), ("--output", packed_root)):
          if value:
            words += [flag, shlex.quote(str(value))]
        _logger.warning("%s %s: read from .npz files: %s; %s packs them", collection.name, split,
                        error, commands.command(*words))
  if packs is not None:
    _logger.info("%s %s: read from packed files in %s", collection.name, split, folder)
  return Split(collection, split, paths, packs, absent)
