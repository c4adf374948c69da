"""What the commands `submission merge`, `validate` and `score` share."""

from collections.abc import Iterable, Mapping, Sequence

from absl import flags

from tpugraphs_rank import errors
from tpugraphs_rank import submission
from tpugraphs_rank.data import registry
from tpugraphs_rank.submission import expectation as expectation_lib
from tpugraphs_rank.submission import merging

_DATA = ("data_root", "collections", "split")


def define_data_flags(default_split: str) -> None:
  """Defines the flags that select the graphs that a submission ranks."""
  flags.DEFINE_string("data_root", None, "Folder of the public collections. By default the "
                      f"environment variable {registry.DATA_ROOT_VARIABLE}, then the platform's "
                      "folder for user data.")
  flags.DEFINE_string("split", None, f"The split that is ranked. Default: {default_split}.")
  flags.DEFINE_list("collections", list(expectation_lib.COLLECTIONS),
                    "The collections in the file, in this order: names or descriptors.")


def define_expectation_flags() -> None:
  """Defines the flags that determine which rows must be in a submission."""
  flags.DEFINE_string("sample", None, "A sample submission to use instead of the data: its IDs in "
                      "its order, and what its lists reveal about the graphs.")
  flags.DEFINE_bool("allow_partial", False, "Accept a file that lacks some of the collections.")


def expected_rows(values: flags.FlagValues, parts: Iterable[bytes]
                 ) -> tuple[submission.Expectation, Sequence[str]]:
  """The rows that must be in the file, and the collections that --allow_partial leaves out."""
  if values.sample:
    clash = next((flag for flag in _DATA if values[flag].present), None)
    if clash:
      raise errors.ConfigError(
          f"--sample and --{clash}; the sample alone defines the rows: give one of them")
    whole = submission.from_sample(values.sample)
    names = _wanted(values, parts, whole.collections)
    expectation = whole.only(names)
    known: Sequence[str] = whole.collections
  else:
    by_name = {collection.name: collection
               for collection in map(registry.get_collection, values.collections)}
    names = _wanted(values, parts, tuple(by_name))
    expectation = submission.from_data(
        [by_name[name] for name in names], values.split or "test", values.data_root)
    known = tuple(by_name)
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


def print_left_out(names: Sequence[str]) -> None:
  """Prints the collections that --allow_partial leaves out, if any."""
  if names:
    print(f"partial: without {', '.join(names)}")


def counted(count: int, what: str) -> str:
  """A number with its noun: "1 row", "3 rows"."""
  return f"{count} {what}{'' if count == 1 else 's'}"
