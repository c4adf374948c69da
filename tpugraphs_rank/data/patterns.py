"""Regular expressions from files, matched in a time that is linear in the text.

Python's own matching tries one way after another, and a short expression such as `(a+)+b` takes
years on a short text. Here, an expression that could do so is run on all its ways at once: each
character of the text is read once, with the list of all places where the expression can be (R. Pike
and K. Thompson; R. Cox, "Regular Expression Matching: the Virtual Machine Approach", 2009). The
result is the same as Python's.

The syntax is that of Python without what cannot be matched in this way: references to groups, looks
ahead and behind, conditions, and flags.
"""

from collections.abc import Callable
import dataclasses
import functools
import re

from tpugraphs_rank import errors
from tpugraphs_rank import escaping

LONGEST = 1000  # Characters of an expression.
_MOST_STEPS = 500  # Instructions of an expression whose repetitions are written out.
_DEEPEST = 20  # Groups in groups.
# An expression with at most so much choice is matched by Python: its time is at most cubic.
_SIMPLE_CHOICES = 2

_QUANTIFIER = re.compile(r"(?:\*|\+|\?|\{(\d*),?(\d*)\})")
_NAME = re.compile(r"\(\?P<(\w+)>")
_ESCAPES = {"x": 4, "u": 6, "U": 10}  # Length of an escape with hexadecimal digits.
_NOTHING = (-1, -1)


@dataclasses.dataclass(frozen=True)
class _Step:
  """An instruction of the matcher.

  Attributes:
    next: the instructions that follow, the preferred one first.
    reads: whether a character may be read here; None: the step reads nothing.
    holds: whether the step may be taken at a position of a text; None: always.
    saves: the position in the text is saved as the start (0) or end (1) of the group; -1: not.
  """

  next: tuple[int, ...]
  reads: Callable[[str], bool] | None = None
  holds: Callable[[str, int], bool] | None = None
  saves: int = -1


# An expression in the tree: appends its steps, which continue at a step; returns its first step.
_Builder = Callable[[list[_Step], int], int]


@dataclasses.dataclass(frozen=True)
class _Part:
  """A part of an expression.

  Attributes:
    build: see above.
    can_be_empty: whether it can match without reading a character.
  """

  build: _Builder
  can_be_empty: bool = False


class Pattern:
  """An expression with one named group.

  Attributes:
    source: the expression.
    group: the name of the group.
  """

  def __init__(self, source: str, group: str) -> None:
    """Compiles an expression.

    Raises:
      DataError: it is not a regular expression, it lacks the group, or it needs what cannot be
        matched in linear time.
      LimitError: it is too long.
    """
    if len(source) > LONGEST:
      raise errors.LimitError(
          f"is a regular expression of {len(source):,} characters; the limit is {LONGEST:,}; "
          "write a shorter one")
    try:
      self._compiled = re.compile(source)
    except (re.error, OverflowError, RecursionError) as error:
      raise errors.DataError(
          f"is not a regular expression: {escaping.shown(str(error))}") from None
    if group not in self._compiled.groupindex:
      raise errors.DataError(f"lacks the group (?P<{group}>...)")
    self.source, self.group = source, group
    parser = _Parser(source, group)
    build = parser.parse().build
    self._is_simple = not parser.is_nested and parser.choices <= _SIMPLE_CHOICES
    if parser.repeats_nothing and not self._is_simple:
      # Python prefers another way through such a repetition than the matcher below.
      raise errors.DataError(
          "repeats something that can be empty, such as (a*)*; repeat it without its own * or ?")
    self._steps: list[_Step] = [_Step(())]  # Step 0 is the end.
    self._start = build(self._steps, 0)

  def search(self, text: str) -> str | None:
    """The group's part of the first match in a text; None if nothing matches.

    The part is "" if the match does not use the group.
    """
    if self._is_simple:
      match = self._compiled.search(text)
      return None if match is None else match.group(self.group) or ""
    span = self._span(text)
    return None if span is None else text[span[0]:span[1]] if min(span) >= 0 else ""

  def _span(self, text: str) -> tuple[int, int] | None:
    found: tuple[int, int] | None = None
    # Places in the expression, the preferred first, with the group's start and end.
    places: dict[int, tuple[int, int]] = {}
    for position in range(len(text) + 1):
      if found is None:  # A match may start here, but one that started before is preferred.
        self._enter(self._start, _NOTHING, text, position, places)
      following: dict[int, tuple[int, int]] = {}
      for number, span in places.items():
        step = self._steps[number]
        if number == 0:
          found = span
          break  # All later places are less preferred.
        if position < len(text) and step.reads is not None and step.reads(text[position]):
          self._enter(step.next[0], span, text, position + 1, following)
      places = following
      if found is not None and not places:
        break
    return found

  def _enter(self, start: int, span: tuple[int, int], text: str, position: int,
             places: dict[int, tuple[int, int]]) -> None:
    """Adds the places that can be reached without reading a character, in order of preference."""
    waiting = [(start, span)]
    while waiting:
      number, span = waiting.pop()
      if number in places:
        continue
      step = self._steps[number]
      # Every step is entered once, so that empty repetitions end. Only some are places to read at.
      places[number] = span
      if step.reads is not None or (step.holds is not None and not step.holds(text, position)):
        continue
      if step.saves >= 0:
        span = (position, span[1]) if step.saves == 0 else (span[0], position)
      waiting.extend((following, span) for following in reversed(step.next))


