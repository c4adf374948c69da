"""Tables of run directories: one row per run, per epoch, or per graph.

All functions take a folder and search it for run directories. A damaged or unfinished run directory
is also a row of `read_runs`, whose columns `state` and `problem` describe it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import logging
import math
import pathlib
from typing import Any

import pandas as pd

from tpugraphs_rank import commands
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import run_config
from tpugraphs_rank.evaluation import run_files
from tpugraphs_rank.training import run_directory

_logger = logging.getLogger(__name__)

DONE = run_directory.DONE
NOT_STARTED, DAMAGED = "not_started", "damaged"

# A folder with one of these files is a run directory, even if other files are missing. metrics.json
# is not listed because evaluations have a file of this name, too.
_MARKS = ("config.json", "environment.json", "status.json", "history.csv", "normalizer.npz",
          "checkpoints")
_FIRST = ("run", "collection", "model", "batch_size", "seed")
_METRICS = "valid_"
# These settings cannot change a result, so runs that differ only in them are repeats.
_WITHOUT_EFFECT = frozenset(
    name.rpartition(".")[2] for name, field, _ in config_lib.leaves(run_config.RunConfig)
    if not field.metadata["hashed"] and name != "training.initial_checkpoint")
_SETTINGS = tuple(name.rpartition(".")[2] for name, _, _ in config_lib.leaves(run_config.RunConfig))


def find_runs(folder: files.PathLike) -> list[pathlib.Path]:
  """The run directories in and below a folder, sorted; hidden folders are skipped.

  Raises:
    MissingDataError: the folder does not exist or has no run directory; the message names the
      commands that create some.
  """
  folder = pathlib.Path(folder)
  paths = sorted(_walk(folder)) if folder.is_dir() else []
  if not paths:
    problem = "has no run directory" if folder.is_dir() else "is no folder"
    raise errors.MissingDataError(
        f"{folder} {problem}; {commands.command('demo')} trains several runs into runs/demo, and "
        f"{commands.command('train', '--run_dir', str(folder / 'first'))} trains one")
  return paths


def _walk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  if any((folder / name).exists() for name in _MARKS):
    yield folder
    return
  for path in folder.iterdir():
    if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
      yield from _walk(path)


def read_runs(folder: files.PathLike) -> pd.DataFrame:
  """All runs below a folder, one row per run.

  Returns:
    A frame with the columns
      run: path of the run directory, relative to the folder.
      collection, model, batch_size, seed: settings that are always listed.
      every other setting in which the runs differ, by the name of its flag; lists are joined by
        commas. Runs of an earlier version have the default of a setting that was added later.
      state: the state in status.json: "finished" or "stopped_early" (see DONE), "interrupted",
        "failed", or "training", which is also the state of a killed run; or "not_started" or
        "damaged".
      epoch, best_epoch: number of trained epochs, and the epoch of the best checkpoint.
      valid_*: metrics of the best checkpoint on the validation split.
      seconds: total time of all epochs.
      problem: what is damaged or missing, and the remedy; empty if there is no problem.
    Values that a damaged run does not have are missing (NaN, NA).

  Raises:
    MissingDataError: no runs, see `find_runs`.
  """
  folder = pathlib.Path(folder)
  rows, settings = [], []
  for path in find_runs(folder):
    row, of_run = _run_row(path)
    rows.append({"run": path.relative_to(folder).as_posix(), **of_run, **row})
    settings.append(of_run)
  names = dict.fromkeys(name for each in (dict.fromkeys(_SETTINGS), *settings) for name in each)
  known = [each for each in settings if each]
  differing = [name for name in names if name not in _FIRST
               and len({repr(each.get(name)) for each in known}) > 1]
  metrics = sorted({name for row in rows for name in row if _is_metric(name)}, key=_metric_order)
  columns = [*_FIRST, *differing, "state", "epoch", "best_epoch", *metrics, "seconds", "problem"]
  return _frame(rows, columns)


def _run_row(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
  """The columns of a run, and its settings."""
  directory = run_directory.RunDirectory(path)
  problems: list[str] = []

  def attempt(otherwise: Any, read: Callable[..., Any], *arguments: Any) -> Any:
    try:
      return read(*arguments)
    except errors.TpuGraphsRankError as error:
      problems.append(str(error))
      return otherwise

  settings, foreign = attempt(({}, ""), _settings, directory)
  status = attempt({}, _status, directory)
  history = attempt(pd.DataFrame(columns=run_files.HISTORY_COLUMNS), run_files.read_history, path)
  row: dict[str, Any] = {
      "state": DAMAGED if problems else status.get("state", NOT_STARTED),
      "epoch": status.get("epoch"),
      "best_epoch": status.get("best_epoch") or None}  # 0: none yet.
  if "seconds" in history and len(history):
    row["seconds"] = float(history["seconds"].sum())
  if foreign:
    problems.append(foreign)
  if row["best_epoch"] and not (directory / "checkpoints" / "best.npz").is_file():
    problems.append(f"{path} has no checkpoints/best.npz: it cannot score graphs; train it again "
                    "in another --run_dir")
  row.update(attempt({}, _best_metrics, directory, row, history))
  for evaluation in sorted(path.rglob("per_graph.csv")):
    attempt(None, run_files.read_per_graph, evaluation)
  row["problem"] = "; ".join(problems)
  return row, settings


def _settings(directory: run_directory.RunDirectory) -> tuple[dict[str, Any], str]:
  """All settings by the names of their flags, and a problem with them ("" if there is none).

  A run of another version may have settings that this version does not know. It cannot score
  graphs, but its results are still valid.
  """
  problem = ""
  values = {name: value for name, _, value in config_lib.leaves(run_config.RunConfig)}
  try:
    values.update((name, value) for name, _, value in config_lib.leaves(directory.read_config()))
  except errors.ConfigError as error:
    problem = str(error)
    path = directory / "config.json"
    for section, settings in run_files.check_object(files.read_json(path)["config"], path).items():
      values.update((f"{section}.{name}", value)
                    for name, value in run_files.check_object(settings, path).items())
  settings = {
      name.rpartition(".")[2]: ",".join(map(str, value)) if isinstance(value, (list, tuple))
      else str(value) if isinstance(value, dict) else value for name, value in values.items()}
  about = directory.read_about()
  if not isinstance(about.get("collection"), str):
    raise errors.RunDirectoryError(
        f"{directory / 'config.json'} lacks about.collection; the run directory is damaged")
  return {**settings, "collection": about["collection"]}, problem


def _status(directory: run_directory.RunDirectory) -> dict[str, Any]:
  path = directory / "status.json"
  status = run_files.check_object(directory.read_status(), path)
  for key in ("epoch", "best_epoch"):
    if not run_files.is_number(status.get(key, 0)):
      raise errors.RunDirectoryError(
          f"{path}: {key} is {status[key]!r}; expected a number: the run directory is damaged")
  return status


def _best_metrics(directory: run_directory.RunDirectory, row: Mapping[str, Any],
                  history: pd.DataFrame) -> dict[str, float]:
  """Validation metrics of the best checkpoint, from the history if the run is not done.

  Undefined metrics are left out.
  """
  path = directory / "metrics.json"
  if path.exists():
    contents = run_files.check_object(files.read_json(path), path)
    metrics = run_files.check_object(contents.get("metrics"), path)
    known = {name: value for name, value in metrics.items() if value is not None}
    for name, value in known.items():
      if not run_files.is_number(value):
        raise errors.RunDirectoryError(
            f"{path}: {name} is {value!r}; expected a number: the run directory is damaged")
    return {f"{_METRICS}{name}": float(value) for name, value in known.items()}
  best = history[history["epoch"] == row["best_epoch"]]
  metrics = {} if best.empty else {
      name: float(value) for name, value in best.iloc[-1].items()
      if _is_metric(name) and name != "valid_loss" and not math.isnan(value)}
  if row["state"] in DONE and not metrics:
    raise errors.RunDirectoryError(f"{path} is missing, though the run is {row['state']}")
  return metrics


def _frame(rows: list[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
  """A frame that keeps integers as integers even if some rows have none."""
  frame = pd.DataFrame(rows, columns=list(columns), dtype=object)
  for name in frame:
    known = frame[name].dropna()
    if len(known) and all(isinstance(value, int) and not isinstance(value, bool)
                          for value in known):
      frame[name] = frame[name].astype("Int64")
    elif len(known) and all(map(run_files.is_number, known)) or name == "seconds":
      frame[name] = frame[name].astype("float64")
  return frame


def _is_metric(name: str) -> bool:
  return name.startswith(_METRICS) and name not in _SETTINGS  # `valid_fraction` is a setting.


def _metric_order(name: str) -> tuple[bool, int, str]:
  """Sorts ranking metrics first, then slowdowns by K."""
  digits = "".join(character for character in name if character.isdigit())
  return bool(digits), int(digits or 0), name


def metric_columns(runs: pd.DataFrame) -> list[str]:
  """The columns of `read_runs` that contain metrics."""
  return [name for name in runs if _is_metric(name)]


def settings_that_differ(runs: pd.DataFrame, with_seed: bool = False) -> list[str]:
  """The settings in which rows of `read_runs` differ, except those without effect on results.

  Args:
    runs: the result of `read_runs`, or some of its rows.
    with_seed: whether the seed counts as a setting.
  """
  known = runs[runs["model"].notna()]
  names = list(runs)[:list(runs).index("state")]  # The order of `read_runs`.
  return [name for name in names if name != "run" and name not in _WITHOUT_EFFECT
          and (with_seed or name != "seed") and known[name].nunique(dropna=False) > 1]


def labels(runs: pd.DataFrame) -> pd.Series:
  """A short name for each run's settings: its model and all other differing settings but the seed.

  Runs with equal labels are repeats. A damaged run without known settings is labelled by its path.
  """
  names = [name for name in settings_that_differ(runs) if name != "model"]

  def label(row: pd.Series) -> str:
    if pd.isna(row["model"]):
      return str(row["run"])
    return ", ".join([row["model"], *(
        f"{name}={'none' if pd.isna(row[name]) else row[name]}" for name in names)])
  return pd.Series([label(row) for _, row in runs.iterrows()], index=runs.index, name="label",
                   dtype=object)


def by_settings(runs: pd.DataFrame, keys: Sequence[str] | None = None) -> pd.DataFrame:
  """Means and standard deviations over runs with the same settings, usually over seeds.

  Unfinished runs are counted but not averaged.

  Args:
    runs: the result of `read_runs`.
    keys: columns that identify the settings. None: model, batch size and all other differing
      settings except the seed. With fewer keys, runs with different settings are averaged.

  Returns:
    A frame with the keys as index (damaged runs without known settings are left out), and the
    columns
      runs, unfinished: number of averaged runs, and of the others.
      for each metric its mean, and as `<metric>_sd` the standard deviation with n - 1 in the
        denominator (NaN for a single run).

  Raises:
    UnknownNameError: a key is no column of `runs`.
  """
  if keys is None:
    differing = settings_that_differ(runs)
    keys = [name for name in ("collection", "model", "batch_size") if name in differing
            or name != "collection"]
    keys += [name for name in differing if name not in keys]
  for key in keys:
    if key not in runs:
      raise errors.UnknownNameError(
          f"no column {key!r} in the runs{config_lib.nearest(key, runs)}; the columns are: "
          f"{', '.join(map(str, runs))} (settings with the same value in all runs have none)")
  metrics = metric_columns(runs)
  rows = []
  known = runs[runs["model"].notna()]
  for values, part in known.groupby(list(keys), dropna=False, sort=True):
    done = part[part["state"].isin(DONE)]
    row: dict[str, Any] = dict(zip(keys, values))
    row.update(runs=len(done), unfinished=len(part) - len(done))
    for name in metrics:
      row[name], row[f"{name}_sd"] = done[name].mean(), done[name].std(ddof=1)
    rows.append(row)
  columns = [*keys, "runs", "unfinished",
             *(column for name in metrics for column in (name, f"{name}_sd"))]
  frame = pd.DataFrame(rows, columns=columns).astype({key: runs[key].dtype for key in keys})
  return frame.set_index(list(keys))


def read_histories(folder: files.PathLike) -> pd.DataFrame:
  """The histories of all runs below a folder, one row per run and epoch.

  Returns:
    A frame with the columns run, model, batch_size and seed of `read_runs`, the `label` of
    `labels`, and the columns of history.csv: epoch, step, loss, train_opa, valid_loss, valid_opa
    and so on. Runs without a trained epoch have no rows. Neither have runs with a damaged history;
    the log names them, and `read_runs` has the problem.

  Raises:
    MissingDataError: no runs, see `find_runs`.
  """
  folder = pathlib.Path(folder)
  runs = read_runs(folder)
  frames = []
  for (_, row), label in zip(runs.iterrows(), labels(runs)):
    try:
      history = run_files.read_history(folder / row["run"])
    except errors.TpuGraphsRankError as error:
      _logger.warning("left out: %s", error)
      continue
    if len(history):
      about = {name: row[name] for name in ("run", "model", "batch_size", "seed")}
      frames.append(history.assign(**about, label=label)[[*about, "label", *history]])
  if not frames:
    return pd.DataFrame(columns=["run", "model", "batch_size", "seed", "label",
                                 *run_files.HISTORY_COLUMNS])
  return pd.concat(frames, ignore_index=True)


def read_per_graph(folder: files.PathLike) -> pd.DataFrame:
  """All evaluations below a folder (every per_graph.csv), one row per ranker, seed and graph.

  Returns:
    A frame with the columns
      source: folder of the evaluation, relative to `folder`.
      run: the evaluated run directory, which contains the evaluation, as in `read_runs`; None for
        an evaluation of several runs.
      split: "valid" or "test"; None if neither the file nor the results next to it name it.
      label: for the model of an evaluation in a run directory, its label of `labels`; otherwise the
        ranker.
      ranker, seed, graph, family, ...: the columns of per_graph.csv. In a run directory, the seed
        is the run's.
    Damaged files are left out and logged. There are no rows if no run was evaluated
    (`tpugraphs-rank evaluate --run_dir RUN` evaluates one).

  Raises:
    MissingDataError: no runs, see `find_runs`.
  """
  folder = pathlib.Path(folder)
  runs = read_runs(folder)
  by_path = {(folder / row["run"]).resolve(): (row, label)
             for (_, row), label in zip(runs.iterrows(), labels(runs))}
  frames = []
  for path in sorted(folder.rglob("per_graph.csv")):
    try:
      frame = run_files.read_per_graph(path)
    except errors.TpuGraphsRankError as error:
      _logger.warning("left out: %s", error)
      continue
    row, label = next((by_path[parent] for parent in path.resolve().parents
                       if parent in by_path), (None, None))
    frame.insert(0, "source", path.parent.relative_to(folder).as_posix())
    frame.insert(1, "run", None if row is None else row["run"])
    # Files of earlier versions do not have this column.
    split = (frame.pop("split") if "split" in frame.columns
             else run_files.split_of(path.parent))
    frame.insert(2, "split", split)
    frame.insert(3, "label", frame["ranker"])
    if row is not None and not pd.isna(row["seed"]):
      # Evaluations of earlier versions number the seeds from 0.
      frame["seed"] = row["seed"]
      frame.loc[frame["ranker"] == row["model"], "label"] = label
    frames.append(frame)
  if not frames:
    return pd.DataFrame(columns=["source", "run", "split", "label", *run_files.PER_GRAPH_COLUMNS])
  return pd.concat(frames, ignore_index=True)
