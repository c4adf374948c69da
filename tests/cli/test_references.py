"""Every command that the code names exists, with all its flags.

The commands are found in the string literals and comments of the package and of the experiments.
tests/docs/test_commands.py checks the documentation.
"""

import ast
from collections.abc import Iterator
import io
import pathlib
import re
import tokenize

from tests.helpers import commands
from tpugraphs_rank import commands as names

FILES = sorted(path for folder in ("tpugraphs_rank", "experiments")
               for path in (commands.ROOT / folder).rglob("*.py") if "_pb2" not in path.name)
# What an f-string inserts.
INSERTED = "VALUE"
# A command line ends with its code span or its line.
LINE = re.compile(rf"(?<![\w.-]){names.NAME}((?:(?: +\\\n)? +[^\s`;|()<>\\]+)*)")


def _texts(tree: ast.AST) -> Iterator[str]:
  """The string literals, with implicit concatenations and insertions resolved."""
  inside = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.JoinedStr):
      inside.update(id(part) for part in ast.walk(node) if part is not node)
      yield "".join(str(part.value) if isinstance(part, ast.Constant) else INSERTED
                    for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
      yield node.value


def _comments(text: str) -> Iterator[str]:
  for token in tokenize.generate_tokens(io.StringIO(text).readline):
    if token.type == tokenize.COMMENT:
      yield token.string


def _calls(tree: ast.AST) -> Iterator[list[str]]:
  """The words of each `commands.command(...)`."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "commands.command":
      yield [word for argument in node.args for word in (
          argument.value.split() if isinstance(argument, ast.Constant) else [INSERTED])]


def command_lines(path: pathlib.Path) -> list[list[str]]:
  """The command lines in a file: the words after the program's name."""
  text = path.read_text(encoding="utf-8")
  tree = ast.parse(text)
  lines = list(_calls(tree))
  for literal in (*_texts(tree), *_comments(text)):
    for match in LINE.finditer(literal):
      lines.append([word.strip(".,:'\"") for word in match[1].replace("\\\n", " ").split()])
  return lines


def test_commands_and_flags_exist():
  problems = [f"{path.relative_to(commands.ROOT)}: {problem}" for path in FILES
              for words in command_lines(path)
              if (problem := commands.problem(_command(words)))]
  assert not problems, "\n".join(problems)


def _command(words: list[str]) -> list[str]:
  """The words without the prose after a command: "tpugraphs-rank train trains a ranker"."""
  for count in (2, 1):
    if " ".join(words[:count]) in commands.dispatcher.COMMANDS:
      return words[:count] + [word for word in words[count:] if word.startswith("--")]
  return words


def test_no_text_names_an_old_command():
  old = re.compile(r"python -m (?:experiments\.(?:train|evaluate|predict|rank|featurize|describe|"
                   r"download|pack|make_collection|submission|layerdag_(?!study|benchmark)\w+|"
                   r"synthesi[sz]e|augment|demo)\b|tpugraphs_rank\.cli\.(?!augment_cases))")
  pages = [*commands.ROOT.glob("*.md"), *(commands.ROOT / "docs").rglob("*.md"),
           *(commands.ROOT / "notebooks").glob("*.ipynb"), commands.ROOT / "run"]
  for path in (*FILES, *pages):
    if path.name != "CHANGELOG.md":
      assert not old.search(path.read_text(encoding="utf-8")), path


def test_the_check_finds_mistakes(tmp_path):
  path = tmp_path / "module.py"
  path.write_text('''
"""Run `tpugraphs-rank trian` or

  tpugraphs-rank train --run_dir runs/a \\\\
    --no_such_flag 3
"""
# See tpugraphs-rank pack --nothing.
MESSAGE = f"use `tpugraphs-rank evaluate --run_dir {1} --splat valid`; tpugraphs-rank describe it"
OTHER = commands.command("download", "--collection", NAME)
''')
  lines = command_lines(path)
  problems = [problem for words in lines if (problem := commands.problem(_command(words)))]
  assert len(lines) == 6 and len(problems) == 5
