"""Run directories as tables: one row a run, an epoch, or a graph.

All functions take a folder and look for run directories in and below it. A run directory that is
damaged or was never finished is a row of `read_runs` like any other, which says so.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import logging
import math
import pathlib
from typing import Any

import numpy as np
import pandas as pd

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import run_config
from tpugraphs_rank.training import run_directory

_logger = logging.getLogger(__name__)

DONE = ("finished", "stopped_early")
NOT_STARTED, DAMAGED = "not_started", "damaged"

# A folder with one of these is a run directory, however little else is left of it. metrics.json
# is none of them: evaluations bear it too.
_MARKS = ("config.json", "environment.json", "status.json", "history.csv", "normalizer.npz",
          "checkpoints")
_FIRST = ("run", "collection", "model", "batch_size", "seed")
_METRICS = "valid_"
_HISTORY_COLUMNS = ("epoch", "loss", "train_opa", "valid_loss", "valid_opa")
_PER_GRAPH_COLUMNS = ("ranker", "seed", "graph", "family", "opa", "kendall_tau")
# These cannot change a result, so that runs which differ in them are repeats of one another.
_WITHOUT_EFFECT = frozenset(
    name.rpartition(".")[2] for name, field, _ in config_lib.leaves(run_config.RunConfig)
    if not field.metadata["hashed"] and name != "training.initial_checkpoint")
_SETTINGS = tuple(name.rpartition(".")[2] for name, _, _ in config_lib.leaves(run_config.RunConfig))


def find_runs(folder: files.PathLike) -> list[pathlib.Path]:
  """The run directories in and below a folder, sorted; hidden folders are passed over.

  Raises:
    MissingDataError: there is no such folder, or no run directory in it; the message names the
      commands that make some.
  """
  folder = pathlib.Path(folder)
  found = sorted(_walk(folder)) if folder.is_dir() else []
  if not found:
    problem = "holds no run directory" if folder.is_dir() else "is no folder"
    raise errors.MissingDataError(
        f"{folder} {problem}; `./run demo` trains several runs into runs/demo, and "
        f"`python -m tpugraphs_rank.cli.train --run_dir {folder / 'first'}` trains one")
  return found


def _walk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  if any((folder / name).exists() for name in _MARKS):
    yield folder
    return
  for path in folder.iterdir():
    if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
      yield from _walk(path)


def read_runs(folder: files.PathLike) -> pd.DataFrame:
  """All runs below a folder, one row each.

  Returns:
    A frame with the columns
      run: path of the run directory, relative to the folder.
      collection, model, batch_size, seed: what was trained on what.
      every other setting in which the runs differ, by the name of its flag; lists are joined by
        commas. A setting that came with a later version is at its default for earlier runs.
      state: as status.json has it: "finished" or "stopped_early" (see DONE), "interrupted",
        "failed", or "training", at which a run that was killed stays too; otherwise "not_started"
        or "damaged".
      epoch, best_epoch: epochs trained, and that of the best checkpoint.
      valid_*: metrics of the best checkpoint on the validation split.
      seconds: all epochs together.
      problem: what is damaged or missing, and how to mend it; empty where all is well.
    What cannot be known of a damaged run is missing (NaN, NA).

  Raises:
    MissingDataError: no runs, see `find_runs`.
  """
  folder = pathlib.Path(folder)
  rows, settings = [], []
  for path in find_runs(folder):
    row, own = _run_row(path)
    rows.append({"run": path.relative_to(folder).as_posix(), **own, **row})
    settings.append(own)
  names = dict.fromkeys(name for own in (dict.fromkeys(_SETTINGS), *settings) for name in own)
  known = [own for own in settings if own]
  differing = [name for name in names if name not in _FIRST
               and len({repr(own.get(name)) for own in known}) > 1]
  metrics = sorted({name for row in rows for name in row if _is_metric(name)}, key=_metric_order)
  columns = [*_FIRST, *differing, "state", "epoch", "best_epoch", *metrics, "seconds", "problem"]
  return _frame(rows, columns)


def _run_row(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
  """What is known of a run, and its settings."""
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
  history = attempt(pd.DataFrame(columns=_HISTORY_COLUMNS), _history, path)
  row: dict[str, Any] = {
      "state": DAMAGED if problems else status.get("state", NOT_STARTED),
      "epoch": status.get("epoch"),
      "best_epoch": status.get("best_epoch") or None}  # 0: none yet.
  if "seconds" in history and len(history):
    row["seconds"] = float(history["seconds"].sum())
  if foreign:
    problems.append(foreign)
  if row["best_epoch"] and not (directory / "checkpoints" / "best.npz").is_file():
    problems.append(f"{path} has no checkpoints/best.npz: it can score nothing; train it anew in "
                    "another --run_dir")
  row.update(attempt({}, _best_metrics, directory, row, history))
  for evaluation in sorted(path.rglob("per_graph.csv")):
    attempt(None, _read_per_graph, evaluation)
  row["problem"] = "; ".join(problems)
  return row, settings


def _settings(directory: run_directory.RunDirectory) -> tuple[dict[str, Any], str]:
  """All settings by the names of their flags, and what keeps this version from using them.

  A run of another version may have settings that this one does not know. It cannot be scored here,
  but its results stand, and are not worth less.
  """
  problem = ""
  values = {name: value for name, _, value in config_lib.leaves(run_config.RunConfig)}
  try:
    values.update((name, value) for name, _, value in config_lib.leaves(directory.read_config()))
  except errors.ConfigError as error:
    problem = str(error)
    path = directory / "config.json"
    for section, settings in _object(files.read_json(path)["config"], path).items():
      values.update((f"{section}.{name}", value)
                    for name, value in _object(settings, path).items())
  settings = {
      name.rpartition(".")[2]: ",".join(map(str, value)) if isinstance(value, (list, tuple))
      else str(value) if isinstance(value, dict) else value for name, value in values.items()}
  about = directory.read_about()
  if not isinstance(about.get("collection"), str):
    raise errors.RunDirectoryError(
        f"{directory / 'config.json'} lacks about.collection; the run directory is damaged")
  return {**settings, "collection": about["collection"]}, problem


def _object(value: Any, path: pathlib.Path) -> dict[str, Any]:
  if not isinstance(value, dict):
    raise errors.RunDirectoryError(
        f"{path} holds {type(value).__name__}; expected an object: the run directory is damaged")
  return value


def _status(directory: run_directory.RunDirectory) -> dict[str, Any]:
  path = directory / "status.json"
  status = _object(directory.read_status(), path)
  for key in ("epoch", "best_epoch"):
    if not _is_number(status.get(key, 0)):
      raise errors.RunDirectoryError(
          f"{path}: {key} is {status[key]!r}; expected a number: the run directory is damaged")
  return status


def _best_metrics(directory: run_directory.RunDirectory, row: Mapping[str, Any],
                  history: pd.DataFrame) -> dict[str, float]:
  """Validation metrics of the best checkpoint; a run that is not done has them in its history."""
  path = directory / "metrics.json"
  if path.exists():
    found = _object(_object(files.read_json(path), path).get("metrics"), path)
    for name, value in found.items():
      if not _is_number(value):
        raise errors.RunDirectoryError(
            f"{path}: {name} is {value!r}; expected a number: the run directory is damaged")
    return {f"{_METRICS}{name}": float(value) for name, value in found.items()}
  best = history[history["epoch"] == row["best_epoch"]]
  found = {} if best.empty else {
      name: float(value) for name, value in best.iloc[-1].items()
      if _is_metric(name) and name != "valid_loss" and not math.isnan(value)}
  if row["state"] in DONE and not found:
    raise errors.RunDirectoryError(f"{path} is missing, though the run is {row['state']}")
  return found


def _history(path: pathlib.Path) -> pd.DataFrame:
  """The history of a run; no rows where training has not begun.

  Raises:
    DataError: it is damaged.
  """
  path = path / "history.csv"
  if not path.exists() or not path.stat().st_size:
    return pd.DataFrame(columns=_HISTORY_COLUMNS)
  history = _csv(path, _HISTORY_COLUMNS)
  wrong = [name for name in history if not pd.api.types.is_numeric_dtype(history[name])]
  if wrong:
    raise errors.DataError(f"{path}: column {wrong[0]} holds more than numbers; train the run anew")
  epochs = history["epoch"].to_numpy()
  if not np.isfinite(epochs).all() or (np.diff(epochs) <= 0).any():
    raise errors.DataError(f"{path}: the epochs do not rise row by row; train the run anew")
  return history


def _csv(path: pathlib.Path, columns: Sequence[str]) -> pd.DataFrame:
  """Reads a CSV file that has these columns and others."""
  try:
    frame = pd.read_csv(path)
  except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors.
    raise errors.DataError(f"{path} cannot be read as CSV: {str(error).strip()}") from error
  for name in columns:
    if name not in frame:
      raise errors.DataError(f"{path} has no column {name}; expected {', '.join(columns)}")
  return frame


def _frame(rows: list[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
  """A frame in which whole numbers stay whole, also where a row lacks them."""
  frame = pd.DataFrame(rows, columns=list(columns), dtype=object)
  for name in frame:
    known = frame[name].dropna()
    if len(known) and all(isinstance(value, int) and not isinstance(value, bool)
                          for value in known):
      frame[name] = frame[name].astype("Int64")
    elif len(known) and all(map(_is_number, known)) or name == "seconds":
      frame[name] = frame[name].astype("float64")
  return frame


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_metric(name: str) -> bool:
  return name.startswith(_METRICS) and name not in _SETTINGS  # `valid_fraction` is a setting.


def _metric_order(name: str) -> tuple[bool, int, str]:
  """Ranking metrics first, then the slowdowns by their K."""
  digits = "".join(character for character in name if character.isdigit())
  return bool(digits), int(digits or 0), name


def metric_columns(runs: pd.DataFrame) -> list[str]:
  """The columns of `read_runs` that hold metrics."""
  return [name for name in runs if _is_metric(name)]


def settings_that_differ(runs: pd.DataFrame, with_seed: bool = False) -> list[str]:
  """The settings in which the rows of `read_runs` differ, those without effect left out.

  Args:
    runs: of `read_runs`, or some of its rows.
    with_seed: whether the seed counts.
  """
  known = runs[runs["model"].notna()]
  names = list(runs)[:list(runs).index("state")]  # The order of `read_runs`.
  return [name for name in names if name != "run" and name not in _WITHOUT_EFFECT
          and (with_seed or name != "seed") and known[name].nunique(dropna=False) > 1]


def labels(runs: pd.DataFrame) -> pd.Series:
  """A short name for each run's settings: its model, and whatever else differs but the seed.

  Runs with equal labels are repeats of one another; a damaged run, of which no settings are known,
  is labelled by its path.
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
  """Means and standard deviations over the runs that share settings: over seeds, as a rule.

  Runs that are not done are counted and not averaged: half a training says little about settings.

  Args:
    runs: of `read_runs`.
    keys: columns that tell settings apart; None: model, batch size and every other setting that
      differs, but for the seed. With fewer keys, runs of different settings are averaged together.

  Returns:
    A frame with the keys as index (damaged runs without known settings are left out), and the
    columns
      runs, unfinished: how many are averaged, and how many are not.
      for each metric its mean, and as `<metric>_sd` the deviation with n - 1 in the denominator,
        which a single run does not have (NaN).

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
          f"no column {key!r} in the runs{config_lib.nearest(key, runs)}; there are: "
          f"{', '.join(map(str, runs))} (settings in which no runs differ have none)")
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
  """The histories of all runs below a folder, one row an epoch of a run.

  Returns:
    A frame with the columns run, model, batch_size and seed as in `read_runs`, `label` as in
    `labels`, and those of history.csv: epoch, step, loss, train_opa, valid_loss, valid_opa, ...
    Runs that have not trained an epoch have no rows; nor have runs with a damaged history, which
    are logged, and of which `read_runs` says what is wrong.

  Raises:
    MissingDataError: no runs, see `find_runs`.
  """
  folder = pathlib.Path(folder)
  runs = read_runs(folder)
  frames = []
  for (_, row), label in zip(runs.iterrows(), labels(runs)):
    try:
      history = _history(folder / row["run"])
    except errors.TpuGraphsRankError as error:
      _logger.warning("left out: %s", error)
      continue
    if len(history):
      about = {name: row[name] for name in ("run", "model", "batch_size", "seed")}
      frames.append(history.assign(**about, label=label)[[*about, "label", *history]])
  if not frames:
    return pd.DataFrame(columns=["run", "model", "batch_size", "seed", "label", *_HISTORY_COLUMNS])
  return pd.concat(frames, ignore_index=True)


def read_per_graph(folder: files.PathLike) -> pd.DataFrame:
  """All evaluations below a folder (every per_graph.csv), one row a ranker, seed and graph.

  Returns:
    A frame with the columns
      source: folder of the evaluation, relative to `folder`.
      run: the run directory that it lies in and judges, as in `read_runs`; None for an evaluation
        of several runs.
      split: "valid" or "test"; None where nothing beside the file says.
      label: of an evaluation in a run directory, the model's rows: as in `labels`; of all others:
        the ranker.
      ranker, seed, graph, family, ...: of per_graph.csv. In a run directory the seed is the run's.
    Damaged files are left out and logged. No rows where nothing was evaluated (`python -m
    tpugraphs_rank.cli.evaluate --run_dir RUN` does it).

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
      frame = _read_per_graph(path)
    except errors.TpuGraphsRankError as error:
      _logger.warning("left out: %s", error)
      continue
    row, label = next((by_path[parent] for parent in path.resolve().parents
                       if parent in by_path), (None, None))
    frame.insert(0, "source", path.parent.relative_to(folder).as_posix())
    frame.insert(1, "run", None if row is None else row["run"])
    frame.insert(2, "split", _split(path.parent))
    frame.insert(3, "label", frame["ranker"])
    if row is not None and not pd.isna(row["seed"]):
      # Evaluations number the runs that they judge from 0; here it is one, whose seed is known.
      frame["seed"] = row["seed"]
      frame.loc[frame["ranker"] == row["model"], "label"] = label
    frames.append(frame)
  if not frames:
    return pd.DataFrame(columns=["source", "run", "split", "label", *_PER_GRAPH_COLUMNS])
  return pd.concat(frames, ignore_index=True)


def _read_per_graph(path: pathlib.Path) -> pd.DataFrame:
  frame = _csv(path, _PER_GRAPH_COLUMNS)
  for name in ("seed", "opa", "kendall_tau"):
    if not pd.api.types.is_numeric_dtype(frame[name]):
      raise errors.DataError(
          f"{path}: column {name} holds more than numbers; evaluate the run anew")
  return frame


def _split(folder: pathlib.Path) -> str | None:
  """The split of an evaluation, from the results in its folder or beside it."""
  for path in (folder / "metrics.json", folder.parent / "results.json"):
    try:
      found = files.read_json(path)
    except errors.TpuGraphsRankError:
      continue
    if isinstance(found, dict) and isinstance(found.get("split"), str):
      return found["split"]
  return None
