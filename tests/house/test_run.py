"""The script of tasks: its list, its search for a Python, and when it makes an environment.

A stand-in for Python, a shell script, makes environments instantly and logs its commands. Nothing
is installed.
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
    "demo", "test", "test-all", "tpugraphs-rank", "python", "docs", "soak", "benchmark", "tables",
    "check-chakra", "lock")

# Answers the probe with the version in $0.version, makes environments that hold a copy of itself,
# and logs everything else.
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
    case $3 in */tmp.*) log venv scratch ;; *) log venv "$3" ;; esac
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0.version" "$3/bin/python.version" ;;
  "-m pip install "*" uv")
    log pip uv
    [ -n "${UV-}" ] || exit 1
    cp "$UV" "${0%python}uv" ;;
  "-m pip config get global.index-url") echo "${INDEX-}" ;;
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


# Provides the Python $UV_PYTHON, and fails where there is none; installs packages unless $UV_FAILS.
STAND_IN_UV = r"""#!/bin/sh
if [ "$1" = pip ]; then
  echo "uv pip ${UV_DEFAULT_INDEX-}" >>"$LOG"
  [ -z "${UV_FAILS-}" ]
  exit
fi
echo "uv $*" >>"$LOG"
[ -e "${UV_PYTHON-}" ] || exit 1
[ "$2" = install ] || echo "$UV_PYTHON"
"""


class Project:
  """A copy of the script in a separate folder, with stand-ins for Python on the PATH."""

  def __init__(self, folder: pathlib.Path):
    self.top = folder / "a project"  # A space, as in many a home folder.
    self.bin = folder / "bin"
    self.log = folder / "log"
    self.home = folder / "home"
    for path in (self.top, self.bin, self.home):
      path.mkdir()
    shutil.copy(ROOT / "run", self.top / "run")
    (self.top / "requirements.txt").write_text("numpy==1.0\n")
    for tool in ("dirname", "sed", "cat", "cksum", "date", "rm", "mv", "cp", "mkdir", "sleep",
                 "mktemp"):
      (self.bin / tool).symlink_to(shutil.which(tool))

  def python(self, name: str, version: str, folder: str = "bin") -> pathlib.Path:
    path = self.bin.parent / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STAND_IN)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    path.with_name(f"{name}.version").write_text(version)
    return path

  def uv(self, path: pathlib.Path) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STAND_IN_UV)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path

  def environment(self, **variables: str) -> dict[str, str]:
    return {"PATH": str(self.bin), "HOME": str(self.home), "LOG": str(self.log),
            "REAL_PYTHON": sys.executable, **variables}

  def run(self, *arguments: str, cwd=None, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["/bin/sh", str(self.top / "run"), *arguments], cwd=cwd or self.top,
        env=self.environment(**variables), stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False)

  def logged(self) -> list[str]:
    lines = self.log.read_text().splitlines() if self.log.exists() else []
    self.log.write_text("")
    return lines


@pytest.fixture
def project(tmp_path):
  return Project(tmp_path)


# uv cannot be installed in most tests. The last command installs the project itself.
CREATED = ["venv .venv", "pip uv", "pip", "pip"]
CREATED_WITH_UV = ["venv .venv", "uv pip ", "pip"]
TESTED = ["task -m pytest -m not slow -n auto --maxprocesses 4 --dist loadfile "
          "--no-loadscope-reorder -x"]


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


def test_the_documents_name_tasks_that_exist():
  for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"),
               *(ROOT / "tpugraphs_rank").rglob("*.md")]:
    named = set(re.findall(r"\./run ([a-z][a-z-]*)", path.read_text(encoding="utf-8")))
    assert named <= set(TASKS), path
    assert path.parent != ROOT or named >= {"demo", "test"}, path


def test_the_first_suitable_python_makes_the_environment_once(project):
  project.python("python3.11", "broken")  # As a pyenv shim of an inactive version.
  project.python("python3.10", "bare")
  project.python("python3", "3.11")
  result = project.run("test", "-x")
  assert result.returncode == 0, result.stderr
  assert "making .venv" in result.stderr and "made .venv in" in result.stderr
  assert project.logged() == CREATED + TESTED
  assert project.run("test", "-x").stderr == ""
  assert project.logged() == TESTED


def test_the_reference_of_chakra_has_an_environment_of_its_own(project, tmp_path):
  project.python("python3", "3.11")
  requirements = project.top / "tests" / "chakra" / "reference" / "requirements.txt"
  requirements.parent.mkdir(parents=True)
  requirements.write_text("mlc-chakra==1.0.0\n")
  task = "task -m tests.chakra.reference.check traces"
  assert project.run("check-chakra", "traces", cwd=tmp_path).returncode == 0
  assert project.logged() == CREATED + ["venv .venv-chakra", "pip uv", "pip", task]
  assert project.run("check-chakra", "traces").stderr == ""
  assert project.logged() == [task]


def test_python_runs_where_the_caller_is(project, tmp_path):
  project.python("python3", "3.11")
  assert project.run("python", "script.py", cwd=tmp_path).returncode == 0
  assert project.logged() == CREATED + ["task script.py"]


def test_tasks_run_their_programs(project, tmp_path):
  project.python("python3", "3.11")
  for arguments, expected in (
      (["demo"], "-m tpugraphs_rank.cli demo"),
      (["test-all", "-x"], "-m pytest -x"),
      (["tpugraphs-rank", "describe", "--help"], "-m tpugraphs_rank.cli describe --help"),
      (["docs"], "-m mkdocs build --strict --site-dir build/site"),
      (["tables"], "-m experiments.tables")):
    assert project.run(*arguments, cwd=tmp_path).returncode == 0
    assert project.logged()[-1] == f"task {expected}"


@pytest.mark.parametrize("change", ["requirements", "interrupted", "moved", "python", "chosen"])
def test_the_environment_is_rebuilt_when_necessary(project, change):
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
  assert project.logged() == CREATED + TESTED
  # The chosen Python stays in use when PYTHON is no longer set.
  assert project.run("test", "-x").returncode == 0
  assert project.logged() == TESTED


def test_a_failed_installation_is_repeated(project):
  project.python("python3", "3.11")
  result = project.run("test", "-x", PIP_FAILS="1")
  assert result.returncode != 0
  assert project.logged() == ["venv .venv", "pip uv", "pip"]
  assert project.run("test", "-x").returncode == 0
  assert project.logged() == CREATED + TESTED


def test_two_at_once_make_one_environment(project):
  project.python("python3", "3.11")
  command = ["/bin/sh", str(project.top / "run"), "test", "-x"]
  runs = [
      subprocess.Popen(command, env=project.environment(PIP_SECONDS="1"), stdin=subprocess.DEVNULL)
      for _ in range(2)]
  assert [process.wait(timeout=60) for process in runs] == [0, 0]
  assert project.logged() == CREATED + TESTED + TESTED


def test_a_killed_builder_leaves_no_lock(project):
  project.python("python3", "3.11")
  process = subprocess.Popen(
      ["/bin/sh", str(project.top / "run"), "test"], stderr=subprocess.DEVNULL,
      env=project.environment(PIP_SECONDS="2"), stdin=subprocess.DEVNULL)
  for _ in range(100):
    if project.log.exists() and "pip\n" in project.log.read_text():
      break
    time.sleep(0.05)
  process.kill()
  process.wait()
  assert project.run("test", "-x").returncode == 0
  assert project.logged()[-len(CREATED) - 1:] == CREATED + TESTED


@pytest.mark.parametrize("folder", [
    "home/.pyenv/versions/3.11.7/bin",
    "home/.local/share/uv/python/cpython-3.10.14-linux-x86_64-gnu/bin"])
def test_pythons_of_pyenv_and_uv_need_not_be_on_the_path(project, folder):
  project.python("python3", "3.11", folder)
  assert project.run("test", "-x").returncode == 0
  assert project.logged() == CREATED + TESTED


@pytest.mark.parametrize("on_path", [True, False])
def test_uv_provides_a_python_where_there_is_none(project, on_path):
  downloaded = project.python("python3.11", "3.11", "downloaded")
  project.python("python3", "3.12")
  variables = {"UV_PYTHON": str(downloaded)}
  if on_path:
    project.uv(project.bin / "uv")
  else:
    variables["UV"] = str(project.uv(project.home / "uv"))
  result = project.run("test", "-x", **variables)
  assert result.returncode == 0, result.stderr
  assert "getting Python 3.11" in result.stderr
  found = ["uv python install 3.11", "uv python find --system 3.11"]
  if on_path:
    assert project.logged() == found + CREATED_WITH_UV + TESTED
  else:
    installed = ["venv .venv", "pip uv", *CREATED_WITH_UV[1:]]
    assert project.logged() == ["venv scratch", "pip uv"] + found + installed + TESTED


@pytest.mark.parametrize("variables, index", [
    ({}, ""), ({"INDEX": "https://of.pip"}, "https://of.pip"),
    ({"INDEX": "https://of.pip", "PIP_INDEX_URL": "https://of.variable"}, "https://of.variable"),
    ({"PIP_INDEX_URL": "https://of.pip", "UV_DEFAULT_INDEX": "https://of.uv"}, "https://of.uv")])
def test_uv_installs_from_the_index_of_pip(project, variables, index):
  project.python("python3", "3.11")
  project.uv(project.bin / "uv")
  result = project.run("test", "-x", **variables)
  assert result.returncode == 0, result.stderr
  assert project.logged() == ["venv .venv", f"uv pip {index}", "pip"] + TESTED


def test_pip_installs_what_uv_cannot(project):
  project.python("python3", "3.11")
  project.uv(project.bin / "uv")
  result = project.run("test", "-x", UV_FAILS="1")
  assert result.returncode == 0 and "using pip" in result.stderr
  assert project.logged() == ["venv .venv", "uv pip ", "pip", "pip"] + TESTED


def test_a_chosen_python_is_not_replaced_by_uv(project):
  project.uv(project.bin / "uv")
  newer = project.python("python3", "3.12")
  result = project.run("test", PYTHON=str(newer))
  assert result.returncode == 1 and not project.logged()


def test_without_a_suitable_python_it_lists_the_pythons_and_the_remedies(project):
  newer = project.python("python3", "3.12")
  bare = project.python("python3.11", "bare")
  result = project.run("demo")
  assert result.returncode == 1 and not (project.top / ".venv").exists()
  assert project.logged() == ["venv scratch", "pip uv"]  # uv could not be installed.
  for text in (
      "3.11 or 3.10", f"{newer}: 3.12.9, another version",
      f"{bare}: bare.9, but without the modules venv and ensurepip", "uv python install 3.11",
      "pyenv install 3.11", "apt install python3.11-venv", "PYTHON=/path/to/python3.11"):
    assert text in result.stderr


def test_without_any_python_the_message_states_this(project):
  assert "no Python at all" in project.run("demo").stderr


def test_an_unsuitable_chosen_python_is_named(project):
  project.python("python3", "3.11")
  result = project.run("demo", PYTHON="/no/such/python")
  assert result.returncode == 1
  assert "/no/such/python: does not run" in result.stderr
