"""Reads submissions byte by byte: everything that `rows.render` would not write is reported.

What every reader of CSV files understands in the same way is a warning: CR LF, a byte order mark,
double quotes around a field, empty lines, a missing last newline. Everything else is a fault.

Reading does not stop at a fault. It uses the likely meaning of a faulty row (the ID without quotes,
the index without its leading zero), so that one mistake is not reported five times.
"""

import codecs
import collections
import os
import re
from typing import NamedTuple

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.submission import faults as faults_lib
from tpugraphs_rank.submission import rows as rows_lib

Fault = faults_lib.Fault

_INDICES = re.compile(r"(?:0|[1-9][0-9]{0,17})(?:;(?:0|[1-9][0-9]{0,17}))*")
_DIGITS = re.compile(r"[0-9]+")
# Every number with this many digits fits into a 64-bit integer.
_MOST_DIGITS = 18
# All configurations of all test graphs take about 15 MB.
_MOST_BYTES = 1 << 28
# Of a row. The public graphs have at most 100,040 configurations.
_MOST_INDICES = 1 << 18
# Of a file. The public test splits have 894 graphs.
_MOST_LINES = 1 << 16
_SEPARATOR = "has a separator other than ';'"
_ROW_START = re.compile(r"\W*(?:tile|layout):")
# A line of two fields, each with or without the quotes of RFC 4180.
_FIELDS = re.compile(r'(?P<first>"?)(?P<id>[^",]*)(?P=first),'
                     r'(?P<second>"?)(?P<body>[^",]*)(?P=second)')
_QUOTES = ('"', "'")
_BYTE_ORDER_MARK = "\ufeff"
_EMPTY_LINE = "empty line; the canonical form has none"


class ReadRow(NamedTuple):
  """A row as it is in the file.

  Attributes:
    line: number of its line, from 1.
    id: its ID, without surrounding whitespace and quotes.
    indices: its indices; None for an entry that is not a number. None instead of the tuple if the
      row has no separate field of indices.
  """

  line: int
  id: str
  indices: tuple[int | None, ...] | None

  @property
  def valid_indices(self) -> tuple[int, ...]:
    """The indices of a row without faults."""
    return tuple(index for index in self.indices or () if index is not None)


class Parsed(NamedTuple):
  """The contents of a file.

  Attributes:
    rows: in the order of the file.
    faults: faults of the format. Which rows are expected is not known here.
    warnings: what differs from the canonical form without changing the meaning; one of each kind.
  """

  rows: tuple[ReadRow, ...]
  faults: tuple[Fault, ...]
  warnings: tuple[Fault, ...] = ()


def parse(data: bytes) -> Parsed:
  """Reads the rows of a submission and all faults of its format. Never raises."""
  rows: list[ReadRow] = []
  faults: list[Fault] = []
  warnings = faults_lib.Collected()
  if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
    faults.append(Fault(1, "", "the file is UTF-16; save it as UTF-8"))
    data = data.decode("utf-16", "replace").encode("utf-8")
  if data.startswith(codecs.BOM_UTF8):
    warnings.add(1, "", "the file begins with a byte order mark; the canonical form has none")
    data = data.removeprefix(codecs.BOM_UTF8)
  if not data.strip():
    return Parsed((), (*faults, Fault(
        1, "", f"the file is empty; expected the header {rows_lib.HEADER} and one row per graph")))
  count = data.count(b"\n")
  if count > _MOST_LINES:
    return Parsed((), (*faults, Fault(
        1, "", f"the file has {count:,} lines; the limit is {_MOST_LINES:,}; expected one row per "
        "graph")))
  lines = data.split(b"\n")
  ends = not lines[-1]
  if ends:
    lines.pop()
  for number, line in enumerate(lines, 1):
    text, problems, notes = _text(line)
    name = ""
    if number == 1 and not _ROW_START.match(text):
      if text != rows_lib.HEADER:
        problems.append(
            f"the header is {faults_lib.shown(text)!r}; expected {rows_lib.HEADER!r}")
    elif not text:
      notes.append(_EMPTY_LINE)
    elif not text.strip():
      problems.append("blank line; expected a row")
    elif text == rows_lib.HEADER:
      problems.append("the header is repeated; "
                      f"{commands.command('submission', 'merge')} merges parts")
    else:
      if number == 1:
        faults.append(Fault(1, "", f"the header is missing; expected {rows_lib.HEADER!r}"))
      name, indices = _row(text, problems)
      rows.append(ReadRow(number, name, indices))
    faults += [Fault(number, name, problem) for problem in problems]
    for note in notes:
      warnings.add(number, name, note)
  if not ends:
    last = rows[-1].id if rows and rows[-1].line == len(lines) else ""
    warnings.add(len(lines), last, "no newline at the end; the file may be truncated")
  return Parsed(tuple(rows), tuple(faults), warnings.faults())


