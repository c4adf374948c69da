"""A position in HLO text, and the steps that every part of the grammar needs."""

import re

from tpugraphs_rank import errors

NAME = re.compile(r"%?([A-Za-z_0-9][\w.\-]*)", re.ASCII)
WORD = re.compile(r"[A-Za-z_][\w\-]*", re.ASCII)

_BLANK = re.compile(r"(?:\s+|/\*.*?\*/|//[^\n]*)*", re.DOTALL)
_STRING = r""""[^"\\]*(?:\\.[^"\\]*)*"|'[^'\\]*(?:\\.[^'\\]*)*'"""
# What a bracket can contain: plain text, strings, comments, a lone slash, and brackets.
_INSIDE = re.compile(
    rf"[^\"'(){{}}\[\]/]+|{_STRING}|/\*.*?\*/|/|[(){{}}\[\]]", re.DOTALL)
_PLAIN = re.compile(r"""[^\s,"'(){}\[\]]+""")
_SPACED_BRACKET = re.compile(r"[ \t]+(?=[({\[])")
_WHOLE_STRING = re.compile(_STRING, re.DOTALL)

_INTEGER = re.compile(r"-?[0-9]{1,19}")
_OPENING = "({["
_CLOSING = {")": "(", "}": "{", "]": "["}


def integer(text: str) -> int:
  """A whole number of 64 bits. Stricter than `int`, which accepts `1_000`.

  Raises:
    ValueError: it is something else.
  """
  text = text.strip()
  if not _INTEGER.fullmatch(text) or not -2**63 <= int(text) < 2**63:
    raise ValueError(text)
  return int(text)


class Scanner:
  """Reads a text from front to back.

  Attributes:
    text: the whole text.
    position: index of the next character.
    source: name of the text in error messages.
  """

  def __init__(self, text: str, source: str):
    self.text = text
    self.position = 0
    self.source = source

  def blank(self) -> None:
    """Passes over white space and comments."""
    match = _BLANK.match(self.text, self.position)
    assert match is not None
    self.position = match.end()

  def peek(self) -> str:
    """The next character that is neither white space nor in a comment; "" at the end."""
    self.blank()
    return self.text[self.position:self.position + 1]

  def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
    """Passes over what the pattern matches at the next character; None if it does not match."""
    self.blank()
    found = pattern.match(self.text, self.position)
    if found:
      self.position = found.end()
    return found

  def take(self, literal: str) -> bool:
    """Passes over `literal` if it comes next."""
    self.blank()
    if not self.text.startswith(literal, self.position):
      return False
    self.position += len(literal)
    return True

  def expect(self, literal: str, where: str) -> None:
    """Passes over `literal`.

    Raises:
      DataError: something else comes next.
    """
    if not self.take(literal):
      raise self.error(f"expected {literal!r} {where}, but there is {self.upcoming()}")

  def group(self) -> str:
    """Passes over a bracket, with everything in it, and returns its text.

    Raises:
      DataError: it does not end, or another kind of bracket ends it.
    """
    start = self.position
    open_brackets: list[str] = []
    while True:
      found = _INSIDE.match(self.text, self.position)
      if found is None:
        raise self.error(
            "expected the end of the bracket or string that starts here; the text is cut off",
            start)
      character = self.text[self.position]
      if character in _OPENING:
        open_brackets.append(character)
      elif character in _CLOSING:
        if open_brackets[-1] != _CLOSING[character]:
          raise self.error(f"{character!r} closes the bracket {open_brackets[-1]!r}")
        open_brackets.pop()
      self.position = found.end()
      if not open_brackets:
        return self.text[start:self.position]

  def value(self) -> str:
    """Passes over the value of an attribute, and returns its text.

    A value is a sequence of words, strings and brackets, such as `{0,1}`, `b01f_01io->b01f`,
    `[2,4]<=[8]`, `"text"` or `mesh['a'=2] {'a'}`. Only brackets may follow a space.

    Raises:
      DataError: there is none, or it does not end.
    """
    self.blank()
    start = self.position
    while True:
      plain = _PLAIN.match(self.text, self.position)
      if plain:
        self.position = plain.end()
      character = self.text[self.position:self.position + 1]
      if character and character in _OPENING:
        self.group()
      elif character and character in "\"'":
        string = _WHOLE_STRING.match(self.text, self.position)
        if string is None:
          raise self.error("expected the end of the string that starts here; the text is cut off")
        self.position = string.end()
      else:
        spaced = _SPACED_BRACKET.match(self.text, self.position)
        if spaced is None or self.position == start:
          break
        self.position = spaced.end()
    if self.position == start:
      raise self.error(f"expected a value after '=', but there is {self.upcoming()}")
    return self.text[start:self.position]

  def upcoming(self) -> str:
    """The next characters, for a message."""
    self.blank()
    ahead = self.text[self.position:self.position + 24]
    return repr(ahead.split("\n", 1)[0]) if ahead else "the end of the text"

  def error(self, what: str, position: int | None = None) -> errors.DataError:
    """An error at a position: the current one by default."""
    position = self.position if position is None else position
    line = self.text.count("\n", 0, position) + 1
    column = position - (self.text.rfind("\n", 0, position) + 1) + 1
    return errors.DataError(
        f"{self.source}: line {line}, column {column} of the HLO text: {what}; expected a module "
        "as XLA prints it; dump the program again, or dump it as a protobuf "
        "(XLA_FLAGS='--xla_dump_to=FOLDER --xla_dump_hlo_as_proto')")
