r"""Joins, validates and scores submissions to the TpuGraphs competition.

  python -m tpugraphs_rank.cli.submission merge --output submission.csv \
      --parts runs/a/submission_part.csv,runs/b/submission_part.csv
  python -m tpugraphs_rank.cli.submission validate --submission submission.csv --data_root data
  python -m tpugraphs_rank.cli.submission score --submission valid.csv --split valid

merge     Puts the parts that `tpugraphs_rank.cli.predict` writes into one file, its rows in order. An
          invalid file is never written: the faults are printed, with part, line and ID.
validate  Prints every fault as `line N: ID: message`. Exit status 0 only where there is none.
score     The competition's score, where runtimes are known (the released test splits have none).
          Writes score.json, per_collection.csv and per_graph.csv into --output.

What must be in the file is known from the data (--data_root), or from a sample submission
(--sample).
"""

from collections.abc import Iterable, Mapping, Sequence
import csv
import io
import math
import pathlib
from typing import Any

from absl import flags

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import submission
from tpugraphs_rank.cli import app
from tpugraphs_rank.data import registry
from tpugraphs_rank.submission import expectation as expectation_lib
from tpugraphs_rank.submission import merging
from tpugraphs_rank.submission import reading

_DATA = ("data_root", "collections", "split")
COMMANDS = {
    "merge": app.Command(("parts", "output"), ("sample", "allow_partial", *_DATA)),
    "validate": app.Command(("submission",), ("sample", "allow_partial", *_DATA)),
    "score": app.Command(("submission",), ("output", *_DATA)),
}


def merge(values: flags.FlagValues) -> int:
  """Writes the submission that the parts make; prints why not, where they make none."""
  parts = {path: reading.read_bytes(path) for path in values.parts}
  expectation, left_out = _expectation(values, parts.values())
  merged = submission.merge(parts, expectation)
  if merged.faults:
    for fault in merged.faults:
      print(fault)
    raise errors.DataError(f"{_counted(len(merged.faults), 'fault')}; {values.output} was not "
                           "written")
  with files.atomic_write(values.output) as file:
    file.write(merged.data)
  _print_counts(merged.counts, expectation)
  if merged.repeats:
    print(f"{_counted(merged.repeats, 'row')} stood in several parts, alike")
  _print_left_out(left_out)
  print(f"{values.output}: {_counted(len(expectation.rows), 'row')}")
  return 0


def validate(values: flags.FlagValues) -> int:
  """Prints every fault of a submission; 0 only where there is none."""
  data = reading.read_bytes(values.submission)
  expectation, left_out = _expectation(values, [data])
  faults = submission.validate(data, expectation)
  for fault in faults:
    print(fault)
  found = {row.id for row in submission.parse(data).rows}
  _print_counts(expectation.count(found), expectation)
  _print_left_out(left_out)
  if faults:
    lines = len({fault.line for fault in faults})
    print(f"{values.submission} is invalid: {_counted(len(faults), 'fault')} on "
          f"{_counted(lines, 'line')}")
    return 1
  print(f"{values.submission} is valid: {_counted(len(expectation.rows), 'row')}")
  return 0


def score(values: flags.FlagValues) -> int:
  """Prints the competition's score of a submission, and writes it with that of every graph."""
  path = pathlib.Path(values.submission)
  split = values.split or "valid"
  result = submission.score(reading.read_bytes(path), split, values.collections, values.data_root)
  folder = pathlib.Path(values.output or path.with_name(f"{path.stem}.score"))
  stored = {"split": split, **result.as_dict()}
  found = result.competition.collections
  files.write_text(folder / "per_graph.csv", _csv(
      ["collection", "graph", "configurations", "score"],
      ([*graph[:3], _number(graph.score)] for graph in result.graphs)))
  files.write_text(folder / "per_collection.csv", _csv(
      ["collection", "score", "graphs", "skipped"],
      ([name, _number(mean.mean), mean.graphs, mean.skipped] for name, mean in found.items())))
  files.write_json(folder / "score.json", stored)
  width = max(map(len, (*found, "collection")))
  print(f"{'collection':<{width}}  score   graphs  with nothing to rank")
  for name, mean in found.items():
    print(f"{name:<{width}}  {mean.mean:6.4f}  {mean.graphs:6d}  {mean.skipped:20d}")
  for name, count in result.without_runtimes.items():
    print(f"{name}: {_counted(count, 'graph')} without runtimes, not scored")
  if result.competition.missing:
    print(f"missing: {', '.join(result.competition.missing)}")
    print(f"mean of {_counted(len(found), 'collection')}: {result.competition.partial:.4f} (no "
          "competition score without the missing)")
  else:
    print(f"competition score ({split}): {result.competition.score:.4f}")
  print(f"numbers: {folder}/score.json, {folder}/per_collection.csv, {folder}/per_graph.csv")
  return 0


