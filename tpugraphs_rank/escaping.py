"""Names and values from files as messages show them, on one line and not too long.

No name can move the cursor of a terminal, colour text or start a line that looks like a log entry.
"""

import copy
import logging
import pathlib
from typing import Any

_LONGEST = 100


def shown(name: str, longest: int = _LONGEST) -> str:
  """A name for a table or a message, on one line.

  Characters that are not printable (control characters, terminal escapes, marks that reverse the
  direction of text) are escaped as in Python, and the middle of a long name is left out.

  Args:
    name: any text from a file.
    longest: maximum number of characters, at least 10.
  """
  if len(name) > longest:
    name = f"{name[:longest - 6]}...{name[-3:]}"
  return printable(name)


def printable(text: str) -> str:
  """A text of any length with all characters that are not printable escaped; see `shown`."""
  if text.isprintable():
    return text
  return "".join(
      character if character.isprintable() else repr(character)[1:-1] for character in text)


def message(text: str) -> str:
  """A whole message, for a terminal or a log.

  Characters that are not printable are escaped. Its own ends of lines stay, but further lines are
  indented, so that none looks like a message of its own.
  """
  return "\n  ".join(map(printable, text.split("\n")))


class LogFormatter(logging.Formatter):
  """Formats messages for logs; names and texts in their arguments are escaped, see `printable`."""

  def format(self, record: logging.LogRecord) -> str:
    """The text of a record."""
    if isinstance(record.args, tuple):
      record = copy.copy(record)
      record.args = tuple(
          printable(str(argument)) if isinstance(argument, (str, pathlib.PurePath, Exception))
          else argument for argument in record.args or ())
    return "\n".join(map(printable, super().format(record).split("\n")))


def quoted(name: str) -> str:
  """A name in quotes; see `shown`."""
  return f"'{shown(name)}'"


def value(read: Any, longest: int = _LONGEST) -> str:
  """A value from a JSON file as in Python, for messages; see `shown`."""
  try:
    return shown(repr(read), longest)
  except (ValueError, RecursionError):  # Python refuses to write numbers of thousands of digits.
    return f"<{type(read).__name__} that is too long to show>"