def read(path: files.PathLike) -> tuple[rows_lib.Row, ...]:
  """Reads a submission, or a part of one, that has no faults of format.

  Raises:
    MissingDataError: there is no such file.
    DataError: a fault; the message names the file, line and ID of the first, and the number of
      faults.
  """
  parsed = parse(read_bytes(path))
  if parsed.faults:
    more = f" (and {len(parsed.faults) - 1} more)" if len(parsed.faults) > 1 else ""
    raise errors.DataError(
        f"{path}: {parsed.faults[0]}{more}; write the file again with "
        f"{commands.command('predict')} or {commands.command('submission', 'merge')}")
  return tuple(rows_lib.Row(row.id, row.valid_indices) for row in parsed.rows)


def read_bytes(path: files.PathLike) -> bytes:
  """The bytes of a file.

  Raises:
    LimitError: it is far larger than any submission.
    MissingDataError: there is no such file, or it cannot be read.
    DataError: it is not an ordinary file.
  """
  if not os.path.lexists(path):
    raise errors.MissingDataError(
        f"no file {path}; {commands.command('predict', '--run_dir', 'DIR')} writes a part of a "
        f"submission, {commands.command('submission', 'merge')} merges the parts")
  return files.read_bytes(path, "a submission, which takes some megabytes", _MOST_BYTES)


def _text(line: bytes) -> tuple[str, list[str], list[str]]:
  """A line as text without quotes and invalid characters, the faults, and the warnings."""
  problems, notes = [], []
  try:
    text = line.decode("utf-8")
  except UnicodeDecodeError as error:
    problems.append(f"byte 0x{line[error.start]:02x} at position {error.start + 1} of the line is "
                    "not UTF-8; save the file as UTF-8")
    text = line.decode("utf-8", "replace")
  if text.endswith("\r"):
    notes.append("ends with CR LF; the canonical form has LF (Unix line ends)")
    text = text[:-1]
  for character, name in ((_BYTE_ORDER_MARK, "a byte order mark; save the file as UTF-8 without"),
                          ("\0", "NUL bytes; the file is damaged"),
                          ("\r", "a carriage return; expected LF between rows")):
    if character in text:
      problems.append(f"contains {name}")
      text = text.replace(character, "")
  fields = _FIELDS.fullmatch(text) if '"' in text else None
  if fields:
    notes.append("has quotes around a field; the canonical form has none")
    text = f"{fields['id']},{fields['body']}"
  return text, problems, notes


def _row(text: str, problems: list[str]) -> tuple[str, tuple[int | None, ...] | None]:
  """ID and indices of a row; appends its faults to `problems`."""
  field, comma, body = text.partition(",")
  if not comma:
    problems.append("no comma between ID and indices; expected ID,index;index;...")
    return re.split(r"[;|\s]", text.strip().strip("\"'"), maxsplit=1)[0], None
  name = field.strip()
  if name != field:
    problems.append("whitespace around the ID")
  if name[:1] in _QUOTES or name[-1:] in _QUOTES:
    problems.append("quotes around the ID; expected none")
    name = name.strip("\"'").strip()
  if not name:
    problems.append("the ID is empty; expected <collection>:<file stem>")
  if body[:1] in _QUOTES or body[-1:] in _QUOTES:
    problems.append("quotes around the indices; expected none")
    body = body.strip("\"'")
  if not body.strip():
    problems.append("no indices; expected configuration indices separated by ';'")
    return name, None
  count = body.count(";") + 1
  if count > _MOST_INDICES:
    problems.append(f"{count:,} indices; no graph has more than {_MOST_INDICES:,} configurations; "
                    "the file is damaged")
    return name, None
  if _INDICES.fullmatch(body):
    return name, tuple(map(int, body.split(";")))
  return name, _entries(body.split(";"), problems)


def _entries(entries: list[str], problems: list[str]) -> tuple[int | None, ...] | None:
  """The indices of a faulty row; appends one fault for each kind of mistake."""
  mistakes: dict[str, list[int]] = collections.OrderedDict()
  indices: list[int | None] = []
  for position, entry in enumerate(entries, 1):
    mistake, value = _entry(entry)
    indices.append(value)
    if mistake:
      mistakes.setdefault(mistake, []).append(position)
  for mistake, positions in mistakes.items():
    more = f" (and {len(positions) - 1} more)" if len(positions) > 1 else ""
    entry = faults_lib.shown(entries[positions[0] - 1])
    problems.append(f"entry {positions[0]}{more}, {entry!r}, {mistake}; expected whole numbers "
                    "such as 0 or 17, separated by ';'")
  return None if _SEPARATOR in mistakes else tuple(indices)


def _entry(text: str) -> tuple[str, int | None]:
  """The mistake in an index ("" if there is none), and the number that it means, if any."""
  if not text:
    return "is empty (there is one separator too many)", None
  bare = text.strip()
  unsigned = bare[1:] if bare[:1] in ("+", "-") else bare
  if not _DIGITS.fullmatch(unsigned):
    if re.fullmatch(r"[0-9]+(?:[^0-9A-Za-z.+\-]+[0-9]+)+", bare):
      return _SEPARATOR, None
    return "is not a whole number", None
  if len(unsigned) > _MOST_DIGITS:
    return "is far out of range", None
  value = int(unsigned)
  if bare != text:
    return "has whitespace around it", value
  if bare != unsigned:
    return "has a sign", None if bare[0] == "-" else value
  if unsigned != str(value):
    return "has leading zeros", value
  return "", value
