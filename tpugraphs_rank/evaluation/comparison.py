"""Compares models, each with several seeds, with baselines on the same programs."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import pandas as pd

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import metrics
from tpugraphs_rank import tables
from tpugraphs_rank.data import registry
from tpugraphs_rank.evaluation import aggregate
from tpugraphs_rank.evaluation import baselines
from tpugraphs_rank.evaluation import bootstrap
from tpugraphs_rank.evaluation import noise
from tpugraphs_rank.evaluation import per_graph
from tpugraphs_rank.evaluation import result_tables
from tpugraphs_rank.evaluation import task as task_lib
from tpugraphs_rank.training import run as run_lib
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import runtime

_TITLES = {"": "seen families, shapes never seen",
           "_unseen_groups": "groups of families never seen"}
_UNSEEN_FAMILIES = "families never seen, of groups that training saw"
_Part = Callable[[pd.DataFrame], pd.DataFrame]


def shown(collection: registry.Collection) -> tuple[str, ...]:
  """The figures in the printed table, in order. The results contain more."""
  return ("opa", "tau", *(f"top{k}_slowdown" for k in collection.slowdown_ks))


def gains_shown(collection: registry.Collection) -> tuple[str, ...]:
  """The figures in the second table: what measuring the best-scored configurations gains."""
  ks = collection.slowdown_ks
  return (*(f"top{k}_{per_graph.GAIN}" for k in ks), per_graph.MEASURED,
          *(f"top{k}_{per_graph.ACROSS}" for k in ks[:2]))


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Evaluated rankers.

  Attributes:
    task: the programs that were ranked.
    frames: for each ranker one frame of `per_graph.evaluate` per seed; the models come first.
    models: names of the models among them.
    run_dirs: for each model its run directories.
    scores: for each ranker, for each seed, for each program its scores (c',).
    seeds: for each ranker the seeds of its frames.
  """

  task: task_lib.Task
  frames: Mapping[str, Sequence[pd.DataFrame]]
  models: Sequence[str]
  run_dirs: Mapping[str, Sequence[pathlib.Path]]
  scores: Mapping[str, Sequence[task_lib.Scores]]
  seeds: Mapping[str, Sequence[int]]

  @property
  def scores_with_ties(self) -> dict[str, list[task_lib.Scores]]:
    """`scores` for metrics of the first K, see `Task.scores_with_ties`."""
    return {name: list(each) if name in self.models else [
        self.task.scores_with_ties(name, scores) for scores in each]
            for name, each in self.scores.items()}

  @property
  def parts(self) -> dict[str, _Part]:
    """The parts that are reported separately, see `aggregate.parts`."""
    return aggregate.parts(next(iter(self.frames.values()))[0])

  @property
  def chosen_on_split(self) -> list[str]:
    """The rankers that were selected on the evaluated split, which makes them look better.

    The best checkpoint of a model and the hyperparameters of the boosted trees are selected on
    validation.
    """
    if self.task.split != "valid":
      return []
    return [name for name in self.frames if name in (*self.models, *baselines.TUNED)]

  @property
  def incomplete(self) -> str:
    """States that graphs of the split are missing; "" if none is."""
    if not self.task.missing:
      return ""
    missing = "1 graph is" if self.task.missing == 1 else f"{self.task.missing} graphs are"
    return (f"partial: {missing} missing in {self.task.collection.name} {self.task.split}, so "
            "these are not the figures of the whole split")

  def differences(self, model: str, part: _Part = lambda frame: frame
                  ) -> dict[str, dict[str, bootstrap.Interval]]:
    """Paired gains of a model over each baseline, with bootstrap intervals over graphs."""
    frames = {name: [part(frame) for frame in each] for name, each in self.frames.items()}
    return bootstrap.paired_differences(
        frames, model, [name for name in self.frames if name not in self.models])

  def results(self) -> dict[str, Any]:
    """All figures as JSON values: `result_tables.summarise`, and the paired differences."""
    results = result_tables.summarise(self.frames)
    for suffix, part in self.parts.items():
      results[f"paired_differences{suffix}"] = {
          model: {baseline: {metric: interval.as_dict() for metric, interval in each.items()}
                  for baseline, each in self.differences(model, part).items()}
          for model in self.models}
    results.update(collection=self.task.collection.name, split=self.task.split,
                   held_back=self.task.held_back, configurations=self.task.configurations,
                   chosen_on_split=self.chosen_on_split, missing_graphs=self.task.missing)
    ceilings = self._noise_ceilings()
    if ceilings:
      results["noise_ceilings"] = {name: ceiling.as_dict() for name, ceiling in ceilings.items()}
    return results

  def _noise_ceilings(self) -> dict[str, noise.NoiseCeiling]:
    """The noise ceilings if new configurations of known programs are evaluated; otherwise none."""
    if self.task.held_back != task_lib.NEW_CONFIGURATIONS:
      return {}
    return self.task.noise_ceilings()

  def text(self) -> str:
    """The tables to print."""
    results = result_tables.summarise(self.frames)
    blocks = []
    for suffix, part in self.parts.items():
      header, rows = result_tables.rows_of(results, suffix, shown(self.task.collection))
      blocks.append(f"{self.task.collection.name} {self.task.split}: {self._title(suffix)} "
                    f"({self._evaluated(suffix, results)})\n{tables.text(header, rows)}")
      defined = {name for figures in results[f"models{suffix}"].values() for name in figures}
      gains = [name for name in gains_shown(self.task.collection) if name in defined]
      if gains:
        blocks.append(tables.text(*result_tables.rows_of(results, suffix, gains))
                      + "".join(f"{note}\n" for note in self.gain_notes(part)))
      for model in self.models:
        header, rows = result_tables.difference_rows(model, self.differences(model, part))
        if rows:
          blocks.append(tables.text(header, rows))
    if self.task.missing:
      blocks.append(f"{self.incomplete}\n")
    if self.chosen_on_split:
      blocks.append(f"{', '.join(self.chosen_on_split)}: checkpoints and hyperparameters were "
                    "selected on this split, which makes them look better\n")
    ceilings = self._noise_ceilings()
    if ceilings:
      blocks.append("best possible results given the noise between repeats of one configuration\n"
                    + tables.text(*result_tables.ceiling_rows(ceilings)))
    return "\n".join(blocks)

  def gain_notes(self, part: _Part = lambda frame: frame) -> list[str]:
    """Explains the figures of `gains_shown`."""
    frame = part(next(iter(self.frames.values()))[0])
    some = int(frame[f"top1_{per_graph.GAIN}"].notna().sum())
    notes = [
        f"gain: share of the attainable gain over the default, on the {some} of {len(frame)} "
        f"programs where that is {100 * metrics.LEAST_GAIN:g} % or more",
        f"measured until good: within {100 * metrics.WITHIN:g} % of the fastest"]
    ties = {name: bootstrap.seed_mean([part(each) for each in frames], "tied").mean()
            for name, frames in self.frames.items() if all("tied" in each for each in frames)}
    tied = [f"{name} {100 * share:.0f} %" for name, share in ties.items() if share >= 0.005]
    if tied:
      notes.append("equal scores, in random order: of " + ", ".join(tied) + " of configurations")
    drawn = [name for name in self.frames if name in baselines.RANDOM and name not in self.models]
    if drawn:
      notes.append(f"{', '.join(drawn)}: slowdowns and gains are means over all random orders")
    if any(name.endswith(per_graph.ACROSS) for name in frame):
      notes.append("across passes: slowdown of what one pass chooses, as another one judges it")
    return notes

  def _evaluated(self, suffix: str, results: Mapping[str, Any]) -> str:
    """The number of programs, and which of their configurations are evaluated."""
    which = "" if self.task.configurations == task_lib.ALL else (
        f", {self.task.configurations} configurations")
    return f"{results[f'graphs{suffix}']} programs{which}"

  def _title(self, suffix: str) -> str:
    """Describes what a part of the split holds back from training."""
    known = next(iter(self.frames.values()))[0]["seen"].notna().all()
    # Without named groups, each family is a group of its own, and no evaluated family was seen.
    grouped = known and self.task.collection.groups
    if not grouped or self.task.held_back != task_lib.NEW_PROGRAMS:
      return self.task.held_back
    families = set(self.parts[suffix](next(iter(self.frames.values()))[0])["family"])
    if not suffix and not families & set(self.task.seen_families or ()):
      return _UNSEEN_FAMILIES
    return _TITLES[suffix]

  def per_graph(self) -> pd.DataFrame:
    """All frames with the columns `ranker`, `seed` and `split`, concatenated."""
    return pd.concat([
        frame.assign(ranker=name, seed=seed, split=self.task.split)
        for name, frames in self.frames.items() for seed, frame in zip(self.seeds[name], frames)])


