"""Pack a collection into memory-mapped files for training.

  tpugraphs-rank pack --collection layout:nlp:random
  tpugraphs-rank pack --collection graphs/collection.json --splits train,valid
  tpugraphs-rank pack --collection layout:xla:default --partial
  tpugraphs-rank pack --collection layout:nlp:random --check

From packed files, training reads only what a step needs. The command resumes after an interruption.
Run it again to pack graphs that have changed. Training, evaluation and prediction use the packed
files (see their flag --packed). The files are stored in `packed/` next to the graphs, or in the
folder that --output names (--packed_root of those commands).

A damaged graph is reported and skipped, and the others are packed. The exit status is then 3, and
the split is read from its .npz files until the graph is replaced and packed. --strict stops at the
first damaged graph.

--runner packs with Apache Beam, in several processes or on many machines.

--check packs nothing: it compares all checksums. Its exit status is 1 if a file is damaged, missing
or belongs to another source.
"""

from collections.abc import Sequence
import logging

from absl import flags

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import work
from tpugraphs_rank.cli import app
from tpugraphs_rank.cli import engines
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import packed
from tpugraphs_rank.data import registry

_log = logging.getLogger("tpugraphs_rank.pack")


def pack(name: str, splits: Sequence[str] | None = None,
         data_root: files.PathLike | None = None, output: files.PathLike | None = None,
         strict: bool = True, partial: bool = False, engine: work.Engine = work.HERE
         ) -> list[packed.Packed]:
  """Packs splits of a collection.

  Args:
    name: a registered collection, or the path of a JSON descriptor.
    splits: the splits; None: those that have files.
    data_root: folder of the public collections.
    output: folder of packed collections, instead of `packed` next to the graphs.
    strict: whether the first damaged graph raises, see `packed.pack_splits`.
    partial: whether to pack the graphs that exist if others are missing.
    engine: where the graphs are packed.

  Raises:
    UnknownNameError: no such collection or split.
    MissingDataError: a named split, or every split, has no files.
    TpuGraphsRankError: as `packed.pack_splits`.
  """
  collection = registry.get_collection(name)
  parts = [packed.Part(
      split, collections.load_collection(collection, split, data_root, partial=partial).paths,
      packed.folder_of(collection, split, data_root, output))
           for split in _present_splits(collection, splits, data_root)]
  return packed.pack_splits(collection, parts, strict, engine)


def check(name: str, splits: Sequence[str] | None = None,
          data_root: files.PathLike | None = None, output: files.PathLike | None = None
          ) -> list[str]:
  """Compares the checksums of a collection's packed files. The arguments are those of `pack`.

  Returns:
    One sentence per problem.

  Raises:
    UnknownNameError: no such collection or split.
    MissingDataError: nothing is packed.
  """
  collection = registry.get_collection(name)
  folders = {split: packed.folder_of(collection, split, data_root, output)
             for split in (splits or collection.splits)}
  present = {split: folder for split, folder in folders.items() if splits or folder.is_dir()}
  if not present:
    raise errors.MissingDataError(
        f"nothing of {collection.name} is packed in {next(iter(folders.values())).parent}; "
        f"{commands.command('pack', '--collection', name)} packs it")
  problems = []
  for split, folder in present.items():
    problems += packed.check(folder, collections.find_files(collection, split, data_root)[0])
  return problems


def _present_splits(collection: registry.Collection, splits: Sequence[str] | None,
                    data_root: files.PathLike | None) -> list[str]:
  """The splits that were named, or those that have a file."""
  if splits is not None:
    return list(dict.fromkeys(splits))
  by_split = {split: collections.find_files(collection, split, data_root)
              for split in collection.splits}
  present = [split for split, (paths, _) in by_split.items() if paths]
  if not present:
    split, (_, missing) = next(iter(by_split.items()))
    raise collections.missing_error(
        collection, split, missing[0] if missing else collection.location(data_root), data_root)
  return present


def kept() -> str:
  """What an interruption leaves."""
  return "the graphs packed so far are kept"


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("collection", None, "Name of a collection, or path of its JSON descriptor.",
                      required=True)
  flags.DEFINE_list("splits", None, "Splits, comma-separated. By default all that have files.")
  flags.DEFINE_string("data_root", None, "Folder of the public collections. By default "
                      "TPUGRAPHS_RANK_DATA, then the data folder of this platform.")
  flags.DEFINE_string("output", None, "Folder of packed collections. By default packed/ next to "
                      "the graphs.")
  flags.DEFINE_bool("partial", False, "If graphs are missing, pack those that exist.")
  flags.DEFINE_bool("check", False, "Pack nothing; compare all checksums.")
  flags.DEFINE_bool("strict", False, "Stop at the first damaged graph, instead of skipping it.")
  engines.define_flags("the folder of the packed splits")


def main(argv: list[str]) -> int:
  """Runs the command."""
  values = flags.FLAGS
  arguments = (values.collection, values.splits, values.data_root, values.output)
  if values.check:
    problems = check(*arguments)
    for problem in problems:
      print(escaping.message(f"wrong: {problem}"))
    if problems:
      raise errors.DataError(
          f"{len(problems)} packed files of {values.collection} cannot be used; remove the damaged "
          "ones and run the same command without --check")
    print("all checksums match")
    return 0
  with engines.failures_of_errors():
    packs = pack(*arguments, strict=values.strict, partial=values.partial, engine=engines.engine())
  for done in packs:
    print(f"{done.folder}: {done.graphs} graphs, {done.written} of them packed now, "
          f"{done.nbytes / 1e6:,.1f} MB")
  failed = [failure for done in packs for failure in done.failed]
  for failure in failed:
    _log.warning("skipped: %s", failure.error)
  engines.write_failures(failed, packs[0].folder.parent)
  return app.SOME_SKIPPED if failed else 0
