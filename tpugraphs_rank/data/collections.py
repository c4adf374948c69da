"""A split of a collection as a lazy sequence of graphs."""

import pathlib
from typing import Iterator, Optional, Sequence, Tuple, Union, overload

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import registry


class Split(Sequence[graphs.Graph]):
  """The graphs of one split, in the order of their names; each is read when it is asked for.

  Attributes:
    collection: the collection.
    split: "train", "valid", "test", or "all" for a collection that is not divided.
    paths: the files.
  """

  def __init__(self, collection: registry.Collection, split: str, paths: Sequence[pathlib.Path]):
    self.collection = collection
    self.split = split
    self.paths: Tuple[pathlib.Path, ...] = tuple(paths)

  def __len__(self) -> int:
    return len(self.paths)

  @overload
  def __getitem__(self, index: int) -> graphs.Graph: ...

  @overload
  def __getitem__(self, index: slice) -> "Split": ...

  def __getitem__(self, index):
    if isinstance(index, slice):
      return Split(self.collection, self.split, self.paths[index])
    graph = npz.load_graph(self.paths[index])
    if graph.kind != self.collection.kind:
      raise errors.DataError(
          f"{self.paths[index]} is a graph of kind {graph.kind}; collection "
          f"{self.collection.name} holds kind {self.collection.kind}: move the file elsewhere")
    return graph

  def __iter__(self) -> Iterator[graphs.Graph]:
    return (self[index] for index in range(len(self)))


def load_collection(name: Union[str, registry.Collection], split: str,
                    data_root: Optional[files.PathLike] = None) -> Split:
  """Finds the graphs of a split; they are read one at a time, when they are asked for.

  Args:
    name: a registered collection, the path of a JSON descriptor, or a `Collection`.
    split: "train", "valid", "test", or "all" for a collection that is not divided by program.
    data_root: folder that holds the public `npz/`; otherwise the environment variable
      TPUGRAPHS_RANK_DATA, then the platform's folder for user data. Bundled collections need none.

  Raises:
    UnknownNameError: no such collection or split.
    MissingDataError: the files are not there; the message names the command that brings them.
    DataError: the number of files is not the one that the collection states.
  """
  collection = registry.get_collection(name)
  collection.check_split(split)
  folder = collection.location(data_root)
  if collection.files is not None:
    paths = [folder / file for file in collection.files.get(split, ())]
    missing = next((path for path in paths if not path.is_file()), None)
  else:
    folder = folder if split == registry.WHOLE else folder / split
    paths = sorted(folder.glob("*.npz"))
    missing = None if paths else folder
  if missing is not None:
    raise errors.MissingDataError(
        f"no data of {collection.name} {split} at {missing}; "
        f"{collection.fetch_hint(split, data_root)}")
  expected = collection.splits[split]
  if expected is not None and len(paths) != expected:
    raise errors.DataError(
        f"{folder} holds {len(paths)} of the {expected} graphs of {collection.name} {split}; "
        f"{collection.fetch_hint(split, data_root)}")
  return Split(collection, split, paths)
