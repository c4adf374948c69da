"""The code blocks of the documentation, and the commands in them."""

from collections.abc import Iterator
import pathlib
import re
import shlex
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = "tpugraphs-rank"
# In the order in which a reader meets them. All share a folder, as a reader's commands do.
EXECUTED = (
    "README.md", "examples/README.md", "docs/index.md", "docs/how_it_works/metrics.md",
    "docs/tutorials/rank_your_program.md", "docs/tutorials/export_your_program.md",
    "docs/tutorials/train_on_your_data.md", "docs/tutorials/generate_graphs.md",
    "docs/tutorials/chakra_traces.md", "docs/tutorials/many_machines.md")
# What a page says before a block that differs from the rule "executed":
#   <!-- test: not executed -->, <!-- test: needs the network -->, <!-- test: use FILE as NAME -->,
#   <!-- test: executed with JAX -->, which is in the collector's environment.
_BLOCK = re.compile(
    r"(?:<!-- test: (?P<note>[^>]*) -->\n)?^```(?P<language>\w*)[^\n`]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
  """A code block of a page.

  Attributes:
    language: "sh", "python", "text" or "".
    text: the code.
    note: the marker in front of it; "" if there is none.
  """

  language: str
  text: str
  note: str

  @property
  def executed(self) -> bool:
    return not self.note or self.note.startswith("use ")


def all_pages() -> list[pathlib.Path]:
  """Every Markdown page with commands for users."""
  return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md",
          *sorted((ROOT / "docs").rglob("*.md")),
          *sorted((ROOT / "tpugraphs_rank" / "bundled").glob("*/README.md"))]


def blocks(page: pathlib.Path) -> list[Block]:
  """The code blocks of a page, in order."""
  text = page.read_text(encoding="utf-8")
  return [Block(match["language"], match["text"], (match["note"] or "").strip())
          for match in _BLOCK.finditer(text)]


def command_lines(text: str) -> Iterator[list[str]]:
  """The command lines of a shell block, without comments, loops and assignments."""
  for line in text.replace("\\\n", " ").splitlines():
    words = shlex.split(line, comments=True)
    if words and words[0] not in ("for", "done", "export"):
      yield words


def commands_in_prose(page: pathlib.Path) -> Iterator[list[str]]:
  """The command lines between backticks in the text of a page."""
  text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
  for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", text):
    words = code.replace("\\", " ").split()
    if words[0] in (NAME, "./run") or words[:2] == ["python", "-m"]:
      yield words
