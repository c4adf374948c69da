"""Faults of a submission, with their lines."""

from typing import NamedTuple

_SHOWN = 80


class Fault(NamedTuple):
  """One fault of a submission file.

  Attributes:
    line: number of the line, from 1; for a missing row, the line where it should be.
    id: the ID of the row; empty if the fault concerns no row.
    message: what is wrong, and what was expected.
  """

  line: int
  id: str
  message: str

  def __str__(self) -> str:
    where = f"line {self.line}: {shown(self.id)}: " if self.id else f"line {self.line}: "
    return where + self.message


def shown(text: str) -> str:
  """Text of a file for printing: shortened, and without control characters."""
  if len(text) > _SHOWN:
    text = f"{text[:_SHOWN]}..."
  return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
