"""Names from files as they are shown: no name can move the cursor, colour text or start a line."""

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
  return "".join(
      character if character.isprintable() else repr(character)[1:-1] for character in name)


def quoted(name: str) -> str:
  """A name in quotes; see `shown`."""
  return f"'{shown(name)}'"
