"""The collector's environment: Python with JAX, made on first use.

The collector has an environment of its own because JAX needs NumPy 2 and TensorFlow 2.15 needs
NumPy 1. In a checkout the environment is `.venv-collect`; otherwise it is in the platform's folder
for user data. The variable TPUGRAPHS_COLLECT_ENVIRONMENT chooses another folder; an environment
that exists there is used as it is.

The package itself is not installed there. The collector's path gets a folder that holds only a link
to it, so that no other package of this process's environment can be imported. For scripts of the
user, such as those that load a tuned program, an environment that was made here has a link among
its packages, to the package that used it last.

  python -m tpugraphs_rank.collect.environment     # Prints the environment's Python.
"""

from collections.abc import Iterator, Sequence
import contextlib
import hashlib
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import platformdirs
import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import termination
from tpugraphs_rank.collect.common import processes

VARIABLE = "TPUGRAPHS_COLLECT_ENVIRONMENT"
VERSIONS = ((3, 11), (3, 12), (3, 13))
_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_REQUIREMENTS = pathlib.Path(__file__).resolve().with_name("requirements.txt")
# Files in an environment that this module makes: one while it is made, the other afterwards.
_MAKING, _STAMP = "incomplete", "complete"

_log = logging.getLogger("tpugraphs_rank.collect")


def folder() -> pathlib.Path:
  """The folder of the environment, whether it exists or not."""
  chosen = os.environ.get(VARIABLE)
  if chosen:
    return files.expanded(chosen).absolute()
  checkout = _PACKAGE.parent
  if (checkout / "run").is_file() and (checkout / "setup.cfg").is_file():
    return checkout / ".venv-collect"
  data = platformdirs.user_data_path("tpugraphs_rank", appauthor=False)
  return data / f"collect-{_digest(_REQUIREMENTS.read_bytes())}"


def is_ready() -> bool:
  """Whether the environment exists and is complete, so that using it installs nothing."""
  return _is_usable(folder())


def python() -> pathlib.Path:
  """The Python of the environment, which is made if it does not exist or is incomplete.

  Raises:
    OutputError: the environment cannot be made; the message has the reason.
  """
  where = folder()
  if not _is_usable(where):
    try:
      where.parent.mkdir(parents=True, exist_ok=True)
      with _lock(where):
        if not _is_usable(where):  # Another process may have made it in the meantime.
          _make(where)
    except OSError as error:
      if isinstance(error, errors.TpuGraphsRankError):
        raise
      raise errors.OutputError(f"cannot make the collector's environment in {where}: {error}; "
                               f"{VARIABLE} chooses another folder") from error
  if (where / _STAMP).exists():
    _link_package(where)
  return where / "bin" / "python"


def run(module: str, *arguments: str) -> None:
  """Runs a module of the collector in its environment, to the end.

  Args:
    module: name of the module.
    arguments: its command-line arguments.

  Raises:
    OutputError: the environment cannot be made, or the module ended with an error.
    KeyboardInterrupt: the module was interrupted.
  """
  command = [str(python()), "-m", module, *arguments]
  with process_variables() as variables:
    status = processes.run(command, variables)
  if status == 130:
    raise KeyboardInterrupt
  if status:
    raise errors.OutputError(
        f"the collector ended with status {status} (its messages are above); its measurements are "
        "kept, and the same command resumes")


