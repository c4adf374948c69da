"""The script of tasks: its list, its search for a Python, and when it makes an environment.

A stand-in for Python, itself a shell script, makes environments at once and writes down what it
was asked to do; nothing is installed.
"""

import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TASKS = (
    "demo", "demo-layerdag", "test", "python", "collect-tile", "collect-layout", "synthesize",
    "remeasure", "benchmark", "tables", "build-files", "lock")

# Answers the probe as the version in $0.version, makes environments that hold a copy of itself, and
# passes everything else on to the real Python.
STAND_IN = r"""#!/bin/sh
log() { echo "$*" >>"$LOG"; }
case "$*" in
  "-c import sys
print("*)
    version=$(cat "$0.version")
    [ "$version" != broken ] || exit 127
    echo "$version.9"
    case $version in
      3.11|3.10) ;;
      bare) exit 4 ;;
      *) exit 3 ;;
    esac ;;
  "-m venv "*)
    log venv "$3"
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0.version" "$3/bin/python.version" ;;
  "-m pip "*)
    log pip
    sleep "${PIP_SECONDS:-0}"
    [ -z "${PIP_FAILS-}" ] || exit 1 ;;
  "-c import sys; print(sys.prefix"*) echo "$0 $(cat "$0.version")" ;;
  "-c import sys; print(sys.version_info"*) cat "$0.version" ;;
  "-c import fcntl"*) exec "$REAL_PYTHON" "$@" ;;
  *) log task "$*" ;;
esac
"""


class Project:
  """A copy of the script in a folder of its own, with stand-ins for Python on the PATH."""

  def __init__(self, folder: pathlib.Path):
    self.top = folder / "a project"  # A space, as in many a home folder.
    self.bin = folder / "bin"
    self.log = folder / "log"
    self.home = folder / "home"
    for path in (self.top, self.bin, self.home):
      path.mkdir()
    shutil.copy(ROOT / "run", self.top / "run")
    (self.top / "requirements.txt").write_text("numpy==1.0\n")
    for tool in ("dirname", "sed", "cat", "cksum", "date", "rm", "mv", "cp", "mkdir", "sleep"):
      (self.bin / tool).symlink_to(shutil.which(tool))

  def python(self, name: str, version: str, folder: str = "bin") -> pathlib.Path:
    path = self.bin.parent / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STAND_IN)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    path.with_name(f"{name}.version").write_text(version)
    return path

  def environment(self, **variables: str) -> dict:
    return {"PATH": str(self.bin), "HOME": str(self.home), "LOG": str(self.log),
            "REAL_PYTHON": sys.executable, **variables}

  def run(self, *arguments: str, cwd=None, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["/bin/sh", str(self.top / "run"), *arguments], cwd=cwd or self.top,
        env=self.environment(**variables), stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False)

  def logged(self) -> list:
    lines = self.log.read_text().splitlines() if self.log.exists() else []
    self.log.write_text("")
    return lines


@pytest.fixture
def project(tmp_path):
  return Project(tmp_path)


MADE = ["venv .venv", "pip", "pip"]
TESTED = ["task -m pytest -x"]


def test_it_is_executable_and_parses():
  assert os.access(ROOT / "run", os.X_OK)
  for shell in filter(None, map(shutil.which, ("sh", "dash", "bash"))):
    subprocess.run([shell, "-n", str(ROOT / "run")], check=True)


def test_alone_it_lists_the_tasks_from_anywhere(project, tmp_path):
  result = project.run(cwd=tmp_path)
  assert result.returncode == 0
  assert [line.split()[0] for line in result.stdout.splitlines()] == list(TASKS)
  assert all(len(line) < 100 for line in result.stdout.splitlines())


def test_every_task_is_carried_out():
  text = (ROOT / "run").read_text()
  branches = re.findall(r"\n  ([a-z| -]+)\)\n", text)
  assert sorted(" | ".join(branches).split(" | ")) == sorted(TASKS)


def test_an_unknown_task_lists_the_others(project):
  result = project.run("dmeo")
  assert result.returncode == 2
  assert "no task dmeo" in result.stderr and "\ndemo " in result.stderr


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_the_documents_name_tasks_that_exist(name):
  path = ROOT / name
  if not path.exists():
    pytest.skip(f"no {name} yet")
  named = set(re.findall(r"\./run ([a-z][a-z-]*)", path.read_text(encoding="utf-8")))
  assert {"demo", "test"} <= named <= set(TASKS)


