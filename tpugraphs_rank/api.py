"""The Python API: the functions behind the commands, under the same names. Imports TensorFlow.

    import tpugraphs_rank as tgr
    run = tgr.train("tile:xla_cpu", "runs/a", model="attention_gnn", seed=1)
    table = run.evaluate("test")   # A DataFrame, one row per graph.
    print(table.summary())         # Means with confidence intervals.
    best = run.rank(graph, k=5)    # Indices of configurations, fastest first.

Settings have the names of the flags that `tpugraphs-rank train --help` lists.
"""

from collections.abc import Mapping
import os
from typing import Any

import pandas as pd

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import plugin_trust
from tpugraphs_rank import recipes
from tpugraphs_rank import run_config
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import registry
from tpugraphs_rank.evaluation import bootstrap
from tpugraphs_rank.evaluation import per_graph
from tpugraphs_rank.evaluation import run_files
from tpugraphs_rank.evaluation import task as task_lib
from tpugraphs_rank.training import prediction
from tpugraphs_rank.training import run as run_lib
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import trainer


class Evaluation(pd.DataFrame):
  """Metrics of a run on a split: a DataFrame with one row per graph.

  Its columns are those of `evaluation.per_graph.evaluate`: names and sizes of the graph, `opa`,
  `kendall_tau`, `top1_slowdown`, `top1_gain_share` and so on. Metrics are NaN for graphs with
  nothing to rank.
  """

  @property
  def _constructor(self) -> type["Evaluation"]:
    return Evaluation

  def summary(self, by_family: bool = False) -> pd.DataFrame:
    """Means over graphs with 95 % bootstrap intervals.

    Args:
      by_family: whether to resample families instead of graphs. Graphs of one family are similar,
        so the plain intervals are too narrow for claims about new families.

    Returns:
      One row per metric that at least one graph has; the columns are `mean`, `low` and `high` (the
      ends of the interval; NaN for a single graph or family) and `graphs` (the number of graphs
      that have the metric).
    """
    rows = {}
    for name in per_graph.metric_columns(self):
      values = self[name].to_numpy(float)
      if not pd.isna(values).all():
        interval = bootstrap.mean_interval(values, list(self["family"]) if by_family else None)
        rows[name] = {"mean": interval.mean, "low": interval.low, "high": interval.high,
                      "graphs": int((~pd.isna(values)).sum())}
    summary = pd.DataFrame.from_dict(rows, orient="index",
                                     columns=["mean", "low", "high", "graphs"])
    return summary.astype({"mean": float, "low": float, "high": float})  # None becomes NaN.


class Run(run_lib.Run):
  """A trained run. `score` and `rank` take a graph; `evaluate` and `predict` a split's name."""

  def evaluate(self, split: str = "test", configurations: str | None = None,
               data_root: files.PathLike | None = None, partial: bool | None = None
               ) -> Evaluation:
    """Scores a split of the run's collection and computes all metrics. Writes nothing.

    Args:
      split: "train", "valid" or "test".
      configurations: "all", or "published" for those of the published layout results. Default:
        the published ones, where there are any.
      data_root: folder of the public collections. Default: the run's.
      partial: use the graphs that exist if others are missing. Default: as the run was trained.

    Returns:
      One row per graph; `summary()` computes means.

    Raises:
      DataError: the split has no runtimes (the released test splits have none).
      UnknownNameError: there is no such split.
      MissingDataError: the graphs are not on this machine.
    """
    data = self._data(data_root, partial)
    task = task_lib.load_task(data, split, self.config.training.seed, configurations)
    self.check_collection(task.collection)
    return Evaluation(task.evaluate(self.score_programs(task.programs)))

  def predict(self, split: str = "test", output: files.PathLike | None = None,
              data_root: files.PathLike | None = None, partial: bool | None = None
              ) -> prediction.Prediction:
    """Scores a split of the run's collection, and writes the scores and a part of a submission.

    The graphs need no runtimes. The files go to the run directory; those of a bundled run go to
    the current folder. `load()` of the result reads the scores.

    Args:
      split: a split of the run's collection.
      output: the CSV file of the submission's part. Default: `submission_part.csv`.
      data_root: folder of the public collections. Default: the run's.
      partial: use the graphs that exist if others are missing. Default: as the run was trained.

    Raises:
      UnknownNameError: there is no such split.
      MissingDataError: the graphs are not on this machine.
      OutputError: a file cannot be written.
    """
    data = self._data(data_root, partial)
    graphs = collections.load_collection(
        data.collection, split, data.data_root, data.packed, data.packed_root, data.partial)
    return prediction.predict(self, graphs, output, self.directory.output_folder)

  @property
  def history(self) -> pd.DataFrame:
    """Losses and metrics of each epoch.

    Raises:
      MissingDataError: the run has no history.csv.
      DataError: it is damaged.
    """
    path = self.directory / "history.csv"
    if not path.exists():
      raise errors.MissingDataError(f"no file {path}")
    return run_files.read_history(path.parent)

  def _data(self, data_root: files.PathLike | None, partial: bool | None
            ) -> run_config.DataConfig:
    changes: dict[str, Any] = {} if data_root is None else {"data_root": os.fspath(data_root)}
    if partial is not None:
      changes["partial"] = partial
    return config_lib.override(self.config.data, changes)


