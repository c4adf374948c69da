"""List every fault of a submission.

  tpugraphs-rank submission validate --submission submission.csv --data_root data

Prints each fault as `line N: ID: message`. The exit status is 0 only if there is none.

The data (--data_root) or a sample submission (--sample) determines which rows must be in the file.
"""

from absl import flags

from tpugraphs_rank import submission
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
  faults = submission.validate(data, expectation)
  for fault in faults:
    print(fault)
  ids = {row.id for row in submission.parse(data).rows}
  shared.print_counts(expectation.count(ids), expectation)
  shared.print_left_out(left_out)
  if faults:
    lines = len({fault.line for fault in faults})
    print(f"{values.submission} is invalid: {shared.counted(len(faults), 'fault')} on "
          f"{shared.counted(lines, 'line')}")
    return 1
  print(f"{values.submission} is valid: {shared.counted(len(expectation.rows), 'row')}")
  return 0
