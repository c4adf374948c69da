"""Regular expressions of descriptors: matched as Python does, refused, and limited in time."""

import pytest

from tests.helpers import timing
from tpugraphs_rank import errors
from tpugraphs_rank.data import patterns


@pytest.mark.parametrize("source, text, family", [
    (r"^(?P<family>[^.]+)\.", "matmul.64x64.f32", "matmul"),
    (r"^(?P<family>.+)_[^_]+$", "resnet_50_17", "resnet_50"),
    (r"^(?P<family>.*)$", "anything", "anything"),
    (r"(?P<family>[a-z]+)(?:x\d+)*(?:_\d+)+$", "convx3_4_5", "conv"),
    (r"(?P<family>[a-z]+?)(?:net|_)", "größe_resnet", "e"),
    (r"^(?:(?P<family>a)|b)", "b", ""),
    (r"^(?P<family>a+)$", "b", None)])
def test_families(source, text, family):
  assert patterns.Pattern(source, "family").search(text) == family


@pytest.mark.parametrize("source", [
    r"^(?P<family>(a+)+)_x$", r"(?P<family>(a|a)*)b", r"(?P<family>(a|aa)+)$b", "(?P<family>a?)" +
    "a?" * 40 + "a" * 40 + "b", ".*" * 60 + "(?P<family>x)y", r"(?P<family>(\w+\d*)+)@",
    "(?P<family>(?:a{1,9}){0,9})b"])
def test_no_expression_takes_long(source):
  with timing.takes_at_most(2):
    assert patterns.Pattern(source, "family").search("a" * 200 + "!!") is None


@pytest.mark.parametrize("source, error, message", [
    ("(", errors.DataError, "is not a regular expression of RE2: missing"),
    ("\x1b[31m(", errors.DataError, "is not a regular expression of RE2: "),
    ("a\ud800", errors.DataError, "is not a regular expression of RE2: "),
    ("^(.*)$", errors.DataError, r"lacks the group \(\?P<family>"),
    (r"(?P<family>a)\1", errors.DataError, "invalid escape sequence"),
    (r"(?P<family>a)(?P=family)", errors.DataError, "is not a regular expression of RE2"),
    (r"(?P<family>a)(?=b)", errors.DataError, "is not a regular expression of RE2"),
    ("(?P<family>" + "a" * 1000 + ")", errors.LimitError, "1,012 characters; the limit is 1,000"),
    ("(?P<family>a{1001})", errors.LimitError, "repeats too much"),
    (r"(?P<family>(?:\pL{1000}){10})", errors.LimitError, "repeats too much")])
def test_what_is_refused(source, error, message):
  with pytest.raises(error, match=message) as caught:
    patterns.Pattern(source, "family")
  assert str(caught.value).isprintable()
