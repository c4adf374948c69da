"""Collections that leave out one group, to see how well a ranker does on new kinds of programs.

For each group of families in the training and validation splits there is a fold: a collection whose
test split is this group, and whose training and validation splits are the programs of the other
groups in those splits. The test split of the collection itself is never read.
"""

from collections.abc import Sequence
import dataclasses
import os
import pathlib
from typing import Any, NamedTuple

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import registry

KINDS = ("group", "family")
_USED = ("train", "valid")
# If no other group has validation programs, one in this many training programs validates.
_EVERY = 8


class Fold(NamedTuple):
  """What is left out, and the names of the programs of each split, relative to the collection.

  Attributes:
    name: the group or family that is left out.
    files: for each split its files, relative to the folder of the collection's graphs.
  """

  name: str
  files: dict[str, list[str]]


def leave_one_out(collection: registry.Collection, by: str = "group",
                  data_root: files.PathLike | None = None, partial: bool = False) -> list[Fold]:
  """The folds of a collection, in the order of their names.

  Args:
    collection: a collection with the splits train and valid.
    by: "group" or "family".
    data_root: folder of the public collections.
    partial: use the graphs that exist if others are missing.

  Raises:
    ConfigError: it is not divided by program, or has programs of one group only.
    MissingDataError: programs are missing, or only exist in packed files.
  """
  if by not in KINDS:
    raise errors.ConfigError(f"leave out {by!r}; expected one of: {', '.join(KINDS)}")
  if not set(_USED) <= set(collection.splits):
    raise errors.ConfigError(
        f"collection {collection.name} has the splits {', '.join(collection.splits)}; to leave out "
        f"one {by} after another needs train and valid")
  name_of = collection.group if by == "group" else collection.family
  base = collection.location(data_root)
  by_split: dict[str, list[tuple[str, str]]] = {}
  for split in _USED:
    paths = collections.load_collection(
        collection, split, data_root, "never", None, partial).paths
    by_split[split] = [(name_of(path.stem), os.path.relpath(path, base)) for path in paths]
  names = sorted({name for entries in by_split.values() for name, _ in entries})
  if len(names) < 2:
    raise errors.ConfigError(
        f"the training and validation programs of {collection.name} are of one {by}: "
        f"{', '.join(names) or 'none'}; to leave out one after another needs two or more")
  return [_fold(name, by_split) for name in names]


def _fold(name: str, by_split: dict[str, list[tuple[str, str]]]) -> Fold:
  train, valid = ([file for other, file in by_split[split] if other != name] for split in _USED)
  if not valid:
    valid = train[_EVERY // 2::_EVERY] or train[-1:]
  elif not train:
    train = valid[::2]
  held = set(valid)
  left_out = [file for split in _USED for other, file in by_split[split] if other == name]
  return Fold(name, {"train": [file for file in train if file not in held] or train,
                     "valid": valid, "test": left_out})


def write(collection: registry.Collection, fold: Fold, path: files.PathLike,
          data_root: files.PathLike | None = None) -> registry.Collection:
  """Writes the descriptor of a fold, and reads it again.

  Args:
    collection: the collection that was divided.
    fold: one of its folds.
    path: the descriptor, a JSON file.
    data_root: as for `leave_one_out`.

  Raises:
    OutputError: the file cannot be written.
  """
  values: dict[str, Any] = {
      "name": f"{collection.name} without {fold.name}", "kind": collection.kind,
      "target": collection.target,
      "splits": {split: len(names) for split, names in fold.files.items()},
      "path": str(collection.location(data_root).resolve()), "files": fold.files,
      "hlo_stage": collection.hlo_stage, "family_regex": collection.family_regex,
      "groups": {name: list(families) for name, families in collection.groups.items()},
      "padding": collection.padding, "metric": collection.metric,
      "description": f"{collection.name}, with {fold.name} as the test split.",
      "citation": collection.citation}
  if collection.target_facts is not None:
    values["target_facts"] = dataclasses.asdict(collection.target_facts)
  files.write_json(path, values)
  return registry.read_descriptor(path)


def folder_name(name: str, names: Sequence[str]) -> pathlib.PurePath:
  """The folder of a fold: its number among all, and what its name has of letters and digits."""
  safe = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
  return pathlib.PurePath(f"{list(names).index(name):02d}_{safe[:60]}")
