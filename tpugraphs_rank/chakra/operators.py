"""The class of an operator: what its name says without arguments, templates and numbers."""

import re

from tpugraphs_rank.chakra import attributes
from tpugraphs_rank.chakra import node_kinds
from tpugraphs_rank.chakra import traces

# The attribute in which a trace may state the class; `exporting` writes it.
ATTRIBUTE = "operator"
_MAX_LENGTH = 100
_NUMBER = re.compile(r"[._]\d+$")


def class_of(node: traces.Node) -> str:
  """The operator class of a node: its attribute `operator`, else from its name.

  `aten::copy_(1)` gives `aten::copy_`; `void at::native::kernel<4, f<int> >(int, long)` gives
  `at::native::kernel`; `fusion.12` gives `fusion`; a node without a name gives its type.
  """
  stated = attributes.get(node, ATTRIBUTE)
  if isinstance(stated, str) and printable(stated):
    return printable(stated)
  return class_of_name(node.name) or node_kinds.type_name(node.type)


def class_of_name(name: str) -> str:
  """The operator class that a name gives; "" if nothing of it remains."""
  text = _without_arguments(name.strip().removeprefix("void "))
  text = re.sub(r"(::)+", "::", text).strip(": ")
  shorter = _NUMBER.sub("", text)
  while shorter and shorter != text:
    text, shorter = shorter, _NUMBER.sub("", shorter)
  return printable(re.sub(r"\s+", " ", text))


def printable(text: str) -> str:
  """A text of at most 100 characters without control characters, fit for a vocabulary."""
  return "".join(char if char.isprintable() else "?" for char in text)[:_MAX_LENGTH].strip()


def _without_arguments(name: str) -> str:
  """The name without what is in brackets (...) and <...>, however they are nested."""
  kept: list[str] = []
  opened: list[str] = []
  before = ""
  for char in name:
    if char == "(" or (char == "<" and (before.isalnum() or before in "_:")):
      opened.append(char)
    elif opened:
      if char == ")" and "(" in opened:
        while opened.pop() != "(":
          pass
      elif char == ">" and opened[-1] == "<" and before != "-":
        opened.pop()
    else:
      kept.append(char)
    before = char
  return "".join(kept)
