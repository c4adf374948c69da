"""Merges the parts that runs write into one submission."""

from collections.abc import Iterable, Mapping, Sequence
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
  """

  data: bytes
  faults: tuple[PartFault, ...]
  counts: Mapping[str, int]
  repeats: int


def mentioned(parts: Iterable[bytes], names: Sequence[str]) -> tuple[str, ...]:
  """The collections that have a row in some part, in the order of `names`."""
  ids = {row.id for data in parts for row in reading.parse(data).rows}
  return tuple(name for name in names if any(row_id.startswith(f"{name}:") for row_id in ids))


def merge(parts: Mapping[str, bytes], expectation: expectation_lib.Expectation) -> Merged:
  """Merges parts into a valid submission, or lists their faults.

  The rows may be in any order and in any part; the merged file has them in the expected order.
  Several parts may have a row if all of them rank its graph in the same way.

  Args:
    parts: the bytes of each part, by the name that faults refer to.
    expectation: the rows of the submission.
  """
  faults: list[PartFault] = []
  chosen: dict[str, tuple[str, reading.ReadRow]] = {}
  repeats = 0
  for part, data in parts.items():
    parsed = reading.parse(data)
    part_faults = [*parsed.faults, *validation.repeated(parsed.rows),
                   *validation.unknown(parsed.rows, expectation)]
    seen = set()
    for row in parsed.rows:
      if row.id not in expectation.places or row.id in seen:
        continue
      seen.add(row.id)
      expected_row = expectation.rows[expectation.places[row.id]]
      part_faults += [faults_lib.Fault(row.line, row.id, message)
                      for message in validation.check_row(row, expected_row)]
      if row.id not in chosen:
        chosen[row.id] = (part, row)
      elif chosen[row.id][1].indices == row.indices:
        repeats += 1
      else:
        other, first = chosen[row.id]
        part_faults.append(faults_lib.Fault(row.line, row.id, (
            f"conflicts with {other}, line {first.line}, which ranks the graph differently; "
            "leave one of the two parts out")))
    faults += [PartFault(part, fault)
               for fault in sorted(part_faults, key=lambda fault: fault.line)]
  counts = expectation.count(chosen)
  absent = set()
  for place, expected in enumerate(expectation.rows):
    line = place + 2
    if not counts[expected.collection]:
      if expected.collection not in absent:
        faults.append(PartFault("", faults_lib.Fault(line, expected.collection, (
            "no part has a row of this collection; add the part of its run "
            f"({commands.command('predict')} writes it), or give --allow_partial for a file "
            "without it"))))
      absent.add(expected.collection)
    elif expected.id not in chosen:
      faults.append(PartFault("", faults_lib.Fault(line, expected.id, "no part has this row")))
  if faults:
    return Merged(b"", tuple(faults), counts, repeats)
  data = rows_lib.render(
      rows_lib.Row(row.id, chosen[row.id][1].valid_indices) for row in expectation.rows)
  return Merged(data, (), counts, repeats)
