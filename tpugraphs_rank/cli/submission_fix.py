"""Write the canonical form of a submission.

  tpugraphs-rank submission fix --submission submission.csv --output fixed.csv

Writes LF line ends and UTF-8 without a byte order mark, no quotes, no empty lines, the best five
indices of each tile row, and the rows in the order of the sample (--sample), or else by collection
and name. No ranking changes. A file with faults is not written: the command prints the faults
instead, as `tpugraphs-rank submission validate` does.
"""

import pathlib

from absl import flags

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import submission
from tpugraphs_rank import tables
from tpugraphs_rank.cli import submission as shared
from tpugraphs_rank.submission import reading


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("submission", None, "The file to read.", required=True)
  flags.DEFINE_string("output", None, "The file to write.", required=True)
  shared.define_data_flags("test")
  shared.define_expectation_flags(strict=False)


def main(argv: list[str]) -> int:
  """Writes the canonical form, or prints the faults."""
  values = flags.FLAGS
  if pathlib.Path(values.output).resolve() == pathlib.Path(values.submission).resolve():
    raise errors.ConfigError(
        f"--output is the file that is read, {values.submission}; choose another name")
  data = reading.read_bytes(values.submission)
  expectation, left_out = shared.expected_rows(values, [data])
  findings = submission.check(data, expectation)
  for fault in findings.faults:
    print(fault)
  for warning in findings.warnings:
    print(f"warning: {warning}")
  if findings.faults:
    raise errors.DataError(
        f"{tables.counted(len(findings.faults), 'fault')}, whose correction is not clear; "
        f"{values.output} was not written: correct them in {values.submission}")
  merged = submission.merge({values.submission: data}, expectation)
  with files.atomic_write(values.output) as file:
    file.write(merged.data)
  shared.print_counts(merged.counts, expectation)
  shared.print_left_out(left_out)
  changed = "unchanged" if merged.data == data else "in the canonical form"
  print(f"{values.output}: {tables.counted(len(expectation.rows), 'row')}, {changed}")
  return 0
