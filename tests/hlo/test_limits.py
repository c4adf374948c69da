"""Limits on what a program may ask for."""

import pathlib

import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.hlo import graph
from tpugraphs_rank.hlo import limits
from tpugraphs_rank.hlo import reading

from . import modules

_FAQ = pathlib.Path(__file__).resolve().parents[2] / "docs" / "faq.md"


def test_a_limit_itself_is_allowed():
  limits.check(8, 8, "k.pb: the number of axes", "use fewer")
  with pytest.raises(errors.LimitError) as caught:
    limits.check(1234, 8, "k.pb: the number of axes", "use fewer")
  assert str(caught.value) == "k.pb: the number of axes is 1,234; the limit is 8; use fewer"


def test_programs_of_too_many_instructions_are_refused(monkeypatch):
  monkeypatch.setattr(limits, "INSTRUCTIONS", 2)
  module = modules.tiny()
  limits.check_instructions(module)
  module.computations.add().instructions.add(opcode="tanh")
  for read in (lambda: graph.graph_arrays(module, source="k.pb"),
               lambda: reading.parse_raw(module.SerializeToString(), "k.pb")):
    with pytest.raises(errors.LimitError, match="^k.pb: the number of instructions is 3; the "):
      read()


def test_the_documentation_lists_all_limits():
  text = _FAQ.read_text(encoding="utf-8")
  table = text[text.index("### LimitError"):].split("\n### ")[0]
  values = {name: value for name, value in vars(limits).items() if name.isupper()}
  assert len(values) == 9
  for value in values.values():
    assert f"| {value:,} |" in table
