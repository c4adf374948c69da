"""Journals: which damage a killed process leaves, and which is an error."""

import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.tuning import journal

_FIRST = '{"a": 1, "b": {"c": 2}}'


@pytest.mark.parametrize("length", range(1, len(_FIRST) + 1))
def test_a_torn_last_line_is_replaced(tmp_path, length) -> None:
  path = tmp_path / "x.jsonl"
  journal.append(path, {"a": 0})
  with path.open("a") as file:
    file.write(_FIRST[:length])
  kept = [{"a": 0}] + [{"a": 1, "b": {"c": 2}}] * (length == len(_FIRST))
  assert [line for _, line in journal.lines(path)] == kept
  journal.append(path, {"a": 3})
  assert [line for _, line in journal.lines(path)] == [*kept, {"a": 3}]


@pytest.mark.parametrize(("content", "number"), [
    ("x", 1), ("x\n", 1), ('{"a": 1}\n{"a"\n', 2), ('{"a": 1}\n{"a"\n{"a": 2}\n', 2),
    ('{"a": 1}\n\n{"a": 2}\n', 2), ("[1]\n", 1), ('{"a": 1}\n7', 2), ("\0\0", 1), ("{\n", 1)])
def test_other_damage_names_the_file_and_the_line(tmp_path, content, number) -> None:
  path = tmp_path / "x.jsonl"
  path.write_text(content)
  with pytest.raises(errors.DataError, match=rf"x\.jsonl, line {number}.*remove this line"):
    list(journal.lines(path))


def test_nothing_is_added_to_a_file_that_is_no_journal(tmp_path) -> None:
  path = tmp_path / "notes.txt"
  path.write_text("years of work")
  with pytest.raises(errors.DataError, match="notes.txt, line 1"):
    journal.append(path, {"a": 1})
  assert path.read_text() == "years of work"
