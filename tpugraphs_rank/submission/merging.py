"""Merges the parts that runs write into one submission."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
import dataclasses
from typing import NamedTuple

from tpugraphs_rank import commands
from tpugraphs_rank.submission import expectation as expectation_lib
from tpugraphs_rank.submission import faults as faults_lib
from tpugraphs_rank.submission import reading
from tpugraphs_rank.submission import rows as rows_lib
from tpugraphs_rank.submission import validation


class PartFault(NamedTuple):
  """A fault of a part. A missing row belongs to no part; its line is that in the merged file."""

  part: str
  fault: faults_lib.Fault

  def __str__(self) -> str:
    return f"{self.part}: {self.fault}" if self.part else str(self.fault)


@dataclasses.dataclass(frozen=True)
class Merged:
  """The result of merging parts.

  Attributes:
    data: the bytes of the submission; empty if there are faults.
    faults: the faults of each part, then the rows and collections that no part has.
    counts: number of rows of each collection.
    repeats: number of rows that several parts have, with the same ranking.
    warnings: what differs in the parts from the canonical form, which `data` has.
  """

  data: bytes
  faults: tuple[PartFault, ...]
  counts: Mapping[str, int]
  repeats: int
  warnings: tuple[PartFault, ...] = ()


def mentioned(parts: Iterable[bytes], names: Sequence[str]) -> tuple[str, ...]:
  """The collections that have a row in some part, in the order of `names`."""
  ids = {row.id for data in parts for row in reading.parse(data).rows}
  return tuple(name for name in names if any(row_id.startswith(f"{name}:") for row_id in ids))


def merge(parts: Mapping[str, bytes], expectation: expectation_lib.Expectation,
          strict: bool = False) -> Merged:
  """Merges parts into a valid submission in the canonical form, or lists their faults.

  The rows may be in any order and in any part; the merged file has them in the expected order.
  Several parts may have a row if all of them rank its graph in the same way. Of a tile row with
  more than five indices, the first five are written.

  Args:
    parts: the bytes of each part, by the name that faults refer to.
    expectation: the rows of the submission.
    strict: whether the parts' warnings are faults.
  """
  faults: list[PartFault] = []
  warnings: list[PartFault] = []
  chosen: dict[str, tuple[str, reading.ReadRow]] = {}
  repeats = 0
  for part, data in parts.items():
    rows = {row.id: row for row in reversed(reading.parse(data).rows)
            if row.id in expectation.places}
    findings = validation.check(data, expectation, whole=False)
    if strict:
      findings = findings.strict()
    part_faults = list(findings.faults)
    warnings += [PartFault(part, fault) for fault in findings.warnings]
    for name, row in rows.items():
      if name not in chosen:
        chosen[name] = (part, row)
        continue
      other, first = chosen[name]
      expected = expectation.rows[expectation.places[name]]
      if validation.canonical(first, expected) == validation.canonical(row, expected):
        repeats += 1
      else:
        part_faults.append(faults_lib.Fault(row.line, row.id, (
            f"conflicts with {other}, line {first.line}, which ranks the graph differently; "
            "leave one of the two parts out")))
    faults += [PartFault(part, fault) for fault in faults_lib.ordered(part_faults)]
  for name, message in validation.contradictions(
      {name: row for name, (_, row) in chosen.items()}, expectation):
    part, row = chosen[name]
    faults.append(PartFault(part, faults_lib.Fault(
        row.line, expectation.rows[expectation.places[name]].collection, message)))
  counts = expectation.count(chosen)
  faults += _absent(chosen, counts, expectation)
  if faults:
    return Merged(b"", tuple(faults), counts, repeats, tuple(warnings))
  data = rows_lib.render(
      rows_lib.Row(row.id, validation.canonical(chosen[row.id][1], row))
      for row in expectation.rows)
  return Merged(data, (), counts, repeats, tuple(warnings))


def _absent(chosen: Collection[str], counts: Mapping[str, int],
            expectation: expectation_lib.Expectation) -> Iterator[PartFault]:
  """The rows that no part has; one fault for a collection without any row."""
  absent = set()
  for place, expected in enumerate(expectation.rows):
    line = place + 2
    if not counts[expected.collection]:
      if expected.collection not in absent:
        yield PartFault("", faults_lib.Fault(line, expected.collection, (
            "no part has a row of this collection; add the part of its run "
            f"({commands.command('predict')} writes it), or give --allow_partial for a file "
            "without it")))
      absent.add(expected.collection)
    elif expected.id not in chosen:
      yield PartFault("", faults_lib.Fault(line, expected.id, "no part has this row"))
