"""The task of an evaluation: the programs of a split, what training saw, and baseline scores."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
import dataclasses
import functools
import logging

import numpy as np
import pandas as pd

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import published
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import baselines
from tpugraphs_rank.evaluation import noise
from tpugraphs_rank.evaluation import per_graph
from tpugraphs_rank.evaluation import tree_scores

_logger = logging.getLogger(__name__)

Scores = list[np.ndarray]  # For each program (c',), higher = predicted faster.

# Which configurations of a graph are evaluated.
ALL = "all"
PUBLISHED = "published"
CONFIGURATIONS = (ALL, PUBLISHED)

NEW_PROGRAMS = "programs that training never saw"
NEW_CONFIGURATIONS = "new configurations of known programs"


@dataclasses.dataclass(frozen=True)
class Task:
  """The programs of a split and their relation to the training split.

  Attributes:
    config: data settings of the evaluated run.
    collection: its collection.
    split: "valid" or "test" (or "train").
    seed: seed of the run, which divides configurations and draws programs.
    programs: the graphs and the configurations of each that are evaluated.
    seen_groups: groups with a family in training; None if the training split is missing.
    configurations: ALL or PUBLISHED (those that the published layout figures are computed on).
    train: the training programs, if they had to be read to list them.
    seen_families: families in training; None if the training split is missing.
    missing: number of graphs of the split that do not exist, if `partial` allows that.
  """

  config: run_config.DataConfig
  collection: registry.Collection
  split: str
  seed: int
  programs: tuple[splits.ProgramView, ...]
  seen_groups: AbstractSet[str] | None
  configurations: str = ALL
  train: tuple[splits.ProgramView, ...] | None = None
  seen_families: AbstractSet[str] | None = None
  missing: int = 0

  @property
  def held_back(self) -> str:
    """Describes what this split holds back from training."""
    if self.config.split_by == "configuration":
      return NEW_CONFIGURATIONS
    return NEW_PROGRAMS if self.split != "train" else "programs that training saw"

  @functools.cached_property
  def defaults(self) -> tuple[float | None, ...]:
    """For each program the runtime of its default; None if it is unknown."""
    # A public layout graph has many configurations that are neither published nor evaluated.
    everywhere = self.configurations != PUBLISHED
    return tuple(baselines.default_runtime(program, everywhere) for program in self.programs)

  @functools.cached_property
  def _with_ties(self) -> dict[str, Scores | None]:
    """What `baselines.scores_with_ties` returned, by the name of the ranker."""
    return {}

  def scores_with_ties(self, ranker: str, scores: Scores) -> Scores:
    """The scores that metrics of the first K use: where a baseline orders at random, they tie.

    Args:
      ranker: its name.
      scores: for each program (c',), with one random order.
    """
    if ranker not in self._with_ties:
      self._with_ties[ranker] = baselines.scores_with_ties(ranker, self.programs)
    with_ties = self._with_ties[ranker]
    return scores if with_ties is None else with_ties

  def evaluate(self, scores: Scores, baseline: str | None = None) -> pd.DataFrame:
    """Metrics of scores of `programs`, see `per_graph.evaluate`.

    Args:
      scores: for each program (c',).
      baseline: the baseline that has these scores; None: another ranker.
    """
    return per_graph.evaluate(
        self.programs, scores, self.collection, self.seen_groups, defaults=self.defaults,
        scores_with_ties=None if baseline is None else self.scores_with_ties(baseline, scores))

  def noise_ceilings(self, seed: int = 0) -> dict[str, noise.NoiseCeiling]:
    """For each graph the best metrics that its repeated measurements allow on this split."""
    return {
        program.graph.name: noise.noise_ceiling(
            per_graph.runtimes_of(splits.ProgramView(program.graph)), program.graph.config_keys(),
            program.choice, seed=seed)
        for program in self.programs}


def load_task(config: run_config.DataConfig, split: str, seed: int = 0,
              configurations: str | None = None) -> Task:
  """Reads the programs of a split and determines which groups training saw.

  Args:
    config: the collection and how it is divided.
    split: "train", "valid" or "test".
    seed: the seed of the evaluated run.
    configurations: ALL or PUBLISHED. None means PUBLISHED for splits with published indices (the
      validation splits of the public layout collections, divided by program), otherwise ALL.

  Raises:
    ConfigError: PUBLISHED was requested for a split without published indices.
    MissingDataError: the file of published indices is missing.
    DataError: the split has no runtimes (the public test splits have none).
    TpuGraphsRankError: see `splits.load_programs`.
  """
  collection = registry.get_collection(config.collection)
  available = config.split_by == "program" and published.is_published(collection, split)
  if configurations not in (None, ALL, PUBLISHED):
    raise errors.ConfigError(
        f"configurations is {configurations!r}; expected {ALL!r}, {PUBLISHED!r} or None")
  if configurations is None:
    configurations = PUBLISHED if available else ALL
  if configurations == PUBLISHED and not available:
    raise errors.ConfigError(
        f"no evaluation indices are published for {collection.name} {split} with "
        f"--split_by={config.split_by}; they are for the {published.SPLIT} splits of "
        f"{', '.join(published.COLLECTIONS)}, divided by program: use --configurations=all")
  if config.split_by == "program" and not collection.has_runtimes.get(split, True):
    instead = "evaluate with `--split valid`, or " if collection.has_runtimes.get("valid") else ""
    raise errors.DataError(
        f"{collection.name} {split} has no measurements, so its rankings cannot be evaluated; "
        f"{instead}rank it without an evaluation: {commands.command('predict')}")
  # Training may merge equal configurations; evaluation always uses them as published.
  loaded = splits.load(dataclasses.replace(config, duplicates="keep"), split, seed)
  _logger.info("%s", loaded.counts)
  programs = loaded.programs
  if configurations == PUBLISHED:
    programs = published.restrict(programs, collection, config.data_root)
  stems, train = _training(config, collection, seed)
  seen_groups, seen_families = (None, None) if stems is None else (
      per_graph.training_groups(collection, stems), {collection.family(stem) for stem in stems})
  return Task(config, collection, split, seed, tuple(programs), seen_groups, configurations, train,
              seen_families, loaded.counts.missing)


def _training(config: run_config.DataConfig, collection: registry.Collection, seed: int
              ) -> tuple[list[str] | None, tuple[splits.ProgramView, ...] | None]:
  """The names of the training programs, and the programs if they had to be read."""
  train: tuple[splits.ProgramView, ...] | None = None
  try:
    if config.split_by == "configuration" and registry.WHOLE in collection.splits:
      stored = registry.WHOLE
    else:
      stored = "train"
    if config.max_graphs is not None and stored == "train":
      # The draw depends on the files' contents: programs with too few configurations are skipped.
      train = tuple(splits.load_programs(config, "train", seed))
      stems = [program.graph.name for program in train]
    else:
      stems = [path.stem for path in collections.load_collection(
          collection, stored, config.data_root, config.packed, config.packed_root,
          config.partial).paths]
  except errors.MissingDataError as error:
    _logger.warning("seen and unseen groups cannot be distinguished: %s", error)
    return None, None
  return stems, train


def baseline_scores(task: Task, names: Sequence[str] = baselines.DEFAULT,
                    seeds: Sequence[int] = (0,)) -> dict[str, list[Scores]]:
  """Scores of baselines for the programs of a task.

  Hyperparameters of boosted trees and LambdaRank are chosen once on the validation split, with the
  first seed. If validation is also the evaluated split, they are chosen on the evaluated
  configurations (on a sample if there are many), which makes the trees look better than they are.
  A deterministic baseline has one entry for any number of seeds. `default_configuration` is left
  out if no program has an identifiable default; if some have none, a warning says so.

  Args:
    task: the programs.
    names: some of `baselines.NAMES`.
    seeds: the result has one entry per seed.

  Returns:
    For each baseline, for each seed, for each program (c',), in the order of `names`.

  Raises:
    UnknownNameError: a name is unknown.
    MissingDataError: the training data of the trees is missing.
  """
  scores: dict[str, list[Scores]] = {}
  for name in baselines.check_names(names):
    if name in baselines.TUNED:
      scores[name] = fitted_scores(task, seeds, name)
    elif name != "default_configuration" or _defaults(task):
      used = seeds[:1] if name in baselines.DETERMINISTIC else seeds
      scores[name] = [baselines.trivial(name, task.programs, seed) for seed in used]
  return scores


def _defaults(task: Task) -> bool:
  """Whether any program has an identifiable default. Logs how many have none."""
  lacking = sum(not baselines.has_default(program) for program in task.programs)
  if lacking == len(task.programs):
    _logger.warning("default_configuration is left out: no graph has its default among the "
                    "evaluated configurations")
  elif lacking:
    _logger.warning("default_configuration: %d of %d graphs have no identifiable default and are "
                    "ranked at random", lacking, len(task.programs))
  return lacking < len(task.programs)


def fitted_scores(task: Task, seeds: Sequence[int], how: str | tree_scores.Method
                  ) -> list[Scores]:
  """For each seed, for each program of a task (c',): the scores of tuned trees.

  Args:
    task: the programs.
    seeds: of the fits; the first one chooses the hyperparameters.
    how: a baseline of `baselines.TUNED`, or another way to fit trees.

  Raises:
    MissingDataError: the training data is missing.
    ConfigError: the library of the trees is not installed.
  """
  # Programs that the task has already read are not read again.
  train = task.train or splits.load_programs(task.config, "train", task.seed)
  valid = (task.programs if task.split == "valid"
           else splits.load_programs(task.config, "valid", task.seed))
  return tree_scores.scores(train, valid, task.programs, seeds, how)
