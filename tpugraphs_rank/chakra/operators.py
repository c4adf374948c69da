"""The class of an operator: what its name says without arguments, templates and numbers."""

import re
from typing import Any

from tpugraphs_rank.chakra import attributes
from tpugraphs_rank.chakra import node_kinds
from tpugraphs_rank.chakra import traces

# The attribute in which a trace may state the class; `exporting` writes it.
ATTRIBUTE = "operator"
_MAX_LENGTH = 100
# Characters of a name that are looked at; the names of the longest kernels have some thousand.
_MAX_NAME = 1 << 15


def class_of(node: traces.Node, stated: Any = None) -> str:
  """The operator class of a node: its attribute `operator`, else from its name.

  `aten::copy_(1)` gives `aten::copy_`; `void at::native::kernel<4, f<int> >(int, long)` gives
  `at::native::kernel`; `fusion.12` gives `fusion`; a node without a name gives its type.

  Args:
    node: of a trace.
    stated: the value of its attribute `operator`, if known; None: it is looked up.
  """
  stated = attributes.get(node, ATTRIBUTE) if stated is None else stated
  if isinstance(stated, str) and printable(stated):
    return printable(stated)
  return class_of_name(node.name) or node_kinds.type_name(node.type)


def class_of_name(name: str) -> str:
  """The operator class that a name gives; "" if nothing of it remains."""
  text = _without_arguments(name[:_MAX_NAME].strip().removeprefix("void "))
  text = re.sub(r"(::)+", "::", text).strip(": ")
  return printable(re.sub(r"\s+", " ", _without_numbers(text)))


def printable(text: str) -> str:
  """A text of at most 100 characters without control characters, fit for a vocabulary."""
  text = text[:_MAX_LENGTH]
  if not text.isprintable():
    text = "".join(char if char.isprintable() else "?" for char in text)
  return text.strip()


def _without_numbers(text: str) -> str:
  """The text without the numbers at its end, such as ".12_3", unless nothing else is there."""
  end = len(text)
  while True:
    start = end
    while start and text[start - 1].isdecimal():
      start -= 1
    if start in (0, 1, end) or text[start - 1] not in "._":
      return text[:end]
    end = start - 1


def _without_arguments(name: str) -> str:
  """The name without what is in brackets (...) and <...>, however they are nested."""
  if "(" not in name and "<" not in name:
    return name
  kept: list[str] = []
  opened: list[str] = []
  round_ones = 0
  before = ""
  for char in name:
    if char == "(" or (char == "<" and (before.isalnum() or before in "_:")):
      opened.append(char)
      round_ones += char == "("
    elif opened:
      if char == ")" and round_ones:
        while opened.pop() != "(":
          pass
        round_ones -= 1
      elif char == ">" and opened[-1] == "<" and before != "-":
        opened.pop()
    else:
      kept.append(char)
    before = char
  return "".join(kept)
