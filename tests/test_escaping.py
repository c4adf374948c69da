"""Names from files as messages show them."""

import logging
import pathlib

from hypothesis import given
from hypothesis import strategies as st
import pytest

from tpugraphs_rank import escaping
from tpugraphs_rank import tables


@pytest.mark.parametrize("name, shown", [
    ("fusion.232", "fusion.232"), ("", ""), ("a b", "a b"), ("ünïcode", "ünïcode"),
    ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"), ("line\nERROR: forged", r"line\nERROR: forged"),
    ("\u202etxt", r"\u202etxt"), ("\r\t\x00\x7f", r"\r\t\x00\x7f"),
    ("a" * 1000, "a" * 94 + "...aaa")])
def test_names(name, shown):
  assert escaping.shown(name) == shown
  assert escaping.quoted(name) == f"'{shown}'"


@given(st.text())
def test_names_stay_on_one_line(name):
  shown = escaping.shown(name, 20)
  assert shown.isprintable() and len(shown) <= 20 * len(r"\U0010ffff")
  if name.isprintable() and len(name) <= 20:
    assert shown == name


@pytest.mark.parametrize("read, shown", [
    (3, "3"), (None, "None"), ("a\n", r"'a\n'"), ([1, "x"], "[1, 'x']"),
    (10**400, "1" + "0" * 93 + "...000")])
def test_values(read, shown):
  assert escaping.value(read) == shown


def test_numbers_that_python_does_not_write():
  assert escaping.value(10**5000) == "<int that is too long to show>"


def test_tables_escape_their_cells():
  text = tables.text(["name", "x"], [["\x1b[2Ja\nERROR", "1"], ["b", "22"]])
  name = r"\x1b[2Ja\nERROR"
  assert text == (f"{'name'.ljust(len(name))}   x\n{'-' * len(name)}  --\n{name}   1\n"
                  f"{'b'.ljust(len(name))}  22\n")


def test_messages_have_no_lines_that_look_like_others():
  assert escaping.message("a\x1b[31m\nerror: b") == "a\\x1b[31m\n  error: b"


def test_log_messages_escape_their_arguments(caplog):
  formatter = escaping.LogFormatter("%(levelname)s %(message)s")
  record = logging.LogRecord(
      "x", logging.INFO, "f.py", 1, "%s: %d of %.1f\n%s %s",
      (pathlib.Path("a\x1bb\nINFO c"), 2, 3.0, ValueError("d\rd"), "e"), None)
  assert formatter.format(record) == "INFO a\\x1bb\\nINFO c: 2 of 3.0\nd\\rd e"
  assert str(record.args[0]) == "a\x1bb\nINFO c"  # Other handlers get the record as it was.
  record = logging.LogRecord("x", logging.INFO, "f.py", 1, "x\x1b%(a)s", ({"a": "\x07"},), None)
  assert formatter.format(record) == "INFO x\\x1b\\x07"
