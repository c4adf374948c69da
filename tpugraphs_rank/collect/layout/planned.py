"""The programs that a plan names: those of the catalogue, and synthetic ones."""

from collections.abc import Mapping
from typing import Any

from tpugraphs_rank.collect.layout import catalogue
from tpugraphs_rank.synthesis.programs import programs

Program = catalogue.ModelProgram | programs.RunnableProgram


def program_of(plan: Mapping[str, Any], stem: str) -> Program:
  """A program of a plan: one of the catalogue, or a synthetic one, which the plan contains.

  Raises:
    UnknownNameError: neither the plan nor the catalogue has the program.
  """
  for entry in plan["programs"]:
    if entry["stem"] == stem and "program" in entry:
      return programs.RunnableProgram.from_json(entry["program"])
  return catalogue.parse_stem(stem)
