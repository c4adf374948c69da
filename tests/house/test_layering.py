"""Imports point one way, and most of the package does without TensorFlow."""

import ast
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tpugraphs_rank"
NUMPY_ONLY = ("candidates", "chakra", "data", "hlo", "metrics", "submission")
# The TensorFlow part of the data, the Python API, and a script for an environment of its own.
EXCEPT = ("tpugraphs_rank.api", "tpugraphs_rank.data.pipeline", "tpugraphs_rank.hlo.regenerate")


def _run_python(code: str) -> str:
  return subprocess.run(
      [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def _module(path: pathlib.Path) -> str:
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_the_contracts_hold():
  # In a process of its own: the linter forks workers, which pytest's capturing does not survive.
  result = subprocess.run(
      [sys.executable, "-c", "import sys\nfrom importlinter import cli\n"
       "sys.exit(cli.lint_imports(config_filename='setup.cfg', no_cache=True, no_logo=True))"],
      cwd=ROOT, capture_output=True, text=True, check=False)
  assert result.returncode == 0, result.stdout + result.stderr


def test_numpy_only_code_imports_no_tensorflow():
  modules = [
      _module(path) for folder in NUMPY_ONLY for path in sorted((PACKAGE / folder).rglob("*.py"))]
  modules += [_module(path) for path in sorted(PACKAGE.glob("*.py"))]
  modules = [module for module in modules if module not in EXCEPT]
  assert "tpugraphs_rank.metrics.pairs" in modules
  heavy = _run_python(
      f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n"
      "print([name for name in ('tensorflow', 'keras', 'matplotlib', 'pandas', 'sklearn') "
      "if name in sys.modules])")
  assert heavy.strip() == "[]"


def test_the_public_names_import_no_tensorflow_but_for_runs_and_models():
  assert _run_python(
      "import sys, tpugraphs_rank\n"
      "for name in set(dir(tpugraphs_rank)) - {\n"
      "    'Run', 'load_run', 'losses', 'models', 'train'}: getattr(tpugraphs_rank, name)\n"
      "print('tensorflow' in sys.modules)\n"
      "tpugraphs_rank.load_run\n"
      "print('tensorflow' in sys.modules)").split() == ["False", "True"]


def test_importing_the_package_is_fast_and_imports_next_to_nothing():
  code = (
      "import sys, time\nstart = time.perf_counter()\nimport tpugraphs_rank\n"
      "print(time.perf_counter() - start, 'numpy' in sys.modules, 'tensorflow' in sys.modules)")
  runs = [_run_python(code).split() for _ in range(5)]
  # The fastest of five: other processes share the machine.
  assert min(float(seconds) for seconds, *_ in runs) < 0.3
  assert {tuple(modules) for _, *modules in runs} == {("False", "False")}


def test_the_library_neither_prints_nor_prompts():
  paths = [path for path in sorted(PACKAGE.rglob("*.py"))
           if path.relative_to(PACKAGE).parts[0] not in ("cli", "collect")]
  calls = [
      f"{path.relative_to(ROOT)}:{node.lineno}: {node.func.id}()"
      for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
      if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
      and node.func.id in ("print", "input")]
  assert not calls, "the library logs, returns values and raises errors:\n" + "\n".join(calls)
