"""The run directory: everything that belongs to a run, and all that scoring needs.

    config.json        the resolved configuration, its hash, and the collection
    environment.json   versions, machine, command, commit
    status.json        state, epochs, best epoch
    normalizer.npz     feature scaling, fitted on the training split
    checkpoints/       best.npz, latest.npz
    history.csv        one row per epoch
    tensorboard/       event files
    metrics.json       metrics of the best checkpoint on the validation split
    calibration.json   its figures by kind of program there, and how often and by how much leads
                       over the default meant faster
    kinds.json         how further kinds of networks are averaged with the run's own, with --kinds
    kinds/             the run directory of each further kind, 1, 2 and so on
    trees.json, .npz   boosted trees that score together with the networks, with --trees_weight
    prior.json, .npz   the analytic cost of tiles, its trees, and when both count; not for layouts
    predictions/       scores of whole splits, <split>.npz, and the best configurations of single
                       programs, <file>.ranked.json and .ranked.pb
    submission_part.csv  ranking of the test split, in the format of a submission
    train.log          the log

Trained models that ship with the package are run directories, too. They are named `bundled:NAME`
and are read-only.
"""

from collections.abc import Iterator, Mapping, Sequence
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
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import folder_locks
from tpugraphs_rank import folder_settings
from tpugraphs_rank import partials
from tpugraphs_rank import run_config
from tpugraphs_rank.data import registry

# States of a run.
FINISHED = "finished"  # All epochs are done.
STOPPED_EARLY = "stopped_early"  # Validation stopped improving.
INTERRUPTED = "interrupted"
FAILED = "failed"
TRAINING = "training"
DONE = (FINISHED, STOPPED_EARLY)  # Training is over.
STATES = (*DONE, INTERRUPTED, FAILED, TRAINING)

BUNDLED = "bundled:"
KINDS = "kinds"
_BUNDLED_FOLDER = pathlib.Path(__file__).resolve().parents[1] / "bundled" / "models"

# Keys of config.json's `about` and of status.json, with the types of their values.
_TEXTS = frozenset({"collection", "kind", "target", "hlo_stage"})
_COUNTS = frozenset({"epoch", "step", "best_epoch"})

_PACKAGES = ("tensorflow", "tensorflow-gnn", "tensorflow-ranking", "numpy", "scipy", "pandas",
             "scikit-learn")


def bundled_names() -> list[str]:
  """The names of the trained models that ship with the package."""
  return sorted(path.parent.name for path in _BUNDLED_FOLDER.glob("*/config.json"))


def bundled_path(name: str) -> pathlib.Path:
  """The run directory of a trained model that ships with the package.

  Raises:
    UnknownNameError: there is no such model; the message lists the valid names.
  """
  names = bundled_names()
  if name not in names:
    raise errors.UnknownNameError(
        f"no bundled model {name!r}{config_lib.nearest(name, names)}; expected one of: "
        + (", ".join(f"{BUNDLED}{known}" for known in names) or "none ships with this version"))
  return _BUNDLED_FOLDER / name


