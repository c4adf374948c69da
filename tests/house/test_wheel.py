"""The wheel, installed outside the checkout: the user's commands work there.

The scratch environment sees the packages of the tests' environment behind its own, so that nothing
is downloaded. Each command runs as a user runs it: the installed program, in another folder.
"""

import ast
import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
from typing import NamedTuple
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "candidates" / "data" / "measured_kernels.pb"
KERNEL = "matmul.144x576x192.f32"


class Installed(NamedTuple):
  """The environment with the wheel.

  Attributes:
    wheel: the wheel's file.
    bin: folder of its programs.
    cwd: a folder outside the checkout, in which the commands run.
  """

  wheel: pathlib.Path
  bin: pathlib.Path
  cwd: pathlib.Path

  def run(self, *words: object, program: str = "tpugraphs-rank") -> subprocess.CompletedProcess:
    kept = ("PATH", "LANG", "TMPDIR", "TPUGRAPHS_COLLECT_ENVIRONMENT")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    return subprocess.run(
        [str(self.bin / program), *map(str, words)], cwd=self.cwd, stdin=subprocess.DEVNULL,
        env={**environment, "HOME": str(self.cwd)}, capture_output=True, text=True, check=False)

  def succeeds(self, *words: object) -> str:
    done = self.run(*words)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(name="installed", scope="session")
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
  folder = tmp_path_factory.mktemp("wheel")
  source = folder / "source"
  source.mkdir()
  for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(ROOT / name, source)
  shutil.copytree(ROOT / "tpugraphs_rank", source / "tpugraphs_rank",
                  ignore=shutil.ignore_patterns("__pycache__"))
  pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
  for command in (
      [*pip, "wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir",
       str(folder), str(source)],
      [sys.executable, "-m", "venv", "--without-pip", str(folder / "environment")]):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
  (wheel,) = folder.glob("*.whl")
  shutil.rmtree(source)
  python = folder / "environment" / "bin" / "python"
  done = subprocess.run([*pip, "--python", str(python), "install", "--no-deps", "--no-index",
                         "--no-compile", str(wheel)], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stdout + done.stderr
  # A plain path: what such a folder's own .pth files would add, as a link to the checkout, is not
  # added.
  (site,) = (folder / "environment" / "lib").glob("python*/site-packages")
  paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
  (site / "packages_of_the_tests.pth").write_text("\n".join(sorted(paths)) + "\n")
  cwd = folder / "elsewhere"
  cwd.mkdir()
  shutil.copy(PROGRAM, cwd / "program.pb")
  return Installed(wheel, python.parent, cwd)


def test_the_package_is_not_that_of_the_checkout(installed: Installed) -> None:
  done = installed.run("-c", "import tpugraphs_rank; print(tpugraphs_rank.__file__)",
                       program="python")
  assert pathlib.Path(done.stdout.strip()).is_relative_to(installed.bin.parent), done.stderr


def test_the_wheel_holds_the_package_and_its_data(installed: Installed) -> None:
  with zipfile.ZipFile(installed.wheel) as archive:
    names = set(archive.namelist())
  tracked = subprocess.run(["git", "ls-files", "tpugraphs_rank"], cwd=ROOT, capture_output=True,
                           text=True, check=False).stdout.split()
  if not tracked:
    pytest.skip("not a git checkout")
  missing = {name for name in tracked if (ROOT / name).exists()} - names
  assert not {name for name in missing if not name.endswith((".md", ".proto"))}
  assert not {name for name in names if name.startswith(("tests/", "experiments/"))}
  assert any(name.startswith("tpugraphs_rank/bundled/models/") for name in names)


def test_the_list_of_commands_and_the_version(installed: Installed) -> None:
  assert "rank" in installed.succeeds() and installed.succeeds("--version")
  done = installed.run("trian")
  assert done.returncode == 2 and "train" in done.stderr


@pytest.mark.slow
def test_ranking_with_a_bundled_model(installed: Installed) -> None:
  output = installed.succeeds("rank", "--run=bundled:tile_xla_cpu", "--hlo=bundled:matmul",
                              "--top_k=3", "--output=ranked")
  assert (installed.cwd / "ranked" / "matmul.ranked.json").exists()
  assert "the default has rank" in output and "speed" in output


@pytest.mark.slow
def test_from_training_to_the_report(installed: Installed) -> None:
  small = ["--hidden_width=8", "--members=1", "--attention_width=4", "--epochs=1",
           "--notensorboard", "--lists_per_graph=1", "--max_graphs=16"]
  installed.succeeds("train", "--config=tile_xla_cpu", "--run_dir=runs/a", *small)
  # Boosted trees, which take minutes, are tested in the checkout.
  assert "tau" in installed.succeeds("evaluate", "--run_dir=runs/a", "--split=valid",
                                     "--baselines=random,size_heuristic")
  installed.succeeds("report", "--run_dir=runs/a", "--split=valid", "--baselines=random")
  assert list((installed.cwd / "runs" / "a").rglob("*.html"))


@pytest.mark.slow
def test_programs_are_generated(installed: Installed) -> None:
  settings = {"data": {"conditions": ["root", "size"]},
              "network": {"width": 16, "encoder_layers": 1, "node_layers": 1, "heads": 2,
                          "edge_width": 8, "node_steps": 4, "edge_steps": 4},
              "fit": {"epochs": 12, "batch_graphs": 16, "learning_rate": 0.01,
                      "tensorboard": False}}
  (installed.cwd / "small.json").write_text(json.dumps(settings))
  installed.succeeds("synthesize", "--output=like_mine", "--count=3", "--generate_only",
                     "--config=small.json", "--max_nodes=20")
  stored = json.loads((installed.cwd / "like_mine" / "programs.json").read_text())
  assert len(stored["programs"]) == 3


@pytest.mark.slow
def test_programs_are_measured(installed: Installed) -> None:
  """Makes the collector's environment, unless TPUGRAPHS_COLLECT_ENVIRONMENT names one."""
  output = installed.succeeds("collect", "tile", "--output=measured", "--limit=2",
                              "--configurations=24", "--budget_ms=5")
  assert "collection: " in output
  installed.succeeds("rank", "--run=bundled:tile_xla_cpu", "--hlo=program.pb",
                     f"--module={KERNEL}", "--top_k=3", "--output=ranked_and_measured", "--measure")


def test_the_build_file_parses_and_its_patterns_match() -> None:
  tree = ast.parse((ROOT / "BUILD").read_text(encoding="utf-8"))
  patterns = [element.value for node in ast.walk(tree)
              if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "glob"
              for element in node.args[0].elts]
  assert "tpugraphs_rank/**/*.py" in patterns
  assert [pattern for pattern in patterns if not any(ROOT.glob(pattern))] == []
  for node in ast.walk(tree):
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
      named = ROOT / node.value
      assert "*" in node.value or "//" in node.value or named.exists(), node.value