def compare(run_dirs: Mapping[str, Sequence[files.PathLike]], split: str, seeds: Sequence[int],
            baseline_names: Sequence[str] = baselines.DEFAULT, data_root: str | None = None,
            strict: bool = False, configurations: str | None = None, partial: bool | None = None,
            prior: str = "analytic") -> Comparison:
  """Evaluates runs and baselines on one split.

  Args:
    run_dirs: for each model its run directories, one per seed; all of one collection.
    split: "valid" or "test".
    seeds: seeds of the baselines.
    baseline_names: names of baselines.
    data_root: folder of the public collections; None: that of the runs.
    strict: refuse graphs that a run does not support, instead of warning.
    configurations: which configurations of a graph are evaluated, see `task.load_task`.
    partial: use the graphs that exist if others are missing; None: as the runs were trained.
    prior: "analytic" or "none", see `training.run.load_run`.

  Raises:
    ConfigError: the runs differ in their data; or they divide the configurations of known programs
      with different seeds, so that one run was trained on test data of another.
    DataError: the split has no runtimes.
    TpuGraphsRankError: a run or the data cannot be read.
  """
  first = run_directory.RunDirectory(next(iter(run_dirs.values()))[0])
  # Without a limit, TensorFlow starts one thread per core for each kind of work.
  runtime.limit_threads(first.read_config().training.threads)
  runs = {model: [run_lib.load_run(path, strict, prior) for path in paths]
          for model, paths in run_dirs.items()}
  every = [run for each in runs.values() for run in each]
  for run in every:
    if config_lib.differences(run.config.data, every[0].config.data):
      raise errors.ConfigError(
          f"{run.directory} and {every[0].directory} were trained on different data; "
          "compare runs of one collection with the same splits")
    if (run.config.data.split_by == "configuration"
        and run.config.training.seed != every[0].config.training.seed):
      raise errors.ConfigError(
          f"{run.directory} and {every[0].directory} divide configurations with "
          "different seeds, so that one was trained on test data of the other; evaluate them "
          "separately")
  config = every[0].config.data
  if data_root is not None:
    config = dataclasses.replace(config, data_root=data_root)
  if partial is not None:
    config = dataclasses.replace(config, partial=partial)
  task = task_lib.load_task(config, split, every[0].config.training.seed, configurations)
  scores: dict[str, list[task_lib.Scores]] = {}
  for model, each in runs.items():
    for run in each:
      run.check_collection(task.collection)
      scores.setdefault(model, []).append(run.score_programs(task.programs))
  frames = {name: [task.evaluate(values) for values in each] for name, each in scores.items()}
  for name, values in task_lib.baseline_scores(task, baseline_names, seeds).items():
    scores[name] = values
    frames[name] = [task.evaluate(each, name) for each in values]
  return Comparison(task, frames, tuple(run_dirs),
                    {model: [run.directory.path for run in each]
                     for model, each in runs.items()}, scores,
                    {name: [run.config.training.seed for run in runs[name]] if name in runs
                     else list(seeds) for name in scores})
