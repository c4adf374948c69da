"""The collector's environment: where it is, how it is made, what may be imported in it."""

import concurrent.futures
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import pytest

from tpugraphs_rank import collect
from tpugraphs_rank import errors
from tpugraphs_rank.collect import environment
from tpugraphs_rank.collect.common import processes

ROOT = pathlib.Path(__file__).resolve().parents[2]


# Makes environments instantly, with a copy of itself, and logs what pip is asked to do.
STAND_IN = """#!/bin/sh
case "$*" in
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip "*)
    echo "$*" >>"$LOG"
    ! grep -q impossible "$REQUIREMENTS" || { echo "no package impossible"; exit 1; }
    echo "Collecting jax" ;;
esac
"""


@pytest.fixture(name="folder")
def _folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
  """The folder of an environment that a stand-in for Python makes."""
  requirements, python = tmp_path / "requirements.txt", tmp_path / "python"
  requirements.write_text("# One package.\njax==1\n")
  python.write_text(STAND_IN)
  python.chmod(0o755)
  monkeypatch.setenv("LOG", str(tmp_path / "log"))
  monkeypatch.setenv("REQUIREMENTS", str(requirements))
  monkeypatch.setattr(environment, "_REQUIREMENTS", requirements)
  monkeypatch.setattr(environment, "_find_python", lambda: python)
  monkeypatch.setenv(environment.VARIABLE, str(tmp_path / "environment"))
  return tmp_path / "environment"


def test_it_is_in_the_checkout_or_in_the_users_data_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.delenv(environment.VARIABLE, raising=False)
  assert environment.folder() == ROOT / ".venv-collect"
  monkeypatch.setattr(environment, "_PACKAGE", tmp_path / "tpugraphs_rank")
  monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
  monkeypatch.setenv("HOME", str(tmp_path))
  first = environment.folder()
  assert first.is_relative_to(tmp_path) and first.name.startswith("collect-")
  # Other requirements have another environment.
  (tmp_path / "requirements.txt").write_text("jax==1\n")
  monkeypatch.setattr(environment, "_REQUIREMENTS", tmp_path / "requirements.txt")
  assert environment.folder() != first
  monkeypatch.setenv(environment.VARIABLE, str(tmp_path / "mine"))
  assert environment.folder() == tmp_path / "mine"


def _installed(folder: pathlib.Path) -> int:
  """How often pip has installed the requirements."""
  log = folder.with_name("log").read_text().splitlines()
  assert all(line.endswith(f"-r {environment._REQUIREMENTS}") for line in log)
  return len(log)


def test_it_is_created_once_and_again_for_other_requirements(folder: pathlib.Path) -> None:
  for _ in range(2):
    assert environment.python() == folder / "bin" / "python" and _installed(folder) == 1
  assert (folder / "complete").exists() and not (folder / "incomplete").exists()
  environment._REQUIREMENTS.write_text("jax==2\n")
  for _ in range(2):
    assert environment.python().exists() and _installed(folder) == 2


def test_two_processes_make_one_environment(folder: pathlib.Path) -> None:
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    assert len({*pool.map(lambda _: environment.python(), range(2))}) == 1
  assert _installed(folder) == 1


def test_a_failed_installation_is_reported_and_repeated(folder: pathlib.Path) -> None:
  environment._REQUIREMENTS.write_text("impossible==1\n")
  with pytest.raises(errors.OutputError, match="(?s)pip could not install.*no package impossible"):
    environment.python()
  assert (folder / "incomplete").exists() and not (folder / "complete").exists()
  environment._REQUIREMENTS.write_text("jax==1\n")
  assert environment.python().exists() and _installed(folder) == 2


def test_a_folder_that_is_not_an_environment_is_left_alone(folder: pathlib.Path) -> None:
  folder.mkdir()
  (folder / "thesis.tex").write_text("years of work")
  with pytest.raises(errors.OutputError, match="is not a Python environment"):
    environment.python()
  assert (folder / "thesis.tex").exists()


