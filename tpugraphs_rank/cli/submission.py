"""What the commands `submission merge`, `validate`, `fix` and `score` share."""

from collections.abc import Iterable, Mapping, Sequence

from absl import flags

from tpugraphs_rank import errors
from tpugraphs_rank import submission
from tpugraphs_rank.data import registry
from tpugraphs_rank.submission import expectation as expectation_lib
from tpugraphs_rank.submission import merging


def define_data_flags(default_split: str) -> None:
  """Defines the flags that select the graphs that a submission ranks."""
  flags.DEFINE_string("data_root", None, "Folder of the public collections. By default the "
                      f"environment variable {registry.DATA_ROOT_VARIABLE}, then the platform's "
                      "folder for user data.")
  flags.DEFINE_string("split", None, f"The split that is ranked. Default: {default_split}.")
  flags.DEFINE_list("collections", list(expectation_lib.COLLECTIONS),
                    "The collections in the file, in this order: names or descriptors.")
  flags.DEFINE_bool("partial", False, "If graphs of a collection are missing, expect only those "
                    "that exist.")


def define_expectation_flags(strict: bool = True) -> None:
  """Defines the flags that determine which rows must be in a submission.

  Args:
    strict: whether to define `--strict`.
  """
  flags.DEFINE_string("sample", None, "A sample submission, whose IDs the file must have. Its "
                      "lists are not used: the numbers of configurations are those of the data, "
                      "as far as it exists, and otherwise the published ones.")
  flags.DEFINE_bool("allow_partial", False, "Accept a file that lacks some of the collections.")
  if strict:
    flags.DEFINE_bool("strict", False, "Treat warnings as faults: CR LF, a byte order mark, "
                      "quotes, empty lines, a missing last newline, tile rows of more than five "
                      "indices, lists that are placeholders.")


def expected_rows(values: flags.FlagValues, parts: Iterable[bytes]
                 ) -> tuple[submission.Expectation, Sequence[str]]:
  """The rows that must be in the file, and the collections that --allow_partial leaves out."""
  by_name = {collection.name: collection
             for collection in map(registry.get_collection, values.collections)}
  split = values.split or "test"
  if values.sample:
    if values.partial:
      raise errors.ConfigError(
          "--sample and --partial; the sample alone defines the rows: give one of them")
    whole = submission.from_sample(
        values.sample, list(by_name.values()), split, values.data_root)
    known: Sequence[str] = whole.collections
    if values["collections"].present:
      known = [name for name in by_name if name in known]
      lacking = [name for name in by_name if name not in known]
      if lacking:
        raise errors.DataError(
            f"sample {values.sample} has no row of {', '.join(lacking)}; it has: "
            f"{', '.join(whole.collections)}; check --collections")
    names = _wanted(values, parts, known)
    expectation = whole.only(names)
  else:
    known = tuple(by_name)
    names = _wanted(values, parts, known)
    expectation = submission.expect(
        [by_name[name] for name in names], split, values.data_root, values.partial)
  return expectation, [name for name in known if name not in names]


def _wanted(values: flags.FlagValues, parts: Iterable[bytes], known: Sequence[str]
            ) -> Sequence[str]:
  """The collections that must be in the file."""
  if not values.allow_partial:
    return known
  names = merging.mentioned(parts, known)
  if not names:
    raise errors.DataError(
        f"no row belongs to {', '.join(known)}; give --collections, or a file that ranks some of "
        "them")
  return names


def print_counts(counts: Mapping[str, int], expectation: submission.Expectation) -> None:
  """Prints the number of rows of each collection, and the expected number."""
  expected = expectation.count(expectation.places)
  width = max(map(len, expected))
  for name, count in expected.items():
    print(f"{name:<{width}}  {counts[name]:5d} of {count:5d} rows")


def print_knowledge(expectation: submission.Expectation) -> None:
  """Prints where the numbers of configurations come from, unless all are those of the data."""
  if not all(row.path for row in expectation.rows):
    print(expectation.knowledge())


def print_left_out(names: Sequence[str]) -> None:
  """Prints the collections that --allow_partial leaves out, if any."""
  if names:
    print(f"partial: without {', '.join(names)}")
