"""The `.npz` files of a collection: read after featurization, written into their splits."""

from collections.abc import Iterable, Mapping, Sequence
import pathlib

import numpy as np
import tqdm

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import npz as npz_files

SPLITS = ("train", "valid", "test")
# Keys that every featurized kernel or program must have; those of its configurations come on top.
KEYS = ("node_feat", "node_opcode", "edge_index", "config_runtime", "config_runtime_normalizers",
        "config_runtime_passes")
TILE_KEYS = (*KEYS, "config_feat")
LAYOUT_KEYS = (*KEYS, "node_config_ids", "node_config_feat")

Arrays = dict[str, np.ndarray]


def read(path: pathlib.Path, keys: Sequence[str]) -> Arrays:
  """All arrays of one featurized kernel or program.

  Args:
    path: the `.npz` file.
    keys: the arrays that it must hold.

  Raises:
    DataError: the file is damaged, or lacks a key (the passes come from `--repeat`).
  """
  try:
    arrays = npz_files.read_arrays(path)
  except errors.DataError as error:
    raise type(error)(f"{error}; featurize again") from error
  missing = [key for key in keys if key not in arrays]
  if missing:
    raise errors.DataError(
        f"{path} lacks {', '.join(missing)}; featurize the first pass with the second as --repeat")
  return arrays


def read_all(npz: pathlib.Path, stems: Iterable[str], keys: Sequence[str],
             inputs: Sequence[pathlib.Path]) -> dict[str, Arrays]:
  """The featurized kernels or programs of these names.

  Args:
    npz: folder that `tpugraphs-rank featurize` wrote.
    stems: names of the files.
    keys: the arrays that each file must hold.
    inputs: the raw files or folders of all passes, for the message.

  Raises:
    MissingDataError: a file does not exist; the message has the command that makes it.
    DataError: a file is damaged or lacks a key.
  """
  arrays = {}
  for stem in tqdm.tqdm(sorted(stems), disable=None, desc="read", unit="file"):
    path = npz / f"{stem}.npz"
    if not path.exists():
      command = commands.command("featurize", "--input", str(inputs[0]), *(
          f"--repeat {repeat}" for repeat in inputs[1:]), "--output", str(npz))
      raise errors.MissingDataError(f"{path} does not exist; run {command}")
    arrays[stem] = read(path, keys)
  return arrays


def write_splits(folder: pathlib.Path, graphs: Mapping[str, Arrays], splits: Mapping[str, str]
                 ) -> None:
  """Writes `<folder>/<split>/<stem>.npz`, compressed, and removes files of earlier assemblies.

  The same arrays give the same bytes.

  Args:
    folder: folder of the collection's graphs.
    graphs: stem -> arrays.
    splits: stem -> split, of the graphs that are kept.
  """
  for stem, split in splits.items():
    npz_files.save_arrays(folder / split / f"{stem}.npz",
                          {key: graphs[stem][key] for key in sorted(graphs[stem])})
  for path in folder.glob("*/*.npz"):
    if splits.get(path.stem) != path.parent.name:
      path.unlink()


def write_descriptor(output: pathlib.Path, name: str, cpu: str,
                     by_split: Mapping[str, Sequence[str]], groups: Mapping[str, Iterable[str]],
                     description: str) -> None:
  """Writes `collection.json`, the descriptor of a measured collection.

  Args:
    output: the collection's folder.
    name: `tile:<source>` or `layout:<source>:<search>`.
    cpu: the processors that were measured.
    by_split: the stems of each split.
    groups: the families of each group.
    description: one sentence.
  """
  files.write_json(output / "collection.json", {
      "name": name, "kind": name.partition(":")[0], "target": f"xla_cpu:{cpu}",
      "hlo_stage": "before_optimization", "path": "npz",
      "splits": {split: len(stems) for split, stems in by_split.items()},
      "family_regex": "^(?P<family>[^.]+)\\.",
      "groups": {group: sorted(members) for group, members in sorted(groups.items())},
      "has_runtimes": dict.fromkeys(by_split, True), "padding": 0, "description": description})