@functools.lru_cache(maxsize=256)
def compiled(source: str, group: str) -> Pattern:
  """A `Pattern`, compiled once."""
  return Pattern(source, group)


class _Parser:
  """Reads an expression that `re` has accepted.

  Attributes:
    choices: number of repetitions of variable length and of alternatives.
    is_nested: whether something with a choice in it is repeated.
    repeats_nothing: whether something that can be empty is repeated.
  """

  def __init__(self, source: str, group: str) -> None:
    self._source = source
    self._group = group
    self._place = 0
    self.choices = 0
    self.is_nested = False
    self.repeats_nothing = False

  def parse(self) -> _Part:
    return self._alternatives(0)

  def _unsupported(self, what: str) -> errors.DataError:
    return errors.DataError(
        f"has {what} at character {self._place + 1}; expected groups, alternatives, repetitions "
        "and classes of characters only; rewrite the expression without it")

  def _alternatives(self, depth: int) -> _Part:
    if depth > _DEEPEST:
      raise self._unsupported(f"more than {_DEEPEST} groups in groups")
    branches = [self._sequence(depth)]
    while self._source[self._place:self._place + 1] == "|":
      self._place += 1
      self.choices += 1
      branches.append(self._sequence(depth))
    if len(branches) == 1:
      return branches[0]
    return _Part(functools.partial(_either, [branch.build for branch in branches]),
                 any(branch.can_be_empty for branch in branches))

  def _sequence(self, depth: int) -> _Part:
    items: list[_Part] = []
    while self._place < len(self._source) and self._source[self._place] not in "|)":
      before = self.choices
      item = self._item(depth)
      items.append(self._repeated(item, self.choices > before))
    return _Part(functools.partial(_one_after_another, [item.build for item in items]),
                 all(item.can_be_empty for item in items))

  def _item(self, depth: int) -> _Part:
    source, start = self._source, self._place
    character = source[start]
    if character == "(":
      return self._grouped(depth)
    if character in "^$":
      self._place += 1
      return self._asserted(_at_start if character == "^" else _at_last_line)
    if character == "[":
      end = start + 1 + (source[start + 1] == "^")
      end += source[end] == "]"
      while source[end] != "]":
        end += 1 + (source[end] == "\\")
      self._place = end + 1
    elif character == "\\":
      kind = source[start + 1]
      if kind in "AZbB":
        self._place += 2
        return self._asserted(
            {"A": _at_start, "Z": _at_end, "b": _at_border, "B": _off_border}[kind])
      if kind.isdigit() or kind == "N":
        raise self._unsupported(f"\\{kind}")
      self._place += _ESCAPES.get(kind, 2)
    else:
      self._place += 1
    single = re.compile(source[start:self._place])
    return _Part(functools.partial(
        _reading, functools.lru_cache(maxsize=256)(lambda c: single.fullmatch(c) is not None)))

  def _asserted(self, holds: Callable[[str, int], bool]) -> _Part:
    return _Part(functools.partial(_asserted, holds), can_be_empty=True)

  def _grouped(self, depth: int) -> _Part:
    named = _NAME.match(self._source, self._place)
    if named:
      self._place = named.end()
    elif self._source.startswith("(?:", self._place):
      self._place += 3
    elif self._source.startswith("(?", self._place):
      raise self._unsupported(escaping.shown(self._source[self._place:self._place + 4]))
    else:
      self._place += 1
    inner = self._alternatives(depth + 1)
    self._place += 1  # The closing parenthesis.
    if named is None or named[1] != self._group:
      return inner
    return _Part(functools.partial(_saving, inner.build), inner.can_be_empty)

  def _repeated(self, item: _Part, has_choice: bool) -> _Part:
    found = _QUANTIFIER.match(self._source, self._place)
    if found is None or found[0] == "{}":  # Python reads this as text.
      return item
    self._place = found.end()
    low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(found[0], (0, 0))
    if found[0][0] == "{":
      low = int(found[1] or 0)
      high = low if "," not in found[0] else int(found[2]) if found[2] else None
    lazy = self._source.startswith("?", self._place)
    if self._source.startswith("+", self._place):
      raise self._unsupported("a possessive repetition")
    self._place += lazy
    if max(low, high or 0) > _MOST_STEPS:
      raise errors.LimitError(
          f"repeats something {max(low, high or 0):,} times; the limit is {_MOST_STEPS}; write a "
          "shorter regular expression")
    self.choices += low != high
    self.is_nested |= has_choice and high != 1
    self.repeats_nothing |= item.can_be_empty and high != 1
    return _Part(functools.partial(_repetition, item.build, low, high, lazy),
                 item.can_be_empty or low == 0)


