"""Prose uses the field's standard terms: some words are never right in this code base."""

import ast
import io
import json
import pathlib
import re
import subprocess
import tokenize

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Regular expression -> what to write instead.
FORBIDDEN = {
    r"told apart": "distinguished, deduplicated",
    r"tells? (\w+ ){0,4}apart": "distinguishes",
    r"heard": "received messages",
    r"likewise": "also, in the same way",
    r"so many": "this many, that many",
    r"bears? (the|its|their|a|no)? ?(same )?names?": "has the name, is named",
    r"anew": "again, from scratch",
    r"beside": "next to, compared with, in addition to",
    r"stands? for": "represents, means",
    r"made (graphs?|programs?|collections?)": "synthetic, generated",
    r"is worth": "gains, improves by",
    r"brings?|brought": "downloads, copies, raises",
    r"mends?": "fixes, solves",
    r"lies? (there|beside|in|under)": "is stored in",
    r"goes on (where|from|as)": "resumes, continues",
}
# Phrases in which a word is right.
_ALLOWED = re.compile(r"lies? in (the (range|interval|middle)|a range|between|\[)", re.IGNORECASE)
_PATTERN = re.compile(r"\b(" + "|".join(FORBIDDEN) + r")\b", re.IGNORECASE)


def _files() -> list[pathlib.Path]:
  """The tracked files with prose. This file and the changes of earlier versions are exempt."""
  listed = subprocess.run(
      ["git", "ls-files", "*.py", "*.md", "*.ipynb", "*.cfg", "*.toml", "run"], cwd=ROOT,
      capture_output=True, text=True, check=False)
  names = listed.stdout.split() if listed.returncode == 0 else [
      str(path.relative_to(ROOT)) for folder in ("tpugraphs_rank", "experiments", "tests", "docs")
      for path in (ROOT / folder).rglob("*.py")]
  return [ROOT / name for name in names if name not in (
      "tests/house/test_vocabulary.py", "CHANGELOG.md") and (ROOT / name).exists()]


def _prose(path: pathlib.Path) -> list[tuple[int, str]]:
  """(line, text) of each comment and string of a module, or of each line of another file."""
  text = path.read_text(encoding="utf-8")
  if path.suffix == ".ipynb":
    return [(0, "".join(cell["source"])) for cell in json.loads(text)["cells"]
            if cell["cell_type"] == "markdown"]
  if path.suffix != ".py":
    return list(enumerate(text.splitlines(), 1))
  comments = [(token.start[0], token.string) for token in tokenize.generate_tokens(
      io.StringIO(text).readline) if token.type == tokenize.COMMENT]
  strings = [(node.lineno, node.value) for node in ast.walk(ast.parse(text))
             if isinstance(node, ast.Constant) and isinstance(node.value, str)
             and node.value.count(" ") > 1]
  return comments + strings


def _findings() -> list[str]:
  findings = []
  for path in _files():
    for line, text in _prose(path):
      flat = " ".join(text.split())
      for match in _PATTERN.finditer(flat):
        if not _ALLOWED.match(flat, match.start()):
          start, end = max(match.start() - 30, 0), match.end() + 30
          findings.append(f"{path.relative_to(ROOT)}:{line}: ...{flat[start:end]}...")
  return findings


def test_no_private_vocabulary():
  findings = _findings()
  assert not findings, (
      f"{len(findings)} places; see FORBIDDEN for what to write instead:\n" + "\n".join(findings))


def test_the_check_finds_words():
  assert _PATTERN.search("The states are told apart here")
  assert not _PATTERN.search("The states are distinguished, side by side")


# Folders of one machine, and hosts of package registries.
_PLACES = re.compile(r"(?<![\w.}])/(root|work|opt|tmp)/|pypi\.org|pythonhosted\.org")


def test_no_file_names_a_machines_folders_or_a_registry():
  result = subprocess.run(["git", "grep", "-nIP", _PLACES.pattern, "--", ":!tests/house"], cwd=ROOT,
                          capture_output=True, text=True, check=False)
  assert not result.stdout, result.stdout
