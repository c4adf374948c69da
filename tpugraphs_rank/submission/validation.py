"""Compares a submission with the rows that it must have, and lists every fault."""

import bisect
import collections
from collections.abc import Iterator, Sequence

from tpugraphs_rank import config
from tpugraphs_rank.submission import expectation as expectation_lib
from tpugraphs_rank.submission import faults as faults_lib
from tpugraphs_rank.submission import reading

Fault = faults_lib.Fault

# Searching the nearest of thousands of names takes a while, and nobody reads more suggestions.
_MOST_HINTS = 10


def validate(data: bytes, expectation: expectation_lib.Expectation) -> list[Fault]:
  """All faults of a submission, by line. Without faults it is valid, byte by byte.

  A missing row is reported on the line after the last preceding row that the file has. If rows are
  out of order, the smallest set of rows that would have to be moved is reported.

  Args:
    data: the bytes of the file.
    expectation: the rows that it must have.
  """
  parsed = reading.parse(data)
  places = expectation.places
  faults = [*parsed.faults, *repeated(parsed.rows), *unknown(parsed.rows, expectation)]
  lines: dict[str, int] = {}
  for row in parsed.rows:
    if row.id in places and row.id not in lines:
      lines[row.id] = row.line
      faults += [Fault(row.line, row.id, message)
                 for message in check_row(row, expectation.rows[places[row.id]])]
  for place in _misplaced([places[name] for name in lines]):
    name = expectation.rows[place].id
    before = f"after {expectation.rows[place - 1].id}" if place else "first"
    faults.append(Fault(lines[name], name, f"out of order; expected {before}"))
  line = 1
  for expected in expectation.rows:
    if expected.id in lines:
      line = lines[expected.id]
    else:
      faults.append(Fault(line + 1, expected.id, "the row is missing"))
  return sorted(faults, key=lambda fault: fault.line)


def repeated(rows: Sequence[reading.ReadRow]) -> list[Fault]:
  """A fault for each repeated ID. Empty IDs are faults of the format already."""
  lines: dict[str, int] = {}
  return [
      Fault(row.line, row.id,
            f"the ID already appears on line {lines[row.id]}; expected it once")
      for row in rows if row.id and lines.setdefault(row.id, row.line) != row.line]


def unknown(rows: Sequence[reading.ReadRow], expectation: expectation_lib.Expectation
            ) -> list[Fault]:
  """A fault for each unexpected row. Empty IDs are faults of the format already."""
  faults: list[Fault] = []
  for row in rows:
    if not row.id or row.id in expectation.places:
      continue
    hint = config.nearest(row.id, expectation.places) if len(faults) < _MOST_HINTS else ""
    faults.append(Fault(row.line, row.id, (
        f"unknown ID{hint}; it is not among {expectation.source}")))
  return faults


def check_row(row: reading.ReadRow, expected: expectation_lib.ExpectedRow) -> Iterator[str]:
  """The faults of a row's indices. Entries that are not numbers were reported before."""
  if row.indices is None:
    return
  count = expected.num_configs
  length = expected.length if expected.length is not None else len(row.indices)
  if len(row.indices) != length:
    what = "the best" if expected.kind == "tile" else "all"
    of = f" of its {count} configurations" if count is not None else ""
    yield f"{len(row.indices)} indices; expected {what} {length}{of}"
  # A permutation of unknown length is checked against its own length.
  limit = count if count is not None or expected.kind == "tile" else len(row.indices)
  if limit is not None:
    wrong = [position for position, index in enumerate(row.indices, 1)
             if index is not None and index >= limit]
    if wrong:
      more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
      yield (f"entry {wrong[0]}{more}, {row.indices[wrong[0] - 1]}, is out of range; expected 0 to "
             f"{limit - 1}")
  counts = collections.Counter(index for index in row.indices if index is not None)
  repeats = [index for index, times in counts.items() if times > 1]
  if repeats:
    first = row.indices.index(repeats[0]) + 1
    second = row.indices.index(repeats[0], first) + 1
    more = f" (and {len(repeats) - 1} more indices)" if len(repeats) > 1 else ""
    yield (f"index {repeats[0]} is repeated at entries {first} and {second}{more}; expected each "
           "at most once, and short lists without padding")


def _misplaced(places: Sequence[int]) -> list[int]:
  """The smallest set of entries to remove so that the list ascends: all but the longest ascending
  subsequence."""
  # tails[k]: index of the smallest entry that ends an ascending subsequence of length k + 1.
  tails: list[int] = []
  values: list[int] = []
  before: list[int] = []
  for index, place in enumerate(places):
    k = bisect.bisect_left(values, place)
    before.append(tails[k - 1] if k else -1)
    tails[k:k + 1] = [index]
    values[k:k + 1] = [place]
  kept = set()
  index = tails[-1] if tails else -1
  while index >= 0:
    kept.add(index)
    index = before[index]
  return [place for index, place in enumerate(places) if index not in kept]
