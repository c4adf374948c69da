"""Names from files as messages show them."""

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
