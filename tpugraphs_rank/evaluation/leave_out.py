"""Leave-one-group-out: how a recipe and baselines rank groups of programs that training never saw.

For each group of the training and validation splits, the recipe is trained on the other groups and
evaluated on this one (`data.folds`). The folder of the results holds one folder per group, with its
descriptor, its run directory, and one table per ranker. What exists is reused, so an interrupted
evaluation resumes, and further baselines can be added.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import hashlib
import logging
import math
import pathlib
from typing import Any

import numpy as np
import pandas as pd

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import folder_settings
from tpugraphs_rank import run_config
from tpugraphs_rank import tables
from tpugraphs_rank.data import folds as folds_lib
from tpugraphs_rank.data import registry
from tpugraphs_rank.evaluation import aggregate
from tpugraphs_rank.evaluation import baselines as baselines_lib
from tpugraphs_rank.evaluation import per_graph
from tpugraphs_rank.evaluation import result_tables
from tpugraphs_rank.evaluation import run_files
from tpugraphs_rank.evaluation import task as task_lib
from tpugraphs_rank.training import run_directory

_logger = logging.getLogger(__name__)

_LEFT_OUT = "left_out"
_SHOWN = ("kendall_tau", "top1_slowdown", "top10_slowdown")


@dataclasses.dataclass(frozen=True)
class Results:
  """Rankers on groups that they were not fitted to.

  Attributes:
    collection: the collection that was divided.
    by: "group" or "family".
    model: name of the model; "" if none was trained.
    frames: for each ranker the rows of `per_graph.evaluate` of all groups, with the column
      `left_out`.
  """

  collection: registry.Collection
  by: str
  model: str
  frames: Mapping[str, pd.DataFrame]

  @property
  def names(self) -> list[str]:
    """The groups, in order."""
    return list(dict.fromkeys(next(iter(self.frames.values()))[_LEFT_OUT]))

  def rows(self) -> pd.DataFrame:
    """All frames with the column `ranker`, concatenated."""
    return pd.concat([frame.assign(ranker=ranker) for ranker, frame in self.frames.items()])

  def by_group(self, ranker: str, column: str) -> np.ndarray:
    """(n,) means over the programs of each group; NaN where no program has the metric."""
    means = self.frames[ranker].groupby(_LEFT_OUT, sort=False)[column].mean()
    return means.reindex(self.names).to_numpy(np.float64)

  def to_json(self) -> dict[str, Any]:
    """All figures as JSON values."""
    columns = per_graph.metric_columns(next(iter(self.frames.values())))
    results: dict[str, Any] = {
        "collection": self.collection.name, "leave_out": self.by, "model": self.model,
        "split": "train and valid", "groups": {
            name: {ranker: aggregate.summary(frame[frame[_LEFT_OUT] == name])
                   for ranker, frame in self.frames.items()} for name in self.names},
        "mean_over_groups": {
            ranker: {column: mean_and_error(self.by_group(ranker, column)) for column in columns}
            for ranker in self.frames}}
    if self.model:
      results["paired_differences"] = {
          ranker: {column: mean_and_error(self._gains(ranker, column)) for column in columns}
          for ranker in self.frames if ranker != self.model}
    return results

  def _gains(self, ranker: str, column: str) -> np.ndarray:
    """(n,) gains of the model over a ranker, positive where it is better."""
    gains = self.by_group(self.model, column) - self.by_group(ranker, column)
    return gains if per_graph.higher_is_better(column) else -gains

  def text(self) -> str:
    """The tables to print."""
    rankers = list(self.frames)
    sizes = next(iter(self.frames.values()))[_LEFT_OUT].value_counts()
    blocks = []
    for column in _SHOWN:
      values = {ranker: self.by_group(ranker, column) for ranker in rankers}
      rows = [[name, str(sizes[name]), *(_cell(column, values[ranker][place])
                                         for ranker in rankers)]
              for place, name in enumerate(self.names)]
      rows.append(["mean ± standard error", str(sizes.sum()), *(
          _cell_with_error(column, mean_and_error(values[ranker])) for ranker in rankers)])
      blocks.append(f"{_title(column)}\n"
                    + tables.text([f"{self.by} left out", "programs", *rankers], rows))
    others = [ranker for ranker in rankers if ranker != self.model]
    if self.model and others:
      rows = [[ranker, *(_cell_with_error(column, mean_and_error(self._gains(ranker, column)))
                         for column in _SHOWN)] for ranker in others]
      blocks.append(tables.text([f"gain of {self.model} over", *map(_title, _SHOWN)], rows))
    return (f"{self.collection.name}, training and validation programs: each {self.by} is ranked "
            "by what was fitted to the others\n\n" + "\n".join(blocks))


def mean_and_error(values: np.ndarray) -> dict[str, float | int | None]:
  """Mean and standard error sd / sqrt(n) of the values that are not NaN; None where undefined."""
  known = values[~np.isnan(values)]
  return {"mean": float(known.mean()) if known.size else None,
          "se": float(known.std(ddof=1) / math.sqrt(known.size)) if known.size > 1 else None,
          "n": int(known.size)}


def _title(column: str) -> str:
  names = {column: name for name, column in result_tables.FIGURES.items()}
  return result_tables.TITLES[names[column]]


def _cell(column: str, value: float) -> str:
  scale, digits, unit = result_tables.style(column)
  return "-" if math.isnan(value) else f"{scale * value:.{digits}f}{unit}"


def _cell_with_error(column: str, value: Mapping[str, float | int | None]) -> str:
  if value["mean"] is None:
    return "-"
  scale, digits, unit = result_tables.style(column)
  error = "" if value["se"] is None else f" ± {scale * value['se']:.{digits}f}"
  return f"{scale * value['mean']:.{digits}f}{error}{unit}"


def evaluate(config: run_config.RunConfig, folder: files.PathLike, by: str = "group",
             baselines: Sequence[str] = baselines_lib.DEFAULT, epochs: int | None = None,
             strict: bool = False) -> Results:
  """Trains on all groups but one, and ranks that one, for each group.

  Args:
    config: the recipe. Its collection is divided by program.
    folder: of the results; an evaluation of the same recipe resumes in it.
    by: "group" or "family".
    baselines: names of baselines.
    epochs: epochs of each training; None: those of the recipe; 0: baselines only.
    strict: refuse graphs that a run does not support, instead of warning.

  Raises:
    ConfigError: the recipe divides configurations, or starts from the weights of another run, which
      may have seen the group; there is nothing to evaluate; or as for `folds.leave_one_out`.
    RunDirectoryError: the folder holds an evaluation of something else.
    TpuGraphsRankError: bad data.
  """
  baselines_lib.check_names(baselines)
  _check(config, by, baselines, epochs)
  collection = registry.get_collection(config.data.collection)
  folds = folds_lib.leave_one_out(collection, by, config.data.data_root, config.data.partial)
  folder = pathlib.Path(folder)
  changes: dict[str, Any] = {"training.validation_configs": "all"}
  if epochs:
    changes["training.epochs"] = epochs
  config = config_lib.override(config, changes)
  # What baselines depend on. The run directory of each fold compares all settings of the model.
  folder_settings.check(folder, {
      "collection": collection.name, "leave_out": by, "seed": config.training.seed,
      **{name: value for name, field, value in config_lib.leaves(config.data)
         if field.metadata.get("hashed", True) and name != "collection"},
      "programs": hashlib.sha256(repr([tuple(fold) for fold in folds]).encode()).hexdigest()[:16]})
  names = [fold.name for fold in folds]
  parts: dict[str, list[pd.DataFrame]] = {}
  for number, fold in enumerate(folds, start=1):
    _logger.info("%s %s (%d of %d) is left out: %d programs; %d train, %d validate", by, fold.name,
                 number, len(folds), *map(len, (fold.files[split]
                                                for split in ("test", "train", "valid"))))
    place = folder / folds_lib.folder_name(fold.name, names)
    frames = _evaluate_fold(config, collection, fold, place, baselines, epochs != 0, strict)
    for ranker, frame in frames.items():
      parts.setdefault(ranker, []).append(frame.assign(**{_LEFT_OUT: fold.name}))
  # A baseline may be undefined for some groups, such as a default that is not known.
  complete = {ranker: pd.concat(frames, ignore_index=True) for ranker, frames in parts.items()
              if len(frames) == len(folds)}
  for ranker in set(parts) - set(complete):
    _logger.warning("%s is left out: it is not defined for %d of the %d groups", ranker,
                    len(folds) - len(parts[ranker]), len(folds))
  return Results(collection, by, config.model.model if epochs != 0 else "", complete)


def _check(config: run_config.RunConfig, by: str, baselines: Sequence[str], epochs: int | None
           ) -> None:
  if config.data.split_by != "program":
    raise errors.ConfigError(
        f"the run divides the configurations of known programs, so no {by} can be left out; use a "
        "run with --split_by=program")
  if epochs != 0 and config.training.initial_checkpoint is not None:
    raise errors.ConfigError(
        f"the run starts from the weights of {config.training.initial_checkpoint}, which may have "
        f"been trained on the {by} that is left out; use a run without --initial_checkpoint, or "
        "--epochs=0 for the baselines only")
  if epochs == 0 and not baselines:
    raise errors.ConfigError("--epochs=0 trains no model, and there are no baselines; name some")


def _evaluate_fold(config: run_config.RunConfig, collection: registry.Collection,
                   fold: folds_lib.Fold, folder: pathlib.Path, baselines: Sequence[str],
                   trains: bool, strict: bool) -> dict[str, pd.DataFrame]:
  """The rows of each ranker for one fold; those that exist are read."""
  descriptor = folder / "collection.json"
  folds_lib.write(collection, fold, descriptor, config.data.data_root)
  config = config_lib.override(config, {
      "data.collection": str(descriptor), "data.partial": False,
      # Packed files of the collection itself hold other splits.
      "data.packed_root": str(folder / "packed")})
  seed = config.training.seed
  # Read when something must be scored.
  task: list[task_lib.Task] = []

  def loaded() -> task_lib.Task:
    if not task:
      task.append(task_lib.load_task(config.data, "test", seed))
    return task[0]

  frames: dict[str, pd.DataFrame] = {}
  if trains:
    frame = _stored(folder, config.model.model, lambda: loaded().evaluate(
        _trained_scores(config, folder / "run", loaded(), strict)), _same_run(config, folder))
    assert frame is not None
    frames[config.model.model] = frame
  for name in baselines:
    frame = _stored(folder, name, functools.partial(_baseline_rows, loaded, name, seed))
    if frame is not None:
      frames[name] = frame
  return frames


def _baseline_rows(loaded: Callable[[], task_lib.Task], name: str, seed: int
                   ) -> pd.DataFrame | None:
  task = loaded()
  scores = task_lib.baseline_scores(task, (name,), (seed,))
  return task.evaluate(scores[name][0], name) if name in scores else None


def _stored(folder: pathlib.Path, ranker: str, compute: Callable[[], pd.DataFrame | None],
            usable: bool = True) -> pd.DataFrame | None:
  """The rows of a ranker in a fold's folder, computed unless they exist and may be used."""
  # Earlier versions wrote the metrics of one random order under the plain names.
  orders = "_all_orders" if ranker in baselines_lib.RANDOM else ""
  path = folder / f"per_graph_{ranker}{orders}.csv"
  if usable and path.is_file():
    return run_files.read_csv(path, ("graph", *per_graph.RANKING_COLUMNS, "top1_slowdown"))
  frame = compute()
  if frame is not None:
    files.write_text(path, frame.to_csv(index=False))
  return frame


def _same_run(config: run_config.RunConfig, folder: pathlib.Path) -> bool:
  """Whether the fold's run exists and is finished; raises if it has other settings."""
  directory = run_directory.RunDirectory(folder / "run")
  if not (directory / "config.json").exists():
    return False
  folder_settings.refuse_if_different(
      directory.path, config_lib.differences(directory.read_config(), config),
      "Choose another --output, or the stored settings (--epochs) to resume")
  return directory.read_status().get("state") in run_directory.DONE


def _trained_scores(config: run_config.RunConfig, run_dir: pathlib.Path, task: task_lib.Task,
                    strict: bool) -> task_lib.Scores:
  # These import TensorFlow, which baselines do not need.
  from tpugraphs_rank.training import run as run_lib
  from tpugraphs_rank.training import trainer
  result = trainer.Trainer(config).train(run_dir)
  if result.state not in run_directory.DONE:
    raise errors.TrainingError(
        f"the training in {run_dir} was {result.state}; run the same command again to resume it")
  return run_lib.load_run(run_dir, strict).score_programs(task.programs)