def test_an_environment_of_the_user_is_used_as_it_is(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  (folder / "bin").mkdir(parents=True)
  (folder / "bin" / "python").symlink_to(sys.executable)
  monkeypatch.setattr(environment, "_make", lambda where: pytest.fail("made"))
  assert environment.python() == folder / "bin" / "python"


def test_scripts_in_it_can_import_the_package_that_used_it_last(
    folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  packages = folder / "lib" / "python3.11" / "site-packages"
  environment.python()
  packages.mkdir(parents=True)
  for name in ("first", "second"):
    package = tmp_path / name / "tpugraphs_rank"
    package.mkdir(parents=True)
    monkeypatch.setattr(environment, "_PACKAGE", package)
    for _ in range(2):
      environment.python()
      assert (packages / "tpugraphs_rank").readlink() == package
  package.rmdir()
  monkeypatch.setattr(environment, "_PACKAGE", tmp_path / "first" / "tpugraphs_rank")
  environment.python()
  assert (packages / "tpugraphs_rank").exists()
  assert [entry.name for entry in packages.iterdir()] == ["tpugraphs_rank"]
  # What the user has installed there stays.
  (packages / "tpugraphs_rank").unlink()
  (packages / "tpugraphs_rank").mkdir()
  environment.python()
  assert not (packages / "tpugraphs_rank").is_symlink()


def test_the_module_prints_its_python(
    own: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
  assert environment.main() == 0
  assert capsys.readouterr().out == f"{own}/bin/python\n"


def test_without_a_suitable_python_the_versions_are_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setenv(environment.VARIABLE, str(tmp_path / "environment"))
  monkeypatch.setattr(environment, "VERSIONS", ((3, 98), (3, 99)))
  with pytest.raises(errors.OutputError, match=r"Python 3\.98 or 3\.99"):
    environment.python()


@pytest.fixture(name="own")
def _own(folder: pathlib.Path) -> pathlib.Path:
  """An environment of the user's: the Python of the tests."""
  (folder / "bin").mkdir(parents=True)
  (folder / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
  (folder / "bin" / "python").chmod(0o755)
  return folder


def test_modules_see_this_package_and_no_other_of_this_environment(
    own: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  (tmp_path / "json.py").write_text("raise SystemExit('the current folder is on the path')")
  monkeypatch.chdir(tmp_path)
  environment.run("tpugraphs_rank.errors")
  with pytest.raises(errors.OutputError, match="ended with status 1"):
    environment.run("pytest", "--version")


def test_a_signal_ends_the_collector_too(own: pathlib.Path, tmp_path: pathlib.Path) -> None:
  pid = tmp_path / "pid"
  # Replaces the collector's Python: records its process and sleeps.
  (own / "bin" / "python").write_text(f'#!/bin/sh\necho $$ >"{pid}.new"\n'
                                      f'mv "{pid}.new" "{pid}"\nexec sleep 60\n')
  program = "from tpugraphs_rank.collect import environment; environment.run('any')"
  process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT,
                             env={**os.environ, environment.VARIABLE: str(own)})
  while not pid.exists():
    assert process.poll() is None
    time.sleep(0.02)
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=30) == 128 + signal.SIGTERM
  with pytest.raises(ProcessLookupError):
    os.kill(int(pid.read_text()), 0)


def test_a_signal_while_a_program_starts_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
  programs = []

  def start(*words: Any, **options: Any) -> subprocess.Popen:
    programs.append(popen(*words, **options))
    signal.raise_signal(signal.SIGTERM)  # The caller does not have the process yet.
    return programs[-1]

  popen = subprocess.Popen
  monkeypatch.setattr(subprocess, "Popen", start)
  with pytest.raises(SystemExit):
    processes.run(["sleep", "60"], os.environ)
  assert programs[0].returncode == -signal.SIGTERM


def test_the_measuring_code_needs_only_the_packages_of_its_environment() -> None:
  names = {re.split("==", line)[0] for line in
           environment._REQUIREMENTS.read_text().splitlines() if line and line[0] != "#"}
  # Two packages have other names than the modules that they install.
  names = (names - {"protobuf", "google-re2"}) | {"google", "re2", "tpugraphs_rank"}
  program = textwrap.dedent(f"""
      import importlib, sys, sysconfig, pathlib
      names = {sorted(names)!r}
      class Refuses:
        def find_spec(self, name, path=None, target=None):
          top = name.partition(".")[0]
          if top not in names and top not in sys.stdlib_module_names and not top.startswith("_"):
            raise ModuleNotFoundError(f"{{name}} is not in the collector's environment", name=name)
      sys.meta_path.insert(0, Refuses())
      for module in ("tile.collect", "tile.measure", "layout.collect", "layout.measure",
                     "remeasure"):
        importlib.import_module(f"tpugraphs_rank.collect.{{module}}")
  """)
  done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                        check=False)
  assert done.returncode == 0, done.stderr


def test_programs_outside_the_catalogues_are_refused_before_anything_is_created(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  from tests.candidates import small_programs
  from tests.hlo import modules
  from tpugraphs_rank.hlo import tuning_pb2
  monkeypatch.setattr(environment, "run", lambda *words: pytest.fail("measured"))
  data = small_programs.data_of(small_programs.matmul(64, 64, 32, "mine"), [
      modules.tile_run(None, output=(8, 8), kernel=(8,), inputs=(8, 8))])
  (tmp_path / "f.pb").write_bytes(tuning_pb2.TuningData(modules=[data]).SerializeToString())
  with pytest.raises(errors.CompatibilityError, match="'mine' cannot be measured"):
    collect.measure_ranked(tmp_path / "f.pb", tmp_path / "out")
