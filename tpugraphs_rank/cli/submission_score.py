"""Compute the competition score of a submission.

  tpugraphs-rank submission score --submission valid.csv --split valid

Needs runtimes, which the released test splits lack. Takes every file that is valid according to
`tpugraphs-rank submission validate`. Writes score.json, per_collection.csv and per_graph.csv into
--output.
"""

from collections.abc import Iterable, Sequence
import csv
import io
import math
import pathlib
from typing import Any

from absl import flags

from tpugraphs_rank import files
from tpugraphs_rank import submission
from tpugraphs_rank import tables
from tpugraphs_rank.cli import submission as shared
from tpugraphs_rank.submission import reading


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("submission", None, "The file to score.", required=True)
  flags.DEFINE_string("output", None, "Folder of the results. By default SUBMISSION.score next to "
                      "the file.")
  shared.define_data_flags("valid")


def main(argv: list[str]) -> int:
  """Prints the score of a submission and writes the scores of all graphs."""
  values = flags.FLAGS
  path = pathlib.Path(values.submission)
  split = values.split or "valid"
  result = submission.score(reading.read_bytes(path), split, values.collections, values.data_root,
                            values.partial)
  folder = pathlib.Path(values.output or path.with_name(f"{path.stem}.score"))
  stored = {"split": split, **result.as_dict()}
  means = result.competition.collections
  files.write_text(folder / "per_graph.csv", _csv(
      ["collection", "graph", "configurations", "score"],
      ([*graph[:3], _number(graph.score)] for graph in result.graphs)))
  files.write_text(folder / "per_collection.csv", _csv(
      ["collection", "score", "graphs", "skipped"],
      ([name, _number(mean.mean), mean.graphs, mean.skipped] for name, mean in means.items())))
  files.write_json(folder / "score.json", stored)
  print(tables.text(
      ("collection", "score", "graphs", "nothing to rank"),
      [(name, f"{mean.mean:.4f}", str(mean.graphs), str(mean.skipped))
       for name, mean in means.items()]))
  for name, count in result.without_runtimes.items():
    print(f"{name}: {tables.counted(count, 'graph')} without runtimes, not scored")
  if result.competition.missing:
    print(f"missing: {', '.join(result.competition.missing)}")
    print(f"mean of {tables.counted(len(means), 'collection')}: {result.competition.partial:.4f} "
          "(the competition score needs all collections)")
  else:
    print(f"competition score ({split}): {result.competition.score:.4f}")
  print(f"numbers: {folder}/score.json, {folder}/per_collection.csv, {folder}/per_graph.csv")
  return 0


def _number(value: float) -> str:
  """The number as text; an undefined one is empty, as pandas and spreadsheets expect."""
  return "" if math.isnan(value) else repr(value)


def _csv(header: list[str], rows: Iterable[Sequence[Any]]) -> str:
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(header)
  writer.writerows(rows)
  return text.getvalue()
