"""Packs a collection into memory-mapped files, from which training reads what a step needs.

  python -m tpugraphs_rank.cli.pack --collection layout:nlp:random
  python -m tpugraphs_rank.cli.pack --collection graphs/collection.json --splits train,valid
  python -m tpugraphs_rank.cli.pack --collection layout:nlp:random --check

Interrupted, it goes on where it stopped; run again, it packs what has changed. Training, evaluation
and prediction use what is packed (--packed says when). The files lie in `packed/` beside the graphs,
or where --output says (which is --packed_root there).

`--check` packs nothing: it compares all checksums, and its exit status is 1 where a file is damaged,
missing or not of its source.
"""

from collections.abc import Sequence

from absl import flags

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import packed
from tpugraphs_rank.data import registry


def pack(name: str, splits: Sequence[str] | None = None,
         data_root: files.PathLike | None = None, output: files.PathLike | None = None
         ) -> list[packed.Packed]:
  """Packs splits of a collection.

  Args:
    name: a registered collection, or the path of a JSON descriptor.
    splits: which; None: those that are there.
    data_root: folder of the public collections.
    output: folder of packed collections, instead of `packed` beside the graphs.

  Raises:
    UnknownNameError: no such collection or split.
    MissingDataError: a split that is named, or all of them, are not there.
    TpuGraphsRankError: as `packed.pack`.
  """
  collection = registry.get_collection(name)
  done = []
  for split in _splits_there(collection, splits, data_root):
    sources = collections.load_collection(collection, split, data_root).paths
    folder = packed.folder_of(collection, split, data_root, output)
    done.append(packed.pack(collection, split, sources, folder))
  return done


def check(name: str, splits: Sequence[str] | None = None,
          data_root: files.PathLike | None = None, output: files.PathLike | None = None
          ) -> list[str]:
  """Compares the checksums of the packed files of a collection; arguments as of `pack`.

  Returns:
    What is wrong, one sentence each.

  Raises:
    UnknownNameError: no such collection or split.
    MissingDataError: nothing is packed.
  """
  collection = registry.get_collection(name)
  folders = {split: packed.folder_of(collection, split, data_root, output)
             for split in (splits or collection.splits)}
  there = {split: folder for split, folder in folders.items() if splits or folder.is_dir()}
  if not there:
    raise errors.MissingDataError(
        f"nothing of {collection.name} is packed in {next(iter(folders.values())).parent}; "
        f"`python -m tpugraphs_rank.cli.pack --collection {name}` packs it")
  problems = []
  for split, folder in there.items():
    problems += packed.check(folder, collections.find_files(collection, split, data_root)[0])
  return problems


def _splits_there(collection: registry.Collection, splits: Sequence[str] | None,
                  data_root: files.PathLike | None) -> list[str]:
  """The splits that were named, or those of which there is a file."""
  if splits is not None:
    return list(dict.fromkeys(splits))
  found = {split: collections.find_files(collection, split, data_root)
           for split in collection.splits}
  there = [split for split, (paths, _) in found.items() if paths]
  if not there:
    split, (_, missing) = next(iter(found.items()))
    raise collections.missing_error(
        collection, split, missing[0] if missing else collection.location(data_root), data_root)
  return there


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("collection", None, "Name of a collection, or path of its JSON descriptor.",
                      required=True)
  flags.DEFINE_list("splits", None, "Splits, comma-separated; otherwise all that are there.")
  flags.DEFINE_string("data_root", None, "Folder of the public collections; otherwise "
                      "TPUGRAPHS_RANK_DATA, then the platform's.")
  flags.DEFINE_string("output", None, "Folder of packed collections; otherwise packed/ beside the "
                      "graphs.")
  flags.DEFINE_bool("check", False, "Pack nothing; compare all checksums.")


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  arguments = (values.collection, values.splits, values.data_root, values.output)
  if values.check:
    problems = check(*arguments)
    for problem in problems:
      print(f"wrong: {problem}")
    if problems:
      raise errors.DataError(
          f"{len(problems)} packed files of {values.collection} cannot be used; remove those that "
          "are damaged, and run the same command without --check")
    print("every checksum is right")
    return
  for done in pack(*arguments):
    print(f"{done.folder}: {done.graphs} graphs, {done.written} of them packed now, "
          f"{done.nbytes / 1e6:,.1f} MB")