def test_the_first_suitable_python_makes_the_environment_once(project):
  project.python("python3.11", "broken")  # As a pyenv shim of an inactive version.
  project.python("python3.10", "bare")
  project.python("python3", "3.11")
  result = project.run("test", "-x")
  assert result.returncode == 0, result.stderr
  assert "making .venv" in result.stderr and "made .venv in" in result.stderr
  assert project.logged() == MADE + TESTED
  assert project.run("test", "-x").stderr == ""
  assert project.logged() == TESTED


def test_python_runs_where_the_caller_is(project, tmp_path):
  project.python("python3", "3.11")
  assert project.run("python", "script.py", cwd=tmp_path).returncode == 0
  assert project.logged() == MADE + ["task script.py"]


def test_collecting_uses_an_environment_of_its_own(project):
  project.python("python3", "3.11")
  (project.top / "tools" / "collect").mkdir(parents=True)
  (project.top / "tools" / "collect" / "requirements.txt").write_text("jax==1.0\n")
  assert project.run("collect-tile", "my folder", "--kernels", "6").returncode == 0
  assert project.logged() == MADE + ["venv .venv-collect", "pip"] + [
      "task -m tpugraphs_rank.collect.tile.collect --output my folder/measured --kernels 6",
      "task -m tpugraphs_rank.cli.featurize --input my folder/measured/pass1.pb "
      "--repeat my folder/measured/pass2.pb --output my folder/npz",
      "task -m tpugraphs_rank.collect.tile.assemble --collected my folder/measured --npz my folder/npz "
      "--output my folder/tile_xla_cpu"]
  project.run("collect-tile", "--kernels", "6")
  assert project.logged()[0] == (
      "task -m tpugraphs_rank.collect.tile.collect --output build/collect-tile/measured --kernels 6")


def test_synthesizing_makes_measures_and_assembles(project):
  project.python("python3.11", "3.11")
  (project.top / "tools" / "collect").mkdir(parents=True)
  (project.top / "tools" / "collect" / "requirements.txt").write_text("jax==1.0\n")
  assert project.run("synthesize", "--count", "9").returncode == 2
  (project.top / "a").mkdir()
  (project.top / "a" / "programs.json").write_text('{\n  "kind": "tile",\n  "programs": []\n}\n')
  assert project.run("synthesize", "a", "--count", "9").returncode == 0
  assert [line for line in project.logged() if line.startswith("task")] == [
      "task -m tpugraphs_rank.cli.synthesize --output a --count 9",
      "task -m tpugraphs_rank.collect.tile.collect --programs a/programs.json --configurations 20 "
      "--output a/measured",
      "task -m tpugraphs_rank.cli.featurize --input a/measured/pass1.pb --repeat a/measured/pass2.pb "
      "--output a/npz",
      "task -m tpugraphs_rank.collect.common.assemble_synthetic --collected a/measured --npz a/npz "
      "--output a/collection --name tile:made"]
  (project.top / "a" / "programs.json").write_text('{\n  "programs": [],\n  "kind": "layout"\n}\n')
  assert project.run("synthesize", "a").returncode == 0
  assert [line for line in project.logged() if line.startswith("task")] == [
      "task -m tpugraphs_rank.cli.synthesize --output a",
      "task -m tpugraphs_rank.collect.layout.collect --made a/programs.json --configurations 30 "
      "--configurations_of_small_programs 30 --output a/measured",
      "task -m tpugraphs_rank.cli.featurize --input a/measured/pass1 --repeat a/measured/pass2 "
      "--output a/npz",
      "task -m tpugraphs_rank.collect.common.assemble_synthetic --collected a/measured --npz a/npz "
      "--output a/collection --name layout:made"]
  project.run("collect-layout", "--programs", "6")
  assert project.logged() == [
      "task -m tpugraphs_rank.collect.layout.collect --output build/collect-layout/measured --programs 6",
      "task -m tpugraphs_rank.cli.featurize --input build/collect-layout/measured/pass1 "
      "--repeat build/collect-layout/measured/pass2 --output build/collect-layout/npz",
      "task -m tpugraphs_rank.collect.layout.assemble --collected build/collect-layout/measured "
      "--npz build/collect-layout/npz --output build/collect-layout/layout_xla_cpu_mixed"]


