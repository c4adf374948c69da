"""The run directory: everything that a run is, and all that scoring needs.

    config.json        the resolved configuration, its hash, and the collection it is about
    environment.json   versions, machine, command, commit
    status.json        state, epochs, best epoch
    normalizer.npz     feature scaling, fitted on the training split
    checkpoints/       best.npz, latest.npz
    history.csv        one row an epoch
    tensorboard/       event files
    metrics.json       metrics of the best checkpoint on the validation split
    predictions/       scores of the splits that were predicted, <split>.npz, and the best
                       configurations of one's own programs, <file>.ranked.json and .ranked.pb
    submission_part.csv  ranking of the test split, in the form of a submission
    train.log          the log
"""

from collections.abc import Iterator, Mapping
import contextlib
import csv
from importlib import metadata
import io
import logging
import os
import pathlib
import platform
import subprocess
from typing import Any

from tpugraphs_rank import commands
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import run_config

_PACKAGES = ("tensorflow", "tensorflow-gnn", "tensorflow-ranking", "numpy", "scipy", "pandas",
             "scikit-learn")


class RunDirectory:
  """Paths in a run directory, and the reading and writing of its files."""

  def __init__(self, path: files.PathLike, config_class: type = run_config.RunConfig,
               app: str = "train"):
    """Names a folder.

    Args:
      path: the folder.
      config_class: of the configuration that such a run has.
      app: the application in `experiments` that makes such runs.
    """
    self.path = pathlib.Path(path)
    self._config_class = config_class
    self._app = app

  def __truediv__(self, name: str) -> pathlib.Path:
    return self.path / name

  def open(self, config: Any, about: Mapping[str, Any]) -> bool:
    """Claims the directory for a configuration.

    Args:
      config: the resolved configuration.
      about: what the run is about (collection, kind, target, HLO stage), kept with it.

    Returns:
      Whether the directory already holds this run, to be resumed.

    Raises:
      RunDirectoryError: it holds a run of another configuration; the message lists the
        differences.
      OutputError: it cannot be written.
    """
    if (self / "config.json").exists():
      stored = self.read_config()
      differences = config_lib.differences(stored, config)
      if differences:
        raise errors.RunDirectoryError(
            f"{self.path} holds a run of another configuration:\n  " + "\n  ".join(differences)
            + "\nChoose another --run_dir, or the stored settings "
            f"(--config {self / 'config.json'}) to resume it")
      return True
    # A run that was killed while it was set up may have left the environment, written or half so.
    if self.path.is_dir() and any(
        entry.name != "environment.json" and entry.suffix != ".partial"
        for entry in self.path.iterdir()):
      raise errors.RunDirectoryError(
          f"{self.path} is not empty and holds no config.json; choose an empty or a new --run_dir")
    files.write_json(self / "environment.json", environment())
    files.write_json(self / "config.json", {
        "config": config_lib.to_dict(config), "hash": config_lib.stable_hash(config),
        "about": dict(about)})
    return False

  def _stored(self) -> dict[str, Any]:
    path = self / "config.json"
    if not path.is_file():
      raise errors.RunDirectoryError(
          f"{self.path} is no run directory: it has no config.json; "
          f"`python -m experiments.{self._app} --run_dir DIR` makes one")
    stored = _read(path)
    if not isinstance(stored, dict) or not isinstance(stored.get("config"), dict):
      raise errors.RunDirectoryError(f"{path} lacks the key 'config'; the run directory is damaged")
    return stored

  def read_config(self) -> Any:
    """The stored configuration.

    Raises:
      RunDirectoryError: there is none, or it is damaged.
      ConfigError: it has keys that this version does not know.
    """
    return config_lib.from_dict(self._config_class, self._stored()["config"],
                                source=str(self / "config.json"))

  def read_about(self) -> dict[str, Any]:
    """The collection, kind, target and HLO stage that the run was trained on."""
    about = self._stored().get("about")
    return about if isinstance(about, dict) else {}

  def write_status(self, **status: Any) -> None:
    """Replaces status.json."""
    files.write_json(self / "status.json", status)

  def read_status(self) -> dict[str, Any]:
    """The contents of status.json; empty where training has not begun.

    Raises:
      RunDirectoryError: it is damaged.
    """
    path = self / "status.json"
    return _read(path) if path.exists() else {}

  def write_history(self, rows: list[Mapping[str, Any]]) -> None:
    """Replaces history.csv by these rows, which have the same keys."""
    text = io.StringIO()
    if rows:
      writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
      writer.writeheader()
      writer.writerows(rows)
    files.write_text(self / "history.csv", text.getvalue())

  @contextlib.contextmanager
  def logging(self) -> Iterator[None]:
    """Appends what the library logs to train.log for the length of the block."""
    handler = logging.FileHandler(self / "train.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("tpugraphs_rank")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
      yield
    finally:
      logger.removeHandler(handler)
      logger.setLevel(level)
      handler.close()


def _read(path: pathlib.Path) -> Any:
  """The contents of a JSON file of a run directory."""
  try:
    return files.read_json(path)
  except errors.DataError as error:
    raise errors.RunDirectoryError(f"{error}; the run directory is damaged") from error


def environment() -> dict[str, Any]:
  """Versions, machine, command and commit of this process."""
  versions = {}
  for name in _PACKAGES:
    with contextlib.suppress(metadata.PackageNotFoundError):
      versions[name] = metadata.version(name)
  return {
      "python": platform.python_version(),
      "packages": versions,
      "platform": platform.platform(),
      "processor": processor(),
      "cores": os.cpu_count(),
      "command": commands.running(),
      "commit": commit(),
  }


def processor() -> str:
  """The name of the processor, as the system gives it."""
  with contextlib.suppress(OSError):
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
      if line.startswith("model name"):
        return line.partition(":")[2].strip()
  return platform.processor() or platform.machine()


def commit() -> str:
  """The commit of the checkout that the package lies in, "unknown" outside one."""
  folder = pathlib.Path(__file__).resolve().parent
  try:
    result = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=folder,
                            capture_output=True, text=True, timeout=10, check=True)
  except (OSError, subprocess.SubprocessError):
    return "unknown"
  return result.stdout.strip()
