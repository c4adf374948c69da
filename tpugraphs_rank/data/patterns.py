"""Regular expressions from files, matched by RE2 in a time that is linear in the text.

Python's own matching backtracks: a short expression such as `(a+)+b` takes years on a short text.
RE2 refuses what needs backtracking, such as references to groups and looks ahead and behind. Its
syntax: https://github.com/google/re2/wiki/Syntax
"""

import functools

import re2

from tpugraphs_rank import errors
from tpugraphs_rank import escaping

LONGEST = 1000  # Characters of an expression.
_MEMORY = 1 << 20  # Bytes of a compiled expression.


class Pattern:
  """An expression with one named group.

  Attributes:
    source: the expression.
    group: the name of the group.
  """

  def __init__(self, source: str, group: str) -> None:
    """Compiles an expression.

    Raises:
      DataError: it is not a regular expression of RE2, or it lacks the group.
      LimitError: it is too long, or needs too much memory.
    """
    if len(source) > LONGEST:
      raise errors.LimitError(
          f"is a regular expression of {len(source):,} characters; the limit is {LONGEST:,}; "
          "write a shorter one")
    options = re2.Options()
    options.max_mem = _MEMORY
    options.log_errors = False
    try:
      self._compiled = re2.compile(source, options)
    except (re2.error, UnicodeError) as error:
      reason = error.args[0] if error.args else error
      text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
      if "too large" in text or "repetition size" in text:
        raise errors.LimitError(
            f"is a regular expression that repeats too much ({escaping.shown(text)}); write a "
            "smaller one") from None
      raise errors.DataError(
          f"is not a regular expression of RE2: {escaping.shown(text)}") from None
    if group not in self._compiled.groupindex:
      raise errors.DataError(f"lacks the group (?P<{group}>...)")
    self.source, self.group = source, group

  def search(self, text: str) -> str | None:
    """The group's part of the first match in a text; None if nothing matches.

    The part is "" if the match does not use the group.
    """
    match = self._compiled.search(text)
    return None if match is None else match.group(self.group) or ""


@functools.lru_cache(maxsize=256)
def compiled(source: str, group: str) -> Pattern:
  """A `Pattern`, compiled once."""
  return Pattern(source, group)