def test_remeasuring_uses_the_collectors_environment(project):
  project.python("python3", "3.11")
  (project.top / "tools" / "collect").mkdir(parents=True)
  (project.top / "tools" / "collect" / "requirements.txt").write_text("jax==1.0\n")
  assert project.run("remeasure", "my file.pb", "folder").returncode == 0
  assert project.logged() == ["venv .venv-collect", "pip",
                              "task -m tpugraphs_rank.collect.common.remeasure my file.pb folder"]


@pytest.mark.parametrize("change", ["requirements", "interrupted", "moved", "python", "chosen"])
def test_the_environment_is_made_anew_when_it_must_be(project, change):
  project.python("python3", "3.11")
  other = project.python("mine", "3.10")
  project.run("test", "-x")
  project.logged()
  variables = {}
  if change == "requirements":
    (project.top / "requirements.txt").write_text("numpy==2.0\n")
  elif change == "interrupted":
    (project.top / ".venv" / "complete").unlink()
  elif change == "moved":
    project.top = project.top.rename(project.top.with_name("elsewhere"))
    (project.top / ".venv" / "complete").write_text("another place 3.11\n")
  elif change == "python":
    (project.top / ".venv" / "bin" / "python").unlink()
  else:
    variables["PYTHON"] = str(other)
  assert project.run("test", "-x", **variables).returncode == 0
  assert project.logged() == MADE + TESTED
  # The one that was chosen stays, also when nothing is chosen any more.
  assert project.run("test", "-x").returncode == 0
  assert project.logged() == TESTED


def test_a_failed_installation_is_redone(project):
  project.python("python3", "3.11")
  result = project.run("test", "-x", PIP_FAILS="1")
  assert result.returncode != 0
  assert project.logged() == ["venv .venv", "pip"]
  assert project.run("test", "-x").returncode == 0
  assert project.logged() == MADE + TESTED


def test_two_at_once_make_one_environment(project):
  project.python("python3", "3.11")
  command = ["/bin/sh", str(project.top / "run"), "test", "-x"]
  runs = [
      subprocess.Popen(command, env=project.environment(PIP_SECONDS="1"), stdin=subprocess.DEVNULL)
      for _ in range(2)]
  assert [process.wait(timeout=60) for process in runs] == [0, 0]
  assert project.logged() == MADE + TESTED + TESTED


def test_a_killed_builder_leaves_no_lock(project):
  project.python("python3", "3.11")
  process = subprocess.Popen(
      ["/bin/sh", str(project.top / "run"), "test"], stderr=subprocess.DEVNULL,
      env=project.environment(PIP_SECONDS="2"), stdin=subprocess.DEVNULL)
  for _ in range(100):
    if project.log.exists() and "pip" in project.log.read_text():
      break
    time.sleep(0.05)
  process.kill()
  process.wait()
  assert project.run("test", "-x").returncode == 0
  assert project.logged()[-4:] == MADE + TESTED


@pytest.mark.parametrize("folder", [
    "home/.pyenv/versions/3.11.7/bin",
    "home/.local/share/uv/python/cpython-3.10.14-linux-x86_64-gnu/bin"])
def test_pythons_of_pyenv_and_uv_are_found_off_the_path(project, folder):
  project.python("python3", "3.11", folder)
  assert project.run("test", "-x").returncode == 0
  assert project.logged() == MADE + TESTED


def test_without_a_suitable_python_it_says_what_there_is_and_what_to_do(project):
  newer = project.python("python3", "3.12")
  bare = project.python("python3.11", "bare")
  result = project.run("demo")
  assert result.returncode == 1 and not (project.top / ".venv").exists()
  for text in (
      "3.11 or 3.10", f"{newer}: 3.12.9, another version",
      f"{bare}: bare.9, but without the modules venv and ensurepip", "uv python install 3.11",
      "pyenv install 3.11", "apt install python3.11-venv", "PYTHON=/path/to/python3.11"):
    assert text in result.stderr


def test_without_any_python_it_says_so(project):
  assert "no Python at all" in project.run("demo").stderr


def test_a_chosen_python_that_will_not_do_is_named(project):
  project.python("python3", "3.11")
  result = project.run("demo", PYTHON="/no/such/python")
  assert result.returncode == 1
  assert "/no/such/python: does not run" in result.stderr
