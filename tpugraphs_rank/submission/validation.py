"""Compares a submission with the rows that it must have, and lists every fault and warning."""

import collections as containers
from collections.abc import Iterator, Mapping, Sequence

from tpugraphs_rank import config
from tpugraphs_rank.metrics import competition
from tpugraphs_rank.submission import expectation as expectation_lib
from tpugraphs_rank.submission import faults as faults_lib
from tpugraphs_rank.submission import reading

Fault = faults_lib.Fault

# Searching the nearest of thousands of names takes a while, and nobody reads more suggestions.
_MOST_HINTS = 10
# A ranking that equals the order of the indices in this many rows is no coincidence.
_PLACEHOLDERS = 5


def check(data: bytes, expectation: expectation_lib.Expectation, whole: bool = True
          ) -> faults_lib.Findings:
  """All faults and warnings of a submission. Without faults it is valid.

  Rows are matched by ID: any order is valid. A missing row is reported on the line after the
  nearest preceding row that the file has.

  Args:
    data: the bytes of the file.
    expectation: the rows that it must have.
    whole: whether the file must have all of them; a part may lack some.
  """
  parsed = reading.parse(data)
  places = expectation.places
  faults = [*parsed.faults, *repeated(parsed.rows), *unknown(parsed.rows, expectation)]
  warnings = faults_lib.Collected()
  rows: dict[str, reading.ReadRow] = {}
  for row in parsed.rows:
    if row.id not in places or row.id in rows:
      continue
    rows[row.id] = row
    expected = expectation.rows[places[row.id]]
    faults += [Fault(row.line, row.id, message) for message in check_row(row, expected)]
    if expected.kind == "tile" and len(row.indices or ()) > competition.TILE_K:
      warnings.add(row.line, row.id, (
          f"more than {competition.TILE_K} indices, of which the metric reads the first "
          f"{competition.TILE_K}"))
  if whole:
    faults += [Fault(rows[name].line, expectation.rows[places[name]].collection, message)
               for name, message in contradictions(rows, expectation)]
    line = 1
    for expected in expectation.rows:
      if expected.id in rows:
        line = rows[expected.id].line
      else:
        faults.append(Fault(line + 1, expected.id, "the row is missing"))
  return faults_lib.Findings(
      faults_lib.ordered(faults),
      faults_lib.ordered([*parsed.warnings, *warnings.faults(),
                          *_placeholders(rows, expectation)]))


def validate(data: bytes, expectation: expectation_lib.Expectation, strict: bool = False
             ) -> list[Fault]:
  """All faults of a submission, by line. Without faults it is valid.

  Args:
    data: the bytes of the file.
    expectation: the rows that it must have.
    strict: whether warnings are faults too. Without any, the rows are in the canonical form.
  """
  findings = check(data, expectation)
  return list((findings.strict() if strict else findings).faults)


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
  listed = len(row.indices)
  tile = expected.kind == "tile"
  count = expected.num_configs
  if expected.length is not None and listed < expected.length or (
      count is not None and listed > count):
    what = "the best" if tile else "all"
    of = f" of its {count} configurations" if count is not None else ""
    yield f"{listed} indices; expected {what} {expected.length}{of}"
  limit, why = count, ""
  if limit is None and (not tile or listed < competition.TILE_K):
    # The row ranks all configurations, so their number is its length.
    limit = listed
    why = f", because a row of fewer than {competition.TILE_K} ranks all" if tile else ""
  if limit is not None:
    wrong = [position for position, index in enumerate(row.indices, 1)
             if index is not None and index >= limit]
    if wrong:
      more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
      yield (f"entry {wrong[0]}{more}, {row.indices[wrong[0] - 1]}, is out of range; expected 0 to "
             f"{limit - 1}{why}")
  counts = containers.Counter(index for index in row.indices if index is not None)
  repeats = [index for index, times in counts.items() if times > 1]
  if repeats:
    first = row.indices.index(repeats[0]) + 1
    second = row.indices.index(repeats[0], first) + 1
    more = f" (and {len(repeats) - 1} more indices)" if len(repeats) > 1 else ""
    yield (f"index {repeats[0]} is repeated at entries {first} and {second}{more}; expected each "
           "at most once, and short lists without padding")


def canonical(row: reading.ReadRow, expected: expectation_lib.ExpectedRow) -> tuple[int, ...]:
  """The indices of a valid row as the project writes them: the first five of a tile row."""
  return row.valid_indices[:competition.TILE_K if expected.kind == "tile" else None]


def contradictions(rows: Mapping[str, reading.ReadRow], expectation: expectation_lib.Expectation
                   ) -> Iterator[tuple[str, str]]:
  """Faults of a collection of which it is known how many kernels are small, but not which.

  Args:
    rows: the rows by ID.
    expectation: the rows of the submission.

  Yields:
    The ID of the first row that the fault concerns, and the message.
  """
  for collection, small in expectation.small.items():
    expected = [row for row in expectation.rows if row.collection == collection]
    left = containers.Counter(small)
    left.subtract(count for row in expected if (count := row.num_configs) is not None)
    unsure = [row.id for row in expected if row.num_configs is None]
    most = {count: left[count] for count in range(1, competition.TILE_K)}
    most[competition.TILE_K] = len(unsure) - sum(most.values())
    by_length: dict[int, list[str]] = {}
    for name in unsure:
      if name in rows and rows[name].indices is not None:
        length = min(len(rows[name].indices or ()), competition.TILE_K)
        by_length.setdefault(length, []).append(name)
    sizes = ", ".join(f"{number} have {count}" for count, number in small.items())
    for count, names in sorted(by_length.items()):
      if len(names) > most[count]:
        more = " or more" if count == competition.TILE_K else ""
        yield min(names, key=lambda name: rows[name].line), (
            f"{len(names)} rows list {count} indices{more}, but {most[count]} of these kernels "
            f"have {count} configurations{more} (of all kernels {sizes}; it is not published which "
            f"ones); expected all configurations of a kernel that has fewer than "
            f"{competition.TILE_K}: validate with --data_root to see the wrong rows")


def _placeholders(rows: Mapping[str, reading.ReadRow], expectation: expectation_lib.Expectation
                  ) -> Iterator[Fault]:
  """A warning if there are collections whose rows all list 0, 1, 2, ... in this order."""
  members: dict[str, list[reading.ReadRow]] = {}
  for row in rows.values():
    members.setdefault(expectation.rows[expectation.places[row.id]].collection, []).append(row)
  names = [name for name, own in members.items() if len(own) >= _PLACEHOLDERS and all(
      row.indices == tuple(range(len(row.indices or ()))) for row in own)]
  if names:
    yield Fault(min(row.line for name in names for row in members[name]), "", (
        f"all rows of {', '.join(names)} list 0;1;2;... in this order: placeholders, as in the "
        "competition's sample, and no rankings"))