class RunDirectory:
  """Paths in a run directory, and functions that read and write its files.

  Attributes:
    path: the folder.
    bundled: name of the model that ships with the package; "" for any other run.
  """

  def __init__(self, path: files.PathLike, config_class: type = run_config.RunConfig,
               app: Sequence[str] = ("train",)):
    """Names a folder. Nothing is read or written yet.

    Args:
      path: the folder, or `bundled:NAME`.
      config_class: the class of the run's configuration.
      app: the command that creates such runs.

    Raises:
      UnknownNameError: there is no such bundled model.
      RunDirectoryError: no folder can have this path.
    """
    text = str(path)
    problem = files.why_no_path(text)
    if problem:
      raise errors.RunDirectoryError(f"no run directory {escaping.quoted(text)}: it {problem}")
    self.bundled = text[len(BUNDLED):] if text.startswith(BUNDLED) else ""
    self.path = bundled_path(self.bundled) if text.startswith(BUNDLED) else pathlib.Path(path)
    if not self.bundled and self.path.resolve().parent == _BUNDLED_FOLDER:
      self.bundled = self.path.resolve().name
    self._config_class = config_class
    self._app = tuple(app)

  def __truediv__(self, name: str) -> pathlib.Path:
    return self.path / name

  def __str__(self) -> str:
    return f"{BUNDLED}{self.bundled}" if self.bundled else str(self.path)

  def __repr__(self) -> str:
    return f"RunDirectory({str(self)!r})"

  @property
  def label(self) -> str:
    """The folder's name, for progress bars; that of a further kind begins with its run's."""
    *_, run, parent, name = ("", "", *self.path.parts)
    return f"{run} kind {name}" if parent == KINDS else name

  @property
  def ensemble(self) -> "RunDirectory | None":
    """The run of whose ensemble this directory is a further kind; None: it is a run of its own."""
    whole = self.path.parent.parent
    is_kind = self.path.parent.name == KINDS and (whole / "config.json").is_file()
    return RunDirectory(whole) if is_kind else None

  @property
  def resume_command(self) -> str:
    """The command that resumes this run; of a further kind, that of the whole run."""
    whole = self.ensemble or self
    return commands.command("train", "--run_dir", str(whole.path), "--config",
                            str(whole / "config.json"))

  @property
  def output_folder(self) -> pathlib.Path:
    """Where results about the run are written by default.

    This is the run directory itself. The results of a bundled model, which is read-only, go to the
    current folder.
    """
    return pathlib.Path(".") if self.bundled else self.path

  def _check_writable(self) -> None:
    if self.bundled:
      raise errors.RunDirectoryError(
          f"{self} ships with the package and is read-only; choose another --run_dir. To train "
          f"on from its weights, use --initial_checkpoint={self}")

  @contextlib.contextmanager
  def locked(self, wait: bool = False) -> Iterator[None]:
    """Keeps other processes from training in the directory during the block.

    Args:
      wait: whether to wait for another process. Otherwise an error names it.

    Raises:
      RunDirectoryError: another process trains in it, or it is read-only.
      OutputError: it cannot be written.
    """
    self._check_writable()
    with folder_locks.hold(self.path, wait):
      yield

  def open(self, config: Any, about: Mapping[str, Any]) -> bool:
    """Claims the directory for a configuration.

    Args:
      config: the resolved configuration.
      about: stored next to the configuration: collection, kind, target, HLO stage, element types.

    Returns:
      Whether the directory already holds this run, so that training resumes.

    Raises:
      RunDirectoryError: it holds a run with other settings (the message lists the differences), or
        it is read-only.
      OutputError: it cannot be written.
    """
    self._check_writable()
    if (self / "config.json").exists():
      folder_settings.refuse_if_different(
          self.path, config_lib.differences(self.read_config(), config),
          "Choose another --run_dir, or use the stored settings "
          f"(--config {self / 'config.json'}) to resume the run")
      return True
    # A process that was killed during setup may have left these files behind.
    if self.path.is_dir() and any(
        entry.name not in ("environment.json", folder_locks.NAME)
        and entry.suffix != partials.SUFFIX for entry in self.path.iterdir()):
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
          f"{self.path} is not a run directory: it has no config.json; "
          f"{commands.command(*self._app, '--run_dir', 'DIR')} creates one")
    stored = _read(path)
    if not isinstance(stored, dict) or not isinstance(stored.get("config"), dict):
      raise errors.RunDirectoryError(f"{path} lacks the key 'config'; the run directory is damaged")
    return stored

  def read_config(self) -> Any:
    """The stored configuration. Reading it loads the run's plugins, if the user knows them.

    Raises:
      RunDirectoryError: there is none, or it is damaged.
      ConfigError: it has keys that this version does not know, or a plugin cannot be loaded, or
        is unknown to the user (see `plugin_trust`).
      MissingDataError: a plugin is gone.
    """
    return config_lib.from_dict(self._config_class, self._stored()["config"],
                                source=str(self / "config.json"))

  def read_about(self) -> dict[str, Any]:
    """The collection, kind, target, HLO stage and element types that the run was trained on.

    Raises:
      RunDirectoryError: there is no configuration, or a value is not of its type.
    """
    about = self._stored().get("about")
    about = about if isinstance(about, dict) else {}
    for key, value in about.items():
      if key in _TEXTS and not (isinstance(value, str) and registry.is_name(value)):
        raise errors.RunDirectoryError(
            f"{self / 'config.json'}: about.{key} is {escaping.value(value)}; expected a string of "
            f"at most {registry.LONGEST_NAME} printed characters: the run directory is damaged")
    types = about.get("element_types", [])
    if not isinstance(types, list) or not all(
        isinstance(name, str) and name.isprintable() for name in types):
      raise errors.RunDirectoryError(
          f"{self / 'config.json'}: about.element_types is {escaping.value(types)}; expected a "
          "list of strings: the run directory is damaged")
    return about

  def write_status(self, **status: Any) -> None:
    """Replaces status.json."""
    self._check_writable()
    files.write_json(self / "status.json", status)

  def read_status(self) -> dict[str, Any]:
    """The contents of status.json; empty if training has not begun.

    Raises:
      RunDirectoryError: it is damaged.
    """
    path = self / "status.json"
    status = _read(path) if path.exists() else {}
    if not isinstance(status, dict):
      raise errors.RunDirectoryError(
          f"{path} holds {type(status).__name__}; expected an object: the run directory is damaged")
    for key, value in status.items():
      if (key in _COUNTS and value is not None and (type(value) is not int or value < 0)
          and not isinstance(value, dict)
          or key == "state" and value not in STATES):
        expected = f"one of {', '.join(STATES)}" if key == "state" else "a number from 0"
        raise errors.RunDirectoryError(
            f"{path}: {key} is {escaping.value(value)}; expected {expected}: the run directory is "
            "damaged")
    return status

  def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replaces history.csv by these rows. A value that a row lacks is left empty."""
    self._check_writable()
    text = io.StringIO()
    if rows:
      columns = dict.fromkeys(key for row in rows for key in row)
      writer = csv.DictWriter(text, list(columns), lineterminator="\n")
      writer.writeheader()
      writer.writerows(rows)
    files.write_text(self / "history.csv", text.getvalue())

  @contextlib.contextmanager
  def logging(self) -> Iterator[None]:
    """Appends the library's log messages to train.log during the block."""
    self._check_writable()
    handler = _Log(io.TextIOWrapper(files.open_to_append(self / "train.log"), "utf-8"))
    handler.setFormatter(escaping.LogFormatter("%(asctime)s %(levelname)s %(message)s"))
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


class _Log(logging.StreamHandler[io.TextIOWrapper]):
  """A handler of a file. Messages that cannot be written are dropped, as on a full disk."""

  def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (of `logging`)
    del record

  def close(self) -> None:
    """Closes the file."""
    with contextlib.suppress(OSError):
      self.stream.close()
    super().close()


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
  """The name of the processor, as the system reports it."""
  with contextlib.suppress(OSError):
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
      if line.startswith("model name"):
        return line.partition(":")[2].strip()
  return platform.processor() or platform.machine()


def commit() -> str:
  """The commit of the checkout that contains the package; "unknown" without a checkout."""
  folder = pathlib.Path(__file__).resolve().parent
  try:
    result = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=folder,
                            capture_output=True, text=True, timeout=10, check=True)
  except (OSError, subprocess.SubprocessError):
    return "unknown"
  return result.stdout.strip()
