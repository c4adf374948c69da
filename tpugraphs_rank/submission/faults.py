"""Faults of a submission, with their lines."""

from collections.abc import Iterable
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


class Findings(NamedTuple):
  """What a check of a submission found, each by line.

  Attributes:
    faults: without any, the submission is valid.
    warnings: what differs from the canonical form without changing the meaning.
  """

  faults: tuple[Fault, ...]
  warnings: tuple[Fault, ...]

  def strict(self) -> "Findings":
    """The findings if every warning is a fault."""
    return Findings(ordered([*self.faults, *self.warnings]), ())


def ordered(faults: Iterable[Fault]) -> tuple[Fault, ...]:
  """The faults by line; those of a line stay in their order."""
  return tuple(sorted(faults, key=lambda fault: fault.line))


class Collected:
  """Collects warnings, and reports each kind once: a file with CR LF has it on every line."""

  def __init__(self) -> None:
    self._places: dict[str, list[tuple[int, str]]] = {}

  def add(self, line: int, name: str, message: str) -> None:
    """Adds a warning about a line; warnings with equal messages are of one kind."""
    self._places.setdefault(message, []).append((line, name))

  def faults(self) -> tuple[Fault, ...]:
    """The first of each kind, which states the number of the others, by line."""
    return ordered(
        Fault(*places[0], message + (f" ({len(places) - 1} more such lines)" if len(places) > 2
                                     else " (1 more such line)" if len(places) > 1 else ""))
        for message, places in self._places.items())


def shown(text: str) -> str:
  """Text of a file for printing: shortened, and without control characters."""
  if len(text) > _SHOWN:
    text = f"{text[:_SHOWN]}..."
  return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
