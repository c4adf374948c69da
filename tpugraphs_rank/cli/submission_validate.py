"""List every fault of a submission.

  tpugraphs-rank submission validate --submission submission.csv --data_root data
  tpugraphs-rank submission validate --submission submission.csv --sample sample_submission.csv

Prints each fault as `line N: ID: message`. The exit status is 0 only if there is none.

Rows are matched by ID: any order is valid. What every reader of CSV files accepts, such as CR LF,
is a warning; --strict makes it a fault, and `tpugraphs-rank submission fix` removes it.

The data (--data_root) or a sample submission (--sample) determines which rows must be in the file;
without both, the published IDs of the test splits do. Of a sample, only the IDs are used. The
numbers of configurations come from the data. Without it, those of the layout graphs are known; for
tile kernels it is known how many have fewer than five, but not which.
"""

import shlex

from absl import flags

from tpugraphs_rank import commands
from tpugraphs_rank import submission
from tpugraphs_rank import tables
from tpugraphs_rank.cli import submission as shared
from tpugraphs_rank.submission import reading


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("submission", None, "The file to validate.", required=True)
  shared.define_data_flags("test")
  shared.define_expectation_flags()


def main(argv: list[str]) -> int:
  """Prints every fault of a submission; returns 0 only if there is none."""
  values = flags.FLAGS
  data = reading.read_bytes(values.submission)
  expectation, left_out = shared.expected_rows(values, [data])
  findings = submission.check(data, expectation)
  if values.strict:
    findings = findings.strict()
  for fault in findings.faults:
    print(fault)
  for warning in findings.warnings:
    print(f"warning: {warning}")
  ids = {row.id for row in submission.parse(data).rows}
  shared.print_counts(expectation.count(ids), expectation)
  shared.print_knowledge(expectation)
  shared.print_left_out(left_out)
  if findings.faults:
    lines = len({fault.line for fault in findings.faults})
    print(f"{values.submission} is invalid: {tables.counted(len(findings.faults), 'fault')} on "
          f"{tables.counted(lines, 'line')}")
    return 1
  warnings = f", {tables.counted(len(findings.warnings), 'warning')}" if findings.warnings else ""
  print(f"{values.submission} is valid: {tables.counted(len(expectation.rows), 'row')}{warnings}")
  if findings.warnings:
    print(commands.command("submission", "fix", "--submission", shlex.quote(values.submission),
                           "--output", "FILE") + " writes the canonical form")
  return 0