def _expectation(values: flags.FlagValues, parts: Iterable[bytes]
                 ) -> tuple[submission.Expectation, Sequence[str]]:
  """The rows that must be there, and the collections that --allow_partial leaves out."""
  if values.sample:
    clash = next((flag for flag in _DATA if values[flag].present), None)
    if clash:
      raise errors.ConfigError(
          f"--sample and --{clash}; a sample says alone what must be in the file: give one of them")
    whole = submission.from_sample(values.sample)
    names = _wanted(values, parts, whole.collections)
    expectation = whole.only(names)
    known: Sequence[str] = whole.collections
  else:
    found = {collection.name: collection
             for collection in map(registry.get_collection, values.collections)}
    names = _wanted(values, parts, tuple(found))
    expectation = submission.from_data(
        [found[name] for name in names], values.split or "test", values.data_root)
    known = tuple(found)
  return expectation, [name for name in known if name not in names]


def _wanted(values: flags.FlagValues, parts: Iterable[bytes], known: Sequence[str]
            ) -> Sequence[str]:
  if not values.allow_partial:
    return known
  names = merging.mentioned(parts, known)
  if not names:
    raise errors.DataError(
        f"no row is of {', '.join(known)}; give --collections, or a file that ranks some of them")
  return names


def _print_counts(counts: Mapping[str, int], expectation: submission.Expectation) -> None:
  expected = expectation.count(expectation.places)
  width = max(map(len, expected))
  for name, count in expected.items():
    print(f"{name:<{width}}  {counts[name]:5d} of {count:5d} rows")


def _print_left_out(names: Sequence[str]) -> None:
  if names:
    print(f"partial: without {', '.join(names)}")


def _counted(count: int, what: str) -> str:
  return f"{count} {what}{'' if count == 1 else 's'}"


def _number(value: float) -> str:
  """Empty for what is not defined, as pandas and spreadsheets read it."""
  return "" if math.isnan(value) else repr(value)


def _csv(header: list[str], rows: Iterable[Sequence[Any]]) -> str:
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(header)
  writer.writerows(rows)
  return text.getvalue()


# Defined only when this is the program: other apps use the same flag names.
def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flags of all commands."""
  string = lambda name, text: flags.DEFINE_string(name, None, text, flag_values=values)
  flags.DEFINE_list("parts", [], "merge: the files that are joined, comma-separated.",
                    flag_values=values)
  string("output", "merge: the file that is written. score: folder of the results; otherwise "
         "<submission>.score beside the submission.")
  string("submission", "validate, score: the file.")
  string("sample", "merge, validate: a sample submission, instead of the data: its IDs, in its "
         "order, and what its lists tell of theirs.")
  string("data_root", "Folder of the public collections.")
  string("split", "The split that is ranked; by default test, for score valid.")
  flags.DEFINE_list("collections", list(expectation_lib.COLLECTIONS),
                    "The collections of the file, in its order: names or descriptors.",
                    flag_values=values)
  flags.DEFINE_bool("allow_partial", False, "merge, validate: a file without some of the "
                    "collections, which are named.", flag_values=values)


def main(argv: list[str]) -> int:
  commands: dict[str, Any] = {"merge": merge, "validate": validate, "score": score}
  return commands[argv[1]](flags.FLAGS)


if __name__ == "__main__":
  define_flags()
  app.run(main, COMMANDS)
