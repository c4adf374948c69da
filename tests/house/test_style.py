"""The linter and the type checker, which pyproject.toml configures, find nothing."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _run(*command: str) -> None:
  result = subprocess.run(
      [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
  assert result.returncode == 0, "\n" + result.stdout + result.stderr


def test_the_linter_finds_nothing():
  pytest.importorskip("ruff", reason="ruff is not installed")
  _run("ruff", "check", "--output-format=concise", ".")


def test_one_function_parses_json():
  """`files.parse_json` refuses what would crash later, so nothing else parses JSON of others."""
  # A configuration is converted to plain values by way of JSON.
  allowed = {"files.py", "config.py"}
  package = ROOT / "tpugraphs_rank"
  for path in package.rglob("*.py"):
    if str(path.relative_to(package)) not in allowed:
      assert not re.search(r"\bjson\.loads?\(", path.read_text(encoding="utf-8")), path


def test_the_types_agree(request):
  pytest.importorskip("mypy", reason="mypy is not installed")
  # The cache of pytest survives from run to run: a second check takes a few seconds.
  cache = request.config.cache.mkdir("mypy")
  _run("mypy", f"--cache-dir={cache}")
