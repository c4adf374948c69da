"""Regular expressions of descriptors, compared with Python's own."""

import re
import time

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.data import patterns

_ATOMS = st.sampled_from([
    "a", "b", ".", "[ab]", "[^a]", r"\w", r"\d", r"[]a]", r"[^\]b]", r"\.", "^", "$", r"\b", r"\B",
    r"\A", r"\Z", r"\x61", "_", "{", "a{"])
_QUANTIFIERS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,2}", "{,2}", "{2,}", "*?",
                                "+?", "??", "{1,2}?"])


def _grown(inner):
  repeated = st.builds(lambda item, quantifier: f"(?:{item}){quantifier}", inner, _QUANTIFIERS)
  joined = st.lists(inner, min_size=1, max_size=3).map("".join)
  either = st.lists(inner, min_size=2, max_size=3).map("|".join).map("({})".format)
  return repeated | joined | either


_BODIES = st.recursive(_ATOMS, _grown, max_leaves=7)
_EXPRESSIONS = st.builds(
    lambda before, family, after: f"{before}(?P<family>{family}){after}",
    _BODIES, _BODIES, _BODIES)


@settings(max_examples=600)
@given(_EXPRESSIONS, st.lists(st.text("aab1._\n", max_size=8), min_size=1, max_size=4))
def test_matches_are_pythons(source, texts):
  try:
    expected = re.compile(source)
  except re.error:
    return
  try:
    pattern = patterns.Pattern(source, "family")
  except errors.DataError as error:
    assert "repeats something that can be empty" in str(error)
    return
  if pattern._is_simple:
    assert pattern.search(texts[0]) == (
        match.group("family") or "" if (match := expected.search(texts[0])) else None)
    return
  for text in texts:
    match = expected.search(text)
    actual = pattern._span(text)
    assert (actual is None) == (match is None), text
    if match is not None:
      assert actual == match.span("family"), text


@pytest.mark.parametrize("source, text, family", [
    (r"^(?P<family>[^.]+)\.", "matmul.64x64.f32", "matmul"),
    (r"^(?P<family>.+)_[^_]+$", "resnet_50_17", "resnet_50"),
    (r"^(?P<family>.*)$", "anything", "anything"),
    (r"(?P<family>[a-z]+)(?:x\d+)*(?:_\d+)+$", "convx3_4_5", "conv"),
    (r"^(?:(?P<family>a)|b)", "b", ""),
    (r"^(?P<family>a+)$", "b", None)])
def test_families(source, text, family):
  assert patterns.Pattern(source, "family").search(text) == family


@pytest.mark.parametrize("source", [
    r"^(?P<family>(a+)+)_x$", r"(?P<family>(a|a)*)b", r"(?P<family>(a|aa)+)$b", "(?P<family>a?)" +
    "a?" * 40 + "a" * 40 + "b", ".*" * 60 + "(?P<family>x)y", r"(?P<family>(\w+\d*)+)@",
    "(?P<family>(?:a{1,9}){0,9})b"])
def test_no_expression_takes_long(source):
  start = time.process_time()
  assert patterns.Pattern(source, "family").search("a" * 200 + "!!") in (None, "a" * 200)
  assert time.process_time() - start < 2


@pytest.mark.parametrize("source, error, message", [
    ("(", errors.DataError, "is not a regular expression: missing"),
    ("\x1b[31m(", errors.DataError, "is not a regular expression: "),
    ("a{99999999999}(?P<family>a)", errors.DataError, "is not a regular expression: "),
    ("^(.*)$", errors.DataError, r"lacks the group \(\?P<family>"),
    (r"(?P<family>a)\1", errors.DataError, r"has \\1 at character 14; expected groups"),
    (r"(?P<family>a)(?P=family)", errors.DataError, r"has \(\?P= at character 14"),
    (r"(?P<family>a)(?=b)", errors.DataError, r"has \(\?=b at character 14"),
    (r"(?i)(?P<family>a)", errors.DataError, r"has \(\?i\) at character 1"),
    ("(" * 30 + "(?P<family>a)" + ")" * 30, errors.DataError, "more than 20 groups in groups"),
    ("(?P<family>" + "a" * 1000 + ")", errors.LimitError, "1,012 characters; the limit is 1,000"),
    (r"(?P<family>(\w*\d*)*)!", errors.DataError, "repeats something that can be empty"),
    ("(?P<family>a{1000})", errors.LimitError, "repeats something 1,000 times; the limit is 500"),
    ("(?P<family>(?:a{100}){100})", errors.LimitError, "needs more than 500 steps")])
def test_what_is_refused(source, error, message):
  with pytest.raises(error, match=message) as caught:
    patterns.Pattern(source, "family")
  assert str(caught.value).isprintable()