def train(collection: str | os.PathLike[str] | registry.Collection | None,
          run_dir: files.PathLike, *, config: files.PathLike | None = None,
          stop_after: int | None = None, **settings: Any) -> Run:
  """Trains a ranker, or resumes its training. A finished run is only loaded.

  Args:
    collection: name of a collection, path of its JSON descriptor, or a registered collection.
      None: the one that `config` or the defaults name.
    run_dir: an empty or new folder, or the directory of this run, which is resumed.
    config: name of a recipe (`tile_xla_cpu`), or path of a JSON file with settings.
    stop_after: stop after this many epochs in this call, to resume later.
    **settings: any settings by the names of their flags, for example `hidden_width=32`. They
      override those of `config`. `tpugraphs-rank train --help` lists them.

  Returns:
    The run, ready to score graphs.

  Raises:
    ConfigError: an unknown setting (the message suggests the nearest name) or a wrong value.
    RunDirectoryError: the directory holds a run with other settings, or is damaged.
    TpuGraphsRankError: bad data.
  """
  resolved = configuration(config, settings, collection)
  trainer.Trainer(resolved).train(run_dir, stop_after)
  return load_run(run_dir)


def configuration(config: files.PathLike | None, settings: Mapping[str, Any],
                  collection: str | os.PathLike[str] | registry.Collection | None = None
                  ) -> run_config.RunConfig:
  """The configuration of a run: the defaults, overridden by a file, overridden by settings.

  Args: as for `train`.

  Raises:
    ConfigError: an unknown setting or a wrong value.
  """
  resolved = run_config.RunConfig()
  if config is not None:
    if "plugin" in settings:  # First: the file may name models and losses that only they register.
      config_lib.override_by_flag(resolved, {"plugin": _as_list(settings["plugin"])})
    resolved = config_lib.from_dict(run_config.RunConfig, recipes.read(config), source=str(config))
  defaults = {name.rpartition(".")[2]: value
              for name, _, value in config_lib.leaves(run_config.RunConfig)}
  changes = dict(settings)
  if collection is not None:
    changes["collection"] = (collection.name if isinstance(collection, registry.Collection)
                             else collection)
  for name, value in changes.items():
    if isinstance(defaults.get(name), tuple):
      value = _as_list(value)
    changes[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
  return config_lib.override_by_flag(resolved, changes)


def _as_list(value: Any) -> list[Any] | tuple[Any, ...]:
  """A value of a setting of several: losses="mse" is losses=("mse",)."""
  value = os.fspath(value) if isinstance(value, os.PathLike) else value
  return value if isinstance(value, (list, tuple)) else (value,)


def load_run(path: files.PathLike, strict: bool = False, prior: str = "analytic",
             trust_plugins: bool = False) -> Run:
  """Loads a trained run for scoring.

  Args:
    path: the run directory, or `bundled:NAME` for a trained model that ships with the package.
    strict: whether to refuse, instead of warn about, graphs of another target and graphs with
      opcodes that training never saw.
    prior: "analytic" to score tiles of programs that are unlike the training programs with the
      run's analytic cost too, if it has one; "none" for the networks alone.
    trust_plugins: whether to run the code of plugins of the run that you have not named in a
      training of your own before. Read them first.

  Raises:
    RunDirectoryError: the directory is incomplete or damaged.
    UnknownNameError: there is no such bundled model.
    ConfigError: there is no such prior, or a plugin of the run is unknown to you.
  """
  with plugin_trust.consenting(trust_plugins):
    return Run(run_directory.RunDirectory(path), strict, prior)
