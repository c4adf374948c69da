"""Merge parts into one submission.

  tpugraphs-rank submission merge --output submission.csv \\
    --parts runs/a/submission_part.csv,runs/b/submission_part.csv

Reads the parts that `tpugraphs-rank predict` writes and writes one file with all rows in the
canonical form: in the order of the sample (--sample), or else by collection and name. An invalid
file is never written: the command prints the faults instead, with part, line and ID.

The data (--data_root) or a sample submission (--sample) determines which rows must be in the file;
without both, the published IDs of the test splits do.
"""

from absl import flags

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import submission
from tpugraphs_rank import tables
from tpugraphs_rank.cli import submission as shared
from tpugraphs_rank.submission import reading


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list("parts", None, "The files to merge, comma-separated.", required=True)
  flags.DEFINE_string("output", None, "The file to write.", required=True)
  shared.define_data_flags("test")
  shared.define_expectation_flags()


def main(argv: list[str]) -> int:
  """Writes the submission, or prints why the parts do not form a valid one."""
  values = flags.FLAGS
  parts = {path: reading.read_bytes(path) for path in values.parts}
  expectation, left_out = shared.expected_rows(values, parts.values())
  merged = submission.merge(parts, expectation, values.strict)
  for warning in merged.warnings:
    print(f"warning: {warning}")
  if merged.faults:
    for fault in merged.faults:
      print(fault)
    raise errors.DataError(
        f"{tables.counted(len(merged.faults), 'fault')}; {values.output} was not written")
  with files.atomic_write(values.output) as file:
    file.write(merged.data)
  shared.print_counts(merged.counts, expectation)
  if merged.repeats:
    print(f"{tables.counted(merged.repeats, 'row')} in several parts, with equal rankings")
  shared.print_left_out(left_out)
  print(f"{values.output}: {tables.counted(len(expectation.rows), 'row')}")
  return 0