def _add(steps: list[_Step], step: _Step) -> int:
  if len(steps) >= _MOST_STEPS:
    raise errors.LimitError(
        f"needs more than {_MOST_STEPS} steps with its repetitions written out; write a shorter "
        "regular expression")
  steps.append(step)
  return len(steps) - 1


def _one_after_another(items: list[_Builder], steps: list[_Step], end: int) -> int:
  for item in reversed(items):
    end = item(steps, end)
  return end


def _either(branches: list[_Builder], steps: list[_Step], end: int) -> int:
  return _add(steps, _Step(tuple([branch(steps, end) for branch in branches])))


def _reading(reads: Callable[[str], bool], steps: list[_Step], end: int) -> int:
  return _add(steps, _Step((end,), reads=reads))


def _asserted(holds: Callable[[str, int], bool], steps: list[_Step], end: int) -> int:
  return _add(steps, _Step((end,), holds=holds))


def _saving(inner: _Builder, steps: list[_Step], end: int) -> int:
  return _add(steps, _Step((inner(steps, _add(steps, _Step((end,), saves=1))),), saves=0))


def _repetition(item: _Builder, low: int, high: int | None, lazy: bool, steps: list[_Step],
                end: int) -> int:
  if high is None:
    again = _add(steps, _Step(()))  # Enters the item or leaves; known once the item is built.
    inner = item(steps, again)
    steps[again] = _Step((end, inner) if lazy else (inner, end))
    end = again
  else:
    after = end
    for _ in range(high - low):
      inner = item(steps, end)
      end = _add(steps, _Step((after, inner) if lazy else (inner, after)))
  for _ in range(low):
    end = item(steps, end)
  return end


def _at_start(text: str, position: int) -> bool:
  return position == 0


def _at_end(text: str, position: int) -> bool:
  return position == len(text)


def _at_last_line(text: str, position: int) -> bool:
  return position == len(text) or (position == len(text) - 1 and text[position] == "\n")


_BORDER, _NO_BORDER = re.compile(r"\b"), re.compile(r"\B")


def _at_border(text: str, position: int) -> bool:
  return _BORDER.match(text, position) is not None


def _off_border(text: str, position: int) -> bool:
  return _NO_BORDER.match(text, position) is not None