def output_of(module: str, *arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
  """Runs a short program of the collector in its environment, and captures what it prints.

  Args:
    module: name of the module.
    arguments: its command-line arguments.
    seconds: time after which it is ended.

  Raises:
    OutputError: the environment cannot be made.
    subprocess.TimeoutExpired: the time is over.
  """
  command = [str(python()), "-m", module, *arguments]
  with process_variables() as variables, termination.sigterm_raises(), processes.started(
      command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
      errors="replace") as process:
    output, messages = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess(command, process.returncode, output, messages)


@contextlib.contextmanager
def process_variables() -> Iterator[dict[str, str]]:
  """The variables of a process in the environment, from which it can import this package."""
  with tempfile.TemporaryDirectory(prefix="tpugraphs_rank-") as holder:
    (pathlib.Path(holder) / _PACKAGE.name).symlink_to(_PACKAGE, target_is_directory=True)
    # Safe path: a file in the current folder must not hide a package of the same name.
    yield {**_clean_environment(), "PYTHONPATH": holder, "PYTHONSAFEPATH": "1"}


# Variables with which this process's environment would affect another Python.
_PYTHON_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


def _digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()[:12]


def _stamp(where: pathlib.Path) -> str:
  """Identifies what a complete environment was made from: its location and the requirements."""
  return f"{where}\n{_digest(_REQUIREMENTS.read_bytes())}\n"


def _is_usable(where: pathlib.Path) -> bool:
  """Whether an environment is complete, or the user's own."""
  if not (where / "bin" / "python").exists():
    return False
  if os.environ.get(VARIABLE) and not ((where / _MAKING).exists() or (where / _STAMP).exists()):
    return True
  try:
    return (where / _STAMP).read_text(encoding="utf-8") == _stamp(where)
  except OSError:
    return False


def _link_package(where: pathlib.Path) -> None:
  """Puts a link to this package among the packages of an environment.

  The collector does not need it, so a folder that cannot be written is left as it is.
  """
  for packages in where.glob("lib/python3*/site-packages"):
    link = packages / _PACKAGE.name
    if link.exists() and (not link.is_symlink() or link.samefile(_PACKAGE)):
      continue  # It is there, or was installed by the user.
    new = packages / f".{_PACKAGE.name}.{os.getpid()}"
    with contextlib.suppress(OSError):
      new.symlink_to(_PACKAGE, target_is_directory=True)
      new.replace(link)


@contextlib.contextmanager
def _lock(where: pathlib.Path) -> Iterator[None]:
  """Holds the lock of an environment; the system releases it when this process ends."""
  import fcntl  # Not on Windows, where the collector does not run.
  with files.open_to_append(f"{where}.lock") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      _log.info("waiting for another process that makes %s", where)
      fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _make(where: pathlib.Path) -> None:
  """Makes the environment; an interrupted attempt leaves it incomplete."""
  ours = any((where / name).exists() for name in (_MAKING, _STAMP, "pyvenv.cfg"))
  if where.exists() and not ours and any(where.iterdir()):
    raise errors.OutputError(
        f"{where} is not a Python environment; {VARIABLE} must name one, or a new folder")
  base = _find_python()
  _log.info("making the collector's environment in %s with %s; this takes a minute or two, once",
            where, base)
  start = time.monotonic()
  shutil.rmtree(where, ignore_errors=True)  # There may be half a package.
  where.mkdir()
  (where / _MAKING).touch()
  with termination.sigterm_raises():
    _check([str(base), "-m", "venv", str(where)], "no environment could be made")
    _install(where)
  partial = where / f"{_STAMP}.partial"
  partial.write_text(_stamp(where), encoding="utf-8")
  partial.replace(where / _STAMP)
  (where / _MAKING).unlink()
  _log.info("made the collector's environment in %.0f s", time.monotonic() - start)


def _install(where: pathlib.Path) -> None:
  """Installs the requirements with pip, with a progress bar."""
  total = sum(1 for line in _REQUIREMENTS.read_text(encoding="utf-8").splitlines()
              if line and not line.startswith("#"))
  command = [str(where / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check",
             "--no-input", "--no-compile", "--progress-bar", "off", "-r", str(_REQUIREMENTS)]
  lines = []
  with processes.started(command, env=_clean_environment(), text=True, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT) as process:
    assert process.stdout is not None
    # One more step: unpacking, which pip does last and for all packages together.
    with tqdm.tqdm(total=total + 1, desc="install", unit="package", disable=None) as bar:
      for line in process.stdout:
        lines.append(line.rstrip())
        if line.startswith(("Collecting ", "Installing collected packages")):
          bar.update(min(1, bar.total - bar.n))
    status = process.wait()
  if status:
    raise _failed(f"pip could not install {_REQUIREMENTS.name}", lines)


def _check(command: Sequence[str], what: str) -> None:
  done = subprocess.run(command, env=_clean_environment(), stdin=subprocess.DEVNULL, text=True,
                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
  if done.returncode:
    raise _failed(what, done.stdout.splitlines())


def _failed(what: str, lines: Sequence[str]) -> errors.OutputError:
  shown = "\n  ".join(line for line in lines[-8:] if line.strip())
  return errors.OutputError(
      f"{what} for the collector's environment in {folder()}; the last messages are\n  {shown}\n"
      f"The same command tries again. To use an environment of your own, install "
      f"{_REQUIREMENTS} there and put its folder into {VARIABLE}.")


def _clean_environment() -> dict[str, str]:
  return {key: value for key, value in os.environ.items() if key not in _PYTHON_VARIABLES}


def _find_python() -> pathlib.Path:
  """A Python that JAX supports: this one, or one on the PATH, of pyenv or of uv.

  Raises:
    OutputError: there is none.
  """
  versions = [f"{major}.{minor}" for major, minor in VERSIONS]
  home = pathlib.Path.home()
  candidates = [pathlib.Path(sys.executable)]
  candidates += [pathlib.Path(path) for version in versions
                 if (path := shutil.which(f"python{version}"))]
  for version in versions:
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", home / ".pyenv")) / "versions"
    uv = pathlib.Path(os.environ.get("XDG_DATA_HOME", home / ".local/share")) / "uv/python"
    candidates += [*pyenv.glob(f"{version}.*/bin/python3"),
                   *uv.glob(f"cpython-{version}.*/bin/python3")]
  for candidate in candidates:
    if _is_suitable(candidate):
      return candidate
  raise errors.OutputError(
      f"the collector needs Python {', '.join(versions[:-1])} or {versions[-1]} with the modules "
      "venv and ensurepip, and none was found; install one (`uv python install 3.11`, or "
      "`pyenv install 3.11`), then run the same command again")


def _is_suitable(candidate: pathlib.Path) -> bool:
  """Whether a Python has a supported version and can make environments. It is run to find out."""
  probe = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
  try:
    done = subprocess.run([str(candidate), "-c", probe], env=_clean_environment(), timeout=60,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
  except (OSError, subprocess.TimeoutExpired):
    return False
  return done.returncode == 0 and done.stdout.split() in [
      [str(major), str(minor)] for major, minor in VERSIONS]


def main() -> int:
  """Prints the Python of the environment, which is made if it does not exist."""
  logging.basicConfig(level=logging.INFO, format="%(message)s")
  try:
    print(python())
  except errors.TpuGraphsRankError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  return 0


if __name__ == "__main__":
  sys.exit(main())
